"""How bytes are written in vector files: hex, or for long runs of zeros a list of hex strings and zero counts."""

import hashlib
import re

_RUN = re.compile(rb"\x00{64,}")


def to_json(data):
    """Return `data` as hex, or as a list in which a number stands for that many zero bytes."""
    data = bytes(data)
    parts, at = [], 0
    for run in _RUN.finditer(data):
        if run.start() > at:
            parts.append(data[at : run.start()].hex())
        parts.append(len(run[0]))
        at = run.end()
    if not parts:
        return data.hex()
    return [*parts, data[at:].hex()] if at < len(data) else parts


def from_json(value):
    """Return the bytes that `to_json` wrote."""
    parts = value if isinstance(value, list) else [value]
    return b"".join(bytes(part) if isinstance(part, int) else bytes.fromhex(part) for part in parts)


def seed(label, length=32):
    """Return deterministic bytes for a vector: SHAKE-256 of the label."""
    return hashlib.shake_256(b"callvault vectors: " + label.encode()).digest(length)


def plaintext_facts(plaintext):
    """Return how a vector states a plaintext: length and SHA-256, and the bytes themselves when they are few."""
    facts = {"plaintext_bytes": len(plaintext), "plaintext_sha256": hashlib.sha256(plaintext).hexdigest()}
    return facts | ({"plaintext": plaintext.hex()} if len(plaintext) <= 64 else {})
