"""Calls of `streamdouble`, a simulator of Twilio's Media Streams, and Telnyx's messages over a real WebSocket."""

import asyncio
import base64
import json
import random
import sys
import wave

import pytest
from websockets.asyncio.client import connect

from tests.clients.vault import refusal, vault_at
from tests.helpers.recorder import durable_bytes, serving
from tests.helpers.server import PURPOSE, TENANT, log_of, make_site, zygote
from tests.helpers.stores import Fault
from tests.transcripts import transcript
from vault.media import g711
from vault.media.tracks import interleaved
from vault.media.wav import wav_header
from vault.model import Codec
from vault.protocol.live.events import MOST

PIECE = 160
CODES = bytes(code for code in range(256) if code not in (0x7F, 0xFF))  # every sample but silence
pytestmark = pytest.mark.xdist_group("media streams")
GRACE = {"server": {"resume_grace": "1s", "idle_timeout": "1s"}, "segments": {"max_age": "300ms"}}


class Voices:
    """What the two say: µ-law that survives being a WAV file on the way."""

    def __init__(self, directory, *, seconds):
        chance = random.Random(5)
        self.caller, self.callee = (bytes(chance.choices(CODES, k=8_000 * seconds)) for _ in range(2))
        self.paths = directory / "caller.wav", directory / "callee.wav"
        for path, codes in zip(self.paths, (self.caller, self.callee), strict=True):
            with wave.open(str(path), "wb") as out:
                out.setparams((1, 2, 8_000, 0, "NONE", ""))
                out.writeframes(g711.decode(Codec.PCMU, codes))

    @property
    def stereo(self):
        return bytes(code for pair in zip(self.caller, self.callee, strict=True) for code in pair)


async def streamdouble(vault, voices, key, *options, token=None, track="both"):
    """Start a call; its custom parameters say what a header cannot."""
    tracks = {"inbound": ("--audio",), "both": ("--audio", "--agent-audio")}[track]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "streamdouble.cli", "call", vault.address()),
        *("--fork", "--track", track, "--strict-fork", "--json", "--quiet-period", "0.1"),
        *(word for option, path in zip(tracks, voices.paths, strict=False) for word in (option, str(path))),
        *("--param", f"token={token or vault.token}", "--param", f"call_key={key}", "--param", "from=+441632960001"),
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def outcome(process):
    """Return the simulator's own figures; like Twilio it does not mind how a fork ends, and exits with 0."""
    out, problems = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, (out, problems)
    return json.loads(out)


async def wav(vault, recording):
    url, headers = f"{vault.url}/v1/recordings/{recording}/audio", vault.site.auth("agent", **PURPOSE)
    async with vault.client.get(url, headers=headers) as answer:
        assert answer.status == 200
        return await answer.read()


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    return Voices(tmp_path_factory.mktemp("voices"), seconds=1)


@pytest.fixture(scope="module")
def long_voices(tmp_path_factory):
    """A call long enough for something to happen in its midst, however slow the machine is."""
    return Voices(tmp_path_factory.mktemp("voices"), seconds=5)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return asyncio.run(make_site(tmp_path_factory.mktemp("streams"), **GRACE))


@pytest.fixture(scope="module")
def servers():
    with zygote() as process:
        yield process


@pytest.fixture(scope="module")
def server(site, servers):
    yield servers.start(site)
    assert site.tokens["recorder"] not in log_of(site)


@pytest.fixture
async def vault(site, server):
    async with vault_at(site, server.url) as each:
        yield each


async def test_a_call_of_both_tracks_plays_as_stereo_with_the_caller_on_the_left(vault, voices):
    calls = {f"both-{number}": await streamdouble(vault, voices, f"both-{number}") for number in range(2)}
    for key, call in calls.items():
        assert (await outcome(call))["frames_sent"] == 2 * len(voices.caller) // PIECE
        recording = await vault.keeps(key, voices.stereo)
        samples = g711.decode(Codec.PCMU, voices.stereo)
        assert await wav(vault, recording) == wav_header(rate=8_000, channels=2, data_bytes=len(samples)) + samples
        shown = await vault.shown(key)
        assert shown["call"]["caller"] == "+441632960001"
        assert vault.token not in json.dumps(shown)
    assert await vault.metric('callvault_ingest_bytes_total{dialect="twilio"}') >= 2 * len(voices.stereo)


async def test_a_call_of_one_track_is_kept_as_it_is(vault, voices):
    figures = await outcome(await streamdouble(vault, voices, "one", track="inbound"))
    assert figures["frames_sent"] == len(voices.caller) // PIECE
    await vault.keeps("one", voices.caller)
    assert (await vault.shown("one"))["media"]["channels"] == 1


