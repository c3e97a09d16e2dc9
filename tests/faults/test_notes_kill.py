"""A paused call through kill -9 of its recorder and of the server, with curl as the recorder."""

import asyncio
import contextlib
import json
import shutil

import pytest

from tests.helpers.server import PURPOSE, TENANT, make_site, session, zygote

BEFORE, CARD, AFTER = b"a" * 8_000, b"4" * 8_001, b"b" * 8_000
CALL = f"/v1/ingest/{TENANT}/call-1"

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Curl:
    """One curl that uploads what it is fed, as a recorder's shell script does."""

    def __init__(self, process):
        self.process = process

    @classmethod
    async def start(cls, url, token, **headers):
        sent = {"Authorization": f"Bearer {token}", "Content-Type": "audio/L16;rate=8000;channels=1", **headers}
        options = [each for name, value in sent.items() for each in ("-H", f"{name}: {value}")]
        arguments = ("-sS", "-f", "-T", "-", *options, f"{url}{CALL}")
        process = await asyncio.create_subprocess_exec(
            "curl",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return cls(process)

    async def say(self, data):
        self.process.stdin.write(data)
        await self.process.stdin.drain()

    async def end(self):
        self.process.stdin.close()
        return await self.process.wait()

    async def kill(self):
        self.process.kill()
        await self.process.wait()


async def told(client, site):
    async with client.head(CALL, headers=site.auth("recorder")) as answer:
        return int(answer.headers.get("Upload-Offset", -1)) if answer.status == 200 else -1


async def until(client, site, offset):
    async with asyncio.timeout(10):
        while await told(client, site) != offset:
            await asyncio.sleep(0.02)


async def turn(client, site, verb):
    async with client.post(f"{CALL}/{verb}", headers=site.auth("recorder")) as answer:
        assert answer.status == 200
        return await answer.json()


@pytest.mark.xdist_group("kill")
async def test_a_pause_outlives_the_server_and_the_recorder(tmp_path):
    site = await make_site(tmp_path, server={"resume_grace": "30s"})
    token = site.tokens["recorder"]
    with zygote() as process:
        server = process.start(site)
        async with session(server) as client:
            curl = await Curl.start(server.url, token)
            await curl.say(BEFORE)
            await until(client, site, 8_000)
            await turn(client, site, "pause")
            await curl.say(CARD[:4_000])
            await until(client, site, 12_000)
        assert server.kill() == -9
        assert await curl.end() != 0
        server = process.start(site)
        async with session(server) as client:
            assert await told(client, site) == 12_000
            curl = await Curl.start(server.url, token, **{"Upload-Offset": "12000"})
            await curl.say(CARD[4_000:])
            await until(client, site, 16_001)
            await curl.kill()
            paused = await turn(client, site, "resume")
            assert (paused["paused"], paused["bytes"]) == (False, 8_000)
            # The middle of a sample: its other half is dropped too.
            async with asyncio.timeout(10):
                ended = None
                while ended != 0:  # refused until the server has noticed that the one before is gone
                    curl = await Curl.start(server.url, token, **{"Upload-Offset": "16001"})
                    with contextlib.suppress(ConnectionError):
                        await curl.say(b"4" + AFTER)
                    ended = await curl.end()
            receipt = json.loads(await curl.process.stdout.read())
            path = f"/v1/recordings/{receipt['recording_id']}"
            async with client.get(f"{path}/audio?format=raw", headers=site.auth("agent", **PURPOSE)) as answer:
                assert await answer.read() == BEFORE + AFTER
            async with client.get(f"{path}/notes", headers=site.auth("agent", **PURPOSE)) as answer:
                [gap] = (await answer.json())["gaps"]
            assert (gap["offset"], gap["reason"], gap["dropped_bytes"]) == (8_000, "paused", 8_002)
            assert gap["missing_ms"] > 0
        server.terminate()
        assert server.wait() == 0
