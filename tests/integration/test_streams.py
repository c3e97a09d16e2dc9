import asyncio
import contextlib
import ssl
from collections import Counter

import pytest

from tests.helpers.app import SETTINGS, TENANTS, app, running, sound
from tests.helpers.authorities import Authority
from tests.helpers.crashing import memory_directory
from tests.helpers.hook_recorders import CALL, UUID_FRAME, audio, frame
from tests.helpers.recorder import until
from tests.helpers.streams import break_off, listener, listening, send, token_id
from vault.errors import ConfigError
from vault.model import Role
from vault.protocol.live.streams import AudioSocket
from vault.server.ingest import tcp
from vault.services.ingest import call_notes

__all__ = ["app"]

TENANT = TENANTS[0]


async def head(app, key):
    answer = await app.ask("HEAD", f"/v1/ingest/{TENANT}/{key}", Role.RECORDER)
    if answer.status == 404:
        return None
    return answer.headers["Recording-State"], int(answer.headers["Upload-Offset"])


async def finished(app, key):
    """Return state and audio of a recording once it has ended."""
    for _ in range(200):
        if (found := await head(app, key)) is not None and found[0] != "open":
            answer = await app.ask("HEAD", f"/v1/ingest/{TENANT}/{key}", Role.RECORDER)
            return found[0], (await app.play(answer.headers["Recording-Id"])).body
        await asyncio.sleep(0.02)
    raise AssertionError(f"not finished: {found}")


async def metric(app, line):
    return line in (await app.ask("GET", "/metrics", None)).body.decode()


async def test_a_call_over_audiosocket_is_durable_when_the_vault_closes(app):
    data = sound(3_200)
    pieces = [audio(data[at : at + 320]) for at in range(0, len(data), 320)]
    async with listening(app, audiosocket=listener(app)) as ports:
        assert await send(ports["audiosocket"], UUID_FRAME, *pieces[:5], frame(0x03, b"4"), *pieces[5:]) == b""
        row = await app.vault.search.call(TENANT, CALL)
        assert row is not None
        assert await finished(app, CALL) == ("sealed", data)
        assert (await app.ask("GET", f"/v1/recordings/{row.id}")).json["media"]["codec"] == "s16le"
        assert await metric(app, f'callvault_ingest_bytes_total{{dialect="audiosocket"}} {float(len(data))}')
        started = await app.audit("recording.started")
        assert token_id(app.token(Role.RECORDER)) in str(started)
        # The name is taken now; a further call of that name is a further recording.
        await send(ports["audiosocket"], UUID_FRAME, audio(b"again!", 0x12), frame(0x00))
        assert await finished(app, f"{CALL}~2") == ("sealed", b"again!")


async def test_a_call_that_breaks_is_continued_and_one_that_errs_waits_for_it(app):
    async with listening(app, audiosocket=listener(app)) as ports:
        _, writer = await asyncio.open_connection("127.0.0.1", ports["audiosocket"])
        writer.write(UUID_FRAME + audio(b"one."))
        await writer.drain()
        await until(lambda: app.vault.ingest.live_call(TENANT, CALL) is not None)
        session = app.vault.ingest.live_call(TENANT, CALL)
        await until(lambda: session.durable == 4)
        await break_off(writer)
        await until(lambda: not session.uploads)
        assert session.ended is None
        await send(ports["audiosocket"], UUID_FRAME, audio(b"two."), frame(0xFF, b"\1"))
        assert session.ended is None
        assert session.durable == 8
        await send(ports["audiosocket"], UUID_FRAME, audio(b"six."))
        assert await finished(app, CALL) == ("sealed", b"one.two.six.")


async def test_what_came_while_a_recording_was_begun_is_kept_when_the_connection_breaks_meanwhile(app, monkeypatch):
    data, create = sound(32_000), app.vault.catalog.create_recording
    async with listening(app, audiosocket=listener(app)) as ports:
        _, writer = await asyncio.open_connection("127.0.0.1", ports["audiosocket"])

        async def late(*args, **words):
            writer.write(b"".join(audio(data[at : at + 320]) for at in range(320, len(data), 320)))
            await writer.drain()
            await asyncio.sleep(0.2)
            await break_off(writer)
            await asyncio.sleep(0.2)
            return await create(*args, **words)

        monkeypatch.setattr(app.vault.catalog, "create_recording", late)
        writer.write(UUID_FRAME + audio(data[:320]))
        await until(lambda: app.vault.ingest.live_call(TENANT, CALL) is not None)
        session = app.vault.ingest.live_call(TENANT, CALL)
        await until(lambda: not session.uploads)
        assert session.ended is None
        assert await head(app, CALL) == ("open", len(data))


