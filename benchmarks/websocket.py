"""Live calls over WebSocket: N connections each send 800 B (100 ms of G.711) ten times a second, in real time.

Prints, for one server process on one core: the time from a piece's arrival to its durability (p50, p99, from the
server's own histogram), CPU a message beside a bare WebSocket server on the same library that throws every message away
(the floor, measured in the same run), and memory a call. With `--workers 2` the server has both cores and the sender
shares them. `python -m benchmarks.websocket [--calls N …] [--seconds S] [--workers N]`.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from aiohttp import web

from benchmarks.common import (
    CONFIG,
    anonymous_bytes,
    child,
    cpu_seconds,
    pin,
    raise_file_limit,
    recorder_token,
    report,
    rss_bytes,
    run,
    served_vault,
)
from benchmarks.live import quantile, scrape

PIECE_BYTES = 800
INTERVAL = 0.1
TURNS = 50
"""Into how many groups, evenly spread over the interval, the calls are divided."""
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def frame(opcode, payload):
    """One masked frame, as a client sends it (RFC 6455 section 5.2)."""
    mask = os.urandom(4)
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))


def connect(url, path, token, number):
    """Open one call and say which it is; a blocking socket, because the sender does nothing else."""
    address = urlsplit(url)
    line = socket.create_connection((address.hostname, address.port))
    line.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Authorization: Bearer {token}\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: audio.jambonz.org\r\n\r\n".encode()
    )
    answer = line.recv(4096)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    about = {"callSid": f"call-{number}", "sampleRate": 8000, "mixType": "mono", "direction": "inbound"}
    line.sendall(frame(1, json.dumps(about).encode()))
    return line


def speak(lines, piece, seconds):
    """Send one piece on every line each 100 ms; return (messages, worst lateness in seconds, own CPU seconds)."""
    groups = [lines[number::TURNS] for number in range(TURNS)]
    began, own, worst = time.perf_counter(), time.process_time(), 0.0
    for tick in range(int(seconds / INTERVAL)):
        for number, group in enumerate(groups):
            due = began + (tick + number / TURNS) * INTERVAL
            now = time.perf_counter()
            worst = max(worst, now - due)
            if due > now:
                time.sleep(due - now)
            for line in group:
                line.send(piece)
    return int(seconds / INTERVAL) * len(lines), worst, time.process_time() - own


def family(pid):
    """The server's processes: itself and its workers."""
    return [pid, *(each.pid for each in psutil.Process(pid).children(recursive=True))]


def measured(pid, lines, seconds):
    """Speak and return the server's CPU microseconds a message, its cores, and how the sender did."""
    pids = family(pid)
    before, began = sum(map(cpu_seconds, pids)), time.perf_counter()
    messages, worst, own = speak(lines, frame(2, os.urandom(PIECE_BYTES)), seconds)
    wall, used = time.perf_counter() - began, sum(map(cpu_seconds, pids)) - before
    return {
        "cpu_us_per_message": round(used / messages * 1e6, 2),
        "cores": round(used / wall, 3),
        "sender_cores": round(own / wall, 3),
        "sender_worst_lateness_ms": round(worst * 1000, 1),
    }


def hang_up(lines):
    """End every call; return how many were not answered with a close of code 1000 or its echo."""
    for line in lines:
        line.sendall(frame(8, (1000).to_bytes(2, "big")))
    answered = 0
    for line in lines:
        line.settimeout(60)
        answered += line.recv(4096)[:4] == b"\x88\x02\x03\xe8"
        line.close()
    return len(lines) - answered


async def vault(arguments, calls):
    with served_vault(CONFIG, workers=arguments.workers) as (process, url, operator):
        token = await recorder_token(url, operator)
        empty = [sum(map(read, family(process.pid))) for read in (rss_bytes, anonymous_bytes)]
        path = "/v1/ingest/bench/ws"
        lines = [connect(url, path, token, number) for number in range(calls)]
        speak(lines, frame(2, os.urandom(PIECE_BYTES)), 5)
        before = await scrape(url)
        figures = measured(process.pid, lines, arguments.seconds)
        after = await scrape(url)
        full = [sum(map(read, family(process.pid))) for read in (rss_bytes, anonymous_bytes)]
        return {
            "ack_p50_ms_at_most": quantile(before[0], after[0], 0.50),
            "ack_p99_ms_at_most": quantile(before[0], after[0], 0.99),
            **figures,
            "rss_kib_per_call": round((full[0] - empty[0]) / calls / 1024, 1),
            "anonymous_kib_per_call": round((full[1] - empty[1]) / calls / 1024, 1),
            "not_acknowledged": hang_up(lines),
        }


def floor(arguments, calls, port_file):
    command = [sys.executable, "-m", "benchmarks.websocket", "--floor", str(port_file)]
    with child(command, port_file) as (process, port):
        empty = rss_bytes(process.pid)
        lines = [connect(f"http://127.0.0.1:{port}", "/", "none", number) for number in range(calls)]
        speak(lines, frame(2, os.urandom(PIECE_BYTES)), 2)
        figures = measured(process.pid, lines, min(arguments.seconds, 10))
        figures["rss_kib_per_call"] = round((rss_bytes(process.pid) - empty) / calls / 1024, 1)
        hang_up(lines)
        return figures


async def serve_floor(port_file):
    """A WebSocket server that reads every message and keeps none."""

    async def swallow(request):
        line = web.WebSocketResponse(protocols=("audio.jambonz.org",))
        await line.prepare(request)
        async for _ in line:
            pass
        return line

    app = web.Application()
    app.router.add_get("/", swallow)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    port_file.write_text(str(runner.addresses[0][1]))
    await asyncio.Event().wait()


async def main(arguments):
    for calls in arguments.calls:
        kept = await vault(arguments, calls)
        with tempfile.TemporaryDirectory() as directory:
            thrown_away = floor(arguments, calls, Path(directory) / "port")
        report(
            "websocket",
            calls=calls,
            workers=arguments.workers,
            seconds=arguments.seconds,
            **kept,
            floor={key: thrown_away[key] for key in ("cpu_us_per_message", "cores", "rss_kib_per_call")},
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, nargs="+", default=[2000, 5000])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--floor", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    raise_file_limit()
    if given.floor is not None:
        run(serve_floor(given.floor))
    else:
        if given.workers == 1:
            pin(1)
        run(main(given))
