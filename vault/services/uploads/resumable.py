"""Uploads that clients create, continue and terminate at an address of their own, which has the recording's id.

One request at a time may write to the recording. Creation makes the row. Its sealed facts have the announced length and
the grace, so that the upload continues under the same terms after a restart of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from vault.access.permissions import Act
from vault.errors import Conflict, Forbidden, Locked, Unavailable, UploadGone
from vault.ids import RecordingId, TenantId, parse_call_key
from vault.model import CallFacts, Media, Principal, Recording, RecordingState
from vault.ports.audit import AuditTrail
from vault.ports.keys import Keyring
from vault.ports.recordings import RecordingLookup
from vault.protocol.uploads.resumable import STEPS, Description, Stage, Step, Verb, choose_call_key, require_length
from vault.services.audit import event
from vault.services.ingest.call_keys import CallKeys
from vault.services.ingest.call_notes import Notes
from vault.services.ingest.ingest import Ingest
from vault.services.ingest.open_rows import Joiner
from vault.services.ingest.sessions import CallStart, IngestSession, require_end
from vault.services.keys import is_pinned
from vault.services.people.access import Access
from vault.services.playback.playback import Playback
from vault.services.recordings.search import TOTAL
from vault.services.surroundings import Surroundings
from vault.services.tenants.tenants import Tenants

TERMINATED = "truncated:terminated"
"""The end of a recording whose upload its client terminated; the received bytes are kept for their retention."""

SILENT_SECONDS = 2.0
"""A request without bytes for this many seconds is replaced by the next one."""
_GIVE_WAY_SECONDS = 3.0
_FRESH_BYTES = 8


class Writer:
    """One request that has a recording to itself; `stop` ends it soon.

    `waited` returns for how many seconds it has waited for a byte from its client. From `patience` seconds on, another
    request may replace it.
    """

    def __init__(
        self,
        *,
        stop: Callable[[], None] = lambda: None,
        waited: Callable[[], float] = lambda: 0.0,
        patience: float = SILENT_SECONDS,
    ) -> None:
        self._stop = stop
        self._waited = waited
        self.patience = patience
        self.gone = asyncio.Event()
        """Set once this request writes no more."""

    @property
    def silent(self) -> bool:
        """Whether another request may replace this one."""
        return self._waited() > self.patience

    @property
    def waiting(self) -> int:
        """0: an upload has no reorder window."""
        return 0

    def give_way(self) -> None:
        """Ask this request to end; its successor may write only after `gone` is set."""
        self._stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An upload's state for a request; `session` is None once it has ended."""

    row: Recording
    session: IngestSession | None
    offset: int
    """How many bytes its client need not send again: durable ones, and those that pauses dropped."""
    total: int | None
    """How many bytes the upload will have; None if not announced."""

    @property
    def complete(self) -> bool:
        """Whether the end is durable."""
        return self.session is None


class UploadRows(RecordingLookup, AuditTrail, Protocol):
    """The catalog operations that resumable uploads need."""


