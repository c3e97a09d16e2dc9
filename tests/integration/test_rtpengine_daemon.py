"""A real rtpengine-recording (mr13.5 or newer) records calls from their packets: notified, uploaded, and streamed."""

import array
import asyncio
import io
import wave

import pytest
from yarl import URL

from cli.setups import RECORDERS, Place
from tests.helpers.app import SETTINGS, TENANTS, app, running, sound
from tests.helpers.authorities import FILES, write_certificate
from tests.helpers.crashing import memory_directory
from tests.helpers.recorder import durable_bytes, until
from tests.helpers.rtpengine import FRAME, TAG, Call, daemon, recording
from tests.helpers.seaweed import free_ports
from tests.helpers.streams import listener, listening
from tests.helpers.tcp_proxy import Mode, TcpProxy
from vault.media.g711 import decode
from vault.model import Codec, Role

__all__ = ["app"]

CALL = "1-4242@192.0.2.7"
FILE = f"{CALL}-{TAG}-mix.wav"
METADATA = "from:+441632960001|to:01632960100|direction:inbound|queue:admissions"
STREAMED = f"call_key:call-7|{METADATA}"
CALLER, CALLEE = (sound(50 * FRAME, seed) for seed in (1, 2))
ONLY_STREAMS = "[rtpengine-recording]\noutput-storage = none\nmix-method = channels\nmix-num-inputs = 2\n"


@pytest.fixture(autouse=True)
def installed():
    daemon()


def shown(app, name, **place):
    """Return what `callvault recorders show` prints for a recorder that reaches the vault at `place`."""
    url = URL(app.url).with_host(place.get("host", "127.0.0.1")).with_port(place.get("port", URL(app.url).port))
    (file,) = RECORDERS[name].files(Place(url, TENANTS[0], app.token(Role.RECORDER)))
    return file.content


async def called(base, metadata=METADATA, *, times=1, **options):
    """Make a call of two parties who speak `times` over, and hang up."""
    call = Call(base, CALL, metadata, **options)
    call.party("caller", "A")
    call.party("callee", "B")
    await call.say(CALLER * times, CALLEE * times)
    call.hang_up()


async def ended(app, key):
    """Return the row of a recording once it has ended."""
    async with asyncio.timeout(20):
        while (row := await app.vault.search.call(TENANTS[0], key)) is None or row.state.value == "open":
            await asyncio.sleep(0.02)
    return row


async def kept(app, key):
    """Return how a recording is shown once it has ended, and the samples of each of its channels."""
    row = await ended(app, key)
    told = (await app.ask("GET", f"/v1/recordings/{row.id}")).json
    return told, channels_of((await app.play(row.id, raw=False)).body)


def channels_of(audio):
    with wave.open(io.BytesIO(audio)) as file:
        assert file.getframerate() == 8_000
        mixed = array.array("h", file.readframes(file.getnframes()))
        return [mixed[at :: file.getnchannels()] for at in range(file.getnchannels())]


def samples(ulaw):
    return array.array("h", decode(Codec.PCMU, ulaw))


def assert_both_are_heard(channels, *, times=1):
    """Assert that every sample is there; who speaks second begins a packet later, and is cut off by it."""
    first, second = channels
    assert first == samples(CALLER * times)
    assert second == array.array("h", bytes(2 * FRAME)) + samples(CALLEE * times)[:-FRAME]


