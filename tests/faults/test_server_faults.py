"""What recorders and listeners notice while a disk or the object store fails: nothing is lost, and it heals by itself."""

import asyncio
import hashlib
import random

import aiohttp
import pytest

from tests.faults.disks import small_disk
from tests.faults.load import CONTENT_TYPE
from tests.faults.server import PURPOSE, TENANT, in_process, make_site
from tests.faults.stores import Fault, install
from vault.errors import Unavailable
from vault.model import RecordingState


def path(key):
    return f"/v1/ingest/{TENANT}/{key}"


class Recorder:
    """A client with a recorder's and an agent's tokens."""

    def __init__(self, site, client):
        self.site = site
        self.client = client

    async def put(self, key, data, **headers):
        """Return (status, answer's headers, answer's body)."""
        every = self.site.auth("recorder", **CONTENT_TYPE, **headers)
        async with self.client.put(path(key), data=data, headers=every) as answer:
            return answer.status, answer.headers, await answer.json(content_type=None)

    async def head(self, key):
        async with self.client.head(path(key), headers=self.site.auth("recorder")) as answer:
            assert answer.status == 200
            return (
                int(answer.headers["Upload-Offset"]),
                answer.headers["Recording-State"],
                answer.headers["Recording-Id"],
            )

    async def audio(self, key):
        _, _, recording = await self.head(key)
        url = f"/v1/recordings/{recording}/audio?format=raw"
        async with self.client.get(url, headers=self.site.auth("agent", **PURPOSE)) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()

    async def ready(self):
        async with self.client.get("/readyz") as answer:
            return answer.status, await answer.json()

    async def ends_as(self, key, state, *, seconds=15):
        for _ in range(int(seconds / 0.05)):
            if (await self.head(key))[1] != "open":
                break
            await asyncio.sleep(0.05)
        assert (await self.head(key))[1] == state


class Line:
    """A chunked upload whose pieces the test hands over one by one."""

    def __init__(self, recorder, key, **headers):
        self._pieces = asyncio.Queue()
        self.task = asyncio.create_task(recorder.put(key, self._body(), **headers))

    async def _body(self):
        while (piece := await self._pieces.get()) is not None:
            yield piece

    def say(self, data):
        self._pieces.put_nowait(data)

    async def end(self):
        self._pieces.put_nowait(None)
        return await self.task


async def until(condition, *, seconds=15):
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


def durable_bytes(vault, key):
    session = vault.ingest.live_call(TENANT, key)
    return session.durable if session is not None else 0


def serving(site, monkeypatch):
    """Open the site in this process behind a faulty store; yields (recorder, vault, store)."""
    return _Serving(site, install(monkeypatch))


class _Serving:
    def __init__(self, site, stores):
        self._site = site
        self._stores = stores

    async def __aenter__(self):
        self._server = in_process(self._site)
        vault, url = await self._server.__aenter__()
        self._client = aiohttp.ClientSession(url)
        return Recorder(self._site, self._client), vault, self._stores[-1]

    async def __aexit__(self, *error):
        await self._client.close()
        await self._server.__aexit__(*error)


# -- the object store -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.LANDED])
async def test_while_the_object_store_is_down_calls_are_taken_played_and_stored_afterwards(
    tmp_path, monkeypatch, fault
):
    site = await make_site(
        tmp_path, server={"finish_wait": "100ms"}, segments={"max_bytes": "32KiB", "max_age": "200ms"}
    )
    calls = {f"call-{number}": random.randbytes(100_000 + number) for number in range(6)}
    async with serving(site, monkeypatch) as (recorder, vault, store):
        store.fault = fault
        for key, data in calls.items():
            status, _, receipt = await recorder.put(key, data)
            assert (status, receipt["sha256"]) == (201, hashlib.sha256(data).hexdigest())
            assert receipt["state"] == "open"
        assert await recorder.ready() == (
            200,
            {
                "status": "ready",
                "checks": {"journal": "ok", "draining": "ok", "catalog": "ok"},
                "object_store": "down, the journal absorbs",
            },
        )
        for key, data in calls.items():
            assert await recorder.audio(key) == data
            # A recorder whose answer was lost sends everything again.
            assert (await recorder.put(key, data))[0] == 200
            assert (await recorder.put(key, data[:-1]))[0] == 409
        held = vault.journal.usage().bytes_used
        assert held >= sum(map(len, calls.values()))
        store.fault = Fault.NONE
        for key, data in calls.items():
            await recorder.ends_as(key, "sealed")
            assert await recorder.audio(key) == data
        assert (await recorder.ready())[1]["object_store"] == "ok"
        await until(lambda: vault.journal.usage().files <= 1)
        assert vault.journal.usage().bytes_used < held / 4


