import time
from datetime import UTC, datetime

import pytest

from cli.arguments import end_or_none, instant_or_none, length, local_minute, parse_end, parse_instant, zone
from vault.errors import Invalid

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-01-31", "2027-01-31T00:00:00Z"),
        ("2027-01-31T09:00:00Z", "2027-01-31T09:00:00Z"),
        ("2027-01-31T09:00:00+01:00", "2027-01-31T08:00:00Z"),
        ("+180d", "2027-05-23T12:00:00Z"),
        ("+1h30m", "2026-11-24T13:30:00Z"),
        ("-7d", "2026-11-17T12:00:00Z"),
        ("-1mo", "2026-10-24T12:00:00Z"),
        ("now", "2026-11-24T12:00:00Z"),
    ],
)
def test_dates_instants_and_distances_become_utc(text: str, expected: str) -> None:
    assert parse_instant(text, now=NOW) == expected


def test_a_month_before_a_day_that_the_month_has_not_is_its_last_day() -> None:
    assert parse_instant("-1mo", now=datetime(2027, 3, 31, 9, tzinfo=UTC)) == "2027-02-28T09:00:00Z"


def test_days_and_times_without_a_zone_are_those_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/London")
    time.tzset()
    try:
        late = datetime(2026, 7, 1, 23, 30, tzinfo=UTC)  # half past midnight of 2 July in London
        told = {
            text: parse_instant(text, now=late)
            for text in ("today", "yesterday", "tomorrow", "2026-07-01", "2026-12-01", "2026-07-01T09:00")
        }
        assert told == {
            "today": "2026-07-01T23:00:00Z",
            "yesterday": "2026-06-30T23:00:00Z",
            "tomorrow": "2026-07-02T23:00:00Z",
            "2026-07-01": "2026-06-30T23:00:00Z",
            "2026-12-01": "2026-12-01T00:00:00Z",
            "2026-07-01T09:00": "2026-07-01T08:00:00Z",
        }
        assert (local_minute("2026-07-01T23:30:59.000Z"), zone(now=late)) == ("2026-07-02 00:30", "BST")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text",
    ["", "+", "-", "soon", "31.1.2027", "+3 days", "-7", "Today", "+999999999999d", "-9999y", "0001-01-01T00:00+14:00"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_instant(text, now=NOW)


@pytest.mark.parametrize(
    ("text", "said", "write"),
    [
        ("-7", "'-7' has no unit", "write -7d for days, -7h for hours, -7m for minutes or -7mo for months"),
        ("+7", "'+7' has no unit", "write +7d for days"),
        ("7", "'7' has no unit", "write -7d for days"),
        ("7d", "'7d' may be before or after now", "write -7d for before now, +7d for after now"),
        ("soon", "'soon' is not a date", "write 2027-01-31"),
    ],
)
def test_what_was_forgotten_is_said_with_what_to_write(text: str, said: str, write: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_instant(text, now=NOW)
    assert refused.value.message == said
    assert refused.value.hint is not None
    assert refused.value.hint.startswith(write)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90d", "2027-02-22T12:00:00Z"),
        ("1y", "2027-11-24T12:00:00Z"),
        ("+90d", "2027-02-22T12:00:00Z"),
        ("2027-01-31", "2027-01-31T00:00:00Z"),
    ],
)
def test_an_end_is_a_period_from_now_or_an_instant(text: str, expected: str) -> None:
    assert parse_end(text, now=NOW) == expected


def test_an_end_without_a_unit_is_told_so() -> None:
    with pytest.raises(Invalid, match="'90' has no unit"):
        parse_end("90", now=NOW)


@pytest.mark.parametrize("text", ["", "90", "soon", "90 days", "9999y"])
def test_an_end_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_end(text, now=NOW)


def test_a_length_is_shown_as_a_clock_shows_it() -> None:
    assert [length(each) for each in (None, 0, 59_999, 187_000, 3_723_000)] == ["-", "0:00", "0:59", "3:07", "1:02:03"]


def test_nothing_stays_nothing() -> None:
    assert instant_or_none(None) is end_or_none(None) is None
