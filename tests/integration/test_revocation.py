"""A revoked token ends at once, and with it what is under way for it; what was received stays."""

import asyncio
import io

import pytest

from tests.faults.recorder import until
from tests.hook_recorders import UUID_FRAME, audio
from tests.integration.app import PCMU, PURPOSE, TENANTS, app, sound
from tests.integration.test_frames import START, close_of, frame, upgraded
from tests.streams import listener, listening, token_id
from tests.uploads import Tus, Wire
from vault.errors import Unavailable
from vault.model import Role

__all__ = ("app",)

PLACE = f"/v1/ingest/{TENANTS[0]}/call-1"


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
    async with asyncio.timeout(1):
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


async def test_a_part_of_a_tus_upload_under_way_ends_and_its_upload_stays(app):
    upload = Tus(app)
    path = await upload.made(2_000)
    line = await Wire.to(app)
    line.send(
        "PATCH",
        path,
        sound(500),
        Content_Type="application/offset+octet-stream",
        Content_Length="2000",
        Upload_Offset="0",
        Tus_Resumable="1.0.0",
    )
    await until(lambda: app.vault.ingest.unstored_bytes == 500)
    await revoke(app)
    async with asyncio.timeout(1):
        assert (await line.answer())[0] == 401
    line.close()
    assert app.vault.ingest.unfinished == 1


async def test_a_websocket_is_closed_with_1008_and_its_audio_kept(app):
    line = await upgraded(app)
    line.write(frame(START, 1) + frame(sound(1_000)))
    await until(lambda: app.vault.ingest.unstored_bytes == 1_000)
    await revoke(app)
    async with asyncio.timeout(1):
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
        async with asyncio.timeout(1):
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
    async with asyncio.timeout(1):
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
