"""The checksums that S3 clients state for a body: x-amz-checksum-*, and Content-MD5 (RFC 1864)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

from vault.errors import Invalid


class Checksum(Protocol):
    """A running checksum."""

    def update(self, data: bytes, /) -> None:
        """Add bytes; not allowed after `digest`."""

    def digest(self) -> bytes:
        """Return the checksum of all bytes, big-endian."""


def _library() -> Any:
    from awscrt import checksums  # noqa: PLC0415 - it is slow to load, and only such a checksum needs it

    return checksums


class _Crc:
    """A CRC whose library function continues from the last value."""

    def __init__(self, name: str, size: int) -> None:
        self._run = getattr(_library(), name)
        self._size = size
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = self._run(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


class _XXHash:
    """An xxHash, in its canonical form."""

    def __init__(self, name: str) -> None:
        self._running = getattr(_library().XXHash, name)()
        self._digest: bytes | None = None

    def update(self, data: bytes) -> None:
        self._running.update(data)

    def digest(self) -> bytes:
        if self._digest is None:
            self._digest = bytes(self._running.finalize())
        return self._digest


ALGORITHMS: Final[Mapping[str, Callable[[], Checksum]]] = {
    "crc32": partial(_Crc, "crc32", 4),
    "crc32c": partial(_Crc, "crc32c", 4),
    "crc64nvme": partial(_Crc, "crc64nvme", 8),
    "md5": partial(hashlib.md5, usedforsecurity=False),
    "sha1": partial(hashlib.sha1, usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    "xxhash64": partial(_XXHash, "new_xxhash64"),
    "xxhash3": partial(_XXHash, "new_xxhash3_64"),
    "xxhash128": partial(_XXHash, "new_xxhash3_128"),
}
"""The algorithms by the NAME in x-amz-checksum-NAME. CRC-32C is that of RFC 3720, CRC-64/NVME that of the NVM Express
command set specification 1.0, section 5.2.1.3.4."""


def parse_digest(algorithm: str, value: str) -> bytes:
    """Return the digest that a client states in base64; Invalid if it is malformed, or the algorithm not offered."""
    if algorithm not in ALGORITHMS:
        raise Invalid("this checksum is not offered, so it cannot be compared; nothing was kept", s3="NotImplemented")
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid("a checksum is not base64", s3="InvalidDigest") from error
    if len(digest) != len(ALGORITHMS[algorithm]().digest()):
        raise Invalid("a checksum has the wrong length", s3="InvalidDigest")
    return digest
