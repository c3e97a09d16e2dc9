"""Sends the files of an archive, a few at a time and each once; call keys show which files the vault has already."""

from __future__ import annotations

import asyncio
import enum
import hashlib
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import typer

from cli.archives.plan import Item, LeftOut, Why
from cli.archives.tables import headers_of
from cli.client import Client, ServerFault, segment
from cli.output import Output
from vault.errors import (
    Conflict,
    Forbidden,
    NotFound,
    OffsetMismatch,
    Refused,
    TooLarge,
    Truncated,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
    UploadStalled,
    VaultError,
)
from vault.ids import call_keys
from vault.model import RecordingState
from vault.threads import in_thread

# -- parallel work ------------------------------------------------------------------------------------------------

Thing = TypeVar("Thing")
Answer = TypeVar("Answer")
MOST_AT_ONCE: Final = 32
_AWAY: Final = 5
"""The work ends after this many items in a row were Unavailable."""
_BROKEN_OFF: Final = 2
_PATIENCE: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Pauses in seconds between attempts while the vault is unavailable."""


class ParallelWork:
    """Handles items, `parallel` at a time. `error` is the failure that ended the work early."""

    def __init__(self, parallel: int) -> None:
        self._parallel = parallel
        self._stopped = False
        self._in_a_row = 0
        self.error: VaultError | None = None

    async def run(self, things: Iterable[Thing], handle: Callable[[Thing], Awaitable[None]]) -> None:
        """Handle each item once. After a VaultError of `handle`, items under way are finished and no more are begun.

        Unavailable may concern one item only, such as a call on another node. The others are then handled, unless so
        many in a row are Unavailable that the vault must be away.
        """
        waiting = iter(things)

        async def take() -> None:
            for thing in waiting:
                if self._stopped:
                    return
                try:
                    await handle(thing)
                    self._in_a_row = 0
                except VaultError as error:
                    self.error = self.error or error
                    self._in_a_row += 1
                    self._stopped |= not isinstance(error, Unavailable) or self._in_a_row >= _AWAY

        with self._interruptible():
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._parallel):
                    tasks.create_task(take())

    def finish(self, out: Output, not_tried: int) -> None:
        """Raise the error that ended the work early, if there is one."""
        words = f"{not_tried} files were not tried: run it again, it continues where it stopped"
        if self.error is not None:
            self.error.hint = words
            raise self.error
        if not_tried:
            out.note(f"interrupted; {words}")
            raise typer.Abort

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Begin no further item after the first Ctrl-C; the second one cancels the items under way."""
        if threading.current_thread() is not threading.main_thread():
            yield  # outside the main thread signals cannot be handled
            return
        loop = asyncio.get_running_loop()

        def stop() -> None:
            self._stopped = True
            loop.remove_signal_handler(signal.SIGINT)

        loop.add_signal_handler(signal.SIGINT, stop)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)


async def with_retries(attempt: Callable[[], Awaitable[Answer]]) -> Answer:
    """Return an attempt's result, repeated while the vault is unavailable; Unavailable after about a minute.

    An answer that breaks off is requested only twice more: it may do so at bytes that fail verification.
    """
    for number, pause in enumerate(_PATIENCE):
        try:
            return await attempt()
        except Truncated:
            if number >= _BROKEN_OFF:
                raise
        except (Unavailable, UploadStalled):
            pass
        await asyncio.sleep(pause)
    return await attempt()


# -- sending ------------------------------------------------------------------------------------------------------

_CHUNK_BYTES: Final = 1 << 18
_WAITS: Final = (0.2, 1.0, 2.0, 4.0)
"""Pauses in seconds while the connection of an earlier import is still being closed."""
_TAKEN: Final = (Why.CALL_KEY, "the vault has another recording with this call key")
_REFUSALS: Final[Mapping[type[VaultError], Why]] = {TooLarge: Why.TOO_LARGE, UnsupportedMedia: Why.UNKNOWN_TYPE}
_GONE: Final = frozenset({RecordingState.SHREDDING.value, RecordingState.SHREDDED.value})


