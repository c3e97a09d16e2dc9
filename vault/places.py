"""Error messages for files and directories that this process cannot use.

The checks only make better messages. A caller that opens the file afterwards still handles the errors of opening it.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Final

from vault.errors import ConfigError

READ: Final = os.R_OK
WRITE: Final = os.R_OK | os.W_OK
_SETTLED: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG}
)


def name_of(uid: int) -> str:
    """Return a user's name and number; the number alone if this machine has no name for it."""
    login = _login(uid)
    return f"uid {uid}" if login == str(uid) else f"{login} (uid {uid})"


def is_settled(error: OSError) -> bool:
    """Tell whether the error lasts until somebody changes owners, modes, paths or mounts."""
    return error.errno in _SETTLED


def unusable(path: Path, error: OSError, *, setting: str | None = None) -> ConfigError:
    """Return the error for a path that cannot be used: the reason, its owner, this process's user, and what to do."""
    culprit, found = _culprit(path)
    me = name_of(os.geteuid())
    start = f"{setting}: " if setting else ""
    why = (error.strerror or "it cannot be used").lower()
    if found is None:
        return ConfigError(f"{start}{path}: {why}; this process runs as {me}")
    owner = name_of(found.st_uid)
    whose = f"belongs to {owner}, group {_group(found.st_gid)}, mode {stat.S_IMODE(found.st_mode):04o}"
    which = "it" if culprit == path else str(culprit)
    message = f"{start}{path}: {why}; {which} {whose}, and this process runs as {me}"
    if isinstance(error, FileNotFoundError):
        return ConfigError(message, hint="mount it, put it back, or correct its path in config.toml")
    if isinstance(error, PermissionError):
        user = _login(os.geteuid())
        return ConfigError(
            message, hint=f"run this as {_login(found.st_uid)}, or give it to {user}: chown -R {user} {culprit}"
        )
    return ConfigError(message, hint="correct its path in config.toml, or the file system it is on")


def check(path: Path, need: int, *, setting: str | None = None) -> None:
    """Raise ConfigError if this process may not use `path`; `need` is READ, or WRITE for reading and writing.

    READ of a directory is to list and enter it. Opening may still fail: this checks only owners, modes and mounts.
    """
    try:
        found = path.stat()
        need |= os.X_OK if stat.S_ISDIR(found.st_mode) else 0
        allowed = os.access(path, need, effective_ids=True)
        readonly = not allowed and need & os.W_OK and os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError as error:
        raise unusable(path, error, setting=setting) from error
    if not allowed:
        number = errno.EROFS if readonly else errno.EACCES
        raise unusable(path, OSError(number, os.strerror(number)), setting=setting)


def check_makeable(path: Path, *, setting: str | None = None) -> None:
    """Raise ConfigError if this process may not create `path` and its missing parents; an existing path is fine."""
    above = path
    try:
        while not is_there(above) and above != above.parent:
            above = above.parent
    except OSError as error:
        raise unusable(path, error, setting=setting) from error
    if above == path:
        return
    try:
        check(above, WRITE)
    except ConfigError as error:
        start = f"{setting}: " if setting else ""
        raise ConfigError(f"{start}{path} cannot be made; {error.message}", hint=error.hint) from error


def is_there(path: Path) -> bool:
    """Tell whether `path` exists; OSError if that cannot be found out."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _culprit(path: Path) -> tuple[Path, os.stat_result | None]:
    """Return the first directory that cannot be entered, else the path or its deepest existing parent."""
    path = path.absolute()
    place, found = path, None
    for each in (*reversed(path.parents), path):
        try:
            known = each.stat()
        except OSError:
            break
        place, found = each, known
        if each != path and not (stat.S_ISDIR(known.st_mode) and os.access(each, os.X_OK, effective_ids=True)):
            break
    return place, found


def _login(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
