"""Bare samples over WebSocket while the object store, the journal or the server itself fails."""

import asyncio

import pytest
from aiohttp import WSMsgType

from tests.clients.streams import node_stream
from tests.clients.vault import refusal, renamed, vault_at
from tests.helpers.recorder import durable_bytes, serving, until
from tests.helpers.server import make_site, zygote
from tests.helpers.soak import sample
from tests.helpers.stores import Fault
from tests.helpers.websocket_recorders import ASTERISK, JAMBONZ, RECORDERS, samples
from vault.format.journal import OVERHEAD_BYTES


async def test_an_object_store_that_is_dead_for_the_whole_call_is_not_noticed(tmp_path, monkeypatch):
    site = await make_site(tmp_path, segments={"max_bytes": "16KiB", "max_age": "100ms"})
    async with serving(site, monkeypatch) as (http, _, store), vault_at(site, http.client._base_url) as vault:
        store.fault = Fault.LOST
        audio = samples(50_000)
        async with vault.stream(JAMBONZ) as socket:
            await socket.send(JAMBONZ.first[0])
            for at in range(0, len(audio), 4_000):
                await socket.send(audio[at : at + 4_000])
            await until(lambda: store.refused > 1)
            await socket.send(audio)
        assert socket.close_code == 1000
        assert await vault.play(JAMBONZ.key) == audio * 2
        assert (await vault.head(JAMBONZ.key))[1] == "open"
        store.fault = Fault.NONE
        await vault.keeps(JAMBONZ.key, audio * 2)


async def test_a_full_journal_turns_new_calls_away_and_those_under_way_go_on(tmp_path, monkeypatch):
    site = await make_site(
        tmp_path, journal={"max_bytes": "1MiB", "file_bytes": "64KiB"}, segments={"max_bytes": "16KiB"}
    )
    async with serving(site, monkeypatch) as (http, vault, store), vault_at(site, http.client._base_url) as served:
        store.fault = Fault.LOST
        sent = b""
        async with served.stream(ASTERISK) as under_way:
            await under_way.send(ASTERISK.first[0])
            while vault.journal.refusal() is None:
                await under_way.send(ASTERISK.audio * 16)
                sent += ASTERISK.audio * 16
                await until(lambda: durable_bytes(vault, ASTERISK.key) == len(sent))  # noqa: B023  # awaited here
            async with served.stream(JAMBONZ) as socket:
                await socket.send(JAMBONZ.first[0])
                code, reason = await refusal(socket)
            assert code == 1013
            assert "of the 1 MiB that journal.max_bytes permits" in reason
            await under_way.send(ASTERISK.audio)
            sent += ASTERISK.audio
        assert under_way.close_code == 1000
        store.fault = Fault.NONE
        await served.keeps(ASTERISK.key, sent)


async def test_the_end_of_a_call_waits_for_room_in_the_journal_as_its_audio_does(tmp_path, monkeypatch):
    site = await make_site(
        tmp_path, journal={"max_bytes": "1MiB", "file_bytes": "64KiB"}, segments={"max_bytes": "16KiB"}
    )
    async with serving(site, monkeypatch) as (http, vault, store), vault_at(site, http.client._base_url) as served:
        store.fault = Fault.LOST
        committer, sent = vault.journal._committer, 0

        async def say(size):
            nonlocal sent
            sent += size
            await socket.send(bytes(size))
            await until(lambda: durable_bytes(vault, ASTERISK.key) == sent)

        async with served.stream(ASTERISK) as socket:
            await socket.send(ASTERISK.first[0])
            await say(4_000)
            while sum(file.allocated for file in committer.files) + committer.current.capacity <= (1 << 20):
                await say(16_000)
            while (left := committer.current.capacity - committer.current.end) > 8_000:
                await say(4_000)
            await say(left - OVERHEAD_BYTES)  # not a byte is left
            finish, tried = vault.ingest.finish, asyncio.Event()

            def finishing(session, **how):
                tried.set()
                return finish(session, **how)

            monkeypatch.setattr(vault.ingest, "finish", finishing)
            closing = asyncio.create_task(socket.close())
            await tried.wait()
            store.fault = Fault.NONE
            await closing
        assert socket.close_code == 1000
        await served.keeps(ASTERISK.key, bytes(sent))


