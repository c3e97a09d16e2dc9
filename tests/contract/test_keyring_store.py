"""What every replica of the keyring promises: directories, in memory and real ones, and buckets of a real S3 server."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count

import pytest
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from tests.helpers.keyrings import KEYRING_ID, WIDTH_SECONDS, MemoryFiles, TestClock, at, audio
from tests.helpers.memory_root_keys import MemoryRootKeys
from tests.helpers.tcp_proxy import Mode, tcp_proxy
from vault.errors import ConfigError, Unavailable
from vault.keystore.keyring import Keyring
from vault.keystore.replicas import DirectoryReplica
from vault.model import ShredPlan
from vault.storage.s3.bucket import connect
from vault.storage.s3.keyring_replica import BucketReplica

SEAWEED = pytest.mark.xdist_group("seaweed")
NUMBERS = count()
BLOBS = {"index/" + "0" * 32: b"an index", "pages/" + "1" * 32: b"a page", "pages/" + "2" * 32: b""}


@pytest.fixture(
    params=[
        "memory",
        "directory",
        pytest.param("bucket", marks=SEAWEED),
        pytest.param("whole bucket", marks=SEAWEED),
    ]
)
async def store(request, tmp_path):
    match request.param:
        case "memory":
            yield DirectoryReplica(tmp_path, files=MemoryFiles(), wait_seconds=0.05)
        case "directory":
            yield DirectoryReplica(tmp_path / "deep" / "ring", wait_seconds=0.05)
        case kind:
            seaweed = request.getfixturevalue("seaweed")
            number = next(NUMBERS)
            bucket, prefix = ("keyrings", f"ring/{number}") if kind == "bucket" else (f"keyring-alone-{number}", "")
            async with bucket_replica(seaweed.settings(bucket), prefix) as replica:
                yield replica


@asynccontextmanager
async def bucket_replica(settings, prefix="ring"):
    replica = BucketReplica(settings, prefix)
    try:
        yield replica
    finally:
        await replica.close()


async def test_an_empty_place_is_initialised_again_and_a_filled_one_is_not(store):
    assert await store.initialise()
    assert await store.initialise()
    await store.write(BLOBS)
    assert not await store.initialise()
    assert await store.read(list(BLOBS)) == BLOBS


async def test_what_was_written_is_read_and_what_was_not_is_absent(store):
    await store.initialise()
    await store.write(BLOBS)
    await store.write({"REPLICA": b"marker"})
    assert await store.read(["REPLICA", *BLOBS]) == {"REPLICA": b"marker", **BLOBS}
    assert await store.read(["head", "pages/" + "9" * 32]) == {"head": None, "pages/" + "9" * 32: None}
    assert await store.names() == set(BLOBS)


async def test_a_blob_that_is_written_again_has_its_new_content(store):
    await store.initialise()
    name = next(iter(BLOBS))
    await store.write({name: b"rot"})
    await store.write({name: BLOBS[name]})
    assert await store.read([name]) == {name: BLOBS[name]}


async def test_removing_is_repeatable(store):
    await store.initialise()
    await store.write(BLOBS)
    first, *others = BLOBS
    for _ in range(2):
        await store.remove([first, "index/" + "f" * 32])
    assert await store.names() == set(others)


async def test_a_head_is_exchanged_only_for_the_expected_one(store):
    await store.initialise()
    assert not await store.swap(b"one", b"two")
    assert await store.swap(None, b"one")
    assert not await store.swap(None, b"two")
    assert not await store.swap(b"other", b"two")
    assert await store.read(["head"]) == {"head": b"one"}
    assert await store.swap(b"one", b"two")
    assert await store.read(["head"]) == {"head": b"two"}


async def test_of_many_writers_that_expect_the_same_head_one_succeeds(store):
    await store.initialise()
    await store.swap(None, b"start")

    async def write(number: int) -> bool:
        async with store.exclusive():
            return await store.swap(b"start", b"writer %d" % number)

    won = await asyncio.gather(*(write(number) for number in range(8)), return_exceptions=True)
    assert won.count(True) == 1
    assert (await store.read(["head"]))["head"] == b"writer %d" % won.index(True)


async def test_checking_finds_no_error(store):
    await store.initialise()
    assert all(finding.level == "ok" for finding in await store.check())


async def test_closing_twice_is_harmless(store):
    await store.initialise()
    await store.close()
    await store.close()


# ---- buckets


@SEAWEED
async def test_a_versioned_bucket_is_refused(seaweed):
    settings = seaweed.settings("keyring-versioned")
    async with bucket_replica(settings) as replica:
        assert await replica.initialise()
        connect(settings).set_bucket_versioning(settings.bucket, VersioningConfig(ENABLED))
        assert [finding.level for finding in await replica.check()] == ["error"]
    async with bucket_replica(settings) as replica:
        for act in (replica.initialise(), replica.write(BLOBS), replica.swap(None, b"head")):
            with pytest.raises(ConfigError, match="versioned"):
                await act
        assert await replica.read(["head"]) == {"head": None}


@SEAWEED
async def test_a_bucket_that_is_not_there_holds_no_absence(seaweed):
    async with bucket_replica(seaweed.settings("keyring-nowhere")) as replica:
        for act in (replica.read(["head"]), replica.names(), replica.write(BLOBS), replica.swap(None, b"head")):
            with pytest.raises(Unavailable):
                await act


async def buckets(seaweed, clock) -> tuple[list[BucketReplica], MemoryRootKeys]:
    replicas = [BucketReplica(seaweed.settings(f"keyring-{number}"), "live") for number in range(3)]
    provider = MemoryRootKeys(clock=clock)
    await Keyring.create(replicas, provider, keyring_id=KEYRING_ID, cohort_width_seconds=WIDTH_SECONDS)
    return replicas, provider


@SEAWEED
async def test_a_keyring_in_buckets_shreds_through_the_loss_of_one_and_two_nodes_take_turns(seaweed):
    clock = TestClock()
    replicas, provider = await buckets(seaweed, clock)
    first = await Keyring.open(replicas, provider, clock=clock)
    async with first.writer() as writer:
        await writer.add_cohorts([audio(10), audio(20)])
    key = first.derive(at(audio(20), 5))
    async with tcp_proxy(seaweed.port) as proxy:
        flaky = BucketReplica(seaweed.settings("keyring-2", endpoint=f"http://127.0.0.1:{proxy.port}"), "live")
        others = [BucketReplica(seaweed.settings(f"keyring-{number}"), "live") for number in range(2)]
        second = await Keyring.open([*others, flaky], provider, clock=clock)
        await proxy.set(Mode.REFUSE)
        async with second.writer() as writer:
            receipt = await writer.shred(ShredPlan(intent_id="sweep", at=clock.now(), due_through=10))
        assert receipt.replicas == 2
        clock.advance(timedelta(seconds=15))
        await first.refresh()
        assert not first.derivable(at(audio(10), 0))
        assert first.derive(at(audio(20), 5)) == key
        async with first.writer() as writer:
            await writer.add_cohorts([audio(30)])
        assert {finding.level for finding in await first.check()} == {"ok"}, "the replica that was away is mended"
        await second.close()
    await first.close()
