"""Carries a shred from its intent to its certificates, for sweeps and erasures.

Order: intent row → keyring shred (with the point of no return inside) → receipt row → provisional certificates, one
batch for each page → erasures marked done → shred finished → objects deleted and verified absent → final certificates,
once the leases of caches have run out too.

After a crash the next start or sweep continues: it certifies each recording that has no key and no certificate. The
keyring, not the catalog, decides what was shredded. A shredded recording never returns.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from vault.certificates.document import (
    EXPIRED,
    POLICY_VERSION,
    Authority,
    Case,
    Decider,
    Policy,
    Trigger,
    reference_digest,
    subject,
)
from vault.certificates.template import Lot, last_of
from vault.crypto.spans import Spans, points
from vault.errors import Conflict, Unavailable, VaultError
from vault.ids import RecordingId, TenantId, TokenId, id_bytes
from vault.model import (
    INDEX_LEAF,
    AuditEvent,
    Cohort,
    Coordinate,
    Part,
    Pin,
    Recording,
    RecordingState,
    RetentionChange,
    ShredPlan,
    ShredReceipt,
    Tenant,
)
from vault.ports.cluster import ClusterLocks
from vault.ports.erasures import Erasure, ErasureOutcome, ErasureRows, ErasureState
from vault.ports.keys import Keyring, KeyringWriter
from vault.ports.policies import PolicyLookup
from vault.ports.recordings import DueRows, RecordingLookup, RecordingsLookup
from vault.ports.revision import Revision
from vault.ports.shreds import Shred, ShredRows
from vault.ports.tenants import TenantLookup, TokenLookup
from vault.retention.decide import Clocks, Due, Ground, decide, falls_due
from vault.retention.periods import parse_period
from vault.retention.policy import LAST_PERIOD
from vault.services.audit import event
from vault.services.certificates.batches import IssuedBatch
from vault.services.certificates.issuing import Certifier, Deletions
from vault.services.holds.holds import Holds
from vault.services.recordings.dossiers import Dossiers
from vault.services.surroundings import Surroundings

_LOCK = "sweeper"
_PAGE = 500
_CERTIFICATE_PAGE = 4096
"""Recordings in a batch. Its commit blocks other writers; a certificate's proof grows with the batch's logarithm."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reason:
    """The authority for a shredding; for metadata that was due, its tenant and the end of its retention too."""

    authority: Authority
    tenant: Tenant | None = None
    through: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gone:
    """What a shred took of one recording, and why."""

    recording: Recording
    parts: tuple[Part, ...]
    reason: _Reason


class ShreddingRows(
    ShredRows,
    DueRows,
    RecordingLookup,
    RecordingsLookup,
    ErasureRows,
    PolicyLookup,
    TenantLookup,
    TokenLookup,
    Protocol,
):
    """The catalog methods that shredding needs."""


