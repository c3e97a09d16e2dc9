"""Reads tables of calls: CSV from spreadsheets, JSON, or JSON Lines.

CSV follows RFC 4180, with the additions of spreadsheets: a byte order mark, UTF-16 or Windows-1252, semicolons or tabs,
a first line `sep=;`, and any line ends.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from vault.errors import Invalid
from vault.model import CallFacts
from vault.protocol.facts.stated import Reading, Unusable, instant

# -- reading a table ----------------------------------------------------------------------------------------------

Said = str | tuple[str, ...]
"""The value of one cell; several texts only for a list in JSON."""

_MARKS: Final = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_DELIMITERS: Final = ",;\t|"
_LINES: Final = (".jsonl", ".ndjson")
_CSV: Final = (".csv", ".tsv", ".txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One call of a table. `line` is its first line, or its number in a JSON list; `fault` is why it cannot be read."""

    line: int
    members: Mapping[str, Said]
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table's columns, in their order, and its rows."""

    columns: Sequence[str]
    rows: Sequence[Row]


def read_table(data: bytes, *, name: str, encoding: str | None = None) -> Table:
    """Return the table in a file of this name. Invalid if it is not a table; a row that cannot be read has a `fault`.

    `encoding` overrides the byte order mark; without either it is UTF-8, or Windows-1252 if it is not UTF-8.
    """
    text = _decoded(data, encoding)
    suffix = PurePath(name).suffix.lower()
    if suffix in _LINES:
        rows = list(_json_lines(text))
    elif suffix == ".json" or (suffix not in _CSV and text.lstrip()[:1] in {"[", "{"}):
        rows = list(_json(text))
    else:
        return _csv(text)
    return Table(columns=list(dict.fromkeys(column for row in rows for column in row.members)), rows=rows)


def flat(document: Mapping[str, Any]) -> dict[str, Said]:
    """Return the members of a JSON object without nulls; those of an inner object with a dot in their names."""
    found: dict[str, Said] = {}
    for name, value in document.items():
        match value:
            case None:
                continue
            case dict():
                found.update({f"{name}.{inner}": said for inner, said in flat(value).items()})
            case list():
                found[name] = tuple(_text(each) for each in value if each is not None)
            case _:
                found[name] = _text(value)
    return found


def parse_json(text: str) -> Any:
    """Parse JSON with every number as its text. ValueError."""
    try:
        return json.loads(text, parse_int=str, parse_float=str)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _decoded(data: bytes, encoding: str | None) -> str:
    marked = next((codec for mark, codec in _MARKS if data.startswith(mark)), None)
    wanted = (encoding,) if encoding else (marked,) if marked else ("utf-8", "cp1252", "iso-8859-1")
    for codec in wanted:
        try:
            return data.decode(codec)
        except LookupError as error:
            raise Invalid(
                f"{codec[:40]!r} is not an encoding", hint="for example utf-8, cp1252 or iso-8859-15"
            ) from error
        except UnicodeError:
            continue
    raise Invalid(f"the table is not {wanted[0]}", hint="name its encoding with --encoding")


def _csv(text: str) -> Table:
    first, _, rest = text.partition("\n")
    told = first.rstrip("\r").lower()
    separated = told.startswith("sep=") and len(told) == len("sep=;")
    body = rest if separated else text
    delimiter = told[-1] if separated else max(_DELIMITERS, key=lambda each: len(_header(body, each)))
    columns = [column.strip() for column in _header(body, delimiter)]
    if not any(columns):
        raise Invalid("the table has no header", hint="its first line names the columns")
    twice = sorted({column for column in columns if column and columns.count(column) > 1})
    if twice:
        raise Invalid(f"the table has two columns {twice[0][:80]!r}", hint="rename one of them")
    return Table(
        columns=[column for column in columns if column], rows=list(_csv_rows(body, delimiter, columns, 1 + separated))
    )


def _header(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    except csv.Error as error:
        raise Invalid(f"the table is not CSV: {error}") from error


def _csv_rows(text: str, delimiter: str, columns: Sequence[str], offset: int) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    line = offset
    try:
        for number, cells in enumerate(reader):
            begins, line = line, offset + reader.line_num
            if number == 0 or not any(cell.strip() for cell in cells):
                continue
            beyond = any(cell.strip() for cell in cells[len(columns) :])
            yield Row(
                line=begins,
                members={} if beyond else {name: cell for name, cell in zip(columns, cells, strict=False) if name},
                fault="it has more cells than the header" if beyond else None,
            )
    except csv.Error as error:
        raise Invalid(f"line {line} of the table is not CSV: {error}") from error


def _json(text: str) -> Iterator[Row]:
    try:
        document = parse_json(text)
    except ValueError as error:
        raise Invalid("the table is not JSON", hint="JSON Lines is named .jsonl") from error
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        document = lists[0] if len(lists) == 1 else [document]
    if not isinstance(document, list):
        raise Invalid("the table is not a list of calls", hint='for example [{"file": "call.wav", "from": "+44…"}]')
    for number, each in enumerate(document, 1):
        yield _object(number, each)


def _json_lines(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield _object(number, parse_json(line))
            except ValueError:
                yield Row(line=number, members={}, fault="it is not JSON")


def _object(number: int, value: object) -> Row:
    if not isinstance(value, dict):
        return Row(line=number, members={}, fault="it is not an object")
    return Row(line=number, members=flat(value))


# -- facts of a call from a row -----------------------------------------------------------------------------------

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
"""The party on the tenant's side for each direction; a row without that party takes its agent."""
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
            raise Invalid(f"--mapping {each[:60]!r} has no name", hint=f"write NAME=COLUMN; names: {', '.join(NAMES)}")
        chosen[name] = _named(said, columns, several=name in _SEVERAL)
    taken = {column for found in chosen.values() for column in found}
    plain = {column: _plain(column) for column in columns if column not in taken}
    for name in NAMES.keys() - chosen.keys():
        exact = [column for column, spelt in plain.items() if spelt == _plain(name)]
        found = exact or [column for column, spelt in plain.items() if spelt in NAMES[name]]
        if len(found) > 1:
            raise Invalid(
                f"the columns {' and '.join(found)[:120]} could both be {name!r}",
                hint=f"choose one, such as --mapping {name}={found[0]}",
            )
        chosen[name] = found
    return chosen


def row_facts(row: Row, columns: Columns, dates: Dates) -> RowFacts:
    """Return what a row states about its call; a value that cannot be used is listed, and the others are kept."""
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
    """Return the request headers with the facts of a call."""
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
    """Return why a row cannot be used at all, because of its sha256 or its call key; None if it can."""
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
