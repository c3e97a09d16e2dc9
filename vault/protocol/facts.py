"""What a recorder states about a call beside its audio: numbers, direction, tags and start, whatever its protocol.

Each protocol spells the members its own way and refuses in its own terms; what is usable is the same for all.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from vault.errors import Invalid
from vault.model import CallFacts

MAX_TAGS: Final = 20
MAX_FACT: Final = 200
"""Characters of one fact."""

MANY_TAGS: Final = f"a call has at most {MAX_TAGS} tags"
DIRECTIONS: Final = ("inbound", "outbound")
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_MEMBERS: Final = ("from", "to", "direction", "tags")


class Fault(enum.Enum):
    """Why a member cannot be used."""

    TEXT = enum.auto()
    """It is longer than MAX_FACT, or not printable."""
    TAGS = enum.auto()
    """There are more than MAX_TAGS."""
    DIRECTION = enum.auto()
    """It is neither inbound nor outbound."""


Refusal = Callable[[Fault, str], Invalid]
"""Return the protocol's own error for a fault of the named member; it does not repeat the value."""


class NoZone(ValueError):
    """An instant without a time zone is none."""


def fact(members: Mapping[str, str], name: str, refusal: Refusal) -> str:
    """Return one member without the space around it, "" if it is not stated; Invalid by `refusal`."""
    value = members.get(name, "").strip()
    if len(value) > MAX_FACT or not value.isprintable():
        raise refusal(Fault.TEXT, name)
    return value


def cut(text: str) -> str:
    """Return what of a text can be a fact, for protocols that refuse no call for one: printable, MAX_FACT at most."""
    return "".join(each for each in text[:MAX_FACT] if each.isprintable())


def stated_facts(members: Mapping[str, str], refusal: Refusal) -> CallFacts:
    """Return the facts in the members from, to, direction and tags (with commas between); Invalid by `refusal`."""
    tags = tuple(tag.strip() for tag in fact(members, "tags", refusal).split(",") if tag.strip())
    if len(tags) > MAX_TAGS:
        raise refusal(Fault.TAGS, "tags")
    direction = fact(members, "direction", refusal) or None
    if direction is not None and direction not in DIRECTIONS:
        raise refusal(Fault.DIRECTION, "direction")
    return CallFacts(
        caller=fact(members, "from", refusal) or None,
        called=fact(members, "to", refusal) or None,
        direction=direction,
        tags=tags,
    )


def instant(text: str) -> datetime:
    """Return an RFC 3339 instant in UTC; NoZone if it has no time zone, ValueError if it is none.

    One that lies beyond the calendar only in UTC is the calendar's own first or last.
    """
    started = datetime.fromisoformat(text)
    if started.tzinfo is None:
        raise NoZone
    try:
        return started.astimezone(UTC)
    except OverflowError:
        return _FIRST if started.year == _FIRST.year else _LAST


# -- the Call- headers ----------------------------------------------------------------------------------------------


def call_facts(headers: Mapping[str, str]) -> CallFacts:
    """Return the facts in headers whose names are looked up without regard to case; Invalid for unusable ones."""
    return stated_facts({name: headers.get(f"Call-{name.title()}", "") for name in _MEMBERS}, _refusal)


def _refusal(fault: Fault, name: str) -> Invalid:
    match fault:
        case Fault.TEXT:
            return Invalid("a fact header is too long or not text")
        case Fault.TAGS:
            return Invalid(MANY_TAGS)
        case Fault.DIRECTION:
            return Invalid(f"Call-{name.title()} is inbound or outbound")


def call_started(headers: Mapping[str, str]) -> datetime | None:
    """Return the start of the call in UTC, None if it is not said; Invalid unless it is an RFC 3339 instant."""
    value = headers.get("Call-Started")
    if value is None:
        return None
    try:
        return instant(value)
    except NoZone as error:
        raise Invalid("Call-Started has no time zone", hint="for example 2026-01-31T09:30:00Z") from error
    except ValueError as error:
        raise Invalid("Call-Started is not an RFC 3339 instant", hint="for example 2026-01-31T09:30:00Z") from error
