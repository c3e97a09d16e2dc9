"""Certifying a shred: what the certificates say and when, whoever moved the clock or wrote into the catalog since."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import rfc8785
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from tests.helpers.catalogs import (
    ACME,
    NOW,
    OTHER,
    PERIOD,
    SteppingClock,
    becomes,
    receipt,
    recording,
    segment,
    shred,
    tenant,
)
from tests.helpers.certificates import ISSUER, key_copies, provisional
from tests.helpers.trail import audit_entries
from vault.certificates import v1
from vault.certificates.batch import Entries, pack_entries, unpack_entries
from vault.certificates.document import (
    SCHEMA,
    Authority,
    Decider,
    Issuer,
    KeyPlace,
    Policy,
    Result,
    Trigger,
    VerifiedCertificate,
    read_document,
    subject,
    verify_certificate,
)
from vault.certificates.template import Form, values_of
from vault.errors import FormatError, IntegrityError, Invalid, NotFound, Tampered, Unavailable
from vault.format.names import manifest_name, segment_name
from vault.model import (
    CertificateStatus,
    Part,
    Recording,
    RecordingState,
    SegmentRef,
    ShredReceipt,
    StoredCertificate,
)
from vault.ports.objects import Deletion, ObjectMeta
from vault.ports.shreds import Shred
from vault.services.certificates import content, issuing
from vault.services.certificates.batches import Certificates, Draft
from vault.services.certificates.content import Identity
from vault.services.certificates.issuing import Certifier, Deletions
from vault.services.deletion.shredding import Shredder
from vault.services.surroundings import Surroundings
from vault.storage.catalog import certificates as certificate_sql
from vault.storage.catalog import object_lists as list_sql
from vault.storage.catalog import recordings as recording_rows
from vault.storage.catalog import rows
from vault.storage.catalog.catalog import SqlCatalog, open_catalog
from vault.storage.catalog.tables import certificate_batches, certificate_forms, certificates, recordings
from vault.storage.objects.memory import MemoryObjectStore
from vault.telemetry import Metrics

LEASE = timedelta(seconds=15)


class TwoClocks:
    """The wall clock, which anybody can set, and the one that counts."""

    def __init__(self) -> None:
        self.wall = NOW
        self.seconds = 1000.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, by: timedelta) -> None:
        self.wall += by
        self.seconds += by.total_seconds()


def at(clock: TwoClocks) -> Surroundings:
    return Surroundings(clock=clock, entropy=os.urandom, metrics=Metrics(CollectorRegistry()))


@dataclass(slots=True, kw_only=True)
class Scene:
    """Three due recordings of two tenants, with objects, whose keys one shred has taken."""

    catalog: SqlCatalog
    store: MemoryObjectStore
    clock: TwoClocks
    shred: Shred
    receipt: ShredReceipt
    rows: list[Recording]

    def certifier(self) -> Certifier:
        """A process that knows nothing of what others saw."""
        return Certifier(
            catalog=self.catalog,
            store=self.store,
            certificates=self.certificates(),
            identity=Identity(processor="Vault Ltd", contact="dpo@vault.example", region="United Kingdom", trial=False),
            surroundings=at(self.clock),
        )

    def certificates(self) -> Certificates:
        return Certificates(catalog=self.catalog, issuer_key=ISSUER, entropy=os.urandom)

    async def certify(self, certifier: Certifier) -> None:
        lots = await self.catalog.due_lots(through=PERIOD, after=None, limit=100)
        issued = await certifier.prepare_due(lots, self.shred, self.receipt)
        assert issued is not None
        await certifier.store(issued, self.shred)

    async def stored(self, row: Recording, status: CertificateStatus) -> StoredCertificate:
        [found] = [each for each in await self.catalog.certificates(recording=row.id) if each.status is status]
        return found

    async def verified(self, row: Recording, status: CertificateStatus) -> VerifiedCertificate:
        return verify_certificate(await self.certificates().jws(await self.stored(row, status)), ISSUER.public)

    async def objects(self) -> list[str]:
        return [info.name async for info in self.store.list("v1/")]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    catalog = open_catalog(None, clock=SteppingClock())
    await catalog.migrate()
    store = MemoryObjectStore()
    await catalog.add_tenant(tenant())
    await catalog.add_tenant(tenant(OTHER))
    past = {
        "started_at": NOW - timedelta(days=91),
        "retain_until": NOW - timedelta(days=1),
        "audio_commitment": b"\xd4" * 32,
        "metadata_commitment": b"\xd5" * 32,
        "retention_period": "90d",
    }
    rows = [recording(**past), recording(**past), recording(tenant=OTHER, **past)]
    for row in rows:
        await catalog.create_recording(row)
        objects = [await put(store, row, index) for index in (-1, 0)]
        await catalog.finish_recording(
            row.id, state=RecordingState.SEALED, reason=None, ended_at=NOW, stored_bytes=1000, objects=objects
        )
    intent = shred(trigger="expiry")
    await catalog.intend_shred(intent)
    yield Scene(
        catalog=catalog,
        store=store,
        clock=TwoClocks(),
        shred=intent,
        receipt=replace(receipt(intent), caches_clear_at=NOW + LEASE),
        rows=rows,
    )
    await catalog.close()


async def put(store: MemoryObjectStore, row: Recording, index: int) -> SegmentRef:
    period = row.audio.cohort.period
    name = (
        manifest_name(row.tenant, period, row.id)
        if index < 0
        else segment_name(row.tenant, period, row.id, index, "a" * 32)
    )
    meta = ObjectMeta(retain_until=row.retain_until, retention_class="recording", sha256="ab" * 32)
    await store.put(name, [b"sealed"], meta=meta)
    return replace(segment(row, index), name=name, attempt="" if index < 0 else "a" * 32)


# What is said


async def test_one_signed_batch_certifies_every_recording_by_a_certificate_of_its_own(scene):
    await scene.certify(scene.certifier())
    batches = set()
    for row in scene.rows:
        verified = await scene.verified(row, CertificateStatus.PROVISIONAL)
        says = verified.certificate
        assert verified.batch is not None
        batches.add(verified.batch)
        assert (says.recording.id, says.parties.tenant) == (row.id, row.tenant)
        [part] = says.recording.parts
        assert (part.part, part.coordinate) == (Part.AUDIO, row.audio)
        assert not says.trial
        assert part.key_commitment == row.audio_commitment.hex()
        assert (says.retention.captured_at, says.retention.retain_until) == (row.started_at, row.retain_until)
        assert says.retention.received_at == row.created_at
        assert (
            says.retention.captured
            == says.retention.applied
            == Policy(name="recording", version="callvault/retention/v1", period="90d")
        )
        listed = await scene.certificates().objects(await scene.stored(row, CertificateStatus.PROVISIONAL))
        assert [each.name for each in listed.objects] == [ref.name for ref in await scene.catalog.segments(row.id)]
        assert listed.facts() == says.data.objects
        assert (await scene.catalog.recording(row.id)).certificate_id == says.certificate_id
    [batch] = batches
    assert batch.size == 3
    documents = {(await scene.verified(row, CertificateStatus.PROVISIONAL)).certificate.nonce for row in scene.rows}
    assert len(documents) == 3


async def test_each_tenant_finds_the_batch_and_its_root_in_its_audit_trail(scene):
    await scene.certify(scene.certifier())
    verified = await scene.verified(scene.rows[0], CertificateStatus.PROVISIONAL)
    assert verified.batch is not None
    found = [
        (entry.event.tenant, entry.event.target, entry.event.detail)
        for entry in await audit_entries(scene.catalog)
        if entry.event.event == "shred.done"
    ]
    detail = {"shred": scene.shred.id, "root": verified.batch.root}
    assert found == [
        (scene.rows[0].tenant, verified.batch.batch_id, {**detail, "certificates": 2}),
        (scene.rows[2].tenant, verified.batch.batch_id, {**detail, "certificates": 1}),
    ]


async def test_what_certificates_have_in_common_is_written_for_one_tenant_in_a_turn_of_the_loop(scene, monkeypatch):
    loop, turn, worded = asyncio.get_running_loop(), 0, []

    def tick():
        nonlocal turn
        turn += 1
        ticking[0] = loop.call_soon(tick)

    ticking = [loop.call_soon(tick)]
    of = issuing.Form.of
    monkeypatch.setattr(issuing.Form, "of", lambda whole: worded.append(turn) or of(whole))
    await scene.certify(scene.certifier())
    ticking[0].cancel()
    assert len(worded) == len({row.tenant for row in scene.rows}) == len({*worded})


async def test_what_is_made_for_each_recording_of_a_deletion_is_made_in_threads_and_what_for_each_form_once(
    scene, monkeypatch
):
    made: dict[str, list[int]] = {}
    asked = []

    def noting(module, name):
        real = getattr(module, name)

        def note(*args):
            if not str(args[0]).startswith("bat_"):  # there is one of a batch
                made.setdefault(name, []).append(threading.get_ident())
            return real(*args)

        monkeypatch.setattr(module, name, note)

    noting(recording_rows, "tail_below")
    noting(issuing, "recording_prefix")
    noting(certificate_sql, "id_bytes")
    noting(certificate_sql.rows, "to_entries")
    noting(list_sql, "pack_objects")
    can_be_final = content.can_be_final
    monkeypatch.setattr(content, "can_be_final", lambda before: asked.append(before) or can_be_final(before))
    # A page has several shares, the last of them not full.
    monkeypatch.setattr(recording_rows, "_ROWS_A_TURN", 2)
    monkeypatch.setattr(list_sql, "_PACKED_AT_ONCE", 2)
    certifier = scene.certifier()
    await scene.certify(certifier)
    made.clear()
    asked.clear()
    assert (await certifier.delete_objects()).waiting == len(scene.rows)
    assert len(asked) == len({row.tenant for row in scene.rows})
    scene.clock.advance(LEASE)
    assert (await certifier.delete_objects()).done == len(scene.rows)
    assert {*made} == {"tail_below", "recording_prefix", "id_bytes", "to_entries", "pack_objects"}
    assert threading.get_ident() not in {ident for idents in made.values() for ident in idents}
    for row in scene.rows:
        names = [ref.name for ref in await scene.catalog.segments(row.id)]
        listed = await scene.certificates().objects(await scene.stored(row, CertificateStatus.FINAL))
        assert [each.name for each in listed.objects] == names
        assert len(names) == 2


async def test_certifying_again_adds_nothing_and_changes_no_byte(scene):
    await scene.certify(scene.certifier())
    before = await scene.catalog.certificates()
    texts = await scene.certificates().texts(before)
    # What a repeat after a crash would certify, had it not seen the first time land.
    subjects = [subject(row, await scene.catalog.segments(row.id)) for row in scene.rows]
    issued = await scene.certifier().prepare(subjects, scene.shred, scene.receipt)
    assert issued is not None
    await scene.certifier().store(issued, scene.shred)
    assert await scene.catalog.certificates() == before
    assert await scene.certificates().texts(before) == texts
    with pytest.raises(NotFound):
        await scene.catalog.certificate_batches([issued.batch.id])


async def test_nothing_is_certified_if_one_certificate_would_contradict_itself(scene):
    lots = list(await scene.catalog.due_lots(through=PERIOD, after=None, limit=100))
    [place] = [place for place, lot in enumerate(lots) if len(lot.recordings) == 2]
    late = rows.micros(NOW + timedelta(days=1))
    lots[place] = lots[place]._replace(retain_until=[lots[place].retain_until[0], late])
    with pytest.raises(Invalid, match="expired before its retain-until"):
        await scene.certifier().prepare_due(lots, scene.shred, scene.receipt)
    subjects = [lot.subject(place) for lot in lots for place in range(len(lot.recordings))]
    with pytest.raises(Invalid, match="expired before its retain-until"):
        await scene.certifier().prepare(subjects, scene.shred, scene.receipt)
    assert await scene.catalog.certificates() == []


# When it is final


async def test_the_provisional_certificate_says_until_when_caches_may_hold_the_key(scene):
    await scene.certify(scene.certifier())
    says = (await scene.verified(scene.rows[0], CertificateStatus.PROVISIONAL)).certificate.sanitisation
    assert says.caches_clear_at == scene.receipt.unrecoverable_at + LEASE
    [lease] = [copy for copy in says.key_copies if copy.where is KeyPlace.CACHE_LEASES]
    assert lease.result is Result.UNKNOWN
    assert "at most 15 s on CLOCK_BOOTTIME" in lease.action


async def test_without_leases_nothing_about_them_is_unknown(scene):
    scene.receipt = replace(scene.receipt, caches_clear_at=scene.receipt.unrecoverable_at)
    certifier = scene.certifier()
    await scene.certify(certifier)
    says = (await scene.verified(scene.rows[0], CertificateStatus.PROVISIONAL)).certificate.sanitisation
    assert {copy.result for copy in says.key_copies} == {Result.DONE, Result.NOT_APPLICABLE}
    assert (await certifier.delete_objects()).done == 3


async def test_objects_go_at_once_and_the_final_certificate_waits_for_the_leases(scene):
    certifier = scene.certifier()
    await scene.certify(certifier)
    early = await certifier.delete_objects()
    assert (early.done, early.waiting, early.again_in) == (0, 3, LEASE)
    assert await scene.objects() == []
    scene.clock.advance(LEASE - timedelta(microseconds=1))
    assert (await certifier.delete_objects()).done == 0
    scene.clock.advance(timedelta(microseconds=1))
    late = await certifier.delete_objects()
    assert (late.done, late.waiting, late.again_in) == (3, 0, None)
    for row in scene.rows:
        first = (await scene.verified(row, CertificateStatus.PROVISIONAL)).certificate
        says = (await scene.verified(row, CertificateStatus.FINAL)).certificate
        assert says.supersedes == first.certificate_id
        assert says.sanitisation.completed is not None
        assert says.sanitisation.completed >= says.sanitisation.caches_clear_at
        assert Result.UNKNOWN not in {copy.result for copy in says.sanitisation.key_copies}
        assert (await scene.catalog.recording(row.id)).certificate_id == says.certificate_id


async def test_absence_seen_while_a_lease_may_run_makes_nothing_final_after_it(scene, monkeypatch):
    certifier = scene.certifier()
    await scene.certify(certifier)
    delete_below = scene.store.delete_below

    async def slowly(places):
        outcomes = await delete_below(places)
        scene.clock.advance(LEASE)
        return outcomes

    monkeypatch.setattr(scene.store, "delete_below", slowly)
    early = await certifier.delete_objects()
    assert (early.done, early.waiting) == (0, 3)
    assert (await certifier.delete_objects()).done == 3


async def test_an_outage_stops_the_pages_ahead_and_keeps_what_was_certified_before_it(scene, monkeypatch):
    certifier = scene.certifier()
    await scene.certify(certifier)
    scene.clock.advance(LEASE)
    monkeypatch.setattr(issuing, "_DELETED_AT_ONCE", 1)
    delete_below = scene.store.delete_below
    ended = []

    async def failing(places):
        match [row.id in place for row in scene.rows for place in places].index(True):
            case 1:
                return dict.fromkeys(places, Unavailable("the disk is away"))
            case 2:
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.append(True)
        return await delete_below(places)

    monkeypatch.setattr(scene.store, "delete_below", failing)
    assert (await certifier.delete_objects()).done == 1
    assert ended == [True]
    monkeypatch.setattr(scene.store, "delete_below", delete_below)
    assert (await certifier.delete_objects()).done == 2


async def test_setting_the_wall_clock_ahead_makes_nothing_final(scene):
    certifier = scene.certifier()
    await scene.certify(certifier)
    scene.clock.wall += timedelta(days=400)
    assert (await certifier.delete_objects()).done == 0


async def test_setting_the_wall_clock_back_delays_nothing(scene):
    certifier = scene.certifier()
    await scene.certify(certifier)
    scene.clock.advance(LEASE)
    scene.clock.wall -= timedelta(days=400)
    assert (await certifier.delete_objects()).done == 3
    says = (await scene.verified(scene.rows[0], CertificateStatus.FINAL)).certificate.sanitisation
    assert says.completed == says.caches_clear_at


async def test_a_process_that_did_not_see_the_shred_waits_a_whole_lease(scene):
    await scene.certify(scene.certifier())
    scene.clock.wall += timedelta(hours=1)
    started_again = scene.certifier()
    assert (await started_again.delete_objects()).again_in == LEASE
    scene.clock.advance(LEASE)
    assert (await started_again.delete_objects()).done == 3


@pytest.mark.parametrize("result", [Result.FAILED, Result.UNKNOWN])
@pytest.mark.parametrize("place", [KeyPlace.PROVIDER_VERSION, KeyPlace.KEYRING_REPLICA, KeyPlace.BACKUPS])
async def test_a_failed_or_unknown_key_copy_is_never_made_final_by_waiting(scene, place, result):
    certifier = scene.certifier()
    lots = await scene.catalog.due_lots(through=PERIOD, after=None, limit=100)
    issued = await certifier.prepare_due(lots, scene.shred, scene.receipt)
    assert issued is not None
    [first] = [each for each in await documents_of(issued) if each.parties.tenant == OTHER]
    copies = tuple(replace(copy, result=result) if copy.where is place else copy for copy in key_copies())
    broken = replace(first, sanitisation=replace(first.sanitisation, key_copies=copies))
    assert not content.can_be_final(broken)
    batch = scene.certificates().sign(
        [Draft(Form.of(broken), {name: [value] for name, value in values_of(broken).items()}, OTHER, (Part.AUDIO,))],
        status=CertificateStatus.PROVISIONAL,
        at=NOW,
    )
    await scene.catalog.certify(batch.batch, batch.entries, forms=batch.forms)
    await certifier.delete_objects()
    scene.clock.advance(timedelta(days=1))
    outcome = await certifier.delete_objects()
    assert (outcome.done, outcome.waiting, outcome.again_in) == (0, 1, None)


async def documents_of(issued):
    forms = {digest: Form(text) for digest, text in issued.forms.items()}
    certificates = issued.entries.certificates()
    return [read_document(forms[each.place.form].document(each.place.entry)) for each in certificates]


async def test_an_object_that_stays_keeps_the_certificate_provisional(scene, monkeypatch):
    certifier = scene.certifier()
    await scene.certify(certifier)
    locked = manifest_name(scene.rows[0].tenant, PERIOD, scene.rows[0].id)
    delete = scene.store.delete

    async def refuse(name: str) -> Deletion:
        return Deletion(name=name, versions_deleted=0, absent=False) if name == locked else await delete(name)

    async def away(_name: str, **_: object) -> None:
        raise Unavailable("the label is not changed")

    monkeypatch.setattr(scene.store, "delete", refuse)
    # A label that cannot be removed keeps back nothing else, though later pages come after it.
    monkeypatch.setattr(scene.store, "set_held", away)
    monkeypatch.setattr(issuing, "_DELETED_AT_ONCE", 1)
    scene.clock.advance(LEASE)
    assert (await certifier.delete_objects()).done == 2
    monkeypatch.undo()
    assert (await certifier.delete_objects()).done == 1


async def test_a_provisional_certificate_of_version_1_gets_a_final_one_of_today(scene):
    row = scene.rows[0]
    older = read_document(v1_document(row, await scene.catalog.segments(row.id)))
    assert isinstance(older, v1.DeletionCertificate)
    alone = StoredCertificate(
        id=older.certificate_id,
        recording=row.id,
        tenant=row.tenant,
        status=CertificateStatus.PROVISIONAL,
        supersedes=None,
        issued_at=NOW,
        jws=Issuer(ISSUER).issue(older),
    )
    # As a catalog of that time has it: a row a certificate, which the recording's row points at.
    async with scene.catalog._database.engine.begin() as connection:
        key = rows.key(row.id)
        values = {"id": alone.id, "recording": key, "tenant": row.tenant, "status": "provisional", "issued_at": 1}
        await connection.execute(sa.insert(certificates).values(**values, jws=alone.jws, parts="audio"))
        moved = {"state": "shredded", "certificate_id": alone.id, "undeleted_since": 1}
        await connection.execute(sa.update(recordings).where(recordings.c.id == key).values(**moved))
    certifier = scene.certifier()
    await certifier.delete_objects()
    scene.clock.advance(timedelta(days=1))
    assert (await certifier.delete_objects()).done == 1
    says = (await scene.verified(row, CertificateStatus.FINAL)).certificate
    assert (says.schema, says.supersedes) == (SCHEMA, older.certificate_id)
    assert [part.coordinate for part in says.recording.parts] == [row.audio]
    assert says.sanitisation.unrecoverable_at == older.sanitisation.unrecoverable_at


def v1_document(row, refs):
    """A provisional certificate as the program before this one issued it, of this recording."""
    sample = Path(__file__).parent.parent / "transcripts/certificate-v1-provisional.jws"
    document = json.loads(base64.urlsafe_b64decode(sample.read_text().split(".")[1] + "=="))
    cohort = row.audio.cohort
    document["parties"]["tenant"] = cohort.tenant
    document["encryption"]["coordinate"] = [cohort.tenant, "audio", cohort.period, cohort.generation, row.audio.leaf]
    document["media"] |= {
        "recording_id": row.id,
        "objects": [
            {"name": ref.name, "versions": None, "ciphertext_bytes": ref.object_bytes, "ciphertext_sha256": ref.sha256}
            for ref in refs
        ],
    }
    return rfc8785.dumps(document)


async def test_an_erasure_is_certified_though_the_stated_start_lies_ahead(scene):
    ahead = replace(scene.rows[0], started_at=NOW + timedelta(hours=20), retain_until=NOW + timedelta(days=90))
    people = tuple(Decider(person=None, token="tok_" + digit * 32, role=None, at=None, evidence=None) for digit in "12")
    asked = subject(ahead, [], authority=Authority(Trigger.CONTROLLER_INSTRUCTION, None, people))
    issued = await scene.certifier().prepare([asked], scene.shred, scene.receipt)
    assert issued is not None
    [says] = await documents_of(issued)
    assert says.retention.captured_at == NOW + timedelta(hours=20)


@pytest.mark.parametrize("back", [timedelta(0), timedelta(days=400)], ids=["in time", "the wall clock set back"])
async def test_a_final_certificate_filled_in_from_values_is_the_one_made_from_the_whole_document(scene, back):
    certifier = scene.certifier()
    await scene.certify(certifier)
    scene.clock.advance(LEASE)
    scene.clock.wall -= back
    assert (await certifier.delete_objects()).done == 3
    gone = [Deletion(name=name, versions_deleted=1, absent=True) for name in ("manifest", "segment")]
    for row in scene.rows:
        before = (await scene.verified(row, CertificateStatus.PROVISIONAL)).certificate
        says = (await scene.verified(row, CertificateStatus.FINAL)).certificate
        named = {"certificate_id": says.certificate_id, "nonce": says.nonce, "at": scene.clock.now()}
        assert says == content.final(before, gone, **named)
    forms = {(await scene.stored(row, CertificateStatus.FINAL)).place.form for row in scene.rows}
    assert len(forms) == 2, "one for each tenant"


async def test_the_list_of_objects_outlives_them_and_is_never_another_one(scene):
    certifier = scene.certifier()
    before = await scene.catalog.segments(scene.rows[0].id)
    assert len(before) == 2
    await scene.certify(certifier)
    scene.clock.advance(LEASE)
    assert (await certifier.delete_objects()).done == 3
    assert await scene.objects() == []
    row = scene.rows[0]
    assert await scene.catalog.segments(row.id) == before
    stored = await scene.stored(row, CertificateStatus.FINAL)
    listed = await scene.certificates().objects(stored)
    says = (await scene.verified(scene.rows[0], CertificateStatus.FINAL)).certificate
    assert (len(listed.objects), listed.facts()) == (2, says.data.objects)
    async with scene.catalog._database.engine.begin() as connection:
        assert (await connection.execute(sa.text("SELECT count(*) FROM segments"))).scalar() == 0
        mine = recordings.c.id == rows.key(row.id)
        kept = (await connection.execute(sa.select(recordings.c.objects).where(mine))).scalar_one()
        changed = kept[:2] + (1).to_bytes(3) + kept[5:]
        await connection.execute(sa.update(recordings).values(objects=changed))
    with pytest.raises(IntegrityError, match="changed after it was signed"):
        await scene.certificates().objects(stored)


# What is given out later


async def test_a_certificate_is_the_same_bytes_for_ever(scene):
    certifier = scene.certifier()
    await scene.certify(certifier)
    scene.clock.advance(LEASE)
    await certifier.delete_objects()
    page = await scene.catalog.certificates()
    texts = await scene.certificates().texts(page)
    scene.clock.advance(timedelta(days=700))
    await scene.catalog.revise_tenant(ACME, becomes(tenant(controller="Someone else")))
    assert await scene.certificates().texts(page) == texts
    assert [await scene.certificates().jws(each) for each in page] == texts
    assert len(set(texts)) == 6


# The last two characters of a signature carry eight of its bits: one pair or the other is certain to change them.
OTHER_SIGNATURE = """substr(statement, 1, length(statement) - 2)
    || CASE substr(statement, -2) WHEN 'AA' THEN 'QA' ELSE 'AA' END"""


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE certificate_forms SET text = replace(text, 'Acme', 'Evil')", IntegrityError),
        ("UPDATE certificate_forms SET text = replace(text, char(10) || 'n', char(10) || 'z')", FormatError),
        ("UPDATE certificate_batches SET leaves = zeroblob(96)", IntegrityError),
        ("UPDATE certificate_batches SET leaves = substr(leaves, 33)", IntegrityError),
        (f"UPDATE certificate_batches SET statement = {OTHER_SIGNATURE}", Tampered),
    ],
)
async def test_the_issuer_never_signs_what_somebody_wrote_into_the_catalog(scene, statement, error):
    await scene.certify(scene.certifier())
    async with scene.catalog._database.engine.begin() as connection:
        await connection.execute(sa.text(statement))
    page = await scene.catalog.certificates(recording=scene.rows[0].id)
    with pytest.raises(error):
        await scene.certificates().texts(page)
    with pytest.raises(error):
        await scene.certificates().documents(page)


def moved_on(entries: Entries) -> Entries:
    """Each entry in the place of the one before."""
    return Entries(entries.groups, [*entries.places[1:], entries.places[0]])


def a_bit_changed(entries: Entries) -> Entries:
    (number, entry), *further = entries.places
    return Entries(entries.groups, [(number, entry[:50] + bytes([entry[50] ^ 1]) + entry[51:]), *further])


@pytest.mark.parametrize("change", [moved_on, a_bit_changed])
async def test_the_issuer_never_signs_an_entry_that_somebody_changed(scene, change):
    """A final certificate inherits from the entry of the provisional one, wherever that lies."""
    certifier = scene.certifier()
    await scene.certify(certifier)
    scene.clock.advance(LEASE)
    await certifier.delete_objects()
    row = scene.rows[0]
    before, final = [await scene.stored(row, status) for status in CertificateStatus]
    async with scene.catalog._database.engine.begin() as connection:
        of_batch = certificate_batches.c.id == before.place.batch
        [found] = await connection.execute(sa.select(certificate_batches.c.entries).where(of_batch))
        changed = pack_entries(change(unpack_entries(found.entries)))
        await connection.execute(sa.update(certificate_batches).where(of_batch).values(entries=changed))
    entries = rows.to_entries((await scene.catalog._database.fetch(sa.select(certificate_batches).where(of_batch)))[0])
    with pytest.raises(IntegrityError):
        await scene.certificates().texts([entries.certificates()[0]])
    with pytest.raises(IntegrityError) if change is a_bit_changed else nullcontext():
        await scene.certificates().texts([final])


async def test_an_entry_of_an_earlier_version_gives_the_same_certificate_for_ever(scene):
    """What those versions stored for a certificate of this content: text in the holes of a form."""
    row = scene.rows[0]
    await scene.certify(scene.certifier())
    stored = await scene.stored(row, CertificateStatus.PROVISIONAL)
    [text] = await scene.certificates().texts([stored])
    document = base64.urlsafe_b64decode(text.split(".")[1] + "==").decode()
    says = json.loads(document)
    holes = [
        f'"{says["certificate_id"]}"',
        rfc8785.dumps(says["data"]["objects"]).decode(),
        f'"{says["nonce"]}"',
        rfc8785.dumps(says["recording"]).decode(),
        rfc8785.dumps(says["retention"]).decode(),
    ]
    form = document
    for hole in holes:
        assert form.count(hole) == 1
        form = form.replace(hole, "\n")
    digest = hashlib.sha256(form.encode()).digest()
    key, place = rows.key(row.id), stored.place
    assert place is not None
    async with scene.catalog._database.engine.begin() as connection:
        [found] = await connection.execute(sa.select(certificate_batches.c.entries))
        groups, places = unpack_entries(found.entries)
        others = pack_entries(Entries(groups, [None if at == place.index else it for at, it in enumerate(places)]))
        await connection.execute(sa.update(certificate_batches).values(entries=others))
        await connection.execute(sa.insert(certificate_forms).values(digest=digest, text=form))
        values = {"id": stored.id, "recording": key, "tenant": row.tenant, "status": "provisional", "issued_at": 1}
        values |= {"batch": place.batch, "place": place.index, "form": digest, "entry": "\n".join(holes)}
        await connection.execute(sa.insert(certificates).values(**values, parts="audio"))
    [older] = await scene.catalog.certificates(recording=row.id)
    assert await scene.catalog.certificates_named([older.id]) == [older]
    assert await scene.certificates().texts([older]) == [text]
    for changed in (older.place.entry.replace("recording", "recorded"), older.place.entry + "\n"):
        with pytest.raises(IntegrityError):
            await scene.certificates().texts([replace(older, place=replace(older.place, entry=changed))])
    certifier = scene.certifier()
    await certifier.delete_objects()
    scene.clock.advance(LEASE)
    await certifier.delete_objects()
    final = await scene.stored(row, CertificateStatus.FINAL)
    assert final.supersedes == older.id
    assert verify_certificate(await scene.certificates().jws(final), ISSUER.public).certificate.recording.id == row.id


async def test_a_certificate_that_was_issued_alone_is_given_out_as_it_was(scene):
    await scene.certify(scene.certifier())
    stored = await scene.stored(scene.rows[0], CertificateStatus.PROVISIONAL)
    alone = replace(stored, place=None, jws="kept.as.is")
    assert await scene.certificates().texts([alone, stored]) == [
        "kept.as.is",
        await scene.certificates().jws(stored),
    ]
    assert provisional().status is CertificateStatus.PROVISIONAL


# Coming back


class Recorder:
    """A certifier that notes when it is asked, and answers what it is told."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.asked = asyncio.Semaphore(0)

    async def delete_objects(self):
        self.asked.release()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Alone:
    """The locks of a vault with one node."""

    def try_hold(self, name):
        return nullcontext(self)


