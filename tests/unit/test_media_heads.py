"""What the first bytes of a recording say; where libsndfile reads a format, it is the judge."""

from __future__ import annotations

import io
import random
import struct

import pytest
import soundfile

from vault.media.descriptor import parse_content_type, raw_media
from vault.media.heads import DIFFERENCES, HEAD_BYTES, examine_head, fits_declaration, playable_media
from vault.model import Codec, Container, Content, Examined, Media

SAMPLES = bytes(range(256)) * 125
RANDOM = random.Random(7).randbytes(4096)
TEXT = "<html>\r\n<body>404 — nothing is here</body></html>\n".encode() * 12


def of(container: Container) -> Media:
    return Media(container=container, codec=Codec.STREAM)


def made(container: str, subtype: str, rate: int, channels: int) -> bytes:
    """Return a file that libsndfile wrote."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, channels, subtype, format=container) as writer:
        writer.buffer_write(SAMPLES, dtype="int16")
    return file.getvalue()


FILES = (
    ("WAV", "PCM_16", Container.WAV, Codec.S16LE),
    ("WAV", "PCM_24", Container.WAV, Codec.STREAM),
    ("WAV", "PCM_U8", Container.WAV, Codec.STREAM),
    ("WAV", "FLOAT", Container.WAV, Codec.STREAM),
    ("WAV", "ULAW", Container.WAV, Codec.PCMU),
    ("WAV", "ALAW", Container.WAV, Codec.PCMA),
    ("WAVEX", "PCM_16", Container.WAV, Codec.S16LE),
    ("RF64", "PCM_16", Container.WAV, Codec.S16LE),
    ("OGG", "VORBIS", Container.OGG, Codec.STREAM),
    ("OGG", "OPUS", Container.OGG, Codec.STREAM),
    ("MP3", "MPEG_LAYER_III", Container.MP3, Codec.STREAM),
)


def test_the_head_tells_the_rate_the_channels_and_the_codec_that_libsndfile_reads() -> None:
    for name, subtype, container, codec in FILES:
        for rate, channels in ((8_000, 1), (16_000, 2), (48_000, 2)):
            file = made(name, subtype, rate, channels)
            with soundfile.SoundFile(io.BytesIO(file)) as judge:
                truth = (judge.samplerate, judge.channels)
            examined = examine_head(of(container), file[:HEAD_BYTES], whole=True)
            assert (examined.media.rate, examined.media.channels) == truth == (rate, channels), (name, subtype, rate)
            assert (examined.media.container, examined.media.codec, examined.content) == (container, codec, None)


def test_the_head_of_speex_tells_the_same() -> None:
    header = (
        b"Speex   " + b"1.2.1".ljust(20, b"\0") + struct.pack("<13i", 1, 80, 16_000, 1, 4, 2, -1, 320, 0, 1, 0, 0, 0)
    )
    page = b"OggS\0\x02" + bytes(16) + b"\0\0\0\0\x01" + bytes([len(header)]) + header
    examined = examine_head(of(Container.OGG), page, whole=True)
    assert (examined.media.rate, examined.media.channels, examined.content) == (16_000, 2, None)


def test_a_head_that_is_cut_off_or_makes_no_sense_leaves_the_media_as_it_was() -> None:
    wav = made("WAV", "PCM_16", 8_000, 1)
    senseless = wav[:22] + struct.pack("<HI", 0, 8_000) + wav[28:]
    beyond = wav[:24] + struct.pack("<I", 0xFFFFFFFF) + wav[28:]
    for first in (wav[:12], wav[:30], senseless, beyond):
        assert examine_head(of(Container.WAV), first, whole=False) == Examined(media=of(Container.WAV))
    ogg = made("OGG", "OPUS", 8_000, 1)
    assert examine_head(of(Container.OGG), ogg[:35], whole=False) == Examined(media=of(Container.OGG))


def test_everything_that_is_not_what_was_declared_is_told_as_what_it_is() -> None:
    webm = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01"
    came = {
        Content.WAV: made("WAV", "PCM_16", 8_000, 1),
        Content.OGG: made("OGG", "OPUS", 8_000, 1),
        Content.WEBM: webm,
        Content.MP3: made("MP3", "MPEG_LAYER_III", 8_000, 1),
        Content.TEXT: TEXT,
        Content.UNKNOWN: RANDOM,
    }
    for container, content in DIFFERENCES:
        declared = raw_media(Codec.PCMU, rate=8_000, channels=1) if container is Container.RAW else of(container)
        assert examine_head(declared, came[content], whole=True) == Examined(media=declared, content=content)
    assert {content for _, content in DIFFERENCES} == set(Content)


def test_what_is_declared_is_never_told_apart_from_itself() -> None:
    mp3 = made("MP3", "MPEG_LAYER_III", 8_000, 1)
    tagged = b"ID3\x04\x00\x00\x00\x00\x02\x01" + bytes(257) + mp3
    for first in (mp3, mp3[100:], tagged, b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(5000)):
        assert examine_head(of(Container.MP3), first, whole=True).content is None
    assert examine_head(of(Container.MP3), tagged, whole=True).media.rate == 8_000
    for first in (b"RF64\xff\xff\xff\xffWAVEds64", b"BW64\xff\xff\xff\xffWAVEds64"):
        assert examine_head(of(Container.WAV), first, whole=True).content is None


def test_a_tag_in_front_of_a_wav_is_no_part_of_it() -> None:
    wav = made("WAV", "PCM_16", 8_000, 2)
    for size in (10, 5_000, 100_000):
        tag = b"ID3\x04\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + bytes(size)
        examined = examine_head(of(Container.WAV), (tag + wav)[:HEAD_BYTES], whole=True)
        assert (examined.media.rate, examined.media.channels, examined.media.codec) == (8_000, 2, Codec.S16LE)
        assert examined.content is None
        assert examine_head(of(Container.MP3), tag + wav, whole=True).content is Content.WAV
        assert examine_head(raw_media(Codec.PCMU, rate=8_000, channels=1), tag + wav, whole=True).content is Content.WAV
        assert parse_content_type(None, tag + wav).container is Container.WAV
    hidden = b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(5_000)
    assert examine_head(of(Container.WAV), hidden, whole=False) == Examined(media=of(Container.WAV))


def test_a_format_behind_much_padding_is_read() -> None:
    wav = made("WAV", "PCM_16", 8_000, 2)
    padded = wav[:12] + b"JUNK" + struct.pack("<I", 200_000) + bytes(200_000) + wav[12:]
    media = examine_head(of(Container.WAV), padded[:HEAD_BYTES], whole=False).media
    assert (media.rate, media.channels) == (8_000, 2)


@pytest.mark.parametrize("codec", [Codec.PCMU, Codec.PCMA, Codec.S16LE, Codec.S16BE])
def test_samples_without_a_head_are_told_only_from_a_container(codec: Codec) -> None:
    declared = raw_media(codec, rate=8_000, channels=2)
    for first in (b"\xff" * 4096, b"\xd5" * 4096, bytes(4096), TEXT, RANDOM, b"\xff\xfb\x90\x00" * 99, b"RIFFRIFFRIFF"):
        assert examine_head(declared, first, whole=True) == Examined(media=declared)


def test_a_few_bytes_say_nothing_unless_they_are_all() -> None:
    for first in (b"", b"RIF", b"hello"):
        assert examine_head(of(Container.WAV), first, whole=False) == Examined(media=of(Container.WAV))
    assert examine_head(of(Container.WAV), b"hello", whole=True).content is Content.TEXT
    assert examine_head(of(Container.WAV), b"RIFF\0\0", whole=True).content is None


def test_nothing_is_told_of_a_recording_whose_declaration_is_lost() -> None:
    lost = Media(container=Container.RAW, codec=Codec.STREAM)
    assert examine_head(lost, made("WAV", "PCM_16", 8_000, 1), whole=True) == Examined(media=lost)


def test_a_declaration_agrees_with_the_recording_that_it_began_whatever_its_head_told() -> None:
    for name, subtype, container, _ in FILES:
        examined = examine_head(of(container), made(name, subtype, 8_000, 1), whole=True)
        assert fits_declaration(examined.media, of(container))
        assert not fits_declaration(examined.media, of(Container.WEBM))
        assert not fits_declaration(examined.media, raw_media(Codec.PCMU, rate=8_000, channels=1))
    one, two = (raw_media(Codec.PCMU, rate=8_000, channels=channels) for channels in (1, 2))
    assert fits_declaration(one, one)
    assert not fits_declaration(one, two)


def test_a_recording_plays_as_the_container_that_it_is() -> None:
    declared = raw_media(Codec.PCMU, rate=8_000, channels=1)
    assert playable_media(declared, Content.WAV) == of(Container.WAV)
    for content in (None, Content.TEXT, Content.UNKNOWN):
        assert playable_media(declared, content) is declared
