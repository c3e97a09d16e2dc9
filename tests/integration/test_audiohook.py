import socket as socketlib
import time
from uuid import uuid4

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.helpers.app import SETTINGS, TENANTS, app, running
from tests.helpers.audiohook_client import CALL_KEY, GOLDEN, OPEN, ORGANIZATION, PROBE, TONE, Client, headers
from tests.helpers.audiohook_sessions import TARGET, TENANT, opened, secret_of, session, signature
from tests.helpers.crashing import memory_directory
from tests.helpers.recorder import until
from tests.helpers.streams import token_id
from vault.model import Role

__all__ = ["app"]


async def refused(app, sent, *, tenant=TENANT):
    with pytest.raises(InvalidStatus) as caught:
        async with session(app, sent, tenant=tenant):
            pass
    return caught.value.response.status_code


async def recordings(app):
    answer = await app.ask("GET", "/v1/recordings")
    return answer.json["recordings"]


async def test_the_reference_clients_session_is_recorded_and_closed_when_it_is_durable(app):
    client = Client()
    async with session(app, headers(app.token(Role.RECORDER))) as socket:
        for message in GOLDEN:
            await socket.send(message)
        client.seq = 6
        kinds = [client.heard(await socket.recv())[0] for _ in range(4)]
        assert kinds == ["opened", "pong", "pong", "closed"]
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1000
    (row,) = await recordings(app)
    assert row["bytes"] == 6 * len(TONE)
    assert row["media"]["channel_map"] == ["caller", "callee"]
    played = await app.play(row["id"])
    assert played.body == TONE * 6
    shown = await app.ask("GET", f"/v1/recordings/{row['id']}")
    assert "+15555551234" in shown.body.decode()
    assert CALL_KEY in shown.body.decode()
    metrics = await app.ask("GET", "/metrics", None)
    assert f'callvault_ingest_bytes_total{{dialect="audiohook"}} {6.0 * len(TONE)}' in metrics.body.decode()


async def test_a_probe_leaves_no_recording(app):
    client = Client()
    async with session(app, headers(app.token(Role.RECORDER))) as socket:
        await socket.send(client.open(conversationId=PROBE, participant={**OPEN["participant"], "id": PROBE}))
        assert client.heard(await socket.recv())[0] == "opened"
        await socket.send(client.say("close", reason="end"))
        assert client.heard(await socket.recv())[0] == "closed"
    assert await recordings(app) == []


async def test_a_signature_with_the_tokens_secret_opens_a_session_once(app):
    token = app.token(Role.RECORDER)
    sent = signature(app, token_id(token), secret_of(token))
    async with session(app, sent):
        pass
    assert await refused(app, sent) == 401
    async with session(app, signature(app, token_id(token), secret_of(token))):
        pass


async def test_a_whole_token_that_also_signs_must_sign_right(app):
    token = app.token(Role.RECORDER)
    async with session(app, signature(app, token, secret_of(token))):
        pass
    assert await refused(app, signature(app, token, b"wrong")) == 401


async def test_what_is_not_signed_by_the_recorder_now_for_this_address_is_refused(app):
    token, other = app.token(Role.RECORDER), app.token(Role.RECORDER, TENANTS[1])
    key, secret = token_id(token), secret_of(token)
    good = signature(app, key, secret)
    now = int(time.time())
    for sent in (
        {},
        headers(key),
        headers("cv_" + "0" * 32 + "_wrong"),
        headers("Bearer"),
        headers("cv_\xff"),
        signature(app, key, b"wrong"),
        signature(app, key, secret, created=now - 60),
        signature(app, key, secret, created=now + 60),
        signature(app, key, secret, nonce="short"),
        signature(app, key, secret, target=f"/v1/ingest/{TENANTS[1]}/audiohook"),
        {**good, "Audiohook-Session-Id": str(uuid4())},
        {**good, "Signature": good["Signature"].replace("sig1", "sig2")},
    ):
        assert await refused(app, sent) == 401
    assert await refused(app, signature(app, token_id(other), secret_of(other))) == 404
    assert await recordings(app) == []


async def test_nothing_signed_with_an_empty_secret_is_let_in(app):
    """A token whose secret the vault cannot know, such as an agent's, answers like one that nobody has."""
    for key in (token_id(app.token(Role.AGENT)), token_id(app.token(Role.RECORDER)), "tok_" + "0" * 32):
        for secret in (b"", bytes(32)):
            assert await refused(app, signature(app, key, secret)) == 401