def shredder(certifier) -> Shredder:
    unused: dict = dict.fromkeys(("catalog", "keyring", "dossiers", "holds"))
    return Shredder(certifier=certifier, locks=Alone(), surroundings=at(TwoClocks()), **unused)


async def test_the_shredder_comes_back_by_itself_when_the_leases_have_run_out(scene):
    scene.receipt = replace(scene.receipt, caches_clear_at=NOW + timedelta(milliseconds=20))
    certifier = scene.certifier()
    await scene.certify(certifier)
    real = asyncio.get_running_loop()
    scene.clock.monotonic = real.time  # type: ignore[method-assign] - the leases of this test run out
    certifier._seen = {scene.receipt.epoch_destroyed: real.time()}
    finishing = asyncio.create_task(shredder(certifier).finish())
    async with asyncio.timeout(10):
        while await scene.catalog.undeleted_recordings(after=None, limit=1):
            await asyncio.sleep(0)
    finishing.cancel()
    with suppress(asyncio.CancelledError):
        await finishing
    assert {each.status for each in await scene.catalog.certificates()} == set(CertificateStatus)


async def test_an_outage_while_finishing_is_left_to_the_next_sweep():
    certifier = Recorder(Unavailable("the store is away"), Deletions(waiting=1), Deletions(done=1))
    one = shredder(certifier)
    finishing = asyncio.create_task(one.finish())
    async with asyncio.timeout(10):
        await certifier.asked.acquire()
        await one.delete()
        await certifier.asked.acquire()
    assert not finishing.done()
    finishing.cancel()
    with suppress(asyncio.CancelledError):
        await finishing


