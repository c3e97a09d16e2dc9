"""The layout of one object in the filesystem store: a header of fixed size, then the object's bytes.

One file holds bytes and metadata, so neither can appear or vanish without the other, and an object is always one rename
and one unlink. The header has a fixed size, so a range read is one `pread` at a known offset, and the hold state is one
byte at a fixed place, so changing it in place is atomic.

    "CVO1" | held, 1 byte: 0 or 1 | u16 length | canonical msgpack map, zero-padded to 512 bytes | bytes of the object
"""

from __future__ import annotations

import struct
from typing import Final

from vault.errors import FormatError
from vault.format.codec import fields, pack, unpack
from vault.ports.objects import ObjectMeta
from vault.storage.objects.names import meta_texts, parse_meta_texts

HEADER_BYTES: Final = 512
HELD_OFFSET: Final = 4

_MAGIC: Final = b"CVO1"
_FRAME: Final = struct.Struct(">4sBH")


def encode_header(meta: ObjectMeta) -> bytes:
    """Return the 512 bytes that precede an object's own; `meta` must have passed `check_meta`, so that it fits."""
    texts = meta_texts(meta)
    del texts["held"]
    packed = pack(texts)
    header = _FRAME.pack(_MAGIC, meta.held, len(packed)) + packed
    return header.ljust(HEADER_BYTES, b"\0")


def decode_header(header: bytes) -> ObjectMeta:
    """Return the metadata; FormatError for any bytes that `encode_header` does not produce."""
    if len(header) != HEADER_BYTES:
        raise FormatError(f"an object file of {len(header)} bytes is shorter than its header")
    magic, held, length = _FRAME.unpack_from(header)
    end = _FRAME.size + length
    if magic != _MAGIC or held not in (0, 1) or end > HEADER_BYTES or any(header[end:]):
        raise FormatError("an object file without a valid header")
    texts = unpack(header[_FRAME.size : end])
    keys = ("retain-until", "retention-class", "sha256")
    values = fields(texts, **dict.fromkeys(keys, str))
    return parse_meta_texts({**dict(zip(keys, values, strict=True)), "held": "true" if held else "false"})


def held_byte(*, held: bool) -> bytes:
    """Return the byte that belongs at `HELD_OFFSET`."""
    return b"\1" if held else b"\0"
