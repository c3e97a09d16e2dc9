"""A real Asterisk (20.18, 22.8, 23.2 or newer) sends its milliwatt tone over WebSocket and AudioSocket.

What `callvault recorders show` prints for it is what it is configured with.
"""

import asyncio
import cmath
import os
import re
import shutil
import struct
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from yarl import URL

from cli.setups import RECORDERS, Place
from tests.clients.vault import vault_at
from tests.helpers.app import PURPOSE, SETTINGS, TENANTS, app, running
from tests.helpers.authorities import FILES, write_certificate
from tests.helpers.crashing import memory_directory
from tests.helpers.seaweed import free_ports
from tests.helpers.server import make_site, zygote
from tests.helpers.streams import listener, listening
from vault.model import Role

__all__ = ["app"]

ASTERISK = shutil.which("asterisk")
MODULES = os.environ.get("CALLVAULT_ASTERISK_MODULES")
"""Where the modules of an Asterisk are that was built and not installed."""

pytestmark = pytest.mark.skipif(ASTERISK is None, reason="asterisk is not installed; Debian 12 does not package it")

TENANT = TENANTS[0]
QUICK = {"server": {**SETTINGS["server"], "idle_timeout": "1s", "resume_grace": "1s"}}

_DIRECTORIES = {
    "astetcdir": "etc",
    "astvarlibdir": "lib",
    "astdbdir": "lib",
    "astkeydir": "lib",
    "astdatadir": "lib",
    "astagidir": "lib",
    "astspooldir": "spool",
    "astrundir": "run",
    "astlogdir": "log",
}
_MODULES = (
    *("pbx_config", "pbx_spool", "res_timing_timerfd", "bridge_simple", "codec_ulaw", "codec_alaw", "codec_resample"),
    *("res_audiosocket", "app_audiosocket", "chan_audiosocket", "app_milliwatt", "app_senddtmf"),
    *("res_sorcery_config", "res_http_websocket", "res_websocket_client", "chan_websocket"),
    *("res_speech", "res_agi", "app_stack", "app_dial", "app_originate", "app_chanspy"),
    *("func_callerid", "func_channel", "func_strings", "func_uri", "func_uuid"),
)
_CHANNELS = "core show channels concise"
_CALLS = """
[calls]
exten => _[*0-9].,1,Answer()
 same => n,Gosub(record-to-callvault,s,1(${EXTEN}))
 same => n,Dial(Local/tone@calls/n)
exten => over,1,Answer()
 same => n,Gosub(record-to-callvault,s,1(${EXTEN}))
exten => dial,1,Answer()
 same => n,Dial(WebSocket/callvault/c(ulaw)f(json))
exten => silent,1,Answer()
 same => n,Wait(60)
exten => late,1,Answer()
 same => n,Wait(3)
 same => n,Milliwatt()
exten => tone,1,Answer()
 same => n,SendDTMF(42)
 same => n,Milliwatt()
"""


@dataclass(frozen=True, kw_only=True)
class Pbx:
    """An Asterisk of the test's own."""

    base: Path
    process: asyncio.subprocess.Process

    async def console(self, text):
        etc = self.base / "etc" / "asterisk.conf"
        shown = await asyncio.create_subprocess_exec(ASTERISK, "-C", str(etc), "-rx", text, stdout=PIPE, stderr=STDOUT)
        return (await shown.communicate())[0].decode()

    def call(self, channel, extension, caller="201"):
        """Dial `channel` and connect it to an extension."""
        waiting = self.base / "spool" / "call"
        waiting.write_text(
            f"Channel: {channel}\nCallerID: <{caller}>\nContext: calls\nExtension: {extension}\nPriority: 1\n"
        )
        waiting.rename(self.base / "spool" / "outgoing" / f"{uuid4()}.call")

    async def hang_up(self):
        await self.console("channel request hangup all")