class Outcome(enum.StrEnum):
    """The result for a file."""

    IMPORTED = "imported"
    THERE = "already there"
    WOULD = "would be imported"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A file that the vault has, or would get. `beside` is a truncated recording that an interrupted import left.

    `kept_until` is the vault's date for what it had before.
    """

    item: Item
    outcome: Outcome
    recording: str | None
    sha256: str
    beside: str | None = None
    kept_until: str | None = None


class Place(enum.Enum):
    """The state of a call key in the vault, compared with one file."""

    FREE = enum.auto()
    OPEN = enum.auto()
    SAME = enum.auto()
    BEGINNING = enum.auto()
    """Only the beginning of the file, in a truncated recording."""
    OTHER = enum.auto()
    GONE = enum.auto()


class _Found(NamedTuple):
    """What is stored, the recording's id and its end of retention."""

    place: Place
    recording: str
    kept_until: str | None = None


class Sender:
    """Sends files to one tenant. `moved` gets the bytes done, and as a negative number those to be sent again."""

    def __init__(self, client: Client, tenant: str, *, moved: Callable[[int], None], dry_run: bool) -> None:
        self._client = client
        self._tenant = tenant
        self._moved = moved
        self._dry_run = dry_run

    async def group(self, items: Sequence[Item]) -> AsyncIterator[Done | LeftOut]:
        """Import the recordings of one call, one after the other, and yield the result of each.

        Recordings of one call key are stored under `key`, `key~2` and so on, in their order. Their hashes tell which of
        them the vault has, so a table in another order gives the same result.
        """
        taken: set[str] = set()
        for item in items:
            try:
                done = await self._one(item, taken, alone=len(items) == 1)
            except (Unauthenticated, Forbidden):
                raise
            except OSError as error:
                done = _left(item, Why.UNREADABLE, error.strerror or "")
            except (Refused, ServerFault) as error:
                done = _left(item, _REFUSALS.get(type(error), Why.REFUSED), error.message)
            if not (isinstance(done, Done) and done.outcome is Outcome.IMPORTED):
                self._moved(item.size)
            yield done

    async def _one(self, item: Item, taken: set[str], *, alone: bool) -> Done | LeftOut:
        sha256 = await hashed(item.path)
        if item.stated.sha256 not in {None, sha256}:
            return _left(item, Why.HASH_DIFFERS, "the file does not have the sha256 that the table states")
        passed: list[_Found] = []
        for key in call_keys(item.key):
            found = await with_retries(partial(self._look, key, item, sha256))
            if found.place in {Place.FREE, Place.OPEN}:
                why, more = _denied({each.place for each in passed}, alone=alone)
                sent = _left(item, why, more) if why else await self._sent(key, item, sha256)
            elif found.place is Place.SAME and found.recording in taken:
                sent = _left(item, Why.DUPLICATE, "the same audio under the same call key")
            elif found.place is Place.SAME:
                known = Done(item=item, outcome=Outcome.THERE, recording=found.recording, sha256=sha256)
                sent = replace(known, kept_until=found.kept_until)
            else:
                sent = None
            if isinstance(sent, Done):
                taken.add(sent.recording or "")
                return replace(sent, beside=_beginning(passed))
            if sent is not None:
                return sent
            passed.append(found._replace(place=Place.OTHER) if found.place in {Place.FREE, Place.OPEN} else found)
        return _left(item, *_TAKEN)

    async def _look(self, key: str, item: Item, sha256: str) -> _Found:
        """Return what is stored under a call key, compared with the file by its hash."""
        address = self._address(key)
        try:
            async with self._client.request("HEAD", address) as answer:
                state, recording = answer.headers["Recording-State"], answer.headers["Recording-Id"]
                durable = int(answer.headers["Upload-Offset"])
                kept_until = answer.headers.get("Recording-Kept-Until")
        except NotFound:
            return _Found(Place.FREE, "")
        place = _seen(state, durable, item.size)
        if place is not None:
            return _Found(place, recording)
        # Nothing is sent after the end of a finished recording: the answer repeats its receipt.
        _, receipt = await self._put(key, item, start=durable)
        same = sha256 if durable == item.size else await hashed(item.path, durable)
        if receipt["sha256"] != same:
            return _Found(Place.OTHER, recording)
        return _Found(Place.SAME if durable == item.size else Place.BEGINNING, recording, kept_until)

    async def _sent(self, key: str, item: Item, sha256: str) -> Done | LeftOut | None:
        """Send the file under a call key; None if another recording has the key.

        The vault compares what an earlier import left of it, and continues after that.
        """
        if self._dry_run:
            return Done(item=item, outcome=Outcome.WOULD, recording=None, sha256=sha256)
        for pause in (*_WAITS, None):
            try:
                status, receipt = await with_retries(partial(self._put, key, item))
                break
            except OffsetMismatch:
                return None
            except Conflict:
                place = (await with_retries(partial(self._look, key, item, sha256))).place
                if place is Place.FREE:
                    raise  # the call key is not the reason
                if pause is None or place is not Place.OPEN:
                    return None
                await asyncio.sleep(pause)
        if receipt["bytes"] != item.size or receipt["sha256"] not in {None, sha256}:
            return _left(item, Why.HASH_DIFFERS, f"it changed while it was sent: see {receipt['recording_id']}")
        done = Done(item=item, outcome=Outcome.IMPORTED, recording=receipt["recording_id"], sha256=sha256)
        if status == HTTPStatus.CREATED:
            return done
        found = await with_retries(partial(self._look, key, item, sha256))
        return replace(done, outcome=Outcome.THERE, kept_until=found.kept_until)

    async def _put(self, key: str, item: Item, *, start: int = 0) -> tuple[int, dict[str, Any]]:
        """Send the file from byte `start` on; return the status and the receipt of the whole recording."""
        headers = {
            "Content-Type": item.media_type,
            "Content-Length": "0" if start else str(item.size),
            **headers_of(item.stated),
            **({"Upload-Offset": str(start)} if start else {}),
        }
        moved = 0

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal moved
            file = await in_thread(item.path.open, "rb")
            with file:
                while piece := await in_thread(file.read, _CHUNK_BYTES):
                    yield piece
                    moved += len(piece)
                    self._moved(len(piece))

        try:
            async with self._client.request(
                "PUT", self._address(key), headers=headers, data=None if start else pieces()
            ) as answer:
                return answer.status, dict(await answer.json())
        except BaseException:
            self._moved(-moved)
            raise

    def _address(self, key: str) -> str:
        return f"/v1/ingest/{segment(self._tenant)}/{segment(key)}"


