"""Deletion certificates: what they may say, and what a stranger finds out about them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS, InvalidJWSSignature

from tests.helpers.certificates import (
    CASE,
    DUE,
    GONE,
    ISSUER,
    STRANGER,
    SWEEP,
    decider,
    final,
    key_copies,
    provisional,
)
from vault.certificates.canonical import canonical_json
from vault.certificates.document import (
    TYPE,
    Check,
    CheckName,
    DeletionCertificate,
    Issuer,
    KeyPlace,
    Range,
    Result,
    Trigger,
    TriggerFacts,
    statements,
    verify_certificate,
)
from vault.certificates.statements import PUBLISHED, Statements
from vault.crypto.signing import VerifyKey, sign_compact
from vault.errors import FormatError, IntegrityError, Invalid, Tampered
from vault.ids import CertificateId, RecordingId, TenantId
from vault.model import Assurance, CertificateStatus, Part

KEY = ISSUER.public
FINAL = final()
BOTH = final(provisional(parts=(Part.AUDIO, Part.METADATA)))
ERASED = replace(
    FINAL,
    trigger=TriggerFacts(kind=Trigger.ART17, case=CASE, range=None),
    authorisation=replace(FINAL.authorisation, deciders=(decider(1), decider(2))),
    retention=replace(FINAL.retention, retain_until=GONE + timedelta(days=1)),
)
JWS_TEXT = Issuer(ISSUER).issue(FINAL)


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(canonical_json(FINAL))
    return loaded


def signed(payload: bytes, *, typ: str = TYPE) -> str:
    return sign_compact(payload, ISSUER, {"typ": typ})


def decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


# What the document says


def test_the_payload_is_rfc_8785_canonical() -> None:
    assert canonical_json(FINAL) == rfc8785.dumps(document())


def test_every_assurance_states_its_own_limit() -> None:
    for assurance in Assurance:
        claims, non_claims = statements(assurance)
        assert PUBLISHED[claims.version] == claims.texts
        assert PUBLISHED[non_claims.version] == non_claims.texts
    best_effort = statements(Assurance.BEST_EFFORT)[1].texts[0]
    assert "best effort" in best_effort
    assert "Flash storage" in best_effort
    assert len({statements(assurance)[1].version for assurance in Assurance}) == len(Assurance)


def test_issuing_again_gives_the_same_text() -> None:
    assert Issuer(ISSUER).issue(final()) == JWS_TEXT
    assert sign_compact(canonical_json(FINAL), ISSUER, {"typ": TYPE}) == JWS_TEXT


# What cannot be said


def with_sanitisation(certificate: DeletionCertificate, **changes: Any) -> DeletionCertificate:
    return replace(certificate, sanitisation=replace(certificate.sanitisation, **changes))


def with_recording(certificate: DeletionCertificate, **changes: Any) -> DeletionCertificate:
    return replace(certificate, recording=replace(certificate.recording, **changes))


def with_objects(certificate: DeletionCertificate, **changes: Any) -> DeletionCertificate:
    objects = replace(certificate.data.objects, **changes)
    return replace(certificate, data=replace(certificate.data, objects=objects))


def with_retention(certificate: DeletionCertificate, **changes: Any) -> DeletionCertificate:
    return replace(certificate, retention=replace(certificate.retention, **changes))


def with_checks(certificate: DeletionCertificate, *checks: tuple[CheckName, Result]) -> DeletionCertificate:
    made = tuple(Check(check=name, result=result) for name, result in checks)
    return replace(certificate, verification=replace(certificate.verification, checks=made))


@pytest.mark.parametrize("result", [Result.FAILED, Result.UNKNOWN])
@pytest.mark.parametrize("index", range(5))
def test_a_failed_or_unknown_key_copy_forbids_final(result: Result, index: int) -> None:
    copies = list(key_copies())
    copies[index] = replace(copies[index], result=result)
    with pytest.raises(Invalid, match="failed or unknown key copy"):
        with_sanitisation(FINAL, key_copies=tuple(copies))
    # The provisional one may say so.
    assert with_sanitisation(provisional(), key_copies=tuple(copies)).status is CertificateStatus.PROVISIONAL


@pytest.mark.parametrize("place", [KeyPlace.PROVIDER_VERSION, KeyPlace.KEYRING_REPLICA])
def test_final_accounts_for_provider_and_keyring(place: KeyPlace) -> None:
    with pytest.raises(Invalid, match="accounts for"):
        with_sanitisation(FINAL, key_copies=tuple(copy for copy in key_copies() if copy.where is not place))


FINAL_CHECKS = [(CheckName.OLD_EPOCH_UNWRAP_FAILS, Result.DONE), (CheckName.LEAF_UNDERIVABLE, Result.DONE)]
ABSENT = (CheckName.OBJECTS_ABSENT, Result.DONE)

CONTRADICTIONS: dict[str, Callable[[], Any]] = {
    "its schema is not": lambda: replace(FINAL, schema="callvault/deletion-certificate/v1"),
    "nonce": lambda: replace(FINAL, nonce="c3" * 15),
    "supersedes itself": lambda: replace(FINAL, supersedes=FINAL.certificate_id),
    "certificate_id is not an id": lambda: replace(FINAL, certificate_id=CertificateId("cert-1")),
    "certificate_id is not an id of the kind cert_": lambda: replace(
        FINAL, certificate_id=CertificateId("rec_" + "0" * 32)
    ),
    "recording.id is not an id": lambda: with_recording(FINAL, id=RecordingId("+441632960001")),
    "recording.id is not an id of the kind rec_": lambda: with_recording(FINAL, id=RecordingId("cert_" + "0" * 32)),
    "not one of this tenant": lambda: replace(FINAL, parties=replace(FINAL.parties, tenant=TenantId("elmtree"))),
    "and its part": lambda: with_recording(FINAL, parts=(replace(FINAL.recording.parts[0], part=Part.METADATA),)),
    "one or more, each once": lambda: with_recording(FINAL, parts=()),
    "each once, in order": lambda: with_recording(FINAL, parts=BOTH.recording.parts[::-1]),
    "a digest is not SHA-256": lambda: with_recording(
        FINAL, parts=(replace(FINAL.recording.parts[0], key_commitment="zz"),)
    ),
    "root of the empty tree": lambda: with_objects(FINAL, count=0),
    "metadata lies in no object": lambda: with_recording(FINAL, parts=BOTH.recording.parts[1:]),
    "not the published one": lambda: replace(
        FINAL, claims=Statements(version=FINAL.claims.version, texts=("All good.",))
    ),
    "a hold was active": lambda: replace(FINAL, authorisation=replace(FINAL.authorisation, active_holds=1)),
    "expired before its retain-until": lambda: with_retention(FINAL, retain_until=GONE + timedelta(microseconds=1)),
    "an expiry has no case": lambda: replace(FINAL, trigger=replace(FINAL.trigger, case=CASE)),
    "goes with the trigger range": lambda: replace(FINAL, trigger=replace(FINAL.trigger, kind=Trigger.RANGE)),
    "is not empty": lambda: replace(
        FINAL, trigger=TriggerFacts(kind=Trigger.RANGE, case=None, range=Range(from_byte=8, to_byte=8))
    ),
    "needs two deciders": lambda: replace(
        ERASED, authorisation=replace(ERASED.authorisation, deciders=ERASED.authorisation.deciders[:1])
    ),
    "a decider is a person or a token": lambda: replace(
        ERASED,
        authorisation=replace(
            ERASED.authorisation, deciders=(*ERASED.authorisation.deciders, replace(decider(3), token=None))
        ),
    ),
    "token is not an id": lambda: replace(
        ERASED, authorisation=replace(ERASED.authorisation, deciders=(replace(decider(1), token="ann"), decider(2)))
    ),
    "shredded_at lies after": lambda: with_recording(
        FINAL, parts=(replace(FINAL.recording.parts[0], shredded_at=GONE + timedelta(seconds=1)),)
    ),
    "provisional certificate is not completed": lambda: with_sanitisation(provisional(), completed=GONE),
    "captured_at lies after retain_until": lambda: with_retention(FINAL, captured_at=DUE + timedelta(seconds=1)),
    "holds_checked_at lies after": lambda: replace(
        FINAL, authorisation=replace(FINAL.authorisation, holds_checked_at=GONE + timedelta(seconds=1))
    ),
    "started lies after": lambda: with_sanitisation(FINAL, started=GONE + timedelta(seconds=1)),
    "after caches_clear_at": lambda: with_sanitisation(FINAL, caches_clear_at=GONE - timedelta(seconds=1)),
    "after verification": lambda: replace(FINAL, verification=replace(FINAL.verification, at=SWEEP)),
    "after completed": lambda: with_sanitisation(FINAL, completed=SWEEP),
    "other than a cryptographic erase": lambda: with_sanitisation(FINAL, technique="overwrite"),
    "encryption before the first write": lambda: replace(
        FINAL, encryption=replace(FINAL.encryption, encrypted_before_first_write=False)
    ),
    "the key is not gone": lambda: with_checks(provisional(), (CheckName.LEAF_UNDERIVABLE, Result.FAILED)),
    "when everything was completed": lambda: with_sanitisation(FINAL, completed=None),
    "every object verified absent": lambda: with_sanitisation(FINAL, data_copies=()),
    "needs every object verified absent": lambda: with_sanitisation(
        FINAL, data_copies=(replace(FINAL.sanitisation.data_copies[0], result=Result.NOT_APPLICABLE),)
    ),
    "object verified absent": lambda: with_sanitisation(
        FINAL,
        data_copies=(
            *FINAL.sanitisation.data_copies,
            replace(FINAL.sanitisation.data_copies[0], result=Result.UNKNOWN),
        ),
    ),
    "needs every check passed": lambda: with_checks(FINAL, *FINAL_CHECKS),
    "every check passed": lambda: with_checks(
        FINAL, *FINAL_CHECKS, ABSENT, (CheckName.NO_MULTIPART_LEFT, Result.UNKNOWN)
    ),
}


@pytest.mark.parametrize("says", CONTRADICTIONS)
def test_a_certificate_that_contradicts_itself_cannot_exist(says: str) -> None:
    with pytest.raises(Invalid) as caught:
        CONTRADICTIONS[says]()
    assert says in caught.value.message


def test_an_early_deletion_needs_two_different_people_and_another_trigger() -> None:
    early: dict[str, Any] = {"retain_until": GONE + timedelta(days=1)}
    asked = replace(FINAL, trigger=TriggerFacts(kind=Trigger.ART17, case=CASE, range=None))
    one, two = decider(1), decider(2)
    # The same person with two tokens is one person.
    person = {"person": "per_" + "1" * 32}
    for deciders in ((), (one,), (one, one), (replace(one, **person), replace(two, **person))):
        with pytest.raises(Invalid):
            with_retention(replace(asked, authorisation=replace(asked.authorisation, deciders=deciders)), **early)
    approved = replace(asked, authorisation=replace(asked.authorisation, deciders=(one, two)))
    assert with_retention(approved, **early).trigger.kind is Trigger.ART17


def test_a_recording_without_objects_can_be_final() -> None:
    assert final(provisional(refs=[])).data.objects.count == 0


def test_what_json_cannot_carry_is_never_signed() -> None:
    issuer = Issuer(ISSUER)
    for broken in (
        with_sanitisation(FINAL, epoch_destroyed=1 << 53),
        with_sanitisation(FINAL, epoch_destroyed=-1),
        with_sanitisation(FINAL, tool="\ud800"),
        with_sanitisation(FINAL, provider="\udfff"),
    ):
        with pytest.raises(Invalid):
            issuer.issue(broken)


def test_a_time_without_a_zone_is_never_signed() -> None:
    residual = replace(provisional().residuals[0], until=datetime(2026, 8, 1))  # noqa: DTZ001 - the mistake under test
    with pytest.raises(Invalid, match="without a zone"):
        canonical_json(replace(provisional(), residuals=(residual,)))


# What a stranger finds out


@pytest.mark.parametrize("certificate", [provisional(), FINAL], ids=["provisional", "final"])
def test_a_certificate_verifies_and_reads_back_whole(certificate: DeletionCertificate) -> None:
    jws = Issuer(ISSUER).issue(certificate)
    verified = verify_certificate(jws, VerifyKey.from_pem(KEY.to_pem()))
    assert verified.certificate == certificate
    assert verified.payload == canonical_json(certificate)


def test_the_lines_tell_a_person_what_was_checked() -> None:
    lines = verify_certificate(JWS_TEXT, KEY).lines
    assert [line.split(":")[0] for line in lines] == [
        "signature",
        "form",
        "subject",
        "key of the audio",
        "objects",
        "retention",
        "erasure",
        "key copies",
        "data copies",
        "checks",
        "statements",
        "statements",
        "status",
    ]
    text = "\n".join(lines)
    assert "rec_" + "a1" * 16 in text
    assert "3 done, 2 not_applicable" in text
    assert "assurance best_effort" in text
    assert "final" in lines[-1]
    assert "provisional" in verify_certificate(Issuer(ISSUER).issue(provisional()), KEY).lines[-1]


def test_a_trial_vaults_certificate_says_so() -> None:
    assert not any(line.startswith("trial") for line in verify_certificate(JWS_TEXT, KEY).lines)
    lines = verify_certificate(Issuer(ISSUER).issue(replace(FINAL, trial=True)), KEY).lines
    assert any(line.startswith("trial") for line in lines)


def test_statements_of_an_unknown_version_are_pointed_out_not_vouched_for() -> None:
    strange = replace(FINAL, claims=Statements(version="callvault/claims/v9", texts=("Something else.",)))
    lines = verify_certificate(Issuer(ISSUER).issue(strange), KEY).lines
    assert any("callvault/claims/v9" in line and "unknown" in line for line in lines)


def test_another_key_or_a_changed_character_is_tampering() -> None:
    with pytest.raises(Tampered):
        verify_certificate(JWS_TEXT, STRANGER.public)
    head, payload, signature = JWS_TEXT.split(".")
    forged = base64.urlsafe_b64encode(decode(payload).replace(b"oakfield", b"elmtrees")).rstrip(b"=").decode()
    with pytest.raises(Tampered):
        verify_certificate(f"{head}.{forged}.{signature}", KEY)
    other = Issuer(ISSUER).issue(provisional()).split(".")[2]
    with pytest.raises(Tampered):
        verify_certificate(f"{head}.{payload}.{other}", KEY)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", JWS_TEXT[:-1], JWS_TEXT + "A", JWS_TEXT.replace(".", "")])
def test_what_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        verify_certificate(text, KEY)


def test_a_document_signed_for_another_purpose_is_not_a_certificate() -> None:
    for jws in (signed(canonical_json(FINAL), typ="JWT"), sign_compact(canonical_json(FINAL), ISSUER)):
        with pytest.raises(FormatError, match="not a deletion certificate"):
            verify_certificate(jws, KEY)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"NaN",
        b"{}",
        b'{"schema":"callvault/deletion-certificate/v1"}',
        b'{"schema":"callvault/deletion-certificate/v2"}',
        b'{"schema":["callvault/deletion-certificate/v2"]}',
        b'{"schema":"callvault/deletion-certificate/v3"}',
        b"\xff",
        b"[" * 100_000,
        b"1" * 5000,
        b'"\\ud800"',
        b" " + canonical_json(FINAL),
        canonical_json(FINAL)[:-1] + b',"schema":"callvault/deletion-certificate/v2"}',
        json.dumps(document()).encode(),
    ],
    ids=range(16),
)
def test_a_payload_that_is_not_the_canonical_form_is_refused(payload: bytes) -> None:
    with pytest.raises(FormatError):
        verify_certificate(signed(payload), KEY)


def changed(path: str, value: Any) -> bytes:
    whole = document()
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
    place: Any = whole
    for step in steps:
        place = place[step]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return rfc8785.dumps(whole)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("nonce", KeyError),
        ("extra", 1),
        ("recording.caller", "+441632960001"),
        ("log", {}),
        ("trial", None),
        ("trial", 0),
        ("status", "definitive"),
        ("status", None),
        ("supersedes", 1),
        ("recording", []),
        ("recording.parts", {}),
        ("recording.parts.0", "x"),
        ("recording.parts.0.part", "video"),
        ("recording.parts.0.coordinate", ["oakfield", "audio", 20604, 0]),
        ("recording.parts.0.coordinate.1", "video"),
        ("recording.parts.0.coordinate.4", True),
        ("data.objects.count", True),
        ("data.objects.bytes", 1.5),
        ("data.objects.bytes", -1),
        ("encryption.encrypted_before_first_write", 1),
        ("retention.captured.period", 90),
        ("retention.retain_until", "2026-05-30T09:30:00Z"),
        ("retention.retain_until", "2026-05-30T09:30:00.000000+00:00"),
        ("retention.retain_until", "2026-02-30T09:30:00.000000Z"),
        ("retention.retain_until", "2026-05-29T24:00:00.000000Z"),
        ("retention.retain_until", 0),
        ("trigger.range", []),
        ("sanitisation.completed", False),
        ("sanitisation.key_copies.0.where", "elsewhere"),
    ],
)
def test_a_member_missing_added_or_of_another_type_is_refused(path: str, value: Any) -> None:
    with pytest.raises(FormatError):
        verify_certificate(signed(changed(path, value)), KEY)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("retention.retain_until", "2027-05-30T09:30:00.000000Z"),
        ("authorisation.active_holds", 1),
        ("sanitisation.key_copies.1.result", "unknown"),
        ("sanitisation.data_copies.0.result", "failed"),
        ("sanitisation.completed", None),
        ("certificate_id", "1"),
        ("claims.texts.0", "Everything is fine."),
    ],
)
def test_a_signed_contradiction_is_not_evidence(path: str, value: Any) -> None:
    with pytest.raises(IntegrityError):
        verify_certificate(signed(changed(path, value)), KEY)


# Verifiers that are not ours


def by_jwcrypto(text: str, pem: bytes) -> bytes:
    """The payload as an independent JOSE library sees it, told to accept nothing but RFC 9864's algorithm."""
    token = JWS()
    token.allowed_algs = ["Ed25519"]
    token.deserialize(text, key=JWK.from_pem(pem))
    payload: bytes = token.payload
    return payload


def test_jwcrypto_verifies_the_certificate_and_reads_the_same_payload() -> None:
    assert by_jwcrypto(JWS_TEXT, KEY.to_pem()) == canonical_json(FINAL)


def test_jwcrypto_refuses_another_key_and_a_changed_payload() -> None:
    head, _, signature = JWS_TEXT.split(".")
    other = Issuer(ISSUER).issue(provisional()).split(".")[1]
    for text, pem in ((JWS_TEXT, STRANGER.public.to_pem()), (f"{head}.{other}.{signature}", KEY.to_pem())):
        with pytest.raises(InvalidJWSSignature):
            by_jwcrypto(text, pem)


def test_cryptography_alone_verifies_the_signing_input() -> None:
    head, payload, signature = JWS_TEXT.split(".")
    public: Any = load_pem_public_key(KEY.to_pem())
    public.verify(decode(signature), f"{head}.{payload}".encode())
    assert json.loads(decode(head))["alg"] == "Ed25519"
    with pytest.raises(InvalidSignature):
        public.verify(decode(signature), f"{head}.{payload[:-2]}AA".encode())
