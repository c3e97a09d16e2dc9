"""A verifier of certificates of version 2, written from docs/certificates.md alone, without code of the vault."""

import hashlib
import json
import re
from datetime import UTC, datetime

ID = re.compile(r"[a-z]{2,5}_[0-9a-f]{32}", re.ASCII)
HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
EMPTY_ROOT = hashlib.sha256(b"").hexdigest()
OPEN = {"failed", "unknown"}
KEY_CHECKS = {"old_epoch_unwrap_fails", "leaf_underivable"}


class Bad(Exception):
    """The bytes are not what they should be; its text is the vector's outcome."""


def text(value):
    return type(value) is str


def flag(value):
    return type(value) is bool


def number(value):
    return type(value) is int and 0 <= value < 1 << 53


def time(value):
    try:
        return text(value) and datetime.strptime(value, TIME).replace(tzinfo=UTC).strftime(TIME).zfill(27) == value
    except ValueError:
        return False


def null(value):
    return value is None


def among(*values):
    return lambda value: text(value) and value in values


def maybe(kind):
    return lambda value: value is None or fits(kind, value)


def coordinate(value):
    return (
        isinstance(value, list)
        and [type(each) for each in value] == [str, str, int, int, int]
        and TENANT.fullmatch(value[0]) is not None
        and value[1] in ("audio", "metadata", "transcript")
        and all(0 <= each < bound for each, bound in zip(value[2:], (1 << 48, 1 << 32, 1 << 32), strict=True))
    )


RESULT = among("done", "not_applicable", "failed", "unknown")
POLICY = {"name": text, "version": text, "period": maybe(text)}
ROLES = ("recorder", "agent", "safeguarding_lead", "compliance", "dpo", "operator", "auditor")
TEXTS = {"version": text, "texts": [text]}
MEMBERS = {
    "schema": among("callvault/deletion-certificate/v2"),
    "certificate_id": text,
    "nonce": text,
    "status": among("provisional", "final"),
    "supersedes": maybe(text),
    "trial": flag,
    "parties": {"tenant": text, "controller": text, "processor": text, "contact": text},
    "recording": {
        "id": text,
        "parts": [
            {
                "part": among("audio", "metadata", "transcript"),
                "coordinate": coordinate,
                "key_commitment": maybe(text),
                "shredded_at": time,
            }
        ],
    },
    "data": {
        "objects": {"count": number, "bytes": number, "root": text},
        "region": {"stated": text, "checked": maybe(text), "checked_at": maybe(time)},
    },
    "encryption": {"algorithm": text, "encrypted_before_first_write": flag},
    "retention": {
        "captured": maybe(POLICY),
        "applied": maybe(POLICY),
        "captured_at": time,
        "received_at": time,
        "retain_until": time,
        "instruction": maybe(text),
    },
    "trigger": {
        "kind": among("expiry", "art17", "objection", "controller_instruction", "contract_end", "range"),
        "case": maybe({"id": text, "reference_sha256": text}),
        "range": maybe({"from_byte": number, "to_byte": number}),
    },
    "authorisation": {
        "hold_revision": number,
        "active_holds": number,
        "holds_checked_at": time,
        "deciders": [
            {
                "person": maybe(text),
                "token": maybe(text),
                "role": maybe(among(*ROLES)),
                "at": maybe(time),
                "evidence": maybe(text),
            }
        ],
    },
    "sanitisation": {
        "category": text,
        "technique": text,
        "epoch_destroyed": number,
        "provider": text,
        "assurance": among("best_effort", "device", "hsm", "delayed"),
        "key_copies": [
            {
                "where": among("keyring_replica", "provider_version", "cache_leases", "journal", "backups"),
                "action": text,
                "result": RESULT,
                "at": time,
            }
        ],
        "data_copies": [{"where": among("object_store"), "action": text, "result": RESULT, "at": time}],
        "tool": text,
        "tool_version": text,
        "started": time,
        "unrecoverable_at": time,
        "caches_clear_at": time,
        "completed": maybe(time),
    },
    "verification": {
        "checks": [{"check": among(*KEY_CHECKS, "objects_absent", "no_multipart_left"), "result": RESULT}],
        "at": time,
    },
    "residuals": [{"where": text, "state": text, "until": maybe(time), "mechanism": text}],
    "log": maybe({"origin": text}),
    "claims": TEXTS,
    "non_claims": TEXTS,
}
LIST = {"certificate_id": text, "objects": [{"name": text, "bytes": number, "sha256": text}]}


def fits(kind, value):
    """Tell whether a value has exactly this shape."""
    if isinstance(kind, dict):
        return (
            isinstance(value, dict)
            and value.keys() == kind.keys()
            and all(fits(kind[name], each) for name, each in value.items())
        )
    if isinstance(kind, list):
        return isinstance(value, list) and all(fits(kind[0], each) for each in value)
    return kind(value)


def identified(value, prefix=""):
    return ID.fullmatch(value) is not None and value.startswith(prefix)


def check(document, texts):
    """Refuse a document that has not the members of version 2 or breaks a C rule; `texts` are those printed."""
    if not fits(MEMBERS, document):
        raise Bad("format")
    for rule, broken in contradictions(document, texts):
        if broken:
            raise Bad("contradiction") from ValueError(rule)


