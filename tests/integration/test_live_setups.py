"""What `callvault recorders show` prints for live recorders, read as they would and carried out against a served vault.

The programs cannot run here. What they send is in their documentation: where from, who as, and which words first.
"""

from __future__ import annotations

import asyncio
import base64
import configparser
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field

import pytest
from aiohttp import WSMsgType, encode_basic_auth
from yarl import URL

from cli.setups import RECORDERS, Place
from tests.helpers.app import TENANTS, app
from vault.model import Role

__all__ = ["app"]

TENANT = TENANTS[0]
SAMPLES = bytes(range(256)) * 50


@dataclass(kw_only=True)
class Call:
    """One connection that a recorder would make, and the call key it is kept under."""

    url: str
    key: str
    said: list
    headers: dict = field(default_factory=dict)
    protocols: tuple = ()
    module: str


def basic(name, password):
    return {"Authorization": encode_basic_auth(name, password)}


def frames(audio, size):
    return [audio[at : at + size] for at in range(0, len(audio), size)]


def twilio(files):
    stream = ET.fromstring(files[0].content).find("Start/Stream")
    parameters = {each.get("name"): each.get("value") for each in stream.findall("Parameter")}
    assert stream.get("track") == "both_tracks"
    start = {
        "streamSid": "MZ" + "1" * 32,
        "accountSid": "AC" + "1" * 32,
        "callSid": "CA" + "1" * 32,
        "tracks": ["inbound", "outbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": parameters,
    }
    said = [
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {"event": "start", "sequenceNumber": "1", "start": start, "streamSid": start["streamSid"]},
    ]
    for number, piece in enumerate(frames(SAMPLES, 160)):
        for track in ("inbound", "outbound"):
            payload = base64.b64encode(piece.ljust(160, b"\xff")).decode()
            media = {"track": track, "chunk": str(number + 1), "timestamp": str(20 * number), "payload": payload}
            said.append({"event": "media", "media": media, "streamSid": start["streamSid"]})
    said.append({"event": "stop", "stop": {"callSid": start["callSid"]}, "streamSid": start["streamSid"]})
    texts = [json.dumps({"sequenceNumber": str(place), **each}) for place, each in enumerate(said)]
    return Call(url=stream.get("url"), key=start["callSid"], said=texts, module="mediastreams")


def vonage(files):
    named = {}
    exec(files[0].content, named)
    call = {"uuid": "63f61863-4a51-4f6b-86e1-46edebcf9356", "from": "+441632960001", "to": "+441632960100"}
    endpoint = named["ncco"](call)[0]["endpoint"][0]
    first = {"event": "websocket:connected", "content-type": endpoint["content-type"], **endpoint["headers"]}
    said = [json.dumps(first), *frames(SAMPLES, 640)]
    return Call(url=endpoint["uri"], key=call["uuid"], said=said, module="vonage")


def jambonz(files):
    listen = json.loads(files[0].content)[0]["listen"]
    first = {"sampleRate": listen["sampleRate"], "mixType": listen["mixType"], "callSid": "0c2b9d3a-9f5e"}
    headers = basic(listen["wsAuth"]["username"], listen["wsAuth"]["password"])
    said = [json.dumps(first), *frames(SAMPLES, 640)]
    return Call(
        url=listen["url"],
        key="0c2b9d3a-9f5e",
        said=said,
        headers=headers,
        protocols=("audio.jambonz.org",),
        module="jambonz",
    )


def asterisk(files):
    parser = configparser.RawConfigParser()
    parser.read_string(files[0].content)
    client = dict(parser["callvault"])
    dialplan = files[1].content
    (facts,) = re.findall(r"Set\(LOCAL\(facts\)=(.*)\)\n", dialplan)
    (given,) = re.findall(r",av\((.*)\)\)\n", dialplan)
    codec, query = re.search(r"Dial\(WebSocket/callvault/c\((\w+)\)v\((.*)\),,g\)\n", dialplan).groups()
    given = given.replace("${STRREPLACE(facts,*,%2A)}", facts).replace("${UNIQUEID}", "1780315200.12")
    for name, value in (("${CALLERID(num)}", "%2B441632960001"), ("${ARG1}", "100")):
        given, replaced = re.subn(rf"\$\{{URIENCODE\(\$\{{FILTER\([^,]+,{re.escape(name)}\)}}\)}}", value, given)
        assert replaced == 1
    for name, value in (each.split("=") for each in given.split("^")):
        query = query.replace(f"${{{name}}}", value)
    query = query.replace(",", "&")
    assert "$" not in query
    start = (
        f"MEDIA_START connection_id:callvault channel:WebSocket/callvault/0x1 channel_id:1780315200.13 format:{codec}"
    )
    said = [f"{start} optimal_frame_size:160 ptime:20", *frames(SAMPLES, 160)]
    headers = basic(client["username"], client["password"])
    return Call(
        url=f"{client['uri']}?{query}",
        key="1780315200.12",
        said=said,
        headers=headers,
        protocols=(client["protocols"],),
        module="asterisk",
    )


def freeswitch(files):
    variables = {"${uuid}": "f9b3-1", "${caller_id_number}": "+441632960001", "${destination_number}": "100"}
    actions = {}
    for action in ET.fromstring(files[0].content).iter("action"):
        data = action.get("data")
        for name, value in variables.items():
            data = data.replace(name, value)
        name, _, value = data.partition("=")
        actions[name] = value
    assert not re.search(r"\$\{", "".join(actions.values()))
    return actions


def audio_stream(files):
    actions = freeswitch(files)
    command, uuid, verb, url, mix, rate, metadata = actions["api_on_answer"].split(" ")
    assert (command, uuid, verb, mix, rate) == ("uuid_audio_stream", "f9b3-1", "start", "stereo", "8k")
    headers = json.loads(actions["STREAM_EXTRA_HEADERS"])
    said = [metadata, *frames(SAMPLES, 640)]
    return Call(url=url, key="f9b3-1", said=said, headers=headers, module="jambonz")


def audio_fork(files):
    actions = freeswitch(files)
    command, uuid, verb, url, mix, rate, bug, metadata = actions["api_on_answer"].split(" ")
    assert (command, uuid, verb, mix, rate, bug) == ("uuid_audio_fork", "f9b3-1", "start", "stereo", "8k", "callvault")
    headers = basic(actions["MOD_AUDIO_BASIC_AUTH_USERNAME"], actions["MOD_AUDIO_BASIC_AUTH_PASSWORD"])
    said = [metadata, *frames(SAMPLES, 640)]
    return Call(url=url, key="f9b3-1", said=said, headers=headers, protocols=("audio.drachtio.org",), module="jambonz")


def telnyx(files):
    command = json.loads(files[0].content)
    start = {
        "call_control_id": "v3:abc",
        "call_session_id": "s-1",
        "from": "+441632960001",
        "to": "+441632960100",
        "media_format": {"encoding": "PCMU", "sample_rate": 8000, "channels": 1},
    }
    connected = {"event": "connected", "version": "1.0.0"}
    connected["connected"] = {"x-telnyx-streaming-auth-token": command["stream_auth_token"]}
    said = [connected, {"event": "start", "sequence_number": "1", "stream_id": "S", "start": start}]
    for number, piece in enumerate(frames(SAMPLES, 160)):
        media = {"track": "inbound", "chunk": str(number + 1), "timestamp": str(20 * number)}
        media["payload"] = base64.b64encode(piece.ljust(160, b"\xff")).decode()
        said.append({"event": "media", "sequence_number": str(number + 2), "stream_id": "S", "media": media})
    said.append({"event": "stop", "sequence_number": "9999", "stream_id": "S", "stop": {"user_id": "u"}})
    assert command["stream_track"] == "both_tracks"
    return Call(
        url=command["stream_url"], key="v3:abc", said=[json.dumps(each) for each in said], module="mediastreams"
    )


LIVE = {
    "twilio": twilio,
    "telnyx": telnyx,
    "vonage": vonage,
    "jambonz": jambonz,
    "asterisk": asterisk,
    "freeswitch": audio_stream,
    "freeswitch-audio-fork": audio_fork,
}


@pytest.mark.parametrize("name", LIVE)
async def test_a_recorder_told_so_is_recorded(app, name):
    files = RECORDERS[name].files(Place(URL(app.url), TENANT, app.token(Role.RECORDER)))
    call = LIVE[name](files)
    async with (
        asyncio.timeout(20),
        app.client.ws_connect(call.url, headers=call.headers, protocols=call.protocols) as socket,
    ):
        for each in call.said:
            await (socket.send_str(each) if isinstance(each, str) else socket.send_bytes(each))
        if call.module == "mediastreams":  # they say that they are done, and the server closes
            assert (await socket.receive()).type is WSMsgType.CLOSE
            assert socket.close_code == 1000
    async with asyncio.timeout(20):
        while (row := await app.vault.search.call(TENANT, call.key)) is None or row.state.value != "sealed":
            await asyncio.sleep(0.05)
    played = await app.play(row.id)
    assert played.status == 200
    assert len(played.body) >= len(SAMPLES)
