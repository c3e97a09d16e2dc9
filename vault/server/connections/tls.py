"""TLS of every listener, the files that a running server reads again, and worker processes behind one port."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import re
import resource
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector, web
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from vault.config import Config
from vault.errors import ConfigError
from vault.format.journal import parse_file_name
from vault.places import READ, check
from vault.services.vault import Vault
from vault.telemetry import set_level
from vault.threads import in_thread

# -- TLS, and files that are read again ---------------------------------------------------------------------------

_AEAD_OF_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 suites with forward secrecy and authenticated encryption (RFC 9325 section 4.2); 1.3 has no others."""


def server_context() -> ssl.SSLContext:
    """Return the TLS context of a server without a certificate: TLS 1.2 or later, AEAD suites only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_AEAD_OF_1_2)
    return context


def load_chain(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Load certificate and key into a context, without asking for a password; ConfigError or OSError."""
    for each in (certificate, key):
        check(each, READ)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise OSError(f"{certificate} and {key} are not a certificate in PEM and its key") from error


def _no_password() -> str:
    raise OSError("the key is encrypted; the server needs one without a password")


class Certified:
    """The TLS of one listener. `read` builds it from the settings and their files, and raises ConfigError."""

    def __init__(self, listener: str, config: Config, read: Callable[[Config], ssl.SSLContext | None]) -> None:
        self.listener = listener
        self._read = read
        self.context = read(config)
        """The context of new handshakes; None for a listener without TLS."""

    def reread(self, config: Config) -> bool:
        """Read the files again for new handshakes; return whether the listener has TLS.

        Open connections keep their TLS. ConfigError if the files cannot be used, or if the settings would turn TLS on
        or off: the present context then stays in force.
        """
        context = self._read(config)
        if (context is None) != (self.context is None):
            raise ConfigError(f"{self.listener}: turning TLS on or off needs a restart")
        self.context = context
        return context is not None


_TAKEN: Final = ("log.level", ".tls_cert", ".tls_key", ".client_ca")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reread:
    """Reads settings and certificates again on request: callers set `asked`, and `load` returns the settings."""

    asked: asyncio.Event
    load: Callable[[], Config]

    @asynccontextmanager
    async def followed(self, started_with: Config, listeners: Sequence[Certified]) -> AsyncIterator[None]:
        """Read again on each request, inside the context; unusable settings leave the present ones in force."""
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
                config = await self._read(started_with, config, listeners)
            except Exception:
                logger.exception("not read again; what was in force stays, and the next request reads again")

    async def _read(self, started_with: Config, config: Config, listeners: Sequence[Certified]) -> Config:
        """Read settings and certificates; return the settings in force, `config` if the file cannot be used."""
        try:
            config = await in_thread(self.load)
        except ConfigError as error:
            # The certificates are read even so: they may have been renewed while the settings are being edited.
            _stays("the settings", error)
        set_level(config.log.level)
        await _certificates(config, listeners)
        if waiting := list(_changed(started_with, config)):
            logger.warning("settings changed that need a restart", extra={"fields": {"settings": waiting}})
        return config


async def _certificates(config: Config, listeners: Sequence[Certified]) -> None:
    for each in listeners:
        try:
            taken = await in_thread(each.reread, config)
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


# -- worker processes and descriptors -----------------------------------------------------------------------------
# Worker processes behind one port, and the settings of each process.
#
# Each worker serves its metrics on a socket that only its siblings use. A worker that is asked for /metrics asks the
# others and adds the label `worker`, so each series comes from one process.

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEEP_BYTES: Final = 64 << 20
_COLLECT_AFTER: Final = 20_000
_SWITCH_SECONDS: Final = 0.0005
_MOST_DESCRIPTORS: Final = 1 << 20
"""The limit that Linux gives a process at most, unless an administrator raised that limit too."""


def tune() -> None:
    """Keep segment-sized buffers in the process between uses, and exclude the start-up objects from collection.

    Without this, glibc maps and unmaps each megabyte buffer and faults its pages in again, which takes a third of the
    kernel time of an upload. Other C libraries ignore the request.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES // 2)
        mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
    # With the default, the event loop would wait five milliseconds for each thread that holds the interpreter lock.
    sys.setswitchinterval(_SWITCH_SECONDS)
    # Without a collection first: it would look through all of that, and find next to nothing.
    gc.freeze()
    gc.enable()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)


def descriptor_limit() -> int:
    """Return how many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> None:
    """Raise the limit as far as the process may, and log it: each connection needs one or two descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    if soft not in (resource.RLIM_INFINITY, wanted):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            logger.warning("the limit of descriptors could not be raised", extra={"fields": {"limit": soft}})
    logger.info("descriptors", extra={"fields": {"limit": descriptor_limit(), "was": soft}})


_ANSWER_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One of `count` workers; their sockets are in `directory`, which only they can enter."""

    number: int
    count: int
    directory: Path

    @asynccontextmanager
    async def answering(self, vault: Vault) -> AsyncIterator[None]:
        """Serve this worker's metrics to its siblings, inside the context."""

        async def own(_: web.Request) -> web.Response:
            await vault.status.gauges()
            return web.Response(body=vault.metrics.exposition.text())

        app = web.Application()
        app.add_routes([web.get("/metrics", own)])
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.UnixSite(runner, str(self._socket(self.number))).start()
            yield
        finally:
            await runner.cleanup()

    async def metrics(self) -> bytes:
        """Return all workers' metrics. A worker that does not answer is down; its series are missing, not zero."""
        answers = await asyncio.gather(*[self._ask(number) for number in range(self.count)])
        registry = CollectorRegistry()
        registry.register(_Merged(answers))
        return generate_latest(registry)

    async def _ask(self, number: int) -> str | None:
        try:
            async with (
                ClientSession(
                    connector=UnixConnector(str(self._socket(number))), timeout=ClientTimeout(total=_ANSWER_SECONDS)
                ) as session,
                session.get("http://worker/metrics") as answer,
            ):
                return await answer.text() if answer.ok else None
        except (ClientError, OSError, TimeoutError):
            return None

    def _socket(self, number: int) -> Path:
        return self.directory / f"{number}.sock"


class _Merged(Collector):
    def __init__(self, answers: Iterable[str | None]) -> None:
        self._answers = list(answers)

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("callvault_worker_up", "Whether the worker answered", labels=["worker"])
        merged: dict[str, Metric] = {up.name: up}
        for number, text in enumerate(self._answers):
            up.add_metric([str(number)], 0 if text is None else 1)
            for family in text_string_to_metric_families(text or ""):
                into = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    into.add_sample(sample.name, {**sample.labels, "worker": str(number)}, sample.value)
        yield from merged.values()


def worker_journal(journal: Path, number: int) -> Path:
    """Return a worker's journal directory: the vault's own for the first worker, one below it for the others."""
    return journal if number == 0 else journal / f"worker-{number}"


def left_over(journal: Path, count: int) -> Path | None:
    """Return a journal that has files and belongs to none of `count` workers; None without one."""
    for path in sorted(journal.glob("worker-*")):
        match = re.fullmatch(r"worker-(\d+)", path.name)
        if match and int(match[1]) >= count and any(parse_file_name(each.name) for each in path.iterdir()):
            return path
    return None
