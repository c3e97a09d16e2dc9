"""One suite for every ObjectStore: memory, filesystem, one inside another, and three kinds of S3 on a SeaweedFS."""

import asyncio
import dataclasses
import hashlib
import os
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import aioboto3
import pytest
import pytest_asyncio
from aiobotocore.config import AioConfig
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from tests.helpers.tcp_proxy import Mode, tcp_proxy
from vault.errors import ConfigError, Invalid, NotFound, Unavailable
from vault.ports.objects import ObjectInfo, ObjectMeta, ObjectStore
from vault.storage.objects.filesystem import FilesystemObjectStore
from vault.storage.objects.memory import MemoryObjectStore
from vault.storage.objects.prefixed import PrefixedObjectStore
from vault.storage.s3 import bucket
from vault.storage.s3.store import S3ObjectStore

# One loop for the module: opening an S3 client costs more than most of these tests, so its stores are shared.
pytestmark = pytest.mark.asyncio(loop_scope="module")
SEAWEED = pytest.mark.xdist_group("seaweed")
FUTURE = datetime(2099, 3, 4, 5, 6, 7, 89000, tzinfo=UTC)


def meta_of(data: bytes, **changes) -> ObjectMeta:
    return dataclasses.replace(
        ObjectMeta(retain_until=FUTURE, retention_class="standard", sha256=hashlib.sha256(data).hexdigest()), **changes
    )


async def put(store: ObjectStore, name: str, data: bytes, **changes) -> ObjectInfo:
    return await store.put(name, [data], meta=meta_of(data, **changes))


async def names(store: ObjectStore, prefix: str) -> list[str]:
    return [info.name async for info in store.list(prefix)]


@pytest.fixture(scope="module")
def buckets(seaweed):
    """Provisioned buckets, made once: plain, versioned, locked."""
    made = {kind: seaweed.settings(f"contract-{kind}") for kind in ("plain", "versioned")}
    made["locked"] = seaweed.settings("contract-locked", object_lock="governance")
    for settings in made.values():
        bucket.provision(settings)
    versioned = made["versioned"]
    bucket.connect(versioned).set_bucket_versioning(versioned.bucket, VersioningConfig(ENABLED))
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def s3_stores(buckets):
    opened = {kind: await S3ObjectStore.open(settings) for kind, settings in buckets.items()}
    yield opened
    for each in opened.values():
        await each.close()


@pytest_asyncio.fixture(loop_scope="module")
async def filesystem_store(tmp_path):
    await FilesystemObjectStore.create(tmp_path / "objects")
    opened = await FilesystemObjectStore.open(tmp_path / "objects")
    yield opened
    await opened.close()


@pytest.fixture(
    params=[
        "memory",
        "filesystem",
        "prefixed",
        pytest.param("plain", marks=SEAWEED),
        pytest.param("versioned", marks=SEAWEED),
    ]
)
def store(request):
    match request.param:
        case "memory":
            return MemoryObjectStore()
        case "prefixed":
            return PrefixedObjectStore(MemoryObjectStore(), "a/folder/")
        case "filesystem":
            return request.getfixturevalue("filesystem_store")
        case kind:
            return request.getfixturevalue("s3_stores")[kind]


@pytest.fixture
def place() -> str:
    """A prefix that no other test uses: the buckets are shared."""
    return f"v1/{uuid4().hex}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def raw(buckets):
    """A plain S3 client, to look behind the store's back."""
    any_bucket = buckets["plain"]
    session = aioboto3.Session(
        aws_access_key_id=any_bucket.access_key,
        aws_secret_access_key=any_bucket.secret_key,
        region_name=any_bucket.region,
    )
    config = AioConfig(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
    async with session.client("s3", endpoint_url=any_bucket.endpoint_url, config=config) as client:
        yield client


# --- what is put can be got, and described -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunks",
    [[], [b""], [b"one"], [b"a", b"", memoryview(b"bc"), bytearray(b"d")], [os.urandom(3 << 20)]],
    ids=["nothing", "empty", "bytes", "mixed", "3MiB"],
)
async def test_what_is_put_is_got_back_whole(store, place, chunks):
    data = b"".join(chunks)
    info = await store.put(f"{place}/a", chunks, meta=meta_of(data))
    assert info == ObjectInfo(name=f"{place}/a", size=len(data), meta=meta_of(data))
    assert await store.get(f"{place}/a") == data
    assert (await store.stat(f"{place}/a")).size == len(data)


