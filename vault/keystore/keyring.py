"""The keyring: the covers and pins of all tenants. Only its current version can be opened.

docs/format.md ("Keyring") has its bytes, docs/crash-order.md its order of writes.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from typing import ClassVar, Final

from vault.crypto import ggm, spans
from vault.crypto.spans import Span
from vault.errors import ConfigError, IntegrityError, Shredded, TooLate, Unavailable
from vault.ids import TenantId
from vault.keystore import recovery
from vault.keystore import state as states
from vault.keystore.engine import Engine
from vault.keystore.replicas import Rank, Replicas
from vault.keystore.root.common import MeteredRootKeys
from vault.keystore.state import Page, State
from vault.model import Cohort, Coordinate, DataKey, Finding, Part, Pin, ShredPlan, ShredReceipt
from vault.ports.keys import KeyringStatus, KeyringStore, RootKeyProvider
from vault.ports.time import Clock, Entropy
from vault.telemetry import Metrics
from vault.threads import in_thread

_LOG: Final = logging.getLogger(__name__)
LONGEST_LEASE: Final = timedelta(seconds=15)
_LOOKS_PER_LEASE: Final = 3
_PINS_AT_ONCE: Final = 100_000
_WHOLE: Final[Span] = (0, (1 << ggm.DEPTH) - 1)

Guard = Callable[[], AbstractAsyncContextManager[object]]
"""Keeps out writers on other machines; directory replicas have locks of their own."""

Written = Callable[[Rank], Awaitable[None]]
"""Gets the keyring's rank after a writer section, before the next writer begins."""


