"""Cost of the journal's hot path: appends of 1,600 bytes (0.2 s of G.711) by 2,000 calls. Prints one JSON line.

`python -m benchmarks.journal [--rounds N] [--directory DIR]`
"""

import argparse
import asyncio
import gc
import resource
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry

from benchmarks.common import report
from vault.ids import TenantId
from vault.model import Cohort, Coordinate, DataKey, Part
from vault.ports.journal import JournalOpening
from vault.storage.journal.file import Disk
from vault.storage.journal.journal import FileJournal
from vault.telemetry import Metrics

ENTRIES = 2000
PIECE = bytes(range(256)) * 6 + bytes(64)
EXTENTS = 300


class Clock:
    def now(self):
        return datetime.now(UTC)

    def monotonic(self):
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class TimedDisk(Disk):
    def __init__(self):
        self.syncs = []

    def sync(self, fd):
        began = time.perf_counter()
        super().sync(fd)
        self.syncs.append(time.perf_counter() - began)


def opening(number):
    cohort = Cohort(tenant=TenantId("bench"), part=Part.AUDIO, period=20_000, generation=0)
    return JournalOpening(recording=f"rec_{number:032x}", coordinate=Coordinate(cohort=cohort, leaf=number))


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def appends(entries, rounds, pace):
    """Every entry appends once a round; the loop gets to run between slices, as it does between sockets."""
    for _ in range(rounds):
        for start in range(0, len(entries), pace):
            for entry in entries[start : start + pace]:
                entry.append(PIECE)
            await asyncio.sleep(0)
        await entries[-1].barrier()


async def run(directory, rounds, *, metrics, pace):
    disk = TimedDisk()
    journal = FileJournal(
        directory, clock=Clock(), disk=disk, bytes_bound=16 << 30, file_bytes=64 << 20, metrics=metrics
    )
    entries = [journal.open(opening(number), DataKey(number.to_bytes(32, "big"))) for number in range(ENTRIES)]
    await appends(entries, 1, pace)
    disk.syncs.clear()
    cpu, wall = cpu_seconds(), time.perf_counter()
    await appends(entries, rounds, pace)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    count = rounds * ENTRIES
    result = {
        "appends_per_second": round(count / wall),
        "cpu_us_per_append": round(cpu / count * 1e6, 2),
        "fdatasync_p50_ms": round(statistics.median(disk.syncs) * 1e3, 2),
        "commits": len(disk.syncs),
    }
    began = time.perf_counter()
    for entry in entries[:50]:
        entry.read(0, entry.durable)
    result["read_mb_per_second"] = round(50 * entries[0].durable / (time.perf_counter() - began) / 1e6)
    for entry in entries:
        entry.close()
    await journal.close()
    return result


async def memory(directory):
    """Resident bytes per live entry that remembers 300 records in one file."""
    journal = FileJournal(directory, clock=Clock(), bytes_bound=4 << 30, file_bytes=1 << 30)
    openings = [opening(number) for number in range(ENTRIES)]
    keys = [DataKey(number.to_bytes(32, "big")) for number in range(ENTRIES)]
    gc.collect()
    before = resident_bytes()
    entries = [journal.open(what, key) for what, key in zip(openings, keys, strict=True)]
    for _ in range(EXTENTS):
        for entry in entries:
            entry.append(PIECE[:160])
        await entries[-1].barrier()
    gc.collect()
    used = resident_bytes() - before
    for entry in entries:
        entry.close()
    await journal.close()
    return round(used / ENTRIES)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--directory", default=None, help="where the scratch journal goes (default: the temporary one)")
    arguments = parser.parse_args()
    results = {"entries": ENTRIES, "piece_bytes": len(PIECE)}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as scratch:
        for name, work in (
            ("memory", memory),
            ("bare", lambda at: run(at, arguments.rounds, metrics=None, pace=ENTRIES)),
            ("metered", lambda at: run(at, arguments.rounds, metrics=Metrics(CollectorRegistry()), pace=50)),
        ):
            place = Path(scratch) / name
            place.mkdir()
            found = asyncio.run(work(place))
            results |= {"ram_bytes_per_entry": found} if name == "memory" else {name: found}
    report("journal", **results)


if __name__ == "__main__":
    main()
