"""A rotation of the keyring: who copied everything before it opens nothing that was recorded after it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.crashing import (
    ACME,
    ManualClock,
    begin,
    call,
    config_at,
    memory_directory,
    person,
    play,
    record,
    storing,
)
from tests.helpers.keyrings import TestClock
from tests.helpers.nodes import SOUND, add_tenant, node_config
from tests.helpers.service_steps import MODES, assert_playable, enumerate_crashes, stage
from vault.config import Config
from vault.crypto.values import open_secret
from vault.errors import Conflict, Tampered
from vault.ids import RecordingId, TokenId
from vault.keystore import attack
from vault.keystore.attack import OldKeyrings
from vault.keystore.root import file
from vault.keystore.root.file import FileRootKeys
from vault.model import INDEX_LEAF, Coordinate, Part, Role
from vault.ports.progress import Silent
from vault.ports.recordings import RecordingQuery
from vault.services.backup.place import BackupPlace
from vault.services.recordings.search import Wanted
from vault.services.vault import Vault
from vault.wiring import init_vault, open_vault
from vault.wiring.backup import open_backups

__all__ = ["stage"]


@pytest.fixture
def base():
    with memory_directory() as directory:
        yield directory


OPERATOR = person("ops", Role.OPERATOR, None)
NUMBER = "+442079460123"


@pytest.fixture(autouse=True)
def small_root_versions(monkeypatch):
    monkeypatch.setattr(file, "MATERIAL_BYTES", 1 << 12)


async def new_vault(base: Path, clock: ManualClock) -> Config:
    config = node_config(base)
    await init_vault(config, clock=clock)
    (base / "journal-two").mkdir(mode=0o700)
    return config


def root_keys_at(base: Path) -> Path:
    config = config_at(base)
    return config.file_root_path(config.keyring.root)


async def thief(*bases: Path, root_of: Path) -> OldKeyrings:
    """Try every keyring file under `bases` with the root keys of `root_of`, as copied."""
    files: list[bytes] = []
    for each in bases:
        for replica in config_at(each).replica_paths:
            files += [path.read_bytes() for path in replica.rglob("*") if path.is_file()]
    provider = FileRootKeys(root_keys_at(root_of), clock=TestClock())
    return await attack.attack([provider], files)


async def places(vault: Vault, recording: RecordingId) -> list[Coordinate]:
    """Return where the keys of a recording's audio, of its facts and of its tokens are derived."""
    row = await vault.catalog.recording(recording)
    return [row.audio, row.metadata, Coordinate(cohort=row.metadata.cohort, leaf=INDEX_LEAF)]


async def found_by_number(vault: Vault) -> set[RecordingId]:
    rows = await vault.search.page(RecordingQuery(tenant=ACME, limit=50), Wanted(caller=NUMBER))
    return {row.id for row in rows}


async def test_who_copied_everything_before_a_rotation_opens_no_audio_no_facts_and_no_token_recorded_after_it(base):
    clock, copy = ManualClock(), base.with_name(base.name + "-copy")
    config = await new_vault(base, clock)
    try:
        async with open_vault(config, clock=clock, background=False) as vault, storing(vault):
            await add_tenant(vault)
            old_sound = SOUND(6_000)
            old = await record(vault, call("before"), old_sound)
            shutil.copytree(base, copy)
            done = await vault.keys.rotate(actor=OPERATOR)
            assert done.dropped >= 3, "the trees ahead are among what nothing was recorded under"
            new = {key: (await record(vault, call(key, days=days), SOUND(100))) for key, days in [("a", 10), ("b", 30)]}
            clock.advance(days=1)
            new["next day"] = await record(vault, call("next day"), SOUND(100))
            clock.advance(days=35)
            new["next month"] = await record(vault, call("next month", days=60), SOUND(100))
            for copies in ([copy], [copy, base]):  # with what the live keyring has become, too
                opened = await thief(*copies, root_of=copy)
                assert all(opened.keys(place) for place in await places(vault, old)), "the attack opens what it can"
                for identifier in new.values():
                    assert not any(opened.keys(place) for place in await places(vault, identifier))
            assert await play(vault, old) == old_sound
            assert await found_by_number(vault) == {old, *new.values()}
            with pytest.raises(Conflict):
                await vault.ingest.start(call("before"), actor=person("pbx", Role.RECORDER))
    finally:
        shutil.rmtree(copy, ignore_errors=True)


