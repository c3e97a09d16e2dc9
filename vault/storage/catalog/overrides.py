"""Overrides of a tripped guard, which take two people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from vault.errors import Conflict, NotFound
from vault.ids import TenantId
from vault.model import AuditEvent
from vault.ports.revision import Revision
from vault.ports.shreds import SweepOverride
from vault.storage.catalog import rows
from vault.storage.catalog.database import Database
from vault.storage.catalog.tables import sweep_overrides
from vault.storage.catalog.writer import Transaction

_OVERRIDES = sa.select(sweep_overrides).order_by(sweep_overrides.c.requested_at.desc(), sweep_overrides.c.id.desc())
_OVERRIDE = sa.select(sweep_overrides).where(sweep_overrides.c.id == sa.bindparam("key"))
_INSERT_OVERRIDE = sa.insert(sweep_overrides)
_REPLACE_OVERRIDE = (
    sa.update(sweep_overrides)
    .where(sweep_overrides.c.id == sa.bindparam("key"))
    .values(
        **{column.name: sa.bindparam(f"new_{column.name}") for column in sweep_overrides.columns if column.name != "id"}
    )
)


class OverrideStore:
    """Implements `vault.ports.shreds`."""

    _database: Database

    async def add_override(self, override: SweepOverride, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; Conflict if it exists, or another one for the same guard is open."""

        async def act(transaction: Transaction) -> None:
            if await transaction.fetch(_OVERRIDE, {"key": override.id}):
                raise Conflict(f"override {override.id} exists")
            others = [_to_override(row) for row in await transaction.fetch(_OVERRIDES)]
            for other in others:
                if other.tenant == override.tenant and other.is_open(now=override.requested_at):
                    raise Conflict(
                        f"{other.id} is asked for already, and lifts the same guard",
                        hint="approve it or reject it first",
                    )
            await transaction.write(_INSERT_OVERRIDE, _from_override(override))
            transaction.audit(audit)

        await self._database.writer.run(act)

    async def revise_override(self, override: str, revision: Revision[SweepOverride]) -> SweepOverride:
        """Replace; NotFound."""

        async def act(transaction: Transaction) -> SweepOverride:
            found = await transaction.fetch(_OVERRIDE, {"key": override})
            if not found:
                raise NotFound("there is no such override")
            before = _to_override(found[0])
            after, audit = revision(before)
            if after != before:
                values = {f"new_{name}": value for name, value in _from_override(after).items() if name != "id"}
                await transaction.write(_REPLACE_OVERRIDE, {"key": override, **values})
            transaction.audit(audit)
            return after

        return await self._database.writer.run(act)

    async def overrides(self) -> Sequence[SweepOverride]:
        """Return all, newest first."""
        return [_to_override(row) for row in await self._database.fetch(_OVERRIDES)]


def _from_override(override: SweepOverride) -> rows.Values:
    return {
        "id": override.id,
        "through": rows.micros(override.through),
        "reason": override.reason,
        "requested_by": override.requested_by,
        "requested_at": rows.micros(override.requested_at),
        "approved_by": override.approved_by,
        "used_at": rows.maybe_micros(override.used_at),
        "tenant": override.tenant,
        "stopped": override.stopped,
        "early": override.early,
        "rejected_by": override.rejected_by,
    }


def _to_override(row: sa.Row[Any]) -> SweepOverride:
    return SweepOverride(
        id=row.id,
        through=rows.moment(row.through),
        reason=row.reason,
        requested_by=row.requested_by,
        requested_at=rows.moment(row.requested_at),
        approved_by=row.approved_by,
        used_at=rows.maybe_moment(row.used_at),
        tenant=None if row.tenant is None else TenantId(row.tenant),
        stopped=row.stopped,
        early=row.early,
        rejected_by=row.rejected_by,
    )
