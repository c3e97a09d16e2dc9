"""A real Asterisk (20 or newer) plays its milliwatt tone into AudioSocket, from the dialplan and as a channel."""

import asyncio
import os
import shutil
import struct
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from tests.integration.app import TENANTS, app
from tests.integration.seaweed import free_ports
from tests.streams import listener, listening
from vault.model import Role

__all__ = ["app"]

ASTERISK = shutil.which("asterisk")
MODULES = os.environ.get("CALLVAULT_ASTERISK_MODULES")
"""Where the modules of an Asterisk are that was built and not installed."""

pytestmark = pytest.mark.skipif(ASTERISK is None, reason="asterisk is not installed; Debian 12 does not package it")

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
    *("pbx_config", "pbx_spool", "res_timing_timerfd", "bridge_simple", "codec_ulaw", "codec_resample"),
    *("res_audiosocket", "app_audiosocket", "chan_audiosocket", "app_milliwatt", "app_senddtmf"),
)


@asynccontextmanager
async def asterisk(base, dialplan):
    """Run an Asterisk of the test's own and yield what takes its console's commands."""
    for name in {*_DIRECTORIES.values(), "spool/outgoing"}:
        (base / name).mkdir(parents=True, exist_ok=True)
    lines = [f"{name} => {base / place}" for name, place in _DIRECTORIES.items()]
    if MODULES is not None:
        lines.append(f"astmoddir => {MODULES}")
    etc = base / "etc"
    (etc / "asterisk.conf").write_text("\n".join(["[directories]", *lines, ""]))
    (etc / "modules.conf").write_text(
        "\n".join(["[modules]", "autoload=no", *(f"load => {name}.so" for name in _MODULES), ""])
    )
    (etc / "extensions.conf").write_text(dialplan)
    command = [ASTERISK, "-C", str(etc / "asterisk.conf")]

    async def console(text):
        shown = await asyncio.create_subprocess_exec(*command, "-rx", text, stdout=PIPE, stderr=STDOUT)
        return (await shown.communicate())[0].decode()

    with (base / "console").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, "-f", "-vvv", stdin=DEVNULL, stdout=log, stderr=log)
    try:
        for _ in range(200):
            if "uptime" in await console("core show uptime"):
                break
            await asyncio.sleep(0.1)
        yield console
    finally:
        process.kill()
        await process.wait()


def call(base, channel, extension):
    waiting = base / "spool" / "call"
    waiting.write_text(f"Channel: {channel}\nContext: calls\nExtension: {extension}\nPriority: 1\n")
    waiting.rename(base / "spool" / "outgoing" / f"{uuid4()}.call")


async def recorded(app, key):
    for _ in range(100):
        answer = await app.ask("HEAD", f"/v1/ingest/{TENANTS[0]}/{key}", Role.RECORDER)
        if answer.headers.get("Recording-State") == "sealed":
            recording = answer.headers["Recording-Id"]
            media = (await app.ask("GET", f"/v1/recordings/{recording}")).json["media"]
            return media["rate"], (await app.play(recording)).body
        await asyncio.sleep(0.05)
    raise AssertionError("not recorded")


async def test_the_milliwatt_tone_of_an_asterisk_is_recorded_at_the_rate_it_has(app, tmp_path):
    dialled, bridged = str(uuid4()), str(uuid4())
    [port] = free_ports(1)
    dialplan = f"""[calls]
exten => tone,1,Answer()
 same => n,SendDTMF(42)
 same => n,Milliwatt()
exten => record,1,Answer()
 same => n,AudioSocket({dialled},127.0.0.1:{port})
"""
    async with (
        listening(app, audiosocket=listener(app, listen=f"127.0.0.1:{port}")),
        asterisk(tmp_path, dialplan) as console,
    ):
        call(tmp_path, "Local/tone@calls", "record")
        call(tmp_path, f"AudioSocket/127.0.0.1:{port}/{bridged}/c(slin16)", "tone")
        await asyncio.sleep(3)
        await console("channel request hangup all")
        for key, rate in ((dialled, 8_000), (bridged, 16_000)):
            found, audio = await recorded(app, key)
            samples = [each for (each,) in struct.iter_unpack("<h", audio)]
            assert found == rate
            assert len(samples) > rate
            # 1004 Hz at 0 dBm0, whose peak is 3.14 dB below that of the codec.
            assert 20_000 < max(samples) < 26_000
