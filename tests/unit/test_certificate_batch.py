"""Certificates that were signed together: each stands alone, and says in whose company it was signed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import rfc8785
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from tests.helpers.certificates import GONE, ISSUER, STRANGER, final, provisional
from vault.certificates.batch import TYPE as BATCH_TYPE
from vault.certificates.batch import (
    BatchStatement,
    Entries,
    Group,
    Membership,
    Tree,
    leaf_hash,
    pack_entries,
    statement_payload,
    unpack_entries,
    verify_statement,
)
from vault.certificates.canonical import canonical_json
from vault.certificates.document import TYPE, DeletionCertificate, Issuer, verify_certificate
from vault.certificates.template import Form, earlier_document, values_of
from vault.crypto.signing import SigningKey, encode_base64url, protected_header, sign_compact
from vault.errors import FormatError, IntegrityError, Invalid, Tampered
from vault.ids import CertificateId, TenantId
from vault.model import Part

KEY = ISSUER.public
CERTIFICATES = [replace(provisional(), certificate_id=CertificateId(f"cert_{number:032x}")) for number in range(5)]
DOCUMENTS = [canonical_json(certificate) for certificate in CERTIFICATES]
TREE = Tree([leaf_hash(document) for document in DOCUMENTS])
BATCH = BatchStatement(batch_id="bat_" + "d0" * 16, issued_at=GONE, size=5, root=TREE.root.hex())


def member(number: int, statement: BatchStatement = BATCH, *, by: SigningKey = ISSUER, **changes: Any) -> str:
    signed = Issuer(by).issue_batch(statement)
    membership = Membership(statement=signed, index=number, path=TREE.path(number))
    return Issuer(ISSUER).issue_member(DOCUMENTS[number], replace(membership, **changes))


def with_header(**members: str) -> str:
    """A certificate with these members in its header, correctly signed."""
    return sign_compact(DOCUMENTS[0], ISSUER, {"typ": TYPE, **members})


@pytest.mark.parametrize("index", range(5))
def test_each_certificate_of_a_batch_verifies_alone_and_names_the_batch(index: int) -> None:
    verified = verify_certificate(member(index), KEY)
    assert verified.certificate == CERTIFICATES[index]
    assert verified.batch == BATCH
    assert verified.lines[-1] == (
        f"batch: {BATCH.batch_id}, signed at 2026-05-31T00:00:02.000000Z over 5 certificates; this is one of them"
    )


def test_a_library_that_knows_no_batches_verifies_the_certificate_all_the_same() -> None:
    token = JWS()
    token.allowed_algs = ["Ed25519"]
    token.deserialize(member(3), key=JWK.from_pem(KEY.to_pem()))
    assert token.payload == DOCUMENTS[3]


def test_the_batch_statement_is_an_ordinary_jws_too() -> None:
    header = protected_header(member(3))
    token = JWS()
    token.allowed_algs = ["Ed25519"]
    token.deserialize(header["batch"], key=JWK.from_pem(KEY.to_pem()))
    assert json.loads(token.payload) == {
        "schema": "callvault/certificate-batch/v1",
        "batch_id": BATCH.batch_id,
        "issued_at": "2026-05-31T00:00:02.000000Z",
        "size": 5,
        "root": TREE.root.hex(),
    }


def test_a_certificate_without_a_batch_says_nothing_of_one() -> None:
    verified = verify_certificate(Issuer(ISSUER).issue(provisional()), KEY)
    assert verified.batch is None
    assert verified.lines[-1].startswith("status")


@pytest.mark.parametrize(
    "text",
    [
        member(0, index=1),
        member(0, index=5),
        member(0, path=TREE.path(1)),
        member(0, path=()),
        member(4, path=(*TREE.path(4), bytes(32))),
        member(0, replace(BATCH, root="00" * 32)),
        member(0, replace(BATCH, size=9)),
        member(4, replace(BATCH, size=4)),
        member(0, by=STRANGER),
    ],
    ids=["place", "outside", "other path", "no path", "long path", "root", "size", "cut", "stranger's batch"],
)
def test_a_certificate_that_is_not_where_its_batch_has_it_is_refused(text: str) -> None:
    with pytest.raises(Tampered):
        verify_certificate(text, KEY)


def test_a_certificate_cannot_borrow_the_place_of_another() -> None:
    place = Membership(statement=Issuer(ISSUER).issue_batch(BATCH), index=0, path=TREE.path(0))
    with pytest.raises(Tampered):
        verify_certificate(Issuer(ISSUER).issue_member(canonical_json(final()), place), KEY)


STATEMENT = Issuer(ISSUER).issue_batch(BATCH)
PATH = encode_base64url(b"".join(TREE.path(0)))


@pytest.mark.parametrize(
    "members",
    [
        {"batch": STATEMENT},
        {"batch": STATEMENT, "batch_index": "0"},
        {"batch_index": "0", "batch_path": PATH},
        {"batch": STATEMENT, "batch_index": "00", "batch_path": PATH},
        {"batch": STATEMENT, "batch_index": "-0", "batch_path": PATH},
        {"batch": STATEMENT, "batch_index": "0", "batch_path": PATH[:-1]},
        {"batch": STATEMENT, "batch_index": "0", "batch_path": encode_base64url(bytes(33))},
        {"batch": STATEMENT, "batch_index": "0", "batch_path": encode_base64url(bytes(54 * 32))},
        {"batch": Issuer(ISSUER).issue(provisional()), "batch_index": "0", "batch_path": PATH},
        {"batch": "x.y.z", "batch_index": "0", "batch_path": PATH},
    ],
    ids=range(10),
)
def test_half_a_proof_of_membership_is_refused(members: dict[str, str]) -> None:
    with pytest.raises(IntegrityError):
        verify_certificate(with_header(**members), KEY)


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b"[" * 100_000,
        b" " + statement_payload(BATCH),
        statement_payload(BATCH)[:-1] + b',"extra":1}',
        statement_payload(BATCH).replace(b'"size":5', b'"size":true'),
        statement_payload(BATCH).replace(b'"size":5', b'"size":5.0'),
    ],
    ids=range(6),
)
def test_a_statement_that_is_not_the_canonical_form_is_refused(payload: bytes) -> None:
    with pytest.raises(FormatError):
        verify_statement(sign_compact(payload, ISSUER, {"typ": BATCH_TYPE}), KEY)


@pytest.mark.parametrize(
    "change", [{"size": 0}, {"root": "AA" * 32}, {"root": "00"}, {"batch_id": "x"}, {"schema": "callvault/x/v1"}]
)
def test_a_statement_that_contradicts_itself_cannot_exist_and_is_no_evidence(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        replace(BATCH, **change)
    document = {**json.loads(statement_payload(BATCH)), **change}
    signed = sign_compact(rfc8785.dumps(document), ISSUER, {"typ": BATCH_TYPE})
    with pytest.raises(IntegrityError):
        verify_certificate(with_header(batch=signed, batch_index="0", batch_path=PATH), KEY)


# Documents in two pieces


@pytest.mark.parametrize("certificate", [provisional(), final(), provisional(refs=[])])
def test_form_and_entry_give_back_the_document_byte_for_byte(certificate: DeletionCertificate) -> None:
    form = Form.of(certificate)
    entry = form.entry(values_of(certificate))
    assert form.document(entry) == canonical_json(certificate)
    assert form.gives(canonical_json(certificate), values_of(certificate), None)
    assert len(entry) < 200, "digests and numbers, no text"


def test_a_final_certificate_takes_from_the_provisional_one_what_both_say() -> None:
    before, after = provisional(), final()
    values = Form.of(before).values(Form.of(before).entry(values_of(before)))
    form = Form.of(after, inherits=True)
    entry = form.entry(values_of(after))
    assert form.document(entry, values) == canonical_json(after)
    assert len(entry) < 100, "neither the commitment nor the root again"
    for other in (None, {}, {**values, "m": bytes(32)}):
        assert not form.gives(canonical_json(after), values_of(after), other)
    assert not Form.of(before, inherits=True).inherits


def test_one_form_serves_whatever_differs_only_in_its_entry() -> None:
    other = replace(
        provisional(),
        nonce="00" * 16,
        verification=replace(provisional().verification, at=GONE + timedelta(hours=1)),
    )
    assert Form.of(other) == Form.of(provisional())
    assert Form.of(other).document(Form.of(other).entry(values_of(other))) == canonical_json(other)
    assert Form.of(final()) != Form.of(provisional())


def test_an_entry_that_is_not_of_the_form_is_refused() -> None:
    form, values = Form.of(provisional()), values_of(provisional())
    entry = form.entry(values)
    for damaged in (b"", entry[:-1], entry + b"\0", entry[:-8] + b"\x7f" + bytes(7)):
        with pytest.raises(FormatError):
            form.document(damaged)
    for missing in ({}, {**values, "o": 1 << 32}, {**values, "n": None}):
        with pytest.raises(Invalid):
            form.entry(missing)
    with pytest.raises(FormatError):
        Form("{\nz}")


@pytest.mark.parametrize("entry", ["", "1", "\n" * 7, "\n" * 9])
def test_an_earlier_entry_with_another_number_of_holes_is_refused(entry: str) -> None:
    with pytest.raises(FormatError):
        earlier_document("\n" * 9, entry)


GROUP = Group(TenantId("acme"), (Part.AUDIO, Part.METADATA), b"f" * 32, supersede=False)
ENTRIES = Entries([GROUP, GROUP._replace(supersede=True)], [(1, b"one"), None, (0, b"second"), (1, b"")])


def test_the_entries_of_a_batch_are_read_as_they_were_written_and_nothing_else_is() -> None:
    packed = pack_entries(ENTRIES)
    assert unpack_entries(packed) == ENTRIES
    for damaged in (b"", packed[:-1], packed + b"\0", packed[:3], b"\xff" + packed[1:], packed.replace(b"acme", b"ac")):
        with pytest.raises(FormatError):
            unpack_entries(damaged)
    no_such_group = pack_entries(Entries([GROUP], [(0, b"one")])).replace(b"\0\0\0\3one", b"\0\1\0\3one")
    with pytest.raises(FormatError):
        unpack_entries(no_such_group)
    with pytest.raises(Invalid):
        pack_entries(Entries([GROUP], [(0, bytes(1 << 16))]))
