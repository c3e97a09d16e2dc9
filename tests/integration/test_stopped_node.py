"""A node that is stopped while another shreds, and goes on: it refuses, because it cannot tell or because it can."""

import asyncio
import os
import random
import signal
from dataclasses import replace

import pytest

from tests.helpers.recorder import Recorder
from tests.helpers.server import PURPOSE, make_site, session, zygote
from tests.helpers.soak import SOAK

LEASE_SECONDS = 1.0


@pytest.fixture(scope="module")
def processes():
    with zygote() as started:
        yield started


def site_in(directory):
    sections = {
        "retention": {"default": "2s", "floor": "1s", "cohort_width": "1s"},
        "keyring": {"lease": f"{LEASE_SECONDS:g}s", "precreate_days": 0},
    }
    return asyncio.run(make_site(directory, **sections))


def second_node(site):
    journal = site.directory / "journal-2"
    journal.mkdir(mode=0o700)
    return replace(site, document={**site.document, "journal": {**site.document["journal"], "path": str(journal)}})


async def play(client, site, recording):
    headers = site.auth("agent", **PURPOSE)
    async with client.get(f"/v1/recordings/{recording}/audio?format=raw", headers=headers) as answer:
        return answer.status, await answer.read()


async def shred(client, site):
    while True:
        async with client.post("/v1/sweeps", json={}, headers=site.auth("operator")) as answer:
            assert answer.status == 200, await answer.text()
            if (await answer.json())["shredded"]:
                return
        await asyncio.sleep(0.2)


@pytest.mark.soak
async def test_a_stopped_node_never_plays_what_was_shredded_meanwhile(tmp_path, processes):
    one = await asyncio.to_thread(site_in, tmp_path)
    two = second_node(one)
    first, second = processes.start(one), processes.start(two)
    audio = random.randbytes(20_000)
    try:
        async with session(first) as a, session(second) as b:
            for turn in range(3 if SOAK else 1):
                status, _, answer = await Recorder(one, a).put(f"call-{turn}", audio)
                assert status == 201, answer
                recording = answer["recording_id"]
                for _ in range(100):
                    status, heard = await play(b, two, recording)
                    if status == 200:
                        break
                    await asyncio.sleep(0.02)
                assert (status, heard) == (200, audio)
                os.kill(second.pid, signal.SIGSTOP)
                try:
                    await shred(a, one)
                    await asyncio.sleep(LEASE_SECONDS)
                    # The request waits in the stopped node's socket: it is the first thing the node does.
                    asked = asyncio.create_task(play(b, two, recording))
                    await asyncio.sleep(0.05)
                finally:
                    os.kill(second.pid, signal.SIGCONT)
                status, heard = await asked
                assert status in (503, 410), (status, heard)
                assert audio[:1000] not in heard
                for _ in range(100):
                    status, _ = await play(b, two, recording)
                    if status == 410:
                        break
                    assert status == 503
                    await asyncio.sleep(0.05)
                assert status == 410
    finally:
        first.kill()
        second.kill()
