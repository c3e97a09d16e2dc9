"""Locks of a vault on several machines: PostgreSQL session locks, each on a connection of its own.

The holder sends a statement every few seconds. The server ends a session that sends none, and frees its lock, but later
than the holder itself gives the lock up. So a stopped or cut-off node never believes that it holds a lock that another
node has.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final

from vault.disk import lock_file
from vault.errors import Unavailable, reason
from vault.ports.cluster import Held
from vault.ports.time import Clock
from vault.storage.postgres import PostgresSettings, advisory_key, connect, driver

_STEP_SECONDS: Final = 0.02


class FileClusterLocks:
    """Implements `vault.ports.cluster.ClusterLocks` in a local `directory`, which is made with the first lock.

    With `makes` false no file is made: a lock that was never taken excludes nobody.
    """

    def __init__(self, directory: Path, *, clock: Clock, wait_seconds: float = 30.0, makes: bool = True) -> None:
        self._directory = directory
        self._makes = makes
        self._clock = clock
        self._wait_seconds = wait_seconds

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Held]:
        """Wait for the lock by polling, so that a cancelled waiter leaves at once."""
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
        try:
            if self._makes:
                self._directory.mkdir(mode=0o700, exist_ok=True)
            handle = lock_file(self._directory / f"{name}.lock", makes=self._makes)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not self._makes:
                return _FileLock(os.open(os.devnull, os.O_RDONLY))
            raise Unavailable(f"the lock {name} cannot be taken: {reason(error)}") from error
        return None if handle is None else _FileLock(handle)


class _FileLock:
    """A locked descriptor; closing it frees the lock."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def check(self) -> None:
        """Return: a local lock cannot be lost."""

    def close(self) -> None:
        """Free it."""
        os.close(self._descriptor)


def taken(name: str) -> Unavailable:
    """Return the error after waiting for a lock in vain."""
    return Unavailable(
        f"another process of this vault holds the lock {name}; nothing was changed", hint="try again in a moment"
    )


_GIVES_UP = 2 / 3
"""The fraction of the lease after which a holder gives its lock up."""
_SHOWS_LIFE = 1 / 5
_LOCK_NOT_AVAILABLE = "55P03"


class PostgresClusterLocks:
    """Implements `vault.ports.cluster.ClusterLocks` in the catalog's database.

    The server frees a lock whose holder has sent nothing for `lease_seconds`. The lock belongs to the connection's
    session: a pooler in between must pool sessions.
    """

    def __init__(
        self, settings: PostgresSettings, *, clock: Clock, wait_seconds: float = 30.0, lease_seconds: float = 15.0
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._lease_seconds = lease_seconds

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Held]:
        """Wait for the lock on the server, which serves waiters in order."""
        async with self._locked(name, wait=True) as lock:
            assert lock is not None
            yield lock

    @asynccontextmanager
    async def try_hold(self, name: str) -> AsyncIterator[Held | None]:
        """Take the lock if it is free."""
        async with self._locked(name, wait=False) as lock:
            yield lock

    @asynccontextmanager
    async def _locked(self, name: str, *, wait: bool) -> AsyncIterator[_SessionLock | None]:
        connection = await connect(self._settings, idle_seconds=self._lease_seconds)
        try:
            since = self._clock.monotonic()
            if not await self._take(connection, name, wait=wait):
                yield None
                return
            if wait:
                since = await self._show_life(connection, name)
            lock = _SessionLock(name, self._clock, since, self._lease_seconds * _GIVES_UP)
            async with self._watched(connection, lock):
                yield lock
        finally:
            # Ending the session frees the lock, even if nothing can be sent to the server any more.
            connection.terminate()

    async def _take(self, connection: Any, name: str, *, wait: bool) -> bool:
        key = advisory_key(name)
        try:
            if not wait:
                return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", key))
            milliseconds = max(int(self._wait_seconds * 1000), 1)
            await connection.execute(f"SET lock_timeout = {milliseconds}; SET statement_timeout = 0")
            # A bound in the client too, for a server that does not answer.
            await connection.fetchval("SELECT pg_advisory_lock($1)", key, timeout=self._wait_seconds + 5)
        except driver().PostgresError as error:
            if error.sqlstate == _LOCK_NOT_AVAILABLE:
                raise taken(name) from error
            raise _lost(name) from error
        except (OSError, TimeoutError, driver().InterfaceError) as error:
            raise _lost(name) from error
        return True

    async def _show_life(self, connection: Any, name: str) -> float:
        """Send a statement; return a time before it was sent, which the server cannot have seen it before."""
        before = self._clock.monotonic()
        try:
            await connection.execute("SELECT 1", timeout=self._lease_seconds * _SHOWS_LIFE)
        except (OSError, TimeoutError, driver().PostgresError, driver().InterfaceError) as error:
            raise _lost(name) from error
        return before

    @asynccontextmanager
    async def _watched(self, connection: Any, lock: _SessionLock) -> AsyncIterator[None]:
        """Keep the lock alive while the body runs, and cancel the body if it is lost."""
        try:
            async with asyncio.timeout(None) as scope:
                watcher = asyncio.create_task(self._watch(connection, lock, scope), name=f"lock {lock.name}")
                try:
                    yield
                finally:
                    watcher.cancel()
        except TimeoutError:
            if scope.expired():
                raise _lost(lock.name) from None
            raise
        lock.check()

    async def _watch(self, connection: Any, lock: _SessionLock, scope: asyncio.Timeout) -> None:
        try:
            while True:
                await asyncio.sleep(self._lease_seconds * _SHOWS_LIFE)
                lock.check()
                lock.since = await self._show_life(connection, lock.name)
        except Unavailable:
            lock.lost = True
            scope.reschedule(asyncio.get_running_loop().time())


class _SessionLock:
    """A lock, and the latest time at which the server is known to have seen its holder."""

    def __init__(self, name: str, clock: Clock, since: float, lease_seconds: float) -> None:
        self.name = name
        self.since = since
        self.lost = False
        self._clock = clock
        self._lease_seconds = lease_seconds

    def check(self) -> None:
        """Raise Unavailable once the server may have freed the lock."""
        if self.lost or self._clock.monotonic() - self.since >= self._lease_seconds:
            raise _lost(self.name)


def _lost(name: str) -> Unavailable:
    return Unavailable(f"the lock {name} was lost or cannot be taken: its database does not answer")