async def test_every_range_is_what_a_slice_of_the_bytes_would_be(store, place):
    data = bytes(range(40))
    await put(store, f"{place}/a", data)
    for start in (0, 1, 19, 38, 39, 40, 41, 1000):
        for length in (None, 0, 1, 2, 20, 39, 40, 41, 1000):
            got = await store.get(f"{place}/a", start=start, length=length)
            assert got == data[start : None if length is None else start + length], (start, length)


async def test_ranges_of_an_empty_object_are_empty(store, place):
    await put(store, f"{place}/a", b"")
    assert await store.get(f"{place}/a") == b""
    assert await store.get(f"{place}/a", start=0, length=5) == b""
    assert await store.get(f"{place}/a", start=7) == b""


@pytest.mark.parametrize(("start", "length"), [(-1, None), (0, -1), (-5, 3)])
async def test_a_negative_range_is_refused(store, place, start, length):
    await put(store, f"{place}/a", b"abc")
    with pytest.raises(Invalid):
        await store.get(f"{place}/a", start=start, length=length)


async def test_metadata_comes_back_as_it_was_given(store, place):
    local = FUTURE.astimezone(datetime.now(UTC).astimezone().tzinfo)
    for index, changes in enumerate(
        [{}, {"held": True}, {"retain_until": local}, {"retention_class": "safeguarding-7y/uk:v2=a+b@c_d.e"}]
    ):
        await put(store, f"{place}/{index}", b"x", **changes)
        assert (await store.stat(f"{place}/{index}")).meta == meta_of(b"x", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"retain_until": datetime(2099, 1, 1)},  # noqa: DTZ001 - the missing zone is what is refused
        {"retention_class": ""},
        {"retention_class": "two\r\nlines: x"},
        {"retention_class": "x" * 129},
        {"sha256": "ab"},
    ],
)
async def test_metadata_that_a_header_could_not_carry_is_refused_and_nothing_is_stored(store, place, changes):
    with pytest.raises(Invalid):
        await put(store, f"{place}/a", b"x", **changes)
    assert await names(store, place) == []


async def test_held_can_be_set_and_cleared_and_changes_nothing_else(store, place):
    await put(store, f"{place}/a", b"abc")
    for held in (True, True, False, False, True):
        await store.set_held(f"{place}/a", held=held)
        assert await store.stat(f"{place}/a") == ObjectInfo(name=f"{place}/a", size=3, meta=meta_of(b"abc", held=held))
    assert await store.get(f"{place}/a") == b"abc"


async def test_putting_the_same_bytes_again_succeeds(store, place):
    for _ in range(3):
        await put(store, f"{place}/a", b"same")
    assert await store.get(f"{place}/a") == b"same"
    assert await names(store, f"{place}/") == [f"{place}/a"]


async def test_the_store_keeps_its_own_copy(store, place):
    buffer = bytearray(b"before")
    await store.put(f"{place}/a", [memoryview(buffer)], meta=meta_of(b"before"))
    buffer[:] = b"after!"
    assert await store.get(f"{place}/a") == b"before"


# --- names ---------------------------------------------------------------------------------------------------------

ODD = ["a b", "a+b", "it's (a) name!", "x=y;z:w@&$,", "~tilde", "...", "..a", "a..", "-", "a*b", "UPPER", "x" * 240]


async def test_odd_but_legal_names_are_distinct_and_come_back_unchanged(store, place):
    for odd in ODD:
        await put(store, f"{place}/{odd}", odd.encode())
    for odd in ODD:
        assert await store.get(f"{place}/{odd}") == odd.encode()
    assert await names(store, f"{place}/") == sorted(f"{place}/{odd}" for odd in ODD)
    for odd in ODD:
        assert (await store.delete(f"{place}/{odd}")).absent
    assert await names(store, f"{place}/") == []


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/./b", "a\0b", "a\\b", "a%2e", "a#object", "é"),
        *("x" * 241, "a/" * 500 + "a"),
    ],
)
async def test_names_that_could_leave_their_place_or_change_on_the_way_are_refused(store, name):
    for attempt in (
        put(store, name, b"x"),
        store.get(name),
        store.stat(name),
        store.set_held(name, held=True),
        store.delete(name),
    ):
        with pytest.raises(Invalid):
            await attempt


