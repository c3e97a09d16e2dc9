"""PostgreSQL: the set-up of each connection, and the locks of a vault on several machines.

asyncpg is an optional extra, so it is imported when the first connection is made.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from vault.disk import lock_file
from vault.errors import ConfigError, Unavailable, VaultError, reason
from vault.ports.cluster import Held
from vault.ports.time import Clock

logger = logging.getLogger(__name__)

# -- connections --------------------------------------------------------------------------------------------------

_SCHEMES: Final = ("postgresql", "postgres")
_CLIENT_PATIENCE: Final = 1.5
_SAFE_COMMITS: Final = ("on", "remote_apply")
_UNKNOWN_SETTING: Final = "42704"
_STATE: Final = (
    "SELECT current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync') AS fsync, "
    "current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS standby"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSettings:
    """Where the database is and its timeouts; `url` is a libpq address and may contain a password."""

    url: str = field(repr=False)
    connect_seconds: float = 10.0
    statement_seconds: float = 30.0
    """The server ends a longer statement or lock wait, and a transaction idle for a third of this."""

    def __post_init__(self) -> None:
        """ConfigError for another kind of address; the message does not repeat it."""
        if urlsplit(self.url).scheme not in _SCHEMES:
            raise ConfigError(
                "catalog.url: is not a PostgreSQL address", hint="it looks like postgresql://user@host/database"
            )


def driver() -> Any:
    """Return the module asyncpg; ConfigError if it is not installed."""
    try:
        return importlib.import_module("asyncpg")
    except ImportError as error:
        raise ConfigError(
            "catalog.url: PostgreSQL needs the optional package asyncpg", hint="pip install 'callvault[postgres]'"
        ) from error


def advisory_key(name: str) -> int:
    """Return PostgreSQL's 64-bit key of the lock `name`."""
    return int.from_bytes(hashlib.sha256(b"callvault lock:" + name.encode()).digest()[:8], "big", signed=True)


async def connect(
    settings: PostgresSettings, *, idle_seconds: float = 0.0, read_only: bool = False, patient: bool = False
) -> Any:
    """Open one connection; the server ends it after `idle_seconds` without a statement (0: never).

    `statement_seconds` does not apply to a `patient` connection: an index of millions of rows takes longer.

    Unavailable if the server cannot be reached or is a standby, ConfigError if it would lose what it has committed.
    """
    asyncpg = driver()
    milliseconds = int(settings.statement_seconds * 1000)
    try:
        connection = await asyncpg.connect(
            dsn=settings.url,
            timeout=settings.connect_seconds,
            # The server's own timeouts come first; this one is for a server that does not answer.
            command_timeout=None if patient else settings.statement_seconds * _CLIENT_PATIENCE,
            server_settings={
                "application_name": "callvault",
                "statement_timeout": "0" if patient else str(milliseconds),
                "lock_timeout": str(milliseconds // 2),
                # A node stopped or cut off within a transaction holds the writer's lock; this frees it.
                "idle_in_transaction_session_timeout": str(milliseconds // 3),
                "idle_session_timeout": str(int(idle_seconds * 1000)),
                "tcp_keepalives_idle": "5",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "2",
                "tcp_user_timeout": str(milliseconds // 2),
                "default_transaction_read_only": "on" if read_only else "off",
                "timezone": "UTC",
            },
        )
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise _unreachable(error) from error
    except ValueError:
        # The error's text may quote the address with its password.
        raise ConfigError("catalog.url: cannot be read as a PostgreSQL address") from None
    try:
        state = await connection.fetchrow(_STATE)
        _check_state(state)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        connection.terminate()
        raise _unreachable(error) from error
    except BaseException:
        connection.terminate()
        raise
    return connection


async def clocks(settings: PostgresSettings, clock: Clock) -> tuple[datetime, datetime, datetime]:
    """Return the server's time, between this machine's times before the question and after the answer; Unavailable."""
    connection = await connect(settings, read_only=True)
    try:
        before = clock.now()
        said = await connection.fetchval("SELECT clock_timestamp()")
        after = clock.now()
    except (OSError, TimeoutError, driver().PostgresError, driver().InterfaceError) as error:
        raise _unreachable(error) from error
    finally:
        connection.terminate()
    return before, said, after


def _unreachable(error: Exception) -> VaultError:
    code = getattr(error, "sqlstate", None) or ""
    if code == _UNKNOWN_SETTING:
        return ConfigError("catalog.url: this PostgreSQL is too old", hint="the vault needs 14 or newer")
    if code.startswith(("28", "3D")):
        return Unavailable(
            "the catalog's database refuses this user; nothing was changed",
            hint="check user, password and database in catalog.url or CALLVAULT_CATALOG_URL",
            cause="catalog",
        )
    return Unavailable("the catalog's database cannot be reached; nothing was changed", cause="catalog")


def _check_state(state: Any) -> None:
    if state["standby"]:
        raise Unavailable(
            "catalog.url: this server is a standby; nothing was changed", hint="add target_session_attrs=read-write"
        )
    if state["fsync"] != "on" or state["synchronous_commit"] not in _SAFE_COMMITS:
        raise ConfigError(
            "catalog.url: this server answers before a commit is on disk "
            f"(fsync = {state['fsync']}, synchronous_commit = {state['synchronous_commit']})",
            hint="set fsync = on and synchronous_commit = on for the vault's user and database",
        )
    if state["encoding"] != "UTF8":
        raise ConfigError("catalog.url: the database's encoding is not UTF8", hint="create it with ENCODING 'UTF8'")


# -- locks --------------------------------------------------------------------------------------------------------
# Locks of a vault on several machines: PostgreSQL session locks, each on a connection of its own.
#
# The holder sends a statement every few seconds. The server ends a session that sends none, and frees its lock, but
# later than the holder itself gives the lock up. So a stopped or cut-off node never believes that it holds a lock
# that another node has.

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
        """Do nothing, because a local lock cannot be lost."""

    def close(self) -> None:
        """Free the lock."""
        os.close(self._descriptor)


def taken(name: str) -> Unavailable:
    """Return the error for a lock that another process has held for too long."""
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
        """Send a statement; return a time before that, so that the server has seen the holder since then."""
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
        except Exception as error:
            # Whatever it was: nobody watches any more, so the lock no longer counts as held.
            lock.lost = True
            scope.reschedule(asyncio.get_running_loop().time())
            if not isinstance(error, Unavailable):
                logger.exception("a lock can no longer be watched", extra={"fields": {"lock": lock.name}})


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
