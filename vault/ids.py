"""Identifiers: their types, how they are made and how they are parsed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NewType
from uuid import UUID

from vault.errors import Invalid

TenantId = NewType("TenantId", str)
RecordingId = NewType("RecordingId", str)
HoldId = NewType("HoldId", str)
CertificateId = NewType("CertificateId", str)
TokenId = NewType("TokenId", str)
NodeId = NewType("NodeId", str)

_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_CALL_KEY = re.compile(r"[A-Za-z0-9._~@:+=,-]{1,200}")
_NUMBERED = re.compile(r"(.+)~([1-9][0-9]{0,17})")
_PLAIN = re.compile(r"[A-Za-z0-9._~@:+,-]")
_LONGEST_NAME = 180
"""Leaves room for the `~2` of a further recording under the same call key."""
_MOST_TRIES = 100
_PREFIXED = re.compile(r"([a-z]{2,5})_([0-9a-f]{32})")


def parse_tenant(text: str) -> TenantId:
    """Return `text` as a tenant id: 1-63 of a-z, 0-9 and inner hyphens; raises Invalid."""
    if not _TENANT.fullmatch(text):
        raise Invalid(f"{text[:80]!r} is not a tenant id", hint="use 1-63 of a-z, 0-9 and inner hyphens")
    return TenantId(text)


def parse_call_key(text: str) -> str:
    """Return `text` as a recorder's name for one call: 1-200 unreserved characters; raises Invalid."""
    if not _CALL_KEY.fullmatch(text):
        raise Invalid("the call key is not usable", hint="use 1-200 of A-Z a-z 0-9 . _ ~ @ : + = , -")
    return text


def call_key_of(name: str) -> str:
    """Return the call key for a recorder's name of a call, such as a SIP Call-ID; Invalid only for an empty name.

    A name with the form of a call key stays as it is. Any other is escaped, or hashed if it is too long then.
    """
    if not name:
        raise Invalid("the call key is empty", hint="name the call, by its Call-ID for example")
    return name if _CALL_KEY.fullmatch(name) and len(name) <= _LONGEST_NAME else escaped_call_key(name)


def escaped_call_key(name: str) -> str:
    """Return a call key for `name`; different names give different keys.

    Bytes that a call key cannot have, and `=`, become `=XX` (UTF-8, in hex). A name that is too long then becomes
    `=sha256=` and the SHA-256 of the name; no escaped name begins with that.
    """
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raw = name.encode("utf-8", "surrogatepass")  # JSON can contain half a surrogate pair
    escaped = "".join(chr(byte) if _PLAIN.fullmatch(chr(byte)) else f"={byte:02X}" for byte in raw)
    if len(escaped) <= _LONGEST_NAME:
        return escaped
    return "=sha256=" + hashlib.sha256(raw).hexdigest()


def call_name(key: str, number: int) -> str:
    """Return the call key of a call's first recording, `key`, or of its second, `key~2`, and so on; raises Invalid."""
    return parse_call_key(key if number < 2 else f"{key}~{number}")  # noqa: PLR2004  # the second has a number


def call_number(name: str) -> tuple[str, int]:
    """Return the call key and the number of which `name` is the `call_name`; number 1 without a suffix."""
    match = _NUMBERED.fullmatch(name)
    return (name, 1) if match is None or match[2] == "1" else (match[1], int(match[2]))


def call_keys(key: str, *, first: int = 1) -> Iterator[str]:
    """Yield up to 100 call keys to try for a recording of a call, from number `first` on; Invalid if one is too long.

    So many are not taken by others while the caller looks for a free one.
    """
    for number in range(max(first, 1), max(first, 1) + _MOST_TRIES):
        yield call_name(key, number)


def uuid7(*, unix_ms: int, entropy: bytes) -> UUID:
    """Build a UUIDv7 (RFC 9562 section 5.7) from a time in milliseconds and 10 random bytes."""
    rand = int.from_bytes(entropy[:10], "big")
    value = (unix_ms & (1 << 48) - 1) << 80 | 0x7 << 76 | (rand >> 68 & 0xFFF) << 64
    return UUID(int=value | 0b10 << 62 | rand & (1 << 62) - 1)


def prefixed(prefix: str, uuid: UUID) -> str:
    """Return the id as people see it: `rec_018f…`."""
    return f"{prefix}_{uuid.hex}"


def new_id(prefix: str, *, at: datetime, entropy: Callable[[int], bytes]) -> str:
    """Return a new prefixed UUIDv7 for the instant `at`."""
    return prefixed(prefix, uuid7(unix_ms=int(at.timestamp() * 1000), entropy=entropy(10)))


def new_ids(prefix: str, count: int, *, at: datetime, entropy: Callable[[int], bytes]) -> list[str]:
    """Return `count` new ids, ascending."""
    millisecond = f"{int(at.timestamp() * 1000):012x}"
    random = entropy(10 * count).hex()
    chunks = sorted(random[start : start + 20] for start in range(0, 20 * count, 20))
    return [f"{prefix}_{millisecond}7{it[:3]}{'89ab'[int(it[3], 16) & 3]}{it[4:19]}" for it in chunks]


def id_bytes(identifier: str) -> bytes:
    """Return the 16 bytes of a prefixed id; raises Invalid."""
    match = _PREFIXED.fullmatch(identifier)
    if match is None:
        raise Invalid(f"{identifier[:80]!r} is not an id", hint="ids look like rec_ followed by 32 hex digits")
    return bytes.fromhex(match[2])


def id_time(identifier: str) -> datetime:
    """Return when an id was made, to the millisecond: the first 48 bits of a UUIDv7; raises Invalid."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int.from_bytes(id_bytes(identifier)[:6], "big"))
