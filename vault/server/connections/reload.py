"""What a running server reads again from its files when asked to: certificates and the level of its log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from vault.config import Config
from vault.errors import ConfigError
from vault.server.connections.tls import Certified
from vault.telemetry import set_level

_TAKEN: Final = ("log.level", ".tls_cert", ".tls_key", ".client_ca")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reread:
    """Reads again on request: callers set `asked`, and `load` returns the settings."""

    asked: asyncio.Event
    load: Callable[[], Config]

    @asynccontextmanager
    async def followed(self, started_with: Config, listeners: Sequence[Certified]) -> AsyncIterator[None]:
        """Read again whenever asked, inside the context; unusable settings leave the present ones in force."""
        task = asyncio.create_task(self._follow(started_with, listeners), name="files read again")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, started_with: Config, listeners: Sequence[Certified]) -> None:
        config = started_with
        while True:
            await self.asked.wait()
            self.asked.clear()
            try:
                config = await asyncio.to_thread(self.load)
            except ConfigError as error:
                # The certificates are read even so: they may be renewed while somebody edits the settings.
                _stays("the settings", error)
            set_level(config.log.level)
            await _certificates(config, listeners)
            if waiting := list(_changed(started_with, config)):
                logger.warning("settings changed that need a restart", extra={"fields": {"settings": waiting}})


async def _certificates(config: Config, listeners: Sequence[Certified]) -> None:
    for each in listeners:
        try:
            taken = await asyncio.to_thread(each.reread, config)
        except ConfigError as error:
            _stays(each.listener, error)
        else:
            if taken:
                logger.info("certificate read again", extra={"fields": {"listener": each.listener}})


def _stays(what: str, error: ConfigError) -> None:
    logger.error("not read again; what was in force stays", extra={"fields": {"what": what, "reason": error.message}})


def _changed(before: Config, now: Config) -> Iterator[str]:
    """Yield the names of the changed settings that are only read at the start."""
    old, new = dict(_named(before.model_dump())), dict(_named(now.model_dump()))
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name) and not name.endswith(_TAKEN):
            yield name


def _named(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict):
        yield name, value
        return
    for key, inner in value.items():
        yield from _named(inner, f"{name}.{key}" if name else key)
