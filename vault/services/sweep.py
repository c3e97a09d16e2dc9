"""The sweeper: takes the keys of what is due and not held, certifies it, then deletes the objects and certifies that.

Order: intent row (raises the floor under which no recording can be born) → keyring shred (point of no return inside) →
receipt row → provisional certificates, a batch a page → objects deleted and verified absent → final certificates,
once the leases of caches have run out too.
A crash anywhere resumes at the next start or sweep: what is underivable and not yet certified is certified; a recording
never goes back. The keyring, not the catalog, says what was shredded.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from vault.errors import Forbidden, GuardTripped, Invalid, NotFound, Unavailable, VaultError
from vault.format.codec import pack
from vault.model import Pin, Principal, Recording, RecordingId, ShredPlan, ShredReceipt, new_id
from vault.ports.catalog import Catalog, Shred, SweepOverride
from vault.ports.cluster import ClusterLocks
from vault.ports.keys import Keyring, KeyringWriter
from vault.ports.time import Clock, Entropy
from vault.retention.guards import Limits, check_sweep, effective_now
from vault.retention.policy import due_through
from vault.services.audit import event
from vault.services.certificates import IssuedBatch
from vault.services.certify import Certifier, Deletions
from vault.services.holds import Holds
from vault.telemetry import Metrics

_PAGE = 500
_LOCK = "sweeper"
_CERTIFICATE_PAGE = 2048
"""Recordings a batch: its commit keeps other writers waiting, and its proofs grow with its logarithm."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepLimits:
    """How often the sweeper runs and what makes it stop and ask."""

    interval: timedelta
    jitter: timedelta
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
        locks: ClusterLocks,
        holds: Holds,
        certifier: Certifier,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics,
        limits: SweepLimits,
    ) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._locks = locks
        self._holds = holds
        self._certifier = certifier
        self._clock = clock
        self._entropy = entropy
        self._metrics = metrics
        self._limits = limits
        self._lock = asyncio.Lock()
        self._more = asyncio.Event()
        self._again_in: timedelta | None = None
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

    async def finish(self) -> None:
        """Delete and finally certify what earlier sweeps left, then whatever waits for leases when they run out.

        Runs until cancelled, also where sweeps are started by hand alone: it shreds nothing. An outage leaves the rest
        to the next sweep; returns after any other failure, as `run` does.
        """
        self._again_in = timedelta(0)
        while True:
            self._more.clear()
            pause = None if self._again_in is None else self._again_in.total_seconds()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._more.wait()
                continue  # a sweep has come between, and knows better for what there is to wait
            try:
                async with self._lock, self._locks.try_hold(_LOCK) as held:
                    if held is None:
                        self._again_in = None  # the node that sweeps does this too
                        continue
                    await self._delete()
            except Unavailable as error:
                logger.warning("object deletion postponed", extra={"fields": {"reason": error.message}})
            except VaultError as error:
                fields = {"error": error.code, "reason": error.message}
                logger.critical("object deletion stopped", extra={"fields": fields})
                return

    async def _delete(self) -> Deletions:
        self._again_in = None
        deletions = await self._certifier.delete_objects()
        self._again_in = deletions.again_in
        self._more.set()
        return deletions

    async def resume(self) -> None:
        """Complete shreds that a crash interrupted, unless another node is at it; before anything is served."""
        async with self._lock, self._locks.try_hold(_LOCK) as held:
            for shred in await self._catalog.unfinished_shreds() if held else ():
                await self._complete(shred)

    async def preview(self) -> SweepReport:
        """Say what a sweep would do now and why, changing nothing."""
        now = self._clock.now()
        through = due_through(now, self._keyring.cohort_width_seconds)
        freed = {(p.cohort, p.first, p.tag) for p in await self._holds.expired_pins(now=now)}
        still = {(p.cohort, p.first) for p in self._keyring.pins() if (p.cohort, p.first, p.tag) not in freed}
        lines = [
            SweepLine(recording=row.id, action="keep", reason="a hold protects it")
            if (row.audio.cohort, row.audio.leaf) in still
            else SweepLine(
                recording=row.id,
                action="shred",
                reason=f"retention ended {row.retain_until.isoformat(timespec='seconds')}",
            )
            async for row in self._due(through)
        ]
        shred = sum(line.action == "shred" for line in lines)
        return SweepReport(
            at=now, dry_run=True, due_through=through, shredded=shred, kept=len(lines) - shred, lines=tuple(lines)
        )

    async def sweep(self, *, trigger: str, actor: Principal | None) -> SweepReport:
        """Shred, certify, delete. GuardTripped stops it before anything is touched, Unavailable anywhere.

        Unavailable too while another node sweeps.
        """
        async with self._lock, self._locks.try_hold(_LOCK) as held:
            if held is None:
                raise _SweptElsewhere("another node is sweeping now; nothing was done", retry_after_seconds=30)
            began = self._clock.monotonic()
            for shred in await self._catalog.unfinished_shreds():
                await self._complete(shred)
            report = await self._sweep(trigger, actor)
            self._metrics.sweep_duration.observe(self._clock.monotonic() - began)
            self.last = report
            return report

    async def _sweep(self, trigger: str, actor: Principal | None) -> SweepReport:
        # A clock that stepped back moves neither the floor nor the guard's memory backwards.
        now = effective_now(self._clock.now(), self._keyring.last_sweep_at)
        through = due_through(now, self._keyring.cohort_width_seconds)
        await self._guard(now, through, actor)
        unpin = await self._holds.expired_pins(now=now)
        shredded = 0
        receipt: ShredReceipt | None = None
        if self._keyring.has_due(through, unpin):
            await self._catalog.append_audit([event("sweep.started", actor, detail={"trigger": trigger})])
            identifier = new_id("shr", at=now, entropy=self._entropy)
            shred = Shred(
                id=identifier,
                intended_at=now,
                trigger=trigger,
                due_through=through,
                plan=pack({"due_through": through}),
            )
            receipt, shredded = await self._complete(shred)
        else:
            async with self._keyring.writer() as writer:
                await writer.unpin(unpin)
                await writer.set_last_sweep(now)
        deletions = await self._delete()
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

    async def _guard(self, now: datetime, through: int, actor: Principal | None) -> None:
        counts = await self._catalog.count_recordings()
        live = sum(count for state, count in counts.items() if state.value in {"open", "sealed", "truncated"})
        tripped = check_sweep(
            now=now,
            last_sweep_at=self._keyring.last_sweep_at,
            due_count=await self._catalog.count_due(through=through),
            live_count=live,
            limits=self._limits.guard,
        )
        if tripped is None or await self._overridden(now, actor):
            return
        await self._catalog.append_audit(
            [event("sweep.tripped", actor, outcome="refused", detail={"reason": tripped.reason})]
        )
        raise GuardTripped(
            f"the sweep stopped itself: {tripped.reason}; nothing was shredded",
            hint="check the clock; if it is right, two people override: callvault sweep override",
        )

    async def _overridden(self, now: datetime, actor: Principal | None) -> bool:
        """Use up a permission of two people, if there is one; before the sweep, so that it can never serve twice."""
        for override in await self._catalog.overrides():
            if override.approved_by and override.used_at is None and now <= override.through:
                used = dataclasses.replace(override, used_at=now)
                await self._catalog.save_override(used, audit=[event("sweep.override_used", actor, target=override.id)])
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
        await self._catalog.save_override(
            override, audit=[event("sweep.override_requested", actor, target=override.id, detail=detail)]
        )
        return override

    async def approve_override(self, identifier: str, *, actor: Principal) -> SweepOverride:
        """Second of two people; Forbidden for the first."""
        found = next((item for item in await self._catalog.overrides() if item.id == identifier), None)
        if found is None:
            raise NotFound("there is no such override")
        if found.requested_by == actor.token_id:
            raise Forbidden("the person who asked for an override cannot approve it")
        approved = dataclasses.replace(found, approved_by=actor.token_id)
        await self._catalog.save_override(approved, audit=[event("sweep.override_approved", actor, target=identifier)])
        return approved

    async def _complete(self, shred: Shred) -> tuple[ShredReceipt, int]:
        """Carry one shred from wherever it is to fully certified."""
        receipt = shred.receipt
        if receipt is None:
            async with self._keyring.writer() as writer:
                receipt = await self._take_keys(shred, writer)
            await self._catalog.record_receipt(
                shred.id,
                receipt,
                audit=[event("keyring.destroyed", None, target=shred.id, detail={"epoch": receipt.epoch_destroyed})],
            )
        count = await self._certify(shred, receipt)
        await self._catalog.finish_shred(shred.id, at=self._clock.now())
        return receipt, count

    async def _take_keys(self, shred: Shred, writer: KeyringWriter) -> ShredReceipt:
        # Inside the writer: no hold can be decided between the intent and the point of no return.
        assert shred.due_through is not None
        still_open = await self._catalog.intend_shred(
            shred, audit=[event("shred.intended", None, target=shred.id, detail={"due_through": shred.due_through})]
        )
        unpin: list[Pin] = await self._holds.expired_pins(now=shred.intended_at)
        plan = ShredPlan(
            intent_id=shred.id,
            at=shred.intended_at,
            due_through=shred.due_through,
            keep=frozenset(row.audio for row in still_open),
            unpin=tuple(unpin),
        )
        return await writer.shred(plan)

    async def _certify(self, shred: Shred, receipt: ShredReceipt) -> int:
        count = 0
        issued, after = await self._next_batch(shred, receipt, after=None)
        while after is not None:
            # The next batch is read and signed while this one is written; it lies behind, so the two do not meet.
            reading = asyncio.ensure_future(self._next_batch(shred, receipt, after=after))
            try:
                count += await self._store(issued, shred)
            finally:
                # Whatever became of the writing, nothing goes on reading behind the caller's back.
                await asyncio.wait([reading])
            issued, after = reading.result()
        self._metrics.shredded.labels(shred.trigger).inc(count)
        return count

    async def _next_batch(
        self, shred: Shred, receipt: ShredReceipt, *, after: RecordingId | None
    ) -> tuple[IssuedBatch | None, RecordingId | None]:
        """Sign for the next page of what is due and has no key; return the batch and the page's last recording."""
        assert shred.due_through is not None
        page = await self._catalog.due_subjects(through=shred.due_through, after=after, limit=_CERTIFICATE_PAGE)
        gone = [subject for subject in page if not self._keyring.derivable(subject.coordinate)]
        issued = await self._certifier.prepare(gone, shred, receipt)
        return issued, page[-1].recording_id if page else None

    async def _store(self, issued: IssuedBatch | None, shred: Shred) -> int:
        return 0 if issued is None else await self._certifier.store(issued, shred)

    async def _due(self, through: int) -> AsyncIterator[Recording]:
        after: RecordingId | None = None
        while page := await self._catalog.due_recordings(through=through, after=after, limit=_PAGE):
            for row in page:
                yield row
            after = page[-1].id
            await asyncio.sleep(0)
