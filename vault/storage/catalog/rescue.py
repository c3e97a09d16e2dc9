"""Dumps, loads and rebuilds the whole catalog, by its schema's metadata, on any database."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from vault.errors import Conflict, IntegrityError
from vault.format.backup import BackedObject, BackedRecording, PageTags, TableRows
from vault.format.names import object_below, recording_prefix
from vault.ids import RecordingId, TenantId
from vault.model import AuditEvent, Recording, RecordingState, SegmentRef
from vault.storage.catalog import partitions, recording_sql, rows, schema
from vault.storage.catalog.database import Database
from vault.storage.catalog.recording_sql import count_gone, count_moved
from vault.storage.catalog.tables import HAS_METADATA, ROW, metadata, page_tags, recordings, segments
from vault.storage.catalog.tags import PAGED, are_kept
from vault.storage.catalog.writer import Transaction, translate

_PAGE = 500
_FEW = 32
_HEAVY = ("certificate_batches", "shreds")
"""Of these a row has half a megabyte and more."""
_SETTINGS = "settings"
_r, _t = recordings.c, page_tags.c
# Columns that the first schema had too: a backup may be older than this code. Then digests are text, in hex.
_objects = sa.table("segments", *map(sa.column, ("recording", "number", "attempt", "object_bytes", "sha256")))
_o = _objects.c
_BACKED = (_r.id, _r.tenant, _r.audio_period, _r.audio_generation, _r.audio_leaf, _r.retain_until, _r.retention_class)
_ORDER = (_r.tenant, _r.started_at, _r.id)
_LISTED = (
    sa.select(*_BACKED, _r.started_at)
    .where(_r.state != RecordingState.SHREDDED.value)
    .order_by(*_ORDER)
    .limit(sa.literal_column(str(_PAGE)))
)
_LISTED_AFTER = _LISTED.where(
    sa.tuple_(*_ORDER)
    > sa.tuple_(
        sa.bindparam("tenant", type_=_r.tenant.type),
        sa.bindparam("started", type_=_r.started_at.type),
        sa.bindparam("key", type_=_r.id.type),
    )
)
_OBJECTS = (
    sa.select(
        *_BACKED,
        *(_o.number, _o.attempt, _o.object_bytes, _o.sha256),
    )
    .join(_objects, _o.recording == _r.id)
    .where(_r.state != RecordingState.SHREDDED.value)
    .order_by(_r.tenant, _r.id, _o.number)
)
_OF_KEYS = _r.id.in_(sa.bindparam("keys", expanding=True))
_WITHOUT_AUDIO = sa.and_(_OF_KEYS, _r.state == RecordingState.SHREDDED.value)
_WITHOUT_FACTS = sa.and_(_OF_KEYS, sa.or_(sa.not_(HAS_METADATA), sa.func.length(_r.sealed_facts) == 0))
_SHRED = (
    sa.update(recordings)
    .where(_r.id == sa.bindparam("key"), _r.state != RecordingState.SHREDDED.value)
    .values(state=RecordingState.SHREDDED.value, state_reason=sa.bindparam("new_reason"), node=None)
)
_UNCERTIFIED = (
    sa.select(*ROW)
    .where(_r.state == RecordingState.SHREDDED.value, _r.certificate_id.is_(None), _r.id > sa.bindparam("after"))
    .order_by(_r.id)
    .limit(sa.bindparam("page"))
)
_FORGET = (
    sa.update(recordings)
    .where(_r.id == sa.bindparam("key"), sa.func.length(_r.sealed_facts) > 0)
    .values(
        call_token=sa.bindparam("new_token"), caller_token=None, called_token=None, object_token=None, sealed_facts=b""
    )
)
_INSERT_RECORDING = sa.insert(recordings)


class SqlSnapshot:
    """One read transaction; `found` is the schema of the database."""

    def __init__(self, connection: AsyncConnection, schema_revision: str, found: sa.MetaData, *, tagged: bool) -> None:
        self.connection = connection
        self._tables = {table.name: table for table in found.sorted_tables if table.name != page_tags.name}
        self._tagged = tagged
        self.schema_revision = schema_revision
        self.tables: Sequence[str] = tuple(self._tables)

    @property
    def paged(self) -> Collection[str]:
        """Return the tables that are divided into pages."""
        return PAGED.keys() if self._tagged else ()

    async def tags(self, table: str | None = None, *, start: str = "", end: str | None = None) -> PageTags | None:
        """Return the tags, if the triggers that keep them are there."""
        if not self._tagged:
            return None
        statement = sa.select(_t.of_table, _t.page, _t.tag).order_by(_t.of_table, _t.page)
        if table is not None:
            base = sa.and_(_t.of_table == "", _t.page == "")
            statement = statement.where(sa.or_(base, sa.and_(_t.of_table == table, *_stretch(_t.page, start, end))))
        tags: dict[str, list[tuple[str, bytes]]] = {}
        for of_table, page, tag in (await self.connection.execute(statement)).all():
            tags.setdefault(of_table, []).append((page, tag))
        [(_, base_tag)] = tags.pop("")
        return PageTags(base=base_tag, tags=tags)

    async def rows(
        self, table: str, *, start: str = "", end: str | None = None
    ) -> AsyncGenerator[tuple[str, TableRows]]:
        """Yield rows in the order of the key that their pages are of."""
        found = self._tables[table]
        columns = tuple(column.name for column in found.columns)
        paging = PAGED.get(table) if self._tagged else None
        statement = sa.select(found).order_by(*found.primary_key.columns)
        at = 0
        if paging is not None:
            key = found.columns[paging.column]
            others = [column for column in found.primary_key.columns if column is not key]
            first, last = start and paging.first(start), None if end is None else paging.first(end)
            statement = sa.select(found).where(*_stretch(key, first, last)).order_by(key, *others)
            at = columns.index(paging.column)
        size = _FEW if table in _HEAVY else _PAGE
        async for some in _pages(self.connection, statement, size):
            for page, of_one in groupby(some, key=lambda row: "" if paging is None else paging.of(row[at])):
                yield page, TableRows(table=table, columns=columns, rows=[list(row) for row in of_one])


def _stretch(column: sa.ColumnElement[Any], start: Any, end: Any) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions of a stretch; one that starts with nothing has no beginning."""
    if start:
        yield column >= start
    if end is not None:
        yield column < end


