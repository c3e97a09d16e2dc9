"""Uploads and calls of every dialect, all of one recorder's token and all in their midst."""

import asyncio
import base64
import hashlib
import re
from contextlib import asynccontextmanager

import pytest
from websockets.exceptions import ConnectionClosed

from tests.helpers.app import PCMU, TENANTS, sound
from tests.helpers.audiohook_client import CALL_KEY, TONE
from tests.helpers.audiohook_sessions import opened
from tests.helpers.frames import START, close_of, frame, upgraded
from tests.helpers.hook_recorders import CALL, UUID_FRAME, Rtpengine, audio
from tests.helpers.recorder import until
from tests.helpers.s3clients import HEAD, Recorder, signed
from tests.helpers.s3requests import ask as s3
from tests.helpers.s3requests import begun as s3_upload
from tests.helpers.s3requests import listing, part
from tests.helpers.streams import listener, listening
from tests.helpers.uploads import Resumable, Tus, Wire, recording
from tests.transcripts import bytes_of, transcript
from vault.model import Role

PLACE = f"/v1/ingest/{TENANTS[0]}/call-1"
FIRST_PART = HEAD + sound(5_000)
SECOND_PART = sound(9_000)
BYTES = "application/offset+octet-stream"
PARTIAL = "application/partial-upload"
NORMAL_CLOSE = frame((1000).to_bytes(2, "big"), 8)


async def begun(app):
    """Begin a call of 2,000 bytes, of which 1,000 have been taken in."""
    line = await Wire.to(app)
    line.send("PUT", PLACE, sound(1_000), Content_Type=PCMU, Content_Length="2000")
    await until(lambda: app.vault.ingest.unstored_bytes == 1_000)
    return line


def notification(app):
    """Return a file as rtpengine-recording sends it."""
    token = base64.b64encode(f"recorder:{app.token(Role.RECORDER)}".encode())
    return re.sub(rb"(?<=Basic )\S+", token, bytes_of("rtpengine-26.3.http"))


