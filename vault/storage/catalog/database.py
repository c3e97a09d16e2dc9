"""Connections to the catalog's SQLite file: one that writes, a few that read, and how each is set up.

WAL with synchronous=FULL makes every commit durable and lets readers run beside the writer; secure_delete overwrites
freed pages, which is hygiene and nothing more: no key is ever in this file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from vault.errors import Unavailable
from vault.ports.time import Clock
from vault.storage.catalog.faults import translate
from vault.storage.catalog.writer import Parameters, Transaction, Writer
from vault.telemetry import Metrics

_READERS = 4
_POOL_SECONDS = 30
_PRAGMAS = (
    "PRAGMA busy_timeout = 10000",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16384",
)


class Database:
    """A SQLite file, or with `path` None a database in memory that lives as long as this object."""

    def __init__(self, path: Path | None, *, clock: Clock, metrics: Metrics | None = None) -> None:
        self.path = path
        self.engine = _writing_engine(path)
        self._readers = None if path is None else _reading_engine(path)
        self.writer = Writer(self.engine, clock=clock, metrics=metrics)
        self._closed = False

    async def fetch(self, statement: sa.Executable, parameters: Parameters | None = None) -> Sequence[sa.Row[Any]]:
        """Return all rows of one statement, which is a snapshot by itself."""
        if self._closed:
            raise Unavailable("the catalog is closed")
        if self._readers is None:
            # In memory there is one connection, and its transaction is the writer's: reads queue with the writes.
            return await self.writer.submit(_fetch_each, (statement, parameters))
        try:
            async with self._readers.connect() as connection:
                return (await connection.execute(statement, parameters)).all()
        except sa.exc.SQLAlchemyError as error:
            raise translate(error) from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection inside one read transaction: all its statements see the database of one instant.

        SQLite's write-ahead log cannot be folded in while it is open, so it should not be open for long.
        """
        if self._readers is None:
            raise Unavailable("a catalog in memory has no snapshots")
        async with self._readers.connect() as connection:
            await connection.exec_driver_sql("BEGIN")
            try:
                yield connection
            finally:
                await connection.exec_driver_sql("ROLLBACK")

    async def create(self) -> None:
        """Make the file, readable by its owner only, if there is none; SQLite gives its -wal and -shm the same mode."""
        if self.path is not None:
            await asyncio.to_thread(_create, self.path)

    async def exists(self) -> bool:
        """Tell whether there is a file; opening never makes one."""
        return self.path is None or await asyncio.to_thread(self.path.exists)

    async def close(self) -> None:
        """Finish what was submitted and release the connections."""
        self._closed = True
        await self.writer.close()
        if self._readers is not None:
            await self._readers.dispose()
        # The writer goes last: the last connection to leave folds the WAL into the file.
        await self.engine.dispose()


async def _fetch_each(
    transaction: Transaction, queries: Sequence[tuple[sa.Executable, Parameters | None]]
) -> Sequence[Sequence[sa.Row[Any]]]:
    return [await transaction.fetch(statement, parameters) for statement, parameters in queries]


def _create(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise Unavailable(f"the catalog file cannot be created: {error.strerror}") from error
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _url(path: Path) -> sa.URL:
    # mode=rw: a missing file is an outage or a mistake, never the start of an empty catalog.
    return sa.URL.create(
        "sqlite+aiosqlite", database=f"file:{quote(str(path.absolute()))}", query={"mode": "rw", "uri": "true"}
    )


def _writing_engine(path: Path | None) -> AsyncEngine:
    if path is None:
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool, hide_parameters=True)
    else:
        engine = create_async_engine(_url(path), pool_size=1, max_overflow=0, hide_parameters=True)
    sync = engine.sync_engine

    @sa.event.listens_for(sync, "connect")
    def own_transactions(connection: Any, _record: Any) -> None:
        # The driver's own BEGIN would come late and deferred; see SQLAlchemy, "SQLite transactions".
        connection.isolation_level = None
        _run(connection, _PRAGMAS)

    @sa.event.listens_for(sync, "begin")
    def begin(connection: sa.Connection) -> None:
        # IMMEDIATE takes the write lock before the first read, so what an act read is still true when it writes.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _reading_engine(path: Path) -> AsyncEngine:
    engine = create_async_engine(
        _url(path),
        pool_size=_READERS,
        max_overflow=0,
        pool_timeout=_POOL_SECONDS,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        hide_parameters=True,
    )

    @sa.event.listens_for(engine.sync_engine, "connect")
    def read_only(connection: Any, _record: Any) -> None:
        _run(connection, (*_PRAGMAS, "PRAGMA query_only = ON"))

    return engine


def _run(connection: Any, statements: Sequence[str]) -> None:
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()
