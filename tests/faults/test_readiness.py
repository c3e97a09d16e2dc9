"""What a monitor and a balancer are told when something the vault needs is gone: the cause, at once."""

import asyncio
import shutil
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientTimeout

from tests.helpers.app import Role, app, furnished, out_of_reach, running, sound
from tests.helpers.disks import small_disk
from tests.helpers.recorder import Recorder, until
from tests.helpers.server import in_process, make_site
from tests.helpers.streams import token_id
from vault.errors import Unavailable

__all__ = ["app", "furnished"]


async def told(app):
    """Return the status of /readyz, the checks that fail, and why."""
    await app.vault.status.look()
    answer = await app.ask("GET", "/readyz", None)
    failing = {name for name, verdict in answer.json["checks"].items() if verdict != "ok"}
    assert failing == {reason["check"] for reason in answer.json["reasons"]}
    assert all(reason["hint"] for reason in answer.json["reasons"]), "each says what to do"
    return answer.status, failing, " ".join(reason["detail"] for reason in answer.json["reasons"])


async def metric(app, name):
    await app.vault.status.refresh()
    answer = await app.ask("GET", "/metrics", None)
    assert answer.status == 200
    found = [line.split()[-1] for line in answer.body.decode().splitlines() if line.startswith(f"callvault_{name} ")]
    return float(found[0]) if found else None


@contextmanager
def moved_away(*paths):
    """Take directories away until the block ends, as disks that are not mounted."""
    for path in paths:
        path.rename(path.with_name(f"{path.name}-away"))
    try:
        yield
    finally:
        for path in paths:
            path.with_name(f"{path.name}-away").rename(path)


@pytest.mark.xdist_group("postgres")
async def test_a_frozen_database_is_named_within_three_seconds_and_no_monitor_waits_for_it(tmp_path, postgres):
    database = await postgres.new_database()
    site = await make_site(tmp_path, catalog={"url": postgres.url(database)})
    async with in_process(site) as (vault, url), ClientSession(url, timeout=ClientTimeout(total=20)) as client:
        recorder = Recorder(site, client)
        assert (await recorder.ready())[0] == 200
        assert await scraped(client) < 1
        with postgres.frozen():
            frozen = time.monotonic()
            for _ in range(2):
                status = 200
                while status == 200 and time.monotonic() - frozen < 3:
                    await asyncio.sleep(0.05)
                    began = time.monotonic()
                    status, body = await recorder.ready()
                    assert time.monotonic() - began < 0.5
                    assert body["age_seconds"] < 3
                assert (status, body["checks"]["catalog"]) == (503, "failing")
                assert [reason["check"] for reason in body["reasons"]] == ["catalog"]
                assert "has not answered for" in body["reasons"][0]["detail"]
                assert "database" in body["reasons"][0]["hint"]
                assert body["object_store"] == "ok"
                assert await scraped(client) < 1
        await until_ready(recorder)
        assert not vault.storer.store_down


async def scraped(client):
    """Return how long /metrics took."""
    began = time.monotonic()
    async with client.get("/metrics") as answer:
        assert answer.status == 200
        assert "callvault_catalog_age_seconds" in await answer.text()
    return time.monotonic() - began


async def until_ready(recorder):
    async with asyncio.timeout(5):
        while (await recorder.ready())[0] != 200:
            await asyncio.sleep(0.02)


async def test_without_its_replicas_the_vault_is_unready_once_the_lease_is_over_and_says_which_are_gone(app):
    replicas = [Path(replica) for replica in app.config.replicas]
    assert await metric(app, "keyring_replicas_ok") == 3
    with moved_away(*replicas[1:]):
        with pytest.raises(Unavailable):
            await app.vault.keyring.refresh()
        assert await metric(app, "keyring_replicas_ok") == 1
        assert (await told(app))[0] == 200  # within the lease calls begin
        app.clock.slept += app.vault.keyring.lease.total_seconds()
        status, failing, why = await told(app)
        assert (status, failing) == (503, {"keyring"})
        assert str(replicas[1]) in why
        answer = await app.ask("PUT", "/v1/ingest/northfield/call", Role.RECORDER, data=sound(100), headers=PCMU)
        assert answer.status == 503
        assert "lease" in answer.json["detail"]
        assert str(replicas[1]) in answer.json["detail"]
        assert await metric(app, "keyring_lease_seconds") < 0
    await app.vault.keyring.refresh()
    assert (await told(app))[0] == 200
    assert await metric(app, "keyring_replicas_ok") == 3


