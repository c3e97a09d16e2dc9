"""Deletion certificates: what one says, when it may be final, how it is signed and how a stranger checks it.

A certificate is an RFC 8785 canonical JSON document in a compact JWS (RFC 7515) with `alg: "Ed25519"` (RFC 9864); see
docs/format.md, "Certificates". It carries no caller data: recordings are named by id, never by call key or facts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import rfc8785

from vault.crypto.signing import ALGORITHM as JWS_ALGORITHM
from vault.crypto.signing import SigningKey, VerifyKey, encode_base64url, protected_header, verify_compact
from vault.errors import FormatError, IntegrityError, Invalid
from vault.ids import CertificateId, id_bytes
from vault.model import Assurance, CertificateStatus, Part, Recording, SegmentRef
from vault.tlog.attested import (
    EXPIRED,
    OPEN_RESULTS,
    Authorisation,
    Authority,
    Check,
    CheckName,
    DataCopy,
    Encryption,
    KeyCopy,
    KeyPlace,
    MediaFacts,
    ObjectFacts,
    Parties,
    Residual,
    Result,
    RetentionFacts,
    Sanitisation,
    Subject,
    Trigger,
    Verification,
)
from vault.tlog.batch import TYPE as BATCH_TYPE
from vault.tlog.batch import BatchStatement, Membership, membership_of, statement_payload, verify_membership
from vault.tlog.shape import canonical_json, from_json, stamp
from vault.tlog.statements import PUBLISHED, Statements, claims, non_claims

__all__ = [
    "ALGORITHM",
    "EXPIRED",
    "METADATA_ALGORITHM",
    "SCHEMA",
    "TYPE",
    "Authorisation",
    "Authority",
    "Check",
    "CheckName",
    "DataCopy",
    "DeletionCertificate",
    "Encryption",
    "Issuer",
    "KeyCopy",
    "KeyPlace",
    "MediaFacts",
    "ObjectFacts",
    "Parties",
    "Residual",
    "Result",
    "RetentionFacts",
    "Sanitisation",
    "Subject",
    "Trigger",
    "Verification",
    "VerifiedCertificate",
    "read_document",
    "statements",
    "subject",
    "verify_certificate",
]

SCHEMA: Final = "callvault/deletion-certificate/v1"
TYPE: Final = "callvault-deletion-certificate+jws"
METADATA_ALGORITHM: Final = "AES-256-GCM; keys from an HMAC-SHA-256 tree"
ALGORITHM: Final = "AES-256-GCM in c2sp.org/chunked-encryption (Cobblestone-256); keys from an HMAC-SHA-256 tree"

_NONCE: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TWO_PEOPLE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionCertificate:
    """One shred of one recording, attested. A value that contradicts itself cannot exist: Invalid names what does.

    `nonce` is 128 random bits in hex, so that a published hash of the certificate cannot be guessed from what it says.
    `log` is reserved for the certificate's place in a transparency log and is null until there is one.
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
        for contradiction in _contradictions(self):
            raise Invalid(f"the certificate contradicts itself: {contradiction}")


def subject(
    recording: Recording,
    segments: Sequence[SegmentRef],
    *,
    parts: tuple[Part, ...] = (Part.AUDIO,),
    retain_until: datetime | None = None,
    authority: Authority = EXPIRED,
) -> Subject:
    """Return what a certificate says of these parts of a recording, before the versions of objects were enumerated.

    `segments` are those of the audio; without it there are none. `retain_until` defaults to that of the audio.
    """
    audio = Part.AUDIO in parts
    objects = tuple(
        ObjectFacts(name=ref.name, versions=None, ciphertext_bytes=ref.object_bytes, ciphertext_sha256=ref.sha256)
        for ref in segments
    )
    return Subject(
        recording_id=recording.id,
        coordinate=recording.audio if audio else recording.metadata,
        policy=recording.retention_class if audio else Part.METADATA.value,
        captured_at=recording.started_at,
        retain_until=recording.retain_until if retain_until is None else retain_until,
        objects=objects if audio else (),
        parts=parts,
        authority=authority,
    )


def statements(assurance: Assurance, parts: Collection[Part] = (Part.AUDIO,)) -> tuple[Statements, Statements]:
    """Return the current claims about `parts` and the non-claims for a provider of this assurance."""
    return claims(parts), non_claims(assurance)


