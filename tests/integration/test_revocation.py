"""A revoked token ends at once, and with it what is under way for it; what was received stays."""

import asyncio
import base64
import io
import json
import re

import pytest
from websockets.exceptions import ConnectionClosed

from tests.audiohook_client import CALL_KEY, TONE
from tests.faults.recorder import until
from tests.hook_recorders import CALL, UUID_FRAME, Rtpengine, audio
from tests.integration.app import PCMU, PURPOSE, TENANTS, app, sound
from tests.integration.test_audiohook import opened
from tests.integration.test_frames import START, close_of, frame, upgraded
from tests.integration.test_s3_refusals import ask as s3
from tests.integration.test_s3_refusals import begun as s3_upload
from tests.integration.test_s3_refusals import part
from tests.s3clients import HEAD, Recorder, signed
from tests.streams import listener, listening, token_id
from tests.transcripts import bytes_of, transcript
from tests.uploads import Resumable, Tus, Wire, recording
from vault.errors import Unauthenticated, Unavailable
from vault.model import Role
from vault.protocol.permissions import Act

__all__ = ("app",)

PLACE = f"/v1/ingest/{TENANTS[0]}/call-1"
AT_ONCE = 1.0
"""Seconds in which what is under way ends in the process that is asked to revoke."""


async def revoke(app, role=Role.RECORDER):
    answer = await app.ask("DELETE", f"/v1/tokens/{token_id(app.token(role))}", Role.OPERATOR)
    assert answer.status == 204


async def revoke_elsewhere(app, role=Role.RECORDER):
    """Revoke as another process does: this one learns of it from the catalog alone."""
    await app.vault.catalog.revoke_token(token_id(app.token(role)), at=app.clock.now())


async def begun(app):
    line = await Wire.to(app)
    line.send("PUT", PLACE, sound(1_000), Content_Type=PCMU, Content_Length="2000")
    await until(lambda: app.vault.ingest.unstored_bytes == 1_000)
    return line


async def test_an_upload_under_way_is_answered_with_401_and_what_was_received_waits_for_its_grace(app):
    line = await begun(app)
    await revoke(app)
    async with asyncio.timeout(AT_ONCE):
        status, _, _ = await line.answer()
    assert status == 401
    line.close()
    session = app.vault.ingest.live_call(TENANTS[0], "call-1")
    assert (session.durable, session.ended, session.uploads) == (1_000, None, 0)


@pytest.mark.parametrize("outage", [False, True])
async def test_another_process_ends_it_within_five_seconds_of_the_catalogs_word(app, monkeypatch, outage):
    line = await begun(app)
    if outage:
        asked, answered = app.vault.catalog.token, []

        async def away_once(token):
            if not answered:
                answered.append(token)
                raise Unavailable("no answer")
            return await asked(token)

        monkeypatch.setattr(app.vault.catalog, "token", away_once)
    await revoke_elsewhere(app)
    async with asyncio.timeout(5):
        status, _, _ = await line.answer()
    assert status == 401
    line.close()


async def test_a_websocket_is_closed_with_1008_and_its_audio_kept(app):
    line = await upgraded(app)
    line.write(frame(START, 1) + frame(sound(1_000)))
    await until(lambda: app.vault.ingest.unstored_bytes == 1_000)
    await revoke(app)
    async with asyncio.timeout(AT_ONCE):
        assert await close_of(line) == 1008
    line.close()
    session = app.vault.ingest.live_call(TENANTS[0], "call-1")
    await until(lambda: not session.uploads)
    assert (session.durable, session.ended) == (1_000, None)


async def test_a_stream_is_closed_and_its_audio_kept(app):
    async with listening(app, audiosocket=listener(app)) as ports:
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["audiosocket"])
        writer.write(UUID_FRAME + audio(sound(320)))
        await until(lambda: app.vault.ingest.unstored_bytes == 320)
        await revoke(app)
        async with asyncio.timeout(AT_ONCE):
            assert await reader.read() == b""
        writer.close()
        assert app.vault.ingest.unfinished == 1


async def test_a_playback_under_way_is_cut_off(app):
    size = 16 << 20
    recording = await app.upload("call-1", io.BytesIO(sound(size)))
    line = await Wire.to(app)
    token = app.token(Role.COMPLIANCE)
    head = f"Authorization: Bearer {token}\r\nPurpose: {PURPOSE['Purpose']}\r\n"
    line.write(f"GET /v1/recordings/{recording}/audio?format=raw HTTP/1.1\r\nHost: vault\r\n{head}\r\n".encode())
    assert b" 200 " in await line._reader.readuntil(b"\r\n\r\n")
    await revoke(app, Role.COMPLIANCE)
    came = 0
    async with asyncio.timeout(AT_ONCE):
        try:
            while piece := await line._reader.read(1 << 16):
                came += len(piece)
        except ConnectionError:
            pass
    assert came < size
    line.close()


async def test_what_ended_by_itself_is_under_way_no_more(app):
    await app.upload("call-1", sound(1_000))
    await until(lambda: not app.vault.access.underway._ends)


