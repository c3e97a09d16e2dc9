"""A recording whose creation got no answer is neither lost nor made twice."""

import asyncio
import random

import pytest
import sqlalchemy as sa
from aiohttp import ClientSession

from tests.helpers.recorder import Recorder
from tests.helpers.server import in_process, make_site
from tests.helpers.tcp_proxy import Mode, tcp_proxy
from tests.helpers.trail import audit_entries
from vault.errors import OutcomeUnknown, Unavailable

pytestmark = pytest.mark.xdist_group("postgres")


@pytest.fixture
def address(postgres):
    return postgres.url(asyncio.run(postgres.new_database()))


async def again_until_taken(recorder, key, data):
    """Send a call again, as recorders do, until it is not put off."""
    for _ in range(100):
        status, headers, answer = await recorder.put(key, data)
        if status != 503:
            return status, answer
        assert headers["Retry-After"]
        await asyncio.sleep(0.1)
    raise AssertionError(answer)


def fails(monkeypatch, where, name, error, *, after=False, times=1):
    """Let a method fail so many times, `after` it has done its work or before."""
    real, left = getattr(where, name), [error] * times

    async def failing(*args, **words):
        if not left:
            return await real(*args, **words)
        if after:
            await real(*args, **words)
        raise left.pop()

    monkeypatch.setattr(where, name, failing)


async def test_a_catalog_that_answers_only_now_and_then_does_not_stop_the_server(tmp_path, monkeypatch):
    site, data = await make_site(tmp_path), random.randbytes(50_000)
    async with in_process(site) as (vault, url), ClientSession(url) as client:
        recorder = Recorder(site, client)
        fails(monkeypatch, vault.catalog, "create_recording", OutcomeUnknown("no answer"), after=True)
        fails(monkeypatch, vault.catalog, "segments", Unavailable("no answer"), times=2)
        assert (await recorder.put("call", data))[0] == 503
        assert (await again_until_taken(recorder, "call", data))[0] == 201
        await recorder.ends_as("call", "sealed")
        assert await recorder.audio("call") == data


async def test_a_keyring_that_goes_out_of_reach_as_a_call_begins_does_not_leave_its_name_taken(tmp_path, monkeypatch):
    site, data = await make_site(tmp_path), random.randbytes(50_000)
    async with in_process(site) as (vault, url), ClientSession(url) as client:
        recorder, create = Recorder(site, client), vault.catalog.create_recording

        def out_of_reach(_):
            raise Unavailable("the lease is over")

        with monkeypatch.context() as outage:

            async def created(*args, **words):
                await create(*args, **words)
                outage.setattr(vault.keyring, "derive", out_of_reach)

            outage.setattr(vault.catalog, "create_recording", created)
            await recorder.put("call", data)
        assert (await again_until_taken(recorder, "call", data))[0] in {200, 201}
        await recorder.ends_as("call", "sealed")
        assert await recorder.audio("call") == data


async def test_a_call_whose_beginning_got_no_answer_goes_on_when_its_recorder_comes_back(tmp_path, postgres, address):
    site = await make_site(tmp_path, catalog={"url": address})
    data = random.randbytes(50_000)
    async with tcp_proxy(postgres.port) as proxy:
        site.document["catalog"]["url"] = address.replace(f":{postgres.port}/", f":{proxy.port}/")
        async with in_process(site) as (vault, url), ClientSession(url) as client:
            recorder = Recorder(site, client)
            assert (await recorder.put("first", data))[0] == 201

            @sa.event.listens_for(vault.catalog._database.engine.sync_engine, "commit", once=True)
            def strike(_connection) -> None:
                proxy.mode = Mode.DROP_ANSWERS

            status, _, problem = await recorder.put("second", data)
            assert (status, problem["title"]) == (503, "outcome unknown")
            await proxy.set(Mode.FORWARD)
            status, answer = await again_until_taken(recorder, "second", data)
            assert status == 201, answer
            await recorder.ends_as("second", "sealed")
            assert await recorder.audio("second") == data
            events = [entry.event.event for entry in await audit_entries(vault.catalog)]
            assert events.count("recording.started") == 2
