"""The content of certificates, as pure functions of a shred and its receipt, or of a provisional certificate."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from vault import __version__
from vault.certificates import v1
from vault.certificates.batch import object_facts
from vault.certificates.document import (
    ALGORITHM,
    METADATA_ALGORITHM,
    AnyCertificate,
    Authorisation,
    Authority,
    Check,
    CheckName,
    DataCopy,
    DataFacts,
    DataPlace,
    Decider,
    DeletionCertificate,
    Encryption,
    KeyCopy,
    KeyPlace,
    ObjectFacts,
    PartFacts,
    Parties,
    RecordingFacts,
    Region,
    Residual,
    Result,
    RetentionFacts,
    Sanitisation,
    Subject,
    Trigger,
    TriggerFacts,
    Verification,
    statements,
)
from vault.errors import Unavailable
from vault.ids import CertificateId
from vault.model import CertificateStatus, Part, ShredReceipt, Tenant
from vault.ports.objects import Deletion
from vault.ports.shreds import Shred

_OBJECTS = Residual(
    where="objects",
    state="encrypted, without a key",
    until=None,
    mechanism="deleted after this certificate; the final certificate says when",
)
_BACKUPS = Residual(
    where="backups of the object store",
    state="encrypted, without a key",
    until=None,
    mechanism="unreadable since unrecoverable_at; they leave with the operator's backup schedule",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who certifies: the processor, its contact, the region of the data, and whether the vault is a trial.

    `unnamed` are the settings that are placeholders: with any, no new certificate is issued.
    """

    processor: str
    contact: str
    region: str
    trial: bool
    unnamed: tuple[str, ...] = ()


class Unnamed(Unavailable):
    """Certificates could not name who runs the vault; nothing was shredded, and decided deletions wait."""


def provisional(
    subject: Subject,
    shred: Shred,
    receipt: ShredReceipt,
    *,
    certificate_id: CertificateId,
    nonce: str,
    at: datetime,
    tenant: Tenant,
    identity: Identity,
) -> DeletionCertificate:
    """Return the certificate that the keys of a subject's parts are gone; Invalid if it would contradict itself."""
    sanitisation = _sanitisation(shred, receipt)
    gone, parts, authority = gone_at(shred, receipt), subject.names, subject.authority
    claims, non_claims = statements(sanitisation.assurance, parts)
    return DeletionCertificate(
        certificate_id=certificate_id,
        nonce=nonce,
        status=CertificateStatus.PROVISIONAL,
        supersedes=None,
        trial=identity.trial,
        parties=Parties(
            tenant=tenant.id, controller=tenant.controller, processor=identity.processor, contact=identity.contact
        ),
        recording=recording_facts(subject, shredded_at=gone),
        data=DataFacts(
            objects=object_facts(subject.objects), region=Region(stated=identity.region, checked=None, checked_at=None)
        ),
        encryption=Encryption(
            algorithm=ALGORITHM if Part.AUDIO in parts else METADATA_ALGORITHM, encrypted_before_first_write=True
        ),
        retention=retention_facts(subject),
        trigger=TriggerFacts(kind=authority.trigger, case=authority.case, range=None),
        authorisation=Authorisation(
            hold_revision=receipt.epoch_live,
            active_holds=0,
            holds_checked_at=shred.intended_at,
            deciders=authority.deciders,
        ),
        sanitisation=sanitisation,
        verification=Verification(
            checks=(
                Check(check=CheckName.OLD_EPOCH_UNWRAP_FAILS, result=Result.DONE),
                Check(check=CheckName.LEAF_UNDERIVABLE, result=Result.DONE),
            ),
            at=max(at, gone),
        ),
        residuals=tuple(_residuals(parts, authority)),
        claims=claims,
        non_claims=non_claims,
    )


def recording_facts(subject: Subject, *, shredded_at: datetime) -> RecordingFacts:
    """Return what a certificate states about the recording and the keys of its parts, all destroyed at one time."""
    return RecordingFacts(
        id=subject.recording_id,
        parts=tuple(
            PartFacts(
                part=coordinate.cohort.part,
                coordinate=coordinate,
                key_commitment=None if commitment is None else commitment.hex(),
                shredded_at=shredded_at,
            )
            for coordinate, commitment in subject.parts
        ),
    )


def retention_facts(subject: Subject) -> RetentionFacts:
    """Return what a certificate states about how long the recording had to be kept."""
    return RetentionFacts(
        captured=subject.captured,
        applied=subject.applied,
        captured_at=subject.captured_at,
        received_at=subject.received_at,
        retain_until=subject.retain_until,
        instruction=None,
    )


def _residuals(parts: Collection[Part], authority: Authority) -> Iterator[Residual]:
    if Part.AUDIO in parts:
        yield _OBJECTS
    if Part.METADATA in parts:
        yield _COPIES
        # An erasure leaves its month's index; expiry and the end of a contract destroy it.
        if authority.trigger in {Trigger.ART17, Trigger.CONTROLLER_INSTRUCTION}:
            yield _TOKENS


def gone_at(shred: Shred, receipt: ShredReceipt) -> datetime:
    """Return when the keys were gone: never before the intent, even if the wall clock stepped back in between."""
    return max(receipt.unrecoverable_at, shred.intended_at)


def lease_of(certificate: AnyCertificate) -> timedelta:
    """Return how long after the destruction a cache may still have been able to derive the key."""
    return certificate.sanitisation.caches_clear_at - certificate.sanitisation.unrecoverable_at


