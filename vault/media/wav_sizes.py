"""Corrects the sizes in the head of a stored WAV whose recorder died or streamed before it wrote them.

A recorder first writes zeros, FFFFFFFF or the size of its first write, and writes the sizes when it closes the file. If
the head contradicts the stored bytes, the stored bytes decide. RIFF: Multimedia Programming Interface 1.0. RF64 and
BW64, whose 64-bit sizes are in `ds64`: EBU Tech 3306, ITU-R BS.2088.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Sequence
from typing import Final, NamedTuple

# -- ID3v2 tags ---------------------------------------------------------------------------------------------------

ID3_BYTES: Final = 10
"""How many first bytes state the length of a tag."""
_FOOTER: Final = 0x10


def behind_id3(first: bytes) -> int:
    """Return the offset of the file behind an ID3v2 tag, 0 without one; it may lie beyond `first`."""
    if not first.startswith(b"ID3") or len(first) < ID3_BYTES:
        return 0
    size = first[6] << 21 | first[7] << 14 | first[8] << 7 | first[9]
    return ID3_BYTES + size + (ID3_BYTES if first[5] & _FOOTER else 0)


# -- sizes in the head of a WAV -----------------------------------------------------------------------------------

UNKNOWN: Final = 0xFFFFFFFF
WAVES: Final = frozenset({b"RIFF", b"RF64", b"BW64"})
"""The first four bytes of a WAV."""
STRETCH_BYTES: Final = 1 << 16
"""How many bytes of a file are read at a time; they usually include the beginning of the samples."""
MOST_STRETCHES: Final = 64
"""How many such reads are made at most."""
MOST_CHUNKS: Final = 1024
"""How many chunks are looked at; a usual file has fewer than ten before its samples."""
FMT_BYTES: Final = 26
"""How many bytes of a `fmt ` chunk describe the samples, also in its extensible form."""
_CHUNKS: Final = 12
"""The offset of a file's first chunk."""
_CHUNK: Final = struct.Struct("<4sI")
_DS64: Final = struct.Struct("<QQQ")
_ALIGN_AT: Final = 12
"""The offset of the frame size in a `fmt ` chunk."""


class Patch(NamedTuple):
    """Bytes that replace as many stored bytes at offset `at`."""

    at: int
    data: bytes


class WavHead(NamedTuple):
    """The head of a stored WAV: what comes before its samples."""

    begin: int
    """The offset of the file: behind an ID3v2 tag, if there is one."""
    name: bytes
    file_size: int
    """The size of the file as its head states it."""
    ds64: bytes
    fmt: bytes
    """The first FMT_BYTES of the `fmt ` chunk, or fewer; b"" without one."""
    samples_at: int
    """The offset of the samples; 0 if no `data` chunk was found."""
    samples_size: int
    """The size of the samples as their chunk states it."""


def find_wav_head(stored_length: int) -> Generator[tuple[int, int], bytes, WavHead | None]:
    """Yield ranges of stored bytes, which the caller sends back; return the head of a WAV, None for another format.

    Of `stored_length` bytes it requests STRETCH_BYTES at a time, at most MOST_STRETCHES times, from chunk to chunk up
    to the samples, through MOST_CHUNKS of them. The content of other chunks is skipped.
    """
    stretch = _Stretch(stored_length)
    begin = behind_id3((yield from stretch.at(0, ID3_BYTES)))
    first = yield from stretch.at(begin, _CHUNKS)
    if first[:4] not in WAVES or first[8:] != b"WAVE":
        return None
    head = WavHead(begin, first[:4], int.from_bytes(first[4:8], "little"), b"", b"", 0, 0)
    at = begin + _CHUNKS
    for _ in range(MOST_CHUNKS):
        chunk = yield from stretch.at(at, _CHUNK.size)
        if len(chunk) < _CHUNK.size:
            break
        name, size = _CHUNK.unpack(chunk)
        body = at + _CHUNK.size
        if name == b"ds64" and at == begin + _CHUNKS:
            head = head._replace(ds64=(yield from stretch.at(body, _DS64.size)))
        if name == b"fmt " and not head.fmt:
            head = head._replace(fmt=(yield from stretch.at(body, min(size, FMT_BYTES))))
        if name == b"data":
            return head._replace(samples_at=body, samples_size=size)
        at = body + size + size % 2
    return head