async def test_frames_that_the_network_lost_are_silence_and_everything_else_is_in_its_place(vault, voices):
    weather = ("--packet-loss", "0.2", "--jitter", "60", "--chaos-seed", "7")
    figures = await outcome(await streamdouble(vault, voices, "lossy", *weather))
    await vault.ends_as("lossy", "sealed")
    audio = await vault.play("lossy")
    assert audio[1::2] == voices.callee
    caller = audio[0::2]
    pieces = [(caller[at : at + PIECE], voices.caller[at : at + PIECE]) for at in range(0, len(caller), PIECE)]
    lost = sum(heard == b"\xff" * PIECE for heard, _ in pieces)
    assert lost == figures["frames_dropped"] > 0
    assert all(heard in (said, b"\xff" * PIECE) for heard, said in pieces)


async def test_a_call_without_a_usable_token_leaves_nothing_behind(vault, voices):
    figures = await outcome(await streamdouble(vault, voices, "stranger", token="cv_wrong"))
    assert figures["closed_by"] == "agent"
    assert figures["frames_sent"] < 2 * len(voices.caller) // PIECE
    assert await vault.head("stranger") is None
    code, reason = await refused(vault, telnyx("cv_wrong", "v3:stranger"))
    assert code == 1008
    assert "cv_wrong" not in reason


async def test_a_recorder_killed_in_mid_call_leaves_what_it_had_said_and_truncated(vault, long_voices):
    call = await streamdouble(vault, long_voices, "killed")
    await vault.durable("killed", 4_000)
    call.kill()
    await call.communicate()
    await vault.ends_as("killed", "truncated")
    audio = await vault.play("killed")
    assert 4_000 <= len(audio) < len(long_voices.stereo)
    assert long_voices.stereo.startswith(audio)


async def test_a_call_outlives_a_killed_server_and_continues_under_its_name(tmp_path, servers, voices, long_voices):
    site = await make_site(tmp_path, server={"resume_grace": "20s"}, segments={"max_age": "300ms"})
    server = servers.start(site)
    async with vault_at(site, server.url) as vault:
        call = await streamdouble(vault, long_voices, "call")
        await vault.durable("call", 4_000)
        assert server.kill() == -9
    assert (await outcome(call))["closed_early"]
    server = servers.start(site)
    async with vault_at(site, server.url) as vault:
        first = await vault.play("call")
        assert 4_000 <= len(first) < len(long_voices.stereo)
        assert long_voices.stereo.startswith(first)
        await outcome(await streamdouble(vault, voices, "call"))
        await vault.keeps("call", first + voices.stereo)


async def test_an_object_store_that_is_dead_for_the_whole_call_is_not_noticed(tmp_path, monkeypatch, voices):
    site = await make_site(tmp_path, segments={"max_bytes": "8KiB", "max_age": "200ms"})
    async with (
        serving(site, monkeypatch) as (recorder, served, store),
        vault_at(site, recorder.client._base_url) as vault,
    ):
        store.fault = Fault.LOST
        figures = await outcome(await streamdouble(vault, voices, "call"))
        assert figures["frames_sent"] == 2 * len(voices.caller) // PIECE
        assert store.refused > 0
        assert durable_bytes(served, "call") == len(voices.stereo)
        store.fault = Fault.NONE
        await vault.keeps("call", voices.stereo)


async def test_a_catalog_that_takes_longer_than_a_recorder_may_be_silent_costs_no_call(tmp_path, monkeypatch, voices):
    site = await make_site(tmp_path, server={"idle_timeout": "300ms"})
    async with (
        serving(site, monkeypatch) as (recorder, served, _),
        vault_at(site, recorder.client._base_url) as vault,
    ):
        create = served.catalog.create_recording

        async def late(*args, **words):
            await asyncio.sleep(0.9)
            return await create(*args, **words)

        monkeypatch.setattr(served.catalog, "create_recording", late)
        hello, pieces = telnyx(vault.token, "v3:late"), spoken(voices, range(50))
        assert await refused(vault, (*hello, *pieces, STOP)) == (1000, "")
        await vault.keeps("v3:late", voices.stereo)


# -- Telnyx, whose messages a plain WebSocket client sends -------------------------------------------------------


def telnyx(token, call):
    connected, start, *_ = (json.loads(message) for message in transcript("telnyx"))
    connected["connected"]["x-telnyx-streaming-auth-token"] = token
    start["start"]["call_control_id"] = call
    return [json.dumps(connected), json.dumps(start)]


def spoken(voices, order):
    """Return the media messages of both tracks, in this order of their pieces."""
    messages = []
    for number in order:
        for track, codes in (("inbound", voices.caller), ("outbound", voices.callee)):
            piece = base64.b64encode(codes[number * PIECE : (number + 1) * PIECE]).decode()
            media = {"track": track, "chunk": str(number + 1), "timestamp": str(number * 20), "payload": piece}
            messages.append(json.dumps({"event": "media", "sequence_number": str(number), "media": media}))
    return messages


async def refused(vault, messages):
    """Send them and return the code and reason with which the server closes."""
    async with connect(vault.address()) as socket:
        for message in messages:
            await socket.send(message)
        return await refusal(socket)


STOP = transcript("telnyx")[-1]


