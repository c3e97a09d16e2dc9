"""Files that commands write: complete or absent, never overwriting, private where they hold personal data."""

from __future__ import annotations

import base64
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final
from uuid import uuid4

import typer

from cli.client import Client, segment
from vault import disk
from vault.errors import Invalid, Refused, Tampered, size_text

# -- whole files --------------------------------------------------------------------------------------------------

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
        raise Invalid(f"{what} {path} is too large")
    return data


@contextmanager
def repeated_lines(path: Path, *, what: str, limit_bytes: int) -> Iterator[Callable[[], Iterator[bytes]]]:
    """Yield a function that reads the lines of a file, each time from the start, one at a time.

    What cannot be read twice, such as a pipe, is copied to a temporary file first. Invalid names the input that cannot
    be read, or has a line of more than `limit_bytes`.
    """
    with ExitStack() as stack:
        try:
            file: BinaryIO = stack.enter_context(path.open("rb"))
            if not file.seekable():
                copy = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(file, copy)
                file = copy
        except OSError as error:
            raise Invalid(f"{what} {path} cannot be read: {error.strerror}") from error

        def lines() -> Iterator[bytes]:
            try:
                file.seek(0)
                while line := file.readline(limit_bytes + 1):
                    if len(line) > limit_bytes:
                        raise Invalid(f"{what} {path} has a line of more than {size_text(limit_bytes)}")
                    yield line
            except OSError as error:
                raise Invalid(f"{what} {path} cannot be read: {error.strerror}") from error

        yield lines


# -- downloads of audio -------------------------------------------------------------------------------------------

CHUNK_BYTES: Final = 1 << 16
_DIGEST: Final = "sha-256=:"
Shape = Annotated[str, typer.Option("--format", help="wav to listen, raw for the stored bytes.")]


def check_shape(shape: str) -> None:
    """Raise Invalid unless audio comes in this shape."""
    if shape not in {"wav", "raw"}:
        raise Invalid("--format must be wav or raw")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The result of a download. `content_type` includes its parameters."""

    size: int
    sha256: str
    content_type: str
    media_type: str
    state: str | None


async def fetch(
    client: Client,
    recording: str,
    file: BinaryIO,
    *,
    purpose: str,
    shape: str,
    begun: Callable[[int | None], None] = lambda _: None,
    moved: Callable[[int], None] = lambda _: None,
) -> Fetched:
    """Write a recording's audio to `file` and return what was written; `begun` is called with the expected size.

    Truncated if the answer breaks off, Tampered if it does not have the stated hash; the file is then incomplete or
    wrong.
    """
    digest, size = hashlib.sha256(), 0
    async with client.request(
        "GET",
        f"/v1/recordings/{segment(recording)}/audio",
        params={"format": shape},
        headers={"Purpose": purpose},
    ) as response:
        begun(response.content_length)
        async for piece in response.content.iter_chunked(CHUNK_BYTES):
            file.write(piece)
            digest.update(piece)
            size += len(piece)
            moved(len(piece))
        headers = response.headers
        stated = headers.get("Repr-Digest", "")
        if stated.startswith(_DIGEST) and stated != _DIGEST + base64.b64encode(digest.digest()).decode() + ":":
            raise Tampered("the received audio is not the vault's: its SHA-256 differs", hint="try once more")
        return Fetched(
            size=size,
            sha256=digest.hexdigest(),
            content_type=headers.get("Content-Type", "application/octet-stream"),
            media_type=response.content_type,
            state=headers.get("Recording-State"),
        )
