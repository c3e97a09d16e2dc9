"""A catalog that is lost, or put back by any tool: keyring and objects say what is true."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from datetime import timedelta

import pytest

from tests.helpers.app import sound
from tests.helpers.crashing import memory_directory
from tests.helpers.restores import Site
from tests.helpers.trail import audit_entries
from vault.errors import ConfigError, IntegrityError, InUse, NotFound, Refused, Unavailable
from vault.ids import TenantId
from vault.model import HoldState, RecordingState
from vault.ports.progress import Silent
from vault.ports.recordings import RecordingQuery
from vault.wiring.backup import open_backups, reconcile_vault

SOUTH = TenantId("southgate")


@pytest.fixture
async def site():
    with memory_directory() as base:
        made = Site(base)
        await made.create()
        yield made


async def test_a_restore_revives_survivors_and_nothing_else_and_rebuilds_what_is_newer(site):
    async with site.open() as vault:
        survivor = await site.record(vault, "survivor", days=100, size=200_000)
        doomed = await site.record(vault, "doomed", days=1)
        held = await site.record(vault, "held", days=1)
        hold = await site.hold(vault, held.id)
        made = await site.back_up()
        newer = await site.record_wav(vault, "newer", days=100)
        assert newer.lasted == timedelta(seconds=3)
        assert await site.sweep(vault) == 0
        site.clock.advance(days=3)
        assert await site.sweep(vault) == 1
        later = await site.hold(vault, newer.id)
    assert made.manifest.pool_objects == made.copied_objects == 3 + 4 + 1 + 1
    site.lose_catalog()
    site.lose_objects_but_newer(newer)
    restored = await site.restore()
    assert (restored.objects.restored, restored.objects.without_key) == (7, 2)
    assert restored.objects.lost == []
    found = restored.reconciled
    assert list(found.shredded) == [doomed.id]
    assert (found.rebuilt, found.surviving, found.holds_reapplied) == (1, 3, 0)
    assert list(found.holds_rebuilt) == [later.id]
    async with site.open() as vault:
        await site.survives(vault, survivor.id, held.id, newer.id)
        await site.is_gone(vault, doomed.id)
        again = await site.record(vault, "after", days=97)
        used = {row for each in (survivor, doomed, held, newer) for row in (each.audio, each.metadata)}
        assert not used & {again.audio, again.metadata}
        rebuilt = await vault.catalog.hold(later.id)
        assert (rebuilt.state, rebuilt.recordings) == (HoldState.ACTIVE, (newer.id,))
        assert rebuilt.review_at <= site.clock.now() + timedelta(days=7)
        assert (await vault.catalog.hold(hold.id)).state is HoldState.ACTIVE
        row = await vault.catalog.recording(newer.id)
        times = {name: getattr(newer, name) for name in ("created_at", "started_at", "ended_at", "retain_until")}
        # A manifest does not say which period was in force at capture; the date that it gave is there.
        assert row.retention_period is None
        assert dataclasses.replace(row, **times, node=newer.node, retention_period=newer.retention_period) == newer
        assert all(abs(getattr(row, name) - at) < timedelta(milliseconds=1) for name, at in times.items())
        site.clock.advance(days=200)
        await site.sweep(vault)
        await site.survives(vault, held.id, newer.id)
        await site.is_gone(vault, survivor.id, again.id)
        events = [entry.event.event for entry in await audit_entries(vault.catalog, limit=10_000)]
        assert events.count("restore.started") == events.count("restore.reconciled") == 1


async def test_a_row_found_without_a_key_is_shredded_without_a_certificate_and_its_objects_go(site):
    async with site.open() as vault:
        doomed = await site.record(vault, "doomed", days=1)
        await site.back_up()
        site.clock.advance(days=3)
        assert await site.sweep(vault) == 1
    site.lose_catalog()
    site.put_everything_in_the_pool_back()
    restored = await site.restore()
    assert list(restored.reconciled.shredded) == [doomed.id]
    assert restored.reconciled.objects_deleted == 2
    async with site.open() as vault:
        row = await vault.catalog.recording(doomed.id)
        assert (row.state, row.certificate_id) == (RecordingState.SHREDDED, None)
        assert "without a key" in row.state_reason
        assert await vault.catalog.certificates(recording=doomed.id) == []
        assert [info async for info in vault.store.list("v1/")] == []
        site.clock.advance(days=3)
        await site.sweep(vault)
        assert await vault.catalog.certificates(recording=doomed.id) == [], "nobody saw it go, so nobody certifies it"


async def test_every_backup_ever_taken_restores_with_the_keyring_of_today(site):
    backups = []
    async with site.open() as vault:
        for day in range(4):
            await site.record(vault, f"short-{day}", days=1)
            await site.record(vault, f"long-{day}", days=100)
            backups.append((await site.back_up()).manifest.backup)
            site.clock.advance(days=3)
            await site.sweep(vault)
        rows = {each: await vault.catalog.recording(each) for each in site.audio}
    for backup in backups:
        site.lose_catalog()
        site.lose_objects_but_newer(*rows.values())
        await site.restore(backup)
        async with site.open() as vault:
            for identifier, row in rows.items():
                if row.state is RecordingState.SHREDDED:
                    if identifier in await known(vault):
                        await site.is_gone(vault, identifier)
                else:
                    await site.survives(vault, identifier)


async def known(vault):
    return {row.id for row in await vault.catalog.recordings(RecordingQuery(limit=1000))}


async def test_a_copied_back_catalog_is_reconciled_before_anything_is_served(site):
    async with site.open() as vault:
        survivor = await site.record(vault, "survivor", days=100)
    copy = site.base / "copy.db"
    shutil.copyfile(site.config.catalog_path, copy)
    async with site.open() as vault:
        newer = await site.record(vault, "newer", days=100)
        hold = await site.hold(vault, survivor.id)
    site.lose_catalog()
    shutil.copyfile(copy, site.config.catalog_path)
    outcome = []
    async with site.open(reconciled=outcome.append) as vault:
        assert (outcome[0].rebuilt, list(outcome[0].holds_rebuilt)) == (1, [hold.id])
        await site.survives(vault, survivor.id, newer.id)
    outcome.clear()
    async with site.open(reconciled=outcome.append):
        assert outcome == [], "a catalog that was reconciled is the current one"


async def test_a_copy_of_a_catalog_in_use_gives_no_leaf_twice(site):
    copy = site.base / "copy.db"
    async with site.open() as vault:
        await site.record(vault, "before", days=100)
        shutil.copyfile(site.config.catalog_path, copy)
        shutil.copyfile(f"{site.config.catalog_path}-wal", f"{copy}-wal")
        newer = await site.record(vault, "newer", days=100)
    site.lose_catalog()
    shutil.copyfile(copy, site.config.catalog_path)
    shutil.copyfile(f"{copy}-wal", f"{site.config.catalog_path}-wal")
    async with site.open() as vault:
        again = await site.record(vault, "again", days=100)
    assert {again.audio, again.metadata} & {newer.audio, newer.metadata} == set()


async def test_a_copy_of_a_catalog_in_use_is_reconciled_when_asked_for(site):
    copy = site.base / "copy.db"
    async with site.open() as vault:
        await site.record(vault, "before", days=100)
        shutil.copyfile(site.config.catalog_path, copy)
        shutil.copyfile(f"{site.config.catalog_path}-wal", f"{copy}-wal")
        newer = await site.record(vault, "newer", days=100)
        with pytest.raises(InUse):
            await reconcile_vault(site.config, progress=Silent(), clock=site.clock)
    site.lose_catalog()
    shutil.copyfile(copy, site.config.catalog_path)
    shutil.copyfile(f"{copy}-wal", f"{site.config.catalog_path}-wal")
    found = await reconcile_vault(site.config, progress=Silent(), clock=site.clock)
    assert found.rebuilt == 1
    async with site.open() as vault:
        await site.survives(vault, newer.id)


async def test_an_older_keyring_beside_a_newer_catalog_is_refused_however_often_it_is_tried(site):
    kept = site.base / "older"
    for path in site.config.replica_paths:
        shutil.copytree(path, kept / path.name)
    async with site.open() as vault:
        row = await site.record(vault, "newer", days=100)
    current = site.base / "current"
    for path in site.config.replica_paths:
        shutil.move(path, current / path.name)
        shutil.copytree(kept / path.name, path)
    for _ in range(3):
        with pytest.raises(IntegrityError, match="keyring is older"):
            async with site.open():
                pass
    for path in site.config.replica_paths:
        shutil.rmtree(path)
        shutil.move(current / path.name, path)
    async with site.open() as vault:
        await site.survives(vault, row.id)


async def test_a_hold_in_force_is_pinned_again_and_one_that_came_too_late_says_so(site):
    async with site.open() as vault:
        kept = await site.record(vault, "kept", days=100)
        short = await site.record(vault, "short", days=1)
        whole, partly = await site.hold(vault, short.id), await site.hold(vault, short.id, kept.id)
        backup = await site.back_up()
        await site.release(vault, whole)
        await site.release(vault, partly)
        site.clock.advance(days=5)
        assert await site.sweep(vault) == 1
        assert vault.keyring.pins() == [] or {pin.cohort.part for pin in vault.keyring.pins()} == {"metadata"}
    site.lose_catalog()
    found = (await site.restore(backup.manifest.backup)).reconciled
    assert (found.holds_reapplied, found.holds_too_late) == (1, 1)
    async with site.open() as vault:
        again = await vault.catalog.hold(partly.id)
        assert (again.state, again.recordings, again.too_late) == (HoldState.ACTIVE, (kept.id,), (short.id,))
        assert (await vault.catalog.hold(whole.id)).state is HoldState.RELEASED
        site.clock.advance(days=200)
        await site.sweep(vault)
        await site.survives(vault, kept.id)


async def test_a_tenant_newer_than_the_backup_comes_back_as_the_owner_of_its_recordings(site):
    async with site.open() as vault:
        await site.back_up()
        await site.tenant(vault, SOUTH)
        theirs = await site.record(vault, "theirs", days=100, tenant=SOUTH)
    site.lose_catalog()
    found = (await site.restore()).reconciled
    assert list(found.tenants_rebuilt) == [SOUTH]
    async with site.open() as vault:
        assert "unknown" in (await vault.catalog.tenant(SOUTH)).controller
        await site.survives(vault, theirs.id)


async def test_a_call_under_way_at_the_loss_is_rebuilt_from_its_segments_and_ends_truncated(site):
    async with site.open() as vault:
        await site.back_up()
        session = await site.begin(vault, "live", sound(200_000, 77), days=100)
        await vault.storer.drain(session)
        stored = session.stored
    assert 0 < stored <= 200_000
    site.lose_catalog()
    shutil.rmtree(site.config.journal_path)
    found = (await site.restore()).reconciled
    assert found.unfinished == 1
    async with site.open() as vault:
        live = vault.ingest.live(session.recording.id)
        assert live.stored == stored
        await vault.ingest.truncate_all("test", uploading=True)
        await vault.ingest.finish(live, ended="truncated:recorder_gone")
        async with asyncio.timeout(10):
            await live.done.wait()
        assert await site.heard(vault, session.recording.id) == site.audio[session.recording.id][:stored]


async def test_a_call_that_only_the_journal_knows_is_rebuilt_from_it(site):
    async with site.open(background=False) as vault:
        await site.back_up()
        session = await site.begin(vault, "live", sound(30_000, 78), days=100)
        assert [info async for info in vault.store.list("v1/")] == []
    site.lose_catalog()
    await site.restore()
    async with site.open() as vault:
        live = vault.ingest.live(session.recording.id)
        assert live.durable == 30_000
        assert live.recording.created_at <= session.recording.created_at
        await vault.ingest.finish(live)
        async with asyncio.timeout(10):
            await live.done.wait()
        await site.survives(vault, session.recording.id)


async def test_a_recording_that_was_open_in_the_backup_is_completed_from_its_manifest(site):
    async with site.open() as vault:
        session = await site.begin(vault, "live", sound(100_000, 5), days=100)
        await vault.storer.drain(session)
        await site.back_up()
        await vault.ingest.write(session, sound(50_000, 6))
        site.audio[session.recording.id] += sound(50_000, 6)
        await vault.ingest.finish(session)
        async with asyncio.timeout(10):
            await session.done.wait()
    site.lose_catalog()
    found = (await site.restore()).reconciled
    assert found.completed == 1
    async with site.open() as vault:
        assert (await vault.catalog.recording(session.recording.id)).state is RecordingState.SEALED
        await site.survives(vault, session.recording.id)


async def test_an_existing_catalog_is_never_restored_over(site):
    async with site.open() as vault:
        row = await site.record(vault, "call", days=100)
        await site.back_up()
    with pytest.raises(Refused, match="nothing was restored over it") as refused:
        await site.restore()
    assert "mv " in refused.value.hint
    async with site.open() as vault:
        await site.survives(vault, row.id)


async def test_a_backup_opens_with_its_own_keyring_only(site):
    await site.back_up()
    with memory_directory() as base:
        stranger = Site(base)
        await stranger.create()
        stranger.lose_catalog()
        stranger.destination = site.destination
        with pytest.raises(IntegrityError, match="failed authentication"):
            await stranger.restore()


async def test_a_second_backup_copies_only_what_is_new(site):
    async with site.open() as vault:
        await site.record(vault, "first", days=100)
        assert (await site.back_up()).copied_objects == 2
        await site.record(vault, "second", days=100)
        again = await site.back_up()
    assert (again.copied_objects, again.manifest.pool_objects) == (2, 4)


@pytest.mark.parametrize("what", ["part", "object", "manifest", "missing"])
async def test_verify_names_what_is_wrong(site, what):
    async with site.open() as vault:
        await site.record(vault, "first", days=100)
        made = await site.back_up()
    root = site.base / "backups" / "objects"
    patterns = {"part": "snapshots/*/catalog-000000#object", "manifest": "snapshots/*/manifest.json#object"}
    path = next(root.glob(patterns.get(what, "pool/v1/*/*/*/0*#object")))
    if what == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[600] ^= 1
        path.write_bytes(data)
    async with open_backups(site.config, site.destination, clock=site.clock) as backups:
        if what == "manifest":
            with pytest.raises(IntegrityError):
                await backups.verify(None, quick=False, progress=Silent())
            return
        found = await backups.verify(made.manifest.backup, quick=False, progress=Silent())
        assert len(found.problems) == 1
        quick = await backups.verify(made.manifest.backup, quick=True, progress=Silent())
        assert bool(quick.problems) is (what != "object"), "quick reads no object"


async def test_prune_drops_old_backups_and_only_objects_that_no_backup_lists(site):
    async with site.open() as vault:
        await site.record(vault, "short", days=1)
        await site.record(vault, "long", days=300)
        old = (await site.back_up()).manifest.backup
        site.clock.advance(days=50)
        await site.sweep(vault)
        new = (await site.back_up()).manifest.backup
        site.clock.advance(days=50)
    async with open_backups(site.config, site.destination, clock=site.clock) as backups:
        done = await backups.prune(keep=timedelta(days=90), progress=Silent())
        assert (done.dropped, done.kept, done.objects) == ((old,), (new,), 2)
        assert (await backups.verify(None, quick=False, progress=Silent())).problems == ()
        with pytest.raises(NotFound):
            await backups.verify(old, quick=True, progress=Silent())
        again = await backups.prune(keep=timedelta(0), progress=Silent())
        assert again.kept == (new,), "the newest backup stays however old it is"


async def test_prune_and_a_backup_under_way_keep_out_of_each_others_way(site):
    await site.back_up()
    async with open_backups(site.config, site.destination, clock=site.clock) as backups:
        unfinished = await backups.place.newest()
        await backups.place.store.delete(f"snapshots/{unfinished}/manifest.json")
        await backups.place.put_marker(f"snapshots/{unfinished}/started", at=site.clock.now())
        with pytest.raises(Unavailable, match="being made"):
            await backups.prune(keep=timedelta(0), progress=Silent())
        await backups.place.put_marker(f"pruning/{unfinished}", at=site.clock.now())
        with pytest.raises(Unavailable, match="being pruned"):
            await site.back_up()
        site.clock.advance(days=2)
        await site.back_up()
        await backups.prune(keep=timedelta(0), progress=Silent())
        assert list(await backups.place.snapshots()) == [await backups.place.newest()]


async def test_a_backup_that_fails_leaves_nothing_that_prune_would_wait_for(site):
    async with site.open() as vault:
        row = await site.record(vault, "call", days=100)
        await site.back_up()
        again = await site.record(vault, "another", days=100)
    for path in site.config.objects_path.rglob(f"{again.id}/0*#object"):
        path.unlink()
    with pytest.raises(IntegrityError, match="missing from the store"):
        await site.back_up()
    async with open_backups(site.config, site.destination, clock=site.clock) as backups:
        assert len(await backups.place.snapshots()) == len(await backups.listed()) == 1
        await backups.prune(keep=timedelta(0), progress=Silent())
    site.lose_catalog()
    assert (await site.restore()).reconciled.surviving == 2
    async with site.open() as vault:
        await site.survives(vault, row.id)


async def test_a_backup_of_another_vaults_catalog_is_refused(site):
    with memory_directory() as base:
        other = Site(base)
        await other.create()
        shutil.copyfile(site.config.catalog_path, other.config.catalog_path)
        with pytest.raises(ConfigError, match="another catalog"):
            await other.back_up()
