"""A node's disk: the journal, which makes audio durable before it is acknowledged, and the spool of sealed parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vault.errors import Unavailable
from vault.ids import NodeId, RecordingId
from vault.model import Coordinate, DataKey

# -- journal ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalOpening:
    """What the journal stores of a recording to replay it: its id and its coordinate, and no key."""

    recording: str
    coordinate: Coordinate


@dataclass(slots=True, kw_only=True)
class ReplayedRecording:
    """A recording that a replay found in the journal; `entry` continues it in the current file.

    The journal holds plaintext `[first_offset, durable)`. Bytes before `first_offset` were released, so they are in the
    object store. `durable` can be less than what the object store holds, if the newest bytes were released and their
    file was removed. Then close `entry` and `open` the recording again at the stored offset: otherwise new bytes would
    get the offsets of stored ones.
    """

    opening: JournalOpening
    first_offset: int
    durable: int
    ended: str | None
    entry: JournalEntry


class JournalEntry(Protocol):
    """Writes one recording to the journal. Offsets count the recording's plaintext bytes from its start."""

    appended: int
    """Plaintext offset after the last piece handed to `append`."""
    durable: int
    """Plaintext offset up to which all bytes survive a crash."""
    failed: Exception | None
    """Set when a commit failed: bytes beyond `durable` are lost, and the entry accepts no more."""

    @property
    def roomy(self) -> bool:
        """Whether another piece may be appended without `writable` first; false once `failed` is set."""

    def append(self, piece: bytes | bytearray | memoryview) -> None:
        """Seal one piece (<= 1 MiB) and queue it for the next group commit; an empty piece changes nothing.

        Raises JournalFull and keeps none of it, `failed` once that is set, and ValueError for a piece that is too long
        or comes after `end` or `close`.
        """

    async def barrier(self) -> None:
        """Wait until all bytes appended so far are durable; raises the error of a failed commit."""

    async def writable(self) -> None:
        """Wait while this entry has more bytes in flight than its bound, for backpressure. Raises `failed`.

        While all entries together have more than their bound, wait until all bytes of this entry are durable.
        """

    async def end(self, reason: str) -> None:
        """Write the end record ("sealed" or "truncated:<why>") and wait until it is durable.

        Raises what `append` and `barrier` raise. It may be repeated with the same reason after JournalFull or a
        cancellation.
        """

    def read(self, start: int, end: int) -> bytes:
        """Return plaintext `[start, end)` from the journal files, verified. It blocks: call it in a worker thread.

        ValueError for bytes before the last `release` or beyond `durable`, also if they are released during the read.
        Tampered if a record is not what was written; then no audio is returned.
        """

    def release(self, offset: int) -> None:
        """Allow the journal to remove bytes before `offset`: the object store has them. ValueError beyond `durable`."""

    def close(self) -> None:
        """Allow the journal to remove all bytes of this entry and its end record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalUsage:
    """The bytes of records on disk, their bound, and the number of files."""

    bytes_used: int
    bytes_bound: int
    files: int


class Journal(Protocol):
    """A local, append-only, encrypted write-ahead log of audio that is not yet in the object store."""

    node: NodeId
    """The journal's name, which does not change. Catalog rows of recordings with bytes in it have this name."""
    damaged: bool
    """Whether the replay found damage: acknowledged bytes of any recording may be missing."""

    async def replay(
        self, keys: Callable[[Coordinate], DataKey], *, skip: Callable[[str], bool]
    ) -> Sequence[ReplayedRecording]:
        """Read the journal files of earlier processes. Call it once, before the first `open`.

        A recording is dropped if `keys` raises Shredded for it, or if `skip(recording id)` is true because it is stored
        already. Unavailable of `keys` passes through, and the replay may then be repeated. Both are called in a worker
        thread. Replayed files are not written again. A damaged recording ends before the damage, and its file is kept
        when the rest of it is stored.
        """

    def open(self, opening: JournalOpening, key: DataKey, *, offset: int = 0) -> JournalEntry:
        """Start a recording, or continue it at `offset`; the object store has all bytes before that.

        DiskFull if the disk is full. JournalFull at 80 % of the bound for a new recording, at the bound for a continued
        one.
        """

    def refusal(self) -> Unavailable | None:
        """Return the error with which a new recording would be refused now: DiskFull, JournalFull or None."""

    def usage(self) -> JournalUsage:
        """Return how full the journal is."""

    def filled(self) -> float:
        """Return which part of what it may have the journal has, 0 to 1, by its bound or its disk's room: the larger.

        A disk that does not answer counts as full.
        """

    @property
    def undurable(self) -> int:
        """The bytes of all entries that are in flight: queued or being written."""

    def tell(self, changed: Callable[[int], None]) -> None:
        """Call `changed` with the bytes in flight from now on: when they exceed their bound, and after each commit."""

    async def close(self) -> None:
        """Commit queued bytes and close; files with bytes that are not stored stay for the replay."""


# -- spool --------------------------------------------------------------------------------------------------------


class Room(Protocol):
    """Counts the bytes of each tenant in the spool."""

    def take(self, holder: str, size: int) -> None:
        """Count `size` more bytes; Unavailable, and nothing is counted, if there is no room for them now."""

    def give(self, holder: str, size: int) -> None:
        """Count `size` bytes less."""


class SpoolFile(Protocol):
    """A file that is being written or read. Unless it is kept, `close` or the end of the process removes it."""

    size: int
    """The number of its bytes."""

    async def append(self, data: bytes) -> None:
        """Add bytes at the end. Unavailable if the tenant may have no more in the spool, DiskFull on a full disk."""

    async def read(self, start: int, end: int) -> bytes:
        """Return bytes `[start, end)`; Truncated if there are fewer."""

    async def keep(self, version: int = 0) -> None:
        """Keep it as that version of its part, durable when this returns; other versions stay."""

    async def close(self) -> None:
        """Close it and, unless it was kept, free its space. Closing again is allowed."""


class Spool(Protocol):
    """Parts of uploads by recording, number and version. It holds only ciphertext, and counts it for the tenant."""

    async def prepare(self, recording: RecordingId) -> None:
        """Create a durable folder for a recording's parts."""

    async def begin(self, recording: RecordingId, number: int, *, tenant: str) -> SpoolFile:
        """Return a new file for a part."""

    async def scratch(self, *, tenant: str) -> SpoolFile:
        """Return a new file without a name, which cannot be kept; a crash leaves nothing of it."""

    async def open(self, recording: RecordingId, number: int, version: int = 0) -> SpoolFile:
        """Open a kept version of a part for reading; NotFound if there is none."""

    async def kept(self) -> Mapping[RecordingId, Mapping[tuple[int, int], int]]:
        """Return the kept files of all recordings: sizes by part number and version. Other files are removed.

        The sizes are not counted for their tenants.
        """

    async def drop(self, recording: RecordingId, *, tenant: str) -> None:
        """Remove a recording's folder with all its parts and stop counting them; an absent one is ignored."""
