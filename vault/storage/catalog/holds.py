"""Holds, and the recordings they protect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

import sqlalchemy as sa

from vault.errors import Conflict, NotFound
from vault.ids import HoldId, RecordingId, TenantId
from vault.model import AuditEvent, CountedHold, Hold, HoldKind, HoldState, HoldTerms, RecordingState
from vault.ports.holds import MOST_HOLDS, LabelCounts, Member, Unlabelled
from vault.ports.revision import Revision
from vault.storage.catalog import rows
from vault.storage.catalog.database import Database, narrowed
from vault.storage.catalog.tables import (
    IS_TO_LABEL_AGAIN,
    IS_UNLABELLED,
    hold_recordings,
    holds,
    recordings,
)
from vault.storage.catalog.writer import Transaction

_h, _p = holds.c, hold_recordings.c
_STATE = sa.select(_h.state).where(_h.id == sa.bindparam("key"))
_INSERT = sa.insert(holds)
_INSERT_PROTECTED = sa.insert(hold_recordings)
_DROP_PROTECTED = sa.delete(hold_recordings).where(_p.hold == sa.bindparam("key"))
_KNOWN = sa.select(recordings.c.id).where(recordings.c.id.in_(sa.bindparam("keys", expanding=True)))
_COUNTS = ("held", "late")
_TERMS = tuple(each.name for each in holds.columns if each.name not in {"id", *_COUNTS, "labelled_through"})


def _replacing(names: Sequence[str]) -> sa.Update:
    replaced: rows.Values = {name: sa.bindparam(f"new_{name}") for name in names}
    return sa.update(holds).where(_h.id == sa.bindparam("key")).values(**replaced)


_REPLACE_TERMS = _replacing(_TERMS)
_REPLACE_COUNTS = _replacing(_COUNTS)
_LABEL_ANEW = _replacing(["labelled_through"])
_IDS_PER_QUERY = 500
_NONE_YET = b""
"""The place before every recording."""
_STANDING = (_h.state != HoldState.RELEASED.value, _p.too_late.is_(sa.false()))
_OF_KEYS = sa.and_(_p.recording.in_(sa.bindparam("keys", expanding=True)), *_STANDING)
_SAME = (
    sa.select(_p.hold, sa.func.count().label("n"))
    .select_from(hold_recordings.join(holds, _h.id == _p.hold))
    .where(
        _OF_KEYS,
        _h.state.in_([HoldState.PLACING.value, HoldState.ACTIVE.value]),
        _h.tenant == sa.bindparam("owner"),
        _h.kind == sa.bindparam("sort"),
        _h.matter == sa.bindparam("case"),
    )
    .group_by(_p.hold)
)
_FULL = (
    sa.select(_p.recording)
    .select_from(hold_recordings.join(holds, _h.id == _p.hold))
    .where(_OF_KEYS)
    .group_by(_p.recording)
    .having(sa.func.count() >= MOST_HOLDS)
    .limit(1)
)


def _with_recordings(statement: sa.Select[Any]) -> sa.Select[Any]:
    """Return the selected holds, each row with one of its recordings: one statement, so one snapshot."""
    chosen = statement.subquery("chosen")
    return (
        sa.select(chosen, _p.recording, _p.too_late)
        .select_from(chosen.outerjoin(hold_recordings, _p.hold == chosen.c.id))
        .order_by(chosen.c.created_at.desc(), chosen.c.id.desc(), _p.position)
    )


_BY_ID = sa.select(holds).where(_h.id == sa.bindparam("key"))
_BY_IDS = sa.select(holds).where(_h.id.in_(sa.bindparam("keys", expanding=True)))
_ON = (
    sa.select(holds)
    .join(hold_recordings, _p.hold == _h.id)
    .where(_p.recording == sa.bindparam("key"), _p.too_late.is_(sa.false()))
    .order_by(_h.created_at.desc(), _h.id.desc())
)
_BY_ID_IN = _BY_ID.where(_h.tenant == sa.bindparam("in_tenant"))
_MEMBERS = (
    sa.select(_p.recording, _p.too_late)
    .where(_p.hold == sa.bindparam("key"))
    .order_by(_p.recording.desc())
    .limit(sa.bindparam("most"))
)
_MEMBERS_BEFORE = _MEMBERS.where(_p.recording < sa.bindparam("before"))
_inner = hold_recordings.alias("inner_recordings")
# Found by hold and place, and not by reading all of the hold: it may have a million.
_LAST_SHOWN = (
    sa.select(_inner.c.recording)
    .where(_inner.c.hold == _h.id)
    .order_by(_inner.c.recording.desc())
    .limit(1)
    .offset(sa.bindparam("last"))
    .correlate(holds)
    .scalar_subquery()
)
_FIRST_MEMBERS = (
    sa.select(_h.id.label("hold"), _p.recording, _p.too_late)
    .select_from(
        holds.join(
            hold_recordings,
            sa.and_(_p.hold == _h.id, _p.recording >= sa.func.coalesce(_LAST_SHOWN, sa.bindparam("lowest", _NONE_YET))),
        )
    )
    .where(_h.id.in_(sa.bindparam("keys", expanding=True)))
    .order_by(_p.hold, _p.recording.desc())
)
_EARLIEST = (
    sa.select(sa.func.min(recordings.c.started_at))
    .select_from(hold_recordings.join(recordings, recordings.c.id == _p.recording))
    .where(_p.hold == sa.bindparam("key"), _p.too_late.is_(sa.false()))
)
_UNLABELLED = (
    sa.select(_h.id, _h.tenant, _h.state, _h.labelled_through)
    .where(IS_UNLABELLED, _h.state != HoldState.PLACING.value)
    .order_by(_h.id)
)
_TO_LABEL = (
    sa.select(_p.recording)
    .where(_p.hold == sa.bindparam("key"), _p.recording > sa.bindparam("after"), _p.too_late.is_(sa.false()))
    .order_by(_p.recording)
    .limit(sa.bindparam("most"))
)
_LABELLED = (
    sa.update(holds)
    .where(
        _h.id == sa.bindparam("key"),
        _h.labelled_through == sa.bindparam("before"),
        (_h.state == HoldState.RELEASED.value) == sa.bindparam("over", type_=sa.Boolean),
    )
    .values(labelled_through=sa.bindparam("through"))
)
_KEYS = _p.recording.in_(sa.bindparam("keys", expanding=True))
_AGAIN = sa.update(hold_recordings).where(_p.hold == sa.bindparam("its_hold"), _KEYS).values(label_again=sa.true())
_NOT_AGAIN = sa.update(hold_recordings).where(_KEYS, IS_TO_LABEL_AGAIN).values(label_again=None)
_TO_LABEL_AGAIN = (
    sa.select(_p.recording)
    .where(IS_TO_LABEL_AGAIN, _p.recording > sa.bindparam("after"))
    .distinct()
    .order_by(_p.recording)
    .limit(sa.bindparam("most"))
)
_DECIDED = [HoldState.ACTIVE.value, HoldState.RELEASE_REQUESTED.value]
_PROTECTED = (
    sa.select(_p.recording)
    .select_from(hold_recordings.join(holds, _h.id == _p.hold))
    .where(
        _KEYS,
        _p.too_late.is_(sa.false()),
        sa.or_(_h.state.in_(_DECIDED), _h.id.in_(sa.bindparam("pinned", expanding=True))),
    )
    .distinct()
)
_WAITING = sa.select(sa.func.count()).where(IS_UNLABELLED, _h.state.in_(_DECIDED))
_FAILED = (
    sa.select(sa.func.count(sa.distinct(_p.recording)))
    .select_from(hold_recordings.join(recordings, recordings.c.id == _p.recording))
    .where(IS_TO_LABEL_AGAIN, recordings.c.state != RecordingState.OPEN.value)
)
_ONE = _with_recordings(_BY_ID)
_ONE_IN = _with_recordings(_BY_ID_IN)


class HoldStore:
    """Implements `vault.ports.holds`."""

    _database: Database

    async def add_hold(self, hold: Hold, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; NotFound. Conflict also if that matter holds all of it already, or a recording has MOST_HOLDS."""

        async def act(transaction: Transaction) -> None:
            await _check_new(transaction, hold)
            await insert_hold(transaction, hold)
            transaction.audit(audit)

        await self._database.writer.run(act)

    async def revise_hold(self, hold: HoldId, revision: Revision[Hold]) -> Hold:
        """Replace; NotFound, also if it then names an unknown recording."""

        async def act(transaction: Transaction) -> Hold:
            before = _first(_to_holds(await transaction.fetch(_ONE, {"key": hold})), hold)
            after, audit = revision(before)
            if after != before:
                await _replace(transaction, before, after)
            transaction.audit(audit)
            return after

        return await self._database.writer.run(act)

    async def revise_terms(self, hold: HoldId, revision: Revision[CountedHold]) -> CountedHold:
        """Replace the terms alone; NotFound."""

        async def act(transaction: Transaction) -> CountedHold:
            before = _to_counted(_first(await transaction.fetch(_BY_ID, {"key": hold}), hold))
            after, audit = revision(before)
            if after != before:
                await _replace_terms(transaction, before, after)
            transaction.audit(audit)
            return after

        return await self._database.writer.run(act)

    async def hold(self, hold: HoldId, *, tenant: TenantId | None = None) -> Hold:
        """Return the hold, with `tenant` only if it is that tenant's; NotFound."""
        return _first(_to_holds(await self._database.fetch(*narrowed(_ONE, _ONE_IN, hold, tenant))), hold)

    async def holds(
        self, *, tenant: TenantId | None = None, states: Sequence[HoldState] = (), limit: int = 1000
    ) -> Sequence[Hold]:
        """Return holds with their recordings, newest first; `states` empty means all."""
        statement = sa.select(holds).order_by(_h.created_at.desc(), _h.id.desc()).limit(max(limit, 0))
        if tenant is not None:
            statement = statement.where(_h.tenant == tenant)
        if states:
            statement = statement.where(_h.state.in_([state.value for state in states]))
        return await self._fetch(statement)

    async def counted_hold(self, hold: HoldId, *, tenant: TenantId | None = None) -> CountedHold:
        """Return the hold without its recordings, with `tenant` only if it is that tenant's; NotFound."""
        found = await self._database.fetch(*narrowed(_BY_ID, _BY_ID_IN, hold, tenant))
        return _to_counted(_first(found, hold))

    async def counted_holds(self, *, tenant: TenantId | None = None, limit: int = 1000) -> Sequence[CountedHold]:
        """Return holds without their recordings, newest first."""
        statement = sa.select(holds).order_by(_h.created_at.desc(), _h.id.desc()).limit(max(limit, 0))
        if tenant is not None:
            statement = statement.where(_h.tenant == tenant)
        return [_to_counted(row) for row in await self._database.fetch(statement)]

    async def members(self, hold: HoldId, *, before: RecordingId | None = None, limit: int = 1000) -> Sequence[Member]:
        """Return a page of the recordings that the hold names, the newest id first."""
        values: dict[str, Any] = {"key": hold, "most": max(limit, 0)}
        if before is None:
            return [_to_member(row) for row in await self._database.fetch(_MEMBERS, values)]
        page = {**values, "before": rows.key(before)}
        return [_to_member(row) for row in await self._database.fetch(_MEMBERS_BEFORE, page)]

    async def first_members(self, holds: Sequence[HoldId], *, most: int) -> Mapping[HoldId, Sequence[Member]]:
        """Return up to `most` recordings of each hold, the newest id first."""
        found: defaultdict[HoldId, list[Member]] = defaultdict(list)
        for start in range(0, len(holds), _IDS_PER_QUERY):
            some = {"keys": list(holds[start : start + _IDS_PER_QUERY]), "last": most - 1}
            for row in await self._database.fetch(_FIRST_MEMBERS, some):
                found[HoldId(row.hold)].append(_to_member(row))
        return found

    async def earliest_start(self, hold: HoldId) -> datetime | None:
        """Return the start of the first call that the hold protects."""
        [(earliest,)] = await self._database.fetch(_EARLIEST, {"key": hold})
        return rows.maybe_moment(earliest)

    async def unlabelled_holds(self) -> Sequence[Unlabelled]:
        """Return the decided holds with recordings to label, oldest first."""
        return [
            Unlabelled(
                hold=HoldId(row.id),
                tenant=TenantId(row.tenant),
                released=row.state == HoldState.RELEASED.value,
                through=rows.recording_id(row.labelled_through) if row.labelled_through else None,
            )
            for row in await self._database.fetch(_UNLABELLED)
        ]

    async def to_label(self, hold: HoldId, *, after: RecordingId | None, limit: int) -> Sequence[RecordingId]:
        """Return a page of what the hold protects, or did."""
        page = {"key": hold, "after": _place(after), "most": limit}
        return [rows.recording_id(row.recording) for row in await self._database.fetch(_TO_LABEL, page)]

    async def labelled(
        self,
        hold: Unlabelled,
        *,
        through: RecordingId | None,
        before: RecordingId | None,
        again: Collection[RecordingId],
    ) -> bool:
        """Move the hold's place on, unless it has moved meanwhile."""

        async def act(transaction: Transaction) -> bool:
            moved = {
                "key": hold.hold,
                "over": hold.released,
                "before": _place(before),
                "through": None if through is None else rows.key(through),
            }
            if not await transaction.write(_LABELLED, moved):
                return False
            if again:
                await transaction.write(_AGAIN, {"its_hold": hold.hold, "keys": [rows.key(each) for each in again]})
            return True

        return await self._database.writer.run(act)

    async def to_label_again(self, *, after: RecordingId | None, limit: int) -> Sequence[RecordingId]:
        """Return a page of what could not be labelled, in order."""
        found = await self._database.fetch(_TO_LABEL_AGAIN, {"after": _place(after), "most": limit})
        return [rows.recording_id(row.recording) for row in found]

    async def labelled_again(self, recordings: Collection[RecordingId]) -> None:
        """Take these off what is to be tried again."""

        async def act(transaction: Transaction) -> None:
            await transaction.write(_NOT_AGAIN, {"keys": [rows.key(each) for each in recordings]})

        await self._database.writer.run(act)

    async def protected(
        self, recordings: Sequence[RecordingId], *, pinned: Collection[HoldId]
    ) -> AbstractSet[RecordingId]:
        """Return which of these a hold protects."""
        some = {"keys": [rows.key(each) for each in recordings], "pinned": list(pinned)}
        return {rows.recording_id(row.recording) for row in await self._database.fetch(_PROTECTED, some)}

    async def count_unlabelled(self) -> LabelCounts:
        """Count holds that wait and recordings that failed."""
        [(waiting,)] = await self._database.fetch(_WAITING)
        [(failed,)] = await self._database.fetch(_FAILED)
        return LabelCounts(waiting=waiting, failed=failed)

    async def hold_terms(self, *, states: Sequence[HoldState]) -> Sequence[HoldTerms]:
        """Return the terms of every hold in one of these states, newest first."""
        statement = sa.select(holds).where(_h.state.in_([state.value for state in states]))
        found = await self._database.fetch(statement.order_by(_h.created_at.desc(), _h.id.desc()))
        return [HoldTerms(**_terms(row)) for row in found]

    async def terms_of(self, holds: Sequence[HoldId]) -> Mapping[HoldId, HoldTerms]:
        """Return the terms of those of these holds that there are."""
        found: dict[HoldId, HoldTerms] = {}
        for start in range(0, len(holds), _IDS_PER_QUERY):
            some = {"keys": list(holds[start : start + _IDS_PER_QUERY])}
            found |= {HoldId(row.id): HoldTerms(**_terms(row)) for row in await self._database.fetch(_BY_IDS, some)}
        return found

    async def holds_on(self, recording: RecordingId) -> Sequence[HoldTerms]:
        """Return the terms of every hold that protects the recording, whatever its state, newest first."""
        found = await self._database.fetch(_ON, {"key": rows.key(recording)})
        return [HoldTerms(**_terms(row)) for row in found]

    async def _fetch(self, statement: sa.Select[Any]) -> Sequence[Hold]:
        """Return the holds that `statement` selects, each with its recordings."""
        return _to_holds(await self._database.fetch(_with_recordings(statement)))


