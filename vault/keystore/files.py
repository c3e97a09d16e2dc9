"""Durable file operations: the one seam through which the keystore touches a disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from vault.disk import answering, lock_file, make_directories, sync_directory, write_at, write_whole


class Files:
    """Blocking operations on real files; tests replace it to crash before and after each of them.

    What a method did is on the disk when it returns: file and directory are synchronised. Failures are Unavailable or
    DiskFull. A missing file is FileNotFoundError only where the docstring says so.
    """

    def make_directory(self, path: Path) -> None:
        """Create `path` (mode 0700) and its parents; an existing one is left alone."""
        with _answering(path):
            make_directories(path)

    def replace(self, path: Path, data: bytes) -> None:
        """Make `data` the content of `path` in one step: a crash leaves all of the old or all of the new."""
        with _answering(path):
            write_whole(path, data)

    def overwrite(self, path: Path, offset: int, data: bytes) -> None:
        """Write `data` over existing bytes and wait until the disk has it; FileNotFoundError if there is no file."""
        with _answering(path, absence=True), path.open("r+b", buffering=0) as file:
            write_at(file.fileno(), data, offset)
            os.fdatasync(file.fileno())

    def unlink(self, path: Path) -> None:
        """Remove `path`; one that is absent is fine."""
        with _answering(path), contextlib.suppress(FileNotFoundError):
            path.unlink()
            sync_directory(path.parent)

    def read(self, path: Path) -> bytes:
        """Return the content of `path`; FileNotFoundError if there is none."""
        with _answering(path, absence=True):
            return path.read_bytes()

    def names(self, path: Path) -> list[str]:
        """Return the names in directory `path`, sorted; FileNotFoundError if there is none."""
        with _answering(path, absence=True):
            return sorted(os.listdir(path))  # noqa: PTH208 - names are wanted, not paths

    def lock(self, path: Path) -> Callable[[], None] | None:
        """Take the exclusive lock on `path` and return what releases it, or None if another process holds it.

        FileNotFoundError if its directory is missing. The kernel drops the lock with its process, so a killed server
        never locks its successor out.
        """
        with _answering(path, absence=True):
            handle = lock_file(path)
        return None if handle is None else lambda: os.close(handle)


def _answering(path: Path, *, absence: bool = False) -> contextlib.AbstractContextManager[None]:
    return answering(full=f"no room left for {path}", failed=f"{path} cannot be used", absence=absence)
