"""How the vault writes an instant in answers, logs, messages and reports; what is hashed or signed has its own way."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(instant: datetime) -> str:
    """Return `2026-05-30T09:30:00.000Z`: RFC 3339 in UTC, cut to milliseconds. Without a zone it is this machine's."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
