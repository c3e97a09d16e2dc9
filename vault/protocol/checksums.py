"""The checksums by which S3 clients vouch for a body: x-amz-checksum-*, and Content-MD5 (RFC 1864)."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final, Protocol

_WINDOW_BYTES: Final = 1 << 16
_TABLE_BYTES: Final = 64
"""Up to how many bytes a table is faster than folding."""


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


def _times(a: int, b: int, polynomial: int, bits: int) -> int:
    """Multiply modulo the polynomial, all reflected: the highest bit stands for x^0."""
    product = 0
    while a:
        if a >> bits - 1:
            product ^= b
        a = a << 1 & (1 << bits) - 1
        b = b >> 1 ^ (polynomial if b & 1 else 0)
    return product


@cache
def _power(exponent: int, polynomial: int, bits: int) -> int:
    """Return x^exponent modulo the polynomial, reflected."""
    result, square = 1 << bits - 1, 1 << bits - 2
    while exponent:
        if exponent & 1:
            result = _times(result, square, polynomial, bits)
        square = _times(square, square, polynomial, bits)
        exponent >>= 1
    return result


class _ReflectedCrc:
    """A reflected CRC with all bits inverted before and after.

    The front of a window of bytes, multiplied by x^(bits behind it) modulo the polynomial, is added to the rest, until
    little is left for the table: long integers do that many times as fast as a loop over bytes.
    """

    def __init__(self, polynomial: int, size: int) -> None:
        self._polynomial = polynomial
        self._table = _table(polynomial)
        self._size = size
        self._mask = (1 << 8 * size) - 1
        self._value = self._mask

    def update(self, data: bytes) -> None:
        """Take more bytes."""
        for start in range(0, len(data), _WINDOW_BYTES):
            self._take(data[start : start + _WINDOW_BYTES])

    def _take(self, piece: bytes) -> None:
        table, value, length = self._table, self._value, len(piece)
        if length > _TABLE_BYTES:
            number = int.from_bytes(piece, "little") ^ value
            while length > _TABLE_BYTES:
                number, length = self._folded(number, length)
            piece, value = number.to_bytes(length, "little"), 0
        for byte in piece:
            value = table[(value ^ byte) & 0xFF] ^ value >> 8
        self._value = value

    def _folded(self, number: int, length: int) -> tuple[int, int]:
        """Return fewer bytes, of lengths that are few enough to remember the multipliers, with the same CRC."""
        bits = 8 * self._size
        kept = (1 << (length - self._size - 1).bit_length() - 1) + self._size
        front = number & (1 << 8 * (length - kept)) - 1
        multiplier = _power(8 * kept, self._polynomial, bits)
        product = 0
        for bit in range(bits):
            if multiplier >> bit & 1:
                product ^= front << bit
        # The product's highest bit is x^0 when it ends where the rest ends.
        return number >> 8 * (length - kept) ^ product << 8 * (2 * kept - length) - bits + 1, kept

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
