"""Deletion certificates: their documents, signed and in batches, sound, changed and contradicting themselves."""

import copy
import hashlib

import rfc8785

from tests.vectors.encoding import seed
from vault.certificates.batch import Tree
from vault.certificates.document import verify_certificate, verify_objects
from vault.certificates.statements import PUBLISHED
from vault.crypto.derive import commitment
from vault.crypto.signing import SigningKey, encode_base64url, sign_compact
from vault.errors import FormatError, IntegrityError, Tampered
from vault.model import DataKey

NAME = "certificates"
ABOUT = (
    "Compact JWS of deletion certificates, to be verified with the issuer's 32-byte Ed25519 key `issuer`. `document` "
    "is what was signed. With `objects`, that list of objects is held against it. "
    "With `batch`, the certificate proves that it belongs to a batch of `size` with that `root`. "
    "`contradiction`: signed and well formed, and not evidence."
)

ISSUER = SigningKey(seed("certificate issuer"))
STRANGER = SigningKey(seed("another issuer"))
CERTIFICATE = "callvault-deletion-certificate+jws"
BATCH = "callvault-certificate-batch+jws"
RECORDING = "rec_018f3a5c7d2e7b3a9c4d5e6f70819203"
OBJECT = f"v1/northgate/20512/{RECORDING}/manifest"
DUE, SWEEP, GONE, DONE = (
    f"2026-02-{day}T{time}.000000Z"
    for day, time in [("28", "09:30:00"), ("28", "23:30:00"), ("28", "23:30:02"), ("28", "23:31:02")]
)
CLEAR = "2026-02-28T23:30:17.000000Z"


def copies(*, final):
    result = "done" if final else "unknown"
    return [
        {"where": "keyring_replica", "action": "written without the leaf", "result": "done", "at": SWEEP},
        {"where": "provider_version", "action": "root version destroyed", "result": "done", "at": GONE},
        {"where": "cache_leases", "action": "leases run out", "result": result, "at": CLEAR if final else GONE},
        {"where": "backups", "action": "hold coordinates, never keys", "result": "not_applicable", "at": GONE},
    ]


def document(*, final=True):
    """Return a certificate of schema v1 as plain JSON values."""
    checks = ["old_epoch_unwrap_fails", "leaf_underivable"] + (["objects_absent"] if final else [])
    texts = {name: PUBLISHED[name] for name in ("callvault/claims/v1", "callvault/non-claims/best-effort/v1")}
    claims, non_claims = ({"version": name, "texts": list(each)} for name, each in texts.items())
    item = {"name": OBJECT, "versions": 1, "ciphertext_bytes": 700, "ciphertext_sha256": seed("object").hex()}
    removed = {"object": OBJECT, "action": "every version deleted", "result": "done", "at": DONE}
    return {
        "schema": "callvault/deletion-certificate/v1",
        "certificate_id": "cert_" + ("e5" if final else "b2") * 16,
        "nonce": seed("certificate nonce", 16).hex(),
        "status": "final" if final else "provisional",
        "supersedes": "cert_" + "b2" * 16 if final else None,
        "parties": {
            "tenant": "northgate",
            "controller": "Northgate College",
            "processor": "Callvault operator",
            "contact": "privacy@example.org",
        },
        "media": {"recording_id": RECORDING, "parts": ["audio"], "objects": [item], "region": "United Kingdom"},
        "encryption": {
            "algorithm": "AES-256-GCM in c2sp.org/chunked-encryption (Cobblestone-256); keys from an HMAC-SHA-256 tree",
            "coordinate": ["northgate", "audio", 20_512, 3, 7],
            "key_commitment": None,
            "encrypted_before_first_write": True,
        },
        "retention": {
            "policy": "recording",
            "policy_version": "1",
            "basis": "default of class recording",
            "captured_at": "2025-11-30T09:30:00.000000Z",
            "retain_until": DUE,
            "trigger": "expiry",
            "case_reference": None,
        },
        "authorisation": {"holds_checked_at": SWEEP, "hold_revision": 0, "active_holds": 0, "approvers": []},
        "sanitisation": {
            "category": "purge",
            "technique": "cryptographic erase",
            "epoch_destroyed": 41,
            "provider": "file",
            "assurance": "best_effort",
            "key_copies": copies(final=final),
            "data_copies": [removed] if final else [],
            "tool": "callvault",
            "tool_version": "0.1.0",
            "actor": "sweeper",
            "started": SWEEP,
            "unrecoverable_at": GONE,
            "caches_clear_at": CLEAR,
            "completed": DONE if final else None,
        },
        "verification": {
            "checks": [{"check": name, "result": "done"} for name in checks],
            "at": DONE if final else GONE,
        },
        "residuals": [],
        "claims": claims,
        "non_claims": non_claims,
        "log": None,
    }