async def test_an_object_and_objects_below_its_name_do_not_disturb_each_other(store, place):
    await put(store, f"{place}/a/b", b"below")
    await put(store, f"{place}/a", b"above")
    assert await store.get(f"{place}/a") == b"above"
    assert (await store.delete(f"{place}/a")).absent
    assert await store.get(f"{place}/a/b") == b"below"


# --- listing -------------------------------------------------------------------------------------------------------


async def test_a_listing_is_in_name_order_with_sizes_and_holds_exactly_the_prefix(store, place):
    count = 40 if store.kind == "s3" else 60
    expected = {}
    for index in range(count):
        name = f"{place}/{index % 7}/rec_{index % 5}/{index * 7919 % 1000:06d}.seg"
        expected[name] = index % 9
    async with asyncio.TaskGroup() as group:
        for name, size in expected.items():
            group.create_task(put(store, name, bytes(size)))
    for prefix in (f"{place}/", f"{place}/3", f"{place}/3/", f"{place}/3/rec_", f"{place}/3/rec_2/0", place[:-3]):
        listed = [(info.name, info.size) async for info in store.list(prefix)]
        assert listed == sorted(item for item in expected.items() if item[0].startswith(prefix)), prefix
    assert await names(store, f"{place}/nothing/here") == []


@pytest.mark.parametrize("kind", ["memory", "filesystem"])
async def test_more_than_a_page_is_listed_in_byte_order_whatever_the_names_contain(kind, tmp_path, monkeypatch):
    # Durability is not under test here and 1,500 synchronisations are slow.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    store = MemoryObjectStore()
    if kind == "filesystem":
        await FilesystemObjectStore.create(tmp_path)
        store = await FilesystemObjectStore.open(tmp_path)
    # "a-b" < "a.b" < "a/b" < "a0": a directory's contents sort among its neighbours' names.
    expected = sorted(
        f"v1/a{tail}/{index:03d}" if index % 2 else f"v1/a{tail}-{index:03d}"
        for tail in ("", "-b", ".b", "/b", "0", "+")
        for index in range(250)
    )
    async with asyncio.TaskGroup() as group:
        for name in reversed(expected):
            group.create_task(put(store, name, b"x"))
    assert await names(store, "") == expected
    assert await names(store, "v1/a") == expected
    assert await names(store, "v1/a/") == [name for name in expected if name.startswith("v1/a/")]
    await store.close()


@SEAWEED
@pytest.mark.parametrize("kind", ["plain", "versioned"])
async def test_an_s3_listing_continues_over_its_pages(buckets, place, kind):
    store = await S3ObjectStore.open(dataclasses.replace(buckets[kind], page_size=5))
    for index in range(23):
        await put(store, f"{place}/{index:06d}-{uuid4().hex}.seg", b"")
    listed = await names(store, f"{place}/")
    assert listed == sorted(listed)
    assert [int(name[len(place) + 1 :][:6]) for name in listed] == [*range(23)]
    await store.close()


@pytest.mark.parametrize("prefix", ["/", "a//", "../", "a/../b", "a\0", "a%"])
async def test_a_prefix_that_no_name_can_have_is_refused(store, prefix):
    with pytest.raises(Invalid):
        await names(store, prefix)


# --- absence -------------------------------------------------------------------------------------------------------


async def test_an_absent_name_is_not_found(store, place):
    await put(store, f"{place}/a", b"x")
    for absent in (f"{place}/b", f"{place}/a/b", f"{place}/aa", place):
        for attempt in (
            store.get(absent),
            store.get(absent, start=5, length=0),
            store.get(absent, start=5, length=3),
            store.stat(absent),
            store.set_held(absent, held=True),
        ):
            with pytest.raises(NotFound):
                await attempt


async def test_deleting_leaves_nothing_and_can_be_repeated(store, place):
    for name in ("a", "aa", "a.b"):
        await put(store, f"{place}/{name}", b"x")
    first = await store.delete(f"{place}/a")
    assert (first.name, first.versions_deleted, first.absent, first.detail) == (f"{place}/a", 1, True, "")
    with pytest.raises(NotFound):
        await store.get(f"{place}/a")
    again = await store.delete(f"{place}/a")
    assert (again.versions_deleted, again.absent) == (0, True)
    assert await names(store, f"{place}/") == [f"{place}/a.b", f"{place}/aa"]


