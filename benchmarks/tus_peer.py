"""tus uploads to the vault and to @tus/server with its file store, one after the other from one load generator.

Both get the same uploads in the same chunks over the same number of connections. The vault's answer to a chunk says
that it is encrypted and on disk; the peer's says that it was written to a file, without a sync. `python -m
benchmarks.tus_peer [--uploads N] [--megabytes M] [--chunk-kib K] [--at-once C]` prints one JSON line.
"""

import argparse
import asyncio
import base64
import contextlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

import aiohttp

from benchmarks.common import child, cpu_seconds, pin, raise_file_limit, recorder_token, report, run, served_vault

PEERS = Path(__file__).parent / "peers"
METADATA = f"filetype {base64.b64encode(b'audio/basic').decode()}"
TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {"Content-Type": "application/offset+octet-stream", **TUS}


class Load:
    """Uploads made by one generator, and how long each request took."""

    def __init__(self, arguments):
        self.uploads = arguments.uploads
        self.size = arguments.megabytes << 20
        self.chunk = os.urandom(arguments.chunk_kib << 10)
        self.at_once = arguments.at_once
        self.created, self.appended = [], []

    async def upload(self, session, place, headers):
        length = {"Upload-Length": str(self.size), "Upload-Metadata": METADATA}
        began = time.perf_counter()
        async with session.post(place, headers={**TUS, **length, **headers}) as answer:
            assert answer.status == 201, await answer.text()
            location = answer.headers["Location"]
        self.created.append(time.perf_counter() - began)
        for offset in range(0, self.size, len(self.chunk)):
            piece = self.chunk[: self.size - offset]
            began = time.perf_counter()
            sent = {**BYTES, "Upload-Offset": str(offset), **headers}
            async with session.patch(location, data=piece, headers=sent) as answer:
                assert answer.status == 204, await answer.text()
                assert answer.headers["Upload-Offset"] == str(offset + len(piece))
            self.appended.append(time.perf_counter() - began)

    async def measure(self, pid, place, headers):
        """Run them all and return the figures."""
        turn = asyncio.Semaphore(self.at_once)
        self.created, self.appended = [], []

        async def one(session):
            async with turn:
                await self.upload(session, place, headers)

        cpu, began = cpu_seconds(pid), time.perf_counter()
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for _ in range(self.uploads):
                group.create_task(one(session))
        seconds = time.perf_counter() - began
        megabytes = self.uploads * self.size / 1e6
        return {
            "mb_per_second": round(megabytes / seconds, 1),
            "cpu_ms_per_mb": round(1000 * (cpu_seconds(pid) - cpu) / megabytes, 2),
            "create_ms": _quantiles(self.created),
            "chunk_ms": _quantiles(self.appended),
        }


def _quantiles(seconds):
    ordered = sorted(seconds)
    return {f"p{share}": round(1000 * ordered[len(ordered) * share // 100], 2) for share in (50, 99)}


@contextlib.contextmanager
def _peer():
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=PEERS, check=True, capture_output=True)
    with tempfile.TemporaryDirectory(prefix="callvault-bench-") as directory:
        port_file = Path(directory) / "port"
        files = Path(directory) / "files"
        files.mkdir()
        command = ["node", str(PEERS / "tus.mjs"), str(files), str(port_file)]
        with child(command, port_file, core=0) as (process, port):
            yield process, f"http://127.0.0.1:{port}/files"


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--uploads", type=int, default=60)
    parser.add_argument("--megabytes", type=int, default=4)
    parser.add_argument("--chunk-kib", type=int, default=256)
    parser.add_argument("--at-once", type=int, default=20)
    arguments = parser.parse_args()
    raise_file_limit()
    pin(1)
    load = Load(arguments)
    with _peer() as (process, place):
        peer = await load.measure(process.pid, place, {})
    with served_vault() as (process, url, operator):
        headers = {"Authorization": f"Bearer {await recorder_token(url, operator)}"}
        vault = await load.measure(process.pid, f"{url}/v1/ingest/bench/tus", headers)
    report("tus_peer", **vars(arguments), load_average=round(os.getloadavg()[0], 1), vault=vault, peer=peer)


if __name__ == "__main__":
    run(main())