def changed(path, value, **how):
    """Return the document with one member replaced."""
    found = place = copy.deepcopy(document(**how))
    *above, last = path.split(".")
    for name in above:
        place = place[name]
    place[last] = value
    return found


def outcome(jws, objects=None):
    """Return what verification gave."""
    try:
        verified = verify_certificate(jws, ISSUER.public)
        if objects is not None:
            verify_objects(objects, verified.certificate)
    except FormatError:
        return "format"
    except Tampered:
        return "tampered"
    except IntegrityError:
        return "contradiction"
    return "ok"


def case(name, expected, jws, *, payload=None, batch=None):
    assert outcome(jws) == expected, (name, outcome(jws))
    found = {"name": name, "outcome": expected, "issuer": ISSUER.public.raw.hex(), "jws": jws}
    if payload is not None:
        found["document"] = payload.decode()
    return found | ({} if batch is None else {"batch": batch})


def signed(name, expected, value, *, key=ISSUER, typ=CERTIFICATE):
    payload = value if isinstance(value, bytes) else rfc8785.dumps(value)
    jws = sign_compact(payload, key, {"typ": typ})
    return case(name, expected, jws, payload=payload if expected == "ok" else None)


def batch_of(documents, **changes):
    """Return the tree over documents and its signed statement."""
    tree = Tree([hashlib.sha256(b"\0" + each).digest() for each in documents])
    statement = {
        "schema": "callvault/certificate-batch/v1",
        "batch_id": "bat_" + "c7" * 16,
        "issued_at": GONE,
        "size": len(documents),
        "root": tree.root.hex(),
    }
    return tree, sign_compact(rfc8785.dumps(statement | changes), ISSUER, {"typ": BATCH})


def member(tree, statement, documents, index, **changes):
    headers = {
        "typ": CERTIFICATE,
        "batch": statement,
        "batch_index": str(index),
        "batch_path": encode_base64url(b"".join(tree.path(index))),
    }
    kept = {name: value for name, value in (headers | changes).items() if value is not None}
    return sign_compact(documents[index], ISSUER, kept)


def batches():
    documents = [
        rfc8785.dumps(changed("certificate_id", f"cert_{number:032x}", final=bool(number % 2))) for number in range(5)
    ]
    tree, statement = batch_of(documents)
    facts = {"size": 5, "root": tree.root.hex()}
    whole = [
        case(
            f"number {index} of a batch of five",
            "ok",
            member(tree, statement, documents, index),
            payload=documents[index],
            batch={**facts, "index": index, "statement": statement},
        )
        for index in (0, 3, 4)
    ]
    alone, only = batch_of(documents[:1])
    _, larger = batch_of(documents, size=6)
    return [
        *whole,
        case(
            "the only one of its batch",
            "ok",
            member(alone, only, documents, 0),
            payload=documents[0],
            batch={"size": 1, "root": alone.root.hex(), "index": 0, "statement": only},
        ),
        case("another's place in the batch", "tampered", member(tree, statement, documents, 3, batch_index="2")),
        case("a statement of another size", "tampered", member(tree, larger, documents, 4)),
        case("a place without a path", "format", member(tree, statement, documents, 3, batch_path=None)),
        case("a place with a leading zero", "format", member(tree, statement, documents, 3, batch_index="03")),
    ]


OBJECTS = [
    {"bytes": size, "name": OBJECT.replace("manifest", name), "sha256": seed(name).hex()}
    for name, size in (("manifest", 700), (f"000000-{'a1' * 16}.seg", 1_440_500), (f"000001-{'a2' * 16}.seg", 90_000))
]
ERASURE = "era_" + "f0" * 16
LATER = "2026-03-28T09:30:00.000000Z"


