"""What stops a sweep, and what only looks like it should."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.helpers.retention import CLOCKS, DUE_AT, RECORDING, facts, hold
from vault.ids import TenantId
from vault.model import HoldState, MetadataChange, Part, RecordingState, RetentionChange
from vault.retention.decide import decide
from vault.retention.guards import (
    Guard,
    Limits,
    Tripped,
    check_clock,
    check_share,
    early_by,
    effective_now,
    override_lifts,
)
from vault.retention.periods import Period
from vault.retention.policy import month_end

LAST = datetime(2026, 5, 30, tzinfo=UTC)
LIMITS = Limits(max_jump=timedelta(days=2), max_share=0.5)
OAKFIELD = TenantId("oakfield")
DAY = timedelta(days=1)


def clock(now: datetime, *, last: datetime | None = LAST) -> Tripped | None:
    return check_clock(now=now, last_sweep_at=last, limits=LIMITS)


def test_a_clock_that_jumped_ahead_stops_the_sweep() -> None:
    assert clock(LAST + timedelta(days=2)) is None
    tripped = clock(LAST + timedelta(days=2, microseconds=1))
    assert tripped is not None
    assert (tripped.guard, tripped.tenant) == (Guard.CLOCK_JUMP, None)


def test_the_first_sweep_and_an_earlier_clock_pass() -> None:
    assert clock(LAST + timedelta(days=300), last=None) is None
    assert clock(LAST - timedelta(days=300)) is None


@pytest.mark.parametrize(
    ("early", "live", "trips"),
    [(50, 100, False), (51, 100, True), (1, 1, True), (1, 2, False), (0, 0, False), (600, 1000, True)],
)
def test_what_goes_before_its_date_counts_from_the_first_recording(early: int, live: int, trips: bool) -> None:
    tripped = check_share(OAKFIELD, early=early, by_decision=[(early, live)], limits=LIMITS)
    assert (tripped is not None) == trips
    if tripped is not None:
        assert (tripped.guard, tripped.tenant, tripped.early) == (Guard.MASS_SHRED, OAKFIELD, early)
        unbounded = replace(LIMITS, max_share=1.0)
        assert check_share(OAKFIELD, early=early, by_decision=[(early, live)], limits=unbounded) is None


def test_one_decision_that_takes_too_much_is_enough_and_all_that_goes_counts_for_who_lifts_it() -> None:
    tripped = check_share(OAKFIELD, early=13, by_decision=[(10, 1000), (3, 4)], limits=LIMITS)
    assert tripped is not None
    assert (tripped.early, tripped.live) == (13, 1000)
    assert tripped.reason.startswith("3 of 4 live recordings")
    assert tripped.reason.endswith("13 would in all")


def test_each_decision_counts_what_there_was_when_it_was_taken() -> None:
    at = RECORDING.created_at + 3 * DAY
    over = replace(CLOCKS, contract_over=DUE_AT - 9 * DAY, contract_approved=at)
    assert early_by(facts(clocks=over), now=DUE_AT - DAY, last_sweep_at=None) == {at}
    changed = RetentionChange(
        request="pol", through=at, retention="5d", since=at + 14 * DAY, floor="1d", backdating_seconds=0.0
    )
    clocks = replace(CLOCKS, retention_changed=changed)
    assert early_by(facts(clocks=clocks), now=DUE_AT - DAY, last_sweep_at=None) == {at}
    month = RECORDING.metadata.cohort.period
    shorter = replace(CLOCKS, metadata_changed=MetadataChange(request="pol", through=month, retention="1d"))
    [decided] = early_by(facts(clocks=shorter), now=DUE_AT + 40 * DAY, last_sweep_at=None)
    assert decided < month_end(month) <= decided + timedelta(microseconds=1)


def early(now: datetime, *, last: datetime | None = None, recording: Any = RECORDING, **more: Any) -> bool:
    found = facts(recording, *more.pop("holds", ()), **more)
    return bool(early_by(found, now=now, last_sweep_at=last))


def test_what_goes_on_its_date_is_never_early_however_short_its_life() -> None:
    seconds = replace(RECORDING, started_at=DUE_AT - timedelta(days=90), created_at=DUE_AT - timedelta(seconds=4))
    assert not early(DUE_AT, recording=seconds)
    assert not early(DUE_AT + 100 * DAY, last=DUE_AT + 99 * DAY), "late is not early"


def test_the_end_of_a_contract_is_early_for_what_has_a_later_date_or_none() -> None:
    over = replace(CLOCKS, contract_over=DUE_AT - DAY)
    assert early(DUE_AT - DAY, clocks=over)
    only_metadata = frozenset({Part.METADATA})
    assert early(DUE_AT + DAY, clocks=over, keys=only_metadata)
    dated = replace(over, metadata_retention=Period(DAY))
    month_ends = datetime(2026, 6, 1, tzinfo=UTC)
    row = replace(
        RECORDING, metadata=replace(RECORDING.metadata, cohort=replace(RECORDING.metadata.cohort, period=2026 * 12 + 4))
    )
    assert not early(month_ends + DAY, recording=row, clocks=dated), "audio and metadata have had their day"


def test_metadata_is_early_if_the_policy_of_today_would_have_taken_it_at_the_last_sweep() -> None:
    month = replace(RECORDING.metadata.cohort, period=2026 * 12 + 1)
    row = replace(RECORDING, metadata=replace(RECORDING.metadata, cohort=month))
    due = datetime(2026, 3, 2, tzinfo=UTC)
    clocks = replace(CLOCKS, metadata_retention=Period(DAY))
    row = replace(row, ended_at=due - 10 * DAY, state=RecordingState.SHREDDED)
    assert decide(facts(row, clocks=clocks), Part.METADATA, now=due + DAY) != decide(facts(row), Part.METADATA, now=due)
    assert early(due + DAY, last=due, recording=row, clocks=clocks), "the policy became shorter"
    assert not early(due + DAY, last=due - DAY, recording=row, clocks=clocks), "its time came since"
    assert not early(due + DAY, last=None, recording=row, clocks=clocks)
    released = hold(state=HoldState.RELEASED, grace_until=due + timedelta(hours=1))
    assert not early(due + DAY, last=due, recording=row, clocks=clocks, holds=[released]), "a hold kept it until now"
    assert not early(due + DAY, last=due, recording=replace(row, ended_at=due + DAY), clocks=clocks), "it was live"


def test_an_erasure_and_whatever_is_kept_is_never_early() -> None:
    over = replace(CLOCKS, contract_over=DUE_AT - DAY)
    now = DUE_AT - DAY
    assert not early(now, erasing_since=now)
    assert not early(now, clocks=over, holds=[hold()])
    assert not early(now, clocks=over, recording=replace(RECORDING, state=RecordingState.OPEN))
    assert not early(now, clocks=over, keys=frozenset())


def test_a_permission_lifts_one_guard_once_until_its_end_and_for_no_more_than_was_seen() -> None:
    stopped = Tripped(guard=Guard.MASS_SHRED, reason="", tenant=OAKFIELD, early=7, live=9)

    def permitted(**changed: Any) -> bool:
        given = {"tenant": OAKFIELD, "early": 7, "through": LAST, "used": False, "now": LAST, **changed}
        return override_lifts(stopped, **given)

    assert permitted()
    assert permitted(early=8)
    assert not permitted(early=6), "more is early than two people saw"
    assert not permitted(tenant=None), "vouching for the clock takes nothing of a tenant"
    assert not permitted(tenant=TenantId("southgate"))
    assert not permitted(used=True)
    assert not permitted(now=LAST + timedelta(microseconds=1))
    jumped = Tripped(guard=Guard.CLOCK_JUMP, reason="")
    assert override_lifts(jumped, tenant=None, early=0, through=LAST, used=False, now=LAST)


def test_a_clock_stepped_back_never_moves_the_sweep_back() -> None:
    assert effective_now(LAST - timedelta(days=1), LAST) == LAST
    assert effective_now(LAST + timedelta(days=1), LAST) == LAST + timedelta(days=1)
    assert effective_now(LAST, None) == LAST