async def _check_new(transaction: Transaction, hold: Hold) -> None:
    """Raise Conflict unless the hold adds a recording, and no recording is at its limit."""
    keys = [rows.key(recording) for recording in hold.recordings]
    covering: dict[str, int] = {}
    for start in range(0, len(keys), _IDS_PER_QUERY):
        some = keys[start : start + _IDS_PER_QUERY]
        same = {"keys": some, "owner": hold.tenant, "sort": hold.kind.value, "case": hold.matter}
        for row in await transaction.fetch(_SAME, same):
            covering[row.hold] = covering.get(row.hold, 0) + row.n
        full = await transaction.fetch(_FULL, {"keys": some})
        if full:
            raise Conflict(
                f"{rows.recording_id(full[0].recording)} has {MOST_HOLDS} holds, the most that a recording may have; "
                "nothing was placed",
                hint="each of them keeps it; release those whose matter is settled",
            )
    there = next((found for found, count in covering.items() if count == len(keys)), None)
    if there is not None:
        raise Conflict(
            f"{there} already holds all of these recordings for this matter; nothing was placed",
            hint=f"callvault holds review {there} records why it stays, and until when",
            hold=there,
        )


async def insert_hold(transaction: Transaction, hold: Hold) -> None:
    """Do what `HoldStore.add_hold` promises within a transaction."""
    if await transaction.fetch(_STATE, {"key": hold.id}):
        raise Conflict(f"{hold.id} exists already; nothing was changed")
    protected = _protected(hold)
    await _check_known(transaction, [key for key, _ in protected])
    await transaction.write(_INSERT, {**_from_hold(hold), **_counts(hold), "labelled_through": _NONE_YET})
    await _protect(transaction, hold.id, protected)


