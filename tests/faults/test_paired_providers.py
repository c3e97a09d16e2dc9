"""A composite, and a change of provider, under a real keyring: what one half's death leaves, and that a vault moves."""

import pytest

from tests.helpers.keyrings import TestClock
from tests.helpers.memory_root_keys import MemoryRootKeys
from vault.errors import Destroyed, Tampered, Unavailable
from vault.format.codec import pack, unpack
from vault.keystore.keyring import Keyring
from vault.keystore.replicas import DirectoryReplica
from vault.keystore.root.file import FileRootKeys
from vault.keystore.root.pairs import CompositeRootKeys, MovingRootKeys
from vault.model import Assurance, ShredPlan

KEY, AAD, TAG = b"k" * 32, b"place", b"tag of a keyring"
CLOCK = TestClock()


class Half(MemoryRootKeys):
    """A half whose named operations can be out."""

    def __init__(self):
        super().__init__(clock=CLOCK)
        self.out = set()

    def _up(self, operation):
        if operation in self.out:
            raise Unavailable("this half is out")

    async def new_version(self, tag):
        self._up("new_version")
        return await super().new_version(tag)

    async def unwrap(self, version, blob, aad):
        self._up("unwrap")
        return await super().unwrap(version, blob, aad)

    async def destroy(self, version):
        self._up("destroy")
        return await super().destroy(version)

    async def versions(self):
        self._up("versions")
        return await super().versions()


@pytest.fixture
def halves():
    return Half(), Half()


@pytest.fixture
def composite(halves):
    return CompositeRootKeys(*halves)


@pytest.fixture
async def live(composite):
    version = await composite.new_version(TAG)
    return version, await composite.wrap(version, KEY, AAD)


@pytest.mark.parametrize("dead", [0, 1])
@pytest.mark.parametrize("other_answers", [True, False])
async def test_one_destroyed_half_is_enough(composite, halves, live, dead, other_answers):
    (half,) = await halves[dead].versions()
    await halves[dead].destroy(half)
    halves[1 - dead].out = set() if other_answers else {"unwrap"}
    with pytest.raises(Destroyed):
        await composite.unwrap(*live, AAD)


@pytest.mark.parametrize("silent", [0, 1])
async def test_a_silent_half_is_an_outage_even_if_the_other_finds_the_blob_changed(composite, halves, live, silent):
    version, blob = live
    halves[silent].out = {"unwrap"}
    with pytest.raises(Unavailable):
        await composite.unwrap(version, blob, AAD)
    with pytest.raises(Unavailable):
        await composite.unwrap(version, blob, b"elsewhere")


class Seeing(MemoryRootKeys):
    """Keeps what it is given to wrap."""

    def __init__(self):
        super().__init__(clock=CLOCK)
        self.seen = []

    async def wrap(self, version, key, aad):
        self.seen.append(key)
        return await super().wrap(version, key, aad)


async def test_each_half_gets_a_share_that_is_new_each_time_and_never_the_key():
    halves = Seeing(), Seeing()
    composite = CompositeRootKeys(*halves)
    version = await composite.new_version(TAG)
    for _ in range(2):
        await composite.wrap(version, KEY, AAD)
    shares = [share for half in halves for share in half.seen]
    assert len({*shares, KEY}) == 5
    assert all(
        bytes(a ^ b for a, b in zip(one, two, strict=True)) == KEY
        for one, two in zip(halves[0].seen, halves[1].seen, strict=True)
    )


async def test_shares_of_two_wraps_do_not_go_together(composite, live):
    version, blob = live
    one, other = unpack(blob), unpack(await composite.wrap(version, KEY, AAD))
    for mixed in ({**one, "second": other["second"]}, {**one, "first": other["first"]}, {**one, "once": other["once"]}):
        with pytest.raises(Tampered):
            await composite.unwrap(version, pack(mixed), AAD)


@pytest.mark.parametrize("blob", [b"", b"\xc1", pack({"first": b"", "second": b""}), pack(["first", "second"])])
async def test_what_is_no_pair_of_shares_is_tampered(composite, live, blob):
    with pytest.raises(Tampered):
        await composite.unwrap(live[0], blob, AAD)


async def test_a_version_made_at_one_half_only_is_listed_and_can_be_destroyed(composite, halves, live):
    halves[1].out = {"new_version"}
    with pytest.raises(Unavailable):
        await composite.new_version(TAG)
    halves[1].out = set()
    (orphan,) = (await composite.versions()).keys() - {live[0]}
    assert (await composite.versions())[orphan].tag == TAG
    await composite.destroy(orphan)
    assert (await composite.versions()).keys() == {live[0]}
    assert len(await halves[0].versions()) == len(await halves[1].versions()) == 1


