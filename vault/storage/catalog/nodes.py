"""Nodes: which journal has which open recordings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from vault.errors import NotFound
from vault.ids import NodeId
from vault.ports.cluster import Node
from vault.storage.catalog import rows
from vault.storage.catalog.database import Database
from vault.storage.catalog.tables import IS_OPEN, nodes, recordings
from vault.storage.catalog.writer import Transaction

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
            # Rows older than nodes were written by a vault with one process, and its journal registers first.
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
