"""Any sequence of audio, pauses, resumes and crashes keeps exactly what was sent outside of pauses, in whole frames.

And no sequence leaves out more of a call than it may without the vault's alarm.
"""

import asyncio
import contextlib
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.helpers.crashing import ACME, ManualClock, call, config_at, memory_directory, person, play, start, storing
from tests.helpers.soak import examples
from vault.format.notes import dropped_bytes, kept_of
from vault.keystore.root import file
from vault.model import Codec, Container, Media, Role
from vault.services.ingest.sessions import CallStart
from vault.wiring import init_vault

FRAME = 4
MAX = 5
"""Minutes."""
STEREO = Media(container=Container.RAW, codec=Codec.S16LE, rate=8000, channels=2)


class OwnClock(ManualClock):
    """No time passes but what a test says."""

    def monotonic(self) -> float:
        return self.slept

    def advance(self, **by: float) -> None:
        super().advance(**by)
        self.slept += timedelta(**by).total_seconds()


def whole(size: int) -> int:
    return size + -size % FRAME


class Calls(RuleBasedStateMachine):
    """One recorder that keeps what it sent, asks where to continue after a crash, and is the oracle."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        self._runner = self._stack.enter_context(asyncio.Runner())
        config = config_at(self._stack.enter_context(memory_directory()))
        # Nothing is stored before the end, and every crash leaves a journal file behind: there is room for each step's.
        journal = config.journal.model_copy(update={"max_bytes": 64 << 20})
        ingest = config.ingest.model_copy(update={"pause_max": timedelta(minutes=MAX)})
        self._config = config.model_copy(update={"journal": journal, "ingest": ingest})
        self._clock = OwnClock()
        self.sent = bytearray()
        self.paused = False
        self.dropped: list[list[int]] = []
        """`[first, last)` of the recorder's own stream, one for each run of pauses without a kept byte in between."""
        self.used = 0.0
        """Minutes of pauses, less those in which the call was kept: what the vault must not let grow beyond MAX."""
        self.merged = False
        """Whether one note tells of several pauses: after a restart they count as if they had followed each other."""
        self.silent = 0.0
        """Minutes of pauses since the last that the vault ended: before MAX of them it has nothing to end."""

    def _run(self, work):
        return self._runner.run(work)

    @initialize()
    def begin(self) -> None:
        file.MATERIAL_BYTES, self._material = 1 << 12, file.MATERIAL_BYTES
        self._run(self._begin())

    async def _begin(self) -> None:
        await init_vault(self._config, trial=True, clock=self._clock)
        self.process = await start(self._config, self._clock)
        await self.vault.tenants.add(
            identifier=ACME, name=ACME, controller=ACME, contact="dpo", retention=None, actor=None
        )
        known = call("call-1")
        wanted = CallStart(
            tenant=ACME,
            call_key="call-1",
            media=STEREO,
            facts=known.facts,
            started_at=None,
            retention=known.retention,
        )
        self.session = await self.vault.ingest.start(wanted, actor=person("pbx", Role.RECORDER))

    @property
    def vault(self):
        return self.process.vault

    @rule(size=st.integers(1, 9))
    def send(self, size: int) -> None:
        first = len(self.sent)
        # A byte of 128 or more was sent while the call was paused.
        self.sent += bytes((first + n) % 128 + 128 * self.paused for n in range(size))
        self._run(self.vault.ingest.write(self.session, bytes(self.sent[first:])))

    @precondition(lambda self: self.session.entry is not None)
    @rule()
    def commit(self) -> None:
        self._run(self.session.entry.barrier())

    @rule()
    def pause(self) -> None:
        self._run(self.vault.notes.pause(self.session))
        if not self.paused:
            if self.dropped and self.dropped[-1][1] >= len(self.sent):
                self.merged = True
            else:
                self.dropped.append([len(self.sent), len(self.sent)])
        self.paused = True

    @rule()
    def resume(self) -> None:
        self._run(self.vault.notes.resume(self.session))
        if self.paused:
            self._kept_again()

    def _kept_again(self) -> None:
        first = self.dropped[-1][0]
        self.dropped[-1][1] = first + whole(len(self.sent) - first)
        self.paused = False

    @rule(minutes=st.integers(1, MAX))
    def wait(self, minutes: int) -> None:
        for _ in range(minutes):
            self._clock.advance(minutes=1)
            self._run(self.vault.keyring.refresh())
            self.used = self.used + 1 if self.paused else max(self.used - 1, 0)
            self.silent += self.paused
            if self._run(self.vault.notes.end_overlong(self.session, timedelta(minutes=MAX))):
                assert self.paused
                assert self.silent >= MAX
                self.used = self.silent = 0
                self._kept_again()
            assert self.used < MAX
            assert self.session.keeping.paused == self.paused

    @rule()
    def ask(self) -> None:
        told = self._run(self.vault.notes.acknowledge(self.session))
        assert told <= len(self.sent)

    @rule()
    def break_off(self) -> None:
        self.vault.ingest.detach(self.session)
        self._run(self._come_back())

    @rule()
    def crash(self) -> None:
        self._run(self._crash())

    async def _crash(self) -> None:
        await self.process.abandon()
        self.process = await start(self._config, self._clock)
        found = self.vault.ingest.live_call(ACME, "call-1")
        assert found is not None
        self.session = found
        used = found.allowance.used_at(self._clock.monotonic()) / 60
        assert used == self.used or self.merged
        self.used, self.silent = used, max(self.silent, used)
        await self._come_back()

    async def _come_back(self) -> None:
        """Continue where the vault says: what a pause was acknowledged to take is not asked for as audio."""
        told = await self.vault.ingest.attach(self.session, offset=None)
        assert told <= len(self.sent)
        assert self.session.keeping.paused == self.paused
        if told < len(self.sent):
            await self.vault.ingest.write(self.session, bytes(self.sent[told:]))

    def expected(self) -> bytes:
        dropped = {at for first, last in self.dropped for at in range(first, last)}
        if self.paused:
            dropped |= set(range(self.dropped[-1][0], len(self.sent)))
        return bytes(byte for at, byte in enumerate(self.sent) if at not in dropped)

    @invariant()
    def what_is_kept_is_what_was_sent_outside_of_pauses(self) -> None:
        if not hasattr(self, "session"):
            return
        assert self.session.appended == len(self.expected())

    def teardown(self) -> None:
        if hasattr(self, "process"):
            self._run(self._end())
            file.MATERIAL_BYTES = self._material
        self._stack.close()

    async def _end(self) -> None:
        try:
            expected = self.expected()
            async with storing(self.vault):
                await self.vault.ingest.finish(self.session)
                async with asyncio.timeout(10):
                    await self.session.done.wait()
            kept = await play(self.vault, self.session.recording.id)
            assert kept == expected
            assert all(byte < 128 for byte in kept)
            row = await self.vault.catalog.recording(self.session.recording.id)
            notes = (await self.vault.playback.finished(row)).notes
            # Everything sent again from the beginning is recognised.
            assert dropped_bytes(notes, len(kept)) == len(self.sent) - len(kept)
            assert kept_of(bytes(self.sent), 0, notes) == kept
        finally:
            await self.process.abandon()


TestPauses = Calls.TestCase
TestPauses.settings = settings(max_examples=examples(10), stateful_step_count=30, deadline=None)
