"""What docs/recorders.md says that each dialect does with what it cannot understand, where no other test tries it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from yarl import URL

from tests.helpers.app import PURPOSE, TENANTS, App, app, sound
from vault.model import Role

__all__ = ["app"]

TENANT = TENANTS[0]
KEY, ESCAPED = "5f3c@[::1] \u00e9", "5f3c@=5B::1=5D=20=C3=A9"
VOICE = sound(320)
ODD = {"direction": "sideways", "from": "x" * 201}
FORM = {"encoding": "audio/x-mulaw", "sampleRate": 8000}
MEDIA = '{"event":"media","media":{"track":"inbound","chunk":"1","timestamp":"0","payload":"AAAA"}}'


def twilio(key: Mapping[str, str], form: Mapping[str, object]) -> tuple[str, ...]:
    start = {**key, "tracks": ["inbound"], "mediaFormat": form, "customParameters": ODD}
    return '{"event":"connected","protocol":"Call"}', json.dumps({"event": "start", "start": start})


def telnyx(key: Mapping[str, str], form: Mapping[str, object]) -> tuple[str, ...]:
    start = {**key, "media_format": form, "custom_parameters": {**ODD, "tracks": "inbound"}}
    return '{"event":"connected","connected":{}}', json.dumps({"event": "start", "start": start})


def text(**members: object) -> tuple[str, ...]:
    return (json.dumps({**ODD, **members}),)


LIVE = {
    "twilio": (twilio({"callSid": KEY}, FORM), twilio({}, FORM), twilio({"callSid": KEY}, {"encoding": "opus"})),
    "telnyx": (
        telnyx({"call_control_id": KEY}, {"encoding": "PCMU", "sample_rate": 8000}),
        telnyx({}, {"encoding": "PCMU", "sample_rate": 8000}),
        telnyx({"call_control_id": KEY}, {"encoding": "G722", "sample_rate": 8000}),
    ),
    "vonage": tuple(
        text(event="websocket:connected", **{"content-type": kind}, **key)
        for kind, key in (
            ("audio/l16;rate=16000", {"call_uuid": KEY}),
            ("audio/l16;rate=16000", {}),
            ("audio/opus", {"call_uuid": KEY}),
        )
    ),
    "jambonz": (
        text(sampleRate=8000, mixType="mono", callSid=KEY),
        text(sampleRate=8000, mixType="mono"),
        text(sampleRate=8000, mixType="surround", callSid=KEY),
    ),
    "asterisk": (
        text(event="MEDIA_START", format="ulaw", channel_id=KEY),
        text(event="MEDIA_START", format="ulaw"),
        text(event="MEDIA_START", format="opus", channel_id=KEY),
    ),
}


async def closed(app: App, messages: tuple[str, ...], then: tuple[str | bytes, ...]) -> int | None:
    sent = {"Authorization": f"Bearer {app.token(Role.RECORDER)}"}
    async with app.client.ws_connect(f"{app.url}/v1/ingest/{TENANT}/ws", headers=sent) as socket:
        for message in (*messages, *then):
            await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
        if then and isinstance(then[-1], bytes):
            await socket.close()
        else:
            await socket.receive(timeout=5)
        return socket.close_code


@pytest.mark.parametrize("dialect", LIVE)
async def test_a_live_dialect_leaves_facts_out_escapes_call_keys_and_refuses_media_it_does_not_know(
    app: App, dialect: str
) -> None:
    good, nameless, unknown = LIVE[dialect]
    streams = dialect in {"twilio", "telnyx"}
    later: tuple[str | bytes, ...] = (MEDIA, '{"event":"stop"}') if streams else ("STATUS all:well", VOICE)
    if dialect == "vonage":
        later = (VOICE,)
    assert await closed(app, nameless, ()) == 1008
    assert await closed(app, unknown, ()) == 1008
    assert (await app.ask("GET", "/v1/recordings")).json["recordings"] == []
    assert await closed(app, good, later) == 1000
    row = await app.vault.search.call(TENANT, ESCAPED)
    assert row is not None
    shown = await app.ask("GET", f"/v1/recordings/{row.id}", Role.AGENT, headers=PURPOSE)
    told = shown.json["call"]["facts_left_out"]
    assert ("direction (value)" in told, "from (text)" in told) == (True, True)


async def test_an_address_in_another_encoding_names_a_call_and_a_caller_of_its_own(app: App) -> None:
    sent = {"Authorization": f"Bearer {app.token(Role.RECORDER)}"}
    for escape in ("%E9", "%E8"):
        said = f"?rate=8000&rate=16000&call_key=c{escape}&from=J%FCrgen&to=Ren{escape}"
        address = URL(f"{app.url}/v1/ingest/{TENANT}/ws{said}", encoded=True)
        async with app.client.ws_connect(address, headers=sent) as socket:
            await socket.send_bytes(VOICE)
            await socket.close()
    rows = (await app.ask("GET", "/v1/recordings")).json["recordings"]
    shown = [(await app.ask("GET", f"/v1/recordings/{row['id']}", Role.AGENT, headers=PURPOSE)).json for row in rows]
    assert {each["call"]["call_key"]: each["call"]["called"] for each in shown} == {
        "c=E9": "Ren\u00e9",
        "c=E8": "Ren\u00e8",
    }
    assert {(each["call"]["caller"], each["media"]["rate"]) for each in shown} == {("J\u00fcrgen", 8000)}
