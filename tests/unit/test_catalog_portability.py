"""Nothing in schema or queries is SQLite's alone, and the migrations lead exactly to the tables the code uses."""

import io
import re

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.sqlite.dml import Insert as SqliteInsert
from sqlalchemy.schema import CreateIndex, CreateTable

from tests.helpers.catalog_template import transaction
from tests.helpers.catalogs import SteppingClock, call_everything, calls_of
from tests.helpers.older_catalogs import fill, list_of
from vault.ids import RecordingId, TenantId
from vault.ports.catalog import Catalog
from vault.storage.catalog import open_catalog, schema
from vault.storage.catalog.recording_sql import INSERT_UNLESS_TAKEN
from vault.storage.catalog.tables import metadata
from vault.storage.catalog.writer import WIDEN

POSTGRESQL = postgresql.dialect()


@pytest.fixture
async def catalog():
    opened = open_catalog(None, clock=SteppingClock())
    await opened.migrate()
    yield opened
    await opened.close()


async def test_every_statement_of_every_method_compiles_for_postgresql(catalog):
    executed: set[str] = set()
    upserts: set[str] = set()

    def collect(_connection, statement, *_rest):
        if isinstance(statement, SqliteInsert):
            upserts.add(str(statement.compile(dialect=sqlite.dialect())))
        else:
            executed.add(str(statement.compile(dialect=POSTGRESQL)))

    sa.event.listen(catalog._database.engine.sync_engine, "before_execute", collect)
    with calls_of(catalog) as called:
        await call_everything(catalog)
    port = {name for name in dir(Catalog) if not name.startswith("_")}
    assert port - called == {"migrate", "close"}
    assert len(executed) > 70
    # The statements that have a dialect's own form say the same in both.
    twins = {str(each["postgresql"].compile(dialect=POSTGRESQL)) for each in (INSERT_UNLESS_TAKEN, WIDEN)}
    without_values = {re.sub(r"VALUES \(.*\)s[^)]*\)", "", each) for each in twins}
    assert {re.sub(r"VALUES \(.*?\)\)?", "", each) for each in upserts} == {
        each.replace("least(", "min(").replace("greatest(", "max(") for each in without_values
    }


def test_every_table_and_index_compiles_for_postgresql():
    for table in metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=POSTGRESQL))
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=POSTGRESQL))


def test_migrations_render_for_postgresql():
    config = schema._config()
    config.output_buffer = io.StringIO()
    config.attributes["dialect"] = "postgresql"
    command.upgrade(config, "head", sql=True)
    script = config.output_buffer.getvalue()
    created = set(re.findall(r"CREATE TABLE (\w+)", script))
    moved = re.findall(r"ALTER TABLE (\w+) RENAME TO (\w+)", script)
    gone = {*re.findall(r"DROP TABLE (\w+)", script)} - {after for _, after in moved}
    assert created - {before for before, _ in moved} - gone == {"alembic_version", *metadata.tables}
    assert {after for _, after in moved} <= created
    assert "WHERE undeleted_since IS NOT NULL" in script


async def test_migrations_lead_exactly_to_the_tables_the_code_uses(catalog):
    def compare(connection):
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)

    def structure(connection):
        rows = connection.execute(
            sa.text(
                "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index')"
                " AND tbl_name <> 'alembic_version' AND sql IS NOT NULL"
            )
        )
        return {name: re.sub(r"[\s\"]", "", sql) for name, sql in rows}

    async with catalog._database.engine.begin() as connection:
        assert await connection.run_sync(compare) == []
        migrated = await connection.run_sync(structure)
    with transaction() as connection:
        metadata.create_all(connection)
        created = structure(connection)
    assert migrated.keys() == created.keys()
    for name, sql in created.items():
        if name.startswith("ix_"):  # autogenerate does not compare a partial index's condition
            assert migrated[name] == sql


def test_call_keys_that_stood_in_clear_are_forgotten_by_the_migration():
    with transaction() as connection:
        command.upgrade(schema._config(connection), "0001")
        columns = {row[1]: row for row in connection.exec_driver_sql("PRAGMA table_info(recordings)")}
        values = {name: b"\1" * 16 if row[2] == "BLOB" else "1" for name, row in columns.items()}
        values["call_key"] = "+442079460123"
        connection.exec_driver_sql(
            f"INSERT INTO recordings ({','.join(values)}) VALUES ({','.join('?' * len(values))})",
            tuple(values.values()),
        )
        connection.exec_driver_sql(
            "INSERT INTO certificates VALUES ('cert_1', ?, 'acme', 'final', NULL, 1, 'jws')", (b"\1" * 16,)
        )
        schema.upgrade(connection)
        row = connection.exec_driver_sql("SELECT call_token, caller_token FROM recordings").one()
        assert tuple(row) == ("rec_" + "01" * 16, None)
        assert connection.exec_driver_sql("SELECT id, parts FROM certificates").one() == ("cert_1", "audio")


def test_the_hours_of_an_earlier_trail_are_those_of_its_entries_wherever_a_page_ends(monkeypatch):
    revision = schema._scripts().get_revision("0041").module
    for size in (1, 3, 1000):
        monkeypatch.setattr(revision, "_PAGE", size)
        with transaction() as connection:
            fill(connection, "0031", 40)
            at = connection.exec_driver_sql("SELECT seq, at / 3600000000 FROM audit ORDER BY seq").all()
            schema.upgrade(connection)
            found = connection.exec_driver_sql("SELECT first, hour FROM audit_hours ORDER BY first").all()
        earlier = [None, *(hour for _, hour in at)]
        assert found == [(seq, hour) for (seq, hour), before in zip(at, earlier, strict=False) if hour != before]
        assert len(found) > 15