async def test_a_call_is_notified_with_its_facts_and_what_both_sides_said(app, tmp_path):
    async with recording(tmp_path, shown(app, "rtpengine")):
        await called(tmp_path)
        told, channels = await kept(app, f"{CALL}~{FILE}")
    assert told["state"] == "sealed"
    assert told["call"] == {
        "call_key": f"{CALL}~{FILE}",
        "caller": "+441632960001",
        "called": "+441632960100",
        "direction": "inbound",
        "tags": ["mixed"],
    }
    assert_both_are_heard(channels)


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.DROP_ANSWERS])
async def test_what_could_not_be_delivered_or_was_not_answered_comes_once(app, tmp_path, mode):
    proxy = TcpProxy(URL(app.url).port)
    await proxy.start()
    try:
        await proxy.set(mode)
        async with recording(tmp_path, shown(app, "rtpengine", port=proxy.port)) as said:
            await called(tmp_path, times=40)  # more than a megabyte: the daemon asks before it sends that
            await until(lambda: "Will retry" in said())
            await proxy.set(Mode.FORWARD)
            await until(lambda: "was successful" in said())
    finally:
        await proxy.close()
    (row,) = (await app.ask("GET", "/v1/recordings")).json["recordings"]
    told, channels = await kept(app, f"{CALL}~{FILE}")
    assert (row["id"], row["state"]) == (told["id"], "sealed")
    assert_both_are_heard(channels, times=40)


async def test_a_call_is_uploaded_to_s3_on_any_port(tmp_path):
    with memory_directory() as base:
        write_certificate(base)
        async with running(base, server={**SETTINGS["server"], **FILES, "host": "localhost"}) as app:
            async with recording(tmp_path, shown(app, "rtpengine-s3", host="localhost"), "--s3-no-verify") as said:
                await called(tmp_path)
                row = await ended(app, FILE)
                assert "S3 upload returned" not in said()
            readable = await app.vault.playback.prepare(row, app.vault.keyring.derive(row.audio))
            audio = b"".join([piece async for piece in app.vault.playback.read(readable, 0, readable.length)])
            assert row.state == "sealed"
            assert_both_are_heard(channels_of(audio))


async def test_a_mixed_stream_is_recorded_with_its_facts_and_what_both_sides_said(app, tmp_path):
    async with listening(app, rtpengine=listener(app, channels=2)) as ports:
        words = (f"--tcp-send-to=127.0.0.1:{ports['rtpengine']}", "--tcp-mixed")
        async with recording(tmp_path, ONLY_STREAMS, *words):
            await called(tmp_path, STREAMED, forwarding=True)
            told, channels = await kept(app, "call-7")
    call = told["call"]
    assert (told["state"], call["caller"], call["called"]) == ("sealed", "+441632960001", "+441632960100")
    assert_both_are_heard(channels)


async def test_the_streams_of_a_call_are_recordings_of_their_own(app, tmp_path):
    async with (
        listening(app, rtpengine=listener(app)) as ports,
        recording(tmp_path, ONLY_STREAMS, f"--tcp-send-to=127.0.0.1:{ports['rtpengine']}"),
    ):
        await called(tmp_path, STREAMED, forwarding=True)
        heard = [(await kept(app, key))[1] for key in ("call-7", "call-7:2")]
    # Which of the connections comes first is the network's affair.
    assert sorted(map(list, (channel for (channel,) in heard))) == sorted(map(list, (samples(CALLER), samples(CALLEE))))


async def test_a_stream_goes_on_in_its_recording_when_the_listener_comes_back(app, tmp_path):
    [port] = free_ports(1)
    rtpengine = listener(app, listen=f"127.0.0.1:{port}")
    async with recording(tmp_path, ONLY_STREAMS, f"--tcp-send-to=127.0.0.1:{port}"):
        call = Call(tmp_path, CALL, STREAMED, forwarding=True)
        call.party("caller", "A")
        async with listening(app, rtpengine=rtpengine):
            await call.say(CALLER)
            await until(lambda: durable_bytes(app.vault, "call-7") == 2 * len(CALLER))
        await call.say(CALLEE)
        async with listening(app, rtpengine=rtpengine):
            await call.say(CALLER)
            call.hang_up()
            told, (heard,) = await kept(app, "call-7")
    assert told["state"] == "sealed"
    # It is silent where there was no connection. The daemon notices with a few packets, which are not made up for.
    after = len(CALLER) - 5 * FRAME
    assert heard[: len(CALLER)] == samples(CALLER)
    assert heard[-after:] == samples(CALLER)[-after:]
    assert 0 <= len(CALLER + CALLEE + CALLER) - len(heard) <= 5 * FRAME
