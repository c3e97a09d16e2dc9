"""Arguments that several commands share: instants in users' spellings, and the options that choose recordings."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from cli.client import Client
from vault.errors import Invalid
from vault.media.sizes import parse_size
from vault.retention.periods import parse_duration, parse_period

# -- instants -----------------------------------------------------------------------------------------------------

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


# -- filters ------------------------------------------------------------------------------------------------------

_PAGE: Final = 1000


class _State(enum.StrEnum):
    LIVE = "live"
    OPEN = "open"
    SEALED = "sealed"
    TRUNCATED = "truncated"
    SHREDDING = "shredding"
    SHREDDED = "shredded"


class _Direction(enum.StrEnum):
    INBOUND = "inbound"
    OUTBOUND = "outbound"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Conditions on recordings; each member is an option of the commands that take this."""

    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None
    state: Annotated[_State | None, typer.Option(help="Only recordings in this state.")] = None
    started_from: Annotated[
        str | None, typer.Option("--from", help="Started at or after: -7d, today, a date or an instant.")
    ] = None
    started_to: Annotated[
        str | None, typer.Option("--to", help="Started before: now, today, a date or an instant.")
    ] = None
    held: Annotated[bool | None, typer.Option("--held/--not-held", help="Only recordings under a hold, or not.")] = None
    ahead: Annotated[
        bool | None,
        typer.Option("--ahead/--not-ahead", help="Only recordings that began after their receipt, or not."),
    ] = None
    longer_than: Annotated[str | None, typer.Option(help="Ended calls of at least 90s, 10m or 1h30m.")] = None
    shorter_than: Annotated[str | None, typer.Option(help="Ended calls of at most 90s, 10m or 1h30m.")] = None
    larger_than: Annotated[str | None, typer.Option(help="Ended calls of at least 500KiB or 50MiB.")] = None
    smaller_than: Annotated[str | None, typer.Option(help="Ended calls of at most 500KiB or 50MiB.")] = None
    expires_from: Annotated[
        str | None, typer.Option(help="Kept until then or later: +7d or a date; the earliest end comes first.")
    ] = None
    expires_to: Annotated[
        str | None, typer.Option(help="Kept until before then: +7d or a date; the earliest end comes first.")
    ] = None
    call_key: Annotated[str | None, typer.Option(help="Only this call; needs --purpose, like all options below.")] = (
        None
    )
    caller: Annotated[str | None, typer.Option(help="Only calls from this number.")] = None
    called: Annotated[str | None, typer.Option(help="Only calls to this number.")] = None
    agent: Annotated[str | None, typer.Option(help="Only calls of this party on the tenant's side.")] = None
    direction: Annotated[_Direction | None, typer.Option(help="Only calls of this direction.")] = None
    tag: Annotated[str | None, typer.Option(help="Only calls with this tag.")] = None

    @property
    def by_expiry(self) -> bool:
        """Whether recordings are listed by expiry, soonest first."""
        return self.expires_from is not None or self.expires_to is not None

    def wanted(self) -> dict[str, Any]:
        """Return the conditions as the search API takes them."""
        wanted = {
            "tenant": self.tenant,
            "state": self.state.value if self.state else None,
            "from": instant_or_none(self.started_from),
            "to": instant_or_none(self.started_to),
            "held": self.held,
            "ahead": self.ahead,
            "min_duration": _duration(self.longer_than),
            "max_duration": _duration(self.shorter_than),
            "min_bytes": None if self.larger_than is None else parse_size(self.larger_than),
            "max_bytes": None if self.smaller_than is None else parse_size(self.smaller_than),
            "expires_from": instant_or_none(self.expires_from),
            "expires_to": instant_or_none(self.expires_to),
            "call_key": self.call_key,
            "caller": self.caller,
            "called": self.called,
            "agent": self.agent,
            "direction": self.direction.value if self.direction else None,
            "tag": self.tag,
        }
        return {name: value for name, value in wanted.items() if value is not None}


def _duration(text: str | None) -> str | None:
    """Return a duration as it was typed; Invalid names the command-line option."""
    if text is not None:
        parse_duration(text)
    return text


async def search(
    client: Client, filters: Filters, *, purpose: str | None, before: str | None = None, limit: int | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return at most `limit` matches after `before`, and the id after which there may be more, else None."""
    wanted, headers = filters.wanted(), {"Purpose": purpose} if purpose else {}
    found: list[dict[str, Any]] = []
    after = before
    while limit is None or len(found) < limit:
        # In the body, so that an access log of addresses has no phone numbers.
        body = {**wanted, "limit": _PAGE if limit is None else min(limit - len(found), _PAGE)}
        if after is not None:
            body["before"] = after
        page = await client.call("POST", "/v1/recordings/search", body=body, headers=headers)
        found += page["recordings"]
        after = page["before"]
        if after is None:
            break
    return found, after
