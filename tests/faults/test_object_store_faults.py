"""The S3 store against a network that stalls, cuts and loses answers, and against servers that are wrong."""

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import time
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from aiohttp import web

from tests.helpers.seaweed import free_ports
from tests.helpers.tcp_proxy import Mode, tcp_proxy
from vault.errors import ConfigError, DiskFull, IntegrityError, NotFound, Unavailable
from vault.ports.objects import ObjectMeta
from vault.storage.s3 import bucket
from vault.storage.s3.client import S3Settings
from vault.storage.s3.store import S3ObjectStore

# One loop for the module: opening an S3 client costs more than most of these tests, so its clients are shared.
pytestmark = pytest.mark.asyncio(loop_scope="module")
SEAWEED = pytest.mark.xdist_group("seaweed")
DATA = os.urandom(300_000)
META = ObjectMeta(
    retain_until=datetime(2099, 1, 1, tzinfo=UTC), retention_class="standard", sha256=hashlib.sha256(DATA).hexdigest()
)


@pytest.fixture(scope="module")
def settings(seaweed):
    made = seaweed.settings("faults", read_timeout_seconds=1.0, operation_timeout_seconds=1.5)
    bucket.provision(made)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def direct(settings):
    store = await S3ObjectStore.open(
        dataclasses.replace(settings, read_timeout_seconds=10, operation_timeout_seconds=20)
    )
    yield store
    await store.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_proxy(seaweed):
    async with tcp_proxy(seaweed.port) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(shared_proxy):
    yield shared_proxy
    await shared_proxy.set(Mode.FORWARD)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(settings, shared_proxy):
    endpoint = f"http://127.0.0.1:{shared_proxy.port}"
    opened = await S3ObjectStore.open(dataclasses.replace(settings, endpoint=endpoint))
    yield opened
    await opened.close()


@pytest.fixture
def name(request) -> str:
    return f"v1/faults/{hashlib.sha256(request.node.name.encode()).hexdigest()}"


# --- the network ---------------------------------------------------------------------------------------------------


@SEAWEED
async def test_a_put_whose_answer_is_lost_has_landed_and_repeating_it_succeeds(store, direct, proxy, name):
    await proxy.set(Mode.DROP_ANSWERS)
    with pytest.raises(Unavailable):
        await store.put(name, [DATA], meta=META)
    assert proxy.answers_dropped >= 1
    assert await direct.get(name) == DATA
    await proxy.set(Mode.FORWARD)
    assert (await store.put(name, [DATA], meta=META)).size == len(DATA)
    assert await store.get(name) == DATA


@SEAWEED
async def test_a_delete_whose_answers_are_lost_is_unavailable_and_repeating_it_succeeds(store, direct, proxy, name):
    await direct.put(name, [DATA], meta=META)
    await proxy.set(Mode.DROP_ANSWERS)
    with pytest.raises(Unavailable):
        await store.delete(name)
    await proxy.set(Mode.FORWARD)
    assert (await store.delete(name)).absent
    assert (await store.delete(name)).absent


@SEAWEED
async def test_a_hold_whose_answer_is_lost_can_be_repeated(store, direct, proxy, name):
    await direct.put(name, [DATA], meta=META)
    await proxy.set(Mode.DROP_ANSWERS)
    with pytest.raises(Unavailable):
        await store.set_held(name, held=True)
    await proxy.set(Mode.FORWARD)
    await store.set_held(name, held=True)
    assert (await direct.stat(name)).meta.held


@SEAWEED
@pytest.mark.parametrize("after", [0, 100, 5_000, 200_000])
async def test_an_upload_cut_anywhere_is_unavailable_and_leaves_no_partial_object(store, direct, proxy, name, after):
    await proxy.set(Mode.CUT, cut_after=after)
    with pytest.raises(Unavailable):
        await store.put(name, [DATA], meta=META)
    with pytest.raises(NotFound):
        await direct.get(name)
    await proxy.set(Mode.FORWARD)
    await store.put(name, [DATA], meta=META)
    assert await direct.get(name) == DATA


