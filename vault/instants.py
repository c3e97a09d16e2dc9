"""The text of instants in answers, logs, messages and reports; hashed and signed documents have their own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_TWO: Final = tuple(f"{number:02}" for number in range(60))
_THREE: Final = tuple(f"{number:03}" for number in range(1000))
"""Digits, looked up: a page of a list has hundreds of instants, and `isoformat` takes three times as long."""


def rfc3339(instant: datetime) -> str:
    """Return `2026-05-30T09:30:00.000Z`: RFC 3339 in UTC, cut to milliseconds. Without a zone it is this machine's."""
    at = instant if instant.tzinfo is UTC else instant.astimezone(UTC)
    day = f"{at.year:04}-{_TWO[at.month]}-{_TWO[at.day]}"
    return f"{day}T{_TWO[at.hour]}:{_TWO[at.minute]}:{_TWO[at.second]}.{_THREE[at.microsecond // 1000]}Z"
