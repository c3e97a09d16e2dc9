"""Live calls over WebSocket: one connection a call, its dialect recognised from the first message (RFC 6455)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from vault.errors import Invalid, Unauthenticated, UploadStalled, VaultError
from vault.ids import TenantId
from vault.model import Principal
from vault.protocol.events import Audio, Dialect, Ended, Event, Handshake, Say, Started
from vault.protocol.permissions import Act
from vault.protocol.recognise import recognise
from vault.server.context import CONFIG, VAULT, path_tenant, principal
from vault.server.describing import Answer, Operation
from vault.server.problems import close_code
from vault.services.feed import Feed
from vault.services.vault import Vault

_MAX_MESSAGE_BYTES: Final = 1 << 18
_FIRST_SECONDS: Final = 10.0
"""How long a connection may stay without saying which call it is."""
_SUBPROTOCOLS: Final = ("audio.drachtio.org", "audio.jambonz.org", "media")

OPERATIONS: Final = (
    Operation(
        method="get",
        path="/v1/ingest/{tenant}/ws",
        name="streamRecording",
        tag="ingest",
        summary="Stream a live call over WebSocket; the dialect is recognised from the first message",
        act=Act.INGEST,
        answers={101: Answer(text="Send the call; the close comes once everything is durable.")},
        problems=(404, 422),
    ),
)

logger = logging.getLogger(__name__)


async def connect(request: web.Request) -> web.StreamResponse:
    """Record the call of one connection; the close answers only once all that was received is durable.

    A token is asked for before the upgrade, unless the dialect can carry it only in its first message.
    """
    vault = request.app[VAULT]
    tenant = path_tenant(request)
    actor = await _authorised(request, tenant) if "Authorization" in request.headers else None
    idle = request.app[CONFIG].server.idle_timeout.total_seconds()
    socket = web.WebSocketResponse(protocols=_SUBPROTOCOLS, max_msg_size=_MAX_MESSAGE_BYTES, autoping=True)
    await socket.prepare(request)
    line = _Line(vault, request, socket, tenant=tenant, actor=actor, idle_seconds=idle)
    try:
        await line.run()
    except VaultError as error:
        vault.metrics.ingest_refused.labels(error.code).inc()
        code, reason = close_code(error)
        await socket.close(code=code, message=reason)
    finally:
        line.lost()
    return socket


async def _authorised(request: web.Request, tenant: TenantId) -> Principal:
    actor = await principal(request)
    await request.app[VAULT].access.authorise(actor, Act.INGEST, tenant=tenant, target=tenant)
    return actor


class _Line:
    """One connection from its first message to its close."""

    def __init__(
        self,
        vault: Vault,
        request: web.Request,
        socket: web.WebSocketResponse,
        *,
        tenant: TenantId,
        actor: Principal | None,
        idle_seconds: float,
    ) -> None:
        self._vault = vault
        self._request = request
        self._socket = socket
        self._tenant = tenant
        self._actor = actor
        self._idle_seconds = idle_seconds
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        self._handshake = Handshake(
            subprotocols=tuple(each.strip() for each in offered.split(",") if each.strip()), query=dict(request.query)
        )
        self._feed: Feed | None = None

    async def run(self) -> None:
        """Carry every message into the recording until the end is durable or the connection is gone."""
        first = await self._message(_FIRST_SECONDS)
        if first is None:
            return
        machine = recognise(self._handshake, first)
        ended = await self._carry(machine, machine.receive(first))
        while not ended:
            try:
                message = await self._message(self._idle_seconds)
            except UploadStalled:
                if not await self._carry(machine, machine.idle()):
                    raise
                return
            if message is None:
                await self._carry(machine, machine.closed(self._socket.close_code))
                return
            ended = await self._carry(machine, machine.receive(message))

    async def _message(self, seconds: float) -> str | bytes | None:
        """Return the next message, or None once the connection is gone; UploadStalled if nothing comes."""
        try:
            message = await self._socket.receive(timeout=seconds)
        except TimeoutError as error:
            raise UploadStalled("no audio arrived for too long; what was received is durable") from error
        if self._feed is not None:
            self._feed.heard_at = self._vault.clock.monotonic()
        return message.data if message.type in {WSMsgType.TEXT, WSMsgType.BINARY} else None

    async def _carry(self, machine: Dialect, events: Sequence[Event]) -> bool:
        """Carry out the events; return whether the recording has ended."""
        counter = self._vault.metrics.ingest_bytes.labels(machine.name)
        for event in events:
            match event:
                case Say():
                    await self._say(event)
                case Started():
                    await self._begin(event)
                case _ if self._feed is None:
                    raise Invalid("the recorder sent audio or an end before it said which call it is")
                case Ended():
                    await self._feed.apply(event)
                    for farewell in machine.kept():
                        await self._say(farewell)
                    await self._socket.close(code=WSCloseCode.OK)
                    return True
                case _:
                    await self._feed.apply(event)
                    if isinstance(event, Audio):
                        counter.inc(len(event.data))
        return False

    async def _begin(self, started: Started) -> None:
        if self._actor is None:
            if started.token is None:
                raise Unauthenticated("this needs a token")
            self._actor = await self._vault.access.authenticate(started.token)
            await self._vault.access.authorise(self._actor, Act.INGEST, tenant=self._tenant, target=self._tenant)
        self._feed = Feed(self._vault.feeds, tenant=self._tenant, actor=self._actor, replaced=self._replaced)
        await self._feed.begin(started, call_key=self._handshake.query.get("call_key"))

    def _replaced(self) -> None:
        """Another connection continues the recording: end this one from its own loop."""
        if self._request.transport is not None:
            self._request.transport.close()

    async def _say(self, event: Say) -> None:
        if isinstance(event.payload, str):
            await self._socket.send_str(event.payload)
        else:
            await self._socket.send_bytes(event.payload)

    def lost(self) -> None:
        """The connection is gone: without an end the grace period begins."""
        if self._feed is not None:
            self._feed.lost()
