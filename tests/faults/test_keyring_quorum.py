"""Losing a replica at any step costs nothing; losing too many stops everything; an overtaken writer harms nobody."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from tests.helpers.keyring_steps import (
    ALL,
    DUE,
    HELD,
    LATER,
    NEW_PIN,
    PROBES,
    TAKEN,
    act_on,
    assert_laws,
    prepared,
    sweep,
)
from tests.helpers.keyrings import REPLICAS, Adversary, Crash, World, at, opens
from vault.errors import Shredded, Unavailable, VaultError
from vault.keystore.keyring import Keyring


class LosingFiles:
    """Makes one replica's disk go away just before the n-th write, which may be on any replica."""

    def __init__(self, world: World, victim: Path, at_write: int) -> None:
        self.world, self.victim, self.at_write = world, victim, at_write
        self.writes = 0
        self._replace = world.files.replace
        world.files.replace = self.replace

    def replace(self, path: Path, data: bytes) -> None:
        self.writes += 1
        if self.writes == self.at_write:
            self.world.files.lost.add(self.victim)
        self._replace(path, data)

    def back(self) -> None:
        self.world.files.replace = self._replace
        self.world.files.lost.clear()


async def writes_of(act: str) -> int:
    world, keyring = await prepared()
    counting = LosingFiles(world, REPLICAS[0], 0)
    await act_on(world, keyring, act)
    return counting.writes


def effect(act: str, keyring: Keyring) -> None:
    assert {probe for probe in PROBES if not keyring.derivable(probe)} == (TAKEN if act == "shred" else set())
    assert (NEW_PIN in keyring.pins()) == (act == "revise")


@pytest.mark.parametrize("victim", REPLICAS)
@pytest.mark.parametrize("act", ["revise", "shred"])
async def test_losing_one_replica_at_any_step_costs_nothing(act, victim):
    for step in range(1, await writes_of(act) + 1):
        world, keyring = await prepared()
        truth = {probe: keyring.derive(probe).material for probe in PROBES}
        losing = LosingFiles(world, victim, step)
        await act_on(world, keyring, act)
        effect(act, keyring)
        # A process that starts while it is away sees the same; when it is back, the next writer brings it up to date.
        effect(act, await world.open())
        losing.back()
        keyring = await world.open()
        effect(act, keyring)
        await assert_laws(world, keyring, truth, may_be_gone=TAKEN if act == "shred" else set())
        assert {finding.level for finding in await keyring.check()} == {"ok"}


@pytest.mark.parametrize("act", ["revise", "shred"])
async def test_losing_two_replicas_at_any_step_stops_the_act_and_loses_nothing(act):
    for step in range(1, await writes_of(act) + 1):
        world, keyring = await prepared()
        truth = {probe: keyring.derive(probe).material for probe in PROBES}
        losing = LosingFiles(world, REPLICAS[0], step)
        world.files.lost.add(REPLICAS[1])
        lives = set(await world.provider.versions())
        try:
            await act_on(world, keyring, act)
        except Unavailable:
            assert lives <= set(await world.provider.versions()), "an epoch that still counts was destroyed"
            with pytest.raises(Unavailable):
                await act_on(world, keyring, act)
            losing.back()
            await act_on(world, keyring, act)
        losing.back()
        keyring = await world.open()
        effect(act, keyring)
        await assert_laws(world, keyring, truth, may_be_gone=TAKEN if act == "shred" else set())


async def test_a_replica_that_missed_a_shred_cannot_bring_it_back():
    world, keyring = await prepared()
    truth = {probe: keyring.derive(probe).material for probe in PROBES}
    world.files.lost.add(REPLICAS[2])
    await act_on(world, keyring, "shred")
    world.files.lost.clear()
    # The stale replica and one current one are a read quorum.
    world.files.lost.add(REPLICAS[0])
    keyring = await world.open()
    effect("shred", keyring)
    world.files.lost.clear()
    await assert_laws(world, await world.open(), truth, may_be_gone=TAKEN)