async def test_a_slow_object_store_delays_no_answer(tmp_path, monkeypatch):
    site = await make_site(tmp_path, server={"finish_wait": "100ms"})
    data = random.randbytes(50_000)
    async with serving(site, monkeypatch) as (recorder, _, store):
        store.fault, store.delay = Fault.SLOW, 1.0
        async with asyncio.timeout(0.9):
            status, _, receipt = await recorder.put("call", data)
        assert (status, receipt["state"]) == (201, "open")
        assert await recorder.audio("call") == data
        await recorder.ends_as("call", "sealed")
        assert await recorder.audio("call") == data


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.LANDED, Fault.LYING])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_put_that_failed_or_lied_is_repeated_and_the_recording_is_whole(tmp_path, monkeypatch, fault, times):
    site = await make_site(tmp_path, server={"finish_wait": "5s"}, segments={"max_bytes": "32KiB"})
    data = random.randbytes(70_000)
    async with serving(site, monkeypatch) as (recorder, _, store):
        store.fault, store.times = fault, times
        status, _, receipt = await recorder.put("call", data)
        assert (status, receipt["sha256"]) == (201, hashlib.sha256(data).hexdigest())
        await recorder.ends_as("call", "sealed")
        assert store.refused >= times
        assert await recorder.audio("call") == data


async def test_a_segment_whose_row_was_not_written_is_recorded_once(tmp_path, monkeypatch):
    site = await make_site(tmp_path, segments={"max_bytes": "16KiB", "max_age": "100ms"})
    data = random.randbytes(100_000)
    async with serving(site, monkeypatch) as (recorder, vault, _):
        faults = [Fault.LOST, Fault.LANDED, Fault.LOST]
        add = vault.catalog.add_segments

        class Catalog:
            def __getattr__(self, name):
                return getattr(vault.catalog, name)

            async def add_segments(self, *positional, **named):
                fault = faults.pop() if faults else Fault.NONE
                if fault is Fault.LOST:
                    raise Unavailable("the catalog does not answer")
                await add(*positional, **named)
                if fault is Fault.LANDED:
                    raise Unavailable("the catalog did not answer")

        monkeypatch.setattr(vault.storer, "_catalog", Catalog())
        line = Line(recorder, "call")
        line.say(data[:60_000])
        await until(lambda: not faults)
        line.say(data[60_000:])
        assert (await line.end())[0] == 201
        await recorder.ends_as("call", "sealed")
        assert await recorder.audio("call") == data


# -- the journal's disk -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tmpfs", "quota"])
async def test_before_the_disk_is_full_new_calls_are_asked_to_come_back_and_old_ones_go_on(tmp_path, monkeypatch, kind):
    site = await make_site(
        tmp_path,
        server={"finish_wait": "50ms"},
        journal={"file_bytes": "256KiB", "max_bytes": "64MiB", "disk_reserve": "2MiB"},
    )
    with small_disk(site.config.journal_path, size=5 << 20, kind=kind, monkeypatch=monkeypatch) as disk:
        async with serving(site, monkeypatch) as (recorder, vault, store):
            store.fault = Fault.LOST
            line = Line(recorder, "old")
            old = random.randbytes(300_000)
            line.say(old[:1_000])
            taken = {}
            for number in range(60):
                data = random.randbytes(200_000)
                status, headers, problem = await recorder.put(f"call-{number}", data)
                if status != 201:
                    break
                taken[f"call-{number}"] = data
                await asyncio.sleep(0.1)  # the disk is asked once a second
            assert status in (503, 507), problem
            assert int(headers["Retry-After"]) > 0
            assert len(taken) > 5
            assert not disk.full()
            assert (await recorder.ready())[0] == 503
            line.say(old[1_000:])
            assert (await line.end())[0] == 201
            taken["old"] = old
            for key, data in taken.items():
                assert await recorder.audio(key) == data
            store.fault = Fault.NONE
            for key in taken:
                await recorder.ends_as(key, "sealed")
            await until(vault.journal.admits)
            assert (await recorder.ready())[0] == 200
            status, _, _ = await recorder.put(f"call-{number}", data)
            assert status == 201
            for key, whole in taken.items():
                assert await recorder.audio(key) == whole


