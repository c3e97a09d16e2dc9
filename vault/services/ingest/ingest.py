"""Owns the open recordings. Every piece is sealed on arrival, and durable before it is acknowledged.

Create order: cohort seed durable in the keyring → catalog row with its coordinates → journal header with the first
commit → accept. A crash after the row leaves an open recording without bytes, which the grace period closes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from vault.errors import Conflict, JournalFull, NotFound, Refused, TooLarge, Unavailable
from vault.ids import NodeId, RecordingId, TenantId, TokenId, call_name, call_number
from vault.model import Principal, Recording, RecordingState
from vault.ports.journal import Journal, JournalEntry, JournalOpening
from vault.ports.keys import Keyring
from vault.protocol.live.events import Facts
from vault.retention.periods import Period
from vault.services.ingest.call_notes import Notes
from vault.services.ingest.open_rows import Beginning, Joiner, Joining, TakeUp, TakeUpRows
from vault.services.ingest.sessions import ROOM_PAUSES, CallStart, IngestSession
from vault.services.ingest.slots import Resource, Shares, Waiting
from vault.services.ingest.storing import Storer
from vault.services.people.access import unknown_token
from vault.services.recordings.dossiers import Coordinates
from vault.services.recordings.search import BlindIndex
from vault.services.surroundings import Surroundings
from vault.services.tenants.tenants import Tenants

OPEN_RECORDINGS: Final = Resource(
    name="recordings", what="open recordings", full="too many recordings are open on this server"
)
_TICK_SECONDS = 0.5
_AGAIN_SECONDS = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestLimits:
    """Bounds of one recording, and how long an interrupted one may be resumed."""

    max_recording_bytes: int
    resume_grace: timedelta
    backdating: timedelta
    """The longest time before its receipt from which a call's retention may count."""
    retention_floor: Period
    pause_max: timedelta
    """How long a call may be paused, see `Allowance`, before the vault ends the pause."""


