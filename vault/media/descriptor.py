"""Media descriptors from a declared content type, or from the first bytes of the audio.

Content types after RFC 3551 (PCMU, PCMA), RFC 2586 (L16, network byte order) and RFC 2046 (basic); parameters after
RFC 9110 section 5.6.6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from vault.errors import Invalid, UnsupportedMedia
from vault.media.wav_sizes import WAVES, behind_id3
from vault.model import Codec, Container, Media

MIN_RATE: Final = 4_000
MAX_RATE: Final = 192_000
MAX_CHANNELS: Final = 16
SNIFF_BYTES: Final = 12
"""How many first bytes are enough to recognise a container without a tag in front."""
TAGGED_BYTES: Final = 1 << 16
"""How many first bytes are enough to recognise a container behind an ID3v2 tag of usual size."""

TELEPHONE_RATE: Final = 8_000
SAMPLE_BYTES: Final[Mapping[Codec, int]] = {Codec.PCMU: 1, Codec.PCMA: 1, Codec.S16LE: 2, Codec.S16BE: 2}
"""Bytes of one stored sample of one channel, by encoding."""
STEREO_MAP: Final = ("caller", "callee")

_HINT: Final = (
    "send audio/basic, audio/PCMU;rate=8000;channels=2, audio/PCMA;rate=8000, audio/L16;rate=16000;channels=1"
    "[;byteorder=le], audio/wav, audio/ogg, audio/webm or audio/mpeg"
)
_WAV_TYPES: Final = ("audio/wav", "audio/x-wav", "audio/wave", "audio/x-wave", "audio/vnd.wave", "audio/x-pn-wav")
_CONTAINERS: Final[Mapping[str, Container]] = {
    **dict.fromkeys(_WAV_TYPES, Container.WAV),
    **dict.fromkeys(("audio/ogg", "audio/opus", "audio/x-ogg", "application/ogg"), Container.OGG),
    **dict.fromkeys(("audio/webm", "video/webm"), Container.WEBM),
    **dict.fromkeys(("audio/mpeg", "audio/mp3", "audio/x-mp3", "audio/mpeg3", "audio/x-mpeg"), Container.MP3),
}
_G711: Final[Mapping[str, Codec]] = {
    **dict.fromkeys(
        ("audio/basic", "audio/pcmu", "audio/mulaw", "audio/ulaw", "audio/x-mulaw", "audio/x-ulaw"), Codec.PCMU
    ),
    **dict.fromkeys(("audio/pcma", "audio/alaw", "audio/x-alaw"), Codec.PCMA),
}
_UNDECLARED: Final = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded"}
)
"""Content types that clients send for any body; the last is curl's."""
_TYPE: Final = re.compile(r"\s*([!#$%&'*+.^_`|~\w-]+/[!#$%&'*+.^_`|~\w-]+)\s*", re.ASCII)
_PARAMETER: Final = re.compile(r';\s*(?:([!#$%&\'*+.^_`|~\w-]+)=(?:([!#$%&\'*+.^_`|~\w-]+)|"([^"\\]*)")\s*)?', re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


def parse_content_type(value: str | None, first_bytes: bytes = b"") -> Media:
    """Return the descriptor of a declared content type; for a missing or generic type that of the first bytes.

    Two channels are mapped to caller and callee. UnsupportedMedia, with a hint that lists what to send, for a type that
    the vault cannot store and play. Invalid for a malformed value, or a rate, channel count or byte order out of
    bounds.
    """
    name, parameters = _split(value) if value is not None and value.strip() else ("", {})
    if name in _UNDECLARED:
        return _sniff(first_bytes)
    if container := _CONTAINERS.get(name):
        return Media(container=container, codec=Codec.STREAM)
    return _headerless(name, parameters)


def is_declared(value: str | None) -> bool:
    """Tell whether a content type names a format, so that the first bytes are not needed to recognise it."""
    return value is not None and value.partition(";")[0].strip().lower() not in _UNDECLARED


def raw_media(codec: Codec, *, rate: int, channels: int) -> Media:
    """Return the descriptor of headerless samples; Invalid unless it has 4000-192000 Hz and 1-16 channels."""
    if codec is Codec.STREAM:
        raise Invalid("headerless audio needs a sample encoding", hint=_HINT)
    if not MIN_RATE <= rate <= MAX_RATE:
        raise Invalid(f"the sample rate {rate} is outside {MIN_RATE}-{MAX_RATE} Hz", hint=_HINT)
    if not 1 <= channels <= MAX_CHANNELS:
        raise Invalid(f"{channels} channels is outside 1-{MAX_CHANNELS}", hint=_HINT)
    channel_map = STEREO_MAP if channels == len(STEREO_MAP) else ()
    return Media(container=Container.RAW, codec=codec, rate=rate, channels=channels, channel_map=channel_map)


def _headerless(name: str, parameters: Mapping[str, str]) -> Media:
    if codec := _G711.get(name):
        return _declared(codec, parameters, default_rate=TELEPHONE_RATE)
    if name == "audio/l16":
        return _declared(_l16_codec(parameters), parameters, default_rate=None)
    raise UnsupportedMedia("the declared content type is not one the vault can keep and play", hint=_HINT)


def _split(value: str) -> tuple[str, Mapping[str, str]]:
    match = _TYPE.match(value)
    if match is None:
        raise Invalid("the content type is malformed", hint=_HINT)
    parameters: dict[str, str] = {}
    end = match.end()
    while end < len(value):
        parameter = _PARAMETER.match(value, end)
        if parameter is None:
            raise Invalid("the content type's parameters are malformed", hint=_HINT)
        end = parameter.end()
        if key := parameter[1]:
            if key.lower() in parameters:
                raise Invalid(f"the content type repeats {key.lower()}", hint=_HINT)
            parameters[key.lower()] = parameter[2] if parameter[2] is not None else parameter[3]
    return match[1].lower(), parameters


def _declared(codec: Codec, parameters: Mapping[str, str], *, default_rate: int | None) -> Media:
    rate = _number(parameters, "rate", default_rate)
    return raw_media(codec, rate=rate, channels=_number(parameters, "channels", 1))


def _number(parameters: Mapping[str, str], key: str, default: int | None) -> int:
    text = parameters.get(key)
    if text is None:
        if default is None:
            raise Invalid(f"the content type lacks {key}", hint=_HINT)
        return default
    if not _NUMBER.fullmatch(text):
        raise Invalid(f"the content type's {key} is not a number", hint=_HINT)
    return int(text)


def _l16_codec(parameters: Mapping[str, str]) -> Codec:
    match parameters.get("byteorder", "be").lower():
        case "be":
            return Codec.S16BE
        case "le":
            return Codec.S16LE
    raise Invalid("byteorder is be (network order, the default) or le", hint=_HINT)


def _sniff(first: bytes) -> Media:
    container = recognise(first)
    if container is None:
        raise UnsupportedMedia("no content type was declared and the first bytes are of no known format", hint=_HINT)
    return Media(container=container, codec=Codec.STREAM)


def recognise(first: bytes) -> Container | None:
    """Return the container that begins with these bytes; None if they are not enough or of no known container.

    Audio behind an ID3v2 tag counts as MPEG audio, unless another container is recognised there.
    """
    if behind := behind_id3(first):
        return _recognise(first[behind : behind + SNIFF_BYTES]) or Container.MP3
    return _recognise(first)


def _recognise(first: bytes) -> Container | None:
    if first[:4] in WAVES and b"WAVE".startswith(first[8:12]):
        return Container.WAV
    if first.startswith(b"OggS"):
        return Container.OGG
    if first.startswith(b"\x1a\x45\xdf\xa3"):  # EBML, RFC 8794 section 11.2
        return Container.WEBM
    if first.startswith(b"ID3") or is_mpeg_frame(first[:4]):
        return Container.MP3
    return None


def is_mpeg_frame(header: bytes) -> bool:
    """Tell whether these 4 bytes are a valid MPEG audio frame header (ISO/IEC 11172-3 section 2.4.1.3)."""
    word = int.from_bytes(header.ljust(4, b"\xff"), "big")
    sync, version, layer = word >> 21, word >> 19 & 3, word >> 17 & 3
    bitrate, rate = word >> 12 & 15, word >> 10 & 3
    return sync == 0x7FF and version != 1 and layer in {1, 2} and bitrate not in {0, 15} and rate != 3  # noqa: PLR2004 - the header's reserved values
