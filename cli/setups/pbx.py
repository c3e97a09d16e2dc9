"""Telephone systems that one runs oneself: rtpengine, Asterisk, FreeSWITCH, jambonz."""

from __future__ import annotations

import json
from typing import Final
from xml.sax.saxutils import escape

from cli.setups.place import File, Place, Recorder

_WEBSOCKET: Final = "/v1/ingest/{tenant}/ws"
_AUDIOSOCKET_PORT: Final = 9019
_AUTHORITIES: Final = "/etc/ssl/certs/ca-certificates.crt"
_IN_A_NUMBER: Final = "-+*#._0-9A-Za-z"
"""As Asterisk's FILTER has them."""


def _rtpengine(place: Place) -> tuple[File, ...]:
    content = f"""[rtpengine-recording]
table = 0
spool-dir = /var/spool/rtpengine
output-format = wav
output-storage = notify
output-mixed = true
mix-method = channels
mix-num-inputs = 2
notify-uri = {place.url_with_token}/rtpengine
notify-post = true
notify-retries = 10
"""
    return (File(path="/etc/rtpengine/rtpengine-recording.conf", content=content),)


def _rtpengine_s3(place: Place) -> tuple[File, ...]:
    content = f"""[rtpengine-recording]
table = 0
spool-dir = /var/spool/rtpengine
output-format = wav
output-storage = s3
output-mixed = true
mix-method = channels
mix-num-inputs = 2
s3-host = {place.host}
s3-port = {place.port}
s3-path = {place.server.path.rstrip("/")}/s3/{place.tenant}
s3-access-key = {place.token_id}
s3-secret-key = {place.secret}
s3-region = eu-west-2
"""
    return (File(path="/etc/rtpengine/rtpengine-recording.conf", content=content),)


def _spied(channel: str, *, options: str = "", before: tuple[str, ...] = (), after: str = "") -> File:
    """Return a dialplan in which `channel` gets both sides of a call, mixed, for as long as the call lasts.

    ChanSpy's E ends the recording with the call; S ends it when the call was over before it began.
    """
    spy = f"Originate({channel},app,ChanSpy,${{CHANNEL(name)}}\\,qES,,30,a{options})"
    steps = "\n same => n,".join((*before, spy, "Return()"))
    dialplan = f"""[record-to-callvault]
; same => n,Gosub(record-to-callvault,s,1(${{EXTEN}}))        before Dial or Queue; records both sides, mixed
exten => s,1,{steps}
{after}"""
    return File(path="/etc/asterisk/extensions.conf", content=dialplan)


def _asterisk(place: Place) -> tuple[File, ...]:
    client = f"""[callvault]
type = websocket_client
connection_type = per_call_config
uri = {place.websocket}
protocols = media
username = recorder
password = {place.bearer}
connection_timeout = 2000
reconnect_interval = 500
reconnect_attempts = 5
tls_enabled = {"yes" if place.encrypted else "no"}
"""
    if place.encrypted:
        client += f"ca_list_file = {_AUTHORITIES}\n"
    # The driver dials nothing with one of !~*'() in a value, and URIENCODE leaves those as they are.
    caller, called = (f"${{URIENCODE(${{FILTER({_IN_A_NUMBER},{each})}})}}" for each in ("${CALLERID(num)}", "${ARG1}"))
    # The channel that spies stays for the whole call, and dials the vault again when the connection breaks.
    again = """exten => again,1,Answer(,i)
 same => n(dial),Dial(WebSocket/callvault/c(ulaw)v(call_key=${call_key},from=${from},to=${to}),,g)
 same => n,Wait(1)
 same => n,Goto(dial)
"""
    return (
        File(path="/etc/asterisk/websocket_client.conf", content=client),
        _spied(
            "Local/again@record-to-callvault/n",
            options="v(call_key=${UNIQUEID}^${STRREPLACE(facts,*,%2A)})",
            before=(f"Set(LOCAL(facts)=from={caller}^to={called})",),
            after=again,
        ),
    )


def _audiosocket(place: Place) -> tuple[File, ...]:
    listener = f"""[streams.audiosocket]
listen = "127.0.0.1:{_AUDIOSOCKET_PORT}"
tenant = "{place.tenant}"
token = "{place.token_id}"
"""
    return (
        _spied(f"AudioSocket/127.0.0.1:{_AUDIOSOCKET_PORT}/${{UUID()}}/c(slin)"),
        File(path="config.toml (on the vault)", content=listener),
    )