class Uploads:
    """Creates uploads and lets one request at a time have each."""

    def __init__(
        self,
        *,
        access: Access,
        catalog: UploadRows,
        ingest: Ingest,
        call_keys: CallKeys,
        keyring: Keyring,
        notes: Notes,
        playback: Playback,
        tenants: Tenants,
        surroundings: Surroundings,
        grace: timedelta,
    ) -> None:
        self._access = access
        self._catalog = catalog
        self._ingest = ingest
        self._call_keys = call_keys
        self._keyring = keyring
        self._notes = notes
        self._playback = playback
        self._tenants = tenants
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self.grace = grace
        """How long an upload waits for its client."""

    def expires_at(self, session: IngestSession | None) -> datetime:
        """Return when the upload will end as truncated unless its client continues it."""
        left = (session.grace if session is not None else None) or self.grace
        if session is not None and session.detached_at is not None:
            left -= timedelta(seconds=self._clock.monotonic() - session.detached_at)
        return self._clock.now() + left

    # -- creating -------------------------------------------------------------------------------------------------

    async def create(
        self, tenant: TenantId, description: Description, media: Media, total: int | None, *, actor: Principal
    ) -> tuple[IngestSession, bool]:
        """Return a new upload with this request attached, or an unfinished one, and whether it is new.

        A client whose answer to a creation was lost repeats it. So a client that names a call with an unfinished upload
        of the same length and media, and may join it, gets that upload. A file name, or a call key whose recording has
        ended, always leads to a new upload: the bytes are kept again.
        """
        retention = await self._tenants.retention(tenant)
        key, distinct = choose_call_key(description, self._entropy(_FRESH_BYTES).hex())
        async for following in self._call_keys.to_try(tenant, key):
            name = following if following == key or not distinct else parse_call_key(f"{key}~{distinct}")
            call = CallStart(
                tenant=tenant,
                call_key=name,
                media=media,
                facts=description.facts,
                started_at=description.started_at,
                retention=retention,
                grace=self.grace,
                resumable=True,
                total=total,
            )
            session = self._ingest.live_call(tenant, name)
            if description.call_key is not None and session is not None and _goes_on(session, total):
                joiner = Joiner.of(call, actor)
                if await self._ingest.joining.may(joiner, session):
                    await self._ingest.add_facts(session, joiner)
                    return session, False
            try:
                return await self._ingest.start(call, actor=actor), True
            except Conflict:
                await self._require_known(tenant, name)
        raise Conflict("too many recordings have this call key", hint="give each call a key of its own")

    async def _require_known(self, tenant: TenantId, name: str) -> None:
        """Raise unless a recording that is ended, or open on this node, has the call key."""
        if await self._call_keys.resolve(tenant, name, here=True) is None:
            raise Conflict("another request is creating an upload for this call", hint="try again")

    # -- exclusive use ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def entered(
        self,
        tenant: TenantId,
        identifier: RecordingId,
        verb: Verb,
        writer: Writer,
        *,
        actor: Principal,
        alone: bool = False,
        offset: int | None = None,
    ) -> AsyncIterator[Standing]:
        """Use the upload exclusively inside the context, with all earlier bytes durable; yield its state.

        `alone` means that the protocol's clients send one request at a time, so an older request is dead. Locked,
        UploadGone and Forbidden as in `STEPS`. OffsetMismatch if `offset` is not the durable end. NotFound, logged, if
        the tenant has no such upload.
        """
        step = Step.TAKE_OVER
        while step is Step.TAKE_OVER:
            session, row, stage = await self._find(tenant, identifier, actor)
            step = STEPS[Stage.SILENT if stage is Stage.BUSY and alone else stage, verb]
            if step is Step.TAKE_OVER:
                await self._take_over(session)  # then look again: the upload may have ended meanwhile
        match step:
            case Step.LOCKED:
                raise _locked()
            case Step.GONE:
                raise UploadGone("this upload ended before it was complete; what arrived is kept")
            case Step.KEPT:
                raise Forbidden("the recording is complete; it is deleted when its retention ends, not before")
            case Step.TELL:
                size = (await self._playback.finished(row)).received if session is None else session.received
                require_end(size, offset)
                yield Standing(row=row, session=None, offset=size, total=size)
            case _:
                assert session is not None
                async with self.held(session, writer, offset=offset):
                    yield Standing(row=row, session=session, offset=session.received, total=session.total)

    async def _find(
        self, tenant: TenantId, identifier: RecordingId, actor: Principal
    ) -> tuple[IngestSession | None, Recording, Stage]:
        session = self._ingest.live(identifier)
        if session is None or session.recording.tenant != tenant:
            # Also for another tenant's live upload: an answer from memory would come sooner and reveal that it exists.
            row = await self._access.own(actor, Act.INGEST, self._catalog.recording, identifier, tenant=tenant)
            if row.state is RecordingState.OPEN:
                self._ingest.require_here(row)
                raise Unavailable("this upload is being resumed by the server", retry_after_seconds=2)
            return None, row, Stage.COMPLETE if row.state is RecordingState.SEALED else Stage.GONE
        if not session.resumable:
            raise await self._access.none_of_its_own(actor, Act.INGEST, identifier)
        return session, session.recording, _stage(session)

    async def _take_over(self, session: IngestSession | None) -> None:
        assert session is not None
        writer = session.feed
        if not isinstance(writer, Writer):
            raise _locked()
        writer.give_way()
        try:
            async with asyncio.timeout(_GIVE_WAY_SECONDS):
                await writer.gone.wait()
        except TimeoutError as error:
            raise _locked() from error

    async def make_way(self, session: IngestSession) -> None:
        """End the request that writes to a session, if its client has been silent too long."""
        if isinstance(session.feed, Writer) and session.feed.silent:
            await self._take_over(session)

    @asynccontextmanager
    async def held(self, session: IngestSession, writer: Writer, *, offset: int | None = None) -> AsyncIterator[None]:
        """Attach this request to an upload that has no writer, for the context."""
        if session.uploads:
            raise _locked()
        await self._ingest.attach(session, offset=offset)
        async with self.started(session, writer):
            yield

    @asynccontextmanager
    async def started(self, session: IngestSession, writer: Writer) -> AsyncIterator[None]:
        """Make this request, which is attached already, the writer of the session for the context."""
        session.follow(writer)
        try:
            yield
        finally:
            session.unfollow()
            self._ingest.detach(session)
            writer.gone.set()

    def require_taking(self) -> None:
        """Raise Unavailable while the server shuts down; clients continue their uploads after the restart."""
        if self._ingest.draining:
            raise Unavailable(
                "the server is shutting down; continue the upload after the restart", retry_after_seconds=5
            )

    # -- acts of the writer -----------------------------------------------------------------------------------------

    async def announce(self, session: IngestSession, total: int | None) -> None:
        """Store the announced length, if it was unknown; durable when this returns."""
        require_length(session.total, total, offset=session.received)
        if total is None or session.total is not None:
            return
        await self._notes.revise(session, CallFacts(extra={TOTAL: str(total)}))
        session.announce(total)

    async def settle(self, session: IngestSession, *, end: bool = False) -> int:
        """Make the written bytes durable, and the end too if the upload is complete; return the durable offset.

        With `end` the written bytes are complete, whatever length was announced.
        """
        if end or session.complete:
            await self._ingest.finish(session)
        else:
            await self._ingest.commit(session)
        return await self._notes.acknowledge(session)

    async def terminate(
        self, tenant: TenantId, identifier: RecordingId, writer: Writer, *, actor: Principal, alone: bool = False
    ) -> None:
        """End an unfinished upload as truncated; Forbidden while a hold protects it.

        The audit entry is written before the end. A crash between them leaves an upload that its client may terminate
        again.
        """
        async with self.entered(tenant, identifier, Verb.TERMINATE, writer, actor=actor, alone=alone) as standing:
            if is_pinned(self._keyring, standing.row.audio):
                raise Forbidden("a hold protects this recording; it was not ended", hint="finish the upload")
            assert standing.session is not None
            await self._catalog.append_audit(
                [event("recording.terminated", actor, tenant=tenant, target=standing.row.id)]
            )
            await self._ingest.finish(standing.session, ended=TERMINATED)


def _goes_on(session: IngestSession, total: int | None) -> bool:
    return not session.leaving and session.resumable and session.total == total


def _stage(session: IngestSession) -> Stage:
    if session.ended is not None:
        return Stage.COMPLETE if session.ended == "sealed" else Stage.GONE
    if session.displaced:
        return Stage.GONE
    if session.ending is not None:
        return Stage.BUSY
    if not session.uploads:
        return Stage.OPEN
    return Stage.SILENT if session.feed is not None and session.feed.silent else Stage.BUSY


def _locked() -> Locked:
    return Locked("another request is writing to this upload", hint="wait until it has ended, then ask for the offset")
