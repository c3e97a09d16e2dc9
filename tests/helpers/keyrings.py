"""What the keyring's tests share: files in memory that remember everything, crashes, a clock, an adversary."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.helpers.memory_root_keys import MemoryRootKeys
from vault.crypto import ggm
from vault.crypto.ggm import Cover
from vault.errors import Destroyed, IntegrityError, Unavailable
from vault.format.codec import pack
from vault.format.keyring import Head, PageRef, decode_head
from vault.ids import TenantId
from vault.keystore import sealing
from vault.keystore.keyring import Keyring
from vault.keystore.replicas import DirectoryReplica, Files
from vault.model import Assurance, Cohort, Coordinate, Finding, Part
from vault.ports.keys import DestroyReceipt, VersionInfo

KEYRING_ID = bytes(range(16))
REPLICAS = (Path("/replica-a"), Path("/replica-b"), Path("/replica-c"))
WIDTH_SECONDS = 86_400.0


class Crash(Exception):
    """The process ends here."""


class CrashPlan:
    """Counts steps that reach a disk or the provider; ends the process at one of them.

    `lost`: the step never happened. `landed`: it happened, and nobody heard. `torn`: half of a file was written.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.at: int | None = None
        self.mode = "lost"
        self.dead = False

    def arm(self, at: int | None, mode: str) -> None:
        self.steps, self.at, self.mode, self.dead = 0, at, mode, False

    def before(self) -> bool:
        """Count a step; returns whether it must not happen (or only half). A dead process takes no step at all."""
        if self.dead:
            raise Crash
        self.steps += 1
        self.dead = self.steps == self.at
        return self.dead and self.mode != "landed"

    def after(self) -> None:
        if self.dead:
            raise Crash


class TestClock:
    __test__ = False

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def advance(self, by: timedelta) -> None:
        self.at += by


