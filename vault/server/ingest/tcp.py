"""Live calls over plain TCP: one listener for each dialect, trusted by its address or by client certificates."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import SupportsIndex

from vault.access.permissions import Act
from vault.config import Config
from vault.config.file import Listener
from vault.errors import ConfigError, Conflict, UploadStalled, VaultError, not_listening, reason
from vault.ids import TokenId, parse_tenant
from vault.places import READ, check
from vault.ports.time import Entropy
from vault.protocol.live.events import Audio, Dialect, Ended, Event, LeftOut, Started
from vault.protocol.live.streams import ORDERLY, AudioSocket, RtpengineTcp
from vault.server.connections.connections import Connection, Connections, bind
from vault.server.connections.http_protocol import Intake
from vault.server.connections.tls import Certified, load_chain, server_context
from vault.server.ingest.body import IdleTimer
from vault.server.problems import status_of
from vault.server.refusal_log import Refusals, said_of
from vault.services.ingest.live import Feed
from vault.services.people.access import ended
from vault.services.vault import Vault
from vault.telemetry import request_id

_READ_BYTES = 1 << 16
_TURN_BYTES = 1 << 13
"""How much of a connection is read in one turn of the event loop: it may be thousands of frames."""
_FIRST_SECONDS = 10.0
"""How long a connection may stay open without identifying its call, in seconds."""
_MOST_LEGS = 8
_NAME_BYTES = 16
_ID_BYTES = 8

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Endpoint:
    """One listener, with its settings."""

    name: str
    settings: Listener
    machine: Callable[[], Dialect]
    tls: Certified


@asynccontextmanager
async def listening(
    vault: Vault,
    config: Config,
    connections: Connections,
    intake: Intake,
    *,
    refusals: Refusals,
    certified: list[Certified],
    shared: bool = False,
    entropy: Entropy = os.urandom,
) -> AsyncIterator[Mapping[str, int]]:
    """Accept calls on the configured listeners inside the context; then close the remaining connections as broken.

    Yields the port of each listener by its name, and adds its TLS to `certified`. With `shared`, siblings listen on the
    same ports. ConfigError if a listener cannot listen.
    """
    calls = _Calls(vault, intake, refusals, idle_seconds=config.server.idle_timeout.total_seconds(), entropy=entropy)
    ports: dict[str, int] = {}
    with ExitStack() as listeners:
        for endpoint in _endpoints(config):
            certified.append(endpoint.tls)
            try:
                sockets = bind(*endpoint.settings.address, shared=shared)
            except OSError as error:
                raise not_listening(f"streams.{endpoint.name}.listen", endpoint.settings.listen, error) from error
            for each in sockets:
                listeners.enter_context(connections.listening(each, calls.lines(endpoint), tls=endpoint.tls))
            ports[endpoint.name] = int(sockets[0].getsockname()[1])
            logger.info("listening", extra={"fields": {"dialect": endpoint.name, "port": ports[endpoint.name]}})
        try:
            yield ports
        finally:
            listeners.close()
            await calls.close()


def _endpoints(config: Config) -> Iterator[_Endpoint]:
    if (audiosocket := config.streams.audiosocket) is not None:
        tls = Certified("streams.audiosocket", config, lambda now: _tls(now, "audiosocket", now.streams.audiosocket))
        yield _Endpoint(name="audiosocket", settings=audiosocket, machine=AudioSocket, tls=tls)
    if (rtpengine := config.streams.rtpengine) is not None:
        rate, channels = rtpengine.rate, rtpengine.channels
        yield _Endpoint(
            name="rtpengine",
            settings=rtpengine,
            machine=lambda: RtpengineTcp(rate=rate, channels=channels),
            tls=Certified("streams.rtpengine", config, lambda now: _tls(now, "rtpengine", now.streams.rtpengine)),
        )


def _tls(config: Config, name: str, settings: Listener | None) -> ssl.SSLContext | None:
    """Return TLS that requires a client certificate, or None on loopback."""
    if settings is None or settings.tls_cert is None or settings.tls_key is None or settings.client_ca is None:
        return None
    context = server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        load_chain(context, config.resolve(settings.tls_cert, ""), config.resolve(settings.tls_key, ""))
        check(config.resolve(settings.client_ca, ""), READ)
        context.load_verify_locations(config.resolve(settings.client_ca, ""))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"streams.{name}: tls_cert, tls_key or client_ca cannot be used: {reason(error)}") from error
    return context


class _Reader(asyncio.StreamReader):
    """Returns the bytes that arrived before a connection broke; asyncio's own reader raises the error instead."""

    failure: Exception | None = None
    """Why the connection broke; None if the other end closed it."""
    _stopped = False

    def set_exception(self, exc: Exception) -> None:
        self.failure = exc
        self.stop()

    def stop(self) -> None:
        """Wake the reader as at the end of the stream; later bytes are ignored."""
        self._stopped = True
        self.feed_eof()

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        if not self._stopped:
            super().feed_data(data)


