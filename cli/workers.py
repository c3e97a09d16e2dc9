"""`callvault serve --workers N`: the parent that starts workers, restarts dead ones, and ends them together."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.exit_codes import Exit
from vault.errors import ConfigError, Unavailable, not_listening

if TYPE_CHECKING:
    from vault.config import Config

_BACKLOG: Final = 1024
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_STEADY_SECONDS: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1

logger = logging.getLogger(__name__)


def listener(settings: Config) -> socket.socket:
    """Return the socket on which all workers accept; ConfigError if it cannot listen."""
    host, port = settings.server.host, settings.server.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise not_listening("server.port", f"{host}:{port}", error) from error


def end_with_parent() -> None:
    """Have the kernel end this worker in order if its parent dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@dataclass(kw_only=True)
class Supervisor:
    """Keeps `count` workers running until it is told to stop; `command` starts a worker once its number is added."""

    count: int
    command: Sequence[str]
    listening: socket.socket
    ready: Callable[[], None]
    """Called once, when every worker accepts recordings."""
    hung_up: Callable[[], None]
    """Called at each SIGHUP, before the workers are told."""
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _running: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    _ready: set[int] = field(default_factory=set)
    _serving: set[asyncio.subprocess.Process] = field(default_factory=set)
    _hang_ups: int = 0
    _first: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Return when all workers have ended; ConfigError or Unavailable if one cannot be started."""
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._stop, each)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        siblings = Path(tempfile.mkdtemp(prefix="callvault-"))
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self.count):
                    group.create_task(self._keep(number, siblings))
        finally:
            for process in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            shutil.rmtree(siblings, ignore_errors=True)

    def _stop(self, number: signal.Signals) -> None:
        """Pass the signal on, a second one too, at which workers end at once."""
        self._stopping.set()
        self._first.set()
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    def _hang_up(self) -> None:
        """Have the workers read their files again; one that does not serve yet is told later."""
        self._hang_ups += 1
        self.hung_up()
        for process in self._serving:
            _hang_up(process)

    async def _keep(self, number: int, siblings: Path) -> None:
        if number:
            # The first worker has the vault's own journal, and takes the rows that are older than nodes.
            await self._first.wait()
        pause = _FIRST_PAUSE_SECONDS
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            code = await self._once(number, siblings)
            if self._stopping.is_set():
                return
            if number not in self._ready:
                self._stop(signal.SIGTERM)
                raise _failure(number, code)
            if loop.time() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            logger.error(
                "a worker ended and is started again",
                extra={"fields": {"worker": number, "exit_code": code, "in_seconds": pause}},
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _once(self, number: int, siblings: Path) -> int:
        """Run one worker to its end and return its exit code; its first line says that it serves."""
        heard = self._hang_ups
        process = await asyncio.create_subprocess_exec(
            *self.command,
            f"--as-worker={number}:{self.listening.fileno()}:{siblings}",
            stdout=asyncio.subprocess.PIPE,
            pass_fds=[self.listening.fileno()],
            # Ctrl-C at a terminal reaches only the parent, which passes it on.
            start_new_session=True,
        )
        self._running[number] = process
        try:
            assert process.stdout is not None
            line = await process.stdout.readline()
            if line and json.loads(line).get("url"):
                self._ready.add(number)
                self._serving.add(process)
                if heard != self._hang_ups:
                    _hang_up(process)
                logger.info("a worker serves", extra={"fields": {"worker": number, "pid": process.pid}})
                self._first.set()
                if len(self._ready) == self.count:
                    self.ready()
            return await process.wait()
        finally:
            self._running.pop(number, None)
            self._serving.discard(process)


def worker_command(config: Path, count: int) -> list[str]:
    """Return the command line that starts a worker, all but its number."""
    # -P: nothing is imported from the working directory.
    python = [sys.executable, "-P", "-m", "cli"]
    return [*python, "serve", f"--config={config.absolute()}", f"--workers={count}", "--json"]


def _hang_up(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGHUP)


def _failure(number: int, code: int) -> ConfigError | Unavailable:
    message = f"worker {number} did not start (exit code {code}); its reason is above"
    return ConfigError(message) if code == Exit.CONFIGURATION else Unavailable(message)
