"""An expired token begins nothing, in any dialect and at any address; what it began it finishes."""

import asyncio
import hashlib
import io
from datetime import timedelta

import pytest
from websockets.exceptions import InvalidStatus

from tests.helpers.app import PCMU, PURPOSE, TENANTS, app, running, sound
from tests.helpers.audiohook_client import headers
from tests.helpers.audiohook_sessions import secret_of, session, signature
from tests.helpers.crashing import memory_directory
from tests.helpers.frames import START, close_of, frame, upgraded
from tests.helpers.hook_recorders import CALL, UUID_FRAME, audio
from tests.helpers.hook_recorders import frame as audiosocket
from tests.helpers.recorder import until
from tests.helpers.routes import PRIVATE, things
from tests.helpers.s3clients import HEAD, Recorder
from tests.helpers.s3requests import ask as s3
from tests.helpers.s3requests import begun as s3_upload
from tests.helpers.s3requests import code, listing, part
from tests.helpers.streams import break_off, listener, listening, token_id
from tests.helpers.underway import NORMAL_CLOSE, PLACE, UnderWay, begun, notification
from tests.helpers.uploads import Resumable, Tus, Wire, recording
from vault.model import Role
from vault.wiring import open_vault
from vault.wiring.doctor import token_findings

__all__ = ("app",)


async def expiring(app, role=Role.RECORDER, *, after=timedelta(minutes=1)):
    """Give a role of the first tenant a token that expires, in place of the one it has."""
    tenant = None if role is Role.OPERATOR else TENANTS[0]
    expires_at = (app.clock.now() + after).isoformat()
    body = {"name": "expires", "role": role.value, "tenant": tenant, "expires_at": expires_at}
    issued = await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=body)
    assert issued.status == 201, issued.body
    app.tokens[tenant, role] = issued.json["token"]
    return issued.json["token"]


async def put(app, key, data, who=Role.RECORDER, **sent):
    named = {name.replace("_", "-"): value for name, value in sent.items()}
    path = f"/v1/ingest/{TENANTS[0]}/{key}"
    return await app.ask("PUT", path, who, data=data, headers={"Content-Type": PCMU, **named})


def said(answer):
    """Return what an answer says, apart from which request it answers."""
    return answer.status, {name: text for name, text in answer.json.items() if name not in ("instance", "request_id")}


async def test_an_expired_token_of_each_role_is_refused_at_every_address_as_a_revoked_one_is(app):
    ours = await things(app, TENANTS[0])
    operator = app.token(Role.OPERATOR, None)
    revoked = await app.second_person(Role.RECORDER)
    assert (await app.ask("DELETE", f"/v1/tokens/{token_id(revoked)}", operator)).status == 204
    refusal = said(await app.ask("GET", "/v1/recordings", revoked))
    for role in Role:
        await expiring(app, role)
    app.clock.advance(minutes=2)
    for role in Role:
        for route in PRIVATE:
            answer = await ours.ask(app, route, role, TENANTS[0])
            assert answer.status == 401, (role, route)
            assert route[0] == "HEAD" or said(answer) == refusal, (role, route)


async def test_whatever_is_under_way_when_its_token_expires_goes_on_to_its_end(app):
    await expiring(app)
    async with UnderWay(app).of_every_kind() as everything:
        app.clock.advance(minutes=2)
        assert (await put(app, "call-2", sound(10))).status == 401
        await everything.ends()
    await until(lambda: not app.vault.access.underway._ends)
    for path in (PLACE, f"/v1/ingest/{TENANTS[0]}/jambonz"):
        assert (await app.ask("HEAD", path, Role.RECORDER)).status == 401  # it has ended: nothing is left to finish