@SEAWEED
@pytest.mark.parametrize("after", [0, 50, 2_000, 200_000])
async def test_a_download_cut_anywhere_is_unavailable_and_never_a_short_answer(store, direct, proxy, name, after):
    await direct.put(name, [DATA], meta=META)
    await proxy.set(Mode.CUT, cut_after=after, cut_upstream=False)
    for wanted in ({}, {"start": 10, "length": 250_000}):
        with pytest.raises(Unavailable):
            await store.get(name, **wanted)
    await proxy.set(Mode.FORWARD)
    assert await store.get(name, start=10, length=250_000) == DATA[10:250_010]


@SEAWEED
async def test_a_stalled_network_is_unavailable_within_the_operation_timeout(store, proxy, name):
    await proxy.set(Mode.STALL)
    started = time.monotonic()

    async def attempt(call) -> None:
        with pytest.raises(Unavailable):
            await call

    async with asyncio.TaskGroup() as group:
        group.create_task(attempt(store.put(name, [bytes(8 << 20)], meta=META)))
        group.create_task(attempt(store.get(name)))
        group.create_task(attempt(store.delete(name)))
    assert time.monotonic() - started < 5
    await proxy.set(Mode.FORWARD)
    await store.put(name, [DATA], meta=META)


@SEAWEED
async def test_acknowledged_objects_survive_a_killed_server_and_the_same_client_goes_on(seaweed, direct, name):
    names = [f"{name}/{index}" for index in range(20)]
    await asyncio.gather(*(direct.put(each, [DATA], meta=META) for each in names))
    seaweed.stop()
    with pytest.raises(Unavailable):
        await direct.get(names[0])
    with pytest.raises(Unavailable):
        await direct.delete(names[0])
    seaweed.start()
    for each in names:
        async with asyncio.timeout(20):
            while True:
                # A restarted server may answer 500 for a while; it is never taken for absence.
                with contextlib.suppress(Unavailable):
                    assert await direct.get(each) == DATA
                    break
                await asyncio.sleep(0.1)


# --- servers that are wrong ----------------------------------------------------------------------------------------


