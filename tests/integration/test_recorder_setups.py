"""What `callvault recorders show` prints, pasted into the programs it is for, and run against a served vault."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import shutil
import stat
import sys
import time
import wave
import xml.etree.ElementTree as ET
from array import array
from pathlib import Path

import pytest
from yarl import URL

from cli.setups import RECORDERS, Place
from tests.clients import node_modules
from tests.helpers.app import TENANTS, app
from tests.helpers.recorder import until
from vault.media.g711 import decode
from vault.model import Codec, Role

__all__ = ["app"]

TENANT = TENANTS[0]
BIN = Path(sys.executable).parent


def program(name, *, beside=False):
    found = str(BIN / name) if beside and (BIN / name).exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def ffmpeg():
    return pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()


def pasted(app, name, directory, *, filled=True):
    """Write a recorder's files, with a real token filled in or as the page has them, and return their paths."""
    place = Place(URL(app.url), TENANT, app.token(Role.RECORDER) if filled else None)
    paths = []
    for file in RECORDERS[name].files(place):
        path = directory / Path(file.path).name
        path.write_text(file.content)
        path.chmod(stat.S_IRWXU)
        paths.append(path)
    return paths


async def run(*words, stdin=None, cwd=None, **environment):
    """Run a program to its end; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *map(str, words),
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=cwd,
        env={"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": "/nonexistent", **environment},
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate(stdin)
    return process.returncode, said.decode()


async def kept(app, key, *states):
    """Return a recording's facts and its stored bytes, once it is sealed, or in one of `states`."""
    async with asyncio.timeout(20):
        while (row := await app.vault.search.call(TENANT, key)) is None or row.state not in (states or ("sealed",)):
            await asyncio.sleep(0.05)
    played = await app.play(row.id)
    assert played.status == 200
    return row, played.body


SAMPLES = bytes(range(256)) * 125  # two seconds of something, 16-bit at 8000 Hz


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "call.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(SAMPLES)
    return path


@pytest.mark.parametrize("filled", [True, False], ids=["filled in", "as printed"])
async def test_curl(app, tmp_path, filled):
    program("curl")
    (script,) = pasted(app, "curl", tmp_path, filled=filled)
    given = {} if filled else {"CALLVAULT_TOKEN": app.token(Role.RECORDER)}
    code, said = await run(script, "by-curl", stdin=b"\x55" * 8_000, **given)
    assert code == 0, said
    row, audio = await kept(app, "by-curl")
    assert (row.media.codec.value, row.media.rate, audio) == ("pcmu", 8000, b"\x55" * 8_000)


@pytest.mark.parametrize("name", ["curl", "ffmpeg", "gstreamer", "aws"])
async def test_a_script_without_a_token_says_what_it_wants(app, tmp_path, name):
    for script in pasted(app, name, tmp_path, filled=False):
        code, said = await run(script, "a-call", "a-file")
        assert (code, said.strip().rpartition(": ")[2]) == (1, "the token of a recorder"), said


async def test_curl_fails_when_the_vault_refuses(app, tmp_path):
    program("curl")
    (script,) = pasted(app, "curl", tmp_path)
    script.write_text(script.read_text().replace("northfield/", "southgate/"))
    assert (await run(script, "by-curl", stdin=b"\x55" * 800))[0] == 22


