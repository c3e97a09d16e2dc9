"""Notes of open recordings: sealed rows, removed once the manifest contains them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from vault.errors import Conflict, NotFound, Refused
from vault.ids import RecordingId
from vault.model import AuditEvent, RecordingState
from vault.ports.recordings import Reindexed
from vault.storage.catalog import recording_sql, rows
from vault.storage.catalog.database import Database
from vault.storage.catalog.tables import IS_OPEN, recording_notes, recordings
from vault.storage.catalog.writer import Transaction

_n = recording_notes.c
_NOTES = sa.select(_n.seq, _n.sealed).where(_n.recording == sa.bindparam("key")).order_by(_n.seq)
_DROP = sa.delete(recording_notes).where(_n.recording == sa.bindparam("key"), _n.seq == sa.bindparam("at"))
_SET_FACTS = (
    sa.update(recordings)
    .where(recordings.c.id == sa.bindparam("key"), IS_OPEN)
    .values(
        sealed_facts=sa.bindparam("new_facts"),
        caller_token=sa.bindparam("new_caller"),
        called_token=sa.bindparam("new_called"),
    )
)
_REINDEX = (
    sa.update(recordings)
    .where(recordings.c.id == sa.bindparam("key"), recordings.c.sealed_facts == sa.bindparam("read_facts"))
    .values(caller_token=sa.bindparam("new_caller"), called_token=sa.bindparam("new_called"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Noting:
    recording: RecordingId
    key: bytes
    notes: Mapping[int, bytes]
    audit: Sequence[AuditEvent]


class NoteStore:
    """Implements `vault.ports.recordings` and `vault.ports.recordings`."""

    _database: Database

    async def put_notes(
        self, recording: RecordingId, notes: Mapping[int, bytes], *, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Insert or replace notes by number; NotFound, or Conflict if the row is no longer open."""
        await self._database.writer.submit(
            _put, _Noting(recording=recording, key=rows.key(recording), notes=notes, audit=audit)
        )

    async def notes(self, recording: RecordingId) -> Mapping[int, bytes]:
        """Return an open recording's sealed notes by number, in order."""
        found = await self._database.fetch(_NOTES, {"key": rows.key(recording)})
        return {row.seq: row.sealed for row in found}

    async def revise_facts(
        self,
        recording: RecordingId,
        *,
        sealed_facts: bytes,
        caller_token: str | None,
        called_token: str | None,
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Replace an open row's sealed facts and the tokens of its numbers; NotFound, Conflict if it is not open."""
        identity = rows.key(recording)
        new = {"new_facts": sealed_facts, "new_caller": caller_token, "new_called": called_token}

        async def act(transaction: Transaction) -> None:
            if await transaction.write(_SET_FACTS, {"key": identity, **new}):
                transaction.audit(audit)
                return
            found = await transaction.fetch(recording_sql.STATES, {"keys": [identity]})
            raise _not_open(recording, there=bool(found))

        await self._database.writer.run(act)

    async def reindex(self, rows_: Sequence[Reindexed], *, audit: Sequence[AuditEvent] = ()) -> int:
        """Replace tokens in one transaction; return in how many rows. Rows without facts or with other facts stay."""
        values = [
            {
                "key": rows.key(each.recording),
                "read_facts": each.sealed_facts,
                "new_caller": each.caller_token,
                "new_called": each.called_token,
            }
            for each in rows_
        ]
        changed = 0

        async def act(transaction: Transaction) -> None:
            nonlocal changed
            changed = sum([await transaction.write(_REINDEX, value) for value in values])
            if changed:
                transaction.audit(audit)

        await self._database.writer.run(act)
        return changed


async def _put(transaction: Transaction, notings: Sequence[_Noting]) -> Sequence[Refused | None]:
    found = await transaction.fetch(recording_sql.STATES, {"keys": sorted({noting.key for noting in notings})})
    states = {row.id: row.state for row in found}
    answers: list[Refused | None] = []
    values: dict[tuple[bytes, int], dict[str, Any]] = {}
    for noting in notings:
        if states.get(noting.key) != RecordingState.OPEN.value:
            answers.append(_not_open(noting.recording, there=noting.key in states))
            continue
        answers.append(None)
        transaction.audit(noting.audit)
        for seq, sealed in noting.notes.items():
            values[noting.key, seq] = {"recording": noting.key, "seq": seq, "sealed": sealed}
    await transaction.write(_DROP, [{"key": recording, "at": seq} for recording, seq in values])
    await transaction.write(recording_sql.INSERT_NOTES, list(values.values()))
    return answers


def _not_open(recording: RecordingId, *, there: bool) -> Refused:
    if not there:
        return NotFound(f"there is no recording {recording}")
    return Conflict(f"{recording} is no longer open; its notes stay as they were")