async def _replace(transaction: Transaction, before: Hold, after: Hold) -> None:
    protected = _protected(after)
    moved = protected != _protected(before)
    if moved:
        await _check_known(transaction, [key for key, _ in protected])
    await _replace_terms(transaction, before, after)
    if moved:
        counts = {f"new_{name}": count for name, count in _counts(after).items()}
        await transaction.write(_REPLACE_COUNTS, {"key": before.id, **counts})
        await transaction.write(_DROP_PROTECTED, {"key": before.id})
        await _protect(transaction, before.id, protected)


async def _replace_terms(transaction: Transaction, before: HoldTerms, after: HoldTerms) -> None:
    values = _from_hold(after)
    await transaction.write(_REPLACE_TERMS, {"key": before.id, **{f"new_{name}": values[name] for name in _TERMS}})
    if after.state is HoldState.RELEASED and before.state is not HoldState.RELEASED:
        # Its objects are to say that they are held no longer: durable with the release, done once its pins are gone.
        await transaction.write(_LABEL_ANEW, {"key": before.id, "new_labelled_through": _NONE_YET})


def _protected(hold: Hold) -> list[tuple[bytes, bool]]:
    """Return the recordings' keys, each with whether the hold came too late for it."""
    late = [(rows.key(recording), True) for recording in hold.too_late]
    return [*((rows.key(recording), False) for recording in hold.recordings), *late]


