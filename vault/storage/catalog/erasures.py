"""Erasures and what became of each recording they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from vault.errors import Conflict, NotFound
from vault.ids import TenantId
from vault.model import AuditEvent, Recording, RecordingState
from vault.ports.erasures import Erasure, ErasureBasis, ErasureId, ErasureOutcome, ErasureState
from vault.storage.catalog import rows
from vault.storage.catalog.database import Database
from vault.storage.catalog.tables import erasure_recordings, erasures, recordings
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
_OUTCOMES = sa.select(_o.recording, _o.outcome, _o.shred).where(_o.erasure == sa.bindparam("key"))
_CLOSE = (
    sa.update(recordings)
    .where(_r.id == sa.bindparam("key"), _r.state != sa.literal_column("'shredded'"))
    .values(state=RecordingState.SHREDDING.value)
)
_TAKEN = (
    sa.select(_o.erasure, *recordings.columns)
    .join(recordings, recordings.c.id == _o.recording)
    .where(_o.shred == sa.bindparam("key"))
    .order_by(_o.erasure, _o.position)
)
_ID = attrgetter("id")


class ErasureStore:
    """Implements `vault.ports.catalog.ErasureRows`."""

    _database: Database

    async def save_erasure(
        self, erasure: Erasure, *, expected: ErasureState | None, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Insert or replace by compare-and-swap on the state; Conflict."""

        async def act(transaction: Transaction) -> None:
            found = await transaction.fetch(_STATE, {"key": erasure.id})
            stored = ErasureState(found[0].state) if found else None
            if stored is not expected:
                raise Conflict(f"{erasure.id} is {stored or 'not there'} by now; nothing was changed")
            if stored is None:
                await transaction.write(_INSERT, _from_erasure(erasure))
                await transaction.write(_INSERT_OUTCOME, _from_outcomes(erasure))
            else:
                await _replace(transaction, erasure)
            transaction.audit(audit)

        await self._database.writer.run(act)

    async def erasure(self, erasure: ErasureId) -> Erasure:
        """Return one; NotFound."""
        found = await self._erasures(sa.select(erasures).where(_e.id == erasure))
        if not found:
            raise NotFound(f"there is no erasure {erasure[:80]}")
        return found[0]

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

    async def erasures_of(self, shred: str) -> Sequence[tuple[Erasure, Sequence[Recording]]]:
        """Return the erasures of a shred with the recordings it took for each."""
        taken = await self._database.fetch(_TAKEN, {"key": shred})
        return [
            (await self.erasure(erasure), [rows.to_recording(row) for row in group])
            for erasure, group in groupby(taken, key=attrgetter("erasure"))
        ]

    async def _erasures(self, statement: sa.Select[Any]) -> Sequence[Erasure]:
        """Return the selected erasures with their outcomes: one statement, so one snapshot."""
        chosen = statement.subquery("chosen")
        joined = (
            sa.select(chosen, _o.recording, _o.outcome)
            .select_from(chosen.join(erasure_recordings, _o.erasure == chosen.c.id))
            .order_by(chosen.c.id.desc(), _o.position)
        )
        found = await self._database.fetch(joined)
        return [_to_erasure(list(group)) for _, group in groupby(found, key=_ID)]


async def begin_erasing(transaction: Transaction, erasure: Erasure, shred: str) -> None:
    """Save the erasure; what it erases now belongs to `shred`, and its recordings answer as shredded from here on."""
    fresh = await _replace(transaction, erasure)
    taken = [key for key, outcome in fresh.items() if outcome is ErasureOutcome.ERASING]
    await transaction.write(_SET_SHRED, [{"key": erasure.id, "at": key, "new_shred": shred} for key in taken])
    await transaction.write(_CLOSE, [{"key": key} for key in taken])


async def _replace(transaction: Transaction, erasure: Erasure) -> Mapping[bytes, ErasureOutcome]:
    """Replace what can change and return the outcomes that did."""
    values = _from_erasure(erasure)
    before = {row.recording: row.outcome for row in await transaction.fetch(_OUTCOMES, {"key": erasure.id})}
    fresh = {
        rows.key(recording): outcome
        for recording, outcome in erasure.recordings.items()
        if before.get(rows.key(recording)) != outcome.value
    }
    await transaction.write(_REPLACE, {"key": erasure.id, **{f"new_{name}": values[name] for name in _MUTABLE}})
    await transaction.write(
        _SET_OUTCOME, [{"key": erasure.id, "at": key, "new_outcome": outcome.value} for key, outcome in fresh.items()]
    )
    return fresh


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