class UnderWay:
    """What is under way for the recorder of the first tenant."""

    def __init__(self, app):
        self.app = app
        self.requests = []
        """Connections in the midst of a request: its rest, the answer to that, the one once the token is revoked."""
        self.sockets = []
        """WebSockets, each with what ends its call."""
        self.streams = []
        self.waiting = {}
        """How many bytes have been taken in of each recording, by its id."""

    @asynccontextmanager
    async def of_every_kind(self):
        """Have everything under way; only then yield."""
        listeners = {name: listener(self.app) for name in ("audiosocket", "rtpengine")}
        listeners["rtpengine"] |= {"rate": 8000, "channels": 1}
        async with listening(self.app, **listeners) as ports, opened(self.app) as (self._client, self._socket):
            await self.put()
            await self.tus()
            await self.ietf()
            await self.s3()
            await self.rtpengine_file()
            await self.jambonz()
            await self.twilio()
            await self.stream(ports["audiosocket"], UUID_FRAME + audio(sound(320)), key=CALL)
            await self.stream(ports["rtpengine"], Rtpengine.opening + sound(320), key=Rtpengine.key)
            await self._socket.send(TONE)
            await self.taken(len(TONE), call=CALL_KEY)
            yield self

    def session(self, *, call=None, upload=None):
        ingest = self.app.vault.ingest
        return ingest.live(upload) if call is None else ingest.live_call(TENANTS[0], call)

    async def taken(self, size, **which):
        await until(lambda: (found := self.session(**which)) is not None and found.appended == size)
        self.waiting[self.session(**which).recording.id] = size

    async def put(self):
        self.requests.append((await begun(self.app), sound(1_000, 2), 201, 401))
        await self.taken(1_000, call="call-1")

    async def tus(self):
        client = Tus(self.app)
        path = await client.made(2_000)
        line = await Wire.to(self.app)
        line.send(
            "PATCH", path, sound(500), Content_Type=BYTES, Content_Length="2000", Upload_Offset="0", **client.version
        )
        self.requests.append((line, sound(1_500), 204, 401))
        await self.taken(500, upload=recording(path))

    async def ietf(self):
        client = Resumable(self.app)
        path = client.path(await client.begin(sound(300), complete=False))
        line = await Wire.to(self.app)
        headers = {**client.version, "Content-Type": PARTIAL, "Upload-Complete": "?1", "Upload-Offset": "300"}
        line.send("PATCH", path, sound(200), Content_Length="1000", **headers)
        self.requests.append((line, sound(800), 201, 401))
        await self.taken(500, upload=recording(path))

    async def s3(self):
        """The second part of an upload whose first was acknowledged, and is in the spool."""
        self.client = Recorder.of(self.app.url, self.app.token(Role.RECORDER))
        self.address = await s3_upload(self.app, self.client)
        where = part(self.address, 2)
        assert (await s3(self.app, self.client, "PUT", part(self.address, 1), body=FIRST_PART))[0] == 200
        line = await Wire.to(self.app)
        headers = {**signed(self.client, "PUT", where, body=SECOND_PART), "Host": self.client.host}
        line.send("PUT", where, SECOND_PART[:4_000], Content_Length=str(len(SECOND_PART)), **headers)
        self.requests.append((line, SECOND_PART[4_000:], 200, 403))
        await self.taken(0, upload=self.address.partition("uploadId=")[2])

    async def rtpengine_file(self):
        sent = notification(self.app)
        half = sent.index(b"RIFF") + 400
        line = await Wire.to(self.app)
        line.write(sent[:half])
        self.requests.append((line, sent[half:], 201, 401))
        ingest, name = self.app.vault.ingest, "1-4242@192.0.2.7"
        await until(lambda: any(key.startswith(name) for _, key in ingest._by_call))
        (key,) = [key for _, key in ingest._by_call if key.startswith(name)]
        await until(lambda: self.session(call=key).appended)  # the form holds back what may be its boundary
        await self.taken(self.session(call=key).appended, call=key)

    async def jambonz(self):
        line = await upgraded(self.app, key="jambonz")
        line.write(frame(START, 1) + frame(sound(1_000)))
        self.sockets.append((line, frame(sound(1_000, 2)) + NORMAL_CLOSE))
        await self.taken(1_000, call="jambonz")

    async def twilio(self):
        """Its token comes in its first message, after the upgrade."""
        connected, start, *rest = transcript("twilio")
        line = await upgraded(self.app, token=False, key="twilio")
        start = start.replace("cv_secret", self.app.token(Role.RECORDER))
        line.write(frame(connected.encode(), 1) + frame(start.encode(), 1))
        self.sockets.append((line, b"".join(frame(message.encode(), 1) for message in rest)))
        await self.taken(0, call="twilio")

    async def stream(self, port, opening, *, key):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(opening)
        self.streams.append((reader, writer))
        await self.taken(320, call=key)

    async def is_cut_off(self):
        """Every connection is ended as its dialect ends one."""
        for line, _, _, refused in self.requests:
            assert await _status(line) == refused
            line.close()
        for line, _ in self.sockets:
            assert await close_of(line) == 1008
            line.close()
        for reader, writer in self.streams:
            assert await reader.read() == b""
            writer.close()
        kind, said = self._client.heard(await self._socket.recv())
        assert (kind, said["reason"]) == ("disconnect", "unauthorized")
        with pytest.raises(ConnectionClosed):
            await self._socket.recv()

    async def waits(self):
        """Assert that what came is durable, and that each recording has no end: its grace runs."""
        sessions = [self.app.vault.ingest.live(identifier) for identifier in self.waiting]
        await until(lambda: not any(session.uploads for session in sessions))
        for session in sessions:
            found = (session.durable, session.ended, session.ending)
            assert found == (self.waiting[session.recording.id], None, None), session.call_key
            assert session.detached_at is not None

    async def ends(self):
        """Send the rest of everything; each is answered as ever, and each recording is whole."""
        for line, rest, accepted, _ in self.requests:
            line.write(rest)
            assert await _status(line) == accepted
            line.close()
        etags = [(number, hashlib.md5(each).hexdigest()) for number, each in enumerate((FIRST_PART, SECOND_PART), 1)]
        assert (await s3(self.app, self.client, "GET", self.address))[0] == 200
        assert (await s3(self.app, self.client, "POST", self.address, body=listing(*etags)))[0] == 200
        for line, rest in self.sockets:
            line.write(rest)
            assert await close_of(line) == 1000
            line.close()
        for reader, writer in self.streams:
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        await self._socket.send(self._client.say("close", reason="end"))
        assert self._client.heard(await self._socket.recv())[0] == "closed"
        for identifier in self.waiting:
            session = self.app.vault.ingest.live(identifier)
            if session is not None:
                await session.done.wait()
            assert (await self.app.ask("GET", f"/v1/recordings/{identifier}")).json["state"] == "sealed"


async def _status(line):
    """Return the status of the answer; an interim one only tells how much is durable."""
    while (status := (await line.answer())[0]) < 200:
        pass
    return status
