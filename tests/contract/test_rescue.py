"""The contract of `vault.ports.rescue`: a catalog dumped, loaded and rebuilt is the same catalog."""

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from tests.helpers.catalog_template import transaction
from tests.helpers.catalogs import (
    ACME,
    OTHER,
    PERIOD,
    SteppingClock,
    call_everything,
    certificate,
    certify,
    event,
    recording,
    sealed,
    segment,
    shred,
)
from tests.helpers.trail import audit_entries
from vault.certificates.audit_chain import verify_chain
from vault.errors import ConfigError, Conflict, IntegrityError, Unavailable
from vault.format.backup import TableRows, decode_tables, encode_tables
from vault.ids import RecordingId
from vault.model import MANIFEST_INDEX, Part, RecordingState
from vault.storage.catalog import open_catalog, rows, schema

MISSING = RecordingId("rec_" + "0" * 32)


@pytest.fixture
async def catalog(tmp_path):
    opened = open_catalog(tmp_path / "catalog.db", clock=SteppingClock())
    await opened.migrate()
    yield opened
    assert await opened.miscounted() == []
    await opened.close()


@pytest.fixture
async def blank(tmp_path):
    opened = open_catalog(tmp_path / "other.db", clock=SteppingClock())
    yield opened
    await opened.close()


async def dumped(catalog):
    async with catalog.snapshot() as snapshot:
        return snapshot.schema_revision, [
            section for name in snapshot.tables async for _, section in snapshot.rows(name)
        ]


async def stream(sections, *, fails_after=None):
    for number, section in enumerate(sections):
        if number == fails_after:
            raise Unavailable("the destination went away")
        yield section


async def test_a_dump_carries_every_row_of_every_table_through_its_bytes(catalog, blank):
    await call_everything(catalog)
    live = recording(period=PERIOD + 99)
    await catalog.create_recording(live)
    await catalog.add_segments([segment(live)], stored_bytes=1000)
    revision, sections = await dumped(catalog)
    await blank.load(revision, stream(decode_tables(encode_tables(sections))), settings={})
    assert await dumped(blank) == (revision, sections)
    assert {section.table for section in sections} >= {
        "recordings",
        "segments",
        "holds",
        "certificate_batches",
        "audit",
    }
    await blank.check_schema()
    verify_chain(iter(await audit_entries(blank, limit=1000)))
    await blank.append_audit([event()])
    verify_chain(iter(await audit_entries(blank, limit=1000)))


async def test_a_snapshot_sees_nothing_of_what_is_written_after_it_began(catalog):
    first = await sealed(catalog)
    async with catalog.snapshot() as snapshot:
        tags = await snapshot.tags()
        before = [each async for each in snapshot.rows("recordings")]
        await asyncio.wait_for(sealed(catalog), 5)
        assert [each async for each in snapshot.rows("recordings")] == before
        assert await snapshot.tags() == tags
        [(_, section)] = before
        assert [dict(zip(section.columns, row, strict=True))["id"] for row in section.rows] == [rows.key(first.id)]


async def test_the_objects_are_those_of_what_is_not_shredded_those_of_a_tenant_together(catalog):
    late, early = recording(tenant=OTHER), recording(tenant=ACME)
    for row in (late, early):
        await catalog.create_recording(row)
        await catalog.add_segments([segment(row, 0), segment(row, 1)], stored_bytes=2000)
    gone = await sealed(catalog)
    await certify(catalog, [certificate(gone)])
    found = [each async for each in catalog.objects()]
    tenants = sorted([(ACME, early.id), (OTHER, late.id)])
    assert [(each.coordinate.cohort.tenant, each.recording) for each in found] == tenants
    assert [[item.name for item in each.objects] for each in found] == [
        [segment(row, index).name for index in (0, 1)] for row in (early, late)
    ]


