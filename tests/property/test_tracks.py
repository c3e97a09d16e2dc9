"""Two tracks as they come over a network, and what they must become."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.soak import examples
from vault.errors import Invalid
from vault.media.tracks import FILL_MS, LONGEST_MS, MAX_JUMPS, WINDOW_MS, WINDOW_PIECES, Missing, Tracks, interleaved

RATE = 8_000
PIECE_MS = 20
PIECE = RATE * PIECE_MS // 1_000
SILENCE = b"\xff"


@dataclass(frozen=True)
class Sent:
    """One piece as it was sent; `comes_ms` is when it arrives."""

    number: int
    slot: int
    chunk: int
    comes_ms: int
    wobble_ms: int = 0

    @property
    def data(self):
        return bytes([(self.number * 97 + self.slot * 31 + 1) % 255]) * PIECE

    @property
    def timestamp_ms(self):
        return max(self.slot * PIECE_MS + self.wobble_ms, 0)


@st.composite
def calls(draw, *, late_ms=WINDOW_MS - PIECE_MS, losses=False, wobble_ms=0):
    """A call of one or two tracks, in an order in which nothing is later than the window; some pieces come twice."""
    tracks = draw(st.integers(1, 2))
    slots = draw(st.integers(1, 30))
    shared = draw(st.booleans())  # whether the tracks count together: the specifications do not say

    def piece(number, slot):
        return Sent(
            number=number,
            slot=slot,
            chunk=slot * tracks + number + 1 if shared else slot + 1,
            comes_ms=slot * PIECE_MS + draw(st.integers(0, late_ms)),
            wobble_ms=draw(st.integers(-wobble_ms, wobble_ms)),
        )

    sent = []
    for slot in range(slots):
        for number in range(tracks):
            if losses and draw(st.booleans()):
                continue
            sent += [piece(number, slot) for _ in range(draw(st.sampled_from((1, 1, 1, 2))))]
    return tracks, slots, sorted(sent, key=lambda piece: piece.comes_ms)


def heard(tracks, sent, *, width=1):
    """Return everything that comes out of the pieces in this order."""
    out = []
    for piece in sent:
        out += tracks.add(piece.number, piece.chunk, piece.timestamp_ms, piece.data * width)
    return [*out, *tracks.flush()]


def expected(count, slots, sent):
    have = {(piece.number, piece.slot): piece.data for piece in sent}
    parts = [b"".join(have.get((number, slot), SILENCE * PIECE) for slot in range(slots)) for number in range(count)]
    return interleaved(parts, 1)


@given(calls())
def test_whatever_order_pieces_come_in_within_the_window_they_end_up_in_their_places(call):
    count, slots, sent = call
    tracks = Tracks(count, rate=RATE, silence=SILENCE)
    assert b"".join(heard(tracks, sent)) == expected(count, slots, sent)


@given(calls(losses=True))
def test_what_does_not_come_is_silence_of_its_own_length(call):
    count, _, sent = call
    tracks = Tracks(count, rate=RATE, silence=SILENCE)
    last = max((piece.slot + 1 for piece in sent), default=0)
    assert b"".join(heard(tracks, sent)) == expected(count, last, sent)
    distinct = len({(piece.number, piece.slot) for piece in sent})
    assert tracks.dropped == len(sent) - distinct


@given(calls(late_ms=WINDOW_MS - 3 * PIECE_MS, wobble_ms=4))
def test_timestamps_that_wobble_add_nothing_and_lose_nothing(call):
    count, slots, sent = call
    assert b"".join(heard(Tracks(count, rate=RATE, silence=SILENCE), sent)) == expected(count, slots, sent)


@given(
    st.integers(1, 2), st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3_000), st.integers(1, 400)), max_size=60)
)
def test_what_comes_out_is_bounded_by_the_time_span_and_what_came_in(count, steps):
    tracks = Tracks(count, rate=RATE, silence=SILENCE)
    now = received = came = 0
    for chunk, (number, step, length) in enumerate(steps):
        now += step
        received += length
        came += sum(map(len, tracks.add(min(number, count - 1), chunk, now, b"x" * length)))
    came += sum(map(len, tracks.flush()))
    assert came % count == 0
    assert came // count <= now * RATE // 1_000 + received


@settings(max_examples=examples(200))
@given(
    st.integers(1, 2),
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, 1 << 50) | st.integers(0, 30),
            st.integers(0, 1 << 50) | st.integers(0, 20_000),
            st.integers(1, 400),
        ),
        max_size=80,
    ),
)
def test_whatever_the_numbers_claim_little_waits_and_little_comes_out_at_once(count, claims):
    tracks = Tracks(count, rate=RATE, silence=SILENCE)
    window = WINDOW_MS * RATE // 1_000
    for number, chunk, timestamp_ms, length in claims:
        out = tracks.add(min(number, count - 1), chunk, timestamp_ms, b"x" * length)
        frames = sum(len(part) for part in out if isinstance(part, bytes)) // count
        assert frames <= FILL_MS * RATE // 1_000 + 2 * window + 12 * 400
        for track in tracks._tracks:
            assert len(track.ready) <= window + 12 * 400
            assert sum(len(piece.data) for piece in track.held) <= 11 * 400
    tracks.flush()
    assert not any(track.ready or track.held for track in tracks._tracks)


def test_a_timestamp_an_hour_ahead_is_told_as_missing_and_not_filled():
    tracks = Tracks(2, rate=RATE, silence=SILENCE)
    hour = 3_600_000
    before = [Sent(number, slot, slot + 1, 0) for slot in range(5) for number in range(2)]
    out = [part for piece in before for part in tracks.add(piece.number, piece.chunk, piece.timestamp_ms, piece.data)]
    assert b"".join(out) == expected(2, 5, before)
    after = []
    for slot in range(5, 10):
        for number in range(2):
            after += tracks.add(number, slot + 1, slot * PIECE_MS + hour, Sent(number, slot, 0, 0).data)
    assert after[0] == Missing(hour)
    late = [Sent(number, slot, 0, 0) for slot in range(5, 10) for number in range(2)]
    assert b"".join([*after[1:], *tracks.flush()]) == expected(2, 10, before + late)[len(b"".join(out)) :]


def test_a_single_timestamp_that_is_wrong_costs_no_audio_that_follows_and_no_silence_in_it():
    tracks = Tracks(1, rate=RATE, silence=SILENCE)
    sent = [Sent(0, slot, slot + 1, 0, wobble_ms=7_200_000 if slot == 3 else 0) for slot in range(50) if slot != 20]
    out = heard(tracks, sent)
    assert b"".join(part for part in out if isinstance(part, bytes)) == expected(1, 50, sent)
    assert [part for part in out if isinstance(part, Missing)] == [Missing(7_200_000)]


def test_pieces_that_all_claim_one_moment_do_not_pile_up():
    tracks = Tracks(1, rate=RATE, silence=SILENCE)
    out = b""
    for chunk in range(1, 1_000):
        out += b"".join(tracks.add(0, chunk, 100, b"x"))
        assert len(tracks._tracks[0].held) <= WINDOW_PIECES
    assert (out + b"".join(tracks.flush())).count(SILENCE) <= 100 * RATE // 1_000


def test_a_track_that_is_always_later_than_the_window_loses_nothing():
    tracks = Tracks(2, rate=RATE, silence=SILENCE)
    sent = [Sent(number, slot, slot + 1, slot * PIECE_MS + number * 700) for slot in range(200) for number in range(2)]
    out = b"".join(heard(tracks, sorted(sent, key=lambda piece: piece.comes_ms)))
    callee = out[1::2]
    assert callee.replace(SILENCE, b"") == expected(2, 200, sent)[1::2].replace(SILENCE, b"")
    assert len(callee) - 200 * PIECE <= 700 * RATE // 1_000


def test_timestamps_that_never_move_keep_all_audio_in_the_order_of_its_numbers():
    tracks = Tracks(1, rate=RATE, silence=SILENCE)
    out = [part for chunk in range(1, 2_000) for part in tracks.add(0, chunk, 0, bytes([chunk % 251]) * PIECE)]
    assert b"".join(out) == b"".join(bytes([chunk % 251]) * PIECE for chunk in range(1, 2_000))


def test_a_sender_that_counts_anew_is_still_heard():
    tracks = Tracks(1, rate=RATE, silence=SILENCE)
    chunks = [*range(1, 301), *range(1, 301)]
    out = [part for at, chunk in enumerate(chunks) for part in tracks.add(0, chunk, at * PIECE_MS, b"x" * PIECE)]
    assert sum(map(len, out)) == len(chunks) * PIECE


def test_a_stream_whose_time_begins_late_begins_with_its_audio():
    tracks = Tracks(1, rate=RATE, silence=SILENCE)
    assert list(tracks.add(0, 1, 50_000_000, b"a" * PIECE)) == [b"a" * PIECE]
    assert list(tracks.add(0, 2, 50_000_020, b"b" * PIECE)) == [b"b" * PIECE]


def test_pieces_that_all_have_one_number_are_told_apart_by_their_time():
    tracks = Tracks(1, rate=RATE, silence=SILENCE)
    said = [b"%c" % (97 + number) * PIECE for number in range(5)]
    heard = [tracks.add(0, 1, number * PIECE_MS, each) for number, each in enumerate(said)]
    assert [each for (each,) in heard] == said
    assert (tracks.add(0, 1, 4 * PIECE_MS, said[4]), tracks.dropped) == ((), 1)


def test_a_leap_that_no_call_has_is_no_gap():
    tracks = Tracks(1, rate=RATE, silence=SILENCE)
    tracks.add(0, 1, 0, b"a" * PIECE)
    leap = 20 + LONGEST_MS
    assert list(tracks.add(0, 2, leap, b"b" * PIECE)) == [Missing(LONGEST_MS), b"b" * PIECE]
    assert list(tracks.add(0, 3, 10**15 - 1, b"c" * PIECE)) == [b"c" * PIECE]
    assert list(tracks.add(0, 4, 10**15 + 19, b"d" * PIECE)) == [b"d" * PIECE]


def test_timestamps_that_jump_for_ever_are_refused():
    tracks = Tracks(1, rate=RATE, silence=SILENCE)
    for chunk in range(MAX_JUMPS + 1):
        tracks.add(0, chunk, chunk * 2 * FILL_MS, b"x" * PIECE)
    with pytest.raises(Invalid, match="jumped"):
        tracks.add(0, MAX_JUMPS + 1, (MAX_JUMPS + 1) * 2 * FILL_MS, b"x" * PIECE)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_samples_of_two_bytes_are_interleaved_whole(count):
    parts = [bytes([number, 0x10 + number]) * 4 for number in range(count)]
    assert interleaved(parts, 2) == b"".join(bytes([number, 0x10 + number]) for number in range(count)) * 4
