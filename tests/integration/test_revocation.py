"""A revoked token ends at once, and with it what is under way for it; what was received stays."""

import asyncio
import io
import json

import pytest

from tests.helpers.app import PURPOSE, TENANTS, app, sound
from tests.helpers.frames import START, close_of, frame, upgraded
from tests.helpers.hook_recorders import UUID_FRAME, audio
from tests.helpers.recorder import until
from tests.helpers.streams import listener, listening, token_id
from tests.helpers.underway import FIRST_PART, PLACE, UnderWay, begun
from tests.helpers.uploads import Wire
from vault.access.permissions import Act
from vault.errors import Unauthenticated, Unavailable
from vault.model import Role

__all__ = ("app",)

AT_ONCE = 1.0
"""Seconds in which what is under way ends in the process that is asked to revoke."""


async def revoke(app, role=Role.RECORDER):
    answer = await app.ask("DELETE", f"/v1/tokens/{token_id(app.token(role))}", Role.OPERATOR)
    assert answer.status == 204


async def revoke_elsewhere(app, role=Role.RECORDER):
    """Revoke as another process does: this one learns of it from the catalog alone."""
    await app.vault.catalog.revoke_token(token_id(app.token(role)), at=app.clock.now())


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


async def test_whatever_is_under_way_for_a_revoked_token_ends_within_a_second_and_waits_for_its_grace(app):
    async with UnderWay(app).of_every_kind() as everything:
        await revoke(app)
        async with asyncio.timeout(AT_ONCE):
            await everything.is_cut_off()
        await everything.waits()
        parts = [upload.parts for upload in app.vault.parts._uploads.values()]
        assert [[part.size for part in each.values()] for each in parts] == [[len(FIRST_PART)]]
        body = {"name": "another", "role": "recorder", "tenant": TENANTS[0]}
        another = (await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=body)).json["token"]
        assert (await app.ask("HEAD", PLACE, another)).headers["Upload-Offset"] == "1000"


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