async def _protect(transaction: Transaction, hold: HoldId, protected: Sequence[tuple[bytes, bool]]) -> None:
    await transaction.write(
        _INSERT_PROTECTED,
        [
            {"hold": hold, "recording": key, "position": position, "too_late": too_late}
            for position, (key, too_late) in enumerate(protected)
        ],
    )


async def _check_known(transaction: Transaction, keys: Sequence[bytes]) -> None:
    for start in range(0, len(keys), _IDS_PER_QUERY):
        some = keys[start : start + _IDS_PER_QUERY]
        known = {row.id for row in await transaction.fetch(_KNOWN, {"keys": some})}
        for key in some:
            if key not in known:
                raise NotFound(f"there is no recording {rows.recording_id(key)}")


_F = TypeVar("_F")


def _first(found: Sequence[_F], hold: HoldId) -> _F:
    if not found:
        raise NotFound(f"there is no hold {hold[:80]}")
    return found[0]


def _place(recording: RecordingId | None) -> bytes:
    return _NONE_YET if recording is None else rows.key(recording)


def _counts(hold: Hold) -> rows.Values:
    return {"held": hold.held, "late": hold.late}


def _to_counted(row: sa.Row[Any]) -> CountedHold:
    return CountedHold(**_terms(row), held=row.held, late=row.late)


