"""The keyring's replicas: complete copies of each other, of which a majority decides; replicas in directories.

Of N replicas a write needs W = N // 2 + 1 and a read N - W + 1, so that every read meets every acknowledged write. One
replica of three may be lost at any step. A write that reached a minority and was never acknowledged is outranked by the
fence of the next writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vault.disk import answering, lock_file, make_directories, sync_directory, write_at, write_whole
from vault.errors import ConfigError, FormatError, IntegrityError, Tampered, Unavailable, VaultError
from vault.format.keyring import HEAD, INDEX, MARKER, PAGES, decode_head, decode_marker
from vault.model import Finding
from vault.ports.keys import KeyringStore
from vault.threads import acquire, in_thread

# -- files of one directory ---------------------------------------------------------------------------------------


class Files:
    """Blocking operations on real files; tests replace it to crash before and after each of them.

    The effect of a method is on the disk when it returns: file and directory are synchronised. Failures are Unavailable
    or DiskFull. A missing file is FileNotFoundError only where the docstring says so.
    """

    def make_directory(self, path: Path) -> None:
        """Create `path` (mode 0700) and its parents; an existing one stays as it is."""
        with _answering(path):
            make_directories(path)

    def replace(self, path: Path, data: bytes) -> None:
        """Make `data` the content of `path` in one step: a crash leaves the complete old or new content."""
        with _answering(path):
            write_whole(path, data)

    def overwrite(self, path: Path, offset: int, data: bytes) -> None:
        """Write `data` over existing bytes and wait until the disk has it; FileNotFoundError if there is no file."""
        with _answering(path, absence=True), path.open("r+b", buffering=0) as file:
            write_at(file.fileno(), data, offset)
            os.fdatasync(file.fileno())

    def unlink(self, path: Path) -> None:
        """Remove `path`; one that is absent is fine."""
        with _answering(path), contextlib.suppress(FileNotFoundError):
            path.unlink()
            sync_directory(path.parent)

    def read(self, path: Path) -> bytes:
        """Return the content of `path`; FileNotFoundError if there is none."""
        with _answering(path, absence=True):
            return path.read_bytes()

    def names(self, path: Path) -> list[str]:
        """Return the names in directory `path`, sorted; FileNotFoundError if there is none."""
        with _answering(path, absence=True):
            return sorted(os.listdir(path))  # noqa: PTH208 - names are wanted, not paths

    def lock(self, path: Path) -> Callable[[], None] | None:
        """Take the exclusive lock on `path` and return a function that releases it; None if another process holds it.

        FileNotFoundError if its directory is missing. The kernel drops the lock with its process, so a killed server
        never locks its successor out.
        """
        with _answering(path, absence=True):
            handle = lock_file(path)
        return None if handle is None else lambda: os.close(handle)


def _release(unlock: Callable[[], None] | None) -> None:
    if unlock is not None:
        unlock()


def _answering(path: Path, *, absence: bool = False) -> contextlib.AbstractContextManager[None]:
    return answering(full=f"no room left for {path}", failed=f"{path} cannot be used", absence=absence)


# -- a replica in a directory -------------------------------------------------------------------------------------

LOCK: Final = "LOCK"
_WAIT_SECONDS: Final = 15.0
_STEP_SECONDS: Final = 0.01


class DirectoryReplica:
    """Implements `vault.ports.keys.KeyringStore` on a directory of this machine."""

    def __init__(self, path: Path, *, files: Files | None = None, wait_seconds: float = _WAIT_SECONDS) -> None:
        self.name = str(path)
        self.path = path
        self._files = files or Files()
        self._tries = max(round(wait_seconds / _STEP_SECONDS), 1)

    async def initialise(self) -> bool:
        """Make the directories; False if one of them has a file other than a lock."""
        return await in_thread(self._initialise)

    def _initialise(self) -> bool:
        for path in (self.path, self.path / INDEX, self.path / PAGES):
            self._files.make_directory(path)
        found = {*self._files.names(self.path)} - {LOCK, INDEX, PAGES}
        return not (found or self._files.names(self.path / INDEX) or self._files.names(self.path / PAGES))

    async def read(self, names: Sequence[str]) -> Mapping[str, bytes | None]:
        """Return the files' contents; a missing directory is a missing file."""
        return await in_thread(self._read, names)

    def _read(self, names: Sequence[str]) -> Mapping[str, bytes | None]:
        return {name: self._read_one(name) for name in names}

    def _read_one(self, name: str) -> bytes | None:
        try:
            return self._files.read(self.path / name)
        except FileNotFoundError:
            return None

    async def write(self, blobs: Mapping[str, bytes]) -> None:
        """Replace each file in one step."""
        await in_thread(self._write, blobs)

    def _write(self, blobs: Mapping[str, bytes]) -> None:
        for name, data in blobs.items():
            # The empty mount point of an unmounted disk has no directories for blobs, so this never fills it.
            self._files.replace(self.path / name, data)

    async def swap(self, expected: bytes | None, head: bytes) -> bool:
        """Compare and replace; `exclusive` keeps other writers out between the two."""
        return await in_thread(self._swap, expected, head)

    def _swap(self, expected: bytes | None, head: bytes) -> bool:
        if self._read_one(HEAD) != expected:
            return False
        self._files.replace(self.path / HEAD, head)
        return True

    async def remove(self, names: Sequence[str]) -> None:
        """Unlink the files."""
        await in_thread(self._remove, names)

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            self._files.unlink(self.path / name)

    async def names(self) -> AbstractSet[str]:
        """Return the names in the two blob directories, with those of unfinished files, which belong to no head."""
        return await in_thread(self._names)

    def _names(self) -> AbstractSet[str]:
        try:
            return {f"{each}/{name}" for each in (INDEX, PAGES) for name in self._files.names(self.path / each)}
        except FileNotFoundError as error:
            raise Unavailable(f"the keyring replica {self.name} is incomplete or not mounted") from error

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Hold the replica's lock file; Unavailable if another process holds it longer than `wait_seconds`."""
        unlock = await self._lock()
        try:
            yield
        finally:
            unlock()

    async def _lock(self) -> Callable[[], None]:
        for attempt in range(self._tries):
            if attempt:
                await asyncio.sleep(_STEP_SECONDS)
            try:
                unlock = await acquire(_release, self._files.lock, self.path / LOCK)
            except FileNotFoundError as error:
                raise Unavailable(f"the keyring replica {self.name} is not mounted or lost") from error
            if unlock is not None:
                return unlock
        raise Unavailable(
            f"another process has used the keyring replica {self.name} for too long; nothing was changed",
            hint="see which process holds it: fuser -v on its LOCK file",
        )

    async def check(self) -> Sequence[Finding]:
        """Return no findings: a directory reports nothing about its disk."""
        return ()

    async def close(self) -> None:
        """Do nothing; no file stays open."""


