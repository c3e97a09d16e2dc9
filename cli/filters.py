"""Options that choose recordings, and the search they stand for."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from cli.client import Client
from cli.instants import instant_or_none
from vault.media.sizes import parse_size
from vault.retention.periods import parse_duration

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
    state: Annotated[_State | None, typer.Option(help="Only those in this state.")] = None
    started_from: Annotated[
        str | None, typer.Option("--from", help="Started at or after: -7d, today, a date or an instant.")
    ] = None
    started_to: Annotated[
        str | None, typer.Option("--to", help="Started before: now, today, a date or an instant.")
    ] = None
    held: Annotated[bool | None, typer.Option("--held/--not-held", help="Only those a hold keeps, or does not.")] = None
    ahead: Annotated[
        bool | None,
        typer.Option("--ahead/--not-ahead", help="Only those kept longer for a start after their receipt, or not."),
    ] = None
    longer_than: Annotated[str | None, typer.Option(help="Ended calls of at least 90s, 10m or 1h30m.")] = None
    shorter_than: Annotated[str | None, typer.Option(help="Ended calls of at most 90s, 10m or 1h30m.")] = None
    larger_than: Annotated[str | None, typer.Option(help="Ended calls of at least 500KiB or 50MiB.")] = None
    smaller_than: Annotated[str | None, typer.Option(help="Ended calls of at most 500KiB or 50MiB.")] = None
    expires_from: Annotated[
        str | None, typer.Option(help="Kept until at least: +7d or a date; what goes first comes first.")
    ] = None
    expires_to: Annotated[
        str | None, typer.Option(help="Kept until before: +7d or a date; what goes first comes first.")
    ] = None
    call_key: Annotated[
        str | None, typer.Option(help="Only what the recorder calls so; needs --purpose, as all below.")
    ] = None
    caller: Annotated[str | None, typer.Option(help="Only calls from this number.")] = None
    called: Annotated[str | None, typer.Option(help="Only calls to this number.")] = None
    agent: Annotated[
        str | None, typer.Option(help="Only calls that this party took or made: called inbound, calling outbound.")
    ] = None
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
        # In the body and not in the address, so that phone numbers are in no access log.
        body = {**wanted, "limit": _PAGE if limit is None else min(limit - len(found), _PAGE)}
        if after is not None:
            body["before"] = after
        page = await client.call("POST", "/v1/recordings/search", body=body, headers=headers)
        found += page["recordings"]
        after = page["before"]
        if after is None:
            break
    return found, after
