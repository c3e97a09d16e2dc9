"""The catalog: all rows in one database; implements the row ports of `vault.ports`."""

from __future__ import annotations

from pathlib import Path

from vault.errors import ConfigError, VaultError
from vault.ports.catalog import RestorableCatalog
from vault.ports.time import Clock
from vault.storage.catalog import schema
from vault.storage.catalog.admin import AdminStore
from vault.storage.catalog.alerts import AlertStore
from vault.storage.catalog.counts import CountStore
from vault.storage.catalog.database import Database, engines
from vault.storage.catalog.erasures import ErasureStore
from vault.storage.catalog.faults import NO_CATALOG, translate
from vault.storage.catalog.holds import HoldStore
from vault.storage.catalog.nodes import NodeStore
from vault.storage.catalog.notes import NoteStore
from vault.storage.catalog.overrides import OverrideStore
from vault.storage.catalog.policies import PolicyStore
from vault.storage.catalog.recordings import RecordingStore
from vault.storage.catalog.repeats import RepeatStore
from vault.storage.catalog.rescue import RescueStore
from vault.storage.catalog.shreds import ShredStore
from vault.storage.postgres import PostgresSettings
from vault.telemetry import Metrics


class SqlCatalog(
    RecordingStore,
    CountStore,
    NoteStore,
    NodeStore,
    HoldStore,
    AlertStore,
    ShredStore,
    OverrideStore,
    PolicyStore,
    ErasureStore,
    AdminStore,
    RepeatStore,
    RescueStore,
    RestorableCatalog,
):
    """The catalog on SQLAlchemy Core; the port's docstrings are its contract."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def migrate(self) -> None:
        """Create the file if there is none, and bring its schema to this code's version in one transaction."""
        await self._database.create()
        try:
            async with self._database.engine.begin() as connection:
                await connection.run_sync(schema.upgrade)
        except VaultError:
            raise
        except Exception as error:
            raise translate(error) from error

    async def check_schema(self) -> None:
        """ConfigError if the schema is absent, older or newer than this code's."""
        if not await self._database.exists():
            raise ConfigError("catalog: there is no database file", hint=NO_CATALOG)
        schema.check(await self._revision())

    async def upgrade(self) -> bool:
        """Bring an existing schema to this code's; return whether it was older. ConfigError if there is none."""
        if await self.is_empty():
            raise ConfigError("catalog: there is nothing to upgrade", hint=NO_CATALOG)
        before = await self._revision()
        await self.migrate()
        return await self._revision() != before

    async def is_empty(self) -> bool:
        """Tell whether the database has no schema yet, so that `init` may create a vault in it."""
        return not await self._database.exists() or await self._revision() is None

    async def _revision(self) -> str | None:
        try:
            return await self._database.inspect(schema.current_revision)
        except VaultError:
            raise
        except Exception as error:
            raise translate(error) from error

    async def close(self) -> None:
        """Carry out the acts that were submitted and release the connections; idempotent."""
        await self._database.close()


def open_catalog(place: Path | PostgresSettings | None, *, clock: Clock, metrics: Metrics | None = None) -> SqlCatalog:
    """Return the catalog in a SQLite file or a PostgreSQL database, or with None in memory (`migrate` it before use).

    Opens nothing yet and never creates a file: only `migrate` does. The memory catalog is this same adapter.
    ConfigError if the database's driver is not installed.
    """
    return SqlCatalog(Database(engines(place), clock=clock, metrics=metrics))
