"""What a running server's memory still holds of a recording after it was shredded and every lease has run out.

Records a call, plays it, lets it expire, and reads all of the server's memory (as root, or with CAP_SYS_PTRACE) before
the shred and after the lease: copies of the data key, of tree seeds that derive it, and of 64-byte runs of the audio.
The figures are a report, not a bar: Python frees memory without wiping it. `python -m benchmarks.memory_scan`.
"""

import asyncio
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import aiohttp

from benchmarks.common import ROOT, child, recorder_token, report, run
from vault.config import load_config
from vault.ids import TenantId
from vault.keystore.keyring import Keyring
from vault.model import Cohort, Coordinate, Part
from vault.wiring.adapters import SystemClock, keyring_replicas, root_keys

CONFIG = """
[server]
port = 0
[journal]
disk_reserve = "64MiB"
[keyring]
lease = "2s"
precreate_days = 0
[retention]
default = "20s"
floor = "1s"
cohort_width = "1s"
[sweep]
enabled = false
"""
RUN = 64


def regions(pid):
    """Yield the readable memory of a process, a mapping at a time."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if match is None or line.endswith(("[vvar]", "[vsyscall]")):
                continue
            start, end = (int(text, 16) for text in match.groups())
            try:
                memory.seek(start)
                yield memory.read(end - start)
            except OSError:
                continue


def scan(pid, needles):
    """Return how often each kind of needle occurs in the process's memory."""
    found = dict.fromkeys(needles, 0)
    size = 0
    for data in regions(pid):
        size += len(data)
        for kind, values in needles.items():
            found[kind] += sum(data.count(value) for value in values)
    return {**found, "scanned_mib": size >> 20}


async def secrets(config, recording):
    """Return the recording's key and the seeds above it, as the vault's own files give them."""
    with sqlite3.connect(config.catalog_path) as catalog:
        place = catalog.execute(
            "SELECT audio_period, audio_generation, audio_leaf FROM recordings WHERE id = ?",
            (bytes.fromhex(recording),),
        ).fetchone()
    cohort = Cohort(tenant=TenantId("bench"), part=Part.AUDIO, period=place[0], generation=place[1])
    clock = SystemClock()
    keyring = await Keyring.observe(keyring_replicas(config), root_keys(config, clock, os.urandom), clock=clock)
    key = keyring.derive(Coordinate(cohort=cohort, leaf=place[2])).material
    seeds = list(keyring._engine.state.cover(cohort).nodes.values())
    await keyring.close()
    return key, seeds


async def measure(pid, url, operator, config):
    recorder = await recorder_token(url, operator)
    audio = random.Random(1).randbytes(400_000)
    admin = {"Authorization": f"Bearer {operator}"}
    async with aiohttp.ClientSession(url) as session:
        body = {"name": "ear", "role": "agent", "tenant": "bench"}
        async with session.post("/v1/tokens", json=body, headers=admin) as answer:
            agent = (await answer.json())["token"]
        media = {"Authorization": f"Bearer {recorder}", "Content-Type": "audio/PCMU;rate=8000;channels=1"}
        async with session.put("/v1/ingest/bench/call", data=audio, headers=media) as answer:
            recording = (await answer.json())["recording_id"]
        ear = {"Authorization": f"Bearer {agent}", "Purpose": "quality"}
        while True:
            async with session.get(f"/v1/recordings/{recording}/audio?format=raw", headers=ear) as answer:
                if answer.status == 200 and await answer.read() == audio:
                    break
            await asyncio.sleep(0.2)
        key, seeds = await secrets(config, recording.removeprefix("rec_"))
        needles = {
            "data_key": [key],
            "tree_seeds": seeds,
            "audio_runs": [audio[at : at + RUN] for at in range(0, len(audio), 4096)],
        }
        before = scan(pid, needles)
        shredded = 0
        while not shredded:
            await asyncio.sleep(1)
            async with session.post("/v1/sweeps", json={}, headers=admin) as answer:
                shredded = (await answer.json()).get("shredded", 0)
        await asyncio.sleep(5)
        async with session.get(f"/v1/recordings/{recording}/audio", headers=ear) as answer:
            assert answer.status == 410, await answer.text()
        return before, scan(pid, needles)


def main():
    with tempfile.TemporaryDirectory(prefix="callvault-bench-") as directory:
        path = Path(directory) / "config.toml"
        path.write_text(CONFIG)
        command = [sys.executable, "-m", "cli"]
        made = subprocess.run(
            [*command, "init", "--trial", "--config", path], cwd=ROOT, capture_output=True, text=True, check=True
        )
        port_file = Path(directory) / "port"
        serve = [*command, "serve", "--config", str(path), "--port-file", str(port_file)]
        with child(serve, port_file) as (process, port):
            url = f"http://127.0.0.1:{port}"
            before, after = run(measure(process.pid, url, made.stdout.strip(), load_config(path)))
    report("memory_scan", before_the_shred=before, after_the_lease=after)


if __name__ == "__main__":
    main()