@pytest.mark.parametrize("kind", ["tmpfs", "quota"])
async def test_a_disk_that_fills_up_in_mid_call_keeps_what_was_acknowledged_and_the_call_resumes(
    tmp_path, monkeypatch, kind
):
    site = await make_site(
        tmp_path,
        server={"resume_grace": "20s"},
        journal={"file_bytes": "64KiB", "max_bytes": "64MiB", "disk_reserve": 1},
    )
    data = random.randbytes(400_000)
    with small_disk(site.config.journal_path, size=1 << 20, kind=kind, monkeypatch=monkeypatch) as disk:
        async with serving(site, monkeypatch) as (recorder, vault, _):
            line = Line(recorder, "call")
            line.say(data[:50_000])
            await until(lambda: durable_bytes(vault, "call") == 50_000)
            disk.fill()
            for at in range(50_000, len(data), 50_000):
                line.say(data[at : at + 50_000])
            status, headers, problem = await line.end()
            assert status in (503, 507), problem
            assert int(headers["Retry-After"]) > 0
            status, headers, problem = await recorder.put("another", data)
            assert status in (503, 507), problem
            assert int(headers["Retry-After"]) > 0
            durable, state, _ = await recorder.head("call")
            assert 50_000 <= durable < len(data)
            assert state == "open"
            assert await recorder.audio("call") == data[:durable]
            disk.free()
            await asyncio.sleep(1.1)  # the disk is asked once a second
            durable, _, _ = await recorder.head("call")
            status, _, receipt = await recorder.put("call", data[durable:], **{"Upload-Offset": str(durable)})
            assert (status, receipt["sha256"]) == (201, hashlib.sha256(data).hexdigest())
            assert (await recorder.put("another", data))[0] == 201
            for key in ("call", "another"):
                await recorder.ends_as(key, "sealed")
                assert await recorder.audio(key) == data


async def test_a_nearly_full_journal_takes_no_new_call_and_lets_old_ones_end(tmp_path, monkeypatch):
    site = await make_site(
        tmp_path, server={"finish_wait": "50ms"}, journal={"max_bytes": "2MiB", "file_bytes": "128KiB"}
    )
    async with serving(site, monkeypatch) as (recorder, vault, store):
        store.fault = Fault.LOST
        old = random.randbytes(150_000)
        line = Line(recorder, "old")
        line.say(old[:1_000])
        taken = {}
        for number in range(30):
            data = random.randbytes(100_000)
            status, headers, problem = await recorder.put(f"call-{number}", data)
            if status != 201:
                break
            taken[f"call-{number}"] = data
        assert (status, problem["title"]) == (503, "journal full")
        assert int(headers["Retry-After"]) > 0
        assert len(taken) > 8
        ready, body = await recorder.ready()
        assert (ready, body["checks"]["journal"]) == (503, "failing")
        line.say(old[1_000:])
        assert (await line.end())[0] == 201
        for key, whole in {**taken, "old": old}.items():
            assert await recorder.audio(key) == whole
        store.fault = Fault.NONE
        await until(vault.journal.admits)
        assert (await recorder.put(f"call-{number}", data))[0] == 201


async def test_at_the_journals_bound_a_call_is_held_back_until_there_is_room(tmp_path, monkeypatch):
    site = await make_site(tmp_path, journal={"max_bytes": "512KiB", "file_bytes": "64KiB"})
    data = random.randbytes(900_000)
    async with serving(site, monkeypatch) as (recorder, vault, store):
        store.fault = Fault.LOST
        line = Line(recorder, "call")
        for at in range(0, len(data), 10_000):
            line.say(data[at : at + 10_000])
        await asyncio.sleep(1.5)
        assert not line.task.done()
        assert vault.journal.usage().bytes_used <= 512 << 10
        store.fault = Fault.NONE
        status, _, answer = await line.end()
        assert status == 201, answer
        await recorder.ends_as("call", "sealed")
        assert await recorder.audio("call") == data


