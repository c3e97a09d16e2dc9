"""WAV synthesised on read, and streamed WAVs whose sizes were never written."""

from __future__ import annotations

import io
import struct
import wave

import pytest

from tests.helpers.wav_heads import looked_through, patch_wav_sizes
from vault.errors import Invalid
from vault.media.descriptor import raw_media
from vault.media.wav import (
    HEADER_BYTES,
    PassThroughView,
    View,
    WavView,
    has_wav_head,
    playable,
    verbatim,
    wav_header,
)
from vault.media.wav_sizes import MOST_STRETCHES, STRETCH_BYTES, head_in, samples_bytes
from vault.model import Codec, Container, Media

STEREO_PCMU = raw_media(Codec.PCMU, rate=8000, channels=2)
WAV = Media(container=Container.WAV, codec=Codec.STREAM)


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


FMT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16))
SAMPLES = bytes(range(200))


def wav_file(*, riff: int | None = None, data: int | None = None, before: bytes = b"", after: bytes = b"") -> bytes:
    body = b"WAVE" + FMT + before + chunk(b"data", SAMPLES, data) + after
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


def whole(view: View, stored: bytes) -> bytes:
    plan = view.plan(0, view.total_length)
    return plan.header + plan.converter()(stored[plan.first : plan.last])


def test_pythons_wave_module_reads_the_synthesised_file() -> None:
    stored = bytes(range(256)) * 4
    view = WavView(STEREO_PCMU, len(stored))
    with wave.open(io.BytesIO(whole(view, stored))) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 8000, 2)
        assert file.getnframes() == 512
        assert len(file.readframes(512)) == 2048
    assert view.content_type == "audio/wav"


def test_byte_n_of_the_samples_is_byte_44_plus_n_of_the_file() -> None:
    stored = bytes(1000)
    view = WavView(raw_media(Codec.S16LE, rate=16000, channels=1), len(stored))
    plan = view.plan(HEADER_BYTES + 123, HEADER_BYTES + 456)
    assert plan.header == b""
    assert plan.converter()(stored[plan.first : plan.last]) == stored[123:456]


@pytest.mark.parametrize(
    ("codec", "channels", "stored", "data"),
    [
        (Codec.PCMU, 2, 5, 8),
        (Codec.PCMA, 1, 5, 10),
        (Codec.S16LE, 2, 11, 8),
        (Codec.S16BE, 1, 1, 0),
        (Codec.PCMU, 16, 31, 32),
    ],
)
def test_an_incomplete_last_frame_is_not_played(codec: Codec, channels: int, stored: int, data: int) -> None:
    view = WavView(raw_media(codec, rate=8000, channels=channels), stored)
    assert view.data_bytes == data
    assert view.total_length == HEADER_BYTES + data
    assert len(whole(view, bytes(stored))) == HEADER_BYTES + data


def test_a_range_within_the_header_reads_nothing_from_the_store() -> None:
    plan = WavView(STEREO_PCMU, 1000).plan(8, 12)
    assert (plan.header, plan.first, plan.last) == (b"WAVE", 0, 0)
    assert plan.converter()(b"") == b""


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (6, 5), (0, 45 + 2000)])
def test_a_range_outside_the_file_is_invalid(start: int, end: int) -> None:
    with pytest.raises(Invalid):
        WavView(STEREO_PCMU, 1000).plan(start, end)
    with pytest.raises(Invalid):
        PassThroughView("audio/ogg", 1000).plan(start, end)


def test_sizes_beyond_four_gib_say_unknown() -> None:
    header = wav_header(rate=192000, channels=16, data_bytes=5 << 30)
    assert header[4:8] == header[40:44] == b"\xff\xff\xff\xff"
    assert WavView(STEREO_PCMU, 5 << 30).total_length == (10 << 30) + 44


def test_only_headerless_audio_is_rendered() -> None:
    with pytest.raises(Invalid):
        WavView(WAV, 100)


@pytest.mark.parametrize("unknown", [0, 0xFFFFFFFF, 0x7FFFF024])
@pytest.mark.parametrize("before", [b"", chunk(b"LIST", b"INFOISFT\x05\0\0\0Lavf\0\0")])
def test_a_streamed_wav_gets_the_sizes_of_what_is_stored(unknown: int, before: bytes) -> None:
    assert patch_wav_sizes(wav_file(riff=unknown, data=unknown, before=before), len(wav_file(before=before))) == (
        wav_file(before=before)
    )