def leaves():
    return [hashlib.sha256(b"\0" + rfc8785.dumps(each)).digest() for each in OBJECTS]


def second(*, final=True):
    """Return a certificate of schema v2 for an erasure of both parts, as plain JSON values."""
    older = document(final=final)
    names = ("callvault/claims/audio-and-metadata/v1", "callvault/non-claims/best-effort/v2")
    claims, non_claims = ({"version": name, "texts": list(PUBLISHED[name])} for name in names)
    reference = b"\0".join((b"callvault/case-reference/v1", ERASURE.encode(), b"DSR-2026-17"))
    policy = {"name": "recording", "version": "callvault/retention/v1", "period": "90d"}
    removed = {"where": "object_store", "action": "3 names deleted", "result": "done", "at": DONE}
    said = older["sanitisation"]
    return {
        **{
            name: older[name] for name in ("certificate_id", "nonce", "status", "supersedes", "parties", "verification")
        },
        "schema": "callvault/deletion-certificate/v2",
        "trial": False,
        "recording": {
            "id": RECORDING,
            "parts": [
                {
                    "part": part,
                    "coordinate": ["northgate", part, period, 3, 7],
                    "key_commitment": commitment(DataKey(seed(f"{part} key"))).hex(),
                    "shredded_at": GONE,
                }
                for part, period in (("audio", 20_512), ("metadata", 24_310))
            ],
        },
        "data": {
            "objects": {
                "count": 3,
                "bytes": sum(each["bytes"] for each in OBJECTS),
                "root": Tree(leaves()).root.hex(),
            },
            "region": {"stated": "United Kingdom", "checked": None, "checked_at": None},
        },
        "encryption": {"algorithm": older["encryption"]["algorithm"], "encrypted_before_first_write": True},
        "retention": {
            "captured": policy,
            "applied": policy,
            "captured_at": older["retention"]["captured_at"],
            "received_at": older["retention"]["captured_at"],
            "retain_until": LATER,
            "instruction": None,
        },
        "trigger": {
            "kind": "art17",
            "case": {"id": ERASURE, "reference_sha256": hashlib.sha256(reference).hexdigest()},
            "range": None,
        },
        "authorisation": {
            "hold_revision": 42,
            "active_holds": 0,
            "holds_checked_at": SWEEP,
            "deciders": [
                {"person": None, "token": f"tok_{number:032x}", "role": role, "at": SWEEP, "evidence": None}
                for number, role in enumerate(("compliance", "dpo"))
            ],
        },
        "sanitisation": {name: value for name, value in said.items() if name != "actor"}
        | {"data_copies": [removed] if final else []},
        "residuals": [{"where": "backups", "state": "without a key", "until": None, "mechanism": "they age"}],
        "log": None,
        "claims": claims,
        "non_claims": non_claims,
    }


def altered(path, value, **how):
    """Return the document of version 2 with one member replaced."""
    found = place = second(**how)
    *above, last = (int(step) if step.isdigit() else step for step in path.split("."))
    for name in above:
        place = place[name]
    place[last] = value
    return found


def with_list(name, expected, objects, **changes):
    """Return a case of a sound certificate and a list of objects beside it."""
    jws = sign_compact(rfc8785.dumps(second()), ISSUER, {"typ": CERTIFICATE})
    text = rfc8785.dumps({"certificate_id": second()["certificate_id"], "objects": objects, **changes})
    assert outcome(jws, text) == expected, (name, outcome(jws, text))
    payload = {"document": rfc8785.dumps(second()).decode()} if expected == "ok" else {}
    issuer = ISSUER.public.raw.hex()
    return {"name": name, "outcome": expected, "issuer": issuer, "jws": jws, "objects": text.decode(), **payload}


