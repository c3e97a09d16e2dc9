"""A frame that cannot be read never costs the call: it is left out, told, counted and in the audit trail."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from tests.helpers.app import PURPOSE, TENANTS, App, app, sound
from tests.helpers.audiohook_client import SESSION, TONE, Client, headers
from tests.helpers.hook_recorders import UUID_FRAME, audio, frame
from tests.helpers.streams import listener, listening
from vault.model import Role
from vault.protocol.live.events import MOST

__all__ = ["app"]

TENANT = TENANTS[0]
VOICE = sound(320)


def media(chunk: int, data: bytes, **members: object) -> str:
    payload = base64.b64encode(data).decode()
    told = {"track": "inbound", "chunk": str(chunk), "timestamp": str(20 * (chunk - 1)), "payload": payload}
    return json.dumps({"event": "media", "media": {**told, **members}})


def start(**members: object) -> str:
    return json.dumps({"event": "start", "start": members})


TWILIO = (
    '{"event":"connected","protocol":"Call","version":"1.0.0"}',
    start(callSid="call-1", tracks=["inbound"], mediaFormat={"encoding": "audio/x-mulaw", "sampleRate": 8000}),
)
TELNYX = (
    '{"event":"connected","version":"1.0.0","connected":{}}',
    start(
        call_control_id="call-1",
        custom_parameters={"tracks": "inbound"},
        media_format={"encoding": "PCMU", "sample_rate": 8000},
    ),
)
VONAGE = ('{"event":"websocket:connected","content-type":"audio/l16;rate=16000","call_uuid":"call-1"}',)
STREAMS = {
    "twilio": (*TWILIO, media(1, VOICE[:160]), media(2, b"", payload="%"), "{", media(2, VOICE[160:])),
    "telnyx": (*TELNYX, media(1, VOICE[:160]), media(2, b"", payload="%"), b"\x00", media(2, VOICE[160:])),
    "vonage": (*VONAGE, VOICE[:160], "{", "[]", VOICE[160:]),
}
STOP = '{"event":"stop"}'


async def streamed(app: App, messages: tuple[str | bytes, ...]) -> tuple[int | None, str]:
    """Send messages and return the server's close; a recorder that says no stop closes itself."""
    sent = {"Authorization": f"Bearer {app.token(Role.RECORDER)}"}
    async with app.client.ws_connect(f"{app.url}/v1/ingest/{TENANT}/ws", headers=sent) as socket:
        for message in messages:
            await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
        if messages[0] in VONAGE:
            await socket.close()
            return socket.close_code, ""
        told = await socket.receive(timeout=5)
        return told.data, str(told.extra)


async def left_out(app: App) -> tuple[bytes, str, list[object]]:
    """Return the audio of the one recording, what it says was left out, and what the audit trail says."""
    for _ in range(200):
        [row] = (await app.ask("GET", "/v1/recordings")).json["recordings"]
        if row["state"] != "open" or app.vault.ingest.live(row["id"]).feed is None:
            break
        await asyncio.sleep(0.01)
    shown = await app.ask("GET", f"/v1/recordings/{row['id']}", Role.AGENT, headers=PURPOSE)
    told = [each["detail"] for each in await app.audit("recording.frames_left_out")]
    return (await app.play(row["id"])).body, shown.json["call"]["frames_left_out"], told


def counted(app: App, dialect: str) -> dict[str, float]:
    return {
        sample.labels["reason"]: sample.value
        for metric in app.vault.metrics.frames_left_out.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels["dialect"] == dialect and sample.value
    }


@pytest.mark.parametrize("dialect", STREAMS)
async def test_a_message_that_cannot_be_read_does_not_end_the_call_and_is_told(app: App, dialect: str) -> None:
    code, _ = await streamed(app, (*STREAMS[dialect], *(() if dialect == "vonage" else (STOP,))))
    assert code == 1000
    why = {"form": 2} if dialect == "vonage" else {"payload": 1, "form": 1}
    kept, told, audit = await left_out(app)
    assert (kept, told) == (VOICE, ", ".join(f"{why[each]} ({each})" for each in sorted(why)))
    assert len(audit) == 2  # the first at once, all at the end
    assert audit[-1] == why
    assert counted(app, dialect) == why


