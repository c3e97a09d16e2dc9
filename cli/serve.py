"""`callvault serve`: runs the vault as one process, or as a parent with workers behind one port."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from cli.command import DEFAULT_CONFIG, ConfigPath, load_config, local, to_its_end
from cli.exit_codes import Exit
from cli.files import whole_file
from cli.output import Output
from vault.errors import ConfigError, Unavailable, not_listening

if TYPE_CHECKING:
    from vault.config import Config
    from vault.server.connections.tls import Worker


# -- serve --------------------------------------------------------------------------------------------------------

logger = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = ["callvault serve", "callvault serve --config /etc/callvault/config.toml", "callvault serve --workers 4"]
    local(app, "serve", examples=examples)(run)


def run(
    out: Output,
    config: ConfigPath = DEFAULT_CONFIG,
    port_file: Annotated[
        Path | None, typer.Option(help="Write the port here once listening; for server.port = 0.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="How many processes share the port, each with its own journal.")
    ] = 1,
    as_worker: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve the vault until SIGTERM or SIGINT, then let open calls end; a second signal ends it at once.

    Acknowledged bytes are durable either way. Logs are JSON lines on standard error; with --json the address is also
    printed as JSON on standard output. With --workers, a worker that dies is started again and resumes its own journal.
    An interrupted upload can be continued only at its own worker; another worker answers 503.

    SIGHUP reads the TLS files and log.level again. New connections get the new certificate, and open ones continue. If
    a file cannot be used, the present setting stays in force and the log has the reason.
    """
    gc.disable()  # until `tune`: what a start loads stays, and to look through it again and again takes a quarter of it
    hung_up = _hang_ups()
    _load_http()

    from vault.telemetry import configure_logging  # noqa: PLC0415 - a command imports what it needs when it runs

    settings = load_config(config)
    configure_logging(level=settings.log.level)
    if as_worker is not None:
        _work(config, out, as_worker, workers, hung_up)
        return
    _refuse_unusable(settings)
    _refuse_left_over(settings.journal_path, workers)
    if workers > 1:
        gc.enable()
        to_its_end(_supervise(settings, out, config, workers, port_file))
        return
    _guard()
    _loop(_serve(lambda: load_config(config), out, port_file, hung_up))


def _hang_ups() -> asyncio.Event:
    """Return the event that SIGHUP sets, also before anything waits for it; SIGHUP no longer ends the process."""
    import asyncio  # noqa: PLC0415 - a command imports what it needs when it runs

    hung_up = asyncio.Event()
    signal.signal(signal.SIGHUP, lambda *_: hung_up.set())
    return hung_up


def _load_http() -> None:
    """Load the HTTP library without the machine's authorities, of which it reads all twice as it is loaded.

    That takes a twentieth of a start. Connections to elsewhere read them when they are made.
    """
    before = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    os.environ.update(dict.fromkeys(before, os.devnull))
    try:
        import aiohttp.web  # noqa: F401, PLC0415 - a command imports what it needs when it runs
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _loop(work: Coroutine[Any, Any, None]) -> None:
    import uvloop  # noqa: PLC0415 - a command imports what it needs when it runs

    uvloop.run(work)


def _guard() -> None:
    from vault.wiring.open import guard_memory  # noqa: PLC0415 - loads storage drivers; most commands need none

    guard_memory()


def _refuse_unusable(settings: Config) -> None:
    from vault.wiring.files import refuse_unusable  # noqa: PLC0415 - loads storage drivers; most commands need none

    refuse_unusable(settings, warn=False)  # whoever opens the vault warns


def _refuse_left_over(journal: Path, workers: int) -> None:
    from vault.server.connections.tls import left_over  # noqa: PLC0415 - loads the server; most commands need none

    if (orphan := left_over(journal, workers)) is not None:
        raise ConfigError(
            f"{orphan} holds recordings of a worker that would not run; nothing was started",
            hint=f"callvault journal recover {orphan}, or start as many workers as before",
        )


def _work(config: Path, out: Output, place: str, count: int, hung_up: asyncio.Event) -> None:
    """Run one worker of the supervisor; `place` has its number, the inherited socket and the siblings' directory."""
    from cli.serve import end_with_parent  # noqa: PLC0415 - likewise
    from vault.server.connections.tls import Worker, worker_journal  # noqa: PLC0415 - loads the server; most commands need none

    end_with_parent()
    _guard()
    number, listening, directory = place.split(":", 2)

    def load() -> Config:
        settings = load_config(config)
        own = settings.journal.model_copy(update={"path": worker_journal(settings.journal_path, int(number))})
        return settings.model_copy(update={"journal": own})

    worker = Worker(number=int(number), count=count, directory=Path(directory))
    shared = socket.socket(fileno=int(listening))
    _loop(_serve(load, out, None, hung_up, worker=worker, shared=shared))


