"""What a recorder states about a call beside its audio: parties, direction, tags and start, whatever its protocol.

A fact that cannot be used is left out, and noted in `CallFacts.unusable` with the reason: it never costs the audio.
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
"""Characters of one fact."""
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
"""What a fact that was left out is counted as, see `kind_of`."""


class Unusable(enum.StrEnum):
    """Why a fact was left out."""

    TEXT = "text"
    """It is longer than MAX_FACT, or no text."""
    MANY = "many"
    """There are more of them than are kept."""
    REPEATED = "repeated"
    """Its name came before, with another value."""
    FORM = "form"
    """What it came in cannot be read."""
    VALUE = "value"
    """It is not what its name says."""
    UNKNOWN = "unknown"
    """Nothing has this name."""


class Reading:
    """Takes the usable from what a recorder states; `unusable` says what was left out, and why."""

    def __init__(self) -> None:
        self.unusable: dict[str, str] = {}

    def leave_out(self, name: str, why: Unusable) -> None:
        """Note that the member of this name is not used."""
        if len(self.unusable) < MAX_UNUSABLE:
            self.unusable[cut(name)] = why.value

    def keep_first(self, said: dict[str, str], name: str, value: str) -> None:
        """Add a member: of a name that comes twice the first value counts, and another one is noted."""
        if said.setdefault(name, value) != value:
            self.leave_out(name, Unusable.REPEATED)

    def text(self, name: str, said: str | None) -> str | None:
        """Return a text without the space around it and without what is not printed; None if nothing is left."""
        value = cut(decoded(said or "")).strip() if len(said or "") <= MAX_FACT else None
        if value is None or (not value and (said or "").strip()):
            self.leave_out(name, Unusable.TEXT)
        return value or None

    def direction(self, name: str, said: str | None) -> str | None:
        """Return inbound or outbound."""
        value = self.text(name, said)
        found = _DIRECTIONS.get((value or "").lower())
        if value is not None and found is None:
            self.leave_out(name, Unusable.VALUE)
        return found

    def tags(self, name: str, said: Iterable[str]) -> tuple[str, ...]:
        """Return the first MAX_TAGS tags."""
        found = [tag for each in said if (tag := self.text(name, each)) is not None]
        if len(found) > MAX_TAGS:
            self.leave_out(name, Unusable.MANY)
        return tuple(found[:MAX_TAGS])

    def started(self, name: str, said: str | None) -> datetime | None:
        """Return a start in UTC: RFC 3339 with its time zone, or seconds or milliseconds since 1970."""
        value = self.text(name, said)
        if value is None:
            return None
        try:
            return instant(value)
        except ValueError:
            self.leave_out(name, Unusable.VALUE)
            return None

    def facts(self, members: Mapping[str, str], *, named: Mapping[str, str] | None = None) -> CallFacts:
        """Return the facts in the members from, to, direction and tags (with commas between).

        `named` says how the protocol calls them.
        """
        names = {name: (named or {}).get(name, name) for name in ("from", "to", "direction", "tags")}
        said = {name: members.get(spelt) for name, spelt in names.items()}
        many = said["tags"]
        return CallFacts(
            caller=self.text(names["from"], said["from"]),
            called=self.text(names["to"], said["to"]),
            direction=self.direction(names["direction"], said["direction"]),
            tags=self.tags(names["tags"], many.split(",") if many else ()),
            unusable=self.unusable,
        )


def cut(text: str) -> str:
    """Return what of a text can be a fact: printable, MAX_FACT at most."""
    return "".join(each for each in text[:MAX_FACT] if each.isprintable())


def decoded(text: str) -> str:
    """Return a text whose bytes are not UTF-8 as the ISO 8859-1 that they then are."""
    with suppress(UnicodeEncodeError):  # there are surrogates of another kind, which are no text
        raw = text.encode("utf-8", "surrogateescape")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw.decode("iso-8859-1")
    return text


def contradict(known: CallFacts, said: CallFacts) -> bool:
    """Tell whether two statements name different parties or directions; what one of them leaves out agrees."""
    pairs = (known.caller, said.caller), (known.called, said.called), (known.direction, said.direction)
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def kind_of(name: str) -> str:
    """Return which fact a member of this name would have been, whatever the protocol puts before it."""
    short = name.lower().rpartition("-")[2]
    return short if short in KINDS else "other"


def instant(text: str) -> datetime:
    """Return an RFC 3339 instant, or an epoch time, in UTC; ValueError if it is none, or has no time zone.

    One that lies beyond the calendar only in UTC is the calendar's own first or last.
    """
    epoch = _EPOCH_TIME.fullmatch(text)
    if epoch is not None:
        return _EPOCH + (timedelta(milliseconds=int(epoch[3])) if epoch[3] else timedelta(seconds=float(text)))
    started = datetime.fromisoformat(text)
    if started.tzinfo is None:
        raise ValueError("an instant without a time zone is none")
    try:
        return started.astimezone(UTC)
    except OverflowError:
        return _FIRST if started.year == _FIRST.year else _LAST


def call_headers(headers: Mapping[str, str]) -> tuple[CallFacts, datetime | None]:
    """Return the facts and the start in the Call- headers, which are looked up without regard to case.

    Of a header that comes twice the first one counts, but for Call-Tags, which is a list.
    """
    reading = Reading()
    said: dict[str, str] = {}
    for name, value in headers.items():
        header = name.title()
        if not header.startswith(_HEADER):
            continue
        if header not in _HEADERS:
            reading.leave_out(name, Unusable.UNKNOWN)
        elif header == _TAGS and header in said:
            said[header] += f",{value}"
        else:
            reading.keep_first(said, header, value)
    started = reading.started("Call-Started", said.get("Call-Started"))
    return reading.facts(said, named={member: header for header, member in _HEADERS.items()}), started
