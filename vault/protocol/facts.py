"""The `Call-` headers: what a recorder says about a call beside its audio."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from vault.errors import Invalid
from vault.model import CallFacts
from vault.protocol.numbers import normalised

MAX_TAGS: Final = 20
MAX_FACT: Final = 200
"""Characters of one fact."""


def fact(value: str) -> str:
    """Return one fact without the space around it; Invalid, which does not repeat it, if it is too long or not text."""
    value = value.strip()
    if len(value) > MAX_FACT or not value.isprintable():
        raise Invalid("a fact header is too long or not text")
    return value


def call_facts(headers: Mapping[str, str]) -> CallFacts:
    """Return the facts in headers whose names are looked up without regard to case; Invalid for unusable ones."""
    tags = tuple(tag.strip() for tag in fact(headers.get("Call-Tags", "")).split(",") if tag.strip())
    if len(tags) > MAX_TAGS:
        raise Invalid(f"a call has at most {MAX_TAGS} tags")
    direction = fact(headers.get("Call-Direction", "")) or None
    if direction not in (None, "inbound", "outbound"):
        raise Invalid("Call-Direction is inbound or outbound")
    return CallFacts(
        caller=normalised(fact(headers.get("Call-From", ""))),
        called=normalised(fact(headers.get("Call-To", ""))),
        direction=direction,
        tags=tags,
    )


def call_started(headers: Mapping[str, str]) -> datetime | None:
    """Return the start of the call in UTC, None if it is not said; Invalid unless it is an RFC 3339 instant."""
    value = headers.get("Call-Started")
    if value is None:
        return None
    try:
        started = datetime.fromisoformat(value)
        if started.tzinfo is None:
            raise Invalid("Call-Started has no time zone", hint="for example 2026-01-31T09:30:00Z")
        return started.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid("Call-Started is not an RFC 3339 instant", hint="for example 2026-01-31T09:30:00Z") from error