async def test_a_playback_under_way_when_its_token_expires_is_sent_to_its_end_and_the_next_range_is_refused(app):
    size = 4 << 20
    played = await app.upload("call-1", io.BytesIO(sound(size)))
    token = await expiring(app, Role.COMPLIANCE)
    line = await Wire.to(app)
    path = f"/v1/recordings/{played}/audio?format=raw"
    line.send("GET", path, Authorization=f"Bearer {token}", **PURPOSE)
    assert (await line.head())[0] == 200
    app.clock.advance(minutes=2)
    assert await line._reader.readexactly(size) == sound(size)
    line.close()
    assert (await app.play(played, headers={"Range": "bytes=0-9"})).status == 401


async def test_a_call_that_was_interrupted_before_its_token_expired_is_continued_and_ended_and_no_other(app):
    assert (await put(app, "another", sound(100), Upload_Complete="?0", Content_Range="bytes 0-99/*")).status == 202
    await expiring(app)
    assert (await put(app, "call-1", sound(100), Content_Range="bytes 0-99/*")).status == 202
    app.clock.advance(minutes=2)
    assert (await app.ask("HEAD", PLACE, Role.RECORDER)).headers["Upload-Offset"] == "100"
    assert (await app.ask("POST", f"{PLACE}/pause", Role.RECORDER)).status == 200
    assert (await app.ask("POST", f"{PLACE}/resume", Role.RECORDER)).status == 200
    for answer in (
        await app.ask("POST", f"{PLACE}/flag", Role.RECORDER, body={"category": "other"}),
        await app.ask("HEAD", f"/v1/ingest/{TENANTS[0]}/another", Role.RECORDER),
        await put(app, "another", sound(10), Upload_Offset="100"),
        await put(app, "nothing", sound(10)),
        await put(app, "a key of nobody's!", sound(10)),
        await app.ask("HEAD", f"/v1/ingest/{TENANTS[1]}/call-1", Role.RECORDER),
    ):
        assert answer.status == 401
    ended = await put(app, "call-1", sound(100, 2), Upload_Offset="100")
    assert (ended.status, ended.json["bytes"]) == (201, 200)
    assert app.vault.ingest.live_call(TENANTS[0], "nothing") is None


@pytest.mark.parametrize("client", [Tus, Resumable], ids=["tus", "ietf"])
async def test_an_upload_with_an_address_goes_on_after_its_tokens_expiry_and_none_is_created(app, client):
    client = client(app)
    rest = {} if type(client) is Tus else {"Upload_Complete": "?1", "Content_Type": "application/partial-upload"}

    async def made():
        if type(client) is Tus:
            return await client.made(100, sound(50))
        return client.path(await client.begin(sound(50), complete=False))

    foreign = await made()
    await expiring(app)
    own = await made()
    app.clock.advance(minutes=2)
    assert await client.offset(own) == 50
    assert (await client.head(foreign)).status == 401
    assert (await client.patch(foreign, 50, sound(50), **rest)).status == 401
    assert (await client.ask("DELETE", foreign)).status == 401
    assert (await client.create(100)).status == 401
    assert (await client.patch(own, 50, sound(50, 2), **rest)).status in (201, 204)
    ended = app.vault.ingest.live(recording(own))
    assert ended is None or ended.ended == "sealed"


async def test_an_s3_upload_that_began_before_its_token_expired_gets_its_parts_and_its_end(app):
    await expiring(app)
    client = Recorder.of(app.url, app.token(Role.RECORDER))
    stranger = Recorder(url=app.url, access_key=client.access_key, secret_key="x" * 43)
    body = HEAD + sound(5_000)
    address = await s3_upload(app, client)
    app.clock.advance(minutes=2)
    assert (await s3(app, client, "PUT", part(address, 1), body=body))[0] == 200
    assert code((await s3(app, stranger, "PUT", part(address, 1), body=body))[1]) == "SignatureDoesNotMatch"
    for method, path in (
        ("POST", f"/s3/{TENANTS[0]}/other.wav?uploads"),
        ("PUT", f"/s3/{TENANTS[0]}/other.wav"),
        ("GET", f"/s3/{TENANTS[0]}?location"),
        ("PUT", part(f"/s3/{TENANTS[0]}/call.wav?uploadId=rec_{'0' * 32}", 1)),
    ):
        for who in (client, stranger):
            status, document, _ = await s3(app, who, method, path, body=body if method == "PUT" else b"")
            assert (status, code(document)) == (403, "InvalidAccessKeyId")
    named = listing((1, hashlib.md5(body).hexdigest()))
    assert (await s3(app, client, "POST", address, body=named))[0] == 200