async def test_a_storm_of_them_ends_the_call_with_the_reason_and_keeps_what_came(app: App) -> None:
    broken = media(2, b"", payload="%")
    late = media(3, VOICE[160:])  # waits for the one before it
    code, reason = await streamed(app, (*TWILIO, media(1, VOICE[:160]), late, *[broken] * (MOST + 2)))
    assert code == 1008
    told = reason.partition(" [")[0]
    assert told == f"more than {MOST} frames could not be read (the last: payload); what could be is kept"
    kept, told, _ = await left_out(app)
    assert (kept[:160], kept[-160:], told) == (VOICE[:160], VOICE[160:], f"{MOST} (payload)")


async def test_a_leap_of_the_clock_and_half_a_character_cost_neither_the_call_nor_the_list(app: App) -> None:
    began = TWILIO[0], TWILIO[1].replace("call-1", "call-\\ud83d")
    leap = media(2, VOICE[160:], timestamp="9" * 15)
    assert (await streamed(app, (*began, media(1, VOICE[:160]), *began, leap, STOP)))[0] == 1000
    kept, told, _ = await left_out(app)
    assert (kept, told) == (VOICE, "2 (order)")
    [row] = (await app.ask("GET", "/v1/recordings")).json["recordings"]
    assert row["duration_ms"] == 40


async def test_after_a_restart_what_was_left_out_before_still_counts(app: App) -> None:
    sent = {"Authorization": f"Bearer {app.token(Role.RECORDER)}"}
    for _ in range(2):
        async with app.client.ws_connect(f"{app.url}/v1/ingest/{TENANT}/ws", headers=sent) as socket:
            for message in (*TWILIO, "{", media(1, b"", payload="%"), media(1, VOICE)):
                await socket.send_str(message)
        row = await app.vault.search.call(TENANT, "call-1")
        assert row is not None
        while app.vault.ingest.live(row.id).feed is not None:
            await asyncio.sleep(0.01)
        app.vault.ingest.live(row.id).frames_left_out.clear()  # another process does not know
    assert (await left_out(app))[1] == "2 (form), 2 (payload)"


async def test_an_audiohook_message_that_cannot_be_read_does_not_end_the_session(app: App) -> None:
    client = Client(SESSION)
    url, sent = f"{app.url}/v1/ingest/{TENANT}/audiohook", headers(app.token(Role.RECORDER))
    async with app.client.ws_connect(url, headers=sent) as socket:
        await socket.send_str(client.open())
        assert client.heard((await socket.receive()).data)[0] == "opened"
        await socket.send_bytes(TONE)
        await socket.send_str(client.say("ping")[:-1])
        await socket.send_bytes(TONE)
        await socket.send_str(client.say("close", reason="end"))
        assert client.heard((await socket.receive()).data)[0] == "closed"
    assert (await left_out(app))[:2] == (TONE * 2, "1 (form)")
    assert counted(app, "audiohook") == {"form": 1}


async def test_an_audiosocket_frame_that_cannot_be_kept_does_not_end_the_call(app: App) -> None:
    async with listening(app, audiosocket=listener(app)) as ports:
        _, writer = await asyncio.open_connection("127.0.0.1", ports["audiosocket"])
        writer.write(UUID_FRAME + audio(VOICE[:160]) + audio(b"odd") + audio(VOICE[160:]) + frame(0))
        await writer.drain()
        for _ in range(200):
            if (await app.ask("GET", "/v1/recordings")).json["recordings"]:
                break
            await asyncio.sleep(0.01)
        writer.close()
        assert (await left_out(app))[:2] == (VOICE, "1 (payload)")


async def test_a_recorder_cannot_say_itself_what_was_left_out(app: App) -> None:
    started = json.loads(TWILIO[1])["start"] | {"customParameters": {"frames_left_out": "none"}}
    await streamed(app, (TWILIO[0], start(**started), media(1, VOICE), STOP))
    [row] = (await app.ask("GET", "/v1/recordings")).json["recordings"]
    shown = await app.ask("GET", f"/v1/recordings/{row['id']}", Role.AGENT, headers=PURPOSE)
    assert "frames_left_out" not in shown.json["call"]
