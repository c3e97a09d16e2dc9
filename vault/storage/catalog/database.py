"""One database: its writing connection, its reading connections, and recovery when one breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from vault.errors import Unavailable, VaultError
from vault.ids import TenantId
from vault.ports.time import Clock
from vault.storage.catalog import postgres, sqlite
from vault.storage.catalog.writer import Parameters, Transaction, Writer, is_broken, translate
from vault.storage.postgres import PostgresSettings
from vault.telemetry import Metrics
from vault.threads import in_thread

R = TypeVar("R")

_SNAPSHOT = {
    "sqlite": "BEGIN",
    "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """The connections to one database. With `reading` None, reads use the writing connection. `file` None: not a file.

    `patient` makes one that writes without a time limit for statements; None if `writing` has no such limit.
    """

    writing: AsyncEngine
    reading: AsyncEngine | None
    file: Path | None = None
    place: sqlite.Place | None = None
    patient: Callable[[], AsyncEngine] | None = None


def engines(place: Path | PostgresSettings | None) -> Engines:
    """Return the engines of a SQLite file, a PostgreSQL database, or a database in memory; nothing is connected yet."""
    if place is None:
        return Engines(writing=sqlite.writing_engine(None), reading=None)
    if isinstance(place, Path):
        there = sqlite.Place(place)
        writing, reading = sqlite.writing_engine(there), sqlite.reading_engine(place)
        return Engines(writing=writing, reading=reading, file=place, place=there)
    return Engines(
        writing=postgres.writing_engine(place),
        reading=postgres.reading_engine(place),
        patient=partial(postgres.writing_engine, place, patient=True),
    )


def narrowed(
    anybodys: sa.Executable, one_tenants: sa.Executable, key: str | bytes, tenant: TenantId | None
) -> tuple[sa.Executable, Parameters]:
    """Return the statement for the row of `key`, and its parameters; with `tenant`, only if it is that tenant's."""
    if tenant is None:
        return anybodys, {"key": key}
    return one_tenants, {"key": key, "in_tenant": tenant}


class Database:
    """The catalog's database; one in memory lives as long as this object."""

    def __init__(self, engines: Engines, *, clock: Clock, metrics: Metrics | None = None) -> None:
        self.engine = engines.writing
        self._file = engines.file
        self._place = engines.place
        self._readers = engines.reading
        self._slow = engines.patient
        self.writer = Writer(self.engine, clock=clock, metrics=metrics)
        self._closed = False

    async def fetch(self, statement: sa.Executable, parameters: Parameters | None = None) -> Sequence[sa.Row[Any]]:
        """Return all rows of one statement, which is a snapshot by itself."""
        if self._closed:
            raise Unavailable("the catalog is closed")
        if self._readers is None:
            # A database in memory has one connection, in the writer's transaction: reads queue with the writes.
            return await self.writer.submit(_fetch_each, (statement, parameters))
        try:
            return await _read(self._readers, statement, parameters)
        except VaultError:
            raise
        except Exception as error:
            if not is_broken(error):
                raise translate(error) from error
        # The server may have restarted while the connection was in the pool; a read can be repeated.
        try:
            return await _read(self._readers, statement, parameters)
        except VaultError:
            raise
        except Exception as error:
            raise translate(error) from error

    @asynccontextmanager
    async def patient(self) -> AsyncIterator[AsyncEngine]:
        """Yield an engine that writes without a time limit for statements, for changes of the schema."""
        if self._slow is None:
            yield self.engine
            return
        engine = self._slow()  # one of its own: to close it closes nobody else's connection
        try:
            yield engine
        finally:
            await engine.dispose()

    async def inspect(self, work: Callable[[sa.Connection], R]) -> R:
        """Run `work`, which only reads, beside the writer where the database permits it."""
        engine = self.engine if self._readers is None else self._readers
        try:
            return await _inspect(engine, work)
        except Exception as error:
            if not is_broken(error):
                raise
        # As in `fetch`: the connection may have died in the pool.
        return await _inspect(engine, work)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection inside one read transaction: all its statements see the database of one instant.

        While it is open, SQLite's write-ahead log cannot be folded into the file, so keep it short.
        """
        if self._readers is None:
            raise Unavailable("a catalog in memory has no snapshots")
        async with self._readers.connect() as connection:
            await connection.exec_driver_sql(_SNAPSHOT[connection.dialect.name])
            try:
                yield connection
            finally:
                await connection.exec_driver_sql("ROLLBACK")

    async def create(self) -> None:
        """Make the file, readable by its owner only, unless it exists; a database on a server exists already."""
        if self._file is not None:
            await in_thread(sqlite.create_file, self._file)

    async def exists(self) -> bool:
        """Tell whether the file exists; opening never makes one."""
        return self._file is None or await in_thread(self._file.exists)

    async def require_place(self) -> None:
        """Raise Unavailable if the file that was opened is no longer at its path."""
        if self._place is not None:
            await in_thread(self._place.require)

    async def close(self) -> None:
        """Carry out the acts that were submitted and release the connections."""
        self._closed = True
        await self.writer.close()
        if self._readers is not None:
            await self._readers.dispose()
        # The writer goes last: the last connection to close folds the WAL into the file.
        await self.engine.dispose()


async def _read(readers: AsyncEngine, statement: sa.Executable, parameters: Parameters | None) -> Sequence[sa.Row[Any]]:
    async with readers.connect() as connection:
        try:
            return (await connection.execute(statement, parameters)).all()
        except (OSError, TimeoutError):
            await connection.invalidate()  # a late answer would belong to this statement
            raise


async def _inspect(engine: AsyncEngine, work: Callable[[sa.Connection], R]) -> R:
    async with engine.connect() as connection:
        return await connection.run_sync(work)


async def _fetch_each(
    transaction: Transaction, queries: Sequence[tuple[sa.Executable, Parameters | None]]
) -> Sequence[Sequence[sa.Row[Any]]]:
    return [await transaction.fetch(statement, parameters) for statement, parameters in queries]
