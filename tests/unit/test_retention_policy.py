"""From a call's start to its cohort, without rounding."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from vault.errors import Invalid
from vault.retention.policy import (
    RetentionPolicy,
    check_retention,
    due_through,
    expiry_period,
    metadata_period,
    period_instant,
    retain_until,
    retention_for,
)

CALL = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
DAY = 86_400
POLICY = RetentionPolicy(
    version="2026-1",
    defaults={"recording": timedelta(days=90), "prospect": timedelta(days=730)},
    floor=timedelta(days=1),
    cap=timedelta(days=2555),
)


def test_a_recording_is_kept_ninety_days_from_the_start_of_the_call() -> None:
    assert retain_until(CALL, POLICY) == datetime(2026, 5, 30, 9, 30, tzinfo=UTC)


def test_the_call_may_be_given_in_any_zone_and_the_answer_is_utc() -> None:
    local = CALL.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert retain_until(local, POLICY) == retain_until(CALL, POLICY)
    assert retain_until(local, POLICY).tzinfo is UTC


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        (None, timedelta(days=90)),
        (timedelta(days=30), timedelta(days=30)),
        (timedelta(hours=1), timedelta(days=1)),
        (timedelta(days=9999), timedelta(days=2555)),
    ],
)
def test_a_tenants_choice_counts_within_floor_and_cap(chosen: timedelta | None, kept: timedelta) -> None:
    assert retention_for(POLICY, tenant_retention=chosen) == kept


def test_a_tenants_choice_speaks_for_recordings_only() -> None:
    kept = retention_for(POLICY, retention_class="prospect", tenant_retention=timedelta(days=30))
    assert kept == timedelta(days=730)


def test_an_unknown_class_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Invalid) as caught:
        retain_until(CALL, POLICY, retention_class="voicemail")
    assert caught.value.hint == "use one of: prospect, recording"


def test_a_choice_outside_the_bounds_is_refused_when_it_is_made() -> None:
    check_retention(POLICY, timedelta(days=1))
    check_retention(POLICY, timedelta(days=2555))
    for outside in (timedelta(hours=23), timedelta(days=2556)):
        with pytest.raises(Invalid) as caught:
            check_retention(POLICY, outside)
        assert "1d to 2555d" in caught.value.message


@pytest.mark.parametrize(
    ("defaults", "floor", "cap"),
    [
        ({}, timedelta(0), timedelta(days=1)),
        ({"recording": timedelta(days=1)}, timedelta(days=2), timedelta(days=1)),
        ({"recording": timedelta(days=1)}, timedelta(days=-1), timedelta(days=1)),
        ({"recording": timedelta(days=3)}, timedelta(0), timedelta(days=2)),
        ({"recording": timedelta(0)}, timedelta(seconds=1), timedelta(days=2)),
    ],
)
def test_a_policy_that_contradicts_itself_cannot_exist(
    defaults: dict[str, timedelta], floor: timedelta, cap: timedelta
) -> None:
    with pytest.raises(Invalid):
        RetentionPolicy(version="x", defaults=defaults, floor=floor, cap=cap)


def test_a_retention_beyond_the_calendar_is_invalid() -> None:
    with pytest.raises(Invalid):
        retain_until(datetime(9999, 12, 1, tzinfo=UTC), POLICY)
    with pytest.raises(Invalid):
        period_instant(1 << 47, DAY)


def test_a_period_starts_due_exactly_at_its_instant() -> None:
    midnight = datetime(2026, 5, 31, tzinfo=UTC)
    period = expiry_period(midnight, DAY)
    assert period_instant(period, DAY) == midnight
    assert expiry_period(midnight + timedelta(microseconds=1), DAY) == period + 1
    assert due_through(midnight, DAY) == period
    assert due_through(midnight - timedelta(microseconds=1), DAY) == period - 1


def test_widths_below_a_second_are_exact() -> None:
    # 0.1 has no exact binary form: the width is whole microseconds.
    instant = datetime(2026, 5, 31, 0, 0, 0, 300_000, tzinfo=UTC)
    assert period_instant(expiry_period(instant, 0.1), 0.1) == instant


@pytest.mark.parametrize("width", [0, -1, 0.0000001])
def test_a_cohort_has_a_width(width: float) -> None:
    with pytest.raises(Invalid):
        expiry_period(CALL, width)


def test_metadata_is_bucketed_by_the_utc_month_of_creation() -> None:
    assert metadata_period(datetime(2026, 1, 1, tzinfo=UTC)) == 2026 * 12
    assert metadata_period(datetime(2026, 12, 31, 23, 59, tzinfo=UTC)) == 2026 * 12 + 11
    new_year_in_asia = datetime(2027, 1, 1, 1, tzinfo=timezone(timedelta(hours=9)))
    assert metadata_period(new_year_in_asia) == 2026 * 12 + 11