async def test_deleting_what_never_was_succeeds(store, place):
    deletion = await store.delete(f"{place}/never")
    assert (deletion.versions_deleted, deletion.absent) == (0, True)


async def test_what_is_below_many_places_is_deleted_known_or_not_and_nothing_beside_them(store, place):
    for name in ("1/a", "1/stray", "2/a", "10/a", "other"):
        await put(store, f"{place}/{name}", b"x")
    places = {f"{place}/1/": [f"{place}/1/a", f"{place}/1/never"], f"{place}/2/": [], f"{place}/3/": [f"{place}/3/a"]}
    deletions = await store.delete_below(places)
    assert {
        below.removeprefix(f"{place}/"): [
            (each.name.removeprefix(f"{place}/{below[-2]}/"), each.versions_deleted, each.absent) for each in found
        ]
        for below, found in deletions.items()
    } == {
        "1/": [("a", 1, True), ("never", 0, True), ("stray", 1, True)],
        "2/": [("a", 1, True)],
        "3/": [("a", 0, True)],
    }
    assert await names(store, place) == [f"{place}/10/a", f"{place}/other"]
    again = await store.delete_below(places)
    assert [[(each.versions_deleted, each.absent) for each in found] for found in again.values()] == [
        [(0, True), (0, True)],
        [],
        [(0, True)],
    ]


async def test_what_is_deleted_below_a_place_lies_in_it(store, place):
    await put(store, f"{place}/2/a", b"x")
    for below, known in (("/1", []), ("", []), ("/1/../2/", []), ("/1/", ["2/a"])):
        with pytest.raises(Invalid):
            await store.delete_below({f"{place}{below}": [f"{place}/{name}" for name in known]})
    with pytest.raises(Invalid):
        await store.delete_below({"": []})
    assert await names(store, place) == [f"{place}/2/a"]


async def test_a_deleted_name_can_be_put_again(store, place):
    for data in (b"first", b"second"):
        await put(store, f"{place}/a", data)
        assert await store.get(f"{place}/a") == data
        assert (await store.delete(f"{place}/a")).absent


# --- concurrency ---------------------------------------------------------------------------------------------------


async def test_sixteen_concurrent_puts_all_land(store, place):
    data = {f"{place}/rec_{index % 4}/{index}": os.urandom(5000 + index) for index in range(16)}
    async with asyncio.TaskGroup() as group:
        for name, each in data.items():
            group.create_task(put(store, name, each))
    for name, each in data.items():
        assert await store.get(name) == each


async def test_readers_see_the_whole_object_or_none_while_it_is_put(store, place):
    data = os.urandom(600_000)
    seen = set()
    done = asyncio.Event()

    async def read() -> None:
        while not done.is_set():
            try:
                seen.add(await store.get(f"{place}/a") == data)
            except NotFound:
                seen.add(None)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        group.create_task(read())
        for _ in range(4):
            await put(store, f"{place}/a", data)
        done.set()
    assert seen <= {True, None}
    assert await store.get(f"{place}/a") == data


async def test_puts_and_deletes_of_neighbours_do_not_disturb_each_other(store, place):
    async def churn(worker: int) -> None:
        for index in range(5):
            name = f"{place}/day/rec/{worker}-{index}"
            await put(store, name, b"x" * worker)
            assert await store.get(name) == b"x" * worker
            assert (await store.delete(name)).absent

    async with asyncio.TaskGroup() as group:
        for worker in range(6):
            group.create_task(churn(worker))
    assert await names(store, place) == []


async def test_the_loop_keeps_turning_while_a_large_object_is_put(store, place):
    longest = 0.0
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal longest
        while not done.is_set():
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before)

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        await asyncio.sleep(0)
        await put(store, f"{place}/a", bytes(8 << 20))
        done.set()
    # Generous, for a busy machine: synchronising or sending 8 MiB on the loop would take longer at one go.
    assert longest < 0.5


async def test_check_finds_no_error_in_a_healthy_store(store):
    findings = await store.check()
    assert findings
    assert "error" not in {finding.level for finding in findings}


async def test_a_filesystem_store_may_be_closed_twice(tmp_path):
    await FilesystemObjectStore.create(tmp_path)
    store = await FilesystemObjectStore.open(tmp_path)
    await store.close()
    await store.close()


