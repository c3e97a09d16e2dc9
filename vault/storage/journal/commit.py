"""Group commit: every call's records in one write and one fdatasync, then all their acknowledgements.

While one commit runs in the writer thread, the next batch gathers. The event loop decides; the thread only writes. With
callbacks instead of a task, an idle journal does no work, and a piece needs no future.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from vault.errors import JournalFull, Unavailable, reason, size_text
from vault.format.journal import HEADER_BYTES, SALT_BYTES, FileHeader, encode_header, file_name
from vault.ports.time import Clock, Entropy
from vault.storage.journal.file import Disk, JournalFile, as_unavailable
from vault.telemetry import Metrics

logger = logging.getLogger(__name__)


class Member(Protocol):
    """The committer's view of an entry."""

    appended: int
    durable: int
    batch: Batch | None

    def fail(self, error: Unavailable) -> None:
        """Called if the records after `durable` were not kept."""


class Batch:
    """The records of one commit; `marks` are the members' offsets once all of it is durable."""

    __slots__ = ("arrivals", "file", "last", "marks", "members", "parts", "position", "size", "waiters")

    def __init__(self, file: JournalFile, position: int) -> None:
        self.file = file
        self.position = position
        self.parts: list[bytes] = []
        self.members: list[Member] = []
        self.arrivals: list[float] = []
        self.marks: list[int] = []
        self.waiters: list[asyncio.Future[None]] = []
        self.last = False
        self.size = 0

    def close(self) -> None:
        """Accept no further records."""
        self.size = self.file.end - max(self.position, HEADER_BYTES)
        self.marks = [member.appended for member in self.members]


