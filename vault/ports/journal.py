"""The journal: what makes a piece durable before it is acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vault.errors import Unavailable
from vault.ids import NodeId
from vault.model import Coordinate, DataKey


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalOpening:
    """What the journal must know of a recording to replay it: its id bytes and coordinate, no key."""

    recording: str
    coordinate: Coordinate


@dataclass(slots=True, kw_only=True)
class ReplayedRecording:
    """A recording found in journals after a restart; `entry` continues it (new bytes go to the current file).

    The journal holds plaintext `[first_offset, durable)`; what lies before was released, so it is in the object store.
    `durable` may be less than what the object store holds, if the newest bytes were released and their file is gone:
    then close `entry` and `open` anew at the stored offset, or new bytes would take the place of stored ones.
    """

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

    @property
    def roomy(self) -> bool:
        """Whether another piece may be appended without `writable` first; false once `failed` is set."""

    def append(self, piece: bytes | bytearray | memoryview) -> None:
        """Seal one piece (<= 1 MiB) at once and queue it for the next group commit; an empty one changes nothing.

        Raises JournalFull without keeping any of it, `failed` once that is set, and ValueError for a piece that is too
        long or after `end` or `close`.
        """

    async def barrier(self) -> None:
        """Wait until everything appended so far is durable; raises what made the commit fail."""

    async def writable(self) -> None:
        """Wait while this entry has more un-durable bytes than its bound: the backpressure point. Raises `failed`.

        While all entries together have more than theirs, wait until every byte of this one is durable.
        """

    async def end(self, reason: str) -> None:
        """Write the end record ("sealed" or "truncated:<why>") and wait until it is durable.

        Raises what `append` and `barrier` raise. After JournalFull or a cancellation, repeat it with the same reason.
        """

    def read(self, start: int, end: int) -> bytes:
        """Return plaintext `[start, end)` from the journal files, verified; blocking, call it in a worker thread.

        Only bytes at or after the last `release` and at or before `durable`: ValueError outside, also when a release
        overtakes the read. Tampered if a record is not what was written; then no audio is returned.
        """

    def release(self, offset: int) -> None:
        """Bytes before `offset` are in the object store and verified: their journal space may go.

        ValueError beyond `durable`.
        """

    def close(self) -> None:
        """All that is needed from this entry is stored (or it was abandoned): every byte may go, its end too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalUsage:
    """Bytes that records take on disk, the bound, and how many files."""

    bytes_used: int
    bytes_bound: int
    files: int


class Journal(Protocol):
    """Local append-only encrypted write-ahead log of audio not yet in the object store."""

    node: NodeId
    """The journal's own name, the same at every opening; rows of recordings with bytes in it carry it."""
    damaged: bool
    """Whether the replay met damage: any recording may lack bytes that were acknowledged."""

    async def replay(
        self, keys: Callable[[Coordinate], DataKey], *, skip: Callable[[str], bool]
    ) -> Sequence[ReplayedRecording]:
        """Read what earlier incarnations left, once, before the first `open`.

        `keys` may raise Shredded: that recording is dropped; Unavailable passes through, and replay may be repeated.
        `skip(recording id)` true: already stored, dropped. Both are called in a worker thread. Files are never appended
        to again. A damaged recording ends before its damage, and the file is kept when all else in it is stored.
        """

    def open(self, opening: JournalOpening, key: DataKey, *, offset: int = 0) -> JournalEntry:
        """Start a recording, or continue it at `offset`, before which all its bytes are in the object store.

        DiskFull when the disk has no room for more; JournalFull at 80 % of the bound, except when continuing: that only
        ends at the bound itself.
        """

    def refusal(self) -> Unavailable | None:
        """Return why a new recording would be refused now, or None: DiskFull or JournalFull with the figures."""

    def usage(self) -> JournalUsage:
        """Return how full the journal is."""

    @property
    def undurable(self) -> int:
        """How many bytes of all entries are in flight: queued or being written."""

    def tell(self, changed: Callable[[int], None]) -> None:
        """From now on call `changed` with how many these are when they pass the bound, and after each commit."""

    async def close(self) -> None:
        """Commit what is queued and close; files that hold unstored bytes stay for replay."""
