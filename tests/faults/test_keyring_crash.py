"""A crash before, in the middle of and after every single step of every act, and what replicas do to each other."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tests.helpers.keyring_steps import (
    DUE,
    HELD,
    LATER,
    MONTH,
    NEW_PIN,
    OTHER,
    PROBES,
    TAG,
    TAKEN,
    act_on,
    assert_laws,
    prepared,
    sweep,
)
from tests.helpers.keyrings import (
    KEYRING_ID,
    REPLICAS,
    WIDTH_SECONDS,
    Crash,
    TestClock,
    at,
    audio,
    fingerprint,
)
from tests.helpers.memory_root_keys import MemoryRootKeys
from vault.crypto import ggm
from vault.errors import ConfigError, IntegrityError, Invalid, Shredded, TooLate, Unavailable, UnderHold
from vault.ids import TenantId
from vault.keystore import keyring as keyrings
from vault.keystore import pages
from vault.keystore import state as states
from vault.keystore.keyring import Keyring
from vault.keystore.recovery import repair_replica
from vault.keystore.replicas import DirectoryReplica, Files, Replicas
from vault.keystore.root.file import FileRootKeys
from vault.model import INDEX_LEAF, Part, Pin, ShredPlan
from vault.telemetry import Metrics

FIRST_HEAD = 1 + len(REPLICAS) * 3 + 1
"""The step of the shred that swaps the first head: after the new root version, two pages and an index a replica."""


async def steps_of(act: str) -> int:
    world, keyring = await prepared()
    world.plan.arm(None, "lost")
    await act_on(world, keyring, act)
    return world.plan.steps


@pytest.mark.parametrize("mode", ["lost", "torn", "landed"])
@pytest.mark.parametrize("act", ["revise", "shred"])
async def test_a_crash_at_any_step_loses_no_survivor_and_revives_nothing(act, mode):
    steps = await steps_of(act)
    assert steps >= (10 if act == "revise" else 16)
    for step in range(1, steps + 1):
        world, keyring = await prepared()
        truth = {probe: keyring.derive(probe).material for probe in PROBES}
        world.plan.arm(step, mode)
        with pytest.raises(Crash):
            await act_on(world, keyring, act)
        keyring = await world.open()
        gone = TAKEN if act == "shred" else set()
        await assert_laws(world, keyring, truth, may_be_gone=gone)
        # The caller's intent is durable, so the act is repeated and must then have its whole effect.
        await act_on(world, keyring, act)
        assert {probe for probe in PROBES if not keyring.derivable(probe)} == gone
        await assert_laws(world, keyring, truth, may_be_gone=gone)
        assert (NEW_PIN in keyring.pins()) == (act == "revise")


@pytest.mark.parametrize("mode", ["lost", "torn", "landed"])
async def test_a_crash_at_any_step_of_recovery_is_recovered_from(mode):
    for step in range(1, 90):
        world, keyring = await prepared()
        truth = {probe: keyring.derive(probe).material for probe in PROBES}
        # Between two heads: the fullest recovery there is, with replicas to mend and a version to destroy.
        world.plan.arm(FIRST_HEAD, "landed")
        with pytest.raises(Crash):
            await act_on(world, keyring, "shred")
        assert world.files.content[REPLICAS[0] / "head"] != world.files.content[REPLICAS[1] / "head"]
        world.files.locks.clear()
        world.plan.arm(step, mode)
        try:
            await world.start()
        except Crash:
            await assert_laws(world, await world.open(), truth, may_be_gone=TAKEN)
        else:
            assert step > 20
            return
    pytest.fail("recovery never came to an end")


async def test_a_failure_that_is_no_crash_is_recovered_by_the_next_act_of_the_same_process():
    steps = await steps_of("shred")
    for step in range(1, steps + 1):
        world, keyring = await prepared()
        truth = {probe: keyring.derive(probe).material for probe in PROBES}
        world.plan.arm(step, "landed")
        with pytest.raises(Crash):
            await act_on(world, keyring, "shred")
        assert not any(keyring.derivable(probe) for probe in TAKEN)
        world.plan.arm(None, "lost")
        async with keyring.writer() as writer:
            await writer.pin([NEW_PIN])
            with pytest.raises(TooLate):
                await writer.pin([Pin(cohort=DUE, first=1, last=1, tag=TAG)])
        await act_on(world, keyring, "shred")
        await assert_laws(world, keyring, truth, may_be_gone=TAKEN)
        assert NEW_PIN in keyring.pins()


async def test_keys_under_shred_are_closed_from_its_first_step_until_it_succeeds():
    world, keyring = await prepared()
    world.provider.outage = frozenset({"new_version"})
    with pytest.raises(Unavailable):
        await act_on(world, keyring, "shred")
    for probe in PROBES:
        assert keyring.derivable(probe) == (probe not in TAKEN)
    with pytest.raises(Shredded):
        keyring.derive(at(DUE, 0))
    async with keyring.writer() as writer:
        with pytest.raises(Unavailable):
            await writer.shred(replace(sweep(world), intent_id="another"))
        with pytest.raises(TooLate):
            await writer.add_cohorts([audio(9)])
    world.provider.outage = frozenset()
    await act_on(world, keyring, "shred")
    assert {probe for probe in PROBES if not keyring.derivable(probe)} == TAKEN


@pytest.mark.parametrize("op", ["destroy", "versions", "unwrap"])
async def test_while_a_destroy_is_pending_no_shred_proceeds_and_holds_do(op):
    world, keyring = await prepared()
    world.provider.outage = frozenset({"destroy"})
    with pytest.raises(Unavailable):
        await act_on(world, keyring, "shred")
    assert len(await world.provider.versions()) == 2
    world.provider.outage = frozenset({op})
    async with keyring.writer() as writer:
        await writer.pin([NEW_PIN])
        await writer.add_cohorts([audio(30)])
        for act in (writer.set_last_sweep(world.clock.now()), writer.settle(), writer.shred(sweep(world))):
            if op == "unwrap" and act.__name__ != "shred":
                await act
                continue
            with pytest.raises(Unavailable):
                await act
    assert {HELD, NEW_PIN} <= set(keyring.pins())
    assert not any(keyring.derivable(probe) for probe in TAKEN)
    world.provider.outage = frozenset()
    async with keyring.writer() as writer:
        receipt = await writer.shred(sweep(world))
    assert receipt.epoch_live == keyring.epoch == 3
    assert len(await world.provider.versions()) == 1


@pytest.mark.parametrize("op", ["unwrap", "versions"])
async def test_an_outage_at_the_start_destroys_and_changes_nothing(op):
    world, keyring = await prepared()
    world.plan.arm(FIRST_HEAD, "landed")
    with pytest.raises(Crash):
        await act_on(world, keyring, "shred")
    before = {path / "head": world.files.content[path / "head"] for path in REPLICAS}
    world.provider.outage = frozenset({op})
    with pytest.raises(Unavailable):
        await world.open()
    assert world.provider.destroyed == []
    if op == "unwrap":
        assert {path: world.files.content[path] for path in before} == before
    world.provider.outage = frozenset()
    assert (await world.open()).epoch == 2


async def test_a_listing_that_omits_the_live_version_destroys_nothing():
    world, _ = await prepared()
    orphan = await world.provider.new_version(b"callvault/keyring\0" + KEYRING_ID + bytes(8))
    listing = world.provider.inner.versions

    async def without_the_live_one():
        return {name: info for name, info in (await listing()).items() if name == orphan}

    world.provider.inner.versions = without_the_live_one
    with pytest.raises(Unavailable):
        await world.open()
    assert world.provider.destroyed == []


async def test_a_root_version_of_someone_else_is_left_alone():
    world, _ = await prepared()
    foreign = await world.provider.new_version(b"the web server's")
    other_keyring = await world.provider.new_version(b"callvault/keyring\0" + b"o" * 16 + bytes(8))
    keyring = await world.open()
    assert {foreign, other_keyring} < set(await world.provider.versions())
    assert "warning" in [finding.level for finding in await keyring.check()]


@pytest.mark.parametrize("victim", [0, 2])
@pytest.mark.parametrize("damage", ["deleted", "corrupt", "old"])
async def test_a_damaged_or_stale_replica_is_mended_from_the_other(victim, damage):
    world, keyring = await prepared()
    truth = {probe: keyring.derive(probe).material for probe in PROBES}
    root = REPLICAS[victim]
    old = {path: data for path, data in world.files.content.items() if path.is_relative_to(root)}
    async with keyring.writer() as writer:
        await writer.pin([NEW_PIN])
    if damage == "old":
        for path in [path for path in world.files.content if path.is_relative_to(root)]:
            del world.files.content[path]
        world.files.content |= old
    elif damage == "deleted":
        del world.files.content[root / "head"]
    else:
        head = world.files.content[root / "head"]
        world.files.content[root / "head"] = head[:-1] + bytes([head[-1] ^ 1])
    keyring = await world.open()
    assert NEW_PIN in keyring.pins()
    await assert_laws(world, keyring, truth, may_be_gone=set())
    assert {finding.level for finding in await keyring.check()} == {"ok"}


async def test_different_damage_on_each_replica_is_mended_from_the_other():
    world, keyring = await prepared()
    truth = {probe: keyring.derive(probe).material for probe in PROBES}
    pages = sorted(path for path in world.files.content if path.parent == REPLICAS[0] / "pages")
    world.files.content[pages[0]] = b"rot"
    del world.files.content[REPLICAS[1] / "pages" / pages[1].name]
    world.files.content[REPLICAS[2] / "pages" / pages[0].name] = b"rot"
    await assert_laws(world, await world.open(), truth, may_be_gone=set())


async def test_no_head_that_opens_is_an_integrity_error_and_creates_nothing():
    world, _ = await prepared()
    for path in REPLICAS:
        world.files.content[path / "head"] = b"rot"
    before = fingerprint(world)
    with pytest.raises(IntegrityError):
        await world.open()
    assert fingerprint(world) == before


async def test_an_old_copy_of_every_replica_opens_nothing_after_a_shred():
    world, keyring = await prepared()
    old = dict(world.files.content)
    await act_on(world, keyring, "shred")
    world.files.content = dict(old)
    with pytest.raises(IntegrityError):
        await world.open()
    assert world.files.content == old


async def test_too_few_marked_replicas_or_a_foreign_one_refuse_to_open_and_name_the_remedy():
    world, _ = await prepared()
    kept = [world.files.content.pop(path / "REPLICA") for path in REPLICAS[1:]]
    with pytest.raises(ConfigError) as caught:
        await world.open()
    assert "callvault keys repair" in caught.value.hint
    world.files.content[REPLICAS[1] / "REPLICA"] = kept[0].replace(KEYRING_ID, b"o" * 16)
    with pytest.raises(ConfigError) as caught:
        await world.open()
    assert "callvault keys repair" in caught.value.hint


async def test_create_refuses_to_overwrite():
    world, _ = await prepared()
    world.files.locks.clear()
    before = fingerprint(world)
    with pytest.raises(ConfigError):
        await world.create()
    assert fingerprint(world) == before


async def test_a_leaf_under_a_pin_is_refused_and_nothing_is_deleted():
    world, keyring = await prepared()
    plan = ShredPlan(intent_id="erase", at=world.clock.now(), leaves=frozenset({at(DUE, 3), at(DUE, 4)}))
    before = fingerprint(world)
    async with keyring.writer() as writer:
        with pytest.raises(UnderHold):
            await writer.shred(plan)
        assert fingerprint(world) == before
        assert keyring.derivable(at(DUE, 4))
        await writer.shred(replace(plan, unpin=(HELD,)))
    assert not keyring.derivable(at(DUE, 3))
    assert keyring.pins() == []


async def test_something_is_due_exactly_if_a_sweep_would_take_a_key():
    world, keyring = await prepared()
    plan = ShredPlan(intent_id="sweep", at=world.clock.now(), due_through=10)
    assert not keyring.has_due(replace(plan, due_through=9))
    assert keyring.has_due(plan)
    async with keyring.writer() as writer:
        await writer.shred(plan)
    assert not keyring.has_due(replace(plan, due_through=19))
    assert keyring.has_due(replace(plan, due_through=19, unpin=(HELD,)))
    assert keyring.has_due(replace(plan, due_through=20))


async def test_a_swept_cohort_is_never_planted_again():
    world, keyring = await prepared()
    await act_on(world, keyring, "shred")
    async with keyring.writer() as writer:
        with pytest.raises(TooLate):
            await writer.add_cohorts([audio(10, tenant="gamma")])
    assert not keyring.has_cohort(audio(10, tenant="gamma"))


async def test_a_tenant_that_comes_back_gets_other_coordinates():
    world, keyring = await prepared()
    plan = ShredPlan(intent_id="leave", at=world.clock.now(), drop_tenants=frozenset({TenantId("acme")}))
    async with keyring.writer() as writer:
        await writer.shred(plan)
        assert keyring.generation == 1
        with pytest.raises(Unavailable):
            await writer.add_cohorts([MONTH])
        await writer.add_cohorts([replace(MONTH, generation=1)])
    assert not keyring.derivable(at(MONTH, 0))
    assert keyring.derivable(at(OTHER, 0))


async def test_a_tenant_that_leaves_keeps_what_is_pinned_until_the_last_pin_goes():
    world, keyring = await prepared()
    plan = ShredPlan(intent_id="leave", at=world.clock.now(), drop_tenants=frozenset({TenantId("acme")}))
    kept = at(HELD.cohort, HELD.first)
    async with keyring.writer() as writer:
        await writer.shred(plan)
        assert keyring.derivable(kept)
        assert keyring.pins() == [HELD]
        assert not keyring.has_due(plan)
        assert keyring.has_due(replace(plan, unpin=(HELD,)))
        await writer.shred(replace(plan, unpin=(HELD,)))
    assert not keyring.derivable(kept)
    assert not keyring.cohorts(TenantId("acme"), Part.AUDIO)
    assert keyring.derivable(at(OTHER, 0))


async def test_metadata_goes_by_its_tenants_own_clock_and_takes_its_index_along():
    world, keyring = await prepared()
    later = replace(MONTH, period=MONTH.period + 1)
    other = replace(MONTH, tenant=TenantId("beta"))
    pin = Pin(cohort=MONTH, first=7, last=7, tag=TAG)
    plan = ShredPlan(intent_id="m", at=world.clock.now(), metadata_through={TenantId("acme"): MONTH.period})
    async with keyring.writer() as writer:
        await writer.add_cohorts([later, other])
        await writer.pin([pin])
        with pytest.raises(Invalid):
            await writer.shred(replace(plan, metadata_through={}, leaves=frozenset({at(MONTH, INDEX_LEAF)})))
        assert keyring.has_due(plan)
        await writer.shred(plan)
    assert keyring.derivable(at(MONTH, 7))
    for gone in (at(MONTH, 6), at(MONTH, INDEX_LEAF)):
        assert not keyring.derivable(gone)
    for alive in (at(later, INDEX_LEAF), at(other, 6), at(DUE, 1)):
        assert keyring.derivable(alive)
    assert keyring.cohorts(TenantId("acme"), Part.METADATA) == [MONTH, later]
    assert not keyring.has_due(plan)


async def test_a_pin_of_which_one_leaf_is_gone_pins_nothing():
    world, keyring = await prepared()
    plan = ShredPlan(intent_id="erase", at=world.clock.now(), leaves=frozenset({at(LATER, 8)}))
    async with keyring.writer() as writer:
        await writer.shred(plan)
        with pytest.raises(TooLate):
            await writer.pin([Pin(cohort=LATER, first=1, last=1, tag=TAG), NEW_PIN])
    assert keyring.pins() == [HELD]


async def test_a_receipt_states_what_was_destroyed_and_when():
    world, keyring = await prepared()
    (old,) = await world.provider.versions()
    async with keyring.writer() as writer:
        receipt = await writer.shred(sweep(world))
    assert (receipt.intent_id, receipt.epoch_destroyed, receipt.epoch_live) == ("sweep", 1, 2)
    assert receipt.root_version_destroyed == old
    assert (receipt.provider, receipt.assurance, receipt.replicas) == ("memory", "best_effort", 3)
    assert receipt.unrecoverable_at == world.clock.now()
    assert receipt.caches_clear_at == world.clock.now() + timedelta(seconds=15)
    assert keyring.last_sweep_at == world.clock.now()


async def test_one_revision_writes_the_changed_tenant_and_not_the_others():
    world, keyring = await prepared()
    async with keyring.writer() as writer:
        await writer.add_cohorts([audio(period, tenant="large") for period in range(100, 600)])
        before = len(world.files.history)
        await writer.pin([NEW_PIN])
    written = sum(len(data) for _, data in world.files.history[before:])
    assert written < 10_000


async def test_a_million_leaves_cost_no_more_than_their_cohort(monkeypatch):
    world, keyring = await prepared()
    walked = []
    monkeypatch.setattr("vault.crypto.ggm._walk", lambda *args: walked.append(args))
    plan = ShredPlan(intent_id="month", at=world.clock.now(), due_through=19, unpin=(HELD,))
    async with keyring.writer() as writer:
        await writer.shred(plan)
    assert not keyring.has_cohort(DUE)
    assert len(walked) <= 4


async def test_a_writer_is_useless_outside_its_section():
    _, keyring = await prepared()
    async with keyring.writer() as writer:
        pass
    with pytest.raises(RuntimeError):
        await writer.unpin([HELD])
    await keyring.close()
    with pytest.raises(Unavailable):
        async with keyring.writer():
            pass


def keeps_a_dead_key(before, after):
    return replace(after, pages={**after.pages, "acme": before.pages["acme"]})


def loses_a_survivor(before, after):
    page = after.pages["acme"]
    cohorts = {cohort: cover for cohort, cover in page.cohorts.items() if cohort != MONTH}
    return replace(after, pages={**after.pages, "acme": replace(page, cohorts=cohorts)})


def changes_a_survivor(before, after):
    page = after.pages["acme"]
    cohorts = {**page.cohorts, MONTH: ggm.plant(bytes(32))}
    return replace(after, pages={**after.pages, "acme": replace(page, cohorts=cohorts)})


@pytest.mark.parametrize("mistake", [keeps_a_dead_key, loses_a_survivor, changes_a_survivor])
async def test_a_new_epoch_that_is_not_exactly_right_is_found_before_anything_is_destroyed(monkeypatch, mistake):
    world, keyring = await prepared()
    truth = {probe: keyring.derive(probe).material for probe in PROBES}
    right = states.shredded
    monkeypatch.setattr(states, "shredded", lambda state, plan, **new: mistake(state, right(state, plan, **new)))
    with pytest.raises(IntegrityError, match="nothing was destroyed"):
        await act_on(world, keyring, "shred")
    assert world.provider.destroyed == []
    monkeypatch.undo()
    await assert_laws(world, await world.open(), truth, may_be_gone=set())


@pytest.mark.parametrize("victims", [(0, 1), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("what", ["index", "pages"])
async def test_a_new_epoch_that_does_not_read_back_from_a_quorum_stops_the_shred(victims, what):
    world, keyring = await prepared()
    truth = {probe: keyring.derive(probe).material for probe in PROBES}
    write = world.files.replace

    def rotting(path: Path, data: bytes) -> None:
        rots = path.parent in [REPLICAS[victim] / what for victim in victims]
        write(path, data[:-1] + bytes([data[-1] ^ 1]) if rots else data)

    world.files.replace = rotting
    with pytest.raises(IntegrityError):
        await act_on(world, keyring, "shred")
    assert world.provider.destroyed == []
    del world.files.replace
    keyring = await world.open()
    await assert_laws(world, keyring, truth, may_be_gone=set())
    await act_on(world, keyring, "shred")


async def test_epoch_replicas_and_provider_calls_are_measured():
    world, keyring = await prepared()
    metrics = Metrics(CollectorRegistry())
    world.files.locks.clear()
    keyring = await Keyring.open(
        world.stores(), world.provider, clock=world.clock, entropy=world.entropy, metrics=metrics
    )
    read = metrics.registry.get_sample_value
    assert (read("callvault_keyring_epoch"), read("callvault_keyring_replicas_ok")) == (1, 3)
    assert read("callvault_keyring_replicas") == 3
    await act_on(world, keyring, "shred")
    assert read("callvault_keyring_epoch") == 2
    assert read("callvault_root_provider_seconds_count", {"op": "destroy", "outcome": "ok"}) == 1
    assert read("callvault_root_provider_seconds_count", {"op": "unwrap", "outcome": "destroyed"}) == 1
    world.files.content[REPLICAS[1] / "head"] = b"rot"
    assert "error" in [finding.level for finding in await keyring.check()]
    assert read("callvault_keyring_replicas_ok") == 2


# ---- real files


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def places(tmp_path: Path) -> list[DirectoryReplica]:
    return [DirectoryReplica(tmp_path / f"disk{number}" / "ring", wait_seconds=0.1) for number in (1, 2, 3)]


async def on_disk(tmp_path: Path) -> tuple[list[DirectoryReplica], FileRootKeys, TestClock]:
    clock = TestClock()
    provider = FileRootKeys(tmp_path / "root-keys", clock=clock)
    await provider.create()
    replicas = places(tmp_path)
    await Keyring.create(replicas, provider, keyring_id=KEYRING_ID, cohort_width_seconds=WIDTH_SECONDS)
    return replicas, provider, clock


async def test_on_real_files_a_shred_survives_reopening_and_leaks_no_descriptor(tmp_path):
    replicas, provider, clock = await on_disk(tmp_path)
    descriptors = open_descriptors()
    keyring = await Keyring.open(replicas, provider, clock=clock)
    async with keyring.writer() as writer:
        await writer.add_cohorts([DUE, LATER])
        await writer.pin([HELD])
        key = keyring.derive(at(DUE, 3))
        await writer.shred(ShredPlan(intent_id="s", at=clock.now(), due_through=10))
    await keyring.close()
    assert open_descriptors() == descriptors
    keyring = await Keyring.open(replicas, provider, clock=clock)
    assert keyring.derive(at(DUE, 3)) == key
    assert not keyring.derivable(at(DUE, 4))
    directories = [path for store in replicas for path in (store.path, store.path / "pages")]
    assert {path.stat().st_mode & 0o777 for path in directories} == {0o700}
    await keyring.close()


async def test_on_real_files_a_second_writer_waits_and_is_then_refused(tmp_path):
    replicas, provider, clock = await on_disk(tmp_path)
    keyring = await Keyring.open(replicas, provider, clock=clock)
    async with keyring.writer():
        with pytest.raises(Unavailable, match="another process has used"):
            await Keyring.open(places(tmp_path), provider, clock=clock)
        with pytest.raises(Unavailable, match="another process has used"):
            await repair_replica(replicas[1].name, replicas=Replicas(places(tmp_path)), provider=provider)
        observer = await Keyring.observe(places(tmp_path), provider, clock=clock)
        assert observer.epoch == keyring.epoch
    await (await Keyring.open(places(tmp_path), provider, clock=clock)).close()


@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_on_real_files_a_lost_replica_is_done_without_and_refilled_on_demand(tmp_path, victim):
    replicas, provider, clock = await on_disk(tmp_path)
    keyring = await Keyring.open(replicas, provider, clock=clock)
    async with keyring.writer() as writer:
        await writer.add_cohorts([DUE])
    key = keyring.derive(at(DUE, 3))
    await keyring.close()
    shutil.rmtree(replicas[victim].path)
    keyring = await Keyring.open(replicas, provider, clock=clock)
    assert keyring.derive(at(DUE, 3)) == key
    assert "error" in {finding.level for finding in await keyring.check()}
    assert not replicas[victim].path.exists(), "what may be an unmounted disk is never filled unasked"
    await repair_replica(replicas[victim].name, replicas=Replicas(replicas), provider=provider)
    assert {finding.level for finding in await keyring.check()} == {"ok"}
    async with keyring.writer() as writer:
        await writer.add_cohorts([LATER])
    assert {finding.level for finding in await keyring.check()} == {"ok"}
    await keyring.close()


async def test_replicas_that_vanish_under_a_running_process_make_writes_unavailable(tmp_path):
    replicas, provider, clock = await on_disk(tmp_path)
    keyring = await Keyring.open(replicas, provider, clock=clock)
    async with keyring.writer() as writer:
        await writer.add_cohorts([DUE])
        for number in (1, 2):
            replicas[number].path.rename(tmp_path / f"unmounted{number}")
        for _ in range(2):
            with pytest.raises(Unavailable):
                await writer.add_cohorts([LATER])
        assert keyring.derivable(at(DUE, 0))
        for number in (1, 2):
            (tmp_path / f"unmounted{number}").rename(replicas[number].path)
        await writer.add_cohorts([LATER])
    assert keyring.derivable(at(LATER, 0))
    await keyring.close()


async def test_processes_that_write_in_turn_each_see_what_the_other_did():
    world, first = await prepared()
    second = await world.start()
    async with first.writer() as writer:
        await writer.pin([NEW_PIN])
    async with second.writer() as writer:
        await writer.unpin([HELD])
        assert second.pins() == [NEW_PIN]
    await act_on(world, first, "shred")
    assert not first.derivable(at(DUE, 3))
    assert second.derivable(at(DUE, 3)), "a view is good for its lease"
    await second.refresh()
    assert not second.derivable(at(DUE, 3))


async def test_a_process_that_was_not_the_last_writer_holds_without_the_root_key_provider():
    world, first = await prepared()
    second = await world.start()
    truth = {probe: first.derive(probe).material for probe in PROBES}
    world.provider.outage = frozenset({"new_version", "wrap", "unwrap", "destroy", "versions"})
    for keyring, other in ((first, second), (second, first), (first, second)):
        leaf = 20 + keyring.rank[0]
        pin = Pin(cohort=LATER, first=leaf, last=leaf, tag=TAG)
        async with keyring.writer() as writer:
            await writer.pin([pin])
        await other.refresh()
        assert other.has_pins([pin])
    # Whoever was overtaken writes nothing by what it remembers, whichever epoch that was.
    world.provider.outage = frozenset()
    await act_on(world, second, "shred")
    world.provider.outage = frozenset({"unwrap"})
    with pytest.raises(Unavailable):
        await act_on(world, first, "revise")
    world.provider.outage = frozenset()
    await act_on(world, first, "revise")
    await assert_laws(world, first, truth, may_be_gone=TAKEN)


async def test_an_orphan_of_an_interrupted_shred_outlives_holds_and_not_the_next_sweep():
    world, first = await prepared()
    second = await world.start()
    world.plan.arm(FIRST_HEAD, "lost")
    with pytest.raises(Crash):
        await act_on(world, first, "shred")
    world.files.locks.clear()
    world.plan.arm(None, "lost")
    async with second.writer() as writer:
        await writer.pin([NEW_PIN])
        assert len(await world.provider.versions()) == 2
        await writer.set_last_sweep(world.clock.now())
    assert len(await world.provider.versions()) == 1
    assert NEW_PIN in second.pins()


async def test_a_cancelled_shred_ends_its_step_before_it_lets_go(tmp_path):
    replicas, provider, clock = await on_disk(tmp_path)
    keyring = await Keyring.open(replicas, provider, clock=clock)
    async with keyring.writer() as writer:
        await writer.add_cohorts([DUE, LATER])
    key = keyring.derive(at(LATER, 0))

    async def shred() -> None:
        async with keyring.writer() as writer:
            await writer.shred(ShredPlan(intent_id="s", at=clock.now(), due_through=10))

    for turn in range(8):
        task = asyncio.create_task(shred())
        await asyncio.wait({task}, timeout=0.004 * turn)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
    await shred()
    assert keyring.derive(at(LATER, 0)) == key
    assert not keyring.derivable(at(DUE, 0))
    assert len(await provider.versions()) == 1
    await keyring.close()


class HalfDestroying(Files):
    """Ends the process after the key material was overwritten and before the file is removed."""

    def unlink(self, path: Path) -> None:
        raise Crash


async def test_a_version_whose_destruction_was_cut_short_is_still_listed_and_destroyed_again(tmp_path):
    clock = TestClock()
    provider = FileRootKeys(tmp_path / "root-keys", clock=clock)
    await provider.create()
    version = await provider.new_version(b"tag")
    blob = await provider.wrap(version, b"k" * 32, b"aad")
    with pytest.raises(Crash):
        await FileRootKeys(tmp_path / "root-keys", clock=clock, files=HalfDestroying()).destroy(version)
    assert (await provider.versions())[version].tag == b"tag"
    with pytest.raises(Unavailable):
        await provider.unwrap(version, blob, b"aad")
    await provider.destroy(version)
    assert await provider.versions() == {}


async def test_an_empty_memory_provider_never_lets_a_keyring_be_read_as_destroyed():
    world, _ = await prepared()
    world.provider.inner = MemoryRootKeys(clock=world.clock, entropy=world.entropy)
    with pytest.raises(Unavailable):
        await world.open()


def page_names(world):
    return {path.name for path in world.files.content if path.parent == REPLICAS[0] / "pages"}


async def test_a_tenant_with_many_pins_has_several_pages_and_a_revision_writes_those_that_it_changes(monkeypatch):
    monkeypatch.setattr(pages, "_PAGE_BYTES", 2_000)
    world, keyring = await prepared()
    cohorts = [audio(30 + number) for number in range(20)]
    many = [Pin(cohort=cohort, first=leaf, last=leaf, tag=TAG) for cohort in cohorts for leaf in range(0, 400, 2)]
    async with keyring.writer() as writer:
        await writer.add_cohorts(cohorts)
        assert len(page_names(world)) == 2, "one page of each tenant"
        await writer.pin(many)
        there = page_names(world)
        assert len(there) > 6
        await writer.pin([Pin(cohort=cohorts[7], first=1, last=1, tag=b"o" * 16)])
        assert len(page_names(world) - there) == len(there - page_names(world)) == 1
    again = await world.open()
    assert set(again.pins()) == set(keyring.pins())
    assert set(again.cohorts(TenantId("acme"), Part.AUDIO)) == {DUE, LATER, *cohorts}
    async with again.writer() as writer:
        await writer.shred(ShredPlan(intent_id="half", at=world.clock.now(), due_through=40))
        assert again.derivable(at(cohorts[0], 2))
        assert not again.derivable(at(cohorts[0], 3))
        await writer.unpin(many)
        await writer.shred(ShredPlan(intent_id="rest", at=world.clock.now(), due_through=100))
        assert len(page_names(world)) == 1, "what is left of one tenant fits on a page"


@pytest.mark.parametrize("mode", ["lost", "torn", "landed"])
async def test_a_crash_while_many_pins_are_set_loses_none_that_was_there_and_a_repeat_sets_all(monkeypatch, mode):
    monkeypatch.setattr(pages, "_PAGE_BYTES", 500)
    monkeypatch.setattr(keyrings, "_PINS_AT_ONCE", 50)
    cohorts = [audio(30 + number) for number in range(5)]
    many = [Pin(cohort=cohort, first=leaf, last=leaf, tag=TAG) for cohort in cohorts for leaf in range(0, 60, 2)]
    for step in (5, 12, 40):
        world, keyring = await prepared()
        async with keyring.writer() as writer:
            await writer.add_cohorts(cohorts)
        world.plan.arm(step, mode)
        with pytest.raises(Crash):
            async with keyring.writer() as writer:
                await writer.pin(many)
        world.plan.arm(None, "lost")
        again = await world.open()
        assert again.has_pins([HELD])
        async with again.writer() as writer:
            await writer.pin(many)
        assert again.has_pins([HELD, *many])
