"""Puts the pieces of a call's one-way tracks in order, fills what is missing, and interleaves the tracks.

A piece of audio has a track, a chunk number that increases along its track, and a timestamp in milliseconds since the
stream's start. The chunk numbers show which pieces are late or repeated, the timestamps where audio is missing.
Senders' timestamps vary by a few milliseconds. So a piece that starts within half its length of the last one's end
continues it, and audio that arrives in order is kept.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from vault.errors import Invalid

WINDOW_MS: Final = 200
"""How long to wait for a missing piece, or for a track without audio."""
WINDOW_PIECES: Final = 10
"""How many pieces of a track may be held while an earlier one is missing."""
FILL_MS: Final = 10_000
"""The longest gap that is filled with silence; a longer one is reported as Missing."""
LONGEST_MS: Final = 7 * 86_400_000
"""The longest gap that is reported as Missing; a longer jump of timestamps is ignored."""
MAX_JUMPS: Final = 1_000
"""How often timestamps may jump forward or back by more than FILL_MS before the stream is refused."""
_LATE_PIECES: Final = 100
"""A chunk number up to this far behind the last one is late; further back, the sender started counting again."""


@dataclass(frozen=True, slots=True)
class Missing:
    """`ms` milliseconds of audio are missing here and were not filled."""

    ms: int


@dataclass(frozen=True, slots=True, order=True)
class _Piece:
    start: int
    chunk: int
    data: bytes = field(repr=False, compare=False)


class _Track:
    """One direction: `placed` samples are in their final order; `ready` has those that were not returned yet."""

    __slots__ = ("held", "last", "offset", "placed", "ready")

    def __init__(self) -> None:
        self.placed = 0
        self.offset = 0
        """The difference between the sender's time and the recording's, in samples."""
        self.last = -1
        self.held: list[_Piece] = []
        """Pieces that wait for missing ones before them, in order."""
        self.ready = bytearray()


class Tracks:
    """Merges pieces into whole frames: one sample of each track, in the order of their numbers.

    A piece that arrives within the window is put in its place. `silence` is one sample and fills missing audio. At most
    the window of each track and its newest piece are held back. While timestamps do not go back, the output is not
    longer than the time that they span plus the audio received.
    """

    def __init__(self, count: int, *, rate: int, silence: bytes) -> None:
        self._tracks = tuple(_Track() for _ in range(count))
        self._rate = rate
        self._silence = silence
        self._width = len(silence)
        self._window = rate * WINDOW_MS // 1_000
        self._fill = rate * FILL_MS // 1_000
        self._given = 0
        self._jumps = 0
        self.dropped = 0
        """How many pieces were dropped because they were repeated or too late."""

    def add(self, number: int, chunk: int, timestamp_ms: int, data: bytes) -> Sequence[bytes | Missing]:
        """Add a piece of whole samples and return the output that is complete with it.

        Invalid if timestamps jump more than MAX_JUMPS times.
        """
        track = self._tracks[number]
        held = track.held
        start = timestamp_ms * self._rate // 1_000 - track.offset
        length = len(data) // self._width
        late = 0 < track.last - chunk < _LATE_PIECES or (chunk == track.last and start < track.placed)
        if late or (held and any(piece.chunk == chunk for piece in held)):
            self.dropped += 1
            return ()
        before: Sequence[bytes | Missing] = ()
        if start > track.placed + length // 2:
            newest = self._newest()
            if start <= newest + self._fill:
                insort(held, _Piece(start, chunk, data))
                return self._decided()
            before = self._jump(start - newest)
        elif start < track.placed - self._fill:
            self._count_jump()  # a jump back usually corrects a wrong jump forward
            track.offset += start - track.placed
        if len(self._tracks) == 1 and not held:
            track.placed += length
            track.last = chunk
            self._given = track.placed
            return (*before, data) if before else (data,)
        self._place(track, chunk, data)
        return (*before, *self._decided())

    @property
    def waiting(self) -> int:
        """How many bytes of output are held back."""
        return (self._newest() - self._given) * self._width * len(self._tracks)

    def flush(self) -> Sequence[bytes | Missing]:
        """Return the output that is held back, with the shorter track filled up to the longer one."""
        for track in self._tracks:
            while track.held:
                self._pass_over(track, track.held[0].start)
        return self._out(self._newest())

    def _newest(self) -> int:
        """Return the sample at which the newest piece ends."""
        newest = 0
        for track in self._tracks:
            newest = max(newest, track.placed)
            if track.held:
                last = track.held[-1]
                newest = max(newest, last.start + len(last.data) // self._width)
        return newest

    def _jump(self, missing: int) -> Sequence[bytes | Missing]:
        """Flush the tracks and continue them after a gap of `missing` samples, which is not filled."""
        self._count_jump()
        out = self.flush()
        for track in self._tracks:
            track.offset += missing
        missing_ms = missing * 1_000 // self._rate
        # A stream's timestamps need not begin at zero: nothing is missing before the first piece.
        return (*out, Missing(missing_ms)) if self._given and missing_ms <= LONGEST_MS else out

    def _count_jump(self) -> None:
        self._jumps += 1
        if self._jumps > MAX_JUMPS:
            raise Invalid(f"the timestamps jumped by more than {FILL_MS // 1_000} s more than {MAX_JUMPS} times")

    def _place(self, track: _Track, chunk: int, data: bytes) -> None:
        track.ready += data
        track.placed += len(data) // self._width
        track.last = chunk
        while track.held:
            piece = track.held[0]
            if piece.start > track.placed + len(piece.data) // self._width // 2:
                break
            del track.held[0]
            track.ready += piece.data
            track.placed += len(piece.data) // self._width
            track.last = piece.chunk

    def _decided(self) -> Sequence[bytes | Missing]:
        for track in self._tracks:
            while len(track.held) > WINDOW_PIECES:
                self._pass_over(track, track.held[0].start)
        return self._out(self._newest() - self._window)

    def _out(self, until: int) -> Sequence[bytes | Missing]:
        """Fill what is missing before `until`, and return the samples that all tracks have."""
        end = -1
        for track in self._tracks:
            while track.placed < until:
                self._pass_over(track, min(until, track.held[0].start) if track.held else until)
            end = track.placed if end < 0 else min(end, track.placed)
        length = (end - self._given) * self._width
        if not length:
            return ()
        self._given = end
        parts = []
        for track in self._tracks:
            parts.append(bytes(track.ready[:length]))
            del track.ready[:length]
        return (interleaved(parts, self._width),)

    def _pass_over(self, track: _Track, until: int) -> None:
        """Fill what is missing before `until` with silence."""
        hole = until - track.placed
        track.placed = until
        track.ready += self._silence * hole
        if track.held and track.held[0].start <= until:
            piece = track.held.pop(0)
            self._place(track, piece.chunk, piece.data)


def interleaved(parts: Sequence[bytes], width: int) -> bytes:
    """Return one sample of `width` bytes of each part in turn; all parts have the same length."""
    step = width * len(parts)
    out = bytearray(len(parts) * len(parts[0]))
    for number, part in enumerate(parts):
        for byte in range(width):
            out[number * width + byte :: step] = part[byte::width]
    return bytes(out)
