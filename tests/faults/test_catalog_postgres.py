"""What a PostgreSQL server, and the way to it, can do to the catalog: nothing is lost, invented or misread."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.helpers.catalog_checks import check
from tests.helpers.catalogs import SteppingClock, call_everything, cohort, event, recording
from tests.helpers.postgres import new_server
from tests.helpers.tcp_proxy import Mode, TcpProxy, tcp_proxy
from tests.helpers.trail import audit_entries
from vault.certificates.audit_chain import verify_chain
from vault.errors import ConfigError, DiskFull, NotFound, OutcomeUnknown, Unavailable
from vault.storage.catalog import open_catalog, partitions
from vault.storage.catalog.tables import metadata
from vault.storage.postgres import PostgresSettings

pytestmark = pytest.mark.xdist_group("postgres")


def quick(settings: PostgresSettings, url: str | None = None) -> PostgresSettings:
    return replace(settings, url=url or settings.url, connect_seconds=2.0, statement_seconds=1.5)


@contextlib.asynccontextmanager
async def opened(settings):
    catalog = open_catalog(settings, clock=SteppingClock())
    try:
        yield catalog
    finally:
        await catalog.close()


@pytest.fixture
async def catalog(postgres_settings):
    async with opened(quick(postgres_settings)) as catalog:
        yield catalog


@pytest.fixture
async def proxied(postgres, postgres_settings):
    """Give the way to the server and a catalog that takes it."""
    async with tcp_proxy(postgres.port) as proxy:
        url = postgres_settings.url.replace(f":{postgres.port}/", f":{proxy.port}/")
        async with opened(quick(postgres_settings, url)) as catalog:
            yield proxy, catalog


def at_commit(catalog, proxy: TcpProxy, mode: Mode) -> None:
    """Have the next commit, and only that, meet `mode`."""

    @sa.event.listens_for(catalog._database.engine.sync_engine, "commit", once=True)
    def strike(_connection) -> None:
        proxy.mode = mode


async def restore(proxy: TcpProxy, condition) -> None:
    while not condition():
        await asyncio.sleep(0.01)
    await proxy.set(Mode.FORWARD)


async def test_every_method_works_and_the_migrations_lead_to_the_tables_the_code_uses(catalog):
    await call_everything(catalog)
    await catalog.migrate()

    def compare(connection):
        parts = {span.name for span in partitions.spans(connection)}
        assert parts
        options = {"compare_type": True, "include_name": lambda name, *_: name not in parts}
        context = MigrationContext.configure(connection, opts=options)
        return compare_metadata(context, metadata)

    async with catalog._database.engine.begin() as connection:
        assert await connection.run_sync(compare) == []


async def test_an_empty_database_is_not_a_catalog_until_it_is_migrated(postgres):
    async with opened(PostgresSettings(url=postgres.url(await postgres.new_database()))) as catalog:
        assert await catalog.is_empty()
        with pytest.raises(ConfigError, match="no schema"):
            await catalog.check_schema()
        with pytest.raises(ConfigError, match="no usable schema"):
            await catalog.tenants()
        await catalog.migrate()
        assert not await catalog.is_empty()
        await catalog.check_schema()


async def test_connections_that_ended_while_idle_are_replaced_unnoticed(catalog, postgres):
    one = recording()
    await catalog.create_recording(one, audit=[event()])
    await asyncio.gather(*[catalog.recording(one.id) for _ in range(4)])
    await postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'callvault'"
    )
    assert (await catalog.recording(one.id)).id == one.id
    await postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'callvault'"
    )
    await catalog.append_audit([event("after")])
    assert verify_chain(await audit_entries(catalog)).seq == 2


async def test_a_server_that_is_gone_is_an_outage_and_nothing_else(proxied):
    proxy, catalog = proxied
    one = recording()
    await catalog.create_recording(one, audit=[event()])
    await proxy.set(Mode.REFUSE)
    for call in (catalog.recording(one.id), catalog.create_recording(recording()), catalog.check_schema()):
        with pytest.raises(Unavailable):
            await call
    results = await asyncio.gather(*[catalog.append_audit([event()]) for _ in range(20)], return_exceptions=True)
    assert {type(result) for result in results} == {Unavailable}
    await proxy.set(Mode.FORWARD)
    await catalog.append_audit([event("back")])
    assert [entry.event.event for entry in await audit_entries(catalog)] == ["recording.started", "back"]


async def test_a_server_that_never_answers_is_an_outage_within_a_bound(proxied):
    proxy, catalog = proxied
    one = recording()
    await catalog.create_recording(one, audit=[event()])
    await catalog.recording(one.id)
    await proxy.set(Mode.STALL)
    began = time.monotonic()
    calls = (catalog.recording(one.id), catalog.append_audit([event()]))
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in ended] == [Unavailable, Unavailable]
    assert time.monotonic() - began < 25
    await proxy.set(Mode.FORWARD)
    await catalog.append_audit([event("back")])
    assert (await catalog.recording(one.id)).id == one.id
    verify_chain(await audit_entries(catalog))


async def test_a_commit_whose_answer_was_lost_is_found_to_have_landed(proxied):
    proxy, catalog = proxied
    await catalog.append_audit([event("before")])
    at_commit(catalog, proxy, Mode.DROP_ANSWERS)
    healing = asyncio.create_task(restore(proxy, lambda: proxy.answers_dropped))
    one = recording()
    await catalog.create_recording(one, audit=[event(target=one.id)])
    await healing
    assert (await catalog.recording(one.id)).id == one.id
    entries = await audit_entries(catalog)
    assert [entry.event.target for entry in entries] == [None, one.id]
    await catalog.append_audit([event("after")])
    assert verify_chain(await audit_entries(catalog)).seq == 3


async def test_a_commit_that_never_arrived_is_found_to_have_done_nothing(proxied):
    proxy, catalog = proxied
    await catalog.append_audit([event("before")])
    at_commit(catalog, proxy, Mode.CUT)
    one = recording()
    healing = asyncio.create_task(restore(proxy, lambda: proxy.mode is Mode.CUT and not proxy._connections))
    with pytest.raises(Unavailable, match="nothing was changed"):
        await catalog.create_recording(one, audit=[event(target=one.id)])
    await healing
    with pytest.raises(NotFound):
        await catalog.recording(one.id)
    assert verify_chain(await audit_entries(catalog)).seq == 1
    await catalog.create_recording(one, audit=[event(target=one.id)])


async def test_a_lost_answer_without_evidence_is_said_to_be_unknown(proxied):
    proxy, catalog = proxied
    await catalog.reserve_leaves(cohort(), 1)
    at_commit(catalog, proxy, Mode.DROP_ANSWERS)
    with pytest.raises(OutcomeUnknown):
        await catalog.reserve_leaves(cohort(), 10)
    await proxy.set(Mode.FORWARD)
    # Whichever it was, no leaf is given out twice.
    assert await catalog.reserve_leaves(cohort(), 1) in (1, 11)


async def test_a_lost_answer_that_nobody_can_look_up_is_said_to_be_unknown(proxied):
    proxy, catalog = proxied
    await catalog.append_audit([event("before")])
    at_commit(catalog, proxy, Mode.DROP_ANSWERS)
    one = recording()
    with pytest.raises(OutcomeUnknown):
        await catalog.create_recording(one, audit=[event()])
    await proxy.set(Mode.FORWARD)
    assert (await catalog.recording(one.id)).id == one.id
    await catalog.append_audit([event("after")])
    assert verify_chain(await audit_entries(catalog)).seq == 3


async def test_a_writer_that_stops_in_mid_transaction_loses_its_turn(catalog, postgres, postgres_settings):
    async with opened(quick(postgres_settings)) as other, other._database.engine.connect() as stopped:
        await stopped.begin()
        began = time.monotonic()
        await catalog.append_audit([event()])
        assert time.monotonic() - began < 5
        with pytest.raises(sa.exc.DBAPIError):
            await stopped.execute(sa.text("SELECT 1"))


async def test_a_turn_that_does_not_come_is_an_outage(catalog, postgres_settings):
    async with opened(postgres_settings) as other, other._database.engine.connect() as busy:
        await busy.begin()
        working = asyncio.create_task(busy.execute(sa.text("SELECT pg_sleep(3)")))
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable, match="nothing was changed"):
            await catalog.append_audit([event()])
        await working
    await catalog.append_audit([event()])


async def test_readers_cannot_write(catalog):
    with pytest.raises(Unavailable):
        await catalog._database.fetch(sa.text("DELETE FROM settings RETURNING name"))


async def test_a_database_that_acknowledges_before_it_is_durable_is_refused(postgres, postgres_settings):
    database = postgres_settings.url.rpartition("/")[2]
    await postgres.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    async with opened(postgres_settings) as catalog:
        with pytest.raises(ConfigError, match="synchronous_commit = off"):
            await catalog.check_schema()


async def test_the_password_is_in_no_error_and_no_repr(postgres, postgres_settings, caplog):
    caplog.set_level(logging.DEBUG)
    secret = "wrong-Zq9-secret"
    for url in (
        f"postgresql://vault:{secret}@127.0.0.1:{postgres.port}/postgres",
        f"postgresql://vault:{secret}@127.0.0.1:1/postgres",
        f"postgresql://vault:{secret}@127.0.0.1:notaport/postgres",
        f"postgresql://vault:{secret}@127.0.0.1:{postgres.port}/postgres?sslmode=nonsense",
    ):
        settings = PostgresSettings(url=url)
        assert secret not in repr(settings)
        async with opened(settings) as catalog:
            assert secret not in repr(catalog._database.engine)
            with pytest.raises((Unavailable, ConfigError)) as caught:
                await catalog.check_schema()
        told = caught.value
        while told is not None:
            assert secret not in f"{told!r} {told}"
            told = told.__cause__
    assert secret not in caplog.text
    with pytest.raises(ConfigError) as refused:
        PostgresSettings(url=f"mysql://vault:{secret}@localhost/x")
    assert secret not in str(refused.value)


def test_a_missing_driver_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigError) as refused:
        open_catalog(PostgresSettings(url="postgresql://localhost/vault"), clock=SteppingClock())
    assert "callvault[postgres]" in refused.value.hint


@pytest.fixture
def small_tablespace(postgres):
    """Give the name of a tablespace on a disk of a few megabytes."""
    directory = postgres.directory / "small"
    directory.mkdir(exist_ok=True)
    mounting = ["mount", "-t", "tmpfs", "-o", "size=12m,uid=nobody,mode=700", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mounting, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small disk takes the right to mount one")
    try:
        asyncio.run(postgres.execute(f"CREATE TABLESPACE small LOCATION '{directory}'"))
        yield "small"
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


async def test_a_full_disk_says_so_and_the_trail_stays_whole(postgres, postgres_template, small_tablespace):
    name = await postgres.new_database(template=postgres_template)
    await postgres.execute(f"ALTER DATABASE {name} SET TABLESPACE {small_tablespace}")
    async with opened(PostgresSettings(url=postgres.url(name))) as catalog:
        with pytest.raises(DiskFull):  # noqa: PT012 - which of the writes meets the end of the disk is not known
            for _ in range(200):
                await catalog.create_recording(recording(sealed_facts=os.urandom(200_000)), audit=[event()])
        entries = await audit_entries(catalog, limit=1000)
        assert verify_chain(entries).seq == len(await catalog.open_recordings()) == len(entries)
    await postgres.execute(f"DROP DATABASE {name}")
    await postgres.execute("DROP TABLESPACE small")


async def test_a_server_without_fsync_is_refused_and_a_killed_one_keeps_what_it_acknowledged():
    server = await asyncio.to_thread(new_server)
    try:
        settings = quick(PostgresSettings(url=server.url("postgres")))
        async with opened(settings) as catalog:
            await catalog.migrate()
            acknowledged = await write_through_a_crash(catalog, server)
            entries = await audit_entries(catalog, limit=100_000)
            verify_chain(entries)
            targets = [entry.event.target for entry in entries]
            assert len(set(targets)) == len(targets)
            assert set(acknowledged) <= set(targets)
            assert {row.id for row in await catalog.open_recordings()} == set(targets)
        server.stop()
        server.settings["fsync"] = "off"
        await asyncio.to_thread(server.start)
        async with opened(settings) as catalog:
            with pytest.raises(ConfigError, match="fsync = off"):
                await catalog.check_schema()
    finally:
        server.remove()


async def write_through_a_crash(catalog, server) -> list[str]:
    """Create recordings from many tasks while the server is killed and started again; return what was acknowledged."""
    acknowledged: list[str] = []
    outages = 0
    stop = asyncio.Event()

    async def work() -> None:
        nonlocal outages
        while not stop.is_set():
            one = recording()
            try:
                await catalog.create_recording(one, audit=[event(target=one.id)])
            except Unavailable:
                outages += 1
                await asyncio.sleep(0.05)
            else:
                acknowledged.append(one.id)

    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(work())
        for _ in range(2):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.stop, signal.SIGKILL)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
            before = len(acknowledged)
            while len(acknowledged) < before + 50:
                await asyncio.sleep(0.05)
        stop.set()
    assert outages
    return acknowledged


def test_two_processes_write_one_chain_and_a_killed_one_leaves_no_gap(postgres_settings):
    command = [sys.executable, "-m", "tests.faults.test_catalog_crash"]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "CATALOG_URL": postgres_settings.url}
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, env=environment) for _ in range(2)]
    heard: list[bytes] = []
    try:
        for child in children:
            heard += [child.stdout.readline() for _ in range(60)]
        children[0].kill()
        heard += [children[1].stdout.readline() for _ in range(200)]
    finally:
        for child in children:
            child.kill()
            heard += child.stdout.readlines()
            child.stdout.close()
            child.wait(timeout=20)
    acknowledged = [line.decode() for line in heard if line.endswith(b"\n")]
    assert len(acknowledged) > 300
    asyncio.run(check(postgres_settings, acknowledged))
