"""What a recorder of any protocol states about a call: parties, direction, tags and start.

An unusable fact is left out and noted in `CallFacts.unusable` with the reason. The audio is kept all the same.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from vault.model import CallFacts

MAX_TAGS: Final = 20
MAX_FACT: Final = 200
"""The greatest number of characters of a fact."""
MAX_UNUSABLE: Final = 20

_DIRECTIONS: Final = {
    **dict.fromkeys(("inbound", "incoming", "in"), "inbound"),
    **dict.fromkeys(("outbound", "outgoing", "out"), "outbound"),
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_TIME: Final = re.compile(r"(\d{9,10})(\.\d{1,9})?|(\d{12,13})", re.ASCII)
"""Seconds or milliseconds since 1970."""
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_HEADER: Final = "Call-"
_TAGS: Final = "Call-Tags"
_HEADERS: Final = {f"{_HEADER}{name.title()}": name for name in ("from", "to", "direction", "started", "tags")}


KINDS: Final = ("from", "to", "direction", "started", "tags", "other")
"""The kinds of unusable facts in metrics; see `kind_of`."""


class Unusable(enum.StrEnum):
    """Why a fact was left out."""

    TEXT = "text"
    """It is longer than MAX_FACT, or not text."""
    MANY = "many"
    """There are more facts of its kind than are kept."""
    REPEATED = "repeated"
    """Its name was stated before, with another value."""
    FORM = "form"
    """The document that states it cannot be read."""
    VALUE = "value"
    """Its value does not fit its name."""
    UNKNOWN = "unknown"
    """There is no fact with this name."""


class Reading:
    """Reads facts that a recorder states; `unusable` has the names of those left out, with the reason."""

    def __init__(self) -> None:
        self.unusable: dict[str, str] = {}

    def leave_out(self, name: str, why: Unusable) -> None:
        """Note that the fact with this name is left out."""
        if len(self.unusable) < MAX_UNUSABLE:
            self.unusable[cut(name)] = why.value

    def keep_first(self, members: dict[str, str], name: str, value: str) -> None:
        """Add a member; the first value of a name stays, and a different later one is noted."""
        if members.setdefault(name, value) != value:
            self.leave_out(name, Unusable.REPEATED)

    def text(self, name: str, stated: str | None) -> str | None:
        """Return a text without surrounding space and unprintable characters; None if nothing is left."""
        value = cut(decoded(stated or "")).strip() if len(stated or "") <= MAX_FACT else None
        if value is None or (not value and (stated or "").strip()):
            self.leave_out(name, Unusable.TEXT)
        return value or None

    def direction(self, name: str, stated: str | None) -> str | None:
        """Return "inbound" or "outbound"; None for other values."""
        value = self.text(name, stated)
        found = _DIRECTIONS.get((value or "").lower())
        if value is not None and found is None:
            self.leave_out(name, Unusable.VALUE)
        return found

    def tags(self, name: str, stated: Iterable[str]) -> tuple[str, ...]:
        """Return the first MAX_TAGS usable tags."""
        found = [tag for each in stated if (tag := self.text(name, each)) is not None]
        if len(found) > MAX_TAGS:
            self.leave_out(name, Unusable.MANY)
        return tuple(found[:MAX_TAGS])

    def started(self, name: str, stated: str | None) -> datetime | None:
        """Return a start in UTC from RFC 3339 with a time zone, or seconds or milliseconds since 1970; else None."""
        value = self.text(name, stated)
        if value is None:
            return None
        try:
            return instant(value)
        except ValueError:
            self.leave_out(name, Unusable.VALUE)
            return None

    def facts(self, members: Mapping[str, str], *, named: Mapping[str, str] | None = None) -> CallFacts:
        """Return the facts in the members from, to, direction and tags (separated by commas).

        `named` maps these names to those of the protocol.
        """
        names = {name: (named or {}).get(name, name) for name in ("from", "to", "direction", "tags")}
        stated = {name: members.get(member) for name, member in names.items()}
        tags = stated["tags"]
        return CallFacts(
            caller=self.text(names["from"], stated["from"]),
            called=self.text(names["to"], stated["to"]),
            direction=self.direction(names["direction"], stated["direction"]),
            tags=self.tags(names["tags"], tags.split(",") if tags else ()),
            unusable=self.unusable,
        )


def cut(text: str) -> str:
    """Return the printable characters among the first MAX_FACT."""
    return "".join(each for each in text[:MAX_FACT] if each.isprintable())


def decoded(text: str) -> str:
    """Return a text whose bytes were not UTF-8 (surrogate escapes) as ISO 8859-1; other text as it is."""
    with suppress(UnicodeEncodeError):  # it has other surrogates
        raw = text.encode("utf-8", "surrogateescape")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw.decode("iso-8859-1")
    return text


def contradict(known: CallFacts, stated: CallFacts) -> bool:
    """Tell whether two statements have different parties or directions; a missing one does not differ."""
    pairs = (known.caller, stated.caller), (known.called, stated.called), (known.direction, stated.direction)
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def kind_of(name: str) -> str:
    """Return the kind of fact, of KINDS, for a member's name; a prefix of the protocol is ignored."""
    short = name.lower().rpartition("-")[2]
    return short if short in KINDS else "other"


def instant(text: str) -> datetime:
    """Return an RFC 3339 instant or an epoch time in UTC; ValueError for other text, or without a time zone.

    An instant that only lies beyond the calendar in UTC becomes the first or last instant of the calendar.
    """
    epoch = _EPOCH_TIME.fullmatch(text)
    if epoch is not None:
        return _EPOCH + (timedelta(milliseconds=int(epoch[3])) if epoch[3] else timedelta(seconds=float(text)))
    started = datetime.fromisoformat(text)
    if started.tzinfo is None:
        raise ValueError("the instant has no time zone")
    try:
        return started.astimezone(UTC)
    except OverflowError:
        return _FIRST if started.year == _FIRST.year else _LAST


def call_headers(headers: Mapping[str, str]) -> tuple[CallFacts, datetime | None]:
    """Return the facts and the start in the Call- headers, whose names are compared without case.

    The first value of a repeated header counts; those of Call-Tags are joined.
    """
    reading = Reading()
    stated: dict[str, str] = {}
    for name, value in headers.items():
        header = name.title()
        if not header.startswith(_HEADER):
            continue
        if header not in _HEADERS:
            reading.leave_out(name, Unusable.UNKNOWN)
        elif header == _TAGS and header in stated:
            stated[header] += f",{value}"
        else:
            reading.keep_first(stated, header, value)
    started = reading.started("Call-Started", stated.get("Call-Started"))
    return reading.facts(stated, named={member: header for header, member in _HEADERS.items()}), started
