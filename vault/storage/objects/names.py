"""Names, ranges and metadata that every object store accepts and keeps unchanged: S3, file systems and memory."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from vault.errors import FormatError, Invalid
from vault.ports.objects import ObjectMeta

_MAX_NAME: Final = 900
# S3's safe characters and those that only need encoding in a URL: printable ASCII without \ { } [ ] ^ % ` " < > # | ?.
# ASCII only, so that name order is the same in UTF-8 bytes, in Python and in every store.
_CHARACTER: Final = "[A-Za-z0-9!_.*'()=+@:,&$;~ -]"
_COMPONENT: Final = rf"(?!\.\.?(?:/|\Z)){_CHARACTER}{{1,240}}"
_NAME: Final = re.compile(f"{_COMPONENT}(?:/{_COMPONENT})*")
_START: Final = re.compile(f"(?:{_COMPONENT}/)*{_CHARACTER}{{0,240}}")
_CLASS: Final = re.compile(r"[A-Za-z0-9_.:/=+@-]{1,128}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def check_name(name: str) -> str:
    """Return `name` if every store can keep it; Invalid.

    A name has 1-900 characters, with `/` between components of 1-240 characters, none of which is `.` or `..`. Such a
    name can never leave the directory in which it is looked up.
    """
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise Invalid("not a usable object name", hint="use components of A-Z a-z 0-9 and ! _ . * ' ( ) - between /")
    return name


def check_prefix(prefix: str) -> str:
    """Return `prefix` if some legal name could start with it; Invalid."""
    # A last component "." or ".." is also the start of ".x" or "..x".
    if len(prefix) > _MAX_NAME or not _START.fullmatch(prefix):
        raise Invalid("not a prefix of a usable object name")
    return prefix


def check_places(places: Mapping[str, Collection[str]]) -> Mapping[str, Collection[str]]:
    """Return prefixes and the names below each if `ObjectStore.delete_below` takes them; Invalid."""
    for place, known in places.items():
        if not place.endswith("/") or not check_name(place[:-1]):
            raise Invalid("a place to delete below must end in a slash")
        # Enough: no store looks up a known name as a path.
        if not all(name.startswith(place) for name in known):
            raise Invalid("a name is outside the place in which it should be deleted; nothing was deleted")
    return places


def check_range(start: int, length: int | None) -> None:
    """Refuse a negative start or length; Invalid."""
    if start < 0 or (length is not None and length < 0):
        raise Invalid("a byte range starts at 0 or later and is not negative")


def check_meta(meta: ObjectMeta) -> ObjectMeta:
    """Return `meta` if headers and tags can carry it; Invalid."""
    if meta.retain_until.tzinfo is None:
        raise Invalid("retain-until needs a time zone")
    if not _CLASS.fullmatch(meta.retention_class):
        raise Invalid("not a usable retention class", hint="use 1-128 of A-Z a-z 0-9 _ . : / = + @ -")
    if not _SHA256.fullmatch(meta.sha256):
        raise Invalid("a content hash is 64 lower-case hex digits")
    return meta


def meta_texts(meta: ObjectMeta) -> dict[str, str]:
    """Return `meta` as texts under the keys retain-until, retention-class, sha256 and held."""
    return {
        "retain-until": meta.retain_until.astimezone(UTC).isoformat(),
        "retention-class": meta.retention_class,
        "sha256": meta.sha256,
        "held": held_text(held=meta.held),
    }


def parse_meta_texts(texts: dict[str, str]) -> ObjectMeta:
    """Return what `meta_texts` wrote; FormatError."""
    try:
        meta = ObjectMeta(
            retain_until=datetime.fromisoformat(texts["retain-until"]),
            retention_class=texts["retention-class"],
            sha256=texts["sha256"],
            held={"true": True, "false": False}[texts["held"]],
        )
        return check_meta(meta)
    except (KeyError, ValueError, Invalid) as error:
        raise FormatError("an object carries metadata that this vault did not write") from error


def held_text(*, held: bool) -> str:
    """Return the tag value of a hold state."""
    return "true" if held else "false"


def total_bytes(chunks: Sequence[bytes | memoryview]) -> int:
    """Return the total number of bytes in the chunks."""
    return sum(chunk.nbytes if isinstance(chunk, memoryview) else len(chunk) for chunk in chunks)
