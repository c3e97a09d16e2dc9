"""What stops a sweep, and what only looks like it should."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from vault.retention.guards import Guard, Limits, Tripped, check_sweep, effective_now

LAST = datetime(2026, 5, 30, tzinfo=UTC)
LIMITS = Limits(max_jump=timedelta(days=2), max_share=0.5, max_share_minimum=10)


def sweep(
    now: datetime,
    *,
    last: datetime | None = LAST,
    due: int = 1,
    live: int = 100,
    override: datetime | None = None,
) -> Tripped | None:
    return check_sweep(
        now=now, last_sweep_at=last, due_count=due, live_count=live, limits=LIMITS, override_through=override
    )


def test_a_clock_that_jumped_ahead_stops_the_sweep() -> None:
    assert sweep(LAST + timedelta(days=2)) is None
    tripped = sweep(LAST + timedelta(days=2, microseconds=1))
    assert tripped is not None
    assert tripped.guard is Guard.CLOCK_JUMP
    assert "nothing was deleted" in tripped.reason


def test_a_clock_jump_stops_even_a_sweep_with_nothing_due() -> None:
    # Else its last-sweep instant would become the reference and the next sweep would pass.
    assert sweep(LAST + timedelta(days=300), due=0) is not None


def test_the_first_sweep_and_an_earlier_clock_pass() -> None:
    assert sweep(LAST + timedelta(days=300), last=None) is None
    assert sweep(LAST - timedelta(days=300)) is None


@pytest.mark.parametrize(
    ("due", "live", "trips"),
    [(50, 100, False), (51, 100, True), (10, 10, False), (11, 11, True), (0, 0, False), (600, 1000, True)],
)
def test_a_sweep_that_takes_too_much_of_what_is_alive_stops(due: int, live: int, trips: bool) -> None:
    tripped = sweep(LAST, due=due, live=live)
    assert (tripped is not None and tripped.guard is Guard.MASS_SHRED) == trips


def test_two_people_may_let_a_sweep_pass_both_guards_up_to_the_end_of_their_permission() -> None:
    now = LAST + timedelta(days=300)
    assert sweep(now, due=100, override=now) is None
    assert sweep(now, due=100, override=now - timedelta(microseconds=1)) is not None


def test_a_clock_stepped_back_never_moves_the_sweep_back() -> None:
    assert effective_now(LAST - timedelta(days=1), LAST) == LAST
    assert effective_now(LAST + timedelta(days=1), LAST) == LAST + timedelta(days=1)
    assert effective_now(LAST, None) == LAST