def _action(application: str, data: str) -> str:
    return f'    <action application="{application}" data="{escape(data, {chr(34): "&quot;"})}"/>'


def _extension(name: str, *actions: str) -> str:
    body = "\n".join(actions)
    return f"""<include>
  <extension name="{name}" continue="true">
    <condition field="destination_number" expression="^.*$">
{body}
    </condition>
  </extension>
</include>
"""


def _audio_stream(place: Place) -> tuple[File, ...]:
    facts = {"callId": "${uuid}", "from": "${caller_id_number}", "to": "${destination_number}", "sampleRate": 8000}
    said = json.dumps({**facts, "mixType": "stereo"}, separators=(",", ":"))
    address = f"{place.websocket}?call_key=${{uuid}}&rate=8000&channels=2"
    headers = json.dumps({"Authorization": f"Bearer {place.bearer}"}, separators=(",", ":"))
    actions = (
        _action("set", f"STREAM_EXTRA_HEADERS={headers}"),
        _action("set", "STREAM_SUPPRESS_LOG=true"),
        _action(
            "set",
            f"api_on_answer=uuid_audio_stream ${{uuid}} start {address} stereo 8k {said}",
        ),
    )
    path = "/etc/freeswitch/dialplan/default/00_callvault.xml"
    return (File(path=path, content=_extension("callvault", *actions)),)


def _audio_fork(place: Place) -> tuple[File, ...]:
    facts = {"callSid": "${uuid}", "from": "${caller_id_number}", "to": "${destination_number}", "sampleRate": 8000}
    said = json.dumps({**facts, "mixType": "stereo"}, separators=(",", ":"))
    actions = (
        _action("set", "MOD_AUDIO_BASIC_AUTH_USERNAME=recorder"),
        _action("set", f"MOD_AUDIO_BASIC_AUTH_PASSWORD={place.bearer}"),
        _action("set", f"api_on_answer=uuid_audio_fork ${{uuid}} start {place.websocket} stereo 8k callvault {said}"),
    )
    path = "/etc/freeswitch/dialplan/default/00_callvault.xml"
    return (File(path=path, content=_extension("callvault", *actions)),)


def _http_cache(place: Place) -> tuple[File, ...]:
    actions = (
        _action("set", "RECORD_STEREO=true"),
        _action("record_session", f"http_cache://{place.url_with_token}/${{uuid}}.wav"),
    )
    path = "/etc/freeswitch/dialplan/default/00_callvault.xml"
    return (File(path=path, content=_extension("callvault", *actions)),)


def _jambonz(place: Place) -> tuple[File, ...]:
    verbs = [
        {
            "verb": "config",
            "listen": {
                "enable": True,
                "url": place.websocket,
                "mixType": "stereo",
                "sampleRate": 8000,
                "wsAuth": {"username": "recorder", "password": place.bearer},
            },
        }
    ]
    return (File(path="what the application's webhook answers first", content=json.dumps(verbs, indent=2) + "\n"),)


def _jambonz_s3(place: Place) -> tuple[File, ...]:
    account = {
        "record_all_calls": True,
        "record_format": "wav",
        "bucket_credential": {
            "vendor": "s3_compatible",
            "endpoint": place.s3,
            "name": place.tenant,
            "access_key_id": place.token_id,
            "secret_access_key": place.secret,
        },
    }
    return (File(path="PUT /v1/Accounts/{AccountSid}", content=json.dumps(account, indent=2) + "\n"),)


_NO_RECONNECT: Final = "It does not come back after a break; what had arrived is kept and marked truncated."
_RTPENGINE_KEEPS: Final = (
    "What is not taken within 85 minutes stays in output-dir as backup-…: send it with curl, and delete it.",
    "A daemon that is stopped forgets what it has yet to deliver: let it run while the vault is away.",
    "Audio passes through output-dir, not encrypted; with `;memory` after the output-storage it does not.",
    "rtpengine's `pause recording` loses a mixed call (mr26.3). `stop recording` and `start recording` make two.",
)

