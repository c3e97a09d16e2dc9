"""Any range of the synthesised file equals slicing the whole file."""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.wav_heads import patch_wav_sizes
from vault.media import g711
from vault.media.descriptor import raw_media
from vault.media.ranges import parse_range
from vault.media.wav import playable, verbatim, wav_header
from vault.media.wav_sizes import head_in
from vault.model import Codec, Container, Media

SAMPLE_BYTES = {Codec.PCMU: 1, Codec.PCMA: 1, Codec.S16LE: 2, Codec.S16BE: 2}


def rendered(codec: Codec, rate: int, channels: int, stored: bytes) -> bytes:
    frame = channels * SAMPLE_BYTES[codec]
    usable = stored[: len(stored) // frame * frame]
    match codec:
        case Codec.S16LE:
            body = usable
        case Codec.S16BE:
            count = len(usable) // 2
            body = struct.pack(f"<{count}h", *struct.unpack(f">{count}h", usable))
        case _:
            body = b"".join(g711.decode(codec, usable[i : i + 1]) for i in range(len(usable)))
    return wav_header(rate=rate, channels=channels, data_bytes=len(body)) + body


@given(
    shape=st.tuples(
        st.sampled_from(list(SAMPLE_BYTES)), st.sampled_from([4000, 8000, 16000, 192000]), st.integers(1, 5)
    ),
    stored=st.binary(max_size=120),
    bounds=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    cuts=st.lists(st.integers(0, 120), max_size=6),
)
def test_any_range_in_any_pieces_equals_slicing_the_whole(
    shape: tuple[Codec, int, int], stored: bytes, bounds: tuple[float, float], cuts: list[int]
) -> None:
    codec, rate, channels = shape
    view = playable(raw_media(codec, rate=rate, channels=channels), len(stored))
    expected = rendered(codec, rate, channels, stored)
    assert view.total_length == len(expected)
    start, end = sorted(round(bound * len(expected)) for bound in bounds)
    plan = view.plan(start, end)
    assert 0 <= plan.first <= plan.last <= len(stored)
    assert plan.header + plan.converter()(stored[plan.first : plan.last]) == expected[start:end]

    marks = [plan.first, *sorted(plan.first + cut for cut in cuts if plan.first + cut <= plan.last), plan.last]
    convert = plan.converter()
    pieces = [convert(stored[a:b]) for a, b in pairwise(marks)]
    assert plan.header + b"".join(pieces) == expected[start:end]


@given(
    stored=st.binary(max_size=100) | st.binary(max_size=60).map(lambda tail: b"RIFF\xff\xff\xff\xffWAVE" + tail),
    container=st.sampled_from([Container.WAV, Container.OGG, Container.MP3]),
    bounds=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    cuts=st.lists(st.integers(0, 120), max_size=6),
)
def test_any_range_of_a_stored_container_equals_slicing_it(
    stored: bytes, container: Container, bounds: tuple[float, float], cuts: list[int]
) -> None:
    media = Media(container=container, codec=Codec.STREAM)
    start, end = sorted(round(bound * len(stored)) for bound in bounds)
    patched = patch_wav_sizes(stored, len(stored))
    for view, expected in (
        (playable(media, len(stored), head=head_in(stored)), patched),
        (verbatim(media, len(stored)), stored),
    ):
        plan = view.plan(start, end)
        marks = [plan.first, *sorted(plan.first + cut for cut in cuts if plan.first + cut <= plan.last), plan.last]
        convert = plan.converter()
        pieces = [convert(stored[a:b]) for a, b in pairwise(marks)]
        assert plan.header + b"".join(pieces) == expected[start:end]


@given(
    first=st.binary(max_size=80).map(lambda tail: b"RIFF" + tail)
    | st.binary(max_size=80).map(lambda tail: b"RIFF\x08\0\0\0WAVEdata" + tail)
    | st.binary(max_size=80).map(lambda tail: b"ID3\x04\0\0\0\0\0\x01-RIFF\x08\0\0\0WAVEdata" + tail)
    | st.binary(max_size=80).map(lambda tail: b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0" + bytes(28) + b"data" + tail),
    stored_length=st.integers(0, 1 << 33),
)
def test_patching_is_total_and_settles_at_once(first: bytes, stored_length: int) -> None:
    stored_length = max(stored_length, len(first))
    once = patch_wav_sizes(first, stored_length)
    assert len(once) == len(first)
    assert patch_wav_sizes(once, stored_length) == once


@given(total=st.integers(1, 1 << 40), start=st.integers(0, 1 << 40), length=st.integers(1, 1 << 40))
def test_a_satisfiable_range_is_what_the_two_ends_say(total: int, start: int, length: int) -> None:
    start %= total
    assert parse_range(f"bytes={start}-{start + length - 1}", total) == (start, min(start + length, total))
    assert parse_range(f"bytes={start}-", total) == (start, total)
    assert parse_range(f"bytes=-{length}", total) == (max(total - length, 0), total)
