"""The IETF's resumable uploads, draft-ietf-httpbis-resumable-upload, at the same addresses as tus.

The interim responses (104) are written directly: the first has the upload's address, later ones how many bytes are
durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from aiohttp import HttpVersion11, web

from vault.errors import InconsistentLength, Invalid, MismatchingOffset, OffsetMismatch, UploadComplete
from vault.protocol.uploads import ietf as resumable
from vault.protocol.uploads import tus
from vault.protocol.uploads.resumable import Verb, describe, require_room
from vault.server.context import CONFIG, VAULT, authorised, reply
from vault.server.ingest.resumable import begun, incoming, location, media_in, path_upload, receive
from vault.server.ingest.uploading import receipt
from vault.services.ingest.sessions import IngestSession
from vault.services.uploads.resumable import Standing, Writer

_DIALECT: Final = "resumable"
_ACK_SECONDS: Final = 0.5
"""How often a client is told how much is durable, while it sends."""


class _Interim:
    """The interim responses of one request; none are sent to a client that does not state that it understands them."""

    def __init__(self, request: web.Request) -> None:
        self._transport = request.transport
        self._version = resumable.interop(request.headers) if request.version >= HttpVersion11 else None

    def send(self, fields: Mapping[str, str]) -> None:
        """Send one."""
        if self._version is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.write(resumable.interim(self._version, fields))

    @contextmanager
    def follow(self, session: IngestSession) -> Iterator[None]:
        """Send one whenever more of the upload is durable, inside the context."""
        loop = asyncio.get_running_loop()
        told = session.received
        timer: asyncio.TimerHandle

        def tick() -> None:
            nonlocal told, timer
            if session.received > told:
                told = session.received
                self.send({"Upload-Offset": str(told)})
            timer = loop.call_later(_ACK_SECONDS, tick)

        timer = loop.call_later(_ACK_SECONDS, tick)
        try:
            yield
        finally:
            timer.cancel()


async def create(request: web.Request) -> web.Response:
    """Begin an upload, with none, some or all of its bytes (Upload Creation)."""
    tenant, actor = await authorised(request)
    tus.require_version(request.headers, required=False)  # a PUT comes here with any version
    vault, limit = request.app[VAULT], request.app[CONFIG].server.max_recording_bytes
    wanted = resumable.creation(request.headers, request.content_length, limit=limit)
    description = describe(wanted.metadata, wanted.unusable)
    interim = _Interim(request)
    with incoming(request) as (body, writer):
        media = await media_in(description, body)
        session, new = await vault.uploads.create(tenant, description, media, wanted.length, actor=actor)
        named = {"Location": location(request, tenant, session.recording.id)}
        async with begun(request, session, writer, new=new):
            interim.send({**named, "Upload-Limit": _limit(request)})
            if new or not session.received:
                with interim.follow(session):
                    await receive(request, session, body, dialect=_DIALECT)
                await _settle(request, session, complete=wanted.complete)
            return _answer(request, session, 201, **named)


async def append(request: web.Request) -> web.Response:
    """Add the next bytes (Upload Append)."""
    tenant, actor = await authorised(request)
    vault, limit = request.app[VAULT], request.app[CONFIG].server.max_recording_bytes
    vault.uploads.require_taking()
    wanted = resumable.append(request.headers, request.content_length, limit=limit)
    try:
        with incoming(request) as (body, writer):
            async with vault.uploads.entered(
                tenant, path_upload(request), Verb.APPEND, writer, actor=actor, alone=True, offset=wanted.offset
            ) as standing:
                if standing.session is None:
                    if await body.first():
                        raise UploadComplete("the upload is complete; nothing was added to it")
                    return web.Response(status=204, headers=_state(request, standing))
                session = standing.session
                await vault.uploads.announce(session, wanted.length)
                require_room(standing.offset, request.content_length, session.total)
                with _Interim(request).follow(session):
                    await receive(request, session, body, dialect=_DIALECT)
                await _settle(request, session, complete=wanted.complete)
                return _answer(request, session, 201 if session.ended else 204)
    except OffsetMismatch as error:
        expected = error.facts["offset"]
        members = {"offset": expected, "expected-offset": expected, "provided-offset": wanted.offset}
        raise MismatchingOffset(error.message, hint=error.hint, **members) from error


async def head(request: web.Request) -> web.Response:
    """Return how much is durable (Offset Retrieval)."""
    tenant, actor = await authorised(request)
    uploads = request.app[VAULT].uploads
    writer = Writer()
    async with uploads.entered(tenant, path_upload(request), Verb.ASK, writer, actor=actor, alone=True) as standing:
        if standing.session is not None and standing.session.complete:
            await uploads.settle(standing.session)
        return web.Response(status=204, headers={**_state(request, standing), "Cache-Control": "no-store"})


async def cancel(request: web.Request) -> web.Response:
    """Withdraw an upload (Upload Cancellation)."""
    tenant, actor = await authorised(request)
    writer = Writer()
    await request.app[VAULT].uploads.terminate(tenant, path_upload(request), writer, actor=actor, alone=True)
    return web.Response(status=204)


async def _settle(request: web.Request, session: IngestSession, *, complete: bool) -> None:
    """Make it durable; with `complete` also its end, unless less came than was announced."""
    if complete and not session.sent:
        raise Invalid("the upload has no audio", hint="send the recording as the request's content")
    if complete and session.total is not None and not session.complete:
        raise InconsistentLength(f"the upload ends at {session.sent}, and {session.total} bytes were announced")
    await request.app[VAULT].uploads.settle(session, end=complete)


def _answer(request: web.Request, session: IngestSession, status: int, **fields: str) -> web.Response:
    done = session.ended is not None
    headers = {**fields, "Upload-Offset": str(session.received), "Upload-Complete": resumable.flag(done)}
    if not done:
        return web.Response(status=status, headers={**headers, "Upload-Limit": _limit(request)})
    assert session.digest is not None
    state = "sealed" if session.done.is_set() else "open"
    shown = receipt(session.recording, session.durable, session.digest.hexdigest(), state)
    return reply(shown, status=status, headers=headers)


def _state(request: web.Request, standing: Standing) -> dict[str, str]:
    session = standing.session
    done = session is None or session.ended is not None
    total = standing.total if session is None else session.total
    state = {
        "Upload-Offset": str(standing.offset if session is None else session.received),
        "Upload-Complete": resumable.flag(done),
    }
    if total is not None:
        state["Upload-Length"] = str(total)
    if not done:
        state["Upload-Limit"] = _limit(request)
    return state


def _limit(request: web.Request) -> str:
    """Return Upload-Limit; each request starts the grace period again."""
    return resumable.limits(
        resumable.interop(request.headers),
        max_size=request.app[CONFIG].server.max_recording_bytes,
        age_seconds=int(request.app[VAULT].uploads.grace.total_seconds()),
    )
