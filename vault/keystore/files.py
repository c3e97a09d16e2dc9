"""Durable file operations: the one seam through which the keystore touches a disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from vault.errors import DiskFull, Unavailable


class Files:
    """Blocking operations on real files; tests replace it to crash before and after each of them.

    Whatever has returned is on the disk: file and directory are synchronised. Failures are Unavailable or DiskFull; a
    missing file is only FileNotFoundError where the docstring says so.
    """

    def make_directory(self, path: Path) -> None:
        """Create `path` (mode 0700) and its parents; an existing one is left alone."""
        with _translated(path):
            missing = [each for each in (path, *path.parents) if not each.exists()]
            for each in reversed(missing):
                each.mkdir(mode=0o700, exist_ok=True)
                _sync_directory(each.parent)

    def replace(self, path: Path, data: bytes) -> None:
        """Make `data` the content of `path` in one step: a crash leaves all of the old or all of the new."""
        staged = path.with_name(f".{path.name}.new")
        with _translated(path):
            _write(staged, data)
            staged.rename(path)
            _sync_directory(path.parent)

    def overwrite(self, path: Path, offset: int, data: bytes) -> None:
        """Write `data` over existing bytes in place, and wait until the disk has it; FileNotFoundError."""
        with _translated(path, missing_is_answer=True), _opened(path, os.O_WRONLY) as handle:
            view = memoryview(data)
            while view:
                written = os.pwrite(handle, view, offset)
                view, offset = view[written:], offset + written
            os.fdatasync(handle)

    def unlink(self, path: Path) -> None:
        """Remove `path`; one that is absent is fine."""
        with _translated(path), contextlib.suppress(FileNotFoundError):
            path.unlink()
            _sync_directory(path.parent)

    def read(self, path: Path) -> bytes:
        """Return the content of `path`; FileNotFoundError."""
        with _translated(path, missing_is_answer=True):
            return path.read_bytes()

    def names(self, path: Path) -> list[str]:
        """Return the names in directory `path`, sorted; FileNotFoundError."""
        with _translated(path, missing_is_answer=True):
            return sorted(os.listdir(path))  # noqa: PTH208 - names are wanted, not paths

    def lock(self, path: Path) -> Callable[[], None] | None:
        """Take the exclusive lock on `path` and return what releases it, or None if another process holds it.

        FileNotFoundError if its directory is missing. The kernel drops the lock with its process, so a killed server
        never locks its successor out.
        """
        with _translated(path, missing_is_answer=True):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                return None
            except BaseException:
                os.close(handle)
                raise
        return lambda: os.close(handle)


@contextlib.contextmanager
def _translated(path: Path, *, missing_is_answer: bool = False) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if missing_is_answer and isinstance(error, FileNotFoundError):
            raise
        _refuse(path, error)


def _refuse(path: Path, error: OSError) -> NoReturn:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise DiskFull(f"no room left for {path}") from error
    raise Unavailable(f"{path} cannot be used: {error.strerror}") from error


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def _write(path: Path, data: bytes) -> None:
    with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as handle:
        if data:
            # Reserve the blocks first: a full disk is then known before a byte of a key is written.
            os.posix_fallocate(handle, 0, len(data))
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)


def _sync_directory(path: Path) -> None:
    with _opened(path, os.O_RDONLY | os.O_DIRECTORY) as handle:
        os.fsync(handle)
