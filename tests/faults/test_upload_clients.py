"""Upload clients that nobody here wrote: tus-js-client, @uppy/tus, tuspy and aiotus, killed and with killed servers."""

import asyncio
import contextlib
import json
import random
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.clients import CLIENTS, node_modules
from tests.helpers.recorder import serving
from tests.helpers.server import PURPOSE, TENANT, make_site, session, zygote
from tests.helpers.stores import Fault
from tests.helpers.uploads import metadata

PLACE = f"/v1/ingest/{TENANT}/tus"
PCMU = "audio/PCMU;rate=8000;channels=1"
SIZE = 600_000
CHUNK = 100_000
LIVE = {"stream": True, "options": {"uploadLengthDeferred": True, "chunkSize": CHUNK}}
IETF = {"protocol": "ietf-draft-05"}

WHOLE = {
    "tus-js-client": {},
    "tus-js-client in chunks": {"options": {"chunkSize": CHUNK}},
    "tus-js-client with its creation": {"options": {"chunkSize": 250_000, "uploadDataDuringCreation": True}},
    "tus-js-client from a pipe": {**LIVE, "size": SIZE + 1},
    "tus-js-client ietf-draft-05": {"options": {**IETF, "chunkSize": CHUNK}},
    "tus-js-client ietf-draft-05 in one": {"options": {**IETF, "uploadDataDuringCreation": True}},
    "tus-js-client ietf-draft-05 from a pipe": {**LIVE, "options": {**LIVE["options"], **IETF}, "size": SIZE + 1},
    "@uppy/tus": {"uppy": True, "options": {"chunkSize": 250_000}},
    "tuspy with checksums": {"client": "tuspy", "checksum": True},
    "aiotus": {"client": "aiotus"},
}
PACED = {
    "tus-js-client": {"options": {"chunkSize": 40_000}, "pause": 0.06},
    "tus-js-client ietf-draft-05": {"options": {**IETF, "chunkSize": 40_000}, "pause": 0.06},
    "@uppy/tus": {"uppy": True, "options": {"chunkSize": 40_000}, "pause": 0.06},
    "tuspy": {"client": "tuspy", "chunk": 40_000, "pause": 0.06},
    "aiotus": {"client": "aiotus", "chunk": 40_000, "pause": 0.06},
}


@dataclass(kw_only=True)
class Client:
    """One client's process, and what it said."""

    data: bytes = field(repr=False)
    process: asyncio.subprocess.Process
    said: list = field(default_factory=list)

    async def hears(self, event, *, accepted=0):
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))
            if self.said[-1]["event"] == event and self.said[-1].get("accepted", accepted) >= accepted:
                return self.said[-1]
        raise AssertionError(f"{self.said[-1:]} {(await self.process.stderr.read()).decode()[-2000:]}")

    async def kill(self):
        self.process.kill()
        assert await self.process.wait() == -9


