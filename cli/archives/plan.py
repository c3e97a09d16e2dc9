"""Plans an import: which files of an archive are sent with which facts, and which are left out and why."""

from __future__ import annotations

import enum
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, Final

from cli.archives.tables import (
    Columns,
    Dates,
    Row,
    RowFacts,
    Table,
    columns_of,
    flat,
    parse_json,
    read_table,
    row_facts,
)
from cli.files import read_file
from vault.errors import Invalid, Refused
from vault.ids import call_key_of
from vault.media.descriptor import TAGGED_BYTES, is_declared, parse_content_type
from vault.model import Container
from vault.retention.periods import Period, parse_duration, parse_period
from vault.retention.policy import Lifetime, StartEffect, lifetime

# -- which files are sent -----------------------------------------------------------------------------------------

MANIFESTS: Final = tuple(f"manifest.{suffix}" for suffix in ("jsonl", "ndjson", "json", "csv", "tsv"))
"""Names of a directory's table."""
_LINES: Final = (".jsonl", ".ndjson")
_TABLES: Final = (".csv", ".tsv", *_LINES)
REPORT_PREFIX: Final = "callvault-import-"
_TABLE_BYTES: Final = 1 << 30
_SIDECAR_BYTES: Final = 1 << 20
_BARE: Final[Mapping[str, str]] = {
    **dict.fromkeys((".ulaw", ".ul", ".mulaw", ".pcmu"), "audio/PCMU;rate=8000"),
    **dict.fromkeys((".alaw", ".al", ".pcma"), "audio/PCMA;rate=8000"),
}
"""The content type of raw audio, by the suffix of the file's name."""
_TYPES: Final[Mapping[Container, str]] = {
    Container.WAV: "audio/wav",
    Container.OGG: "audio/ogg",
    Container.WEBM: "audio/webm",
    Container.MP3: "audio/mpeg",
}


