"""Uploads that a killed server interrupts, and what each of them was promised."""

import asyncio
import hashlib
import itertools
import random
from dataclasses import dataclass, field

import aiohttp

from tests.helpers.server import PURPOSE, TENANT

CONTENT_TYPE = {"Content-Type": "audio/PCMU;rate=8000;channels=1"}


@dataclass(kw_only=True, eq=False)
class Call:
    """One recorder's call: what it would send, what it sent, and what the server answered for."""

    key: str
    data: bytes = field(repr=False)
    piece: int
    pause: float
    sent: int = 0
    """Bytes handed to the socket at most."""
    acked: int = 0
    """Bytes that a HEAD said are durable."""
    whole: bool = False
    """Answered 201 or 200: every byte and the end are durable."""
    known: bool = False
    """The server has answered for bytes of this call once, so it may never be unknown again."""
    abandoned: bool = False
    state: str = ""
    recording: str = ""
    interruptions: int = 0

    @property
    def sha256(self):
        return hashlib.sha256(self.data).hexdigest()

    def path(self):
        return f"/v1/ingest/{TENANT}/{self.key}"


class Load:
    """Makes calls, uploads them and checks them; every random choice comes from `seed`."""

    def __init__(self, site, *, seed):
        self.site = site
        self.random = random.Random(seed)
        self._numbers = itertools.count(1)
        self.calls = []
        self.listening = asyncio.Semaphore(16)

    def new_call(self):
        number = next(self._numbers)
        size = self.random.choice([1, 15, 160, 4_000, 30_000, 90_000, 250_000])
        call = Call(
            key=f"call-{number}",
            data=random.Random(f"audio {number}").randbytes(self.random.randint(1, size)),
            piece=self.random.choice([160, 320, 1_600, 8_000, 70_000, 300_000]),
            pause=self.random.choice([0, 0.001, 0.005, 0.02]),
        )
        self.calls.append(call)
        return call

    # -- sending ------------------------------------------------------------------------------------------------

    async def upload(self, client, call, *, offset=None):
        """Send the call from `offset` (None: from its start); return the status, None if the connection broke."""
        headers = self.site.auth("recorder", **CONTENT_TYPE)
        if offset is not None:
            headers["Upload-Offset"] = str(offset)
        start = offset or 0
        call.sent = max(call.sent, start)
        try:
            async with client.put(call.path(), data=self._pieces(call, start), headers=headers) as answer:
                body = await answer.json(content_type=None)
                status = answer.status
        except (aiohttp.ClientError, OSError):
            call.interruptions += 1
            return None
        call.known = True
        if status in (200, 201):
            assert body["sha256"] == call.sha256, f"{call}: the receipt states another digest: {body}"
            assert body["bytes"] == len(call.data), f"{call}: the receipt states another length: {body}"
            call.whole = True
        return status

    async def _pieces(self, call, start):
        for at in range(start, len(call.data), call.piece):
            piece = call.data[at : at + call.piece]
            call.sent = max(call.sent, at + len(piece))
            yield piece
            await asyncio.sleep(call.pause)

    async def progress(self, client, call):
        """Ask how much is durable and hold the server to it; None while it does not know the call."""
        async with client.head(call.path(), headers=self.site.auth("recorder")) as answer:
            if answer.status == 404:
                assert not call.known, f"{call}: the server forgot a recording it had answered for"
                return None
            assert answer.status == 200, f"{call}: HEAD answered {answer.status}"
            durable = int(answer.headers["Upload-Offset"])
            call.state = answer.headers["Recording-State"]
            recording = answer.headers["Recording-Id"]
        assert not call.known or call.recording in ("", recording), f"{call}: another recording took its place"
        call.recording = recording
        call.known = call.known or durable > 0  # what nothing arrived of may give its call key to the next attempt
        assert durable >= call.acked, f"{call}: {durable} bytes are durable, {call.acked} were acknowledged"
        assert durable <= call.sent, f"{call}: {durable} bytes are stored, {call.sent} were sent"
        call.acked = durable
        return durable

    async def poll(self, client, calls, *, seconds=0.01):
        """Keep asking about random calls until the server is gone."""
        while True:
            try:
                await self.progress(client, self.random.choice(calls))
            except (aiohttp.ClientError, OSError):
                return
            await asyncio.sleep(seconds)

    # -- checking -----------------------------------------------------------------------------------------------

    async def verify(self, client, call):
        """Hold the server to everything it acknowledged: those bytes are there, and nothing that was not sent."""
        durable = await self.progress(client, call)
        if durable is None:
            assert not call.whole
            return
        if call.whole:
            assert durable == len(call.data), f"{call}: {durable} of {len(call.data)} bytes are left"
            assert call.state in ("open", "sealed")
        audio = await self.audio(client, call)
        assert audio == call.data[: len(audio)], f"{call}: byte {_first_difference(audio, call.data)} is not as sent"
        assert len(audio) >= durable, f"{call}: {len(audio)} bytes are read back, {durable} were acknowledged"

    async def audio(self, client, call):
        headers = self.site.auth("agent", **PURPOSE)
        async with (
            self.listening,  # one token has a share of the playbacks
            client.get(f"/v1/recordings/{call.recording}/audio?format=raw", headers=headers) as answer,
        ):
            assert answer.status == 200, f"{call}: playback answered {answer.status}: {await answer.text()}"
            return await answer.read()

    async def settled(self, client, calls, *, seconds):
        """Wait until every call that the server knows is sealed or truncated."""
        waiting = list(calls)
        for _ in range(int(seconds / 0.1)):
            waiting = [
                call for call in waiting if await self.progress(client, call) is not None and call.state == "open"
            ]
            if not waiting:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"still open after {seconds} s: {waiting[:3]}")


def _first_difference(one, other):
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
