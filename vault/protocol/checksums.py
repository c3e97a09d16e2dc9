"""The checksums by which S3 clients vouch for a body: x-amz-checksum-*, and Content-MD5 (RFC 1864)."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final, Protocol


class Checksum(Protocol):
    """A running checksum."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""

    def digest(self) -> bytes:
        """Return the checksum of the bytes so far, big-endian."""


class Crc32:
    """CRC-32 of ISO 3309, as zlib has it."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        """Take more bytes."""
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        """Return four bytes."""
        return self._value.to_bytes(4, "big")


@cache
def _table(polynomial: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
        table.append(value)
    return tuple(table)


class _ReflectedCrc:
    """A reflected CRC with all bits inverted before and after."""

    def __init__(self, polynomial: int, size: int) -> None:
        self._table = _table(polynomial)
        self._size = size
        self._mask = (1 << 8 * size) - 1
        self._value = self._mask

    def update(self, data: bytes) -> None:
        """Take more bytes."""
        table, value = self._table, self._value
        for byte in data:
            value = table[(value ^ byte) & 0xFF] ^ value >> 8
        self._value = value

    def digest(self) -> bytes:
        """Return the register, inverted."""
        return (self._value ^ self._mask).to_bytes(self._size, "big")


def crc32c() -> Checksum:
    """Return a running CRC-32C (Castagnoli, RFC 3720 appendix B.4)."""
    return _ReflectedCrc(0x82F63B78, 4)


def crc64nvme() -> Checksum:
    """Return a running CRC-64/NVME (NVM Express command set specification 1.0, section 5.2.1.3.4)."""
    return _ReflectedCrc(0x9A6C9329AC4BC9B5, 8)


ALGORITHMS: Final[Mapping[str, Callable[[], Checksum]]] = {
    "crc32": Crc32,
    "crc32c": crc32c,
    "crc64nvme": crc64nvme,
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
}
"""By the end of their header's name: x-amz-checksum-NAME."""
