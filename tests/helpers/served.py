"""A served vault as programs reach it, and what they send."""

import asyncio
import copy
import io
import shutil
import wave
from dataclasses import replace

import aiohttp
import pytest

from tests.helpers.programs import program
from tests.helpers.recorder import Recorder, until
from tests.helpers.server import TENANT, in_process, make_site


class Vault(Recorder):
    """A served vault and what programs are given to reach it."""

    def __init__(self, site, client, vault, url):
        super().__init__(site, client)
        self.vault = vault
        self.base = f"{url}/v1/ingest/{TENANT}/"

    def url(self, key, token=None):
        """Return an address with the token in it, for programs that have no other place for one."""
        return self.base.replace("//", f"//recorder:{token or self.site.tokens['recorder']}@") + key

    def curl(self, *arguments, key, token=None, media="audio/basic"):
        auth = f"Authorization: Bearer {token or self.site.tokens['recorder']}"
        shown = ("-w", "\n%{http_code} %{size_upload}")
        return (program("curl"), "-sS", "-H", auth, "-H", f"Content-Type: {media}", *shown, *arguments, self.base + key)

    async def known(self, key):
        async with self.client.head(f"{self.base}{key}", headers=self.site.auth("recorder")) as answer:
            return answer.status == 200

    async def known_as(self, key, state):
        """Wait for a recording whose recorder hangs up without waiting for an answer, and for its state."""
        for _ in range(200):
            if await self.known(key):
                break
            await asyncio.sleep(0.05)
        await self.ends_as(key, state)
        return await self.head(key)

    async def durable(self, key, size):
        """Wait until so many bytes of a call are durable."""
        await until(lambda: (live := self.vault.ingest.live_call(TENANT, key)) is not None and live.durable >= size)

    async def detached(self, key):
        """Wait until the server has noticed that a recorder is gone."""
        await until(lambda: not self.vault.ingest.live_call(TENANT, key).uploads)

    async def shown(self, key):
        """Return what the vault tells of a recording."""
        where = f"/v1/recordings/{(await self.head(key))[2]}"
        async with self.client.get(where, headers=self.site.auth("agent")) as answer:
            assert answer.status == 200
            return await answer.json()

    async def played(self, key):
        _, _, recording = await self.head(key)
        headers = self.site.auth("agent", Purpose="quality")
        async with self.client.get(f"/v1/recordings/{recording}/audio", headers=headers) as answer:
            assert answer.status == 200
            return await answer.read()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a vault that every test here gets a copy of: making one takes longer than most tests."""
    limits = {"resume_grace": "1s", "max_recording_bytes": "8MiB"}
    return asyncio.run(make_site(tmp_path_factory.mktemp("vault"), server=limits))


def copied(made, directory):
    """Return a vault in its first state, in a directory of its own."""
    shutil.copytree(made.directory, directory)
    return replace(made, directory=directory, document=copy.deepcopy(made.document))


@pytest.fixture
async def vault(made, tmp_path):
    site = copied(made, tmp_path / "vault")
    async with in_process(site) as (opened, url), aiohttp.ClientSession(url) as client:
        yield Vault(site, client, opened, url)


def wav(frames):
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8_000)
        writer.writeframes(frames)
    return file.getvalue()


def samples(data):
    """Return the samples of a WAV as its header counts them; an incomplete file is an error."""
    with wave.open(io.BytesIO(data)) as file:
        frames = file.readframes(file.getnframes())
        assert len(frames) == file.getnframes() * file.getsampwidth() * file.getnchannels()
        return frames
