"""All rows, one database: the adapter of `vault.ports.rescue.RestorableCatalog`, and so of `Catalog`."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from vault.errors import ConfigError
from vault.ports.rescue import RestorableCatalog
from vault.ports.time import Clock
from vault.storage.catalog import schema
from vault.storage.catalog.admin import AdminStore
from vault.storage.catalog.database import Database
from vault.storage.catalog.erasures import ErasureStore
from vault.storage.catalog.faults import translate
from vault.storage.catalog.holds import HoldStore
from vault.storage.catalog.recordings import RecordingStore
from vault.storage.catalog.rescue import RescueStore
from vault.storage.catalog.shreds import ShredStore
from vault.telemetry import Metrics


class SqlCatalog(RecordingStore, HoldStore, ShredStore, ErasureStore, AdminStore, RescueStore, RestorableCatalog):
    """The catalog on SQLAlchemy Core; the port's docstrings are its contract."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def migrate(self) -> None:
        """Create the file if there is none, and bring its schema to this code's in one transaction."""
        await self._database.create()
        try:
            async with self._database.engine.begin() as connection:
                await connection.run_sync(schema.upgrade)
        except SQLAlchemyError as error:
            raise translate(error) from error

    async def check_schema(self) -> None:
        """ConfigError if the schema is absent, older or newer than this code's."""
        if not await self._database.exists():
            raise ConfigError("catalog: there is no database file", hint="run callvault init")
        try:
            async with self._database.engine.begin() as connection:
                revision = await connection.run_sync(schema.current_revision)
        except SQLAlchemyError as error:
            raise translate(error) from error
        schema.check(revision)

    async def close(self) -> None:
        """Carry out what was submitted and release the connections; idempotent."""
        await self._database.close()


def open_catalog(path: Path | None, *, clock: Clock, metrics: Metrics | None = None) -> SqlCatalog:
    """Return the catalog kept in the SQLite file `path`, or with None one in memory (`migrate` it before use).

    Opens nothing yet and never creates the file: only `migrate` does. The memory catalog is this same adapter, so
    what passes on it passes on a file.
    """
    return SqlCatalog(Database(path, clock=clock, metrics=metrics))
