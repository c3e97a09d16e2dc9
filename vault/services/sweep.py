"""The sweeper: takes the keys of what is due and not held, certifies it, then deletes the objects and certifies that.

One intent takes the audio whose date has come, the metadata whose own clock has run out, and the tenants whose contract
and export window are over; the intent's row raises the floor under which no recording can be born. What follows it is
`vault.services.shredding`. Objects are deleted after the certificates, and their absence is certified in turn.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from vault.errors import Conflict, Forbidden, GuardTripped, Invalid, Unavailable, VaultError
from vault.ids import RecordingId, TenantId, new_id
from vault.model import AuditEvent, Coordinate, Part, Pin, Principal, Recording, ShredPlan, ShredReceipt
from vault.ports.catalog import Catalog, Shred, SweepOverride
from vault.ports.keys import Keyring
from vault.ports.time import Clock, Entropy
from vault.retention.guards import Limits, check_sweep, effective_now
from vault.retention.policy import LAST_PERIOD, due_through, export_ends, metadata_due
from vault.services.audit import event
from vault.services.erasure import Erasures
from vault.services.holds import Holds
from vault.services.shredding import Shredder
from vault.telemetry import Metrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepLimits:
    """How often the sweeper runs, how long a tenant that leaves may export, and what makes a sweep stop and ask."""

    interval: timedelta
    jitter: timedelta
    export_window: timedelta
    guard: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepLine:
    """What a sweep does, or would do, with one recording."""

    recording: RecordingId
    action: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """The outcome of one sweep; `lines` only for a dry run."""

    at: datetime
    dry_run: bool
    due_through: int
    shredded: int = 0
    kept: int = 0
    deleted: int = 0
    waiting_for_deletion: int = 0
    receipt: ShredReceipt | None = None
    lines: Sequence[SweepLine] = field(default_factory=tuple)


class _SweptElsewhere(Unavailable):
    """Nothing is wrong: of several nodes one sweeps."""


class Sweeper:
    """Exactly one sweep at a time, of all nodes."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        keyring: Keyring,
        holds: Holds,
        shredder: Shredder,
        erasures: Erasures,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics,
        limits: SweepLimits,
    ) -> None:
        self._shredder = shredder
        self._erasures = erasures
        self._catalog = catalog
        self._keyring = keyring
        self._holds = holds
        self._clock = clock
        self._entropy = entropy
        self._metrics = metrics
        self._limits = limits
        self.last: SweepReport | None = None

    async def run(self) -> None:
        """Sweep at every interval plus jitter until cancelled; an outage or tripped guard postpones to the next.

        Returns after any other failure: a person looks before anything more is destroyed.
        """
        while True:
            jitter = random.uniform(0, self._limits.jitter.total_seconds())  # noqa: S311  # spreads load, no secret
            await asyncio.sleep(self._limits.interval.total_seconds() + jitter)
            try:
                await self.sweep(trigger="expiry", actor=None)
            except _SweptElsewhere:
                logger.info("another node is sweeping")
            except (Unavailable, GuardTripped) as error:
                logger.warning("sweep postponed", extra={"fields": {"error": error.code, "reason": error.message}})
            except VaultError as error:
                # Whatever contradicts itself is not swept again by the clock; recorders and players go on.
                logger.critical("the sweeper stopped", extra={"fields": {"error": error.code, "reason": error.message}})
                return

    async def resume(self) -> None:
        """Complete the shreds and erasures that a crash interrupted, unless another node is at it; before serving."""
        async with self._shredder.alone() as alone:
            if alone:
                await self._erasures.carry_out()

    async def preview(self) -> SweepReport:
        """Say what a sweep would do now and why, changing nothing."""
        now = self._clock.now()
        unpin = await self._holds.expired_pins(now=now)
        shred_now = await self._intent(now, "expiry", unpin)
        assert shred_now.due_through is not None
        through = shred_now.due_through
        freed = {(p.cohort, p.first, p.tag) for p in unpin}
        still = {(p.cohort, p.first) for p in self._keyring.pins() if (p.cohort, p.first, p.tag) not in freed}
        lines = [
            SweepLine(recording=row.id, action="keep", reason="a hold protects it")
            if (place.cohort, place.leaf) in still
            else SweepLine(recording=row.id, action="shred", reason=reason)
            async for row, place, reason in self._falling_due(shred_now)
        ]
        shred = sum(line.action == "shred" for line in lines)
        return SweepReport(
            at=now, dry_run=True, due_through=through, shredded=shred, kept=len(lines) - shred, lines=tuple(lines)
        )

    async def sweep(self, *, trigger: str, actor: Principal | None) -> SweepReport:
        """Shred, certify, delete. GuardTripped stops it before anything is touched, Unavailable anywhere.

        Unavailable too while another node sweeps.
        """
        async with self._shredder.alone() as alone:
            if not alone:
                raise _SweptElsewhere("another node is sweeping now; nothing was done", retry_after_seconds=30)
            began = self._clock.monotonic()
            await self._erasures.carry_out()
            report = await self._sweep(trigger, actor)
            self._metrics.sweep_duration.observe(self._clock.monotonic() - began)
            self.last = report
            return report

    async def _sweep(self, trigger: str, actor: Principal | None) -> SweepReport:
        # A clock that stepped back moves neither the floor nor the guard's memory backwards.
        now = effective_now(self._clock.now(), self._keyring.last_sweep_at)
        unpin = await self._holds.expired_pins(now=now)
        shred = await self._intent(now, trigger, unpin)
        through = shred.due_through
        assert through is not None
        await self._guard(now, shred, actor)
        shredded = 0
        receipt: ShredReceipt | None = None
        if self._keyring.has_due(_plan(shred, unpin)):
            await self._catalog.append_audit([event("sweep.started", actor, detail={"trigger": trigger})])
            receipt, shredded = await self._shredder.complete(shred)
        else:
            async with self._keyring.writer() as writer:
                await writer.unpin(unpin)
                await writer.set_last_sweep(now)
        deletions = await self._shredder.delete()
        deleted, waiting = deletions.done, deletions.waiting
        kept = await self._catalog.count_due(through=through)
        if receipt or deleted:
            await self._catalog.append_audit(
                [event("sweep.completed", actor, detail={"shredded": shredded, "kept": kept, "deleted": deleted})]
            )
        return SweepReport(
            at=now,
            dry_run=False,
            due_through=through,
            shredded=shredded,
            kept=kept,
            deleted=deleted,
            waiting_for_deletion=waiting,
            receipt=receipt,
        )

    async def _intent(self, now: datetime, trigger: str, unpin: Sequence[Pin]) -> Shred:
        """Say what a sweep at `now` takes: of metadata and tenants, only where something has a key and no pin."""
        shred = Shred(
            id=new_id("shr", at=now, entropy=self._entropy),
            intended_at=now,
            trigger=trigger,
            due_through=due_through(now, self._keyring.cohort_width_seconds),
        )
        only = dataclasses.replace(_plan(shred, unpin), due_through=None)
        metadata: dict[TenantId, int] = {}
        spared: set[tuple[TenantId, int]] = set()
        dropped: set[TenantId] = set()
        for tenant in await self._catalog.tenants():
            cohorts = self._keyring.cohorts(tenant.id, Part.METADATA)
            through, later = metadata_due(tenant, (cohort.period for cohort in cohorts), now=now)
            # The look at one tenant's months spares, nearly always, the one at every tenant's keys.
            if through is not None:
                alone = dataclasses.replace(
                    shred,
                    metadata_through={tenant.id: through},
                    spared=frozenset((tenant.id, month) for month in later),
                )
                plan = dataclasses.replace(_plan(alone, unpin), due_through=None)
                if self._keyring.has_due(dataclasses.replace(plan, keep=await self._shredder.outliving(alone))):
                    metadata[tenant.id] = through
                    spared |= alone.spared
            leaves = export_ends(tenant, self._limits.export_window)
            if leaves is not None and leaves <= now:
                plan = dataclasses.replace(only, drop_tenants=frozenset({tenant.id}))
                if (cohorts or self._keyring.cohorts(tenant.id, Part.AUDIO)) and self._keyring.has_due(plan):
                    dropped.add(tenant.id)
        return dataclasses.replace(
            shred, metadata_through=metadata, spared=frozenset(spared), drop_tenants=frozenset(dropped)
        )

    async def _falling_due(self, shred: Shred) -> AsyncIterator[tuple[Recording, Coordinate, str]]:
        """Yield what a sweep would look at, and why: the audio first, then metadata, then tenants that leave."""
        assert shred.due_through is not None
        async for row in self._shredder.due(shred.due_through):
            yield row, row.audio, f"retention ended {row.retain_until.isoformat(timespec='seconds')}"
        async for row in self._metadata_due(shred):
            yield row, row.metadata, "the retention of its metadata ended"
        for tenant in shred.drop_tenants:
            async for row in self._shredder.due(LAST_PERIOD, part=Part.METADATA, tenant=tenant):
                yield row, row.metadata, "its tenant's contract and export window are over"

    async def _metadata_due(self, shred: Shred) -> AsyncIterator[Recording]:
        """Yield what goes by the metadata's own clock, or would if nothing held it."""
        outliving = await self._shredder.outliving(shred)
        for tenant, through in shred.metadata_through.items():
            async for row in self._shredder.due(through, part=Part.METADATA, tenant=tenant):
                if shred.takes_month(tenant, row.metadata.cohort.period) and row.metadata not in outliving:
                    yield row

    async def _guard(self, now: datetime, shred: Shred, actor: Principal | None) -> None:
        """Stop a clock that jumped, or a sweep that would take too much; two people dropped a tenant, no clock did."""
        counts = await self._catalog.count_recordings()
        live = sum(count for state, count in counts.items() if state.value in {"open", "sealed", "truncated"})
        assert shred.due_through is not None
        due = Counter([row.tenant async for row in self._metadata_due(shred)])
        metadata = [
            (due[tenant], await self._catalog.count_due(through=LAST_PERIOD, part=Part.METADATA, tenant=tenant))
            for tenant in shred.metadata_through
        ]
        tripped = [
            check_sweep(
                now=now,
                last_sweep_at=self._keyring.last_sweep_at,
                due_count=due,
                live_count=of,
                limits=self._limits.guard,
            )
            for due, of in [(await self._catalog.count_due(through=shred.due_through), live), *metadata]
        ]
        reason = next((each.reason for each in tripped if each is not None), None)
        if reason is None or await self._overridden(now, actor):
            return
        await self._catalog.append_audit([event("sweep.tripped", actor, outcome="refused", detail={"reason": reason})])
        raise GuardTripped(
            f"the sweep stopped itself: {reason}; nothing was shredded",
            hint="check the clock; if it is right, two people override: callvault sweep override",
        )

    async def _overridden(self, now: datetime, actor: Principal | None) -> bool:
        """Use up a permission of two people, if there is one; before the sweep, so that it can never serve twice."""
        for override in await self._catalog.overrides():
            if not _serves(override, now):
                continue

            def revision(before: SweepOverride) -> tuple[SweepOverride, Sequence[AuditEvent]]:
                if not _serves(before, now):
                    raise Conflict(f"{before.id} no longer serves; nothing was shredded")
                used = event("sweep.override_used", actor, target=before.id)
                return dataclasses.replace(before, used_at=now), [used]

            await self._catalog.revise_override(override.id, revision)
            return True
        return False

    async def request_override(self, *, through: datetime, reason: str, actor: Principal) -> SweepOverride:
        """First of two people: vouch for the clock and for what is due, up to `through`."""
        now = self._clock.now()
        if through <= now:
            raise Invalid("an override reaches into the future", hint="say until when the guard is lifted")
        override = SweepOverride(
            id=new_id("ovr", at=now, entropy=self._entropy),
            through=through,
            reason=reason,
            requested_by=actor.token_id,
            requested_at=now,
        )
        detail = {"reason": reason, "through": through.isoformat()}
        await self._catalog.add_override(
            override, audit=[event("sweep.override_requested", actor, target=override.id, detail=detail)]
        )
        return override

    async def approve_override(self, identifier: str, *, actor: Principal) -> SweepOverride:
        """Second of two people; Forbidden for the first."""

        def revision(before: SweepOverride) -> tuple[SweepOverride, Sequence[AuditEvent]]:
            if before.requested_by == actor.token_id:
                raise Forbidden("the person who asked for an override cannot approve it")
            if before.approved_by is not None:
                raise Conflict(f"{identifier} is approved already")
            approved = dataclasses.replace(before, approved_by=actor.token_id)
            return approved, [event("sweep.override_approved", actor, target=identifier)]

        return await self._catalog.revise_override(identifier, revision)


def _serves(override: SweepOverride, now: datetime) -> bool:
    return override.approved_by is not None and override.used_at is None and now <= override.through


def _plan(shred: Shred, unpin: Sequence[Pin]) -> ShredPlan:
    return ShredPlan(
        intent_id=shred.id,
        at=shred.intended_at,
        due_through=shred.due_through,
        metadata_through=shred.metadata_through,
        spared=shred.spared,
        drop_tenants=shred.drop_tenants,
        unpin=tuple(unpin),
    )
