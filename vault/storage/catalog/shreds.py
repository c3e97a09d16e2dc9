"""Shred intents and receipts, and what is due."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import rfc8785
import sqlalchemy as sa

from vault.certificates.template import Lot
from vault.errors import NotFound
from vault.format import codec
from vault.ids import RecordingId, TenantId
from vault.model import (
    Assurance,
    AuditEvent,
    Recording,
    ShredReceipt,
)
from vault.ports.erasures import Erasure
from vault.ports.shreds import Shred
from vault.storage.catalog import rows
from vault.storage.catalog.database import Database
from vault.storage.catalog.erasures import begin_erasing
from vault.storage.catalog.tables import (
    IS_FINISHED,
    IS_OPEN,
    NOT_CHANGED,
    ROW,
    certificates,
    recordings,
    segments,
    shred_kept,
    shreds,
    sweep_floor,
)
from vault.storage.catalog.writer import Transaction
from vault.threads import in_thread

_s, _c, _r = shreds.c, certificates.c, recordings.c
_BY_ID = sa.select(shreds).where(_s.id == sa.bindparam("key"))
_INSERT = sa.insert(shreds)
_UNFINISHED = sa.select(shreds).where(_s.finished_at.is_(None)).order_by(_s.intended_at, _s.id)
_SET_RECEIPT = (
    sa.update(shreds)
    .where(_s.id == sa.bindparam("key"), _s.receipt.is_(None))
    .values(receipt=sa.bindparam("new_receipt"))
)
_FINISH = (
    sa.update(shreds)
    .where(_s.id == sa.bindparam("key"), _s.finished_at.is_(None))
    .values(finished_at=sa.bindparam("new_finished_at"))
)
_FLOOR = sa.select(sweep_floor.c.period)
_RAISE_FLOOR = (
    sa.update(sweep_floor)
    .where(sa.or_(sweep_floor.c.period.is_(None), sweep_floor.c.period < sa.bindparam("new_period")))
    .values(period=sa.bindparam("new_period"))
)
_OPEN = sa.select(_r.id, _r.tenant, _r.audio_period, _r.metadata_period).where(IS_OPEN)
_KEEP = sa.insert(shred_kept)
_KEPT = (
    sa.select(*ROW)
    .join(shred_kept, shred_kept.c.recording == _r.id)
    .where(shred_kept.c.shred == sa.bindparam("key"))
    .order_by(_r.id)
)

_ORDER = (_r.audio_period, _r.id)
_AFTER = sa.tuple_(sa.bindparam("after_period", type_=sa.BigInteger), sa.bindparam("after"))
_DUE = sa.and_(IS_FINISHED, NOT_CHANGED, sa.tuple_(*_ORDER) > _AFTER, _r.audio_period <= sa.bindparam("through"))
_PERIOD = sa.select(_r.audio_period).where(_r.id == sa.bindparam("key"))


def _lots(hexed: Callable[[sa.ColumnElement[Any]], sa.ColumnElement[str]]) -> sa.Select[Any]:
    """Return the statement of a page of due rows: a row for each lot, each of its columns in one text.

    Few rows, because a driver takes the interpreter's lock again for each one, and another thread may be computing.
    """

    def listed(column: sa.ColumnElement[Any], between: str = ",") -> sa.ColumnElement[str]:
        return sa.func.aggregate_strings(column, between)

    def text(column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.cast(column, sa.Text)

    columns = (
        *(_r.id, _r.tenant, _r.audio_period, _r.audio_generation, _r.audio_leaf, _r.audio_commitment),
        *(_r.retention_class, _r.retention_period, _r.started_at, _r.created_at, _r.retain_until),
    )
    wanted = sa.select(*columns).where(_DUE).order_by(*_ORDER).limit(sa.bindparam("page")).subquery("wanted")
    row = wanted.c
    colon: sa.ColumnElement[str] = sa.literal_column("':'")
    stored = (
        sa.select(segments.c.number, segments.c.attempt, segments.c.object_bytes, segments.c.sha256)
        .where(segments.c.recording == row.id, segments.c.audio_period == row.audio_period)
        .order_by(segments.c.number)
        .correlate(wanted)
        .subquery("stored")
    )
    each = text(stored.c.number) + colon + hexed(stored.c.attempt) + colon + text(stored.c.object_bytes)
    objects = sa.select(listed(each + colon + hexed(stored.c.sha256), " ")).scalar_subquery()
    # An empty text for no objects: to group by whether there are any would find them twice.
    due = sa.select(wanted, sa.func.coalesce(objects, "").label("objects")).subquery("due").c
    shared = (
        *(due.tenant, due.audio_period, due.audio_generation, due.retention_class, due.retention_period),
        due.audio_commitment.is_(None),
    )
    return sa.select(
        *shared,
        *(listed(hexed(due.id)), listed(text(due.audio_leaf)), listed(hexed(due.audio_commitment))),
        *(listed(text(due.started_at)), listed(text(due.created_at)), listed(text(due.retain_until))),
        listed(due.objects),
    ).group_by(*shared)


_LOTS: Mapping[str, sa.Select[Any]] = {
    "sqlite": _lots(sa.func.hex),
    "postgresql": _lots(lambda column: sa.func.encode(column, "hex")),
}


class ShredStore:
    """Implements the shreds of `vault.ports.shreds`."""

    _database: Database

    async def intend_shred(
        self,
        shred: Shred,
        *,
        erasures: Sequence[Erasure] = (),
        spared: Sequence[RecordingId] = (),
        audit: Sequence[AuditEvent] = (),
    ) -> Sequence[Recording]:
        """Make the intent and the floor durable; return the recordings the shred must keep, as they are now."""
        values = _from_shred(shred)

        async def act(transaction: Transaction) -> Sequence[sa.Row[Any]]:
            if not await transaction.fetch(_BY_ID, {"key": shred.id}):
                await transaction.write(_INSERT, values)
                if shred.due_through is not None:
                    await transaction.write(_RAISE_FLOOR, {"new_period": shred.due_through})
                if shred.due_through is not None or shred.metadata_through or shred.drop_tenants:
                    floor = (await transaction.fetch(_FLOOR))[0].period
                    below = [row for row in await transaction.fetch(_OPEN) if _falls_under(row, shred, floor)]
                    kept = {row.id for row in below} | {rows.key(recording) for recording in spared}
                    await transaction.write(_KEEP, [{"shred": shred.id, "recording": key} for key in sorted(kept)])
                for erasure in erasures:
                    await begin_erasing(transaction, erasure, shred.id)
                transaction.audit(audit)
            return await transaction.fetch(_KEPT, {"key": shred.id})

        return [rows.to_recording(row) for row in await self._database.writer.run(act)]

    async def record_receipt(self, shred: str, receipt: ShredReceipt, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Attach the receipt; the first one stays. NotFound."""
        text = _receipt_text(receipt)

        async def act(transaction: Transaction) -> None:
            if await transaction.write(_SET_RECEIPT, {"key": shred, "new_receipt": text}):
                transaction.audit(audit)
            else:
                await _check_exists(transaction, shred)

        await self._database.writer.run(act)

    async def finish_shred(self, shred: str, *, at: datetime) -> None:
        """Mark the shred as fully certified; the first time stays. NotFound."""
        finished_at = rows.micros(at)

        async def act(transaction: Transaction) -> None:
            if not await transaction.write(_FINISH, {"key": shred, "new_finished_at": finished_at}):
                await _check_exists(transaction, shred)

        await self._database.writer.run(act)

    async def unfinished_shreds(self) -> Sequence[Shred]:
        """Return shreds without `finished_at`, oldest first."""
        return [_to_shred(row) for row in await self._database.fetch(_UNFINISHED)]

    async def due_lots(self, *, through: int, after: RecordingId | None, limit: int) -> Sequence[Lot]:
        """Return the next finished rows of audio periods up to `through`, in order, as lots."""
        key, period = b"", -1
        if after is not None:
            key = rows.key(after)
            period = (await self._database.fetch(_PERIOD, {"key": key}))[0].audio_period
        page = {"through": through, "after": key, "after_period": period, "page": max(limit, 0)}
        found = await self._database.fetch(_LOTS[self._database.engine.dialect.name], page)
        return await in_thread(lambda: [lot for row in found for lot in rows.to_lots(row)])


