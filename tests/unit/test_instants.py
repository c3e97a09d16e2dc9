"""One way to write an instant: RFC 3339, UTC, always three digits of milliseconds."""

import json
import logging
from datetime import UTC, datetime, timedelta, timezone

import pytest

from vault.instants import rfc3339
from vault.telemetry import JsonFormatter

NOON = datetime(2026, 5, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (NOON, "2026-05-30T12:00:00.000Z"),
        (NOON.replace(microsecond=999_999), "2026-05-30T12:00:00.999Z"),
        (NOON.astimezone(timezone(timedelta(hours=-9, minutes=-30))), "2026-05-30T12:00:00.000Z"),
    ],
)
def test_an_instant_is_in_utc_and_cut_to_milliseconds(instant, text):
    assert rfc3339(instant) == text
    assert abs(datetime.fromisoformat(text) - instant) < timedelta(milliseconds=1)


def test_a_log_line_has_it_too():
    record = logging.LogRecord("vault", logging.INFO, "", 1, "said", (), None)
    record.created = NOON.timestamp()
    assert json.loads(JsonFormatter().format(record))["at"] == "2026-05-30T12:00:00.000Z"
