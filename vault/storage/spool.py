"""The spool on a file system, beside the journal of its node.

    ROOT/<recording>/<number>            a part that was kept; five digits
    ROOT/<recording>/<number>-<version>  one that was kept later under the same number: 1, 2, …
    ROOT/<recording>/<number>.<hex>      one that is being written

A part is written under a name of its own, synchronised, renamed, and its directory synchronised. No part takes the
place of another: a crash leaves those that were there before, and the new one whole or not at all.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Final

from vault.disk import answering, rename, sync_directory, write_at
from vault.errors import DiskFull, NotFound, Truncated, Unavailable, size_text
from vault.ids import RecordingId
from vault.ports.journal import Room
from vault.ports.time import Entropy
from vault.threads import acquire, in_thread

_RECORDING: Final = re.compile(r"rec_[0-9a-f]{32}")
_KEPT: Final = re.compile(r"(\d{5})(?:-([1-9]\d{0,5}))?", re.ASCII)
_NEW: Final = os.O_CREAT | os.O_EXCL | os.O_RDWR
_SUFFIX_BYTES: Final = 8


def _answering() -> AbstractContextManager[None]:
    full = "the journal's disk has no room for another part; what was acknowledged is safe"
    return answering(full=full, failed="the spool cannot be used", cause="disk")


def _kept_name(number: str, version: int) -> str:
    return f"{number}-{version}" if version else number


class FileSpoolFile:
    """Implements `vault.ports.journal.SpoolFile`; every system call runs in a thread."""

    def __init__(self, spool: FileSpool, fd: int, *, tenant: str, size: int = 0, path: Path | None = None) -> None:
        self._spool = spool
        self._tenant = tenant
        self._fd = fd
        self._path = path
        self._charged = 0
        self.size = size

    async def append(self, data: bytes) -> None:
        """Add bytes at the end."""
        self._spool.room.take(self._tenant, len(data))
        self._charged += len(data)
        await in_thread(self._append, data)

    def _append(self, data: bytes) -> None:
        with _answering():
            self._spool.require_room(len(data))
            write_at(self._fd, data, self.size)
            self.size += len(data)

    async def read(self, start: int, end: int) -> bytes:
        """Return bytes `[start, end)`."""
        return await in_thread(self._read, start, end)

    def _read(self, start: int, end: int) -> bytes:
        with _answering():
            data = os.pread(self._fd, end - start, start)
        if len(data) != end - start:
            raise Truncated(f"a part ends {end - start - len(data)} bytes early")
        return data

    async def keep(self, version: int = 0) -> None:
        """Make it that version of its part, durable on return."""
        assert self._path is not None
        replaced = await in_thread(self._keep, self._path, version)
        self._path, self._charged = None, 0
        self._spool.room.give(self._tenant, replaced)

    def _keep(self, path: Path, version: int) -> int:
        with _answering():
            os.fsync(self._fd)
            target = path.with_name(_kept_name(path.stem, version))
            # The replaced file was never acknowledged: keeping it failed half way.
            replaced = target.stat().st_size if target.exists() else 0
            rename(path, target)
        return replaced

    async def close(self) -> None:
        """Close it; a file that was not kept is removed."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            await in_thread(self._close, fd)
            self._spool.room.give(self._tenant, self._charged)

    def _close(self, fd: int) -> None:
        os.close(fd)
        if self._path is not None:
            with suppress(OSError):  # the next start removes it
                self._path.unlink()


class FileSpool:
    """Implements `vault.ports.journal.Spool` below `path`, which is made with the first upload.

    All files together take at most `room`, and leave `disk_reserve_bytes` of the file system to the journal.
    """

    def __init__(self, path: Path, *, room: Room, disk_reserve_bytes: int, entropy: Entropy) -> None:
        self._path = path
        self.room = room
        self._reserve = disk_reserve_bytes
        self._entropy = entropy

    def require_room(self, size: int) -> None:
        """Raise DiskFull if `size` more bytes would use the reserve; blocking."""
        stat = os.statvfs(self._path)
        free = stat.f_bavail * stat.f_frsize
        if free - size < self._reserve:
            raise DiskFull(
                f"the journal's disk has {size_text(free)} free, of which journal.disk_reserve keeps "
                f"{size_text(self._reserve)}: no room for another part; what was acknowledged is safe",
                hint="free space, or give the journal a larger disk of its own",
                cause="disk",
            )

    def _place(self, recording: RecordingId) -> Path:
        return self._path / recording

    async def prepare(self, recording: RecordingId) -> None:
        """Make the recording's directory, durable on return."""
        await in_thread(self._prepare, self._place(recording))

    def _prepare(self, place: Path) -> None:
        with _answering():
            self._make_root()
            place.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._path)

    def _make_root(self) -> None:
        if not self._path.exists():
            self._path.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._path.parent)

    async def begin(self, recording: RecordingId, number: int, *, tenant: str) -> FileSpoolFile:
        """Return a new file for a part."""
        path = self._place(recording) / f"{number:05}.{self._entropy(_SUFFIX_BYTES).hex()}"
        return FileSpoolFile(self, await acquire(os.close, self._open, path, _NEW), tenant=tenant, path=path)

    @staticmethod
    def _open(path: Path, flags: int) -> int:
        with _answering():
            return os.open(path, flags, 0o600)

    async def scratch(self, *, tenant: str) -> FileSpoolFile:
        """Return a new file without a name, which ends with its descriptor."""
        return FileSpoolFile(self, await acquire(os.close, self._scratch), tenant=tenant)

    def _scratch(self) -> int:
        with _answering():
            self._make_root()
            fd, name = tempfile.mkstemp(dir=self._path)
            os.unlink(name)  # noqa: PTH108  # a name from mkstemp
            return fd

    async def open(self, recording: RecordingId, number: int, version: int = 0) -> FileSpoolFile:
        """Return a kept version of a part."""
        path = self._place(recording) / _kept_name(f"{number:05}", version)
        fd = await acquire(os.close, self._open_kept, path)
        return FileSpoolFile(self, fd, tenant="", size=os.fstat(fd).st_size)

    @staticmethod
    def _open_kept(path: Path) -> int:
        try:
            return os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise NotFound("there is no such part") from error
        except OSError as error:
            raise Unavailable("a part cannot be read now") from error

    async def kept(self) -> Mapping[RecordingId, Mapping[tuple[int, int], int]]:
        """Return every recording's directory, with the sizes of its parts by number and version."""
        return await in_thread(self._kept)

    def _kept(self) -> dict[RecordingId, dict[tuple[int, int], int]]:
        found: dict[RecordingId, dict[tuple[int, int], int]] = {}
        with _answering():
            for place in self._path.iterdir() if self._path.exists() else ():
                if not _RECORDING.fullmatch(place.name):
                    if place.is_file():  # a scratch file whose name a crash left
                        place.unlink()
                    continue
                sizes = found.setdefault(RecordingId(place.name), {})
                for each in place.iterdir():
                    if named := _KEPT.fullmatch(each.name):
                        sizes[int(named[1]), int(named[2] or 0)] = each.stat().st_size
                    else:
                        each.unlink()
        return found

    async def drop(self, recording: RecordingId, *, tenant: str) -> None:
        """Remove a recording's directory."""
        self.room.give(tenant, await in_thread(self._drop, self._place(recording)))

    def _drop(self, place: Path) -> int:
        freed = 0
        with _answering():
            for each in place.iterdir() if place.exists() else ():
                freed += each.stat().st_size if _KEPT.fullmatch(each.name) else 0
                each.unlink()
            if place.exists():
                place.rmdir()
                sync_directory(self._path)
        return freed