async def test_a_frame_that_is_cut_is_not_kept_and_not_the_end(app):
    async with listening(app, audiosocket=listener(app)) as ports:
        await send(ports["audiosocket"], UUID_FRAME, audio(b"kept"), audio(b"lost")[:-1])
        assert await head(app, CALL) == ("open", 4)


async def test_two_legs_of_one_name_are_two_recordings(app):
    async with listening(app, rtpengine=listener(app)) as ports:
        first = await asyncio.open_connection("127.0.0.1", ports["rtpengine"])
        first[1].write(b"call_key:call-7|caller:+442079460000\0" + b"a" * 320)
        await until(lambda: app.vault.ingest.live_call(TENANT, "call-7") is not None)
        await send(ports["rtpengine"], b"call_key:call-7|caller:+442079460000\0" + b"b" * 320)
        assert await finished(app, "call-7:2") == ("sealed", b"b" * 320)
        first[1].close()
        assert await finished(app, "call-7") == ("sealed", b"a" * 320)
        assert await metric(app, 'callvault_ingest_bytes_total{dialect="rtpengine_tcp"} 640.0')
        row = await app.vault.search.call(TENANT, "call-7")
        shown = await app.ask("GET", f"/v1/recordings/{row.id}")
        assert "+442079460000" in shown.body.decode()


@pytest.mark.parametrize("length", [185, 190, 191, 200])
async def test_both_legs_of_a_call_are_recorded_however_long_its_name(app, length):
    introduction = b"call_id:" + b"c" * length + b"\0"
    async with listening(app, rtpengine=listener(app)) as ports:
        first = await asyncio.open_connection("127.0.0.1", ports["rtpengine"])
        first[1].write(introduction + b"a" * 320)
        await until(lambda: app.vault.ingest.uploading)
        for _ in range(2):
            await send(ports["rtpengine"], introduction, b"b" * 320)
        first[1].close()
    rows = (await app.ask("GET", "/v1/recordings")).json["recordings"]
    assert [row["bytes"] for row in rows] == [320] * 3


async def test_streams_without_a_name_are_recordings_of_their_own(app):
    async with listening(app, rtpengine=listener(app, rate=16000, channels=2)) as ports:
        for number in range(2):
            await send(ports["rtpengine"], b"\0", bytes([number]) * 400)
    rows = (await app.ask("GET", "/v1/recordings")).json["recordings"]
    assert [(row["bytes"], row["media"]["rate"], row["media"]["channels"]) for row in rows] == [(400, 16000, 2)] * 2


async def test_what_is_no_stream_is_refused_and_counted_and_leaves_nothing(app):
    async with listening(app, audiosocket=listener(app), rtpengine=listener(app)) as ports:
        await send(ports["audiosocket"], b"GET / HTTP/1.1\r\n\r\n")
        assert await metric(app, 'callvault_ingest_refused_total{reason="invalid"} 1.0')
        await send(ports["rtpengine"], b"x" * 20_000)
        assert await metric(app, 'callvault_ingest_refused_total{reason="invalid"} 2.0')
        for name, start in (("audiosocket", UUID_FRAME), ("rtpengine", b"call_key:call-7\0")):
            await send(ports[name])
            await send(ports[name], start[:7])
            await send(ports[name], start)
        assert (await app.ask("GET", "/v1/recordings")).json["recordings"] == []


async def test_a_listener_takes_nothing_for_a_token_that_is_revoked_of_another_role_or_of_another_tenant(app):
    agent = listener(app, token=token_id(app.token(Role.AGENT)))
    elsewhere = listener(app, tenant=TENANTS[1])
    for settings in (agent, elsewhere):
        async with listening(app, audiosocket=settings) as ports:
            await send(ports["audiosocket"], UUID_FRAME, audio(b"none"))
    async with listening(app, audiosocket=listener(app)) as ports:
        key = token_id(app.token(Role.RECORDER))
        assert (await app.ask("DELETE", f"/v1/tokens/{key}", Role.OPERATOR)).status < 300
        await send(ports["audiosocket"], UUID_FRAME, audio(b"none"))
    assert (await app.ask("GET", "/v1/recordings")).json["recordings"] == []
    assert await metric(app, 'callvault_ingest_refused_total{reason="unauthenticated"} 1.0')
    assert await metric(app, 'callvault_ingest_refused_total{reason="forbidden"} 1.0')
    assert await metric(app, 'callvault_ingest_refused_total{reason="not_found"} 1.0')