@asynccontextmanager
async def asterisk(base, files):
    """Run an Asterisk that has these files among its configuration."""
    for name in {*_DIRECTORIES.values(), "spool/outgoing"}:
        (base / name).mkdir(parents=True, exist_ok=True)
    lines = [f"{name} => {base / place}" for name, place in _DIRECTORIES.items()]
    if MODULES is not None:
        lines.append(f"astmoddir => {MODULES}")
    modules = ["[modules]", "autoload=no", *(f"load => {name}.so" for name in _MODULES)]
    configuration = {"asterisk.conf": ["[directories]", *lines], "modules.conf": modules}
    for name, content in {**{name: "\n".join(lines) for name, lines in configuration.items()}, **files}.items():
        (base / "etc" / name).write_text(content + "\n")
    command = [ASTERISK, "-C", str(base / "etc" / "asterisk.conf"), "-f", "-vvv"]
    with (base / "console").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=log, stderr=log)
    pbx = Pbx(base=base, process=process)
    try:
        async with asyncio.timeout(20):
            while "uptime" not in await pbx.console("core show uptime"):
                assert process.returncode is None, (base / "console").read_text()
                await asyncio.sleep(0.1)
        yield pbx
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def place(app):
    return Place(URL(app.url), TENANT, app.token(Role.RECORDER))


def printed(place, name, *replaced):
    """Return the files that `callvault recorders show` prints, with a dialplan of calls beneath."""
    files = {Path(file.path).name: file.content for file in RECORDERS[name].files(place)}
    for old, new in replaced:
        assert any(old in content for content in files.values())
        files = {path: content.replace(old, new) for path, content in files.items()}
    return {path: content + _CALLS * (path == "extensions.conf") for path, content in files.items()}


async def state(app, key):
    answer = await app.ask("HEAD", f"/v1/ingest/{TENANT}/{key}", Role.RECORDER)
    if answer.status == 404:
        return None, 0
    return answer.headers["Recording-State"], int(answer.headers["Upload-Offset"])


async def heard(app, key, size):
    """Wait until so many bytes of a call are durable."""
    async with asyncio.timeout(20):
        while (await state(app, key))[1] < size:
            await asyncio.sleep(0.05)


async def only_call(app, expected):
    """Wait until the only recording there is has this state, and return its id."""
    async with asyncio.timeout(20):
        while not (shown := (await app.ask("GET", "/v1/recordings")).json["recordings"]) or (
            shown[0]["state"] != expected
        ):
            await asyncio.sleep(0.05)
    (only,) = shown
    return only["id"]


async def under_way(app):
    """Wait until the only recording there is has begun, and return its call key."""
    recording = await only_call(app, "open")
    return (await app.ask("GET", f"/v1/recordings/{recording}", headers=PURPOSE)).json["call"]["call_key"]


async def ended(app, key, expected="sealed"):
    """Wait for a call's end, and return its recording's id."""
    async with asyncio.timeout(20):
        while (found := (await state(app, key))[0]) in {None, "open"}:
            await asyncio.sleep(0.05)
    assert found == expected
    return (await app.vault.search.call(TENANT, key)).id


async def has_the_tone(app, recording, codec, rate):
    """Check that a recording is a second or more of a milliwatt: 1004 Hz at 0 dBm0."""
    shown = (await app.ask("GET", f"/v1/recordings/{recording}", headers=PURPOSE)).json
    assert (shown["media"]["codec"], shown["media"]["rate"], shown["media"]["channels"]) == (codec, rate, 1)
    audio = (await app.play(recording, raw=False)).body[44:]
    samples = [each for (each,) in struct.iter_unpack("<h", audio)][-rate - 1000 : -1000]
    assert len(samples) == rate
    # The peak of 0 dBm0 is 3.14 dB below that of the codec.
    assert 20_000 < max(samples) < 26_000
    strength = abs(sum(each * cmath.exp(-2j * cmath.pi * 1004 * at / rate) for at, each in enumerate(samples)))
    assert 2 * strength / rate > 0.95 * max(samples), "there is something else than the tone"
    return shown["call"]


# -- AudioSocket -----------------------------------------------------------------------------------------------------


