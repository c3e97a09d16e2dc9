"""Deletion certificates: their content, when one may be final, how it is signed and how a third party verifies it.

A certificate is an RFC 8785 canonical JSON document in a compact JWS (RFC 7515) with `alg: "Ed25519"` (RFC 9864); see
docs/certificates.md. It holds no data of callers: recordings and cases are named by id, people by id or token, not by
call key, facts or reference.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

import rfc8785

from vault.certificates import v1
from vault.certificates.attested import (
    EXPIRED,
    OPEN_RESULTS,
    POLICY_VERSION,
    Authorisation,
    Authority,
    Case,
    Check,
    CheckName,
    DataCopy,
    DataFacts,
    DataPlace,
    Decider,
    Encryption,
    KeyCopy,
    KeyPlace,
    Log,
    ObjectFacts,
    PartFacts,
    Parties,
    PartKey,
    Policy,
    Range,
    RecordingFacts,
    Region,
    Residual,
    Result,
    RetentionFacts,
    Sanitisation,
    StoredObject,
    Subject,
    Trigger,
    TriggerFacts,
    Verification,
)
from vault.certificates.batch import HEADERS as BATCH_HEADERS
from vault.certificates.batch import (
    NO_OBJECTS,
    SHA256,
    BatchStatement,
    Membership,
    ObjectList,
    membership_of,
    statement_payload,
    verify_membership,
)
from vault.certificates.batch import TYPE as BATCH_TYPE
from vault.certificates.canonical import canonical_json, from_json, stamp
from vault.certificates.statements import (
    PUBLISHED,
    Contradiction,
    Rule,
    Statements,
    check,
    claims,
    naming_rule,
    non_claims,
    unfinished,
    wrong_erasure,
    wrong_id,
    wrong_order,
    wrong_texts,
)
from vault.crypto.signing import SigningKey, VerifyKey, protected_header, sign_compact, verify_compact
from vault.errors import FormatError, IntegrityError
from vault.ids import CertificateId
from vault.model import Assurance, CertificateStatus, Part, Recording, SegmentRef

__all__ = [
    "ALGORITHM",
    "EXPIRED",
    "METADATA_ALGORITHM",
    "POLICY_VERSION",
    "SCHEMA",
    "TYPE",
    "AnyCertificate",
    "Authorisation",
    "Authority",
    "Case",
    "Check",
    "CheckName",
    "DataCopy",
    "DataFacts",
    "DataPlace",
    "Decider",
    "DeletionCertificate",
    "Encryption",
    "Issuer",
    "KeyCopy",
    "KeyPlace",
    "Log",
    "ObjectFacts",
    "PartFacts",
    "PartKey",
    "Parties",
    "Policy",
    "Range",
    "RecordingFacts",
    "Region",
    "Residual",
    "Result",
    "RetentionFacts",
    "Sanitisation",
    "StoredObject",
    "Subject",
    "Trigger",
    "TriggerFacts",
    "Verification",
    "VerifiedCertificate",
    "certificate_text",
    "read_document",
    "reference_digest",
    "statements",
    "subject",
    "verify_certificate",
    "verify_objects",
]

SCHEMA: Final = "callvault/deletion-certificate/v2"
TYPE: Final = "callvault-deletion-certificate+jws"
METADATA_ALGORITHM: Final = "AES-256-GCM; keys from an HMAC-SHA-256 tree"
ALGORITHM: Final = "AES-256-GCM in c2sp.org/chunked-encryption (Cobblestone-256); keys from an HMAC-SHA-256 tree"
_REFERENCE: Final = b"callvault/case-reference/v1"
_HEADER: Final = frozenset({"alg", "kid", "typ"})
_NONCE: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_TWO_PEOPLE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionCertificate:
    """A certificate of the destruction of one recording's keys. Invalid names the first contradiction in its members.

    `nonce` is 128 random bits in hex, so that nobody can guess the content from a published hash. `trial` marks a vault
    whose recordings may end at once. `log` is null for a vault without a transparency log.
    """

    schema: str = SCHEMA
    certificate_id: CertificateId
    nonce: str
    status: CertificateStatus
    supersedes: CertificateId | None
    trial: bool
    parties: Parties
    recording: RecordingFacts
    data: DataFacts
    encryption: Encryption
    retention: RetentionFacts
    trigger: TriggerFacts
    authorisation: Authorisation
    sanitisation: Sanitisation
    verification: Verification
    residuals: tuple[Residual, ...]
    log: Log | None = None
    claims: Statements
    non_claims: Statements

    def __post_init__(self) -> None:
        check(_contradictions(self))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts whose keys it states to be destroyed."""
        return tuple(each.part for each in self.recording.parts)