def seconds():
    """Return the cases of version 2."""
    alone = second()["recording"]["parts"][1:]
    return [
        signed("version 2, final", "ok", second()),
        signed("version 2, provisional", "ok", second(final=False)),
        signed("version 2 from a trial vault", "ok", altered("trial", value=True)),
        signed("version 2 without commitments", "ok", altered("recording.parts.0.key_commitment", None)),
        signed("version 2 with a member of version 1", "format", second() | {"media": {}}),
        signed("version 2 without a member", "format", {k: v for k, v in second().items() if k != "trigger"}),
        signed("version 2 with a number for a truth value", "format", altered("trial", 0)),
        signed(
            "version 2 with a day that does not exist",
            "format",
            altered("verification.at", "2026-02-30T00:00:00.000000Z"),
        ),
        signed(
            "version 2 with an hour that does not exist",
            "format",
            altered("verification.at", DONE.replace("T23", "T24")),
        ),
        signed("version 2 with an unknown part", "format", altered("recording.parts.0.part", "video")),
        signed("a certificate's id for a recording", "contradiction", altered("recording.id", "cert_" + "0" * 32)),
        signed("parts out of order", "contradiction", altered("recording.parts", second()["recording"]["parts"][::-1])),
        signed("a part with another's coordinate", "contradiction", altered("recording.parts.0.part", "metadata")),
        signed("metadata with objects", "contradiction", altered("recording.parts", alone)),
        signed("a commitment in capitals", "contradiction", altered("recording.parts.0.key_commitment", "AB" * 32)),
        signed(
            "one person twice",
            "contradiction",
            altered("authorisation.deciders.1", second()["authorisation"]["deciders"][0]),
        ),
        signed("expired early", "contradiction", altered("trigger", {"kind": "expiry", "case": None, "range": None})),
        signed(
            "a range that is empty",
            "contradiction",
            altered("trigger", {"kind": "range", "case": None, "range": {"from_byte": 5, "to_byte": 5}}),
        ),
        signed("provisional and completed", "contradiction", altered("sanitisation.completed", DONE, final=False)),
        signed("final with objects left", "contradiction", altered("sanitisation.data_copies", [])),
        signed(
            "final with an unknown key copy", "contradiction", altered("sanitisation.key_copies.2.result", "unknown")
        ),
        signed("a key that went before it began", "contradiction", altered("recording.parts.1.shredded_at", DUE)),
        with_list("the list of objects", "ok", OBJECTS),
        with_list("an object less", "contradiction", OBJECTS[1:]),
        with_list("objects in another order", "contradiction", OBJECTS[::-1]),
        with_list("another certificate's list", "contradiction", OBJECTS, certificate_id="cert_" + "b2" * 16),
        with_list("a list with a member too many", "format", OBJECTS, more=1),
    ]


def cases():
    sound = document()
    jws = sign_compact(rfc8785.dumps(sound), ISSUER, {"typ": CERTIFICATE})
    header, payload, signature = jws.split(".")
    other = sign_compact(rfc8785.dumps(document(final=False)), ISSUER, {"typ": CERTIFICATE}).split(".")
    return [
        signed("a final certificate", "ok", sound),
        signed("a provisional certificate", "ok", document(final=False)),
        signed("another issuer's", "tampered", sound, key=STRANGER),
        case("another document under the signature", "tampered", f"{header}.{other[1]}.{signature}"),
        case("padded base64url", "format", f"{header}.{payload}.{signature}=="),
        signed("another type", "format", sound, typ=BATCH),
        signed("not canonical", "format", rfc8785.dumps(sound).replace(b'{"', b'{ "', 1)),
        signed("a member too many", "format", sound | {"zebra": 1}),
        signed("a member too few", "format", {name: value for name, value in sound.items() if name != "log"}),
        signed("a number for a boolean", "format", changed("encryption.encrypted_before_first_write", 1)),
        signed("another kind of id", "contradiction", changed("media.recording_id", "cert_" + "0" * 32)),
        signed("a hold in force", "contradiction", changed("authorisation.active_holds", 1)),
        signed("before its date without two people", "contradiction", document() | late()),
        signed("another tenant's coordinate", "contradiction", changed("parties.tenant", "southgate")),
        signed("final before it is complete", "contradiction", changed("sanitisation.completed", None)),
        signed("final with a copy unknown", "contradiction", changed("sanitisation.key_copies", copies(final=False))),
        signed("words that are not its version's", "contradiction", changed("claims.texts", ["Trust us."])),
        *batches(),
        *seconds(),
    ]


def late():
    """Return a retention whose date lies after the deletion."""
    return {"retention": {**document()["retention"], "trigger": "art17", "retain_until": "2026-03-28T09:30:00.000000Z"}}