PCMU = {"Content-Type": "audio/PCMU;rate=8000;channels=1"}


async def test_no_replica_is_told_as_alive_once_no_look_has_come_back_for_a_lease(app):
    app.clock.slept += app.vault.keyring.lease.total_seconds()
    assert await metric(app, "keyring_replicas_ok") == 0


async def test_a_root_provider_that_new_calls_need_is_named(app):
    async def refused(**_):
        raise Unavailable("the token does not answer", cause="root provider")

    assert (await told(app))[0] == 200
    app.clock.advance(days=40)
    with pytest.MonkeyPatch.context() as outage:
        outage.setattr(app.vault.keyring._engine, "ready", refused)
        with pytest.raises(Unavailable):
            await app.vault.tenants.precreate()
        assert await told(app) == (503, {"root_provider"}, "the token does not answer")
    await app.vault.tenants.precreate()
    assert (await told(app))[0] == 200


async def test_a_server_that_shuts_down_says_who_takes_recordings(app):
    app.vault.ingest.drain()
    assert (await told(app))[:2] == (503, {"draining"})


async def test_a_provider_that_only_cohorts_of_later_calls_wait_for_does_not_make_the_vault_unready(app):
    with out_of_reach(app.vault.keyring._engine, "ready"):
        app.vault.tenants._periods_ahead = 3
        with pytest.raises(Unavailable):
            await app.vault.tenants.precreate()
    assert (await told(app))[0] == 200


async def test_objects_that_were_moved_away_make_the_vault_unready_and_calls_wait_in_the_journal(tmp_path):
    site = await make_site(tmp_path, roles=("recorder",))
    async with in_process(site) as (vault, url), ClientSession(url) as client:
        recorder = Recorder(site, client)
        assert (await recorder.ready())[0] == 200
        with moved_away(site.config.objects_path):
            await vault.status.look()
            status, body = await recorder.ready()
            assert (status, body["checks"]["objects"]) == (503, "failing")
            [reason] = body["reasons"]
            assert str(site.config.objects_path) in reason["detail"]
            assert "Never make an empty one" in reason["hint"]
            assert body["object_store"] == "down, the journal absorbs"
            assert (await recorder.put("call", sound(100)))[0] == 201
            await until(lambda: vault.storer.store_down)
            assert not site.config.objects_path.exists()
        await until_ready(recorder)
        await until(lambda: not vault.storer.store_down)


async def test_what_the_catalog_does_not_take_is_not_blamed_on_the_object_store(app):
    with out_of_reach(app.vault.catalog, "finish_recording"):
        call = asyncio.create_task(
            app.ask("PUT", "/v1/ingest/northfield/call", Role.RECORDER, data=sound(100), headers=PCMU)
        )
        await until(lambda: app.vault.storer.stalled)
        assert (await app.ask("GET", "/readyz", None)).json["object_store"] == "ok"
    assert (await call).status == 201


async def test_a_catalog_file_that_was_moved_or_replaced_makes_the_vault_unready_and_takes_no_write(tmp_path):
    """What is written to a file without a name is lost: a token would be in force again at the next start."""
    async with running(tmp_path) as app:
        token = token_id(app.token(Role.AUDITOR))
        file = app.vault.catalog._database._file
        older, aside = tmp_path / "older.db", tmp_path / "aside.db"
        with sqlite3.connect(file) as live, sqlite3.connect(older) as copy:
            live.backup(copy)
        file.rename(aside)
        for replace in (False, True):
            if replace:
                shutil.copy(older, file)
            assert (await told(app))[:2] == (503, {"catalog"})
            answer = await app.ask("DELETE", f"/v1/tokens/{token}", Role.OPERATOR)
            assert (answer.status, answer.problem) == (503, "unavailable"), answer.body
        aside.rename(file)
        assert (await told(app))[0] == 200
        assert (await app.ask("DELETE", f"/v1/tokens/{token}", Role.OPERATOR)).status == 204


