"""Instants as people type them: a local date or time, an RFC 3339 instant, or a distance from now."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from vault.errors import Invalid
from vault.retention.periods import parse_period

_HINT = "write 2027-01-31, 2027-01-31T09:00 or with Z, today, yesterday, now, -7d, +180d or +6mo"
_BARE = re.compile(r"[+-][0-9]{1,15}|[0-9]{1,3}", re.ASCII)
_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}


def parse_instant(text: str, *, now: datetime) -> str:
    """Return `text` as RFC 3339 in UTC; Invalid if it is no instant.

    A date without a time is its midnight, and a time without a zone is local to this machine; `-7d` and `+180d` count
    from `now`.
    """
    if _BARE.fullmatch(text):
        signed = text if text[0] in "+-" else f"-{text}"
        hint = f"write {signed}d for days, {signed}h for hours, {signed}m for minutes or {signed}mo for months"
        raise Invalid(f"{text!r} has no unit", hint=hint)
    try:
        if text == "now":
            moment = now
        elif text in _DAYS:
            today = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
            moment = today + timedelta(days=_DAYS[text])
        elif text.startswith("+"):
            moment = parse_period(text[1:]).after(now)
        elif text.startswith("-"):
            moment = parse_period(text[1:]).before(now)
        else:
            moment = _written(text)
        return _utc(moment)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{text[:40]!r} is not a date", hint=_HINT) from error


def _written(text: str) -> datetime:
    """Return a date or an instant; Invalid for a period without a sign."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        if not _is_period(text):
            raise
    raise Invalid(f"{text!r} may be before or after now", hint=f"write -{text} for before now, +{text} for after now")


def _is_period(text: str) -> bool:
    try:
        return bool(parse_period(text))
    except Invalid:
        return False


def _utc(moment: datetime) -> str:
    """Return an instant as RFC 3339; one without a zone is local to this machine."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def local_minute(text: str) -> str:
    """Return an RFC 3339 instant as a list shows it: to the minute, in local time."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")


def local_day(text: str | None) -> str | None:
    """Return the local day of an optional instant."""
    return None if text is None else local_minute(text).partition(" ")[0]


def length(duration_ms: int | None) -> str:
    """Return a duration as h:mm:ss or m:ss, cut to seconds; a dash if unknown."""
    if duration_ms is None:
        return "-"
    minutes, seconds = divmod(duration_ms // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def zone(*, now: datetime) -> str:
    """Return the name of this machine's time zone, for the head of a column of local times."""
    return now.astimezone().strftime("%Z")


def instant_or_none(text: str | None) -> str | None:
    """Return an optional instant, counted from the machine's clock."""
    return None if text is None else parse_instant(text, now=datetime.now(UTC))


def parse_end(text: str, *, now: datetime) -> str:
    """Return `text` as RFC 3339 in UTC: what `parse_instant` reads, or a period from `now` such as `90d` or `1y`."""
    try:
        return parse_period(text).after(now).isoformat().replace("+00:00", "Z")
    except Invalid:
        if text.isdecimal() and _BARE.fullmatch(text):
            raise
        return parse_instant(text, now=now)


def end_or_none(text: str | None) -> str | None:
    """Return an optional end, counted from the machine's clock."""
    return None if text is None else parse_end(text, now=datetime.now(UTC))