async def test_a_load_that_fails_leaves_a_blank_catalog_that_can_be_loaded(catalog, blank):
    await call_everything(catalog)
    revision, sections = await dumped(catalog)
    assert await blank.is_blank()
    for number in range(0, len(sections), 3):
        with pytest.raises(Unavailable):
            await blank.load(revision, stream(sections, fails_after=number), settings={})
        assert await blank.is_blank()
    await blank.load(revision, stream(sections), settings={"mark": "here", "vault_id": "two"})
    assert not await blank.is_blank()
    assert (await blank.setting("mark"), await blank.setting("vault_id")) == ("here", "two")
    with pytest.raises(Conflict):
        await blank.load(revision, stream(sections), settings={})


def columns_at(revision):
    """Return the columns of each table of an older schema."""
    with transaction() as connection:
        schema.upgrade_to(connection, revision)
        found = sa.inspect(connection)
        return {table: {each["name"] for each in found.get_columns(table)} for table in found.get_table_names()}


async def test_a_dump_of_an_older_schema_is_loaded_as_it_is_and_upgraded(catalog, blank):
    row = await sealed(catalog)
    known = columns_at("0001")
    older = []
    for section in (await dumped(catalog))[1]:
        kept = [place for place, name in enumerate(section.columns) if name in known.get(section.table, ())]
        if kept:
            columns = tuple(section.columns[place] for place in kept)
            rows = [[each[place] for place in kept] for each in section.rows]
            if section.table == "recordings":
                columns, rows = (*columns, "call_key"), [[*each, f"call-{n}"] for n, each in enumerate(rows)]
            if section.table == "segments":  # digests were text, in hex, and a row had its name
                texts = [(ref.attempt, ref.sha256, ref.name) for ref in await catalog.segments(row.id)]
                columns = tuple(column for column in columns if column not in {"attempt", "sha256"})
                numbers = [[each[section.columns.index(column)] for column in columns] for each in section.rows]
                columns = (*columns, "attempt", "sha256", "name")
                rows = [[*each, *more] for each, more in zip(numbers, texts, strict=True)]
            older.append(TableRows(table=section.table, columns=columns, rows=rows))
    await blank.load("0001", stream(older), settings={})
    await blank.check_schema()
    assert (await blank.recording(row.id)).audio == row.audio
    assert await blank.segments(row.id) == await catalog.segments(row.id)
    assert len(await blank.segments(row.id)) > 0


async def test_a_dump_that_is_none_of_this_schema_is_refused(blank):
    with pytest.raises(ConfigError, match="newer"):
        await blank.load("9999", stream([]), settings={})
    for table, columns, row in (
        ("nothing", ("a",), [1]),
        ("tenants", ("id", "nothing"), ["a", 1]),
        ("segments", ("recording", "number"), [b"0" * 16, 1]),
    ):
        with pytest.raises(IntegrityError):
            await blank.load("0001", stream([TableRows(table=table, columns=columns, rows=[row])]), settings={})
    assert await blank.is_blank()


async def test_a_row_is_rebuilt_once_also_below_the_sweep_floor(catalog):
    await catalog.intend_shred(shred(due_through=PERIOD + 10))
    row = replace(recording(), state=RecordingState.SEALED, stored_bytes=1000)
    objects = [segment(row, MANIFEST_INDEX), segment(row)]
    for _ in range(2):
        await catalog.rebuild_recording(row, objects, audit=[event("recording.rebuilt")])
    assert await catalog.recording(row.id) == row
    assert await catalog.segments(row.id) == objects
    events = [entry.event.event for entry in await audit_entries(catalog)]
    assert events.count("recording.rebuilt") == 1
    with pytest.raises(Conflict):
        await catalog.rebuild_recording(replace(recording(), call_token=row.call_token), [])
    assert await catalog.recording_states([row.id, MISSING]) == {row.id: RecordingState.SEALED}


