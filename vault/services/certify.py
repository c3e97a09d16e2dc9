"""Issues deletion certificates: provisional when the keys are gone, final when the objects are verified absent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from vault import __version__
from vault.crypto.signing import SigningKey
from vault.errors import NotFound, Unavailable
from vault.format.names import recording_prefix
from vault.model import (
    CertificateId,
    CertificateStatus,
    Part,
    Recording,
    RecordingId,
    ShredReceipt,
    StoredCertificate,
    Tenant,
    TenantId,
    new_id,
)
from vault.ports.catalog import Catalog, Shred
from vault.ports.objects import Deletion, ObjectStore
from vault.ports.time import Clock, Entropy
from vault.services.audit import event
from vault.telemetry import Metrics
from vault.tlog.certificate import (
    ALGORITHM,
    METADATA_ALGORITHM,
    Authorisation,
    Check,
    CheckName,
    DataCopy,
    DeletionCertificate,
    Encryption,
    Issuer,
    KeyCopy,
    KeyPlace,
    MediaFacts,
    Parties,
    Residual,
    Result,
    RetentionFacts,
    Sanitisation,
    Trigger,
    Verification,
    media_facts,
    statements,
    verify_certificate,
)

_PAGE = 200
_DELETE_CONCURRENCY = 8
_ACTOR = "callvault sweeper"
_POLICY_VERSION = "callvault/retention/v1"
_OBJECTS = Residual(
    where="objects",
    state="encrypted, without a key",
    until=None,
    mechanism="deleted after this certificate; the final certificate says when",
)
_TOKENS = Residual(
    where="search tokens in older copies of the catalog",
    state="testable for a number that is already suspected, by a holder of the live keyring",
    until=None,
    mechanism="unusable once the metadata of the call's month is shredded, which takes the index key along",
)
_COPIES = Residual(
    where="backups of the catalog and manifests of the audio, while that is kept",
    state="encrypted, without a key",
    until=None,
    mechanism="unreadable since unrecoverable_at; they leave with the backup schedule and with the audio",
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who certifies: the processor, how to reach it, and where the data was."""

    processor: str
    contact: str
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """What a shred took of one recording, and on whose authority; `approvers` are the ids of two people's tokens.

    Only a deletion before `retain_until` needs them. `basis` is for people to read.
    """

    recording: Recording
    parts: tuple[Part, ...]
    trigger: Trigger
    retain_until: datetime
    basis: str
    case_reference: str | None = None
    approvers: tuple[str, ...] = ()