async def test_a_catalog_that_can_be_read_and_not_written_makes_the_vault_unready(app):
    with out_of_reach(app.vault.presence._catalog, "beat_node"):
        with pytest.raises(Unavailable):
            await app.vault.presence.appear()
        assert await told(app) == (503, {"catalog"}, "no answer")
    assert (await told(app))[0] == 200


async def test_a_disk_on_which_the_journal_has_no_room_for_its_next_file_makes_the_vault_unready(tmp_path, monkeypatch):
    site = await make_site(
        tmp_path, journal={"file_bytes": "256MiB", "max_bytes": "1GiB", "disk_reserve": "1MiB"}, roles=("recorder",)
    )
    with small_disk(site.config.journal_path, size=60 << 20, kind="tmpfs", monkeypatch=monkeypatch):
        async with in_process(site) as (_, url), ClientSession(url) as client:
            recorder = Recorder(site, client)
            status, body = await recorder.ready()
            assert (status, body["checks"]["journal"]) == (503, "failing")
            [reason] = body["reasons"]
            assert "60 MiB free" in reason["detail"]
            assert "256 MiB" in reason["detail"]
            status, headers, problem = await recorder.put("call", sound(100))
            assert (status, problem["detail"], problem["cause"]) == (507, reason["detail"], "disk")
            assert int(headers["Retry-After"]) > 0


async def test_readiness_asks_neither_the_catalog_nor_a_disk_and_says_how_old_it_is(app, monkeypatch):
    status = app.vault.status
    await status.look()
    askers = []

    async def noted(_seconds):
        askers.append(asyncio.current_task().get_coro().__qualname__)

    with monkeypatch.context() as patch:
        for look in (status._at_catalog, status._at_store):
            patch.setattr(look, "within", noted)
        app.clock.slept += 3
        ready = (await app.ask("GET", "/readyz", None)).json
        assert ready["status"] == "ready"
        assert 3 <= ready["age_seconds"] < 4
        assert "Look.latest" not in askers
    # What was not looked at for longer than that is no answer: it is asked for again.
    app.clock.slept += 2
    with out_of_reach(app.vault.catalog, "check_schema"):
        ready = (await app.ask("GET", "/readyz", None)).json
    assert ready["checks"]["catalog"] == "failing"
    assert ready["age_seconds"] < 1


async def test_a_look_that_hangs_is_told_without_waiting_for_it(app, monkeypatch):
    status, asked, answers = app.vault.status, asyncio.Event(), asyncio.Event()
    await status.look()

    async def hangs():
        asked.set()
        await answers.wait()

    monkeypatch.setattr(status._at_catalog, "_ask", hangs)
    hanging = asyncio.create_task(status.look())
    await until(asked.is_set)  # at the latest by the background's own look
    assert (await app.ask("GET", "/readyz", None)).status == 200
    app.clock.slept += 1
    body = (await app.ask("GET", "/readyz", None)).json
    assert [each["check"] for each in body["reasons"]] == ["catalog"]
    assert "has not answered for 1." in body["reasons"][0]["detail"]
    answers.set()
    await hanging
    await status.look()
    assert (await app.ask("GET", "/readyz", None)).status == 200


async def test_a_scrape_asks_the_catalog_nothing(app, monkeypatch):
    await app.vault.status.refresh()
    askers = []

    async def noted(_seconds):
        askers.append(asyncio.current_task().get_coro().__qualname__)

    monkeypatch.setattr(app.vault.status._at_gauges, "within", noted)
    text = (await app.ask("GET", "/metrics", None)).body.decode()
    assert 'callvault_recordings{state="sealed"} 0.0' in text
    assert {*askers} <= {"Status.run"}


async def test_gauges_of_a_catalog_that_is_away_are_told_for_a_while_with_their_age_and_then_not(app):
    assert await metric(app, "holds_review_overdue") == 0
    with out_of_reach(app.vault.catalog, "count_recordings"):
        app.clock.slept += 200
        assert await metric(app, "holds_review_overdue") == 0
        assert 200 <= await metric(app, "catalog_age_seconds") < 300
        app.clock.slept += 200
        assert await metric(app, "holds_review_overdue") is None
        assert await metric(app, "catalog_age_seconds") >= 400
    assert await metric(app, "holds_review_overdue") == 0
    assert await metric(app, "catalog_age_seconds") < 1
