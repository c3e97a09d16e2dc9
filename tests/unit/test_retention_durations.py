"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from vault.errors import Invalid
from vault.retention.periods import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90d", timedelta(days=90)),
        ("2w", timedelta(days=14)),
        ("1h30m", timedelta(minutes=90)),
        ("5m", timedelta(minutes=5)),
        ("5ms", timedelta(milliseconds=5)),
        ("1m5ms", timedelta(minutes=1, milliseconds=5)),
        ("1w2d3h4m5s6ms", timedelta(days=9, hours=3, minutes=4, seconds=5, milliseconds=6)),
        ("0s", timedelta(0)),
        ("007d", timedelta(days=7)),
    ],
)
def test_units_add_up(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "90",
        "d",
        "-1d",
        "+1d",
        "1.5h",
        "1 h",
        "90D",
        "1y",
        "30m1h",
        "1h1h",
        "5s5ms5s",
        "90d\n",
        "\u0669d",
        "9" * 15 + "d",
    ],
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_duration(text)
    assert "90d" in (caught.value.hint or "") or "calendar" in caught.value.message


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(days=90), "90d"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(0), "0s"),
        (timedelta(milliseconds=5, microseconds=999), "5ms"),
        (timedelta(days=1, seconds=1), "1d1s"),
    ],
)
def test_durations_are_written_in_days_and_smaller(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


def test_a_negative_duration_has_no_text() -> None:
    with pytest.raises(Invalid):
        format_duration(timedelta(microseconds=-1))
