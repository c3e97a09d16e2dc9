"""Locks of a vault whose processes share one machine: `flock` on files in one directory.

The kernel frees a lock with the last descriptor, so a killed process frees its locks and a stopped one keeps them: it
goes on where it was, and nobody was there meanwhile.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

from vault.errors import Unavailable
from vault.ports.cluster import Held
from vault.ports.time import Clock

_STEP_SECONDS: Final = 0.02


class FileClusterLocks:
    """Implements `vault.ports.cluster.ClusterLocks` in a local `directory`, which is made with the first lock.

    With `makes` false no file is made: a lock that nobody ever took excludes nobody.
    """

    def __init__(self, directory: Path, *, clock: Clock, wait_seconds: float = 30.0, makes: bool = True) -> None:
        self._directory = directory
        self._makes = makes
        self._clock = clock
        self._wait_seconds = wait_seconds

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Held]:
        """Wait for the lock by asking again and again, so that a cancelled waiter leaves at once."""
        give_up_at = self._clock.monotonic() + self._wait_seconds
        while (lock := self._take(name)) is None:
            if self._clock.monotonic() >= give_up_at:
                raise taken(name)
            await asyncio.sleep(_STEP_SECONDS)
        with closing(lock):
            yield lock

    @asynccontextmanager
    async def try_hold(self, name: str) -> AsyncIterator[Held | None]:
        """Take the lock if it is free."""
        lock = self._take(name)
        if lock is None:
            yield None
            return
        with closing(lock):
            yield lock

    def _take(self, name: str) -> _FileLock | None:
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            if self._makes:
                self._directory.mkdir(mode=0o700, exist_ok=True)
                flags |= os.O_CREAT
            # A descriptor of its own for each holder: that is what makes flock exclude tasks of one process too.
            descriptor = os.open(self._directory / f"{name}.lock", flags, 0o600)
        except FileNotFoundError as error:
            if self._makes:
                raise Unavailable(f"the lock {name} cannot be asked for: {error.strerror}") from error
            return _FileLock(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise Unavailable(f"the lock {name} cannot be asked for: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            raise Unavailable(f"the lock {name} cannot be taken: {error.strerror}") from error
        return _FileLock(descriptor)


class _FileLock:
    """A locked descriptor; closing it frees the lock. The file stays: removing it would let two hold one name."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def check(self) -> None:
        """Return: nobody can take a local lock away."""

    def close(self) -> None:
        """Free it."""
        os.close(self._descriptor)


def taken(name: str) -> Unavailable:
    """Return the error of one who waited in vain."""
    return Unavailable(
        f"another process of this vault holds the lock {name}; nothing was changed", hint="try again in a moment"
    )
