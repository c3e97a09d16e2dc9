"""Recordings, their segments and leaf counters."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from vault.errors import Conflict, GenerationPassed, Invalid, NotFound, Refused, TooLarge, TooLate
from vault.format.names import recording_prefix, tail_below
from vault.ids import NodeId, RecordingId, TenantId, TokenId
from vault.model import (
    EMPTY,
    INDEX_LEAF,
    AuditEvent,
    Cohort,
    Container,
    Content,
    Examined,
    Misdeclared,
    Part,
    Recording,
    RecordingKeys,
    RecordingState,
    SegmentRef,
)
from vault.ports.recordings import Kept, RecordingQuery
from vault.ports.shreds import Undeleted
from vault.storage.catalog import object_lists, partitions, recording_sql, rows
from vault.storage.catalog.database import Database, narrowed
from vault.storage.catalog.tables import recordings
from vault.storage.catalog.writer import Transaction
from vault.threads import in_thread

_TOKENS_PER_QUERY = 500
_IDS_PER_QUERY = 500
_STRETCHES = 12
_ROWS_A_TURN = 200
"""A turn of the event loop that makes so many rows into recordings takes about 4 ms."""
_FINAL = (RecordingState.SEALED, RecordingState.TRUNCATED)
_r = recordings.c
_FIRST = -(1 << 63)
"""A value before every place in an order."""


async def _whole(found: Sequence[sa.Row[Any]]) -> Sequence[Recording]:
    """Return the recordings of whole rows; calls and probes have their turn in between."""
    made = [rows.to_recording(row) for row in found[:_ROWS_A_TURN]]
    for start in range(_ROWS_A_TURN, len(found), _ROWS_A_TURN):
        await asyncio.sleep(0)
        made += [rows.to_recording(row) for row in found[start : start + _ROWS_A_TURN]]
    return made


def _names(recordings: Sequence[RecordingId], places: Sequence[sa.Row[Any]]) -> Mapping[RecordingId, Sequence[str]]:
    found: dict[RecordingId, Sequence[str]] = dict.fromkeys(recordings, ())
    for key, period, tenant, objects in map(tuple, places):
        recording = rows.recording_id(key)
        prefix = recording_prefix(TenantId(tenant), period, recording)
        found[recording] = [prefix + tail_below(*each.split(":")) for each in objects.split(",")]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Creation:
    recording: Recording
    values: Mapping[str, Any]
    elsewhere: Sequence[str]
    audit: Sequence[AuditEvent]
    begun_before: bool
    notes: Mapping[int, bytes]

    @property
    def generation(self) -> int:
        """The older generation of its two coordinates."""
        return min(self.recording.audio.cohort.generation, self.recording.metadata.cohort.generation)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Storing:
    """Objects to store for one recording; with `final`, its finish too."""

    recording: RecordingId
    key: bytes
    objects: Sequence[Mapping[str, Any]]
    stored_bytes: int | None
    final: Mapping[str, Any] | None = None
    examined: Mapping[str, Any] | None = None
    audit: Sequence[AuditEvent] = ()


class RecordingStore:
    """Implements `recordings`, `open_recordings`, `leaves` and `due` of `vault.ports`."""

    _database: Database

    async def reserve_leaves(self, cohort: Cohort, count: int) -> int:
        """Take `count` consecutive leaves; TooLarge when the cohort has none left, other errors as in the port."""
        if count < 1:
            raise Invalid("at least one leaf must be reserved")
        place = {
            "in_tenant": cohort.tenant,
            "in_part": cohort.part.value,
            "in_period": cohort.period,
            "in_generation": cohort.generation,
        }

        async def act(transaction: Transaction) -> int:
            floor = (await transaction.fetch(recording_sql.GENERATION_FLOOR))[0].generation
            if floor is not None and cohort.generation < floor:
                raise _passed(cohort.generation)
            found = await transaction.fetch(recording_sql.NEXT_LEAF, place)
            first: int = found[0].next_leaf if found else 0
            if first + count > INDEX_LEAF:
                raise TooLarge(f"tenant {cohort.tenant} has no leaves left in cohort {cohort.part} {cohort.period}")
            if found:
                await transaction.write(recording_sql.MOVE_COUNTER, {**place, "new_next": first + count})
            else:
                await transaction.write(
                    recording_sql.INSERT_COUNTER,
                    {
                        "tenant": cohort.tenant,
                        "part": cohort.part.value,
                        "period": cohort.period,
                        "generation": cohort.generation,
                        "next_leaf": count,
                    },
                )
            return first

        return await self._database.writer.run(act)

    async def make_room(self, periods: Collection[int]) -> None:
        """Make the partitions of these periods, if the database has partitions."""
        await self._database.writer.run(lambda transaction: partitions.ensure(transaction, periods))

    async def close_generations(
        self, below: int, *, since: int, audit: Sequence[AuditEvent] = ()
    ) -> Mapping[Cohort, int]:
        """Raise the floor and read the counters, in one transaction."""

        async def act(transaction: Transaction) -> Sequence[sa.Row[Any]]:
            await transaction.write(recording_sql.CLOSE_GENERATIONS, {"new_generation": below})
            transaction.audit(audit)
            return await transaction.fetch(recording_sql.RESERVED, {"since": since, "below": below})

        return {
            Cohort(
                tenant=TenantId(row.tenant), part=Part(row.part), period=row.period, generation=row.generation
            ): row.next_leaf
            for row in await self._database.writer.run(act)
        }

    async def create_recording(
        self,
        recording: Recording,
        *,
        elsewhere: Sequence[str] = (),
        begun_before: bool = False,
        notes: Mapping[int, bytes] = MappingProxyType({}),
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Insert a new row; Conflict, TooLate or GenerationPassed as in the port."""
        creation = _Creation(
            recording=recording,
            values=rows.from_recording(recording),
            elsewhere=elsewhere,
            audit=audit,
            begun_before=begun_before,
            notes=notes,
        )
        await self._database.writer.submit(_create, creation)

    async def recording(self, recording: RecordingId, *, tenant: TenantId | None = None) -> Recording:
        """Return the row, with `tenant` only if it is that tenant's; NotFound."""
        found = await self._database.fetch(
            *narrowed(recording_sql.BY_ID, recording_sql.BY_ID_IN, rows.key(recording), tenant)
        )
        if not found:
            raise _unknown(recording)
        return rows.to_recording(found[0])

    async def keys_of(
        self, recordings: Sequence[RecordingId], *, tenant: TenantId | None = None
    ) -> Mapping[RecordingId, RecordingKeys]:
        """Return where the keys of these are, with `tenant` only that tenant's."""
        found: dict[RecordingId, RecordingKeys] = {}
        for start in range(0, len(recordings), _IDS_PER_QUERY):
            keys = {"keys": [*map(rows.key, recordings[start : start + _IDS_PER_QUERY])]}
            some = (
                (recording_sql.KEYS_OF, keys)
                if tenant is None
                else (recording_sql.KEYS_OF_IN, {**keys, "in_tenant": tenant})
            )
            found |= {one.id: one for one in map(rows.to_keys, await self._database.fetch(*some))}
        return found

    async def recording_by_call(self, tenant: TenantId, tokens: Sequence[str]) -> Recording | None:
        """Return the row that has one of these call tokens, the newest if there are several."""
        found = sorted(
            await self._database.fetch(recording_sql.BY_CALL, {"tenant_id": tenant, "tokens": list(tokens)}),
            key=lambda row: row.id,
            reverse=True,
        )
        return rows.to_recording(found[0]) if found else None

    async def recordings_by_object(self, tenant: TenantId, tokens: Sequence[str], *, limit: int) -> Sequence[Recording]:
        """Return the newest rows that have one of these object tokens, newest first."""
        values = {"tenant_id": tenant, "tokens": list(tokens), "most": limit}
        return await _whole(await self._database.fetch(recording_sql.BY_OBJECT, values))

    async def recordings(self, query: RecordingQuery) -> Sequence[Recording]:
        """Return one page."""
        if query.contradicts:
            return []
        last = None
        if query.before is not None:
            place = narrowed(recording_sql.PLACE, recording_sql.PLACE_IN, rows.key(query.before), query.tenant)
            at = await self._database.fetch(*place)
            if not at:
                return []
            last = at[0].retain_until if query.by_expiry else at[0].started_at
        return await _whole(await self._listed(query, last))

    async def _listed(self, query: RecordingQuery, last: int | None) -> Sequence[sa.Row[Any]]:
        """Return the rows of a page, found in the way that reads the fewest others."""
        days: Sequence[int] = ()
        if query.measures and query.tenant is not None:
            days = [row.day for row in await self._database.fetch(recording_sql.measured(query, last))]
            if not days:
                return []
        if await self._few_in_state(query):
            return await self._database.fetch(recording_sql.page(query, last, few=True))
        if days:
            return await self._on_days(query, last, days)
        by_start = not query.measures and not query.by_expiry and not query.ahead
        if query.held and query.under is None and by_start and await self._holds_much(query.tenant):
            many = recording_sql.LOOKED_THROUGH
            found = await self._database.fetch(recording_sql.page(query, last, looked_through=many))
            if len(found) == query.limit or not await self._database.fetch(recording_sql.beyond(query, last, many)):
                return found
        return await self._database.fetch(recording_sql.page(query, last))

    async def _few_in_state(self, query: RecordingQuery) -> bool:
        """Tell whether the state of a query finds so few rows that its other filters are looked at in each of them."""
        if query.state is None or query.under is not None:
            return False
        if not (query.by_expiry or query.measures or query.held):
            return False
        asked: dict[str, Any] = {"in_state": query.state.value}
        counted = (
            (recording_sql.COUNT_IN_STATE, asked)
            if query.tenant is None
            else (recording_sql.COUNT_IN_STATE_OF, {**asked, "tenant_id": query.tenant})
        )
        return int((await self._database.fetch(*counted))[0].n) <= recording_sql.LOOKED_THROUGH

    async def _on_days(self, query: RecordingQuery, last: int | None, days: Sequence[int]) -> Sequence[sa.Row[Any]]:
        """Return the rows of a page that began on one of these days, the newest first; others are hardly read."""
        found: list[sa.Row[Any]] = []
        for within in recording_sql.stretches(days, 1 if query.by_expiry else _STRETCHES):
            rest = replace(query, limit=query.limit - len(found))
            found += await self._database.fetch(recording_sql.page(rest, last, within=within))
            if len(found) >= query.limit:
                break
        return found

    async def _holds_much(self, tenant: TenantId | None) -> bool:
        counted = (
            (recording_sql.COUNT_HELD, None) if tenant is None else (recording_sql.COUNT_HELD_OF, {"tenant_id": tenant})
        )
        return int((await self._database.fetch(*counted))[0].n) > recording_sql.LOOKED_THROUGH

    async def open_recordings(self, *, node: NodeId | None = None) -> Sequence[Recording]:
        """Return every row in state open, or one node's, the first call first."""
        statement = recording_sql.OPEN if node is None else recording_sql.OPEN.where(_r.node == node)
        return await _whole(await self._database.fetch(statement))

    async def due_recordings(
        self,
        *,
        through: int,
        after: RecordingId | None,
        limit: int,
        part: Part = Part.AUDIO,
        tenant: TenantId | None = None,
    ) -> Sequence[Recording]:
        """Return finished rows whose part is of a period up to `through` and has no certificate."""
        order = "retain_until" if tenant is not None else "audio_period"
        place = {**_due(through, tenant), **await self._after(after, order), "page": max(limit, 0)}
        if part is Part.METADATA:
            del place["after_place"]
        found = await self._database.fetch(recording_sql.DUE[part, tenant is not None], place)
        return await _whole(found)

    async def doubtful_recordings(
        self, *, through: int, now: datetime, after: RecordingId | None, limit: int
    ) -> Sequence[Recording]:
        """Return those of `due_recordings` that a later date or a hold in force may keep."""
        after_that = await self._after(after, "audio_period")
        place = {"through": through, "now": rows.micros(now), **after_that, "page": max(limit, 0)}
        return await _whole(await self._database.fetch(recording_sql.DOUBTFUL, place))

    async def count_due_cohorts(self, *, through: int) -> Mapping[Cohort, int]:
        """Count due rows by cohort of their audio."""
        return {
            Cohort(
                tenant=TenantId(row.tenant),
                part=Part.AUDIO,
                period=row.audio_period,
                generation=row.audio_generation,
            ): int(row.n)
            for row in await self._database.fetch(recording_sql.COUNT_COHORTS, {"through": through})
        }

    async def exceptional_recordings(
        self, *, through: int, now: datetime, tenants: Collection[TenantId], after: RecordingId | None, limit: int
    ) -> Sequence[Recording]:
        """Return those of `due_recordings` that their cohort alone does not decide about."""
        place = {"through": through, "now": rows.micros(now), "tenants": sorted(tenants), "page": max(limit, 0)}
        found = await self._database.fetch(
            recording_sql.EXCEPTIONAL, {**place, **await self._after(after, "audio_period")}
        )
        return await _whole(found)

    async def changed_recordings(
        self, tenant: TenantId, *, through: datetime, started_to: datetime, after: RecordingId | None, limit: int
    ) -> Sequence[Recording]:
        """Return the tenant's finished rows captured up to `through`, of calls begun up to `started_to`."""
        place = {
            "tenant_id": tenant,
            "through": rows.micros(through),
            "started_to": rows.micros(started_to),
            **await self._after(after, "started_at"),
            "page": max(limit, 0),
        }
        return await _whole(await self._database.fetch(recording_sql.CHANGED, place))

    async def _after(self, recording: RecordingId | None, order: str) -> dict[str, Any]:
        """Return the parameters after which a page continues in one of the orders."""
        if recording is None:
            return {"after_place": _FIRST, "after": b""}
        key = rows.key(recording)
        [found] = await self._database.fetch(recording_sql.PLACE, {"key": key})
        return {"after_place": getattr(found, order), "after": key}

    async def count_live(self, tenant: TenantId, *, through: datetime) -> int:
        """Count the tenant's rows captured up to `through` of which a part has no certificate."""
        at = rows.micros(through)
        day = at // rows.DAY
        place = {"tenant_id": tenant, "day": day, "day_start": day * rows.DAY, "through": at}
        return int((await self._database.fetch(recording_sql.COUNT_LIVE, place))[0][0])

    async def count_due(self, *, through: int, part: Part = Part.AUDIO, tenant: TenantId | None = None) -> int:
        """Count the rows that `due_recordings` pages through."""
        found = await self._database.fetch(recording_sql.COUNT_DUE[part, tenant is not None], _due(through, tenant))
        return int(found[0][0])

    async def undeleted_recordings(self, *, after: RecordingId | None, limit: int) -> Sequence[Undeleted]:
        """Return shredded recordings whose objects are not yet verified absent, in id order."""
        found = await self._database.fetch(recording_sql.UNDELETED, {"after": _key(after), "page": max(limit, 0)})
        return [Undeleted(rows.recording_id(key), *rest) for key, *rest in map(tuple, found)]

    async def count_undeleted(self, *, tenant: TenantId | None = None) -> int:
        """Count the rows of `undeleted_recordings` and `unconfirmed_metadata`, each recording once."""
        of_tenant = {} if tenant is None else {"in_tenant": tenant}
        found = await self._database.fetch(recording_sql.COUNT_UNDELETED[tenant is not None], of_tenant)
        return sum(int(row[0]) for row in found)

    async def unconfirmed_metadata(self, *, after: RecordingId | None, limit: int) -> Sequence[Recording]:
        """Return rows whose metadata went alone and has no final certificate yet, in id order."""
        found = await self._database.fetch(recording_sql.UNCONFIRMED, {"after": _key(after), "page": max(limit, 0)})
        return await _whole(found)

    async def count_recordings(self) -> Mapping[RecordingState, int]:
        """Count rows per state, zeros included."""
        counts = {row.state: int(row.n) for row in await self._database.fetch(recording_sql.COUNT)}
        return {state: counts.get(state.value, 0) for state in RecordingState}

    async def count_kept(self, tenant: TenantId) -> Kept:
        """Count the recordings that are not shredded, and how many of them are held."""
        found = (await self._database.fetch(recording_sql.COUNT_KEPT, {"tenant_id": tenant}))[0]
        return Kept(live=int(found.live), held=found.held)

    async def oldest_due(self, *, now: datetime, tenant: TenantId | None = None) -> datetime | None:
        """Return the earliest retain-until that has passed and is neither held nor in a release's grace."""
        place: dict[str, Any] = {"now": rows.micros(now)}
        if tenant is None:
            found = await self._database.fetch(recording_sql.OLDEST_DUE, place)
        else:
            found = await self._database.fetch(recording_sql.OLDEST_DUE_OF, {**place, "tenant_id": tenant})
        return rows.moment(found[0].retain_until) if found else None

    async def add_segments(
        self, segments: Sequence[SegmentRef], *, stored_bytes: int | None = None, examined: Examined | None = None
    ) -> None:
        """Record verified objects of one recording; a repeated index replaces what was recorded for it."""
        if not segments:
            return
        recording = segments[0].recording
        if any(ref.recording != recording for ref in segments):
            raise Invalid("objects of one recording are recorded together; nothing was written")
        await self._database.writer.submit(
            _store,
            _Storing(
                recording=recording,
                key=rows.key(recording),
                objects=[rows.from_segment(ref) for ref in segments],
                stored_bytes=stored_bytes,
                examined=_examined(recording, examined),
            ),
        )

    async def misdeclared(self, *, since: datetime) -> Sequence[Misdeclared]:
        """Count recordings since then whose content was not as declared, by recorder, declaration and content."""
        return [
            Misdeclared(
                recorder=None if row.misdeclared_by is None else TokenId(row.misdeclared_by),
                tenant=TenantId(row.tenant),
                declared=Container(row.container),
                content=Content(row.content),
                count=row.found,
            )
            for row in await self._database.fetch(recording_sql.MISDECLARED, {"since": rows.micros(since)})
        ]

    async def segments(self, recording: RecordingId) -> Sequence[SegmentRef]:
        """Return the recording's objects in index order, the manifest first."""
        return (await self.segments_of([recording]))[recording]

    async def segments_of(self, recordings: Sequence[RecordingId]) -> Mapping[RecordingId, Sequence[SegmentRef]]:
        """Return the objects of many recordings, each in index order."""
        found: dict[RecordingId, list[SegmentRef]] = {recording: [] for recording in recordings}
        keys = [*map(rows.key, recordings)]
        within = await partitions.stretch(self._database, keys)
        for row in await self._database.fetch(recording_sql.SEGMENTS_OF, {"keys": keys, **within}):
            ref = rows.to_segment(row)
            found[ref.recording].append(ref)
        without = [rows.key(recording) for recording, refs in found.items() if not refs]
        for objects in await object_lists.listed(self._database, without):
            found[objects[0].recording].extend(objects)
        return found

    async def object_names(self, recordings: Sequence[RecordingId]) -> Mapping[RecordingId, Sequence[str]]:
        """Return the names of the objects of many recordings that have a row each."""
        found: dict[RecordingId, Sequence[str]] = {}
        dialect = self._database.engine.dialect.name
        for start in range(0, len(recordings), _ROWS_A_TURN):
            share = recordings[start : start + _ROWS_A_TURN]
            keys = [*map(rows.key, share)]
            within = await partitions.stretch(self._database, keys)
            places = await self._database.fetch(recording_sql.PLACES_OF[dialect], {"keys": keys, **within})
            found |= await in_thread(_names, share, places)  # a long call has many objects
        return found

    async def finish_recording(
        self,
        recording: RecordingId,
        *,
        state: RecordingState,
        reason: str | None,
        ended_at: datetime,
        stored_bytes: int,
        objects: Sequence[SegmentRef],
        examined: Examined | None = None,
        lasted: timedelta | None = None,
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Move open → sealed | truncated.

        A repetition leaves the row unchanged but records its objects: after a commit of unknown outcome the manifest is
        sealed again, and the second one is in the store.
        """
        if state not in _FINAL:
            raise Invalid("the final state of a recording is sealed or truncated")
        if any(ref.recording != recording for ref in objects):
            raise Invalid(f"the objects of {recording} name another recording; nothing was written")
        identity = rows.key(recording)
        await self._database.writer.submit(
            _store,
            _Storing(
                recording=recording,
                key=identity,
                objects=[rows.from_segment(ref) for ref in objects],
                stored_bytes=stored_bytes,
                final={
                    "key": identity,
                    "new_state": state.value,
                    "new_reason": reason,
                    "new_end": rows.micros(ended_at),
                    "new_bytes": stored_bytes,
                    "new_lasted": rows.whole_ms(lasted),
                },
                examined=_examined(recording, examined),
                audit=audit,
            ),
        )

    async def update_media(self, recording: Recording) -> None:
        """Replace the media descriptor; NotFound, or Conflict if the row is no longer open."""
        identity = rows.key(recording.id)
        values = {f"new_{name}": value for name, value in rows.from_media(recording.media).items()}

        async def act(transaction: Transaction) -> None:
            if await transaction.write(recording_sql.SET_MEDIA, {"key": identity, **values}):
                return
            if not await transaction.fetch(recording_sql.STATES, {"keys": [identity]}):
                raise _unknown(recording.id)
            raise Conflict(f"{recording.id} is no longer open; its media descriptor stays")

        await self._database.writer.run(act)


def _examined(recording: RecordingId, examined: Examined | None) -> Mapping[str, Any] | None:
    if examined is None:
        return None
    return {
        "key": rows.key(recording),
        **{f"new_{name}": value for name, value in rows.from_examined(examined).items()},
    }


def _passed(generation: int) -> GenerationPassed:
    return GenerationPassed(f"generation {generation} of coordinates is closed: nothing can begin in it")


async def _create(transaction: Transaction, creations: Sequence[_Creation]) -> Sequence[Refused | None]:
    """Insert all whose cohorts are above the floors and whose call key is free, in one statement."""
    keys = sorted({creation.values["id"] for creation in creations})
    found = await transaction.fetch(recording_sql.FLOOR_AND_FOUND, {"keys": keys})
    floor, oldest = next((row.period, row.generation) for row in found if row.id is None)
    used: set[bytes] = {row.id for row in found if row.id is not None}
    answers: list[Refused | None] = []
    admitted: list[_Creation] = []
    for creation in creations:
        identity, period = creation.values["id"], creation.values["audio_period"]
        if identity in used:
            answers.append(Conflict(f"{creation.recording.id} exists"))
        elif floor is not None and period <= floor:
            answers.append(TooLate(f"period {period} is already being swept: no recording can begin in it"))
        elif oldest is not None and creation.generation < oldest and not creation.begun_before:
            answers.append(_passed(creation.generation))
        else:
            used.add(identity)
            admitted.append(creation)
            answers.append(None)
    admitted = await _not_elsewhere(transaction, admitted)
    born = {creation.values["id"] for creation in admitted}
    insert = recording_sql.INSERT_UNLESS_TAKEN[transaction.dialect]
    if await transaction.write(insert, [creation.values for creation in admitted]) != len(admitted):
        born = {row.id for row in await transaction.fetch(recording_sql.FOUND, {"keys": sorted(born)})}
    notes: list[Mapping[str, Any]] = []
    for place, creation in enumerate(creations):
        if answers[place] is not None:
            continue
        if (identity := creation.values["id"]) in born:
            transaction.audit(creation.audit)
            transaction.count(creation.recording.tenant, creation.values["state"], 1)
            _measure(transaction, creation.values)
            if rows.is_live(creation.values):
                transaction.count_live(creation.recording.tenant, creation.values["created_at"], 1)
            notes += ({"recording": identity, "seq": seq, "sealed": note} for seq, note in creation.notes.items())
        else:
            tenant = creation.recording.tenant
            answers[place] = Conflict(f"tenant {tenant} already has a recording with this call key")
    await transaction.write(recording_sql.INSERT_NOTES, notes)
    return answers


def _measure(transaction: Transaction, values: Mapping[str, Any]) -> None:
    """Widen the bounds of its day for a recording that is there only now and has ended."""
    if values["ended_at"] is not None:
        transaction.measure(values["tenant"], values["started_at"], values["stored_bytes"], values["lasted_ms"])


async def _not_elsewhere(transaction: Transaction, creations: Sequence[_Creation]) -> list[_Creation]:
    """Return the creations whose call no other cohort has; within their own cohort the unique index checks."""
    tokens = sorted({token for creation in creations for token in creation.elsewhere})
    taken: set[tuple[str, str]] = set()
    for start in range(0, len(tokens), _TOKENS_PER_QUERY):
        some = {"tokens": tokens[start : start + _TOKENS_PER_QUERY]}
        taken |= {(row.tenant, row.call_token) for row in await transaction.fetch(recording_sql.TAKEN, some)}
    return [
        creation
        for creation in creations
        if taken.isdisjoint((creation.recording.tenant, token) for token in creation.elsewhere)
    ]


async def _store(transaction: Transaction, storings: Sequence[_Storing]) -> Sequence[Refused | None]:
    """Store objects, byte counts and finishes; of several objects at one index the last one counts."""
    found = await transaction.fetch(recording_sql.STATES, {"keys": sorted({storing.key for storing in storings})})
    states = {row.id: RecordingState(row.state) for row in found}
    tenants = {row.id: row.tenant for row in found}
    periods = {row.id: row.audio_period for row in found}
    starts = {row.id: row.started_at for row in found}
    answers: list[Refused | None] = []
    objects: dict[tuple[bytes, int], Mapping[str, Any]] = {}
    lengths: list[Mapping[str, Any]] = []
    heads: list[Mapping[str, Any]] = []
    finishes: list[Mapping[str, Any]] = []
    freed: list[Mapping[str, Any]] = []
    for storing in storings:
        state = states.get(storing.key)
        if state is None:
            answers.append(_unknown(storing.recording))
            continue
        answers.append(None)
        if state in (RecordingState.SHREDDING, RecordingState.SHREDDED):
            continue  # too late: the row has a final state already, and deletion lists the objects by prefix
        within = {"audio_period": periods[storing.key]}
        objects.update({(row["recording"], row["number"]): {**row, **within} for row in storing.objects})
        if state is not RecordingState.OPEN:
            continue
        if storing.examined is not None:
            heads.append(storing.examined)
        if storing.final is not None:
            finishes.append(storing.final)
            transaction.count(tenants[storing.key], state.value, -1)
            transaction.count(tenants[storing.key], storing.final["new_state"], 1)
            transaction.measure(
                *(tenants[storing.key], starts[storing.key]), storing.final["new_bytes"], storing.final["new_lasted"]
            )
            if (storing.final["new_state"], storing.final["new_reason"]) == (RecordingState.TRUNCATED.value, EMPTY):
                freed.append({"key": storing.key, "new_token": rows.own_token(storing.key)})
            states[storing.key] = RecordingState(storing.final["new_state"])
            transaction.audit(storing.audit)
        elif storing.stored_bytes is not None:
            lengths.append({"key": storing.key, "new_bytes": storing.stored_bytes})
    await transaction.write(recording_sql.SET_BYTES, lengths)
    await transaction.write(recording_sql.SET_HEARD, heads)  # while the rows are open
    await transaction.write(recording_sql.FINISH, finishes)
    await transaction.write(recording_sql.FREE_CALL_KEY, freed)
    await transaction.write(recording_sql.DROP_NOTES, [{"key": final["key"]} for final in finishes])
    await partitions.ensure(transaction, {row["audio_period"] for row in objects.values()})
    await transaction.write(
        recording_sql.DROP_SEGMENT,
        [{"key": recording, "at": number, "within": periods[recording]} for recording, number in objects],
    )
    await transaction.write(recording_sql.INSERT_SEGMENT, list(objects.values()))
    return answers


def _due(through: int, tenant: TenantId | None) -> dict[str, Any]:
    return {"through": through} if tenant is None else {"through": through, "tenant_id": tenant}


def _key(recording: RecordingId | None) -> bytes:
    return b"" if recording is None else rows.key(recording)


def _unknown(recording: RecordingId) -> NotFound:
    return NotFound(f"there is no recording {recording}")