async def test_a_write_that_reached_a_minority_never_outranks_what_was_acknowledged_after_it():
    world, first = await prepared()
    # A page and an index on each of two replicas, the first head, and then the second is gone.
    losing = LosingFiles(world, REPLICAS[1], 6)
    world.files.lost.add(REPLICAS[2])
    with pytest.raises(Unavailable):
        await act_on(world, first, "revise")
    losing.back()
    alone = world.files.content[REPLICAS[0] / "head"]
    assert alone != world.files.content[REPLICAS[1] / "head"]
    # The replica that may have got it is away while another process takes over and is acknowledged.
    world.files.lost.add(REPLICAS[0])
    second = await world.start()
    async with second.writer() as writer:
        await writer.unpin([HELD])
    world.files.lost.clear()
    assert world.files.content[REPLICAS[0] / "head"] == alone
    third = await world.open()
    assert third.pins() == []
    assert len({world.files.content[path / "head"] for path in REPLICAS}) == 1


class PausingFiles:
    """Stops a writer just before its n-th write, as SIGSTOP would, and takes its locks away as a lease would."""

    def __init__(self, world: World, at_write: int) -> None:
        self.world, self.at_write, self.writes = world, at_write, 0
        self.paused, self.resume = asyncio.Event(), asyncio.Event()
        self._replace = world.files.replace
        self._loop = asyncio.get_running_loop()
        world.files.replace = self.replace

    def replace(self, path: Path, data: bytes) -> None:
        self.writes += 1
        if self.writes == self.at_write:
            self._loop.call_soon_threadsafe(self.paused.set)
            asyncio.run_coroutine_threadsafe(self.resume.wait(), self._loop).result(10)
        self._replace(path, data)


@pytest.mark.parametrize("meanwhile", ["open", "unpin", "shred"])
@pytest.mark.parametrize("act", ["revise", "shred"])
async def test_a_writer_that_was_overtaken_at_any_step_neither_loses_a_survivor_nor_revives_anything(act, meanwhile):
    for step in range(1, await writes_of(act) + 1):
        world, first = await prepared()
        truth = {probe: first.derive(probe).material for probe in PROBES}
        pausing = PausingFiles(world, step)
        overtaken = asyncio.create_task(act_on(world, first, act))
        await pausing.paused.wait()
        world.files.locks.clear()
        second = await world.start()
        if meanwhile == "shred":
            await act_on(world, second, "shred")
        elif meanwhile == "unpin":
            async with second.writer() as writer:
                await writer.unpin([HELD])
        pausing.resume.set()
        try:
            await overtaken
        except VaultError:
            pass
        else:
            # What it acknowledged, everyone sees.
            await second.refresh()
        gone = TAKEN if "shred" in (act, meanwhile) else set()
        third = await world.open()
        for probe in PROBES:
            if third.derivable(probe):
                assert third.derive(probe).material == truth[probe]
            else:
                assert probe in gone | ({at(DUE, 3)} if meanwhile == "unpin" and act == "shred" else set())
        if meanwhile == "shred":
            assert not any(third.derivable(probe) for probe in TAKEN)
        else:
            assert (HELD in third.pins()) == (meanwhile == "open")
        covers = await Adversary(world).covers()
        for probe in PROBES:
            if not third.derivable(probe):
                assert not opens(covers, probe)
        assert len(await world.provider.versions()) == 1
        async with third.writer() as writer:
            await writer.unpin([NEW_PIN])


# ---- leases


async def two_nodes() -> tuple[World, Keyring, Keyring]:
    world, writer = await prepared()
    return world, writer, await world.start()


async def test_a_node_that_did_not_look_within_its_lease_derives_nothing_and_calls_nothing_shredded():
    world, _, reader = await two_nodes()
    reader.derive(at(LATER, 0))
    world.clock.advance(timedelta(seconds=14.9))
    reader.derive(at(LATER, 0))
    world.clock.advance(timedelta(seconds=0.1))
    for look in (
        lambda: reader.derive(at(LATER, 0)),
        lambda: reader.derivable(at(LATER, 0)),
        reader.pins,
        lambda: reader.has_cohort(DUE),
        lambda: reader.has_due(sweep(world)),
        lambda: reader.generation,
    ):
        with pytest.raises(Unavailable, match="lease"):
            look()
    await reader.refresh()
    reader.derive(at(LATER, 0))


