"""AudioHook, AudioSocket and rtpengine's stream while the vault, the recorder or the object store dies."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from websockets.exceptions import WebSocketException

from tests.helpers.hook_recorders import RECORDERS, TENANT, piece
from tests.helpers.recorder import Recorder, serving, until
from tests.helpers.seaweed import free_ports
from tests.helpers.server import make_site, session, zygote
from tests.helpers.stores import Fault
from tests.helpers.streams import token_id

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def process():
    with zygote() as opened:
        yield opened


@pytest.fixture
async def site(tmp_path):
    made = await make_site(tmp_path, server={"drain_grace": "300ms"}, segments={"max_age": "300ms"})
    token = token_id(made.tokens["recorder"])
    places = zip(("audiosocket", "rtpengine"), free_ports(2), strict=True)
    made.document["streams"] = {
        name: {"listen": f"127.0.0.1:{port}", "tenant": TENANT, "token": token} for name, port in places
    }
    return made


def where(site, url, name):
    return url if name == "audiohook" else site.document["streams"][name]["listen"].rpartition(":")[2]


def recorders(site, url):
    return [make(where(site, url, name), site.tokens["recorder"]) for name, make in RECORDERS.items()]


def said(count, start=0):
    return b"".join(piece(number) for number in range(start, start + count))


async def speak(recorder, numbers):
    for number in numbers:
        await recorder.say(piece(number))


async def begun_again(recorder):
    for _ in range(100):
        try:
            return await recorder.begin()
        except (ConnectionError, WebSocketException):
            await asyncio.sleep(0.05)
    raise AssertionError("the vault does not take the call up again")


async def durable(listener, recorder, size):
    for _ in range(500):
        async with listener.client.head(f"/v1/ingest/{TENANT}/{recorder.key}", headers=listener.headers) as answer:
            if answer.status == 200 and int(answer.headers["Upload-Offset"]) >= size:
                return
        await asyncio.sleep(0.01)
    raise AssertionError("not durable")


class Listener(Recorder):
    @property
    def headers(self):
        return self.site.auth("recorder")


async def test_a_call_goes_on_in_its_recording_after_the_vault_was_killed(site, process):
    server = process.start(site)
    calls = recorders(site, server.url)
    async with session(server) as client:
        listener = Listener(site, client)
        for call in calls:
            await call.begin()
            await speak(call, range(30))
        for call in calls:
            await durable(listener, call, len(said(30)))
    assert server.kill() == -signal.SIGKILL
    for call in calls:
        await call.gone()
    server = process.start(site)
    calls = recorders(site, server.url)
    async with session(server) as client:
        listener = Listener(site, client)
        for call in calls:
            await begun_again(call)
            await speak(call, range(30, 60))
        for call in calls:
            await call.end()
            await listener.ends_as(call.key, "sealed")
            assert await listener.audio(call.key) == said(60)


async def test_what_a_killed_recorder_sent_plays_and_is_sealed_only_where_a_kill_looks_like_a_hangup(site, process):
    server = process.start(site)
    killed = {}
    for name in RECORDERS:
        command = [sys.executable, "-m", "tests.helpers.hook_recorders", name, where(site, server.url, name)]
        killed[name] = subprocess.Popen([*command, site.tokens["recorder"]], cwd=ROOT, stdout=subprocess.PIPE)
    async with session(server) as client:
        listener = Listener(site, client)
        for child in killed.values():
            assert await asyncio.to_thread(child.stdout.readline) == b"begun\n"
            child.kill()
            child.wait()
            child.stdout.close()
        for name, make in RECORDERS.items():
            # The kernel closes the sockets of a killed process as the process itself would have.
            await listener.ends_as(make.key, "truncated" if name == "audiohook" else "sealed")
            heard = await listener.audio(make.key)
            assert len(heard) >= len(said(20))
            assert said(len(heard) // len(piece(0)) + 1).startswith(heard)


async def test_an_object_store_that_is_down_for_the_whole_call_is_not_noticed_by_the_recorder(site, monkeypatch):
    async with serving(site, monkeypatch) as (recorder, vault, store):
        store.fault = Fault.LOST
        calls = recorders(site, str(recorder.client._base_url).rstrip("/"))
        for call in calls:
            await call.begin()
            await speak(call, range(300))
        await until(lambda: vault.storer.store_down)
        for call in calls:
            await speak(call, range(300, 320))
            await call.end()
            assert await recorder.audio(call.key) == said(320)
        store.fault = Fault.NONE
        for call in calls:
            await recorder.ends_as(call.key, "sealed")
            assert await recorder.audio(call.key) == said(320)


async def test_calls_that_do_not_end_when_the_vault_stops_are_truncated(site, process):
    server = process.start(site)
    calls = recorders(site, server.url)
    async with session(server) as client:
        listener = Listener(site, client)
        for call in calls:
            await call.begin()
            await speak(call, range(10))
        for call in calls:
            await durable(listener, call, len(said(10)))
    server.terminate()
    for call in calls:
        await call.gone()
    assert server.wait() == 0
    server = process.start(site)
    async with aiohttp.ClientSession(server.url) as client:
        listener = Listener(site, client)
        for call in calls:
            await listener.ends_as(call.key, "truncated")
            assert await listener.audio(call.key) == said(10)