async def test_no_tree_of_the_new_generation_was_ever_written_under_the_old_root_version(base):
    """Who has the old root version alone, and reads the keyring from then on, opens nothing new either."""
    clock, copy = ManualClock(), base.with_name(base.name + "-copy")
    config = await new_vault(base, clock)
    seen: list[bytes] = []
    try:
        async with open_vault(config, clock=clock, background=False) as vault, storing(vault):
            await add_tenant(vault)
            shutil.copytree(config.file_root_path(config.keyring.root), root_keys_at(copy))
            write = vault.keyring._replicas.stores[0].write

            async def watched(blobs):
                seen.extend(blobs.values())
                await write(blobs)

            vault.keyring._replicas.stores[0].write = watched
            swap = vault.keyring._replicas.stores[0].swap

            async def swapped(expected, head):
                seen.append(head)
                return await swap(expected, head)

            vault.keyring._replicas.stores[0].swap = swapped
            await vault.keys.rotate(actor=OPERATOR)
            new = await record(vault, call("after"), SOUND(100))
            provider = FileRootKeys(root_keys_at(copy), clock=TestClock())
            opened = await attack.attack([provider], [*seen, *_files(config)])
            assert opened.heads > 1
            assert not any(opened.keys(place) for place in await places(vault, new))
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _files(config: Config) -> list[bytes]:
    return [path.read_bytes() for each in config.replica_paths for path in each.rglob("*") if path.is_file()]


async def test_what_another_node_begins_after_the_rotation_has_new_keys_and_what_it_began_before_keeps_its_own(base):
    clock, copy = ManualClock(), base.with_name(base.name + "-copy")
    one = await new_vault(base, clock)
    two = node_config(base, "two")
    try:
        async with (
            open_vault(one, clock=clock, background=False) as here,
            open_vault(two, clock=clock, background=False) as there,
            storing(there),
        ):
            await add_tenant(here)
            await there.keyring.refresh()
            sound = SOUND(9_000)
            under_way = await begin(there, call("under way"), sound[:4_000])
            shutil.copytree(base, copy)
            done = await here.keys.rotate(actor=OPERATOR)
            assert done.under_way == 1
            assert there.keyring.generation < done.generation, "the other node has not looked since"
            new = await record(there, call("after"), SOUND(100))
            opened = await thief(copy, base, root_of=copy)
            assert not any(opened.keys(place) for place in await places(there, new))
            await there.ingest.write(under_way, sound[4_000:])
            await there.ingest.finish(under_way)
            there.ingest.detach(under_way)
            await under_way.done.wait()
            for vault in (here, there):
                await vault.keyring.refresh()
                assert await play(vault, under_way.recording.id) == sound
                assert await found_by_number(vault) == {under_way.recording.id, new}
    finally:
        shutil.rmtree(copy, ignore_errors=True)


async def test_a_recording_whose_row_was_not_yet_written_when_the_rotation_ended_begins_again_under_new_keys(base):
    clock = ManualClock()
    one = await new_vault(base, clock)
    two = node_config(base, "two")
    async with (
        open_vault(one, clock=clock, background=False) as here,
        open_vault(two, clock=clock, background=False) as there,
        storing(there),
    ):
        await add_tenant(here)
        await there.keyring.refresh()
        create, generations = there.catalog.create_recording, []

        async def late(recording, **rest):
            if not generations:
                await here.keys.rotate(actor=OPERATOR)
            generations.append(recording.audio.cohort.generation)
            await create(recording, **rest)

        there.catalog.create_recording = late
        sound = SOUND(500)
        recording = await record(there, call("in between"), sound)
        assert generations[1] == generations[0] + 1 == here.keyring.generation
        assert await play(there, recording) == sound