class MemoryFiles(Files):
    """Files in memory; `history` keeps every byte that was ever written."""

    def __init__(self, plan: CrashPlan | None = None) -> None:
        self.content: dict[Path, bytes] = {}
        self.directories: set[Path] = set()
        self.history: list[tuple[str, bytes]] = []
        self.locks: set[Path] = set()
        self.lost: set[Path] = set()
        self.plan = plan or CrashPlan()

    def _up(self, path: Path) -> None:
        if not self.lost.isdisjoint(path.parents) or path in self.lost:
            raise Unavailable(f"{path} cannot be used: the disk is gone")

    def _put(self, path: Path, data: bytes) -> None:
        if path.parent not in self.directories:
            raise Unavailable(f"{path} cannot be used")
        self.content[path] = data
        self.history.append((path.parent.name, data))

    def make_directory(self, path: Path) -> None:
        self.directories |= {path, *path.parents}

    def replace(self, path: Path, data: bytes) -> None:
        self._up(path)
        if self.plan.before():
            if self.plan.mode == "torn":
                self._put(path.with_name(f".{path.name}.new"), data[: len(data) // 2])
            raise Crash
        self._put(path, data)
        self.plan.after()

    def unlink(self, path: Path) -> None:
        self._up(path)
        if self.plan.before():
            raise Crash
        self.content.pop(path, None)
        self.plan.after()

    def read(self, path: Path) -> bytes:
        self._up(path)
        try:
            return self.content[path]
        except KeyError:
            raise FileNotFoundError(path) from None

    def names(self, path: Path) -> list[str]:
        self._up(path)
        if path not in self.directories:
            raise FileNotFoundError(path)
        return sorted(each.name for each in self.content if each.parent == path)

    def lock(self, path: Path) -> Callable[[], None] | None:
        self._up(path)
        if path.parent not in self.directories:
            raise FileNotFoundError(path)
        if path in self.locks:
            return None
        self.locks.add(path)
        return lambda: self.locks.discard(path)


class CrashingRootKeys:
    """The memory provider behind the same crash plan; `outage` makes the named operations Unavailable."""

    name = "memory"
    assurance = Assurance.BEST_EFFORT

    def __init__(self, inner: MemoryRootKeys, plan: CrashPlan) -> None:
        self.inner = inner
        self.plan = plan
        self.outage: frozenset[str] = frozenset()
        self.destroyed: list[str] = []

    def _up(self, op: str) -> None:
        if op in self.outage:
            raise Unavailable("the provider is down")

    async def new_version(self, tag: bytes) -> str:
        self._up("new_version")
        if self.plan.before():
            raise Crash
        version = await self.inner.new_version(tag)
        self.plan.after()
        return version

    async def wrap(self, version: str, key: bytes, aad: bytes) -> bytes:
        self._up("wrap")
        return await self.inner.wrap(version, key, aad)

    async def unwrap(self, version: str, blob: bytes, aad: bytes) -> bytes:
        self._up("unwrap")
        return await self.inner.unwrap(version, blob, aad)

    async def destroy(self, version: str) -> DestroyReceipt:
        self._up("destroy")
        if self.plan.before():
            raise Crash
        receipt = await self.inner.destroy(version)
        self.destroyed.append(version)
        self.plan.after()
        return receipt

    async def versions(self) -> Mapping[str, VersionInfo]:
        self._up("versions")
        return await self.inner.versions()

    async def self_check(self) -> Sequence[Finding]:
        return await self.inner.self_check()


class World:
    """One keyring with everything around it that outlives a process."""

    def __init__(
        self, keyring_class: type[Keyring] = Keyring, *, seed: int = 0, replicas: Sequence[Path] = REPLICAS
    ) -> None:
        self.replicas = replicas
        self.plan = CrashPlan()
        self.clock = TestClock()
        self.files = MemoryFiles(self.plan)
        self.entropy = random.Random(seed).randbytes
        self.provider = CrashingRootKeys(MemoryRootKeys(clock=self.clock, entropy=self.entropy), self.plan)
        self.keyring_class = keyring_class

    async def create(self, *, trial: bool = False) -> None:
        await self.keyring_class.create(
            self.stores(),
            self.provider,
            keyring_id=KEYRING_ID,
            cohort_width_seconds=WIDTH_SECONDS,
            trial=trial,
            entropy=self.entropy,
        )

    def stores(self) -> list[DirectoryReplica]:
        return [DirectoryReplica(path, files=self.files, wait_seconds=0) for path in self.replicas]

    async def open(self) -> Keyring:
        """Start a new process: the old one's locks went with it."""
        self.files.locks.clear()
        self.plan.arm(None, "lost")
        return await self.start()

    async def start(self) -> Keyring:
        """Start a process beside those that live."""
        return await self.keyring_class.open(self.stores(), self.provider, clock=self.clock, entropy=self.entropy)


class Adversary:
    """Holds every byte ever written by the keyring, and whatever root versions are live: opens all it can.

    Every blob is tried under every secret and at every place, whatever it claims to be; each trial runs once.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._read = 0
        self._blobs: list[bytes] = []
        self._heads: dict[tuple[int, int, int], set[Head]] = {}
        self._tried: dict[tuple[object, ...], Any] = {}

    async def covers(self) -> list[tuple[Cohort, Cover]]:
        """Return every cover that opens today."""
        for directory, data in self._world.files.history[self._read :]:
            if directory in ("index", "pages"):
                self._blobs.append(data)
            else:
                self._note(data)
        self._read = len(self._world.files.history)
        refs: set[PageRef] = set()
        for heads in self._heads.values():
            for secret in await self._secrets(heads):
                refs |= self._refs(secret, next(iter(heads)))
        return [found for ref in refs for found in self._pages(ref)]

    def _note(self, data: bytes) -> None:
        try:
            head, _ = decode_head(data)
        except IntegrityError:
            return
        self._heads.setdefault(head.rank, set()).add(head)

    async def _secrets(self, heads: set[Head]) -> set[bytes]:
        found: set[bytes] = set()
        provider = self._world.provider.inner
        for wrapped, epoch in {(head.wrapped, head.epoch) for head in heads}:
            for version in await provider.versions():
                try:
                    found.add(await provider.unwrap(version, wrapped, sealing.wrap_aad(KEYRING_ID, epoch)))
                except (Destroyed, IntegrityError):
                    continue
        return found

    def _refs(self, secret: bytes, head: Head) -> set[PageRef]:
        found: set[PageRef] = set()
        for number, blob in enumerate(self._blobs):
            trial = (secret, head.rank, number)
            if trial not in self._tried:
                try:
                    self._tried[trial] = frozenset(sealing.open_index(secret, head, blob).pages)
                except IntegrityError:
                    self._tried[trial] = frozenset()
            found |= self._tried[trial]
        return found

    def _pages(self, ref: PageRef) -> list[tuple[Cohort, Cover]]:
        found: list[tuple[Cohort, Cover]] = []
        for number, blob in enumerate(self._blobs):
            trial = (ref.key, ref.tenant, number)
            if trial not in self._tried:
                try:
                    page = sealing.open_page(ref.key, KEYRING_ID, ref.tenant, blob)
                    self._tried[trial] = [(cohort, Cover.of(nodes)) for cohort, nodes in page.cohorts.items()]
                except IntegrityError:
                    self._tried[trial] = []
            found += self._tried[trial]
        return found


def opens(covers: Sequence[tuple[Cohort, Cover]], coordinate: Coordinate) -> bool:
    return any(cohort == coordinate.cohort and ggm.derives(cover, coordinate.leaf) for cohort, cover in covers)


def audio(period: int, *, tenant: str = "acme", generation: int = 0) -> Cohort:
    return Cohort(tenant=TenantId(tenant), part=Part.AUDIO, period=period, generation=generation)


def at(cohort: Cohort, leaf: int) -> Coordinate:
    return Coordinate(cohort=cohort, leaf=leaf)


def fingerprint(world: World) -> bytes:
    """Return all that is on the disks and at the provider, to tell that nothing was changed."""
    files = {str(path): data for path, data in world.files.content.items()}
    return pack({"files": files, "destroyed": world.provider.destroyed})