@contextlib.asynccontextmanager
async def client(url, token, folder, name, *, size=SIZE, data=None, meta=None, **ask):
    """Run one client over a file of its own."""
    node_modules()
    label = "".join(letter if letter.isalnum() else "-" for letter in name)
    file = folder / f"{label}.ulaw"
    if data is None:
        data = random.Random(name).randbytes(size)
    file.write_bytes(data)
    described = {"filetype": PCMU, "call_key": label, **(meta or {})}
    asked = json.dumps({"url": url + PLACE, "token": token, "file": str(file), "metadata": described, **ask})
    command = ("node", str(CLIENTS / "tus.mjs")) if "client" not in ask else (sys.executable, "-m", _PYTHON)
    process = await asyncio.create_subprocess_exec(
        *command, asked, cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield Client(data=data, process=process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


_PYTHON = "tests.clients.tus_clients"


class Host:
    """A server on one port, however often it is killed."""

    def __init__(self, site, process):
        self.site = site
        self._process = process
        self.server = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.site.document['server']['port']}"

    @property
    def token(self):
        return self.site.tokens["recorder"]

    def start(self):
        self.server = self._process.start(self.site)

    def kill(self):
        assert self.server.kill() == -9

    async def ask(self, method, path, role="recorder", **headers):
        async with session(self.server) as opened:
            sent = self.site.auth(role, **headers)
            async with opened.request(method, path, headers=sent) as answer:
                return answer.status, dict(answer.headers), await answer.read()

    async def ends(self, url, state, *, seconds=20):
        """Return the stored bytes of the upload at `url`, once it has ended like that."""
        recording = url.rpartition("/")[2]
        for _ in range(int(seconds / 0.05)):
            _, _, body = await self.ask("GET", f"/v1/recordings/{recording}", "agent")
            if json.loads(body)["state"] != "open":
                break
            await asyncio.sleep(0.05)
        assert json.loads(body)["state"] == state
        status, _, audio = await self.ask("GET", f"/v1/recordings/{recording}/audio?format=raw", "agent", **PURPOSE)
        assert status == 200
        return audio


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    site = asyncio.run(
        make_site(
            tmp_path_factory.mktemp("clients"),
            server={"port": port, "drain_grace": "200ms", "resume_grace": "300ms"},
            segments={"max_age": "300ms"},
        )
    )
    with zygote() as process:
        made = Host(site, process)
        made.start()
        yield made


# -- whole uploads ----------------------------------------------------------------------------------------------


async def test_every_client_uploads_a_call_and_it_is_sealed(host, tmp_path):
    async def one(name, ask):
        async with client(host.url, host.token, tmp_path, name, **ask) as run:
            done = await run.hears("success")
            assert await host.ends(done["url"], "sealed") == run.data, name
            return done

    asking, done = asyncio.Semaphore(4), {}

    async def turn(name, ask):
        async with asking:
            done[name] = await one(name, ask)

    async with asyncio.TaskGroup() as group:
        for name, ask in WHOLE.items():
            group.create_task(turn(name, ask))
    assert len({each["url"] for each in done.values()}) == len(WHOLE)
    # A recorder's token reads nothing: what was told of the call is not given back.
    assert done["aiotus"]["metadata"] == []


async def test_a_pipe_whose_client_never_tells_its_end_is_kept_whole_and_ends_as_truncated(host, tmp_path):
    # tus-js-client waits for ever when the length is a multiple of the chunk size: nobody says that this was the end.
    name = "exact multiple"
    async with client(host.url, host.token, tmp_path, name, **LIVE) as run:
        await run.hears("chunk", accepted=SIZE)
        url = next(each["url"] for each in run.said if each["event"] == "url")
        await run.kill()
    status, headers, _ = await host.ask("HEAD", url.removeprefix(host.url), **{"Tus-Resumable": "1.0.0"})
    assert (status, headers["Upload-Offset"], headers["Upload-Defer-Length"]) == (200, str(SIZE), "1")
    await host.ask("DELETE", url.removeprefix(host.url), **{"Tus-Resumable": "1.0.0"})
    assert await host.ends(url, "truncated") == run.data


# -- kill -9 of the client --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tus-js-client", "tus-js-client ietf-draft-05", "tuspy", "aiotus"])
async def test_a_killed_client_that_comes_back_goes_on_where_it_was(host, tmp_path, name):
    ask = {**PACED[name], "pause": 0.02, "meta": {"call_key": f"killed-{name.replace(' ', '-')}"}}
    if "client" not in ask:
        ask["storage"] = str(tmp_path / "urls.json")
    async with client(host.url, host.token, tmp_path, name, **ask) as run:
        await run.hears("chunk", accepted=200_000)
        await run.kill()
    said = run.said
    again = {**ask, "pause": 0}
    if name == "tuspy":
        again["resume"] = next(each["url"] for each in said if each["event"] == "url")
    async with client(host.url, host.token, tmp_path, name, **again) as run:
        done = await run.hears("success")
        first = next((each for each in run.said if each["event"] == "chunk"), None)
    assert first is not None
    assert first["accepted"] > 200_000 or name == "aiotus"
    assert first["accepted"] >= 200_000
    before = {each["url"] for each in said if each["event"] == "url"}
    assert name == "aiotus" or before == {done["url"]}
    assert await host.ends(done["url"], "sealed") == run.data


async def test_a_client_killed_within_a_request_leaves_what_was_sent(host, tmp_path):
    name, size = "within", 12_000_000
    ask = {"size": size, "storage": str(tmp_path / "urls.json")}
    async with client(host.url, host.token, tmp_path, name, halt=200_000, **ask) as run:
        assert (await run.hears("halted"))["given"] < 1_000_000
        await run.kill()
    url = next(each["url"] for each in run.said if each["event"] == "url")
    status = 423  # while the server still takes in what the kernel had of it
    while status == 423:
        status, headers, _ = await host.ask("HEAD", url.removeprefix(host.url), **{"Tus-Resumable": "1.0.0"})
    durable = int(headers["Upload-Offset"])
    assert 0 < durable < size
    async with client(host.url, host.token, tmp_path, name, **ask) as run:
        done = await run.hears("success")
    assert run.said[0]["event"] == "resumed"
    assert done["url"] == url
    assert await host.ends(url, "sealed") == run.data


# -- kill -9 of the server --------------------------------------------------------------------------------------


async def test_clients_of_a_killed_server_go_on_after_its_restart(host, tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        runs = {}
        for name, ask in PACED.items():
            entered = client(host.url, host.token, tmp_path, name, meta={"call_key": f"served-{len(runs)}"}, **ask)
            runs[name] = await stack.enter_async_context(entered)
        heard = [run.hears("chunk", accepted=1) for name, run in runs.items() if name != "@uppy/tus"]
        await asyncio.gather(*heard)
        for _ in range(2):
            await asyncio.sleep(0.15)
            host.kill()
            host.start()
        done = await asyncio.gather(*(run.hears("success") for run in runs.values()))
        for run, each in zip(runs.values(), done, strict=True):
            assert await host.ends(each["url"], "sealed") == run.data


async def test_an_upload_keeps_its_terms_through_a_kill_and_a_stop_of_the_server(host):
    tus = {"Tus-Resumable": "1.0.0"}
    described = {"Upload-Metadata": metadata(filetype=PCMU), **tus}
    _, known, _ = await host.ask("POST", PLACE, **{"Upload-Length": "300000"}, **described)
    _, deferred, _ = await host.ask("POST", PLACE, **{"Upload-Defer-Length": "1"}, **described)
    path = known["Location"].removeprefix(host.url)
    data = random.randbytes(300_000)
    for sent, end in ((0, host.kill), (100_000, host.server.terminate), (200_000, None)):
        reader, writer = await asyncio.open_connection("127.0.0.1", host.server.port)
        lines = host.site.auth(
            "recorder",
            **tus,
            **{"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(sent)},
            **{"Content-Length": str(300_000 - sent), "Host": f"127.0.0.1:{host.server.port}"},
        )
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"PATCH {path} HTTP/1.1\r\n{head}\r\n".encode() + data[sent : sent + 100_000])
        await writer.drain()
        if end is None:
            assert b"204" in await reader.readline()
            writer.close()
            break
        await asyncio.sleep(0.2)
        if end == host.kill:
            host.kill()
        else:
            host.server.terminate()
            assert host.server.wait() == 0
        writer.close()
        host.start()
        status, headers, _ = await host.ask("HEAD", path, **tus)
        assert (status, headers["Upload-Length"], headers["Upload-Offset"]) == (200, "300000", str(sent + 100_000))
        # Longer than the grace of what is streamed live.
        await asyncio.sleep(0.5)
        status, headers, _ = await host.ask("HEAD", deferred["Location"].removeprefix(host.url), **tus)
        assert (status, headers["Upload-Defer-Length"]) == (200, "1")
    assert await host.ends(known["Location"], "sealed") == data


# -- a dead store -----------------------------------------------------------------------------------------------


async def test_a_store_that_is_dead_for_the_whole_call_is_not_noticed(tmp_path, monkeypatch):
    site = await make_site(tmp_path, segments={"max_bytes": "32KiB", "max_age": "200ms"})
    async with serving(site, monkeypatch) as (recorder, vault, store):
        store.fault = Fault.LOST
        url = str(recorder.client._base_url).rstrip("/")
        done = {}
        for name in ("tus-js-client", "aiotus"):
            async with client(url, site.tokens["recorder"], tmp_path, name, **WHOLE[name]) as run:
                done[name] = (await run.hears("success"))["url"].rpartition("/")[2], run.data
        assert store.refused
        sessions = [vault.ingest.live(recording) for recording, _ in done.values()]
        assert [session.ended for session in sessions] == ["sealed", "sealed"]
        store.fault = Fault.NONE
        for session, (recording, data) in zip(sessions, done.values(), strict=True):
            await asyncio.wait_for(session.done.wait(), 20)
            path = f"/v1/recordings/{recording}/audio?format=raw"
            async with recorder.client.get(path, headers=site.auth("agent", **PURPOSE)) as answer:
                assert await answer.read() == data