async def test_a_call_of_telnyx_is_put_in_order_and_closed_once_it_is_durable(vault, voices):
    order = sorted(range(len(voices.caller) // PIECE), key=lambda number: number + random.Random(number).randrange(8))
    messages = (*telnyx(vault.token, "v3:order"), *spoken(voices, order), STOP)
    assert await refused(vault, messages) == (1000, "")
    assert (await vault.head("v3:order"))[0] == len(voices.stereo)
    await vault.keeps("v3:order", voices.stereo)


async def test_a_long_hole_in_wide_audio_is_filled_and_ends_no_call(vault):
    connected, start = telnyx(vault.token, "v3:wide")
    opened = json.loads(start)
    opened["start"]["media_format"] = {"encoding": "L16", "sample_rate": 48_000, "channels": 1}
    piece = bytes(range(1, 193)) * 10

    def said(chunk, at_ms):
        media = {"track": "inbound", "chunk": chunk, "timestamp": at_ms, "payload": base64.b64encode(piece).decode()}
        return json.dumps({"event": "media", "media": media})

    assert await refused(vault, (connected, json.dumps(opened), said(1, 0), said(2, 9_000), STOP)) == (1000, "")
    heard = piece.ljust(9 * 96_000, b"\0") + piece
    await vault.keeps("v3:wide", interleaved([heard, bytes(len(heard))], 2))


async def test_a_recorder_that_comes_back_for_the_same_call_continues_its_recording(vault, voices):
    hello = telnyx(vault.token, "v3:again")
    async with connect(vault.address()) as socket:
        for message in (*hello, *spoken(voices, range(20))):
            await socket.send(message)
        recording = await vault.durable("v3:again", 20 * 2 * PIECE)
        socket.transport.abort()
    assert await refused(vault, (*hello, *spoken(voices, range(20)), STOP)) == (1000, "")
    assert await vault.keeps("v3:again", 2 * voices.stereo[: 20 * 2 * PIECE]) == recording


async def test_a_recorder_that_falls_silent_loses_nothing_of_what_waited_for_order(vault, voices):
    messages = (*telnyx(vault.token, "v3:silent"), *spoken(voices, [0, 1, 3]))
    await refused(vault, messages)
    heard = voices.stereo[: 4 * 2 * PIECE]
    lost = slice(2 * 2 * PIECE, 3 * 2 * PIECE)
    kept = heard[: lost.start] + b"\xff" * 2 * PIECE + heard[lost.stop :]
    await vault.keeps("v3:silent", kept, state="truncated")


NONSENSE = '{"event":"media","media":{"track":"inbound","chunk":"30","timestamp":"0","payload":"?"}}'


async def test_a_message_that_makes_no_sense_does_not_end_the_call(vault, voices):
    first, second = spoken(voices, range(10)), spoken(voices, range(10, 20))
    assert await refused(vault, (*telnyx(vault.token, "v3:nonsense"), *first, NONSENSE, *second, STOP)) == (1000, "")
    await vault.keeps("v3:nonsense", voices.stereo[: 20 * 2 * PIECE])


async def test_what_waited_for_order_when_nothing_but_nonsense_came_is_kept(vault, voices):
    messages = (*telnyx(vault.token, "v3:waiting"), *spoken(voices, [*range(20), 21]), *[NONSENSE] * (MOST + 1))
    code, reason = await refused(vault, messages)
    assert (code, "could not be read (the last: payload)" in reason) == (1008, True)
    heard = voices.stereo[: 22 * 2 * PIECE]
    hole = slice(20 * 2 * PIECE, 21 * 2 * PIECE)
    kept = heard[: hole.start] + b"\xff" * 2 * PIECE + heard[hole.stop :]
    await vault.keeps("v3:waiting", kept, state="truncated")


async def test_what_waits_for_the_other_track_when_a_pause_ends_came_during_the_pause_and_is_not_kept(vault, voices):
    def of(track, numbers):
        return [message for message in spoken(voices, numbers) if track in message]

    async def turn(verb):
        address = f"{vault.url}/v1/ingest/{TENANT}/v3:paused/{verb}"
        async with vault.client.post(address, headers=vault.site.auth("recorder")) as answer:
            assert answer.status == 200

    async with connect(vault.address()) as socket:

        async def say(messages):
            for message in messages:
                await socket.send(message)
            await (await socket.ping())  # the server has read them

        await say((*telnyx(vault.token, "v3:paused"), *spoken(voices, range(2))))
        await turn("pause")
        await say(of('"inbound"', range(2, 9)))
        await turn("resume")
        await say(of('"outbound"', range(2, 9)))
        await say(spoken(voices, range(9, 12)))
        await socket.send(STOP)
        await socket.wait_closed()
    await vault.keeps("v3:paused", voices.stereo[: 4 * PIECE] + voices.stereo[18 * PIECE : 24 * PIECE])


async def test_a_second_recorder_of_a_live_call_is_asked_to_come_back_later(vault, voices):
    hello = telnyx(vault.token, "v3:twice")
    async with connect(vault.address()) as first:
        for message in (*hello, *spoken(voices, range(5))):
            await first.send(message)
        await vault.durable("v3:twice", 5 * 2 * PIECE)
        assert (await refused(vault, hello))[0] == 1013