async def test_the_milliwatt_tone_of_an_asterisk_is_recorded_at_the_rate_it_has(app, tmp_path):
    dialled, bridged = str(uuid4()), str(uuid4())
    [port] = free_ports(1)
    dialplan = f"{_CALLS}exten => record,1,Answer()\n same => n,AudioSocket({dialled},127.0.0.1:{port})\n"
    async with (
        listening(app, audiosocket=listener(app, listen=f"127.0.0.1:{port}")),
        asterisk(tmp_path, {"extensions.conf": dialplan}) as pbx,
    ):
        pbx.call("Local/tone@calls", "record")
        pbx.call(f"AudioSocket/127.0.0.1:{port}/{bridged}/c(slin16)", "tone")
        for key, rate in ((dialled, 8_000), (bridged, 16_000)):
            await heard(app, key, 3 * rate)
        await pbx.hang_up()
        for key, rate in ((dialled, 8_000), (bridged, 16_000)):
            await has_the_tone(app, await ended(app, key), "s16le", rate)


async def test_both_sides_of_a_call_go_over_audiosocket_as_printed(app, tmp_path):
    [port] = free_ports(1)
    async with (
        listening(app, audiosocket=listener(app, listen=f"127.0.0.1:{port}")),
        asterisk(tmp_path, printed(place(app), "asterisk-audiosocket", (":9019", f":{port}"))) as pbx,
    ):
        pbx.call("Local/silent@calls/n", "101")
        await heard(app, key := await under_way(app), 24_000)
        await pbx.hang_up()
        await has_the_tone(app, await ended(app, key), "s16le", 8_000)


# -- WebSocket -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "dialled", "told"),
    [
        ("+441632960003", "101", ("+441632960003", "101")),
        ("o'brien", "*43", ("obrien", "*43")),
        ("", "**1", (None, "**1")),
    ],
)
async def test_both_sides_of_a_call_go_over_websocket_as_printed(app, tmp_path, caller, dialled, told):
    async with asterisk(tmp_path, printed(place(app), "asterisk")) as pbx:
        pbx.call("Local/silent@calls/n", dialled, caller)
        await heard(app, key := await under_way(app), 12_000)
        assert f"!{key}\n" in await pbx.console(_CHANNELS), "a call is kept under its own unique id"
        await pbx.hang_up()
        call = await has_the_tone(app, await ended(app, key), "pcmu", 8_000)
    assert (call["caller"], call["called"]) == told


@pytest.mark.parametrize("control", ["f(plain-text)", "f(json)"])
@pytest.mark.parametrize(
    ("name", "codec", "rate"), [("ulaw", "pcmu", 8_000), ("alaw", "pcma", 8_000), ("slin16", "s16le", 16_000)]
)
async def test_control_messages_are_read_in_text_and_json(app, tmp_path, control, name, codec, rate):
    await app.ask("PUT", f"/v1/tenants/{TENANT}", Role.OPERATOR, body={"retention": None, "keep_dtmf": True})
    async with asterisk(tmp_path, printed(place(app), "asterisk")) as pbx:
        pbx.call(f"WebSocket/callvault/c({name}){control}v(call_key=a-call)", "tone")
        await heard(app, "a-call", 3 * rate)
        await pbx.hang_up()
        recording = await ended(app, "a-call")
        await has_the_tone(app, recording, codec, rate)
    notes = (await app.ask("GET", f"/v1/recordings/{recording}/notes", headers=PURPOSE)).json
    assert [key["digit"] for key in notes["dtmf"]] == ["4", "2"]


async def test_a_call_that_is_dialled_to_the_vault_without_a_name_has_its_channels_unique_id(app, tmp_path):
    async with asterisk(tmp_path, printed(place(app), "asterisk")) as pbx:
        pbx.call("Local/tone@calls/n", "dial")
        await heard(app, key := await under_way(app), 12_000)
        shown = await pbx.console(_CHANNELS)
        assert any(line.startswith("WebSocket/") and line.endswith(f"!{key}") for line in shown.splitlines())
        await pbx.hang_up()
        await has_the_tone(app, await ended(app, key), "pcmu", 8_000)