@SEAWEED
async def test_an_s3_store_may_be_closed_twice(buckets):
    store = await S3ObjectStore.open(buckets["plain"])
    await store.close()
    await store.close()


# --- S3: versions, markers, multiparts, locks ----------------------------------------------------------------------


async def listed_versions(raw, bucket_name: str, name: str) -> list[str]:
    page = await raw.list_object_versions(Bucket=bucket_name, Prefix=name)
    found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
    return [item["VersionId"] for item in found if item["Key"] == name]


@SEAWEED
async def test_deleting_in_a_versioned_bucket_removes_versions_markers_and_multiparts_of_that_name_only(
    buckets, s3_stores, raw, place
):
    settings, store = buckets["versioned"], s3_stores["versioned"]
    where = {"Bucket": settings.bucket, "Key": f"{place}/a"}
    for data in (b"1", b"2", b"3"):
        await put(store, f"{place}/a", data)
    await raw.delete_object(**where)
    await put(store, f"{place}/a", b"4")
    await raw.delete_object(**where)
    upload = await raw.create_multipart_upload(**where)
    await raw.upload_part(**where, UploadId=upload["UploadId"], PartNumber=1, Body=b"part")
    other = await raw.create_multipart_upload(Bucket=settings.bucket, Key=f"{place}/ab")
    await put(store, f"{place}/ab", b"neighbour")
    assert len(await listed_versions(raw, settings.bucket, f"{place}/a")) == 6

    deletion = await store.delete(f"{place}/a")

    assert (deletion.versions_deleted, deletion.absent) == (7, True)
    assert await listed_versions(raw, settings.bucket, f"{place}/a") == []
    uploads = await raw.list_multipart_uploads(Bucket=settings.bucket, Prefix=place)
    assert [item["Key"] for item in uploads["Uploads"]] == [f"{place}/ab"]
    assert await store.get(f"{place}/ab") == b"neighbour"
    await raw.abort_multipart_upload(Bucket=settings.bucket, Key=f"{place}/ab", UploadId=other["UploadId"])


@SEAWEED
async def test_deleting_an_object_hidden_by_a_marker_removes_what_is_below_it(buckets, s3_stores, raw, place):
    settings, store = buckets["versioned"], s3_stores["versioned"]
    await put(store, f"{place}/a", b"hidden")
    await raw.delete_object(Bucket=settings.bucket, Key=f"{place}/a")
    with pytest.raises(NotFound):
        await store.get(f"{place}/a")
    assert (await store.delete(f"{place}/a")).versions_deleted == 2
    assert await listed_versions(raw, settings.bucket, f"{place}/a") == []


@SEAWEED
async def test_below_many_places_versions_markers_hidden_objects_and_multiparts_go_and_nothing_beside_them(
    buckets, s3_stores, raw, place
):
    settings, store = buckets["versioned"], s3_stores["versioned"]
    places = [f"{place}/rec_{number}" for number in range(3)]
    for name in (f"{each}/{leaf}" for each in (*places, f"{place}/rec_4") for leaf in "abc"):
        await put(store, name, b"1")
        await put(store, name, b"2")
        if name.endswith("c"):
            await raw.delete_object(Bucket=settings.bucket, Key=name)
    uploads = {
        each: await raw.create_multipart_upload(Bucket=settings.bucket, Key=f"{each}/a")
        for each in (places[0], f"{place}/rec_4")
    }
    outcomes = await store.delete_below({f"{each}/": [f"{each}/a"] for each in places})
    told = [[(each.name[-1], each.versions_deleted, each.absent) for each in found] for found in outcomes.values()]
    assert told == [[("a", first, True), ("b", 2, True), ("c", 3, True)] for first in (3, 2, 2)]
    page = await raw.list_object_versions(Bucket=settings.bucket, Prefix=place)
    assert {item["Key"] for item in page["Versions"]} == {f"{place}/rec_4/{leaf}" for leaf in "abc"}
    left = await raw.list_multipart_uploads(Bucket=settings.bucket, Prefix=place)
    assert [item["Key"] for item in left["Uploads"]] == [f"{place}/rec_4/a"]
    where = {"Bucket": settings.bucket, "Key": f"{place}/rec_4/a"}
    await raw.abort_multipart_upload(**where, UploadId=uploads[f"{place}/rec_4"]["UploadId"])


