"""Telephony that somebody else runs: Twilio, Telnyx, Vonage, Genesys, LiveKit."""

from __future__ import annotations

import json
from typing import Final
from xml.sax.saxutils import quoteattr

from cli.setups.place import File, Place, Recorder

_WEBSOCKET: Final = "/v1/ingest/{tenant}/ws"


def _twilio(place: Place) -> tuple[File, ...]:
    twiml = f"""<?xml version="1.0" encoding="UTF-8"?>
<Response>
  <Start>
    <Stream url={quoteattr(place.websocket)} track="both_tracks">
      <Parameter name="token" value={quoteattr(place.bearer)}/>
    </Stream>
  </Start>
</Response>
"""
    return (File(path="the TwiML that the number's webhook answers, before what else it does", content=twiml),)


def _telnyx(place: Place) -> tuple[File, ...]:
    command = {
        "stream_url": place.websocket,
        "stream_track": "both_tracks",
        "stream_auth_token": place.bearer,
    }
    path = "POST /v2/calls/{call_control_id}/actions/streaming_start"
    return (File(path=path, content=json.dumps(command, indent=2) + "\n"),)


def _vonage(place: Place) -> tuple[File, ...]:
    script = f'''"""What the answer webhook of a Vonage application returns: an NCCO that records the call."""

import os


def ncco(call):
    """Return the NCCO of `call`, the query parameters that Vonage sends: uuid, from, to."""
    headers = {{
        "token": {f'"{place.token}"' if place.token else 'os.environ["CALLVAULT_TOKEN"]'},
        "call_uuid": call["uuid"],
        "from": call["from"],
        "to": call["to"],
    }}
    endpoint = {{
        "type": "websocket",
        "uri": "{place.websocket}",
        "content-type": "audio/l16;rate=16000",
        "headers": headers,
    }}
    return [{{"action": "connect", "endpoint": [endpoint]}}]
'''
    return (File(path="ncco.py", content=script),)


def _genesys(place: Place) -> tuple[File, ...]:
    fields = {
        "Channel": "Both",
        "Connection URI": place.audiohook,
        "API Key": place.token_id,
        "Client Secret": place.secret_base64,
    }
    text = "".join(f"{name}: {value}\n" for name, value in fields.items())
    return (File(path="Admin, Integrations, AudioHook Monitor, Configuration", content=text),)


def _livekit(place: Place) -> tuple[File, ...]:
    request = {
        "room_name": "reception",
        "audio_only": True,
        "file_outputs": [
            {
                "file_type": "OGG",
                "filepath": "{room_name}-{time}.ogg",
                "disable_manifest": True,
                "s3": {
                    "access_key": place.token_id,
                    "secret": place.secret,
                    "region": "eu-west-2",
                    "endpoint": place.s3,
                    "bucket": place.tenant,
                    "force_path_style": True,
                },
            }
        ],
    }
    return (File(path="egress.json", content=json.dumps(request, indent=2) + "\n"),)


RECORDERS: Final = (
    Recorder(
        name="twilio",
        title="Twilio Media Streams",
        source="https://www.twilio.com/docs/voice/twiml/stream",
        route=_WEBSOCKET,
        files=_twilio,
        notes=(
            "Twilio sends no credential of its own, and no query: the token is a custom parameter.",
            "Further parameters are kept with the call, sealed: from, to, direction, tags and your own.",
        ),
    ),
    Recorder(
        name="telnyx",
        title="Telnyx media streaming",
        source="https://developers.telnyx.com/docs/voice/programmable-voice/media-streaming",
        route=_WEBSOCKET,
        files=_telnyx,
    ),
    Recorder(
        name="vonage",
        title="Vonage Voice API",
        source="https://developer.vonage.com/en/voice/voice-api/concepts/websockets",
        route=_WEBSOCKET,
        files=_vonage,
        notes=(
            "Vonage mixes the call into one channel, and allows 512 bytes of headers.",
            "A WebSocket is a party: where two people talk, let both and the WebSocket join one conversation.",
        ),
    ),
    Recorder(
        name="genesys",
        title="Genesys Cloud AudioHook",
        source="https://developer.genesys.cloud/devapps/audiohook/",
        route="/v1/ingest/{tenant}/audiohook",
        files=_genesys,
        notes=("Genesys connects to public certificates only.",),
    ),
    Recorder(
        name="livekit",
        title="LiveKit Egress",
        source="https://docs.livekit.io/home/egress/outputs/",
        route="/s3/{bucket}/{key}",
        files=_livekit,
        notes=(
            "Start it with: lk egress start --type room-composite egress.json",
            "Without disable_manifest a document follows each file, which is refused because it is no audio.",
        ),
    ),
)