class UnderWay:
    """Uploads and calls of every kind, all of one recorder's token and all in their midst."""

    def __init__(self, app):
        self.app = app
        self.lines = []
        """Connections that are to be answered with an HTTP status, and which."""
        self.sockets = []
        self.streams = []
        self.waiting = {}
        """How many durable bytes each recording is to have, by its id."""

    async def begin(self, ports):
        await self.live_put()
        await self.tus_patch()
        await self.ietf_patch()
        await self.s3_part()
        await self.rtpengine_file()
        await self.jambonz()
        await self.twilio()
        for name, opening, key in (
            ("audiosocket", UUID_FRAME + audio(sound(320)), CALL),
            ("rtpengine", Rtpengine.opening + sound(320), Rtpengine.key),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", ports[name])
            writer.write(opening)
            self.streams.append((reader, writer))
            await self.taken(320, call=key)

    def session(self, *, call=None, upload=None):
        return self.app.vault.ingest.live(upload) if call is None else self.app.vault.ingest.live_call(TENANTS[0], call)

    async def taken(self, size, **which):
        await until(lambda: (found := self.session(**which)) is not None and found.appended == size)
        self.waiting[self.session(**which).recording.id] = size

    async def live_put(self):
        self.lines.append((await begun(self.app), 401))
        await self.taken(1_000, call="call-1")

    async def tus_patch(self):
        client = Tus(self.app)
        path = await client.made(2_000)
        line = await Wire.to(self.app)
        headers = {**client.version, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
        line.send("PATCH", path, sound(500), Content_Length="2000", **headers)
        self.lines.append((line, 401))
        await self.taken(500, upload=recording(path))

    async def ietf_patch(self):
        client = Resumable(self.app)
        path = client.path(await client.begin(sound(300), complete=False))
        line = await Wire.to(self.app)
        headers = {**client.version, "Content-Type": "application/partial-upload", "Upload-Complete": "?1"}
        line.send("PATCH", path, sound(200), Content_Length="1000", Upload_Offset="300", **headers)
        self.lines.append((line, 401))
        await self.taken(500, upload=recording(path))

    async def s3_part(self):
        """The second part of an upload whose first was acknowledged, and is in the spool."""
        client = Recorder.of(self.app.url, self.app.token(Role.RECORDER))
        address = await s3_upload(self.app, client)
        assert (await s3(self.app, client, "PUT", part(address, 1), body=HEAD + sound(5_000)))[0] == 200
        line = await Wire.to(self.app)
        headers = {**signed(client, "PUT", part(address, 2), body=sound(9_000)), "Host": client.host}
        line.send("PUT", part(address, 2), sound(9_000)[:4_000], Content_Length="9000", **headers)
        self.lines.append((line, 403))
        await self.taken(0, upload=address.partition("uploadId=")[2])

    async def rtpengine_file(self):
        token = base64.b64encode(f"recorder:{self.app.token(Role.RECORDER)}".encode())
        sent = re.sub(rb"(?<=Basic )\S+", token, bytes_of("rtpengine-26.3.http"))
        half = sent.index(b"RIFF") + 400
        line = await Wire.to(self.app)
        line.write(sent[:half])
        self.lines.append((line, 401))
        (key,) = await self.new_calls("1-4242@192.0.2.7")
        await until(lambda: self.session(call=key).appended)  # the form holds back what may be its boundary
        await self.taken(self.session(call=key).appended, call=key)

    async def new_calls(self, beginning):
        ingest = self.app.vault.ingest
        await until(lambda: any(key.startswith(beginning) for _, key in ingest._by_call))
        return [key for _, key in ingest._by_call if key.startswith(beginning)]

    async def jambonz(self):
        line = await upgraded(self.app, key="jambonz")
        line.write(frame(START, 1) + frame(sound(1_000)))
        self.sockets.append(line)
        await self.taken(1_000, call="jambonz")

    async def twilio(self):
        """Its token comes in its first message, after the upgrade."""
        connected, start, *rest = transcript("twilio")
        line = await upgraded(self.app, token=False, key="twilio")
        start = start.replace("cv_secret", self.app.token(Role.RECORDER))
        media = [message for message in rest if json.loads(message)["event"] == "media"]
        line.write(b"".join(frame(message.encode(), 1) for message in (connected, start, *media)))
        self.sockets.append(line)
        await until(lambda: self.session(call="twilio") is not None)

    async def is_over(self):
        """Every connection is ended as its dialect ends one."""
        for line, status in self.lines:
            while (answered := (await line.answer())[0]) < 200:
                pass  # an interim response tells how much is durable
            assert answered == status
            line.close()
        for line in self.sockets:
            assert await close_of(line) == 1008
            line.close()
        for reader, writer in self.streams:
            assert await reader.read() == b""
            writer.close()

    async def waits(self):
        """Assert that what came is durable, and each recording without an end: its grace begins."""
        sessions = [self.app.vault.ingest.live(identifier) for identifier in self.waiting]
        await until(lambda: not any(session.uploads for session in sessions))
        for session in sessions:
            found = (session.durable, session.ended, session.ending)
            assert found == (self.waiting[session.recording.id], None, None), session.call_key
        assert all(session.detached_at is not None for session in sessions if session.owner is None)


async def test_whatever_is_under_way_for_a_revoked_token_ends_within_a_second_and_waits_for_its_grace(app):
    everything = UnderWay(app)
    listeners = {name: listener(app) for name in ("audiosocket", "rtpengine")}
    listeners["rtpengine"] |= {"rate": 8000, "channels": 1}
    async with listening(app, **listeners) as ports, opened(app) as (client, socket):
        await everything.begin(ports)
        await socket.send(TONE)
        await everything.taken(len(TONE), call=CALL_KEY)
        await revoke(app)
        async with asyncio.timeout(AT_ONCE):
            await everything.is_over()
            kind, said = client.heard(await socket.recv())
            assert (kind, said["reason"]) == ("disconnect", "unauthorized")
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        await everything.waits()
        parts = [upload.parts for upload in app.vault.parts._uploads.values()]
        assert [[part.size for part in each.values()] for each in parts] == [[len(HEAD) + 5_000]]
        answer = await app.ask("HEAD", PLACE, await another_recorder(app))
        assert answer.headers["Upload-Offset"] == "1000"


async def another_recorder(app):
    body = {"name": "another", "role": "recorder", "tenant": TENANTS[0]}
    return (await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=body)).json["token"]


# -- a request that comes as the token is revoked --------------------------------------------------------------------


class Gate:
    """Holds a collaborator's method up after it has done its work, until it is opened."""

    def __init__(self, monkeypatch, where, name):
        self.reached, self._open = asyncio.Event(), asyncio.Event()
        real = getattr(where, name)

        async def held(*args, **kwargs):
            result = await real(*args, **kwargs)
            if not self._open.is_set():
                self.reached.set()
                await self._open.wait()
            return result

        monkeypatch.setattr(where, name, held)

    def open(self):
        self._open.set()


async def test_a_request_whose_token_was_being_looked_up_as_it_was_revoked_is_refused_and_so_is_the_next(
    app, monkeypatch
):
    gate = Gate(monkeypatch, app.vault.catalog, "token")
    asking = asyncio.create_task(app.ask("GET", "/v1/recordings", Role.AGENT))
    await gate.reached.wait()  # the row has been read: not revoked
    monkeypatch.undo()
    await app.vault.access.revoke(token_id(app.token(Role.AGENT)), actor=await operator(app))
    gate.open()
    assert (await asking).status == 401
    assert (await app.ask("GET", "/v1/recordings", Role.AGENT)).status == 401  # what was read last is not remembered


async def operator(app):
    return await app.vault.access.authenticate(app.token(Role.OPERATOR, None))


@pytest.mark.parametrize("dialect", ["put", "websocket", "stream"])
async def test_an_upload_that_was_let_in_and_not_begun_as_its_token_was_revoked_begins_nothing(
    app, monkeypatch, dialect
):
    gate = Gate(monkeypatch, app.vault.access, "authorise")
    async with listening(app, audiosocket=listener(app)) as ports:
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["audiosocket"])
        match dialect:
            case "put":
                asking = asyncio.create_task(app.ask("PUT", PLACE, Role.RECORDER, data=sound(100)))
            case "websocket":
                asking = asyncio.create_task(upgraded(app))
            case _:
                asking = asyncio.create_task(reader.read())
                writer.write(UUID_FRAME + audio(sound(320)))
        await gate.reached.wait()
        monkeypatch.undo()
        await app.vault.access.revoke(token_id(app.token(Role.RECORDER)), actor=await operator(app))
        gate.open()
        match dialect:
            case "put":
                assert (await asking).status == 401
            case "websocket":
                line = await asking
                async with asyncio.timeout(AT_ONCE):
                    assert await close_of(line) == 1008
                line.close()
            case _:
                assert await asking == b""
        writer.close()
    assert app.vault.ingest.unfinished == 0


