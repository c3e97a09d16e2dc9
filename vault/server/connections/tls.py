"""TLS of every listener, and what a running server reads again from its files: certificates and the log level."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vault.config import Config
from vault.errors import ConfigError
from vault.places import READ, check
from vault.telemetry import set_level

_AEAD_OF_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 with forward secrecy and authenticated encryption only (RFC 9325 section 4.2); 1.3 has nothing else."""


def server_context() -> ssl.SSLContext:
    """Return the settings of a server, without a certificate: TLS 1.2 at least, AEAD suites only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_AEAD_OF_1_2)
    return context


def load_chain(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Give a context its certificate and key, without asking for a password; ConfigError or OSError."""
    for each in (certificate, key):
        check(each, READ)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise OSError(f"{certificate} and {key} are not a certificate in PEM and its key") from error


def _no_password() -> str:
    raise OSError("the key is encrypted; the server needs one without a password")


class Certified:
    """The TLS of one listener. `read` makes it from the settings and its files, and raises ConfigError."""

    def __init__(self, listener: str, config: Config, read: Callable[[Config], ssl.SSLContext | None]) -> None:
        self.listener = listener
        self._read = read
        self.context = read(config)
        """The context of new handshakes; None for a listener without TLS."""

    def reread(self, config: Config) -> bool:
        """Read the files again for new handshakes; return whether the listener has TLS. Open connections keep theirs.

        ConfigError if they cannot be used, or would turn TLS on or off: the present context then stays in force.
        """
        context = self._read(config)
        if (context is None) != (self.context is None):
            raise ConfigError(f"{self.listener}: TLS is turned on or off by a restart")
        self.context = context
        return context is not None


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