class RescueStore:
    """Implements `vault.ports.rescue`."""

    _database: Database

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[SqlSnapshot]:
        """Hold one read transaction open; Unavailable."""
        try:
            schema.check_readable(await self._database.inspect(schema.current_revision))
            async with self._database.snapshot() as connection:
                if connection.dialect.name == "postgresql":
                    # A partition that is dropped vanishes from snapshots too; this comes before ours is taken.
                    await connection.exec_driver_sql(f"LOCK TABLE {segments.name} IN ACCESS SHARE MODE")
                revision = await connection.run_sync(schema.current_revision)
                schema.check_readable(revision)
                assert revision is not None
                if not schema.is_current(revision):
                    await connection.run_sync(schema.check_whole)
                # An older schema is read from the database; this code's own is known.
                current = schema.is_current(revision)
                found = metadata if current else await connection.run_sync(_reflect)
                tagged = current and await connection.run_sync(are_kept)
                yield SqlSnapshot(connection, revision, found, tagged=tagged)
        except SQLAlchemyError as error:
            raise translate(error) from error

    async def objects(self) -> AsyncIterator[BackedRecording]:
        """Yield recordings with their objects, in pages that are each read by themselves."""
        async with self.snapshot() as snapshot:
            current = schema.is_current(snapshot.schema_revision)
            if not current:
                # Nobody writes to an older schema, and it may not have the index that the pages need.
                async for each in _streamed(snapshot.connection):
                    yield each
        after: sa.Row[Any] | None = None
        while current:
            place = {} if after is None else {"tenant": after.tenant, "started": after.started_at, "key": after.id}
            found = await self._database.fetch(_LISTED if after is None else _LISTED_AFTER, place)
            if not found:
                return
            after = found[-1]
            of_each: dict[bytes, list[sa.Row[Any]]] = {}
            periods = [row.audio_period for row in found]
            asked = {"keys": [row.id for row in found], "first_period": min(periods), "last_period": max(periods)}
            for row in await self._database.fetch(recording_sql.SEGMENTS_OF, asked):
                of_each.setdefault(row.recording, []).append(row)
            for row in found:
                if row.id in of_each:
                    yield _backed(row, of_each[row.id])

    async def is_blank(self) -> bool:
        """Tell whether the database has no file or no schema."""
        if not await self._database.exists():
            return True
        try:
            async with self._database.engine.begin() as connection:
                return await connection.run_sync(schema.current_revision) is None
        except SQLAlchemyError as error:
            raise translate(error) from error

    async def load(
        self, schema_revision: str, sections: AsyncIterator[TableRows], *, settings: Mapping[str, str]
    ) -> None:
        """Create the schema of the dump, fill it and upgrade it, in one transaction."""
        await self._database.create()
        try:
            async with self._database.patient() as engine, engine.begin() as connection:
                if await connection.run_sync(schema.current_revision) is not None:
                    raise Conflict("the catalog is not blank; nothing was loaded into it")
                await connection.run_sync(schema.upgrade_to, schema_revision)
                tables = await connection.run_sync(_reflect)
                # The migrations insert the rows that must always exist; the dump has them too.
                for table in reversed(tables.sorted_tables):
                    await connection.execute(sa.delete(table))
                async for section in sections:
                    await _insert(connection, tables, section)
                await _put_settings(connection, tables.tables[_SETTINGS], settings)
                await connection.run_sync(schema.upgrade)
        except SQLAlchemyError as error:
            raise _contradiction(error) from error

    async def recording_states(self, recordings: Sequence[RecordingId]) -> Mapping[RecordingId, RecordingState]:
        """Return the states of those of these recordings that exist."""
        found = await self._database.fetch(recording_sql.STATES, {"keys": [*map(rows.key, recordings)]})
        return {rows.recording_id(row.id): RecordingState(row.state) for row in found}

    async def rebuild_recording(
        self, recording: Recording, objects: Sequence[SegmentRef], *, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Insert the row unless it exists; Conflict if another recording has the call token."""
        values = rows.from_recording(recording)
        refs = [{**rows.from_segment(ref), "audio_period": values["audio_period"]} for ref in objects]

        async def act(transaction: Transaction) -> None:
            if await transaction.fetch(recording_sql.FOUND, {"keys": [values["id"]]}):
                return
            await transaction.write(_INSERT_RECORDING, values)
            transaction.count(values["tenant"], values["state"], 1)
            if rows.is_live(values):
                transaction.count_live(values["tenant"], values["created_at"], 1)
            await partitions.ensure(transaction, {ref["audio_period"] for ref in refs})
            await transaction.write(recording_sql.INSERT_SEGMENT, refs)
            transaction.audit(audit)

        await self._database.writer.run(act)

    async def shred_uncertified(
        self, recordings: Sequence[RecordingId], *, reason: str, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Move rows to shredded; the events are written only if a row moved."""
        moves = [{"key": rows.key(recording), "new_reason": reason} for recording in recordings]

        async def act(transaction: Transaction) -> None:
            keys = {"keys": [move["key"] for move in moves]}
            await count_moved(transaction, _OF_KEYS, keys, to=RecordingState.SHREDDED)
            await count_gone(transaction, _WITHOUT_FACTS, keys)
            if await transaction.write(_SHRED, moves):
                transaction.audit(audit)

        await self._database.writer.run(act)

    async def forget_metadata(self, recordings: Sequence[RecordingId], *, audit: Sequence[AuditEvent] = ()) -> None:
        """Remove facts and tokens from rows; the events are written only if a row had any."""
        keys = map(rows.key, recordings)
        moves = [{"key": key, "new_token": rows.own_token(key)} for key in keys]

        async def act(transaction: Transaction) -> None:
            await count_gone(transaction, _WITHOUT_AUDIO, {"keys": [move["key"] for move in moves]})
            if await transaction.write(_FORGET, moves):
                transaction.audit(audit)

        await self._database.writer.run(act)

    async def uncertified(self, *, after: RecordingId | None, limit: int) -> Sequence[Recording]:
        """Return a page in id order."""
        start = b"" if after is None else rows.key(after)
        found = await self._database.fetch(_UNCERTIFIED, {"after": start, "page": limit})
        return [rows.to_recording(row) for row in found]


async def _pages(
    connection: AsyncConnection, statement: sa.Select[Any], size: int
) -> AsyncIterator[Sequence[sa.Row[Any]]]:
    async with connection.stream(statement) as result:
        async for page in result.partitions(size):
            yield page


async def _streamed(connection: AsyncConnection) -> AsyncIterator[BackedRecording]:
    """Yield recordings with their objects; a recording split between two pages is joined."""
    pending: list[sa.Row[Any]] = []
    async for page in _pages(connection, _OBJECTS, _PAGE):
        found = [*pending, *page]
        last = found[-1].id
        for _, rows_of_one in groupby((row for row in found if row.id != last), key=lambda row: row.id):
            of_one = list(rows_of_one)
            yield _backed(of_one[0], of_one)
        pending = [row for row in found if row.id == last]
    if pending:
        yield _backed(pending[0], pending)


def _backed(row: sa.Row[Any], found: Sequence[sa.Row[Any]]) -> BackedRecording:
    recording = rows.recording_id(row.id)
    prefix = recording_prefix(TenantId(row.tenant), row.audio_period, recording)
    return BackedRecording(
        recording=recording,
        coordinate=rows.audio_coordinate(row),
        retain_until_ms=row.retain_until // 1000,
        retention_class=row.retention_class,
        objects=tuple(
            BackedObject(
                name=object_below(prefix, each.number, _hex(each.attempt)),
                size=each.object_bytes,
                sha256=_hex(each.sha256),
            )
            for each in found
        ),
    )


def _hex(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.hex()


def _reflect(connection: sa.Connection) -> sa.MetaData:
    found = sa.MetaData()
    parts = {span.name for span in partitions.spans(connection)}
    with warnings.catch_warnings():
        # Rows are read by their columns; an index of an expression is not needed for it.
        warnings.filterwarnings("ignore", "Skipped unsupported reflection of expression-based index")
        found.reflect(connection, only=lambda name, _: name not in parts)
    found.remove(found.tables["alembic_version"])
    return found


async def _insert(connection: AsyncConnection, tables: sa.MetaData, section: TableRows) -> None:
    table = tables.tables.get(section.table)
    if table is None or not set(section.columns) <= set(table.columns.keys()):
        raise IntegrityError(f"the dump has a table or column its schema does not: {section.table[:80]}")
    values = [dict(zip(section.columns, row, strict=True)) for row in section.rows]
    if table.name == segments.name and segments.c.audio_period.name in section.columns:
        await connection.run_sync(partitions.make, {int(row["audio_period"] or 0) for row in values})
    if values:
        await connection.execute(sa.insert(table), values)


async def _put_settings(connection: AsyncConnection, table: sa.Table, settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        await connection.execute(sa.delete(table).where(table.c.name == name))
        await connection.execute(sa.insert(table), {"name": name, "value": value})


def _contradiction(error: SQLAlchemyError) -> Exception:
    translated = translate(error)
    if isinstance(translated, Conflict):
        return IntegrityError("the dump contradicts its own schema; nothing was loaded")
    return translated
