"""Recorders that send bare samples, spoken by two WebSocket clients that nobody here wrote, to a served vault."""

import asyncio
from dataclasses import replace

import pytest
from websockets.exceptions import InvalidStatus

from tests.clients.streams import lws_fork, node_stream
from tests.clients.vault import refusal, renamed, vault_at
from tests.helpers.server import bearer, log_of, make_site, zygote
from tests.helpers.websocket_recorders import AUDIO_FORK, AUDIO_STREAM, JAMBONZ, RECORDERS, VONAGE, samples, text
from vault.protocol.live.binary import SUBPROTOCOLS

pytestmark = pytest.mark.xdist_group("binary_recorders")
LIMIT = 1_000_000
EVERY = pytest.mark.parametrize("recorder", RECORDERS.values(), ids=RECORDERS)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("recorders")
    return asyncio.run(
        make_site(directory, server={"resume_grace": "2s", "max_recording_bytes": f"{LIMIT}B"}, log={"level": "DEBUG"})
    )


@pytest.fixture(scope="module")
def server(site):
    with zygote() as process:
        yield process.start(site)


@pytest.fixture
async def vault(site, server):
    async with vault_at(site, server.url) as each:
        yield each


# -- whole calls -----------------------------------------------------------------------------------------------------


@EVERY
async def test_every_recorders_call_is_kept_as_it_was_sent(vault, recorder):
    counter = f'callvault_ingest_bytes_total{{dialect="{recorder.dialect}"}}'
    before = await vault.metric(counter)
    assert await vault.speak(recorder) == 1000
    await vault.keeps(recorder.key, recorder.audio)
    assert await vault.metric(counter) - before == len(recorder.audio)
    shown = await vault.shown(recorder.key)
    call, media = shown["call"], shown["media"]
    assert (call["caller"], call["called"], call["direction"]) == (recorder.caller, recorder.called, recorder.direction)
    assert (media["codec"], media["rate"], media["channels"]) == (
        recorder.media.codec,
        recorder.media.rate,
        recorder.media.channels,
    )


@pytest.mark.parametrize("deflate", [True, False], ids=["deflate", "plain"])
async def test_every_recorders_call_is_kept_from_node_too(vault, deflate):
    async def call(recorder):
        async with node_stream(
            vault.address(recorder.query), token=vault.token, subprotocols=recorder.subprotocols, deflate=deflate
        ) as stream:
            assert stream.opened["open"] == {
                "protocol": recorder.subprotocols[0] if recorder.subprotocols else "",
                "extensions": "permessage-deflate" if deflate else "",
            }
            stream.say(*recorder.messages)
            assert await stream.close() == (1000, "")
        await vault.keeps(recorder.key, recorder.audio)

    async with asyncio.TaskGroup() as group:
        for recorder in RECORDERS.values():
            group.create_task(call(renamed(recorder)))


@pytest.mark.parametrize("recorder", [JAMBONZ, AUDIO_FORK], ids=["jambonz", "mod_audio_fork"])
@pytest.mark.parametrize(
    ("end", "closed", "state"),
    [("close", "", "sealed"), ("graceful", "closed 1000", "sealed"), ("hang", None, "truncated")],
)
async def test_the_library_that_freeswitch_speaks_with_is_understood(vault, recorder, end, closed, state):
    recorder = renamed(recorder)
    async with lws_fork(vault.address(recorder.query), recorder, token=vault.token, end=end) as fork:
        assert [await fork.hears(), await fork.hears()] == ["open", "sent"]
        if closed is None:
            await vault.durable(recorder.key, len(recorder.audio))
            await fork.kill()
        else:
            assert await fork.hears() == closed
    await vault.keeps(recorder.key, recorder.audio, state)


async def test_what_jambonz_appends_to_the_address_to_record_every_call_lands_in_the_query(vault):
    """jambonz-feature-server, lib/utils/background-task-manager.js: `/record/` and the vendor of the bucket."""
    recorder = replace(JAMBONZ, key="every-call", first=(JAMBONZ.first[0].replace(JAMBONZ.key, "every-call"),))
    address = f"{vault.address()}?jambonz=/record/s3_compatible"
    async with lws_fork(address, recorder, token=vault.token, end="close") as fork:
        assert [await fork.hears(), await fork.hears(), await fork.hears()] == ["open", "sent", ""]
    await vault.keeps("every-call", recorder.audio)


async def test_libwebsockets_is_refused_before_the_upgrade_too(vault):
    async with lws_fork(vault.address(), JAMBONZ, token="cv_wrong", end="close") as fork:
        assert await fork.hears() == "refused"


async def test_compressed_audio_is_kept_uncompressed(vault):
    recorder, silence = renamed(JAMBONZ), bytes(640 * 500)
    async with vault.stream(recorder, compression="deflate") as socket:
        assert "permessage-deflate" in socket.response.headers["Sec-WebSocket-Extensions"]
        await socket.send(recorder.first[0])
        for at in range(0, len(silence), 640):
            await socket.send(silence[at : at + 640])
    await vault.keeps(recorder.key, silence)


