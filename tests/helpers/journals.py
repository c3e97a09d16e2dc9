"""Journals on a temporary disk, and what tests do to them."""

import os
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from vault.ids import TenantId
from vault.model import Cohort, Coordinate, DataKey, Part
from vault.ports.journal import JournalOpening
from vault.storage.journal.file import Disk
from vault.storage.journal.journal import FileJournal


class TickingClock:
    def now(self):
        return datetime.now(UTC)

    def monotonic(self):
        return time.monotonic()


class FaultyDisk(Disk):
    """Fails the next `fail` calls of one kind with `errno`, before (lost) or after (landed) doing the work."""

    def __init__(self):
        self.call = None
        self.errno = None
        self.landed = False
        self.free = 1 << 40
        self.syncs = 0

    def arm(self, call, errno, *, landed=False):
        self.call, self.errno, self.landed = call, errno, landed

    def _do(self, call, work):
        if call != self.call:
            work()
            return
        self.call = None
        if self.landed:
            work()
        raise OSError(self.errno, os.strerror(self.errno))

    def allocate(self, fd, size):
        self._do("allocate", lambda: super(FaultyDisk, self).allocate(fd, size))

    def write(self, fd, data, position):
        self._do("write", lambda: super(FaultyDisk, self).write(fd, data, position))

    def sync(self, fd):
        self.syncs += 1
        self._do("sync", lambda: super(FaultyDisk, self).sync(fd))

    def truncate(self, fd, size):
        self._do("truncate", lambda: super(FaultyDisk, self).truncate(fd, size))

    def free_bytes(self, path):
        return self.free


def coordinate(number):
    cohort = Cohort(tenant=TenantId("northgate"), part=Part.AUDIO, period=20_512, generation=1)
    return Coordinate(cohort=cohort, leaf=number)


def opening(number):
    return JournalOpening(recording=f"rec_{number:032x}", coordinate=coordinate(number))


def key_of(place):
    return DataKey(place.leaf.to_bytes(32, "big"))


def audio(number, start, end):
    """Return the bytes `[start, end)` that recording `number` consists of; no two recordings share a run of them."""
    return b"".join(b"%04d/%010d|" % (number, index) for index in range(start // 16, -(-end // 16)))[
        start % 16 : start % 16 + end - start
    ]


def make(directory, **options):
    directory.mkdir(exist_ok=True)
    options = {"clock": TickingClock(), "commit_interval_seconds": 0.0, "file_bytes": 1 << 20} | options
    return FileJournal(directory, **options)


def start(journal, number, *, offset=0):
    return journal.open(opening(number), key_of(coordinate(number)), offset=offset)


async def replay(journal, *, keys=key_of, skip=lambda _: False):
    """Return what the journal found, by recording number."""
    found = await journal.replay(keys, skip=skip)
    return {found_one.opening.coordinate.leaf: found_one for found_one in found}


@asynccontextmanager
async def reopened(directory, **options):
    """Open a journal, replay it, and close it afterwards."""
    journal = make(directory, **options)
    try:
        yield journal, await replay(journal)
    finally:
        await journal.close()


def drop(journal):
    """Let go of a journal as a crash would: the lock is gone, nothing more is written, no file is trimmed."""
    os.close(journal._lock_fd)
    journal._lock_fd = -1
    journal._committer._thread.shutdown(wait=True)
    for file in journal._committer.files:
        file.close()


def journal_files(directory):
    return sorted(path for path in directory.iterdir() if path.name.startswith("journal-"))
