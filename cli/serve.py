"""`callvault serve`: one process that records, sweeps and shreds, or several behind one port."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from cli.command import DEFAULT_CONFIG, ConfigPath, load_config, local, to_its_end
from cli.files import whole_file
from cli.output import Output
from vault.errors import ConfigError

if TYPE_CHECKING:
    import asyncio

    from vault.config import Config
    from vault.server.connections.workers import Worker

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
        int, typer.Option(min=1, max=64, help="Processes behind the one port, each with a journal of its own.")
    ] = 1,
    as_worker: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve the vault until SIGTERM or SIGINT, then let open calls end; a second signal ends it at once.

    What was acknowledged is durable either way. Logs are JSON lines on standard error; with --json the address is
    printed as JSON on standard output too. With --workers, a worker that dies is started again and takes up its own
    journal; an interrupted upload can be continued at its own worker only, and meets another one with 503.

    SIGHUP reads the TLS files and log.level again. New connections get the new certificate, and those under way go on.
    What cannot be used leaves in force what was, and the log says why.
    """
    hung_up = _hang_ups()

    from vault.telemetry import configure_logging  # noqa: PLC0415 - a command imports what it needs when it runs

    settings = load_config(config)
    configure_logging(level=settings.log.level)
    if as_worker is not None:
        _work(config, out, as_worker, workers, hung_up)
        return
    _refuse_unusable(settings)
    _refuse_left_over(settings.journal_path, workers)
    if workers > 1:
        to_its_end(_supervise(settings, out, config, workers, port_file))
        return
    _guard()
    _loop(_serve(lambda: load_config(config), out, port_file, hung_up))


def _hang_ups() -> asyncio.Event:
    """Return the event that SIGHUP sets; a signal before anybody waits is kept, and none ends the process."""
    import asyncio  # noqa: PLC0415 - a command imports what it needs when it runs

    hung_up = asyncio.Event()
    signal.signal(signal.SIGHUP, lambda *_: hung_up.set())
    return hung_up


def _loop(work: Coroutine[Any, Any, None]) -> None:
    import uvloop  # noqa: PLC0415 - a command imports what it needs when it runs

    uvloop.run(work)


def _guard() -> None:
    from vault.wiring.process_memory import guard_memory  # noqa: PLC0415 - loads storage drivers; most commands need none

    guard_memory()


def _refuse_unusable(settings: Config) -> None:
    from vault.wiring.files import refuse_unusable  # noqa: PLC0415 - loads storage drivers; most commands need none

    refuse_unusable(settings)


def _refuse_left_over(journal: Path, workers: int) -> None:
    from vault.server.connections.workers import left_over  # noqa: PLC0415 - loads the server; most commands need none

    if (orphan := left_over(journal, workers)) is not None:
        raise ConfigError(
            f"{orphan} holds recordings of a worker that would not run; nothing was started",
            hint=f"callvault journal recover {orphan}, or start as many workers as before",
        )


def _work(config: Path, out: Output, place: str, count: int, hung_up: asyncio.Event) -> None:
    """Run one worker of the supervisor; `place` has its number, the inherited socket and the siblings' directory."""
    from cli.workers import end_with_parent  # noqa: PLC0415 - likewise
    from vault.server.connections.workers import Worker, worker_journal  # noqa: PLC0415 - loads the server; most commands need none

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
    from cli.workers import Supervisor, listener, worker_command  # noqa: PLC0415 - likewise
    from vault.server.connections.workers import worker_journal  # noqa: PLC0415 - loads the server; most commands need none

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
    from vault.server.connections.tls import Reread  # noqa: PLC0415 - likewise
    from vault.server.connections.workers import raise_descriptor_limit, tune  # noqa: PLC0415 - likewise
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
