"""One journal file on disk, the journal's system calls, and the id of its node.

A file is written by one process, from one thread, in order. It is never appended to after a failed write or a restart,
and is removed when none of its records is needed.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from vault.disk import allocate, refusal, sync_directory, write_at, write_whole
from vault.errors import ConfigError, Unavailable, reason
from vault.format.journal import HEADER_BYTES
from vault.ids import NodeId, new_id
from vault.places import unusable
from vault.ports.time import Entropy

# -- the id of a node ---------------------------------------------------------------------------------------------

FILE_NAME: Final = "node.id"
_PATTERN: Final = re.compile(r"node_[0-9a-f]{32}")


def node_of(directory: Path, *, at: datetime, entropy: Entropy) -> NodeId:
    """Return the id in `directory`; a new one is made durable first. The caller holds the journal's lock.

    ConfigError if the id cannot be read or written, or is damaged. No recording begins before the id is durable: rows
    under a lost id would wait for that node for ever.
    """
    path = directory / FILE_NAME
    try:
        if not path.exists():
            write_whole(path, f"{new_id('node', at=at, entropy=entropy)}\n".encode())
    except OSError as error:
        raise unusable(path, error, setting="journal.path") from error
    return _read(directory)


def existing_node(directory: Path) -> NodeId:
    """Return the id of the journal in `directory`; ConfigError if it has none."""
    try:
        (directory / FILE_NAME).stat()
    except FileNotFoundError as error:
        raise ConfigError(f"{directory} is not a node's journal: {FILE_NAME} is missing") from error
    except OSError as error:
        raise unusable(directory / FILE_NAME, error) from error
    return _read(directory)


def _read(directory: Path) -> NodeId:
    try:
        name = (directory / FILE_NAME).read_text(encoding="ascii").strip()
    except OSError as error:
        raise unusable(directory / FILE_NAME, error, setting="journal.path") from error
    except UnicodeDecodeError:
        name = ""
    if not _PATTERN.fullmatch(name):
        raise ConfigError(
            f"journal.path: {FILE_NAME} in it is damaged", hint="put back the id that `callvault journal status` shows"
        )
    return NodeId(name)


# -- one journal file ---------------------------------------------------------------------------------------------

WINDOW_BYTES: Final = 64 << 10

_pread = ctypes.PyDLL(None, use_errno=True).pread
_pread.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
_pread.restype = ctypes.c_ssize_t


class Window:
    """A buffer for reads, reused by each; it belongs to one thread."""

    __slots__ = ("_address", "_view")

    def __init__(self) -> None:
        self._make(WINDOW_BYTES)

    def _make(self, size: int) -> None:
        memory = bytearray(size)
        self._view = memoryview(memory)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(memory))

    def read(self, fd: int, position: int, size: int) -> memoryview:
        """Return the `size` bytes at `position`, fewer at the end of the file, valid until the next read; OSError."""
        if size > len(self._view):
            self._make(size)
        got = _pread(fd, self._address, size, position)
        if got < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return self._view[:got]


class Disk:
    """The system calls behind a journal file; each raises OSError."""

    def create(self, path: Path) -> int:
        """Create `path` for reading and writing; it must not exist."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def allocate(self, fd: int, size: int) -> None:
        """Reserve `size` bytes, so that commits rarely meet a full disk and write no metadata."""
        allocate(fd, size)

    def write(self, fd: int, data: bytes, position: int) -> None:
        """Write all of `data` at `position`."""
        write_at(fd, data, position)

    def sync(self, fd: int) -> None:
        """Make the written bytes durable."""
        os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Free the space allocated beyond `size`."""
        os.ftruncate(fd, size)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        sync_directory(path)

    def free_bytes(self, path: Path) -> int:
        """Return how many bytes an unprivileged process may still write to the file system."""
        stat = os.statvfs(path)
        return stat.f_bavail * stat.f_frsize


def as_unavailable(error: OSError) -> Unavailable:
    """Return the recorder's error for a failed write; the message names no path."""
    return refusal(
        error,
        full="the journal's disk has no room for another byte; what was acknowledged is safe",
        failed="the journal could not be written",
        hint="free space, or give the journal a larger disk of its own",
        cause="disk",
    )


