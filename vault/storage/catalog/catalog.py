"""The catalog: all rows in one database; implements the row ports of `vault.ports`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from vault.errors import ConfigError, NotFound, VaultError
from vault.ids import NodeId
from vault.ports.catalog import RestorableCatalog
from vault.ports.cluster import Node
from vault.ports.progress import Progress, Silent
from vault.ports.time import Clock
from vault.storage.catalog import rows, schema
from vault.storage.catalog.admin import AdminStore, RepeatStore
from vault.storage.catalog.alerts import AlertStore
from vault.storage.catalog.certificates import CertificateStore
from vault.storage.catalog.database import Database, engines
from vault.storage.catalog.erasures import ErasureStore
from vault.storage.catalog.holds import HoldStore
from vault.storage.catalog.notes import NoteStore
from vault.storage.catalog.policies import OverrideStore, PolicyStore
from vault.storage.catalog.recording_sql import CountStore
from vault.storage.catalog.recordings import RecordingStore
from vault.storage.catalog.rescue import RescueStore
from vault.storage.catalog.shreds import ShredStore
from vault.storage.catalog.tables import IS_OPEN, nodes, recordings
from vault.storage.catalog.writer import NO_CATALOG, Transaction, translate
from vault.storage.postgres import PostgresSettings
from vault.telemetry import Metrics

# -- rows of nodes ------------------------------------------------------------------------------------------------

_n = nodes.c
_ANY = sa.select(_n.id).limit(1)
_DROP = sa.delete(nodes).where(_n.id == sa.bindparam("key"))
_INSERT = sa.insert(nodes)
_CLAIM = sa.update(recordings).where(IS_OPEN, recordings.c.node.is_(None)).values(node=sa.bindparam("new_node"))
_BEAT = (
    sa.update(nodes)
    .where(_n.id == sa.bindparam("key"))
    .values(seen_at=sa.bindparam("new_seen_at"), unstored_bytes=sa.bindparam("new_unstored_bytes"))
)
_OPEN = (
    sa.select(recordings.c.node, sa.func.count().label("n")).where(IS_OPEN).group_by(recordings.c.node).subquery("open")
)
_NODES = (
    sa.select(nodes, sa.func.coalesce(_OPEN.c.n, 0).label("open_recordings"))
    .select_from(nodes.outerjoin(_OPEN, _OPEN.c.node == _n.id))
    .order_by(_n.id)
)


class NodeStore:
    """Implements `vault.ports.cluster`."""

    _database: Database

    async def register_node(self, node: Node) -> None:
        """Insert or replace by id; the first node ever registered gets the open rows that have none."""

        async def act(transaction: Transaction) -> None:
            # Open rows without a node are from a vault with one process, whose journal registers first.
            if not await transaction.fetch(_ANY):
                await transaction.write(_CLAIM, {"new_node": node.id})
            await transaction.write(_DROP, {"key": node.id})
            await transaction.write(
                _INSERT,
                {
                    "id": node.id,
                    "name": node.name,
                    "started_at": rows.micros(node.started_at),
                    "seen_at": rows.micros(node.seen_at),
                    "unstored_bytes": node.unstored_bytes,
                },
            )

        await self._database.writer.run(act)

    async def beat_node(self, node: NodeId, *, at: datetime, unstored_bytes: int) -> None:
        """Store when the node was last seen and how much it has not stored; NotFound."""

        async def act(transaction: Transaction) -> None:
            values = {"key": node, "new_seen_at": rows.micros(at), "new_unstored_bytes": unstored_bytes}
            if not await transaction.write(_BEAT, values):
                raise NotFound(f"there is no node {node[:80]}")

        await self._database.writer.run(act)

    async def forget_node(self, node: NodeId) -> None:
        """Remove the node; an absent one is no error."""

        async def act(transaction: Transaction) -> None:
            await transaction.write(_DROP, {"key": node})

        await self._database.writer.run(act)

    async def nodes(self) -> Sequence[Node]:
        """Return all, by id, each with its open recordings counted."""
        return [
            Node(
                id=NodeId(row.id),
                name=row.name,
                started_at=rows.moment(row.started_at),
                seen_at=rows.moment(row.seen_at),
                unstored_bytes=row.unstored_bytes,
                open_recordings=row.open_recordings,
            )
            for row in await self._database.fetch(_NODES)
        ]


# -- all rows together --------------------------------------------------------------------------------------------


class SqlCatalog(
    RecordingStore,
    CountStore,
    NoteStore,
    NodeStore,
    HoldStore,
    AlertStore,
    ShredStore,
    CertificateStore,
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
        """Create the file if there is none, and bring its schema to this code's version.

        An empty database gets the whole schema in one transaction, another one in steps.
        """
        await self._database.create()
        if await self._revision() is not None:
            await self._upgrade(Silent())
            return
        try:
            async with self._database.patient() as engine, engine.begin() as connection:
                await connection.run_sync(schema.upgrade)
        except VaultError:
            raise
        except Exception as error:
            raise translate(error) from error

    async def check_schema(self) -> None:
        """ConfigError if the schema is absent, half upgraded, older or newer than this code's.

        Unavailable if the file that was opened is no longer in its place.
        """
        await self._database.require_place()
        if not await self._database.exists():
            raise ConfigError("catalog: there is no database file", hint=NO_CATALOG)
        revision = await self._revision()
        if not schema.is_current(revision):
            await self._database.inspect(schema.check_whole)
        schema.check(revision)

    async def upgrade(self, progress: Progress | None = None) -> bool:
        """Upgrade an existing schema to this code's, or continue an interrupted upgrade; return whether it was older.

        Every step and every page of rows is a transaction of its own. ConfigError if there is no schema.
        """
        if await self.is_empty():
            raise ConfigError("catalog: there is no schema to upgrade", hint=NO_CATALOG)
        before = await self._revision()
        await self._upgrade(progress or Silent())
        return await self._revision() != before

    async def _upgrade(self, progress: Progress) -> None:
        try:
            async with self._database.patient() as engine, engine.connect() as connection:
                await connection.run_sync(schema.upgrade_in_steps, progress)
        except VaultError:
            raise
        except Exception as error:
            raise translate(error) from error

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
