"""One recording while it is open: what has arrived, what is durable, what is stored."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from vault.errors import OffsetMismatch, Unavailable
from vault.format.notes import Aside, Etag, Note
from vault.ids import TenantId, TokenId
from vault.media.wav_sizes import WavHead
from vault.model import (
    AuditEvent,
    CallFacts,
    DataKey,
    Examined,
    Media,
    Principal,
    Recording,
    RecordingState,
    SegmentRef,
)
from vault.ports.journal import JournalEntry, ReplayedRecording
from vault.ports.time import Clock
from vault.retention.periods import Period
from vault.services.ingest.pauses import Allowance, Keeping, frame_bytes
from vault.services.recordings.search import BEGUN_BY, GRACE, S3_KEY, TOTAL

_DEFERRED: Final = "deferred"
"""The value of `TOTAL` while the length of a resumable upload is not known."""
_COUNT: Final = re.compile(r"\d{1,18}", re.ASCII)
_SECONDS: Final = re.compile(r"\d{1,12}(?:\.\d{1,6})?", re.ASCII)
ROOM_PAUSES: Final = (0.1,) * 100
"""Seconds before each further attempt to write to a full journal; the recorder waits meanwhile."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStart:
    """What a recorder states when it begins a recording."""

    tenant: TenantId
    call_key: str = field(repr=False)
    media: Media
    facts: CallFacts
    started_at: datetime | None
    retention: Period
    grace: timedelta | None = None
    """How long an interrupted recording waits for its recorder; None for the vault's own `resume_grace`."""
    resumable: bool = False
    """Whether the recording is an upload with an address of its own, which continues after a restart of the server."""
    total: int | None = None
    """How many bytes a resumable upload will have; None until its client states that."""
    object_key: str | None = field(default=None, repr=False)
    """The key under which S3 clients know the recording."""
    keep_until: datetime | None = None
    """The earliest end of retention that the recorder asks for."""
    answer: Etag | None = None
    """The ETag with which the upload will be acknowledged."""

    @property
    def terms(self) -> Mapping[str, str]:
        """The terms that survive a restart of the server, as members of the call's sealed `extra` facts."""
        terms = {TOTAL: _DEFERRED if self.total is None else str(self.total)} if self.resumable else {}
        if self.grace is not None:
            terms[GRACE] = str(self.grace.total_seconds())
        if self.object_key not in (None, self.call_key):
            terms[S3_KEY] = self.object_key
        return terms


def require_end(durable: int, offset: int | None) -> None:
    """Raise OffsetMismatch if `offset` is given and is not the durable end."""
    if offset is not None and offset != durable:
        raise OffsetMismatch(
            f"the upload continues at byte {offset}, but {durable} bytes are durable",
            hint=f"continue at byte {durable}",
            offset=durable,
        )


class LiveFeed(Protocol):
    """The live connection that writes a session."""

    @property
    def silent(self) -> bool:
        """Whether no audio has come for so long that another connection may replace this one."""

    @property
    def waiting(self) -> int:
        """How many of the next bytes come from its reorder window, for audio that has already arrived."""

    def give_way(self) -> None:
        """Stop writing at once, because another connection continues the recording."""