async def test_audio_cut_in_the_middle_of_samples_is_kept_whole(vault):
    recorder, audio, at, sizes = renamed(JAMBONZ), samples(20_000), 0, [1, 2, 3, 5, 7, 641, 4_097]
    async with vault.stream(recorder) as socket:
        await socket.send(recorder.first[0])
        while at < len(audio):
            size = sizes[at % len(sizes)]
            # In fragments of one message, too (RFC 6455 section 5.4).
            await socket.send([audio[at : at + size], audio[at + size : at + 2 * size]])
            at += 2 * size
        await socket.send(b"\1\2\3")
    await vault.keeps(recorder.key, audio)


@pytest.mark.parametrize("recorder", [JAMBONZ, AUDIO_STREAM], ids=["jambonz", "mod_audio_stream"])
async def test_an_empty_message_ends_the_call_and_the_server_closes_once_it_is_durable(vault, recorder):
    recorder = renamed(recorder)
    async with vault.stream(recorder) as socket:
        for message in [*recorder.messages, b""]:
            await socket.send(message)
        assert await refusal(socket) == (1000, "")
        assert (await vault.head(recorder.key))[0] == len(recorder.audio)
    await vault.keeps(recorder.key, recorder.audio)


@pytest.mark.parametrize("gone", [True, False], ids=["hangs up", "says nothing"])
async def test_a_recorder_that_does_not_answer_the_close_is_no_defect_of_the_server(vault, gone):
    recorder = renamed(JAMBONZ)
    head = (
        f"GET {vault.address(recorder.query).removeprefix(vault.url.replace('http', 'ws'))} HTTP/1.1\r\n"
        f"Host: vault\r\nAuthorization: Bearer {vault.token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    first = recorder.first[0].encode()
    port = int(vault.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\x81\xfe" + len(first).to_bytes(2, "big") + bytes(4) + first + b"\x82\x80" + bytes(4))
    assert await reader.readexactly(2) == b"\x88\x02"  # the call has ended, and the server closes
    if gone:
        writer.close()
    else:
        assert await reader.read() == b"\x03\xe8"
    await vault.forgets(recorder.key)
    writer.close()
    assert [line for line in log_of(vault.site).splitlines() if '"level":"error"' in line] == []


async def test_a_close_without_a_code_is_a_clean_end(vault):
    recorder = renamed(JAMBONZ)
    async with node_stream(vault.address(recorder.query), token=vault.token) as stream:
        stream.say(*recorder.messages)
        await stream.close(None)
    await vault.keeps(recorder.key, recorder.audio)


async def test_a_second_stream_of_an_ended_call_becomes_a_recording_of_its_own(vault):
    recorder = renamed(JAMBONZ)
    await vault.speak(recorder)
    await vault.speak(recorder)
    first = await vault.keeps(recorder.key, recorder.audio)
    assert await vault.keeps(f"{recorder.key}~2", recorder.audio) != first


# -- interruptions ---------------------------------------------------------------------------------------------------


@EVERY
async def test_a_recorder_that_comes_back_within_the_grace_continues_its_recording(vault, recorder):
    recorder = renamed(recorder)
    sent = recorder.message_bytes * 2
    async with vault.stream(recorder) as socket:
        for message in recorder.messages[: len(recorder.first) + 2]:
            await socket.send(message)
        recording = await vault.durable(recorder.key, sent)
        socket.transport.abort()
    async with vault.stream(recorder) as socket:
        for message in [*recorder.first, recorder.audio[sent:]]:
            await socket.send(message)
    assert await vault.keeps(recorder.key, recorder.audio) == recording


async def test_any_other_close_leaves_what_came_and_says_truncated(vault):
    async def call(recorder, code):
        async with vault.stream(recorder) as socket:
            for message in recorder.messages:
                await socket.send(message)
            await socket.close(code)
        await vault.keeps(recorder.key, recorder.audio, "truncated")

    async with asyncio.TaskGroup() as group:
        for recorder, code in zip(RECORDERS.values(), [1001, 1002, 1007, 1011, 3000, 4000], strict=True):
            group.create_task(call(renamed(recorder), code))


async def test_a_client_killed_in_the_middle_of_its_call_leaves_what_came(vault):
    async def call(recorder):
        async with node_stream(
            vault.address(recorder.query), token=vault.token, subprotocols=recorder.subprotocols
        ) as stream:
            stream.say(*recorder.messages)
            await stream.said()
            await vault.durable(recorder.key, len(recorder.audio))
            await stream.kill()
        await vault.keeps(recorder.key, recorder.audio, "truncated")

    async with asyncio.TaskGroup() as group:
        for recorder in RECORDERS.values():
            group.create_task(call(renamed(recorder)))


@pytest.mark.parametrize("code", [None, 1000])
async def test_what_came_before_the_connection_was_gone_is_kept_with_a_ping_among_it(vault, code):
    recorder = renamed(JAMBONZ)
    async with vault.stream(recorder) as socket:
        # While the recording is only being begun, everything comes, and then the connection goes.
        await socket.send(recorder.first[0])
        await socket.ping()
        await socket.send(recorder.audio)
        if code is not None:
            socket.transport.write(b"\x88\x82\0\0\0\0" + code.to_bytes(2, "big"))
        socket.transport.write_eof()
        await socket.wait_closed()
    await vault.keeps(recorder.key, recorder.audio, "truncated" if code is None else "sealed")


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ("hello", "?call_key="),
        (b"\0\0", "?call_key="),
        ('{"sampleRate":"high","callSid":"c"}', "sampleRate is not a number"),
        ('{"sampleRate":8000}', "names no call"),
        ('{"sampleRate":8000,"callSid":"c","mixType":"5.1"}', "mixType is mono, mixed or stereo"),
        ("MEDIA_START channel_id:1.2 format:opus", "c(ulaw)"),
        ('{"event":"websocket:connected","content-type":"audio/opus","uuid":"u"}', "audio/l16;rate=16000"),
    ],
)
async def test_what_cannot_be_recorded_is_closed_with_1008_and_says_why(vault, first, reason):
    before = await vault.metric("callvault_ingest_refused_total")
    async with vault.stream(VONAGE) as socket:
        await socket.send(first)
        code, said = await refusal(socket)
    assert code == 1008
    assert reason in said
    assert await vault.metric("callvault_ingest_refused_total") == before + 1
    assert await vault.head("c") is None