class Certifier:
    """Turns shreds into certificates and deletes what they made unreadable."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: ObjectStore,
        issuer_key: SigningKey,
        identity: Identity,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._issuer = Issuer(issuer_key)
        self._verify_key = issuer_key.public
        self._identity = identity
        self._clock = clock
        self._entropy = entropy
        self._metrics = metrics

    @property
    def issuer_public_pem(self) -> str:
        """The public key that verifies certificates."""
        return self._verify_key.to_pem().decode()

    # -- keys gone ----------------------------------------------------------------------------------------------

    async def provisional(self, gone: Sequence[Gone], shred: Shred, receipt: ShredReceipt) -> int:
        """Certify that the keys of `gone` do not exist; repeating adds nothing. Returns how many were certified.

        Metadata has no objects: where it alone went, the one certificate is final.
        """
        tenants = await self._tenants()
        objects = await self._catalog.segments_of([each.recording.id for each in gone])
        issued: list[StoredCertificate] = []
        for each in gone:
            row = each.recording
            stored = objects[row.id] if Part.AUDIO in each.parts else ()
            media = replace(media_facts(row, stored, region=self._identity.region), parts=each.parts)
            issued.append(
                self._issue(
                    each,
                    tenants[row.tenant],
                    media=media,
                    sanitisation=_sanitisation(shred, receipt),
                    holds_checked_at=shred.intended_at,
                    hold_revision=receipt.epoch_live,
                )
            )
        await self._catalog.certify(
            issued,
            audit=[
                event("shred.done", None, tenant=item.tenant, target=item.recording, detail={"certificate": item.id})
                for item in issued
            ],
        )
        for status in CertificateStatus:
            self._metrics.certificates.labels(status.value).inc(sum(item.status is status for item in issued))
        return len(issued)

    async def _tenants(self) -> Mapping[TenantId, Tenant]:
        return {tenant.id: tenant for tenant in await self._catalog.tenants()}

    def _issue(
        self,
        gone: Gone,
        tenant: Tenant,
        *,
        media: MediaFacts,
        sanitisation: Sanitisation,
        holds_checked_at: datetime,
        hold_revision: int,
    ) -> StoredCertificate:
        row = gone.recording
        audio = Part.AUDIO in gone.parts
        now = self._clock.now()
        claims, non_claims = statements(sanitisation.assurance, gone.parts)
        checks: tuple[Check, ...] = (
            Check(check=CheckName.OLD_EPOCH_UNWRAP_FAILS, result=Result.DONE),
            Check(check=CheckName.LEAF_UNDERIVABLE, result=Result.DONE),
        )
        verified = max(now, sanitisation.unrecoverable_at, sanitisation.caches_clear_at)
        if not audio:
            checks = (*checks, Check(check=CheckName.OBJECTS_ABSENT, result=Result.DONE))
            sanitisation = replace(sanitisation, completed=verified)
        certificate = DeletionCertificate(
            certificate_id=self._identifier(now),
            nonce=self._entropy(16).hex(),
            status=CertificateStatus.PROVISIONAL if audio else CertificateStatus.FINAL,
            supersedes=None,
            parties=Parties(
                tenant=row.tenant,
                controller=tenant.controller,
                processor=self._identity.processor,
                contact=self._identity.contact,
            ),
            media=media,
            encryption=Encryption(
                algorithm=ALGORITHM if audio else METADATA_ALGORITHM,
                coordinate=row.audio if audio else row.metadata,
                key_commitment=None,
                encrypted_before_first_write=True,
            ),
            retention=RetentionFacts(
                policy=row.retention_class if audio else Part.METADATA.value,
                policy_version=_POLICY_VERSION,
                basis=gone.basis,
                captured_at=row.started_at,
                retain_until=gone.retain_until,
                trigger=gone.trigger,
                case_reference=gone.case_reference,
            ),
            authorisation=Authorisation(
                holds_checked_at=holds_checked_at, hold_revision=hold_revision, active_holds=0, approvers=gone.approvers
            ),
            sanitisation=sanitisation,
            verification=Verification(
                checks=checks, at=verified if not audio else max(now, sanitisation.unrecoverable_at)
            ),
            residuals=(_OBJECTS if audio else _COPIES, *_tokens_left(gone)),
            claims=claims,
            non_claims=non_claims,
        )
        return self._stored(certificate, now)

    def _identifier(self, now: datetime) -> CertificateId:
        return CertificateId(new_id("cert", at=now, entropy=self._entropy))

    def _stored(self, certificate: DeletionCertificate, now: datetime) -> StoredCertificate:
        return StoredCertificate(
            id=certificate.certificate_id,
            recording=certificate.media.recording_id,
            tenant=certificate.parties.tenant,
            status=certificate.status,
            supersedes=certificate.supersedes,
            issued_at=now,
            jws=self._issuer.issue(certificate),
            parts=certificate.media.parts,
        )

    # -- objects gone -------------------------------------------------------------------------------------------

    async def delete_objects(self) -> tuple[int, int]:
        """Delete the objects of shredded recordings and certify their absence.

        Returns how many recordings are done and how many wait: for the store to answer, or for a lock to run out.
        """
        done = waiting = 0
        after: RecordingId | None = None
        while page := await self._catalog.undeleted_recordings(after=after, limit=_PAGE):
            slots = asyncio.Semaphore(_DELETE_CONCURRENCY)
            outcomes = await asyncio.gather(*(self._finalise(row, slots) for row in page), return_exceptions=True)
            finished = [outcome for outcome in outcomes if isinstance(outcome, StoredCertificate)]
            await self._catalog.certify(finished)
            self._metrics.certificates.labels("final").inc(len(finished))
            done += len(finished)
            waiting += len(page) - len(finished)
            failure = next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), None)
            if isinstance(failure, Unavailable):
                logger.warning("object deletion postponed", extra={"fields": {"reason": failure.message}})
                break
            if failure is not None:
                raise failure
            after = page[-1].id
        return done, waiting

    async def _finalise(self, row: Recording, slots: asyncio.Semaphore) -> StoredCertificate | None:
        """Delete everything of one recording; None while something is still there."""
        async with slots:
            known = [ref.name for ref in await self._catalog.segments(row.id)]
            prefix = recording_prefix(row.tenant, row.audio.cohort.period, row.id)
            found = [info.name async for info in self._store.list(prefix)]
            deletions = [await self._delete(name) for name in sorted({*known, *found})]
            if any(not deletion.absent for deletion in deletions):
                return None
            assert row.certificate_id is not None
            provisional = await self._catalog.certificate(row.certificate_id)
            return self._final(provisional, deletions)

    async def _delete(self, name: str) -> Deletion:
        """Delete one object; the label of a hold that has ended must not outlive the key."""
        deletion = await self._store.delete(name)
        if deletion.absent:
            return deletion
        with suppress(NotFound):
            await self._store.set_held(name, held=False)
        return await self._store.delete(name)

    def _final(self, provisional: StoredCertificate, deletions: Sequence[Deletion]) -> StoredCertificate:
        before = verify_certificate(provisional.jws, self._verify_key).certificate
        now = max(self._clock.now(), before.verification.at, before.sanitisation.caches_clear_at)
        versions = {deletion.name: deletion.versions_deleted for deletion in deletions}
        objects = tuple(replace(item, versions=versions.get(item.name)) for item in before.media.objects)
        copies = tuple(
            DataCopy(object=item.name, action="deleted in every version, absence verified", result=Result.DONE, at=now)
            for item in deletions
        )
        checks = (
            *before.verification.checks,
            Check(check=CheckName.OBJECTS_ABSENT, result=Result.DONE),
            Check(check=CheckName.NO_MULTIPART_LEFT, result=Result.DONE),
        )
        certificate = replace(
            before,
            certificate_id=self._identifier(now),
            nonce=self._entropy(16).hex(),
            status=CertificateStatus.FINAL,
            supersedes=before.certificate_id,
            media=replace(before.media, objects=objects),
            sanitisation=replace(before.sanitisation, data_copies=copies, completed=now),
            verification=Verification(checks=checks, at=now),
            residuals=(
                Residual(
                    where="backups of the object store",
                    state="encrypted, without a key",
                    until=None,
                    mechanism="unreadable since unrecoverable_at; they leave with the operator's backup schedule",
                ),
                *(left for left in before.residuals if left.where == _TOKENS.where),
            ),
        )
        return self._stored(certificate, now)


def _tokens_left(gone: Gone) -> tuple[Residual, ...]:
    """An erasure leaves its month's index alive; expiry and the end of a contract take it along."""
    alone = gone.trigger in {Trigger.ART17, Trigger.CONTROLLER_INSTRUCTION}
    return (_TOKENS,) if alone and Part.METADATA in gone.parts else ()