class Shredder:
    """Runs one shred at a time; its callers enter `alone`."""

    def __init__(
        self,
        *,
        catalog: ShreddingRows,
        keyring: Keyring,
        locks: ClusterLocks,
        holds: Holds,
        dossiers: Dossiers,
        certifier: Certifier,
        surroundings: Surroundings,
    ) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._holds = holds
        self._dossiers = dossiers
        self._certifier = certifier
        self._clock = surroundings.clock
        self._metrics = surroundings.metrics
        self._locks = locks
        self._lock = asyncio.Lock()
        self._more = asyncio.Event()
        self._again_in: timedelta | None = None
        self.deleted = 0
        """For how many recordings this process has issued a final certificate."""

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Wait for other shreds and deletions of this process; yield False if another node holds the lock."""
        async with self._lock, self._locks.try_hold(_LOCK) as held:
            yield held is not None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Like `alone`, but also wait for another node; Unavailable after a while."""
        async with self._lock, self._locks.hold(_LOCK):
            yield

    def check_named(self) -> None:
        """Raise Unnamed if certificates could not name who runs the vault; nothing may be shredded then."""
        self._certifier.check_named()

    async def resume(self) -> None:
        """Complete every interrupted shred; the caller has entered `alone`."""
        for shred in await self._catalog.unfinished_shreds():
            await self.complete(shred)

    # -- objects ------------------------------------------------------------------------------------------------

    async def delete(self) -> Deletions:
        """Delete objects and issue final certificates where possible; Unavailable stops it.

        The caller has entered `alone`.
        """
        self._again_in = None
        deletions = await self._certifier.delete_objects()
        self._again_in = deletions.again_in
        self.deleted += deletions.done
        self._more.set()
        return deletions

    async def finish(self) -> None:
        """Delete the objects that earlier shreds left, and issue final certificates once the leases have run out.

        Runs until cancelled, even if sweeps are only started by hand; it shreds nothing. After an outage the next sweep
        does the rest. Returns after any other failure, like the sweeper.
        """
        self._again_in = timedelta(0)
        while True:
            self._more.clear()
            pause = None if self._again_in is None else self._again_in.total_seconds()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._more.wait()
                continue  # a shred ran meanwhile and set another time
            try:
                async with self.alone() as alone:
                    if not alone:
                        self._again_in = None  # the node that sweeps does this too
                        continue
                    await self.delete()
            except Unavailable as error:
                logger.warning("object deletion postponed", extra={"fields": {"reason": error.message}})
            except VaultError as error:
                fields = {"error": error.code, "reason": error.message}
                logger.critical("object deletion stopped", extra={"fields": fields})
                return

    # -- keys ---------------------------------------------------------------------------------------------------

    async def complete(
        self, shred: Shred, *, spared: Sequence[Recording] = (), expired: Mapping[Cohort, Spans] | None = None
    ) -> tuple[ShredReceipt, int]:
        """Carry one shred from its present step to fully certified; return how many recordings were certified.

        `spared` rows stay; once the intent is durable, the shred itself names them. `expired` is the result of the
        method `expired`, if the caller has it already.
        """
        receipt = shred.receipt
        if receipt is None:
            expired = await self.expired(shred) if expired is None else expired
            async with self._keyring.writer() as writer:
                receipt = await self.take(shred, writer, spared=spared, expired=expired)
        return receipt, await self.account(shred, receipt)

    async def take(
        self,
        shred: Shred,
        writer: KeyringWriter,
        *,
        erasures: Sequence[Erasure] = (),
        spared: Sequence[Recording] = (),
        expired: Mapping[Cohort, Spans] | None = None,
    ) -> ShredReceipt:
        """Make the intent durable, then destroy the keys.

        The caller holds the keyring's writer, so no hold can be placed between the intent and the point of no return.
        """
        detail: dict[str, object] = {"due_through": shred.due_through}
        if erasures:
            detail = {"erasures": len(erasures)}
        kept = await self._catalog.intend_shred(
            shred,
            erasures=erasures,
            spared=[row.id for row in spared],
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
            spared=shred.spared,
            leaves=leaves,
            keep=frozenset(row.audio for row in kept) | await self.outliving(shred, kept),
            unpin=tuple(unpin) if shred.due_through is not None else _on(self._keyring, unpin, leaves),
            expired=expired or {},
            yielding=await self.yielding(),
        )
        return await writer.shred(plan)

    async def yielding(self) -> frozenset[bytes]:
        """Return the tags of the pins set by changes of retention; pins unknown to a stale catalog keep their keys."""
        return frozenset(id_bytes(each.id) for each in await self._catalog.policy_requests() if each.retention)

    async def expired(self, shred: Shred) -> Mapping[Cohort, Spans]:
        """Return the leaves of audio that changes of retention made due, for the tenants that the shred names.

        The result is the same at every call for one shred, except for leaves that a new hold keeps.
        """
        leaves: dict[Cohort, list[int]] = defaultdict(list)
        for identifier in sorted(shred.changed):
            tenant = await self._catalog.tenant(identifier)
            dossier = await self._dossiers.of(tenant)
            async for row in self.changed(tenant, shred.intended_at):
                decision = decide(dossier.facts(row), Part.AUDIO, now=shred.intended_at)
                if isinstance(decision, Due) and decision.ground is Ground.EXPIRY:
                    leaves[row.audio.cohort].append(row.audio.leaf)
        return {cohort: points(each) for cohort, each in leaves.items()}

    async def changed(self, tenant: Tenant, now: datetime) -> AsyncIterator[Recording]:
        """Yield the tenant's finished rows that a change of retention may have made due by `now`."""
        change = tenant.retention_changed
        if change is None:
            return
        started_to = now - parse_period(change.retention).shortest
        after: RecordingId | None = None
        while page := await self._catalog.changed_recordings(
            tenant.id, through=change.through, started_to=started_to, after=after, limit=_PAGE
        ):
            for row in page:
                yield row
            after = page[-1].id
            await asyncio.sleep(0)

    async def outliving(
        self, shred: Shred, still_open: Sequence[Recording] = (), *, tenants: Sequence[Tenant] = ()
    ) -> frozenset[Coordinate]:
        """Return the metadata, with its index, that outlives its month because its audio stays.

        The result is the same at every call for one shred. `tenants` are tenants with their pending requests applied.
        """
        keep = {row.metadata for row in still_open}
        known = {tenant.id: tenant for tenant in tenants}
        for identifier, through in shred.metadata_through.items():
            tenant = known.get(identifier) or await self._catalog.tenant(identifier)
            clocks = self._dossiers.clocks(tenant)
            async for row in self.due(through, part=Part.METADATA, tenant=identifier):
                until = falls_due(row, Part.METADATA, clocks)
                stays = until is not None and until > shred.intended_at and row.state is not RecordingState.SHREDDING
                if stays and identifier not in shred.drop_tenants:
                    keep.add(row.metadata)
        return frozenset({*keep, *(Coordinate(cohort=place.cohort, leaf=INDEX_LEAF) for place in keep)})

    async def account(self, shred: Shred, receipt: ShredReceipt) -> int:
        """Store that the keys are gone, certify it, and close the erasures that requested it; return how many."""
        detail = {"epoch": receipt.epoch_destroyed}
        await self._catalog.record_receipt(
            shred.id, receipt, audit=[event("keyring.destroyed", None, target=shred.id, detail=detail)]
        )
        count = await self._certify(shred, receipt)
        await self._close_erasures(shred)
        await self._catalog.finish_shred(shred.id, at=self._clock.now())
        return count

    # -- certificates -------------------------------------------------------------------------------------------

    async def _certify(self, shred: Shred, receipt: ShredReceipt) -> int:
        """Certify the recordings that this shred took and that have no certificate; return how many.

        Audio that was due is most of them: it comes last and is certified without reading the rows one by one.
        """
        count = await self._certify_each(shred, receipt)
        if shred.due_through is not None:
            count += await self._certify_audio(shred.due_through, shred, receipt)
        self._metrics.shredded.labels(shred.trigger).inc(count)
        return count

    async def _certify_audio(self, through: int, shred: Shred, receipt: ShredReceipt) -> int:
        """Certify in batches: the next one is read, and the one before it written, while one is signed.

        The batches share no recording.
        """
        count = 0
        reading = asyncio.ensure_future(self._catalog.due_lots(through=through, after=None, limit=_CERTIFICATE_PAGE))
        storing: asyncio.Task[int] | None = None
        try:
            while lots := await reading:
                after = last_of(lots)
                reading = asyncio.ensure_future(
                    self._catalog.due_lots(through=through, after=after, limit=_CERTIFICATE_PAGE)
                )
                issued = await self._certifier.prepare_due([self._gone(lot) for lot in lots], shred, receipt)
                if storing is not None:
                    count += await storing
                storing = asyncio.ensure_future(self._store(issued, shred))
            return count if storing is None else count + await storing
        finally:
            # Wait for both even if one failed: no task outlives this method.
            await asyncio.wait([reading] if storing is None else [reading, storing])

    def _gone(self, lot: Lot) -> Lot:
        living = self._keyring.living(lot.cohort, lot.leaves)
        return lot.only(lambda place: lot.leaves[place] not in living) if living else lot

    async def _store(self, issued: IssuedBatch | None, shred: Shred) -> int:
        return 0 if issued is None else await self._certifier.store(issued, shred)

    async def _certify_each(self, shred: Shred, receipt: ShredReceipt) -> int:
        """Certify, row by row, the recordings that went for another reason than the date of their audio."""
        count = 0
        batch: dict[RecordingId, _Gone] = {}
        async for row, reason in self._touched(shred):
            if parts := self._lost(row):
                # The first reason counts: a decision of two people outranks a date.
                batch.setdefault(row.id, _Gone(recording=row, parts=parts, reason=reason))
            if len(batch) == _PAGE:
                count += await self._certify_page([*batch.values()], shred, receipt)
                batch = {}
        return count + await self._certify_page([*batch.values()], shred, receipt)

    async def _certify_page(self, gone: Sequence[_Gone], shred: Shred, receipt: ShredReceipt) -> int:
        objects = await self._catalog.segments_of([each.recording.id for each in gone if Part.AUDIO in each.parts])
        tenants = {tenant.id: tenant for tenant in await self._catalog.tenants()}
        clocks = {identifier: self._dossiers.clocks(tenant) for identifier, tenant in tenants.items()}
        subjects = [
            subject(
                each.recording,
                objects.get(each.recording.id, ()),
                parts=each.parts,
                retain_until=_retain_until(each, clocks[each.recording.tenant]),
                applied=_applied(each, tenants[each.recording.tenant], clocks[each.recording.tenant]),
                authority=each.reason.authority,
            )
            for each in gone
        ]
        return await self._store(await self._certifier.prepare(subjects, shred, receipt), shred)

    async def _touched(self, shred: Shred) -> AsyncIterator[tuple[Recording, _Reason]]:
        """Yield the recordings that erasures, ends of contracts or retention of metadata may have taken."""
        tenants = {tenant.id: tenant for tenant in await self._catalog.tenants()}
        for erasure, rows in await self._catalog.erasures_of(shred.id):
            reason = await self._of_erasure(erasure)
            for row in rows:
                yield row, reason
        for identifier in sorted(shred.drop_tenants):
            reason = await self._of_contract(tenants[identifier])
            for part in (Part.AUDIO, Part.METADATA):
                async for row in self.due(LAST_PERIOD, part=part, tenant=identifier):
                    yield row, reason
        async for row, reason in self._run_out(shred, tenants):
            yield row, reason

    async def _run_out(
        self, shred: Shred, tenants: Mapping[TenantId, Tenant]
    ) -> AsyncIterator[tuple[Recording, _Reason]]:
        """Yield the recordings that changed retention of audio, or retention of metadata, may have taken."""
        for tenant in tenants.values():
            if shred.due_through is None or tenant.retention_changed is None:
                continue
            authority = await self._of_change(tenant.retention_changed)
            reason = _Reason(authority=authority, tenant=tenant, through=shred.intended_at)
            async for row in self.changed(tenant, shred.intended_at):
                yield row, reason
        for identifier, through in sorted(shred.metadata_through.items()):
            reason = _Reason(authority=EXPIRED, tenant=tenants[identifier], through=shred.intended_at)
            async for row in self.due(through, part=Part.METADATA, tenant=identifier):
                yield row, reason

    async def _of_erasure(self, erasure: Erasure) -> _Reason:
        case = Case(id=erasure.id, reference_sha256=reference_digest(erasure.id, erasure.case_reference))
        deciders = await self._deciders(
            (erasure.requested_by, erasure.requested_at), (erasure.decided_by, erasure.decided_at)
        )
        return _Reason(authority=Authority(Trigger(erasure.basis.value), case, deciders))

    async def _of_change(self, change: RetentionChange) -> Authority:
        """Return the authority for audio that goes at a changed date: expiry, with the two people who changed it."""
        request = next(each for each in await self._catalog.policy_requests() if each.id == change.request)
        deciders = await self._deciders(
            (request.requested_by, request.requested_at), (request.decided_by, request.decided_at)
        )
        return Authority(Trigger.EXPIRY, None, deciders)

    async def _of_contract(self, tenant: Tenant) -> _Reason:
        deciders = await self._deciders(
            (tenant.offboard_requested_by, None), (tenant.offboard_approved_by, tenant.offboard_approved_at)
        )
        return _Reason(authority=Authority(Trigger.CONTRACT_END, None, deciders))

    async def _deciders(self, *acts: tuple[str | None, datetime | None]) -> tuple[Decider, ...]:
        """Return the deciders, the requester first, each with the role of their token."""
        found: list[Decider] = []
        for token, at in acts:
            if token is not None:
                known = await self._catalog.token(TokenId(token))
                role = None if known is None else known.role
                found.append(Decider(person=None, token=token, role=role, at=at, evidence=None))
        return tuple(found)

    def _lost(self, row: Recording) -> tuple[Part, ...]:
        """Return the parts of `row` that have no key and no certificate."""
        certified = {
            Part.AUDIO: row.state is RecordingState.SHREDDED,
            # Facts without a certificate were lost unnoticed: nobody saw their key go, so nobody certifies that.
            Part.METADATA: row.metadata_certificate_id is not None or not row.sealed_facts,
        }
        return tuple(
            part
            for part, place in ((Part.AUDIO, row.audio), (Part.METADATA, row.metadata))
            if not certified[part] and not self._keyring.derivable(place)
        )

    async def due(
        self, through: int, *, part: Part = Part.AUDIO, tenant: TenantId | None = None
    ) -> AsyncIterator[Recording]:
        """Yield the finished recordings of the periods up to `through` whose part has no certificate."""
        after: RecordingId | None = None
        while page := await self._catalog.due_recordings(
            through=through, after=after, limit=_PAGE, part=part, tenant=tenant
        ):
            for row in page:
                yield row
            after = page[-1].id
            await asyncio.sleep(0)

    async def _close_erasures(self, shred: Shred) -> None:
        """Mark certified recordings as erased; an erasure with none left is done."""
        for erasure, rows in await self._catalog.erasures_of(shred.id):
            taken = {row.id: ErasureOutcome.ERASED for row in rows}
            if not any(erasure.recordings[each] is ErasureOutcome.ERASING for each in taken):
                continue
            after = dataclasses.replace(erasure, recordings={**erasure.recordings, **taken})
            if ErasureOutcome.PENDING not in after.recordings.values():
                after = dataclasses.replace(after, state=ErasureState.DONE)
            await self._catalog.revise_erasure(after.id, settling(after))