async def test_finishing_stops_for_a_person_where_something_contradicts_itself():
    certifier = Recorder(IntegrityError("a leaf is not the one that was signed"))
    await shredder(certifier).finish()


class _Killed(BaseException):
    """The process ends here."""


async def test_a_process_killed_at_any_write_of_a_deletion_leaves_nothing_final_that_is_still_there(scene, monkeypatch):
    """Pages are deleted ahead of the certificates: whatever the order, absence is proven before it is certified."""
    monkeypatch.setattr(issuing, "_DELETED_AT_ONCE", 1)
    scene.receipt = replace(scene.receipt, caches_clear_at=scene.receipt.unrecoverable_at)
    await scene.certify(scene.certifier())
    real = {"delete_below": scene.store.delete_below, "certify": scene.catalog.certify}
    everything = {row.id for row in scene.rows}
    kills = [(at_write, landed) for at_write in range(1, 5) for landed in (False, True)]
    died = 0
    for at_write, landed in [*kills, (99, False)]:
        writes = 0

        def killing(name, at_write=at_write, landed=landed):
            async def write(*args, **words):
                nonlocal writes
                writes += 1
                dies = writes == at_write
                answer = None if dies and not landed else await real[name](*args, **words)
                if dies:
                    raise _Killed
                return answer

            return write

        with monkeypatch.context() as patch:
            patch.setattr(scene.store, "delete_below", killing("delete_below"))
            patch.setattr(scene.catalog, "certify", killing("certify"))
            try:
                await scene.certifier().delete_objects()
            except _Killed:
                died += 1
        there = {name.split("/")[3] for name in await scene.objects()}
        certificates = await scene.catalog.certificates()
        final = [each.recording for each in certificates if each.status is CertificateStatus.FINAL]
        assert len(final) == len(set(final))
        assert not there & set(final)
        waiting = {each.id for each in await scene.catalog.undeleted_recordings(after=None, limit=9)}
        assert waiting == everything - set(final)
    assert died > 3
    assert (there, set(final)) == (set(), everything)
