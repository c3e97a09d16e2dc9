"""The boto3 that a recorder gets today: its checksums and defaults may be others than those of the pinned one."""

import asyncio
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients import CLIENTS
from tests.helpers.app import app, sound
from tests.helpers.s3clients import BUCKET, HEAD, Recorder, run
from tests.helpers.soak import SOAK
from vault.model import Role

__all__ = ["app"]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "callvault-tests" / "boto3"
AUDIO = HEAD + sound(17 << 20)
PART = 8 << 20
"""What upload_file sends as one part, unless it is told another size."""


def newest():
    """Return a Python with the newest boto3 that pip finds, in an environment of its own; skip without one."""
    CACHE.mkdir(parents=True, exist_ok=True)
    python = CACHE / "bin" / "python"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (
            [sys.executable, "-m", "venv", CACHE],
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "boto3[crt]"],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"the newest boto3 cannot be installed: {(done.stderr.strip() or 'pip failed')[-200:]}")
    return python


def etag(data, part):
    pieces = [hashlib.md5(data[at : at + part]).digest() for at in range(0, len(data), part)]
    return f'"{hashlib.md5(b"".join(pieces)).hexdigest()}-{len(pieces)}"'


@pytest.mark.soak
@pytest.mark.skipif(not SOAK, reason="it is installed in an environment of its own: run in make soak")
async def test_the_newest_boto3_records_whole_and_in_parts_with_every_checksum_and_is_refused_what_recorders_are(
    app, tmp_path
):
    python = await asyncio.to_thread(newest)
    file = tmp_path / "long.wav"
    file.write_bytes(AUDIO)
    recorder = Recorder.of(app.url, app.token(Role.RECORDER))
    asked = {"url": recorder.endpoint, "bucket": BUCKET, "path": str(file)}
    ran = await run(python, CLIENTS / "boto3_newest.py", json.dumps(asked), env=recorder.environment)
    assert ran.code == 0, ran.output
    said = json.loads(ran.output.splitlines()[-1])
    short = AUDIO[:300_000]
    md5 = f'"{hashlib.md5(short).hexdigest()}"'
    wholes = {key: [len(short), md5] for key in ("whole", "stream", "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")}
    parts = {"parts.wav": [len(AUDIO), etag(AUDIO, PART)], "crc64.wav": [len(AUDIO), etag(AUDIO, 5 << 20)]}
    assert said["heads"] == wholes | parts, said["version"]
    assert (said["etag"], said["open"]) == (md5, ["open.wav"])
    assert (said["damaged"], said["get"], said["list"]) == ("BadDigest", "AccessDenied", "AccessDenied")
    for key in (*wholes, *parts):
        row = await app.vault.search.call(BUCKET, key)
        assert (await app.play(row.id)).body == (short if key in wholes else AUDIO), key