async def test_a_connection_that_says_nothing_is_closed_and_its_recording_waits():
    with memory_directory() as base:
        async with (
            running(base, server={**SETTINGS["server"], "idle_timeout": "200ms"}) as app,
            listening(app, audiosocket=listener(app)) as ports,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", ports["audiosocket"])
            assert await reader.read() == b""
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", ports["audiosocket"])
            writer.write(UUID_FRAME + audio(b"kept"))
            assert await reader.read() == b""
            writer.close()
            assert await head(app, CALL) == ("open", 4)
            assert await metric(app, 'callvault_ingest_refused_total{reason="upload_stalled"} 2.0')


async def test_a_recorder_of_tiny_frames_leaves_turns_to_everybody_else(app, monkeypatch):
    turn, taken, receive = 0, Counter(), AudioSocket.receive

    async def others():
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def counted(machine, message):
        taken[turn] += len(message)
        return receive(machine, message)

    monkeypatch.setattr(AudioSocket, "receive", counted)
    turning = asyncio.create_task(others())
    async with listening(app, audiosocket=listener(app)) as ports:
        await send(ports["audiosocket"], UUID_FRAME, audio(b"tiny"), audio(b"") * 40_000)
    turning.cancel()
    assert sum(taken.values()) > 100_000
    assert max(taken.values()) < 2 << 13


async def test_a_call_with_too_many_notes_says_so_once_and_looks_at_no_further_one(app, monkeypatch, caplog):
    monkeypatch.setattr(call_notes, "_MOST_NOTES", 3)
    assert (await app.ask("PUT", f"/v1/tenants/{TENANT}", Role.OPERATOR, body={"keep_dtmf": True})).status == 200
    async with listening(app, audiosocket=listener(app)) as ports:
        await send(ports["audiosocket"], UUID_FRAME, audio(b"tone"), frame(0x03, b"5") * 50)
    assert await finished(app, CALL) == ("sealed", b"tone")
    assert [each.message for each in caplog.records].count("a call has too many notes") == 1


async def test_what_arrives_after_a_stream_was_given_up_is_ignored():
    reader = tcp._Reader()
    reader.feed_data(b"before")
    reader.set_exception(TimeoutError())
    reader.feed_data(b"after")
    assert (await reader.read(), reader.failure.args) == (b"before", ())


async def test_a_port_that_is_taken_is_a_configuration_error(app):
    async with listening(app, audiosocket=listener(app)) as ports:
        taken = listener(app, listen=f"127.0.0.1:{ports['audiosocket']}")
        with pytest.raises(ConfigError, match=r"^streams\.rtpengine\.listen: cannot listen"):
            async with listening(app, rtpengine=taken):
                pass


async def test_over_a_network_only_a_client_with_a_certificate_records(app, tmp_path):
    own, other = Authority(tmp_path, "own"), Authority(tmp_path, "other")
    cert, key = map(str, own.issue("vault"))
    guarded = listener(app, tls_cert=cert, tls_key=key, client_ca=str(own.file), listen="0.0.0.0:0")

    def client(files):
        context = ssl.create_default_context(cafile=own.file)
        if files is not None:
            context.load_cert_chain(*files)
        return context

    async with listening(app, audiosocket=guarded) as ports:
        for options in ({}, {"ssl": client(None)}, {"ssl": client(other.issue("pbx"))}):
            await turned_away(ports["audiosocket"], **options)
        assert (await app.ask("GET", "/v1/recordings")).json["recordings"] == []
        await send(ports["audiosocket"], UUID_FRAME, audio(b"kept"), ssl=client(own.issue("pbx")))
        assert await finished(app, CALL) == ("sealed", b"kept")


async def turned_away(port, **options):
    """Return once the vault has closed a connection that goes on as if it were welcome."""
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
        try:
            writer.write(UUID_FRAME + audio(b"none"))
            while await reader.read(1_000):
                pass
        finally:
            writer.close()


async def test_certificates_that_cannot_be_used_are_a_configuration_error(app, tmp_path):
    broken = tmp_path / "broken.pem"
    broken.write_text("none")
    guarded = listener(app, tls_cert=str(broken), tls_key=str(broken), client_ca=str(broken))
    with pytest.raises(ConfigError, match=r"^streams\.audiosocket: "):
        async with listening(app, audiosocket=guarded):
            pass
