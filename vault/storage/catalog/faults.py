"""Translates the database's errors into the vault's."""

from __future__ import annotations

from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, ProgrammingError, StatementError
from sqlalchemy.exc import IntegrityError as ConstraintError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from vault.errors import ConfigError, Conflict, DiskFull, IntegrityError, Invalid, Unavailable, VaultError

_CORRUPT = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_ONE_ACT_ONLY = (ConstraintError, DataError, InterfaceError, ProgrammingError)

# SQLSTATE codes and their classes (PostgreSQL, appendix A).
_DATA, _CONSTRAINT = "22", "23"
_ONE_ACT_CLASSES = (_DATA, _CONSTRAINT, "42")
_DEFINITE_CLASSES = (*_ONE_ACT_CLASSES, "25", "40", "53")
_DISK_FULL = "53100"
_DAMAGED = ("XX001", "XX002")
NO_CATALOG = (
    "a catalog that was lost comes from a backup: callvault backup restore DEST; a new vault from callvault init"
)
_NO_SCHEMA = ("42P01", "42703", "3F000")


def is_broken(error: Exception) -> bool:
    """Tell whether the connection itself is gone; any other error came over a working connection."""
    return isinstance(error, DBAPIError) and bool(error.connection_invalidated)


def is_outage(error: Exception) -> bool:
    """Tell whether the database as a whole failed; any other error is of one act that contradicts its rows."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, OSError | TimeoutError | PoolTimeout | Unavailable)
    if is_broken(error):
        return True
    if code := _sqlstate(error):
        return not code.startswith(_ONE_ACT_CLASSES)
    return not isinstance(error, _ONE_ACT_ONLY)


def is_doubtful(error: Exception, dialect: str) -> bool:
    """Tell whether a commit that ended with `error` may have taken effect; a local file always knows."""
    if dialect == "sqlite":
        return False
    return not (isinstance(error, DBAPIError) and _sqlstate(error).startswith(_DEFINITE_CLASSES))


def translate(error: Exception) -> Exception:
    """Return the vault's error for a failed statement or commit; other errors come back unchanged.

    The driver's text may quote values, so it is never repeated.
    """
    if isinstance(error, VaultError):
        return error
    if isinstance(error, DBAPIError):
        return _translate_driver(error)
    if isinstance(error, PoolTimeout):
        return Unavailable("every catalog connection is busy", cause="catalog")
    if isinstance(error, OSError | TimeoutError):
        return Unavailable("the catalog's database does not answer; nothing was changed", cause="catalog")
    if isinstance(error, StatementError) and isinstance(error.orig, VaultError):
        return error.orig
    return error


def _translate_driver(error: DBAPIError) -> VaultError:
    name = getattr(error.orig, "sqlite_errorname", None) or ""
    code = _sqlstate(error)
    text = str(error.orig).lower()
    if isinstance(error, ConstraintError) or code.startswith(_CONSTRAINT):
        return Conflict("the row contradicts another row of the catalog; nothing was changed")
    if code.startswith(_DATA):
        return Invalid("a value is not one that the catalog can hold; nothing was changed")
    if name.startswith("SQLITE_FULL") or code == _DISK_FULL or "disk is full" in text:
        text = "the catalog's file system is full; nothing was changed"
        return DiskFull(text, hint="free space, then retry", cause="catalog")
    if name.startswith(_CORRUPT) or code in _DAMAGED or "malformed" in text or "not a database" in text:
        return IntegrityError(
            "the catalog's file is damaged; nothing of it was returned", hint="restore the catalog from a backup"
        )
    if code in _NO_SCHEMA or "no such table" in text or "no such column" in text:
        return ConfigError("catalog: the database has no usable schema", hint=NO_CATALOG)
    return Unavailable("the catalog's database cannot answer now; nothing was changed", cause="catalog")


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""