def test_earlier_lists_of_objects_are_in_the_rows_of_their_recordings_wherever_a_page_ends(monkeypatch):
    revision = schema._scripts().get_revision("0048").module
    for size in (1, 3, 1000):
        monkeypatch.setattr(revision, "_PAGE", size)
        with transaction() as connection:
            fill(connection, "0031", 40)
            schema.upgrade(connection)
            found = connection.exec_driver_sql("SELECT id, state, objects FROM recordings").all()
            assert not sa.inspect(connection).has_table("object_lists")
        assert len(found) == 40
        assert all(objects == (list_of(key) if state == "shredded" else None) for key, state, objects in found)


def test_the_lengths_of_earlier_calls_are_those_of_their_samples_or_of_what_came_as_it_was_spoken():
    minute = 60_000_000
    raw = {"container": "raw", "codec": "s16le", "rate": 16_000, "channels": 1, "stored_bytes": 32_000 * 90}
    opaque = {"container": "ogg", "codec": "stream", "rate": 0, "channels": 0}
    calls = (
        (raw | {"ended_at": 200 * minute}, 90_000),
        (raw | {"codec": "pcma", "ended_at": 200 * minute}, 180_000),
        (raw | {"state": "open", "ended_at": None}, None),
        (opaque | {"created_at": 100 * minute, "ended_at": 103 * minute}, 180_000),
        (opaque | {"created_at": 200 * minute, "ended_at": 203 * minute}, None),
    )
    with transaction() as connection:
        command.upgrade(schema._config(connection), "0026")
        columns = {row[1]: row for row in connection.exec_driver_sql("PRAGMA table_info(recordings)")}
        for number, (call, _) in enumerate(calls):
            values = {name: None if not row[3] else "1" for name, row in columns.items()}
            values |= {"id": bytes([number]) * 16, "call_token": str(number), "state": "sealed", "sealed_facts": b"f"}
            values |= {"started_at": 100 * minute, "created_at": 200 * minute} | call
            connection.exec_driver_sql(
                f"INSERT INTO recordings ({','.join(values)}) VALUES ({','.join('?' * len(values))})",
                tuple(values.values()),
            )
        schema.upgrade(connection)
        lengths = connection.exec_driver_sql("SELECT lasted_ms FROM recordings ORDER BY id").scalars().all()
    assert lengths == [expected for _, expected in calls]


async def test_migrating_again_changes_nothing(catalog):
    await catalog.save_setting("vault_id", "one")
    await catalog.migrate()
    await catalog.check_schema()
    assert await catalog.setting("vault_id") == "one"


# What tells the statement from the others → how SQLite must find its rows, without statistics and without sorting.
PLANS = {
    "'shredded' AND recordings.audio_period <= ?": "ix_recordings_due ((audio_period,id)>(?,?) AND audio_period<?)",
    "certificate_tenants.tenant = ?": "certificate_tenants USING PRIMARY KEY (tenant=? AND batch>? AND batch<?)",
    "undeleted_since IS NOT NULL": "ix_recordings_undeleted (id>?)",
    "retain_until <= ?": "ix_recordings_retain (retain_until<?)",
    "FROM recordings WHERE recordings.state = 'open' ORDER BY": "ix_recordings_state (state=?)",
    "recordings.tenant = ? AND recordings.call_token IN": "(tenant=? AND call_token=?)",
    "recordings.metadata_certificate_id IS NULL AND": "ix_recordings_metadata (tenant=? AND id>?)",
    "WHERE recordings.tenant = ? AND recordings.started_at >= ?": "ix_recordings_measures (tenant=? AND started_at>?",
    "WHERE recordings.tenant = ? AND recordings.state = ?": "ix_recordings_tenant_state (tenant=? AND state=? AND st",
}


async def test_queries_on_a_million_rows_walk_an_index_in_order(catalog):
    statements: dict[str, object] = {}
    engine = catalog._database.engine

    def collect(_connection, _cursor, sql, parameters, *_rest):
        statements[" ".join(sql.split())] = parameters

    sa.event.listen(engine.sync_engine, "before_cursor_execute", collect)
    await call_everything(catalog)
    sa.event.remove(engine.sync_engine, "before_cursor_execute", collect)
    for mark, expected in PLANS.items():
        chosen = [
            (sql, given)
            for sql, given in statements.items()
            # Open rows below the floor are few, whichever index finds them; a count reads every row it counts.
            if mark in sql and not sql.startswith("SELECT recordings.id FROM") and "count(" not in sql
        ]
        assert chosen, mark
        for sql, given in chosen:
            async with engine.begin() as connection:
                rows = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", given)).all()
            plan = "; ".join(row[3] for row in rows)
            assert expected in plan, sql
            # A page that the index alone has found is sorted once more as its rows are read.
            assert plan.count("TEMP B-TREE") == ("WHERE recordings.id IN (SELECT recordings.id FROM" in sql), sql


async def test_a_page_of_named_recordings_is_found_by_their_ids_and_not_among_all_of_the_tenant(catalog):
    told: list[tuple[str, object]] = []
    engine = catalog._database.engine
    sa.event.listen(
        engine.sync_engine,
        "before_cursor_execute",
        lambda _connection, _cursor, sql, given, *_: told.append((sql, given)),
    )
    await catalog.keys_of([RecordingId(f"rec_{number:032x}") for number in range(500)], tenant=TenantId("north"))
    [(sql, given)] = [each for each in told if "recordings.id IN" in each[0]]
    async with engine.begin() as connection:
        [row] = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", given)).all()
    assert "sqlite_autoindex_recordings_1 (id=?)" in row[3]