async def test_what_is_too_large_is_closed_with_1009_and_not_kept_in_part(vault):
    audio = samples(40_000)
    for messages, kept in (([audio, bytes(300_000)], audio), ([audio] * 13, audio * 12)):
        recorder = renamed(JAMBONZ)
        async with vault.stream(recorder) as socket:
            await socket.send(recorder.first[0])
            for message in messages:
                await socket.send(message)
            assert (await refusal(socket))[0] == 1009
        await vault.keeps(recorder.key, kept, "truncated")


@EVERY
async def test_a_token_that_may_not_record_is_refused_before_the_upgrade(vault, recorder):
    agent = vault.site.tokens["agent"]
    # Basic is for recorders' tokens alone: as its password, another role's is no credential at all.
    for token, headers, status in (
        *(("cv_wrong", bearer("cv_wrong"), 401), ("cv_wrong", {}, 401)),
        *((agent, bearer(agent), 403), (agent, {}, 401)),
    ):
        with pytest.raises(InvalidStatus) as caught:
            async with vault.stream(recorder, token="" if headers else token, headers=headers):
                pass
        assert caught.value.response.status_code == status


@pytest.mark.parametrize("offered", sorted(SUBPROTOCOLS))
async def test_the_subprotocol_that_a_freeswitch_module_asks_for_is_agreed_to(vault, offered):
    recorder = renamed(replace(AUDIO_FORK, subprotocols=(offered,)))
    async with vault.stream(recorder) as socket:
        assert socket.subprotocol == offered
        for message in recorder.messages:
            await socket.send(message)
    await vault.keeps(recorder.key, recorder.audio)


async def test_a_subprotocol_that_nobody_knows_is_not_repeated_in_the_log(vault):
    """Browsers can send no header, so a token in its place is a habit."""
    recorder = renamed(VONAGE)
    offered = {"Sec-WebSocket-Protocol": f"bearer.{vault.token}"}
    async with vault.client.ws_connect(
        vault.address(recorder.query), headers={**bearer(vault.token), **offered}
    ) as socket:
        for message in recorder.first:
            await socket.send_str(message)
        await socket.send_bytes(recorder.audio)
    await vault.keeps(recorder.key, recorder.audio)
    assert vault.token not in log_of(vault.site)


@EVERY
async def test_without_any_token_nothing_is_recorded(vault, recorder):
    recorder = renamed(recorder)
    if recorder.subprotocols:  # who speaks one can send a header, and is told before the upgrade
        with pytest.raises(InvalidStatus) as caught:
            async with vault.stream(recorder, token=""):
                pass
        assert caught.value.response.status_code == 401
    else:
        async with vault.stream(recorder, token="") as socket:
            await socket.send(recorder.messages[0])
            code, reason = await refusal(socket)
        assert (code, reason[:18]) == (1008, "this needs a token")
    assert await vault.head(recorder.key) is None


async def test_vonages_token_opens_the_vault_and_no_other_does(vault):
    def said(token):
        return text(event="websocket:connected", **{"content-type": "audio/l16;rate=8000"}, token=token, uuid="u-1")

    async with vault.stream(VONAGE, token="") as socket:
        await socket.send(said(vault.token))
        await socket.send(VONAGE.audio)
    await vault.keeps("u-1", VONAGE.audio)
    head = vault.token[: vault.token.index("_", 3)]
    for token in ("cv_wrong", vault.site.tokens["agent"], "", "cv_\ud800_x", f"{head}_\ud800", f"{head}\0_x"):
        async with vault.stream(VONAGE, token="") as socket:
            await socket.send(said(token))
            code, reason = await refusal(socket)
        assert code == 1008
        assert not token or token not in reason
    log = log_of(vault.site)
    assert vault.token not in log
    assert [line for line in log.splitlines() if '"level":"error"' in line] == []
