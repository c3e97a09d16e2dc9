"""The keyring: covers and pins of all tenants, of which only the current version can be opened.

Bytes in docs/format.md ("Keyring"), crash order in docs/design.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar, Final

from vault.crypto import ggm
from vault.crypto.spans import Span
from vault.errors import Shredded, TooLate, Unavailable
from vault.keystore import recovery
from vault.keystore import state as states
from vault.keystore.engine import Engine
from vault.keystore.files import Files
from vault.keystore.metered import MeteredRootKeys
from vault.keystore.replicas import Replicas
from vault.keystore.state import State
from vault.keystore.threads import in_thread
from vault.model import Cohort, Coordinate, DataKey, Finding, Part, Pin, ShredPlan, ShredReceipt, TenantId
from vault.ports.keys import RootKeyProvider
from vault.ports.time import Clock, Entropy
from vault.telemetry import Metrics

_LEASE: Final = timedelta(seconds=15)
_WHOLE: Final[Span] = (0, (1 << ggm.DEPTH) - 1)


class Keyring:
    """The open keyring of this process; made by `open`, which holds every replica's lock until `close`."""

    engine_class: ClassVar[type[Engine]] = Engine

    def __init__(self, *, engine: Engine, unlock: Callable[[], None]) -> None:
        self._engine = engine
        self._unlock: Callable[[], None] | None = unlock
        self._turn = asyncio.Lock()

    @classmethod
    async def create(
        cls,
        replicas: Sequence[Path],
        provider: RootKeyProvider,
        *,
        keyring_id: bytes,
        cohort_width_seconds: float,
        entropy: Entropy = os.urandom,
        files: Files | None = None,
    ) -> None:
        """Make a new, empty keyring; ConfigError if any replica holds anything. Only `init` calls this."""
        places = Replicas(replicas, files=files or Files())
        await recovery.create(
            places, provider, keyring_id=keyring_id, cohort_width_seconds=cohort_width_seconds, entropy=entropy
        )

    @classmethod
    async def open(
        cls,
        replicas: Sequence[Path],
        provider: RootKeyProvider,
        *,
        clock: Clock,
        entropy: Entropy = os.urandom,
        files: Files | None = None,
        metrics: Metrics | None = None,
        cache_lease: timedelta = _LEASE,
    ) -> Keyring:
        """Recover and open the keyring, and fence off whoever had it before.

        ConfigError if a replica is not one, Unavailable if another process has it or the provider cannot answer,
        IntegrityError if no replica opens. Never creates. `cache_lease` is how long nodes may cache derived keys.
        """
        places = Replicas(replicas, files=files or Files())
        keys = provider if metrics is None else MeteredRootKeys(provider, metrics=metrics, clock=clock)
        keyring_id = await in_thread(places.keyring_id)
        unlock = await in_thread(places.lock)
        try:
            engine = cls.engine_class(
                replicas=places,
                provider=keys,
                clock=clock,
                entropy=entropy,
                metrics=metrics,
                cache_lease=cache_lease,
                stored=await recovery.recover(places, keys, keyring_id),
            )
            await engine.revise(replace(engine.state, fence=engine.state.fence + 1))
        except BaseException:
            unlock()
            raise
        return cls(engine=engine, unlock=unlock)

    async def close(self) -> None:
        """Wait for the writer, then let go of the replicas' locks; the keyring must not be written after."""
        async with self._turn:
            if self._unlock is not None:
                self._unlock()
                self._unlock = None

    @property
    def epoch(self) -> int:
        """The life of the live root version, from 1."""
        return self._engine.state.epoch

    @property
    def generation(self) -> int:
        """What new cohorts carry; moves with every restore and every tenant dropped."""
        return self._engine.state.generation

    @property
    def last_sweep_at(self) -> datetime | None:
        """When the last sweep was planned."""
        ms = self._engine.state.last_sweep_ms
        return None if ms is None else states.from_unix_ms(ms)

    @property
    def cohort_width_seconds(self) -> float:
        """Seconds per period of audio and transcript cohorts."""
        return self._engine.state.cohort_width_ms / 1000

    @property
    def fence(self) -> int:
        """Counts openings: whoever holds an older number writes no more."""
        return self._engine.state.fence

    @property
    def keyring_id(self) -> bytes:
        """The 16 bytes that tell this keyring from others."""
        return self._engine.state.keyring

    def derive(self, coordinate: Coordinate) -> DataKey:
        """Return the data key. Shredded if the leaf is underivable or inside a shred under way."""
        if not self._engine.closes(coordinate.cohort, (coordinate.leaf, coordinate.leaf)):
            cover = self._engine.state.cover(coordinate.cohort)
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

    def pins(self, tenant: TenantId | None = None) -> Sequence[Pin]:
        """Return the pins, of one tenant or all."""
        pages = self._engine.state.pages
        chosen = pages.values() if tenant is None else [pages[tenant]] if tenant in pages else []
        return [pin for page in chosen for pin in page.pins]

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[Writer]:
        """Enter the single-writer section."""
        async with self._turn:
            if self._unlock is None:
                raise Unavailable("the keyring is closed")
            writer = Writer(self._engine)
            try:
                yield writer
            finally:
                writer.over = True

    async def check(self) -> Sequence[Finding]:
        """Return findings for `doctor`: replicas, root versions, agreement."""
        async with self._turn:
            return await self._engine.check()


