"""Acts on a keyring that end at any of their writes, and the laws that hold whatever they end at."""

from __future__ import annotations

from tests.helpers.keyrings import (
    REPLICAS,
    Adversary,
    World,
    at,
    audio,
    opens,
)
from vault.ids import TenantId
from vault.keystore.keyring import Keyring
from vault.model import Cohort, Part, Pin, ShredPlan

DUE, LATER, OTHER = audio(10), audio(20), audio(10, tenant="beta")


MONTH = Cohort(tenant=TenantId("acme"), part=Part.METADATA, period=5, generation=0)


ALL = (DUE, LATER, OTHER, MONTH)


TAG = b"h" * 16


HELD = Pin(cohort=DUE, first=3, last=3, tag=TAG)


NEW_PIN = Pin(cohort=LATER, first=7, last=9, tag=TAG)


async def prepared() -> tuple[World, Keyring]:
    world = World()
    await world.create()
    keyring = await world.open()
    async with keyring.writer() as writer:
        await writer.add_cohorts(ALL)
        await writer.pin([HELD])
    return world, keyring


def sweep(world: World) -> ShredPlan:
    return ShredPlan(
        intent_id="sweep",
        at=world.clock.now(),
        due_through=10,
        leaves=frozenset({at(LATER, 1)}),
        keep=frozenset({at(OTHER, 6)}),
    )


PROBES = [at(cohort, leaf) for cohort in ALL for leaf in range(10)]


TAKEN = (
    {at(DUE, leaf) for leaf in range(10)} - {at(DUE, 3)}
    | {at(OTHER, leaf) for leaf in range(10)} - {at(OTHER, 6)}
    | {at(LATER, 1)}
)


async def assert_laws(world: World, keyring: Keyring, truth: dict, *, may_be_gone: set) -> None:
    for probe in PROBES:
        if keyring.derivable(probe):
            assert keyring.derive(probe).material == truth[probe]
        else:
            assert probe in may_be_gone, "a survivor was lost"
    assert HELD in keyring.pins()
    assert {at(DUE, 3)} <= {probe for probe in PROBES if keyring.derivable(probe)}
    covers = await Adversary(world).covers()
    for probe in PROBES:
        if not keyring.derivable(probe):
            assert not opens(covers, probe), "a shredded key opens"
    assert len({world.files.content[path / "head"] for path in REPLICAS}) == 1
    assert len(await world.provider.versions()) == 1
    blobs = {path for path in world.files.content if path.parent.name in ("index", "pages")}
    assert len(blobs) == len(REPLICAS) * (1 + len({probe.cohort.tenant for probe in PROBES}))


async def act_on(world: World, keyring: Keyring, act: str) -> None:
    async with keyring.writer() as writer:
        if act == "revise":
            await writer.pin([NEW_PIN])
        else:
            await writer.shred(sweep(world))
