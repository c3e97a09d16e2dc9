"""What real recorders say over WebSocket, message by message, from their sources and their vendors' documentation."""

import json
from dataclasses import dataclass, field

from vault.model import Codec, Container, Media
from vault.protocol.live.events import Handshake


def samples(count, *, seed=0):
    """Return 16-bit little-endian samples that tell where they belong."""
    return b"".join((number * 7 + seed & 0xFFFF).to_bytes(2, "little") for number in range(count))


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """One connection: what is known before its first message, its messages, and what must come of them."""

    dialect: str
    key: str
    first: tuple = ()
    """The texts before the audio."""
    audio: bytes
    texts: tuple = ()
    """Texts in the middle of the audio."""
    media: Media
    message_bytes: int
    """How much audio the recorder puts into a message."""
    subprotocols: tuple = ()
    query: dict = field(default_factory=dict)
    digits: tuple = ()
    """(digit, milliseconds) of each key pressed."""
    caller: str | None = None
    called: str | None = None
    direction: str | None = None

    @property
    def handshake(self):
        return Handshake(subprotocols=self.subprotocols, query=self.query)

    @property
    def messages(self):
        size = self.message_bytes
        pieces = [self.audio[at : at + size] for at in range(0, len(self.audio), size)]
        middle = len(pieces) // 2
        return [*self.first, *pieces[:middle], *self.texts, *pieces[middle:]]


def l16(rate, channels):
    channel_map = ("caller", "callee") if channels == 2 else ()
    return Media(container=Container.RAW, codec=Codec.S16LE, rate=rate, channels=channels, channel_map=channel_map)


def text(**fields):
    return json.dumps(fields, separators=(",", ":"))


# jambonz-feature-server, lib/tasks/listen.js and lib/session/call-info.js: CallInfo.toJSON after
# sampleRate and mixType; a key pressed in `_onDtmf`, its duration in samples at 8 kHz; `playDone` after a file.
JAMBONZ = Recorder(
    dialect="audio_fork",
    key="0c2b9d3a-9f5e-4a0c-8e55-0d8a1c2f4b77",
    subprotocols=("audio.jambonz.org",),
    first=(
        text(
            sampleRate=8000,
            mixType="stereo",
            callSid="0c2b9d3a-9f5e-4a0c-8e55-0d8a1c2f4b77",
            direction="inbound",
            **{"from": "+441632960001"},
            to="01632960002",
            callId="b1a7c9a0-2f1e-123d-5b8e-0a1b2c3d4e5f",
            sipStatus=200,
            sipReason="OK",
            callStatus="in-progress",
            accountSid="9351f46a-678c-43f5-b8a6-d4eb58d131af",
            traceId="7dca13b7d7a2b5e0b3b8b3d5d2b4a9f1",
            applicationSid="0a1d9b1e-2b44-4b3a-9f4e-3d5b8f0a7c11",
            fsSipAddress="172.20.10.30:5060",
            originatingSipIp="203.0.113.9",
            originatingSipTrunkName="carrier",
            customerData={"campaign": "spring", "authToken": "never-kept"},
        ),
    ),
    audio=samples(4 * 320),
    message_bytes=640,
    texts=(
        text(event="dtmf", dtmf="3", duration="1600"),
        text(type="playDone", data={"id": "x", "playbackSeconds": "2"}),
        text(type="session:summary", data={"duration": 12}),
    ),
    media=l16(8000, 2),
    digits=(("3", 200),),
    caller="+441632960001",
    called="+441632960002",
    direction="inbound",
)

# drachtio-freeswitch-modules, mod_audio_fork/README.md: `uuid_audio_fork <uuid> start <url> mono 16k {"to":…,"from":…,
# "callid":…}`; the metadata is whatever the dialplan says, so the rate comes from the address.
AUDIO_FORK = Recorder(
    dialect="audio_stream",
    key="9b2f4e10-5a77-4a4f-9d9d-3c6a0f6f7a21",
    subprotocols=("audio.drachtio.org",),
    query={"rate": "16000", "channels": "1"},
    first=(text(to="442079460018", **{"from": "442079460019"}, callid="9b2f4e10-5a77-4a4f-9d9d-3c6a0f6f7a21"),),
    audio=samples(1280),
    message_bytes=640,
    media=l16(16000, 1),
    caller="+442079460019",
    called="+442079460018",
)