AnyCertificate: TypeAlias = DeletionCertificate | v1.DeletionCertificate


def subject(
    recording: Recording,
    segments: Sequence[SegmentRef],
    *,
    parts: tuple[Part, ...] = (Part.AUDIO,),
    retain_until: datetime | None = None,
    applied: Policy | None = None,
    authority: Authority = EXPIRED,
) -> Subject:
    """Return what a certificate states about these parts of a recording.

    `segments` are the objects of the audio; they are ignored if `parts` lacks the audio. `retain_until` and the policy
    that set it default to those of the audio.
    """
    audio = Part.AUDIO in parts
    keys = {
        Part.AUDIO: PartKey(recording.audio, recording.audio_commitment),
        Part.METADATA: PartKey(recording.metadata, recording.metadata_commitment),
    }
    captured = (
        Policy(name=recording.retention_class, version=POLICY_VERSION, period=recording.retention_period)
        if audio
        else None
    )
    return Subject(
        recording_id=recording.id,
        parts=tuple(keys[part] for part in sorted(parts)),
        captured=captured,
        applied=captured if applied is None else applied,
        captured_at=recording.started_at,
        received_at=recording.created_at,
        retain_until=recording.retain_until if retain_until is None else retain_until,
        objects=tuple(StoredObject(ref.name, ref.object_bytes, ref.sha256) for ref in segments) if audio else (),
        authority=authority,
    )


def statements(assurance: Assurance, parts: Collection[Part] = (Part.AUDIO,)) -> tuple[Statements, Statements]:
    """Return the current claims about `parts`, and the non-claims for a provider of this assurance."""
    return claims(parts), non_claims(assurance)


def reference_digest(case: str, reference: str) -> str:
    """Return the digest (hex) of a case's reference, as certificates state it."""
    return hashlib.sha256(b"\0".join((_REFERENCE, case.encode(), reference.encode()))).hexdigest()


