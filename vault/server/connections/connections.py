"""The connections of one process, of every listener: how many there may be, and who makes way for whom.

A connection is a stranger until a valid credential has come over it. Strangers have a bound and a deadline of their
own, and the bound on all leaves descriptors for keyring, journal, catalog and objects: a crowd without tokens costs the
calls under way nothing, and recorders with tokens get in beside it.

A stranger that has just come is not displaced at once: it may be a recorder whose token is on its way. Until one is old
enough the next ones wait unaccepted.

Tenants share the places: `vault.services.ingest.slots` decides once the credential is known. So a few strangers are let
in even where no place is left, to say whose they are. One of a tenant below its share takes the place of a connection
over which nothing is asked, of a tenant above; what is being answered or recorded is never cut off.
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
from vault.server.connections.process import descriptor_limit
from vault.server.connections.tls import Certified
from vault.services.ingest.slots import OPERATORS, Resource, Shares
from vault.telemetry import Metrics

CONNECTIONS: Final = Resource(
    name="connections", what="connections", full="as many connections are open as this server takes; nothing was begun"
)
_BACKLOG: Final = 1024
_BATCH: Final = 64
"""Connections that are accepted in one turn of the loop."""
_PAUSE_SECONDS: Final = 0.02
_FAILED_PAUSE_SECONDS: Final = 1.0
_YOUNG_SECONDS: Final = 0.25
"""A stranger is displaced by another one only after this."""
_LONGEST_TICK_SECONDS: Final = 1.0
_UNSENT_BYTES: Final = 1 << 18
"""What the kernel holds for a reader that takes nothing, beside what is on its way to it."""
_RESERVE_SHARE: Final = 8
_RESERVE: Final = (64, 1024)
_FILES_EACH: Final = 2
"""Descriptors a connection: its socket, and a file while its body or its answer goes through one."""
_STRANGERS_SHARE: Final = 4
_DOOR_SHARE: Final = 8
"""One part in so many of the reserve is for strangers where no place is left."""

logger = logging.getLogger(__name__)


class Line(Protocol):
    """The protocol object of a connection, as asyncio drives it."""

    @property
    def answering(self) -> bool:
        """Whether a stranger's request is being answered, or has a deadline of its own."""