# amigniter/mod_audio_stream, README.md: the metadata is optional and any UTF-8 text; `send_text` sends any text, too.
AUDIO_STREAM = Recorder(
    dialect="audio_stream",
    key="f2d1c1e4-7b0d-4c29-a8b7-6d0e0f2a9c55",
    query={"call_key": "f2d1c1e4-7b0d-4c29-a8b7-6d0e0f2a9c55", "rate": "8000", "channels": "2", "from": "2001"},
    audio=samples(640),
    message_bytes=320,
    texts=("agent connected",),
    media=l16(8000, 2),
    caller="2001",
)

# What Asterisk (master, f0c1c1a7) sent, and from its channels/chan_websocket.c MEDIA_XOFF and MEDIA_XON.
ASTERISK = Recorder(
    dialect="asterisk",
    key="1764038400.12",
    subprotocols=("media",),
    first=(
        (
            "MEDIA_START connection_id:callvault channel:WebSocket/callvault/0x7f6d3c01a9b0 channel_id:1764038400.12 "
            "format:ulaw optimal_frame_size:160 ptime:20"
        ),
    ),
    audio=bytes(number * 11 & 0xFF for number in range(1600)),
    message_bytes=160,
    texts=("MEDIA_XOFF", "MEDIA_XON", "DTMF_END digit:# channel_id:1764038400.12"),
    media=Media(container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=1),
    digits=(("#", None),),
)
ASTERISK_JSON = Recorder(
    dialect="asterisk",
    key="pbx1-1764038400.13",
    subprotocols=("media",),
    query={"from": "+441632960003", "to": "101", "direction": "inbound"},
    first=(
        text(
            event="MEDIA_START",
            connection_id="callvault",
            channel="WebSocket/callvault/0x7f6d3c01b7d0",
            channel_id="pbx1-1764038400.13",
            format="slin16",
            optimal_frame_size=640,
            ptime=20,
            channel_variables={
                "AST_OUTGOING_ATTEMPT": "1",
                "MEDIA_WEBSOCKET_CONNECTION_ID": "callvault",
                "MEDIA_WEBSOCKET_OPTIMAL_FRAME_SIZE": "640",
            },
        ),
    ),
    audio=samples(3200),
    message_bytes=640,
    texts=(text(event="DTMF_END", channel_id="pbx1-1764038400.13", digit="5"),),
    media=l16(16000, 1),
    digits=(("5", None),),
    caller="+441632960003",
    called="101",
    direction="inbound",
)

# developer.vonage.com, "WebSockets in the Vonage Voice API": the first message and DTMF events.
VONAGE = Recorder(
    dialect="vonage",
    key="aaaaaaaa-bbbb-cccc-dddd-0123456789ab",
    first=(
        text(
            event="websocket:connected",
            **{"content-type": "audio/l16;rate=16000", "callerID": "447700900123"},
            call_uuid="aaaaaaaa-bbbb-cccc-dddd-0123456789ab",
            language="en-GB",
        ),
    ),
    audio=samples(3200),
    message_bytes=640,
    texts=('{"event":"websocket:dtmf","digit":"5","duration":260}', '{"event":"websocket:cleared"}'),
    media=l16(16000, 1),
    digits=(("5", 260),),
    caller="+447700900123",
)

RECORDERS = {
    "jambonz": JAMBONZ,
    "mod_audio_fork": AUDIO_FORK,
    "mod_audio_stream": AUDIO_STREAM,
    "asterisk": ASTERISK,
    "asterisk_json": ASTERISK_JSON,
    "vonage": VONAGE,
}
