"""Moves durable bytes from the journal into sealed segments, and finishes recordings.

A segment is put and verified, then gets its catalog row, then its journal space is released. A crash after the put
leaves an orphan object: its name is unique by its attempt, and deletion lists the recording's prefix. A crash after the
row leaves bytes in the journal that are stored too: replay skips them by offset.

A recording finishes in this order: last segments → manifest put → row sealed → journal entry closed. A crash anywhere
repeats the manifest under the same name.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, Protocol

from vault.crypto.sealed import seal_manifest, seal_segment
from vault.errors import IntegrityError, Unavailable
from vault.format.manifest import CatalogCopy, Gap, Manifest, ManifestSegment, merkle_root
from vault.format.names import manifest_name, segment_name
from vault.format.notes import Aside, Pause, audio_end
from vault.ids import TokenId
from vault.media.heads import HEAD_BYTES, examine_head, wav_media
from vault.media.wav_sizes import WavHead, head_in
from vault.model import (
    EMPTY,
    MANIFEST_INDEX,
    AuditEvent,
    Container,
    Coordinate,
    Examined,
    RecordingState,
    SegmentRef,
)
from vault.ports.audit import AuditTraces
from vault.ports.objects import ObjectMeta, ObjectStore
from vault.ports.recordings import OpenRecordingRows
from vault.services.audit import event
from vault.services.ingest.pauses import gaps_of
from vault.services.ingest.sessions import IngestSession
from vault.services.recordings.reading import Reader, lasted_of, segment_header, unix_ms
from vault.services.surroundings import Surroundings
from vault.threads import in_thread

# -- cutting ------------------------------------------------------------------------------------------------------
# When the next segment of a recording is cut.
#
# A lost journal disk costs at most one segment of a recording, which speaks for small ones. Each segment costs an
# object, a row and a line of the certificate as long as the recording is kept, which speaks for large ones. So the
# first segment is small and those of a long call grow, as long as the journal has room.

UNHURRIED: Final = 0.25
"""Up to this fill of the journal, segments grow to their longest age."""
HURRIED: Final = 0.5
"""From this fill on no segment grows. New calls are refused at four fifths, which growth therefore never causes."""
_SPREAD_SEGMENTS: Final = 3


def seconds_to_cut(*, first: float, longest: float, stored: int, filled: float, share: float) -> float:
    """Return the age in seconds of the oldest unstored byte at which the next segment is cut.

    `first` is the age of a recording's first segment. Each of the `stored` segments doubles it, up to `longest`. If
    `longest` is below `first`, it is the age of every segment. `filled` is the used part of the journal, 0 to 1: from
    `UNHURRIED` on it takes the growth back, all of it from `HURRIED` on. `share`, above 0 and at most 1, shortens the
    age of the first few segments, so that calls that began together are not cut together.
    """
    base = min(first, longest)
    grown = base
    for _ in range(stored):
        if grown >= longest:
            break
        grown = min(grown * 2, longest)
    room = min(max((HURRIED - filled) / (HURRIED - UNHURRIED), 0.0), 1.0)
    return (base + (grown - base) * room) * (share if stored < _SPREAD_SEGMENTS else 1.0)


# -- storing ------------------------------------------------------------------------------------------------------

_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 10.0
_TICK_SECONDS = 0.5
_DRAIN_SECONDS = 10.0
_DRAIN_STEP_SECONDS = 0.05
_SALT_BYTES = 24

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentLimits:
    """A segment is cut at `max_bytes` of plaintext or at an age that grows from `first_age` to `max_age`."""

    max_bytes: int
    first_age: timedelta
    max_age: timedelta
    concurrency: int


class StorerRows(OpenRecordingRows, AuditTraces, Protocol):
    """The catalog operations that storing needs."""


class Storer:
    """Owns the workers that move bytes from the journal to the object store; an outage only lengthens the queue."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        catalog: StorerRows,
        reader: Reader,
        surroundings: Surroundings,
        limits: SegmentLimits,
        filled: Callable[[], float],
        pinned: Callable[[Coordinate], bool],
        settle: Callable[[IngestSession], Awaitable[None]],
        finished: Callable[[IngestSession], None],
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._reader = reader
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._metrics = surroundings.metrics
        self._limits = limits
        self._filled = filled
        """Returns how full the journal is, 0 to 1."""
        self._fill = 1.0
        """The journal's fill when it was last read; until then segments do not grow."""
        self._pinned = pinned
        self._settle = settle
        """Writes late facts into the row; called before the manifest copies it."""
        self._finished = finished
        self.cut_bytes = limits.max_bytes
        """How many unstored bytes make a segment at once; fewer wait for their age."""
        self._queue: asyncio.Queue[IngestSession] = asyncio.Queue()
        self._sessions: set[IngestSession] = set()
        self._pause = 0.0
        self.store_down = False
        """Whether the latest put failed."""
        self._sealing = asyncio.Semaphore(1)
        """One segment is sealed at a time: sealing is work of the processor, and more would delay the event loop."""

    @property
    def stalled(self) -> bool:
        """Whether storing fails now, because the object store or the catalog does not accept it."""
        return self._pause > 0

    def watch(self, session: IngestSession) -> None:
        """Watch the age of the session's unstored bytes."""
        self._sessions.add(session)

    def poke(self, session: IngestSession) -> None:
        """Queue the session if it has something to store now; cheap enough to call for every piece."""
        if not session.storing and self._due(session):
            session.enqueue()
            self._queue.put_nowait(session)
            self._metrics.segments_pending.inc()

    def look_at_journal(self) -> None:
        """Read how full the journal is, for the age at which segments are cut."""
        self._fill = self._filled()

    def _due(self, session: IngestSession) -> bool:
        return session.due(max_bytes=self._limits.max_bytes, seconds_to_cut=self._seconds_to_cut, clock=self._clock)

    def _seconds_to_cut(self, stored: int, share: float) -> float:
        return seconds_to_cut(
            first=self._limits.first_age.total_seconds(),
            longest=self._limits.max_age.total_seconds(),
            stored=stored,
            filled=self._fill,
            share=share,
        )

    async def drain(self, session: IngestSession) -> None:
        """Store every durable byte of the session; Unavailable if the store does not accept them within a while."""
        session.flush()
        for _ in range(int(_DRAIN_SECONDS / _DRAIN_STEP_SECONDS)):
            if session.stored >= session.durable:
                return
            self.poke(session)
            await asyncio.sleep(_DRAIN_STEP_SECONDS)
        raise Unavailable("the object store does not accept the recording's bytes; they stay in the journal")

    async def run(self) -> None:
        """Store due segments and finish ended recordings, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._limits.concurrency):
                group.create_task(self._work())
            while True:
                self.look_at_journal()
                for session in tuple(self._sessions):
                    self.poke(session)
                await asyncio.sleep(_TICK_SECONDS)

    async def _work(self) -> None:
        while True:
            session = await self._queue.get()
            try:
                await self._advance(session)
                self._pause = 0.0
            except (Unavailable, IntegrityError) as error:
                await self._back_off(session, error)
            except Exception as error:
                # The bytes are still in the journal, so the worker logs the error and tries again.
                logger.exception("storing failed unexpectedly", extra={"fields": {"recording": session.recording.id}})
                await self._back_off(session, error)
            finally:
                session.dequeue()
                self._metrics.segments_pending.dec()
            if session in self._sessions:
                self.poke(session)

    async def _back_off(self, session: IngestSession, error: Exception) -> None:
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        logger.warning(
            "object not stored; the journal keeps its bytes",
            extra={
                "fields": {
                    "recording": session.recording.id,
                    "error": type(error).__name__,
                    "retry_in_seconds": self._pause,
                }
            },
        )
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, not a secret

    async def _advance(self, session: IngestSession) -> None:
        while session.stored < session.durable and self._due(session):
            await self._store_segment(session)
        if session.ended is not None:
            await self._finish(session)

    async def _store_segment(self, session: IngestSession) -> None:
        start = session.stored
        end = min(session.durable, start + self._limits.max_bytes)
        async with self._sealing:
            ref, data, head = await in_thread(self._seal, session, start, end)
        await self._put(session, ref, data)
        last = session.ended is not None and end == session.durable
        if start == 0:
            await self._hear(session, head, whole=last)
        if not last:  # the last segment gets its row with the finish, so a short call takes one transaction
            await self._catalog.add_segments([ref], stored_bytes=end, examined=session.examined)
        # Only after the row: a retry after a failure above seals the same bytes again under the same index.
        session.store(ref, recorded=not last)

    async def _hear(self, session: IngestSession, head: bytes, *, whole: bool) -> None:
        """Examine the recording's first bytes, unless bytes before them were not kept; note the format they show."""
        recording = session.recording
        if _headless(session):
            return
        examined = examine_head(recording.media, head, whole=whole)
        if recording.media.container is Container.WAV:
            found = head_in(head)
            session.find_wav(found if found is not None and found.samples_at else None)
        if examined == Examined(media=recording.media):
            return
        if examined.content is not None:
            examined = replace(examined, recorder=await self._begun_by(session))
        session.set_media(examined)

    async def _wav_head(self, session: IngestSession) -> WavHead | None:
        """Return the head of an ended WAV, and note the format it shows if it did not fit into the first segment."""
        recording = session.recording
        if session.wav is not None or recording.content is not None or _headless(session):
            return session.wav
        length = audio_end(session.keeping.notes, session.stored)
        head = await self._reader.wav_head(recording, session.key, session.segments, length)
        if head is not None and not recording.media.rate:
            session.set_media(Examined(media=wav_media(head, recording.media)))
        return head

    async def _misdeclared(self, session: IngestSession) -> Sequence[AuditEvent]:
        """Return the audit entries for a recording whose format is not the declared one."""
        recording = session.recording
        if recording.content is None:
            return ()
        detail = {
            "declared": recording.media.container.value,
            "content": recording.content.value,
            "recorder": await self._begun_by(session),
        }
        return (event("recording.misdeclared", None, tenant=recording.tenant, target=recording.id, detail=detail),)

    async def _begun_by(self, session: IngestSession) -> TokenId | None:
        """Return the token that began the recording; from the audit trail if another process received it."""
        if session.begun_by is not None:
            return session.begun_by
        entry = await self._catalog.last_audited("recording.started", session.recording.id)
        return None if entry is None else TokenId(entry.event.actor.partition(" ")[0])

    def _seal(self, session: IngestSession, start: int, end: int) -> tuple[SegmentRef, bytes | bytearray, bytes]:
        """Return the reference and the bytes of a sealed segment, and its plaintext head if it is the first.

        Runs in a worker thread.
        """
        assert session.entry is not None
        recording = session.recording
        index = len(session.segments)
        attempt = self._entropy(16).hex()
        header = segment_header(recording, index=index, offset=start, attempt=attempt)
        plaintext = session.entry.read(start, end)
        data = seal_segment(session.key, header, [plaintext], salt=self._entropy(_SALT_BYTES))
        name = segment_name(recording.tenant, recording.audio.cohort.period, recording.id, index, attempt)
        ref = SegmentRef(
            recording=recording.id,
            index=index,
            attempt=attempt,
            name=name,
            offset=start,
            length=end - start,
            object_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        return ref, data, b"" if start else bytes(plaintext[:HEAD_BYTES])

    async def _put(self, session: IngestSession, ref: SegmentRef, data: bytes | bytearray) -> None:
        recording = session.recording
        meta = ObjectMeta(
            retain_until=recording.retain_until, retention_class=recording.retention_class, sha256=ref.sha256
        )
        began = self._clock.monotonic()
        outcome = "error"
        try:
            await self._store.put(ref.name, [memoryview(data)], meta=meta)
            outcome = "ok"
        finally:
            self.store_down = outcome != "ok"
            self._metrics.segment_put.labels(self._store.kind, outcome).observe(self._clock.monotonic() - began)

    async def _finish(self, session: IngestSession) -> None:
        recording = session.recording
        assert session.ended is not None
        state, _, cause = session.ended.partition(":")
        # Decided by durable state, so that a finish repeated after a crash gives the same reason.
        reason = EMPTY if session.ends_empty else cause
        ended_at = self._clock.now()
        async with session.noting:  # waits for a note that is being written: the manifest replaces the rows of notes
            await self._settle(session)
            head = await self._wav_head(session)
            notes = session.keeping.closed(session.stored, now_ms=unix_ms(ended_at))
            recording = session.recording
        manifest = Manifest(
            recording=recording.id,
            coordinate=recording.audio,
            state=state,
            reason=reason or None,
            media=recording.media,
            started_ms=unix_ms(recording.started_at),
            ended_ms=unix_ms(ended_at),
            length=session.stored,
            sha256=await self.plaintext_sha256(session),
            gaps=tuple(Gap(offset=offset, missing_ms=missing) for offset, missing in gaps_of(notes).items()),
            notes=notes,
            segments=tuple(
                ManifestSegment(
                    name=ref.name,
                    index=ref.index,
                    offset=ref.offset,
                    length=ref.length,
                    object_bytes=ref.object_bytes,
                    sha256=ref.sha256,
                )
                for ref in session.segments
            ),
            catalog=CatalogCopy(
                call_key=recording.call_token,
                metadata=recording.metadata,
                created_ms=unix_ms(recording.created_at),
                retain_until_ms=unix_ms(recording.retain_until),
                retention_class=recording.retention_class,
                sealed_facts=recording.sealed_facts,
            ),
            merkle_root=merkle_root([bytes.fromhex(ref.sha256) for ref in session.segments]),
        )
        data = seal_manifest(session.key, manifest, salt=self._entropy(_SALT_BYTES))
        ref = SegmentRef(
            recording=recording.id,
            index=MANIFEST_INDEX,
            attempt="",
            name=manifest_name(recording.tenant, recording.audio.cohort.period, recording.id),
            offset=0,
            length=0,
            object_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        await self._put(session, ref, data)
        if self._pinned(recording.audio):
            # A hold placed during the call has pinned the key; its objects are marked as held too.
            for each in (*session.segments, ref):
                await self._store.set_held(each.name, held=True)
        misdeclared = await self._misdeclared(session)
        final = RecordingState.SEALED if state == "sealed" else RecordingState.TRUNCATED
        await self._catalog.finish_recording(
            recording.id,
            state=final,
            reason=reason or None,
            ended_at=ended_at,
            stored_bytes=session.stored,
            lasted=lasted_of(manifest, head=head),
            objects=[*session.unrecorded, ref],
            examined=session.examined,
            audit=[
                *session.untold,
                *misdeclared,
                event(
                    f"recording.{final.value}",
                    None,
                    tenant=recording.tenant,
                    target=recording.id,
                    detail={"bytes": session.stored, "reason": reason or None}
                    | ({"cause": cause} if reason != cause else {}),
                ),
            ],
        )
        if recording.content is not None:
            self._metrics.misdeclared.labels(recording.media.container.value, recording.content.value).inc()
        if session.entry is not None:
            session.entry.close()
        self._sessions.discard(session)
        self._finished(session)

    async def plaintext_sha256(self, session: IngestSession) -> str:
        """Return the SHA-256 of the durable bytes in hex; rebuilds the running digest if there is none."""
        if session.digest is None:
            await self.rebuild_digest(session)
        assert session.digest is not None
        return session.digest.hexdigest()

    async def rebuild_digest(self, session: IngestSession) -> None:
        """Hash the durable bytes again, after a restart or a failed commit discarded the running digest."""
        session.restart_digest(await self.durable_digest(session, 0))

    async def durable_digest(self, session: IngestSession, start: int) -> hashlib._Hash:
        """Return the SHA-256 object of the durable bytes from `start` on."""
        digest = hashlib.sha256()
        async for piece in self._reader.read(
            session.recording, session.key, session.segments, start, session.durable, entry=session.entry
        ):
            digest.update(piece)
        return digest


def _headless(session: IngestSession) -> bool:
    """Tell whether bytes before the first kept ones were not kept, so that those are not the beginning of a file."""
    lost = any(isinstance(note, Pause | Aside) and note.offset == 0 for note in session.keeping.notes)
    return lost or bool(session.skipped)