def _to_member(row: sa.Row[Any]) -> Member:
    return Member(recording=rows.recording_id(row.recording), too_late=row.too_late)


def _from_hold(hold: HoldTerms) -> rows.Values:
    return {
        "id": hold.id,
        "tenant": hold.tenant,
        "kind": hold.kind.value,
        "matter": hold.matter,
        "reason": hold.reason,
        "authority": hold.authority,
        "owner": hold.owner,
        "state": hold.state.value,
        "created_at": rows.micros(hold.created_at),
        "review_at": rows.micros(hold.review_at),
        "release_requested_by": hold.release_requested_by,
        "release_reason": hold.release_reason,
        "released_by": hold.released_by,
        "released_at": rows.maybe_micros(hold.released_at),
        "grace_until": rows.maybe_micros(hold.grace_until),
    }


def _to_holds(found: Sequence[sa.Row[Any]]) -> list[Hold]:
    return [_to_hold(list(group)) for _, group in groupby(found, key=attrgetter("id"))]


def _to_hold(group: Sequence[sa.Row[Any]]) -> Hold:
    row = group[0]
    protected = [(rows.recording_id(item.recording), item.too_late) for item in group if item.recording is not None]
    return Hold(
        **_terms(row),
        recordings=tuple(recording for recording, too_late in protected if not too_late),
        too_late=tuple(recording for recording, too_late in protected if too_late),
    )


def _terms(row: sa.Row[Any]) -> dict[str, Any]:
    return {
        "id": HoldId(row.id),
        "tenant": TenantId(row.tenant),
        "kind": HoldKind(row.kind),
        "matter": row.matter,
        "reason": row.reason,
        "authority": row.authority,
        "owner": row.owner,
        "state": HoldState(row.state),
        "created_at": rows.moment(row.created_at),
        "review_at": rows.moment(row.review_at),
        "release_requested_by": row.release_requested_by,
        "release_reason": row.release_reason,
        "released_by": row.released_by,
        "released_at": rows.maybe_moment(row.released_at),
        "grace_until": rows.maybe_moment(row.grace_until),
    }
