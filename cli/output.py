"""Prints the output of commands: results on standard output, all other text on standard error."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vault.errors import VaultError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, TaskID
    from rich.text import Text

_PLAIN_WIDTH = 240
_BETWEEN = 2
_WORDS = 12
"""The minimum width of a column with several words."""
_WHOLE = re.compile(r"[a-z]{2,5}_[0-9a-f]{32}|[0-9]{4}-[0-9]{2}-[0-9]{2}.*|[0-9.:]+", re.ASCII)
_TOKEN = re.compile(r"cv_[0-9a-f]{32}_[A-Za-z0-9_-]+")
_STATES = {
    "held": "yellow",
    "active": "yellow",
    "release_requested": "yellow",
    "open": "cyan",
    "sealed": "green",
    "truncated": "magenta",
    "shredding": "red",
    "shredded": "red",
    "ok": "green",
    "warning": "yellow",
    "error": "red",
    "final": "green",
    "provisional": "yellow",
}


def console(*, stderr: bool = False) -> Console:
    """Return a console for one stream; without a terminal, lines are long enough that ids are never cut."""
    from rich.console import Console  # noqa: PLC0415 - what prints JSON, or a version, needs none of it

    stream = sys.stderr if stderr else sys.stdout
    watched = stream.isatty()
    return Console(file=stream, width=None if watched else _PLAIN_WIDTH, highlight=False, soft_wrap=not watched)


def scrub(text: str) -> str:
    """Replace anything that looks like a token, so that an error does not repeat one from a command line."""
    return _TOKEN.sub("cv_[hidden]", text)


def json_lines(values: Iterable[Mapping[str, Any]]) -> str:
    """Return JSON Lines, each with its line break."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    return "".join(f"{encode(value)}\n" for value in values)


def plain(value: object) -> str:
    """Return one value as text for a person; control characters, which could drive a terminal, become visible."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(plain(item) for item in value) or "-"
        case _:
            return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(value))


def styled(text: str, style: str = "") -> Text:
    """Return text exactly as it is, without interpreting brackets as markup."""
    from rich.text import Text  # noqa: PLC0415 - what prints JSON, or a version, needs none of it

    return Text(text, style=style, overflow="fold")


def _cell(value: object) -> Text:
    text = plain(value)
    return styled(text, _STATES.get(text, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """The smallest width at which no word of a column is broken, and the width of its longest cell."""

    least: int
    most: int


def _column(head: str, cells: Sequence[str]) -> _Column:
    """Measure a column with these cells."""
    every = [head, *cells]
    most = max(map(len, every))
    word = max(len(word) for cell in every for word in cell.split() or [""])
    return _Column(
        least=most if any(_WHOLE.fullmatch(cell) for cell in cells) else max(word, min(most, _WORDS)), most=most
    )


def _widths(columns: Sequence[_Column], width: int) -> Mapping[int, int]:
    """Return the columns that fit into a window, at least the first, with their widths; words stay whole."""
    chosen: dict[int, int] = {}
    taken = -_BETWEEN
    for number, column in enumerate(columns):
        if not number or taken + _BETWEEN + column.least <= width:
            chosen[number] = column.least
            taken += _BETWEEN + column.least
    for number, least in chosen.items():
        more = min(columns[number].most - least, max(width - taken, 0))
        chosen[number] = least + more
        taken += more
    return chosen


def who(document: Mapping[str, Any], member: str) -> str | None:
    """Return who acted: the token's name and id."""
    token, name = document.get(member), document.get(f"{member}_name")
    return f"{name} ({token})" if token and name else token