def can_be_final(provisional: AnyCertificate) -> bool:
    """Tell whether only leases that have not run out prevent a final certificate."""
    return all(
        copy.result in {Result.DONE, Result.NOT_APPLICABLE} or copy.where is KeyPlace.CACHE_LEASES
        for copy in provisional.sanitisation.key_copies
    )


def earliest_final(provisional: DeletionCertificate) -> datetime:
    """Return the time before which no final certificate may say that it is final."""
    return max(provisional.verification.at, provisional.sanitisation.caches_clear_at)


def modern(before: v1.DeletionCertificate, subject: Subject, objects: ObjectFacts) -> DeletionCertificate:
    """Return a provisional certificate of version 1 in the form of version 2, so that a final one can follow.

    `subject` and `objects` are the catalog's facts about the same parts. Version 1 names people by tokens without
    roles, and the case in words without a digest: the tokens are kept, the case is not.
    """
    said, retention = before.sanitisation, before.retention
    claims, non_claims = statements(said.assurance, before.media.parts)
    return DeletionCertificate(
        certificate_id=before.certificate_id,
        nonce=before.nonce,
        status=before.status,
        supersedes=before.supersedes,
        trial=False,
        parties=before.parties,
        recording=recording_facts(subject, shredded_at=said.unrecoverable_at),
        data=DataFacts(objects=objects, region=Region(stated=before.media.region, checked=None, checked_at=None)),
        encryption=Encryption(algorithm=before.encryption.algorithm, encrypted_before_first_write=True),
        retention=replace(retention_facts(subject), retain_until=retention.retain_until),
        trigger=TriggerFacts(kind=retention.trigger, case=None, range=None),
        authorisation=Authorisation(
            hold_revision=before.authorisation.hold_revision,
            active_holds=before.authorisation.active_holds,
            holds_checked_at=before.authorisation.holds_checked_at,
            deciders=tuple(
                Decider(person=None, token=token, role=None, at=None, evidence=None)
                for token in before.authorisation.approvers
            ),
        ),
        sanitisation=Sanitisation(
            epoch_destroyed=said.epoch_destroyed,
            provider=said.provider,
            assurance=said.assurance,
            key_copies=said.key_copies,
            data_copies=(),
            tool=said.tool,
            tool_version=said.tool_version,
            started=said.started,
            unrecoverable_at=said.unrecoverable_at,
            caches_clear_at=said.caches_clear_at,
            completed=None,
        ),
        verification=before.verification,
        residuals=before.residuals,
        claims=claims,
        non_claims=non_claims,
    )


def final(
    before: DeletionCertificate, deletions: Sequence[Deletion], *, certificate_id: str, nonce: str, at: datetime
) -> DeletionCertificate:
    """Return the certificate that supersedes `before`, whose leases have run out and whose objects are all absent.

    Metadata is not in an object: if it went alone, `deletions` is empty.
    """
    now = max(at, earliest_final(before))
    audio = Part.AUDIO in before.parts
    sanitisation = before.sanitisation
    absent = [CheckName.OBJECTS_ABSENT]
    if audio:
        absent.append(CheckName.NO_MULTIPART_LEFT)
    return replace(
        before,
        certificate_id=CertificateId(certificate_id),
        nonce=nonce,
        status=CertificateStatus.FINAL,
        supersedes=before.certificate_id,
        sanitisation=replace(
            sanitisation,
            key_copies=tuple(_run_out(copy, sanitisation) for copy in sanitisation.key_copies),
            data_copies=(_deleted(deletions, now) if audio else _nowhere(now),),
            completed=now,
        ),
        verification=Verification(
            checks=(
                *before.verification.checks,
                *(Check(check=check, result=Result.DONE) for check in absent),
            ),
            at=now,
        ),
        residuals=tuple(_BACKUPS if left.where == _OBJECTS.where else left for left in before.residuals),
    )


def _deleted(deletions: Sequence[Deletion], at: datetime) -> DataCopy:
    versions = sum(deletion.versions_deleted for deletion in deletions)
    return DataCopy(
        where=DataPlace.OBJECT_STORE,
        action=f"{len(deletions)} names deleted in {versions} versions, absence verified",
        result=Result.DONE,
        at=at,
    )


def _nowhere(at: datetime) -> DataCopy:
    action = "metadata lies in no object"
    return DataCopy(where=DataPlace.OBJECT_STORE, action=action, result=Result.NOT_APPLICABLE, at=at)


def _run_out(copy: KeyCopy, sanitisation: Sanitisation) -> KeyCopy:
    if copy.where is not KeyPlace.CACHE_LEASES:
        return copy
    return replace(copy, result=Result.DONE, at=sanitisation.caches_clear_at)


def _sanitisation(shred: Shred, receipt: ShredReceipt) -> Sanitisation:
    gone = gone_at(shred, receipt)
    lease = max(receipt.caches_clear_at - receipt.unrecoverable_at, timedelta(0))

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
            copy(
                KeyPlace.CACHE_LEASES,
                f"a process uses what it read of the keyring under a lease of at most {lease.total_seconds():g} s on "
                "CLOCK_BOOTTIME and discards it; the last one ran out by caches_clear_at",
                # Before its end a lease proves nothing, because the vault cannot ask every process.
                Result.UNKNOWN if lease else Result.DONE,
            ),
            copy(KeyPlace.JOURNAL, "holds coordinates, never keys", Result.NOT_APPLICABLE),
            copy(KeyPlace.BACKUPS, "hold coordinates, never keys", Result.NOT_APPLICABLE),
        ),
        data_copies=(),
        tool="callvault",
        tool_version=__version__,
        started=shred.intended_at,
        unrecoverable_at=gone,
        caches_clear_at=gone + lease,
        completed=None,
    )