def _sanitisation(shred: Shred, receipt: ShredReceipt) -> Sanitisation:
    # The vault's time does not run backwards, the wall clock's may: a certificate never dates the erasure before the
    # intent that led to it.
    gone = max(receipt.unrecoverable_at, shred.intended_at)

    def copy(where: KeyPlace, action: str, result: Result = Result.DONE) -> KeyCopy:
        return KeyCopy(where=where, action=action, result=result, at=gone)

    return Sanitisation(
        epoch_destroyed=receipt.epoch_destroyed,
        provider=receipt.provider,
        assurance=receipt.assurance,
        key_copies=(
            copy(
                KeyPlace.PROVIDER_VERSION,
                f"root version of epoch {receipt.epoch_destroyed} destroyed and read back as gone",
            ),
            copy(KeyPlace.KEYRING_REPLICA, f"rewritten without the leaf on {receipt.replicas} replicas and verified"),
            copy(KeyPlace.CACHE_LEASES, "a single process; its own view changed before the destruction"),
            copy(KeyPlace.JOURNAL, "holds coordinates, never keys", Result.NOT_APPLICABLE),
            copy(KeyPlace.BACKUPS, "hold coordinates, never keys", Result.NOT_APPLICABLE),
        ),
        data_copies=(),
        tool="callvault",
        tool_version=__version__,
        actor=_ACTOR,
        started=shred.intended_at,
        unrecoverable_at=gone,
        caches_clear_at=max(receipt.caches_clear_at, gone),
        completed=None,
    )