class Output:
    """Prints one command's result: JSON for programs, tables for people."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @cached_property
    def _out(self) -> Console:
        return console()

    @cached_property
    def _err(self) -> Console:
        return console(stderr=True)

    def document(self, value: Mapping[str, Any]) -> None:
        """Print the command's one JSON document."""
        print(json.dumps(value, indent=2, ensure_ascii=False))

    def line(self, value: Mapping[str, Any]) -> None:
        """Print one line of JSON Lines."""
        self.lines([value])

    def lines(self, values: Iterable[Mapping[str, Any]]) -> None:
        """Print lines of JSON Lines, all at once."""
        print(json_lines(values), end="", flush=True)

    def text(self, value: str) -> None:
        """Print a result that is a line of text."""
        print(value)

    def note(self, text: str) -> None:
        """Print a remark on standard error."""
        self._err.print(styled(text))

    def hint(self, text: str) -> None:
        """Print on standard error what the user can do next."""
        self._err.print(styled("hint: ", "cyan") + styled(text))

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str, sentence: bool = False
    ) -> None:
        """Print rows for a person, or say on standard error that there are none.

        The columns come in order of importance: one that does not fit into the window is left out, with a hint. No
        word, id or instant is broken, because its parts could not be copied. With `sentence` the last column is never
        left out: if a word of it does not fit, each row becomes lines of names and values.
        """
        from rich.table import Table  # noqa: PLC0415 - what prints JSON, or a version, needs none of it

        cells = [[plain(value) for value in row] for row in rows]
        if not cells:
            self.note(empty)
            return
        widths = _widths(
            [_column(head, [row[number] for row in cells]) for number, head in enumerate(columns)], self._out.width
        )
        if sentence and len(columns) - 1 not in widths:
            for row in cells:
                self.fields(zip(columns, row, strict=True))
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for number, width in widths.items():
            table.add_column(styled(columns[number]), width=width)
        for row in cells:
            table.add_row(*(_cell(row[number]) for number in widths))
        self._out.print(table)
        if missing := [head for number, head in enumerate(columns) if number not in widths]:
            self.hint(f"a wider window, or --json, also shows: {', '.join(missing)}")

    def fields(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Print one thing as lines of name and value; no word is broken, so that a digest can be copied."""
        from rich.table import Table  # noqa: PLC0415 - what prints JSON, or a version, needs none of it

        rows = [(name, _cell(value)) for name, value in pairs]
        longest = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            if longest + _BETWEEN + max(map(len, value.plain.split()), default=0) > self._out.width:
                head = styled(name.ljust(longest + _BETWEEN), "bold")
                self._out.print(head.append_text(value), soft_wrap=True)
                continue
            line = Table(box=None, pad_edge=False, show_header=False)
            line.add_column(style="bold", min_width=longest)
            line.add_column()
            line.add_row(styled(name), value)
            self._out.print(line)

    def show(self, value: Mapping[str, Any], pairs: Iterable[tuple[str, object]]) -> None:
        """Print `value` as the JSON document, or `pairs` for a person."""
        if self.as_json:
            self.document(value)
        else:
            self.fields(pairs)

    @contextmanager
    def progress(self, title: str, total: int | None, *, unit: str | None = None) -> Iterator[Progress]:
        """Yield a progress bar on standard error with one task, in bytes or `unit`; invisible without a terminal."""
        from rich.progress import DownloadColumn, TextColumn  # noqa: PLC0415 - what prints JSON, or a version, needs none of it

        amount = (
            DownloadColumn() if unit is None else TextColumn("{task.completed:.0f}/{task.total} " + unit, markup=False)
        )
        with self._bar(amount) as bar:
            bar.add_task(title, total=total)
            yield bar

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Yield a display of the steps of long work; log warnings are suppressed meanwhile."""
        from rich.progress import TaskProgressColumn  # noqa: PLC0415 - what prints JSON, or a version, needs none of it

        ours = logging.getLogger("vault")
        before = ours.level
        ours.setLevel(logging.ERROR)
        with self._bar(TaskProgressColumn()) as bar:
            try:
                yield Watch(bar, self)
            finally:
                ours.setLevel(before)

    def _bar(self, amount: ProgressColumn) -> Progress:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415 - what prints JSON, or a version, needs none of it

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), amount, TimeRemainingColumn())
        return Progress(*columns, console=self._err, disable=not sys.stderr.isatty(), transient=True)


class Watch:
    """Shows the steps of long work on standard error: a bar on a terminal, otherwise a line for each step."""

    def __init__(self, bar: Progress, out: Output) -> None:
        self._bar = bar
        self._out = out
        self._task: TaskID | None = None

    def begin(self, step: str, total: int | None) -> None:
        """Show a new step."""
        if self._bar.disable:
            self._out.note(f"step: {step}")
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(step, total=total)

    def advance(self, count: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.advance(self._task, count)


def report_error(error: VaultError) -> None:
    """Print an expected error: what happened, then what to do."""
    screen = console(stderr=True)
    screen.print(styled("error: ", "bold red") + styled(plain(scrub(error.message))))
    for hint in hints(error):
        screen.print(styled("hint: ", "cyan") + styled(plain(scrub(hint))))


def hints(error: VaultError) -> Iterator[str]:
    """Yield what the user can do next, as commands."""
    if error.code == "unauthenticated":
        yield "set CALLVAULT_TOKEN, or pass --token-file FILE"
        return
    if error.hint:
        yield error.hint
    if certificate := error.facts.get("certificate_id"):
        yield f"callvault certificates get {certificate}"
    if error.code == "internal" and (request := error.facts.get("request_id")):
        yield f"request id {request}"
