"""Erasures, with the outcome for each recording they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from vault.errors import Conflict, NotFound
from vault.ids import RecordingId, TenantId
from vault.model import AuditEvent, Recording, RecordingState
from vault.ports.erasures import Erasure, ErasureBasis, ErasureId, ErasureOutcome, ErasureState
from vault.ports.revision import Revision
from vault.storage.catalog import rows
from vault.storage.catalog.database import Database, narrowed
from vault.storage.catalog.recording_sql import count_moved
from vault.storage.catalog.tables import ROW, erasure_recordings, erasures, recordings
from vault.storage.catalog.writer import Transaction

_e, _o, _r = erasures.c, erasure_recordings.c, recordings.c
_STATE = sa.select(_e.state).where(_e.id == sa.bindparam("key"))
_INSERT = sa.insert(erasures)
_INSERT_OUTCOME = sa.insert(erasure_recordings)
_MUTABLE = ("state", "decided_by", "decided_at")
_REPLACE = (
    sa.update(erasures)
    .where(_e.id == sa.bindparam("key"))
    .values(**{name: sa.bindparam(f"new_{name}") for name in _MUTABLE})
)
_OF_ERASURE = (_o.erasure == sa.bindparam("key"), _o.recording == sa.bindparam("at"))
_SET_OUTCOME = sa.update(erasure_recordings).where(*_OF_ERASURE).values(outcome=sa.bindparam("new_outcome"))
_SET_SHRED = sa.update(erasure_recordings).where(*_OF_ERASURE).values(shred=sa.bindparam("new_shred"))
_CLOSE = (
    sa.update(recordings)
    .where(_r.id == sa.bindparam("key"), _r.state != sa.literal_column("'shredded'"))
    .values(state=RecordingState.SHREDDING.value)
)
_OPEN_ONES = sa.and_(_r.id.in_(sa.bindparam("keys", expanding=True)), _r.state != sa.literal_column("'shredded'"))
_TAKEN = (
    sa.select(*ROW, _o.erasure)
    .join(recordings, recordings.c.id == _o.recording)
    .where(_o.shred == sa.bindparam("key"))
    .order_by(_o.erasure, _o.position)
)
_NAMING = (
    sa.select(*erasures.columns, _o.recording, _o.outcome)
    .join(erasure_recordings, _o.erasure == _e.id)
    .where(_o.recording == sa.bindparam("at"))
    .order_by(_e.id.desc())
)
_OPEN_OF_CASE = (
    sa.select(_o.erasure, _o.recording)
    .join(erasures, _e.id == _o.erasure)
    .where(
        _e.tenant == sa.bindparam("of"),
        _e.basis == sa.bindparam("on"),
        _e.case_reference == sa.bindparam("called"),
        _e.state.in_([ErasureState.REQUESTED.value, ErasureState.APPROVED.value]),
        _o.outcome.in_([ErasureOutcome.PENDING.value, ErasureOutcome.ERASING.value]),
    )
    .order_by(_e.id, _o.position)
)
_ID = attrgetter("id")


def _with_outcomes(statement: sa.Select[Any]) -> sa.Select[Any]:
    """Return the selected erasures, each row with the outcome of one recording: one statement, so one snapshot."""
    chosen = statement.subquery("chosen")
    return (
        sa.select(chosen, _o.recording, _o.outcome)
        .select_from(chosen.join(erasure_recordings, _o.erasure == chosen.c.id))
        .order_by(chosen.c.id.desc(), _o.position)
    )


_BY_ID = sa.select(erasures).where(_e.id == sa.bindparam("key"))
_ONE = _with_outcomes(_BY_ID)
_ONE_IN = _with_outcomes(_BY_ID.where(_e.tenant == sa.bindparam("in_tenant")))


class ErasureStore:
    """Implements `vault.ports.erasures`."""

    _database: Database

    async def add_erasure(self, erasure: Erasure, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; Conflict if it exists, or if another open one of its case names one of its recordings."""
        case = {"of": erasure.tenant, "on": erasure.basis.value, "called": erasure.case_reference}

        async def act(transaction: Transaction) -> None:
            if await transaction.fetch(_STATE, {"key": erasure.id}):
                raise Conflict(f"{erasure.id} already exists; nothing was changed")
            for row in await transaction.fetch(_OPEN_OF_CASE, case):
                if (recording := rows.recording_id(row.recording)) in erasure.recordings:
                    raise Conflict(
                        f"{row.erasure} of the same case is open and already names {recording}; nothing was changed",
                        hint=f"decide that one first: callvault erasures show {row.erasure}",
                    )
            await transaction.write(_INSERT, _from_erasure(erasure))
            await transaction.write(_INSERT_OUTCOME, _from_outcomes(erasure))
            transaction.audit(audit)

        await self._database.writer.run(act)

    async def revise_erasure(self, erasure: ErasureId, revision: Revision[Erasure]) -> Erasure:
        """Replace; NotFound."""

        async def act(transaction: Transaction) -> Erasure:
            before = _only(_to_erasures(await transaction.fetch(_ONE, {"key": erasure})), erasure)
            after, audit = revision(before)
            await _replace(transaction, before, after)
            transaction.audit(audit)
            return after

        return await self._database.writer.run(act)

    async def erasure(self, erasure: ErasureId, *, tenant: TenantId | None = None) -> Erasure:
        """Return one, with `tenant` only if it is that tenant's; NotFound."""
        return _only(_to_erasures(await self._database.fetch(*narrowed(_ONE, _ONE_IN, erasure, tenant))), erasure)

    async def erasures(
        self,
        *,
        tenant: TenantId | None = None,
        states: Sequence[ErasureState] = (),
        before: ErasureId | None = None,
        limit: int = 100,
    ) -> Sequence[Erasure]:
        """Return a page, newest id first."""
        statement = sa.select(erasures).order_by(_e.id.desc()).limit(max(limit, 0))
        if tenant is not None:
            statement = statement.where(_e.tenant == tenant)
        if states:
            statement = statement.where(_e.state.in_([state.value for state in states]))
        if before is not None:
            statement = statement.where(_e.id < before)
        return await self._erasures(statement)

    async def erasures_on(self, recording: RecordingId) -> Sequence[Erasure]:
        """Return the erasures that name the recording, newest first, each with only that recording's outcome."""
        found = await self._database.fetch(_NAMING, {"at": rows.key(recording)})
        return [_to_erasure([row]) for row in found]

    async def erasures_of(self, shred: str) -> Sequence[tuple[Erasure, Sequence[Recording]]]:
        """Return the erasures of a shred with the recordings it took for each."""
        taken = await self._database.fetch(_TAKEN, {"key": shred})
        return [
            (await self.erasure(erasure), [rows.to_recording(row[:-1]) for row in group])
            for erasure, group in groupby(taken, key=attrgetter("erasure"))
        ]

    async def _erasures(self, statement: sa.Select[Any]) -> Sequence[Erasure]:
        """Return the selected erasures with their outcomes."""
        return _to_erasures(await self._database.fetch(_with_outcomes(statement)))


