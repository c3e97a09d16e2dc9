"""Whether the last bytes of a streamed file show that the file is complete."""

from __future__ import annotations

import struct
from typing import Final

from vault.model import Container

TAIL_BYTES: Final = 65_307
"""The size of the largest Ogg page (RFC 3533 section 6), which is how many last bytes `says_end` needs."""

_PAGE_HEADER: Final = 27
_END_OF_STREAM: Final = 0x04
_WAV_HEADERS: Final = 128


def says_end(container: Container, tail: bytes, total: int) -> bool:
    """Tell whether `tail`, the last bytes of a file of `total` bytes, marks the end of the file.

    Ogg marks its last page (RFC 3533 section 6, header type 0x04). A WAV writer that cannot seek, such as GStreamer's
    `wavenc` before a network sink, sends its header again at the end, with the final sizes.
    """
    match container:
        case Container.OGG:
            return _ogg_ends(tail)
        case Container.WAV:
            return _wav_ends(tail, total)
    return False


def _ogg_ends(tail: bytes) -> bool:
    start = tail.rfind(b"OggS")
    while start >= 0:
        header = tail[start : start + _PAGE_HEADER]
        if len(header) == _PAGE_HEADER:
            lacing = tail[start + _PAGE_HEADER : start + _PAGE_HEADER + header[26]]
            if start + _PAGE_HEADER + header[26] + sum(lacing) == len(tail):
                return bool(header[5] & _END_OF_STREAM)
        start = tail.rfind(b"OggS", 0, start)
    return False


def _wav_ends(tail: bytes, total: int) -> bool:
    tail = tail[-_WAV_HEADERS:]
    start = tail.rfind(b"RIFF")
    again = tail[start:] if start >= 0 else b""
    if again[8:12] != b"WAVE" or again[-8:-4] != b"data":
        return False
    (riff,) = struct.unpack_from("<I", again, 4)
    return int(riff) + 8 + len(again) == total