class Writer:
    """The writer section's handle; every act is durable on every replica when it returns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.over = False

    async def add_cohorts(self, cohorts: Sequence[Cohort]) -> None:
        """Give each missing cohort a fresh random tree, all in one revision; existing ones are untouched.

        TooLate if a missing cohort's period has been swept or is being swept, Unavailable if its generation passed.
        """
        state = await self._state()
        missing = {cohort for cohort in cohorts if state.cover(cohort) is None}
        if any(self._engine.closes(cohort, _WHOLE) for cohort in missing):
            raise TooLate("the cohort's period is being swept; nothing can be kept under it any more")
        seeds = {cohort: self._engine.seed() for cohort in sorted(missing)}
        await self._revise(state, states.plant(state, seeds))

    async def pin(self, pins: Sequence[Pin]) -> None:
        """Add pins; TooLate, and nothing is pinned, unless every leaf is derivable. Repeatable."""
        state = await self._state()
        if any(self._engine.closes(pin.cohort, (pin.first, pin.last)) for pin in pins):
            raise TooLate("a key to be held is being shredded; nothing was pinned")
        await self._revise(state, states.pinned(state, pins))

    async def unpin(self, pins: Sequence[Pin]) -> None:
        """Drop exactly these pins; absent ones are fine."""
        state = await self._state()
        await self._revise(state, states.unpinned(state, pins))

    async def bump_generation(self) -> int:
        """Move to the next generation and return it: after a restore, before any coordinate is handed out."""
        state = await self._state()
        await self._revise(state, replace(state, generation=state.generation + 1))
        return self._engine.state.generation

    async def set_last_sweep(self, at: datetime) -> None:
        """Record a sweep that shredded nothing, or override the guard's memory of one."""
        state = await self._state()
        await self._revise(state, replace(state, last_sweep_ms=states.unix_ms(at)))

    async def shred(self, plan: ShredPlan) -> ShredReceipt:
        """Make exactly what `plan` takes underivable for ever; returns after the old root version is gone.

        Repeatable after any failure; each success destroys one epoch. UnderHold or Invalid before anything is done.
        Unavailable or IntegrityError may leave it half done: its keys stay closed, and the next act recovers first.
        """
        await self._state()
        return await self._engine.shred(plan)

    async def _state(self) -> State:
        if self.over:
            raise RuntimeError("a keyring writer was used outside its section")
        await self._engine.ready()
        return self._engine.state

    async def _revise(self, before: State, after: State) -> None:
        if after != before:
            await self._engine.revise(after)
