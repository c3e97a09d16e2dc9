"""A keyring replica in a directory: complete files, replaced in one step (docs/format.md, "Keyring")."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from vault.errors import Unavailable
from vault.format.keyring import HEAD, INDEX, PAGES
from vault.keystore.files import Files
from vault.model import Finding
from vault.threads import in_thread

LOCK: Final = "LOCK"
_WAIT_SECONDS: Final = 15.0
_STEP_SECONDS: Final = 0.01


class DirectoryReplica:
    """Implements `vault.ports.keys.KeyringStore` on a directory of this machine."""

    def __init__(self, path: Path, *, files: Files | None = None, wait_seconds: float = _WAIT_SECONDS) -> None:
        self.name = str(path)
        self.path = path
        self._files = files or Files()
        self._tries = max(round(wait_seconds / _STEP_SECONDS), 1)

    async def initialise(self) -> bool:
        """Make the directories; False if any holds anything but a lock."""
        return await in_thread(self._initialise)

    def _initialise(self) -> bool:
        for path in (self.path, self.path / INDEX, self.path / PAGES):
            self._files.make_directory(path)
        found = {*self._files.names(self.path)} - {LOCK, INDEX, PAGES}
        return not (found or self._files.names(self.path / INDEX) or self._files.names(self.path / PAGES))

    async def read(self, names: Sequence[str]) -> Mapping[str, bytes | None]:
        """Return the files' contents; a missing directory is a missing file."""
        return await in_thread(self._read, names)

    def _read(self, names: Sequence[str]) -> Mapping[str, bytes | None]:
        return {name: self._read_one(name) for name in names}

    def _read_one(self, name: str) -> bytes | None:
        try:
            return self._files.read(self.path / name)
        except FileNotFoundError:
            return None

    async def write(self, blobs: Mapping[str, bytes]) -> None:
        """Replace each file in one step."""
        await in_thread(self._write, blobs)

    def _write(self, blobs: Mapping[str, bytes]) -> None:
        for name, data in blobs.items():
            # An unmounted disk leaves an empty mount point: it has no directories for blobs, so nothing fills it.
            self._files.replace(self.path / name, data)

    async def swap(self, expected: bytes | None, head: bytes) -> bool:
        """Compare and replace; `exclusive` keeps other writers out between the two."""
        return await in_thread(self._swap, expected, head)

    def _swap(self, expected: bytes | None, head: bytes) -> bool:
        if self._read_one(HEAD) != expected:
            return False
        self._files.replace(self.path / HEAD, head)
        return True

    async def remove(self, names: Sequence[str]) -> None:
        """Unlink the files."""
        await in_thread(self._remove, names)

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            self._files.unlink(self.path / name)

    async def names(self) -> AbstractSet[str]:
        """Return the names in the two blob directories, with those of unfinished files, which belong to no head."""
        return await in_thread(self._names)

    def _names(self) -> AbstractSet[str]:
        try:
            return {f"{each}/{name}" for each in (INDEX, PAGES) for name in self._files.names(self.path / each)}
        except FileNotFoundError as error:
            raise Unavailable(f"the keyring replica {self.name} is incomplete or not mounted") from error

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Hold the replica's lock file; Unavailable if another process holds it longer than `wait_seconds`."""
        unlock = await self._lock()
        try:
            yield
        finally:
            unlock()

    async def _lock(self) -> Callable[[], None]:
        for attempt in range(self._tries):
            if attempt:
                await asyncio.sleep(_STEP_SECONDS)
            try:
                unlock = await in_thread(self._files.lock, self.path / LOCK)
            except FileNotFoundError as error:
                raise Unavailable(f"the keyring replica {self.name} is not mounted or lost") from error
            if unlock is not None:
                return unlock
        raise Unavailable(
            f"the keyring replica {self.name} has been in use by another process for long; nothing was changed",
            hint="see which process holds it: fuser -v on its LOCK file",
        )

    async def check(self) -> Sequence[Finding]:
        """Return no findings: a directory reports nothing about its disk."""
        return ()

    async def close(self) -> None:
        """Do nothing; no file stays open."""
