"""Connections to a SQLite file: one that writes, a few that read, and how each is set up.

WAL with synchronous=FULL makes every commit durable and lets readers run beside the writer. secure_delete overwrites
freed pages; this is only hygiene, because no key is ever in this file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiosqlite
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from vault.disk import sync_directory, write_new
from vault.errors import Unavailable, reason

_GONE: Final = "put it back; if another file is to be the catalog, stop the server before it is put there"
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


def create_file(path: Path) -> None:
    """Make the file, readable by its owner only, if there is none; SQLite gives its -wal and -shm the same mode."""
    try:
        write_new(path, ())
        sync_directory(path.parent)
    except FileExistsError:
        return
    except OSError as error:
        raise Unavailable(f"the catalog file cannot be created: {reason(error)}") from error


class Place:
    """Where the file is that is open: what is written to a file that lost its name is lost with the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: os.stat_result | None = None

    def opened(self) -> None:
        """Note the file, the first time that it is opened."""
        if self._opened is None:
            self._opened = self.path.stat()

    def require(self) -> None:
        """Raise Unavailable if the file that was opened is no longer there, or another one is."""
        if self._opened is None:
            return
        try:
            there = self.path.stat()
        except OSError as error:
            raise Unavailable(
                f"the catalog is no longer at {self.path}: {reason(error)}; nothing was changed",
                hint=_GONE,
                cause="catalog",
            ) from error
        if not os.path.samestat(there, self._opened):
            raise Unavailable(
                f"another file than the catalog that was opened is at {self.path}; nothing was changed",
                hint=_GONE,
                cause="catalog",
            )


def _url(path: Path) -> sa.URL:
    # mode=rw: a missing file is an outage or a mistake and must not start an empty catalog.
    return sa.URL.create(
        "sqlite+aiosqlite", database=f"file:{quote(str(path.absolute()))}", query={"mode": "rw", "uri": "true"}
    )


def writing_engine(place: Place | None) -> AsyncEngine:
    """Return the one connection that writes, to a file, or with None to a database in memory.

    It begins no transaction unless the file is still in its place.
    """
    if place is None:
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool, hide_parameters=True)
    else:
        engine = create_async_engine(
            _url(place.path),
            connect_args={"async_creator_fn": _connect},
            pool_size=1,
            max_overflow=0,
            hide_parameters=True,
        )
    sync = engine.sync_engine

    @sa.event.listens_for(sync, "connect")
    def own_transactions(connection: Any, _record: Any) -> None:
        # The driver's own BEGIN would be late and deferred; see SQLAlchemy, "SQLite transactions".
        connection.isolation_level = None
        _run(connection, _PRAGMAS)
        if place is not None:
            place.opened()

    @sa.event.listens_for(sync, "begin")
    def begin(connection: sa.Connection) -> None:
        if place is not None:
            place.require()
        # IMMEDIATE takes the write lock before the first read, so rows that an act read are unchanged when it writes.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reading_engine(path: Path) -> AsyncEngine:
    """Return a few connections that cannot write; each statement is a snapshot by itself."""
    engine = create_async_engine(
        _url(path),
        connect_args={"async_creator_fn": _connect},
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


async def _connect(*place: Any, **options: Any) -> aiosqlite.Connection:
    """Open a connection with its thread; on cancellation or failure neither is left behind."""
    connection = aiosqlite.connect(*place, **options)
    thread = connection._thread  # noqa: SLF001
    thread.daemon = True  # as SQLAlchemy does for connections that it makes itself
    opening = asyncio.ensure_future(connection)
    try:
        return await asyncio.shield(opening)
    except BaseException:
        with suppress(aiosqlite.Error):
            await (await opening).close()
        # A stopped thread still calls the loop once, and the loop may end before that.
        thread.join()
        raise


def _run(connection: Any, statements: Sequence[str]) -> None:
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()
