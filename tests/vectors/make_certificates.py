"""Deletion certificates: their documents, signed and in batches, sound, changed and contradicting themselves."""

import copy
import hashlib

import rfc8785

from tests.vectors.encoding import seed
from vault.crypto.signing import SigningKey, encode_base64url, sign_compact
from vault.errors import FormatError, IntegrityError, Tampered
from vault.tlog.certificate import verify_certificate
from vault.tlog.merkle import Tree
from vault.tlog.statements import PUBLISHED

NAME = "certificates"
ABOUT = (
    "Compact JWS of deletion certificates, to be verified with the issuer's 32-byte Ed25519 key `issuer`. `document` "
    "is what was signed. With `batch`, the certificate proves that it belongs to a batch of `size` with that `root`. "
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


def outcome(jws):
    """Return what verification gave."""
    try:
        verify_certificate(jws, ISSUER.public)
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
        signed("a hold in force", "contradiction", changed("authorisation.active_holds", 1)),
        signed("before its date without two people", "contradiction", document() | late()),
        signed("another tenant's coordinate", "contradiction", changed("parties.tenant", "southgate")),
        signed("final before it is complete", "contradiction", changed("sanitisation.completed", None)),
        signed("final with a copy unknown", "contradiction", changed("sanitisation.key_copies", copies(final=False))),
        signed("words that are not its version's", "contradiction", changed("claims.texts", ["Trust us."])),
        *batches(),
    ]


def late():
    """Return a retention whose date lies after the deletion."""
    return {"retention": {**document()["retention"], "trigger": "art17", "retain_until": "2026-03-28T09:30:00.000000Z"}}
