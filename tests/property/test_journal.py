"""Any interleaving of append, barrier, release, end, failure and restart agrees with a model of plain byte strings."""

import asyncio
import errno
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.journals import FaultyDisk, drop, make, replay, start
from tests.helpers.soak import examples
from vault.errors import Unavailable
from vault.storage.journal.entry import FileEntry

NUMBERS = st.integers(1, 4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), NUMBERS, st.integers(1, 900)),
        st.tuples(st.just("append"), NUMBERS, st.integers(1, 900)),
        st.tuples(st.just("barrier"), NUMBERS, st.just(0)),
        st.tuples(st.just("release"), NUMBERS, st.floats(0, 1)),
        st.tuples(st.just("read"), NUMBERS, st.floats(0, 1)),
        st.tuples(st.just("end"), NUMBERS, st.just(0)),
        st.tuples(st.just("close"), NUMBERS, st.just(0)),
        st.tuples(st.just("fail"), NUMBERS, st.sampled_from(["lost", "landed"])),
        st.tuples(st.just("restart"), NUMBERS, st.sampled_from(["crash", "close"])),
    ),
    max_size=60,
)


@dataclass
class Model:
    """What a recording must be. `stored` bytes are in the object store: released, and no longer the journal's."""

    entry: FileEntry | None = None
    data: bytes = b""
    stored: int = 0
    ended: bool = False
    closed: bool = False


class World:
    def __init__(self, directory):
        self.directory = directory
        self.disk = FaultyDisk()
        self.journal = self._make()
        self.models = {number: Model() for number in range(1, 5)}
        self.filler = 0

    def _make(self):
        return make(self.directory, disk=self.disk, file_bytes=2500, bytes_bound=1 << 24)

    def entry(self, number):
        model = self.models[number]
        if model.entry is None:
            model.entry = start(self.journal, number, offset=model.stored)
        return model.entry

    async def append(self, number, size):
        model = self.models[number]
        if not model.ended:
            self.filler += 1
            piece = (b"%06d " % self.filler * (size // 7 + 1))[:size]
            self.entry(number).append(piece)
            model.data += piece

    async def barrier(self, number, _):
        await self.entry(number).barrier()
        assert self.entry(number).durable == len(self.models[number].data)

    async def release(self, number, share):
        model, entry = self.models[number], self.entry(number)
        if not model.closed:
            model.stored = max(model.stored, round(entry.durable * share))
            entry.release(model.stored)

    async def read(self, number, share):
        model, entry = self.models[number], self.entry(number)
        if not model.closed:
            begin = model.stored + round((entry.durable - model.stored) * share)
            assert entry.read(begin, entry.durable) == model.data[begin : entry.durable]

    async def end(self, number, _):
        model = self.models[number]
        if not model.closed:
            await self.entry(number).end("sealed")
            model.ended = True

    async def close(self, number, _):
        model = self.models[number]
        if model.ended:
            self.entry(number).close()
            model.closed = True

    async def fail(self, number, kind):
        """One commit fails: everything in flight is gone, and the recordings concerned start over from storage."""
        model = self.models[number]
        if model.ended:
            return
        await self.append(number, 10)
        self.disk.arm("sync", errno.EIO, landed=kind == "landed")
        with suppress(Unavailable):
            await self.entry(number).barrier()
        self.disk.arm(None, None)
        for other in self.models.values():
            entry = other.entry
            if entry is not None and entry.failed is not None:
                other.data = other.data[: entry.durable]
                assert entry.read(other.stored, entry.durable) == other.data[other.stored :]
                other.stored = entry.durable
                entry.close()
                other.entry = None

    async def restart(self, _, how):
        if how == "close":
            await self.journal.close()
        else:
            for model in self.models.values():
                if model.entry is not None:
                    await model.entry.barrier()
            drop(self.journal)
        self.journal = self._make()
        found = await replay(self.journal)
        for number, model in self.models.items():
            one = found.get(number)
            model.entry = None
            if model.closed:
                if one is not None:
                    one.entry.close()
                    model.entry = one.entry
                continue
            if one is None:
                assert model.stored == len(model.data)
                assert not model.ended
                continue
            assert (one.ended == "sealed") == model.ended
            assert one.first_offset <= model.stored or model.stored == len(model.data)
            if one.durable < model.stored:
                one.entry.close()
                assert model.stored == len(model.data)
                continue
            assert one.durable == len(model.data)
            assert one.entry.read(model.stored, one.durable) == model.data[model.stored :]
            model.entry = one.entry


async def play(steps):
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory))
        try:
            for verb, number, argument in steps:
                await getattr(world, verb)(number, argument)
            await world.restart(1, "crash")
        finally:
            await world.journal.close()


@settings(max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_the_journal_agrees_with_its_model_through_failures_and_restarts(steps):
    asyncio.run(play(steps))
