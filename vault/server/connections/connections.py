"""The connections of one process, on every listener: how many there may be, and which one is closed for another.

A connection is a stranger until a valid credential has come over it. Strangers have a bound and a deadline of their
own. The bound on all connections leaves descriptors for keyring, journal, catalog and objects. So a crowd without
tokens does not affect calls under way, and recorders with tokens can still connect.

A new stranger is not displaced at once, because it may be a recorder whose token is on its way. Until the oldest
stranger is old enough, further connections wait unaccepted.

Tenants share the places: `vault.services.ingest.slots` decides once the credential is known. So a few strangers are
admitted even when all places are taken, to learn their tenant. A connection of a tenant below its share takes the place
of an idle connection of a tenant above its share. A connection with a request or a recording is never closed for
another.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final, Protocol, cast

from vault.config import ServerSettings
from vault.ids import TenantId
from vault.ports.time import Clock
from vault.server.connections.tls import Certified, descriptor_limit
from vault.services.ingest.slots import OPERATORS, Resource, Shares
from vault.telemetry import Metrics

CONNECTIONS: Final = Resource(
    name="connections", what="connections", full="the server has its maximum of open connections; nothing was begun"
)
_BACKLOG: Final = 1024
_BATCH: Final = 64
"""How many connections are accepted in one turn of the event loop."""
_PAUSE_SECONDS: Final = 0.02
_FAILED_PAUSE_SECONDS: Final = 1.0
_YOUNG_SECONDS: Final = 0.25
"""A stranger may be displaced after this time."""
_LONGEST_TICK_SECONDS: Final = 1.0
_UNSENT_BYTES: Final = 1 << 18
"""How many bytes the kernel buffers for a client that does not read, besides those in transit."""
_RESERVE_SHARE: Final = 8
_RESERVE: Final = (64, 1024)
_FILES_EACH: Final = 2
"""Descriptors for each connection: its socket, and a file for its body or its answer."""
_STRANGERS_SHARE: Final = 4
_FULL_SHARE: Final = 8
"""One in this many places of the reserve is for strangers when all places are taken."""

logger = logging.getLogger(__name__)


class Line(Protocol):
    """The protocol object of a connection, as asyncio drives it."""

    @property
    def answering(self) -> bool:
        """Whether a stranger's request is being answered, or has a deadline of its own."""


