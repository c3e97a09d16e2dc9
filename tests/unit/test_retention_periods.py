"""Months and years of the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from vault.errors import Invalid
from vault.retention.periods import Period, parse_period


@pytest.mark.parametrize(
    ("start", "text", "end"),
    [
        ("2026-03-01T09:30", "90d", "2026-05-30T09:30"),
        ("2026-03-15T09:30", "1mo", "2026-04-15T09:30"),
        ("2026-01-31T09:30", "1mo", "2026-02-28T09:30"),
        ("2028-01-31T09:30", "1mo", "2028-02-29T09:30"),
        ("2028-02-29T00:00", "1y", "2029-02-28T00:00"),
        ("2028-02-29T00:00", "4y", "2032-02-29T00:00"),
        ("2026-11-30T00:00", "3mo", "2027-02-28T00:00"),
        ("2026-12-31T23:59", "1y2mo", "2028-02-29T23:59"),
        ("2026-01-31T00:00", "1mo1d", "2026-03-01T00:00"),
        ("2026-06-01T00:00", "7y", "2033-06-01T00:00"),
    ],
)
def test_a_month_later_is_the_same_day_or_the_last_one_of_the_month(start, text, end):
    begin = datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert parse_period(text).after(begin) == datetime.fromisoformat(end).replace(tzinfo=UTC)


def test_months_are_those_of_utc():
    asia = datetime(2026, 3, 1, 1, tzinfo=timezone(timedelta(hours=9)))
    assert parse_period("1mo").after(asia) == datetime(2026, 3, 28, 16, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("7y", Period(months=84)),
        ("18mo", Period(months=18)),
        ("1y6mo2w3h", Period(timedelta(days=14, hours=3), 18)),
        ("1m", Period(timedelta(minutes=1))),
        ("1mo1m1ms", Period(timedelta(minutes=1, milliseconds=1), 1)),
        ("0y", Period()),
    ],
)
def test_years_and_months_come_before_what_durations_have(text, period):
    assert parse_period(text) == period


@pytest.mark.parametrize(
    "text", ["", "7", "y", "1mo1y", "1y1y", "1mo1mo", "1d1mo", "1.5y", "-1y", "1Y", "1 y", "1y\n", "\u0661y", "10001y"]
)
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(Invalid) as refused:
        parse_period(text)
    assert "7y" in (refused.value.hint or "")


def test_a_period_is_written_as_it_is_read():
    for text in ("90d", "7y", "1y6mo", "2mo", "1mo1d", "1h30m", "0s"):
        assert str(parse_period(text)) == text
    assert str(parse_period("24mo")) == "2y"


def test_a_period_beyond_the_calendar_has_no_end():
    for text in ("8000y", "1y", "32d"):
        with pytest.raises(Invalid, match="beyond the calendar"):
            parse_period(text).after(datetime(9999, 12, 1, tzinfo=UTC))


def test_how_long_months_are_at_least_and_at_most():
    for text, least, most in (
        ("1mo", 28, 31),
        ("1y", 365, 366),
        ("4y", 1460, 1461),
        ("7y", 2555, 2557),
        ("90d", 90, 90),
    ):
        period = parse_period(text)
        assert (period.shortest, period.longest) == (timedelta(days=least), timedelta(days=most))