class Issuer:
    """Signs certificates and batches with one key. The same content and key give the same text."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._sign = key.signer()

    def issue(self, certificate: AnyCertificate) -> str:
        """Return the certificate as a compact JWS; Invalid for text or numbers that JSON cannot carry."""
        return self._compact(TYPE, canonical_json(certificate))

    def issue_member(self, document: bytes, membership: Membership) -> str:
        """Return a document of a batch as a compact JWS with its proof of membership."""
        return self._compact(TYPE, document, membership.headers())

    def issue_batch(self, statement: BatchStatement) -> str:
        """Return the statement of a batch as a compact JWS."""
        return self._compact(BATCH_TYPE, statement_payload(statement))

    def _compact(self, typ: str, payload: bytes, extra: Mapping[str, str] | None = None) -> str:
        return sign_compact(payload, self._key, {"typ": typ, **(extra or {})}, sign=self._sign)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCertificate:
    """A certificate whose signature, form and consistency were verified; `lines` tell people what was checked."""

    certificate: AnyCertificate
    payload: bytes
    lines: tuple[str, ...]
    batch: BatchStatement | None = None


def certificate_text(data: bytes) -> str:
    """Return the compact JWS in a file; FormatError if more than one line feed surrounds it."""
    with naming_rule(Rule.FILE):
        text = data[:-1] if data.endswith(b"\n") else data
        if not text.isascii() or any(byte in b" \t\r\n\v\f" for byte in text):
            raise FormatError("the file is not a compact JWS, followed by one line feed at most")
        return text.decode("ascii")


def verify_certificate(jws: str, key: VerifyKey) -> VerifiedCertificate:
    """Verify a certificate offline, with only the issuer's public key.

    A certificate issued in a batch includes the batch's signed statement and must be a leaf of that batch.

    - Tampered if a signature is not by `key`, or the proof of membership fails.
    - FormatError unless the payload is the canonical form of a document with exactly its schema's members.
    - IntegrityError if the document contradicts itself.

    The check cannot show that the issuer told the truth.
    """
    with naming_rule(Rule.COMPACT):
        header = protected_header(jws)
    with naming_rule(Rule.HEADER):
        if header.get("typ") != TYPE:
            raise FormatError("a signed document, but not a deletion certificate")
        if strange := header.keys() - _HEADER - BATCH_HEADERS:
            raise FormatError(f"its header has a member that no certificate has: {min(strange)[:40]}")
    with naming_rule(Rule.SIGNATURE):
        payload = verify_compact(jws, key)
    certificate = read_document(payload)
    with naming_rule(Rule.BATCH_HEADER):
        membership = membership_of(header)
    batch = None if membership is None else verify_membership(payload, membership, key)
    lines = [*_lines(certificate, key), *(() if batch is None else _batch_lines(batch))]
    return VerifiedCertificate(certificate=certificate, payload=payload, lines=tuple(lines), batch=batch)


def read_document(payload: bytes) -> AnyCertificate:
    """Parse a certificate's document; no signature is verified.

    FormatError unless it is the canonical form of a document with exactly its schema's members. IntegrityError if it
    contradicts itself.
    """
    with naming_rule(Rule.CANONICAL):
        document = _canonical(payload, "the certificate")
    with naming_rule(Rule.SCHEMA):
        schema = document.get("schema") if isinstance(document, dict) else None
        shape = _SCHEMAS.get(schema) if isinstance(schema, str) else None
        if shape is None:
            raise FormatError(f"the document's schema is none of {', '.join(_SCHEMAS)}")
    with naming_rule(Rule.MEMBERS):
        certificate = from_json(shape, document)
        if canonical_json(certificate) != payload:
            raise FormatError("a member is not written as certificates write it")
    return certificate


_SCHEMAS: Final[Mapping[str, type[AnyCertificate]]] = {
    SCHEMA: DeletionCertificate,
    v1.SCHEMA: v1.DeletionCertificate,
}


def verify_objects(data: bytes, certificate: AnyCertificate) -> ObjectList:
    """Verify a list of objects against the certificate that counts them, and return the list.

    FormatError unless it is the canonical form of such a list, followed by one line feed at most. IntegrityError if it
    is not the list of this certificate. FormatError for a certificate of version 1, which names its objects itself.
    """
    with naming_rule(Rule.LIST):
        if not isinstance(certificate, DeletionCertificate):
            raise FormatError("a certificate of version 1 names its objects itself; there is no list beside it")
        text = data[:-1] if data.endswith(b"\n") else data
        found = from_json(ObjectList, _canonical(text, "the list of objects"))
        if canonical_json(found) != text:
            raise FormatError("a member is not written as lists of objects write it")
        if found.certificate_id != certificate.certificate_id or found.facts() != certificate.data.objects:
            raise IntegrityError("these are not the objects of this certificate")
        return found


def _canonical(payload: bytes, what: str) -> Any:
    try:
        document = json.loads(payload)
        unique = rfc8785.dumps(document) == payload
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not canonical JSON") from error
    if not unique:
        raise FormatError(f"{what} is JSON, but not in canonical form")
    return document


def _contradictions(certificate: DeletionCertificate) -> Iterator[Contradiction]:
    encryption, sanitisation = certificate.encryption, certificate.sanitisation
    checks = certificate.verification.checks
    yield from _wrong_identity(certificate)
    yield from _wrong_parts(certificate)
    yield from _wrong_digests(certificate)
    yield from wrong_texts(certificate.claims, certificate.non_claims)
    yield from _wrong_authority(certificate)
    yield from wrong_order(_order(certificate))
    yield from wrong_erasure(
        sanitisation.category,
        sanitisation.technique,
        checks,
        encrypted_before_first_write=encryption.encrypted_before_first_write,
    )
    if certificate.status is CertificateStatus.FINAL:
        yield from unfinished(sanitisation.completed, sanitisation.key_copies, checks)
        yield from _objects_left(certificate)
    elif sanitisation.completed is not None:
        yield Contradiction(Rule.COMPLETED, "a provisional certificate is not completed")


def _wrong_identity(certificate: DeletionCertificate) -> Iterator[Contradiction]:
    yield from wrong_id(certificate.certificate_id, "cert", "certificate_id")
    yield from wrong_id(certificate.recording.id, "rec", "recording.id")
    if certificate.supersedes is not None:
        yield from wrong_id(certificate.supersedes, "cert", "supersedes")
    if certificate.supersedes == certificate.certificate_id:
        yield Contradiction(Rule.IDS, "it supersedes itself")
    if certificate.trigger.case is not None:
        yield from wrong_id(certificate.trigger.case.id, "", "trigger.case.id")
    if certificate.retention.instruction is not None:
        yield from wrong_id(certificate.retention.instruction, "", "retention.instruction")
    for decider in certificate.authorisation.deciders:
        for name, identifier in (("person", decider.person), ("token", decider.token)):
            if identifier is not None:
                yield from wrong_id(identifier, "", name)
    if certificate.schema != SCHEMA:
        yield Contradiction(Rule.SCHEMA, f"its schema is not {SCHEMA}")
    if not _NONCE.fullmatch(certificate.nonce):
        yield Contradiction(Rule.NONCE, "its nonce is not 128 bits in hex")


def _wrong_parts(certificate: DeletionCertificate) -> Iterator[Contradiction]:
    parts = certificate.parts
    if not parts or list(parts) != sorted(set(parts)):
        yield Contradiction(Rule.PARTS, "its parts are not one or more, each once, in order of their names")
    for each in certificate.recording.parts:
        cohort = each.coordinate.cohort
        if (cohort.tenant, cohort.part) != (certificate.parties.tenant, each.part):
            yield Contradiction(Rule.PARTS, "a coordinate is not one of this tenant and its part")
    objects = certificate.data.objects
    if not objects.count and (objects.bytes, objects.root) != (0, NO_OBJECTS):
        yield Contradiction(Rule.OBJECTS, "no objects have no bytes and the root of the empty tree")
    if objects.count and Part.METADATA in parts and len(parts) == 1:
        yield Contradiction(Rule.OBJECTS, "metadata lies in no object")


def _wrong_digests(certificate: DeletionCertificate) -> Iterator[Contradiction]:
    case = certificate.trigger.case
    digests = [
        certificate.data.objects.root,
        *(each.key_commitment for each in certificate.recording.parts),
        *(each.evidence for each in certificate.authorisation.deciders),
        None if case is None else case.reference_sha256,
    ]
    if not all(digest is None or SHA256.fullmatch(digest) for digest in digests):
        yield Contradiction(Rule.DIGESTS, "a digest is not SHA-256 in hex")


def _wrong_authority(certificate: DeletionCertificate) -> Iterator[Contradiction]:
    trigger, span = certificate.trigger, certificate.trigger.range
    if certificate.authorisation.active_holds:
        yield Contradiction(Rule.HOLDS, "a hold was active")
    if trigger.case is not None and trigger.kind is Trigger.EXPIRY:
        yield Contradiction(Rule.TRIGGER, "an expiry has no case")
    if (span is not None) != (trigger.kind is Trigger.RANGE) or (span is not None and span.from_byte >= span.to_byte):
        yield Contradiction(Rule.TRIGGER, "a range of bytes goes with the trigger range, and is not empty")
    early = certificate.sanitisation.unrecoverable_at < certificate.retention.retain_until
    if early and trigger.kind is Trigger.EXPIRY:
        yield Contradiction(Rule.TRIGGER, "it expired before its retain-until")
    people = [decider.person or decider.token for decider in certificate.authorisation.deciders]
    if None in people:
        yield Contradiction(Rule.PEOPLE, "a decider is a person or a token")
    if early and len(set(people)) < _TWO_PEOPLE:
        yield Contradiction(Rule.PEOPLE, "a deletion before retain-until needs two deciders")


def _order(certificate: DeletionCertificate) -> Iterator[tuple[str, datetime, str, datetime]]:
    retention, sanitisation = certificate.retention, certificate.sanitisation
    gone = sanitisation.unrecoverable_at
    yield "captured_at", retention.captured_at, "retain_until", retention.retain_until
    yield "holds_checked_at", certificate.authorisation.holds_checked_at, "unrecoverable_at", gone
    yield "started", sanitisation.started, "unrecoverable_at", gone
    yield "unrecoverable_at", gone, "caches_clear_at", sanitisation.caches_clear_at
    yield "unrecoverable_at", gone, "verification", certificate.verification.at
    yield "unrecoverable_at", gone, "completed", sanitisation.completed or gone
    for each in certificate.recording.parts:
        yield "started", sanitisation.started, "shredded_at", each.shredded_at
        yield "shredded_at", each.shredded_at, "unrecoverable_at", gone


def _objects_left(certificate: DeletionCertificate) -> Iterator[Contradiction]:
    copies = certificate.sanitisation.data_copies
    store = {copy.result for copy in copies if copy.where is DataPlace.OBJECT_STORE}
    enough = Result.DONE in store or (not certificate.data.objects.count and Result.NOT_APPLICABLE in store)
    if not enough or any(copy.result in OPEN_RESULTS for copy in copies):
        yield Contradiction(Rule.DATA_COPIES, "a final certificate needs every object verified absent")


def _lines(certificate: AnyCertificate, key: VerifyKey) -> Iterator[str]:
    retention, sanitisation = certificate.retention, certificate.sanitisation
    identity, kind = (
        (certificate.recording.id, certificate.trigger.kind)
        if isinstance(certificate, DeletionCertificate)
        else (certificate.media.recording_id, certificate.retention.trigger)
    )
    yield f"signature: Ed25519 by issuer key {key.key_id}"
    yield f"form: canonical JSON of {certificate.schema}, nothing missing, nothing added"
    yield f"subject: {identity} of tenant {certificate.parties.tenant}"
    if isinstance(certificate, DeletionCertificate):
        yield from _parts_lines(certificate)
    yield (
        f"retention: {kind} at {stamp(sanitisation.unrecoverable_at)}, "
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


def _parts_lines(certificate: DeletionCertificate) -> Iterator[str]:
    for each in certificate.recording.parts:
        cohort = each.coordinate.cohort
        place = f"period {cohort.period}, generation {cohort.generation}, leaf {each.coordinate.leaf}"
        known = "its commitment is not known" if each.key_commitment is None else f"committed to {each.key_commitment}"
        yield f"key of the {each.part}: {place}; {known}"
    objects = certificate.data.objects
    yield f"objects: {objects.count} of {objects.bytes} bytes, root {objects.root}"
    if certificate.trial:
        yield "trial: issued by a trial vault, where recordings may end at once"


def _batch_lines(batch: BatchStatement) -> Iterator[str]:
    yield (
        f"batch: {batch.batch_id}, signed at {stamp(batch.issued_at)} over {batch.size} certificates; "
        "this is one of them"
    )


def _tally(results: Iterable[Result]) -> str:
    found = list(results)
    return ", ".join(f"{found.count(each)} {each}" for each in Result if each in found) or "none"