def settling(after: Erasure) -> Revision[Erasure]:
    """Return the revision that stores the outcome of an approved erasure; the caller holds the shredder."""

    def revision(before: Erasure) -> tuple[Erasure, Sequence[AuditEvent]]:
        if before.state is not ErasureState.APPROVED:
            raise Conflict(f"{before.id} is {before.state.value}, not approved; no outcome was stored")
        return dataclasses.replace(before, recordings=after.recordings, state=after.state), closing([after])

    return revision


def closing(erasures: Sequence[Erasure]) -> list[AuditEvent]:
    """Return an audit event for each finished erasure: how many recordings were erased, and how many had to stay."""
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


def _on(keyring: Keyring, free: Sequence[Pin], leaves: frozenset[Coordinate]) -> tuple[Pin, ...]:
    """Return of the `free` pins what is on `leaves`: a pin of adjoining recordings goes from one of them alone."""
    tags = {pin.tag for pin in free}
    return tuple(
        dataclasses.replace(pin, first=place.leaf, last=place.leaf)
        for place in leaves
        for pin in keyring.pins_on(place)
        if pin.tag in tags
    )


def _retain_until(gone: _Gone, clocks: Clocks) -> datetime:
    """Return when the last of the parts became due, by the rules at the time of the intent."""
    row, through = gone.recording, gone.reason.through
    audio = falls_due(row, Part.AUDIO, clocks) if clocks.changes(row) else row.retain_until
    if audio is None or through is None or Part.METADATA not in gone.parts:
        return audio or row.retain_until
    metadata = falls_due(dataclasses.replace(row, state=RecordingState.SHREDDED), Part.METADATA, clocks)
    metadata = through if metadata is None else min(metadata, through)
    return max(metadata, audio) if Part.AUDIO in gone.parts else metadata


def _applied(gone: _Gone, tenant: Tenant, clocks: Clocks) -> Policy | None:
    """Return the policy by which the recording was due; None if that is the policy of its capture.

    For metadata that went alone, it is the policy agreed for its month, not a later one.
    """
    if Part.AUDIO in gone.parts:
        change = clocks.changes(gone.recording)
        name = gone.recording.retention_class
        return None if change is None else Policy(name=name, version=POLICY_VERSION, period=change.retention)
    if gone.reason.tenant is None:
        return None
    kept = tenant.metadata_retention_of(gone.recording.metadata.cohort.period)
    return Policy(name=Part.METADATA.value, version=POLICY_VERSION, period=kept)
