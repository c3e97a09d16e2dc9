"""The headers of Resumable Uploads for HTTP: draft-ietf-httpbis-resumable-upload, interop versions 6 and 8.

Version 6 is drafts 04 and 05 (what tus-js-client calls `ietf-draft-05`), version 8 draft 09 and later. The drafts'
section names are used here. Header values are structured fields (RFC 9651). A malformed one is ignored, as the draft
requires.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from vault.errors import InconsistentLength, Malformed, UnsupportedMedia
from vault.protocol.facts.stated import Reading
from vault.protocol.uploads import tus
from vault.protocol.uploads.resumable import require_size

PARTIAL: Final = "application/partial-upload"
LIFETIME: Final[Mapping[int, str]] = {6: "expires", 8: "max-age"}
"""The supported interop versions, each with its name for the limit on an upload's age."""

_INTEGER: Final = re.compile(r" *([0-9]{1,15}) *(?:;.*)?", re.ASCII)
_BOOLEAN: Final = re.compile(r" *\?([01]) *(?:;.*)?", re.ASCII)
_EXTENDED: Final = re.compile(r"filename\*=utf-8'[^']*'([^;\s]+)", re.IGNORECASE)
_PLAIN: Final = re.compile(r'filename=(?:"([^"]*)"|([^;\s]+))', re.IGNORECASE)
_FROM_HEADERS: Final[Mapping[str, str]] = {
    "from": "Call-From",
    "to": "Call-To",
    "direction": "Call-Direction",
    "started": "Call-Started",
    "tags": "Call-Tags",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """A request with Upload-Complete to the creation URL; `length` None means not known yet."""

    complete: bool
    length: int | None
    metadata: Mapping[str, str] = field(repr=False)
    unusable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """A PATCH; with `complete` its content is the last of the upload."""

    offset: int
    complete: bool
    length: int | None


def is_ietf(headers: Mapping[str, str]) -> bool:
    """Tell whether a request uses this protocol and not tus."""
    if "Tus-Resumable" in headers:
        return False
    return (
        "Upload-Draft-Interop-Version" in headers
        or "Upload-Complete" in headers
        or headers.get("Content-Type") == PARTIAL
    )


def interop(headers: Mapping[str, str]) -> int | None:
    """Return the interop version of the client if it is supported, else None; the server sends no 104 then."""
    version = _integer(headers, "Upload-Draft-Interop-Version")
    return version if version in LIFETIME else None


def creation(headers: Mapping[str, str], content_length: int | None, *, limit: int) -> Creation:
    """Read a creation (Upload Creation, Server Behavior).

    Malformed without Upload-Complete, InconsistentLength if headers state different lengths, TooLarge above `limit`.
    """
    complete = _boolean(headers, "Upload-Complete")
    if complete is None:
        raise Malformed("an upload is created with Upload-Complete: ?0 or ?1")
    length = _length(headers, content_length, complete=complete, offset=0)
    if length is not None and content_length is not None and content_length > length:
        raise InconsistentLength(f"{content_length} bytes are sent, and {length} were announced")
    require_size(length, limit=limit)
    reading = Reading()
    return Creation(complete=complete, length=length, metadata=_metadata(headers, reading), unusable=reading.unusable)


def append(headers: Mapping[str, str], content_length: int | None, *, limit: int) -> Append:
    """Read a PATCH (Upload Append, Server Behavior).

    UnsupportedMedia for another content type, Malformed without Upload-Offset or Upload-Complete, InconsistentLength if
    headers state different lengths, TooLarge above `limit`.
    """
    if headers.get("Content-Type") != PARTIAL:
        raise UnsupportedMedia(f"a PATCH carries {PARTIAL}")
    offset, complete = _integer(headers, "Upload-Offset"), _boolean(headers, "Upload-Complete")
    if offset is None or complete is None:
        raise Malformed("a PATCH needs Upload-Offset and Upload-Complete")
    length = _length(headers, content_length, complete=complete, offset=offset)
    require_size(length, limit=limit)
    return Append(offset=offset, complete=complete, length=length)


def _length(headers: Mapping[str, str], content_length: int | None, *, complete: bool, offset: int) -> int | None:
    """Return the length of the whole upload from one or both of its headers (Length)."""
    announced = _integer(headers, "Upload-Length")
    if not complete or content_length is None:
        return announced
    if announced not in (None, offset + content_length):
        raise InconsistentLength(f"the end comes at {offset + content_length}, and {announced} bytes were announced")
    return offset + content_length


def limits(version: int | None, *, max_size: int, age_seconds: int | None) -> str:
    """Return the value of Upload-Limit (Limits)."""
    limit = f"max-size={max_size}"
    return limit if age_seconds is None else f"{limit}, {LIFETIME.get(version or 8, 'max-age')}={age_seconds}"


def interim(version: int, fields: Mapping[str, str]) -> bytes:
    """Return the bytes of a 104 (Upload Resumption Supported) response in HTTP/1.1."""
    lines = {"Upload-Draft-Interop-Version": str(version), **fields}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 104 Upload Resumption Supported\r\n{head}\r\n".encode("latin-1")


def flag(value: bool) -> str:  # noqa: FBT001  # its only argument
    """Return a structured boolean."""
    return "?1" if value else "?0"


def _metadata(headers: Mapping[str, str], reading: Reading) -> Mapping[str, str]:
    """Read the description of the call: Upload-Metadata as in tus, else the headers of a plain upload."""
    found = dict(tus.metadata(headers.get("Upload-Metadata", ""), reading))
    for name, header in _FROM_HEADERS.items():
        if header in headers:
            found.setdefault(name, headers[header])
    if headers.get("Content-Type") not in (None, PARTIAL, tus.BYTES):
        found.setdefault("filetype", headers["Content-Type"])
    if filename := _file_name(headers.get("Content-Disposition", "")):
        found.setdefault("filename", filename)
    return found


def _file_name(disposition: str) -> str | None:
    """Return the file name in Content-Disposition; `filename*` is preferred (RFC 6266 section 4.3)."""
    if extended := _EXTENDED.search(disposition):
        return unquote(extended[1], errors="surrogateescape")
    plain = _PLAIN.search(disposition)
    return (plain[1] or plain[2]) if plain else None


def _integer(headers: Mapping[str, str], name: str) -> int | None:
    match = _INTEGER.fullmatch(headers.get(name, ""))
    return int(match[1]) if match else None


def _boolean(headers: Mapping[str, str], name: str) -> bool | None:
    match = _BOOLEAN.fullmatch(headers.get(name, ""))
    return match[1] == "1" if match else None
