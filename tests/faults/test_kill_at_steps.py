"""kill -9 at each named step of every act that shreds or keeps, in processes of their own.

After each kill: what survives plays byte for byte, what was held is held, what a shred took never comes back, the act
repeated has its whole effect, and no older copy of the keyring opens under the root versions that live then.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers import acts, approvals
from tests.helpers.crashing import ManualClock, config_at, start
from tests.helpers.keyrings import TestClock
from tests.helpers.killing import SMALL_MATERIAL, Kills
from tests.helpers.service_steps import (
    Stage,
    assert_nothing_is_gone_without_a_certificate,
    assert_playable,
    assert_shredded,
    audit_verifies,
    derivable,
    stage,
    sweep,
)
from tests.helpers.soak import sampled
from vault.config import Config
from vault.errors import IntegrityError
from vault.ids import id_bytes
from vault.keystore.keyring import Keyring
from vault.keystore.replicas import DirectoryReplica
from vault.keystore.root import file
from vault.model import HoldState
from vault.ports.erasures import ErasureState
from vault.wiring import open_vault
from vault.wiring.adapters import SystemClock, root_keys

__all__ = ["stage"]

pytestmark = pytest.mark.soak

MODES = sampled("landed", {"lost": False, "landed": True})
DUE = {"due-1", "due-2", "other"}


async def old_keyring_opens(config: Config, old: Path) -> bool:
    """Tell whether a copy of one replica from before opens under the root versions that live now."""
    try:
        await Keyring.observe([DirectoryReplica(old)], root_keys(config, SystemClock(), bytes), clock=TestClock())
    except IntegrityError:
        return False
    return True


async def laws(
    config: Config, stage: Stage, clock: ManualClock, *, gone: set[str], maybe: set[str] = frozenset()
) -> None:
    """Open the vault as the next process and check every promise."""
    async with open_vault(config, clock=clock, background=False) as vault:
        for name, identifier in stage.recordings.items():
            if name == "live":
                continue
            if await derivable(vault, identifier):
                assert name not in gone
                await assert_playable(vault, stage, name)
            else:
                assert name in gone | maybe, f"{name} was lost"
        await audit_verifies(vault)


@MODES
async def test_a_sweep_killed_at_any_step(stage, landed):
    kills = Kills(stage.copy, acts.sweep, days=12, landed=landed)
    for config, step in kills:
        clock = ManualClock()
        clock.advance(days=12)
        await laws(config, stage, clock, gone=set() if step else DUE, maybe=DUE)
        async with open_vault(config, clock=clock, background=False) as vault:
            await sweep(vault, clock)
            await assert_playable(vault, stage, "held", "later")
            await assert_shredded(vault, stage, *DUE)
        assert not await old_keyring_opens(config, config_at(stage.path).replica_paths[0])
        stage.discard(config)
    wanted = {"provider.replace", "provider.overwrite", "provider.unlink", "keyring.swap_head", "catalog.certify"}
    assert wanted <= set(kills.writes)


@MODES
async def test_a_hold_killed_at_any_step_holds_or_was_never_answered(stage, landed):
    kills = Kills(stage.copy, acts.hold, days=0, landed=landed)
    for config, _ in kills:
        clock = ManualClock()
        clock.advance(days=12)
        async with open_vault(config, clock=clock, background=False) as vault:
            placed = [each for each in await vault.catalog.holds() if each.id != stage.hold.id]
            await vault.labels.settled(within=10)
            for recording in (each for hold in placed for each in hold.recordings):
                refs = await vault.catalog.segments(recording)
                assert all([(await vault.store.stat(ref.name)).meta.held for ref in refs]), "a kill lost a label"
            await sweep(vault, clock)
            await assert_playable(vault, stage, "held", "later", *(["due-1"] if placed else []))
            await assert_shredded(vault, stage, "due-2", "other", *([] if placed else ["due-1"]))
        stage.discard(config)
    assert {"objects.set_held", "catalog.labelled"} <= set(kills.writes)


@MODES
async def test_a_flag_killed_at_any_step_leaves_no_pin_without_its_alert_and_no_alert_without_its_pin(stage, landed):
    kills = Kills(stage.copy, acts.flag, days=0, landed=landed)
    for config, step in kills:
        clock = ManualClock()
        before = (await raw_pins(config)) - {id_bytes(stage.hold.id)}
        async with open_vault(config, clock=clock, background=False) as vault:
            placed = [each for each in await vault.catalog.holds() if each.id != stage.hold.id]
            assert before <= {id_bytes(each.id) for each in placed}
            for each in placed:
                assert each.state is HoldState.ACTIVE
                raised = await vault.catalog.alert_of(each.id)
                assert raised is not None
                assert raised.delivered_at is None
            assert placed or step == kills.writes[0]
            clock.advance(days=45)
            await sweep(vault, clock)
            later = await derivable(vault, stage.recordings["later"])
            assert later == bool(placed)
            await audit_verifies(vault)
        stage.discard(config)
    assert kills.writes[0] == "catalog.save_flag"
    assert {"keyring.swap_head", "catalog.revise_terms"} <= set(kills.writes)


async def raw_pins(config: Config) -> set[bytes]:
    """Return the tags of the pins that are durable before anybody recovers."""
    replicas = [DirectoryReplica(path) for path in config.replica_paths]
    keyring = await Keyring.observe(replicas, root_keys(config, SystemClock(), bytes), clock=TestClock())
    try:
        return {pin.tag for pin in keyring.pins()}
    finally:
        await keyring.close()


@MODES
async def test_a_release_killed_at_any_step_frees_nothing_before_its_grace(stage, landed):
    for config, step in Kills(stage.copy, acts.release, days=12, landed=landed):
        clock = ManualClock()
        clock.advance(days=12)
        async with open_vault(config, clock=clock, background=False) as vault:
            await sweep(vault, clock)
            await assert_playable(vault, stage, "held", "later")
            released = (await vault.catalog.hold(stage.hold.id)).state.value == "released"
            assert released or step is not None
            clock.advance(days=2)
            await sweep(vault, clock)
            await (assert_shredded if released else assert_playable)(vault, stage, "held")
        stage.discard(config)


@MODES
async def test_a_rotation_killed_at_any_step_loses_nothing(stage, landed):
    for config, step in Kills(stage.copy, acts.rotate, days=0, landed=landed):
        clock = ManualClock()
        await laws(config, stage, clock, gone=set())
        if step is None:
            assert not await old_keyring_opens(config, config_at(stage.path).replica_paths[1])
        shutil.rmtree(config.base)


@MODES
async def test_an_erasure_killed_at_any_step_takes_what_two_people_agreed_on_and_nothing_else(stage, landed):
    by_number = {"due-1", "due-2"}
    kills = Kills(stage.copy, acts.erase, days=0, landed=landed)
    for config, step in kills:
        clock = ManualClock()
        async with open_vault(config, clock=clock, background=False) as vault:
            await assert_nothing_is_gone_without_a_certificate(vault, stage)
            found = await vault.catalog.erasures()
            # A start carries out what was approved: nothing is left half done, and nothing goes that was not.
            assert {each.state for each in found} <= {ErasureState.REQUESTED, ErasureState.DONE}
            done = {name for each in found if each.state is ErasureState.DONE for name in each.recordings}
            for name in ("later", *by_number):
                gone = not await derivable(vault, stage.recordings[name])
                assert gone == (stage.recordings[name] in done), name
            assert step is not None or len(found) == len(done & set(map(stage.recordings.get, by_number))) == 2
            for each in found:
                if each.state is ErasureState.REQUESTED:
                    await approvals.approve_erasure(vault, each.id, actor=acts.BOB)
        process = await start(config, clock)
        if await derivable(process.vault, stage.recordings["later"]):
            await acts.erase(process)
        elif await derivable(process.vault, stage.recordings["due-1"]):
            await acts.approved(process, caller=acts.CALLER)
        await process.abandon()
        async with open_vault(config, clock=clock, background=False) as vault:
            await sweep(vault, clock)
            await assert_shredded(vault, stage, "later", *by_number)
            await assert_playable(vault, stage, "held", "other")
            await audit_verifies(vault)
        assert not await old_keyring_opens(config, config_at(stage.path).replica_paths[0])
        stage.discard(config)
    assert {
        "catalog.add_erasure",
        "catalog.revise_erasure",
        "catalog.intend_shred",
        "catalog.certify",
        "keyring.swap_head",
    } <= set(kills.writes)
    assert {"provider.replace", "provider.overwrite", "provider.unlink", "objects.delete_below"} <= set(kills.writes)


@pytest.fixture(autouse=True)
def small_root_versions(monkeypatch):
    monkeypatch.setattr(file, "MATERIAL_BYTES", SMALL_MATERIAL)
