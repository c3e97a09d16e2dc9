"""A served vault as its recorders and its listeners see it: over the network only."""

import asyncio
import base64
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlencode

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.helpers.server import PURPOSE, TENANT
from tests.helpers.wire import fresh


def renamed(recorder):
    """Return the same recorder with a call key that no test has used, named in its address."""
    key = fresh(recorder.dialect)
    return replace(recorder, key=key, query={**recorder.query, "call_key": key})


class ServedVault:
    """The address of one vault, and the tokens of its people."""

    def __init__(self, site, url, client):
        self.site = site
        self.url = str(url).rstrip("/")
        self.client = client
        self.token = site.tokens["recorder"]

    def address(self, query=()):
        base = self.url.replace("http", "ws", 1)
        return f"{base}/v1/ingest/{TENANT}/ws" + (f"?{urlencode(query)}" if query else "")

    @asynccontextmanager
    async def stream(self, recorder, *, token=None, headers=(), **options):
        """Connect as `recorder` with the `websockets` client; `token` "" for none."""
        secret = self.token if token is None else token
        basic = base64.b64encode(f"recorder:{secret}".encode()).decode()
        sent = {"Authorization": f"Basic {basic}"} if secret else {}
        async with connect(
            self.address(recorder.query),
            subprotocols=list(recorder.subprotocols) or None,
            additional_headers={**sent, **dict(headers)},
            ping_interval=None,
            **options,
        ) as socket:
            yield socket

    async def speak(self, recorder, **options):
        """Let `recorder` make its whole call and return the code of the close."""
        async with self.stream(recorder, **options) as socket:
            for message in recorder.messages:
                await socket.send(message)
        return socket.close_code

    async def head(self, key):
        """Return (durable bytes, state, recording id), None if nothing is known under the key."""
        url = f"{self.url}/v1/ingest/{TENANT}/{key}"
        async with self.client.head(url, headers=self.site.auth("recorder")) as answer:
            if answer.status == 404:
                return None
            assert answer.status == 200
            headers = answer.headers
            return int(headers["Upload-Offset"]), headers["Recording-State"], headers["Recording-Id"]

    async def durable(self, key, size, *, seconds=10):
        """Wait until so many bytes of a call are durable, and return the recording's id."""
        async with asyncio.timeout(seconds):
            while (found := await self.head(key)) is None or found[0] < size:
                await asyncio.sleep(0.01)
        return found[2]

    async def ends_as(self, key, state, *, seconds=20):
        async with asyncio.timeout(seconds):
            while (found := await self.head(key)) is None or found[1] == "open":
                await asyncio.sleep(0.02)
        assert found[1] == state
        return found[2]

    async def forgets(self, key, *, seconds=20):
        """Wait until a call of which nothing arrived has given its key back."""
        async with asyncio.timeout(seconds):
            while await self.head(key) is not None:
                await asyncio.sleep(0.02)

    async def play(self, key):
        _, _, recording = await self.head(key)
        url = f"{self.url}/v1/recordings/{recording}/audio?format=raw"
        async with self.client.get(url, headers=self.site.auth("agent", **PURPOSE)) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()

    async def keeps(self, key, audio, state="sealed"):
        """Check that a call ends as it should, with exactly this audio; return the recording's id."""
        recording = await self.ends_as(key, state)
        assert await self.play(key) == audio
        return recording

    async def shown(self, key):
        """Return what the API shows of a call's recording."""
        _, _, recording = await self.head(key)
        url = f"{self.url}/v1/recordings/{recording}"
        async with self.client.get(url, headers=self.site.auth("agent", **PURPOSE)) as answer:
            assert answer.status == 200
            return await answer.json()

    async def metric(self, name):
        """Return the sum of a metric's samples whose line begins so."""
        async with self.client.get(f"{self.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@asynccontextmanager
async def vault_at(site, url):
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as client:
        yield ServedVault(site, url, client)


async def refusal(socket):
    """Return the code and reason with which the server closes."""
    with pytest.raises(ConnectionClosed) as caught:
        async with asyncio.timeout(15):
            await socket.recv()
    return caught.value.rcvd.code, caught.value.rcvd.reason
