"""kill -9 of a restore at every sign of progress and at moments in between; run again, it ends as if never killed."""

import asyncio
import contextlib
import os
import random
import shutil
import signal

import pytest

from tests.helpers.crashing import memory_directory
from tests.helpers.restores import TENANT, Site
from tests.helpers.server import Site as Target
from tests.helpers.server import log_of, zygote
from tests.helpers.soak import SOAK, chance, sample
from vault.errors import Shredded
from vault.model import HoldState
from vault.ports.recordings import RecordingQuery
from vault.wiring import open_vault

KILLS = 45
RUNS = sample(range(20), 2, of="restore")
DOCUMENT = {
    "journal": {"file_bytes": "1MiB", "max_bytes": "64MiB", "disk_reserve": "1MiB"},
    "segments": {"max_bytes": "64KiB"},
    "retention": {"default": "10d", "cohort_width": "1d", "release_grace": "1d"},
    "sweep": {"enabled": False, "max_jump": "400d"},
    "keyring": {"precreate_days": 0},
    "log": {"level": "WARNING"},
}


class Disaster(Site):
    """A vault that has lost its catalog and most of its objects, with what is true of each of its recordings."""

    async def happen(self):
        await self.create()
        async with self.open() as vault:
            self.survivors = [await self.record(vault, f"survivor-{n}", days=100, size=90_000) for n in range(4)]
            self.doomed = [await self.record(vault, f"doomed-{n}", days=1) for n in range(4)]
            self.held = await self.record(vault, "held", days=1)
            self.first = await self.hold(vault, self.held.id)
            self.backup = (await self.back_up()).manifest.backup
            self.newer = [await self.record(vault, f"newer-{n}", days=100) for n in range(3)]
            # The clock of a forked restore is the machine's: what is shredded here was due by this site's.
            self.clock.advance(days=3)
            assert await self.sweep(vault) == 4
            self.second = await self.hold(vault, self.newer[0].id)
        self.lose_catalog()
        self.lose_objects_but_newer(*self.newer)
        self.put_everything_in_the_pool_back()
        for row in self.survivors[:2]:
            for path in self.config.objects_path.glob(f"objects/v1/*/*/{row.id}"):
                shutil.rmtree(path)


async def check(disaster, site):
    """Hold a restored vault to everything that is true."""
    clock = disaster.clock
    async with open_vault(site.config, clock=clock, background=False) as vault:
        rows = {row.id: row for row in await vault.catalog.recordings(RecordingQuery(limit=1000))}
        truth = {row.id: row for row in (*disaster.survivors, disaster.held, *disaster.newer)}
        assert rows.keys() == truth.keys() | {row.id for row in disaster.doomed}
        for identifier, row in truth.items():
            assert (rows[identifier].audio, rows[identifier].metadata) == (row.audio, row.metadata)
            assert await disaster.heard(vault, identifier) == disaster.audio[identifier]
        for row in disaster.doomed:
            with pytest.raises(Shredded):
                vault.keyring.derive(row.audio)
            assert rows[row.id].state == "shredded"
            assert [info async for info in vault.store.list(f"v1/{TENANT}/{row.audio.cohort.period}/{row.id}")] == []
        first = await vault.catalog.hold(disaster.first.id)
        second = await vault.catalog.hold(disaster.second.id)
        assert (first.state, first.recordings) == (HoldState.ACTIVE, (disaster.held.id,))
        assert (second.state, second.recordings) == (HoldState.ACTIVE, (disaster.newer[0].id,))
        given = {each for row in rows.values() for each in (row.audio, row.metadata)}
        session = await disaster.begin(vault, f"after-{random.getrandbits(64)}", b"x" * 1000, days=97)
        assert not given & {session.recording.audio, session.recording.metadata}


@pytest.mark.soak
async def test_a_restore_killed_anywhere_and_run_again_ends_whole():
    random = chance("restore")
    kills = 0
    died_at = set()
    with memory_directory() as base, zygote() as process:
        (base / "pristine").mkdir()
        disaster = Disaster(base / "pristine")
        await disaster.happen()
        for run in RUNS:
            site = Target(directory=base / f"run-{run}", document=DOCUMENT, tokens={})
            shutil.copytree(base / "pristine", site.directory)
            for attempt in range(5):
                dies_at = {0: run, 2: random.randrange(20)}.get(attempt)
                restoring = process.restore(site, disaster.destination, backup=disaster.backup, dies_at=dies_at)
                if attempt in {1, 3}:
                    await asyncio.sleep(random.uniform(0.02, 0.2))
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(restoring.pid, signal.SIGKILL)
                code = restoring.wait()
                if code != -9:
                    assert code == 0 or "restored already" in log_of(site), log_of(site)
                    break
                kills += 1
                died_at |= {dies_at}
            await check(disaster, site)
            shutil.rmtree(site.directory)
    assert kills >= len(RUNS) // 2
    if SOAK:
        assert len(died_at) > 15
        assert kills >= KILLS, kills
