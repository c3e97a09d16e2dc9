"""What a table's row states about a call: its columns, the true start, and values that cannot be used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cli.archives.tables import Row, Said
from vault.errors import Invalid
from vault.model import CallFacts
from vault.protocol.facts.stated import Reading, Unusable, instant

NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "file": ("filename", "filepath", "path", "recording", "recordingfile", "recordingpath", "audio", "audiofile"),
    "call_key": ("callid", "uniqueid", "uuid", "calluuid", "sipcallid"),
    "from": ("caller", "callfrom", "src", "source", "ani", "callingnumber", "callernumber", "fromnumber"),
    "to": ("called", "callee", "callto", "dst", "destination", "dnis", "callednumber", "dialednumber", "tonumber"),
    "direction": ("calldirection",),
    "started": ("start", "starttime", "startedat", "callstart", "callstarted", "calldate", "timestamp", "datetime"),
    "tags": ("tag", "labels"),
    "agent": ("agentname", "agentid"),
    "sha256": ("sha256sum",),
    "media_type": ("mediatype", "contenttype", "mimetype"),
}
"""The facts a table can have, with other usual names of their columns; case and punctuation do not matter."""

AGENT_TAG: Final = "agent:"
_OUR_SIDE: Final[Mapping[str, str]] = {"to": "inbound", "from": "outbound"}
"""The party on this side for each direction; an agent stands for it in a row without that party."""
_SEVERAL: Final = ("tags", "started")
"""Facts that may be in several columns: one for each tag, or a date and a time."""
_ROUNDED: Final = re.compile(r"\d(?:[.,]\d+)?E\+\d{1,3}", re.ASCII | re.IGNORECASE)
"""How a spreadsheet writes a long number, without most of its digits."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)

Columns = Mapping[str, Sequence[str]]
"""The columns of each fact."""