@dataclass(slots=True, kw_only=True, eq=False)
class IngestSession:
    """An open recording: what has arrived, what is durable, what is stored. Only its own methods change it."""

    recording: Recording
    key: DataKey = field(repr=False)
    call_key: str | None = field(default=None, repr=False)
    """The recorder's name for the call, which may be a number; None if it can no longer be read."""
    begun_by: TokenId | None = None
    """The token that began it; None for an old call whose token was not kept."""

    # Its senders.
    uploads: int = 0
    """1 while an upload is attached, else 0."""
    arriving: int = field(default=0, init=False)
    """How many requests are sending parts of an upload in parts."""
    spooled: int = field(default=0, init=False)
    """Acknowledged bytes in the spool, which are not yet written to the recording."""
    detached_at: float | None = None
    """When the last sender left, in seconds of the monotonic clock; None while an upload is attached."""
    displaced: bool = field(default=False, init=False)
    """Whether it is about to end because another tenant needs its room."""
    placed: bool = field(default=True, init=False)
    """Whether it counts towards the number of open recordings."""
    grace: timedelta | None = None
    """See `CallStart.grace`."""
    resumable: bool = False
    """See `CallStart.resumable`."""
    total: int | None = None
    """See `CallStart.total`."""
    owner: object | None = field(default=None, init=False)
    """The upload in parts that alone may write to it; None if any upload may."""
    before_end: Callable[[], Awaitable[None]] | None = field(default=None, init=False)
    """Called before the vault itself ends the recording. It writes the spooled bytes, or waits for an end that a
    request is writing."""
    feed: LiveFeed | None = field(default=None, init=False)
    """The live connection that writes now."""

    # What has arrived.
    entry: JournalEntry | None = field(default=None, init=False)
    digest: hashlib._Hash | None = field(default_factory=hashlib.sha256)
    """Covers every appended byte; None after a restart, and after a failed commit lost bytes that it covered. It is
    then rebuilt from the durable bytes before the recording continues."""
    skipped: int = field(default=0, init=False)
    """Bytes that the recorder counts and that never arrived, because it continued after a refusal."""
    lossy: bool = field(default=False, init=False)
    """Whether acknowledged bytes may be lost, because the journal is damaged or gone."""
    frames_left_out: Counter[str] = field(default_factory=Counter, init=False)
    """How many frames of its streams could not be read, by reason; empty until this process receives one."""

    # What is stored.
    segments: list[SegmentRef] = field(default_factory=list)
    """In order; a session begins with those in the catalog."""
    stored: int = 0
    """The plaintext offset up to which verified segments exist."""
    examined: Examined | None = field(default=None, init=False)
    """What the first bytes show beyond the declared format; None once it is in the catalog."""
    wav: WavHead | None = field(default=None, init=False)
    """The head of a WAV, if the first segment has all of it."""
    storing: bool = field(default=False, init=False)
    """Whether it is queued for a storing worker, or has one."""
    done: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    """Set once the recording is finished and stored."""
    _recorded: int = field(init=False)
    """How many of `segments` are in the catalog."""
    _oldest_unstored_at: float | None = field(default=None, init=False)
    _flush: bool = field(default=False, init=False)
    """Whether the durable bytes are stored now, whatever their number and age."""
    _patience: float = field(default_factory=lambda: random.uniform(0.6, 1.0), init=False)  # noqa: S311  # no secret
    """The share of their age that its first segments wait, so that calls that began together are not cut together."""

    # Its end.
    ending: str | None = field(default=None, init=False)
    """The end that is being written or durable; with one, no more bytes are accepted."""
    ended: str | None = field(default=None, init=False)
    """The durable end: "sealed" or "truncated:<why>"."""

    # Its notes.
    keeping: Keeping = field(init=False)
    allowance: Allowance = field(default_factory=Allowance, init=False)
    """What its pauses have used of `ingest.pause_max`, in seconds of the monotonic clock."""
    own_pause: bool = field(default=False, init=False)
    """Whether the recorder asked for the present pause in its own stream. Such a pause ends with that connection. After
    a restart it lasts like any other, because keeping too little is the lesser harm."""
    paused_by: Principal | None = field(default=None, init=False)
    """Who began the last pause; None if another process received the request."""
    resuming: bool = field(default=False, init=False)
    """Whether a resume is being made durable. Arriving audio waits: it is kept if the resume succeeds, else dropped."""
    noting: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    """Held while a note is written and while the manifest is made."""
    late: CallFacts | None = field(default=None, init=False, repr=False)
    """Late facts that are not in the row yet, because the catalog did not answer."""
    untold: list[AuditEvent] = field(default_factory=list, init=False)
    """Audit events to write with the next note."""
    notes_full: bool = field(default=False, init=False)
    """Whether it has as many notes as it may have."""
    _unwritten: set[int] = field(default_factory=set, init=False)
    """Numbers of the notes that are not in the catalog yet."""
    _sealed: dict[int, tuple[Note, bytes]] = field(default_factory=dict, init=False, repr=False)
    """Notes that wait for the catalog, sealed, by number."""

    def __post_init__(self) -> None:
        self.keeping = Keeping(frame=frame_bytes(self.recording.media))
        self._recorded = len(self.segments)

    @classmethod
    def begun(cls, call: CallStart, recording: Recording, key: DataKey, *, begun_by: TokenId) -> IngestSession:
        """Return the session of a new recording, with its first upload attached."""
        session = cls(
            recording=recording,
            key=key,
            call_key=call.call_key,
            begun_by=begun_by,
            uploads=1,
            grace=call.grace,
            resumable=call.resumable,
            total=call.total,
        )
        if call.answer is not None:
            session.keeping.notes.append(call.answer)  # in the catalog already, written with the recording's row
        return session

    @property
    def leaving(self) -> bool:
        """Whether it has ended or is about to, so that no recorder may continue it."""
        return self.ending is not None or self.displaced

    @property
    def empty(self) -> bool:
        """Whether no byte of it has arrived."""
        return not self.sent and not self.spooled

    @property
    def durable(self) -> int:
        """Plaintext bytes that survive a crash."""
        return self.stored if self.entry is None else max(self.entry.durable, self.stored)

    @property
    def appended(self) -> int:
        """Plaintext bytes accepted, durable or not."""
        return self.stored if self.entry is None else max(self.entry.appended, self.stored)

    @property
    def complete(self) -> bool:
        """Whether every byte that the recorder announced has arrived."""
        return self.total is not None and self.sent == self.total

    @property
    def sent(self) -> int:
        """How many bytes of its stream the recorder has sent: those accepted, and those that pauses dropped."""
        return self.appended + self.keeping.taken(self.appended)

    @property
    def ends_empty(self) -> bool:
        """Whether it ends broken off, without any acknowledged byte.

        Bytes that a pause dropped were acknowledged. Bytes that a damaged journal lost may have been.
        """
        broken_off = self.displaced if self.ending is None else self.ending.startswith(RecordingState.TRUNCATED)
        return broken_off and self.empty and not self.lossy

    @property
    def received(self) -> int:
        """The durable end in the recorder's own stream: durable bytes, and dropped bytes that a note of a pause counts.

        Every offset in a recorder's request, or in an answer to one, is in this count.
        """
        return self.durable + self.keeping.dropped(self.durable)

    def require_open(self, *, unless: str | None = None) -> None:
        """Raise Unavailable if the recording has ended or is ending for another reason than `unless`."""
        if self.ending is not None and self.ending != unless:
            raise Unavailable(
                "the recording was ended by the vault; what was received is durable",
                hint="ask with HEAD how many bytes are durable",
            )

    def require_offset(self, offset: int | None) -> None:
        """Raise OffsetMismatch if `offset` is given and is not the durable end."""
        require_end(self.received, offset)

    # -- senders ------------------------------------------------------------------------------------------------

    def attach(self) -> None:
        """Attach an upload: the grace period ends."""
        self.uploads = 1
        self.detached_at = None

    def detach(self, *, now: float) -> None:
        """Detach the upload. Unless the end is durable, the grace period begins now."""
        self.uploads = 0
        if self.ended is None:
            self.detached_at = now

    def touch(self, *, now: float) -> None:
        """Begin the grace period again, because the recorder sent something by another request."""
        if self.detached_at is not None:
            self.detached_at = now

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Count a request that sends a part, inside the context."""
        self.arriving += 1
        try:
            yield
        finally:
            self.arriving -= 1

    def keep_aside(self, size: int) -> None:
        """Count `size` more acknowledged bytes in the spool."""
        self.spooled += size

    def belong_to(self, owner: object, *, grace: timedelta, before_end: Callable[[], Awaitable[None]]) -> None:
        """Let only `owner` write to it from now on, with this grace period and `before_end`."""
        self.owner, self.grace, self.before_end = owner, grace, before_end

    def follow(self, feed: LiveFeed) -> None:
        """Note the live connection that writes it now."""
        self.feed = feed

    def unfollow(self) -> None:
        """Note that no live connection writes it now."""
        self.feed = None

    def displace(self) -> None:
        """Mark it to end soon, because another tenant needs its place or the room of its parts."""
        self.displaced = True

    def give_place(self) -> None:
        """Give its place among the open recordings to another one."""
        self.placed = False

    def announce(self, total: int) -> None:
        """Note the total number of bytes. A client states it once."""
        assert self.total in (None, total)
        self.total = total

    # -- arriving bytes -----------------------------------------------------------------------------------------

    def take(self, piece: bytes, *, most: int) -> bool:
        """Append one piece, or drop it in a pause; False, with nothing changed, if it has to wait or is refused.

        `most` is how many bytes the recording may have.
        """
        keeping = self.keeping
        if keeping.paused and not self.resuming:
            keeping.keep(piece)
            return True
        if keeping.paused or keeping.fresh:
            return False
        entry, digest = self.entry, self.digest
        if (
            entry is None
            or digest is None
            or self.ending is not None
            or entry.appended + len(piece) > most
            or not entry.roomy
        ):
            return False
        try:
            entry.append(piece)
        except Unavailable:
            return False
        digest.update(piece)
        return True

    def continue_in(self, entry: JournalEntry) -> None:
        """Append arriving bytes to this entry, which begins after the stored bytes."""
        self.entry = entry

    def add_to_digest(self, piece: bytes) -> None:
        """Add a piece that is in the journal entry to the digest."""
        if self.digest is not None:
            self.digest.update(piece)

    def lose_tail(self) -> None:
        """Forget the accepted bytes that a failed commit lost: the recorder sends them again."""
        self.digest = None
        self.keeping.continue_at(self.durable)

    def leave_entry(self) -> None:
        """Close the journal entry, once every durable byte of it is stored."""
        assert self.entry is not None
        self.entry.close()
        self.entry = None

    def restart_digest(self, digest: hashlib._Hash) -> None:
        """Continue with this digest of the durable bytes."""
        self.digest = digest

    def skip(self, missing: int) -> None:
        """Count `missing` bytes that the recorder skipped; the recording then does not end as sealed."""
        self.skipped += missing

    def lose(self) -> None:
        """Note that acknowledged bytes may be lost."""
        self.lossy = True

    def leave_out(self, why: str, *, noted: Mapping[str, int]) -> None:
        """Count a frame that could not be read. The first one continues from `noted`, the counts in the row."""
        if not self.frames_left_out:
            self.frames_left_out.update(noted)
        self.frames_left_out[why] += 1

    # -- stored segments ----------------------------------------------------------------------------------------

    def due(self, *, max_bytes: int, seconds_to_cut: Callable[[int, float], float], clock: Clock) -> bool:
        """Tell whether there is something to store now: a full or old segment, a flush, or the end.

        `seconds_to_cut` returns the age at which a segment is cut, from the number of stored segments and `_patience`.
        """
        if self.ended is not None:
            return True
        unstored = self.durable - self.stored
        if unstored <= 0:
            self._oldest_unstored_at = None
            self._flush = False
            return False
        if self._flush or unstored >= max_bytes:
            return True
        now = clock.monotonic()
        if self._oldest_unstored_at is None:
            self._oldest_unstored_at = now
        return now - self._oldest_unstored_at >= seconds_to_cut(len(self.segments), self._patience)

    def enqueue(self) -> None:
        """Mark it as queued for a worker: it is not queued again until that worker has left it."""
        self.storing = True

    def dequeue(self) -> None:
        """Note that the worker has left it."""
        self.storing = False

    def flush(self) -> None:
        """Make every durable byte due, whatever its age."""
        self._flush = True

    def set_media(self, examined: Examined) -> None:
        """Replace the declared format by the examined one, for the row and the manifest."""
        self.examined = examined
        self.recording = replace(self.recording, media=examined.media, content=examined.content)

    def find_wav(self, head: WavHead | None) -> None:
        """Note the head of a WAV; None if the first segment does not have all of it."""
        self.wav = head

    def store(self, ref: SegmentRef, *, recorded: bool) -> None:
        """Add the next stored and verified segment; `recorded` means that it and `examined` are in the catalog."""
        assert ref.offset == self.stored
        if recorded:
            self.examined = None
            self._recorded += 1
        self.segments.append(ref)
        self.stored = ref.offset + ref.length
        self._oldest_unstored_at = None
        if recorded and self.entry is not None:
            self.entry.release(self.stored)

    @property
    def unrecorded(self) -> Sequence[SegmentRef]:
        """The stored segments that are not in the catalog."""
        return self.segments[self._recorded :]

    # -- the end ------------------------------------------------------------------------------------------------

    def begin_end(self, ended: str) -> None:
        """Accept no more bytes, because this end is being written."""
        self.ending = ended

    def withdraw_end(self) -> None:
        """Keep the recording open, because its end could not be written."""
        self.ending = None

    def end(self, ended: str) -> None:
        """Note the end, which is durable."""
        self.ended = self.ending = ended

    # -- notes --------------------------------------------------------------------------------------------------

    def stop_keeping(self, actor: Principal | None, *, own: bool, now: float, now_ms: int) -> None:
        """Drop what arrives from now on; a pause that somebody else asks for too is no longer an `own_pause`."""
        self.own_pause = own and (self.own_pause or not self.keeping.paused)
        if not self.keeping.paused:
            self.keeping.stop(now_ms=now_ms)
            self.paused_by = actor
            self.allowance.turn(paused=True, now=now)

    def note_pause(self, event: AuditEvent) -> None:
        """Add a note of the pause at the present end of the audio, with its audit event."""
        self._unwritten.add(self.keeping.note_pause(self.appended))
        self.untold.append(event)

    @contextmanager
    def hold_back(self) -> Iterator[None]:
        """Let arriving audio wait inside the context, which makes the end of the pause durable."""
        self.resuming = True
        try:
            yield
        finally:
            self.resuming = False

    def keep_again(self, *, counted: int, late: int) -> None:
        """Keep what arrives from now on; the note of the pause already counts `counted` and `late` bytes."""
        self.keeping.count_noted(counted)
        self.keeping.go_on(late=late)
        self.own_pause = False

    def note(self, note: Note) -> None:
        """Add a note, to be written to the catalog later."""
        self.change(len(self.keeping.notes), note)

    def take_no_more_notes(self) -> None:
        """Say that it has as many notes as it may have."""
        self.notes_full = True

    def note_only(self, note: Aside | Etag) -> None:
        """Add a note of a kind that a recording has only once, or replace it; an equal note changes nothing."""
        notes = self.keeping.notes
        at = next((at for at, each in enumerate(notes) if type(each) is type(note)), len(notes))
        if at == len(notes) or replace(notes[at], at_ms=note.at_ms) != note:
            self.change(at, note)

    def change(self, at: int, note: Note) -> None:
        """Replace the note with this number, or add the next one, to be written to the catalog later."""
        self.keeping.notes[at : at + 1] = [note]
        self._unwritten.add(at)

    def tell(self, *events: AuditEvent) -> None:
        """Write these audit events with the next note."""
        self.untold.extend(events)

    @property
    def unwritten(self) -> Mapping[int, Note]:
        """The notes that are not in the catalog yet, by number."""
        return {at: self.keeping.notes[at] for at in sorted(self._unwritten)}

    def wrote(self, written: Mapping[int, Note]) -> None:
        """Note that these notes and the audit events that waited for them are in the catalog."""
        for at, note in written.items():
            self.keeping.notes[at] = note
            self._sealed.pop(at, None)
        self._unwritten.difference_update(written)
        self.untold.clear()

    def sealed_once(self, at: int, note: Note, seal: Callable[[Note], bytes]) -> bytes:
        """Return the note sealed; while it waits for the catalog it is not sealed again with each note after it."""
        kept = self._sealed.get(at)
        if kept is None or kept[0] is not note:
            kept = self._sealed[at] = (note, seal(note))
        return kept[1]

    def learn(self, late: CallFacts | None) -> None:
        """Replace the late facts that are not in the row yet; None once the row has them."""
        self.late = late

    def revise(self, *, sealed_facts: bytes, caller_token: str | None, called_token: str | None) -> None:
        """Take over the revised facts of the row, because the manifest copies the row from here."""
        self.recording = replace(
            self.recording, sealed_facts=sealed_facts, caller_token=caller_token, called_token=called_token
        )

    # -- after a restart ----------------------------------------------------------------------------------------

    def recall_notes(self, notes: Sequence[Note], *, used: float, now: float) -> None:
        """Load the notes from the catalog; `used` is how many seconds of the allowance its pauses have used."""
        self.keeping.recall(notes, end=self.durable)
        self.allowance = Allowance(used=used, since=now, paused=self.keeping.paused)

    def recall(self, extra: Mapping[str, str]) -> None:
        """Load the terms under which the recording began.

        A malformed value is ignored: an old row may have a recorder's own text under such a name.
        """
        total, grace = extra.get(TOTAL, ""), extra.get(GRACE, "")
        if BEGUN_BY in extra:
            self.begun_by = TokenId(extra[BEGUN_BY])
        if total == _DEFERRED or _COUNT.fullmatch(total):
            self.resumable = True
            self.total = None if total == _DEFERRED else int(total)
        if _SECONDS.fullmatch(grace):
            self.grace = timedelta(seconds=float(grace))

    def rejoin(self, found: ReplayedRecording | None) -> None:
        """Continue after a restart with the journal's bytes, if they begin at or before the end of the stored ones."""
        if found is None:
            return
        if found.first_offset > self.stored:
            logger.error(
                "journal bytes are missing before those found; the recording ends at the gap",
                extra={
                    "fields": {
                        "recording": self.recording.id,
                        "durable": self.stored,
                        "found_from": found.first_offset,
                    }
                },
            )
            self.lose()
            return
        self.ended = self.ending = found.ended
        if found.durable < self.stored:
            # The newest bytes are stored, and their journal file is gone. The entry would append new bytes at offsets
            # that the stored ones already have.
            found.entry.close()
            return
        self.entry = found.entry
