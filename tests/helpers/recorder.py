"""A recorder and an agent in the test's own loop, over a served vault whose object store fails on demand."""

import asyncio

import aiohttp

from tests.helpers.load import CONTENT_TYPE
from tests.helpers.server import PURPOSE, TENANT, in_process
from tests.helpers.stores import install


def path(key):
    return f"/v1/ingest/{TENANT}/{key}"


class Recorder:
    """A client with a recorder's and an agent's tokens."""

    def __init__(self, site, client):
        self.site = site
        self.client = client

    async def put(self, key, data, **headers):
        """Return (status, answer's headers, answer's body)."""
        every = self.site.auth("recorder", **CONTENT_TYPE, **headers)
        async with self.client.put(path(key), data=data, headers=every) as answer:
            return answer.status, answer.headers, await answer.json(content_type=None)

    async def head(self, key):
        async with self.client.head(path(key), headers=self.site.auth("recorder")) as answer:
            assert answer.status == 200
            return (
                int(answer.headers["Upload-Offset"]),
                answer.headers["Recording-State"],
                answer.headers["Recording-Id"],
            )

    async def audio(self, key):
        _, _, recording = await self.head(key)
        url = f"/v1/recordings/{recording}/audio?format=raw"
        async with self.client.get(url, headers=self.site.auth("agent", **PURPOSE)) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()

    async def ready(self):
        async with self.client.get("/readyz") as answer:
            return answer.status, await answer.json()

    async def ends_as(self, key, state, *, seconds=30):
        for _ in range(int(seconds / 0.05)):
            if (await self.head(key))[1] != "open":
                break
            await asyncio.sleep(0.05)
        assert (await self.head(key))[1] == state


class Line:
    """A chunked upload whose pieces the test hands over one by one."""

    def __init__(self, recorder, key, **headers):
        self._pieces = asyncio.Queue()
        self.task = asyncio.create_task(recorder.put(key, self._body(), **headers))

    async def _body(self):
        while (piece := await self._pieces.get()) is not None:
            yield piece

    def say(self, data):
        self._pieces.put_nowait(data)

    async def end(self):
        self._pieces.put_nowait(None)
        return await self.task


async def until(condition, *, seconds=30):
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


def durable_bytes(vault, key):
    session = vault.ingest.live_call(TENANT, key)
    return session.durable if session is not None else 0


def serving(site, monkeypatch):
    """Open the site in this process behind a faulty store; yields (recorder, vault, store)."""
    return _Serving(site, install(monkeypatch))


class _Serving:
    def __init__(self, site, stores):
        self._site = site
        self._stores = stores

    async def __aenter__(self):
        self._server = in_process(self._site)
        vault, url = await self._server.__aenter__()
        self._client = aiohttp.ClientSession(url)
        return Recorder(self._site, self._client), vault, self._stores[-1]

    async def __aexit__(self, *error):
        await self._client.close()
        await self._server.__aexit__(*error)
