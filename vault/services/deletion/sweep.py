"""The sweeper: destroys the keys of due recordings that are not held, certifies that, then deletes their objects.

One intent takes the due audio, the due metadata, and the tenants whose contract and export window are over. The
intent's row raises the floor below which no recording can begin. `vault.services.deletion.planning` plans the sweep,
`vault.services.deletion.shredding` carries it out. Objects are deleted after the provisional certificates; the final
certificates prove their absence.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

from vault.errors import GuardTripped, Unavailable, VaultError
from vault.ids import RecordingId, TenantId
from vault.model import AuditEvent, Principal, Recording, ShredReceipt
from vault.ports.audit import AuditTrail
from vault.ports.keys import Keyring
from vault.ports.recordings import DueCounts
from vault.retention.decide import PARTS, Due, Ground
from vault.retention.guards import Limits, Tripped, check_clock, effective_now
from vault.services.audit import event
from vault.services.certificates.content import Unnamed
from vault.services.deletion.erasures import Erasures, WaitingErasures
from vault.services.deletion.planning import Candidate, Planned, Planner
from vault.services.deletion.policies import Overrides, Policies
from vault.services.deletion.shredding import Shredder
from vault.services.surroundings import Surroundings

_REASONS = {
    Ground.ERASURE: "two people decided to erase it",
    Ground.CONTRACT_END: "its tenant's contract and export window are over",
    Ground.EXPIRY: "its retention ended",
}

_Kind: TypeAlias = tuple[TenantId, str, str]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepLimits:
    """How often the sweeper runs, and the limits of its guard."""

    interval: timedelta
    jitter: timedelta
    guard: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepLine:
    """What a sweep would do with one recording (`shred` a part of it, `keep` or `postpone` it), and why."""

    recording: RecordingId
    tenant: TenantId
    action: str
    reason: str

    @property
    def kind(self) -> _Kind:
        """What lines are counted by."""
        return self.tenant, self.action, self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepCount:
    """How many recordings of a tenant a sweep would treat alike, for one reason."""

    tenant: TenantId
    action: str
    reason: str
    recordings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """The result of one sweep, counted in recordings; `counts`, `lines` and `after` are set only for a dry run.

    `lines` are a page; `after` is its last recording if others follow. `postponed` are the tenants whose guard tripped:
    nothing of theirs went before its date.
    """

    at: datetime
    dry_run: bool
    due_through: int
    shredded: int = 0
    kept: int = 0
    deleted: int = 0
    waiting_for_deletion: int = 0
    receipt: ShredReceipt | None = None
    postponed: Sequence[Tripped] = ()
    erasures: WaitingErasures = field(default_factory=WaitingErasures)
    counts: Sequence[SweepCount] = field(default_factory=tuple)
    lines: Sequence[SweepLine] = field(default_factory=tuple)
    after: RecordingId | None = None


class _SweptElsewhere(Unavailable):
    """Another node is sweeping; this is no fault."""


class SweepRows(DueCounts, AuditTrail, Protocol):
    """The catalog methods that a sweep itself needs."""


class Sweeper:
    """Runs one sweep at a time among all nodes."""

    def __init__(
        self,
        *,
        catalog: SweepRows,
        keyring: Keyring,
        planner: Planner,
        overrides: Overrides,
        policies: Policies,
        shredder: Shredder,
        erasures: Erasures,
        surroundings: Surroundings,
        limits: SweepLimits,
    ) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._planner = planner
        self._overrides = overrides
        self._policies = policies
        self._shredder = shredder
        self._erasures = erasures
        self._clock = surroundings.clock
        self._metrics = surroundings.metrics
        self._limits = limits
        self._last: SweepReport | None = None
        self._deleted_before = 0

    async def run(self) -> None:
        """Sweep at every interval plus jitter until cancelled, also after an outage or a tripped guard.

        Returns after any other failure: a person must look before more is destroyed.
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
                # After a contradiction no further sweep starts by itself. Recording and playback continue.
                logger.critical("the sweeper stopped", extra={"fields": {"error": error.code, "reason": error.message}})
                return

    async def resume(self) -> None:
        """Complete interrupted shreds and erasures before the server accepts requests, unless another node does."""
        async with self._shredder.alone() as alone:
            if alone:
                await self._erase()

    async def preview(self, *, after: RecordingId | None = None, limit: int = 100) -> SweepReport:
        """Return what a sweep would do now and why, and what a guard would stop; changes nothing.

        Without `after`, all recordings are counted and the first `limit` are lines. With `after`, the recording of an
        earlier line, only the recordings after it are counted and listed. NotFound for `after`. Conflict if a sweep ran
        meanwhile.
        """
        now = effective_now(self._clock.now(), self._keyring.last_sweep_at)
        planned = await self._planner.plan(now, "expiry")
        erased = {row.id: row for row in await self._erasures.ready()}
        lines: list[SweepLine] = []
        further = False
        async for line in self._foreseen(planned, after, erased):
            if further := len(lines) == limit:
                break
            lines.append(line)
        if after is None and further:
            tally = await self._tally(planned, erased)
        else:
            tally = Counter(line.kind for line in lines)
        jumped = check_clock(now=now, last_sweep_at=self._keyring.last_sweep_at, limits=self._limits.guard)
        counts = [
            SweepCount(tenant=tenant, action=action, reason=reason, recordings=count)
            for (tenant, action, reason), count in sorted(tally.items())
        ]
        return SweepReport(
            at=now,
            dry_run=True,
            due_through=planned.base.due_through or 0,
            shredded=sum(each.recordings for each in counts if each.action == "shred"),
            kept=sum(each.recordings for each in counts if each.action == "keep"),
            postponed=[*([] if jumped is None else [jumped]), *planned.tripped],
            erasures=await self._erasures.waiting(),
            counts=counts,
            lines=lines,
            after=lines[-1].recording if further else None,
        )

    async def _tally(self, planned: Planned, erased: Mapping[RecordingId, Recording]) -> Counter[_Kind]:
        """Count the lines of `_foreseen` by kind; of whole cohorts without reading their rows."""
        tally = Counter((row.tenant, "shred", _REASONS[Ground.ERASURE]) for row in erased.values())
        alike = Counter(await self._planner.uniform(planned))
        apart: set[RecordingId] = set()
        async for found in self._planner.exceptions(planned, {cohort.tenant for cohort in alike}):
            apart.add(found.row.id)
            if found.row.audio.cohort in alike:
                alike[found.row.audio.cohort] -= 1
            if found.row.id not in erased and planned.concerns(found.row):
                tally[_line(planned, found).kind] += 1
        for row in erased.values():
            if row.id not in apart and row.audio.cohort in alike:
                alike[row.audio.cohort] -= 1
        for cohort, count in alike.items():
            tally[cohort.tenant, "shred", _REASONS[Ground.EXPIRY]] += count
        return +tally

    async def _foreseen(
        self, planned: Planned, after: RecordingId | None, erased: Mapping[RecordingId, Recording]
    ) -> AsyncIterator[SweepLine]:
        """Yield a line for each recording: first those that two people decided to erase, in order of id."""
        for recording in sorted(erased):
            if after is None or (after in erased and recording > after):
                reason = _REASONS[Ground.ERASURE]
                yield SweepLine(recording=recording, tenant=erased[recording].tenant, action="shred", reason=reason)
        async for found in self._planner.candidates(planned, after=None if after in erased else after):
            if found.row.id not in erased and planned.concerns(found.row):
                yield _line(planned, found)

    async def last(self) -> SweepReport | None:
        """Return this process's last sweep, with what has been deleted since and what waits now; None before it."""
        report, before = self._last, self._deleted_before
        return report and replace(
            report,
            deleted=report.deleted + self._shredder.deleted - before,
            waiting_for_deletion=await self.waiting_for_deletion(),
            erasures=await self._erasures.waiting(),
        )

    async def waiting_for_deletion(self, *, tenant: TenantId | None = None) -> int:
        """Return how many shredded recordings wait for their final certificate, with `tenant` only that tenant's."""
        return await self._catalog.count_undeleted(tenant=tenant)

    async def sweep(self, *, trigger: str, actor: Principal | None) -> SweepReport:
        """Shred, certify, delete. GuardTripped with nothing changed; Unavailable at any step.

        Unavailable also while another node sweeps.
        """
        async with self._shredder.alone() as alone:
            if not alone:
                raise _SweptElsewhere("another node is sweeping now; nothing was done", retry_after_seconds=30)
            began = self._clock.monotonic()
            erased = await self._erase()
            report = await self._sweep(trigger, actor, erased)
            self._metrics.sweep_duration.observe(self._clock.monotonic() - began)
            self._last, self._deleted_before = report, self._shredder.deleted
            return report

    async def _sweep(self, trigger: str, actor: Principal | None, erased: int) -> SweepReport:
        # A clock that stepped back must not move the floor or the guard's last time backwards.
        now = effective_now(self._clock.now(), self._keyring.last_sweep_at)
        await self._check_clock(now, actor)
        await self._policies.apply(now)
        planned = await self._guarded(await self._planner.plan(now, trigger), now, actor)
        shred = planned.shred
        shredded = erased
        receipt: ShredReceipt | None = None
        if self._keyring.has_due(planned.plan()):
            await self._check_named(now)
            await self._catalog.append_audit([event("sweep.started", actor, detail={"trigger": trigger})])
            receipt, certified = await self._shredder.complete(shred, spared=planned.spared, expired=planned.expired)
            shredded += certified
        else:
            async with self._keyring.writer() as writer:
                await writer.unpin(planned.unpin)
                await writer.set_last_sweep(now)
        deletions = await self._shredder.delete()
        deleted, waiting = deletions.done, deletions.waiting
        assert shred.due_through is not None
        kept = await self._catalog.count_due(through=shred.due_through) + len(planned.kept)
        if receipt or deleted:
            await self._catalog.append_audit(
                [event("sweep.completed", actor, detail={"shredded": shredded, "kept": kept, "deleted": deleted})]
            )
        return SweepReport(
            at=now,
            dry_run=False,
            due_through=shred.due_through,
            shredded=shredded,
            kept=kept,
            deleted=deleted,
            waiting_for_deletion=waiting,
            receipt=receipt,
            postponed=planned.tripped,
            erasures=await self._erasures.waiting(),
        )

    async def _erase(self) -> int:
        """Carry out approved erasures; they wait while certificates could not name who runs the vault."""
        try:
            return await self._erasures.carry_out()
        except Unnamed as error:
            logger.warning("erasures wait", extra={"fields": {"reason": error.message, "hint": error.hint}})
            return 0

    async def _check_named(self, now: datetime) -> None:
        """Raise Unnamed before anything is shredded. The time is stored first, else the clock would seem to jump."""
        try:
            self._shredder.check_named()
        except Unnamed:
            async with self._keyring.writer() as writer:
                await writer.set_last_sweep(now)
            raise

    async def _check_clock(self, now: datetime, actor: Principal | None) -> None:
        """Stop the sweep for a clock that jumped, unless two operators overrode the guard."""
        jumped = check_clock(now=now, last_sweep_at=self._keyring.last_sweep_at, limits=self._limits.guard)
        if jumped is None or await self._overrides.use(jumped, now, actor):
            return
        await self._overrides.remember([jumped])
        await self._catalog.append_audit([_tripped_event(jumped, actor)])
        raise GuardTripped(
            f"the sweep stopped itself: {jumped.reason}; nothing was shredded",
            hint="check the clock; if it is right, two operators override: callvault sweep override",
        )

    async def _guarded(self, planned: Planned, now: datetime, actor: Principal | None) -> Planned:
        """Apply overrides; anything else that tripped is postponed for its tenant and logged."""
        for stopped in planned.tripped:
            assert stopped.tenant is not None
            if await self._overrides.use(stopped, now, actor):
                planned = planned.lifted(stopped.tenant)
                continue
            self._metrics.sweep_tripped.inc()
            logger.error(
                "the guard postpones a tenant's early deletions",
                extra={"fields": {"tenant": stopped.tenant, "reason": stopped.reason}},
            )
            await self._catalog.append_audit([_tripped_event(stopped, actor)])
        self._metrics.sweep_tripped_tenants.set(len(planned.tripped))
        await self._overrides.remember(planned.tripped)
        return planned


def _tripped_event(stopped: Tripped, actor: Principal | None) -> AuditEvent:
    detail = {"guard": stopped.guard.value, "reason": stopped.reason}
    return event("sweep.tripped", actor, outcome="refused", tenant=stopped.tenant, detail=detail)


def _line(planned: Planned, found: Candidate) -> SweepLine:
    """Return the line of one recording, with its strongest reason."""
    row = found.row
    for action, tripped in (("shred", False), ("postpone", True)):
        due = [
            decision
            for part in PARTS
            if isinstance(decision := found.decisions[part], Due) and planned.takes(row, part, tripped=tripped)
        ]
        if due:
            grounds = [ground for ground in Ground if any(each.ground is ground for each in due)]
            reason = "; ".join(_REASONS[ground] for ground in grounds)
            if action == "postpone":
                reason = f"{reason}, and the guard postpones it"
            return SweepLine(recording=row.id, tenant=row.tenant, action=action, reason=reason)
    reason = "a hold protects it" if found.held else "it must be kept, although its cohort goes"
    return SweepLine(recording=row.id, tenant=row.tenant, action="keep", reason=reason)
