"""Certificates over arbitrary texts: one canonical form, total verification, and never a caller in them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers.certificates import GONE, ISSUER, final, provisional, recording, segments
from vault.certificates.batch import object_facts
from vault.certificates.canonical import canonical_json, from_json, stamp
from vault.certificates.document import TYPE, DeletionCertificate, Issuer, Policy, Residual, verify_certificate
from vault.certificates.template import Form, Lot, micros, provisional_values, values_of
from vault.crypto.signing import sign_compact
from vault.errors import VaultError
from vault.ids import TenantId
from vault.model import CallFacts, Cohort, Part
from vault.services.certificates import content

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
INSTANTS = st.integers(0, 4 * 10**15).map(lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us))
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@st.composite
def certificates(draw: st.DrawFn) -> DeletionCertificate:
    base = draw(st.sampled_from([provisional(), final()]))
    residuals = draw(
        st.lists(
            st.builds(
                Residual,
                where=TEXTS,
                state=TEXTS,
                until=st.none() | st.builds(lambda at, zone: at.astimezone(zone), INSTANTS, ZONES),
                mechanism=TEXTS,
            ),
            max_size=3,
        )
    )
    sanitisation = replace(base.sanitisation, tool=draw(TEXTS), epoch_destroyed=draw(st.integers(0, (1 << 53) - 1)))
    parties = replace(base.parties, controller=draw(TEXTS), contact=draw(TEXTS))
    return replace(base, residuals=tuple(residuals), sanitisation=sanitisation, parties=parties)


@given(certificate=certificates())
def test_the_written_form_is_what_the_rfc_8785_package_writes(certificate: DeletionCertificate) -> None:
    payload = canonical_json(certificate)
    assert rfc8785.dumps(json.loads(payload)) == payload
    assert from_json(DeletionCertificate, json.loads(payload)) == certificate


@given(certificate=certificates(), policy=TEXTS, action=TEXTS, size=st.integers(0, (1 << 53) - 1))
def test_form_and_entry_give_back_what_the_rfc_8785_package_writes(
    certificate: DeletionCertificate, policy: str, action: str, size: int
) -> None:
    objects = replace(certificate.data.objects, bytes=size)
    copies = tuple(replace(item, action=action) for item in certificate.sanitisation.data_copies)
    captured = Policy(name=policy, version=policy, period=policy)
    changed = replace(
        certificate,
        retention=replace(certificate.retention, captured=captured),
        data=replace(certificate.data, objects=objects),
        sanitisation=replace(certificate.sanitisation, data_copies=copies),
    )
    form, entry = Form.of(changed), Form.of(changed).entry(values_of(changed))
    document = form.document(entry)
    assert document == canonical_json(changed) == rfc8785.dumps(json.loads(document))
    columns = {name: [value] * 2 for name, value in values_of(changed).items()}
    assert form.compose(columns) == ([entry] * 2, [document] * 2)
    if changed.supersedes is not None:
        shared = Form.of(changed, inherits=True)
        own = shared.entry(values_of(changed))
        assert shared.compose(columns) == ([own] * 2, [document] * 2)
        assert len(own) < len(entry)
        assert shared.document(own, form.values(entry)) == document


NUMBERS = st.integers(0, (1 << 32) - 1)
TIMES = st.integers(0, 4 * 10**15)
OBJECTS = st.lists(st.tuples(st.integers(0, (1 << 40)), st.binary(min_size=32, max_size=32)), max_size=5)


@given(
    text=TEXTS,
    committed=st.booleans(),
    stored=st.booleans(),
    each=st.lists(
        st.tuples(st.binary(min_size=16, max_size=16), NUMBERS, TIMES, TIMES, TIMES, OBJECTS), min_size=1, max_size=4
    ),
)
@example(text='%b%%"\\\n\r\x7f\u2028', committed=True, stored=True, each=[(b"%" * 16, 0, 0, 1, 2, [(0, b"%" * 32)])])
def test_many_certificates_of_a_lot_are_written_as_the_rfc_8785_package_writes_each(text, committed, stored, each):
    cohort = Cohort(tenant=TenantId("acme"), part=Part.AUDIO, period=7, generation=1)
    keys, leaves, captured, received, until, objects = zip(*each, strict=True)
    lot = Lot(
        cohort,
        Policy(name=text, version=text, period=text),
        keys,
        leaves,
        [leaf.to_bytes(32) for leaf in leaves] if committed else (),
        captured,
        received,
        until,
        [_listed([(5, b"x" * 32), *some]) for some in objects] if stored else (),
    )
    kept = lot.only(lambda place: place != 1)
    assert kept.recordings == [key for place, key in enumerate(keys) if place != 1]
    whole, columns = [], lot.columns() | {"c": keys, "n": keys, "v": received}
    for place, key in enumerate(keys):
        subject = lot.subject(place)
        values = provisional_values(subject)
        assert (
            values.items() - {("A", None)}
            <= {name: column[place] for name, column in columns.items() if column}.items()
        )
        with_texts = replace(provisional().parties, controller=text, contact=text)
        document = _unchecked(
            provisional(),
            certificate_id=f"cert_{key.hex()}",
            nonce=key.hex(),
            parties=with_texts,
            recording=content.recording_facts(subject, shredded_at=GONE),
            retention=content.retention_facts(subject),
            data=replace(provisional().data, objects=object_facts(subject.objects)),
            verification=replace(provisional().verification, at=subject.received_at),
        )
        whole.append(document)
    entries, documents = Form.of(whole[0]).compose(columns)
    assert documents == [canonical_json(document) for document in whole]
    assert documents == [rfc8785.dumps(json.loads(document)) for document in documents]
    assert documents == [Form.of(whole[0]).document(entry) for entry in entries]


def _listed(objects: Sequence[tuple[int, bytes]]) -> str:
    """As the catalog lists the objects of a recording: its manifest, then its segments."""
    return " ".join(
        f"{number - 1}:{'a' * 32 if number else ''}:{size}:{sha256.hex()}"
        for number, (size, sha256) in enumerate(objects)
    )


def _unchecked(certificate: DeletionCertificate, **changes: object) -> DeletionCertificate:
    """Return a changed copy, whose dates may contradict each other."""
    changed = copy(certificate)
    for name, value in changes.items():
        object.__setattr__(changed, name, value)
    return changed


@given(at=st.datetimes(timezones=st.just(UTC)))
def test_a_time_of_an_entry_is_written_as_certificates_write_it(at: datetime) -> None:
    form = Form('"\nv"')
    entry = form.entry({"c": bytes(16), "r": bytes(16), "v": micros(at)})
    assert form.document(entry) == f'"{stamp(at)}"'.encode()


@given(certificate=certificates())
def test_every_issued_certificate_verifies_and_reads_back(certificate: DeletionCertificate) -> None:
    verified = verify_certificate(Issuer(ISSUER).issue(certificate), ISSUER.public)
    assert verified.certificate == certificate


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53) + 1, (1 << 53) - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
PATHS = st.sampled_from(
    [
        ("nonce",),
        ("status",),
        ("recording",),
        ("recording", "parts"),
        ("data", "objects"),
        ("trial",),
        ("trigger", "case"),
        ("authorisation", "deciders"),
        ("retention", "retain_until"),
        ("sanitisation", "key_copies"),
        ("sanitisation", "completed"),
        ("verification", "checks"),
        ("claims", "version"),
        ("log",),
    ]
)


@given(path=PATHS, value=JSON_VALUES)
def test_any_value_anywhere_is_accepted_whole_or_refused_as_a_vault_error(path: tuple[str, ...], value: object) -> None:
    document = json.loads(canonical_json(final()))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    payload = rfc8785.dumps(document)
    try:
        verified = verify_certificate(sign_compact(payload, ISSUER, {"typ": TYPE}), ISSUER.public)
    except VaultError:
        return
    assert canonical_json(verified.certificate) == payload


@given(payload=st.binary(max_size=60) | JSON_VALUES.map(rfc8785.dumps))
def test_no_other_payload_verifies(payload: bytes) -> None:
    try:
        verify_certificate(sign_compact(payload, ISSUER, {"typ": TYPE}), ISSUER.public)
    except VaultError:
        return
    raise AssertionError("arbitrary bytes verified as a certificate")


NUMBERS = st.from_regex(r"\+44[1-9][0-9]{9}", fullmatch=True)


@given(caller=NUMBERS, called=NUMBERS, tag=st.from_regex(r"[A-Z]{12}", fullmatch=True))
def test_what_is_known_about_the_caller_never_reaches_a_certificate(caller: str, called: str, tag: str) -> None:
    facts = CallFacts(caller=caller, called=called, tags=(tag,))
    # The worst recorder there is: numbers in its call key, and facts that were never sealed.
    row = replace(recording(call_token=f"{caller}-{called}"), sealed_facts=repr(facts).encode(), state_reason=tag)
    for certificate in (provisional(row, segments(row)), final(provisional(row, segments(row)))):
        jws = Issuer(ISSUER).issue(certificate)
        head, payload, _ = (
            base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode("latin-1") for part in jws.split(".")
        )
        for number in (caller, called):
            assert number not in head + payload
            assert number.removeprefix("+44") not in head + payload
        assert tag not in head + payload
