"""Writes the catalog of a backup: the ranges of rows that changed since an earlier one, and the small tables.

The rows of a large table are divided into ranges of about a megabyte. A range is written again if the tags of its pages
are other ones than when it was written; otherwise the backup names the parts that an earlier one wrote. Ranges are read
each in a snapshot of its own. The last snapshot is what the backup is of: it reads the small tables, and those ranges
again that changed since they were read. So the snapshot is as long as what changes during a backup, and not as the
catalog. Nothing is sent to the destination while a snapshot is open.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import IO, Final

from vault.errors import Unavailable
from vault.format import backup as layout
from vault.format.backup import Cell, PageTags, Part, RowRange, TableRows
from vault.ports.progress import Progress
from vault.ports.rescue import BackupRows, CatalogSnapshot
from vault.services.backup.place import BackupPlace, Former
from vault.threads import in_thread

_PART_BYTES: Final = 4 << 20
_RANGE_BYTES: Final = 1 << 20
_SMALL_BYTES: Final = _RANGE_BYTES // 4
_IN_MEMORY_BYTES: Final = 8 << 20
_ROUNDS: Final = 3
"""How often changes are caught up with before the last snapshot."""
_FEW: Final = 16
"""So many changed ranges are read in the last snapshot itself."""
_LENGTH_BYTES: Final = 4
_SIZED: Final = (str, bytes)

_Take = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogParts:
    """The catalog of one backup: its ranges in an order in which they can be loaded."""

    schema_revision: str
    ranges: Sequence[RowRange]
    written_bytes: int
    kept_bytes: int

    @property
    def parts(self) -> Sequence[Part]:
        """The parts in order."""
        return [part for each in self.ranges for part in each.parts]

    @property
    def counts(self) -> dict[str, int]:
        """The number of rows of each table that has any."""
        counts: dict[str, int] = {}
        for each in self.ranges:
            if each.rows:
                counts[each.table] = counts.get(each.table, 0) + each.rows
        return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A range that was read: `next` is the page after it, or the end that was asked for; it has so many `chunks`."""

    start: str
    next: str | None
    digest: bytes
    rows: int
    chunks: int


class CatalogWriter:
    """Writes the catalog's parts of one backup."""

    def __init__(
        self, *, place: BackupPlace, catalog: BackupRows, backup: str, at: datetime, progress: Progress
    ) -> None:
        self._place = place
        self._catalog = catalog
        self._backup = backup
        self._at = at
        self._progress = progress
        self._written: dict[str, Part] = {}

    async def write(self, former: Former | None) -> CatalogParts:
        """Write what `former` does not have as it is; Unavailable if the schema is upgraded meanwhile."""
        self._progress.begin("catalog", None)
        async with self._catalog.snapshot() as snapshot:
            revision = snapshot.schema_revision
            tags = await snapshot.tags()
            if tags is None:
                return await self._whole(snapshot)
            names, paged = snapshot.tables, snapshot.paged
        held: dict[str, list[RowRange]] = {name: [] for name in names}
        if former is not None and former.schema_revision == revision:
            for each in former.ranges:
                held[each.table].append(each)
        for name in names:
            if name not in paged or not held[name]:
                held[name] = [_unread(name)]
        for number in range(_ROUNDS):
            runs = [(name, run) for name in paged for run in _changed(held[name], tags)]
            if number and sum(stop - first for _, (first, stop) in runs) <= _FEW:
                break
            for name, (first, stop) in reversed(runs):  # from the back: a run that grows moves none before it
                held[name][first:stop] = [each async for each in self._apart(revision, held[name], first, stop)]
            async with self._snapshot(revision) as snapshot:
                tags = await _tags(snapshot)
        await self._last(revision, held)
        return await self._made(revision, held)

    @asynccontextmanager
    async def _snapshot(self, revision: str) -> AsyncIterator[CatalogSnapshot]:
        async with self._catalog.snapshot() as snapshot:
            if snapshot.schema_revision != revision:
                raise Unavailable(
                    "the catalog's schema was upgraded meanwhile; no backup was made", hint="make it again"
                )
            yield snapshot

    async def _apart(self, revision: str, ranges: Sequence[RowRange], first: int, stop: int) -> AsyncIterator[RowRange]:
        """Read changed ranges that follow each other anew, each new range in its own snapshot."""
        table, start, end = ranges[first].table, ranges[first].start, _start(ranges, stop)
        while True:
            with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as spool:
                async with self._snapshot(revision) as snapshot:
                    read = await _read(snapshot, table, start, end, _into(spool))
                parts = [part async for part in self._put(spool, read.chunks)]
            yield _range(table, read, parts)
            if read.next is None or read.next == end:
                return
            start = read.next

    async def _last(self, revision: str, held: dict[str, list[RowRange]]) -> None:
        """Bring `held` to one instant: read the small tables, and what has changed since it was read."""
        reads: list[tuple[str, int, int, list[_Read]]] = []
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as spool:
            async with self._snapshot(revision) as snapshot:
                tags = await _tags(snapshot)
                for name in snapshot.tables:
                    for first, stop in reversed(list(_changed(held[name], tags))):
                        start, end = held[name][first].start, _start(held[name], stop)
                        found = [each async for each in _read_all(snapshot, name, start, end, _into(spool))]
                        reads.append((name, first, stop, found))
            spool.seek(0)
            for name, first, stop, found in reads:
                held[name][first:stop] = [
                    _range(name, each, [part async for part in self._put(spool, each.chunks, rewind=False)])
                    for each in found
                ]

    async def _whole(self, snapshot: CatalogSnapshot) -> CatalogParts:
        """Write a catalog without tags: all of it, in the one snapshot that it is read in."""
        held: dict[str, list[RowRange]] = {}
        for name in snapshot.tables:
            parts: list[Part] = []

            async def take(plaintext: bytes, parts: list[Part] = parts) -> None:
                parts.append(await self._put_one(plaintext))

            read = await _read(snapshot, name, "", None, take)
            held[name] = [_range(name, replace(read, digest=b""), parts)]
        return await self._made(snapshot.schema_revision, held)

    async def _made(self, revision: str, held: dict[str, list[RowRange]]) -> CatalogParts:
        ranges = [each for name in held for each in held[name]]
        used = {part.name: part.size for each in ranges for part in each.parts}
        # What was read and then changed is in no range, and would stay as long as the backup does.
        for name in self._written.keys() - used.keys():
            await self._place.store.delete(name)
        written = sum(part.size for part in self._written.values())
        kept = sum(size for name, size in used.items() if name not in self._written)
        return CatalogParts(schema_revision=revision, ranges=ranges, written_bytes=written, kept_bytes=kept)

    async def _put(self, spool: IO[bytes], chunks: int, *, rewind: bool = True) -> AsyncIterator[Part]:
        if rewind:
            spool.seek(0)
        for _ in range(chunks):
            yield await self._put_one(spool.read(int.from_bytes(spool.read(_LENGTH_BYTES), "big")))

    async def _put_one(self, plaintext: bytes) -> Part:
        index = len(self._written)
        part = await self._place.put_part(self._backup, layout.CATALOG, index, plaintext, at=self._at)
        self._written[part.name] = part
        self._progress.advance(len(plaintext))
        return part


