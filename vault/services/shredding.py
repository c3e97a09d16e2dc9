"""Carries a shred from its intent to its certificates: what sweeps and erasures share.

Order: intent row → keyring shred (point of no return inside) → receipt row → certificates → erasures marked done →
shred finished. A crash anywhere resumes at the next start or sweep: what is underivable and not yet certified is
certified; a recording never goes back. The keyring, not the catalog, says what was shredded.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from vault.model import (
    AuditEvent,
    Coordinate,
    Part,
    Pin,
    Recording,
    RecordingId,
    RecordingState,
    ShredPlan,
    ShredReceipt,
    Tenant,
    TenantId,
)
from vault.ports.catalog import Catalog, Shred
from vault.ports.erasures import Erasure, ErasureOutcome, ErasureState
from vault.ports.keys import Keyring, KeyringWriter
from vault.ports.time import Clock
from vault.retention.policy import LAST_PERIOD, metadata_until
from vault.services.audit import event
from vault.services.certify import Certifier, Gone
from vault.services.holds import Holds
from vault.telemetry import Metrics
from vault.tlog.certificate import Trigger

_PAGE = 500

_BASIS: Mapping[Trigger, str] = {
    Trigger.EXPIRY: "retention period agreed with the controller",
    Trigger.ART17: "erasure requested under UK GDPR Art. 17",
    Trigger.CONTROLLER_INSTRUCTION: "instruction of the controller",
    Trigger.CONTRACT_END: "the contract with the controller ended",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Authority:
    """Why something went: by its clock, with `through` the instant up to which it had run, or by two people."""

    trigger: Trigger
    tenant: Tenant | None = None
    through: datetime | None = None
    case_reference: str | None = None
    approvers: tuple[str, ...] = ()


class Shredder:
    """One shred at a time; whoever wants to intend one holds `lock`."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        keyring: Keyring,
        holds: Holds,
        certifier: Certifier,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._holds = holds
        self._certifier = certifier
        self._clock = clock
        self._metrics = metrics
        self.lock = asyncio.Lock()

    async def resume(self) -> None:
        """Complete every shred that was interrupted; the caller holds `lock`, or nothing is served yet."""
        for shred in await self._catalog.unfinished_shreds():
            await self.complete(shred)

    async def complete(self, shred: Shred) -> tuple[ShredReceipt, int]:
        """Carry one shred from wherever it is to fully certified; returns how many recordings were certified."""
        receipt = shred.receipt
        if receipt is None:
            async with self._keyring.writer() as writer:
                receipt = await self.take(shred, writer)
        return receipt, await self.account(shred, receipt)

    async def take(self, shred: Shred, writer: KeyringWriter, *, erasures: Sequence[Erasure] = ()) -> ShredReceipt:
        """Make the intent durable, then take the keys.

        Inside the writer: no hold can be decided between the intent and the point of no return.
        """
        detail: dict[str, object] = {"due_through": shred.due_through}
        if erasures:
            detail = {"erasures": len(erasures)}
        still_open = await self._catalog.intend_shred(
            shred,
            erasures=erasures,
            audit=[event("shred.intended", None, target=shred.id, detail=detail), *closing(erasures)],
        )
        leaves = frozenset(
            place
            for _, rows in await self._catalog.erasures_of(shred.id)
            for row in rows
            for place in (row.audio, row.metadata)
        )
        unpin = await self._holds.expired_pins(now=shred.intended_at)
        plan = ShredPlan(
            intent_id=shred.id,
            at=shred.intended_at,
            due_through=shred.due_through,
            metadata_through=shred.metadata_through,
            drop_tenants=shred.drop_tenants,
            leaves=leaves,
            keep=frozenset(place for row in still_open for place in (row.audio, row.metadata)),
            unpin=tuple(unpin) if shred.due_through is not None else _on(unpin, leaves),
        )
        return await writer.shred(plan)

    async def account(self, shred: Shred, receipt: ShredReceipt) -> int:
        """Write down that the keys are gone, certify it, and close what asked for it."""
        detail = {"epoch": receipt.epoch_destroyed}
        await self._catalog.record_receipt(
            shred.id, receipt, audit=[event("keyring.destroyed", None, target=shred.id, detail=detail)]
        )
        count = await self._certify(shred, receipt)
        await self._close_erasures(shred)
        await self._catalog.finish_shred(shred.id, at=self._clock.now())
        return count

    async def _certify(self, shred: Shred, receipt: ShredReceipt) -> int:
        count = 0
        batch: dict[RecordingId, Gone] = {}
        async for gone in self._gone(shred):
            # The first reason counts: a case that is decided outranks a date that has come.
            batch.setdefault(gone.recording.id, gone)
            if len(batch) == _PAGE:
                count += await self._certifier.provisional([*batch.values()], shred, receipt)
                batch = {}
        if batch:
            count += await self._certifier.provisional([*batch.values()], shred, receipt)
        self._metrics.shredded.labels(shred.trigger).inc(count)
        return count

    async def _gone(self, shred: Shred) -> AsyncIterator[Gone]:
        """Yield what this shred took and nobody has certified, with the authority for it."""
        tenants = {tenant.id: tenant for tenant in await self._catalog.tenants()}
        async for row, authority in self._touched(shred, tenants):
            if gone := self._of(row, authority):
                yield gone

    async def _touched(
        self, shred: Shred, tenants: Mapping[TenantId, Tenant]
    ) -> AsyncIterator[tuple[Recording, _Authority]]:
        for erasure, rows in await self._catalog.erasures_of(shred.id):
            for row in rows:
                yield row, _of_erasure(erasure)
        for identifier in sorted(shred.drop_tenants):
            for part in (Part.AUDIO, Part.METADATA):
                async for row in self.due(LAST_PERIOD, part=part, tenant=identifier):
                    yield row, _of_contract(tenants[identifier])
        expired = _Authority(trigger=Trigger.EXPIRY, through=shred.intended_at)
        if shred.due_through is not None:
            async for row in self.due(shred.due_through):
                yield row, expired
        for identifier, through in sorted(shred.metadata_through.items()):
            authority = dataclasses.replace(expired, tenant=tenants[identifier])
            async for row in self.due(through, part=Part.METADATA, tenant=identifier):
                yield row, authority

    def _of(self, row: Recording, authority: _Authority) -> Gone | None:
        """Return the parts of `row` that have no key and no certificate; None if there are none."""
        certified = {
            Part.AUDIO: row.state is RecordingState.SHREDDED,
            Part.METADATA: row.metadata_certificate_id is not None,
        }
        parts = tuple(
            part
            for part, place in ((Part.AUDIO, row.audio), (Part.METADATA, row.metadata))
            if not certified[part] and not self._keyring.derivable(place)
        )
        if not parts:
            return None
        return Gone(
            recording=row,
            parts=parts,
            trigger=authority.trigger,
            retain_until=_retain_until(row, parts, authority),
            basis=_BASIS[authority.trigger],
            case_reference=authority.case_reference,
            approvers=authority.approvers,
        )

    async def due(
        self, through: int, *, part: Part = Part.AUDIO, tenant: TenantId | None = None
    ) -> AsyncIterator[Recording]:
        """Yield the finished recordings of the periods up to `through` whose part is not certified gone."""
        after: RecordingId | None = None
        while page := await self._catalog.due_recordings(
            through=through, after=after, limit=_PAGE, part=part, tenant=tenant
        ):
            for row in page:
                yield row
            after = page[-1].id
            await asyncio.sleep(0)

    async def _close_erasures(self, shred: Shred) -> None:
        """Mark what is certified as erased; an erasure with nothing left to wait for is done."""
        for erasure, rows in await self._catalog.erasures_of(shred.id):
            taken = {row.id: ErasureOutcome.ERASED for row in rows}
            if not any(erasure.recordings[each] is ErasureOutcome.ERASING for each in taken):
                continue
            after = dataclasses.replace(erasure, recordings={**erasure.recordings, **taken})
            if ErasureOutcome.PENDING not in after.recordings.values():
                after = dataclasses.replace(after, state=ErasureState.DONE)
            await self._catalog.save_erasure(after, expected=erasure.state, audit=closing([after]))