async def test_a_role_that_may_not_record_is_refused_in_http(app):
    assert await refused(app, headers(app.token(Role.AGENT))) == 403
    assert await refused(app, headers(app.token(Role.RECORDER), session="none")) == 422


async def test_a_session_of_another_organization_is_told_to_disconnect(app):
    client = Client()
    async with session(app, headers(app.token(Role.RECORDER), organization=str(uuid4()))) as socket:
        await socket.send(client.open())
        kind, parameters = client.heard(await socket.recv())
        assert (kind, parameters["reason"]) == ("disconnect", "error")
        assert ORGANIZATION not in parameters["info"]
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1008
    assert await recordings(app) == []


async def test_a_session_that_breaks_is_continued_by_one_of_the_same_participant(app):
    async with opened(app) as (_, socket):
        await socket.send(TONE)
        second = Client(str(uuid4()))
        async with session(app, headers(app.token(Role.RECORDER), session=second.session)) as early:
            await early.send(second.open())
            assert second.heard(await early.recv())[0] == "disconnect"  # the first still lives
        socket.transport.abort()
        await until(lambda: not app.vault.ingest.uploading)
    name = str(uuid4())
    async with opened(app, name=name) as (client, socket):
        await socket.send(TONE)
        await socket.send(client.say("close", reason="end"))
        assert client.heard(await socket.recv())[0] == "closed"
    (row,) = await recordings(app)
    assert (row["bytes"], row["state_reason"]) == (2 * len(TONE), None)


async def test_two_participants_of_a_conversation_are_two_recordings(app):
    other = {**OPEN["participant"], "id": str(uuid4())}
    async with opened(app) as (_, first), opened(app, participant=other) as (_, second):
        await first.send(TONE)
        await second.send(TONE)
    assert len(await recordings(app)) == 2


@pytest.mark.parametrize("reason", ["error", "disconnect"])
async def test_a_session_that_ends_before_its_call_is_closed_when_durable_and_stays_open_for_the_grace(app, reason):
    async with opened(app) as (client, socket):
        await socket.send(TONE)
        await socket.send(client.say("close", reason=reason))
        assert client.heard(await socket.recv())[0] == "closed"
        (live,) = app.vault.ingest._by_id.values()
        assert live.durable == len(TONE)
    (row,) = await recordings(app)
    assert row["state"] == "open"


async def test_a_recording_that_the_vault_ends_ends_with_a_disconnect(app):
    async with opened(app) as (client, socket):
        await socket.send(TONE)
        await socket.send(client.say("ping"))
        assert client.heard(await socket.recv())[0] == "pong"
        (live,) = app.vault.ingest._by_id.values()
        app.vault.ingest.draining = True
        await app.vault.ingest.truncate_all("server_shutdown", uploading=True)
        await socket.send(TONE)
        kind, parameters = client.heard(await socket.recv())
        assert (kind, parameters["reason"]) == ("disconnect", "completed")
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1013
    await live.done.wait()
    (row,) = await recordings(app)
    assert (row["state"], row["bytes"]) == ("truncated", len(TONE))


async def test_a_recorder_that_does_not_read_its_answers_is_given_up_and_what_it_said_is_kept():
    with memory_directory() as base, socketlib.socket() as narrow:
        narrow.setsockopt(socketlib.SOL_SOCKET, socketlib.SO_RCVBUF, 4_096)
        async with running(base, server={**SETTINGS["server"], "idle_timeout": "300ms"}) as app:
            narrow.connect(("127.0.0.1", int(app.url.rpartition(":")[2])))
            narrow.setblocking(False)
            client, sent = Client(), headers(app.token(Role.RECORDER))
            url = app.url.replace("http", "ws") + TARGET
            async with connect(url, additional_headers=sent, compression=None, sock=narrow, close_timeout=0) as socket:
                await socket.send(client.open())
                assert client.heard(await socket.recv())[0] == "opened"
                await socket.send(TONE)
                socket.transport.pause_reading()
                (live,) = app.vault.ingest._by_id.values()
                for _ in range(50_000):
                    socket.transport.write(b"\x89\xfd" + bytes(4 + 125))
                await until(lambda: not live.uploads)
                assert live.durable == len(TONE)
