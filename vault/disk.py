"""What every file of the vault goes through: written whole and durably, locked, and its failures told in one way.

The functions block, and raise OSError as the system does; `answering` turns it into the vault's own error.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from vault.errors import DiskFull, Unavailable, reason

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_NO_ALLOCATION: Final = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_PRIVATE: Final = 0o600


def refusal(
    error: OSError, *, full: str, failed: str, hint: str | None = None, cause: str | None = None
) -> Unavailable:
    """Return DiskFull saying `full` if disk or quota have no room, else Unavailable saying `failed` and the reason.

    `hint` is for a full disk, in place of the usual one. `cause` is a fact of either.
    """
    facts: dict[str, Any] = {} if cause is None else {"cause": cause}
    if error.errno in _FULL:
        return DiskFull(full, **facts) if hint is None else DiskFull(full, hint=hint, **facts)
    return Unavailable(f"{failed}: {reason(error)}", **facts)


@contextmanager
def answering(*, full: str, failed: str, cause: str | None = None, absence: bool = False) -> Iterator[None]:
    """Raise `refusal` of any OSError in the body; with `absence` FileNotFoundError is an answer, and passes."""
    try:
        yield
    except OSError as error:
        if absence and isinstance(error, FileNotFoundError):
            raise
        raise refusal(error, full=full, failed=failed, cause=cause) from error


@contextmanager
def whole_file(path: Path, *, mark: str = "new") -> Iterator[BinaryIO]:
    """Yield a new file that becomes `path` when the body ends; a crash leaves all of the old one or all of the new.

    The new file is called `.{name}.{mark}` until then, and its owner alone can read it. What had that name, left by a
    crash or put there by somebody else, is removed and not written to: others may have it open. Writers that nothing
    keeps apart need a mark each. A body that fails leaves no new file. After the return the disk has content and name.
    """
    partial = path.with_name(f".{path.name}.{mark}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, flags, _PRIVATE), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # Content before name: the other order could, after a crash, show the name over missing bytes.
        rename(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Make `data` the content of `path` in one step. A disk that is full is known before a byte is written."""
    with whole_file(path) as file:
        allocate(file.fileno(), len(data))
        file.write(data)


def write_new(name: str | Path, chunks: Iterable[bytes | memoryview], *, within: int | None = None) -> None:
    """Make a private file of these bytes and wait until the disk has them; FileExistsError.

    Its name is not durable yet. It is looked up in the open directory `within`, if one is given.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(name, flags, _PRIVATE, dir_fd=within), "wb") as file:
        file.writelines(chunks)
        file.flush()
        os.fdatasync(file.fileno())


def write_at(handle: int, data: bytes, position: int) -> None:
    """Write all of `data` at `position` of an open file; durable once that is synchronised."""
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, position)
        view, position = view[written:], position + written


def allocate(handle: int, size: int) -> None:
    """Reserve `size` bytes from the start of a file; where the file system cannot, nothing is reserved."""
    if not size:
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in _NO_ALLOCATION:
            raise


def rename(path: Path, target: Path) -> None:
    """Give a file another name in its directory, and wait until the disk has it."""
    path.rename(target)
    sync_directory(path.parent)


def sync_directory(name: str | Path, *, within: int | None = None) -> None:
    """Wait until the disk has the names in a directory; `within` as for `write_new`."""
    handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=within)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directories(path: Path) -> None:
    """Make a private directory and its missing parents, each durable; an existing one stays as it is."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        sync_directory(each.parent)


def lock_file(path: Path, *, makes: bool = True) -> int | None:
    """Return a handle of the lock file at `path` that holds its lock alone, or None if somebody else holds it.

    The file is made unless `makes` is false; FileNotFoundError. Closing the handle frees the lock, and the kernel frees
    that of a process which ended. The file stays: removing it would let two hold one name. Each handle excludes all
    others, those of the same process too.
    """
    handle = os.open(path, os.O_RDWR | (os.O_CREAT if makes else 0), _PRIVATE)
    try:
        if try_lock(handle):
            return handle
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def try_lock(handle: int, *, shared: bool = False) -> bool:
    """Take the lock of an open file, alone or `shared`; False if another handle is in the way."""
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def share_lock(handle: int) -> None:
    """Hold the lock of an open file shared from now on, waiting for who holds it alone."""
    fcntl.flock(handle, fcntl.LOCK_SH)
