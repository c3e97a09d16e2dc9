"""One recording while it is open: what has arrived, what is durable, what is stored."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from vault.errors import OffsetMismatch, Unavailable
from vault.format.notes import Etag
from vault.ids import TenantId, TokenId
from vault.media.wav_sizes import WavHead
from vault.model import AuditEvent, CallFacts, DataKey, Heard, Media, Principal, Recording, RecordingState, SegmentRef
from vault.ports.journal import JournalEntry, ReplayedRecording
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
    """An open recording. `stored` is the plaintext offset up to which verified segments exist.

    `digest` runs over every byte appended; it is None when bytes it covered were lost with a failed commit or when the
    process restarted, and is then rebuilt from the durable bytes before the recording continues.
    """

    recording: Recording
    key: DataKey = field(repr=False)
    call_key: str | None = field(default=None, repr=False)
    """The recorder's name for the call, which may be a number; None if it can no longer be read."""
    begun_by: TokenId | None = None
    """Whose token began it; None of a call from before that was kept."""
    entry: JournalEntry | None = None
    segments: list[SegmentRef] = field(default_factory=list)
    stored: int = 0
    digest: hashlib._Hash | None = field(default_factory=hashlib.sha256)
    uploads: int = 0
    arriving: int = 0
    """How many requests send parts of it that lie elsewhere until it is put together."""
    spooled: int = 0
    """Bytes of it that were acknowledged and lie there."""
    displaced: bool = False
    """It had to make way for another tenant's while it waited for its recorder, and is about to end."""
    placed: bool = True
    """It has one of the places of open recordings."""
    detached_at: float | None = None
    grace: timedelta | None = None
    """In place of the vault's own, see `CallStart.grace`."""
    resumable: bool = False
    """See `CallStart.resumable`."""
    total: int | None = None
    """See `CallStart.total`."""
    skipped: int = 0
    """Bytes that the recorder counts and that never came: it went on after it had been refused."""
    lossy: bool = False
    """Bytes that were acknowledged may be gone: its journal is damaged or lost."""
    own_pause: bool = False
    """The present pause was asked for by the recorder in its stream: it ends with that connection, if this process
    still knows; after a restart it lasts as any other, because keeping too little is the lesser harm.
    """
    paused_by: Principal | None = None
    """Who began the last pause; None if another process heard it."""
    allowance: Allowance = field(default_factory=Allowance)
    """What its pauses have used of `ingest.pause_max`, in seconds of the monotonic clock."""
    owner: object | None = None
    """Who alone may write to it: an upload in parts, which what comes by another way would neither continue nor end."""
    feed: LiveFeed | None = None
    """The connection of a live dialect that writes now."""
    before_end: Callable[[], Awaitable[None]] | None = None
    """Called before the vault itself ends the recording: writes what was received and lies elsewhere, or waits for an
    end that is on its way."""
    oldest_unstored_at: float | None = None
    ending: str | None = None
    """The end that is being written; from here on nothing is taken in."""
    ended: str | None = None
    """The end that is durable: "sealed" or "truncated:<why>"."""
    patience: float = field(default_factory=lambda: random.uniform(0.6, 1.0))  # noqa: S311  # spreads load, no secret
    """Which share of a segment's greatest age this one waits: calls that began together are not cut together."""
    storing: bool = False
    flush: bool = False
    """Store what is durable now, whatever its size and age."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    heard: Heard | None = None
    """What its head tells beyond its declaration, until the catalog knows."""
    wav: WavHead | None = None
    """The head of a WAV, if it is all in the first segment."""
    recorded_segments: int = 0
    """How many of `segments` the catalog already knows."""
    keeping: Keeping = field(init=False)
    frames_left_out: Counter[str] = field(default_factory=Counter)
    """How many frames of its streams could not be read, by the reason; empty until one comes to this process."""
    late: CallFacts | None = field(default=None, repr=False)
    """Facts that no row has yet: the catalog could not take them."""
    unwritten: set[int] = field(default_factory=set)
    """Numbers of the notes that no row has yet."""
    untold: list[AuditEvent] = field(default_factory=list)
    """What the audit trail has yet to hear of them."""
    noting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One note after the other, and none while the manifest is made."""
    resuming: bool = False
    """A resume is being made durable: what arrives waits, because it is kept if that succeeds and else is not."""

    def __post_init__(self) -> None:
        self.keeping = Keeping(frame=frame_bytes(self.recording.media))

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
            self.lossy = True
            return
        self.ended = self.ending = found.ended
        if found.durable < self.stored:
            # The newest bytes are stored and their file is gone: the entry would put new ones in their place.
            found.entry.close()
            return
        self.entry = found.entry
