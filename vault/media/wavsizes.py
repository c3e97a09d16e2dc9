"""The sizes in the head of a stored WAV, mended where its recorder died, or streamed, before it wrote them.

A recorder writes zeros, FFFFFFFF or the size of its first write, and comes back to the head when it closes the file.
Where the head contradicts what is stored, what is stored is what plays. RIFF: Multimedia Programming Interface 1.0;
RF64 and BW64, whose 64-bit sizes are in `ds64`: EBU Tech 3306, ITU-R BS.2088.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

UNKNOWN: Final = 0xFFFFFFFF
WAVES: Final = frozenset({b"RIFF", b"RF64", b"BW64"})
"""What a WAV begins with."""
_CHUNKS: Final = 12
"""Where the chunks of a file begin."""
_DS64_BYTES: Final = 28
_ALIGN_AT: Final = 12
"""Where a `fmt ` chunk has the bytes of a frame."""


def patch_wav_sizes(first: bytes, stored_length: int) -> bytes:
    """Return `first`, the beginning of a stored WAV of `stored_length` bytes, with impossible sizes corrected.

    The size of the samples becomes what the stored length says if it reaches beyond that, or if bytes follow the
    samples and the size of the file is wrong as well. Everything else is returned untouched: finished files, other
    formats, samples that begin later than `first` reaches.
    """
    if first[8:12] != b"WAVE":
        return first
    if first[:4] == b"RIFF":
        return _patch_riff(first, stored_length)
    if first[:4] in {b"RF64", b"BW64"} and first[12:16] == b"ds64" and len(first) >= _CHUNKS + 8 + _DS64_BYTES:
        return _patch_ds64(first, stored_length)
    return first


def _patch_riff(first: bytes, stored_length: int) -> bytes:
    (told,) = struct.unpack_from("<I", first, 4)
    file_size = min(stored_length - 8, UNKNOWN)
    patched = bytearray(first)
    for name, at, size in chunks(first):
        room = stored_length - at
        if name == b"data":
            if told != file_size and size == room - 1:
                return first  # only the byte that pads an odd size was not counted
            if size > room or (told != file_size and size < room):
                struct.pack_into("<I", patched, at - 4, min(room, UNKNOWN))
    if told != file_size:
        struct.pack_into("<I", patched, 4, file_size)
    return bytes(patched)


def _patch_ds64(first: bytes, stored_length: int) -> bytes:
    told, told_data = struct.unpack_from("<QQ", first, _CHUNKS + 8)
    patched = bytearray(first)
    frame = 0
    for name, at, size in chunks(first):
        if name == b"fmt " and at + _ALIGN_AT + 2 <= len(first):
            (frame,) = struct.unpack_from("<H", first, at + _ALIGN_AT)
        if name == b"data":
            room = stored_length - at
            samples = told_data if size == UNKNOWN else size
            if samples > room or (told != stored_length - 8 and samples < room - 1):
                struct.pack_into("<I", patched, 4, UNKNOWN)
                struct.pack_into("<I", patched, at - 4, UNKNOWN)
                struct.pack_into("<QQQ", patched, _CHUNKS + 8, stored_length - 8, room, room // frame if frame else 0)
    return bytes(patched)


def chunks(first: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each chunk, where its content begins and its size, up to the samples."""
    at = _CHUNKS
    while at + 8 <= len(first):
        name, size = struct.unpack_from("<4sI", first, at)
        yield name, at + 8, size
        if name == b"data":
            return
        at += 8 + size + size % 2