def closing(erasures: Sequence[Erasure]) -> list[AuditEvent]:
    """Describe the end of those erasures that are done: how many recordings went, and how many had to stay."""
    return [
        event(
            "case.fulfilled",
            None,
            tenant=erasure.tenant,
            target=erasure.id,
            detail=dict(Counter(outcome.value for outcome in erasure.recordings.values())),
        )
        for erasure in erasures
        if erasure.state is ErasureState.DONE
    ]


def _on(pins: Sequence[Pin], leaves: frozenset[Coordinate]) -> tuple[Pin, ...]:
    """Return the pins that lie on single leaves of `leaves`."""
    places = {(place.cohort, place.leaf) for place in leaves}
    return tuple(pin for pin in pins if pin.first == pin.last and (pin.cohort, pin.first) in places)


def _retain_until(row: Recording, parts: Sequence[Part], authority: _Authority) -> datetime:
    """Return from when every one of `parts` was due by its clock, as it stood when the shred was intended."""
    tenant, through = authority.tenant, authority.through
    if through is None or Part.METADATA not in parts:
        return row.retain_until
    if tenant is None or tenant.metadata_retention_seconds is None:
        metadata = through
    else:
        # A retention that was lengthened after the intent came too late for what was already decided.
        kept = timedelta(seconds=tenant.metadata_retention_seconds)
        metadata = min(metadata_until(row.metadata.cohort.period, kept), through)
    return max(metadata, row.retain_until) if Part.AUDIO in parts else metadata


def _of_erasure(erasure: Erasure) -> _Authority:
    return _Authority(
        trigger=Trigger(erasure.basis.value),
        case_reference=erasure.case_reference,
        approvers=_people(erasure.requested_by, erasure.decided_by),
    )


def _of_contract(tenant: Tenant) -> _Authority:
    return _Authority(
        trigger=Trigger.CONTRACT_END, approvers=_people(tenant.offboard_requested_by, tenant.offboard_approved_by)
    )


def _people(*tokens: str | None) -> tuple[str, ...]:
    return tuple(token for token in tokens if token is not None)
