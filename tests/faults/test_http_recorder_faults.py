"""Real HTTP recorders whose server is killed in the middle of the call, or whose object store is dead all along."""

import asyncio
import hashlib
import socket

import aiohttp
import pytest

from tests.helpers.app import sound
from tests.helpers.http_recorders import OPUS, TONE, gstreamer
from tests.helpers.programs import ffmpeg, run, running
from tests.helpers.recorder import until
from tests.helpers.rtpengine_files import KEY, notify
from tests.helpers.served import Vault, copied, made, samples, wav
from tests.helpers.server import TENANT, in_process, session, zygote
from tests.helpers.stores import Fault, install

__all__ = ("made",)


@pytest.fixture(scope="module")
def processes():
    with zygote() as process:
        yield process


@pytest.fixture
def site(made, tmp_path):
    """Return a vault that listens on the same port every time."""
    copy = copied(made, tmp_path / "vault")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        copy.document["server"]["port"] = free.getsockname()[1]
    copy.document["server"]["resume_grace"] = "3s"
    return copy


class Killed:
    """A server process with a recorder's view of it; `kill` it and `start` it again."""

    def __init__(self, site, processes):
        self._site, self._processes = site, processes

    async def start(self):
        self._server = await asyncio.to_thread(self._processes.start, self._site)
        self._opened = session(self._server)
        return Vault(self._site, await self._opened.__aenter__(), None, self._server.url)

    async def kill(self):
        await self._opened.__aexit__(None, None, None)
        await asyncio.to_thread(self._server.kill)


@pytest.fixture
async def server(site, processes):
    killed = Killed(site, processes)
    yield killed
    await killed.kill()


async def durable(vault, key, size):
    """Wait until the server says that so many bytes are durable; return how many."""
    for _ in range(400):
        if await vault.known(key) and (found := (await vault.head(key))[0]) >= size:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"{key} never came to {size} bytes")


async def test_a_call_from_curl_goes_on_where_the_killed_server_had_it_durable(server):
    vault, data = await server.start(), sound(60_000)
    async with running(*vault.curl("-f", "-T", "-", key="call")) as curl:
        await curl.feed(data[:30_000])
        acknowledged = await durable(vault, "call", 30_000)
        await server.kill()
        assert (await curl.done())[0] != 0
    vault = await server.start()
    size, state, _ = await vault.head("call")
    assert (size, state) == (acknowledged, "open")
    async with running(*vault.curl("-f", "-T", "-", "-H", f"Upload-Offset: {size}", key="call")) as curl:
        await curl.feed(data[size:])
        code, out, err = await curl.done()
    assert code == 0, err
    assert hashlib.sha256(data).hexdigest().encode() in out
    assert await vault.audio("call") == data


async def test_a_call_from_ffmpeg_keeps_what_the_killed_server_had_durable(server):
    vault = await server.start()
    async with running(ffmpeg(), *TONE, "-f", "wav", vault.url("call")) as recorder:
        acknowledged = await durable(vault, "call", 8_000)
        await server.kill()
        await recorder.done()
    vault = await server.start()
    await vault.ends_as("call", "truncated")
    size, _, _ = await vault.head("call")
    assert size >= acknowledged
    assert len(samples(await vault.played("call"))) >= acknowledged - 200


async def test_gstreamer_started_again_after_the_server_was_killed_records_the_rest_beside_the_beginning(server):
    vault = await server.start()
    async with running(*gstreamer(vault, "call", OPUS, 500)) as recorder:
        acknowledged = await durable(vault, "call", 1_500)
        await server.kill()
        assert (await recorder.done())[0] == 1
    vault = await server.start()
    assert (await run(*gstreamer(vault, "call", OPUS, 5)))[0] == 0
    await vault.ends_as("call~2", "sealed")
    await vault.ends_as("call", "truncated")
    assert (await vault.head("call"))[0] >= acknowledged


async def test_a_file_from_rtpengine_is_whole_after_the_server_was_killed_in_it(server, tmp_path):
    vault = await server.start()
    (tmp_path / "file.wav").write_bytes(data := wav(sound(1_500_000)))
    attached = ("-F", f"ngfile=@{tmp_path / 'file.wav'}")
    async with running(*notify(vault, "--limit-rate", "400k", *attached)) as curl:
        await durable(vault, KEY, 100_000)
        await server.kill()
        assert (await curl.done())[0] != 0
    vault = await server.start()
    code, out, _ = await run(*notify(vault, *attached))
    assert (code, out.split()[-1]) == (0, b"201")
    assert await vault.audio(KEY) == data


@pytest.fixture
async def storeless(made, tmp_path, monkeypatch):
    """Serve a vault whose object store answers nothing until the test wakes it."""
    stores = install(monkeypatch)
    site = copied(made, tmp_path / "vault")
    site.document["segments"] = {"max_bytes": "64KiB", "max_age": "100ms"}
    async with in_process(site) as (opened, url), aiohttp.ClientSession(url) as client:
        stores[-1].fault = Fault.LOST
        yield Vault(site, client, opened, url), stores[-1]


@pytest.mark.parametrize("recorder", ["curl", "ffmpeg", "gstreamer", "rtpengine"])
async def test_no_recorder_notices_a_store_that_is_dead_for_the_whole_call(storeless, tmp_path, recorder):
    vault, store = storeless
    (tmp_path / "call.wav").write_bytes(wav(sound(150_000)))
    key = KEY if recorder == "rtpengine" else "call"
    command = {
        "curl": lambda: vault.curl("-f", "-T", tmp_path / "call.wav", key=key, media="audio/wav"),
        "ffmpeg": lambda: (ffmpeg(), *TONE, "-t", "1", "-f", "wav", vault.url(key)),
        "gstreamer": lambda: gstreamer(vault, key, OPUS, 5),
        "rtpengine": lambda: notify(vault, "-F", f"ngfile=@{tmp_path / 'call.wav'}"),
    }[recorder]()
    code, out, err = await run(*command)
    assert code == 0, err
    if recorder in ("curl", "rtpengine"):
        assert b"\n201" in out
    await until(lambda: (live := vault.vault.ingest.live_call(TENANT, key)) is not None and live.ended == "sealed")
    await until(lambda: store.refused)
    assert (await vault.head(key))[1] == "open"
    assert not vault.vault.ingest.live_call(TENANT, key).stored
    store.fault = Fault.NONE
    await vault.ends_as(key, "sealed")
    assert await vault.played(key)