class Issuer:
    """Signs certificates and batches with one key; the same content and key always give the same text."""

    def __init__(self, key: SigningKey) -> None:
        self._key_id = key.key_id
        self._sign = key.signer()

    def issue(self, certificate: DeletionCertificate) -> str:
        """Return the certificate as a compact JWS; Invalid for text or numbers JSON cannot carry."""
        return self._compact(TYPE, canonical_json(certificate))

    def issue_member(self, document: bytes, membership: Membership) -> str:
        """Return a document of a batch as a compact JWS that carries its proof of membership."""
        return self._compact(TYPE, document, membership.headers())

    def issue_batch(self, statement: BatchStatement) -> str:
        """Return the statement over a whole batch as a compact JWS."""
        return self._compact(BATCH_TYPE, statement_payload(statement))

    def _compact(self, typ: str, payload: bytes, extra: Mapping[str, str] | None = None) -> str:
        header = {"alg": JWS_ALGORITHM, "kid": self._key_id, "typ": typ, **(extra or {})}
        signed = f"{encode_base64url(rfc8785.dumps(header))}.{encode_base64url(payload)}"
        return f"{signed}.{encode_base64url(self._sign(signed.encode()))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCertificate:
    """A certificate whose signature, form and consistency hold; `lines` say what was checked, for people."""

    certificate: DeletionCertificate
    payload: bytes
    lines: tuple[str, ...]
    batch: BatchStatement | None = None


def verify_certificate(jws: str, key: VerifyKey) -> VerifiedCertificate:
    """Check a certificate offline, with nothing but the issuer's public key.

    A certificate issued in a batch carries the batch's signed statement, of which it must be a leaf. Tampered if a
    signature is not that key's or the proof of membership fails. FormatError unless the payload is the canonical form
    of a document with exactly this schema's members. IntegrityError if the document contradicts itself: such a
    statement is not evidence, whoever signed it. What it cannot show is that the issuer told the truth.
    """
    header = protected_header(jws)
    if header.get("typ") != TYPE:
        raise FormatError("a signed document, but not a deletion certificate")
    payload = verify_compact(jws, key)
    certificate = read_document(payload)
    membership = membership_of(header)
    try:
        batch = None if membership is None else verify_membership(payload, membership, key)
    except Invalid as error:
        raise IntegrityError(error.message) from error
    lines = [*_lines(certificate, key), *(() if batch is None else _batch_lines(batch))]
    return VerifiedCertificate(certificate=certificate, payload=payload, lines=tuple(lines), batch=batch)


def read_document(payload: bytes) -> DeletionCertificate:
    """Return what a certificate's document says, whoever vouches for it.

    FormatError unless it is the canonical form of a document with exactly this schema's members. IntegrityError if it
    contradicts itself.
    """
    try:
        document = json.loads(payload)
        unique = rfc8785.dumps(document) == payload
    except (ValueError, RecursionError) as error:
        raise FormatError("the certificate is not canonical JSON") from error
    if not unique:
        raise FormatError("the certificate is JSON, but not in canonical form")
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise FormatError(f"the document's schema is not {SCHEMA}")
    try:
        return from_json(DeletionCertificate, document)
    except Invalid as error:
        raise IntegrityError(error.message) from error


def _contradictions(certificate: DeletionCertificate) -> Iterator[str]:
    yield from _wrong_identity(certificate)
    yield from _wrong_authority(certificate)
    yield from _wrong_order(certificate)
    yield from _wrong_erasure(certificate)
    if certificate.status is CertificateStatus.FINAL:
        yield from _unfinished(certificate)


def _wrong_identity(certificate: DeletionCertificate) -> Iterator[str]:
    media, encryption = certificate.media, certificate.encryption
    # Both raise Invalid by themselves.
    id_bytes(certificate.certificate_id)
    id_bytes(media.recording_id)
    cohort = encryption.coordinate.cohort
    if certificate.schema != SCHEMA:
        yield f"its schema is not {SCHEMA}"
    if not _NONCE.fullmatch(certificate.nonce):
        yield "its nonce is not 128 bits in hex"
    if certificate.supersedes == certificate.certificate_id:
        yield "it supersedes itself"
    if cohort.tenant != certificate.parties.tenant or cohort.part not in media.parts:
        yield "its coordinate is not one of this tenant and these parts"
    digests = [item.ciphertext_sha256 for item in media.objects]
    if encryption.key_commitment is not None:
        digests.append(encryption.key_commitment)
    if not all(_SHA256.fullmatch(digest) for digest in digests):
        yield "a digest is not SHA-256 in hex"
    for text in (certificate.claims, certificate.non_claims):
        if PUBLISHED.get(text.version, text.texts) != text.texts:
            yield f"the wording of {text.version} is not the published one"


def _wrong_authority(certificate: DeletionCertificate) -> Iterator[str]:
    retention, sanitisation = certificate.retention, certificate.sanitisation
    if certificate.authorisation.active_holds:
        yield "a hold was active"
    early = sanitisation.unrecoverable_at < retention.retain_until
    if early and retention.trigger is Trigger.EXPIRY:
        yield "it expired before its retain-until"
    if early and len(set(certificate.authorisation.approvers)) < _TWO_PEOPLE:
        yield "a deletion before retain-until needs two approvers"