async def hashed(path: Path, length: int | None = None) -> str:
    """Return the SHA-256 of a file, or of its first `length` bytes. OSError."""

    def read() -> str:
        digest, left = hashlib.sha256(), length
        with path.open("rb") as file:
            while piece := file.read(_CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left)):
                digest.update(piece)
                left = None if left is None else left - len(piece)
        return digest.hexdigest()

    return await in_thread(read)


def _seen(state: str, durable: int, size: int) -> Place | None:
    """Compare a recording's length with a file's; None if only their hashes can tell."""
    if state in _GONE:
        return Place.GONE
    if state == RecordingState.OPEN.value:
        return Place.OPEN
    if durable > size or (durable < size and state != RecordingState.TRUNCATED.value):
        return Place.OTHER
    return None if durable else Place.BEGINNING


def _denied(passed: Collection[Place], *, alone: bool) -> tuple[Why | None, str]:
    """Return why a file is not sent to the first free key of its call, from what the earlier keys have."""
    if Place.GONE in passed:
        return Why.SHREDDED, "its call was in the vault, and its retention has ended"
    return _TAKEN if alone and Place.OTHER in passed else (None, "")


def _beginning(passed: Sequence[_Found]) -> str | None:
    return next((found.recording for found in passed if found.place is Place.BEGINNING), None)


def _left(item: Item, why: Why, more: str) -> LeftOut:
    return LeftOut(name=item.name, line=item.stated.line, why=why, more=more)