class _Stream(asyncio.StreamReaderProtocol):
    """The protocol of one connection."""

    def __init__(
        self,
        connection: Connection,
        reader: asyncio.StreamReader,
        begin: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None],
    ) -> None:
        super().__init__(reader, begin)
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection.connected(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.closed()
        super().connection_lost(exc)


class _Calls:
    """The connections of all listeners."""

    def __init__(
        self, vault: Vault, intake: Intake, refusals: Refusals, *, idle_seconds: float, entropy: Entropy
    ) -> None:
        self._vault = vault
        self._refusals = refusals
        self._intake = intake
        self._idle_seconds = idle_seconds
        self._entropy = entropy
        self._tasks: set[asyncio.Task[None]] = set()

    def lines(self, endpoint: _Endpoint) -> Callable[[Connection], asyncio.Protocol]:
        """Return a function that makes a connection's protocol, which starts its task; `close` ends the tasks."""
        loop = asyncio.get_running_loop()

        def connect(connection: Connection) -> asyncio.Protocol:
            reader = _Reader(limit=_READ_BYTES, loop=loop)

            def begin(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = loop.create_task(self._take(endpoint, connection, reader, writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

            return _Stream(connection, reader, begin)

        return connect

    async def close(self) -> None:
        """End every connection and wait until all are closed."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(
        self, endpoint: _Endpoint, connection: Connection, reader: _Reader, writer: asyncio.StreamWriter
    ) -> None:
        request_id.set(secrets.token_hex(_ID_BYTES))  # the task's own: a connection is one request
        line = _Line(
            self._vault, endpoint, connection, reader, writer, intake=self._intake, idle_seconds=self._idle_seconds
        )
        try:
            await line.run(entropy=self._entropy)
        except VaultError as error:
            with suppress(VaultError):
                await line.note_left_out()
            self._vault.metrics.ingest_refused.labels(error.code).inc()
            self._refusals.note(
                status=status_of(error),
                problem=error.code,
                dialect=line.dialect,
                tenant=endpoint.settings.tenant,
                token=endpoint.settings.token,
                facts=said_of(error),
            )
        except Exception:
            logger.exception("a stream failed unexpectedly", extra={"fields": {"dialect": endpoint.name}})
        finally:
            line.lost()
            writer.close()


class _Line:
    """One connection from its first byte to its end; the stream reader stops reading for back-pressure."""

    def __init__(
        self,
        vault: Vault,
        endpoint: _Endpoint,
        connection: Connection,
        reader: _Reader,
        writer: asyncio.StreamWriter,
        *,
        intake: Intake,
        idle_seconds: float,
    ) -> None:
        self._vault = vault
        self._intake = intake
        self._endpoint = endpoint
        self._connection = connection
        self._reader = reader
        self._writer = writer
        self._machine = endpoint.machine()
        self._bytes = vault.metrics.ingest_bytes.labels(self._machine.name)
        self._feed: Feed | None = None
        self._ended = False
        self._revoked = False
        self._leave: Callable[[], None] = lambda: None
        self._idle_seconds = idle_seconds
        self._idle = IdleTimer(intake, left=self._left, tell=lambda: self._reader.set_exception(TimeoutError()))

    def _left(self, quiet: float) -> float:
        return (self._idle_seconds if self._feed is not None else min(_FIRST_SECONDS, self._idle_seconds)) - quiet

    @property
    def dialect(self) -> str:
        """The recorder's protocol."""
        return self._machine.name

    async def run(self, *, entropy: Entropy) -> None:
        """Write the events of the stream into the recording, until its end is durable or the connection is lost."""
        while not self._ended:
            data = await self._next()
            if data:
                events = self._machine.receive(data)
            else:
                events = self._machine.closed(None if data is None else ORDERLY)
                self._ended = True
            for event in events:
                if isinstance(event, Started):
                    self._feed = await self._begin(event, entropy)
                else:
                    await self._carry(event)

    async def _next(self) -> bytes | None:
        """Return the next bytes, b"" after an orderly close by the other end, None once the connection broke."""
        await self._intake.opened()
        self._idle.heard()
        self._idle.waiting()
        data = await self._reader.read(_TURN_BYTES)
        self._idle.taking()
        if len(data) == _TURN_BYTES:
            await asyncio.sleep(0)  # what has arrived already is returned without a turn for anybody else
        if self._revoked:
            raise ended()
        if data or self._reader.failure is None:
            return data
        if isinstance(self._reader.failure, TimeoutError):
            raise UploadStalled("no audio arrived for too long; what was received is durable")
        return None

    def _revoke(self) -> None:
        self._revoked = True
        self._reader.stop()

    async def _begin(self, started: Started, entropy: Entropy) -> Feed:
        """Start or continue the recording; a call without a name gets one here."""
        access, settings = self._vault.access, self._endpoint.settings
        tenant = parse_tenant(settings.tenant)
        actor = await access.acting(TokenId(settings.token), began=self._vault.begun.here)
        await access.authorise(actor, Act.INGEST, tenant=tenant, target=tenant)
        self._leave = access.underway.enter(actor.token_id, self._revoke)
        self._connection.identify(tenant)
        name = started.call_key or f"{self._machine.name}-{entropy(_NAME_BYTES).hex()}"
        for leg in range(1, _MOST_LEGS + 1):
            feed = Feed(
                self._vault.feeds,
                tenant=tenant,
                actor=actor,
                # Never silent: a silent leg is not dead, and a replacement would mix in another person's voice.
                silent_seconds=lambda: 0.0,
                replaced=self._writer.transport.abort,
                waiting=self._machine.waiting,
            )
            # Both legs of a call have one name, and neither protocol can ask the recorder for another name.
            key = name if leg == 1 else f"{name}:{leg}"
            try:
                await feed.begin(started, call_key=key)
            except Conflict:
                continue
            return feed
        raise Conflict("too many live streams have this name")

    async def _carry(self, event: Event) -> None:
        if self._feed is None:
            self._ended = True  # an end before any audio
            return
        if isinstance(event, Audio):
            if not self._feed.take(event.data):
                await self._feed.apply(event)
            self._bytes.inc(len(event.data))
            return
        if isinstance(event, LeftOut):
            self._vault.metrics.frames_left_out.labels(self._machine.name, event.why.value).inc()
        await self._feed.apply(event)
        self._ended = self._ended or isinstance(event, Ended)

    async def note_left_out(self) -> None:
        """After a refusal, note the frames that could not be read."""
        if self._feed is not None:
            await self._feed.note_left_out()

    def lost(self) -> None:
        """Detach from the recording, because the connection is lost; without an end the grace period begins."""
        self._idle.close()
        self._leave()
        if self._feed is not None:
            self._feed.lost()
