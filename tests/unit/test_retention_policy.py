"""From a call's start to its cohort, without rounding."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from vault.errors import Invalid
from vault.retention.periods import parse_period
from vault.retention.policy import (
    check_metadata_outlives,
    check_metadata_retention,
    due_through,
    expiry_period,
    metadata_period,
    metadata_until,
    period_instant,
)

CALL = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
DAY = 86_400


def test_a_cohort_beyond_the_calendar_is_invalid() -> None:
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


def test_metadata_goes_by_the_calendar_and_not_by_so_many_days() -> None:
    def until(year: int, month: int, kept: str) -> datetime:
        return metadata_until(year * 12 + month - 1, parse_period(kept))

    # Two years are 730 or 731 days; six months from the first of a month are 181 to 184.
    assert until(2026, 2, "2y") == datetime(2028, 3, 1, tzinfo=UTC)
    assert until(2027, 2, "2y") == datetime(2029, 3, 1, tzinfo=UTC)
    assert until(2026, 8, "6mo") == datetime(2027, 3, 1, tzinfo=UTC)
    assert until(2026, 12, "1mo1d") == datetime(2027, 2, 2, tzinfo=UTC)


def test_metadata_of_two_years_outlives_audio_of_two_years_and_not_of_a_day_more() -> None:
    check_metadata_outlives(parse_period("2y"), parse_period("2y"))
    check_metadata_outlives(None, parse_period("7y"))
    for shorter, audio in (("2y", "2y1d"), ("730d", "2y"), ("5mo", "6mo")):
        with pytest.raises(Invalid, match=shorter):
            check_metadata_outlives(parse_period(shorter), parse_period(audio))


def test_metadata_is_kept_for_a_day_to_a_century() -> None:
    for sound in (None, "1d", "1mo", "100y", "36525d"):
        check_metadata_retention(None if sound is None else parse_period(sound))
    for unsound in ("23h", "100y1d", "101y"):
        with pytest.raises(Invalid):
            check_metadata_retention(parse_period(unsound))