# -- all replicas, and their majority -----------------------------------------------------------------------------

_LOG: Final = logging.getLogger(__name__)

Blobs = Mapping[str, bytes]
"""Name (`index/…` or `pages/…`) to content, or to its SHA-256."""

Rank = tuple[int, int, int]
"""Fence, epoch, revision."""

NO_RANK: Final[Rank] = (-1, -1, -1)


def rank_of(head: bytes | None) -> Rank:
    """Return the rank that a head states; a head that is missing or does not parse ranks lowest."""
    if head is None:
        return NO_RANK
    try:
        return decode_head(head)[0].rank
    except IntegrityError:
        return NO_RANK


def matches(data: bytes | None, sha256: bytes) -> bool:
    """Tell whether a blob is present and has the hash."""
    return data is not None and hmac.compare_digest(hashlib.sha256(data).digest(), sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The result of reading every replica: the heads of those that answered, and the errors of the others."""

    keyring: bytes
    heads: Mapping[KeyringStore, bytes | None]
    out: Mapping[KeyringStore, VaultError]

    def newest(self) -> Sequence[bytes]:
        """Return the different heads, highest rank first."""
        return sorted({head for head in self.heads.values() if head is not None}, key=rank_of, reverse=True)

    def holding(self, head: bytes) -> int:
        """Return how many replicas have this head."""
        return sum(found == head for found in self.heads.values())


class Replicas:
    """All replicas of one keyring, in a fixed order."""

    def __init__(self, stores: Sequence[KeyringStore]) -> None:
        if not stores:
            raise ConfigError("keyring.replicas is empty", hint="name three directories on different disks, or buckets")
        if len({store.name for store in stores}) != len(stores):
            raise ConfigError("keyring.replicas names one replica twice")
        self.stores = tuple(stores)
        self.seen: Mapping[KeyringStore, bytes | None] = {}
        """The heads of the replicas that answered the latest look, even if they were too few."""
        self.write_quorum = len(stores) // 2 + 1
        self.read_quorum = len(stores) - self.write_quorum + 1

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Lock the replicas that can be reached against other writers; Unavailable if a write needs more of them."""
        async with AsyncExitStack() as stack:
            held = 0
            reason: Unavailable | None = None
            for store in self.stores:
                try:
                    await stack.enter_async_context(store.exclusive())
                    held += 1
                except Unavailable as error:
                    reason = error
            if held < self.write_quorum:
                raise self._too_few(held, self.write_quorum, "be locked", reason)
            yield

    async def survey(self) -> Survey:
        """Look at all markers and heads.

        ConfigError if replicas of different keyrings are configured, or too few places are replicas at all;
        Unavailable if too few of them answer for a read.
        """
        heads: dict[KeyringStore, bytes | None] = {}
        out: dict[KeyringStore, VaultError] = {}
        markers: dict[KeyringStore, bytes] = {}
        for store in self.stores:
            try:
                markers[store], heads[store] = await self._look(store)
            except (Unavailable, ConfigError) as error:
                out[store] = error
        self.seen = heads
        if len(heads) < self.read_quorum:
            raise self._unreadable(len(heads), out)
        first, keyring = next(iter(markers.items()))
        for store, other in markers.items():
            if other != keyring:
                raise ConfigError(
                    f"the replicas {first.name} and {store.name} belong to different keyrings; nothing was changed",
                    hint="move the wrong one away, then run `callvault keys repair` with its name",
                )
        return Survey(keyring=keyring, heads=heads, out=out)

    async def _look(self, store: KeyringStore) -> tuple[bytes, bytes | None]:
        found = await store.read((MARKER, HEAD))
        return marker_of(store, found[MARKER]), found[HEAD]

    def _unreadable(self, answering: int, out: Mapping[KeyringStore, VaultError]) -> VaultError:
        for error in out.values():
            if isinstance(error, ConfigError):
                return error
        return self._too_few(answering, self.read_quorum, "be read", next(iter(out.values())))

    def _too_few(self, found: int, needed: int, verb: str, reason: VaultError | None) -> Unavailable:
        error = Unavailable(
            f"{found} of the keyring's {len(self.stores)} replicas can {verb}, {needed} must"
            + (f" ({reason.message})" if reason else "; nothing is known to be lost"),
            hint="make the others available, or refill lost ones: callvault keys repair",
        )
        error.__cause__ = reason
        return error

    def round(self, stores: Sequence[KeyringStore]) -> Round:
        """Begin an act's writing on these replicas."""
        return Round(stores, self.write_quorum)

    async def mend(self, survey: Survey, head: bytes, blobs: Blobs, *, thorough: bool) -> Round:
        """Bring the replicas that answered to `head`, whose blobs have these hashes; return those that have it now.

        Blobs are written first: after a crash, a head without its blobs would not open. Unless `thorough`, a replica
        with the right head is assumed to have its blobs.
        """
        mending = self.round(list(survey.heads))

        async def mend_one(store: KeyringStore) -> None:
            found = survey.heads[store]
            if found == head and not thorough:
                return
            present = await store.read(list(blobs))
            missing = {name: sha256 for name, sha256 in blobs.items() if not matches(present[name], sha256)}
            if missing:
                await store.write(await gather_blobs(missing, self.stores))
            if found != head and not await store.swap(found, head):
                raise Unavailable(f"the head of the keyring replica {store.name} changed while it was mended")
            if missing or found != head:
                _LOG.warning("keyring replica repaired", extra={"fields": {"replica": store.name}})

        await mending.each(mend_one)
        return mending

    async def close(self) -> None:
        """Release every replica."""
        for store in self.stores:
            await store.close()


class Round:
    """The replicas of one act. A replica that misses a step takes part in no further step; a quorum must remain."""

    def __init__(self, stores: Sequence[KeyringStore], needed: int) -> None:
        self.stores = list(stores)
        self._needed = needed
        self._reason: VaultError | None = None

    def lose(self, store: KeyringStore, error: VaultError) -> None:
        """Continue without `store`; raise its error if that leaves too few replicas."""
        self.stores.remove(store)
        self._reason = error
        _LOG.warning("keyring replica left out", extra={"fields": {"replica": store.name, "reason": error.message}})
        if len(self.stores) < self._needed:
            raise error

    def require_quorum(self) -> None:
        """Raise Unavailable unless enough replicas are left."""
        if len(self.stores) < self._needed:
            raise self._reason or Unavailable("too few keyring replicas can be reached for a write")

    async def each(self, step: Callable[[KeyringStore], Awaitable[None]]) -> None:
        """Take one step on each replica in turn."""
        self.require_quorum()
        for store in tuple(self.stores):
            try:
                await step(store)
            except (Unavailable, ConfigError) as error:
                self.lose(store, error)

    async def write(self, blobs: Blobs) -> None:
        """Make new blobs durable."""
        await self.each(lambda store: store.write(blobs))

    async def swap(self, expected: bytes, head: bytes) -> None:
        """Exchange the heads; Unavailable if too many replicas hold another head than the one this writer left."""

        async def swap_one(store: KeyringStore) -> None:
            if not await store.swap(expected, head):
                raise Unavailable(f"the head of the keyring replica {store.name} is not the one this writer left there")

        await self.each(swap_one)

    async def require_heads(self, head: bytes) -> None:
        """Read the heads back; Unavailable if too few replicas hold this one."""

        async def read_back(store: KeyringStore) -> None:
            if (await store.read((HEAD,)))[HEAD] != head:
                raise Unavailable(f"the head of the keyring replica {store.name} does not read back as written")

        await self.each(read_back)


async def gather_blobs(blobs: Blobs, stores: Sequence[KeyringStore]) -> dict[str, bytes]:
    """Return for each blob the first copy with its hash.

    Tampered if no replica has one, Unavailable if only a replica that does not answer could have it.
    """
    wanted = dict(blobs)
    found: dict[str, bytes] = {}
    outage: Unavailable | None = None
    for store in stores:
        if not wanted:
            break
        try:
            present = await store.read(list(wanted))
        except Unavailable as error:
            outage = error
            continue
        for name, data in present.items():
            if data is not None and matches(data, wanted[name]):
                found[name] = data
                del wanted[name]
    if wanted and outage is not None:
        raise outage
    if wanted:
        raise Tampered("a part of the keyring is missing or changed on every replica that was read")
    return found


def marker_of(store: KeyringStore, data: bytes | None) -> bytes:
    """Return the keyring id in a replica's marker; ConfigError.

    A place without a marker is an unmounted disk or a wrong path. Filling it would hide that, and reading it as empty
    would look like a deletion of all recordings.
    """
    if data is None:
        raise ConfigError(
            f"{store.name} is not a keyring replica: it is not mounted, or has no {MARKER} file; nothing was changed",
            hint=f"mount it; if it is lost, run `callvault keys repair {store.name}` to refill it from the others",
        )
    try:
        return decode_marker(data)
    except FormatError as error:
        raise ConfigError(
            f"the marker of the keyring replica {store.name} is damaged; nothing was changed",
            hint="move its files away, then run `callvault keys repair` with its name",
        ) from error
