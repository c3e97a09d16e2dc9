"""Coordinates of recordings, and the facts by which the retention rules decide about them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from vault.errors import GenerationPassed, Unavailable
from vault.ids import HoldId, RecordingId, TenantId, id_bytes
from vault.model import Cohort, Coordinate, HoldTerms, Part, Pin, Recording, Tenant
from vault.ports.erasures import Erasure, ErasureLookup, ErasureOutcome, ErasureState
from vault.ports.holds import HoldLookup, HoldTermsLookup
from vault.ports.keys import Keyring
from vault.ports.policies import PolicyLookup
from vault.ports.recordings import LeafRows
from vault.ports.tenants import TenantLookup
from vault.retention.decide import IN_FORCE, PARTS, Clocks, Decision, Facts, Held
from vault.retention.guards import effective_now
from vault.retention.periods import Period, maybe_period
from vault.retention.policy import expiry_period, export_ends, metadata_period

# -- coordinates --------------------------------------------------------------------------------------------------

_LEAF_BLOCK = 64


class Coordinates:
    """Allocates coordinates from blocks of leaves that are reserved in the catalog.

    The counter moves before the first leaf of a block is used. So a block that a crash lost is skipped and never used
    again, like a block of a generation that a rotation closed.
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
            # Another node has raised the generation. This node may not have seen that yet.
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

        `tenants` are pairs of tenant and default retention. Old blocks are dropped too. A clock that stepped back
        creates no cohort in a month that a sweep may have taken.
        """
        now = effective_now(now, self._keyring.last_sweep_at)
        needed = self._needed(tenants, now, periods_ahead)
        await self.ensure(needed)
        await self._catalog.make_room({cohort.period for cohort in needed if cohort.part is Part.AUDIO})
        self._forget(now, self._keyring.cohort_width_seconds)

    def lack(self, tenants: Iterable[tuple[TenantId, Period]], *, now: datetime) -> bool:
        """Tell whether a call of one of these tenants that began now would have to write the keyring first."""
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


# -- dossiers -----------------------------------------------------------------------------------------------------

_EVERY_HOLD = 10_000_000
_ERASES = frozenset({ErasureOutcome.PENDING, ErasureOutcome.ERASING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """The facts that decide about every recording of one tenant, as they were when collected.

    `by_recording` are the holds in force in the catalog. `by_id` are those and every hold whose pin is set.
    """

    clocks: Clocks
    keyring: Keyring
    by_recording: Mapping[RecordingId, Sequence[HoldTerms]]
    by_id: Mapping[HoldId, HoldTerms]
    changes: frozenset[bytes] = frozenset()
    """The tags of pins that a change of retention set. They are no holds; they keep keys longer than the cohort."""

    def facts(self, row: Recording, *, erasing_since: datetime | None = None) -> Facts:
        """Return the facts of one row of the tenant."""
        pins = frozenset(
            _hold_of(pin)
            for place in (row.audio, row.metadata)
            for pin in self.keyring.pins_on(place)
            if pin.tag not in self.changes
        )
        holds = {hold.id: hold for hold in self.by_recording.get(row.id, ())}
        holds |= {pin: self.by_id[pin] for pin in pins if pin in self.by_id}
        return Facts(
            recording=row,
            clocks=self.clocks,
            keys=frozenset(part for part in PARTS if self.keyring.derivable(place_of(row, part))),
            holds=tuple(holds.values()),
            pins=pins,
            erasing_since=erasing_since,
        )

    def pinned(self, row: Recording, part: Part, decision: Decision) -> bool:
        """Tell whether the keyring has a pin on the part of one of the holds in the decision."""
        holds = decision.holds if isinstance(decision, Held) else ()
        pins = self.keyring.pins_on(place_of(row, part))
        return any(pin.tag in self.changes or _hold_of(pin) in holds for pin in pins)


class DossierRows(HoldLookup, HoldTermsLookup, ErasureLookup, PolicyLookup, TenantLookup, Protocol):
    """The catalog methods that facts need."""


class Dossiers:
    """Collects the facts for the retention rules from the catalog and the keyring."""

    def __init__(self, *, catalog: DossierRows, keyring: Keyring, export_window: Period) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._export_window = export_window

    def clocks(self, tenant: Tenant) -> Clocks:
        """Return the tenant's periods and dates that decide about its recordings."""
        return Clocks(
            cohort_width=self._keyring.cohort_width_seconds,
            metadata_retention=maybe_period(tenant.metadata_retention),
            metadata_before=tuple((through, maybe_period(kept)) for through, kept in tenant.metadata_before),
            metadata_changed=tenant.metadata_changed,
            retention_changed=tenant.retention_changed,
            contract_over=export_ends(tenant, self._export_window),
            contract_approved=tenant.offboard_approved_at,
        )

    def now(self, clock: datetime) -> datetime:
        """Return the instant to decide for: the later of `clock` and the last sweep."""
        return effective_now(clock, self._keyring.last_sweep_at)

    async def of(self, tenant: Tenant) -> Dossier:
        """Collect what decides about everything of a tenant."""
        pinned = {HoldId(f"hold_{tag.hex()}") for tag in self._keyring.tags(tenant.id)}
        holds = await self._catalog.holds(tenant=tenant.id, states=[*IN_FORCE], limit=_EVERY_HOLD)
        by_recording: defaultdict[RecordingId, list[HoldTerms]] = defaultdict(list)
        for hold in holds:
            for recording in hold.recordings:
                by_recording[recording].append(hold)
        by_id: dict[HoldId, HoldTerms] = {hold.id: hold for hold in holds}
        by_id |= await self._known(pinned - by_id.keys())
        return Dossier(
            clocks=self.clocks(tenant),
            keyring=self._keyring,
            by_recording=by_recording,
            by_id=by_id,
            changes=await self.changes(tenant.id),
        )

    async def changes(self, tenant: TenantId) -> frozenset[bytes]:
        """Return the tags of the pins that the tenant's changes of retention set."""
        return frozenset(
            id_bytes(each.id) for each in await self._catalog.policy_requests(tenant=tenant) if each.retention
        )

    async def _known(self, identifiers: Iterable[HoldId]) -> Mapping[HoldId, HoldTerms]:
        """Return the terms of these holds. A hold missing from an older catalog has none; its pin still keeps keys."""
        return await self._catalog.terms_of(sorted(identifiers))

    async def facts(self, row: Recording) -> Facts:
        """Return the facts of one recording, with all its holds, also released ones."""
        tenant = await self._catalog.tenant(row.tenant)
        pins = [*self._keyring.pins_on(row.audio), *self._keyring.pins_on(row.metadata)]
        holds = {hold.id: hold for hold in await self._catalog.holds_on(row.id)}
        by_id = {**holds, **await self._known({_hold_of(pin) for pin in pins} - holds.keys())}
        dossier = Dossier(
            clocks=self.clocks(tenant),
            keyring=self._keyring,
            by_recording={row.id: tuple(holds.values())},
            by_id=by_id,
            changes=await self.changes(row.tenant),
        )
        return dossier.facts(row, erasing_since=erasing_since(await self._catalog.erasures_on(row.id), row.id))

    async def tenant(self, identifier: TenantId) -> Dossier:
        """Return the facts about all recordings of the tenant with this id."""
        return await self.of(await self._catalog.tenant(identifier))


def erasing_since(erasures: Iterable[Erasure], recording: RecordingId) -> datetime | None:
    """Return when two people first approved an erasure that names the recording; None without one."""
    decided = [
        each.decided_at
        for each in erasures
        if each.state is ErasureState.APPROVED and each.recordings[recording] in _ERASES and each.decided_at is not None
    ]
    return min(decided, default=None)


def place_of(row: Recording, part: Part) -> Coordinate:
    """Return the coordinate of the part's key."""
    return row.metadata if part is Part.METADATA else row.audio


def _hold_of(pin: Pin) -> HoldId:
    return HoldId(f"hold_{pin.tag.hex()}")
