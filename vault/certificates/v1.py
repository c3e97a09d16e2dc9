"""Version 1 of deletion certificates, which is still verified and no longer issued.

See docs/certificates.md, "Version 1". It names one coordinate for all parts, each object, and the case in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from vault.certificates.attested import OPEN_RESULTS, KeyCopy, Parties, Residual, Result, Trigger, Verification
from vault.certificates.batch import SHA256
from vault.certificates.statements import (
    Contradiction,
    Rule,
    Statements,
    check,
    unfinished,
    wrong_erasure,
    wrong_id,
    wrong_order,
    wrong_texts,
)
from vault.ids import CertificateId, RecordingId
from vault.model import Assurance, CertificateStatus, Coordinate, Part

SCHEMA: Final = "callvault/deletion-certificate/v1"

_NONCE: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_TWO_PEOPLE: Final = 2
_TRIGGERS: Final = frozenset({Trigger.EXPIRY, Trigger.ART17, Trigger.CONTROLLER_INSTRUCTION, Trigger.CONTRACT_END})


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFacts:
    """One stored object. `versions` counts the versions that were deleted; null until they were counted."""

    name: str
    versions: int | None
    ciphertext_bytes: int
    ciphertext_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFacts:
    """What was deleted."""

    recording_id: RecordingId
    parts: tuple[Part, ...]
    objects: tuple[ObjectFacts, ...]
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """How it was encrypted. A key that is found later can be compared with `key_commitment` (SHA-256, hex)."""

    algorithm: str
    coordinate: Coordinate
    key_commitment: str | None
    encrypted_before_first_write: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionFacts:
    """The policy that set `retain_until`, and why the recording was deleted; `captured_at` is the start of the call."""

    policy: str
    policy_version: str
    basis: str
    captured_at: datetime
    retain_until: datetime
    trigger: Trigger
    case_reference: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorisation:
    """That no hold forbade it. `approvers` are names of credentials; a deletion before retain-until needs two."""

    holds_checked_at: datetime
    hold_revision: int
    active_holds: int
    approvers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCopy:
    """What was done about one object."""

    object: str
    action: str
    result: Result
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Sanitisation:
    """The destruction, in the terms of NIST SP 800-88: category purge, technique cryptographic erase."""

    category: str = "purge"
    technique: str = "cryptographic erase"
    epoch_destroyed: int
    provider: str
    assurance: Assurance
    key_copies: tuple[KeyCopy, ...]
    data_copies: tuple[DataCopy, ...]
    tool: str
    tool_version: str
    actor: str
    started: datetime
    unrecoverable_at: datetime
    caches_clear_at: datetime
    completed: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionCertificate:
    """A certificate of the destruction of one recording's keys. Invalid names the first contradiction in its members.

    `nonce` is 128 random bits in hex, so that nobody can guess the content from a published hash. `log` is null.
    """

    schema: str = SCHEMA
    certificate_id: CertificateId
    nonce: str
    status: CertificateStatus
    supersedes: CertificateId | None
    parties: Parties
    media: MediaFacts
    encryption: Encryption
    retention: RetentionFacts
    authorisation: Authorisation
    sanitisation: Sanitisation
    verification: Verification
    residuals: tuple[Residual, ...]
    claims: Statements
    non_claims: Statements
    log: None = None

    def __post_init__(self) -> None:
        check(_contradictions(self))


def _contradictions(certificate: DeletionCertificate) -> Iterator[Contradiction]:
    media, encryption = certificate.media, certificate.encryption
    retention, sanitisation, checks = certificate.retention, certificate.sanitisation, certificate.verification.checks
    yield from _wrong_identity(certificate)
    digests = [item.ciphertext_sha256 for item in media.objects]
    if encryption.key_commitment is not None:
        digests.append(encryption.key_commitment)
    if not all(SHA256.fullmatch(digest) for digest in digests):
        yield Contradiction(Rule.DIGESTS, "a digest is not SHA-256 in hex")
    yield from wrong_texts(certificate.claims, certificate.non_claims)
    if certificate.authorisation.active_holds:
        yield Contradiction(Rule.HOLDS, "a hold was active")
    if retention.trigger not in _TRIGGERS:
        yield Contradiction(Rule.TRIGGER, "version 1 has no such trigger")
    early = sanitisation.unrecoverable_at < retention.retain_until
    if early and retention.trigger is Trigger.EXPIRY:
        yield Contradiction(Rule.TRIGGER, "it expired before its retain-until")
    if early and len(set(certificate.authorisation.approvers)) < _TWO_PEOPLE:
        yield Contradiction(Rule.PEOPLE, "a deletion before retain-until needs two approvers")
    yield from wrong_order(_order(certificate))
    yield from wrong_erasure(
        sanitisation.category,
        sanitisation.technique,
        checks,
        encrypted_before_first_write=encryption.encrypted_before_first_write,
    )
    if certificate.status is CertificateStatus.FINAL:
        yield from unfinished(sanitisation.completed, sanitisation.key_copies, checks)
        absent = {copy.object for copy in sanitisation.data_copies if copy.result is Result.DONE}
        if not absent >= {item.name for item in media.objects} or any(
            copy.result in OPEN_RESULTS for copy in sanitisation.data_copies
        ):
            yield Contradiction(Rule.DATA_COPIES, "a final certificate needs every object verified absent")


def _wrong_identity(certificate: DeletionCertificate) -> Iterator[Contradiction]:
    yield from wrong_id(certificate.certificate_id, "cert", "certificate_id")
    yield from wrong_id(certificate.media.recording_id, "rec", "media.recording_id")
    if certificate.supersedes is not None:
        yield from wrong_id(certificate.supersedes, "cert", "supersedes")
    if certificate.supersedes == certificate.certificate_id:
        yield Contradiction(Rule.IDS, "it supersedes itself")
    if certificate.schema != SCHEMA:
        yield Contradiction(Rule.SCHEMA, f"its schema is not {SCHEMA}")
    if not _NONCE.fullmatch(certificate.nonce):
        yield Contradiction(Rule.NONCE, "its nonce is not 128 bits in hex")
    cohort = certificate.encryption.coordinate.cohort
    if cohort.tenant != certificate.parties.tenant or cohort.part not in certificate.media.parts:
        yield Contradiction(Rule.PARTS, "its coordinate is not one of this tenant and these parts")


def _order(certificate: DeletionCertificate) -> tuple[tuple[str, datetime, str, datetime], ...]:
    retention, sanitisation = certificate.retention, certificate.sanitisation
    gone = sanitisation.unrecoverable_at
    return (
        ("captured_at", retention.captured_at, "retain_until", retention.retain_until),
        ("captured_at", retention.captured_at, "started", sanitisation.started),
        ("holds_checked_at", certificate.authorisation.holds_checked_at, "unrecoverable_at", gone),
        ("started", sanitisation.started, "unrecoverable_at", gone),
        ("unrecoverable_at", gone, "caches_clear_at", sanitisation.caches_clear_at),
        ("unrecoverable_at", gone, "verification", certificate.verification.at),
        ("unrecoverable_at", gone, "completed", sanitisation.completed or gone),
    )
