"""`callvault serve`: one process that listens, sweeps and shreds."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from yarl import URL

from cli.command import DEFAULT_CONFIG, ConfigPath, local
from cli.files import whole_file
from cli.output import Output
from vault.config import Config, load_config
from vault.telemetry import configure_logging

logger = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add the command."""
    local(app, "serve", examples=["callvault serve", "callvault serve --config /etc/callvault/config.toml"])(run)


def run(
    out: Output,
    config: ConfigPath = DEFAULT_CONFIG,
    port_file: Annotated[
        Path | None, typer.Option(help="Write the port here once listening; for server.port = 0.")
    ] = None,
) -> None:
    """Serve the vault until SIGTERM or SIGINT, then let open calls end; a second signal ends it at once.

    What was acknowledged is durable either way. Logs are JSON lines on standard error; with --json the address is
    printed as JSON on standard output too.
    """
    from vault.wiring.memory import guard_memory  # noqa: PLC0415 - loads storage drivers; most commands need none

    settings = load_config(config)
    configure_logging(level=settings.log.level)
    guard_memory()
    uvloop.run(_serve(settings, out, port_file))


async def _serve(settings: Config, out: Output, port_file: Path | None) -> None:
    from vault.server.app import serve  # noqa: PLC0415 - loads storage drivers; most commands need none
    from vault.server.process import tune  # noqa: PLC0415 - likewise
    from vault.wiring import open_vault  # noqa: PLC0415 - likewise

    tune()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop, number)

    def started(url: str) -> None:
        if port_file is not None:
            with whole_file(port_file, force=True) as file:
                file.write(f"{URL(url).port}\n".encode())
        out.note(f"callvault listens on {url}")
        if out.as_json:
            out.line({"url": url, "pid": os.getpid()})

    async with open_vault(settings) as vault:
        await serve(vault, settings, stop=stop, started=started)
    logger.info("stopped")


def _on_signal(stop: asyncio.Event, number: signal.Signals) -> None:
    if stop.is_set():
        # Nothing is lost: every acknowledged byte is in the journal and the next start picks it up.
        os._exit(128 + number)
    logger.info("stopping", extra={"fields": {"signal": number.name}})
    stop.set()
