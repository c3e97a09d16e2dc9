"""The journal: what makes a piece durable before it is acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vault.model import Coordinate, DataKey


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalOpening:
    """What the journal must know of a recording to replay it: its id bytes and coordinate, no key."""

    recording: str
    coordinate: Coordinate


@dataclass(slots=True, kw_only=True)
class ReplayedRecording:
    """A recording found in journals after a restart; `entry` continues it (new bytes go to the current file)."""

    opening: JournalOpening
    first_offset: int
    durable: int
    ended: str | None
    entry: JournalEntry


class JournalEntry(Protocol):
    """One recording's writing end. Offsets count the recording's plaintext bytes from its start."""

    appended: int
    """Plaintext offset after the last piece handed to `append`."""
    durable: int
    """Plaintext offset up to which every byte survives a crash."""
    failed: Exception | None
    """Set when a commit failed: bytes beyond `durable` are gone and the entry accepts no more."""

    def append(self, piece: bytes | bytearray | memoryview) -> None:
        """Seal one piece (<= 1 MiB) at once and queue it for the next group commit.

        Raises JournalFull or DiskFull without keeping any of it.
        """

    async def barrier(self) -> None:
        """Wait until everything appended so far is durable; raises what made the commit fail."""

    async def writable(self) -> None:
        """Wait while this entry has more un-durable bytes than its bound: the backpressure point."""

    async def end(self, reason: str) -> None:
        """Write the end record ("sealed" or "truncated:<why>") and wait until it is durable."""

    def read(self, start: int, end: int) -> bytes:
        """Return plaintext `[start, end)` from the journal files, verified; blocking, call it in a worker thread.

        Only bytes at or after the last `release` and at or before `durable`.
        """

    def release(self, offset: int) -> None:
        """Bytes before `offset` are in the object store and verified: their journal space may go."""

    def close(self) -> None:
        """All that is needed from this entry is stored (or it was abandoned): every byte may go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalUsage:
    """Bytes on disk, the bound, and how many files."""

    bytes_used: int
    bytes_bound: int
    files: int


class Journal(Protocol):
    """Local append-only encrypted write-ahead log of audio not yet in the object store."""

    async def replay(
        self, keys: Callable[[Coordinate], DataKey], *, skip: Callable[[str], bool]
    ) -> Sequence[ReplayedRecording]:
        """Read what earlier incarnations left, once, before the first `open`.

        `keys` may raise Shredded: that recording is dropped. `skip(recording id)` true: already stored, dropped.
        Files are never appended to again.
        """

    def open(self, opening: JournalOpening, key: DataKey, *, offset: int = 0) -> JournalEntry:
        """Start (or, with `offset`, continue) a recording. JournalFull or DiskFull when there is no room for more."""

    def admits(self) -> bool:
        """Tell whether a new recording would be accepted now."""

    def usage(self) -> JournalUsage:
        """Return how full the journal is."""

    async def close(self) -> None:
        """Commit what is queued and close; files that hold unstored bytes stay for replay."""
