"""What the vault's certificates say: pure, from a shred and its receipt, or from a provisional certificate."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from vault import __version__
from vault.ids import CertificateId
from vault.model import CertificateStatus, Part, ShredReceipt, Tenant
from vault.ports.catalog import Shred
from vault.ports.objects import Deletion
from vault.tlog.certificate import (
    ALGORITHM,
    METADATA_ALGORITHM,
    Authorisation,
    Authority,
    Check,
    CheckName,
    DataCopy,
    DeletionCertificate,
    Encryption,
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
    statements,
)
from vault.tlog.form import Entry

_ACTOR = "callvault sweeper"
_POLICY_VERSION = "callvault/retention/v1"
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
    """Who certifies: the processor, how to reach it, and where the data was."""

    processor: str
    contact: str
    region: str


def provisional(
    entry: Entry,
    shred: Shred,
    receipt: ShredReceipt,
    *,
    parts: tuple[Part, ...],
    authority: Authority,
    tenant: Tenant,
    identity: Identity,
) -> DeletionCertificate:
    """Return the certificate that the keys of `parts` are gone; Invalid if it would contradict itself."""
    sanitisation = _sanitisation(shred, receipt)
    claims, non_claims = statements(sanitisation.assurance, parts)
    return DeletionCertificate(
        certificate_id=entry.certificate_id,
        nonce=entry.nonce,
        status=CertificateStatus.PROVISIONAL,
        supersedes=entry.supersedes,
        parties=Parties(
            tenant=tenant.id, controller=tenant.controller, processor=identity.processor, contact=identity.contact
        ),
        media=MediaFacts(
            recording_id=entry.recording_id,
            parts=parts,
            objects=entry.objects,
            region=identity.region,
        ),
        encryption=Encryption(
            algorithm=ALGORITHM if Part.AUDIO in parts else METADATA_ALGORITHM,
            coordinate=entry.coordinate,
            key_commitment=None,
            encrypted_before_first_write=True,
        ),
        retention=RetentionFacts(
            policy=entry.policy,
            policy_version=_POLICY_VERSION,
            basis=authority.basis,
            captured_at=entry.captured_at,
            retain_until=entry.retain_until,
            trigger=authority.trigger,
            case_reference=authority.case_reference,
        ),
        authorisation=Authorisation(
            holds_checked_at=shred.intended_at,
            hold_revision=receipt.epoch_live,
            active_holds=0,
            approvers=authority.approvers,
        ),
        sanitisation=sanitisation,
        verification=Verification(
            checks=(
                Check(check=CheckName.OLD_EPOCH_UNWRAP_FAILS, result=Result.DONE),
                Check(check=CheckName.LEAF_UNDERIVABLE, result=Result.DONE),
            ),
            at=entry.verified_at,
        ),
        residuals=tuple(_residuals(parts, authority)),
        claims=claims,
        non_claims=non_claims,
    )


def _residuals(parts: Collection[Part], authority: Authority) -> Iterator[Residual]:
    if Part.AUDIO in parts:
        yield _OBJECTS
    if Part.METADATA in parts:
        yield _COPIES
        # An erasure leaves its month's index alive; expiry and the end of a contract take it along.
        if authority.trigger in {Trigger.ART17, Trigger.CONTROLLER_INSTRUCTION}:
            yield _TOKENS


def gone_at(shred: Shred, receipt: ShredReceipt) -> datetime:
    """Return when the keys were gone, in the vault's time.

    It does not run backwards, the wall clock may: a certificate never dates the erasure before the intent that led to
    it.
    """
    return max(receipt.unrecoverable_at, shred.intended_at)


def lease_of(sanitisation: Sanitisation) -> timedelta:
    """Return how long after the destruction a cache may still have held what derived the key."""
    return sanitisation.caches_clear_at - sanitisation.unrecoverable_at


def can_be_final(provisional: DeletionCertificate) -> bool:
    """Tell whether nothing but leases that run out stands between this and a final certificate."""
    return all(
        copy.result in {Result.DONE, Result.NOT_APPLICABLE} or copy.where is KeyPlace.CACHE_LEASES
        for copy in provisional.sanitisation.key_copies
    )


def final(
    before: DeletionCertificate, deletions: Sequence[Deletion], *, certificate_id: str, nonce: str, at: datetime
) -> DeletionCertificate:
    """Return the certificate that supersedes `before`, whose leases have run out and whose objects are all absent.

    Metadata lies in no object: where it alone went, `deletions` is empty.
    """
    now = max(at, before.verification.at, before.sanitisation.caches_clear_at)
    versions = {deletion.name: deletion.versions_deleted for deletion in deletions}
    objects = tuple(replace(item, versions=versions.get(item.name)) for item in before.media.objects)
    copies = tuple(
        DataCopy(object=item.name, action="deleted in every version, absence verified", result=Result.DONE, at=now)
        for item in deletions
    )
    sanitisation = before.sanitisation
    absent = [CheckName.OBJECTS_ABSENT]
    if Part.AUDIO in before.media.parts:
        absent.append(CheckName.NO_MULTIPART_LEFT)
    return replace(
        before,
        certificate_id=CertificateId(certificate_id),
        nonce=nonce,
        status=CertificateStatus.FINAL,
        supersedes=before.certificate_id,
        media=replace(before.media, objects=objects),
        sanitisation=replace(
            sanitisation,
            key_copies=tuple(_run_out(copy, sanitisation) for copy in sanitisation.key_copies),
            data_copies=copies,
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
                # Nobody has asked every process: before its end a lease is no proof of anything.
                Result.UNKNOWN if lease else Result.DONE,
            ),
            copy(KeyPlace.JOURNAL, "holds coordinates, never keys", Result.NOT_APPLICABLE),
            copy(KeyPlace.BACKUPS, "hold coordinates, never keys", Result.NOT_APPLICABLE),
        ),
        data_copies=(),
        tool="callvault",
        tool_version=__version__,
        actor=_ACTOR,
        started=shred.intended_at,
        unrecoverable_at=gone,
        caches_clear_at=gone + lease,
        completed=None,
    )
