"""Decides which bytes of a recorder's stream are kept: all except those that arrive while the call is paused.

Dropping begins with the next byte, even within a sample frame. It ends only when the dropped bytes are whole frames. So
no byte sent during a pause is kept, and the audio after the pause is in phase with the audio before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from vault.format.notes import Aside, Etag, Note, Pause, audio_end, dropped_bytes, kept_of
from vault.media.descriptor import SAMPLE_BYTES
from vault.model import Container, Media

_SLACK: Final = 1.0
"""Seconds by which notes may understate a pause: they have whole milliseconds, of a clock that may be set."""


@dataclass(slots=True, kw_only=True)
class Allowance:
    """The paused time that one call has used, in seconds of a clock that only goes forward."""

    used: float = 0.0
    since: float = 0.0
    """The time up to which `used` counts."""
    paused: bool = False

    def used_at(self, now: float) -> float:
        """Return how many seconds are used at `now`."""
        passed = max(now - self.since, 0.0)
        return self.used + passed if self.paused else max(self.used - passed, 0.0)

    def turn(self, *, paused: bool, now: float) -> None:
        """Note that the call is paused, or no longer paused, from `now` on."""
        self.used, self.since, self.paused = self.used_at(now), now, paused

    def renew(self, *, now: float) -> None:
        """Start again from zero, because the vault has ended a pause."""
        self.used, self.since, self.paused = 0.0, now, False

    def over(self, limit: float, now: float) -> bool:
        """Tell whether the vault has to end the present pause."""
        return self.paused and self.used_at(now) >= limit

    def left(self, limit: float, now: float) -> float | None:
        """Return after how many seconds from `now` the vault ends the pause; None without a pause."""
        return max(limit - self.used_at(now), 0.0) if self.paused else None


def noted_use(notes: Sequence[Note], *, limit: float, now_ms: int) -> float:
    """Return how many seconds of `limit` the pauses have used at `now_ms`; notes come in the order they were made.

    A pause that ended with the limit used up was ended by the vault. Pauses without a byte between them have one note,
    with the time of the last: they count as consecutive.
    """
    allowance = Allowance()
    for note in notes:
        if not isinstance(note, Pause):
            continue
        began, missing = note.at_ms / 1000, note.missing_ms / 1000
        # The missing time of a lasting pause is that of the earlier pauses which share its note.
        first, last = (began - missing, began) if note.lasting else (began, began + missing)
        allowance.turn(paused=False, now=max(first, allowance.since))
        allowance.used += missing
        allowance.used = max(allowance.used - int((allowance.used + _SLACK) / limit) * limit, 0.0)
        allowance.since, allowance.paused = max(last, allowance.since), note.lasting
    return allowance.used_at(now_ms / 1000)


_ANY_BLOCK: Final = 48
"""A multiple of every usual block of samples: 8 to 32 bits, 1 to 4 channels, 6 of 16 or 8 bits."""


def frame_bytes(media: Media) -> int:
    """Return how many bytes must stay together to keep the phase; 1 if players find the next frame themselves."""
    if media.container is Container.RAW and media.codec in SAMPLE_BYTES:
        return SAMPLE_BYTES[media.codec] * media.channels
    return _ANY_BLOCK if media.container in {Container.RAW, Container.WAV} else 1


@dataclass(slots=True, kw_only=True)
class Keeping:
    """The pauses of one open recording, and what is dropped in them."""

    frame: int
    notes: list[Note] = field(default_factory=list)
    """All notes, in order, for the manifest. A count of dropped bytes in them is durable."""
    paused: bool = False
    since_ms: int = 0
    """When the present pause began."""
    unnoted: int = 0
    """Bytes dropped in the last pause that its note does not count yet."""
    fresh: bool = False
    """Whether no byte was kept since the last pause began."""
    late: int = 0
    """Bytes still to drop: they arrived during the last pause, and are noted, but are still in a reorder window."""

    @property
    def watching(self) -> bool:
        """Whether `keep` may drop anything."""
        return self.paused or self.fresh

    @property
    def last(self) -> int | None:
        """The number of the last pause's note."""
        return next((at for at in range(len(self.notes) - 1, -1, -1) if isinstance(self.notes[at], Pause)), None)

    @property
    def last_pause(self) -> tuple[int, Pause] | None:
        """The last noted pause, with its number."""
        at = self.last
        if at is None:
            return None
        pause = self.notes[at]
        assert isinstance(pause, Pause)
        return at, pause

    @property
    def lasting(self) -> tuple[int, Pause] | None:
        """The noted pause that is not resumed, with its number."""
        last = self.last_pause
        return last if last is not None and last[1].lasting else None

    @property
    def aside(self) -> Aside | None:
        """The note of the parts that were left out."""
        return next((note for note in self.notes if isinstance(note, Aside)), None)

    def audio(self, end: int) -> int:
        """Return how many of the first `end` bytes are audio."""
        return audio_end(self.notes, end)

    def keep(self, piece: bytes) -> bytes:
        """Return those of the next bytes that are kept."""
        if self.paused:
            self.unnoted += len(piece)
            return b""
        if self.fresh:
            late = min(self.late, len(piece))
            self.late -= late
            piece = piece[late:]
            owed = min(-(self._noted + self.unnoted) % self.frame, len(piece))
            self.unnoted += owed
            piece = piece[owed:]
            if piece:
                # From here on the count of the note is rounded up to whole frames, see `_settled`.
                self.fresh, self.unnoted = False, 0
        return piece

    @property
    def _noted(self) -> int:
        last = self.last_pause
        return 0 if last is None else last[1].dropped

    def stop(self, *, now_ms: int) -> None:
        """Drop what arrives from now on, even before the pause is noted."""
        self.paused, self.since_ms = True, now_ms

    def note_pause(self, offset: int) -> int:
        """Note a pause at `offset`; return its number. Without a byte in between, the last pause continues."""
        last = self.last_pause
        if last is not None and last[1].offset == offset:
            at, before = last
            self.notes[at] = replace(before, at_ms=self.since_ms, lasting=True)
        else:
            at = len(self.notes)
            self.notes.append(Pause(offset=offset, at_ms=self.since_ms))
        self.fresh = True
        return at

    def count_noted(self, dropped: int) -> None:
        """Take `dropped` bytes off `unnoted`, because the note of the pause counts them now."""
        self.unnoted -= dropped

    def go_on(self, *, late: int) -> None:
        """Keep what arrives from now on, except the next `late` bytes, see `Keeping.late`."""
        self.late = late
        self.paused = False

    def recall(self, notes: Sequence[Note], *, end: int) -> None:
        """Load the notes of a recording with `end` kept bytes; a call that was paused stays paused."""
        self.notes[:] = notes
        lasting = self.lasting
        if lasting is not None:
            self.stop(now_ms=lasting[1].at_ms)
        self.continue_at(end)

    def continue_at(self, end: int) -> None:
        """Continue after `end` kept bytes and the dropped bytes that the notes count, as the recorder was told."""
        self.unnoted = self.late = 0
        last = self.last_pause
        self.fresh = last is not None and last[1].offset >= end

    def settled(self, end: int) -> tuple[Note, ...]:
        """Return the notes of a recording of `end` bytes, in the order of their offsets.

        An ETag of other audio is left out.
        """
        audio = self.audio(end)
        mine = [note for note in self.notes if not isinstance(note, Etag) or note.offset == audio]
        return tuple(sorted((self._settled(note, end) for note in mine), key=lambda note: note.offset))

    def _settled(self, note: Note, end: int) -> Note:
        if isinstance(note, Pause) and not note.lasting and note.offset < end:
            return replace(note, dropped=note.dropped + -note.dropped % self.frame)
        return note if note.offset <= end else replace(note, offset=end)

    def closed(self, end: int, *, now_ms: int) -> tuple[Note, ...]:
        """Return the notes of a recording that ended with `end` bytes: a lasting pause ends with it."""
        if (last := self.last_pause) is not None:
            at, pause = last
            missing = pause.missing_ms + (max(now_ms - pause.at_ms, 0) if pause.lasting else 0)
            whole = replace(pause, dropped=pause.dropped + self.unnoted, missing_ms=missing)
            return replace(self, notes=[*self.notes[:at], whole, *self.notes[at + 1 :]]).settled(end)
        return self.settled(end)

    def dropped(self, end: int) -> int:
        """Return how many bytes of the recorder's stream before `end` kept ones are noted as dropped."""
        return dropped_bytes(self.settled(end), end) if self.notes else 0

    def taken(self, end: int) -> int:
        """Return how many bytes pauses dropped in all, noted or not, of a stream of which `end` bytes are kept."""
        return self.dropped(end) + self.unnoted

    def kept_of(self, piece: bytes, start: int, end: int) -> bytes:
        """Return what was kept of `piece`, which the recorder sends again from byte `start` of its stream."""
        return kept_of(piece, start, self.settled(end)) if self.notes else piece


def gaps_of(notes: Sequence[Note]) -> dict[int, int]:
    """Return how many milliseconds are missing at each offset, in order, whatever the reason."""
    gaps: dict[int, int] = {}
    for note in notes:
        missing = getattr(note, "missing_ms", 0)
        if missing:
            gaps[note.offset] = gaps.get(note.offset, 0) + missing
    return dict(sorted(gaps.items()))
