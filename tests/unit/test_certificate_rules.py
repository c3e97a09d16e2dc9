"""The document of certificates and the verifier are one: every rule is printed, and every printed rule refuses."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from tests.helpers.certificates import CASE, GONE, ISSUER, STRANGER, final, object_list, provisional
from vault.certificates.batch import TYPE as BATCH_TYPE
from vault.certificates.batch import BatchStatement, Tree, leaf_hash, statement_payload
from vault.certificates.canonical import canonical_json
from vault.certificates.document import (
    TYPE,
    Issuer,
    certificate_text,
    verify_certificate,
    verify_objects,
)
from vault.certificates.statements import CLAIMS, PUBLISHED, Rule
from vault.crypto.derive import commitment
from vault.crypto.signing import encode_base64url, sign_compact
from vault.errors import VaultError
from vault.model import DataKey, Part

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/certificates.md").read_text()
KEY = ISSUER.public
FINAL = final()
V1 = (ROOT / "tests/transcripts/certificate-v1-final.jws").read_text().strip()


def payload_of(jws: str) -> Any:
    part = jws.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def signed(document: Any) -> str:
    return sign_compact(rfc8785.dumps(document), ISSUER, {"typ": TYPE})


def said(path: str, value: Any, of: Any = None) -> Callable[[], object]:
    """A document in which one member says something else, correctly signed."""

    def verify() -> object:
        document = payload_of(Issuer(ISSUER).issue(FINAL)) if of is None else json.loads(json.dumps(of))
        *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
        place = document
        for step in steps:
            place = place[step]
        place[last] = value
        return verify_certificate(signed(document), KEY)

    return verify


def older(path: str, value: Any) -> Callable[[], object]:
    return said(path, value, payload_of(V1))


def first(path: str, value: Any) -> Callable[[], object]:
    return said(path, value, json.loads(canonical_json(provisional())))


def jws(text: str) -> Callable[[], object]:
    return lambda: verify_certificate(text, KEY)


def raw(header: bytes, payload: bytes = b"{}") -> str:
    text = f"{encode_base64url(header)}.{encode_base64url(payload)}"
    return f"{text}.{encode_base64url(ISSUER.sign(text.encode()))}"


TEXT = Issuer(ISSUER).issue(FINAL)
HEAD, PAYLOAD, SIGNATURE = TEXT.split(".")
BODY = canonical_json(FINAL)
TREE = Tree([leaf_hash(BODY), leaf_hash(b"another")])
STATEMENT = BatchStatement(batch_id="bat_" + "d0" * 16, issued_at=GONE, size=2, root=TREE.root.hex())
BATCH = {
    "batch": Issuer(ISSUER).issue_batch(STATEMENT),
    "batch_index": "0",
    "batch_path": encode_base64url(b"".join(TREE.path(0))),
}


def member(**changes: str | None) -> Callable[[], object]:
    header = {name: value for name, value in {**BATCH, **changes}.items() if value is not None}
    return jws(sign_compact(BODY, ISSUER, {"typ": TYPE, **header}))


def statement(**changes: Any) -> Callable[[], object]:
    document = {**json.loads(statement_payload(STATEMENT)), **changes}
    return member(batch=sign_compact(rfc8785.dumps(document), ISSUER, {"typ": BATCH_TYPE}))


def listing(data: bytes) -> Callable[[], object]:
    return lambda: verify_objects(data, FINAL)


LIST = canonical_json(object_list(FINAL))
AFTER = "2026-06-30T00:00:00.000000Z"
BEFORE = "2026-05-01T00:00:00.000000Z"
ANN = {"person": None, "token": "tok_" + "1" * 32, "role": "dpo", "at": None, "evidence": None}

REFUSED: dict[Rule, list[Callable[[], object]]] = {
    Rule.FILE: [
        lambda: certificate_text(b" " + TEXT.encode()),
        lambda: certificate_text(TEXT.encode() + b" "),
        lambda: certificate_text(TEXT.encode() + b"\n\n"),
        lambda: certificate_text(TEXT.encode() + b"\r\n"),
        lambda: certificate_text(b"\xef\xbb\xbf" + TEXT.encode()),
    ],
    Rule.COMPACT: [
        jws(f"{HEAD}.{PAYLOAD}"),
        jws(f"{TEXT}="),
        jws(f"{HEAD}=.{PAYLOAD}.{SIGNATURE}"),
        jws(f"{HEAD}.{PAYLOAD}.{SIGNATURE[:-1]}B"),
        jws(f" {TEXT}"),
        jws(raw(b'{"alg":"EdDSA","kid":"x","typ":"y"}')),
        jws(raw(b'{"alg":"none","kid":"x"}')),
        jws(raw(b'{"alg":"Ed25519","crit":"x","kid":"x"}')),
        jws(raw(b'{"kid":"x","alg":"Ed25519"}')),
        jws(raw(b'{"alg":"Ed25519","kid":1}')),
        jws(raw(b'{"alg":"Ed25519"}')),
    ],
    Rule.HEADER: [
        jws(sign_compact(BODY, ISSUER, {"typ": "JWT"})),
        jws(sign_compact(BODY, ISSUER)),
        jws(sign_compact(BODY, ISSUER, {"typ": TYPE, "jku": "https://evil.example"})),
    ],
    Rule.SIGNATURE: [
        jws(f"{HEAD}.{PAYLOAD}.{Issuer(ISSUER).issue(provisional()).split('.')[2]}"),
        lambda: verify_certificate(TEXT, STRANGER.public),
    ],
    Rule.CANONICAL: [
        jws(sign_compact(b" " + BODY, ISSUER, {"typ": TYPE})),
        jws(sign_compact(json.dumps(payload_of(TEXT)).encode(), ISSUER, {"typ": TYPE})),
        jws(sign_compact(b'{"authorisation":1,' + BODY[1:], ISSUER, {"typ": TYPE})),
    ],
    Rule.SCHEMA: [said("schema", "callvault/deletion-certificate/v3"), said("schema", 2), jws(signed([]))],
    Rule.MEMBERS: [
        said("caller", "+441632960001"),
        said("trial", 0),
        said("recording.parts.0.part", "video"),
        said("retention.captured_at", "2026-03-01T24:00:00.000000Z"),
        said("log", {}),
        older("log", {"origin": "x"}),
        older("media.objects.0.versions", True),
    ],
    Rule.IDS: [
        said("certificate_id", "crt_" + "0" * 32),
        said("supersedes", "rec_" + "0" * 32),
        said("supersedes", FINAL.certificate_id),
        said("recording.id", "cert_" + "0" * 32),
        said("recording.id", "rec_" + "A" * 32),
        said("retention.instruction", "stop keeping it"),
        said("authorisation.deciders", [{**ANN, "token": "ann"}]),
        older("media.recording_id", "cert_" + "0" * 32),
        older("certificate_id", "crt_" + "0" * 32),
    ],
    Rule.NONCE: [said("nonce", "C3" * 16), said("nonce", "c3" * 15), older("nonce", "")],
    Rule.PARTS: [
        said("recording.parts", []),
        said("recording.parts", [payload_of(TEXT)["recording"]["parts"][0]] * 2),
        said("recording.parts.0.part", "metadata"),
        said("recording.parts.0.coordinate.0", "elmtree"),
        said("parties.tenant", "elmtree"),
        older("media.parts", ["metadata"]),
    ],
    Rule.DIGESTS: [
        said("recording.parts.0.key_commitment", "D4" * 32),
        said("data.objects.root", "00"),
        said("authorisation.deciders", [{**ANN, "evidence": "x"}]),
        older("encryption.key_commitment", "zz"),
    ],
    Rule.OBJECTS: [
        said("data.objects.count", 0),
        first("recording.parts", json.loads(canonical_json(provisional(parts=(Part.METADATA,))))["recording"]["parts"]),
    ],
    Rule.HOLDS: [said("authorisation.active_holds", 1), older("authorisation.active_holds", 1)],
    Rule.TRIGGER: [
        said("retention.retain_until", AFTER),
        said("trigger.case", {"id": CASE.id, "reference_sha256": CASE.reference_sha256}),
        said("trigger.range", {"from_byte": 0, "to_byte": 1}),
        said("trigger", {"kind": "range", "case": None, "range": {"from_byte": 1, "to_byte": 1}}),
        said("trigger.kind", "range"),
        older("retention.retain_until", AFTER),
        older("retention.trigger", "objection"),
    ],
    Rule.PEOPLE: [
        said("authorisation.deciders", [{**ANN, "token": None}]),
        said(
            "retention.retain_until",
            AFTER,
            {**payload_of(TEXT), "trigger": {**payload_of(TEXT)["trigger"], "kind": "art17"}},
        ),
        older("retention", {**payload_of(V1)["retention"], "trigger": "art17", "retain_until": AFTER}),
    ],
    Rule.ORDER: [
        said("retention.captured_at", AFTER),
        said("sanitisation.started", AFTER),
        said("authorisation.holds_checked_at", AFTER),
        said("recording.parts.0.shredded_at", AFTER),
        said("recording.parts.0.shredded_at", BEFORE),
        said("sanitisation.caches_clear_at", BEFORE),
        said("verification.at", BEFORE),
        said("sanitisation.completed", BEFORE),
        older("verification.at", BEFORE),
    ],
    Rule.TECHNIQUE: [said("sanitisation.technique", "overwrite"), older("sanitisation.category", "clear")],
    Rule.ENCRYPTED: [
        said("encryption.encrypted_before_first_write", value=False),
        older("encryption.encrypted_before_first_write", value=False),
    ],
    Rule.KEY_CHECKS: [first("verification.checks.1.result", "failed"), older("verification.checks.0.result", "failed")],
    Rule.COMPLETED: [
        said("sanitisation.completed", None),
        first("sanitisation.completed", AFTER),
        older("sanitisation.completed", None),
    ],
    Rule.KEY_COPIES: [
        said("sanitisation.key_copies.0.result", "failed"),
        said("sanitisation.key_copies.1.result", "unknown"),
        said("sanitisation.key_copies.2.result", "unknown"),
        said("sanitisation.key_copies.1.result", "not_applicable"),
        said("sanitisation.key_copies", []),
        older("sanitisation.key_copies.0.result", "unknown"),
    ],
    Rule.DATA_COPIES: [
        said("sanitisation.data_copies", []),
        said("sanitisation.data_copies.0.result", "failed"),
        said("sanitisation.data_copies.0.result", "not_applicable"),
        older("sanitisation.data_copies", []),
    ],
    Rule.CHECKS: [
        said("verification.checks", []),
        said("verification.checks.3.result", "unknown"),
        older("verification.checks.2.result", "failed"),
    ],
    Rule.TEXTS: [
        said("claims.texts", [*CLAIMS.texts, "Everything is fine."]),
        said("non_claims.texts", []),
        older("claims.texts.0", ""),
    ],
    Rule.BATCH_HEADER: [
        member(batch_path=None),
        member(batch_index=None),
        member(batch_index="00"),
        member(batch_path=f"{BATCH['batch_path']}="),
        member(batch_path=encode_base64url(bytes(33))),
        member(batch_path=encode_base64url(bytes(54 * 32))),
    ],
    Rule.BATCH_STATEMENT: [
        member(batch=TEXT),
        member(batch=Issuer(STRANGER).issue_batch(STATEMENT)),
        member(batch=sign_compact(b" " + statement_payload(STATEMENT), ISSUER, {"typ": BATCH_TYPE})),
        member(batch=sign_compact(statement_payload(STATEMENT), ISSUER, {"typ": BATCH_TYPE, "more": "x"})),
        member(batch=" " + BATCH["batch"]),
    ],
    Rule.BATCH_RULES: [
        statement(batch_id="cert_" + "0" * 32),
        statement(batch_id="x"),
        statement(size=0),
        statement(size=True),
        statement(root="00"),
        statement(more=1),
    ],
    Rule.BATCH_PATH: [
        member(batch_index="1"),
        member(batch_index="2"),
        member(batch_path=""),
        statement(root="00" * 32),
        statement(size=3),
    ],
    Rule.LIST: [
        listing(b"{}"),
        listing(LIST + b"\n\n"),
        listing(LIST.replace(b'"bytes":1440500', b'"bytes":1440501', 1)),
        listing(canonical_json(object_list(provisional()))),
        lambda: verify_objects(LIST, verify_certificate(V1, KEY).certificate),
    ],
}


def test_the_document_lists_exactly_the_rules_of_the_verifier() -> None:
    assert re.findall(r"^\| ([A-Z][0-9]+) \| \S", DOCUMENT, re.MULTILINE) == [
        rule.value for rule in Rule if rule in REFUSED
    ]
    assert set(REFUSED) == set(Rule)


@pytest.mark.parametrize("rule", Rule)
def test_what_breaks_a_rule_is_refused_by_that_rule(rule: Rule) -> None:
    for number, sample in enumerate(REFUSED[rule]):
        with pytest.raises(VaultError) as caught:
            sample()
        assert caught.value.message.endswith(f"(rule {rule})"), (number, caught.value.message)


def test_what_the_samples_vary_is_accepted_as_it_is() -> None:
    for text in (TEXT, V1, Issuer(ISSUER).issue(provisional()), sign_compact(BODY, ISSUER, {"typ": TYPE, **BATCH})):
        verify_certificate(certificate_text(text.encode() + b"\n"), KEY)
        verify_certificate(certificate_text(text.encode()), KEY)
    for data in (LIST, LIST + b"\n"):
        assert len(verify_objects(data, FINAL).objects) == 2


def test_the_document_prints_every_published_text_and_no_other() -> None:
    printed = {
        version: tuple(re.findall(r"^[0-9]+\. (.+)$", body, re.MULTILINE))
        for version, body in re.findall(
            r"^### `(callvault/\S+)`\n\n(.*?)(?=^##|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL
        )
    }
    assert printed == dict(PUBLISHED)


def test_the_example_of_a_key_commitment_is_one() -> None:
    example = commitment(DataKey(bytes(range(32)))).hex()
    assert f"`{example}`" in (ROOT / "docs/format.md").read_text()


@pytest.mark.parametrize("name", ["provisional", "final"])
def test_a_certificate_of_version_1_goes_on_verifying(name: str) -> None:
    text = certificate_text((ROOT / f"tests/transcripts/certificate-v1-{name}.jws").read_bytes())
    verified = verify_certificate(text, KEY)
    assert verified.certificate.status == name
    assert verified.certificate.schema == "callvault/deletion-certificate/v1"
    assert (verified.batch is not None) == (name == "provisional")