# -- restarts and races -----------------------------------------------------------------------------------------


async def test_a_restart_after_the_newest_journal_file_was_released_continues_where_the_stored_bytes_end(
    tmp_path, monkeypatch
):
    site = await make_site(
        tmp_path, server={"resume_grace": "30s"}, journal={"file_bytes": "64KiB"}, segments={"max_age": "1h"}
    )
    data, other = random.randbytes(200_000), random.randbytes(1_000)
    async with serving(site, monkeypatch) as (recorder, vault, _):
        neighbour, line = Line(recorder, "neighbour"), Line(recorder, "call")
        neighbour.say(other)  # keeps the first journal file, and with it released bytes of the call
        line.say(data[:30_000])
        await until(lambda: durable_bytes(vault, "neighbour") == 1_000 and durable_bytes(vault, "call") == 30_000)
        line.say(data[30_000:150_000])
        await until(lambda: durable_bytes(vault, "call") == 150_000)
        await vault.storer.drain(vault.ingest.live_call(TENANT, "call"))
        for each in (neighbour, line):
            each.task.cancel()
        await until(lambda: not vault.ingest.uploading)
    async with serving(site, monkeypatch) as (recorder, vault, _):
        assert (await recorder.head("call"))[0] == 150_000
        assert await recorder.audio("call") == data[:150_000]
        status, _, receipt = await recorder.put("call", data[150_000:], **{"Upload-Offset": "150000"})
        assert (status, receipt["sha256"]) == (201, hashlib.sha256(data).hexdigest())
        status, _, receipt = await recorder.put("neighbour", other)
        assert (status, receipt["sha256"]) == (201, hashlib.sha256(other).hexdigest())
        await recorder.ends_as("call", "sealed")
        assert await recorder.audio("call") == data


async def test_a_prefix_sent_again_in_one_burst_loses_nothing_behind_it(tmp_path, monkeypatch):
    site = await make_site(tmp_path)
    data = random.randbytes(1_000_000)
    async with serving(site, monkeypatch) as (recorder, vault, _):
        line = Line(recorder, "call")
        line.say(data[:10_000])
        await until(lambda: durable_bytes(vault, "call") == 10_000)
        line.task.cancel()
        await until(lambda: not vault.ingest.uploading)
        authorise = type(vault.access).authorise

        async def slowly(*positional, **named):
            await asyncio.sleep(0.1)  # meanwhile as much of the body arrives as the server will buffer
            await authorise(*positional, **named)

        monkeypatch.setattr(type(vault.access), "authorise", slowly)
        for key in ("call", "another"):
            status, _, receipt = await recorder.put(key, data)
            assert (status, receipt["sha256"]) == (201, hashlib.sha256(data).hexdigest())


async def test_a_recorder_that_returns_while_its_recording_is_being_closed_is_refused_cleanly(tmp_path, monkeypatch):
    site = await make_site(tmp_path, server={"resume_grace": "500ms"})
    data = random.randbytes(20_000)
    async with serving(site, monkeypatch) as (recorder, vault, _):
        line = Line(recorder, "call")
        line.say(data[:10_000])
        await until(lambda: durable_bytes(vault, "call") == 10_000)
        line.task.cancel()
        committing = asyncio.Event()
        entry_type = type(vault.ingest.live_call(TENANT, "call").entry)
        end = entry_type.end

        async def slow_end(entry, reason):
            committing.set()
            ended = asyncio.create_task(end(entry, reason))
            await asyncio.sleep(0.5)
            await ended

        monkeypatch.setattr(entry_type, "end", slow_end)
        await asyncio.wait_for(committing.wait(), 5)
        status, _, problem = await recorder.put("call", data[10_000:], **{"Upload-Offset": "10000"})
        assert (status, problem["title"]) == (409, "conflict")
        await recorder.ends_as("call", RecordingState.TRUNCATED.value)
        assert await recorder.audio("call") == data[:10_000]