@pytest.mark.parametrize("riff", [0, 8, 36, 4088, 0xFFFFFFFF])
def test_what_follows_a_size_of_nothing_is_what_plays(riff: int) -> None:
    stored = wav_file(riff=riff, data=0)
    assert patch_wav_sizes(stored, len(stored)) == wav_file()


def test_a_head_that_tells_the_first_write_alone_gets_the_sizes_of_all() -> None:
    stored = wav_file(riff=36 + 100, data=100)
    assert patch_wav_sizes(stored, len(stored)) == wav_file()


def test_samples_behind_any_padding_are_found_without_reading_it() -> None:
    for size in (40_000, 65_500, 65_536, 131_072, 3 << 20):
        padding = chunk(b"JUNK", bytes(size))
        stored = wav_file(riff=0, data=0, before=padding)
        head, looks = looked_through(stored)
        finished = wav_file(before=padding)
        assert whole(playable(WAV, len(stored), head=head), stored) == finished, size
        assert sum(end - start for start, end in looks) <= 2 * STRETCH_BYTES
        assert patch_wav_sizes(finished, len(finished)) == finished


def test_a_head_of_chunks_without_end_is_given_up() -> None:
    stored = wav_file(riff=0, data=0, before=chunk(b"JUNK", bytes(STRETCH_BYTES)) * (MOST_STRETCHES + 1))
    head, looks = looked_through(stored)
    assert len(looks) == MOST_STRETCHES
    assert head is not None
    assert head.samples_at == 0
    assert patch_wav_sizes(stored, len(stored))[8:] == stored[8:]


def test_chunks_of_nothing_are_given_up_after_as_many_as_no_recorder_writes() -> None:
    for name in (b"JUNK", b"fmt "):
        head, looks = looked_through(wav_file(riff=0, data=0, before=chunk(name, b"") * (1 << 17)))
        assert (head is not None and head.samples_at, len(looks)) == (0, 1)
    before = chunk(b"JUNK", b"") * 1_000
    unsized = wav_file(riff=0, data=0, before=before)
    assert patch_wav_sizes(unsized, len(unsized)) == wav_file(before=before)


