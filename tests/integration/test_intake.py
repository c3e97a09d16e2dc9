"""More comes in than the disk takes: recorders are held back together, nobody is refused, nothing is lost."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from tests.helpers.app import PCMU, SETTINGS, TENANTS, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.frames import START, close_of, frame, upgraded
from tests.helpers.recorder import until
from tests.helpers.uploads import Wire
from vault.storage.journal.file import Disk

BOUND = 1 << 20
CALLS = 16
EACH = 1 << 20
ONE_READ = 1 << 18


@pytest.fixture
def gate(monkeypatch):
    """An event without which the journal's disk takes nothing."""
    opened = threading.Event()
    opened.set()
    sync = Disk.sync

    def waiting(self, fd):
        assert opened.wait(30)
        sync(self, fd)

    monkeypatch.setattr(Disk, "sync", waiting)
    yield opened
    opened.set()


@asynccontextmanager
async def vault(bound=BOUND, **server):
    with memory_directory() as base:
        journal = {**SETTINGS["journal"], "file_bytes": "8MiB", "max_undurable_bytes": f"{bound}B"}
        settings = {**SETTINGS["server"], "finish_wait": "0s", **server}
        async with running(base, server=settings, journal=journal, segments={"max_bytes": "8MiB"}) as app:
            yield app


def undurable(app):
    return app.vault.metrics.registry.get_sample_value("callvault_undurable_bytes")


async def settled(app):
    """Return how much is not durable, once that does not change any more."""
    before, now = -1, undurable(app)
    while before != now:
        await asyncio.sleep(0.3)
        before, now = now, undurable(app)
    return now


async def uploads(app, begun=100):
    """Begin uploads of which a few bytes are durable."""
    lines = []
    for number in range(CALLS):
        line = await Wire.to(app)
        place = f"/v1/ingest/{TENANTS[0]}/call-{number}"
        line.send("PUT", place, sound(EACH, number)[:begun], Content_Type=PCMU, Content_Length=str(EACH))
        lines.append(line)
    await until(lambda: app.vault.ingest.unfinished == CALLS and app.vault.ingest.unstored_bytes == CALLS * begun)
    return lines


async def test_bodies_are_read_only_while_little_enough_of_all_of_them_is_undurable(gate):
    async with vault() as app:
        lines = await uploads(app)
        gate.clear()
        for number, line in enumerate(lines):
            line.write(sound(EACH, number)[100:])
        assert BOUND < await settled(app) <= BOUND + 2 * ONE_READ
        gate.set()
        for line in lines:
            status, _, answer = await line.answer()
            assert status == 201, answer
            line.close()
        assert undurable(app) == 0


async def test_live_calls_are_read_only_while_little_enough_of_all_of_them_is_undurable(gate):
    async with vault() as app:
        lines = [await upgraded(app, key=f"call-{number}") for number in range(CALLS)]
        for line in lines:
            line.write(frame(START, 1) + frame(b"x" * 100))
        await until(lambda: app.vault.ingest.unstored_bytes == CALLS * 100)
        gate.clear()
        for line in lines:
            line.write(frame(sound(8_000)) * 64 + frame(b"\x03\xe8", 8))
        assert BOUND < await settled(app) <= BOUND + 2 * ONE_READ
        gate.set()
        for line in lines:
            assert await close_of(line) == 1000
            line.close()
        assert app.vault.ingest.uploading == 0


async def test_a_recorder_that_is_held_back_is_not_taken_for_silent(gate):
    async with vault(idle_timeout="4s") as app:
        lines = await uploads(app)
        live = await upgraded(app, key="live")
        live.write(frame(START, 1) + frame(b"x" * 100))
        await until(lambda: app.vault.ingest.unfinished == CALLS + 1)
        gate.clear()
        for number, line in enumerate(lines):
            line.write(sound(EACH, number)[100:])
        live.write(frame(b"y" * 100))
        await settled(app)
        await asyncio.sleep(5)
        assert app.vault.ingest.uploading == CALLS + 1
        gate.set()
        for line in lines:
            assert (await line.answer())[0] == 201
            line.close()
        live.write(frame(b"\x03\xe8", 8))
        assert await close_of(live) == 1000
        live.close()


async def test_a_piece_that_is_larger_than_the_bound_is_taken_in_its_turn(gate):
    async with vault(bound=1_000) as app:
        lines = await uploads(app)
        for number, line in enumerate(lines):
            line.write(sound(EACH, number)[100:])
        for line in lines:
            assert (await line.answer())[0] == 201
            line.close()
