"""How many recordings each tenant has in each state: moved in the transaction that moves the rows, so always exact.

Counting the rows takes as long as there are rows, whatever index there is.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from vault.ids import TenantId
from vault.model import RecordingState
from vault.storage.catalog.database import Database
from vault.storage.catalog.tables import recording_counts, recordings
from vault.storage.catalog.writer import Transaction

_r, _k = recordings.c, recording_counts.c
_COUNTED = sa.select(_r.tenant, _r.state, sa.func.count().label("n")).group_by(_r.tenant, _r.state)
_DROP = sa.delete(recording_counts)
_FILL = sa.insert(recording_counts).from_select(["tenant", "state", "n"], _COUNTED)
_both = sa.union_all(_COUNTED, sa.select(_k.tenant, _k.state, -_k.n)).subquery()
# One statement, so one snapshot of both.
_WRONG = (
    sa.select(_both.c.tenant, _both.c.state, sa.func.sum(_both.c.n).label("n"))
    .group_by(_both.c.tenant, _both.c.state)
    .having(sa.func.sum(_both.c.n) != 0)
    .order_by(_both.c.tenant, _both.c.state)
)


class CountStore:
    """Implements the upkeep in `vault.ports.recordings.RecordingCounts`."""

    _database: Database

    async def miscounted(self) -> list[tuple[TenantId, RecordingState, int]]:
        """Return where the counts are not those of the rows, and how many rows more there are than was counted."""
        return [
            (TenantId(row.tenant), RecordingState(row.state), int(row.n)) for row in await self._database.fetch(_WRONG)
        ]

    async def recount(self) -> None:
        """Count the rows anew."""

        async def act(transaction: Transaction) -> None:
            await transaction.write_each(_DROP, _FILL)

        await self._database.writer.run(act)


async def count_moved(
    transaction: Transaction, rows: sa.ColumnElement[bool], parameters: dict[str, Any], *, to: RecordingState
) -> None:
    """Count what is about to move to a state: of `rows` those that are in another one."""
    moving = _COUNTED.where(rows, _r.state != to.value)
    for row in await transaction.fetch(moving, parameters):
        transaction.count(row.tenant, row.state, -row.n)
        transaction.count(row.tenant, to.value, row.n)
