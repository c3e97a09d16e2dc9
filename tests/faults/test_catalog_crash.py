"""kill -9 between any two instructions: what was acknowledged is there, and the audit trail has no gap."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.catalog_checks import check
from tests.helpers.catalog_template import migrate
from tests.helpers.catalogs import SteppingClock, event, finish, recording
from vault.ids import RecordingId, prefixed, uuid7
from vault.storage.catalog import open_catalog
from vault.storage.postgres import PostgresSettings

WRITERS = 16


async def write_until_killed(place: Path | PostgresSettings) -> None:
    """Create and finish recordings, naming each on standard output only once the catalog has acknowledged it."""
    catalog = open_catalog(place, clock=SteppingClock())
    await catalog.check_schema()

    async def work(n: int) -> None:
        for turn in range(10_000):
            identity = prefixed("rec", uuid7(unix_ms=time.time_ns() // 1_000_000, entropy=os.urandom(10)))
            one = recording(id=RecordingId(identity), call_token=f"{os.getpid()}-{n}-{turn}")
            await catalog.create_recording(one, audit=[event(target=one.call_token)])
            os.write(1, f"created {one.call_token}\n".encode())
            await finish(catalog, one, audit=[event("recording.sealed", target=one.call_token)])
            os.write(1, f"sealed {one.call_token}\n".encode())
            await catalog.reserve_leaves(one.audio.cohort, 64)

    async with asyncio.TaskGroup() as group:
        for n in range(WRITERS):
            group.create_task(work(n))


def run_and_kill(path: Path, *, lines: int, pause: float) -> list[str]:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.test_catalog_crash", str(path)], stdout=subprocess.PIPE, cwd=root
    ) as child:
        assert child.stdout is not None
        heard = [child.stdout.readline() for _ in range(lines)]
        time.sleep(pause)
        child.send_signal(signal.SIGKILL)
        heard += child.stdout.readlines()
        assert child.wait(timeout=20) == -signal.SIGKILL
    return [line.decode() for line in heard if line.endswith(b"\n")]


async def test_everything_acknowledged_survives_kill_and_the_trail_has_no_gap(tmp_path):
    path = tmp_path / "catalog.db"
    catalog = open_catalog(path, clock=SteppingClock())
    await catalog.migrate()
    await catalog.close()
    acknowledged: list[str] = []
    written = 0
    # The second incarnation opens what the first one left in the WAL.
    for lines, pause in ((40, 0.0), (150, 0.0137)):
        fresh = await asyncio.to_thread(run_and_kill, path, lines=lines, pause=pause)
        assert len(fresh) >= lines
        acknowledged += fresh
        now_written = await check(path, acknowledged)
        assert now_written >= written + len(fresh)
        written = now_written


async def test_a_migration_killed_half_way_leaves_no_half_schema(tmp_path):
    path = tmp_path / "catalog.db"
    first = open_catalog(path, clock=SteppingClock())
    await first._database.create()

    async def half_way() -> None:
        async with first._database.engine.begin() as connection:
            await connection.run_sync(migrate)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await half_way()
    again = open_catalog(path, clock=SteppingClock())
    await again.migrate()
    await again.check_schema()
    await again.append_audit([event()])
    await again.close()
    await first.close()


if __name__ == "__main__":
    asyncio.run(
        write_until_killed(Path(sys.argv[1]) if sys.argv[1:] else PostgresSettings(url=os.environ["CATALOG_URL"]))
    )