def _changed(ranges: Sequence[RowRange], tags: PageTags) -> Iterator[tuple[int, int]]:
    """Yield the runs of ranges, as first and stop, whose pages have other tags than when they were read.

    A run takes in a small range that follows it, so that what is cut off again and again does not stay apart.
    """
    first: int | None = None
    for place, each in enumerate(ranges):
        same = each.digest == tags.digest(each.table, each.start, _start(ranges, place + 1))
        if first is not None and sum(part.size for part in each.parts) < _SMALL_BYTES:
            same = False
        if same and first is not None:
            yield first, place
            first = None
        elif not same and first is None:
            first = place
    if first is not None:
        yield first, len(ranges)


def _start(ranges: Sequence[RowRange], place: int) -> str | None:
    return ranges[place].start if place < len(ranges) else None


def _unread(table: str) -> RowRange:
    return RowRange(table=table, start="", digest=b"", rows=0, parts=())


def _range(table: str, read: _Read, parts: Sequence[Part]) -> RowRange:
    return RowRange(table=table, start=read.start, digest=read.digest, rows=read.rows, parts=tuple(parts))


async def _tags(snapshot: CatalogSnapshot) -> PageTags:
    tags = await snapshot.tags()
    if tags is None:
        raise Unavailable("the catalog's triggers were dropped meanwhile; no backup was made", hint="make it again")
    return tags


async def _read_all(
    snapshot: CatalogSnapshot, table: str, start: str, end: str | None, take: _Take
) -> AsyncIterator[_Read]:
    while True:
        read = await _read(snapshot, table, start, end, take)
        yield read
        if read.next is None or read.next == end:
            return
        start = read.next


async def _read(snapshot: CatalogSnapshot, table: str, start: str, end: str | None, take: _Take) -> _Read:
    """Read pages until they are a range or `end` comes, and give `take` the encoded rows, some megabytes at a time."""
    pending: list[TableRows] = []
    weight = total = rows = chunks = 0
    # A range between others may grow to twice the size before it is divided.
    limit = _RANGE_BYTES if end is None else 2 * _RANGE_BYTES
    stop = end
    current: str | None = None
    async with aclosing(snapshot.rows(table, start=start, end=end)) as found:
        async for page, section in found:
            if page != current and total >= limit:
                stop = page
                break
            current = page
            for some, added in _split(section, _PART_BYTES - weight):
                pending.append(some)
                weight, total, rows = weight + added, total + added, rows + len(some.rows)
                if weight >= _PART_BYTES:
                    await take(await in_thread(layout.encode_tables, pending))
                    pending, weight, chunks = [], 0, chunks + 1
    if pending:
        await take(await in_thread(layout.encode_tables, pending))
        chunks += 1
    tags = await snapshot.tags(table, start=start, end=stop) if table in snapshot.paged else None
    digest = b"" if tags is None else tags.digest(table, start, stop)
    return _Read(start=start, next=stop, digest=digest, rows=rows, chunks=chunks)


def _into(spool: IO[bytes]) -> _Take:
    async def take(plaintext: bytes) -> None:
        spool.write(len(plaintext).to_bytes(_LENGTH_BYTES, "big") + plaintext)

    return take


def _split(section: TableRows, room: int) -> Iterator[tuple[TableRows, int]]:
    """Yield portions of the rows and their weights; each but the last fills the room, which then is a whole part's."""
    first = weight = 0
    for end, row in enumerate(section.rows, start=1):
        weight += _weight(row)
        if weight >= room:
            yield replace(section, rows=section.rows[first:end]), weight
            first, weight, room = end, 0, _PART_BYTES
    if first < len(section.rows):
        yield replace(section, rows=section.rows[first:]), weight


def _weight(row: Sequence[Cell]) -> int:
    """Return about how many bytes a row takes."""
    return sum([len(cell) + 5 if isinstance(cell, _SIZED) else 9 for cell in row])
