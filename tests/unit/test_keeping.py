"""Which bytes are kept around a pause, and how a recorder's own offsets map to them."""

import pytest

from vault.errors import FormatError
from vault.format.notes import (
    Document,
    Missing,
    Pause,
    Tone,
    check_notes,
    decode_note,
    dropped_bytes,
    encode_note,
    kept_of,
    note_of,
    note_value,
)
from vault.model import CallFacts, Codec, Container, Media
from vault.services.ingest.call_notes import merge
from vault.services.ingest.pauses import Keeping, frame_bytes, gaps_of


def paused(frame, *, dropped=0, offset=100, lasting=True):
    note = Pause(offset=offset, at_ms=1, dropped=dropped, lasting=lasting)
    return Keeping(frame=frame, notes=[note], paused=lasting, fresh=True)


@pytest.mark.parametrize(
    ("media", "size"),
    [
        (Media(container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=1), 1),
        (Media(container=Container.RAW, codec=Codec.PCMA, rate=8000, channels=2), 2),
        (Media(container=Container.RAW, codec=Codec.S16BE, rate=8000, channels=3), 6),
        (Media(container=Container.OGG, codec=Codec.STREAM), 1),
    ],
)
def test_whole_frames_go_together(media, size):
    assert frame_bytes(media) == size


@pytest.mark.parametrize("container", [Container.WAV, Container.RAW])
@pytest.mark.parametrize("block", [1, 2, 3, 4, 6, 8, 12, 16])
def test_a_wav_file_and_samples_of_an_unknown_kind_stay_in_phase_whatever_their_block(container, block):
    assert frame_bytes(Media(container=container, codec=Codec.STREAM)) % block == 0


@pytest.mark.parametrize("taken", range(9))
def test_dropping_ends_only_after_whole_frames(taken):
    keeping = paused(4)
    assert keeping.keep(b"x" * taken) == b""
    keeping.paused = False
    stream = bytes(range(10))
    kept = b"".join(keeping.keep(stream[at : at + 1]) for at in range(10))
    assert kept == stream[-taken % 4 :]
    assert not keeping.watching


def test_what_comes_late_out_of_a_pause_is_dropped_after_it_and_all_that_follows_is_kept():
    keeping = paused(4, dropped=8)
    keeping.paused, keeping.late = False, 8
    stream = bytes(range(20))
    kept = b"".join(keeping.keep(stream[at : at + 3]) for at in range(0, 20, 3))
    assert kept == stream[8:]
    assert not keeping.watching


def test_what_is_dropped_after_a_resume_counts_only_once_a_byte_is_kept():
    keeping = paused(4, dropped=5, lasting=False)
    assert keeping.dropped(100) == 5
    assert keeping.keep(b"ab") == b""
    assert keeping.keep(b"cd") == b"d"
    assert (keeping.dropped(100), keeping.dropped(101)) == (5, 8)


def test_a_recorder_that_comes_back_before_a_byte_was_kept_owes_the_rest_of_the_frame_again():
    keeping = paused(4, dropped=5, lasting=False)
    assert keeping.keep(b"abcde") == b"de"
    keeping.continue_at(100)
    assert keeping.keep(b"abcde") == b"de"
    keeping.continue_at(101)
    assert keeping.keep(b"abcde") == b"abcde"


def test_a_pause_that_outlives_the_call_ends_with_it():
    keeping = paused(1, dropped=5)
    keeping.keep(b"xyz")
    [note] = keeping.closed(100, now_ms=41)
    assert (note.dropped, note.missing_ms, note.lasting) == (8, 40, True)
    assert keeping.notes[0].dropped == 5


def test_notes_beyond_the_durable_end_move_to_it():
    keeping = Keeping(frame=1, notes=[Tone(offset=90, at_ms=1, digit="1"), Missing(offset=120, at_ms=1, missing_ms=2)])
    assert [note.offset for note in keeping.settled(100)] == [90, 100]


PAUSES = (
    Pause(offset=3, at_ms=0, dropped=2, lasting=False),
    Missing(offset=3, at_ms=0, missing_ms=9),
    Pause(offset=5, at_ms=0, dropped=4, lasting=False),
    Pause(offset=5, at_ms=0, dropped=0, lasting=False),
)
STREAM = b"abc--de----fgh"


@pytest.mark.parametrize("size", range(1, len(STREAM) + 1))
def test_a_stream_sent_again_gives_what_was_kept_however_it_is_cut(size):
    pieces = [(at, STREAM[at : at + size]) for at in range(0, len(STREAM), size)]
    assert b"".join(kept_of(piece, at, PAUSES) for at, piece in pieces) == b"abcdefgh"
    assert [dropped_bytes(PAUSES, end) for end in (2, 3, 4, 5, 8)] == [0, 2, 2, 6, 6]


def test_what_is_missing_at_one_place_is_one_gap():
    notes = [
        Missing(offset=7, at_ms=0, missing_ms=40),
        Pause(offset=7, at_ms=0, missing_ms=2_000),
        Tone(offset=7, at_ms=0, digit="1"),
        Missing(offset=3, at_ms=0, missing_ms=1),
        Pause(offset=9, at_ms=0),
    ]
    assert list(gaps_of(notes).items()) == [(3, 1), (7, 2_040)]


NOTES = [
    Missing(offset=1, at_ms=2, missing_ms=3),
    Pause(offset=1, at_ms=2, missing_ms=3, dropped=4, lasting=False),
    Tone(offset=1, at_ms=2, digit="#"),
    Tone(offset=1, at_ms=2, digit="5", duration_ms=6),
    Document(offset=1, at_ms=2, media_type="text/xml", content=b"<a/>"),
]


@pytest.mark.parametrize("note", NOTES, ids=lambda note: type(note).__name__)
def test_a_note_comes_back_as_it_was_written_and_in_no_other_form(note):
    assert decode_note(encode_note(note)) == note
    value = note_value(note)
    for place in range(len(value)):
        for other in (True, "x" * 17, -1, [], b""):
            changed = [*value[:place], other, *value[place + 1 :]]
            if changed == value or (isinstance(note, Document) and place == 3 and other == "x" * 17):
                continue
            if isinstance(note, Pause) and (place, other) == (5, True):
                continue
            with pytest.raises(FormatError):
                note_of(changed)
    for short in (value[:-1], [*value, 1], None, {}):
        with pytest.raises(FormatError):
            note_of(short)


def test_notes_lie_in_order_inside_the_recording():
    check_notes(NOTES, 1)
    with pytest.raises(FormatError):
        check_notes(NOTES, 0)
    with pytest.raises(FormatError):
        check_notes([*NOTES, Missing(offset=0, at_ms=2, missing_ms=3)], 1)


def test_no_note_shows_what_was_pressed_or_written():
    assert "'#'" not in repr(NOTES[2])
    assert "<a/>" not in repr(NOTES[4])


def test_late_facts_replace_what_is_set_and_keep_the_rest():
    known = CallFacts(caller="1", direction="inbound", tags=("a",), extra={"call_key": "k", "queue": "x"})
    late = CallFacts(caller="2", called="3", tags=("a", "b"), extra={"call_key": "other", "queue": "y", "agent": "7"})
    assert merge(known, late) == CallFacts(
        caller="2",
        called="3",
        direction="inbound",
        tags=("a", "b"),
        extra={"call_key": "k", "queue": "y", "agent": "7"},
    )
    assert merge(known, CallFacts()) == known