async def _supervise(settings: Config, out: Output, config: Path, count: int, port_file: Path | None) -> None:
    from cli.serve import Supervisor, listener, worker_command  # noqa: PLC0415 - likewise
    from vault.server.connections.tls import worker_journal  # noqa: PLC0415 - loads the server; most commands need none

    if settings.objects.kind == "memory":
        raise ConfigError("objects.kind: objects in memory belong to one process", hint="serve without --workers")
    from vault.storage.journal.journal import refuse_in_use  # noqa: PLC0415 - likewise

    if not settings.journal_path.is_dir():
        raise ConfigError(f"there is no journal at {settings.journal_path}", hint="create a vault: callvault init")
    refuse_in_use(settings.journal_path)  # otherwise the error would name the port
    for number in range(count):
        worker_journal(settings.journal_path, number).mkdir(mode=0o700, exist_ok=True)
    with listener(settings) as listening:
        host, port = listening.getsockname()[:2]
        scheme = "https" if settings.tls_paths else "http"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        await Supervisor(
            count=count,
            command=worker_command(config, count),
            listening=listening,
            ready=lambda: _started(out, port_file, url),
            hung_up=lambda: _level(config),
        ).run()
    logger.info("stopped")


def _level(config: Path) -> None:
    from vault.telemetry import set_level  # noqa: PLC0415 - a command imports what it needs when it runs

    # If the settings cannot be used, a worker reports why.
    with suppress(ConfigError):
        set_level(load_config(config).log.level)


def _started(out: Output, port_file: Path | None, url: str, *, quiet: bool = False) -> None:
    if port_file is not None:
        with whole_file(port_file, force=True) as file:
            file.write(f"{urlsplit(url).port}\n".encode())
    if not quiet:
        out.note(f"callvault listens on {url}")
    if out.as_json:
        out.line({"url": url, "pid": os.getpid()})


async def _serve(
    load: Callable[[], Config],
    out: Output,
    port_file: Path | None,
    hung_up: asyncio.Event,
    *,
    worker: Worker | None = None,
    shared: socket.socket | None = None,
) -> None:
    import asyncio  # noqa: PLC0415 - a command imports what it needs when it runs

    from vault.server.app import serve  # noqa: PLC0415 - loads storage drivers; most commands need none
    from vault.server.connections.tls import (  # noqa: PLC0415 - likewise
        Reread,
        raise_descriptor_limit,
        tune,
    )
    from vault.wiring import open_vault  # noqa: PLC0415 - likewise

    tune()
    raise_descriptor_limit()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop, number)
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    settings = load()

    def started(url: str) -> None:
        _started(out, port_file, url, quiet=worker is not None)  # the supervisor prints this for its workers

    async with open_vault(settings) as vault, worker.answering(vault) if worker is not None else nullcontext():
        await serve(
            vault,
            settings,
            stop=stop,
            started=started,
            worker=worker,
            listener=shared,
            reread=Reread(asked=hung_up, load=load),
        )
    logger.info("stopped")


def _on_signal(stop: asyncio.Event, number: signal.Signals) -> None:
    if stop.is_set():
        # Nothing is lost: every acknowledged byte is in the journal, and the next start reads it.
        os._exit(128 + number)
    logger.info("stopping", extra={"fields": {"signal": number.name}})
    stop.set()


# -- workers ------------------------------------------------------------------------------------------------------

_BACKLOG: Final = 1024
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_STEADY_SECONDS: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1


def listener(settings: Config) -> socket.socket:
    """Return the socket on which all workers accept; ConfigError if it cannot listen."""
    host, port = settings.server.host, settings.server.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise not_listening("server.port", f"{host}:{port}", error) from error


def end_with_parent() -> None:
    """Have the kernel send this worker SIGTERM if its parent dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@dataclass(kw_only=True)
class Supervisor:
    """Keeps `count` workers running until a signal stops them; `command` and a number start a worker."""

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
        """Pass the signal on to the workers; a second one ends them at once."""
        self._stopping.set()
        self._first.set()
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    def _hang_up(self) -> None:
        """Have the workers read their files again; a worker that does not serve yet gets the signal later."""
        self._hang_ups += 1
        self.hung_up()
        for process in self._serving:
            _hang_up(process)

    async def _keep(self, number: int, siblings: Path) -> None:
        if number:
            # The first worker has the vault's own journal, and resumes open rows from before rows named a node.
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
        """Run one worker to its end and return its exit code; its first line of output means that it serves."""
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
    """Return the command line that starts a worker, without its number."""
    # -P: nothing is imported from the working directory.
    python = [sys.executable, "-P", "-m", "cli"]
    return [*python, "serve", f"--config={config.absolute()}", f"--workers={count}", "--json"]


def _hang_up(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGHUP)


def _failure(number: int, code: int) -> ConfigError | Unavailable:
    message = f"worker {number} did not start (exit code {code}); its reason is above"
    return ConfigError(message) if code == Exit.CONFIGURATION else Unavailable(message)
