"""When a pause has to end, and what the notes of a call still tell of that."""

import pytest

from vault.format.notes import Missing, Pause
from vault.services.ingest.pauses import Allowance, noted_use

LIMIT = 900.0


def after(*spells, used=0.0):
    """Return the allowance of a call that was paused and kept in turns for so many seconds, and when that is."""
    allowance, now = Allowance(used=used), 0.0
    for number, seconds in enumerate(spells):
        allowance.turn(paused=number % 2 == 0, now=now)
        now += seconds
    return allowance, now


@pytest.mark.parametrize(
    ("spells", "over"),
    [
        ((899.9,), False),
        ((900,), True),
        ((890, 1, 11), True),
        ((890, 1, 10.9), False),
        ((890, 890, 899), False),
        ((890, 890, 900), True),
        ((60, 60) * 100 + (899,), False),
        ((61, 60) * 900, False),
        ((2_000, 1), False),
    ],
)
def test_pauses_add_up_and_kept_time_is_given_back(spells, over):
    allowance, now = after(*spells)
    assert allowance.over(LIMIT, now) is over


def test_of_any_spells_that_are_mostly_pauses_one_is_over_in_time():
    allowance, now = Allowance(), 0.0
    for _ in range(1_000):
        for paused, seconds in ((True, 20), (False, 10)):
            allowance.turn(paused=paused, now=now)
            now += seconds
            if allowance.over(LIMIT, now):
                assert now <= 3 * LIMIT
                return
    raise AssertionError("two thirds of a call were left out without an end")


def test_a_clock_that_stands_still_or_goes_back_gives_nothing_back():
    allowance, now = after(500, 0)
    allowance.turn(paused=True, now=now - 400)
    assert allowance.used_at(now - 400) == 500


def test_what_is_left_counts_down_in_a_pause_alone():
    allowance, now = after(500, 100)
    assert allowance.left(LIMIT, now) is None
    allowance.turn(paused=True, now=now)
    assert (allowance.left(LIMIT, now), allowance.left(LIMIT, now + 700)) == (500, 0)


def pause(at, missing, *, lasting=False):
    return Pause(offset=0, at_ms=at * 1000, missing_ms=missing * 1000, lasting=lasting)


@pytest.mark.parametrize(
    ("notes", "used"),
    [
        ((), 0),
        ((Missing(offset=0, at_ms=0, missing_ms=5),), 0),
        ((pause(0, 0, lasting=True),), 2_000),
        ((pause(1_500, 0, lasting=True),), 500),
        ((pause(1_500, 120, lasting=True),), 620),
        ((pause(1_000, 800),), 600),
        ((pause(0, 800), pause(1_000, 250)), 100),
        ((pause(800, 400), pause(1_500, 200, lasting=True)), 1_000),
        # The vault ended these, of which some came in one note.
        ((pause(1_000, 900), pause(1_950, 0, lasting=True)), 50),
        ((pause(1_900, 1_900, lasting=True),), 200),
        ((Pause(offset=0, at_ms=0, missing_ms=899_500, lasting=False), pause(1_950, 0, lasting=True)), 50),
        # Made later than it is now: the clock was set.
        ((pause(3_000, 0, lasting=True),), 0),
    ],
)
def test_notes_tell_what_the_pauses_of_a_call_have_used(notes, used):
    assert noted_use(notes, limit=LIMIT, now_ms=2_000_000) == used
