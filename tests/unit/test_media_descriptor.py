"""What recorders declare, and what is recognised when they declare nothing."""

from __future__ import annotations

import pytest

from vault.errors import Invalid, UnsupportedMedia
from vault.media.descriptor import parse_content_type, raw_media
from vault.model import Codec, Container, Media


def raw(codec: Codec, rate: int, channels: int) -> Media:
    channel_map = ("caller", "callee") if channels == 2 else ()
    return Media(container=Container.RAW, codec=codec, rate=rate, channels=channels, channel_map=channel_map)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("audio/basic", raw(Codec.PCMU, 8000, 1)),
        ("audio/basic;rate=16000", raw(Codec.PCMU, 16000, 1)),
        ("audio/x-mulaw", raw(Codec.PCMU, 8000, 1)),
        ("audio/ulaw", raw(Codec.PCMU, 8000, 1)),
        ("audio/x-alaw;channels=2", raw(Codec.PCMA, 8000, 2)),
        ("audio/PCMU", raw(Codec.PCMU, 8000, 1)),
        ("audio/PCMU;rate=8000;channels=2", raw(Codec.PCMU, 8000, 2)),
        ("AUDIO/pcmu ; Rate=16000 ; Channels=1", raw(Codec.PCMU, 16000, 1)),
        ("audio/PCMA; channels=2", raw(Codec.PCMA, 8000, 2)),
        ("audio/L16;rate=16000", raw(Codec.S16BE, 16000, 1)),
        ('audio/L16;rate="44100";channels="2"', raw(Codec.S16BE, 44100, 2)),
        ("audio/L16;rate=8000;channels=2;byteorder=le", raw(Codec.S16LE, 8000, 2)),
        ("audio/L16;rate=8000;byteorder=BE", raw(Codec.S16BE, 8000, 1)),
        ("audio/l16;rate=192000;channels=16", raw(Codec.S16BE, 192000, 16)),
        ("audio/L16;rate=4000;ptime=20;", raw(Codec.S16BE, 4000, 1)),
    ],
)
def test_headerless_types_carry_their_samples_shape(value: str, expected: Media) -> None:
    assert parse_content_type(value, b"") == expected


@pytest.mark.parametrize(
    ("value", "container"),
    [
        ("audio/wav", Container.WAV),
        ("audio/x-wav", Container.WAV),
        ("audio/wave", Container.WAV),
        ("audio/vnd.wave;codec=1", Container.WAV),
        ("audio/x-wave", Container.WAV),
        ("audio/x-pn-wav", Container.WAV),
        ("audio/ogg; codecs=opus", Container.OGG),
        ("audio/opus", Container.OGG),
        ("audio/webm", Container.WEBM),
        ("audio/mpeg", Container.MP3),
        ("audio/mp3", Container.MP3),
        ("video/webm;codecs=opus", Container.WEBM),
        ("application/ogg", Container.OGG),
    ],
)
def test_container_types_leave_the_codec_to_the_container(value: str, container: Container) -> None:
    assert parse_content_type(value, b"") == Media(container=container, codec=Codec.STREAM)


@pytest.mark.parametrize(
    "declared", [None, "", "  ", "Application/Octet-Stream", "binary/octet-stream", "application/x-www-form-urlencoded"]
)
@pytest.mark.parametrize(
    ("first", "container"),
    [
        (b"RIFF\xff\xff\xff\xffWAVE", Container.WAV),
        (b"RF64\xff\xff\xff\xffWAVE", Container.WAV),
        (b"RIFF\x00\x00", Container.WAV),
        (b"OggS\x00\x02", Container.OGG),
        (b"\x1a\x45\xdf\xa3\x9f", Container.WEBM),
        (b"ID3\x04", Container.MP3),
        (b"\xff\xfb\x90\x00", Container.MP3),
        (b"\xff\xf3\x48\xc4", Container.MP3),
    ],
)
def test_undeclared_audio_is_recognised_by_its_first_bytes(
    declared: str | None, first: bytes, container: Container
) -> None:
    assert parse_content_type(declared, first) == Media(container=container, codec=Codec.STREAM)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\xff\xff\xff\xff",  # silence in mu-law
        b"\xd5\xd5\xd5\xd5",  # silence in A-law
        b"\xff\xf1\x50\x80",  # AAC in ADTS: layer 0
        b"\xff\xfb\xf0\x00",  # a bitrate that does not exist
        b"\xff\xfb\x9c\x00",  # a sampling rate that does not exist
        b"\xff\xeb\x90\x00",  # a version that does not exist
        b"\xff\xfb",
        b"RIFF\x00\x00\x00\x00AVI ",
    ],
)
def test_unrecognised_audio_is_refused_with_what_to_send(first: bytes) -> None:
    with pytest.raises(UnsupportedMedia) as caught:
        parse_content_type(None, first)
    assert "audio/L16" in (caught.value.hint or "")


@pytest.mark.parametrize("value", ["audio/aac", "video/mp4", "text/plain", "audio/x-unknown;rate=8000"])
def test_types_the_vault_cannot_play_are_unsupported(value: str) -> None:
    with pytest.raises(UnsupportedMedia) as caught:
        parse_content_type(value, b"OggS")
    assert "audio/wav" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "value",
    [
        "audio/L16",
        "audio/L16;rate=3999",
        "audio/L16;rate=192001",
        "audio/L16;rate=-8000",
        "audio/L16;rate=8e3",
        "audio/L16;rate=8000;channels=0",
        "audio/L16;rate=8000;channels=17",
        "audio/L16;rate=8000;byteorder=middle",
        "audio/L16;rate=8000;rate=16000",
        'audio/L16;rate="8000',
        "audio/L16;rate",
        "audio/L16 rate=8000",
        "audio",
        "/",
        "audio/PCMU;rate=8000, audio/wav",
        "audio/PCMU;rate=\u0668\u0660\u0660\u0660",
    ],
)
def test_malformed_or_impossible_declarations_are_invalid(value: str) -> None:
    with pytest.raises(Invalid):
        parse_content_type(value, b"OggS")


def test_headerless_audio_is_never_of_unknown_encoding() -> None:
    with pytest.raises(Invalid):
        raw_media(Codec.STREAM, rate=8000, channels=1)
