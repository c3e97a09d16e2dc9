"""Laws of retention arithmetic over all dates, widths and spellings."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.catalogs import tenant as a_tenant
from vault.retention.guards import Limits, check_clock, effective_now
from vault.retention.periods import Period, format_duration, parse_duration, parse_period
from vault.retention.policy import (
    due_through,
    expiry_period,
    metadata_due,
    metadata_period,
    metadata_until,
    period_instant,
    with_metadata_retention,
)

INSTANTS = st.integers(0, 200 * 365 * 86_400 * 1_000_000).map(
    lambda microseconds: datetime(1990, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)
TENANT = a_tenant()
WIDTHS = st.integers(1_000, 10_000_000_000).map(lambda microseconds: microseconds / 1_000_000) | st.sampled_from(
    [86_400.0, 3600.0, 1.0, 0.25, 0.1]
)


@given(retain_until=INSTANTS, width=WIDTHS)
def test_a_cohort_falls_due_at_or_less_than_one_width_after_the_retain_until(
    retain_until: datetime, width: float
) -> None:
    instant = period_instant(expiry_period(retain_until, width), width)
    assert timedelta(0) <= instant - retain_until < timedelta(microseconds=round(width * 1_000_000))


@given(retain_until=INSTANTS, now=INSTANTS, width=WIDTHS)
def test_a_sweep_takes_a_cohort_exactly_when_its_instant_has_come(
    retain_until: datetime, now: datetime, width: float
) -> None:
    period = expiry_period(retain_until, width)
    taken = period <= due_through(now, width)
    assert taken == (now >= period_instant(period, width))
    # The promise itself: nothing is taken before its retain-until.
    assert not taken or now >= retain_until


@given(first=INSTANTS, second=INSTANTS, width=WIDTHS)
def test_what_is_kept_longer_is_never_swept_earlier(first: datetime, second: datetime, width: float) -> None:
    earlier, later = sorted((first, second))
    assert expiry_period(earlier, width) <= expiry_period(later, width)
    assert due_through(earlier, width) <= due_through(later, width)


KEPT = st.builds(Period, st.timedeltas(timedelta(days=1), timedelta(days=3650)), st.integers(0, 120))


@given(called=INSTANTS, now=INSTANTS, kept=KEPT)
def test_metadata_is_due_exactly_when_its_retention_has_passed_since_the_end_of_its_month(
    called: datetime, now: datetime, kept: Period
) -> None:
    month, this = metadata_period(called), metadata_period(now)
    tenant = replace(TENANT, metadata_retention=str(kept := parse_period(str(kept))))
    through, spared = metadata_due(tenant, [month, this], now=now)
    assert (through is not None and month <= through) == (now >= metadata_until(month, kept))
    assert metadata_until(month, kept) >= kept.after(called)
    # The month under way is never due, so no call is born into one; with one retention no month is spared.
    assert (through is None or through < this, spared) == (True, frozenset())


@given(
    now=INSTANTS,
    agreed=st.lists(st.tuples(INSTANTS, st.none() | KEPT.map(str)), max_size=4),
    months=st.sets(st.integers(1970 * 12, 2200 * 12), min_size=1, max_size=12),
)
def test_a_month_goes_by_what_was_agreed_when_it_was_recorded_and_by_nothing_later(
    now: datetime, agreed: list[tuple[datetime, str | None]], months: set[int]
) -> None:
    tenant = replace(TENANT, metadata_retention=None)
    past: dict[int, str | None] = {}
    for at, kept in sorted(agreed, key=lambda each: each[0]):
        for month in months:
            if month <= metadata_period(at):
                past.setdefault(month, tenant.metadata_retention)
        tenant = with_metadata_retention(tenant, kept, now=at)
    through, spared = metadata_due(tenant, months, now=now)
    taken = {month for month in months if through is not None and month <= through} - spared
    expected = {month: past.get(month, tenant.metadata_retention) for month in months}
    assert taken == {
        month
        for month, text in expected.items()
        if text is not None and metadata_until(month, parse_period(text)) <= now
    }


@given(milliseconds=st.integers(0, 10**14))
def test_a_written_duration_reads_back(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@given(readings=st.lists(INSTANTS, min_size=1, max_size=8), jump=st.timedeltas(timedelta(0), timedelta(days=400)))
def test_whatever_the_clock_does_sweeps_advance_at_most_one_jump_each(
    readings: list[datetime], jump: timedelta
) -> None:
    limits = Limits(max_jump=jump, max_share=1.0)
    last = readings[0]
    for reading in readings[1:]:
        tripped = check_clock(now=reading, last_sweep_at=last, limits=limits)
        if tripped is None:
            swept = effective_now(reading, last)
            assert timedelta(0) <= swept - last <= jump
            last = swept
        else:
            assert reading - last > jump


PERIODS = st.builds(
    Period, st.timedeltas(timedelta(0), timedelta(days=800)) | st.just(timedelta(0)), st.integers(0, 100)
)


@given(start=INSTANTS, period=PERIODS)
def test_a_period_is_never_shorter_or_longer_than_it_says(start: datetime, period: Period) -> None:
    assert period.shortest <= period.after(start) - start <= period.longest


@given(start=INSTANTS, first=PERIODS, second=PERIODS)
def test_a_period_that_covers_another_never_ends_before_it(start: datetime, first: Period, second: Period) -> None:
    if first.covers(second):
        assert first.after(start) >= second.after(start)
    assert first.covers(first)
    assert first.covers(second) or second.covers(first) or first.months != second.months


@given(period=PERIODS)
def test_every_period_survives_being_written(period: Period) -> None:
    cut = Period(period.rest - period.rest % timedelta(milliseconds=1), period.months)
    assert parse_period(str(period)) == cut
