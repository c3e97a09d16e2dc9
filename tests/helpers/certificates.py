"""A plausible certificate, provisional and final, for tests to vary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from vault.certificates.batch import ObjectList, object_facts
from vault.certificates.batch import object_list as listed
from vault.certificates.document import (
    ALGORITHM,
    Authorisation,
    Case,
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
    PartFacts,
    Parties,
    RecordingFacts,
    Region,
    Residual,
    Result,
    RetentionFacts,
    Sanitisation,
    Trigger,
    TriggerFacts,
    Verification,
    reference_digest,
    statements,
    subject,
)
from vault.crypto.signing import SigningKey
from vault.ids import CertificateId, RecordingId, TenantId
from vault.model import (
    Assurance,
    CertificateStatus,
    Codec,
    Cohort,
    Container,
    Coordinate,
    Media,
    Part,
    Recording,
    RecordingState,
    Role,
    SegmentRef,
)

ISSUER = SigningKey(bytes(range(32)))
STRANGER = SigningKey(bytes(range(1, 33)))

CALL = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
DUE = CALL + timedelta(days=90)
SWEEP = DUE + timedelta(hours=14, minutes=30)
GONE = SWEEP + timedelta(seconds=2)
TENANT = TenantId("oakfield")


def recording(*, call_token: str = "call-1") -> Recording:
    def coordinate(part: Part) -> Coordinate:
        return Coordinate(cohort=Cohort(tenant=TENANT, part=part, period=20604, generation=0), leaf=17)

    return Recording(
        id=RecordingId("rec_" + "a1" * 16),
        tenant=TENANT,
        call_token=call_token,
        state=RecordingState.SHREDDING,
        state_reason=None,
        audio=coordinate(Part.AUDIO),
        metadata=coordinate(Part.METADATA),
        media=Media(container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=2),
        created_at=CALL,
        started_at=CALL,
        ended_at=CALL + timedelta(minutes=3),
        retain_until=DUE,
        retention_class="recording",
        stored_bytes=2_880_000,
        sealed_facts=b"\x01" * 64,
        certificate_id=None,
        audio_commitment=b"\xd4" * 32,
        metadata_commitment=b"\xd5" * 32,
        retention_period="90d",
    )


def segments(row: Recording, count: int = 2) -> list[SegmentRef]:
    return [
        SegmentRef(
            recording=row.id,
            index=index,
            attempt="x" * 8,
            name=f"v1/{row.tenant}/20604/{row.id}/{index}.seg",
            offset=0,
            length=0,
            object_bytes=1_440_500,
            sha256=f"{index + 10:02x}" * 32,
        )
        for index in range(count)
    ]


def key_copies(result: Result = Result.DONE) -> tuple[KeyCopy, ...]:
    return (
        KeyCopy(where=KeyPlace.KEYRING_REPLICA, action="replica 1 rewritten without the leaf", result=result, at=SWEEP),
        KeyCopy(where=KeyPlace.PROVIDER_VERSION, action="root version destroyed", result=result, at=GONE),
        KeyCopy(where=KeyPlace.CACHE_LEASES, action="leases run out", result=Result.DONE, at=GONE),
        KeyCopy(where=KeyPlace.JOURNAL, action="holds no key", result=Result.NOT_APPLICABLE, at=GONE),
        KeyCopy(where=KeyPlace.BACKUPS, action="hold no key", result=Result.NOT_APPLICABLE, at=GONE),
    )


def decider(number: int, role: Role = Role.DPO) -> Decider:
    return Decider(person=None, token="tok_" + f"{number:032x}", role=role, at=SWEEP, evidence=None)


CASE = Case(id="era_" + "f0" * 16, reference_sha256=reference_digest("era_" + "f0" * 16, "DSR-17"))


def provisional(
    row: Recording | None = None,
    refs: Sequence[SegmentRef] | None = None,
    parts: tuple[Part, ...] = (Part.AUDIO,),
) -> DeletionCertificate:
    row = row or recording()
    says = subject(row, segments(row) if refs is None else refs, parts=parts)
    claims, non_claims = statements(Assurance.BEST_EFFORT, parts)
    return DeletionCertificate(
        certificate_id=CertificateId("cert_" + "b2" * 16),
        nonce="c3" * 16,
        status=CertificateStatus.PROVISIONAL,
        supersedes=None,
        trial=False,
        parties=Parties(
            tenant=row.tenant,
            controller="Oakfield College",
            processor="Callvault operator",
            contact="privacy@example.org",
        ),
        recording=RecordingFacts(
            id=row.id,
            parts=tuple(
                PartFacts(
                    part=each.coordinate.cohort.part,
                    coordinate=each.coordinate,
                    key_commitment=None if each.commitment is None else each.commitment.hex(),
                    shredded_at=GONE,
                )
                for each in says.parts
            ),
        ),
        data=DataFacts(
            objects=object_facts(says.objects), region=Region(stated="United Kingdom", checked=None, checked_at=None)
        ),
        encryption=Encryption(algorithm=ALGORITHM, encrypted_before_first_write=True),
        retention=RetentionFacts(
            captured=says.captured,
            applied=says.applied,
            captured_at=says.captured_at,
            received_at=says.received_at,
            retain_until=says.retain_until,
            instruction=None,
        ),
        trigger=TriggerFacts(kind=Trigger.EXPIRY, case=None, range=None),
        authorisation=Authorisation(hold_revision=42, active_holds=0, holds_checked_at=SWEEP, deciders=()),
        sanitisation=Sanitisation(
            epoch_destroyed=41,
            provider="file",
            assurance=Assurance.BEST_EFFORT,
            key_copies=key_copies(),
            data_copies=(),
            tool="callvault",
            tool_version="0.1.0",
            started=SWEEP,
            unrecoverable_at=GONE,
            caches_clear_at=GONE + timedelta(seconds=15),
            completed=None,
        ),
        verification=Verification(
            checks=(
                Check(check=CheckName.OLD_EPOCH_UNWRAP_FAILS, result=Result.DONE),
                Check(check=CheckName.LEAF_UNDERIVABLE, result=Result.DONE),
            ),
            at=GONE + timedelta(seconds=1),
        ),
        residuals=(
            Residual(
                where="object store",
                state="encrypted objects without a key",
                until=None,
                mechanism="deleted next; a final certificate follows",
            ),
        ),
        claims=claims,
        non_claims=non_claims,
    )


def final(first: DeletionCertificate | None = None) -> DeletionCertificate:
    first = first or provisional()
    done = GONE + timedelta(minutes=1)
    action = "every name deleted in every version"
    return replace(
        first,
        certificate_id=CertificateId("cert_" + "e5" * 16),
        nonce="f6" * 16,
        status=CertificateStatus.FINAL,
        supersedes=first.certificate_id,
        sanitisation=replace(
            first.sanitisation,
            data_copies=(DataCopy(where=DataPlace.OBJECT_STORE, action=action, result=Result.DONE, at=done),),
            completed=done,
        ),
        verification=Verification(
            checks=(
                *first.verification.checks,
                Check(check=CheckName.OBJECTS_ABSENT, result=Result.DONE),
                Check(check=CheckName.NO_MULTIPART_LEFT, result=Result.NOT_APPLICABLE),
            ),
            at=done,
        ),
        residuals=(),
    )


def object_list(certificate: DeletionCertificate, row: Recording | None = None) -> ObjectList:
    return listed(certificate.certificate_id, subject(row or recording(), segments(row or recording())).objects)