async def test_what_a_revoked_token_asked_for_slowly_is_not_done(app):
    line = await Wire.to(app)
    body = json.dumps({"name": "mine", "role": "operator"}).encode()
    second = await app.ask("POST", "/v1/tokens", Role.OPERATOR, body={"name": "second", "role": "operator"})
    headers = {"Authorization": f"Bearer {second.json['token']}", "Content-Type": "application/json"}
    line.send("POST", "/v1/tokens", body[:-1], Content_Length=str(len(body)), **headers)
    await until(lambda: second.json["id"] in app.vault.access.underway._ends)
    assert (await app.ask("DELETE", f"/v1/tokens/{second.json['id']}", Role.OPERATOR)).status == 204
    async with asyncio.timeout(AT_ONCE):
        assert (await line.answer())[0] == 401
    line.close()
    listed = (await app.ask("GET", "/v1/tokens", Role.OPERATOR)).json["tokens"]
    assert "mine" not in [each["name"] for each in listed]


async def test_a_revoked_principal_may_do_nothing_more(app):
    actor = await app.vault.access.authenticate(app.token(Role.AGENT))
    await revoke(app, Role.AGENT)
    with pytest.raises(Unauthenticated, match="revoked"):
        await app.vault.access.authorise(actor, Act.RECORDING_LIST)