@SEAWEED
async def test_below_a_place_a_locked_object_stays_alone_until_its_lock_ends_or_is_bypassed(buckets, s3_stores, place):
    store = s3_stores["locked"]
    past = datetime(2020, 1, 1, tzinfo=UTC)
    for leaf, changes in (
        ("free", {"retain_until": past}),
        ("held", {"retain_until": past, "held": True}),
        ("long", {}),
    ):
        await put(store, f"{place}/{leaf}", b"x", **changes)

    async def kept(opened):
        return [
            each.name[-4:] for each in (await opened.delete_below({f"{place}/": []}))[f"{place}/"] if not each.absent
        ]

    assert await kept(store) == ["held", "long"]
    await store.set_held(f"{place}/held", held=False)
    assert await kept(store) == ["long"]
    bypassing = await S3ObjectStore.open(dataclasses.replace(buckets["locked"], bypass_governance=True))
    assert await kept(bypassing) == []
    await bypassing.close()


@SEAWEED
async def test_a_locked_old_version_keeps_its_name_from_being_absent_though_the_newer_one_goes(
    buckets, s3_stores, raw, place
):
    settings, store = buckets["locked"], s3_stores["locked"]
    below, beside = f"{place}/rec_1/", (f"{place}/rec_1", f"{place}/rec_10/a", f"{place}/rec_1-/a")
    await put(store, f"{below}a", b"locked")
    for name in (f"{below}a", f"{below}b", *beside):
        await put(store, name, b"free", retain_until=datetime(2020, 1, 1, tzinfo=UTC))
    [first, second] = (await store.delete_below({below: [f"{below}b"]}))[below]
    assert (first.name, first.versions_deleted, first.absent) == (f"{below}a", 1, False)
    assert "1 versions and 0 uploads are left; the store refused" in first.detail
    assert (second.name, second.versions_deleted, second.absent) == (f"{below}b", 1, True)
    bypassing = await S3ObjectStore.open(dataclasses.replace(settings, bypass_governance=True))
    [gone] = (await bypassing.delete_below({below: []}))[below]
    assert (gone.versions_deleted, gone.absent) == (1, True)
    await bypassing.close()
    page = await raw.list_object_versions(Bucket=settings.bucket, Prefix=place)
    assert sorted(item["Key"] for item in page["Versions"]) == sorted(beside)


@SEAWEED
async def test_a_locked_object_is_not_deleted_before_its_retain_until_and_still_reads(buckets, s3_stores, raw, place):
    settings, store = buckets["locked"], s3_stores["locked"]
    until = datetime.now(UTC) + timedelta(seconds=1)
    await put(store, f"{place}/a", b"locked", retain_until=until)
    await put(store, f"{place}/long", b"locked")

    deletion = await store.delete(f"{place}/a")
    assert (deletion.versions_deleted, deletion.absent) == (0, False)
    assert "1 versions" in deletion.detail
    assert await store.get(f"{place}/a") == b"locked"

    head = await raw.head_object(Bucket=settings.bucket, Key=f"{place}/long")
    assert head["ObjectLockMode"] == "GOVERNANCE"
    assert FUTURE <= head["ObjectLockRetainUntilDate"] <= FUTURE + timedelta(seconds=1)

    async with asyncio.timeout(10):
        while not (await store.delete(f"{place}/a")).absent:
            await asyncio.sleep(0.25)
    assert datetime.now(UTC) >= until


@SEAWEED
async def test_a_held_object_in_a_locked_bucket_outlives_its_retain_until(s3_stores, place):
    store = s3_stores["locked"]
    past = datetime(2020, 1, 1, tzinfo=UTC)
    for name, how in ((f"{place}/at-put", "put"), (f"{place}/later", "later")):
        await put(store, name, b"held", retain_until=past, held=how == "put")
        if how == "later":
            await store.set_held(name, held=True)
        assert (await store.delete(name)).absent is False
        assert await store.get(name) == b"held"
        await store.set_held(name, held=False)
        assert (await store.delete(name)).absent


@SEAWEED
async def test_bypassing_governance_is_only_done_when_configured(buckets, s3_stores, place):
    store = s3_stores["locked"]
    await put(store, f"{place}/a", b"locked")
    assert not (await store.delete(f"{place}/a")).absent
    await store.close()
    store = await S3ObjectStore.open(dataclasses.replace(buckets["locked"], bypass_governance=True))
    assert (await store.delete(f"{place}/a")).absent
    await store.close()