class Why(enum.StrEnum):
    """Why a file or row is left out."""

    NO_FACTS = "no facts"
    NO_FILE = "no file"
    ROW = "row cannot be used"
    OUTSIDE = "outside the directory"
    UNREADABLE = "unreadable"
    EMPTY = "empty"
    TOO_LARGE = "too large"
    UNKNOWN_TYPE = "unknown type"
    DUPLICATE = "duplicate"
    HASH_DIFFERS = "hash differs"
    CALL_KEY = "call key taken"
    SHREDDED = "shredded before"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file to import under `key`, with what is stated about its call."""

    name: str
    path: Path
    size: int
    media_type: str
    key: str = field(repr=False)
    stated: RowFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A file or a row that is not imported."""

    name: str
    line: int | None
    why: Why
    more: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The content of an archive: the files to import, and those left out. `unused` columns have no fact to keep."""

    items: Sequence[Item]
    left_out: Sequence[LeftOut]
    unused: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads an archive's files and tables."""

    mapping: Sequence[str]
    dates: Dates
    encoding: str | None
    without_facts: bool
    """Whether files without any facts are imported too."""
    max_bytes: int

    def plan(self, source: Path) -> Plan:
        """Return the content of the archive at `source`: a directory, or a table of calls with their files beside it.

        Only the first bytes of the audio are read. Invalid for a table that cannot be read.
        """
        if not source.exists():
            raise Invalid(f"{source} does not exist", hint="name a directory, or the table in it")
        root = source if source.is_dir() else source.parent
        manifest = _manifest(source) if source.is_dir() else source
        found = {} if manifest is not None and not source.is_dir() else dict(_files(root, manifest))
        calls, unused = self._stated_facts(manifest, found)
        looked = list(self._looked(root, calls, found))
        return Plan(
            items=[each for each in looked if isinstance(each, Item)],
            left_out=[each for each in looked if isinstance(each, LeftOut)],
            unused=unused,
        )

    def _stated_facts(self, manifest: Path | None, found: dict[str, Path]) -> tuple[list[RowFacts], Sequence[str]]:
        """Return what is stated about each call; files with facts are removed from `found`."""
        if manifest is not None:
            table = read_table(
                read_file(manifest, what="the table", limit_bytes=_TABLE_BYTES),
                name=manifest.name,
                encoding=self.encoding,
            )
            columns = columns_of(table.columns, self.mapping)
            if not columns["file"]:
                raise Invalid(
                    "no column names the files",
                    hint=f"name one with --mapping file=COLUMN; columns: {', '.join(table.columns)[:300]}",
                )
            return [row_facts(row, columns, self.dates) for row in table.rows], _unused(table, columns)
        return [self._beside(name, found.pop(facts)) for name, facts in _sidecars(found)], ()

    def _beside(self, name: str, path: Path) -> RowFacts:
        """Return what the JSON file beside an audio file states about it."""
        try:
            document = parse_json(read_file(path, what="the facts", limit_bytes=_SIDECAR_BYTES).decode("utf-8-sig"))
            members = flat(_exported(document)) if isinstance(document, dict) else None
            if members is None:
                return RowFacts(line=None, file=name, fault=f"{path.name} is not an object")
            here = [each for each in self.mapping if each.partition("=")[2] in members]
            row = Row(line=1, members=members)
            return replace(row_facts(row, columns_of([*members], here), self.dates), file=name, line=None)
        except Refused as error:
            return RowFacts(line=None, file=name, fault=error.message)
        except ValueError:
            return RowFacts(line=None, file=name, fault=f"{path.name} is not JSON")

    def _looked(self, root: Path, calls: Sequence[RowFacts], found: Mapping[str, Path]) -> Iterator[Item | LeftOut]:
        lines: dict[Path, int | None] = {}
        for call in calls:
            item = self._item(root, call)
            if isinstance(item, Item):
                whole = item.path.resolve()
                if whole in lines:
                    yield LeftOut(
                        name=item.name,
                        line=call.line,
                        why=Why.DUPLICATE,
                        more=f"line {lines[whole]} names the file too",
                    )
                    continue
                lines[whole] = call.line
            yield item
        named = {spelt for call in calls for spelt in (call.file, call.file.replace("\\", "/"))}
        for name, path in sorted(found.items()):
            if name in named or path.resolve() in lines:
                continue
            bare = self._item(root, RowFacts(line=None, file=name))
            if isinstance(bare, Item) and not self.without_facts:
                yield LeftOut(name=name, line=None, why=Why.NO_FACTS)
            else:
                yield bare

    def _item(self, root: Path, call: RowFacts) -> Item | LeftOut:
        """Return the file that a row names, ready to send, or why it is left out."""
        if call.fault is not None or not call.file:
            return _left(call, Why.ROW, call.fault or "the row names no file")
        path = _placed(root, call.file)
        if path is None:
            return _left(call, Why.OUTSIDE)
        try:
            with path.open("rb") as file:
                size, first = os.fstat(file.fileno()).st_size, file.read(TAGGED_BYTES)
        except FileNotFoundError:
            return _left(call, Why.NO_FILE)
        except (OSError, ValueError) as error:
            return _left(call, Why.UNREADABLE, getattr(error, "strerror", None) or "its name")
        media_type = _media_type(path, first, call.media_type)
        if size == 0 or size > self.max_bytes or media_type is None:
            why = Why.EMPTY if size == 0 else Why.TOO_LARGE if size > self.max_bytes else Why.UNKNOWN_TYPE
            return _left(call, why, f"{size} bytes; the vault takes {self.max_bytes}" if why is Why.TOO_LARGE else "")
        name = path.relative_to(root).as_posix()
        key = call_key_of(call.call_key or name)
        return Item(name=name, path=path, size=size, media_type=media_type, key=key, stated=call)


def by_key(items: Iterable[Item]) -> list[list[Item]]:
    """Return the items grouped by call key, in their order: a group has the recordings of one call."""
    groups: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.key].append(item)
    return list(groups.values())