class Committer:
    """Owns a journal directory's files, and the order in which their bytes become durable."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics | None,
        disk: Disk,
        bytes_bound: int,
        file_bytes: int,
        commit_interval_seconds: float,
        next_number: int,
        undurable_bound: int,
    ) -> None:
        self.current: JournalFile | None = None
        """The file that takes records now; an entry with records in another file writes a new OPEN record in it."""
        self.files: list[JournalFile] = []
        self.disk = disk
        self._directory = directory
        self._bytes_bound = bytes_bound
        self._file_bytes = file_bytes
        self._interval = commit_interval_seconds
        self._entropy = entropy
        self._clock = clock
        self._monotonic: Callable[[], float] = clock.monotonic
        self._metrics = metrics
        self._next_number = next_number
        self._gathering: Batch | None = None
        self._queue: deque[Batch] = deque()
        self._running: Batch | None = None
        self._armed = False
        self._not_before = 0.0
        self._closing = False
        self.undurable = 0
        """Bytes of records that are not durable yet, of all entries together."""
        self.changed: Callable[[int], None] = lambda _: None
        """Called with `undurable` when it passes the bound, and after each commit."""
        self._undurable_bound = undurable_bound
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    # -- queueing records ---------------------------------------------------------------------------------------

    def put(self, member: Member, prefix: bytes, body: bytes) -> int:
        """Queue one record for the current file, in which `room` found space; return the position of its body."""
        batch = self._gathering
        if batch is None:
            batch = self._gather()
        if member.batch is not batch:
            member.batch = batch
            batch.members.append(member)
            batch.arrivals.append(self._monotonic())
        batch.parts += (prefix, body)
        file = batch.file
        position = file.end + len(prefix)
        file.end = position + len(body)
        self.undurable += len(prefix) + len(body)
        if self.undurable > self._undurable_bound:
            self.changed(self.undurable)
        if not self._armed:
            self._arm()
        return position

    def room(self, size: int) -> JournalFile:
        """Return the file that takes the next `size` bytes of records; JournalFull at the bound."""
        if self._closing:
            raise Unavailable("the journal is closed, because the server ends", cause="journal")
        file = self.current
        if file is None or file.end + size > file.capacity:
            file = self._roll(size)
        return file

    def _roll(self, size: int) -> JournalFile:
        capacity = max(self._file_bytes, HEADER_BYTES + size)
        if sum(file.allocated for file in self.files) + capacity > self._bytes_bound:
            raise JournalFull(
                f"the journal's files take all {size_text(self._bytes_bound)} that journal.max_bytes gives; what was "
                "acknowledged is safe",
                hint="the object store is slow or down, or the bound is too small",
                retry_after_seconds=10,
                cause="journal",
            )
        self._retire()
        salt = self._entropy(SALT_BYTES)
        number = self._next_number
        self._next_number += 1
        path = self._directory / file_name(number)
        file = JournalFile(path, disk=self.disk, number=number, salt=salt, capacity=capacity)
        self.files.append(file)
        self.current = file
        created_ms = int(self._clock.now().timestamp() * 1000)
        batch = self._gather()
        batch.position = 0
        batch.parts.append(encode_header(FileHeader(number=number, created_ms=created_ms, salt=salt)))
        return file

    def _gather(self) -> Batch:
        assert self.current is not None
        batch = self._gathering = Batch(self.current, self.current.end)
        self.current.batches += 1
        self._queue.append(batch)
        return batch

    @property
    def next_allocation(self) -> int:
        """Return how many bytes of the disk the next record allocates: a whole file if none is current, else none."""
        return self._file_bytes if self.current is None else 0

    def _retire(self) -> None:
        """Stop writing to the current file."""
        file, self.current = self.current, None
        if file is None:
            return
        if self._gathering is not None:
            self._gathering.last = True
            self._gathering.close()
            self._gathering = None
        else:
            # A batch of this file may be under way; the thread works in order and trims after it.
            self._thread.submit(file.trim)
        self.reap(file)

    # -- committing ---------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Start a commit soon: at once when idle, else an interval after the last one began."""
        self._armed = True
        loop = asyncio.get_running_loop()
        wait = 0.0 if self._closing else self._not_before - loop.time()
        if wait > 0:
            loop.call_later(wait, self._start)
        else:
            loop.call_soon(self._start)

    def _start(self) -> None:
        if self._running is not None or not self._queue:
            return
        loop = asyncio.get_running_loop()
        self._not_before = loop.time() + self._interval
        batch = self._running = self._queue.popleft()
        if batch is self._gathering:
            self._gathering = None
            batch.close()
        began = self._monotonic()
        work = loop.run_in_executor(self._thread, self._write, batch)
        work.add_done_callback(lambda done: self._finish(batch, began, done.exception()))

    def _write(self, batch: Batch) -> None:
        """Runs in the writer thread."""
        data = b"".join(batch.parts)
        batch.parts.clear()
        try:
            batch.file.commit(data, batch.position, last=batch.last)
        except BaseException:
            batch.file.trim()
            raise

    def _finish(self, batch: Batch, began: float, error: BaseException | None) -> None:
        self._running = None
        self._armed = False
        if error is not None:
            self._abandon(batch, error)
        else:
            self._acknowledge(batch, began)
            self.undurable -= batch.size
        self._wake(batch)
        self.changed(self.undurable)
        if self._queue:
            self._arm()

    def _acknowledge(self, batch: Batch, began: float) -> None:
        for member, mark in zip(batch.members, batch.marks, strict=True):
            member.durable = mark
            if member.batch is batch:
                member.batch = None
        batch.file.batches -= 1
        self.reap(batch.file)
        metrics = self._metrics
        if metrics is not None:
            now = self._monotonic()
            metrics.journal_commit.observe(now - began)
            metrics.journal_bytes.set(self.bytes_used())
            observe = metrics.ingest_ack.observe
            for arrival in batch.arrivals:
                observe(now - arrival)

    def _abandon(self, batch: Batch, error: BaseException) -> None:
        """Fail all queued batches after a failed commit; no file of that commit is written again.

        Later batches continue the same entries. Written without the failed one, they would leave gaps.
        """
        logger.error(
            "a journal commit failed; none of its records was acknowledged",
            extra={"fields": {"error": type(error).__name__, "file": batch.file.number}},
        )
        failed = [batch, *self._queue]
        self._queue.clear()
        self._gathering = None
        self.current = None
        for lost in failed:
            if not lost.marks:
                lost.close()
            self.undurable -= lost.size
            lost.file.batches -= 1
            for member in lost.members:
                if member.batch is not None:
                    member.batch = None
                    member.fail(_unavailable(error))
        for file in {lost.file.number: lost.file for lost in failed}.values():
            file.end = file.durable_end
            self.reap(file)
        for lost in failed[1:]:
            self._wake(lost)

    @staticmethod
    def _wake(batch: Batch) -> None:
        for waiter in batch.waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def committed(self, batch: Batch) -> None:
        """Wait until the batch is durable or has failed; its members know which."""
        waiter = asyncio.get_running_loop().create_future()
        batch.waiters.append(waiter)
        await waiter

    async def progress(self) -> None:
        """Wait until the next commit has ended."""
        batch = self._running or (self._queue[0] if self._queue else None)
        if batch is not None:
            await self.committed(batch)

    @property
    def crowded(self) -> bool:
        """Whether more than the bound is in flight, so that new pieces wait until they are durable."""
        return self.undurable > self._undurable_bound

    # -- space --------------------------------------------------------------------------------------------------

    def bytes_used(self) -> int:
        """Return the bytes of records in all files, queued ones included."""
        return sum(file.end for file in self.files)

    def reap(self, file: JournalFile) -> None:
        """Remove the file if none of its records is needed; the current one only if it is more than half full."""
        if file.live or file.batches or file not in self.files:
            return
        if file is self.current:
            if file.end * 2 <= file.capacity:
                return
            self.current = None
        self.files.remove(file)
        if not self._closing:
            self._thread.submit(self._remove, file)

    def _remove(self, file: JournalFile) -> None:
        """Remove a file in the writer thread: a commit may wait for the unlink, the event loop may not."""
        try:
            file.remove()
        except OSError as error:
            logger.warning(
                "a journal file could not be removed",
                extra={"fields": {"file": file.number, "error": type(error).__name__}},
            )

    @property
    def closed(self) -> bool:
        """Whether `close` has begun."""
        return self._closing

    async def close(self, *, keep: Sequence[JournalFile]) -> None:
        """Commit the queued records, then close every file; unneeded files are removed, except `keep`."""
        self._closing = True
        while self._running is not None or self._queue:
            await self.progress()
        loop = asyncio.get_running_loop()
        current, self.current = self.current, None
        await loop.run_in_executor(self._thread, self._close_files, current, keep)
        self._thread.shutdown(wait=True)

    def _close_files(self, current: JournalFile | None, keep: Sequence[JournalFile]) -> None:
        if current is not None:
            current.trim()
        for file in tuple(self.files):
            if file.live or file in keep:
                file.close()
            else:
                self._remove(file)


def _unavailable(error: BaseException) -> Unavailable:
    if isinstance(error, OSError):
        return as_unavailable(error)
    return Unavailable(f"the journal could not be written ({reason(error)})")
