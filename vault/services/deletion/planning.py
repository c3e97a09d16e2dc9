"""Plans a sweep: the cohorts that are due, checked against the rule that decides about each recording.

Whole cohorts of audio are planned without reading their rows. The rule gives one answer for all rows of a cohort,
except for rows with a date or hold of their own, which the catalog lists. Metadata and the recordings of an ended
contract are decided row by row. If the rule keeps a row of a cohort that goes, the row is spared and an error is
logged.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Protocol

from vault.crypto.spans import Spans, points
from vault.errors import Conflict
from vault.ids import HoldId, RecordingId, TenantId, new_id
from vault.model import INDEX_LEAF, Cohort, Coordinate, Part, Pin, Recording, RecordingState, ShredPlan, Tenant
from vault.ports.holds import HoldLookup, HoldTermsLookup
from vault.ports.keys import Keyring
from vault.ports.recordings import DueCounts, DueRows, RecordingLookup
from vault.ports.shreds import Shred, ShredRows
from vault.ports.tenants import TenantLookup
from vault.ports.time import Entropy
from vault.retention.decide import PARTS, Clocks, Decision, Due, Gone, Held, decide_parts, falls_due
from vault.retention.guards import Limits, Tripped, check_share, early_by
from vault.retention.policy import LAST_PERIOD, due_through, metadata_due, period_instant
from vault.services.deletion.policies import Policies
from vault.services.deletion.shredding import Shredder
from vault.services.holds.holds import Holds
from vault.services.recordings.dossiers import Dossier, Dossiers

_PAGE = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a sweep takes of one tenant besides due audio: old metadata, changed dates, or all at the contract's end.

    `months_spared` are not due yet. `outliving` is metadata, with its index, that stays with its audio. `kept` are due
    recordings that holds keep. `spared` are recordings that the rule keeps against the plan. With `tripped`, this sweep
    takes nothing of the share.
    """

    tenant: TenantId
    metadata_through: int | None
    dropped: bool
    months_spared: frozenset[int] = frozenset()
    outliving: frozenset[Coordinate] = frozenset()
    kept: frozenset[RecordingId] = frozenset()
    spared: Sequence[Recording] = ()
    tripped: Tripped | None = None
    clocks: Clocks | None = None
    """Set where a change of retention is in force; the leaves that it has made due are `expired`."""
    expired: Mapping[Cohort, Spans] = field(default_factory=dict)

    def takes_month(self, row: Recording) -> bool:
        """Tell whether the metadata of the row's month is due."""
        month = row.metadata.cohort.period
        return month <= _or_none(self.metadata_through) and month not in self.months_spared

    def changes(self, row: Recording) -> bool:
        """Tell whether a change of retention applies to the row, instead of the date of its capture."""
        return self.clocks is not None and self.clocks.changes(row) is not None

    def keeps_longer(self, row: Recording) -> bool:
        """Tell whether a change of retention keeps the row's audio longer than its cohort."""
        if self.clocks is None or not self.changes(row):
            return False
        until = falls_due(row, Part.AUDIO, self.clocks)
        return until is not None and until > period_instant(row.audio.cohort.period, self.clocks.cohort_width)

    def has_expired(self, row: Recording, now: datetime) -> bool:
        """Tell whether a change of retention has made the row's audio due."""
        if self.clocks is None or not self.changes(row):
            return False
        until = falls_due(row, Part.AUDIO, self.clocks)
        return until is not None and until <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A sweep before its intent: `base` takes the due audio, and each share that did not trip takes more."""

    base: Shred
    unpin: Sequence[Pin]
    yielding: frozenset[bytes] = frozenset()
    doubtful: Sequence[Recording] = ()
    shares: Sequence[Share] = ()

    @property
    def tripped(self) -> Sequence[Tripped]:
        """The tenants that the guard stopped, each with its reason."""
        return [share.tripped for share in self.shares if share.tripped is not None]

    @property
    def shred(self) -> Shred:
        """The shred."""
        passing = [share for share in self.shares if share.tripped is None]
        return dataclasses.replace(
            self.base,
            metadata_through={
                share.tenant: share.metadata_through for share in passing if share.metadata_through is not None
            },
            spared=frozenset((share.tenant, month) for share in passing for month in share.months_spared),
            drop_tenants=frozenset(share.tenant for share in passing if share.dropped),
            changed=frozenset(share.tenant for share in passing if share.expired),
        )

    @property
    def expired(self) -> Mapping[Cohort, Spans]:
        """The leaves of audio that go by a changed date."""
        return {
            cohort: runs for share in self.shares if share.tripped is None for cohort, runs in share.expired.items()
        }

    @property
    def spared(self) -> Sequence[Recording]:
        """The rows that stay although their cohort goes, each once."""
        passing = (share.spared for share in self.shares if share.tripped is None)
        return list({row.id: row for row in chain(self.doubtful, *passing)}.values())

    @property
    def kept(self) -> frozenset[RecordingId]:
        """The recordings that the shares would take and that holds keep."""
        return frozenset().union(*(share.kept for share in self.shares if share.tripped is None))

    def plan(self) -> ShredPlan:
        """Return the keyring's part of the plan: the keys to destroy."""
        shred, outliving = self.shred, (share.outliving for share in self.shares if share.tripped is None)
        places = {place for row in self.spared for place in (row.audio, row.metadata, _index(row.metadata))}
        return ShredPlan(
            intent_id=shred.id,
            at=shred.intended_at,
            due_through=shred.due_through,
            metadata_through=shred.metadata_through,
            spared=shred.spared,
            drop_tenants=shred.drop_tenants,
            keep=frozenset(places).union(*outliving),
            unpin=tuple(self.unpin),
            expired=self.expired,
            yielding=self.yielding,
        )

    def lifted(self, tenant: TenantId) -> Planned:
        """Return the plan with one tenant's guard overridden."""
        shares = [
            dataclasses.replace(share, tripped=None) if share.tenant == tenant else share for share in self.shares
        ]
        return dataclasses.replace(self, shares=shares)

    def takes(self, row: Recording, part: Part, *, tripped: bool = False) -> bool:
        """Tell whether the part's cohort goes; with `tripped`, also whether it would go without a guard."""
        mine = [share for share in self.shares if share.tenant == row.tenant]
        passed = part is Part.AUDIO and row.audio.cohort.period <= _or_none(self.base.due_through)
        # A row that is kept longer than its cohort has a pin of its own and goes by its own date.
        if passed and not any(share.keeps_longer(row) for share in mine):
            return True
        return any(
            share.dropped
            or (part is Part.AUDIO and share.has_expired(row, self.base.intended_at))
            or (part is Part.METADATA and share.takes_month(row) and row.metadata not in share.outliving)
            for share in mine
            if tripped or share.tripped is None
        )

    def concerns(self, row: Recording) -> bool:
        """Tell whether the cohort of a part of the row goes, or would without a guard."""
        return any(self.takes(row, part, tripped=True) for part in PARTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A recording that a sweep may take, with the rule's decision on each part."""

    row: Recording
    decisions: Mapping[Part, Decision]

    @property
    def held(self) -> bool:
        """Tell whether holds keep a part of it."""
        return any(isinstance(decision, Held) for decision in self.decisions.values())


class _Judge:
    """Asks the rule about rows of any tenant; what decides about a tenant is collected at its first row."""

    def __init__(self, dossiers: Dossiers, tenants: Mapping[TenantId, Tenant], now: datetime) -> None:
        self._dossiers = dossiers
        self._tenants = tenants
        self._now = now
        self._known: dict[TenantId, Dossier] = {}

    async def dossier(self, tenant: TenantId) -> Dossier:
        if tenant not in self._known:
            self._known[tenant] = await self._dossiers.of(self._tenants[tenant])
        return self._known[tenant]

    async def candidate(self, row: Recording) -> Candidate:
        return _candidate(await self.dossier(row.tenant), row, self._now)


@dataclass(slots=True, kw_only=True)
class _Count:
    early: int = 0
    by_decision: Counter[datetime] = field(default_factory=Counter)
    since: Counter[datetime] = field(default_factory=Counter)
    """The recordings of `by_decision` captured after the decision: the end of a contract takes calls up to that end."""
    kept: set[RecordingId] = field(default_factory=set)
    spared: list[Recording] = field(default_factory=list)
    expired: defaultdict[Cohort, list[int]] = field(default_factory=lambda: defaultdict(list))


class PlanningRows(DueRows, DueCounts, HoldLookup, HoldTermsLookup, RecordingLookup, ShredRows, TenantLookup, Protocol):
    """The catalog methods that planning needs."""


class Planner:
    """Plans sweeps; changes nothing."""

    def __init__(
        self,
        *,
        catalog: PlanningRows,
        keyring: Keyring,
        holds: Holds,
        dossiers: Dossiers,
        policies: Policies,
        shredder: Shredder,
        entropy: Entropy,
        limits: Limits,
    ) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._holds = holds
        self._dossiers = dossiers
        self._policies = policies
        self._shredder = shredder
        self._entropy = entropy
        self._limits = limits

    async def plan(self, now: datetime, trigger: str) -> Planned:
        """Return the plan of a sweep at `now`. A tenant has a share only if one of its due keys exists and is free."""
        base = Shred(
            id=new_id("shr", at=now, entropy=self._entropy),
            intended_at=now,
            trigger=trigger,
            due_through=due_through(now, self._keyring.cohort_width_seconds),
        )
        planned = Planned(
            base=base, unpin=await self._holds.expired_pins(now=now), yielding=await self._shredder.yielding()
        )
        planned = dataclasses.replace(planned, doubtful=await self._doubtful(planned))
        shares = [
            await self._judged(planned, share, tenant)
            for tenant in await self._tenants(now)
            if (share := await self._with_changed(planned, tenant)) is not None
        ]
        return dataclasses.replace(planned, shares=shares)

    async def candidates(self, planned: Planned, *, after: RecordingId | None = None) -> AsyncIterator[Candidate]:
        """Yield each recording that the plan concerns once, including those of tripped tenants.

        With `after`, a recording from an earlier call, yield only those after it. Conflict if a sweep ran meanwhile, so
        that the plan no longer concerns `after`.
        """
        now, through = planned.base.intended_at, planned.base.due_through
        assert through is not None
        tenants = {tenant.id: tenant for tenant in await self._tenants(now)}
        judge = _Judge(self._dossiers, tenants, now)
        falls_due_by_date = await self._by_date(through)
        last = None if after is None else await self._catalog.recording(after)
        if last is None or falls_due_by_date(last):
            async for row in self._due(through, after=after):
                yield await judge.candidate(row)
            last = None
        for share in planned.shares:
            async for row in self._rows(share, tenants[share.tenant], now):
                if last is not None:
                    last = None if row.id == last.id else last
                elif not falls_due_by_date(row):
                    yield await judge.candidate(row)
        if last is not None:
            raise Conflict("a sweep ran meanwhile; this list ends here", hint="begin the list again, without after")

    async def uniform(self, planned: Planned) -> Mapping[Cohort, int]:
        """Count what is due of each cohort of audio that goes for one reason: its date.

        It is so of a tenant of which the plan takes nothing else, whose contract has no end and whose pins the catalog
        knows: the rule says `EXPIRY` of all but `exceptions`. While a shred is under way it is said of nothing.
        """
        through = planned.base.due_through
        assert through is not None
        if await self._catalog.unfinished_shreds():
            return {}
        tags = {pin.tag: pin.cohort.tenant for pin in self._keyring.pins() if pin.tag not in planned.yielding}
        holds = {HoldId(f"hold_{tag.hex()}"): tenant for tag, tenant in tags.items()}
        known = await self._catalog.terms_of(sorted(holds))
        special = {tenant for hold, tenant in holds.items() if hold not in known}
        special |= {share.tenant for share in planned.shares}
        for tenant in await self._tenants(planned.base.intended_at):
            clocks = self._dossiers.clocks(tenant)
            if clocks.contract_over is not None or clocks.retention_changed is not None:
                special.add(tenant.id)
        counted = await self._catalog.count_due_cohorts(through=through)
        special |= {cohort.tenant for cohort in counted if not self._keyring.has_cohort(cohort)}
        return {cohort: count for cohort, count in counted.items() if cohort.tenant not in special}

    async def exceptions(self, planned: Planned, uniform: Collection[TenantId]) -> AsyncIterator[Candidate]:
        """Yield the `candidates` that are to be looked at one by one if the others of these tenants are uniform."""
        now, through = planned.base.intended_at, planned.base.due_through
        assert through is not None
        tenants = {tenant.id: tenant for tenant in await self._tenants(now)}
        judge = _Judge(self._dossiers, tenants, now)
        falls_due_by_date = await self._by_date(through)
        after: RecordingId | None = None
        while page := await self._catalog.exceptional_recordings(
            through=through, now=now, tenants=tenants.keys() - uniform, after=after, limit=_PAGE
        ):
            for row in page:
                yield await judge.candidate(row)
            after = page[-1].id
            await asyncio.sleep(0)
        for share in planned.shares:
            async for row in self._rows(share, tenants[share.tenant], now):
                if not falls_due_by_date(row):
                    yield await judge.candidate(row)

    async def _by_date(self, through: int) -> Callable[[Recording], bool]:
        """Return what tells whether a row is one of `due_recordings` of all tenants, by what the catalog has.

        A change that this sweep would apply first takes nothing out of its answers yet.
        """
        stored = {tenant.id: self._dossiers.clocks(tenant) for tenant in await self._catalog.tenants()}

        def falls_due_by_date(row: Recording) -> bool:
            finished = row.state not in {RecordingState.OPEN, RecordingState.SHREDDED}
            return finished and row.audio.cohort.period <= through and stored[row.tenant].changes(row) is None

        return falls_due_by_date

    async def _tenants(self, now: datetime) -> Sequence[Tenant]:
        """Return every tenant with the changes applied that a sweep at `now` applies first."""
        ready = {each.tenant: each for each in await self._policies.ready(now)}
        return [
            tenant if tenant.id not in ready else self._policies.changed(tenant, ready[tenant.id])
            for tenant in await self._catalog.tenants()
        ]

    async def _with_changed(self, planned: Planned, tenant: Tenant) -> Share | None:
        """Return the tenant's share, including audio that a change of retention has made due; None if empty."""
        share, now = self._share(planned, tenant), planned.base.intended_at
        if tenant.retention_changed is None:
            return share
        clocks = self._dossiers.clocks(tenant)
        if share is not None:
            return dataclasses.replace(share, clocks=clocks)
        share = Share(tenant=tenant.id, metadata_through=None, dropped=False, clocks=clocks)
        async for row in self._shredder.changed(tenant, now):
            if share.has_expired(row, now):
                return share
        return None

    def _share(self, planned: Planned, tenant: Tenant) -> Share | None:
        """Return the tenant's share; None if no key of it exists."""
        clocks, now = self._dossiers.clocks(tenant), planned.base.intended_at
        cohorts = self._keyring.cohorts(tenant.id, Part.METADATA)
        nothing = Share(tenant=tenant.id, metadata_through=None, dropped=False)
        share = nothing
        through, later = metadata_due(tenant, (cohort.period for cohort in cohorts), now=now)
        # This check of one tenant's months nearly always avoids the check of all its keys.
        if through is not None:
            months = dataclasses.replace(nothing, metadata_through=through, months_spared=later)
            if self._has_due(planned, months):
                share = months
        if clocks.contract_over is not None and clocks.contract_over <= now:
            everything = dataclasses.replace(nothing, dropped=True)
            if (cohorts or self._keyring.cohorts(tenant.id, Part.AUDIO)) and self._has_due(planned, everything):
                share = dataclasses.replace(share, dropped=True)
        return None if share is nothing else share

    def _has_due(self, planned: Planned, share: Share) -> bool:
        alone = dataclasses.replace(planned, base=dataclasses.replace(planned.base, due_through=None), shares=[share])
        return self._keyring.has_due(alone.plan())

    async def _judged(self, planned: Planned, share: Share, tenant: Tenant) -> Share:
        """Decide about each row of a share; return it tripped if too much would go before its date."""
        now, last = planned.base.intended_at, self._keyring.last_sweep_at
        share = dataclasses.replace(share, outliving=await self._outliving(planned, share, tenant))
        alone = dataclasses.replace(planned, shares=[share])
        dossier, counted = await self._dossiers.of(tenant), _Count()
        async for row in self._rows(share, tenant, now):
            found = _candidate(dossier, row, now)
            decisions = early_by(dossier.facts(row), now=now, last_sweep_at=last)
            counted.early += bool(decisions)
            counted.by_decision.update(decisions)
            counted.since.update(each for each in decisions if row.created_at > each)
            if share.has_expired(row, now) and isinstance(found.decisions[Part.AUDIO], Due):
                counted.expired[row.audio.cohort].append(row.audio.leaf)
            if found.held and (
                share.has_expired(row, now)
                or (alone.takes(row, Part.METADATA) and (share.changes(row) or not planned.takes(row, Part.AUDIO)))
            ):
                counted.kept.add(row.id)
            if _contradicts(alone, dossier, found):
                counted.spared.append(row)
        shares = [
            (early, counted.since[decided] + await self._catalog.count_live(tenant.id, through=decided))
            for decided, early in counted.by_decision.items()
        ]
        return dataclasses.replace(
            share,
            kept=frozenset(counted.kept),
            spared=tuple(counted.spared),
            expired={cohort: points(leaves) for cohort, leaves in counted.expired.items()},
            tripped=check_share(tenant.id, early=counted.early, by_decision=shares, limits=self._limits),
        )

    async def _outliving(self, planned: Planned, share: Share, tenant: Tenant) -> frozenset[Coordinate]:
        alone = dataclasses.replace(planned, shares=[share])
        if share.metadata_through is None:
            return frozenset()
        return await self._shredder.outliving(alone.shred, tenants=[tenant])

    async def _doubtful(self, planned: Planned) -> Sequence[Recording]:
        """Return the rows in due cohorts of audio that the rule keeps and no pin keeps."""
        tenants = {tenant.id: tenant for tenant in await self._tenants(planned.base.intended_at)}
        found: list[Recording] = []
        now, through = planned.base.intended_at, planned.base.due_through
        judge = _Judge(self._dossiers, tenants, now)
        assert through is not None
        after: RecordingId | None = None
        while page := await self._catalog.doubtful_recordings(through=through, now=now, after=after, limit=_PAGE):
            found += [
                row
                for row in page
                if _contradicts(planned, await judge.dossier(row.tenant), await judge.candidate(row))
            ]
            after = page[-1].id
        return found

    async def _rows(self, share: Share, tenant: Tenant, now: datetime) -> AsyncIterator[Recording]:
        """Yield once each finished row of which the share may take a part."""
        through = LAST_PERIOD if share.dropped else share.metadata_through
        if through is not None:
            async for row in self._due(through, part=Part.METADATA, tenant=share.tenant):
                yield row
        if share.clocks is not None and not share.dropped:
            async for row in self._shredder.changed(tenant, now):
                if row.metadata.cohort.period > _or_none(through) or not row.sealed_facts:
                    yield row
        if share.dropped:
            async for row in self._due(LAST_PERIOD, tenant=share.tenant):
                if row.metadata_certificate_id is not None or not row.sealed_facts:
                    yield row

    async def _due(
        self,
        through: int,
        *,
        part: Part = Part.AUDIO,
        tenant: TenantId | None = None,
        after: RecordingId | None = None,
    ) -> AsyncIterator[Recording]:
        while page := await self._catalog.due_recordings(
            through=through, after=after, limit=_PAGE, part=part, tenant=tenant
        ):
            for row in page:
                yield row
            after = page[-1].id
            await asyncio.sleep(0)


def _candidate(dossier: Dossier, row: Recording, now: datetime) -> Candidate:
    return Candidate(row=row, decisions=decide_parts(dossier.facts(row), now=now))


def _contradicts(planned: Planned, dossier: Dossier, found: Candidate) -> bool:
    """Tell whether the plan would take a part that the rule keeps and no pin protects; log an error then."""
    for part, decision in found.decisions.items():
        kept = not isinstance(decision, Due | Gone)
        if kept and planned.takes(found.row, part) and not dossier.pinned(found.row, part, decision):
            logger.error(
                "a recording that must be kept lies in a cohort that goes; it is spared",
                extra={"fields": {"recording": found.row.id, "part": part.value, "why": type(decision).__name__}},
            )
            return True
    return False


def _index(place: Coordinate) -> Coordinate:
    """Return the coordinate of the index of the metadata at `place`."""
    return dataclasses.replace(place, leaf=INDEX_LEAF)


def _or_none(period: int | None) -> int:
    return -1 if period is None else period