def alike(items: Iterable[Item]) -> list[list[Item]]:
    """Return groups of items that could be copies of one another, in their order, to be compared by their hashes.

    A call with a call key of its own in the table is never a copy.
    """
    groups: defaultdict[object, list[Item]] = defaultdict(list)
    for item in items:
        if item.stated.call_key is None:
            facts = item.stated.facts
            known = (facts.caller, facts.called, facts.direction, facts.tags)
            groups[item.size, item.stated.started, known].append(item)
    return [group for group in groups.values() if len(group) > 1]


def _left(call: RowFacts, why: Why, more: str = "") -> LeftOut:
    return LeftOut(name=call.file, line=call.line, why=why, more=more)


def _manifest(directory: Path) -> Path | None:
    """Return the table of a directory: the file with such a name, or else the only table in it."""
    others = (path for path in sorted(directory.iterdir()) if path.suffix.lower() in _TABLES)
    found = [directory / name for name in MANIFESTS if (directory / name).is_file()] or [
        path for path in others if path.is_file() and not path.name.startswith(".") and not _ours(path)
    ]
    if len(found) > 1:
        raise Invalid(f"the directory has {found[0].name} and {found[1].name}", hint="name the table to use")
    return found[0] if found else None


def is_report(path: Path) -> bool:
    """Tell whether an import wrote this file as its report, or the file is empty."""
    try:
        with path.open("rb") as file:
            line = file.readline(_SIDECAR_BYTES).decode()
        first = parse_json(line) if line else {"file": "", "outcome": ""}
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and {"file", "outcome"} <= first.keys()


def _ours(path: Path) -> bool:
    """Tell whether a file is a report of an earlier import, whatever its name."""
    return path.name.startswith(REPORT_PREFIX) or (path.suffix.lower() in _LINES and is_report(path))


def _files(root: Path, manifest: Path | None) -> Iterator[tuple[str, Path]]:
    """Yield the files under a directory by their names in it, without hidden files and reports."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            ours = name.startswith(".") or path == manifest or _ours(path)
            if not ours:
                yield path.relative_to(root).as_posix(), path


def _sidecars(found: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Return each file that has a JSON file beside it, with that file: `call.wav.json`, or `call.json`."""
    audio = sorted(name for name in found if PurePosixPath(name).suffix.lower() != ".json")
    paired = {f"{name}.json": name for name in audio if f"{name}.json" in found}
    for name in audio:
        shorter = PurePosixPath(name).with_suffix(".json").as_posix()
        if shorter in found and name not in paired.values():
            paired.setdefault(shorter, name)
    return [(name, facts) for facts, name in paired.items()]


def _exported(document: Mapping[str, object]) -> Mapping[str, object]:
    """Return the part of a document about the call, if `callvault recordings export` wrote the document."""
    recording, audio = document.get("recording"), document.get("audio")
    if not (isinstance(recording, dict) and isinstance(audio, dict)):
        return document
    said = recording.get("call")
    call = said if isinstance(said, dict) else {}
    return {
        "call_key": call.get("call_key"),
        "from": call.get("caller_sent") or call.get("caller"),
        "to": call.get("called_sent") or call.get("called"),
        "direction": call.get("direction"),
        "tags": call.get("tags"),
        "started": recording.get("started_at"),
        "sha256": audio.get("sha256"),
        "media_type": audio.get("media_type"),
    }


def _placed(root: Path, name: str) -> Path | None:
    """Return the path of a file in a table; None outside the directory. Backslashes are tried as separators last."""
    for spelt in (name, name.replace("\\", "/")):
        path = root / spelt
        try:
            inside = path.resolve().is_relative_to(root.resolve()) and path.is_relative_to(root)
        except (OSError, ValueError):
            return path
        if inside and ".." not in PurePosixPath(spelt).parts and (path.exists() or spelt != name or "\\" not in name):
            return path
    return None


def _media_type(path: Path, first: bytes, declared: str | None) -> str | None:
    """Return the content type under which the vault accepts a file; None if it would refuse it or could not play it."""
    bare = declared if is_declared(declared) else _BARE.get(path.suffix.lower())
    if bare is not None:
        try:
            if parse_content_type(bare, first).container is Container.RAW:
                return bare
        except Refused:
            return None
    try:
        return _TYPES[parse_content_type(None, first).container]
    except Refused:
        return None


