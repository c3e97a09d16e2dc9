"""200 concurrent uploads of 2 MB over real sockets, in pieces of 1,600 B and 16 KiB: MB/s and server CPU-ms per MB.

`python -m benchmarks.ingest [--uploads N] [--megabytes M]`. The load comes from another core; the floor runs in the
same way in the same run. Also how much the server gives the kernel to write for each upload.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.common import (
    child,
    cpu_seconds,
    pin,
    raise_file_limit,
    recorder_token,
    report,
    run,
    served_vault,
    system_seconds,
    written_bytes,
)

MB = 1_000_000


async def upload(host, port, token, key, audio, piece):
    """One chunked PUT; each piece is one HTTP chunk and one write."""
    reader, writer = await asyncio.open_connection(host, port)
    head = (
        f"PUT /v1/ingest/bench/{key} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: audio/PCMU;rate=8000;channels=2\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode())
    prefix = b"%x\r\n" % piece
    for start in range(0, len(audio), piece):
        part = audio[start : start + piece]
        writer.write((prefix if len(part) == piece else b"%x\r\n" % len(part)) + part + b"\r\n")
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 201"):
        raise RuntimeError(answer[:400].decode(errors="replace"))


async def measure(process, url, token, *, uploads, size, piece, label):
    address = urlsplit(url)
    audio = os.urandom(size)
    jobs = [
        upload(address.hostname, address.port, token, f"{label}-{piece}-{number}", audio, piece)
        for number in range(uploads)
    ]
    written, kernel = written_bytes(process.pid), system_seconds(process.pid)
    cpu, began = cpu_seconds(process.pid), time.perf_counter()
    await asyncio.gather(*jobs)
    seconds = time.perf_counter() - began
    # Segments are still moving from the journal to the store: their CPU belongs to the upload.
    last = -1.0
    while (now := cpu_seconds(process.pid)) - last > 0.02:
        last = now
        await asyncio.sleep(0.5)
    megabytes = uploads * size / MB
    return {
        "mb_per_s": round(megabytes / seconds, 1),
        "server_cpu_ms_per_mb": round((now - cpu) * 1000 / megabytes, 2),
        "of_which_kernel": round((system_seconds(process.pid) - kernel) * 1000 / megabytes, 2),
        "written_kib_per_upload": round((written_bytes(process.pid) - written) / uploads / 1024, 1),
    }


@contextlib.contextmanager
def floor():
    with tempfile.TemporaryDirectory() as directory:
        port_file = Path(directory) / "port"
        command = [sys.executable, "-m", "benchmarks.floor", str(port_file)]
        with child(command, port_file) as (process, port):
            yield process, f"http://127.0.0.1:{port}"


async def main(arguments):
    size = int(arguments.megabytes * MB)
    for piece in (1600, 16_384):
        with floor() as (process, url):
            bare = await measure(process, url, "none", uploads=arguments.uploads, size=size, piece=piece, label="floor")
        with served_vault() as (process, url, operator):
            token = await recorder_token(url, operator)
            await measure(process, url, token, uploads=4, size=size, piece=piece, label="warm")
            vault = await measure(process, url, token, uploads=arguments.uploads, size=size, piece=piece, label="vault")
        report(
            "ingest",
            uploads=arguments.uploads,
            bytes_per_upload=size,
            piece_bytes=piece,
            vault=vault,
            floor=bare,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("--megabytes", type=float, default=2.0)
    raise_file_limit()
    pin(1)
    run(main(parser.parse_args()))