async def test_a_file_of_rtpengines_that_broke_off_before_the_expiry_is_sent_again_after_it_and_no_other(app):
    await expiring(app)
    sent = notification(app)
    line = await Wire.to(app)
    line.write(sent[: sent.index(b"RIFF") + 400])
    await until(lambda: app.vault.ingest.unstored_bytes)
    line.close()
    await until(lambda: not app.vault.ingest.uploading)
    app.clock.advance(minutes=2)
    for file, status in ((sent.replace(b"1-4242", b"1-4243"), 401), (sent, 201)):
        line = await Wire.to(app)
        line.write(file)
        assert (await line.answer())[0] == status
        line.close()


async def test_a_live_call_whose_connection_broke_before_the_expiry_comes_back_after_it_and_no_other_begins(app):
    line = await upgraded(app, key="another")
    line.write(frame(START, 1) + frame(sound(10)))
    await until(lambda: app.vault.ingest.unstored_bytes == 10)
    line.close()
    await expiring(app)
    async with listening(app, audiosocket=listener(app)) as ports:
        line = await upgraded(app, key="call-1")
        line.write(frame(START, 1) + frame(sound(1_000)))
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["audiosocket"])
        writer.write(UUID_FRAME + audio(sound(320)))
        await until(lambda: app.vault.ingest.unstored_bytes == 1_330)
        line.close()
        await break_off(writer)
        await until(lambda: not app.vault.ingest.uploading)
        app.clock.advance(minutes=2)
        for key, heard in (("another", 1008), ("call-2", 1008), ("call-1", 1000)):
            line = await upgraded(app, key=key)
            line.write(frame(START, 1) + frame(sound(1_000, 2)) + NORMAL_CLOSE)
            assert await close_of(line) == heard
            line.close()
        assert (await ended(app, "call-1")).durable == 2_000
        assert app.vault.ingest.live_call(TENANTS[0], "call-2") is None
        assert app.vault.ingest.live_call(TENANTS[0], "another").durable == 10
        other = UUID_FRAME[:-1] + b"x"
        for opening in (other, UUID_FRAME):
            reader, writer = await asyncio.open_connection("127.0.0.1", ports["audiosocket"])
            writer.write(opening + audio(sound(320, 2)) + audiosocket(0x00))
            assert await reader.read() == b""
            writer.close()
        assert (await ended(app, CALL)).durable == 640


async def ended(app, call):
    found = app.vault.ingest.live_call(TENANTS[0], call)
    await until(lambda: found.ended is not None)
    return found