class Guest:
    """One connection: its protocol calls `arrived`, `took` and `gone`, and who finds a credential valid `identify`."""

    __slots__ = ("_connections", "_quiet_since", "_task", "_transport", "_unsent", "holder", "line", "opened")

    def __init__(self, connections: Connections, *, opened: float) -> None:
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._unsent = 0
        self._quiet_since = opened
        self.opened = opened
        self.holder: str | None = None
        """Whose valid credential came over it first."""
        self.line: Line | None = None

    def speaks_over(self, line: Line) -> None:
        """This is its protocol, which says whether it is being answered."""
        self.line = line

    def start(self, task: asyncio.Task[None]) -> None:
        """Remember the task that brings the connection to its protocol, over a handshake if there is one."""
        self._task = task

    def arrived(self, transport: asyncio.BaseTransport) -> None:
        """The connection has reached its protocol."""
        self._transport = cast("asyncio.Transport", transport)

    def identify(self, tenant: TenantId | None) -> None:
        """A valid credential came, of a tenant or an operator: from now on this is no stranger's.

        Unavailable, and it stays one, if there is no place for another connection of that tenant now.
        """
        if self.holder is None:
            holder = tenant or OPERATORS
            self._connections.identify(self, holder)
            self.holder = holder

    def took(self) -> None:
        """The other end has taken what was sent to it."""
        self._unsent = 0

    def gone(self) -> None:
        """The connection is closed."""
        self._connections.left(self)

    def abort(self) -> None:
        """Close the connection at once, whatever it is in the middle of."""
        if self._transport is not None:
            self._transport.abort()
        elif self._task is not None:
            self._task.cancel()

    @property
    def idle(self) -> bool:
        """Whether it stands open and nothing is asked over it."""
        return self.line is not None and not self.line.answering

    def unread(self, now: float) -> float:
        """Return for how many seconds the other end has taken nothing of what is to be sent; look now and then."""
        size = 0 if self._transport is None else self._transport.get_write_buffer_size()
        if not size or not self._unsent or size < self._unsent:
            self._quiet_since = now
        self._unsent = size
        return now - self._quiet_since


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many connections there may be, of them strangers, and for how long."""

    most: int
    most_strangers: int
    door: int
    """How many strangers are let in where all places are taken."""
    stranger_seconds: float
    idle_seconds: float

    @classmethod
    def of(cls, settings: ServerSettings, *, descriptors: int) -> Bounds:
        """Return the bounds of a process that may have so many descriptors."""
        low, high = _RESERVE
        reserve = min(max(descriptors // _RESERVE_SHARE, low), high)
        allowed = max(1, (descriptors - reserve) // _FILES_EACH)
        most = min(settings.max_connections or allowed, allowed)
        idle = settings.idle_timeout.total_seconds()
        strangers = min(settings.max_unauthenticated or max(1, most // _STRANGERS_SHARE), most)
        return cls(
            most=most,
            most_strangers=strangers,
            door=min(strangers, reserve // _FILES_EACH // _DOOR_SHARE),
            stranger_seconds=min(settings.unauthenticated_timeout.total_seconds(), idle),
            idle_seconds=idle,
        )


class Connections:
    """Accepts for every listener of the process and ends what breaks the bounds."""

    def __init__(self, bounds: Bounds, metrics: Metrics, *, clock: Clock) -> None:
        self.bounds = bounds
        self._metrics = metrics
        self._shares = Shares(bounds.most, CONNECTIONS, clock=clock, metrics=metrics)
        self._known: dict[str, dict[Guest, None]] = {}
        """Of each holder, the oldest first."""
        self._guests: set[Guest] = set()
        self._strangers: dict[Guest, None] = {}
        """The oldest first."""
        self._welcoming: set[asyncio.Task[None]] = set()

    # -- for guests ---------------------------------------------------------------------------------------------------

    def identify(self, guest: Guest, holder: str) -> None:
        """Give a stranger the place of a known one; Unavailable if the holder may have none now."""
        if guest not in self._strangers:
            return  # it is closed already
        for each in self._shares.over(holder):
            if (idle := next((other for other in self._known[each] if other.idle), None)) is not None:
                self._shares.displaced()
                self._end(idle, "displaced")
                break
        self._shares.take(holder)
        self._known.setdefault(holder, {})[guest] = None
        del self._strangers[guest]
        self._count()

    def left(self, guest: Guest) -> None:
        """A connection is closed; telling it twice changes nothing."""
        self._guests.discard(guest)
        self._strangers.pop(guest, None)
        if guest.holder is not None and guest in (known := self._known.get(guest.holder, {})):
            del known[guest]
            if not known:
                del self._known[guest.holder]
            self._shares.give(guest.holder)
        self._count()

    def _count(self) -> None:
        strangers = len(self._strangers)
        self._metrics.connections.labels("unauthenticated").set(strangers)
        self._metrics.connections.labels("authenticated").set(len(self._guests) - strangers)

    # -- looking after them -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """End what breaks the bounds, inside the context; what is still being welcomed ends with it."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            tasks = (watch, *self._welcoming)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        bounds = self.bounds
        tick = min(_LONGEST_TICK_SECONDS, bounds.stranger_seconds / 4, bounds.idle_seconds / 4)
        while True:
            await asyncio.sleep(tick)
            now = loop.time()
            for guest in tuple(self._strangers):
                age = now - guest.opened
                if age < bounds.stranger_seconds:
                    break
                if age >= 2 * bounds.stranger_seconds or guest.line is None or not guest.line.answering:
                    self._end(guest, "unauthenticated")
            for guest in tuple(self._guests):
                if guest.unread(now) >= bounds.idle_seconds:
                    self._end(guest, "unread")

    def _end(self, guest: Guest, reason: str) -> None:
        self._metrics.connections_ended.labels(reason).inc()
        guest.abort()
        self.left(guest)

    # -- accepting ----------------------------------------------------------------------------------------------------

    @contextmanager
    def listening(
        self, listener: socket.socket, line: Callable[[Guest], asyncio.Protocol], *, tls: Certified
    ) -> Iterator[None]:
        """Accept on a socket inside the context, which closes it; `line` makes the protocol of a guest.

        Each connection gets the TLS that is in force when it comes.
        """
        door = _Door(self, listener, line, tls)
        door.open()
        try:
            yield
        finally:
            door.close()

    def room(self) -> bool:
        """Tell whether another stranger may come in already."""
        if not self._crowded:
            return True
        oldest = next(iter(self._strangers))
        return asyncio.get_running_loop().time() - oldest.opened >= _YOUNG_SECONDS

    @property
    def _crowded(self) -> bool:
        most = self.bounds.most_strangers if len(self._guests) < self.bounds.most else self.bounds.door
        return len(self._strangers) >= most

    def welcome(
        self, accepted: socket.socket, line: Callable[[Guest], asyncio.Protocol], tls: ssl.SSLContext | None
    ) -> None:
        """Take in a stranger, for whom `room` said yes; the oldest one makes way where it is crowded."""
        loop = asyncio.get_running_loop()
        if self._crowded:
            self._end(next(iter(self._strangers)), "displaced")
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        guest = Guest(self, opened=loop.time())
        self._guests.add(guest)
        self._strangers[guest] = None
        self._count()
        task = loop.create_task(self._introduce(guest, accepted, line, tls))
        guest.start(task)
        self._welcoming.add(task)
        task.add_done_callback(self._welcoming.discard)

    async def _introduce(
        self,
        guest: Guest,
        accepted: socket.socket,
        line: Callable[[Guest], asyncio.Protocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        protocol = line(guest)
        seconds = self.bounds.idle_seconds if tls else None
        try:
            await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=tls, ssl_handshake_timeout=seconds)
        except (OSError, ssl.SSLError, TimeoutError):
            guest.gone()  # it broke off, or what it spoke was no TLS of ours
        except BaseException:
            guest.gone()
            raise


class _Door:
    """One listening socket."""

    def __init__(
        self,
        connections: Connections,
        listener: socket.socket,
        line: Callable[[Guest], asyncio.Protocol],
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
            self._connections.welcome(accepted, self._line, self._tls.context)
        return None


def connections_of(settings: ServerSettings, metrics: Metrics, *, clock: Clock) -> Connections:
    """Return the connections of this process, bounded by what the settings say and its descriptors allow."""
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
