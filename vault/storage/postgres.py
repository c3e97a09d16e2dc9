"""Connections to PostgreSQL: how each is set up, and the timeouts that free the locks of a lost node.

asyncpg is an optional extra, so it is imported when the first connection is made.
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from vault.errors import ConfigError, Unavailable, VaultError
from vault.ports.time import Clock

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


async def connect(settings: PostgresSettings, *, idle_seconds: float = 0.0, read_only: bool = False) -> Any:
    """Open one connection; the server ends it after `idle_seconds` without a statement (0: never).

    Unavailable if the server cannot be reached or is a standby, ConfigError if it would lose what it has committed.
    """
    asyncpg = driver()
    milliseconds = int(settings.statement_seconds * 1000)
    try:
        connection = await asyncpg.connect(
            dsn=settings.url,
            timeout=settings.connect_seconds,
            # The server's own timeouts come first; this one is for a server that does not answer.
            command_timeout=settings.statement_seconds * _CLIENT_PATIENCE,
            server_settings={
                "application_name": "callvault",
                "statement_timeout": str(milliseconds),
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
            "the catalog's database does not let this user in; nothing was changed",
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