class Stub:
    """An S3 server that keeps what it is sent; a test replaces the answers it wants wrong."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        unsupported = ("GET versions", "GET uploads", "GET object-lock")
        self.wrong = dict.fromkeys(unsupported, fault(501, "NotImplemented"))
        self.deletes: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        key = request.path.removeprefix("/stub/")
        kind = next((sub for sub in ("versions", "uploads", "object-lock", "tagging") if sub in request.query), "")
        operation = f"{request.method} {kind}".strip()
        body = await request.read()
        if operation in self.wrong:
            return self.wrong[operation](request, self.objects.get(key))
        return self._right(operation, key, body, request)

    def _right(self, operation: str, key: str, body: bytes, request: web.Request) -> web.Response:
        found = self.objects.get(key)
        match operation:
            case "PUT":
                headers = {k: v for k, v in request.headers.items() if k.lower().startswith("x-amz-meta-")}
                self.objects[key] = (body, headers)
                return web.Response()
            case "DELETE":
                self.deletes.append(request.query_string)
                self.objects.pop(key, None)
                return web.Response(status=204)
            case "GET tagging" if found is not None:
                return web.Response(text="<Tagging><TagSet/></Tagging>", content_type="application/xml")
            case "GET" | "HEAD" if key in ("/stub", "stub", ""):
                return web.Response()
            case "GET" | "HEAD" if found is not None:
                return web.Response(body=found[0], headers=found[1])
            case _:
                return fault(404, "NoSuchKey")(request, found)


def fault(status: int, code: str):
    def answer(request, _):
        text = "" if request.method == "HEAD" else f"<Error><Code>{code}</Code><Message>m</Message></Error>"
        return web.Response(status=status, text=text, content_type="application/xml")

    return answer


def stored(change_bytes=bytes, **headers):
    """Answer with the object, its bytes and headers changed."""

    def answer(_, found):
        renamed = {key.replace("_", "-"): value for key, value in headers.items()}
        return web.Response(
            status=206 if "Content-Range" in renamed else 200,
            body=change_bytes(found[0]),
            headers={**found[1], **renamed},
        )

    return answer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_stub():
    server = Stub()
    application = web.Application(client_max_size=64 << 20)
    application.router.add_route("*", "/{tail:.*}", server.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    [server.port] = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", server.port).start()
    yield server
    await runner.cleanup()


def stub_settings(stub: Stub, **changes) -> S3Settings:
    return S3Settings(
        bucket="stub",
        endpoint=f"http://127.0.0.1:{stub.port}",
        region="eu-west-2",
        access_key="a",
        secret_key="s",
        **{"attempts": 1, **changes},
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stubbed(shared_stub):
    opened = await S3ObjectStore.open(stub_settings(shared_stub))
    yield opened
    await opened.close()


@pytest.fixture
def stub(shared_stub, stubbed):
    shared_stub.reset()
    return shared_stub


async def test_the_stub_is_a_store_when_nothing_is_wrong(stub, stubbed):
    await stubbed.put("a", [DATA], meta=META)
    assert await stubbed.get("a") == DATA
    assert (await stubbed.stat("a")).size == len(DATA)


@pytest.mark.parametrize(
    "lie",
    [
        stored(lambda data: data[:-1]),
        stored(lambda _: b""),
        stored(lambda data: data + b"x"),
        stored(x_amz_meta_sha256="0" * 64),
        fault(404, "NoSuchKey"),
    ],
    ids=["shorter", "empty", "longer", "other-hash", "absent"],
)
async def test_a_store_that_lies_about_what_it_took_is_an_integrity_error(stub, stubbed, lie):
    honest = stub._right

    def head_lies_about_objects(request, found):
        return lie(request, found) if found else honest("HEAD", "stub", b"", request)

    stub.wrong["HEAD"] = head_lies_about_objects
    with pytest.raises(IntegrityError):
        await stubbed.put("a", [DATA], meta=META)


@pytest.mark.parametrize(
    "lie",
    [
        stored(lambda data: data[0:10], Content_Range=f"bytes 0-9/{len(DATA)}"),
        stored(lambda data: data[5:14], Content_Range=f"bytes 5-13/{len(DATA)}"),
        stored(lambda data: data[5:14], Content_Range=f"bytes 5-14/{len(DATA)}"),
        stored(lambda data: data[5:16], Content_Range=f"bytes 5-14/{len(DATA)}"),
        stored(lambda data: data[5:15], Content_Range="bytes */*"),
        stored(lambda data: data[5:8], Content_Range="bytes 5-7/20"),
    ],
    ids=["elsewhere", "shorter-range", "shorter-body", "longer-body", "no-range", "ends-early"],
)
async def test_a_range_that_is_not_the_one_asked_for_is_an_integrity_error(stub, stubbed, lie):
    await stubbed.put("a", [DATA], meta=META)
    stub.wrong["GET"] = lie
    with pytest.raises(IntegrityError):
        await stubbed.get("a", start=5, length=10)


async def test_a_store_that_ignores_range_still_yields_the_range(stub, stubbed):
    await stubbed.put("a", [DATA], meta=META)
    assert await stubbed.get("a", start=5, length=10) == DATA[5:15]
    assert await stubbed.get("a", start=len(DATA) - 3, length=10) == DATA[-3:]
    assert await stubbed.get("a", start=len(DATA), length=10) == b""


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (503, "SlowDown", Unavailable),
        (500, "InternalError", Unavailable),
        (403, "ExpiredToken", Unavailable),
        (403, "AccessDenied", Unavailable),
        (404, "NoSuchBucket", Unavailable),
        (400, "BadDigest", Unavailable),
        (507, "InsufficientStorage", DiskFull),
    ],
)
async def test_no_refusal_of_the_store_is_read_as_absence(stub, stubbed, status, code, error):
    for operation in ("PUT", "GET", "HEAD", "GET tagging", "GET versions", "GET uploads", "DELETE"):
        stub.wrong[operation] = fault(status, code)
    for attempt in (stubbed.put("a", [DATA], meta=META), stubbed.get("a"), stubbed.delete("a")):
        with pytest.raises(error) as caught:
            await attempt
        assert code in caught.value.message or "bucket" in caught.value.message
    with pytest.raises(Unavailable):
        await stubbed.stat("a")


async def test_a_404_while_the_bucket_is_gone_too_is_unavailable(stub, stubbed):
    stub.wrong["GET"] = stub.wrong["HEAD"] = fault(404, "NoSuchKey")
    for attempt in (stubbed.get("a"), stubbed.stat("a"), stubbed.set_held("a", held=True), stubbed.delete("a")):
        with pytest.raises(Unavailable, match="bucket"):
            await attempt


async def test_an_empty_listing_of_a_bucket_that_is_gone_is_unavailable(stub, stubbed):
    stub.wrong["HEAD"] = fault(404, "NoSuchBucket")
    stub.wrong["GET"] = lambda *_: web.Response(text="<ListBucketResult/>", content_type="application/xml")
    with pytest.raises(Unavailable, match="bucket"):
        _ = [info async for info in stubbed.list("v1/")]


async def test_a_store_without_version_listing_is_deleted_from_plainly_and_looked_at_again(stub, stubbed):
    await stubbed.put("a", [DATA], meta=META)
    deletion = await stubbed.delete("a")
    assert (deletion.versions_deleted, deletion.absent) == (1, True)
    assert stub.objects == {}


async def test_a_delete_that_the_store_acknowledges_and_does_not_do_is_not_absent(stub, stubbed):
    await stubbed.put("a", [DATA], meta=META)
    stub.wrong["DELETE"] = lambda *_: web.Response(status=204)
    assert (await stubbed.delete("a")).absent is False


def version_page(*entries: str, more: bool = False):
    tail = "<NextKeyMarker>a</NextKeyMarker><NextVersionIdMarker>v</NextVersionIdMarker>" if more else ""
    text = f"<IsTruncated>{str(more).lower()}</IsTruncated>{tail}{''.join(entries)}"
    text = f"<ListVersionsResult>{text}</ListVersionsResult>"
    return lambda *_: web.Response(text=text, content_type="application/xml")


async def test_a_plain_delete_is_never_sent_while_real_versions_remain(stub, stubbed):
    await stubbed.put("a", [DATA], meta=META)
    entry = "<Version><Key>a</Key><VersionId>v1</VersionId><IsLatest>true</IsLatest></Version>"
    stub.wrong["GET versions"] = version_page(entry)
    stub.wrong["DELETE"] = lambda request, _: (
        stub.deletes.append(request.query_string) or fault(403, "AccessDenied")(request, None)
    )
    deletion = await stubbed.delete("a")
    assert (deletion.versions_deleted, deletion.absent) == (0, False)
    assert "AccessDenied" in deletion.detail
    assert stub.deletes == ["versionId=v1"]


async def test_a_version_listing_that_never_advances_proves_nothing_and_ends(stub, stubbed):
    stub.wrong["GET versions"] = version_page(more=True)
    with pytest.raises(Unavailable, match="advance"):
        await stubbed.delete("a")


async def test_a_few_refusals_are_retried_by_the_client_and_no_more(stub):
    store = await S3ObjectStore.open(stub_settings(stub, attempts=2))
    seen = []
    stub.wrong["PUT"] = lambda request, found: (seen.append(1), fault(503, "SlowDown")(request, found))[1]
    with pytest.raises(Unavailable):
        await store.put("a", [DATA], meta=META)
    assert len(seen) == 2
    await store.close()


async def test_missing_credentials_are_a_configuration_error(stub, monkeypatch, tmp_path):
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    settings = dataclasses.replace(stub_settings(stub), access_key=None, secret_key=None)
    with pytest.raises(ConfigError, match="credentials"):
        await S3ObjectStore.open(settings)
    assert [finding.level for finding in bucket.check(settings)] == ["error"]