class _Stretch:
    """One stretch of the stored bytes, which is replaced when bytes outside of it are needed."""

    def __init__(self, stored_length: int) -> None:
        self._stored_length = stored_length
        self._begin = 0
        self._bytes = b""
        self._taken = 0

    def at(self, at: int, size: int) -> Generator[tuple[int, int], bytes, bytes]:
        """Return `size` bytes from `at` on; fewer at the end of the file or after MOST_STRETCHES."""
        within = self._begin <= at and at + size <= self._begin + len(self._bytes)
        if not within and at < self._stored_length and self._taken < MOST_STRETCHES:
            self._taken += 1
            self._begin, self._bytes = at, (yield at, min(at + STRETCH_BYTES, self._stored_length))
        place = at - self._begin
        return self._bytes[place : place + size] if place >= 0 else b""


def head_in(first: bytes) -> WavHead | None:
    """Return the head of a stored WAV as far as its first bytes contain it; None for another format."""
    looking = find_wav_head(len(first))
    try:
        start, end = next(looking)
        while True:
            start, end = looking.send(first[start:end])
    except StopIteration as found:
        head: WavHead | None = found.value
        return head


def patches(head: WavHead, stored_length: int) -> Sequence[Patch]:
    """Return patches that correct wrong sizes in the head of a stored WAV of `stored_length` bytes.

    The size of the samples is corrected to the stored length if it is larger, or if it is smaller and the size of the
    file is wrong as well. A finished file needs no patches.
    """
    return _riff(head, stored_length) if head.name == b"RIFF" else _rf64(head, stored_length)


def samples_bytes(head: WavHead, stored_length: int) -> int:
    """Return how many bytes of samples can be played."""
    room = stored_length - head.samples_at
    stated = head.samples_size
    if stated == UNKNOWN and len(head.ds64) == _DS64.size:
        _, stated, _ = _DS64.unpack(head.ds64)
    return room if any(patch.at == head.samples_at - 4 for patch in patches(head, stored_length)) else min(stated, room)


def _riff(head: WavHead, stored_length: int) -> Sequence[Patch]:
    size = min(stored_length - head.begin - 8, UNKNOWN)
    wrong = () if head.file_size == size else (_number(head.begin + 4, size),)
    if not head.samples_at:
        return wrong
    room, stated = stored_length - head.samples_at, head.samples_size
    if wrong and stated == room - 1:
        return ()  # only the padding byte of an odd size was not counted
    if stated > room or (wrong and stated < room):
        return (*wrong, _number(head.samples_at - 4, min(room, UNKNOWN)))
    return wrong


def _rf64(head: WavHead, stored_length: int) -> Sequence[Patch]:
    if len(head.ds64) < _DS64.size or not head.samples_at:
        return ()
    stated, stated_samples, _ = _DS64.unpack(head.ds64)
    size = stated_samples if head.samples_size == UNKNOWN else head.samples_size
    room, file_size = stored_length - head.samples_at, stored_length - head.begin - 8
    if size > room or (stated != file_size and size < room - 1):
        frame = int.from_bytes(head.fmt[_ALIGN_AT : _ALIGN_AT + 2], "little")
        sizes = _DS64.pack(file_size, room, room // frame if frame else 0)
        return (
            _number(head.begin + 4, UNKNOWN),
            Patch(head.begin + _CHUNKS + _CHUNK.size, sizes),
            _number(head.samples_at - 4, UNKNOWN),
        )
    return ()


def _number(at: int, value: int) -> Patch:
    return Patch(at, struct.pack("<I", value))
