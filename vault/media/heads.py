"""What a file's first bytes say of its rate, channels and format, and whether its last bytes show that it is complete.

WAV: Multimedia Programming Interface 1.0, and mmreg.h for its extensible format. Ogg: RFC 3533 with Opus (RFC 7845),
Vorbis I, FLAC and Speex. MPEG audio: ISO/IEC 11172-3 and 13818-3, behind ID3v2. WebM: RFC 8794 and RFC 9559.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from vault.media.descriptor import SNIFF_BYTES, is_mpeg_frame, recognise
from vault.media.wav_sizes import FMT_BYTES, WavHead, behind_id3, head_in
from vault.model import Codec, Container, Content, Examined, Media

# -- heads --------------------------------------------------------------------------------------------------------

HEAD_BYTES: Final = 1 << 20
"""How many first bytes are examined."""
_SEARCHED: Final = 1 << 16
"""How many of them are searched for the first whole MPEG audio frame."""

_MARKED: Final = frozenset({Container.WAV, Container.OGG, Container.WEBM})
"""Containers whose first bytes are too distinctive to be samples by chance."""
_CONTAINERS: Final = frozenset(Container)
DIFFERENCES: Final = tuple(
    (declared, content)
    for declared in Container
    for content in Content
    if content.value != declared.value and (declared is not Container.RAW or content.value in _MARKED)
)
"""The pairs of declared and actual format that `examine_head` can report."""

_WAV_CODECS: Final = {(1, 16): Codec.S16LE, (6, 8): Codec.PCMA, (7, 8): Codec.PCMU}
"""Codecs by format tag and bits per sample."""
_EXTENSIBLE: Final = 0xFFFE
_SUBFORMAT_AT: Final = 24
_FMT: Final = struct.Struct("<HHIIHH")
_MOST: Final = (1 << 31) - 1
"""The greatest rate or number of channels that is accepted."""
_OGG_HEADER: Final = 27
_OPUS_RATE: Final = 48_000
_TEXT_BYTES: Final = 256
_CONTROLS: Final = "\t\n\r\f"


class _HeadFormat(NamedTuple):
    rate: int
    channels: int
    codec: Codec = Codec.STREAM


def examine_head(declared: Media, first: bytes, *, whole: bool) -> Examined:
    """Return the media of a recording by its first HEAD_BYTES or fewer, and its content if it is not as declared.

    Rate, channels and, for WAV, the codec become those in the container's header. `whole` tells that the recording has
    no more bytes; if it may have more, fewer than SNIFF_BYTES decide nothing. Headerless audio has no header to
    compare, so only a container in its place is noticed. An ID3v2 tag in front of a container is skipped; nothing is
    decided if the tag is longer than `first`.
    """
    unknown = declared.container is Container.RAW and declared.codec is Codec.STREAM
    if unknown or not first or (len(first) < SNIFF_BYTES and not whole):
        return Examined(media=declared)
    found = _found(first)
    behind = behind_id3(first)
    if declared.container is Container.RAW:
        return Examined(media=declared, content=Content(found.value) if found in _MARKED else None)
    if declared.container is Container.MP3 and found is None and _mpeg_frame(first) is not None:
        found = Container.MP3  # a stream whose recording began in the middle of a frame
    if found is declared.container:
        stated = _READERS[found](first[behind:] if found in _MARKED else first)
        return Examined(media=_with(declared, stated))
    if behind and behind + SNIFF_BYTES > len(first):
        return Examined(media=declared)
    if found is not None:
        return Examined(media=declared, content=Content(found.value))
    return Examined(media=declared, content=Content.TEXT if _is_text(first) else Content.UNKNOWN)


def _with(declared: Media, stated: _HeadFormat | None) -> Media:
    plausible = stated is not None and 0 < stated.rate <= _MOST and 0 < stated.channels <= _MOST
    return replace(declared, **stated._asdict()) if stated is not None and plausible else declared


def playable_media(declared: Media, content: Content | None) -> Media:
    """Return the media to play a recording as: its actual container if `content` is one, else what was declared."""
    known = content is not None and content.value in _CONTAINERS
    return Media(container=Container(content), codec=Codec.STREAM) if known and content is not None else declared


def fits_declaration(kept: Media, declared: Media) -> bool:
    """Tell whether the declaration of further bytes fits a recording whose media may have been read from its head."""
    return kept == declared if declared.container is Container.RAW else kept.container is declared.container


def _found(first: bytes) -> Container | None:
    found = recognise(first)
    if found is Container.MP3 and not first.startswith(b"ID3") and _mpeg_frame(first, search=False) is None:
        return None
    return found


def _is_text(first: bytes) -> bool:
    text = first[:_TEXT_BYTES].decode("utf-8", "replace")
    if len(first) > _TEXT_BYTES:
        text = text.rstrip("\ufffd")  # a character that was cut
    return all(each in _CONTROLS or (each.isprintable() and each != "\ufffd") for each in text)


# -- WAV --------------------------------------------------------------------------------------------------------------


def _wav(first: bytes) -> _HeadFormat | None:
    head = head_in(first)
    return None if head is None else _format(head.fmt)


def _format(fmt: bytes) -> _HeadFormat | None:
    if len(fmt) < _FMT.size:
        return None
    tag, channels, rate, _, _, bits = _FMT.unpack_from(fmt)
    if tag == _EXTENSIBLE and len(fmt) == FMT_BYTES:
        (tag,) = struct.unpack_from("<H", fmt, _SUBFORMAT_AT)
    return _HeadFormat(rate, channels, _WAV_CODECS.get((tag, bits), Codec.STREAM))


def wav_media(head: WavHead, declared: Media) -> Media:
    """Return the media of a WAV with the rate, channels and codec in its head, if those are plausible."""
    return _with(declared, _format(head.fmt))


# -- Ogg --------------------------------------------------------------------------------------------------------------


def _ogg(first: bytes) -> _HeadFormat | None:
    """Read the first packet, which has its own page."""
    packet = first[_OGG_HEADER + first[_OGG_HEADER - 1] :] if len(first) >= _OGG_HEADER else b""
    try:
        if packet.startswith(b"OpusHead"):
            channels, rate = struct.unpack_from("<BxxI", packet, 9)
            return _HeadFormat(rate or _OPUS_RATE, channels)
        if packet.startswith(b"\x01vorbis"):
            channels, rate = struct.unpack_from("<BI", packet, 11)
            return _HeadFormat(rate, channels)
        if packet.startswith(b"\x7fFLAC"):
            (bits,) = struct.unpack_from(">I", packet, 27)  # 20 bits of rate, 3 of channels less one
            return _HeadFormat(bits >> 12, (bits >> 9 & 7) + 1)
        if packet.startswith(b"Speex   "):
            rate, channels = struct.unpack_from("<I8xI", packet, 36)
            return _HeadFormat(rate, channels)
    except struct.error:
        pass
    return None


# -- MPEG audio -------------------------------------------------------------------------------------------------------

_V1_LAYER_3: Final = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_V1_LAYER_2: Final = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_V2: Final = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG_RATES: Final = (44_100, 48_000, 32_000)
_MPEG_1: Final = 3
_LAYER_2: Final = 2
_MONO: Final = 3
_WORD: Final = 4
_SAME: Final = 0xFFFE0C00
"""The bits of a frame's header that the next frame's header has too."""


def _mpeg(first: bytes) -> _HeadFormat | None:
    at = _mpeg_frame(first)
    if at is None:
        return None
    word = int.from_bytes(first[at : at + 4], "big")
    return _HeadFormat(_mpeg_rate(word), 1 if word >> 6 & 3 == _MONO else 2)


def _mpeg_rate(word: int) -> int:
    return _MPEG_RATES[word >> 10 & 3] >> {3: 0, 2: 1, 0: 2}[word >> 19 & 3]


def _mpeg_frame(first: bytes, *, search: bool = True) -> int | None:
    """Return the offset of a frame that a similar frame or the end follows; None without one.

    Without `search` only the offset behind an ID3v2 tag, or 0, is tried.
    """
    start = behind_id3(first)
    at = start
    while start <= at < start + _SEARCHED and at + _WORD <= len(first):
        header = first[at : at + _WORD]
        if is_mpeg_frame(header):
            word = int.from_bytes(header, "big")
            behind = at + _frame_bytes(word)
            following = first[behind : behind + _WORD]
            alone = len(following) < _WORD and at == start
            if alone or not (int.from_bytes(following, "big") ^ word) & _SAME:
                return at
        if not search:
            return None
        at = first.find(b"\xff", at + 1)
    return None


def _frame_bytes(word: int) -> int:
    version, layer = word >> 19 & 3, word >> 17 & 3
    if version == _MPEG_1:
        kilobits, samples = _V1_LAYER_2 if layer == _LAYER_2 else _V1_LAYER_3, 1_152
    else:
        kilobits, samples = _V2, 1_152 if layer == _LAYER_2 else 576
    return samples * kilobits[word >> 12 & 15] * 125 // _mpeg_rate(word) + (word >> 9 & 1)


# -- WebM -------------------------------------------------------------------------------------------------------------

_SEGMENT: Final = 0x18538067
_TRACKS: Final = 0x1654AE6B
_TRACK: Final = 0xAE
_AUDIO: Final = 0xE1
_WITHIN: Final = frozenset({_SEGMENT, _TRACKS, _TRACK})
_RATE: Final = 0xB5
_CHANNELS: Final = 0x9F
_REAL: Final = {4: ">f", 8: ">d"}


def _webm(first: bytes) -> _HeadFormat | None:
    """Read the audio settings of the first audio track."""
    for name, at, size in _elements(first, 0):
        if name == _AUDIO:
            rate, channels = 8_000.0, 1  # the defaults of RFC 9559
            for member, begin, length in _elements(first[: at + size], at):
                if member == _RATE and length in _REAL and begin + length <= len(first):
                    (rate,) = struct.unpack_from(_REAL[length], first, begin)
                if member == _CHANNELS:
                    channels = int.from_bytes(first[begin : begin + length], "big")
            return _HeadFormat(int(rate) if 0 < rate <= _MOST else 0, channels)
    return None


def _elements(first: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Yield name, offset and size of each element from `at` on, including those inside segment, tracks and track."""
    while (name := _variable(first, at, marked=True)) is not None:
        size = _variable(first, at + name[1], marked=False)
        if size is None:
            return
        begin = at + name[1] + size[1]
        yield name[0], begin, size[0]
        at = begin if name[0] in _WITHIN else begin + size[0]


def _variable(first: bytes, at: int, *, marked: bool) -> tuple[int, int] | None:
    """Return a variable-length number and its length; `marked` keeps the bit that states the length."""
    if at >= len(first) or not first[at]:
        return None
    length = 9 - first[at].bit_length()
    if at + length > len(first):
        return None
    value = int.from_bytes(first[at : at + length], "big")
    return value if marked else value - (1 << 7 * length), length


_READERS: Final[Mapping[Container, Callable[[bytes], _HeadFormat | None]]] = {
    Container.WAV: _wav,
    Container.OGG: _ogg,
    Container.WEBM: _webm,
    Container.MP3: _mpeg,
}


# -- ends ---------------------------------------------------------------------------------------------------------

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