async def begin_erasing(transaction: Transaction, erasure: Erasure, shred: str) -> None:
    """Save an approved erasure; Conflict if it is not approved, or if an outcome that `shred` would take has changed.

    From here on its recordings belong to `shred` and count as shredded.
    """
    before = _only(_to_erasures(await transaction.fetch(_ONE, {"key": erasure.id})), erasure.id)
    fresh = _fresh(before, erasure)
    settled = any(before.recordings[rows.recording_id(key)] is not ErasureOutcome.PENDING for key in fresh)
    if before.state is not ErasureState.APPROVED or settled:
        raise Conflict(f"{erasure.id} changed meanwhile; nothing was erased")
    await _replace(transaction, before, erasure)
    taken = [key for key, outcome in fresh.items() if outcome is ErasureOutcome.ERASING]
    await transaction.write(_SET_SHRED, [{"key": erasure.id, "at": key, "new_shred": shred} for key in taken])
    await count_moved(transaction, _OPEN_ONES, {"keys": taken}, to=RecordingState.SHREDDING)
    await transaction.write(_CLOSE, [{"key": key} for key in taken])


async def _replace(transaction: Transaction, before: Erasure, after: Erasure) -> None:
    """Replace the columns that can change."""
    if after == before:
        return
    values = _from_erasure(after)
    outcomes = _fresh(before, after).items()
    await transaction.write(_REPLACE, {"key": after.id, **{f"new_{name}": values[name] for name in _MUTABLE}})
    await transaction.write(
        _SET_OUTCOME, [{"key": after.id, "at": key, "new_outcome": outcome.value} for key, outcome in outcomes]
    )


def _fresh(before: Erasure, after: Erasure) -> Mapping[bytes, ErasureOutcome]:
    """Return the outcomes that changed, by the recordings' keys."""
    return {
        rows.key(recording): outcome
        for recording, outcome in after.recordings.items()
        if before.recordings.get(recording) is not outcome
    }


def _only(found: Sequence[Erasure], erasure: ErasureId) -> Erasure:
    if not found:
        raise NotFound(f"there is no erasure {erasure[:80]}")
    return found[0]


def _from_erasure(erasure: Erasure) -> rows.Values:
    return {
        "id": erasure.id,
        "tenant": erasure.tenant,
        "basis": erasure.basis.value,
        "case_reference": erasure.case_reference,
        "queue": erasure.queue,
        "state": erasure.state.value,
        "requested_by": erasure.requested_by,
        "requested_at": rows.micros(erasure.requested_at),
        "decided_by": erasure.decided_by,
        "decided_at": rows.maybe_micros(erasure.decided_at),
    }


def _from_outcomes(erasure: Erasure) -> list[rows.Values]:
    return [
        {
            "erasure": erasure.id,
            "recording": rows.key(recording),
            "position": position,
            "outcome": outcome.value,
            "shred": None,
        }
        for position, (recording, outcome) in enumerate(erasure.recordings.items())
    ]


def _to_erasures(found: Sequence[sa.Row[Any]]) -> list[Erasure]:
    return [_to_erasure(list(group)) for _, group in groupby(found, key=_ID)]


def _to_erasure(group: Sequence[sa.Row[Any]]) -> Erasure:
    row = group[0]
    return Erasure(
        id=ErasureId(row.id),
        tenant=TenantId(row.tenant),
        basis=ErasureBasis(row.basis),
        case_reference=row.case_reference,
        queue=row.queue,
        state=ErasureState(row.state),
        requested_by=row.requested_by,
        requested_at=rows.moment(row.requested_at),
        recordings={rows.recording_id(item.recording): ErasureOutcome(item.outcome) for item in group},
        decided_by=row.decided_by,
        decided_at=rows.maybe_moment(row.decided_at),
    )