async def test_backups_and_recorders_secrets_from_after_a_rotation_do_not_open_with_the_keys_from_before(base):
    clock = ManualClock()
    config = await new_vault(base, clock)
    made: list[str] = []
    issued: list[tuple[TokenId, str]] = []

    async def seal_something() -> None:
        token, text = await vault.access.issue(name="pbx", role=Role.RECORDER, tenant=ACME, actor=OPERATOR)
        issued.append((token.id, text.split("_", 2)[2]))
        async with open_backups(config, str(base / "backups"), create=True, clock=clock) as backups:
            made.append((await backups.make(objects=False, progress=Silent())).manifest.backup)

    async with open_vault(config, clock=clock, background=False) as vault:
        await add_tenant(vault)
        await seal_something()
        copied = vault.keyring.backup_keys
        await vault.keys.rotate(actor=OPERATOR)
        clock.advance(seconds=1)
        await seal_something()
        for token, secret in issued:
            assert await vault.access.shared_secret(token) == secret.encode()
        async with open_backups(config, str(base / "backups"), clock=clock) as backups:
            assert [each.backup for each in await backups.listed() if each.manifest] == made
            for backup in made:
                assert not (await backups.verify(backup, quick=False, progress=Silent())).problems
            old, new = (
                BackupPlace(store=backups.place.store, keys=keys, keyring=vault.keyring.keyring_id, entropy=bytes)
                for keys in (copied, vault.keyring.backup_keys[:1])
            )
            assert [bool(each.manifest) for each in await old.backups()] == [True, False]
            assert [bool(each.manifest) for each in await new.backups()] == [False, True]
        sealed = await vault.catalog.token(issued[1][0])
        assert sealed is not None
        assert sealed.sealed_secret is not None
        with pytest.raises(Tampered):
            open_secret(copied[0], sealed.id, sealed.sealed_secret)


async def test_leaves_that_were_reserved_or_pinned_survive_a_rotation_and_no_others(base):
    clock = ManualClock()
    config = await new_vault(base, clock)
    async with open_vault(config, clock=clock, background=False) as vault, storing(vault):
        await add_tenant(vault)
        recording = await record(vault, call("before"), SOUND(100))
        audio, metadata, index = await places(vault, recording)
        ahead = [each for each in vault.keyring.cohorts(ACME, Part.AUDIO) if each != audio.cohort]
        await vault.keys.rotate(actor=OPERATOR)
        for place in (audio, metadata, index, Coordinate(cohort=audio.cohort, leaf=63)):
            assert vault.keyring.derivable(place)
        for place in (audio, metadata):
            assert not vault.keyring.derivable(Coordinate(cohort=place.cohort, leaf=64))
        assert ahead
        assert not any(vault.keyring.has_cohort(cohort) for cohort in ahead)


async def test_a_rotation_drops_nothing_by_the_counters_of_a_catalog_that_was_put_back(base):
    """Rows that an older catalog lacks come back from their objects; its counters do not count their leaves."""
    clock, old = ManualClock(), base.with_name(base.name + "-catalog")
    config = await new_vault(base, clock)
    assert config.catalog_path is not None
    async with open_vault(config, clock=clock, background=False) as vault:
        await add_tenant(vault)
    shutil.copy(config.catalog_path, old)
    try:
        async with open_vault(config, clock=clock, background=False) as vault, storing(vault):
            sound = SOUND(3_000)
            recording = await record(vault, call("not in the old catalog"), sound)
        for path in base.glob(config.catalog_path.name + "-*"):
            path.unlink()
        shutil.copy(old, config.catalog_path)
        async with open_vault(config, clock=clock, background=False) as vault:
            await vault.keys.rotate(actor=OPERATOR)
            assert await play(vault, recording) == sound
    finally:
        old.unlink()


@pytest.mark.soak
@MODES
async def test_a_rotation_that_crashes_at_any_write_loses_nothing_and_repeated_shuts_every_older_copy_out(stage, mode):
    async def flow(process, answers):
        answers["done"] = await process.vault.keys.rotate(actor=OPERATOR)

    async def laws(vault, clock, answers):
        if "done" not in answers:
            await vault.keys.rotate(actor=OPERATOR)
        await assert_playable(vault, stage, "due-1", "held", "later")
        async with storing(vault):
            new = await record(vault, call("after", days=10), SOUND(100))
            opened = await thief(stage.path, vault_base(vault), root_of=stage.path)
            assert not any(opened.keys(place) for place in await places(vault, new))
            assert all(opened.keys(place) for place in await places(vault, stage.recordings["later"]))

    writes = await enumerate_crashes(stage, mode, days=0, flow=flow, laws=laws)
    assert {"keyring.swap_head", "provider.unlink", "catalog.close_generations"} <= set(writes)


def vault_base(vault: Vault) -> Path:
    return Path(vault.keyring._replicas.stores[0].name).parent
