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
from vault.services.recordings.search import S3_KEY

TOTAL: Final = "upload_length"
"""The member of a call's `extra` facts that holds `CallStart.total`."""
STATED_START: Final = "stated_start"
"""The member of a call's `extra` facts with the start that its recorder stated and that cannot be one."""
BEGUN_BY: Final = "begun_by"
"""The member of a call's `extra` facts with the id of the token that began it."""
LEFT_OUT: Final = "facts_left_out"
"""The member of a call's `extra` facts that says which facts were not kept, and why."""
FRAMES_LEFT_OUT: Final = "frames_left_out"
"""The member of a call's `extra` facts that says how many frames of its streams could not be read, and why."""
_DEFERRED: Final = "deferred"
_GRACE: Final = "grace_seconds"
_TERMS: Final = frozenset({TOTAL, _GRACE, STATED_START, BEGUN_BY, S3_KEY, LEFT_OUT, FRAMES_LEFT_OUT})
_COUNT: Final = re.compile(r"\d{1,18}", re.ASCII)
_SECONDS: Final = re.compile(r"\d{1,12}(?:\.\d{1,6})?", re.ASCII)
ROOM_PAUSES: Final = (0.1,) * 100
"""Seconds before each further try to write to a full journal, as long as a recorder is held back for it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStart:
    """What a recorder says when it begins."""

    tenant: TenantId
    call_key: str = field(repr=False)
    media: Media
    facts: CallFacts
    started_at: datetime | None
    retention: Period
    grace: timedelta | None = None
    """How long an interrupted recording waits for its recorder, where the dialect's clients take longer than most."""
    resumable: bool = False
    """Whether it is an upload with an address of its own, which goes on after a restart of the server."""
    total: int | None = None
    """How many bytes a resumable one will have; None until its client says so."""
    object_key: str | None = field(default=None, repr=False)
    """Under which S3 clients know it."""
    keep_until: datetime | None = None
    """Until when its recorder wants it kept at the least."""
    answer: Etag | None = None
    """With which ETag it is to be acknowledged."""

    @property
    def terms(self) -> Mapping[str, str]:
        """What a restart of the server must not forget, as members of the call's sealed `extra` facts."""
        terms = {TOTAL: _DEFERRED if self.total is None else str(self.total)} if self.resumable else {}
        if self.grace is not None:
            terms[_GRACE] = str(self.grace.total_seconds())
        if self.object_key not in (None, self.call_key):
            terms[S3_KEY] = self.object_key
        return terms


def stated(facts: CallFacts) -> CallFacts:
    """Return a recorder's facts without extras of the names that the vault itself uses, and with what was left out."""
    extra = {name: text for name, text in facts.extra.items() if name not in _TERMS}
    if facts.unusable:
        extra[LEFT_OUT] = ", ".join(f"{name} ({why})" for name, why in facts.unusable.items())
    return replace(facts, extra=extra)


def require_end(durable: int, offset: int | None) -> None:
    """Raise OffsetMismatch if `offset` is given and is not the durable end."""
    if offset is not None and offset != durable:
        raise OffsetMismatch(
            f"the upload continues at byte {offset}, but {durable} bytes are durable",
            hint=f"continue at byte {durable}",
            offset=durable,
        )


class LiveFeed(Protocol):
    """The live connection behind a session."""

    @property
    def silent(self) -> bool:
        """Whether another connection may take its place."""

    @property
    def waiting(self) -> int:
        """How many of the next bytes it gives out stand for a time whose audio has come in already."""

    def give_way(self) -> None:
        """Stop writing at once: another connection continues the recording."""


