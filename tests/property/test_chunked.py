"""Chunked encryption and segments under random sizes, cuts, ranges and damage."""

from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.helpers.soak import examples
from tests.vectors.make_segment import KEY, SALT, header
from vault.crypto import chunked
from vault.crypto.sealed import SegmentOpener, open_segment, seal_segment
from vault.errors import IntegrityError

INPUT_KEY = bytes(range(32))
CONTEXT = b"context"
sizes = st.one_of(
    st.integers(0, 100_000),
    st.builds(lambda k, shift: max(0, k * 16_384 + shift), st.integers(0, 6), st.integers(-2, 2)),
)


def pattern(size):
    return (bytes(range(253)) * (size // 253 + 1))[:size]


@given(size=sizes, cuts=st.lists(st.integers(0, 100_000), max_size=12))
def test_pieces_in_any_cut_seal_to_the_same_message_and_open(size, cuts):
    plain = pattern(size)
    marks = [0, *sorted(cut for cut in cuts if cut <= size), size]
    pieces = [memoryview(plain)[a:b] for a, b in pairwise(marks)]
    message = chunked.seal(INPUT_KEY, SALT, CONTEXT, pieces)
    assert message == chunked.seal(INPUT_KEY, SALT, CONTEXT, plain)
    assert chunked.open_message(INPUT_KEY, CONTEXT, message) == plain


@given(size=sizes, cuts=st.lists(st.integers(0, 100_000), max_size=12))
def test_a_message_sealed_while_its_plaintext_arrives_is_the_same(size, cuts):
    plain = pattern(size)
    marks = [0, *sorted(cut for cut in cuts if cut <= size), size]
    sealer = chunked.Sealer(INPUT_KEY, SALT, CONTEXT)
    chunks = [sealer.update(memoryview(plain)[a:b]) for a, b in pairwise(marks)]
    assert sealer.prefix + b"".join(chunks) + sealer.finish() == chunked.seal(INPUT_KEY, SALT, CONTEXT, plain)


@given(size=sizes, data=st.data())
def test_random_access_equals_slicing(size, data):
    plain = pattern(size)
    start = data.draw(st.integers(0, size))
    end = data.draw(st.integers(start, size))
    message = chunked.seal(INPUT_KEY, SALT, CONTEXT, plain)
    window = chunked.chunk_window(start, end, size)
    opener = chunked.Opener(INPUT_KEY, CONTEXT, message[:56])
    assert opener.window(window, message[window.start : window.end]) == plain[start:end]


@given(size=sizes)
def test_lengths_map_both_ways(size):
    assert chunked.plaintext_length(chunked.sealed_length(size)) == size


@settings(max_examples=examples(150))
@given(size=sizes, data=st.data())
def test_any_damage_to_a_message_is_refused(size, data):
    message = bytes(chunked.seal(INPUT_KEY, SALT, CONTEXT, pattern(size)))
    a = data.draw(st.integers(0, len(message)))
    b = data.draw(st.integers(a, len(message)))
    damaged = message[:a] + data.draw(st.binary(max_size=40)) + message[b:]
    assume(damaged != message)
    with pytest.raises(IntegrityError):
        chunked.open_message(INPUT_KEY, CONTEXT, damaged)


@given(size=st.integers(1, 100_000), data=st.data())
def test_ranges_of_a_segment_equal_slices(size, data):
    plain = pattern(size)
    stored = bytes(seal_segment(KEY, header(), plain, salt=SALT))
    start = data.draw(st.integers(0, size))
    end = data.draw(st.integers(start, size))
    opener = SegmentOpener(KEY, header(), length=size)
    opener.check_prefix(stored[: opener.prefix_bytes])
    a, b = opener.ciphertext_range(start, end)
    assert opener.open(start, end, stored[a:b]) == plain[start:end]


@given(junk=st.binary(max_size=300))
def test_junk_is_refused_as_an_object_and_never_crashes(junk):
    for data in (junk, b"CVS1" + junk, b"CVS1\0\0\0" + junk):
        with pytest.raises(IntegrityError):
            open_segment(KEY, None, data)
