"""One recording in the journal: seals its pieces, and has the index of their positions."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Final

from vault.crypto.journal import RecordKey
from vault.errors import Tampered, Unavailable
from vault.format.journal import (
    DATA,
    END,
    MAX_PIECE_BYTES,
    OVERHEAD_BYTES,
    TAG_BYTES,
    Opening,
    encode_opening,
    encode_reason,
)
from vault.ids import RecordingId
from vault.model import DataKey
from vault.ports.journal import JournalOpening
from vault.storage.journal.commit import Batch, Committer
from vault.storage.journal.file import WINDOW_BYTES, JournalFile, Window

_CLOSE_BYTES: Final = 4 << 10
"""Records with at most this many bytes between them are read together."""


class Run:
    """The DATA records of one recording in one file: 8 bytes of memory each.

    Record `i` has seq `first + i`, its body starts at `positions[i]` in the file and its audio ends at plaintext byte
    `base + ends[i]`. The arrays only grow, and records are dropped by replacing the run, so any thread may read one
    while the event loop appends to it.
    """

    __slots__ = ("base", "ends", "file", "first", "key", "positions")

    def __init__(self, file: JournalFile, key: RecordKey, *, base: int, first: int = 1) -> None:
        self.file = file
        self.key = key
        self.base = base
        self.first = first
        self.positions = array("I")
        self.ends = array("I")

    @property
    def end(self) -> int:
        """Plaintext offset after the last record."""
        return self.base + self.ends[-1] if self.ends else self.base

    def between(self, start: int, end: int) -> Run:
        """Return the run without the records that lie wholly before `start` or end after `end`."""
        low = bisect_right(self.ends, start - self.base) if start > self.base else 0
        high = bisect_right(self.ends, end - self.base) if end >= self.base else 0
        high = max(low, high)
        base = self.base + (self.ends[low - 1] if low else 0)
        run = Run(self.file, self.key, base=base, first=self.first + low)
        shift = base - self.base
        run.positions = self.positions[low:high]
        run.ends = array("I", [mark - shift for mark in self.ends[low:high]])
        return run

    def collect(self, start: int, end: int, pieces: list[bytes], window: Window) -> None:
        """Append the audio of this run inside plaintext `[start, end)`.

        Tampered, Unavailable on a disk error, or ValueError if the file is gone.
        """
        start = max(start, self.base)
        ends, positions, base, first = self.ends, self.positions, self.base, self.first
        index = bisect_right(ends, start - base)
        before = ends[index - 1] if index else 0
        unseal = self.key.open_data
        found, low, high = memoryview(b""), 0, 0  # the bytes of the last read, and their position in the file
        while start < end and index < len(ends):
            after = ends[index]
            at = positions[index]
            size = after - before + TAG_BYTES
            if at + size > high:
                low, high = at, self._reach(index, at + size, end)
                found = self.file.read(low, high - low, window)
            piece = unseal(first + index, found[at - low : at - low + size])
            skip, stop = start - base - before, min(end - base, after) - before
            pieces.append(piece if not skip and stop == len(piece) else piece[skip:stop])
            start = base + after
            before = after
            index += 1

    def _reach(self, index: int, reach: int, end: int) -> int:
        """Return the end, in the file, of a read that begins with record `index`, which itself ends at `reach`.

        The read includes the close records after it whose audio ends at plaintext `end` or earlier.
        """
        ends, positions = self.ends, self.positions
        limit = positions[index] + WINDOW_BYTES
        while (index := index + 1) < len(ends) and self.base + ends[index] <= end:
            after = positions[index] + ends[index] - ends[index - 1] + TAG_BYTES
            if after > limit or positions[index] - reach > _CLOSE_BYTES:
                break
            reach = after
        return reach


class FileEntry:
    """The journal's entry on disk; see `vault.ports.journal.JournalEntry`. Only `read` may leave the event loop."""

    __slots__ = (
        "_bound",
        "_closed",
        "_committer",
        "_end_file",
        "_ended",
        "_key",
        "_released",
        "_run",
        "_runs",
        "appended",
        "batch",
        "durable",
        "failed",
        "opening",
    )

    def __init__(
        self, opening: JournalOpening, key: DataKey, *, offset: int, committer: Committer, undurable_bound: int
    ) -> None:
        self.opening = opening
        self.appended = offset
        self.durable = offset
        self.failed: Exception | None = None
        self.batch: Batch | None = None
        """The commit that carries this entry's newest record; None once that is durable."""
        self._key = key
        self._committer = committer
        self._bound = undurable_bound
        self._released = offset
        self._runs: tuple[Run, ...] = ()
        self._run: Run | None = None
        """The run of the next piece, while its file accepts records; None also once no piece may be appended."""
        self._ended: str | None = None
        self._end_file: JournalFile | None = None
        self._closed = False

    def adopt(self, runs: tuple[Run, ...], *, ended: str | None, end_file: JournalFile | None) -> None:
        """Take over the result of replay: contiguous durable runs, and the end if there is one."""
        self._runs = runs
        if runs:
            self._released = runs[0].base
            self.appended = self.durable = runs[-1].end
        for run in runs:
            run.file.live += run.end - run.base
        self._ended = ended
        self._end_file = end_file
        if end_file is not None:
            end_file.live += 1

    def append(self, piece: bytes | bytearray | memoryview) -> None:
        """Seal one piece and queue it."""
        size = piece.nbytes if isinstance(piece, memoryview) else len(piece)
        run = self._run
        committer = self._committer
        if (
            run is None
            or run.file is not committer.current
            or run.file.end + size + OVERHEAD_BYTES > run.file.capacity
            or not 0 < size <= MAX_PIECE_BYTES
        ):
            if not size:
                return
            run = self._enter(size)
        positions = run.positions
        prefix, body = run.key.seal(DATA, run.first + len(positions), piece, size)
        positions.append(committer.put(self, prefix, body))
        self.appended += size
        run.ends.append(self.appended - run.base)
        run.file.live += size

    def _enter(self, size: int) -> Run:
        """Return a run in a file that has room for `size` bytes of plaintext, started with an OPEN record."""
        if size > MAX_PIECE_BYTES:
            raise ValueError(f"a piece of {size} bytes; the bound is {MAX_PIECE_BYTES}")
        if self.failed is not None:
            raise self.failed
        if self._closed or self._ended is not None:
            raise ValueError("the recording has ended in this journal")
        opening = encode_opening(
            Opening(
                recording=RecordingId(self.opening.recording),
                coordinate=self.opening.coordinate,
                offset=self.appended,
                released=self._released,
            )
        )
        file = self._committer.room(len(opening) + size + 2 * OVERHEAD_BYTES)
        file.handles += 1
        key = RecordKey(self._key, salt=file.salt, handle=file.handles)
        self._committer.put(self, *key.seal_opening(opening))
        run = self._run = Run(file, key, base=self.appended)
        self._runs = (*self._runs, run)
        return run

    @property
    def roomy(self) -> bool:
        """Whether less than the bound is in flight."""
        return self.failed is None and self.appended - self.durable <= self._bound and not self._committer.crowded

    async def barrier(self) -> None:
        """Wait until everything appended so far is durable."""
        if self.batch is not None:
            await self._committer.committed(self.batch)
        if self.failed is not None:
            raise self.failed

    async def writable(self) -> None:
        """Wait while too much is in flight; raises the error of a failed commit."""
        while (waiting := self.appended - self.durable) > self._bound or (waiting and self._committer.crowded):
            await self._committer.progress()
        if self.failed is not None:
            raise self.failed

    async def end(self, reason: str) -> None:
        """Write the end record and wait for it; repeating it with the same reason only waits."""
        if self._ended is None:
            data = encode_reason(reason)
            run = self._run
            committer = self._committer
            if (
                run is None
                or run.file is not committer.current
                or run.file.end + len(data) + OVERHEAD_BYTES > run.file.capacity
            ):
                run = self._enter(len(data))
            prefix, body = run.key.seal(END, run.first + len(run.positions), data, len(data))
            committer.put(self, prefix, body)
            # The end record is kept longer than the last audio byte: without it, a restart would end the recording as
            # truncated.
            run.file.live += 1
            self._end_file = run.file
            self._ended = reason
            self._run = None
        elif self._ended != reason:
            raise ValueError("the recording has ended for another reason")
        await self.barrier()

    def read(self, start: int, end: int) -> bytes:
        """Return plaintext `[start, end)`; ValueError outside the durable bytes that are not released."""
        if not self._released <= start <= end <= self.durable:
            raise ValueError(f"bytes {start} to {end} are not in the journal")
        pieces: list[bytes] = []
        window = Window()
        try:
            for run in self._runs:  # read after the check: runs always have every byte that was durable before
                if start < run.end and run.base < end:
                    run.collect(start, end, pieces, window)
        except Tampered as error:
            raise Tampered(
                f"a journal record of {self.opening.recording} within bytes {start} to {end} failed authentication: "
                "it changed after it was written; no audio was returned"
            ) from error
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if len(data) != end - start:
            raise ValueError(f"bytes {start} to {end} were released while they were read")
        return data

    def release(self, offset: int) -> None:
        """Release the bytes before `offset`."""
        if offset > self.durable:
            raise ValueError(f"byte {offset} is not durable yet; nothing was released")
        if offset <= self._released:
            return
        released, self._released = self._released, offset
        kept: list[Run] = []
        for run in self._runs:
            run.file.live -= max(0, min(run.end, offset) - max(run.base, released))
            if run.end > offset or run is self._run:
                fresh = run.between(offset, run.end)
                kept.append(fresh)
                if run is self._run:
                    self._run = fresh
        gone, self._runs = self._runs, tuple(kept)
        for run in gone:
            self._committer.reap(run.file)

    def close(self) -> None:
        """Release every byte and the end record."""
        if self._closed:
            return
        self._closed = True
        released, self._released = self._released, self.appended
        gone, self._runs, self._run = self._runs, (), None
        for run in gone:
            run.file.live -= max(0, run.end - max(run.base, released))
        files = [run.file for run in gone]
        if self._end_file is not None:
            self._end_file.live -= 1
            files.append(self._end_file)
            self._end_file = None
        for file in files:
            self._committer.reap(file)

    def fail(self, error: Unavailable) -> None:
        """Fall back to the durable bytes; called by the commit that could not store the rest."""
        self.failed = error
        kept: list[Run] = []
        for run in self._runs:
            run.file.live -= max(0, run.end - max(run.base, self.durable))
            run = run.between(self._released, self.durable)  # noqa: PLW2901  # the cut run takes the whole one's place
            if run.ends:
                kept.append(run)
        if self._end_file is not None:
            # An end record that was durable has no commit left to fail.
            self._end_file.live -= 1
            self._end_file = None
        self._runs, self._run = tuple(kept), None
        self.appended = self.durable