@dataclass(slots=True, kw_only=True, eq=False)
class IngestSession:
    """An open recording. Everybody may read; what changes it are its methods."""

    recording: Recording
    key: DataKey = field(repr=False)
    call_key: str | None = field(default=None, repr=False)
    """The recorder's name for the call, which may be a number; None if it can no longer be read."""
    begun_by: TokenId | None = None
    """Whose token began it; None of a call from before that was kept."""

    # Who sends it.
    uploads: int = 0
    """1 while an upload is bound to it."""
    arriving: int = field(default=0, init=False)
    """How many requests send parts of it that lie elsewhere until it is put together."""
    spooled: int = field(default=0, init=False)
    """Bytes of it that were acknowledged and lie there."""
    detached_at: float | None = None
    """Since when nobody sends it, in seconds of the monotonic clock."""
    displaced: bool = field(default=False, init=False)
    """It had to make way for another tenant's while it waited for its recorder, and is about to end."""
    placed: bool = field(default=True, init=False)
    """It has one of the places of open recordings."""
    grace: timedelta | None = None
    """In place of the vault's own, see `CallStart.grace`."""
    resumable: bool = False
    """See `CallStart.resumable`."""
    total: int | None = None
    """See `CallStart.total`."""
    owner: object | None = field(default=None, init=False)
    """Who alone may write to it: an upload in parts, which what comes by another way would neither continue nor end."""
    before_end: Callable[[], Awaitable[None]] | None = field(default=None, init=False)
    """Called before the vault itself ends the recording: writes what was received and lies elsewhere, or waits for an
    end that is on its way."""
    feed: LiveFeed | None = field(default=None, init=False)
    """The connection of a live dialect that writes now."""

    # What has come.
    entry: JournalEntry | None = field(default=None, init=False)
    digest: hashlib._Hash | None = field(default_factory=hashlib.sha256)
    """Runs over every byte appended; None when bytes it covered were lost with a failed commit or when the process
    restarted. It is then rebuilt from the durable bytes before the recording continues."""
    skipped: int = field(default=0, init=False)
    """Bytes that the recorder counts and that never came: it went on after it had been refused."""
    lossy: bool = field(default=False, init=False)
    """Bytes that were acknowledged may be gone: its journal is damaged or lost."""
    frames_left_out: Counter[str] = field(default_factory=Counter, init=False)
    """How many frames of its streams could not be read, by the reason; empty until one comes to this process."""

    # What is stored.
    segments: list[SegmentRef] = field(default_factory=list)
    """In order; a session begins with those that the catalog knows."""
    stored: int = 0
    """The plaintext offset up to which verified segments exist."""
    examined: Examined | None = field(default=None, init=False)
    """What its head tells beyond its declaration, until the catalog knows."""
    wav: WavHead | None = field(default=None, init=False)
    """The head of a WAV, if it is all in the first segment."""
    storing: bool = field(default=False, init=False)
    """It waits for a worker that stores, or has one."""
    done: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _recorded: int = field(init=False)
    """How many of `segments` the catalog already knows."""
    _oldest_unstored_at: float | None = field(default=None, init=False)
    _flush: bool = field(default=False, init=False)
    """Store what is durable now, whatever its size and age."""
    _patience: float = field(default_factory=lambda: random.uniform(0.6, 1.0), init=False)  # noqa: S311  # no secret
    """Which share of their age its first segments wait: calls that began together are not cut together."""

    # How it ends.
    ending: str | None = field(default=None, init=False)
    """The end that is being written; from here on nothing is taken in."""
    ended: str | None = field(default=None, init=False)
    """The end that is durable: "sealed" or "truncated:<why>"."""

    # What is noted of it.
    keeping: Keeping = field(init=False)
    allowance: Allowance = field(default_factory=Allowance, init=False)
    """What its pauses have used of `ingest.pause_max`, in seconds of the monotonic clock."""
    own_pause: bool = field(default=False, init=False)
    """The present pause was asked for by the recorder in its stream: it ends with that connection, if this process
    still knows; after a restart it lasts as any other, because keeping too little is the lesser harm.
    """
    paused_by: Principal | None = field(default=None, init=False)
    """Who began the last pause; None if another process heard it."""
    resuming: bool = field(default=False, init=False)
    """A resume is being made durable: what arrives waits, because it is kept if that succeeds and else is not."""
    noting: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    """One note after the other, and none while the manifest is made."""
    late: CallFacts | None = field(default=None, init=False, repr=False)
    """Facts that no row has yet: the catalog could not take them."""
    untold: list[AuditEvent] = field(default_factory=list, init=False)
    """What the audit trail has yet to hear of the notes."""
    _unwritten: set[int] = field(default_factory=set, init=False)
    """Numbers of the notes that no row has yet."""

    def __post_init__(self) -> None:
        self.keeping = Keeping(frame=frame_bytes(self.recording.media))
        self._recorded = len(self.segments)

    @classmethod
    def begun(cls, call: CallStart, recording: Recording, key: DataKey, *, begun_by: TokenId) -> IngestSession:
        """Return the session of a new recording, with the upload that begins it bound to it."""
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
            session.keeping.notes.append(call.answer)  # its row was written with the recording's
        return session

    @property
    def leaving(self) -> bool:
        """Whether it has ended, or is about to: no recorder continues it."""
        return self.ending is not None or self.displaced

    @property
    def empty(self) -> bool:
        """Whether nothing of it has come."""
        return not self.sent and not self.spooled

    @property
    def durable(self) -> int:
        """Plaintext bytes that survive a crash."""
        return self.stored if self.entry is None else max(self.entry.durable, self.stored)

    @property
    def appended(self) -> int:
        """Plaintext bytes taken in, durable or not."""
        return self.stored if self.entry is None else max(self.entry.appended, self.stored)

    @property
    def complete(self) -> bool:
        """Whether every byte that the recorder announced has been taken in."""
        return self.total is not None and self.sent == self.total

    @property
    def sent(self) -> int:
        """How many bytes of its stream the recorder has sent: those taken in, and those that pauses dropped."""
        return self.appended + self.keeping.taken(self.appended)

    @property
    def ends_empty(self) -> bool:
        """Whether it ends, or has ended, with nothing acknowledged, and its recorder did not say that this is all.

        What a pause dropped was acknowledged, and so may have been what was lost.
        """
        broken_off = self.displaced if self.ending is None else self.ending.startswith(RecordingState.TRUNCATED)
        return broken_off and self.empty and not self.lossy

    @property
    def received(self) -> int:
        """What the recorder counts as safe: durable bytes, and those before them that pauses are noted to have dropped.

        Every offset that is told to a recorder, or taken from one, is this one.
        """
        return self.durable + self.keeping.dropped(self.durable)

    def require_open(self, *, unless: str | None = None) -> None:
        """Raise Unavailable if the recording has ended or is ending for another reason than `unless`."""
        if self.ending is not None and self.ending != unless:
            raise Unavailable(
                "the recording was ended by the vault; what was received is durable",
                hint="ask with HEAD how much that is",
            )

    def require_offset(self, offset: int | None) -> None:
        """Raise OffsetMismatch if `offset` is given and is not the durable end."""
        require_end(self.received, offset)

    # -- who sends it -------------------------------------------------------------------------------------------

    def attach(self) -> None:
        """An upload is bound to it: it waits for nobody."""
        self.uploads = 1
        self.detached_at = None

    def detach(self, *, now: float) -> None:
        """No upload is bound to it; unless its end is durable, it waits for its recorder from now on."""
        self.uploads = 0
        if self.ended is None:
            self.detached_at = now

    def touch(self, *, now: float) -> None:
        """Something of it came by another way than the upload: its recorder is there, so it waits anew."""
        if self.detached_at is not None:
            self.detached_at = now

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """A request sends a part of it inside the context."""
        self.arriving += 1
        try:
            yield
        finally:
            self.arriving -= 1

    def keep_aside(self, size: int) -> None:
        """So many more bytes of it were acknowledged and lie elsewhere."""
        self.spooled += size

    def belong_to(self, owner: object, *, grace: timedelta, before_end: Callable[[], Awaitable[None]]) -> None:
        """From now on only `owner` may write to it, with terms of its own."""
        self.owner, self.grace, self.before_end = owner, grace, before_end

    def follow(self, feed: LiveFeed) -> None:
        """This connection writes it now."""
        self.feed = feed

    def unfollow(self) -> None:
        """No connection writes it now."""
        self.feed = None

    def displace(self) -> None:
        """It ends soon: another tenant's has its place, or the room of its parts."""
        self.displaced = True

    def give_place(self) -> None:
        """Another recording has its place among the open ones already."""
        self.placed = False

    def announce(self, total: int) -> None:
        """Its client has said how many bytes there will be, which it says once."""
        assert self.total in (None, total)
        self.total = total

    # -- what comes ---------------------------------------------------------------------------------------------

    def take(self, piece: bytes, *, most: int) -> bool:
        """Take one piece, or drop it in a pause; False, with nothing taken, if that has to wait or is refused.

        `most`: how many bytes the recording may have.
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
        """What comes goes to this entry, which begins or goes on behind what is stored."""
        self.entry = entry

    def add_to_digest(self, piece: bytes) -> None:
        """The piece is in the journal entry."""
        if self.digest is not None:
            self.digest.update(piece)

    def lose_tail(self) -> None:
        """What was taken in and is not durable is gone: the recorder is asked for it again."""
        self.digest = None
        self.keeping.continue_at(self.durable)

    def leave_entry(self) -> None:
        """Let go of a journal entry of which every durable byte is stored."""
        assert self.entry is not None
        self.entry.close()
        self.entry = None

    def restart_digest(self, digest: hashlib._Hash) -> None:
        """Go on with the digest of the durable bytes, read again."""
        self.digest = digest

    def skip(self, missing: int) -> None:
        """The recorder goes on behind so many bytes that never came; the recording does not end as sealed."""
        self.skipped += missing

    def lose(self) -> None:
        """Bytes of it that were acknowledged may be gone."""
        self.lossy = True

    def leave_out(self, why: str, *, told: Mapping[str, int]) -> None:
        """One more frame could not be read; `told` are those that its row counts, which the first adds to."""
        if not self.frames_left_out:
            self.frames_left_out.update(told)
        self.frames_left_out[why] += 1

    # -- what is stored -----------------------------------------------------------------------------------------

    def due(self, *, max_bytes: int, seconds_to_cut: Callable[[int, float], float], clock: Clock) -> bool:
        """Tell whether there is something to store now: a full or old segment, what was asked for, or the end.

        `seconds_to_cut` gives the age from how many segments are stored and the share of it that this one waits.
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
        """It waits for a worker; nobody queues it again until that worker has left it."""
        self.storing = True

    def dequeue(self) -> None:
        """The worker has left it."""
        self.storing = False

    def flush(self) -> None:
        """Every durable byte of it is due, whatever its age."""
        self._flush = True

    def set_media(self, examined: Examined) -> None:
        """Its head tells more than was declared: the row and the manifest say that."""
        self.examined = examined
        self.recording = replace(self.recording, media=examined.media, content=examined.content)

    def find_wav(self, head: WavHead | None) -> None:
        """Its first segment has the whole head of a WAV, or has not."""
        self.wav = head

    def store(self, ref: SegmentRef, *, recorded: bool) -> None:
        """The next segment is stored and verified; `recorded`: the catalog knows it, and what the head tells."""
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
        """The segments that the catalog does not know."""
        return self.segments[self._recorded :]

    # -- how it ends --------------------------------------------------------------------------------------------

    def begin_end(self, ended: str) -> None:
        """This end is being written: nothing more is taken in."""
        self.ending = ended

    def withdraw_end(self) -> None:
        """No end was written: the recording is still open."""
        self.ending = None

    def end(self, ended: str) -> None:
        """This end is durable."""
        self.ended = self.ending = ended

    # -- what is noted ------------------------------------------------------------------------------------------

    def stop_keeping(self, actor: Principal | None, *, own: bool, now: float, now_ms: int) -> None:
        """What arrives from here on is dropped, see `own_pause`; somebody else who asks too makes the pause theirs."""
        self.own_pause = own and (self.own_pause or not self.keeping.paused)
        if not self.keeping.paused:
            self.keeping.stop(now_ms=now_ms)
            self.paused_by = actor
            self.allowance.turn(paused=True, now=now)

    def note_pause(self, told: AuditEvent) -> None:
        """Note the pause at the present end of the audio."""
        self._unwritten.add(self.keeping.note_pause(self.appended))
        self.untold.append(told)

    @contextmanager
    def hold_back(self) -> Iterator[None]:
        """The end of the pause is made durable inside the context: what arrives waits."""
        self.resuming = True
        try:
            yield
        finally:
            self.resuming = False

    def keep_again(self, *, counted: int, late: int) -> None:
        """What arrives from here on is kept; `counted` and `late` bytes are in the note of the pause, see `Keeping`."""
        self.keeping.count_noted(counted)
        self.keeping.go_on(late=late)
        self.own_pause = False

    def note(self, note: Note) -> None:
        """Add a note that no row has yet."""
        self.change(len(self.keeping.notes), note)

    def note_only(self, note: Aside | Etag) -> None:
        """Note what a recording has one note of at most; what says the same stays as it is."""
        notes = self.keeping.notes
        at = next((at for at, each in enumerate(notes) if type(each) is type(note)), len(notes))
        if at == len(notes) or replace(notes[at], at_ms=note.at_ms) != note:
            self.change(at, note)

    def change(self, at: int, note: Note) -> None:
        """Replace the note of this number, or add the next one; no row has it yet."""
        self.keeping.notes[at : at + 1] = [note]
        self._unwritten.add(at)

    def tell(self, *told: AuditEvent) -> None:
        """The audit trail is to hear this with the next note."""
        self.untold.extend(told)

    @property
    def unwritten(self) -> Mapping[int, Note]:
        """The notes that no row has yet, by number."""
        return {at: self.keeping.notes[at] for at in sorted(self._unwritten)}

    def wrote(self, written: Mapping[int, Note]) -> None:
        """The rows have these notes, and the audit trail what it was to be told with them."""
        for at, note in written.items():
            self.keeping.notes[at] = note
        self._unwritten.difference_update(written)
        self.untold.clear()

    def learn(self, late: CallFacts | None) -> None:
        """Facts that no row has yet are these, or there are none any more."""
        self.late = late

    def revise(self, *, sealed_facts: bytes, caller_token: str | None, called_token: str | None) -> None:
        """The row has other facts: the manifest copies it as it is known here."""
        self.recording = replace(
            self.recording, sealed_facts=sealed_facts, caller_token=caller_token, called_token=called_token
        )

    # -- after a restart ----------------------------------------------------------------------------------------

    def recall_notes(self, notes: Sequence[Note], *, used: float, now: float) -> None:
        """Take up the notes of its row; its pauses have used so many seconds of what they may."""
        self.keeping.recall(notes, end=self.durable)
        self.allowance = Allowance(used=used, since=now, paused=self.keeping.paused)

    def recall(self, extra: Mapping[str, str]) -> None:
        """Take up the terms that a session before this one began under.

        What is none is passed over: a row may hold a recorder's own word under such a name.
        """
        total, grace = extra.get(TOTAL, ""), extra.get(_GRACE, "")
        if BEGUN_BY in extra:
            self.begun_by = TokenId(extra[BEGUN_BY])
        if total == _DEFERRED or _COUNT.fullmatch(total):
            self.resumable = True
            self.total = None if total == _DEFERRED else int(total)
        if _SECONDS.fullmatch(grace):
            self.grace = timedelta(seconds=float(grace))

    def rejoin(self, found: ReplayedRecording | None) -> None:
        """Continue after a restart with what the journal still has, if it reaches back to what is stored."""
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
            # The newest bytes are stored and their file is gone: the entry would put new ones in their place.
            found.entry.close()
            return
        self.entry = found.entry
