"""Small disks for a journal: a real tmpfs where the test may mount one, else a quota at the journal's system calls."""

import contextlib
import errno
import os
import subprocess

from vault.storage.journal import journal
from vault.storage.journal.file import Disk


class Tmpfs:
    """A mounted file system of a few megabytes; `fill` leaves not a byte of it."""

    def __init__(self, directory):
        self._ballast = directory / "ballast"

    def fill(self):
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 4096)

    def free(self):
        self._ballast.unlink()

    def full(self):
        """Return whether the disk has no room for another block; only the test's own ballast may bring it there."""
        stat = os.statvfs(self._ballast.parent)
        return stat.f_bavail == 0


class QuotaDisk(Disk):
    """The journal's system calls over a budget of bytes, counted by what its directory takes."""

    def __init__(self, directory, size):
        self._directory = directory
        self._size = size
        self._filled = 0

    def fill(self):
        self._filled = self.free_bytes(self._directory)

    def free(self):
        self._filled = 0

    def full(self):
        return self.free_bytes(self._directory) == 0

    def allocate(self, fd, size):
        if size - os.fstat(fd).st_size > self.free_bytes(self._directory):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().allocate(fd, size)

    def write(self, fd, data, position):
        grows = max(0, position + len(data) - os.fstat(fd).st_size)
        if grows > self.free_bytes(self._directory):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(fd, data, position)

    def free_bytes(self, path):
        used = sum(each.stat().st_size for each in self._directory.iterdir())
        return max(0, self._size - used - self._filled)


@contextlib.contextmanager
def small_disk(directory, *, size, kind, monkeypatch):
    """Give the journal in `directory` a disk of `size` bytes; without the right to mount, every kind is "quota"."""
    if kind == "tmpfs" and _mount(directory, size):
        try:
            yield Tmpfs(directory)
        finally:
            subprocess.run(["umount", "-l", str(directory)], check=True)
        return
    disk = QuotaDisk(directory, size)
    monkeypatch.setattr(journal, "Disk", lambda: disk)
    yield disk


def _mount(directory, size):
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(directory)]
    try:
        return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False
