"""Live calls: N connections send 100 ms of G.711 stereo (1,600 B) ten times a second, in real time.

Prints the time from a piece's arrival to its durability (p50, p99, from the server's own histogram), the server's CPU
share of one core and memory a call. `python -m benchmarks.live [--calls N] [--seconds S]`.
"""

import argparse
import asyncio
import os
import re
import time
from collections import Counter
from urllib.parse import urlsplit

import aiohttp

from benchmarks.common import cpu_seconds, pin, raise_file_limit, recorder_token, report, rss_bytes, run, served_vault

PIECE = 1600
INTERVAL = 0.1
BUCKET = r'callvault_%s_seconds_bucket\{[^}]*le="([^"]+)"[^}]*\} ([0-9.e+]+)'


async def scrape(url):
    """Return the server's histograms of acknowledgements and of journal commits."""
    async with aiohttp.ClientSession(url) as session, session.get("/metrics") as answer:
        text = await answer.text()
    found = [Counter(), Counter()]
    for counts, name in zip(found, ("ingest_ack", "journal_commit"), strict=True):
        for bound, count in re.findall(BUCKET % name, text):
            counts[bound] += float(count)  # of every worker
    return found


def quantile(before, after, share):
    """Return the upper bound of the histogram bucket that holds the quantile, in ms."""
    counts = {bound: after[bound] - before.get(bound, 0) for bound in after}
    total = counts["+Inf"]
    return next(float(bound) * 1000 for bound, count in counts.items() if count >= share * total)


async def connect(host, port, token, key):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(
        (
            f"PUT /v1/ingest/bench/{key} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: audio/PCMU;rate=8000;channels=2\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        ).encode()
    )
    return reader, writer


async def speak(calls, piece, seconds):
    """Send one piece on every call each 100 ms, spread evenly over the interval; return how late the sender ran."""
    chunk = b"%x\r\n" % len(piece) + piece + b"\r\n"
    groups = [calls[number::50] for number in range(50)]
    began = time.perf_counter()
    worst = 0.0
    for tick in range(int(seconds / INTERVAL)):
        for number, group in enumerate(groups):
            due = began + tick * INTERVAL + number * INTERVAL / len(groups)
            now = time.perf_counter()
            worst = max(worst, now - due)
            if due > now:
                await asyncio.sleep(due - now)
            for _, writer in group:
                writer.write(chunk)
    return worst


async def main(arguments):
    with served_vault() as (process, url, operator):
        token = await recorder_token(url, operator)
        address = urlsplit(url)
        empty = rss_bytes(process.pid)
        calls = []
        for start in range(0, arguments.calls, 100):
            batch = range(start, min(start + 100, arguments.calls))
            calls += await asyncio.gather(*(connect(address.hostname, address.port, token, f"live-{n}") for n in batch))
        piece = os.urandom(PIECE)
        await speak(calls, piece, 5)
        before, cpu, began = await scrape(url), cpu_seconds(process.pid), time.perf_counter()
        late = await speak(calls, piece, arguments.seconds)
        cpu, wall = cpu_seconds(process.pid) - cpu, time.perf_counter() - began
        after, full = await scrape(url), rss_bytes(process.pid)
        for _, writer in calls:
            writer.write(b"0\r\n\r\n")
        answers = await asyncio.gather(*(reader.read() for reader, _ in calls))
        refused = sum(not answer.startswith(b"HTTP/1.1 201") for answer in answers)
        for _, writer in calls:
            writer.close()
        report(
            "live",
            calls=arguments.calls,
            seconds=arguments.seconds,
            ack_p50_ms_at_most=quantile(before[0], after[0], 0.50),
            ack_p99_ms_at_most=quantile(before[0], after[0], 0.99),
            commit_p50_ms_at_most=quantile(before[1], after[1], 0.50),
            commit_p99_ms_at_most=quantile(before[1], after[1], 0.99),
            server_cpu_share_of_one_core=round(cpu / wall, 3),
            rss_kib_per_call=round((full - empty) / arguments.calls / 1024, 1),
            not_acknowledged=refused,
            sender_worst_lateness_ms=round(late * 1000, 1),
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=40.0)
    raise_file_limit()
    pin(1)
    run(main(parser.parse_args()))