class Ingest:
    """The open recordings of this process: finds, begins, continues, writes and ends them."""

    def __init__(
        self,
        *,
        catalog: TakeUpRows,
        keyring: Keyring,
        journal: Journal,
        coordinates: Coordinates,
        index: BlindIndex,
        tenants: Tenants,
        notes: Notes,
        surroundings: Surroundings,
        limits: IngestLimits,
        shares: Shares,
        storer: Callable[..., Storer],
    ) -> None:
        self._shares = shares
        self._waiting = Waiting(clock=surroundings.clock)
        self._displaced = asyncio.Event()
        self._catalog = catalog
        self._journal = journal
        self._notes = notes
        self._clock = surroundings.clock
        self._metrics = surroundings.metrics
        self.limits = limits
        self._by_call: dict[tuple[TenantId, str], IngestSession] = {}
        self._further: dict[tuple[TenantId, str], set[int]] = {}
        """The numbers above 1 of a call's names in `_by_call`."""
        self._by_id: dict[RecordingId, IngestSession] = {}
        self._takeup = TakeUp(
            catalog=catalog,
            keyring=keyring,
            journal=journal,
            coordinates=coordinates,
            surroundings=surroundings,
            pause_max=limits.pause_max,
        )
        self._starting: set[tuple[TenantId, str]] = set()
        self.joining = Joining(
            keyring=keyring,
            tenants=tenants,
            clock=surroundings.clock,
            floor=limits.retention_floor,
            backdating=limits.backdating,
        )
        self._beginning = Beginning(
            catalog=catalog,
            keyring=keyring,
            coordinates=coordinates,
            index=index,
            region=tenants.region,
            joining=self.joining,
            surroundings=surroundings,
            node=journal.node,
        )
        self.storer = storer(settle=notes.write_late, finished=self.finished)
        self.draining = False

    # -- looking up ---------------------------------------------------------------------------------------------

    def live(self, recording: RecordingId) -> IngestSession | None:
        """Return the session of an unfinished recording; None without one."""
        return self._by_id.get(recording)

    def live_call(self, tenant: TenantId, call_key: str) -> IngestSession | None:
        """Return the session with this call key; None without one."""
        return self._by_call.get((tenant, call_key))

    def live_numbers(self, tenant: TenantId, call_key: str) -> Sequence[int]:
        """Return the numbers of the call's names that have a session, in ascending order."""
        further = self._further.get((tenant, call_key), ())
        return [1, *sorted(further)] if (tenant, call_key) in self._by_call else sorted(further)

    def live_calls(self, tenant: TenantId, call_key: str) -> Mapping[str, IngestSession]:
        """Return the sessions by the call's names in order: `key`, `key~2` and so on. The catalog is not asked."""
        names = (call_name(call_key, number) for number in self.live_numbers(tenant, call_key))
        return {name: self._by_call[tenant, name] for name in names}

    def own_call(self, tenant: TenantId, call_key: str, token: TokenId) -> IngestSession | None:
        """Return the newest session under the call's names that the token began and that has not ended."""
        newest_first = reversed([*self.live_calls(tenant, call_key).values()])
        return next((each for each in newest_first if each.begun_by == token and each.ending is None), None)

    def has_begun(self, token: TokenId) -> bool:
        """Tell whether the token began a recording that is not finished."""
        return any(session.begun_by == token for session in self._by_id.values())

    @property
    def node(self) -> NodeId:
        """The node whose journal this process writes."""
        return self._journal.node

    @property
    def unstored_bytes(self) -> int:
        """How many durable bytes only the journal has."""
        return sum(session.durable - session.stored for session in self._by_id.values())

    @property
    def unfinished(self) -> int:
        """How many recordings are not yet stored, ended or not."""
        return len(self._by_id)

    def require_here(self, row: Recording) -> None:
        """Raise Unavailable if the open recording is another node's, or if this node is still resuming it."""
        if row.node != self.node:
            raise Unavailable(
                f"this call is being recorded on another node, {row.node}; nothing was taken in",
                hint="try again: a balancer that hashes tenant and call key leads a call to its node",
                retry_after_seconds=2,
            )
        session = self._by_id.get(row.id)
        if row.id in self._beginning.doubtful or (
            session is not None and not session.uploads and session.ending is None
        ):
            raise Unavailable("this call is being resumed by the server; nothing was taken in", retry_after_seconds=2)

    @property
    def uploading(self) -> int:
        """How many recordings have a recorder attached and have not ended."""
        return sum(1 for session in self._by_id.values() if session.uploads and session.ended is None)

    @property
    def ending(self) -> int:
        """How many recordings have ended and are not stored yet."""
        return sum(1 for session in self._by_id.values() if session.ended is not None)

    # -- starting and continuing --------------------------------------------------------------------------------

    def admit(self, tenant: TenantId) -> None:
        """Raise Unavailable with the reason if a new recording of the tenant would be refused now."""
        self._require_taking()
        if self._make_way(tenant) is None:
            self._shares.require(tenant)

    def drain(self) -> None:
        """Accept no new recordings, because the server shuts down; those under way may end."""
        self.draining = True

    def _require_taking(self) -> None:
        if self.draining:
            raise Unavailable("the server is shutting down and takes no new recordings", retry_after_seconds=5)
        if (refusal := self._journal.refusal()) is not None:
            raise refusal

    def _make_way(self, tenant: TenantId) -> IngestSession | None:
        """Return the session to end so that a tenant below its share gets room; None if that is not needed."""
        waiting = (self._waiting.least(TenantId(each)) for each in self._shares.over(tenant))
        return next((each for each in waiting if each is not None), None)

    def displace(self, session: IngestSession) -> None:
        """End a session that waits for its recorder, as if its grace period were over."""
        session.displace()
        self._waiting.discard(session)
        self._displaced.set()

    async def start(self, call: CallStart, *, actor: Principal) -> IngestSession:
        """Create the recording and attach this upload to it; Conflict if the call key is taken.

        Unauthenticated if the actor's token is expired: it may only finish what it began. If there is no room, a
        recording of a tenant above its share is ended, if one waits for its recorder.
        """
        if actor.expired:
            raise unknown_token()
        self._require_taking()
        place = (call.tenant, call.call_key)
        if place in self._starting or place in self._by_call:
            raise Conflict("another upload for this call key is under way")
        if (least := self._make_way(call.tenant)) is not None:
            self.displace(least)
            least.give_place()  # the new recording has the place at once; the old one ends a little later
            self._shares.give(least.recording.tenant)
            self._shares.displaced()
        self._shares.take(call.tenant)
        self._starting.add(place)
        try:
            recording, key = await self._beginning.create(call, actor=actor)
        except BaseException:
            self._shares.give(call.tenant)
            raise
        finally:
            self._starting.discard(place)
        session = IngestSession.begun(call, recording, key, begun_by=actor.token_id)
        self._adopt(session)
        return session

    def _adopt(self, session: IngestSession) -> None:
        recording = session.recording
        if session.call_key is not None:
            self._by_call[(recording.tenant, session.call_key)] = session
            key, number = call_number(session.call_key)
            if number > 1:
                self._further.setdefault((recording.tenant, key), set()).add(number)
        self._by_id[recording.id] = session
        self._metrics.ingest_open.set(len(self._by_id))
        self.storer.watch(session)

    async def attach(
        self, session: IngestSession, *, offset: int | None, owner: object | None = None, call: Joiner | None = None
    ) -> int:
        """Attach an upload to an interrupted recording; return the offset at which its own stream continues.

        `call` is what the upload states; `joining` has permitted it.

        Conflict while another upload is attached, or if the recording has ended or has another `owner`. OffsetMismatch
        if `offset` is given and differs. Bytes dropped by pauses count, see `IngestSession.received`.
        """
        if session.owner is not owner:
            raise Conflict("this call is being uploaded in parts; only that upload can continue or end it")
        # Its owner may still complete a displaced upload with the parts in the spool.
        if session.uploads or (session.leaving if owner is None else session.ending is not None):
            raise Conflict("another upload for this call key is under way or it has just ended")
        session.attach()
        self._waiting.discard(session)
        try:
            await self._settle(session)
            # If the note of dropped bytes cannot be written, the recorder sends them again and they are dropped again.
            await self._notes.acknowledge(session)
            await self._notes.forget_etag(session)
            session.keeping.continue_at(session.durable)
            session.require_offset(offset)
            if session.digest is None:
                await self.storer.rebuild_digest(session)
            if call is not None:
                await self.add_facts(session, call)
        except BaseException:
            self.detach(session)
            raise
        return session.received

    async def add_facts(self, session: IngestSession, call: Joiner) -> None:
        """Add the facts of a recorder that continues another token's recording to the recording's facts."""
        if session.begun_by != call.actor.token_id:
            with suppress(Conflict):  # the recording is ending meanwhile, so it is not continued
                await self._notes.facts(session, Facts(facts=call.facts))

    async def _settle(self, session: IngestSession) -> None:
        """Wait until nothing is in flight; after a failed commit continue at the durable bytes with a new entry."""
        entry = session.entry
        if entry is None:
            return
        if entry.failed is None and entry.appended > entry.durable:
            try:
                await entry.barrier()
            except Unavailable:
                logger.info("undurable tail dropped", extra={"fields": {"recording": session.recording.id}})
        if entry.failed is not None:
            session.lose_tail()
            await self.storer.drain(session)
            session.leave_entry()

    # -- writing ------------------------------------------------------------------------------------------------

    def take(self, session: IngestSession, piece: bytes) -> bool:
        """Write one piece as `write` does, if that needs no waiting; otherwise False, and nothing is written."""
        if not session.take(piece, most=self.limits.max_recording_bytes):
            return False  # `write` then raises or waits
        entry = session.entry
        if entry is not None and entry.appended - session.stored >= self.storer.cut_bytes:
            self.storer.poke(session)
        return True

    async def write(self, session: IngestSession, piece: bytes, *, bounded: bool = True) -> None:
        """Write one piece: sealed when this returns, durable after a later commit; waits while too much is in flight.

        A piece that arrives while the call is paused is dropped: neither sealed nor hashed nor written. Unavailable
        once the vault has ended the recording. TooLarge beyond a recording's limit if `bounded`; bytes that were
        acknowledged before are written without that bound.
        """
        while session.resuming:
            async with session.noting:
                pass
        session.require_open()
        if session.keeping.watching and not (piece := session.keeping.keep(piece)):
            return
        entry = session.entry or self._open_entry(session)
        if bounded and entry.appended + len(piece) > self.limits.max_recording_bytes:
            raise TooLarge(f"the recording exceeds {self.limits.max_recording_bytes} bytes")
        try:
            entry.append(piece)
        except JournalFull:
            if not await self._room(session, piece):
                return
        session.add_to_digest(piece)
        await entry.writable()
        if entry.appended - session.stored >= self.storer.cut_bytes:
            self.storer.poke(session)

    def _open_entry(self, session: IngestSession) -> JournalEntry:
        """Open an entry in the journal's current file, after the stored bytes."""
        opening = JournalOpening(recording=session.recording.id, coordinate=session.recording.audio)
        entry = self._journal.open(opening, session.key, offset=session.stored)
        session.continue_in(entry)
        return entry

    async def _room(self, session: IngestSession, piece: bytes) -> bool:
        """Append a piece as soon as the full journal has room; JournalFull after ten seconds, with the piece not kept.

        False if the call was paused meanwhile and the piece dropped.
        """
        assert session.entry is not None
        for pause in ROOM_PAUSES:
            await asyncio.sleep(pause)
            session.require_open()
            if session.keeping.paused:
                session.keeping.keep(piece)
                return False
            try:
                session.entry.append(piece)
            except JournalFull:
                continue
            return True
        raise JournalFull(
            "the journal is full and did not drain; what was acknowledged is safe",
            retry_after_seconds=30,
            cause="journal",
        )

    async def commit(self, session: IngestSession) -> None:
        """Return once every received byte is durable."""
        session.require_open()
        if session.entry is not None:
            await session.entry.barrier()

    async def finish(self, session: IngestSession, *, ended: str = "sealed") -> None:
        """Make the received bytes durable, then the end: from then on the recording is completed even after a crash.

        Unavailable if the vault is ending it or has ended it for another reason.
        """
        if session.keeping.unnoted:
            await self._notes.acknowledge(session)
        session.require_open(unless=ended)
        if session.ended is not None:
            return
        entry = session.entry or self._open_entry(session)
        session.begin_end(ended)
        self._waiting.discard(session)
        try:
            await entry.end(ended)  # one commit carries the last pieces and the end
        except (Unavailable, ValueError):
            session.withdraw_end()
            self._waiting.add(session)
            raise
        session.end(ended)
        self.storer.poke(session)

    def detach(self, session: IngestSession) -> None:
        """Detach an upload that broke off without an end: the grace period begins."""
        session.detach(now=self._clock.monotonic())
        self._waiting.add(session)

    @contextmanager
    def hearing(self, session: IngestSession) -> Iterator[None]:
        """Mark the session as being sent by a request inside the context: it does not wait for its recorder."""
        try:
            with session.receiving():
                self._waiting.discard(session)
                yield
        finally:
            self._waiting.add(session)

    def finished(self, session: IngestSession) -> None:
        """Forget a recording that is sealed or truncated, and stored."""
        recording = session.recording
        if session.call_key is not None:
            self._by_call.pop((recording.tenant, session.call_key), None)
            key, number = call_number(session.call_key)
            if (further := self._further.get((recording.tenant, key))) is not None:
                further.discard(number)
                if not further:
                    del self._further[(recording.tenant, key)]
        self._by_id.pop(recording.id, None)
        self._waiting.discard(session)
        if session.placed:
            self._shares.give(recording.tenant)
        session.done.set()
        self._metrics.ingest_open.set(len(self._by_id))

    # -- background ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled, end recordings that are displaced or whose grace period is over, and end overlong pauses."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._close_left())
            # A task of its own: it may wait for the catalog, and closing recordings must not.
            group.create_task(self._end_pauses())

    async def _close_left(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._displaced.wait()
            self._displaced.clear()
            await self._look_up()
            now = self._clock.monotonic()
            for session in tuple(self._by_id.values()):
                grace = (session.grace or self.limits.resume_grace).total_seconds()
                if session.ended is not None or session.detached_at is None:
                    continue
                if session.displaced:
                    await self._truncate(session, "displaced")
                elif now - session.detached_at >= grace:
                    await self._truncate(session, "recorder_gone")

    async def _end_pauses(self) -> None:
        """End overlong pauses; while the catalog does not answer, try one every five seconds instead of all."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            limit = self.limits.pause_max
            for session in tuple(self._by_id.values()):
                over = session.allowance.over(limit.total_seconds(), self._clock.monotonic())
                if not over or session.ending is not None:
                    continue
                fields: dict[str, object] = {"recording": session.recording.id}
                try:
                    if not await self._notes.end_overlong(session, limit):
                        continue
                except (Unavailable, Refused) as error:
                    fields["error"] = error.code
                    logger.warning("a pause that lasted too long could not be ended yet", extra={"fields": fields})
                    await asyncio.sleep(_AGAIN_SECONDS)
                    continue
                self._metrics.pauses_ended.inc()
                fields["pause_max_seconds"] = limit.total_seconds()
                logger.warning(
                    "a pause lasted too long and was ended; the call is kept again", extra={"fields": fields}
                )

    def pause_left(self, session: IngestSession) -> timedelta | None:
        """Return how long the session's pause may still last before the vault ends it; None without a pause."""
        left = session.allowance.left(self.limits.pause_max.total_seconds(), self._clock.monotonic())
        return None if left is None else timedelta(seconds=left)

    async def _look_up(self) -> None:
        """Resume each recording whose creation had no answer, once its row is found: its recorder may come back.

        Such a row may appear late, so this process looks for it as long as it runs.
        """
        for identifier in tuple(self._beginning.doubtful):
            try:
                row = await self._catalog.recording(identifier)
                session = await self._takeup.session(row, None) if row.state is RecordingState.OPEN else None
            except (NotFound, Unavailable):
                continue
            if session is not None:
                self._continue(session)
            self._beginning.looked_up(identifier)

    async def _truncate(self, session: IngestSession, reason: str) -> None:
        try:
            if session.before_end is not None and session.ending is None:
                await session.before_end()
            if session.ending is None:
                await self._settle(session)
            # An end that the recorder sent before it left stays as it is.
            ended = session.ending or ("sealed" if session.complete else f"truncated:{reason}")
            await self.finish(session, ended=ended)
        except Unavailable as error:
            logger.warning(
                "an interrupted recording could not be closed yet",
                extra={"fields": {"recording": session.recording.id, "error": type(error).__name__}},
            )

    async def truncate_all(self, reason: str, *, uploading: bool) -> None:
        """Truncate the recordings that are being sent (`uploading`), or those that wait for their recorder.

        Resumable uploads that are being sent stay open: their clients come back after the restart.
        """
        for session in tuple(self._by_id.values()):
            kept = uploading and session.resumable
            if bool(session.uploads) is uploading and session.ended is None and not kept:
                await self._truncate(session, reason)

    async def recover(self) -> Sequence[RecordingId]:
        """Resume the recordings that an earlier process of this node left open; return their ids."""
        return [self._continue(session) async for session in self._takeup.own()]

    async def abandon(self, node: NodeId) -> Sequence[RecordingId]:
        """Take over the open recordings of a node whose journal is lost, to end them with their stored bytes."""
        return [self._continue(session) async for session in self._takeup.abandoned(node)]

    def _continue(self, session: IngestSession) -> RecordingId:
        self._shares.count(session.recording.tenant)
        self._adopt(session)
        self._waiting.add(session)
        self.storer.poke(session)
        return session.recording.id
