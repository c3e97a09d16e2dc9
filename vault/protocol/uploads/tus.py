"""tus 1.0 in headers: the core protocol, creation, creation-with-upload, creation-defer-length, checksum, expiration.

After the tus resumable upload protocol 1.0.0 (tus.io/protocols/resumable-upload), whose section names the docstrings
use. `headers` are looked up by their canonical spelling in a mapping that ignores case.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from vault.errors import ChecksumMismatch, Malformed, TooLarge, UnsupportedMedia, UnsupportedVersion
from vault.protocol.facts.stated import Reading, Unusable
from vault.protocol.uploads.resumable import count, require_size

VERSION: Final = "1.0.0"
EXTENSIONS: Final = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "checksum",
    "expiration",
    "termination",
)
CHECKSUMS: Final[Mapping[str, int]] = {"sha1": 20, "sha256": 32}
"""Algorithms and their digests' lengths; sha1 is what every implementation must have (Checksum)."""
MAX_CHECKED_BYTES: Final = 8 << 20
"""The most that one request with a checksum may carry: it is held in memory until it has proved right."""
BYTES: Final = "application/offset+octet-stream"

_MAX_METADATA: Final = 64
_USED: Final = frozenset({"call_key", "filename", "filetype", "from", "to", "direction", "started", "tags"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """What the bytes of one request must hash to."""

    algorithm: str
    digest: bytes

    def require(self, pieces: Iterable[bytes]) -> None:
        """Raise ChecksumMismatch unless the pieces together are what was sent."""
        found = hashlib.new(self.algorithm, usedforsecurity=False)
        for piece in pieces:
            found.update(piece)
        if not hmac.compare_digest(found.digest(), self.digest):
            raise ChecksumMismatch(
                f"the {self.algorithm} of this request's bytes is not the one announced; none of them was kept",
                hint="send them again",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """A POST to the creation address. `length` None: deferred. `carries`: the body is the upload's first bytes.

    `unusable` names the metadata that were left out, with the reason.
    """

    length: int | None
    metadata: Mapping[str, str] = field(repr=False)
    unusable: Mapping[str, str] = field(default_factory=dict)
    carries: bool = False
    checksum: Checksum | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """A PATCH. `length` is that of the whole upload, told only now."""

    offset: int
    length: int | None = None
    checksum: Checksum | None = None


def require_version(headers: Mapping[str, str], *, said: bool = True) -> None:
    """Raise UnsupportedVersion unless the client speaks 1.0.0 (Tus-Resumable); `said`: it has to say so."""
    if headers.get("Tus-Resumable", "" if said else VERSION) != VERSION:
        raise UnsupportedVersion(
            "the request is not tus 1.0.0", hint=f"send Tus-Resumable: {VERSION}, or Upload-Draft-Interop-Version"
        )


def creation(headers: Mapping[str, str], *, limit: int) -> Creation:
    """Read a creation (Creation, POST).

    Malformed unless exactly one of Upload-Length and Upload-Defer-Length is there and right; TooLarge above `limit`.
    """
    if "Upload-Concat" in headers:
        raise Malformed("concatenation is not offered", hint="upload a call as one: parallelUploads = 1")
    length = count(headers, "Upload-Length")
    deferred = headers.get("Upload-Defer-Length")
    if deferred not in (None, "1"):
        raise Malformed("Upload-Defer-Length is 1, or is not sent")
    if (length is None) is (deferred is None):
        raise Malformed("an upload is created with either Upload-Length or Upload-Defer-Length")
    require_size(length, limit=limit)
    reading = Reading()
    return Creation(
        length=length,
        metadata=metadata(headers.get("Upload-Metadata", ""), reading),
        unusable=reading.unusable,
        carries=headers.get("Content-Type") == BYTES,
        checksum=checksum(headers),
    )


def append(headers: Mapping[str, str], *, limit: int) -> Append:
    """Read a PATCH; UnsupportedMedia unless it carries bytes, Malformed without a right Upload-Offset."""
    if headers.get("Content-Type") != BYTES:
        raise UnsupportedMedia(f"a PATCH carries {BYTES}")
    offset = count(headers, "Upload-Offset")
    if offset is None:
        raise Malformed("a PATCH needs Upload-Offset")
    length = count(headers, "Upload-Length")
    require_size(length, limit=limit)
    return Append(offset=offset, length=length, checksum=checksum(headers))


def checksum(headers: Mapping[str, str]) -> Checksum | None:
    """Read Upload-Checksum (Checksum).

    Malformed for an algorithm that is not offered, ChecksumMismatch for a digest that is none: no bytes have it.
    """
    value = headers.get("Upload-Checksum")
    if value is None:
        return None
    algorithm, _, encoded = value.partition(" ")
    size = CHECKSUMS.get(algorithm)
    if size is None:
        raise Malformed("the checksum's algorithm is not offered", hint=f"one of {', '.join(CHECKSUMS)}")
    digest = _decoded(encoded)
    if digest is None or len(digest) != size:
        raise ChecksumMismatch(
            f"the checksum announced is no {algorithm} digest in base64, so no bytes have it; none of them was kept",
            hint=f"send the {size} bytes of the digest in base64, and the bytes again",
        )
    return Checksum(algorithm=algorithm, digest=digest)


def require_checkable(size: int) -> None:
    """Raise TooLarge for a request that is too long to be checked as one."""
    if size > MAX_CHECKED_BYTES:
        raise TooLarge(
            f"a request with a checksum carries at most {MAX_CHECKED_BYTES} bytes; none of them was kept",
            hint="set the client's chunk size to 8 MiB or less",
        )


def metadata(header: str, reading: Reading) -> Mapping[str, str]:
    """Read Upload-Metadata: pairs of a key and a base64 value, or keys alone.

    Only the members that `uploads.describe` reads are decoded: others may be bytes of any kind. One that cannot be
    read, comes a second time or is one too many is left out, and `reading` notes it.
    """
    found: dict[str, str] = {}
    pairs = [pair for each in header.split(",") if (pair := each.strip())]
    for number, pair in enumerate(pairs):
        key, _, encoded = pair.partition(" ")
        if key not in _USED:
            if not key.isascii():
                reading.leave_out(key, Unusable.UNKNOWN)
            continue
        value = _decoded(encoded.strip())
        if number >= _MAX_METADATA:
            reading.leave_out(key, Unusable.MANY)
        elif value is None:
            reading.leave_out(key, Unusable.TEXT)
        else:
            reading.keep_first(found, key, value.decode(errors="surrogateescape"))
    return found


def _decoded(text: str) -> bytes | None:
    """Return base64 decoded, with its padding or without it; None for anything else."""
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