class JournalFile:
    """A file of records. Counters belong to the event loop, `commit` to the writer thread, `read` to any thread."""

    __slots__ = (
        "_disk",
        "_fd",
        "_lock",
        "allocated",
        "batches",
        "capacity",
        "damaged",
        "durable_end",
        "end",
        "handles",
        "live",
        "number",
        "path",
        "salt",
    )

    def __init__(self, path: Path, *, disk: Disk, number: int, salt: bytes, capacity: int) -> None:
        self.path = path
        self.number = number
        self.salt = salt
        self.capacity = capacity
        self.allocated = capacity
        """Bytes this file may use on disk: the whole capacity until `trim`, after a failed trim for good."""
        self.end = HEADER_BYTES
        """The position of the next record; ahead of the disk by the queued bytes."""
        self.durable_end = 0
        self.live = 0
        """Unreleased plaintext bytes, plus one for each end record that is still needed."""
        self.batches = 0
        """Commits queued or under way."""
        self.handles = 0
        self.damaged = False
        """Whether it has bytes that replay could not return: such a file is set aside instead of unlinked."""
        self._disk = disk
        self._fd = -1
        self._lock = threading.Lock()
        """Held while reading and closing, because a closed descriptor's number is used again."""

    @classmethod
    def existing(cls, path: Path, *, disk: Disk, number: int) -> JournalFile:
        """Return a file of an earlier incarnation, not opened yet."""
        file = cls(path, disk=disk, number=number, salt=b"", capacity=0)
        file.end = file.durable_end = file.allocated = path.stat().st_size
        return file

    def commit(self, data: bytes, position: int, *, last: bool) -> None:
        """Write and sync one batch. After an OSError no record of the batch counts, and the file is not used again.

        A failed fsync is never repeated: the kernel may have dropped the pages that it could not write, and would then
        report success.
        """
        if self._fd < 0:
            self._fd = self._disk.create(self.path)
            self._disk.allocate(self._fd, self.capacity)
            # The name first: a durable record is lost if a crash removes its file's name.
            self._disk.sync_directory(self.path.parent)
        self._disk.write(self._fd, data, position)
        self._disk.sync(self._fd)
        self.durable_end = position + len(data)
        if last:
            self.trim()

    def trim(self) -> None:
        """Free the allocation beyond the durable bytes; a failure is harmless, because replay stops at zeroes.

        After a failed commit this also removes those of its bytes that reached the disk, so that a replay never returns
        unacknowledged bytes.
        """
        if self._fd >= 0:
            with suppress(OSError):
                self._disk.truncate(self._fd, self.durable_end)
                self.allocated = self.durable_end

    def read(self, position: int, size: int, window: Window) -> memoryview:
        """Return durable bytes, valid until the window's next read. Safe in any thread, also while the file is written.

        Unavailable on a disk error; ValueError once the file is gone.
        """
        with self._lock:
            if self._fd < 0:
                raise ValueError("the journal file is gone")
            try:
                return window.read(self._fd, position, size)
            except OSError as error:
                raise Unavailable(f"the journal could not be read: {reason(error)}") from error

    def load(self) -> bytes:
        """Open an earlier incarnation's file for reading and return its bytes; OSError."""
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        pieces = []
        position = 0
        while piece := os.pread(self._fd, 1 << 24, position):
            pieces.append(piece)
            position += len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close the descriptor; later readers get ValueError."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def remove(self) -> None:
        """Close and unlink the file, or set it aside if it is damaged; OSError.

        A crash may bring an unlinked name back. Its recordings are then found stored, so nothing waits for a sync here.
        """
        self.close()
        if self.damaged:
            self.path.rename(self.path.with_name(f"{self.path.name}.damaged"))
        else:
            with suppress(FileNotFoundError):
                self._disk.unlink(self.path)
