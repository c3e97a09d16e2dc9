"""Dumps, loads and rebuilds the whole catalog, by its schema's metadata, on any database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from vault.errors import Conflict, IntegrityError
from vault.format.backup import BackedObject, BackedRecording, TableRows
from vault.format.names import object_below, recording_prefix
from vault.ids import RecordingId, TenantId
from vault.model import AuditEvent, Recording, RecordingState, SegmentRef
from vault.storage.catalog import partitions, recording_sql, rows, schema
from vault.storage.catalog.database import Database
from vault.storage.catalog.recording_sql import count_moved
from vault.storage.catalog.tables import metadata, recordings, segments
from vault.storage.catalog.writer import Transaction, translate

_PAGE = 2000
_PAGES = {"certificate_batches": 32}
"""A batch has half a megabyte."""
_SETTINGS = "settings"
_r = recordings.c
# Columns that the first schema had too: a backup may be older than this code. Then digests are text, in hex.
_objects = sa.table("segments", *map(sa.column, ("recording", "number", "attempt", "object_bytes", "sha256")))
_o = _objects.c
_OBJECTS = (
    sa.select(
        *(_r.id, _r.tenant, _r.audio_period, _r.audio_generation, _r.audio_leaf, _r.retain_until, _r.retention_class),
        *(_o.number, _o.attempt, _o.object_bytes, _o.sha256),
    )
    .join(_objects, _o.recording == _r.id)
    .where(_r.state != RecordingState.SHREDDED.value)
    .order_by(_r.tenant, _r.id, _o.number)
)
_OF_KEYS = _r.id.in_(sa.bindparam("keys", expanding=True))
_SHRED = (
    sa.update(recordings)
    .where(_r.id == sa.bindparam("key"), _r.state != RecordingState.SHREDDED.value)
    .values(state=RecordingState.SHREDDED.value, state_reason=sa.bindparam("new_reason"))
)
_UNCERTIFIED = (
    sa.select(recordings)
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
    """One read transaction."""

    def __init__(self, connection: AsyncConnection, schema_revision: str, tables: Sequence[sa.Table]) -> None:
        self._connection = connection
        self._tables = tables
        self.schema_revision = schema_revision

    async def tables(self) -> AsyncIterator[TableRows]:
        """Yield pages of rows, tables in an order in which they can be inserted."""
        for table in self._tables:
            statement = sa.select(table).order_by(*table.primary_key.columns)
            columns = tuple(column.name for column in table.columns)
            async for page in _pages(self._connection, statement, _PAGES.get(table.name, _PAGE)):
                yield TableRows(table=table.name, columns=columns, rows=[list(row) for row in page])

    async def objects(self) -> AsyncIterator[BackedRecording]:
        """Yield recordings with their objects; a recording split between two pages is joined."""
        pending: list[sa.Row[Any]] = []
        async for page in _pages(self._connection, _OBJECTS):
            found = [*pending, *page]
            last = found[-1].id
            for _, of_one in groupby((row for row in found if row.id != last), key=lambda row: row.id):
                yield _backed(list(of_one))
            pending = [row for row in found if row.id == last]
        if pending:
            yield _backed(pending)


class RescueStore:
    """Implements `vault.ports.rescue`."""

    _database: Database

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[SqlSnapshot]:
        """Hold one read transaction open; Unavailable."""
        try:
            async with self._database.snapshot() as connection:
                revision = await connection.run_sync(schema.current_revision)
                schema.check_readable(revision)
                assert revision is not None
                if not schema.is_current(revision):
                    await connection.run_sync(schema.check_whole)
                # An older schema is read from the database; this code's own is known.
                found = metadata if schema.is_current(revision) else await connection.run_sync(_reflect)
                yield SqlSnapshot(connection, revision, found.sorted_tables)
        except SQLAlchemyError as error:
            raise translate(error) from error

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
            if await transaction.write(_SHRED, moves):
                transaction.audit(audit)

        await self._database.writer.run(act)

    async def forget_metadata(self, recordings: Sequence[RecordingId], *, audit: Sequence[AuditEvent] = ()) -> None:
        """Remove facts and tokens from rows; the events are written only if a row had any."""
        moves = [{"key": rows.key(recording), "new_token": recording} for recording in recordings]

        async def act(transaction: Transaction) -> None:
            if await transaction.write(_FORGET, moves):
                transaction.audit(audit)

        await self._database.writer.run(act)

    async def uncertified(self, *, after: RecordingId | None, limit: int) -> Sequence[Recording]:
        """Return a page in id order."""
        start = b"" if after is None else rows.key(after)
        found = await self._database.fetch(_UNCERTIFIED, {"after": start, "page": limit})
        return [rows.to_recording(row) for row in found]


async def _pages(
    connection: AsyncConnection, statement: sa.Select[Any], size: int = _PAGE
) -> AsyncIterator[Sequence[sa.Row[Any]]]:
    async with connection.stream(statement) as result:
        async for page in result.partitions(size):
            yield page


def _backed(found: Sequence[sa.Row[Any]]) -> BackedRecording:
    row = found[0]
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
