"""What recorders and listeners notice while a disk or the object store fails: nothing is lost, and it heals."""

import asyncio
import hashlib
import random

import pytest

from tests.helpers.disks import small_disk
from tests.helpers.recorder import Line, durable_bytes, serving, until
from tests.helpers.server import make_site
from tests.helpers.soak import sampled
from tests.helpers.stores import Fault
from vault.errors import Unavailable
from vault.services.health.status import CHECKS

# -- the object store -------------------------------------------------------------------------------------------


@sampled("fault", {"lost": Fault.LOST, "landed": Fault.LANDED})
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
        status, found = await recorder.ready()
        assert found.pop("age_seconds") < 5
        assert (status, found) == (
            200,
            {
                "status": "ready",
                "checks": dict.fromkeys(CHECKS, "ok"),
                "reasons": [],
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


@sampled("kind", {"tmpfs": "tmpfs", "quota": "quota"})
async def test_before_the_disk_is_full_new_calls_are_asked_to_come_back_and_old_ones_go_on(tmp_path, monkeypatch, kind):
    site = await make_site(
        tmp_path,
        server={"finish_wait": "50ms"},
        journal={"file_bytes": "256KiB", "max_bytes": "64MiB", "disk_reserve": "2MiB"},
    )
    with small_disk(site.config.journal_path, size=4 << 20, kind=kind, monkeypatch=monkeypatch) as disk:
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
                await asyncio.sleep(0.12)  # the disk is asked once a second
            assert status in (503, 507), problem
            assert int(headers["Retry-After"]) > 0
            assert len(taken) > 3
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
            await until(lambda: vault.journal.refusal() is None)
            assert (await recorder.ready())[0] == 200
            status, _, _ = await recorder.put(f"call-{number}", data)
            assert status == 201
            for key, whole in taken.items():
                assert await recorder.audio(key) == whole


@sampled("kind", {"tmpfs": "tmpfs", "quota": "quota"})
async def test_a_disk_that_fills_up_in_mid_call_keeps_what_was_acknowledged_and_the_call_resumes(
    tmp_path, monkeypatch, kind
):
    site = await make_site(
        tmp_path,
        server={"resume_grace": "20s"},
        journal={"file_bytes": "64KiB", "max_bytes": "64MiB", "disk_reserve": "1B"},
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
        await until(lambda: vault.journal.refusal() is None)
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