class Keyring:
    """This process's view of the keyring: a state under a lease, and one writer at a time."""

    engine_class: ClassVar[type[Engine]] = Engine

    def __init__(self, *, engine: Engine, replicas: Replicas, guard: Guard) -> None:
        self._engine = engine
        self._replicas = replicas
        self._guard = guard
        self._turn = asyncio.Lock()
        self._closed = False
        self._told: Rank | None = None
        self._written: Written | None = None

    @staticmethod
    async def create(
        replicas: Sequence[KeyringStore],
        provider: RootKeyProvider,
        *,
        keyring_id: bytes,
        cohort_width_seconds: float,
        lease: timedelta = LONGEST_LEASE,
        trial: bool = False,
        entropy: Entropy = os.urandom,
    ) -> None:
        """Make a new, empty keyring; ConfigError if any replica holds anything. Only `init` calls this.

        `trial` marks it as a trial keyring; no later act changes the mark.
        """
        if not timedelta(milliseconds=1) <= lease <= LONGEST_LEASE:
            raise ConfigError(f"keyring.lease is at most {LONGEST_LEASE.total_seconds():g} s")
        await recovery.create(
            Replicas(replicas),
            provider,
            keyring_id=keyring_id,
            cohort_width_seconds=cohort_width_seconds,
            lease=lease,
            trial=trial,
            entropy=entropy,
        )

    @classmethod
    async def open(
        cls,
        replicas: Sequence[KeyringStore],
        provider: RootKeyProvider,
        *,
        clock: Clock,
        entropy: Entropy = os.urandom,
        metrics: Metrics | None = None,
        guard: Guard = nullcontext,
    ) -> Keyring:
        """Recover and open the keyring: bring every replica up to date and destroy leftover root versions.

        ConfigError if too few places are replicas. Unavailable if too few answer or the provider does not.
        IntegrityError if no replica opens. Never creates a keyring.
        """
        keyring = await cls.observe(replicas, provider, clock=clock, entropy=entropy, metrics=metrics, guard=guard)
        async with keyring.writer() as writer:
            await writer.settle()
        return keyring

    @classmethod
    async def observe(
        cls,
        replicas: Sequence[KeyringStore],
        provider: RootKeyProvider,
        *,
        clock: Clock,
        entropy: Entropy = os.urandom,
        metrics: Metrics | None = None,
        guard: Guard = nullcontext,
    ) -> Keyring:
        """Open the keyring without writing or locking anything; errors as `open`. The first writer recovers it."""
        places = Replicas(replicas)
        keys = provider if metrics is None else MeteredRootKeys(provider, metrics=metrics, clock=clock)
        engine = await cls.engine_class.look(
            replicas=places, provider=keys, clock=clock, entropy=entropy, metrics=metrics
        )
        return cls(engine=engine, replicas=places, guard=guard)

    async def close(self) -> None:
        """Wait for the writer, then release the replicas; no writer may be entered afterwards."""
        async with self._turn:
            if not self._closed:
                self._closed = True
                await self._replicas.close()

    async def run(self) -> None:
        """Renew the lease until cancelled, looking several times within each."""
        while True:
            await asyncio.sleep(self._engine.lease.total_seconds() / _LOOKS_PER_LEASE)
            try:
                await self.refresh()
            except (Unavailable, IntegrityError) as error:
                _LOG.warning("keyring not looked at", extra={"fields": {"reason": error.message}})

    async def refresh(self) -> None:
        """Read the replicas, adopt what others wrote, and renew the lease; Unavailable without a read quorum."""
        await self._engine.refresh()

    @property
    def epoch(self) -> int:
        """The current epoch, from 1; every epoch has a root version of its own."""
        return self._engine.settled.epoch

    @property
    def generation(self) -> int:
        """The generation of new cohorts; it rises with every rotation, every restore and every tenant dropped."""
        return self._engine.state.generation

    @property
    def last_sweep_at(self) -> datetime | None:
        """When the last sweep was planned."""
        ms = self._engine.settled.last_sweep_ms
        return None if ms is None else states.from_unix_ms(ms)

    @property
    def cohort_width_seconds(self) -> float:
        """Seconds per period of audio and transcript cohorts."""
        return self._engine.settled.cohort_width_ms / 1000

    @property
    def lease(self) -> timedelta:
        """How long after a read of the replicas keys may still be derived; fixed at `create`."""
        return self._engine.lease

    @property
    def trial(self) -> bool:
        """Whether this vault was created as a trial one; fixed at `create`."""
        return self._engine.settled.trial is True

    @property
    def predates_trial(self) -> bool:
        """Whether the keyring is from before the trial mark; such a vault has the permissions from before the mark."""
        return self._engine.settled.trial is None

    @property
    def rank(self) -> Rank:
        """Fence, epoch and revision of the head: of two states of this keyring, the higher is the newer."""
        return self._engine.rank

    @property
    def keyring_id(self) -> bytes:
        """The 16 bytes that tell this keyring from others."""
        return self._engine.settled.keyring

    @property
    def backup_keys(self) -> Sequence[DataKey]:
        """The keys of catalog backups and of recorders' secrets; new data is sealed under the first.

        The others, one for each rotation, open older data. No backup contains any of them.
        """
        settled = self._engine.settled
        return [DataKey(key) for key in (settled.backup_key, *settled.older_backup_keys)]

    def derive(self, coordinate: Coordinate) -> DataKey:
        """Return the data key. Shredded if the leaf has no key or is inside a shred under way."""
        state = self._engine.state
        if not self._engine.closes(coordinate.cohort, (coordinate.leaf, coordinate.leaf)):
            cover = state.cover(coordinate.cohort)
            material = None if cover is None else ggm.leaf_key(cover, coordinate.leaf)
            if material is not None:
                return DataKey(material)
        raise Shredded("the key at this coordinate does not exist")

    def derivable(self, coordinate: Coordinate) -> bool:
        """Tell whether the leaf still has a key."""
        cover = self._engine.state.cover(coordinate.cohort)
        return (
            cover is not None
            and ggm.derives(cover, coordinate.leaf)
            and not self._engine.closes(coordinate.cohort, (coordinate.leaf, coordinate.leaf))
        )

    def has_cohort(self, cohort: Cohort) -> bool:
        """Tell whether the cohort's tree exists (perhaps punctured)."""
        return self._engine.state.cover(cohort) is not None

    def cohorts(self, tenant: TenantId, part: Part) -> Sequence[Cohort]:
        """Return the cohorts of a tenant's part that still have a key, oldest first."""
        page = self._engine.state.pages.get(tenant)
        return sorted(cohort for cohort in page.cohorts if cohort.part is part) if page else []

    def has_due(self, plan: ShredPlan) -> bool:
        """Tell whether that shred would make any leaf underivable."""
        return states.has_due(self._engine.state, plan)

    def living(self, cohort: Cohort, leaves: Collection[int]) -> AbstractSet[int]:
        """Return which of these leaves still have a key."""
        cover = self._engine.state.cover(cohort)
        if cover is None:
            return frozenset()
        left = spans.intersect(spans.points(leaves), ggm.spans(cover))
        gone = self._engine.closing(cohort)
        return {leaf for first, last in spans.subtract(left, gone) for leaf in range(first, last + 1)}

    def pins(self, tenant: TenantId | None = None, *, tags: Collection[bytes] | None = None) -> Sequence[Pin]:
        """Return the pins, of one tenant or all, with `tags` only those under these."""
        chosen = (states.listed(page.pins, tags=tags) for page in self._pages(tenant))
        return [pin for some in chosen for pin in some]

    def pins_on(self, place: Coordinate) -> Sequence[Pin]:
        """Return the pins that keep one key."""
        page = self._engine.state.pages.get(place.cohort.tenant)
        found = [] if page is None else page.pins.get(place.cohort, {}).items()
        runs = [(tag, run) for tag, each in found if (run := each.at(place.leaf)) is not None]
        return [Pin(cohort=place.cohort, first=first, last=last, tag=tag) for tag, (first, last) in runs]

    def has_pins(self, pins: Sequence[Pin]) -> bool:
        """Tell whether every leaf of these is pinned under their tags."""
        return states.lacks_no_pin(self._engine.state, pins)

    def tags(
        self, tenant: TenantId | None = None, *, within: Collection[Cohort] | None = None
    ) -> Mapping[bytes, TenantId]:
        """Return the tags of the pins, of one tenant or all, each with its tenant; `within` only these cohorts."""
        return {
            tag: page.tenant
            for page in self._pages(tenant)
            for cohort, by_tag in page.pins.items()
            if within is None or cohort in within
            for tag in by_tag
        }

    def _pages(self, tenant: TenantId | None) -> Collection[Page]:
        pages = self._engine.state.pages
        return pages.values() if tenant is None else [pages[tenant]] if tenant in pages else []

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[Writer]:
        """Enter the single-writer section; Unavailable if another process holds it too long."""
        async with self._turn, self._guard():
            if self._closed:
                raise Unavailable("the keyring is closed")
            async with self._replicas.exclusive():
                writer = Writer(self._engine)
                try:
                    yield writer
                finally:
                    writer.over = True
                    await self._tell()

    def tell(self, written: Written) -> None:
        """Call `written` with the keyring's rank after each writer section."""
        self._written = written

    async def _tell(self) -> None:
        if self._written is None or self._told == self._engine.rank:
            return
        try:
            await self._written(self._engine.rank)
        except Unavailable as error:
            _LOG.warning("the keyring's state is not noted", extra={"fields": {"reason": error.message}})
        else:
            self._told = self._engine.rank

    async def status(self) -> KeyringStatus:
        """Look at every replica and say where each stands; reads only."""
        return await self._engine.status()

    async def check(self) -> Sequence[Finding]:
        """Open each replica through the provider, compare the trees, and list the root versions."""
        async with self._turn:
            return await self._engine.check()