@pytest.mark.soak
async def test_a_server_killed_in_the_middle_of_calls_keeps_what_was_durable_and_they_go_on(tmp_path):
    """One half of the recorders comes back within the grace, the other does not."""
    site = await make_site(tmp_path, server={"resume_grace": "5s"}, segments={"max_age": "200ms"})
    recorders = [renamed(recorder) for recorder in sample(list(RECORDERS.values()), 2, of="killed recorders")]
    lasting = recorders[::2]
    with zygote() as process:
        server = process.start(site)
        async with vault_at(site, server.url) as vault:
            durable = await _killed_under(vault, server, recorders)
        server = process.start(site)
        async with vault_at(site, server.url) as vault:
            for recorder in recorders:
                assert recorder.audio.startswith(await vault.play(recorder.key))
            for recorder in lasting:
                # A recorder that reconnects cannot ask how much is durable: it goes on with what it says now.
                assert await vault.speak(recorder) == 1000
            for recorder in recorders:
                size = durable[recorder.key]
                recording = await vault.ends_as(recorder.key, "sealed" if recorder in lasting else "truncated")
                audio = await vault.play(recorder.key)
                assert recording == durable[recorder.key, "id"]
                kept = audio.removesuffix(recorder.audio) if recorder in lasting else audio
                assert len(kept) >= size
                assert recorder.audio.startswith(kept)


async def _killed_under(vault, server, recorders):
    """Kill the server while every recorder is speaking; return what had been durable, and the recordings' ids."""
    durable = {}
    streams = []
    try:
        for recorder in recorders:
            stream = node_stream(vault.address(recorder.query), token=vault.token, subprotocols=recorder.subprotocols)
            streams.append((stream, await stream.__aenter__()))
        for recorder, (_, stream) in zip(recorders, streams, strict=True):
            stream.say(*recorder.messages[: len(recorder.first) + 2])
        for recorder in recorders:
            durable[recorder.key, "id"] = await vault.durable(recorder.key, 2 * recorder.message_bytes)
            durable[recorder.key] = 2 * recorder.message_bytes
        for recorder, (_, stream) in zip(recorders, streams, strict=True):
            stream.say(*recorder.messages[len(recorder.first) + 2 :])
        await asyncio.sleep(0.02)
        assert server.kill() == -9
        for _, stream in streams:
            assert (await stream.closed())[0] == 1006
    finally:
        for context, _ in streams:
            await context.__aexit__(None, None, None)
    return durable


async def test_a_recorder_that_is_silent_and_answers_pings_is_waited_for(tmp_path):
    """jambonz and FreeSWITCH send nothing while a call is paused, and never reconnect."""
    site = await make_site(tmp_path, server={"idle_timeout": "300ms", "resume_grace": "60s"})
    with zygote() as process:
        server = process.start(site)
        async with vault_at(site, server.url) as vault:
            async with vault.stream(JAMBONZ) as socket:
                await socket.send(JAMBONZ.first[0])
                await socket.send(b"ab" * 100)
                await asyncio.sleep(1.5)  # five idle times
                await socket.send(b"cd" * 100)
            assert socket.close_code == 1000
            await vault.keeps(JAMBONZ.key, b"ab" * 100 + b"cd" * 100)


async def test_a_recorder_that_answers_no_ping_is_given_up_and_may_come_back(tmp_path):
    site = await make_site(tmp_path, server={"idle_timeout": "300ms", "resume_grace": "60s"})
    with zygote() as process:
        server = process.start(site)
        async with vault_at(site, server.url) as vault:
            headers = site.auth("recorder")
            async with vault.client.ws_connect(
                vault.address(), headers=headers, protocols=["audio.jambonz.org"], autoping=False, autoclose=False
            ) as mute:
                await mute.send_str(JAMBONZ.first[0])
                await mute.send_bytes(b"ab" * 100)
                kinds = [(await mute.receive(timeout=5)).type for _ in range(2)]
                assert kinds == [WSMsgType.PING, WSMsgType.CLOSE]
                assert mute.close_code == 1001
            assert (await vault.head(JAMBONZ.key))[:2] == (200, "open")
            async with vault.stream(JAMBONZ) as socket:
                await socket.send(JAMBONZ.first[0])
                await socket.send(b"cd" * 100)
            await vault.keeps(JAMBONZ.key, b"ab" * 100 + b"cd" * 100)
