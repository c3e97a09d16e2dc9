"""The beginning of a sealed object: `magic | u32 header length | header` (docs/format.md, "Object frame")."""

from __future__ import annotations

from typing import Final

from vault.errors import FormatError, Truncated

MAGIC_BYTES: Final = 4
PREAMBLE_BYTES: Final = MAGIC_BYTES + 4
MAX_HEADER_BYTES: Final = 4096


def frame(magic: bytes, header: bytes) -> bytes:
    """Return the bytes before an object's message: `magic`, the header's length as u32 big-endian, the header."""
    if len(magic) != MAGIC_BYTES or not 0 < len(header) <= MAX_HEADER_BYTES:
        raise FormatError(f"a header of {len(header)} bytes cannot be framed")
    return magic + len(header).to_bytes(4, "big") + header


def unframe(magic: bytes, data: bytes | bytearray | memoryview) -> tuple[bytes, int]:
    """Return the header bytes and the offset at which the message starts.

    `data` is the object, or enough of its first bytes. Raises FormatError for another magic or an impossible length,
    Truncated if `data` ends inside the frame.
    """
    start = bytes(data[:PREAMBLE_BYTES])
    if start[:MAGIC_BYTES] != magic[: len(start)]:
        raise FormatError(f"not a {magic.decode()} object: it does not start with those four bytes")
    if len(start) < PREAMBLE_BYTES:
        raise Truncated(f"the {magic.decode()} object ends inside its first {PREAMBLE_BYTES} bytes")
    length = int.from_bytes(start[MAGIC_BYTES:], "big")
    if not 0 < length <= MAX_HEADER_BYTES:
        raise FormatError(f"a header of {length} bytes is not possible; the bound is {MAX_HEADER_BYTES}")
    end = PREAMBLE_BYTES + length
    header = bytes(data[PREAMBLE_BYTES:end])
    if len(header) < length:
        raise Truncated(f"the {magic.decode()} object ends inside its header")
    return header, end
