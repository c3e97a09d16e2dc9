"""A recording whose creation got no answer is neither lost nor made twice."""

import asyncio
import random

import pytest
import sqlalchemy as sa
from aiohttp import ClientSession

from tests.faults.recorder import Recorder
from tests.faults.server import in_process, make_site
from tests.faults.tcp_proxy import Mode, tcp_proxy

pytestmark = pytest.mark.xdist_group("postgres")


@pytest.fixture
def address(postgres):
    return postgres.url(asyncio.run(postgres.new_database()))


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
            for _ in range(100):
                status, headers, answer = await recorder.put("second", data)
                if status != 503:
                    break
                assert headers["Retry-After"]
                await asyncio.sleep(0.1)
            assert status == 201, answer
            await recorder.ends_as("second", "sealed")
            assert await recorder.audio("second") == data
            events = [entry.event.event for entry in await vault.catalog.audit_entries()]
            assert events.count("recording.started") == 2