async def _check_exists(transaction: Transaction, shred: str) -> None:
    if not await transaction.fetch(_BY_ID, {"key": shred}):
        raise _unknown(shred)


def _falls_under(row: sa.Row[Any], shred: Shred, floor: int | None) -> bool:
    return (
        (floor is not None and row.audio_period <= floor)
        or row.tenant in shred.drop_tenants
        or shred.takes_month(row.tenant, row.metadata_period)
    )


def _from_shred(shred: Shred) -> rows.Values:
    return {
        "id": shred.id,
        "intended_at": rows.micros(shred.intended_at),
        "trigger": shred.trigger,
        "due_through": shred.due_through,
        "plan": codec.pack(
            {
                "changed": sorted(shred.changed),
                "drop": sorted(shred.drop_tenants),
                "metadata": dict(shred.metadata_through),
                "spared": [[tenant, month] for tenant, month in sorted(shred.spared)],
            }
        ),
        "receipt": None if shred.receipt is None else _receipt_text(shred.receipt),
        "finished_at": rows.maybe_micros(shred.finished_at),
    }


def _to_shred(row: sa.Row[Any]) -> Shred:
    plan = codec.unpack(row.plan)
    return Shred(
        id=row.id,
        intended_at=rows.moment(row.intended_at),
        trigger=row.trigger,
        due_through=row.due_through,
        metadata_through=plan.get("metadata", {}),
        spared=frozenset((TenantId(tenant), month) for tenant, month in plan.get("spared", ())),
        drop_tenants=frozenset(plan.get("drop", ())),
        changed=frozenset(plan.get("changed", ())),
        receipt=None if row.receipt is None else _receipt(row.receipt),
        finished_at=rows.maybe_moment(row.finished_at),
    )


def _receipt_text(receipt: ShredReceipt) -> str:
    return rfc8785.dumps(
        {
            "intent_id": receipt.intent_id,
            "epoch_destroyed": receipt.epoch_destroyed,
            "epoch_live": receipt.epoch_live,
            "root_version_destroyed": receipt.root_version_destroyed,
            "provider": receipt.provider,
            "assurance": receipt.assurance.value,
            "replicas": receipt.replicas,
            "unrecoverable_at": rows.micros(receipt.unrecoverable_at),
            "caches_clear_at": rows.micros(receipt.caches_clear_at),
        }
    ).decode()


def _receipt(text: str) -> ShredReceipt:
    stored = json.loads(text)
    return ShredReceipt(
        intent_id=stored["intent_id"],
        epoch_destroyed=stored["epoch_destroyed"],
        epoch_live=stored["epoch_live"],
        root_version_destroyed=stored["root_version_destroyed"],
        provider=stored["provider"],
        assurance=Assurance(stored["assurance"]),
        replicas=stored["replicas"],
        unrecoverable_at=rows.moment(stored["unrecoverable_at"]),
        caches_clear_at=rows.moment(stored["caches_clear_at"]),
    )


def _unknown(shred: str) -> NotFound:
    return NotFound(f"there is no shred {shred[:80]}")
