"""The shred protocol as a state machine: the real keyring, crashes at every step, every backup ever taken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.helpers.keyrings import REPLICAS, Adversary, Crash, World, at, opens
from tests.helpers.soak import SOAK
from vault.errors import IntegrityError, Invalid, Shredded, TooLate, Unavailable, UnderHold
from vault.ids import TenantId
from vault.keystore import pages
from vault.keystore.engine import Engine
from vault.keystore.keyring import Keyring, Writer
from vault.keystore.pages import Stored
from vault.keystore.replicas import Round
from vault.keystore.state import State
from vault.model import INDEX_LEAF, Cohort, Coordinate, Part, Pin, ShredPlan
from vault.ports.keys import DestroyReceipt

TENANTS = (TenantId("acme"), TenantId("beta"))
crashes = st.none() | st.tuples(st.sampled_from(range(1, 17)), st.sampled_from(["lost", "landed", "torn"]))


class SurvivorsLost(AssertionError):
    """A recording that nobody shredded cannot be read."""


class Resurrected(AssertionError):
    """A shredded recording opens for someone who kept everything."""


@dataclass(frozen=True, slots=True)
class Retirement:
    """What a writer retires."""

    used: dict[Cohort, int]
    since: int
    below: int


def leaves_of(pins: Iterable[Pin]) -> set[Pin]:
    """Return one pin for each leaf: what adjoins is one pin in the keyring, however it was placed."""
    return {replace(pin, first=leaf, last=leaf) for pin in pins for leaf in range(pin.first, pin.last + 1)}


class KeyringMachine(RuleBasedStateMachine):
    """`rows` and `counters` are the catalog, which backups copy; `truth` is what really happened."""

    keyring_class: ClassVar[type[Keyring]] = Keyring

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = World(self.keyring_class)
        self.adversary = Adversary(self.world)
        self.rows: dict[int, Coordinate] = {}
        self.counters: dict[Cohort, int] = {}
        self.truth: dict[int, tuple[Coordinate, bytes]] = {}
        self.dead: set[int] = set()
        self.indexes: set[int] = set()
        self.pins: set[Pin] = set()
        self.backups: list[tuple[dict[int, Coordinate], dict[Cohort, int]]] = []
        self.counted_since = 0
        self.today = 0
        self.intents = 0
        self.unproven = False

    @initialize(trial=st.booleans())
    def init(self, trial: bool) -> None:
        self.trial = trial
        self.run(self.world.create(trial=trial))
        self.reopen(None)

    def teardown(self) -> None:
        try:
            if hasattr(self, "keyring"):
                self.unproven = True
                self.nothing_shredded_ever_opens()
        finally:
            self.runner.close()

    def run(self, act: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(act)

    def reopen(self, crash: tuple[int, str] | None) -> None:
        """Start a new process, which may crash in its own recovery first."""
        try:
            if crash is not None:
                self.world.files.locks.clear()
                self.world.plan.arm(*crash)
                with contextlib.suppress(Crash):
                    self.run(self.world.start())
            self.keyring = self.run(self.world.open())
        except IntegrityError as error:
            raise SurvivorsLost(error.message) from error
        self.unproven = True

    def act(self, name: str, argument: object, crash: tuple[int, str] | None) -> bool:
        """Do one act of the writer; returns False if the process ended in it, and is then a new process."""

        async def inside() -> None:
            async with self.keyring.writer() as writer:
                act = getattr(Writer, name)
                if isinstance(argument, Retirement):
                    await act(writer, argument.used, since=argument.since, below=argument.below)
                else:
                    await (act(writer) if argument is None else act(writer, argument))

        self.world.plan.arm(*(crash or (None, "lost")))
        try:
            self.run(inside())
        except Crash:
            self.reopen(crash if crash and crash[0] % 2 else None)
            return False
        except IntegrityError as error:
            raise SurvivorsLost(error.message) from error
        self.world.plan.arm(None, "lost")
        return True

    def until_done(self, name: str, argument: object, crash: tuple[int, str] | None) -> None:
        """The intent is durable: after a crash it is replayed."""
        if not self.act(name, argument, crash):
            assert self.act(name, argument, None)

    def plan(self, **what: Any) -> ShredPlan:
        self.intents += 1
        return ShredPlan(intent_id=f"intent-{self.intents}", at=self.world.clock.now(), **what)

    def is_pinned(self, number: int) -> bool:
        cohort, leaf = self.truth[number][0].cohort, self.truth[number][0].leaf
        return any(pin.cohort == cohort and pin.first <= leaf <= pin.last for pin in self.pins)

    @rule(
        tenant=st.sampled_from(TENANTS),
        part=st.sampled_from([Part.AUDIO, Part.AUDIO, Part.METADATA]),
        days=st.integers(1, 3),
        calls=st.integers(1, 4),
        crash=crashes,
    )
    def create(self, tenant: TenantId, part: Part, days: int, calls: int, crash: tuple[int, str] | None) -> None:
        period = self.today if part is Part.METADATA else self.today + days
        cohort = Cohort(tenant=tenant, part=part, period=period, generation=self.keyring.generation)
        if not self.keyring.has_cohort(cohort):
            self.act("add_cohorts", [cohort], crash)
        if not self.keyring.has_cohort(cohort):
            return
        for _ in range(calls):
            leaf = self.counters.get(cohort, 0)
            self.counters[cohort] = leaf + 1
            self.note(at(cohort, leaf))
        index = at(cohort, INDEX_LEAF)
        if part is Part.METADATA and index not in {each for each, _ in self.truth.values()}:
            self.indexes.add(self.note(index))

    def note(self, coordinate: Coordinate) -> int:
        """Remember a key for good."""
        assert coordinate not in {each for each, _ in self.truth.values()}, "a leaf was handed out twice"
        number = len(self.truth)
        self.rows[number] = coordinate
        self.truth[number] = coordinate, self.keyring.derive(coordinate).material
        return number

    @precondition(lambda self: self.truth)
    @rule(data=st.data(), width=st.integers(0, 2), crash=crashes)
    def hold(self, data: st.DataObject, width: int, crash: tuple[int, str] | None) -> None:
        coordinate = self.truth[data.draw(st.sampled_from(sorted(self.truth.keys() - self.indexes)))][0]
        pin = Pin(
            cohort=coordinate.cohort,
            first=coordinate.leaf,
            last=coordinate.leaf + width,
            tag=bytes([data.draw(st.integers(0, 1))]) * 16,
        )
        whole = all(self.keyring.derivable(at(pin.cohort, leaf)) for leaf in range(pin.first, pin.last + 1))
        if not whole:
            with pytest.raises(TooLate):
                self.act("pin", [pin], None)
            self.world.plan.arm(None, "lost")
            return
        if self.act("pin", [pin], crash) or self.keyring.has_pins([pin]):
            self.pins |= leaves_of([pin])

    @precondition(lambda self: self.pins)
    @rule(data=st.data(), crash=crashes)
    def release(self, data: st.DataObject, crash: tuple[int, str] | None) -> None:
        pin = data.draw(st.sampled_from(sorted(self.pins, key=repr)))
        if self.act("unpin", [pin], crash) or not self.keyring.has_pins([pin]):
            self.pins.discard(pin)

    @rule(data=st.data(), crash=crashes)
    def erase(self, data: st.DataObject, crash: tuple[int, str] | None) -> None:
        """Erase up to three recordings, or none: that is an empty shred."""
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.truth)), max_size=3)) if self.truth else []
        held = [number for number in chosen if self.is_pinned(number) and number not in self.dead]
        plan = self.plan(leaves=frozenset(self.truth[number][0] for number in chosen))
        if held or self.indexes & set(chosen):
            with pytest.raises((UnderHold, Invalid)):
                self.act("shred", plan, None)
            return
        self.until_done("shred", plan, crash)
        self.dead |= set(chosen)
        self.unproven = True

    @precondition(lambda self: self.truth)
    @rule(crash=crashes)
    def rotate(self, crash: tuple[int, str] | None) -> None:
        """What was handed out stays; of the generations whose counters are complete nothing else does."""
        self.until_done("shred", self.plan(new_generation=True), crash)
        self.unproven = True
        below = self.keyring.generation
        retirement = Retirement(dict(self.counters), self.counted_since, below)
        self.until_done("retire", retirement, crash)
        for part in (Part.AUDIO, Part.METADATA):
            for cohort in (each for tenant in TENANTS for each in self.keyring.cohorts(tenant, part)):
                first_unused = at(cohort, self.counters.get(cohort, 0))
                if self.counted_since <= cohort.generation < below and not self.covers(first_unused):
                    assert not self.keyring.derivable(first_unused)

    def covers(self, place: Coordinate) -> bool:
        return any(pin.cohort == place.cohort and pin.first <= place.leaf <= pin.last for pin in self.pins)

    @rule(data=st.data(), crash=crashes)
    def sweep(self, data: st.DataObject, crash: tuple[int, str] | None) -> None:
        self.today += 1
        self.world.clock.advance(timedelta(days=1))
        # Each tenant keeps its metadata for as long as it likes; the month under way is never due.
        metadata = data.draw(st.dictionaries(st.sampled_from(TENANTS), st.integers(0, self.today - 1)))

        def is_due(cohort: Cohort) -> bool:
            through = metadata.get(cohort.tenant, -1) if cohort.part is Part.METADATA else self.today
            return cohort.period <= through

        due = {
            number
            for number, (coordinate, _) in self.truth.items()
            if is_due(coordinate.cohort) and number not in self.dead
        }
        kept = set(data.draw(st.lists(st.sampled_from(sorted(due)), max_size=1))) if due else set()
        released = set(
            data.draw(st.lists(st.sampled_from(sorted(self.pins, key=repr)), max_size=1)) if self.pins else []
        )
        plan = self.plan(
            due_through=self.today,
            metadata_through=metadata,
            keep=frozenset(self.truth[number][0] for number in kept),
            unpin=tuple(released),
        )
        self.until_done("shred", plan, crash)
        self.pins -= released
        self.dead |= {number for number in due - kept if not self.is_pinned(number)}
        assert self.keyring.last_sweep_at == self.world.clock.now()
        self.unproven = True

    @precondition(lambda self: len(self.truth) > 6)
    @rule(tenant=st.sampled_from(TENANTS), crash=crashes)
    def offboard(self, tenant: TenantId, crash: tuple[int, str] | None) -> None:
        """A tenant that leaves keeps what is pinned, and nothing else."""
        self.until_done("shred", self.plan(drop_tenants=frozenset({tenant})), crash)
        self.dead |= {
            number
            for number, (coordinate, _) in self.truth.items()
            if coordinate.cohort.tenant == tenant and not self.is_pinned(number)
        }
        self.unproven = True

    @precondition(lambda self: len(self.truth) > 2)
    @rule(op=st.sampled_from(["new_version", "wrap", "unwrap", "destroy"]))
    def outage_in_a_shred(self, op: str) -> None:
        """An outage destroys nothing by itself; the same process goes on once it has recovered."""
        plan = self.plan()
        self.world.provider.outage = frozenset({op})
        with pytest.raises(Unavailable):
            self.act("shred", plan, None)
        self.world.provider.outage = frozenset()
        assert self.act("shred", plan, None)
        self.unproven = True

    @rule(replica=st.sampled_from(REPLICAS), away=st.booleans())
    def one_replica_goes_away_or_comes_back(self, replica: Path, away: bool) -> None:
        """From here on every act finds one replica missing, or all of them there and one of them stale."""
        self.world.files.lost = {replica} if away else set()

    @precondition(lambda self: self.truth)
    @rule(crash=crashes)
    def another_process_writes(self, crash: tuple[int, str] | None) -> None:
        """A second process takes the keyring over, and may die of it; this one goes on."""
        self.world.files.locks.clear()
        self.world.plan.arm(*(crash or (None, "lost")))
        with contextlib.suppress(Crash):
            self.run(self.world.start())
        self.world.files.locks.clear()
        self.world.plan.arm(None, "lost")
        self.unproven = True

    @precondition(lambda self: len(self.truth) > 2 and not self.world.files.lost)
    @rule(data=st.data())
    def one_replica_is_damaged_while_down(self, data: st.DataObject) -> None:
        replica = data.draw(st.sampled_from(REPLICAS))
        victims = [path for path in sorted(self.world.files.content) if path.is_relative_to(replica)]
        victim: Path = data.draw(st.sampled_from([path for path in victims if path.name not in ("REPLICA", "LOCK")]))
        if data.draw(st.booleans()):
            del self.world.files.content[victim]
        else:
            self.world.files.content[victim] = b"\0" + self.world.files.content[victim][1:]
        self.reopen(None)

    @precondition(lambda self: self.truth and len(self.backups) < 4)
    @rule()
    def backup(self) -> None:
        self.backups.append((dict(self.rows), dict(self.counters)))

    @precondition(lambda self: self.backups)
    @rule(data=st.data(), crash=crashes)
    def restore_any_backup(self, data: st.DataObject, crash: tuple[int, str] | None) -> None:
        rows, counters = data.draw(st.sampled_from(self.backups))
        self.until_done("bump_generation", None, crash)
        self.rows, self.counters = dict(rows), dict(counters)
        self.counted_since = self.keyring.generation

    @invariant()
    def every_survivor_is_readable_from_every_backup(self) -> None:
        for rows in [self.rows, *(rows for rows, _ in self.backups)]:
            for number, coordinate in rows.items():
                if number in self.dead:
                    assert not self.keyring.derivable(coordinate)
                    with pytest.raises(Shredded):
                        self.keyring.derive(coordinate)
                    continue
                assert coordinate == self.truth[number][0]
                if not self.keyring.derivable(coordinate):
                    raise SurvivorsLost(f"recording {number}")
                assert self.keyring.derive(coordinate).material == self.truth[number][1]

    @invariant()
    def pins_are_exactly_what_was_acknowledged(self) -> None:
        if hasattr(self, "keyring"):
            assert leaves_of(self.keyring.pins()) == self.pins

    @invariant()
    def a_trial_vault_stays_one_and_no_other_becomes_one(self) -> None:
        if hasattr(self, "keyring"):
            assert self.keyring.trial is self.trial
            assert not self.keyring.predates_trial

    @invariant()
    def nothing_shredded_ever_opens(self) -> None:
        """With every byte ever written and the root versions that are live now."""
        if not self.unproven:
            return
        self.unproven = False
        covers = self.run(self.adversary.covers())
        for number in self.dead:
            if opens(covers, self.truth[number][0]):
                raise Resurrected(f"recording {number}")


class DestroysFirst(Engine):
    """Mutant: the old root version goes before the new epoch is proven."""

    async def _next_epoch(self, writing: Round, state: State) -> Stored:
        await self._provider.destroy(self._stored.secret.root)
        return await super()._next_epoch(writing, state)


class NeverDestroys(Engine):
    """Mutant: says that the old root version is gone, and destroys another one."""

    async def _destroy(self, before: Stored) -> DestroyReceipt:
        await self._provider.destroy(await self._provider.new_version(b"another"))
        return DestroyReceipt(version=before.secret.root, effective_at=self._clock.now())


def machine_with(engine: type[Engine]) -> type[KeyringMachine]:
    keyring = type("MutantKeyring", (Keyring,), {"engine_class": engine})
    return type(f"{engine.__name__}Machine", (KeyringMachine,), {"keyring_class": keyring})


def profile(examples: int, **more: Any) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        database=None,
        derandomize=not SOAK,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        **more,
    )


def test_survivors_survive_and_the_shredded_stay_shredded_through_every_crash_and_restore(monkeypatch):
    monkeypatch.setattr(pages, "_PAGE_BYTES", 200)  # a few trees or pins make a tenant's pages several
    run_state_machine_as_test(KeyringMachine, settings=profile(1_500 if SOAK else 40))


# A root version that went too soon is missed by a law or, if another act comes before the laws, by that one.
@pytest.mark.parametrize(
    ("engine", "caught"), [(DestroysFirst, (SurvivorsLost, Unavailable)), (NeverDestroys, Resurrected)]
)
def test_the_laws_catch_a_broken_order(engine, caught):
    with pytest.raises(caught):
        run_state_machine_as_test(machine_with(engine), settings=profile(400, phases=[Phase.generate]))