@pytest.mark.parametrize("place", [0, 1], ids=["itself", "through curl"])
async def test_ffmpeg(app, tmp_path, wav, place):
    program("curl")
    script = pasted(app, "ffmpeg", tmp_path)[place]
    script.write_text(script.read_text().replace(" -re ", " "))  # not at the pace of a call
    code, said = await run(script, "by-ffmpeg", wav, FFMPEG=ffmpeg())
    assert code == 0, said
    row, audio = await kept(app, "by-ffmpeg")
    assert row.media.codec.value == "pcmu"
    assert len(audio) == len(SAMPLES) // 2
    heard, said = array("h", decode(Codec.PCMU, audio)), array("h", SAMPLES)
    # One step of the scale at most: coders round differently.
    assert all(abs(a - b) <= 8 + abs(b) // 15 for a, b in zip(heard, said, strict=True))


async def test_gstreamer(app, tmp_path, wav):
    program("gst-launch-1.0")
    (script,) = pasted(app, "gstreamer", tmp_path)
    code, said = await run(script, "by-gstreamer", wav)
    assert code == 0, said
    # The sink races with the end of its stream: the end may never be sent, and then nobody comes back to send it.
    await until(lambda: (live := app.vault.ingest.live_call(TENANT, "by-gstreamer")) is None or live.detached_at)
    app.clock.slept += app.vault.ingest.limits.resume_grace.total_seconds()
    await app.vault.keyring.refresh()
    row, audio = await kept(app, "by-gstreamer", "sealed", "truncated")
    assert row.media.container.value == "ogg"
    assert audio.startswith(b"OggS")


async def test_rtpengine_posts_its_file_to_the_address_in_its_configuration(app, tmp_path, wav):
    (conf,) = pasted(app, "rtpengine", tmp_path)
    parser = configparser.RawConfigParser()
    parser.read(conf)
    address = parser["rtpengine-recording"]["notify-uri"]
    # The daemon is a client of libcurl too: recording-daemon/notify.c.
    facts = {"Call-ID": "d1-4@pbx", "File-Name": "d1-4-mix", "File-Format": "wav", "Kind": "mixed"}
    times = dict.fromkeys(("Call-Start-Time", "Stream-Start-Time"), f"{time.time() - 60:.06f}")
    headers = [word for name, value in (facts | times).items() for word in ("-H", f"X-Recording-{name}: {value}")]
    code, said = await run(program("curl"), "-sSf", *headers, "-F", f"ngfile=<{wav}", address)
    assert code == 0, said
    recording = json.loads(said)["recording_id"]
    assert (await app.play(recording)).body == wav.read_bytes()


async def test_freeswitch_puts_its_file_at_the_address_in_its_dialplan(app, tmp_path, wav):
    (dialplan,) = pasted(app, "freeswitch-http-cache", tmp_path)
    (action,) = [each for each in ET.parse(dialplan).iter("action") if each.get("application") == "record_session"]
    # mod_http_cache is a client of libcurl too, and drops its own prefix.
    address = action.get("data").removeprefix("http_cache://").replace("${uuid}", "f9b3-1")
    code, said = await run(program("curl"), "-sSf", "-T", wav, address)
    assert code == 0, said
    assert (await kept(app, "f9b3-1.wav"))[1] == wav.read_bytes()


async def test_aws(app, tmp_path, wav):
    program("aws", beside=True)
    (script,) = pasted(app, "aws", tmp_path)
    code, said = await run(script, "by-aws.wav", wav)
    assert code == 0, said
    assert (await kept(app, "by-aws.wav"))[1] == wav.read_bytes()


async def test_boto3(app, tmp_path, wav):
    (script,) = pasted(app, "boto3", tmp_path)
    code, said = await run(sys.executable, script, "by-boto3.wav", wav)
    assert code == 0, said
    assert (await kept(app, "by-boto3.wav"))[1] == wav.read_bytes()


async def test_rclone(app, tmp_path, wav):
    program("rclone", beside=True)
    conf, script = pasted(app, "rclone", tmp_path)
    code, said = await run(script, "by-rclone.wav", wav, RCLONE_CONFIG=str(conf))
    assert code == 0, said
    assert (await kept(app, "by-rclone.wav"))[1] == wav.read_bytes()


async def test_tus(app, tmp_path, wav):
    node = program("node")
    (script,) = pasted(app, "tus", tmp_path)
    (tmp_path / "node_modules").symlink_to(node_modules())
    code, said = await run(node, script, "by-tus", wav, cwd=tmp_path)
    assert code == 0, said
    assert (await kept(app, "by-tus"))[1] == wav.read_bytes()
