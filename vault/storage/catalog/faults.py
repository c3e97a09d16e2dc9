"""What the database says, in the vault's words."""

from __future__ import annotations

from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, ProgrammingError, StatementError
from sqlalchemy.exc import IntegrityError as ConstraintError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from vault.errors import ConfigError, Conflict, DiskFull, IntegrityError, Unavailable, VaultError

_CORRUPT = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_ONE_ACT_ONLY = (ConstraintError, DataError, InterfaceError, ProgrammingError)


def is_outage(error: Exception) -> bool:
    """Tell whether the database as a whole failed, as opposed to one act contradicting its rows."""
    return isinstance(error, DBAPIError | PoolTimeout) and not isinstance(error, _ONE_ACT_ONLY)


def translate(error: Exception) -> Exception:
    """Return the vault's error for a failed statement or commit; others come back as they are.

    The driver's text may quote values, so it is never repeated.
    """
    if isinstance(error, VaultError):
        return error
    if isinstance(error, ConstraintError):
        return Conflict("the row contradicts another row of the catalog; nothing was changed")
    if isinstance(error, DBAPIError):
        return _translate_driver(error)
    if isinstance(error, PoolTimeout):
        return Unavailable("every catalog connection is busy")
    if isinstance(error, StatementError) and isinstance(error.orig, VaultError):
        return error.orig
    return error


def _translate_driver(error: DBAPIError) -> VaultError:
    name = getattr(error.orig, "sqlite_errorname", None) or ""
    text = str(error.orig).lower()
    if name.startswith("SQLITE_FULL") or "disk is full" in text:
        return DiskFull("the catalog's file system is full; nothing was changed", hint="free space, then retry")
    if name.startswith(_CORRUPT) or "malformed" in text or "not a database" in text:
        return IntegrityError(
            "the catalog's file is damaged; nothing of it was returned", hint="restore the catalog from a backup"
        )
    if "no such table" in text or "no such column" in text:
        return ConfigError("catalog: the database has no usable schema", hint="run callvault init")
    return Unavailable("the catalog's database cannot answer now; nothing was changed")
