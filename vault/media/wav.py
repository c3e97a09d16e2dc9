"""Playable views of stored bytes: WAV is made on reading, and any byte range can be read in O(1).

Headerless G.711 and L16 get the 44-byte header of a PCM WAVE file (RIFF, Multimedia Programming Interface 1.0) and
16-bit little-endian samples, so byte n of the data is byte 44 + n of the answer. Files with a container pass through. A
WAV without its sizes, because it was streamed or its recorder died, gets them.

RIFF sizes have 32 bits. Beyond 4 GiB they are FFFFFFFF, which players read as "until the end". RF64 is not written.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from vault.errors import Invalid
from vault.media import g711
from vault.media.descriptor import SAMPLE_BYTES as STORED_SAMPLE_BYTES
from vault.media.wav_sizes import UNKNOWN, Patch, WavHead, patches
from vault.model import Codec, Container, Media

HEADER_BYTES: Final = 44
_SAMPLE_BYTES: Final = 2
_RAW_TYPES: Final = {
    Codec.PCMU: "audio/PCMU;rate={rate};channels={channels}",
    Codec.PCMA: "audio/PCMA;rate={rate};channels={channels}",
    Codec.S16LE: "audio/L16;rate={rate};channels={channels};byteorder=le",
    Codec.S16BE: "audio/L16;rate={rate};channels={channels}",
}
_CONTAINER_TYPES: Final = {
    Container.WAV: "audio/wav",
    Container.OGG: "audio/ogg",
    Container.WEBM: "audio/webm",
    Container.MP3: "audio/mpeg",
}


def wav_header(*, rate: int, channels: int, data_bytes: int) -> bytes:
    """Return the 44-byte header of a PCM16 file with `data_bytes` of samples."""
    frame = channels * _SAMPLE_BYTES
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        min(data_bytes + HEADER_BYTES - 8, UNKNOWN),
        b"WAVE",
        b"fmt ",
        16,
        1,
        channels,
        rate,
        min(rate * frame, UNKNOWN),
        frame,
        8 * _SAMPLE_BYTES,
        b"data",
        min(data_bytes, UNKNOWN),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPlan:
    """How to answer one byte range: send `header`, then stored bytes `[first, last)` through `converter`."""

    header: bytes
    first: int
    last: int
    codec: Codec = Codec.STREAM
    skip: int = 0
    """How many converted bytes to drop at the front, because the range begins inside a sample."""
    body_bytes: int = 0
    """How many converted bytes to send after the header and the skip."""
    patches: Sequence[Patch] = ()
    """Bytes that replace stored bytes before they are converted."""

    def converter(self) -> Callable[[bytes], bytes]:
        """Return a new function that converts the plan's stored bytes, given in order in pieces of any size.

        Its joined results are the body of the answer. Samples may be split between pieces.
        """
        if self.patches:
            return _Patcher(at=self.first, patches=self.patches)
        return _Converter(codec=self.codec, skip=self.skip, remaining=self.body_bytes)


class View(Protocol):
    """A playable rendering of a recording's stored bytes."""

    @property
    def content_type(self) -> str:
        """The media type to answer with."""

    @property
    def total_length(self) -> int:
        """The length of the whole rendering in bytes."""

    def plan(self, start: int, end: int) -> ReadPlan:
        """Return how to produce bytes `[start, end)`; Invalid unless `0 <= start <= end <= total_length`."""


@dataclass(frozen=True, slots=True)
class WavView:
    """Headerless samples as a PCM16 WAV. An incomplete last frame, left by a broken connection, is not played."""

    media: Media
    stored_bytes: int
    content_type: str = field(default="audio/wav", init=False)

    def __post_init__(self) -> None:
        if self.media.container is not Container.RAW or self.media.codec not in STORED_SAMPLE_BYTES:
            raise Invalid("only headerless G.711 and L16 is rendered as WAV")

    @property
    def data_bytes(self) -> int:
        """The number of PCM16 bytes after the header."""
        frame = self.media.channels * STORED_SAMPLE_BYTES[self.media.codec]
        return self.stored_bytes // frame * self.media.channels * _SAMPLE_BYTES

    @property
    def total_length(self) -> int:
        """The length of the whole file in bytes."""
        return HEADER_BYTES + self.data_bytes

    def plan(self, start: int, end: int) -> ReadPlan:
        """Return how to produce bytes `[start, end)` of the file."""
        _check(start, end, self.total_length)
        media = self.media
        header = wav_header(rate=media.rate, channels=media.channels, data_bytes=self.data_bytes)[start:end]
        body_start, body_end = max(start - HEADER_BYTES, 0), max(end - HEADER_BYTES, 0)
        if body_start >= body_end:
            return ReadPlan(header=header, first=0, last=0)
        sample_bytes = STORED_SAMPLE_BYTES[media.codec]
        first_sample, last_sample = body_start // _SAMPLE_BYTES, -(-body_end // _SAMPLE_BYTES)
        return ReadPlan(
            header=header,
            first=first_sample * sample_bytes,
            last=last_sample * sample_bytes,
            codec=media.codec,
            skip=body_start % _SAMPLE_BYTES,
            body_bytes=body_end - body_start,
        )