async def test_rows_without_a_key_are_shredded_without_a_certificate(catalog):
    lost, kept = await sealed(catalog), await sealed(catalog)
    certified = await sealed(catalog)
    await certify(catalog, [certificate(certified)])
    for _ in range(2):
        await catalog.shred_uncertified([lost.id, certified.id], reason="gone", audit=[event("found")])
    row = await catalog.recording(lost.id)
    assert (row.state, row.state_reason, row.certificate_id) == (RecordingState.SHREDDED, "gone", None)
    assert await catalog.recording(kept.id) == kept
    assert (await catalog.recording(certified.id)).state_reason is None
    assert [each.id for each in await catalog.uncertified(after=None, limit=10)] == [lost.id]
    assert await catalog.uncertified(after=lost.id, limit=10) == []
    assert [each.id for each in await catalog.undeleted_recordings(after=None, limit=10)] == [certified.id]
    assert [entry.event.event for entry in await audit_entries(catalog)].count("found") == 1
    assert await catalog.count_live(ACME, through=lost.created_at) == 3, "their metadata is left"
    await catalog.forget_metadata([lost.id, kept.id])
    assert await catalog.count_live(ACME, through=lost.created_at) == 2
    await catalog.shred_uncertified([kept.id], reason="gone")
    assert await catalog.count_live(ACME, through=lost.created_at) == 1


async def test_facts_without_a_key_are_forgotten_once_and_never_certified(catalog):
    lost, kept = await sealed(catalog, caller_token="a", object_token="c"), await sealed(catalog, called_token="b")
    for _ in range(2):
        await catalog.forget_metadata([lost.id], audit=[event("found")])
    row = await catalog.recording(lost.id)
    assert (row.sealed_facts, row.call_token, row.caller_token, row.object_token) == (b"", lost.id, None, None)
    assert await catalog.recording(kept.id) == kept
    due = await catalog.due_recordings(
        through=lost.metadata.cohort.period, after=None, limit=9, part=Part.METADATA, tenant=ACME
    )
    assert [each.id for each in due] == [kept.id]
    assert [entry.event.event for entry in await audit_entries(catalog)].count("found") == 1


async def test_a_catalog_in_memory_has_no_snapshots():
    opened = open_catalog(None, clock=SteppingClock())
    await opened.migrate()
    with pytest.raises(Unavailable):
        async with opened.snapshot():
            pass
    await opened.close()


def every_revision():
    steps = ScriptDirectory.from_config(schema._config()).walk_revisions()
    return [step.revision for step in steps]


def put(connection, table, values):
    """Insert what an older table has a place for."""
    there = {name: value for name, value in values.items() if name in columns_at("0001")[table]}
    connection.execute(sa.insert(sa.table(table, *map(sa.column, there))), there)


async def test_a_catalog_of_any_older_schema_is_dumped_as_it_is(tmp_path):
    row = recording()
    oldest_first = every_revision()[::-1]
    for revision in sorted({*oldest_first[::6], *oldest_first[-2:]}):
        with transaction(tmp_path / "old.db") as connection:
            schema.upgrade_to(connection, revision)
            columns = {each["name"] for each in sa.inspect(connection).get_columns("recordings")}
            if revision == "0001":
                put(connection, "recordings", {**rows.from_recording(row), "call_key": "one"})
                ref = segment(row, 0)
                texts = {"attempt": ref.attempt, "name": ref.name, "sha256": ref.sha256}
                put(connection, "segments", {**rows.from_segment(ref), **texts})
        opened = open_catalog(tmp_path / "old.db", clock=SteppingClock())
        async with opened.snapshot() as snapshot:
            assert snapshot.schema_revision == revision
            [(_, section)] = [each async for each in snapshot.rows("recordings")]
            assert set(section.columns) == columns
            assert await snapshot.tags() is None
            [found] = [each async for each in opened.objects()]
            assert (found.recording, found.coordinate, len(found.objects)) == (row.id, row.audio, 1)
        await opened.close()


async def test_a_catalog_without_a_schema_is_not_dumped(blank, tmp_path):
    (tmp_path / "other.db").touch()
    with pytest.raises(ConfigError, match="no schema") as refused:
        await dumped(blank)
    assert "callvault backup restore" in refused.value.hint
