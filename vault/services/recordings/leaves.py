"""Reserves coordinates: cohorts exist before they are needed, and no leaf is used twice."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from vault.errors import GenerationPassed, Unavailable
from vault.ids import TenantId
from vault.model import Cohort, Coordinate, Part
from vault.ports.keys import Keyring
from vault.ports.recordings import LeafRows
from vault.retention.guards import effective_now
from vault.retention.periods import Period
from vault.retention.policy import expiry_period, metadata_period

_LEAF_BLOCK = 64


class Coordinates:
    """Allocates coordinates from blocks of leaves that are reserved in the catalog.

    A block lost in a crash is skipped, never used again, because the counter moved before its first leaf was used. So
    is a block of a generation that a rotation closed.
    """

    def __init__(self, *, catalog: LeafRows, keyring: Keyring) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._blocks: dict[Cohort, range] = {}
        self._locks: defaultdict[Cohort, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def audio(self, tenant: TenantId, retain_until: datetime) -> Coordinate:
        """Return a fresh audio coordinate in the cohort that falls due at or just after `retain_until`."""
        period = expiry_period(retain_until, self._keyring.cohort_width_seconds)
        return await self._allocate(tenant, Part.AUDIO, period)

    async def metadata(self, tenant: TenantId, created: datetime) -> Coordinate:
        """Return a fresh metadata coordinate in the month of creation."""
        return await self._allocate(tenant, Part.METADATA, metadata_period(created))

    async def _allocate(self, tenant: TenantId, part: Part, period: int) -> Coordinate:
        cohort = Cohort(tenant=tenant, part=part, period=period, generation=self._keyring.generation)
        try:
            return await self._take(cohort)
        except (Unavailable, GenerationPassed) as error:
            # Another node has moved the generation on; this node has just seen it, or has yet to.
            if isinstance(error, GenerationPassed):
                await self._keyring.refresh()
            if self._keyring.generation == cohort.generation:
                raise
            return await self._take(replace(cohort, generation=self._keyring.generation))

    async def _take(self, cohort: Cohort) -> Coordinate:
        async with self._locks[cohort]:
            block = self._blocks.get(cohort)
            if not block:
                await self.ensure([cohort])
                first = await self._catalog.reserve_leaves(cohort, _LEAF_BLOCK)
                block = range(first, first + _LEAF_BLOCK)
            self._blocks[cohort] = block[1:]
            return Coordinate(cohort=cohort, leaf=block[0])

    async def ensure(self, cohorts: Iterable[Cohort]) -> None:
        """Create the missing cohorts in a single keyring revision."""
        if missing := [cohort for cohort in cohorts if not self._keyring.has_cohort(cohort)]:
            async with self._keyring.writer() as writer:
                await writer.add_cohorts(missing)

    async def precreate(self, tenants: Iterable[tuple[TenantId, Period]], *, now: datetime, periods_ahead: int) -> None:
        """Create the cohorts that calls of the coming periods will need, so that a call need not write the keyring.

        A clock that stepped back creates none in a month that a sweep may have taken.

        `tenants` are pairs of tenant and default retention. Old blocks are dropped too.
        """
        now = effective_now(now, self._keyring.last_sweep_at)
        await self.ensure(self._needed(tenants, now, periods_ahead))
        self._forget(now, self._keyring.cohort_width_seconds)

    def lack(self, tenants: Iterable[tuple[TenantId, Period]], *, now: datetime) -> bool:
        """Tell whether a call of any of these tenants that began now would have to write the keyring first."""
        now = effective_now(now, self._keyring.last_sweep_at)
        return not all(map(self._keyring.has_cohort, self._needed(tenants, now, 0)))

    def _needed(
        self, tenants: Iterable[tuple[TenantId, Period]], now: datetime, periods_ahead: int
    ) -> Sequence[Cohort]:
        width = self._keyring.cohort_width_seconds
        generation = self._keyring.generation
        cohorts: list[Cohort] = []
        for tenant, retention in tenants:
            first = expiry_period(retention.after(now), width)
            months = {metadata_period(now), metadata_period(now + timedelta(seconds=width * periods_ahead))}
            cohorts += [
                Cohort(tenant=tenant, part=Part.AUDIO, period=period, generation=generation)
                for period in range(first, first + periods_ahead + 1)
            ]
            cohorts += [
                Cohort(tenant=tenant, part=Part.METADATA, period=month, generation=generation)
                for month in sorted(months)
            ]
        return cohorts

    def _forget(self, now: datetime, width: float) -> None:
        past, generation = int(now.timestamp() // width), self._keyring.generation
        for cohort in [
            each
            for each in self._blocks
            if each.generation < generation or (each.part is not Part.METADATA and each.period <= past)
        ]:
            if not self._locks[cohort].locked():
                del self._blocks[cohort], self._locks[cohort]