RECORDERS: Final = (
    Recorder(
        name="rtpengine",
        title="rtpengine (notify)",
        source="https://github.com/sipwise/rtpengine/blob/master/docs/rtpengine-recording.md",
        route="/v1/ingest/{tenant}/rtpengine",
        files=_rtpengine,
        notes=(
            "Numbers are what rtpengine's own `metadata` says of a call: from:+44…|to:+44…|direction:inbound.",
            "The channels are the parties in the order in which they were first heard.",
            "rtpengine-recording sends each file when its call ends.",
            *_RTPENGINE_KEEPS,
            "Before mr13.5 it is `notify-record = true` and `notify-purge = true`, not `output-storage = notify`.",
            "Keep the configuration readable by the daemon alone: the token is in it.",
        ),
    ),
    Recorder(
        name="rtpengine-s3",
        title="rtpengine (S3)",
        source="https://github.com/sipwise/rtpengine/blob/master/docs/rtpengine-recording.md",
        route="/s3/{bucket}/{key}",
        files=_rtpengine_s3,
        notes=(
            "The daemon always speaks TLS to S3: the server needs a certificate the daemon's machine trusts.",
            "It says nothing of the call but the Call-ID: notify tells the numbers too.",
            *_RTPENGINE_KEEPS,
        ),
    ),
    Recorder(
        name="asterisk",
        title="Asterisk (WebSocket channel)",
        source="https://docs.asterisk.org/Configuration/Channel-Drivers/WebSocket",
        route=_WEBSOCKET,
        files=_asterisk,
        notes=(
            "Needs Asterisk 20.16, 21.11, 22.6 or 23.0, with chan_websocket, app_chanspy, func_uri and func_strings.",
            "Asterisk trusts no authority by itself: `ca_list_file` is Debian's; Red Hat's is /etc/pki/tls/cert.pem.",
            "The vault's certificate has to name its host: Asterisk passes over the addresses in a certificate.",
            "While neither side sends anything, ChanSpy sends nothing either: such a time is not in the recording.",
            "When the connection breaks, it dials again until the call is over; what is said in between is lost.",
            "Within `server.resume_grace` the same recording goes on; after it, or after a stop, one under `~2`.",
        ),
    ),
    Recorder(
        name="asterisk-audiosocket",
        title="Asterisk (AudioSocket)",
        source="https://docs.asterisk.org/Configuration/Channel-Drivers/AudioSocket",
        route="[streams.audiosocket]",
        files=_audiosocket,
        notes=(
            "AudioSocket has no credentials: the vault listens on its own machine only, or asks for a certificate.",
            "The listener records as the token whose id it is given.",
        ),
    ),
    Recorder(
        name="freeswitch",
        title="FreeSWITCH (mod_audio_stream)",
        source="https://github.com/amigniter/mod_audio_stream",
        route=_WEBSOCKET,
        files=_audio_stream,
        notes=("For wss:// the module has to be built with -DUSE_TLS=ON, which is not its default.", _NO_RECONNECT),
    ),
    Recorder(
        name="freeswitch-audio-fork",
        title="FreeSWITCH (mod_audio_fork)",
        source="https://github.com/drachtio/drachtio-freeswitch-modules/tree/main/modules/mod_audio_fork",
        route=_WEBSOCKET,
        files=_audio_fork,
        notes=(_NO_RECONNECT,),
    ),
    Recorder(
        name="freeswitch-http-cache",
        title="FreeSWITCH (mod_http_cache)",
        source="https://developer.signalwire.com/freeswitch/FreeSWITCH-Explained/Modules/mod_http_cache_3965029/",
        route="/v1/ingest/{tenant}/{call_key}",
        files=_http_cache,
        notes=(
            "The module records to a local file and sends it once, when the call ends; it does not try again.",
            "The URL is in FreeSWITCH's log: keep that as you would keep the token.",
        ),
    ),
    Recorder(
        name="jambonz",
        title="jambonz (listen)",
        source="https://docs.jambonz.org/verbs/verbs/listen",
        route=_WEBSOCKET,
        files=_jambonz,
        notes=(_NO_RECONNECT,),
    ),
    Recorder(
        name="jambonz-s3",
        title="jambonz (recording bucket)",
        source="https://github.com/jambonz/jambonz-api-server/blob/main/lib/swagger/swagger.yaml",
        route="/s3/{bucket}/{key}",
        files=_jambonz_s3,
        notes=(
            "The portal has the same fields under Account, Enable call recording.",
            "Its test sends a text: if the answer is that no content type was declared, address and keys are right.",
            "Its player and its delete button have no effect: a recorder's token only adds.",
        ),
    ),
)
