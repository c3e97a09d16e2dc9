"""The balancer of docs/operations.md, as printed, in a real nginx: everything about a call comes to its node."""

import asyncio
import os
import re
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import aiohttp
from aiohttp import web
from yarl import URL

from tests.helpers.app import PCMU, SETTINGS, Role, app, furnished, served
from tests.helpers.programs import program, running
from tests.helpers.seaweed import free_ports
from vault.config import parse_config
from vault.wiring import open_vault

__all__ = ["app", "furnished"]

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
NODES = 3
KEYS = [*(f"call-{number}" for number in range(12)), "5f3c@192.0.2.1", "a b", "a%b"]


def printed(port, nodes):
    """Return the page's configuration over these nodes' ports, without TLS."""
    [block] = re.findall(r"^```nginx\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    block = re.sub(r"^ *ssl_.*\n", "", block, flags=re.MULTILINE)
    block = block.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    there = re.findall(r"^ *server [\d.]+:8080 (.*);\n", block, re.MULTILINE)
    block = re.sub(r"^ *server [\d.]+:8080 .*\n", "", block, flags=re.MULTILINE)
    servers = "".join(f"    server 127.0.0.1:{each} {there[0]};\n" for each in nodes)
    return block.replace("hash $call consistent;\n", f"hash $call consistent;\n{servers}")


@asynccontextmanager
async def balanced(directory, nodes):
    """Run nginx over the ports of the nodes, and yield its address."""
    nginx, [port] = program("nginx"), free_ports(1)
    user = "user root;" if os.geteuid() == 0 else ""
    places = " ".join(
        f"{name}_temp_path {directory}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = directory / "nginx.conf"
    config.write_text(
        f"{user} daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {places}\n{printed(port, nodes)}}}\n"
    )
    async with running(nginx, "-e", f"{directory}/error.log", "-c", config) as process:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    assert process.process.returncode is None, (directory / "error.log").read_text()
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    break
        yield f"http://127.0.0.1:{port}"


def session(url):
    return aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=5))


@asynccontextmanager
async def stubs():
    """Serve nodes that say which one they are, and which refuse a pause of a call that is not theirs."""
    async with AsyncExitStack() as stack:
        ports = []
        owners = {}
        for number in range(NODES):

            async def answer(request, number=number):
                await request.read()
                if owners.get(request.path, number) != number:
                    return web.Response(status=503)
                return web.Response(text=str(number))

            runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            ports.append(site._server.sockets[0].getsockname()[1])
        yield ports, owners


async def test_whatever_is_done_to_a_call_reaches_the_node_that_its_audio_reached(tmp_path):
    async with stubs() as (ports, _), balanced(tmp_path, ports) as url, session(url) as client:

        async def asked(method, path, **words):
            async with client.request(method, URL(path, encoded=True), **words) as response:
                assert response.status == 200, path
                return await response.text()

        used = Counter()
        for key in KEYS:
            named = quote(key, safe="")
            call = f"/v1/ingest/northfield/{named}"
            node = await asked("PUT", call, data=b"x" * 100)
            used[node] += 1
            for verb in ("pause", "resume", "flag", "siprec"):
                assert await asked("POST", f"{call}/{verb}", data=b"x") == node, (key, verb)
            assert await asked("PUT", f"{call}?append", data=b"x") == node
            assert await asked("PUT", f"/s3/northfield/{named}?partNumber=1", data=b"x") == node
            if key.startswith("call-"):
                upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
                path = f"/v1/ingest/northfield/ws?rate=8000&call_key={key}"
                assert await asked("GET", path, headers=upgrade) == node
                file = {"X-Recording-Call-ID": key}
                assert await asked("POST", "/v1/ingest/northfield/rtpengine", headers=file) == node
        # How the ring falls depends on the ports; of this many calls some reach every node, whatever the ports are.
        for number in range(100):
            used[await asked("PUT", f"/v1/ingest/northfield/more-{number}", data=b"x")] += 1
        assert len(used) == NODES
        nameless = {await asked("GET", "/v1/ingest/northfield/ws") for _ in range(100)}
        assert len(nameless) == NODES, "calls whose key no address has all go to one node"


async def test_a_pause_finds_the_node_of_a_call_whose_key_no_address_had(tmp_path):
    async with stubs() as (ports, owners), balanced(tmp_path, ports) as url, session(url) as client:
        for key in range(12):
            for number in range(NODES):
                for path in (f"/v1/ingest/t/{key}/pause", f"/v1/recordings/rec_{key}/resume"):
                    owners[path] = number
                    async with client.post(path, data=b"{}") as response:
                        assert (response.status, await response.text()) == (200, str(number))


async def test_calls_that_are_being_sent_are_paused_and_resumed_through_it_on_whichever_node_they_are(app, tmp_path):
    journal = app.config.journal_path.with_name("journal-2")
    journal.mkdir(mode=0o700)
    second = parse_config({**SETTINGS, "journal": {**SETTINGS["journal"], "path": str(journal)}}, base=app.config.base)
    async with open_vault(second, clock=app.clock) as vault, served(vault, second, app.clock, app.tokens) as other:
        urls = [app.url, other.url]
        ports = [int(url.rpartition(":")[2]) for url in urls]
        headers = {"Authorization": f"Bearer {app.token(Role.RECORDER)}", "Content-Type": PCMU}
        async with balanced(tmp_path, ports) as url, session(url) as client:
            end = asyncio.Event()

            async def speaking():
                yield b"\x55" * 800
                await end.wait()

            async def send(number):
                place = f"{urls[number % 2]}/v1/ingest/northfield/call-{number}"
                async with client.put(place, data=speaking(), headers=headers) as response:
                    return response.status

            calls = [asyncio.create_task(send(number)) for number in range(6)]
            vaults = (app.vault, vault)
            async with asyncio.timeout(5):
                while sum(each.ingest.uploading for each in vaults) < len(calls):
                    await asyncio.sleep(0.01)
            for number in range(len(calls)):
                for verb, paused in (("pause", True), ("resume", False)):
                    place = f"/v1/ingest/northfield/call-{number}/{verb}"
                    async with client.post(place, headers={"Authorization": headers["Authorization"]}) as response:
                        assert (response.status, (await response.json())["paused"]) == (200, paused)
            end.set()
            assert await asyncio.gather(*calls) == [201] * len(calls)