@pytest.mark.parametrize("silent", [0, 1])
async def test_destroy_succeeds_only_when_both_confirm_and_can_be_repeated(composite, halves, live, silent):
    version, blob = live
    halves[silent].out = {"destroy"}
    with pytest.raises(Unavailable):
        await composite.destroy(version)
    assert await halves[1 - silent].versions() == {}, "the other half was destroyed all the same"
    (rest,) = await composite.versions()
    assert (await composite.versions())[rest].tag == TAG, "what is left is listed, to be destroyed"
    halves[silent].out = set()
    await composite.destroy(version)
    assert await composite.versions() == {}
    await composite.destroy(rest)
    with pytest.raises(Destroyed):
        await composite.unwrap(version, blob, AAD)


@pytest.mark.parametrize("silent", [0, 1])
async def test_a_list_needs_both_halves(composite, halves, live, silent):
    halves[silent].out = {"versions"}
    with pytest.raises(Unavailable):
        await composite.versions()


# ---- under a keyring


@pytest.fixture
def replicas(tmp_path):
    return [DirectoryReplica(tmp_path / "a"), DirectoryReplica(tmp_path / "b")]


async def create(replicas, provider):
    await Keyring.create(replicas, provider, keyring_id=b"k" * 16, cohort_width_seconds=86400.0)


async def rotate(replicas, provider, intent):
    """Open the keyring, shred nothing, and return the epoch it is in then."""
    keyring = await Keyring.open(replicas, provider, clock=CLOCK)
    try:
        async with keyring.writer() as writer:
            receipt = await writer.shred(ShredPlan(intent_id=intent, at=CLOCK.now()))
        return receipt, keyring.epoch
    finally:
        await keyring.close()


async def test_a_keyring_gets_rid_of_a_half_that_a_failed_shred_left(replicas, composite, halves):
    await create(replicas, composite)
    halves[1].out = {"new_version"}
    with pytest.raises(Unavailable):
        await rotate(replicas, composite, "one")
    assert len(await halves[0].versions()) == 2
    halves[1].out = set()
    keyring = await Keyring.open(replicas, composite, clock=CLOCK)
    await keyring.close()
    assert len(await composite.versions()) == len(await halves[0].versions()) == 1


async def test_a_keyring_finishes_a_destroy_that_reached_one_half(replicas, composite, halves):
    await create(replicas, composite)
    halves[1].out = {"destroy"}
    with pytest.raises(Unavailable):
        await rotate(replicas, composite, "one")
    halves[1].out = set()
    keyring = await Keyring.open(replicas, composite, clock=CLOCK)
    assert keyring.epoch == 2
    await keyring.close()
    assert len(await halves[0].versions()) == len(await halves[1].versions()) == 1


async def test_one_shred_moves_a_vault_to_another_provider(replicas, tmp_path):
    old = FileRootKeys(tmp_path / "old", clock=CLOCK)
    await old.create()
    await create(replicas, old)
    (before,) = await old.versions()
    halves = FileRootKeys(tmp_path / "one", clock=CLOCK), FileRootKeys(tmp_path / "two", clock=CLOCK)
    new = CompositeRootKeys(*halves)
    moving = MovingRootKeys(new, previous=old)
    await moving.create()
    with pytest.raises(Unavailable):
        await Keyring.open(replicas, new, clock=CLOCK)
    assert await old.versions(), "opening it with the wrong provider destroyed nothing"
    assert any("callvault keys rotate" in (finding.hint or "") for finding in await moving.self_check())
    receipt, epoch = await rotate(replicas, moving, "move")
    assert (receipt.root_version_destroyed, epoch) == (before, 2)
    assert receipt.assurance is Assurance.BEST_EFFORT
    assert await old.versions() == {}
    assert any("remove [keyring.previous_root]" in (finding.hint or "") for finding in await moving.self_check())
    keyring = await Keyring.open(replicas, new, clock=CLOCK)
    assert keyring.epoch == 2
    await keyring.close()


@pytest.mark.parametrize("silent", ["current", "previous"])
async def test_a_move_waits_for_both_providers(replicas, silent):
    current, previous = Half(), Half()
    moving = MovingRootKeys(current, previous=previous)
    await create(replicas, previous)
    out = {"current": current, "previous": previous}[silent]
    out.out = {"new_version", "versions", "unwrap", "destroy"}
    with pytest.raises(Unavailable):
        await rotate(replicas, moving, "move")
    out.out = set()
    _, epoch = await rotate(replicas, moving, "move")
    assert epoch == 2
    assert await previous.versions() == {}
    assert len(await current.versions()) == 1