def _unused(table: Table, columns: Columns) -> Sequence[str]:
    used = {column for found in columns.values() for column in found}
    return [column for column in table.columns if column not in used]


# -- retention preview --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The terms of recordings that a token begins now. Until `imports_until` retention counts from true starts."""

    retention: Period
    floor: Period
    backdating: timedelta
    imports_until: datetime | None
    max_bytes: int

    def life(self, started: datetime | None, *, now: datetime) -> Lifetime:
        """Return how long a call is kept if it is received now."""
        return lifetime(
            started,
            receipt=now,
            after=self.retention.after,
            floor=self.floor.after,
            backdating=self.backdating if self.imports_until is None or self.imports_until <= now else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPreview:
    """How many calls are past their retention, count as younger than they are, or have no start.

    `due_from` and `bounded_until` are the last instants until which the first two are kept.
    """

    calls: int
    due: int
    due_from: datetime | None
    bounded: int
    bounded_until: datetime | None
    unstated: int

    @property
    def harmless(self) -> bool:
        """Whether every call is kept as long as its true start and the retention require."""
        return not (self.due or self.bounded or self.unstated)


def terms_of(document: Mapping[str, Any]) -> Terms:
    """Return the terms in the answer to `GET /v1/ingest/{tenant}`."""
    until = document["imports_until"]
    return Terms(
        retention=parse_period(document["retention"]),
        floor=parse_period(document["floor"]),
        backdating=parse_duration(document["backdating"]),
        imports_until=None if until is None else datetime.fromisoformat(until),
        max_bytes=document["max_recording_bytes"],
    )


def is_due(life: Lifetime, terms: Terms, *, now: datetime) -> bool:
    """Tell whether a call is so old that it is kept for the floor only."""
    return life.retain_until < life.unstated_until and life.retain_until <= terms.floor.after(now)


def retention_preview(items: Iterable[Item], terms: Terms, *, now: datetime) -> RetentionPreview:
    """Return how these calls would be kept if they were received now."""
    count: Counter[str] = Counter()
    last: dict[str, datetime] = {}
    for item in items:
        life = terms.life(item.stated.started, now=now)
        if item.stated.started is None or life.effect is StartEffect.REPLACED:
            kind = "unstated"
        elif is_due(life, terms, now=now):
            kind = "due"
        else:
            kind = "bounded" if life.effect is StartEffect.BOUNDED else "kept"
        count[kind] += 1
        last[kind] = max(life.retain_until, last.get(kind, life.retain_until))
    return RetentionPreview(
        calls=count.total(),
        due=count["due"],
        due_from=last.get("due"),
        bounded=count["bounded"],
        bounded_until=last.get("bounded"),
        unstated=count["unstated"],
    )


def words(preview: RetentionPreview, terms: Terms, *, tenant: str) -> Iterator[str]:
    """Yield the warnings that a person must see before these calls are sent."""
    of = f"of {preview.calls} calls"
    if preview.due and preview.due_from is not None:
        yield (
            f"{preview.due} {of} are past their retention of {terms.retention}: they would be due at once, and are "
            f"shredded from {_day(preview.due_from)} on ({terms.floor} after their receipt) unless a hold keeps them"
        )
        yield (
            f"set the tenant's retention first (callvault tenants set {tenant} --retention …), or hold them before: "
            "the report has their ids"
        )
    if preview.bounded and preview.bounded_until is not None:
        span = str(Period(terms.backdating))
        yield (
            f"{preview.bounded} {of} began more than {span} ago, and this token does not import: their retention of "
            f"{terms.retention} would count from {span} before their receipt, until {_day(preview.bounded_until)}"
        )
        yield (
            "with a token that imports it counts from their true starts: callvault tokens issue --role recorder "
            f"--tenant {tenant} --name archive --imports-until +14d"
        )
    if preview.unstated:
        yield f"{preview.unstated} {of} have no usable start: their retention counts from their receipt"


def _day(moment: datetime) -> str:
    return moment.date().isoformat()
