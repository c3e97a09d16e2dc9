"""The headers of tus 1.0: the core protocol and the extensions in EXTENSIONS.

After the tus resumable upload protocol 1.0.0 (tus.io/protocols/resumable-upload), whose section names the docstrings
use. `headers` is a mapping that ignores case.
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
"""The algorithms and the lengths of their digests in bytes; implementations must support sha1 (Checksum)."""
MAX_CHECKED_BYTES: Final = 8 << 20
"""The greatest body of a request with a checksum; it is held in memory until the checksum is verified."""
BYTES: Final = "application/offset+octet-stream"

_MAX_METADATA: Final = 64
_USED: Final = frozenset({"call_key", "filename", "filetype", "from", "to", "direction", "started", "tags"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """The announced checksum of one request's bytes."""

    algorithm: str
    digest: bytes

    def require(self, pieces: Iterable[bytes]) -> None:
        """Raise ChecksumMismatch unless the joined pieces have this checksum."""
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
    """A POST to the creation URL. `length` None: it comes later. `carries`: the body is the upload's first bytes.

    `unusable` has the names of metadata that were left out, with the reason.
    """

    length: int | None
    metadata: Mapping[str, str] = field(repr=False)
    unusable: Mapping[str, str] = field(default_factory=dict)
    carries: bool = False
    checksum: Checksum | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """A PATCH. `length` is that of the whole upload if it is announced only now."""

    offset: int
    length: int | None = None
    checksum: Checksum | None = None


def require_version(headers: Mapping[str, str], *, required: bool = True) -> None:
    """Raise UnsupportedVersion unless Tus-Resumable is 1.0.0; it may be missing unless `required`."""
    if headers.get("Tus-Resumable", "" if required else VERSION) != VERSION:
        raise UnsupportedVersion(
            "the request is not tus 1.0.0", hint=f"send Tus-Resumable: {VERSION}, or Upload-Draft-Interop-Version"
        )


def creation(headers: Mapping[str, str], *, limit: int) -> Creation:
    """Read a creation (Creation, POST).

    Malformed unless it has exactly one valid header of Upload-Length and Upload-Defer-Length; TooLarge above `limit`.
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
    """Read a PATCH; UnsupportedMedia for another content type, Malformed without a valid Upload-Offset."""
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

    Malformed for an algorithm that is not offered, ChecksumMismatch for a malformed digest: no bytes have it.
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
            f"the checksum announced is not a {algorithm} digest in base64; none of the bytes was kept",
            hint=f"send the {size} bytes of the digest in base64, and the bytes again",
        )
    return Checksum(algorithm=algorithm, digest=digest)


def require_checkable(size: int) -> None:
    """Raise TooLarge for a request with a checksum that has more than MAX_CHECKED_BYTES."""
    if size > MAX_CHECKED_BYTES:
        raise TooLarge(
            f"a request with a checksum carries at most {MAX_CHECKED_BYTES} bytes; none of them was kept",
            hint="set the client's chunk size to 8 MiB or less",
        )


def metadata(header: str, reading: Reading) -> Mapping[str, str]:
    """Read Upload-Metadata: pairs of a key and a base64 value, or keys alone.

    Only the members that `resumable.describe` reads are decoded. A member that cannot be read, is repeated or is one
    too many is left out, and `reading` notes it.
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
    """Decode base64 with or without padding; None for other text."""
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
