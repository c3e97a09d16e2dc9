"""Connections to PostgreSQL: one that writes, a few that read.

The first statement of every write transaction takes one lock for the whole vault. READ COMMITTED gives each later
statement a snapshot of all earlier commits, and no other transaction commits meanwhile. So the rows that an act read
are unchanged when it writes, as with SQLite's BEGIN IMMEDIATE, and no transaction fails because of another one.
"""

from __future__ import annotations

from functools import partial

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from vault.storage.postgres import PostgresSettings, advisory_key, connect, driver

_READERS = 8
_POOL_SECONDS = 30
_WRITER_LOCK = f"SELECT pg_advisory_xact_lock({advisory_key('catalog writer')})"
# SQLAlchemy is given a function that connects, so the address and its password do not appear in its messages.
_NOWHERE = "postgresql+asyncpg://"


def writing_engine(settings: PostgresSettings, *, patient: bool = False) -> AsyncEngine:
    """Return the one connection of this process that writes; ConfigError without asyncpg.

    On a `patient` connection the time of a statement is not limited.
    """
    driver()
    engine = create_async_engine(
        _NOWHERE,
        async_creator=partial(connect, settings, patient=patient),
        pool_size=1,
        max_overflow=0,
        hide_parameters=True,
    )

    @sa.event.listens_for(engine.sync_engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(_WRITER_LOCK)

    return engine


def reading_engine(settings: PostgresSettings) -> AsyncEngine:
    """Return a few connections that cannot write; each statement is a snapshot by itself."""
    return create_async_engine(
        _NOWHERE,
        async_creator=partial(connect, settings, read_only=True),
        pool_size=_READERS,
        max_overflow=0,
        pool_timeout=_POOL_SECONDS,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        hide_parameters=True,
    )