async def test_an_audiohook_session_and_a_websocket_are_refused_before_they_are_upgraded(app):
    token = await expiring(app)
    sent = [headers(token), signature(app, token_id(token), secret_of(token))]
    app.clock.advance(minutes=2)
    for each in (*sent, headers(token_id(token))):
        with pytest.raises(InvalidStatus) as caught:
            async with session(app, each):
                pass
        assert caught.value.response.status_code == 401
    line = await Wire.to(app)
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    line.send("GET", f"/v1/ingest/{TENANTS[0]}/ws", **upgrade, Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==")
    assert (await line.answer())[0] == 401
    line.close()
    assert app.vault.ingest.unfinished == 0


async def test_after_a_restart_an_expired_token_still_finishes_what_it_began_and_another_node_knows_it_too():
    with memory_directory() as base:
        async with running(base) as app:
            token = token_id(await expiring(app))
            mine = recording(await Tus(app).made(100, sound(50)))
            assert (await put(app, "call-1", sound(100), Content_Range="bytes 0-99/*")).status == 202
            config, clock = app.config, app.clock
            elsewhere = config.journal.model_copy(update={"path": base / "elsewhere"})
            (base / "elsewhere").mkdir(mode=0o700)
            async with open_vault(config.model_copy(update={"journal": elsewhere}), clock=clock) as node:
                assert not await node.begun.here(token)
                assert await node.begun.upload(token, mine)
                assert await node.begun.call(token, TENANTS[0], "call-1")
                assert not await node.begun.call(token_id(app.token(Role.AGENT)), TENANTS[0], "call-1")
        async with open_vault(config, clock=clock) as vault:
            assert await vault.begun.here(token)
            assert await vault.begun.upload(token, mine)
            assert vault.ingest.live(mine).begun_by == token


async def test_a_clock_that_steps_back_behind_the_last_sweep_revives_no_token(app):
    await expiring(app, Role.AGENT)
    app.clock.advance(minutes=2)
    await app.sweep()
    app.clock.advance(hours=-2)
    assert (await app.ask("GET", "/v1/recordings", Role.AGENT)).status == 401


async def test_an_expired_token_is_still_revoked_and_what_is_under_way_for_it_ends(app):
    token = await expiring(app)
    line = await begun(app)
    app.clock.advance(minutes=2)
    assert (await app.ask("DELETE", f"/v1/tokens/{token_id(token)}", Role.OPERATOR)).status == 204
    async with asyncio.timeout(1):
        assert (await line.answer())[0] == 401
    line.close()


# -- issuing one -----------------------------------------------------------------------------------------------------


async def test_an_expiry_is_shown_audited_and_bounded(app):
    token = token_id(await expiring(app, after=timedelta(days=90)))
    (listed,) = [
        each for each in (await app.ask("GET", "/v1/tokens", Role.OPERATOR)).json["tokens"] if each["expires_at"]
    ]
    assert listed["id"] == token
    (entry,) = [each for each in await app.audit("admin.token") if each["target"] == token]
    assert entry["detail"]["expires_at"].startswith(listed["expires_at"][:19])
    body = {"name": "late", "role": "agent", "tenant": TENANTS[0]}
    for wrong in (app.clock.now(), app.clock.now() + timedelta(days=3_661), "9999-12-31T23:59:59-12:00", "2030-01-01"):
        expires_at = wrong if isinstance(wrong, str) else wrong.isoformat()
        answer = await app.ask("POST", "/v1/tokens", Role.OPERATOR, body={**body, "expires_at": expires_at})
        assert (answer.status, answer.problem) == (422, "invalid")


async def test_doctor_and_metrics_tell_of_a_token_before_it_expires(app):
    soon = token_id(await expiring(app, after=timedelta(days=13)))
    await expiring(app, Role.AGENT, after=timedelta(days=15))
    (finding,) = await token_findings(app.vault.catalog, now=app.clock.now())
    assert soon in finding.message
    assert " expires at " in finding.message
    assert 'callvault_tokens_expiring{role="recorder"} 1.0' in await app.metrics()
    app.clock.advance(days=14)
    has, will = await token_findings(app.vault.catalog, now=app.clock.now())
    assert (" has expired at " in has.message, " expires at " in will.message) == (True, True)
    assert (await app.ask("DELETE", f"/v1/tokens/{soon}", app.token(Role.OPERATOR, None))).status == 204
    assert soon not in str(await token_findings(app.vault.catalog, now=app.clock.now()))
    text = await app.metrics()
    assert 'callvault_tokens_expiring{role="recorder"} 0.0' in text
    assert 'callvault_tokens_expiring{role="agent"} 1.0' in text