class Connection:
    """One connection. Its protocol calls `connected`, `has_read` and `closed`; a valid credential calls `identify`."""

    __slots__ = ("_connections", "_quiet_since", "_task", "_transport", "_unsent", "holder", "line", "opened")

    def __init__(self, connections: Connections, *, opened: float) -> None:
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._unsent = 0
        self._quiet_since = opened
        self.opened = opened
        self.holder: str | None = None
        """The tenant, or the operators, of the first valid credential."""
        self.line: Line | None = None

    def use(self, line: Line) -> None:
        """Set the protocol object, which tells whether a request is being answered."""
        self.line = line

    def start(self, task: asyncio.Task[None]) -> None:
        """Set the task that connects the protocol, over a TLS handshake if there is one."""
        self._task = task

    def connected(self, transport: asyncio.BaseTransport) -> None:
        """Set the transport, once the protocol has it."""
        self._transport = cast("asyncio.Transport", transport)

    def identify(self, tenant: TenantId | None) -> None:
        """Count the connection for the tenant, or the operators, of its first valid credential.

        Unavailable if there is no place for another connection of that tenant now; it then stays a stranger.
        """
        if self.holder is None:
            holder = tenant or OPERATORS
            self._connections.identify(self, holder)
            self.holder = holder

    def has_read(self) -> None:
        """Note that the other end has read what was sent."""
        self._unsent = 0

    def closed(self) -> None:
        """Stop counting the connection, which is closed."""
        self._connections.forget(self)

    def abort(self) -> None:
        """Close the connection at once, in any state."""
        if self._transport is not None:
            self._transport.abort()
        elif self._task is not None:
            self._task.cancel()

    @property
    def idle(self) -> bool:
        """Whether it is open without a request."""
        return self.line is not None and not self.line.answering

    def unread(self, now: float) -> float:
        """Return for how many seconds the other end has read none of the waiting bytes; call it at short intervals."""
        size = 0 if self._transport is None else self._transport.get_write_buffer_size()
        if not size or not self._unsent or size < self._unsent:
            self._quiet_since = now
        self._unsent = size
        return now - self._quiet_since


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many connections there may be, how many of them strangers, and for how long."""

    most: int
    most_strangers: int
    most_when_full: int
    """How many strangers are admitted when all places are taken."""
    stranger_seconds: float
    idle_seconds: float

    @classmethod
    def of(cls, settings: ServerSettings, *, descriptors: int) -> Bounds:
        """Return the bounds of a process with this many descriptors."""
        low, high = _RESERVE
        reserve = min(max(descriptors // _RESERVE_SHARE, low), high)
        allowed = max(1, (descriptors - reserve) // _FILES_EACH)
        most = min(settings.max_connections or allowed, allowed)
        idle = settings.idle_timeout.total_seconds()
        strangers = min(settings.max_unauthenticated or max(1, most // _STRANGERS_SHARE), most)
        return cls(
            most=most,
            most_strangers=strangers,
            most_when_full=min(strangers, reserve // _FILES_EACH // _FULL_SHARE),
            stranger_seconds=min(settings.unauthenticated_timeout.total_seconds(), idle),
            idle_seconds=idle,
        )


class Connections:
    """Accepts connections for every listener of the process, and closes those that break the bounds."""

    def __init__(self, bounds: Bounds, metrics: Metrics, *, clock: Clock) -> None:
        self.bounds = bounds
        self._metrics = metrics
        self._shares = Shares(bounds.most, CONNECTIONS, clock=clock, metrics=metrics)
        self._known: dict[str, dict[Connection, None]] = {}
        """By holder, oldest first."""
        self._open: set[Connection] = set()
        self._strangers: dict[Connection, None] = {}
        """Oldest first."""
        self._connecting: set[asyncio.Task[None]] = set()

    # -- for connections ---------------------------------------------------------------------------------------------

    def identify(self, connection: Connection, holder: str) -> None:
        """Count a stranger for a holder; Unavailable if the holder may have no more now."""
        if connection not in self._strangers:
            return  # the connection is closed already
        for each in self._shares.over(holder):
            if (idle := next((other for other in self._known[each] if other.idle), None)) is not None:
                self._shares.displaced()
                self._end(idle, "displaced")
                break
        self._shares.take(holder)
        self._known.setdefault(holder, {})[connection] = None
        del self._strangers[connection]
        self._count()

    def forget(self, connection: Connection) -> None:
        """Stop counting a closed connection; a second call changes nothing."""
        self._open.discard(connection)
        self._strangers.pop(connection, None)
        if connection.holder is not None and connection in (known := self._known.get(connection.holder, {})):
            del known[connection]
            if not known:
                del self._known[connection.holder]
            self._shares.give(connection.holder)
        self._count()

    def _count(self) -> None:
        strangers = len(self._strangers)
        self._metrics.connections.labels("unauthenticated").set(strangers)
        self._metrics.connections.labels("authenticated").set(len(self._open) - strangers)

    # -- enforcing the bounds -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Close connections that break the bounds, inside the context; leaving it also ends handshakes under way."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            tasks = (watch, *self._connecting)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        loop, bounds = asyncio.get_running_loop(), self.bounds
        tick = min(_LONGEST_TICK_SECONDS, bounds.stranger_seconds / 4, bounds.idle_seconds / 4)
        while True:
            await asyncio.sleep(tick)
            try:
                self._enforce(loop.time())
            except Exception:
                logger.exception("the bounds of connections were not enforced; the next look tries again")

    def _enforce(self, now: float) -> None:
        """End the connections that break the bounds at this time of the loop."""
        bounds = self.bounds
        for connection in tuple(self._strangers):
            age = now - connection.opened
            if age < bounds.stranger_seconds:
                break
            if age >= 2 * bounds.stranger_seconds or connection.line is None or not connection.line.answering:
                self._end(connection, "unauthenticated")
        for connection in tuple(self._open):
            if connection.unread(now) >= bounds.idle_seconds:
                self._end(connection, "unread")

    def _end(self, connection: Connection, reason: str) -> None:
        self._metrics.connections_ended.labels(reason).inc()
        connection.abort()
        self.forget(connection)

    # -- accepting ----------------------------------------------------------------------------------------------------

    @contextmanager
    def listening(
        self, listener: socket.socket, line: Callable[[Connection], asyncio.Protocol], *, tls: Certified
    ) -> Iterator[None]:
        """Accept on a socket inside the context, which closes it; `line` makes a connection's protocol.

        A connection gets the TLS that is in force when it is accepted.
        """
        accepting = _Listener(self, listener, line, tls)
        accepting.open()
        try:
            yield
        finally:
            accepting.close()

    def room(self) -> bool:
        """Tell whether another stranger may be admitted now."""
        if not self._crowded:
            return True
        oldest = next(iter(self._strangers))
        return asyncio.get_running_loop().time() - oldest.opened >= _YOUNG_SECONDS

    @property
    def _crowded(self) -> bool:
        most = self.bounds.most_strangers if len(self._open) < self.bounds.most else self.bounds.most_when_full
        return len(self._strangers) >= most

    def admit(
        self, accepted: socket.socket, line: Callable[[Connection], asyncio.Protocol], tls: ssl.SSLContext | None
    ) -> None:
        """Admit a stranger, after `room` said yes; if there are too many, the oldest one is closed."""
        loop = asyncio.get_running_loop()
        if self._crowded:
            self._end(next(iter(self._strangers)), "displaced")
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        connection = Connection(self, opened=loop.time())
        self._open.add(connection)
        self._strangers[connection] = None
        self._count()
        task = loop.create_task(self._connect(connection, accepted, line, tls))
        connection.start(task)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(
        self,
        connection: Connection,
        accepted: socket.socket,
        line: Callable[[Connection], asyncio.Protocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        protocol = line(connection)
        seconds = self.bounds.idle_seconds if tls else None
        try:
            await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=tls, ssl_handshake_timeout=seconds)
        except (OSError, ssl.SSLError, TimeoutError):
            connection.closed()  # the connection broke off, or its TLS handshake failed
        except BaseException:
            connection.closed()
            raise


class _Listener:
    """One listening socket."""

    def __init__(
        self,
        connections: Connections,
        listener: socket.socket,
        line: Callable[[Connection], asyncio.Protocol],
        tls: Certified,
    ) -> None:
        self._connections = connections
        self._socket = listener
        self._line = line
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None

    def open(self) -> None:
        self._later = None
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        if self._later is not None:
            self._later.cancel()
        else:
            self._loop.remove_reader(self._socket)
        self._socket.close()

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._socket)
        self._later = self._loop.call_later(seconds, self.open)

    def _accept(self) -> None:
        for _ in range(_BATCH):
            if not self._connections.room():
                return self._wait(_PAUSE_SECONDS)
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return None
            except OSError as error:
                logger.error("no connection can be accepted", extra={"fields": {"error": error.strerror}})  # noqa: TRY400  # the reason is the errno
                return self._wait(_FAILED_PAUSE_SECONDS)
            self._connections.admit(accepted, self._line, self._tls.context)
        return None


def connections_of(settings: ServerSettings, metrics: Metrics, *, clock: Clock) -> Connections:
    """Return the connections of this process, bounded by the settings and its descriptors."""
    descriptors = descriptor_limit()
    bounds = Bounds.of(settings, descriptors=descriptors)
    if settings.max_connections is not None and bounds.most < settings.max_connections:
        logger.warning(
            "server.max_connections is more than the descriptors allow",
            extra={"fields": {"connections": bounds.most, "descriptors": descriptors}},
        )
    return Connections(bounds, metrics, clock=clock)


def bind(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Return listening sockets on every address of `host`, all on one port; with `shared`, siblings may bind it too."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((each[0], each[4]) for each in found):
            place = (address[0], port, *address[2:])
            sockets.append(socket.create_server(place, family=family, backlog=_BACKLOG, reuse_port=shared))
            sockets[-1].setblocking(False)
            port = sockets[0].getsockname()[1]
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets
