"""Open rows: who may continue one, how one begins, and how one is resumed after a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from vault.crypto.derive import commitment
from vault.crypto.sealed import seal_facts
from vault.crypto.values import Field, seal_note
from vault.errors import GenerationPassed, IntegrityError, NotFound, OutcomeUnknown, Shredded, TooLate, Unavailable
from vault.ids import NodeId, RecordingId, TenantId, TokenId, id_time, new_id
from vault.instants import rfc3339
from vault.media.heads import fits_declaration
from vault.model import (
    AuditEvent,
    CallFacts,
    Codec,
    Cohort,
    Container,
    Coordinate,
    DataKey,
    Media,
    Principal,
    Recording,
    RecordingState,
    Tenant,
)
from vault.ports.journal import Journal, ReplayedRecording
from vault.ports.keys import Keyring
from vault.ports.recordings import NoteRows, OpenRecordingRows, RecordingLookup
from vault.ports.tenants import TenantRows
from vault.ports.time import Clock
from vault.protocol.facts.parties import read_parties
from vault.protocol.facts.stated import contradict, kind_of
from vault.retention.guards import effective_now
from vault.retention.periods import Period
from vault.retention.policy import Lifetime, StartEffect, joined_at, lifetime, period_instant
from vault.services.audit import event
from vault.services.ingest.call_notes import take_up
from vault.services.ingest.sessions import CallStart, IngestSession
from vault.services.recordings.dossiers import Coordinates
from vault.services.recordings.search import (
    BEGUN_BY,
    CALL_KEY,
    S3_KEY,
    STATED_START,
    BlindIndex,
    extra_of,
    facts_of,
    stated,
)
from vault.services.surroundings import Surroundings
from vault.services.tenants.tenants import Tenants

# -- who may continue an open row ---------------------------------------------------------------------------------
# A recording may be continued by the token that began it, or by another token that would not keep it longer.
#
# A call key is not secret, so any recorder can begin a call under a name that another is about to use. The recorder
# that begins a recording decides its dates. So another token joins only if the recording is kept at least as long as
# that token's own statement requires. Otherwise its call becomes a recording of its own, under the next name.


@dataclass(frozen=True, slots=True, kw_only=True)
class Joiner:
    """What a recorder states about its call under a call key."""

    actor: Principal
    facts: CallFacts = field(repr=False)
    started_at: datetime | None
    media: Media | None = None
    """None while the format is not known."""
    keep_until: datetime | None = None
    """See `CallStart.keep_until`."""

    @classmethod
    def of(cls, call: CallStart, actor: Principal) -> Joiner:
        """Return what the beginning of a call states."""
        return cls(
            actor=actor, facts=call.facts, started_at=call.started_at, media=call.media, keep_until=call.keep_until
        )


class Joining:
    """Computes how long a call is kept, and decides which recorders may join a recording."""

    def __init__(
        self,
        *,
        keyring: Keyring,
        tenants: Tenants,
        clock: Clock,
        floor: Period,
        backdating: timedelta,
    ) -> None:
        self._keyring = keyring
        self._tenants = tenants
        self._clock = clock
        self._floor = floor
        self._backdating = backdating

    def now(self) -> datetime:
        """Return the time, never before the last sweep: a clock that stepped back must not shorten a retention."""
        return effective_now(self._clock.now(), self._keyring.last_sweep_at)

    def life(self, call: Joiner, retention: Period, *, receipt: datetime) -> Lifetime:
        """Return how long a call received at `receipt` is kept; Invalid beyond the calendar."""
        return lifetime(
            call.started_at,
            receipt=receipt,
            after=retention.after,
            floor=self._floor.after,
            backdating=None if imports(call.actor, self.now()) else self._backdating,
            at_least=call.keep_until,
        )

    async def may(self, call: Joiner, session: IngestSession) -> bool:
        """Tell whether a call may continue an open recording, or repeat an ended one."""
        row = session.recording
        if session.ended is not None:
            return await self._may(replace(call, media=None), row, session.begun_by, receipt=row.created_at)
        return await self._may(call, row, session.begun_by, receipt=joined_at(row.created_at, self.now()))

    async def same(self, call: Joiner, row: Recording) -> bool:
        """Tell whether a call may repeat a finished recording, whatever its format."""
        try:
            facts = facts_of(self._keyring, row)
        except IntegrityError:
            return False
        by = None if facts is None else facts.extra.get(BEGUN_BY)
        begun_by = None if by is None else TokenId(by)
        return await self._may(replace(call, media=None), row, begun_by, receipt=row.created_at)

    async def _may(self, call: Joiner, row: Recording, begun_by: TokenId | None, *, receipt: datetime) -> bool:
        if call.keep_until is not None and call.keep_until > row.retain_until:
            return False  # joining never moves the end of retention
        if call.media is not None and not fits_declaration(row.media, call.media):
            return False
        if begun_by == call.actor.token_id:
            return True
        if call.actor.expired:
            return False
        life = self.life(call, await self._tenants.retention(row.tenant), receipt=receipt)
        return life.retain_until <= row.retain_until and not await self._contradicted(call.facts, row)

    async def _contradicted(self, facts: CallFacts, row: Recording) -> bool:
        try:
            known = facts_of(self._keyring, row)
        except IntegrityError:
            return True
        claim = stated(facts)
        if known is None or (claim.caller, claim.called, claim.direction) == (None, None, None):
            return False
        return contradict(known, read_parties(claim, await self._tenants.region(row.tenant)))


def imports(actor: Principal, now: datetime) -> bool:
    """Tell whether the actor may import recordings now, which keep their stated dates, however old."""
    return actor.imports_until is not None and now < actor.imports_until


# -- rows rebuilt without their facts -----------------------------------------------------------------------------

_NONCE_BYTES = 12
_CLASS = "recording"
_UNKNOWN = "unknown: rebuilt after a restore"
_UNKNOWN_MEDIA = Media(container=Container.RAW, codec=Codec.STREAM)

logger = logging.getLogger(__name__)


class NewRows(OpenRecordingRows, TenantRows, Protocol):
    """The catalog operations that a new row needs."""


class TakeUpRows(NewRows, RecordingLookup, NoteRows, Protocol):
    """The catalog operations that resuming open recordings needs."""


async def own_tenant(catalog: TenantRows, tenant: TenantId, *, at: datetime) -> bool:
    """Add a tenant of which only its id is known, if the catalog has none of that id; tell whether it was added."""
    try:
        await catalog.tenant(tenant)
    except NotFound:
        stub = Tenant(id=tenant, name=tenant, controller=_UNKNOWN, contact=_UNKNOWN, created_at=at)
        detail = {"action": "tenant rebuilt after a restore"}
        await catalog.add_tenant(stub, audit=[event("admin.config", None, tenant=tenant, target=tenant, detail=detail)])
        return True
    return False


async def stub_row(
    recording: RecordingId,
    audio: Coordinate,
    created: datetime,
    *,
    coordinates: Coordinates,
    keyring: Keyring,
    surroundings: Surroundings,
    node: NodeId | None = None,
) -> Recording:
    """Return an open row for a call whose facts are lost: with empty facts, sealed under a fresh coordinate."""
    tenant = audio.cohort.tenant
    metadata = await coordinates.metadata(tenant, surroundings.clock.now())
    row = Recording(
        id=recording,
        tenant=tenant,
        call_token=recording,
        state=RecordingState.OPEN,
        state_reason=None,
        audio=audio,
        metadata=metadata,
        media=_UNKNOWN_MEDIA,
        created_at=created,
        started_at=created,
        ended_at=None,
        retain_until=period_instant(audio.cohort.period, keyring.cohort_width_seconds),
        retention_class=_CLASS,
        stored_bytes=0,
        sealed_facts=seal_facts(
            keyring.derive(metadata), recording, CallFacts(), nonce=surroundings.entropy(_NONCE_BYTES)
        ),
        node=node,
    )
    return committed(row, keyring)


def committed(row: Recording, keyring: Keyring) -> Recording:
    """Return the row with a commitment to each of its keys that still exists."""

    def commit(place: Coordinate) -> bytes | None:
        return commitment(keyring.derive(place)) if keyring.derivable(place) else None

    return replace(row, audio_commitment=commit(row.audio), metadata_commitment=commit(row.metadata))


def rebuilt(row: Recording, *, source: str, size: int) -> AuditEvent:
    """Return the audit event of a row that was rebuilt from `source`: its manifest, its segments or the journal."""
    return event("recording.rebuilt", None, tenant=row.tenant, target=row.id, detail={"from": source, "bytes": size})


async def row_from_journal(
    found: ReplayedRecording,
    *,
    catalog: NewRows,
    coordinates: Coordinates,
    keyring: Keyring,
    node: NodeId,
    surroundings: Surroundings,
) -> Recording | None:
    """Create an open row for a recording that only the journal has; log and return None if its period is swept."""
    row = await stub_row(
        RecordingId(found.opening.recording),
        found.opening.coordinate,
        id_time(found.opening.recording),
        coordinates=coordinates,
        keyring=keyring,
        surroundings=surroundings,
        node=node,
    )
    await own_tenant(catalog, row.tenant, at=surroundings.clock.now())
    rebuilt_event = rebuilt(row, source="journal", size=found.durable - found.first_offset)
    try:
        await catalog.create_recording(row, begun_before=True, audit=[rebuilt_event])
    except TooLate:
        logger.error(  # noqa: TRY400  # the fact, not the trace
            "the journal holds a recording that the catalog does not know; it is kept",
            extra={"fields": {"recording": row.id}},
        )
        return None
    return row


# -- how a row begins ---------------------------------------------------------------------------------------------

_DEFAULT_CLASS = "recording"
_LOCKED_CLASS = "object_lock"
"""The class of a recording whose recorder asked for a later date than the policy gives."""


class Beginning:
    """Creates open rows: cohort seed durable in the keyring, then the row with its coordinates."""

    def __init__(
        self,
        *,
        catalog: OpenRecordingRows,
        keyring: Keyring,
        coordinates: Coordinates,
        index: BlindIndex,
        region: Callable[[TenantId], Awaitable[str]],
        joining: Joining,
        surroundings: Surroundings,
        node: NodeId,
    ) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._coordinates = coordinates
        self._index = index
        self._region = region
        self._joining = joining
        self._entropy = surroundings.entropy
        self._node = node
        self._metrics = surroundings.metrics
        self.doubtful: set[RecordingId] = set()
        """Recordings whose row may or may not exist, because the answer to its commit was lost."""

    async def create(self, call: CallStart, *, actor: Principal) -> tuple[Recording, DataKey]:
        """Return the new open row and its key; Conflict if the call key is taken.

        Any stated start is accepted; its effect on the retention is counted and audited.

        The key is derived before the row exists: a row without a session would block its call key until a restart. If a
        rotation of the keyring ends in between, this begins again under a key of the new generation.
        """
        try:
            return await self._create(call, actor=actor)
        except GenerationPassed:
            await self._keyring.refresh()
        try:
            return await self._create(call, actor=actor)
        except GenerationPassed as error:
            raise Unavailable("the keyring is being rotated; nothing was taken in", retry_after_seconds=1) from error

    async def _create(self, call: CallStart, *, actor: Principal) -> tuple[Recording, DataKey]:
        now = self._joining.now()
        life = self._joining.life(Joiner.of(call, actor), call.retention, receipt=now)
        # The date is the recorder's own, not the policy's.
        locked = life.retain_until == call.keep_until
        identifier = RecordingId(new_id("rec", at=now, entropy=self._entropy))
        metadata = await self._coordinates.metadata(call.tenant, now)
        parsed = read_parties(stated(call.facts), await self._region(call.tenant))
        noted = {**_noted(call.started_at, life), **_left_out(call.facts)}
        if locked:
            noted["locked_until"] = rfc3339(life.retain_until)
        extra = {**parsed.extra, **call.terms, CALL_KEY: call.call_key, BEGUN_BY: actor.token_id}
        if call.started_at is not None and life.effect is StartEffect.REPLACED:
            extra[STATED_START] = rfc3339(call.started_at)
        facts = replace(parsed, extra=extra)
        metadata_key = self._keyring.derive(metadata)
        sealed = seal_facts(metadata_key, identifier, facts, nonce=self._entropy(12))
        audio = await self._coordinates.audio(call.tenant, life.retain_until)
        key = self._keyring.derive(audio)
        recording = Recording(
            id=identifier,
            tenant=call.tenant,
            call_token=self._index.token_in(metadata.cohort, Field.CALL_KEY, call.call_key),
            state=RecordingState.OPEN,
            state_reason=None,
            audio=audio,
            metadata=metadata,
            media=call.media,
            created_at=now,
            started_at=life.started_at,
            ended_at=None,
            retain_until=life.retain_until,
            retention_class=_LOCKED_CLASS if locked else _DEFAULT_CLASS,
            stored_bytes=0,
            sealed_facts=sealed,
            caller_token=self._token(metadata.cohort, Field.CALLER, facts.caller),
            called_token=self._token(metadata.cohort, Field.CALLED, facts.called),
            node=self._node,
            audio_commitment=commitment(key),
            metadata_commitment=commitment(metadata_key),
            retention_period=None if locked else str(call.retention),
            object_token=self._token(metadata.cohort, Field.OBJECT_KEY, extra.get(S3_KEY)),
        )
        elsewhere = self._index.elsewhere(metadata.cohort, Field.CALL_KEY, call.call_key)
        detail = {**noted, "import": True} if imports(actor, now) and call.started_at is not None else noted
        notes = {} if call.answer is None else {0: seal_note(key, identifier, 0, call.answer, nonce=self._entropy(12))}
        started_event = event("recording.started", actor, tenant=call.tenant, target=identifier, detail=detail)
        creating = asyncio.ensure_future(
            self._catalog.create_recording(recording, elsewhere=elsewhere, notes=notes, audit=[started_event])
        )
        try:
            await asyncio.shield(creating)
        except asyncio.CancelledError:
            # The catalog still completes the write, and the row would then block the call key until a restart.
            self.doubtful.add(identifier)
            creating.add_done_callback(partial(self._created_unheard, identifier))
            raise
        except OutcomeUnknown:
            self.doubtful.add(identifier)
            raise
        except TooLate as error:
            # Only with a tiny retention floor: a sweep ran between the reading of the clock and the row.
            raise Unavailable(
                "the recording's retention ended while it began; nothing was taken in", retry_after_seconds=1
            ) from error
        self._metrics.stated_starts.labels(life.effect.value).inc()
        for name, why in call.facts.unusable.items():
            self._metrics.facts_left_out.labels(kind_of(name), why).inc()
        return recording, key

    def looked_up(self, identifier: RecordingId) -> None:
        """Stop looking for a row that was found."""
        self.doubtful.discard(identifier)

    def _created_unheard(self, identifier: RecordingId, creating: asyncio.Future[None]) -> None:
        """Stop looking for a row whose write is known to have failed."""
        error = None if creating.cancelled() else creating.exception()
        if creating.cancelled() or (error is not None and not isinstance(error, OutcomeUnknown)):
            self.doubtful.discard(identifier)

    def _token(self, cohort: Cohort, field: Field, value: str | None) -> str | None:
        return None if value is None else self._index.token_in(cohort, field, value)


def _left_out(facts: CallFacts) -> Mapping[str, str]:
    """Return the audit detail about facts that were not kept: their kinds, never a name that the recorder chose."""
    kinds = sorted({kind_of(name) for name in facts.unusable})
    return {"facts_left_out": ", ".join(kinds)} if kinds else {}


def _noted(stated_start: datetime | None, life: Lifetime) -> Mapping[str, str]:
    """Return the audit detail about a stated start that changed the retention or was replaced."""
    if stated_start is None or life.effect is StartEffect.NONE:
        return {}
    return {
        "stated_start": rfc3339(stated_start),
        "retention": life.effect.value,
        "retain_until": rfc3339(life.retain_until),
        "unstated_until": rfc3339(life.unstated_until),
    }


# -- how a row is resumed after a restart -------------------------------------------------------------------------


class TakeUp:
    """Makes sessions of open rows; the caller adopts them."""

    def __init__(
        self,
        *,
        catalog: TakeUpRows,
        keyring: Keyring,
        journal: Journal,
        coordinates: Coordinates,
        surroundings: Surroundings,
        pause_max: timedelta,
    ) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._journal = journal
        self._coordinates = coordinates
        self._surroundings = surroundings
        self._clock = surroundings.clock
        self._pause_max = pause_max

    async def own(self) -> AsyncIterator[IngestSession]:
        """Replay the journal and yield a session for each of this node's open rows.

        A recording without a row gets one again, because the catalog may be an older copy than the journal. If the row
        belongs to another node, the journal bytes stay on disk untouched and a line is logged.
        """
        replay = await self._journal.replay(self._keyring.derive, skip=lambda _: False)
        replayed = {found.opening.recording: found for found in replay}
        rows = {row.id: row for row in await self._catalog.open_recordings(node=self._journal.node)}
        for identifier, found in replayed.items():
            if identifier not in rows:
                row = await self._unknown(RecordingId(identifier), found)
                if row is not None:
                    rows[row.id] = row
        for row in rows.values():
            session = await self.session(row, replayed.get(row.id))
            if session is not None:
                if self._journal.damaged:
                    session.lose()
                yield session

    async def _unknown(self, identifier: RecordingId, found: ReplayedRecording) -> Recording | None:
        """Return a new row for a recording without one; None if it is finished or another node's.

        The journal entry of a finished one is closed; that of another node's is kept.
        """
        try:
            row = await self._catalog.recording(identifier)
        except NotFound:
            return await row_from_journal(
                found,
                catalog=self._catalog,
                coordinates=self._coordinates,
                keyring=self._keyring,
                node=self._journal.node,
                surroundings=self._surroundings,
            )
        if row.state is RecordingState.OPEN:
            logger.error(
                "the journal holds a recording that the catalog knows as another node's; it is kept",
                extra={"fields": {"recording": identifier}},
            )
        else:
            found.entry.close()  # finished before the crash, so all its bytes are stored
        return None

    async def abandoned(self, node: NodeId) -> AsyncIterator[IngestSession]:
        """Yield a session, ended as truncated, for each open row of a node whose journal is lost."""
        for row in await self._catalog.open_recordings(node=node):
            session = await self.session(row, None)
            if session is not None:
                session.end("truncated:node_lost")
                session.lose()
                yield session

    async def session(self, row: Recording, found: ReplayedRecording | None) -> IngestSession | None:
        """Return a session with the row's segments, journal bytes and notes; log and return None if its key is gone."""
        try:
            key = self._keyring.derive(row.audio)
        except Shredded:
            logger.error("an open recording has no key", extra={"fields": {"recording": row.id}})  # noqa: TRY400
            return None
        segments = [ref for ref in await self._catalog.segments(row.id) if ref.index >= 0]
        extra = extra_of(self._keyring, row)
        session = IngestSession(
            recording=row,
            key=key,
            call_key=extra.get(CALL_KEY),
            segments=segments,
            stored=max((ref.offset + ref.length for ref in segments), default=0),
            digest=None,
            detached_at=self._clock.monotonic(),
        )
        session.recall(extra)
        session.rejoin(found)
        await take_up(self._catalog, session, clock=self._clock, pause_max=self._pause_max)
        return session
