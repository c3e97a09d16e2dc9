"""What happens to a call besides its audio: pauses, gaps, keys pressed, documents about it.

A pause takes effect in memory first, so that no further byte is kept; then its note is written, then the request is
answered. A resume is written first and takes effect in memory after that. A crash in between undoes a pause that was
not answered, and completes a resume that was not answered.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Protocol

from vault.crypto.sealed import seal_facts
from vault.crypto.values import Field, open_note, seal_note
from vault.errors import Conflict, IntegrityError, Refused, TooLarge, Unavailable, VaultError
from vault.format.notes import MAX_DIGIT, Aside, Document, Etag, Missing, Note, Pause, Tone
from vault.instants import rfc3339
from vault.model import AuditEvent, CallFacts, Container, Principal
from vault.ports.audit import AuditTraces
from vault.ports.keys import Keyring
from vault.ports.recordings import NoteRows
from vault.ports.time import Clock
from vault.protocol.facts.parties import parties_as_sent, read_parties
from vault.protocol.live.events import Dtmf, Facts
from vault.services.audit import event, named
from vault.services.ingest.pauses import gaps_of, noted_use
from vault.services.ingest.sessions import IngestSession
from vault.services.recordings.reading import unix_ms
from vault.services.recordings.search import CALL_KEY, FRAMES_LEFT_OUT, BlindIndex, facts_of, stated
from vault.services.surroundings import Surroundings
from vault.services.tenants.tenants import Tenants

MOST_DOCUMENTS: Final = 8
_MOST_NOTES: Final = 10_000
"""Pauses do not count: the number of pauses is not limited."""
_LEAST_GAP_MS: Final = 100
_NONCE_BYTES: Final = 12
_MOST_EXTRA: Final = 100
_FRAMES: Final = re.compile(r"(\d{1,18}) \((\w+)\)", re.ASCII)
"""A reason and its number, as `frames_left_out` writes them."""

logger = logging.getLogger(__name__)


class CallNoteRows(NoteRows, AuditTraces, Protocol):
    """The catalog operations that notes about a call need."""


class Notes:
    """Stores the notes of open recordings, sealed under the audio's key, and their late facts.

    A recorder cannot repeat gaps, keys and facts. While the catalog does not answer they stay in memory, and are
    written with the next note or the manifest. So an outage ends no call.
    """

    def __init__(
        self,
        *,
        catalog: CallNoteRows,
        keyring: Keyring,
        index: BlindIndex,
        tenants: Tenants,
        surroundings: Surroundings,
    ) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._index = index
        self._tenants = tenants
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy

    def _now_ms(self) -> int:
        return max(unix_ms(self._clock.now()), 0)

    # -- pauses -------------------------------------------------------------------------------------------------

    async def pause(self, session: IngestSession, *, actor: Principal | None = None, own: bool = False) -> None:
        """Drop what arrives from now on, until `resume`; repeatable.

        `own` means that the recorder asks in its stream, see `IngestSession.own_pause`. Unavailable if the pause could
        not be made durable: it still holds while this process runs. With `own` there is no such error, and the call
        continues.
        """
        session.require_open()
        self._stop_keeping(session, actor, own=own)
        async with _noting(session):
            # Again, because a resume may have completed while this waited for the lock.
            self._stop_keeping(session, actor, own=own)
            if session.keeping.lasting is None:
                if session.entry is not None:
                    # The offset of a pause never lies beyond what survives a crash.
                    await session.entry.barrier()
                self._begin_pause(session)
            elif not session.unwritten:
                return
            await (self._write_or_wait(session) if own else self._write(session, {}))

    def _stop_keeping(self, session: IngestSession, actor: Principal | None, *, own: bool) -> None:
        session.stop_keeping(actor, own=own, now=self._clock.monotonic(), now_ms=self._now_ms())

    def _begin_pause(self, session: IngestSession) -> None:
        session.note_pause(_audit("recording.paused", session, session.paused_by))

    async def resume(self, session: IngestSession, *, actor: Principal | None = None, own: bool = False) -> None:
        """Keep what arrives from now on; repeatable.

        Unavailable, and the pause continues, if the end could not be made durable. If the recorder asks in its stream
        (`own`), it cannot ask again: its call is kept, and a crash before the next note leaves it paused.
        """
        session.require_open()
        if not session.keeping.paused:
            return
        async with _noting(session):
            if session.keeping.paused:
                await self._keep_again(session, "recording.resumed", actor, own=own)
                session.allowance.turn(paused=False, now=self._clock.monotonic())

    async def end_overlong(self, session: IngestSession, limit: timedelta) -> bool:
        """End a pause if the call's pauses have used up `limit`; False if there is none.

        It is a `resume` by the vault itself; the audit entry names who paused and when. The used time then starts again
        from zero. Unavailable or Refused, and the pause continues, if its end could not be made durable.
        """
        seconds = limit.total_seconds()
        async with session.noting:
            # Checked under the lock: the pause or the call may have ended while this waited.
            if session.ending is not None or not session.allowance.over(seconds, self._clock.monotonic()):
                return False
            paused_at = datetime.fromtimestamp(session.keeping.since_ms / 1000, UTC)
            detail = {"paused_by": await self._paused_by(session), "paused_at": rfc3339(paused_at)}
            await self._keep_again(session, "recording.pause_ended", None, detail=detail)
            session.allowance.renew(now=self._clock.monotonic())
            return True

    async def _paused_by(self, session: IngestSession) -> str | None:
        """Return who began the pause, as the audit trail names them; if another process received it, from the trail."""
        if session.paused_by is not None:
            return named(session.paused_by)
        entry = await self._catalog.last_audited("recording.paused", session.recording.id)
        return None if entry is None else entry.event.actor

    async def _keep_again(
        self,
        session: IngestSession,
        name: str,
        actor: Principal | None,
        *,
        own: bool = False,
        detail: Mapping[str, str | None] = MappingProxyType({}),
    ) -> None:
        """Make the end of the present pause durable, with the audit entry `name`; then keep what arrives."""
        keeping = session.keeping
        # All audio in the reorder window came during the pause, so the pause drops it when it leaves the window.
        late = 0 if session.feed is None else session.feed.waiting
        with session.hold_back():
            if keeping.lasting is None:
                if session.entry is not None:
                    await session.entry.barrier()
                self._begin_pause(session)
            assert keeping.lasting is not None
            at, pause = keeping.lasting
            counted = keeping.unnoted
            missing = pause.missing_ms + max(self._now_ms() - pause.at_ms, 0)
            ended = replace(pause, missing_ms=missing, dropped=pause.dropped + counted + late, lasting=False)
            audited = _audit(name, session, actor, **detail, missing_ms=missing, dropped_bytes=ended.dropped)
            if own:
                session.change(at, ended)
                session.tell(audited)
                await self._write_or_wait(session)
            else:
                await self._write(session, {at: ended}, audit=[audited])
            session.keep_again(counted=counted, late=late)

    async def acknowledge(self, session: IngestSession) -> int:
        """Make the count of dropped bytes durable; return the offset to tell the recorder.

        If the catalog does not answer, the offset is the last durable one, and the recorder sends some bytes again.
        """
        keeping = session.keeping
        if keeping.unnoted and session.ending is None:
            try:
                async with _noting(session):
                    counted = keeping.unnoted
                    last = keeping.lasting if keeping.paused else keeping.last_pause
                    if counted and last is not None:
                        at, pause = last
                        await self._write(session, {at: replace(pause, dropped=pause.dropped + counted)})
                        keeping.count_noted(counted)
            except (Unavailable, Refused) as error:
                logger.info("dropped bytes not noted", extra={"fields": {"error": error.code}})
        return session.received

    # -- notes and facts from recorders -------------------------------------------------------------------------

    async def gap(self, session: IngestSession, missing_ms: int) -> None:
        """Note that `missing_ms` milliseconds of the call are missing at the present end of the audio."""
        if missing_ms > 0:
            await self._remember(session, Missing(offset=session.appended, at_ms=self._now_ms(), missing_ms=missing_ms))

    async def rejoined(self, session: IngestSession) -> None:
        """Note as a gap the time since the last audio of a live recorder that reconnected.

        Only raw audio of a known rate gives that time. During a pause this notes nothing, because resuming counts it.
        """
        media = session.recording.media
        if session.keeping.paused or media.container is not Container.RAW or not media.rate:
            return
        lived = self._now_ms() - unix_ms(session.recording.created_at)
        heard = session.appended * 1000 // (session.keeping.frame * media.rate)
        missing = lived - heard - sum(gaps_of(session.keeping.notes).values())
        if missing >= _LEAST_GAP_MS:
            await self.gap(session, missing)

    async def dtmf(self, session: IngestSession, event: Dtmf) -> None:
        """Note a pressed key, if the tenant keeps them and the call is not paused."""
        if session.keeping.paused or not event.digit:
            return
        try:
            if not await self._tenants.keeps_dtmf(session.recording.tenant):
                return
        except Unavailable:
            return  # only the catalog knows whether the tenant keeps them
        duration = None if event.duration_ms is None else max(event.duration_ms, 0)
        tone = Tone(offset=session.appended, at_ms=self._now_ms(), digit=event.digit[:MAX_DIGIT], duration_ms=duration)
        await self._remember(session, tone)

    async def document(self, session: IngestSession, *, media_type: str, content: bytes) -> int:
        """Store a document about the call unchanged; return its number, from 0.

        An equal document is not stored twice. TooLarge beyond MOST_DOCUMENTS, Conflict once the call has ended.
        """
        async with _noting(session):
            documents = [note for note in session.keeping.notes if isinstance(note, Document)]
            same = [at for at, note in enumerate(documents) if note.content == content]
            if not same:
                if len(documents) >= MOST_DOCUMENTS:
                    raise TooLarge(f"a call has at most {MOST_DOCUMENTS} documents; this one was not kept")
                session.note(
                    Document(offset=session.appended, at_ms=self._now_ms(), media_type=media_type, content=content),
                )
            if session.unwritten:
                await self._write(session, {})
        return same[0] if same else len(documents)

    async def set_aside(self, session: IngestSession, *, offset: int, pieces: Sequence[tuple[int, int]]) -> None:
        """Note that the bytes from `offset` on are not audio but left-out parts, in this order.

        Durable when this returns; it replaces an earlier note. Write those bytes only after this.
        """
        async with _noting(session):
            session.note_only(Aside(offset=offset, at_ms=self._now_ms(), pieces=tuple(pieces)))
            if session.unwritten:
                await self._write(session, {})

    async def tell_etag(self, session: IngestSession, *, offset: int, etag: str) -> None:
        """Note that audio that ends at `offset` is acknowledged with this ETag; it replaces an earlier note.

        Durable when this returns, or with the manifest if the catalog does not answer: no recorder is refused for that.
        An equal note is not written again. Unavailable if the vault has ended the recording.
        """
        session.require_open()
        async with _noting(session):
            session.note_only(Etag(offset=offset, at_ms=self._now_ms(), etag=etag))
            if session.unwritten:
                await self._write_or_wait(session)

    async def forget_etag(self, session: IngestSession) -> None:
        """Remove the ETag, because the recording may be continued with other audio.

        Durable when this returns, or with the manifest if the catalog does not answer.
        """
        async with _noting(session):
            known = next((note for note in session.keeping.notes if isinstance(note, Etag)), None)
            if known is not None:
                session.note_only(replace(known, offset=0))
                if session.unwritten:
                    await self._write_or_wait(session)

    async def facts(self, session: IngestSession, event: Facts) -> None:
        """Add late facts to the row; while the catalog does not answer, they wait in memory for the next note."""
        await self._later(session, stated(event.facts))

    async def _later(self, session: IngestSession, late: CallFacts, *audit: AuditEvent) -> None:
        try:
            async with _noting(session):
                session.learn(merge(session.late or CallFacts(), late))
                session.tell(*audit)
                await self.write_late(session)
        except Unavailable as error:
            logger.warning("late facts wait for the catalog", extra={"fields": {"error": error.code}})
        except Refused as error:
            _late_refused(session, error)

    def frames_noted(self, session: IngestSession) -> Mapping[str, int]:
        """Return the number of unreadable frames by reason in the row, which another process may have written."""
        known = facts_of(self._keyring, session.recording)
        text = "" if known is None else known.extra.get(FRAMES_LEFT_OUT, "")
        return {why: int(count) for count, why in _FRAMES.findall(text)}

    async def frames_left_out(self, session: IngestSession) -> None:
        """Add the number of unreadable frames to the facts of the row, like late facts."""
        counts = session.frames_left_out
        text = ", ".join(f"{counts[why]} ({why})" for why in sorted(counts))
        late = CallFacts(extra={FRAMES_LEFT_OUT: text})
        await self._later(session, late, _audit("recording.frames_left_out", session, None, **counts))

    async def revise(self, session: IngestSession, late: CallFacts) -> None:
        """Merge late facts into the row's, see `merge`; durable when this returns."""
        async with _noting(session):
            await self._revise(session, late)

    async def write_late(self, session: IngestSession) -> None:
        """Write the late facts; Unavailable if the catalog does not answer. The caller holds `session.noting`."""
        if session.late is not None:
            try:
                await self._revise(session, session.late)
            except (Refused, IntegrityError) as error:
                _late_refused(session, error)
            session.learn(None)

    async def _revise(self, session: IngestSession, late: CallFacts) -> None:
        row = session.recording
        known = facts_of(self._keyring, row) or CallFacts()
        # Parse the parties again, as reindexing does: else this would undo the tokens that reindexing wrote.
        merged = read_parties(merge(parties_as_sent(known), late), await self._tenants.region(row.tenant), known=known)
        if merged == known:
            return
        cohort = row.metadata.cohort
        caller, called = (
            None if value is None else self._index.token_in(cohort, field, value)
            for field, value in ((Field.CALLER, merged.caller), (Field.CALLED, merged.called))
        )
        nonce = self._entropy(_NONCE_BYTES)
        sealed = seal_facts(self._keyring.derive(row.metadata), row.id, merged, nonce=nonce)
        await self._catalog.revise_facts(
            row.id,
            sealed_facts=sealed,
            caller_token=caller,
            called_token=called,
            audit=[_audit("recording.facts_revised", session, None)],
        )
        # The manifest copies the row from the session. Not from `row`: storing may have changed the media meanwhile.
        session.revise(sealed_facts=sealed, caller_token=caller, called_token=called)

    # -- rows ---------------------------------------------------------------------------------------------------

    async def _remember(self, session: IngestSession, note: Note) -> None:
        if session.notes_full:
            return
        async with _noting(session):
            if sum(not isinstance(each, Pause) for each in session.keeping.notes) >= _MOST_NOTES:
                session.take_no_more_notes()
                logger.warning("a call has too many notes", extra={"fields": {"recording": session.recording.id}})
                return
            session.note(note)
            await self._write_or_wait(session)

    async def _write_or_wait(self, session: IngestSession) -> None:
        """Write the unwritten notes; if the catalog does not answer, the next note or the manifest writes them."""
        try:
            await self._write(session, {})
        except Unavailable as error:
            logger.warning("a note waits for the catalog", extra={"fields": {"error": error.code}})

    async def _write(
        self, session: IngestSession, changed: Mapping[int, Note], *, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Write `changed` and unwritten notes in one transaction; `changed` is applied in memory only after it."""
        await self.write_late(session)
        notes = {**session.unwritten, **changed}
        recording = session.recording.id
        rows = {at: session.sealed_once(at, note, self._seal(session, at)) for at, note in notes.items()}
        await self._catalog.put_notes(recording, rows, audit=[*session.untold, *audit])
        session.wrote(notes)

    def _seal(self, session: IngestSession, at: int) -> Callable[[Note], bytes]:
        def seal(note: Note) -> bytes:
            return seal_note(session.key, session.recording.id, at, note, nonce=self._entropy(_NONCE_BYTES))

        return seal


async def take_up(catalog: NoteRows, session: IngestSession, *, clock: Clock, pause_max: timedelta) -> None:
    """Load the notes of a resumed session; a call that was paused stays paused.

    The used part of `pause_max` is computed from the notes. A note that does not open is logged and replaced by an
    empty one, so that the numbers of the others stay.
    """
    notes: list[Note] = []
    for at, sealed in (await catalog.notes(session.recording.id)).items():
        try:
            notes.append(open_note(session.key, session.recording.id, at, sealed))
        except IntegrityError as error:
            notes.append(Pause(offset=0, at_ms=0, lasting=False))
            logger.error(  # noqa: TRY400  # the fact, not the trace
                "a note of a call does not open",
                extra={"fields": {"recording": session.recording.id, "note": at, "error": error.code}},
            )
    used = noted_use(notes, limit=pause_max.total_seconds(), now_ms=unix_ms(clock.now()))
    session.recall_notes(notes, used=used, now=clock.monotonic())


def merge(known: CallFacts, late: CallFacts) -> CallFacts:
    """Return the merged facts: late values replace, tags and extras are added; the oldest extras stay."""
    extra = {**known.extra, **{name: value for name, value in late.extra.items() if name != CALL_KEY}}
    return CallFacts(
        caller=late.caller or known.caller,
        called=late.called or known.called,
        direction=late.direction or known.direction,
        tags=tuple(dict.fromkeys((*known.tags, *late.tags))),
        extra=dict(list(extra.items())[:_MOST_EXTRA]),
    )


@asynccontextmanager
async def _noting(session: IngestSession) -> AsyncIterator[None]:
    """Hold `session.noting`; Conflict once the recording is ending, because its manifest has only the earlier notes."""
    async with session.noting:
        if session.ending is not None:
            raise Conflict("the call has ended; no further note can be added")
        yield


def _late_refused(session: IngestSession, error: VaultError) -> None:
    logger.warning(
        "late facts of a call were not kept",
        extra={"fields": {"recording": session.recording.id, "error": error.code}},
    )


def _audit(name: str, session: IngestSession, actor: Principal | None, **detail: Any) -> AuditEvent:
    row = session.recording
    return event(name, actor, tenant=row.tenant, target=row.id, detail=detail)