@SEAWEED
async def test_the_checksum_mode_that_sends_sha256_stores_the_same(buckets, place):
    store = await S3ObjectStore.open(dataclasses.replace(buckets["plain"], checksum_mode="when_supported"))
    await put(store, f"{place}/a", b"checked")
    assert await store.get(f"{place}/a") == b"checked"
    await store.set_held(f"{place}/a", held=True)
    assert (await store.stat(f"{place}/a")).meta == meta_of(b"checked", held=True)
    await store.close()


@SEAWEED
async def test_an_object_of_other_origin_has_no_meta(buckets, s3_stores, raw, place):
    store = s3_stores["plain"]
    await raw.put_object(Bucket=buckets["plain"].bucket, Key=f"{place}/foreign", Body=b"abc")
    assert await store.stat(f"{place}/foreign") == ObjectInfo(name=f"{place}/foreign", size=3)


# --- an outage is never absence ------------------------------------------------------------------------------------


def every_method(store: ObjectStore, name: str):
    yield "put", put(store, name, b"x")
    yield "get", store.get(name)
    yield "get nothing", store.get(name, length=0)
    yield "stat", store.stat(name)
    yield "list", names(store, name)
    yield "set_held", store.set_held(name, held=True)
    yield "delete", store.delete(name)


@SEAWEED
async def test_a_bucket_that_vanished_is_unavailable_and_never_absent_objects(seaweed, raw):
    settings = seaweed.settings("contract-vanishing")
    bucket.provision(settings)
    store = await S3ObjectStore.open(settings)
    await raw.delete_bucket(Bucket=settings.bucket)
    for method, attempt in every_method(store, "v1/a"):
        with pytest.raises(Unavailable):
            pytest.fail(f"{method} answered {await attempt!r}")
    assert [finding.level for finding in await store.check()] == ["error"]
    await store.close()


@SEAWEED
async def test_opening_a_bucket_that_does_not_exist_is_a_configuration_error(seaweed):
    with pytest.raises(ConfigError, match="contract-nowhere"):
        await S3ObjectStore.open(seaweed.settings("contract-nowhere"))


@SEAWEED
async def test_a_stopped_server_is_unavailable_for_every_method_and_the_same_client_works_after_its_restart(
    seaweed, buckets, place
):
    async with tcp_proxy(seaweed.port) as proxy:
        settings = dataclasses.replace(buckets["plain"], endpoint=f"http://127.0.0.1:{proxy.port}")
        store = await S3ObjectStore.open(settings)
        await put(store, f"{place}/a", b"x")
        await proxy.set(Mode.REFUSE)
        for method, attempt in every_method(store, f"{place}/a"):
            with pytest.raises(Unavailable):
                pytest.fail(f"{method} answered {await attempt!r}")
        assert [finding.level for finding in await store.check()] == ["error"]
        await proxy.set(Mode.FORWARD)
        assert await store.get(f"{place}/a") == b"x"
        assert (await store.delete(f"{place}/a")).absent
        await store.close()


@SEAWEED
async def test_a_store_opened_during_an_outage_works_once_it_is_over(seaweed, buckets, place):
    async with tcp_proxy(seaweed.port) as proxy:
        await proxy.set(Mode.REFUSE)
        settings = dataclasses.replace(buckets["locked"], endpoint=f"http://127.0.0.1:{proxy.port}")
        store = await S3ObjectStore.open(settings)
        with pytest.raises(Unavailable):
            await put(store, f"{place}/a", b"x")
        await proxy.set(Mode.FORWARD)
        await put(store, f"{place}/a", b"x")
        assert not (await store.delete(f"{place}/a")).absent  # the lock was noticed late, and still applied
        await store.close()


@SEAWEED
async def test_credentials_that_the_store_does_not_know_are_unavailable_and_never_absence(seaweed, buckets, place):
    settings = dataclasses.replace(buckets["plain"], access_key="somebodyelse00000001")
    store = await S3ObjectStore.open(settings)
    for method, attempt in every_method(store, f"{place}/a"):
        with pytest.raises(Unavailable):
            pytest.fail(f"{method} answered {await attempt!r}")
    await store.close()
