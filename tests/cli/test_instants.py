from datetime import UTC, datetime

import pytest

from cli.instants import end_or_none, instant_or_none, parse_end, parse_instant
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
    ],
)
def test_dates_instants_and_distances_become_utc(text: str, expected: str) -> None:
    assert parse_instant(text, now=NOW) == expected


@pytest.mark.parametrize("text", ["", "+", "soon", "31.1.2027", "+3 days", "2027-01-31T09:00:00", "+999999999999d"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_instant(text, now=NOW)


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


@pytest.mark.parametrize("text", ["", "90", "soon", "90 days", "9999y"])
def test_an_end_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_end(text, now=NOW)


def test_nothing_stays_nothing() -> None:
    assert instant_or_none(None) is end_or_none(None) is None
