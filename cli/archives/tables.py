"""A table of calls in the forms that archives have: CSV as spreadsheets write it, JSON, or JSON Lines.

CSV follows RFC 4180, with what spreadsheets add: a byte order mark, UTF-16 or Windows-1252, semicolons or tabs, a first
line `sep=;`, and any line ends.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from vault.errors import Invalid

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
    raise Invalid(f"the table is not {wanted[0]}", hint="say --encoding")


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