def test_the_samples_that_play_are_counted_whatever_lies_around_them() -> None:
    padding, behind = chunk(b"JUNK", bytes(70_000)), chunk(b"id3 ", bytes(300))
    finished = rf64((len(rf64((0, 0, 0))) - 8, len(SAMPLES), len(SAMPLES) // 2))
    files = wav_file(before=padding, after=behind), wav_file(riff=0, data=0, before=padding), finished, rf64((0, 0, 0))
    for file in files:
        head = head_in(file)
        assert head is not None
        assert samples_bytes(head, len(file)) == len(SAMPLES)


def test_a_wav_behind_a_tag_plays_without_it() -> None:
    rf64_finished = rf64((len(rf64((0, 0, 0))) - 8, len(SAMPLES), len(SAMPLES) // 2))
    files = (wav_file(riff=0, data=0), wav_file()), (wav_file(), wav_file()), (rf64((0, 0, 0)), rf64_finished)
    for size in (0, 20, 70_000):
        for file, played in files:
            stored = id3(size) + file
            assert whole(playable(WAV, len(stored), head=head_in(stored)), stored) == played
            assert whole(verbatim(WAV, len(stored)), stored) == stored


def id3(size: int) -> bytes:
    return b"ID3\x04\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + bytes(size)


def ds64(riff: int, data: int, samples: int) -> bytes:
    return chunk(b"ds64", struct.pack("<QQQI", riff, data, samples, 0))


def rf64(sizes: tuple[int, int, int], *, data: int = 0xFFFFFFFF) -> bytes:
    return b"RF64\xff\xff\xff\xffWAVE" + ds64(*sizes) + FMT + chunk(b"data", SAMPLES, data)


@pytest.mark.parametrize("sizes", [(0, 0, 0), (8, 0, 0), (1 << 40, 1 << 40, 1 << 39), (136, 100, 50)])
def test_an_rf64_file_whose_ds64_was_never_filled_in_gets_its_sizes(sizes: tuple[int, int, int]) -> None:
    finished = rf64((len(rf64((0, 0, 0))) - 8, len(SAMPLES), len(SAMPLES) // 2))
    assert patch_wav_sizes(rf64(sizes), len(finished)) == finished
    assert patch_wav_sizes(rf64(sizes, data=0), len(finished)) == finished
    assert patch_wav_sizes(finished, len(finished)) == finished


def test_an_odd_size_whose_padding_was_not_counted_is_a_finished_file() -> None:
    body = b"WAVE" + FMT + chunk(b"data", b"odd")
    stored = b"RIFF" + struct.pack("<I", len(body) - 1) + body
    assert patch_wav_sizes(stored, len(stored)) == stored


def test_a_wav_cut_short_is_playable_up_to_the_cut() -> None:
    cut = wav_file()[:144]
    patched = patch_wav_sizes(cut, len(cut))
    with wave.open(io.BytesIO(patched)) as file:
        assert file.readframes(1000) == SAMPLES[:100]


@pytest.mark.parametrize(
    "first",
    [
        wav_file(),
        wav_file(after=chunk(b"id3 ", b"xyz")),
        b"RIFF" + struct.pack("<I", 4 + len(FMT) + 8) + b"WAVE" + FMT + chunk(b"data", b""),
        b"OggS" + bytes(40),
        b"RIFF",
        b"",
    ],
)
def test_correct_files_and_other_formats_stay_untouched(first: bytes) -> None:
    assert patch_wav_sizes(first, len(first)) == first


def test_patching_never_changes_the_length_or_the_samples() -> None:
    stored = wav_file(riff=0xFFFFFFFF, data=0xFFFFFFFF)
    patched = patch_wav_sizes(stored[:46], len(stored))
    assert patched == wav_file()[:46]


def test_a_chunk_of_unknown_size_before_the_samples_ends_the_search() -> None:
    stored = b"RIFF\xff\xff\xff\xffWAVE" + chunk(b"junk", b"1234", 0xFFFFFFFF) + chunk(b"data", SAMPLES, 0)
    assert patch_wav_sizes(stored, len(stored))[8:] == stored[8:]


def test_a_streamed_wav_is_played_patched_and_stays_verbatim_as_raw() -> None:
    stored = wav_file(riff=0xFFFFFFFF, data=0xFFFFFFFF)
    assert has_wav_head(WAV)
    played, raw = playable(WAV, len(stored), head=head_in(stored)), verbatim(WAV, len(stored))
    assert isinstance(played, PassThroughView)
    assert isinstance(raw, PassThroughView)
    assert whole(played, stored) == wav_file()
    assert whole(raw, stored) == stored
    plan = played.plan(2, 150)
    assert plan.header + plan.converter()(stored[plan.first : plan.last]) == wav_file()[2:150]


@pytest.mark.parametrize(
    ("media", "played", "raw"),
    [
        (STEREO_PCMU, "audio/wav", "audio/PCMU;rate=8000;channels=2"),
        (raw_media(Codec.PCMA, rate=8000, channels=1), "audio/wav", "audio/PCMA;rate=8000;channels=1"),
        (raw_media(Codec.S16BE, rate=16000, channels=1), "audio/wav", "audio/L16;rate=16000;channels=1"),
        (raw_media(Codec.S16LE, rate=8000, channels=2), "audio/wav", "audio/L16;rate=8000;channels=2;byteorder=le"),
        (WAV, "audio/wav", "audio/wav"),
        (Media(container=Container.OGG, codec=Codec.STREAM), "audio/ogg", "audio/ogg"),
        (Media(container=Container.WEBM, codec=Codec.STREAM), "audio/webm", "audio/webm"),
        (Media(container=Container.MP3, codec=Codec.STREAM), "audio/mpeg", "audio/mpeg"),
    ],
)
def test_content_types_of_played_and_verbatim_audio(media: Media, played: str, raw: str) -> None:
    assert playable(media, 100).content_type == played
    assert verbatim(media, 100).content_type == raw
