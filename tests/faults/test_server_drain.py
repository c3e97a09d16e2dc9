"""SIGTERM: calls under way end within the grace or are closed as truncated, and the process ends with 0."""

import asyncio
import hashlib
import random
import time

import aiohttp
import pytest

from tests.helpers.load import CONTENT_TYPE
from tests.helpers.server import PURPOSE, TENANT, log_lines, make_site, session, zygote


@pytest.fixture(scope="module")
def process():
    with zygote() as made:
        yield made


def path(key):
    return f"/v1/ingest/{TENANT}/{key}"


async def spoken(data, *, seconds, pieces=20):
    size = -(-len(data) // pieces)
    for at in range(0, len(data), size):
        yield data[at : at + size]
        await asyncio.sleep(seconds / pieces)


async def put(client, site, key, body):
    async with client.put(path(key), data=body, headers=site.auth("recorder", **CONTENT_TYPE)) as answer:
        return answer.status, answer.headers, await answer.json(content_type=None)


async def show(client, site, key):
    """Return (state, reason, audio)."""
    async with client.head(path(key), headers=site.auth("recorder")) as answer:
        recording = answer.headers["Recording-Id"]
    async with client.get(f"/v1/recordings/{recording}", headers=site.auth("agent")) as answer:
        row = await answer.json()
    audio = f"/v1/recordings/{recording}/audio?format=raw"
    async with client.get(audio, headers=site.auth("agent", **PURPOSE)) as answer:
        assert answer.status == 200
        return row["state"], row["state_reason"], await answer.read()


def defects(site):
    return [line for line in log_lines(site) if not isinstance(line, dict) or line["level"] == "error"]


async def test_a_call_that_ends_within_the_grace_is_sealed_and_new_ones_are_sent_away(tmp_path, process):
    site = await make_site(tmp_path, server={"drain_grace": "10s"})
    data = random.randbytes(60_000)
    server = process.start(site)
    async with session(server) as client:
        speaking = asyncio.create_task(put(client, site, "call", spoken(data, seconds=1.5)))
        await asyncio.sleep(0.4)
        server.terminate()
        await asyncio.sleep(0.3)
        status, headers, _ = await put(client, site, "late", data)
        assert status == 503
        assert int(headers["Retry-After"]) > 0
        async with client.get("/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["checks"]["draining"] == "failing"
        status, _, receipt = await speaking
        assert (status, receipt["sha256"]) == (201, hashlib.sha256(data).hexdigest())
    assert await asyncio.to_thread(server.wait) == 0
    server = process.start(site)
    async with session(server) as client:
        assert await show(client, site, "call") == ("sealed", None, data)
        async with client.head(path("late"), headers=site.auth("recorder")) as answer:
            assert answer.status == 404
    server.terminate()
    assert server.wait() == 0
    assert not defects(site)


async def test_a_call_that_outlasts_the_grace_is_truncated_and_the_process_still_ends_well(tmp_path, process):
    site = await make_site(tmp_path, server={"drain_grace": "1s"})
    data = random.randbytes(300_000)
    server = process.start(site)
    began = time.monotonic()
    async with session(server) as client:
        speaking = [
            asyncio.create_task(put(client, site, f"call-{number}", spoken(data, seconds=20, pieces=400)))
            for number in range(4)
        ]
        await asyncio.sleep(0.5)
        server.terminate()
        for each in speaking:
            # Either the refusal arrives, or the connection ends while the recorder still sends.
            try:
                status, headers, problem = await each
            except aiohttp.ClientError:
                continue
            assert status == 503, problem
            assert int(headers["Retry-After"]) > 0
    assert await asyncio.to_thread(server.wait) == 0
    assert time.monotonic() - began < 10
    assert not defects(site)
    server = process.start(site)
    async with session(server) as client:
        for number in range(4):
            state, reason, audio = await show(client, site, f"call-{number}")
            assert (state, reason) == ("truncated", "server_shutdown")
            assert audio == data[: len(audio)]
            assert len(audio) > 5_000
    server.terminate()
    assert server.wait() == 0


async def test_a_call_that_waits_for_its_recorder_can_be_resumed_after_a_restart(tmp_path, process):
    site = await make_site(tmp_path, server={"drain_grace": "5s", "resume_grace": "30s"})
    data = random.randbytes(40_000)
    server = process.start(site)
    async with session(server) as client:
        speaking = asyncio.create_task(put(client, site, "call", spoken(data, seconds=10)))
        await asyncio.sleep(1.5)
        speaking.cancel()
        await asyncio.sleep(0.2)
        server.terminate()
        assert await asyncio.to_thread(server.wait) == 0
    server = process.start(site)
    async with session(server) as client:
        async with client.head(path("call"), headers=site.auth("recorder")) as answer:
            durable = int(answer.headers["Upload-Offset"])
            assert answer.headers["Recording-State"] == "open"
        assert 0 < durable < len(data)
        headers = site.auth("recorder", **CONTENT_TYPE, **{"Upload-Offset": str(durable)})
        async with client.put(path("call"), data=data[durable:], headers=headers) as answer:
            assert answer.status == 201
            assert (await answer.json())["sha256"] == hashlib.sha256(data).hexdigest()
    server.terminate()
    assert server.wait() == 0


async def test_an_idle_server_ends_at_once(tmp_path, process):
    site = await make_site(tmp_path)
    server = process.start(site)
    async with session(server) as client:
        async with client.get("/healthz") as answer:
            assert answer.status == 200
        began = time.monotonic()
        server.terminate()
        assert await asyncio.to_thread(server.wait) == 0
    assert time.monotonic() - began < 3