class NoZone(ValueError):
    """A date has no time zone, and none was given for such dates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dates:
    """How dates are read: `zone` for dates without one, `form` for strptime if they are not ISO 8601."""

    zone: ZoneInfo | None = None
    form: str | None = None

    def read(self, text: str) -> datetime:
        """Return the instant of a date, in UTC; ValueError if it is no date, NoZone if it has no zone and needs one."""
        if self.form is not None:
            return self._placed(datetime.strptime(text, self.form))  # noqa: DTZ007  # placed right here
        try:
            return instant(text)
        except ValueError:
            return self._placed(datetime.fromisoformat(text))

    def _placed(self, moment: datetime) -> datetime:
        if moment.tzinfo is None:
            if self.zone is None:
                raise NoZone("a date without a time zone")
            moment = moment.replace(tzinfo=self.zone)
        try:
            return moment.astimezone(UTC)
        except OverflowError as error:
            raise ValueError("an instant beyond the calendar") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFacts:
    """What a row states about a call. `unusable` has the values that are not used, with the reasons."""

    line: int | None
    file: str = ""
    call_key: str | None = field(default=None, repr=False)
    facts: CallFacts = field(default_factory=CallFacts, repr=False)
    started: datetime | None = None
    sha256: str | None = None
    media_type: str | None = None
    zoneless: bool = False
    fault: str | None = None

    @property
    def unusable(self) -> Mapping[str, str]:
        """The values that were stated and are not used."""
        return self.facts.unusable


def zone_of(name: str | None) -> ZoneInfo | None:
    """Return the time zone of an IANA name; Invalid if there is none."""
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Invalid(
            f"{name[:40]!r} is not a time zone",
            hint="for example Europe/London or UTC; names are those of the system's tzdata",
        ) from error


def columns_of(columns: Sequence[str], mapping: Sequence[str]) -> Columns:
    """Return the columns of each fact: those that a mapping such as `from=ANI` names, else those with a usual name.

    `started=Date+Time` joins two columns, `agent=` uses none. Invalid for a mapping to an unknown fact or column, and
    where two columns could be meant.
    """
    chosen: dict[str, Sequence[str]] = {}
    for each in mapping:
        name, equals, said = each.partition("=")
        if name not in NAMES or not equals:
            raise Invalid(f"--mapping {each[:60]!r} maps nothing", hint=f"write NAME=COLUMN; names: {', '.join(NAMES)}")
        chosen[name] = _named(said, columns, several=name in _SEVERAL)
    taken = {column for found in chosen.values() for column in found}
    plain = {column: _plain(column) for column in columns if column not in taken}
    for name in NAMES.keys() - chosen.keys():
        exact = [column for column, spelt in plain.items() if spelt == _plain(name)]
        found = exact or [column for column, spelt in plain.items() if spelt in NAMES[name]]
        if len(found) > 1:
            raise Invalid(
                f"the columns {' and '.join(found)[:120]} could both be {name!r}",
                hint=f"say --mapping {name}={found[0]}",
            )
        chosen[name] = found
    return chosen


def row_facts(row: Row, columns: Columns, dates: Dates) -> RowFacts:
    """Return what a row states about its call; a value that cannot be used is listed and does not cost the others."""
    if row.fault is not None:
        return RowFacts(line=row.line, fault=row.fault)
    reading = Reading()
    agent = _one(row, columns["agent"])
    tags = [*_texts(row, columns["tags"], split=True), *([AGENT_TAG + agent] if agent else [])]
    direction = reading.direction("direction", _one(row, columns["direction"]))
    sides = {name: _one(row, columns[name]) or (agent if direction == side else "") for name, side in _OUR_SIDE.items()}
    started, zoneless = _started(" ".join(_texts(row, columns["started"])), dates, reading)
    stated, call_key = _one(row, columns["sha256"]).lower(), _one(row, columns["call_key"])
    facts = CallFacts(
        caller=_party("from", sides["from"], reading),
        called=_party("to", sides["to"], reading),
        direction=direction,
        tags=reading.tags("tags", tags),
        unusable=reading.unusable,
    )
    return RowFacts(
        line=row.line,
        file=_one(row, columns["file"]),
        call_key=call_key or None,
        facts=facts,
        started=started,
        sha256=stated or None,
        media_type=_one(row, columns["media_type"]) or None,
        zoneless=zoneless,
        fault=_fault(stated, call_key),
    )


def headers_of(call: RowFacts) -> dict[str, str]:
    """Return the request headers with what is known of a call."""
    facts = call.facts
    said = {
        "Call-From": facts.caller,
        "Call-To": facts.called,
        "Call-Direction": facts.direction,
        "Call-Started": None if call.started is None else call.started.isoformat(),
        "Call-Tags": ",".join(facts.tags),
    }
    return {name: value for name, value in said.items() if value}


def _fault(sha256: str, call_key: str) -> str | None:
    """Return why a row cannot be used at all: its file could not be verified, or its recording not found again."""
    if sha256 and not _SHA256.fullmatch(sha256):
        return "its sha256 is not 64 hex digits"
    try:
        call_key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "its call key is not text"
    return None


def _started(text: str, dates: Dates, reading: Reading) -> tuple[datetime | None, bool]:
    if not text:
        return None, False
    try:
        return dates.read(text), False
    except NoZone:
        return None, True
    except ValueError:
        reading.leave_out("started", Unusable.VALUE)
        return None, False


def _party(name: str, said: str, reading: Reading) -> str | None:
    if _ROUNDED.fullmatch(said):
        reading.leave_out(name, Unusable.VALUE)
        return None
    return reading.text(name, said)


def _named(said: str, columns: Sequence[str], *, several: bool) -> Sequence[str]:
    if not said:
        return ()
    spelt = {column.lower(): column for column in columns}
    wanted = [said] if said.lower() in spelt or not several else said.split("+")
    for each in wanted:
        if each.lower() not in spelt:
            raise Invalid(f"the table has no column {each[:60]!r}", hint=f"it has {', '.join(columns)[:300]}")
    return [spelt[each.lower()] for each in wanted]


def _plain(column: str) -> str:
    return "".join(char for char in column.lower() if char.isalnum())


def _texts(row: Row, columns: Sequence[str], *, split: bool = False) -> list[str]:
    found = [each.strip() for column in columns for each in _several(row.members.get(column, ""))]
    parts = [part.strip() for each in found for part in (each.split(",") if split else (each,))]
    return [part for part in parts if part]


def _several(said: Said) -> Sequence[str]:
    return (said,) if isinstance(said, str) else said


def _one(row: Row, columns: Sequence[str]) -> str:
    return next(iter(_texts(row, columns)), "")
