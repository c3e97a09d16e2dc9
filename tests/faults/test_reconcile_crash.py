"""A reconciliation that dies before or after any of its writes, and is run again, ends as if it had never died."""

import os
import shutil

import pytest

from tests.helpers.app import sound
from tests.helpers.crashing import Faults, crash_is_the_end, memory_directory, start
from tests.helpers.restores import Site
from tests.helpers.soak import sampled, steps
from tests.helpers.trail import audit_entries
from vault.config import parse_config
from vault.ids import TenantId
from vault.model import HoldState, RecordingState
from vault.ports.progress import Silent
from vault.services.backup.reconcile import Reconciler
from vault.services.recordings.dossiers import Coordinates
from vault.services.surroundings import Surroundings
from vault.storage.catalog.catalog import open_catalog
from vault.wiring.adapters import RECONCILE
from vault.wiring.open import open_vault

pytestmark = pytest.mark.soak
SOUTH = TenantId("southgate")


class Stage(Site):
    """A vault whose catalog is from before most of its life."""

    async def play(self):
        await self.create()
        async with self.open() as vault:
            self.survivor = await self.record(vault, "survivor", days=100)
            self.doomed = await self.record(vault, "doomed", days=1)
            self.held = await self.record(vault, "held", days=1)
            self.known = await self.hold(vault, self.held.id, self.doomed.id)
            self.live = await self.begin(vault, "live", sound(70_000, 9), days=100)
            await vault.storer.drain(self.live)
            await vault.keyring.refresh()
            shutil.copyfile(self.config.catalog_path, self.base / "old.db")
            shutil.copyfile(f"{self.config.catalog_path}-wal", self.base / "old.db-wal")
            await vault.ingest.finish(self.live)
            await self.live.done.wait()
            await self.tenant(vault, SOUTH)
            self.newer = await self.record(vault, "newer", days=100, tenant=SOUTH)
            self.brief = await self.record(vault, "brief", days=1)
            shutil.copytree(self.config.objects_path / "objects", self.base / "all")
            await self.release(vault, self.known)
            self.clock.advance(days=3)
            self.unknown = await self.hold(vault, self.held.id)
            assert await self.sweep(vault) == 2
        # The deletion of the objects did not reach this store.
        shutil.copytree(self.base / "all", self.config.objects_path / "objects", dirs_exist_ok=True)
        self.lose_catalog()
        shutil.copyfile(self.base / "old.db", self.config.catalog_path)
        shutil.copyfile(self.base / "old.db-wal", f"{self.config.catalog_path}-wal")
        catalog = open_catalog(self.config.catalog_path, clock=self.clock)
        await catalog.save_setting(RECONCILE, "a test")
        await catalog.close()


async def dies(stage, config, step, *, landed):
    """Reconcile until the `step`-th write; return its writes."""
    faults = Faults()
    process = await start(config, stage.clock, faults)
    vault = process.vault
    faults.arm(step, landed=landed)
    with crash_is_the_end(faults):
        await Reconciler(
            catalog=vault.catalog,
            keyring=vault.keyring,
            store=vault.store,
            coordinates=Coordinates(catalog=vault.catalog, keyring=vault.keyring),
            surroundings=Surroundings(clock=stage.clock, entropy=os.urandom, metrics=vault.metrics),
            progress=Silent(),
            node=vault.journal.node,
        ).run("a test")
    await process.abandon()
    return faults.trace


async def laws(stage, config):
    async with open_vault(config, clock=stage.clock, background=False) as vault:
        assert not await vault.catalog.setting(RECONCILE)
        await stage.survives(vault, stage.survivor.id, stage.held.id, stage.newer.id, stage.live.recording.id)
        await stage.is_gone(vault, stage.doomed.id)
        doomed = await vault.catalog.recording(stage.doomed.id)
        assert (doomed.state, doomed.certificate_id) == (RecordingState.SHREDDED, None)
        known = await vault.catalog.hold(stage.known.id)
        assert (known.state, known.recordings, known.too_late) == (
            HoldState.ACTIVE,
            (stage.held.id,),
            (stage.doomed.id,),
        )
        assert (await vault.catalog.hold(stage.unknown.id)).recordings == (stage.held.id,)
        assert (await vault.catalog.tenant(SOUTH)).id == SOUTH
        names = {info.name.split("/")[3] async for info in vault.store.list("v1/")}
        assert not names & {stage.doomed.id, stage.brief.id}
        events = [entry.event.event for entry in await audit_entries(vault.catalog, limit=10_000)]
        assert events[-1] == "restore.reconciled" or "restore.reconciled" in events[-8:]


@sampled("landed", {"lost": False, "landed": True})
async def test_a_crash_at_any_write_of_a_reconciliation_is_answered_by_running_it_again(landed):
    with memory_directory() as base:
        (base / "stage").mkdir()
        stage = Stage(base / "stage")
        await stage.play()

        async def run(step):
            shutil.copytree(base / "stage", base / "copy")
            config = parse_config(stage.document, base=base / "copy")
            trace = await dies(stage, config, step, landed=landed)
            await laws(stage, config)
            shutil.rmtree(base / "copy")
            return trace

        writes = await run(None)
        for step in steps(len(writes), of=f"reconciliation {landed}"):
            await run(step)
    assert {"catalog.rebuild_recording", "catalog.shred_uncertified", "catalog.finish_recording"} <= set(writes)
    assert {"catalog.add_tenant", "catalog.add_hold", "objects.delete_below", "catalog.append_audit"} <= set(writes)
