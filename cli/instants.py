"""Instants as people type them: a date, an RFC 3339 instant, or a distance from now."""

from __future__ import annotations

from datetime import UTC, datetime

from vault.errors import Invalid
from vault.retention.periods import parse_period

_HINT = "write 2027-01-31, 2027-01-31T09:00:00Z, +180d or +6mo"


def parse_instant(text: str, *, now: datetime) -> str:
    """Return `text` as RFC 3339 in UTC; a bare date begins at midnight UTC, `+180d` counts from `now`."""
    try:
        if text.startswith("+"):
            moment = parse_period(text[1:]).after(now)
        else:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                if len(text) > len("2027-01-31"):
                    raise Invalid(f"{text[:40]!r} has no time zone", hint=_HINT)
                moment = moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{text[:40]!r} is not a date", hint=_HINT) from error
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def instant_or_none(text: str | None) -> str | None:
    """Return an optional instant, counted from the machine's clock."""
    return None if text is None else parse_instant(text, now=datetime.now(UTC))


def parse_end(text: str, *, now: datetime) -> str:
    """Return `text` as RFC 3339 in UTC: what `parse_instant` reads, or a period from `now` such as `90d` or `1y`."""
    try:
        return parse_period(text).after(now).isoformat().replace("+00:00", "Z")
    except Invalid:
        return parse_instant(text, now=now)


def end_or_none(text: str | None) -> str | None:
    """Return an optional end, counted from the machine's clock."""
    return None if text is None else parse_end(text, now=datetime.now(UTC))