def _wrong_order(certificate: DeletionCertificate) -> Iterator[str]:
    retention, sanitisation = certificate.retention, certificate.sanitisation
    gone = sanitisation.unrecoverable_at
    ordered = (
        ("captured_at", retention.captured_at, "retain_until", retention.retain_until),
        ("captured_at", retention.captured_at, "started", sanitisation.started),
        ("holds_checked_at", certificate.authorisation.holds_checked_at, "unrecoverable_at", gone),
        ("started", sanitisation.started, "unrecoverable_at", gone),
        ("unrecoverable_at", gone, "caches_clear_at", sanitisation.caches_clear_at),
        ("unrecoverable_at", gone, "verification", certificate.verification.at),
        ("unrecoverable_at", gone, "completed", sanitisation.completed or gone),
    )
    for first, earlier, second, later in ordered:
        if earlier > later:
            yield f"{first} lies after {second}"


def _wrong_erasure(certificate: DeletionCertificate) -> Iterator[str]:
    sanitisation = certificate.sanitisation
    if (sanitisation.category, sanitisation.technique) != ("purge", "cryptographic erase"):
        yield "it attests something other than a cryptographic erase"
    if not certificate.encryption.encrypted_before_first_write:
        # SP 800-88 section 2.6: erasing the key purges only what was never written in clear.
        yield "cryptographic erase needs encryption before the first write"
    for check in certificate.verification.checks:
        if check.check in _KEY_CHECKS and check.result is Result.FAILED:
            yield f"the check {check.check} failed: the key is not gone"


_KEY_CHECKS: Final = frozenset({CheckName.OLD_EPOCH_UNWRAP_FAILS, CheckName.LEAF_UNDERIVABLE})
_FINAL_CHECKS: Final = _KEY_CHECKS | {CheckName.OBJECTS_ABSENT}
_FINAL_PLACES: Final = frozenset({KeyPlace.PROVIDER_VERSION, KeyPlace.KEYRING_REPLICA})


def _unfinished(certificate: DeletionCertificate) -> Iterator[str]:
    sanitisation = certificate.sanitisation
    if sanitisation.completed is None:
        yield "a final certificate says when everything was completed"
    if open_places := sorted({copy.where for copy in sanitisation.key_copies if copy.result in OPEN_RESULTS}):
        yield f"a final certificate has no failed or unknown key copy ({', '.join(open_places)})"
    if not {copy.where for copy in sanitisation.key_copies if copy.result is Result.DONE} >= _FINAL_PLACES:
        yield "a final certificate accounts for the provider's root version and the keyring"
    absent = {copy.object for copy in sanitisation.data_copies if copy.result is Result.DONE}
    if not absent >= {item.name for item in certificate.media.objects} or any(
        copy.result in OPEN_RESULTS for copy in sanitisation.data_copies
    ):
        yield "a final certificate needs every object verified absent"
    checks = certificate.verification.checks
    if not {check.check for check in checks if check.result is Result.DONE} >= _FINAL_CHECKS or any(
        check.result in OPEN_RESULTS for check in checks
    ):
        yield "a final certificate needs every check passed"


def _lines(certificate: DeletionCertificate, key: VerifyKey) -> Iterator[str]:
    retention, sanitisation = certificate.retention, certificate.sanitisation
    yield f"signature: Ed25519 by issuer key {key.key_id}"
    yield f"form: canonical JSON of {SCHEMA}, nothing missing, nothing added"
    yield f"subject: {certificate.media.recording_id} of tenant {certificate.parties.tenant}"
    yield (
        f"retention: {retention.trigger} at {stamp(sanitisation.unrecoverable_at)}, "
        f"retain-until {stamp(retention.retain_until)}, {certificate.authorisation.active_holds} active holds"
    )
    yield (
        f"erasure: root version of epoch {sanitisation.epoch_destroyed} destroyed at provider "
        f"{sanitisation.provider} (assurance {sanitisation.assurance})"
    )
    yield f"key copies: {_tally(copy.result for copy in sanitisation.key_copies)}"
    yield f"data copies: {_tally(copy.result for copy in sanitisation.data_copies)}"
    yield f"checks: {_tally(check.result for check in certificate.verification.checks)}"
    for text in (certificate.claims, certificate.non_claims):
        known = "the published wording" if text.version in PUBLISHED else "a wording unknown to this program: read it"
        yield f"statements: {text.version}, {known}"
    if certificate.status is CertificateStatus.FINAL:
        yield "status: final: the key is gone and every object was verified absent"
    else:
        yield "status: provisional: the key is gone; absence of the objects is not yet certified"


def _batch_lines(batch: BatchStatement) -> Iterator[str]:
    yield (
        f"batch: {batch.batch_id}, signed at {stamp(batch.issued_at)} over {batch.size} certificates; "
        "this is one of them"
    )


def _tally(results: Iterable[Result]) -> str:
    found = list(results)
    return ", ".join(f"{found.count(each)} {each}" for each in Result if each in found) or "none"
