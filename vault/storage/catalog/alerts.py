"""The outbox of alerts: each is written with its hold, and claimed by one sender at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from vault.ids import HoldId, TenantId
from vault.model import AuditEvent, Hold, HoldState
from vault.ports.holds import Alert, Claimed, Waiting
from vault.storage.catalog import rows
from vault.storage.catalog.database import Database
from vault.storage.catalog.holds import insert_hold
from vault.storage.catalog.tables import (
    IS_WAITING,
    alerts,
    holds,
    tenants,
)
from vault.storage.catalog.writer import Transaction

_a = alerts.c
_FLAGGED = (
    sa.select(holds.c.id)
    .select_from(alerts.join(holds, holds.c.id == _a.hold))
    .where(
        _a.recording == sa.bindparam("key"),
        holds.c.tenant == sa.bindparam("owner"),
        holds.c.state.in_([HoldState.PLACING.value, HoldState.ACTIVE.value]),
    )
)
_TOLD_ANEW = ("id", "created_at", "body", "attempts", "next_at", "delivered_at")
_TELL_AGAIN = (
    sa.update(alerts)
    .where(_a.hold == sa.bindparam("its_hold"), _a.delivered_at <= sa.bindparam("before"))
    .values(**{name: sa.bindparam(f"new_{name}") for name in _TOLD_ANEW})
)
_WITH_TENANT = alerts.join(tenants, tenants.c.id == _a.tenant)
_HAS_WEBHOOK = tenants.c.safeguarding_webhook.is_not(None)
_INSERT = sa.insert(alerts)
_CLAIM = (
    sa.update(alerts)
    .where(_a.id == sa.bindparam("key"))
    .values(next_at=sa.bindparam("new_next_at"), attempts=_a.attempts + 1)
)
_SETTLE = (
    sa.update(alerts)
    .where(_a.id == sa.bindparam("key"), IS_WAITING)
    .values(next_at=sa.bindparam("new_next_at"), delivered_at=sa.bindparam("new_delivered_at"))
)
# A new webhook sets `next_at` to 0. The old webhook's answer to an attempt under way does not postpone that.
_PUT_OFF = _SETTLE.where(_a.next_at != 0)


class AlertStore:
    """Implements `vault.ports.holds.AlertRows`."""

    _database: Database

    async def save_flag(
        self,
        hold: Hold,
        alert: Callable[[HoldId], Alert],
        *,
        acknowledged_before: datetime,
        audit: Sequence[AuditEvent] = (),
        joining: Sequence[AuditEvent] = (),
    ) -> HoldId:
        """Insert hold and alert together, or join the hold that an earlier flag placed."""

        async def act(transaction: Transaction) -> HoldId:
            (recording,) = hold.recordings
            sought = {"key": rows.key(recording), "owner": hold.tenant}
            found = await transaction.fetch(_FLAGGED, sought)
            if not found:
                await insert_hold(transaction, hold)
                await transaction.write(_INSERT, _from_alert(alert(hold.id)))
                transaction.audit(audit)
                return hold.id
            there = HoldId(found[0].id)
            values = _from_alert(alert(there))
            again = {f"new_{name}": values[name] for name in _TOLD_ANEW}
            await transaction.write(
                _TELL_AGAIN, {"its_hold": there, "before": rows.micros(acknowledged_before), **again}
            )
            transaction.audit(joining)
            return there

        return await self._database.writer.run(act)

    async def claim_alert(self, *, now: datetime, until: datetime, excluding: Collection[TenantId]) -> Claimed | None:
        """Take one due alert by moving its `next_at`: the database has one writer at a time, so nobody else took it."""
        due = (
            sa.select(alerts, tenants.c.safeguarding_webhook.label("webhook"))
            .select_from(_WITH_TENANT)
            .where(IS_WAITING, _HAS_WEBHOOK, _a.next_at <= rows.micros(now), _a.tenant.not_in(sorted(excluding)))
            .order_by(_a.next_at, _a.id)
            .limit(1)
        )
        # Usually no alert is due, and a read does not delay writers.
        if not await self._database.fetch(due):
            return None

        async def act(transaction: Transaction) -> Claimed | None:
            found = await transaction.fetch(due)
            if not found:
                return None
            await transaction.write(_CLAIM, {"key": found[0].id, "new_next_at": rows.micros(until)})
            return Claimed(alert=_to_alert(found[0], attempts=found[0].attempts + 1), webhook=found[0].webhook)

        return await self._database.writer.run(act)

    async def settle_alert(
        self, alert: str, *, next_at: datetime, delivered_at: datetime | None, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Store the first acknowledgement, or the time of the next attempt."""
        values = {
            "key": alert,
            "new_next_at": rows.micros(next_at),
            "new_delivered_at": rows.maybe_micros(delivered_at),
        }

        async def act(transaction: Transaction) -> None:
            if await transaction.write(_PUT_OFF if delivered_at is None else _SETTLE, values):
                transaction.audit(audit)

        await self._database.writer.run(act)

    async def alert_of(self, hold: HoldId) -> Alert | None:
        """Return the alert of a hold, if a flag placed it."""
        found = await self._database.fetch(sa.select(alerts).where(_a.hold == hold))
        return _to_alert(found[0], attempts=found[0].attempts) if found else None

    async def alerts_waiting(self) -> Waiting:
        """Count the alerts that are not acknowledged, of tenants that have a webhook."""
        counted = sa.select(sa.func.count().label("n"), sa.func.min(_a.created_at).label("oldest"))
        found = await self._database.fetch(counted.select_from(_WITH_TENANT).where(IS_WAITING, _HAS_WEBHOOK))
        return Waiting(count=found[0].n, oldest=rows.maybe_moment(found[0].oldest))


def _from_alert(alert: Alert) -> rows.Values:
    return {
        "id": alert.id,
        "tenant": alert.tenant,
        "recording": rows.key(alert.recording),
        "hold": alert.hold,
        "created_at": rows.micros(alert.created_at),
        "body": alert.body,
        "attempts": alert.attempts,
        "next_at": rows.micros(alert.next_at),
        "delivered_at": rows.maybe_micros(alert.delivered_at),
    }


def _to_alert(row: sa.Row[Any], *, attempts: int) -> Alert:
    return Alert(
        id=row.id,
        tenant=TenantId(row.tenant),
        recording=rows.recording_id(row.recording),
        hold=HoldId(row.hold),
        created_at=rows.moment(row.created_at),
        body=row.body,
        attempts=attempts,
        next_at=rows.moment(row.next_at),
        delivered_at=rows.maybe_moment(row.delivered_at),
    )
