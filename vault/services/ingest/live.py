"""Writes the events of one live connection, of any dialect, into a recording."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from vault.errors import Conflict, Invalid, JournalFull
from vault.ids import TenantId, call_key_of
from vault.model import EMPTY, Principal, RecordingState
from vault.protocol.live.events import Audio, Dtmf, Ended, Event, Facts, Gap, LeftOut, Paused, Resumed, Started
from vault.services.ingest.call_keys import CallKeys
from vault.services.ingest.call_notes import Notes
from vault.services.ingest.ingest import Ingest
from vault.services.ingest.open_rows import Joiner
from vault.services.ingest.sessions import ROOM_PAUSES, CallStart, IngestSession
from vault.services.tenants.tenants import Tenants

LIVE_PATIENCE: Final = 5.0
"""After this many seconds without audio, a live recorder may be replaced by another connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedParts:
    """The collaborators of every feed."""

    ingest: Ingest
    call_keys: CallKeys
    notes: Notes
    tenants: Tenants


class Feed:
    """Writes one recorder's events into its recording.

    `silent_seconds` returns for how long nothing has arrived. `replaced` is called when another connection takes over.
    `waiting` returns the bytes in the dialect machine's reorder window. Call `begin` with the first event, `apply` with
    every later one, and `lost` when the connection is lost.
    """

    def __init__(
        self,
        parts: FeedParts,
        *,
        tenant: TenantId,
        actor: Principal,
        silent_seconds: Callable[[], float],
        replaced: Callable[[], None],
        waiting: Callable[[], int] = lambda: 0,
    ) -> None:
        self._parts = parts
        self._tenant = tenant
        self._actor = actor
        self._silent_seconds = silent_seconds
        self._replaced = replaced
        self._waiting = waiting
        self.session: IngestSession | None = None
        self.ended = False
        self._not_noted = 0

    async def begin(self, started: Started, *, call_key: str | None = None) -> None:
        """Start the recording, or continue the one whose connection broke; `call_key` outranks the dialect's own.

        A call key whose recording has ended leads to a further recording, `key~2` and so on: a live call is never
        refused for its name. Conflict while another connection is live under it.
        """
        name_of_call = call_key or started.call_key
        if name_of_call is None:
            raise Invalid("the recorder names no call", hint="add ?call_key=… to the address")
        key = call_key_of(name_of_call)
        retention = await self._parts.tenants.retention(self._tenant)
        async for name in self._parts.call_keys.to_try(self._tenant, key):
            call = CallStart(
                tenant=self._tenant,
                call_key=name,
                media=started.media,
                facts=started.facts,
                started_at=started.started_at,
                retention=retention,
            )
            self.session = await self._rejoin(call) or await self._start(call)
            if self.session is not None:
                self.session.follow(self)
                return
        raise Conflict("too many recordings have this call key", hint="give each stream a call key of its own")

    async def _rejoin(self, call: CallStart) -> IngestSession | None:
        ingest = self._parts.ingest
        session = ingest.live_call(call.tenant, call.call_key)
        if session is None or session.leaving:
            return None
        if session.resumable or session.owner is not None:
            return None  # an upload with an address or parts of its own
        joiner = Joiner.of(call, self._actor)
        if not await ingest.joining.may(joiner, session):
            return None
        if session.uploads and session.feed is not None and session.feed.silent:
            session.feed.give_way()
        await ingest.attach(session, offset=None, call=joiner)
        try:
            if session.own_pause:  # paused on the broken connection; the recorder cannot resume that pause on this one
                await self._parts.notes.resume(session, actor=self._actor, own=True)
            await self._parts.notes.rejoined(session)
        except BaseException:
            ingest.detach(session)
            raise
        return session

    async def _start(self, call: CallStart) -> IngestSession | None:
        try:
            return await self._parts.ingest.start(call, actor=self._actor)
        except Conflict:
            if await self._parts.call_keys.resolve(call.tenant, call.call_key, here=True) is None:
                raise
            return None

    @property
    def silent(self) -> bool:
        """Whether the recorder has been silent so long that another may replace it."""
        return self._silent_seconds() > LIVE_PATIENCE

    @property
    def waiting(self) -> int:
        """See `LiveFeed.waiting`."""
        return self._waiting()

    def give_way(self) -> None:
        """Stop accepting audio, because another connection continues this recording."""
        self.lost()
        self._replaced()

    def take(self, piece: bytes) -> bool:
        """Seal a piece of audio at once; False, with nothing written, if it has to wait and needs `apply`."""
        session = self.session
        return session is not None and not self.ended and self._parts.ingest.take(session, piece)

    async def apply(self, event: Event) -> None:
        """Carry out one event; audio is sealed when this returns, everything else durable."""
        session = self._open()
        match event:
            case Audio():
                await self._parts.ingest.write(session, event.data)
            case Ended():
                await self._end(session, clean=event.clean)
            case Gap():
                # During a pause, the note of the pause counts the time.
                await self._parts.notes.gap(session, 0 if session.keeping.paused else event.missing_ms)
            case Paused():
                await self._parts.notes.pause(session, actor=self._actor, own=True)
            case Resumed():
                await self._resume(session)
            case Dtmf():
                await self._parts.notes.dtmf(session, event)
            case Facts():
                await self._parts.notes.facts(session, event)
            case LeftOut():
                await self._left_out(session, event)
            case _:
                raise AssertionError(f"not for a recording: {type(event).__name__}")

    async def _end(self, session: IngestSession, *, clean: bool) -> None:
        await self.note_left_out()
        if clean:
            await self._finish(session)
        elif session.entry is not None:
            await session.entry.barrier()
        self.lost()

    async def _left_out(self, session: IngestSession, event: LeftOut) -> None:
        first = not session.frames_left_out
        session.leave_out(event.why.value, noted=self._parts.notes.frames_noted(session) if first else {})
        self._not_noted += 1
        if first:
            await self.note_left_out()

    async def note_left_out(self) -> None:
        """Note how many frames could not be read: called at the first one, and at the end of the connection."""
        if self._not_noted and self.session is not None and not self.ended:
            self._not_noted = 0
            await self._parts.notes.frames_left_out(self.session)

    async def _resume(self, session: IngestSession) -> None:
        """End the pause; if something else ended it before, note the audio not sent since then as a gap."""
        if session.keeping.paused:
            await self._parts.notes.resume(session, actor=self._actor, own=True)
        else:
            await self._parts.notes.rejoined(session)

    async def _finish(self, session: IngestSession) -> None:
        """End the recording; waits for room in a full journal, because a live recorder cannot send its end again.

        A call without any audio ends as truncated: a hang-up does not show that there was nothing to record.
        """
        ended = RecordingState.SEALED.value if session.sent else f"{RecordingState.TRUNCATED}:{EMPTY}"
        try:
            return await self._parts.ingest.finish(session, ended=ended)
        except JournalFull:
            for pause in ROOM_PAUSES:
                await asyncio.sleep(pause)
                with suppress(JournalFull):
                    return await self._parts.ingest.finish(session, ended=ended)
            raise

    def _open(self) -> IngestSession:
        if self.session is None or self.ended:
            raise Conflict("another connection has taken over this recording, or it has ended")
        return self.session

    def lost(self) -> None:
        """Detach: what was received stays, and without an end the grace period begins."""
        if self.session is not None and not self.ended:
            self.ended = True
            self.session.unfollow()
            self._parts.ingest.detach(self.session)
