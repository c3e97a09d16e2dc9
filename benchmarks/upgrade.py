"""An upgrade of a catalog of N recordings from an older schema: seconds, the most disk, the longest transaction.

`python -m benchmarks.upgrade [--recordings 1000000] [--from 0031] [--postgres] [--kills 0]`. The catalog is filled at
the older schema, and upgraded by a process of its own, which is killed as often as is asked for and goes on.
"""

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from benchmarks.common import ROOT, report, run
from benchmarks.large_catalog import calls, rows_of
from benchmarks.scale import postgres_below
from vault.format.names import manifest_name, segment_name
from vault.ids import RecordingId
from vault.ports.progress import Silent
from vault.storage.catalog import open_catalog, schema
from vault.storage.catalog.database import engines
from vault.storage.postgres import PostgresSettings
from vault.wiring import SystemClock

_BATCH = 20_000
_OBJECTS = ("recording", "number", "attempt", "name", "start", "length", "object_bytes", "sha256")
_KILL_AFTER = 3.0


def objects_of(row):
    """Yield the rows of a recording's objects as they were before they had a period."""
    place = (row["tenant"], row["audio_period"], RecordingId("rec_" + row["id"].hex()))
    attempt, digest = row["call_token"], row["call_token"] * 2
    yield (row["id"], -1, "", manifest_name(*place), 0, 0, 1100, digest)
    name = segment_name(*place, 0, attempt)
    yield (row["id"], 0, attempt, name, 0, row["stored_bytes"], row["stored_bytes"] + 400, digest)


async def make(place, revision, count):
    """Fill a catalog at an older schema."""

    def begin(connection):
        schema.upgrade_to(connection, revision)
        return {column["name"] for column in sa.inspect(connection).get_columns("recordings")}

    if isinstance(place, Path):
        place.touch(mode=0o600)
    made = engines(place)
    async with made.writing.begin() as connection:
        there = await connection.run_sync(begin)
    await made.writing.dispose()
    rows = await rows_of(place)
    every = calls(count, datetime.now(UTC))
    while batch := list(itertools.islice(every, _BATCH)):
        columns = [name for name in batch[0] if name in there]
        await rows.copy("recordings", columns, [tuple(row[name] for name in columns) for row in batch])
        live = [row for row in batch if row["state"] != "shredded"]
        await rows.copy("segments", _OBJECTS, [each for row in live for each in objects_of(row)])
    await rows.close()


async def upgrade(place):
    """Upgrade, and print how long it took and how long its longest transaction was."""
    begun = []
    sa.event.listen(sa.Engine, "begin", lambda _: begun.append(time.perf_counter()))
    catalog = open_catalog(place, clock=SystemClock())
    began = time.perf_counter()
    await catalog.upgrade(Silent())  # nothing is left to do if the kill came after the last step
    ended = time.perf_counter()
    await catalog.close()
    longest = max(after - before for before, after in itertools.pairwise([*begun, ended]))
    print(json.dumps({"seconds": round(ended - began, 1), "longest_s": round(longest, 2), "transactions": len(begun)}))


def disk_bytes(directory):
    """Return what the files below a directory take, of which some may go meanwhile."""
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def measure(base, place, arguments):
    """Upgrade in processes, all but the last killed, and look at the disk meanwhile."""
    text = str(place) if isinstance(place, Path) else place.url
    command = [sys.executable, "-m", "benchmarks.upgrade", "--child", text]
    before = peak = disk_bytes(base)
    began, kills = time.perf_counter(), 0
    while True:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started = time.perf_counter()
        while process.poll() is None:
            peak = max(peak, disk_bytes(base))
            if kills < arguments.kills and time.perf_counter() - started > _KILL_AFTER:
                process.kill()
                process.wait()
                kills += 1
            time.sleep(0.05)
        if process.returncode == 0:
            found = json.loads(process.stdout.read())
            break
        assert process.returncode < 0, "the upgrade failed"
    report(
        "upgrade",
        database="sqlite" if isinstance(place, Path) else "postgresql",
        recordings=arguments.recordings,
        of=arguments.of,
        kills=kills,
        whole_s=round(time.perf_counter() - began, 1),
        **found,
        before_mb=before >> 20,
        peak_mb=peak >> 20,
        after_mb=disk_bytes(base) >> 20,
    )


def main(arguments):
    """Make a catalog in a directory that goes, and upgrade it."""
    if arguments.child is not None:
        url = arguments.child.startswith("postgresql:")
        run(upgrade(PostgresSettings(url=arguments.child) if url else Path(arguments.child)))
        return
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="callvault-bench-")))
        place = base / "catalog.db"
        if arguments.postgres:
            server = stack.enter_context(postgres_below(base))
            place = PostgresSettings(url=server.url(run(server.new_database())))
        run(make(place, arguments.of, arguments.recordings))
        measure(base, place, arguments)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=1_000_000)
    parser.add_argument("--from", dest="of", default="0031")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    main(parser.parse_args())