@dataclass(frozen=True, slots=True)
class PassThroughView:
    """Stored bytes from `begin` on, unchanged except for `patches`."""

    content_type: str
    total_length: int
    patches: Sequence[Patch] = ()
    begin: int = 0

    def plan(self, start: int, end: int) -> ReadPlan:
        """Return how to produce bytes `[start, end)`."""
        _check(start, end, self.total_length)
        first, last = self.begin + start, self.begin + end
        return ReadPlan(header=b"", first=first, last=last, body_bytes=end - start, patches=self.patches)


def has_wav_head(media: Media) -> bool:
    """Tell whether `playable` needs the head that `wav_sizes.find_wav_head` finds in the stored bytes."""
    return media.container is Container.WAV


def playable(media: Media, stored_bytes: int, *, head: WavHead | None = None) -> View:
    """Return the view a player gets: WAV for headerless audio, the stored container otherwise.

    Wrong sizes in the `head` of a WAV are corrected. An ID3v2 tag in front of it is left out, because players do not
    read a WAV behind one.
    """
    if media.container is Container.RAW:
        return WavView(media, stored_bytes)
    content_type = _CONTAINER_TYPES[media.container]
    if head is None:
        return PassThroughView(content_type, stored_bytes)
    return PassThroughView(content_type, stored_bytes - head.begin, patches(head, stored_bytes), head.begin)


def verbatim(media: Media, stored_bytes: int) -> View:
    """Return the view of the bytes as the recorder sent them."""
    if media.container is Container.RAW:
        content_type = _RAW_TYPES[media.codec].format(rate=media.rate, channels=media.channels)
    else:
        content_type = _CONTAINER_TYPES[media.container]
    return PassThroughView(content_type, stored_bytes)


def _check(start: int, end: int, total: int) -> None:
    if not 0 <= start <= end <= total:
        raise Invalid(f"bytes {start} to {end} are not within the {total} bytes")


@dataclass(slots=True, kw_only=True)
class _Converter:
    """Converts consecutive pieces; `odd` is the first byte of a 16-bit sample that was split."""

    codec: Codec
    skip: int
    remaining: int
    odd: bytes = b""

    def __call__(self, piece: bytes) -> bytes:
        match self.codec:
            case Codec.PCMU | Codec.PCMA:
                converted = g711.decode(self.codec, piece)
            case Codec.S16BE:
                converted = self._swapped(piece)
            case _:
                converted = piece
        out = converted[self.skip : self.skip + self.remaining]
        self.skip -= min(self.skip, len(converted))
        self.remaining -= len(out)
        return out

    def _swapped(self, piece: bytes) -> bytes:
        joined = self.odd + piece
        whole = len(joined) & ~1
        self.odd = joined[whole:]
        samples = array("h", joined[:whole])
        samples.byteswap()
        return samples.tobytes()


@dataclass(slots=True, kw_only=True)
class _Patcher:
    """Applies patches to consecutive pieces of stored bytes; the next piece begins at `at`."""

    at: int
    patches: Sequence[Patch]

    def __call__(self, piece: bytes) -> bytes:
        begin, end = self.at, self.at + len(piece)
        self.at = end
        for patch in self.patches:
            first, last = max(begin, patch.at), min(end, patch.at + len(patch.data))
            if first < last:
                new = patch.data[first - patch.at : last - patch.at]
                piece = piece[: first - begin] + new + piece[last - begin :]
        return piece