@pytest.mark.parametrize(("end", "found", "onward"), [("kill", "open", ""), ("terminate", "truncated", "~2")])
async def test_a_call_goes_on_once_its_vault_is_there_again(tmp_path, end, found, onward):
    [port] = free_ports(1)
    site = await make_site(tmp_path / "vault", server={"port": port, "resume_grace": "60s"})
    with zygote() as process:
        server = process.start(site)
        files = printed(Place(URL(server.url), TENANT, site.tokens["recorder"]), "asterisk")
        async with vault_at(site, server.url) as vault, asterisk(tmp_path / "pbx", files) as pbx:
            pbx.call("Local/silent@calls/n", "101")
            while not (
                name := re.search(r"^Local/silent.*;1!.*!([0-9.]+)$", await pbx.console(_CHANNELS), re.MULTILINE)
            ):
                await asyncio.sleep(0.05)
            key = name[1]
            recording = await vault.durable(key, 8_000)
            getattr(server, end)()
            server.wait()
            process.start(site)
            durable, state, _ = await vault.head(key)
            assert state == found
            later = await vault.durable(key + onward, 12_000 if onward else durable + 12_000)
            assert (later == recording) is (not onward)
            await pbx.hang_up()
            assert await vault.ends_as(key + onward, "sealed") == later


async def test_an_asterisk_that_is_killed_leaves_what_it_had_sent(tmp_path):
    with memory_directory() as base:
        async with running(base, **QUICK) as app, asterisk(tmp_path, printed(place(app), "asterisk")) as pbx:
            pbx.call("WebSocket/callvault/c(ulaw)v(call_key=a-call)", "tone")
            await heard(app, "a-call", 16_000)
            pbx.process.kill()
            await has_the_tone(app, await ended(app, "a-call", "truncated"), "pcmu", 8_000)


async def test_a_call_that_is_silent_for_longer_than_the_idle_timeout_is_one_recording(tmp_path):
    with memory_directory() as base:
        async with running(base, **QUICK) as app, asterisk(tmp_path, printed(place(app), "asterisk")) as pbx:
            pbx.call("WebSocket/callvault/c(ulaw)v(call_key=a-call)", "late")
            await heard(app, "a-call", 12_000)
            await pbx.hang_up()
            assert await ended(app, "a-call") == await only_call(app, "sealed")


async def test_a_call_that_is_over_before_its_recording_begins_leaves_no_recording_open(app, tmp_path):
    async with asterisk(tmp_path, printed(place(app), "asterisk")) as pbx:
        pbx.call("Local/silent@calls/n", "over")
        none = re.compile(r"^0 active channels\n(?s:.*)^[1-9]\d* calls? processed", re.MULTILINE)
        async with asyncio.timeout(20):
            while not none.search(await pbx.console("core show channels")):
                await asyncio.sleep(0.05)
        if (await app.ask("GET", "/v1/recordings")).json["recordings"]:
            await only_call(app, "sealed")


async def test_the_vaults_certificate_is_verified_with_the_authorities_that_are_named(tmp_path):
    with memory_directory() as base:
        write_certificate(base)
        own = ("/etc/ssl/certs/ca-certificates.crt", str(base / "cert.pem"))
        async with (
            running(base, server={**SETTINGS["server"], **FILES, "host": "localhost"}) as app,
            asterisk(tmp_path, printed(place(app), "asterisk", own)) as pbx,
        ):
            pbx.call("WebSocket/callvault/c(ulaw)v(call_key=a-call)", "tone")
            async with asyncio.timeout(20):
                while (session := app.vault.ingest.live_call(TENANT, "a-call")) is None or session.durable < 8_000:
                    await asyncio.sleep(0.05)
            await pbx.hang_up()
            await session.done.wait()
            assert (await app.vault.search.call(TENANT, "a-call")).state.value == "sealed"