class Writer:
    """The writer section's handle; when an act returns, it is durable on a write quorum of the replicas.

    Adding cohorts, pinning and unpinning do not ask the root-key provider while the epoch is the one in memory.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.over = False

    async def settle(self) -> None:
        """Run a due recovery, including leftovers at the provider, without any other change."""
        await self._state(cleared=True)

    async def touch(self) -> None:
        """Write the keyring unchanged, so that its rank rises."""
        await self._engine.revise(await self._state(cleared=True))

    async def add_cohorts(self, cohorts: Sequence[Cohort]) -> None:
        """Give each missing cohort a fresh random tree, all in one revision; existing ones are untouched.

        TooLate if a missing cohort's period has been swept or is being swept, Unavailable if its generation passed.
        """
        state = await self._state()
        missing = {cohort for cohort in cohorts if state.cover(cohort) is None}
        if any(self._engine.closes(cohort, _WHOLE) for cohort in missing):
            raise TooLate("the cohort's period is being swept; it cannot get a new tree")
        seeds = {cohort: self._engine.seed() for cohort in sorted(missing)}
        await self._revise(state, states.plant(state, seeds))

    async def pin(self, pins: Sequence[Pin]) -> None:
        """Add pins; TooLate, and nothing is pinned, unless every leaf is derivable. Repeatable.

        More than 100,000 take several revisions, so that none writes much. A failure between them leaves some pinned.
        """
        state = await self._state()
        if any(self._engine.closes(pin.cohort, (pin.first, pin.last)) for pin in pins):
            raise TooLate("a key to be held is being shredded; nothing was pinned")
        whole = await in_thread(states.pinned, state, pins)
        if len(pins) <= _PINS_AT_ONCE:
            await self._revise(state, whole)
            return
        for step in states.towards(state, whole, most=_PINS_AT_ONCE):
            await self._revise(self._engine.state, replace(step, revision=self._engine.state.revision))

    async def unpin(self, pins: Sequence[Pin]) -> None:
        """Drop exactly these leaves under these tags; absent ones are fine."""
        state = await self._state()
        await self._revise(state, states.unpinned(state, pins))

    async def bump_generation(self) -> int:
        """Raise the generation and return it; called after a restore, before any coordinate is allocated."""
        state = await self._state(cleared=True)
        await self._revise(state, replace(state, generation=state.generation + 1))
        return self._engine.state.generation

    async def retire(self, used: Mapping[Cohort, int], *, since: int, below: int) -> int:
        """Drop, in one revision, the leaves of the generations `since` to `below - 1` that were never reserved.

        `used` is the number of reserved leaves of each cohort; reserved and pinned leaves stay. Returns how many whole
        trees were dropped. Repeatable.
        """
        state = await self._state()
        after = await in_thread(states.retired, state, used, since=since, below=below)
        await self._revise(state, after)
        return states.size(state) - states.size(after)

    async def set_last_sweep(self, at: datetime) -> None:
        """Record a sweep that shredded nothing, or correct the time that the clock guard compares with."""
        state = await self._state(cleared=True)
        await self._revise(state, replace(state, last_sweep_ms=states.unix_ms(at)))

    async def shred(self, plan: ShredPlan) -> ShredReceipt:
        """Make exactly what `plan` takes underivable for ever; returns after the old root version is gone.

        Repeatable after any failure; each success destroys one epoch. UnderHold or Invalid with nothing changed. After
        Unavailable or IntegrityError the shred may be half done: its keys stay closed, and the next act recovers first.
        """
        await self._state(cleared=True)
        return await self._engine.shred(plan)

    async def _state(self, *, cleared: bool = False) -> State:
        if self.over:
            raise RuntimeError("a keyring writer was used outside its section")
        await self._engine.ready(cleared=cleared)
        return self._engine.state

    async def _revise(self, before: State, after: State) -> None:
        if after != before:
            await self._engine.revise(after)
