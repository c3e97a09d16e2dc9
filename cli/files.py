"""Files that commands write: complete or absent, never overwriting, private where they hold personal data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from vault import disk
from vault.errors import Invalid, Refused

STDOUT = "-"


@contextmanager
def whole_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """Yield a new file that gets its name once everything is written; a failure leaves nothing behind.

    Readable by its owner only. Refused if `path` exists and `force` is not given.
    """
    if path.exists() and not force:
        raise Refused(f"{path} exists; nothing was written", hint="choose another name, or pass --force")
    try:
        with disk.whole_file(path, mark=f"{uuid4().hex}.partial") as file:
            yield file
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}") from error


@contextmanager
def destination(name: str, *, force: bool) -> Iterator[BinaryIO]:
    """Yield the file called `name`, or standard output for `-`; audio is not written to a terminal."""
    if name != STDOUT:
        with whole_file(Path(name), force=force) as file:
            yield file
        return
    if sys.stdout.isatty():
        raise Invalid("a terminal cannot play this", hint="pass -o FILE, or pipe it into a player")
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


def read_file(path: Path, *, what: str, limit_bytes: int = 64 << 20) -> bytes:
    """Return a file's bytes; Invalid names the input that cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise Invalid(f"{what} {path} cannot be read: {error.strerror}") from error
    if len(data) > limit_bytes:
        raise Invalid(f"{what} {path} is too large to be one")
    return data