def contradictions(document, texts):
    recording, objects, trigger = document["recording"], document["data"]["objects"], document["trigger"]
    sanitisation, retention = document["sanitisation"], document["retention"]
    authorisation, checks = document["authorisation"], document["verification"]["checks"]
    parts, deciders, gone = recording["parts"], authorisation["deciders"], sanitisation["unrecoverable_at"]
    others = [
        *([] if trigger["case"] is None else [trigger["case"]["id"]]),
        *([] if retention["instruction"] is None else [retention["instruction"]]),
        *(each[name] for each in deciders for name in ("person", "token") if each[name] is not None),
    ]
    yield "C1", not identified(document["certificate_id"], "cert_") or not identified(recording["id"], "rec_")
    yield "C1", document["supersedes"] is not None and not identified(document["supersedes"], "cert_")
    yield "C1", document["supersedes"] == document["certificate_id"] or not all(map(identified, others))
    yield "C2", not re.fullmatch(r"[0-9a-f]{32}", document["nonce"], re.ASCII)
    names = [each["part"] for each in parts]
    yield "C3", not names or names != sorted(set(names))
    yield "C3", any(each["coordinate"][:2] != [document["parties"]["tenant"], each["part"]] for each in parts)
    digests = [objects["root"], *(each["key_commitment"] for each in parts), *(each["evidence"] for each in deciders)]
    digests += [] if trigger["case"] is None else [trigger["case"]["reference_sha256"]]
    yield "C4", not all(each is None or HEX64.fullmatch(each) for each in digests)
    yield "C5", objects["count"] == 0 and (objects["bytes"], objects["root"]) != (0, EMPTY_ROOT)
    yield "C5", names == ["metadata"] and objects["count"] > 0
    yield "C6", authorisation["active_holds"] != 0
    early = gone < retention["retain_until"]
    yield "C7", trigger["kind"] == "expiry" and (early or trigger["case"] is not None)
    span = trigger["range"]
    yield "C7", (span is not None) != (trigger["kind"] == "range")
    yield "C7", span is not None and span["from_byte"] >= span["to_byte"]
    people = [each["token"] if each["person"] is None else each["person"] for each in deciders]
    yield "C8", None in people or (early and len(set(people)) < 2)
    yield "C9", retention["captured_at"] > retention["retain_until"]
    yield "C9", max(sanitisation["started"], authorisation["holds_checked_at"]) > gone
    yield "C9", not all(sanitisation["started"] <= each["shredded_at"] <= gone for each in parts)
    completed = sanitisation["completed"]
    yield "C9", gone > min(sanitisation["caches_clear_at"], document["verification"]["at"], completed or gone)
    yield "C10", (sanitisation["category"], sanitisation["technique"]) != ("purge", "cryptographic erase")
    yield "C11", not document["encryption"]["encrypted_before_first_write"]
    yield "C12", any(each["check"] in KEY_CHECKS and each["result"] == "failed" for each in checks)
    final = document["status"] == "final"
    yield "C13", final != (completed is not None)
    for text_ in (document["claims"], document["non_claims"]):
        yield "C17", texts.get(text_["version"], text_["texts"]) != text_["texts"]
    if final:
        yield from unfinished(sanitisation, checks, objects["count"])


def unfinished(sanitisation, checks, count):
    keys, data = sanitisation["key_copies"], sanitisation["data_copies"]
    done = {each["where"] for each in keys if each["result"] == "done"}
    yield "C14", any(each["result"] in OPEN for each in keys) or not {"provider_version", "keyring_replica"} <= done
    store = {each["result"] for each in data}
    yield "C15", bool(OPEN & store) or not ("done" in store or (count == 0 and "not_applicable" in store))
    passed = {each["check"] for each in checks if each["result"] == "done"}
    yield "C16", any(each["result"] in OPEN for each in checks) or not KEY_CHECKS | {"objects_absent"} <= passed


def check_list(data, document):
    """Refuse a list of objects that is not the one the certificate counts."""
    found = json.loads(data)
    if not fits(LIST, found) or plain(found) != data:
        raise Bad("format")
    objects = found["objects"]
    if found["certificate_id"] != document["certificate_id"] or not all(
        HEX64.fullmatch(each["sha256"]) for each in objects
    ):
        raise Bad("contradiction")
    root = tree([hashlib.sha256(b"\0" + plain(each)).digest() for each in objects]).hex()
    counted = {"count": len(objects), "bytes": sum(each["bytes"] for each in objects), "root": root}
    if counted != document["data"]["objects"]:
        raise Bad("contradiction")


def plain(value):
    """RFC 8785 for what certificates have: no floating point, names in ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def tree(leaves):
    """RFC 6962 section 2.1, as it is written there."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + tree(leaves[:split]) + tree(leaves[split:])).digest()


def printed_texts(page):
    """Return the texts of every version that docs/certificates.md prints."""
    found = {}
    for part in page.split("\n### `callvault/")[1:]:
        name, _, body = part.partition("`\n")
        lines = body.partition("\n#")[0].splitlines()
        found["callvault/" + name] = [line.partition(". ")[2] for line in lines if re.match(r"[0-9]+\. ", line)]
    return found
