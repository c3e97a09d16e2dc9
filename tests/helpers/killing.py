"""A process of its own that does one act on a vault directory and is killed at one write of it, for real."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from tests.helpers.crashing import Faults, ManualClock, Process, config_at, start
from tests.helpers.soak import steps
from vault.config import Config
from vault.keystore.root import file

SMALL_MATERIAL = 1 << 12
"""Root versions are opened thousands of times here."""


class Kill(Faults):
    """Sends SIGKILL to its own process just before a write, or just after it; tells the parent each write's name."""

    def __init__(self, tell: Connection) -> None:
        super().__init__()
        self._tell = tell
        self._here = False

    def before(self, name: str) -> None:
        with self._lock:
            if not self._armed:
                return
            self.trace.append(name)
            self._tell.send_bytes(name.encode())
            self._here = len(self.trace) == self._at
            if self._here and not self._landed:
                os.kill(os.getpid(), signal.SIGKILL)

    def after(self) -> None:
        if self._here:
            os.kill(os.getpid(), signal.SIGKILL)


Flow = Callable[[Process], Awaitable[None]]
Flows = Mapping[str, Flow]


def _child(base: str, days: float, flow: Flow, at: int, landed: bool, tell: Connection) -> None:
    file.MATERIAL_BYTES = SMALL_MATERIAL

    async def work() -> None:
        clock = ManualClock()
        clock.advance(days=days)
        process = await start(config_at(Path(base)), clock, Kill(tell))
        process.faults.arm(at, landed=landed)
        await flow(process)

    asyncio.run(work())
    tell.send_bytes(b"done")
    # An orderly end would write more; what was answered must already be safe.
    os._exit(0)


_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.helpers.killing", "tests.helpers.acts"])


def killed(base: Path, flow: Flow, *, days: float, at: int, landed: bool) -> tuple[bool, list[str]]:
    """Run `flow`, a module's function, on the vault at `base` and kill it at write `at`.

    Returns whether it was killed, and the names of the writes it came to.
    """
    told, tell = _SERVER.Pipe(duplex=False)
    process = _SERVER.Process(target=_child, args=(str(base), days, flow, at, landed, tell), daemon=True)
    process.start()
    tell.close()
    names: list[str] = []
    try:
        while True:
            names.append(told.recv_bytes().decode())
    except EOFError:
        pass
    process.join(60)
    died = process.exitcode == -signal.SIGKILL
    assert died or (process.exitcode == 0 and names.pop() == "done"), (process.exitcode, names)
    return died, names


class Kills:
    """Each write of `flow` as (a configuration killed there, the write's name), and at last (one that ended, None).

    In `make test` that is one write.
    """

    def __init__(self, copy: Callable[[], Config], flow: Flow, *, days: float, landed: bool) -> None:
        self._copy, self._flow, self._days, self._landed = copy, flow, days, landed
        self.writes: list[str] = []
        """The names of all writes of the flow, in order."""

    def __iter__(self) -> Iterator[tuple[Config, str | None]]:
        whole = self._copy()
        died, self.writes = killed(whole.base, self._flow, days=self._days, at=0, landed=self._landed)
        assert not died
        for at in steps(len(self.writes), of=f"{self._flow.__name__} {self._landed}"):
            config = self._copy()
            died, names = killed(config.base, self._flow, days=self._days, at=at, landed=self._landed)
            yield config, names[-1] if died else None
        yield whole, None