async def test_after_the_certified_instant_no_node_derives_what_was_shredded():
    world, writer, reader = await two_nodes()
    async with writer.writer() as section:
        receipt = await section.shred(sweep(world))
    assert reader.derivable(at(DUE, 0)), "the lease is what the certificate waits for"
    world.clock.at = receipt.caches_clear_at
    with pytest.raises(Unavailable):
        reader.derive(at(DUE, 0))
    await reader.refresh()
    with pytest.raises(Shredded):
        reader.derive(at(DUE, 0))
    reader.derive(at(LATER, 0))


async def test_an_outage_of_the_replicas_lets_the_lease_run_out():
    world, _, reader = await two_nodes()
    world.files.lost |= {REPLICAS[0], REPLICAS[1]}
    world.clock.advance(timedelta(seconds=10))
    with pytest.raises(Unavailable):
        await reader.refresh()
    reader.derive(at(LATER, 0))
    world.clock.advance(timedelta(seconds=5))
    with pytest.raises(Unavailable):
        reader.derive(at(LATER, 0))
    world.files.lost.clear()
    await reader.refresh()
    reader.derive(at(LATER, 0))


async def test_one_replica_is_enough_to_lose_and_the_lease_goes_on():
    world, _, reader = await two_nodes()
    world.files.lost.add(REPLICAS[0])
    world.clock.advance(timedelta(seconds=20))
    await reader.refresh()
    reader.derive(at(LATER, 0))


async def test_a_look_that_began_before_a_shred_brings_nothing_back():
    world, keyring = await prepared()
    survey = keyring._engine._replicas.survey
    seen = asyncio.Event()
    go_on = asyncio.Event()

    async def slow():
        found = await survey()
        seen.set()
        await go_on.wait()
        return found

    keyring._engine._replicas.survey = slow
    looking = asyncio.create_task(keyring.refresh())
    await seen.wait()
    keyring._engine._replicas.survey = survey
    await act_on(world, keyring, "shred")
    go_on.set()
    await asyncio.gather(looking, return_exceptions=True)
    effect("shred", keyring)


async def test_a_first_look_that_a_shred_overtakes_looks_again():
    world, keyring = await prepared()
    store = world.stores()[0]
    read = type(store).read
    overtaken = False

    async def overtaking(self, names):
        nonlocal overtaken
        if not overtaken and any(name.startswith("pages/") for name in names):
            # Between the head and its pages: the shred removes them, and the version that opened their index.
            overtaken = True
            await act_on(world, keyring, "shred")
        return await read(self, names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store), "read", overtaking)
        looker = await Keyring.observe(world.stores(), world.provider, clock=world.clock)
    assert overtaken
    effect("shred", looker)


async def test_a_node_goes_on_looking_by_itself(monkeypatch):
    world, _, reader = await two_nodes()
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        world.clock.advance(timedelta(seconds=seconds))
        if len(naps) == 7:
            raise Crash

    monkeypatch.setattr("vault.keystore.keyring.asyncio.sleep", nap)
    with pytest.raises(Crash):
        await reader.run()
    assert set(naps) == {5.0}
    reader.derive(at(LATER, 0))


async def test_the_lease_is_the_vaults_and_bounded():
    world = World()
    with pytest.raises(VaultError, match="lease"):
        await Keyring.create(
            world.stores(),
            world.provider,
            keyring_id=bytes(16),
            cohort_width_seconds=1,
            lease=timedelta(seconds=16),
        )


async def test_two_replicas_survive_the_loss_of_one_but_wait_for_it():
    world = World(replicas=REPLICAS[:2])
    await world.create()
    keyring = await world.open()
    async with keyring.writer() as writer:
        await writer.add_cohorts(ALL)
    world.files.lost.add(REPLICAS[0])
    reader = await Keyring.observe(world.stores(), world.provider, clock=world.clock)
    reader.derive(at(LATER, 0))
    with pytest.raises(Unavailable):
        await act_on(world, keyring, "revise")
    world.files.lost.clear()
    await act_on(world, keyring, "revise")
    assert "warning" in {finding.level for finding in await keyring.check()}
