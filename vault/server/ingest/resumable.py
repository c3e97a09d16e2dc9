"""Resumable uploads at the same addresses: tus 1.0, and the IETF's draft-ietf-httpbis-resumable-upload."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from email.utils import format_datetime
from typing import Final

from aiohttp import HttpVersion11, web

from vault.access.permissions import Act
from vault.errors import (
    InconsistentLength,
    Invalid,
    MismatchingOffset,
    OffsetMismatch,
    TooLarge,
    UnsupportedMedia,
    UploadComplete,
)
from vault.ids import RecordingId
from vault.media.descriptor import parse_content_type
from vault.model import Media
from vault.protocol.uploads import ietf, tus
from vault.protocol.uploads.resumable import Description, Verb, content_type, describe, require_room
from vault.server.context import CONFIG, Admitted, go_on, reply
from vault.server.ingest.body import Incoming, writing
from vault.server.ingest.uploading import receipt
from vault.server.operation import Answer, Operations
from vault.services.ingest.sessions import IngestSession
from vault.services.uploads.resumable import SILENT_SECONDS, Standing, Writer

# -- both protocols -----------------------------------------------------------------------------------------------

_HOST: Final = re.compile(r"[A-Za-z0-9.\-_:\[\]]{1,255}")


def path_upload(request: Admitted) -> RecordingId:
    """Return the upload in the path; NotFound if it cannot be an upload."""
    return RecordingId(request.id_of("upload"))


def location(request: Admitted, upload: RecordingId) -> str:
    """Return the upload's address: absolute, because clients expect that.

    It begins with `server.public_url`, else with the host name that the client used.
    """
    base = request.http.app[CONFIG].server.public_url
    if base is None:
        base = f"{request.http.scheme}://{request.http.host}" if _HOST.fullmatch(request.http.host) else ""
    return f"{base}/v1/ingest/{request.tenant}/tus/{upload}"


def expires(at: datetime) -> str:
    """Return an instant in HTTP's format (RFC 9110 section 5.6.7)."""
    return format_datetime(at, usegmt=True)


@contextmanager
def incoming(request: Admitted) -> Iterator[tuple[Incoming, Writer]]:
    """Ask for the request's body and read it, until another request to the same upload ends this one."""
    go_on(request.http)
    body = Incoming(request.http)
    with writing(body, patience=SILENT_SECONDS) as writer:
        yield body, writer


async def receive(request: Admitted, session: IngestSession, body: Incoming, *, dialect: str) -> None:
    """Write the rest of the body into the recording; bytes beyond the announced length are refused and not kept.

    If the request breaks off, its bytes so far become durable: an upload can continue at any byte.
    """
    vault = request.vault
    began = session.appended
    try:
        while piece := await body.next():
            if session.total is not None and session.sent + len(piece) > session.total:
                raise TooLarge(f"more than the {session.total} announced bytes arrived; the others were not kept")
            if not vault.ingest.take(session, piece):
                await vault.ingest.write(session, piece)
    finally:
        vault.metrics.ingest_bytes.labels(dialect).inc(max(session.appended - began, 0))


@asynccontextmanager
async def begun(request: Admitted, session: IngestSession, writer: Writer, *, new: bool) -> AsyncIterator[None]:
    """Become the writer of an upload that was just created, or that its client had created before."""
    uploads = request.vault.uploads
    async with uploads.started(session, writer) if new else uploads.held(session, writer):
        yield


async def media_in(description: Description, body: Incoming | None) -> Media:
    """Return the upload's media, from the first bytes of `body` if nothing else states it; UnsupportedMedia."""
    declared = content_type(description)
    first = b"" if declared is not None or body is None else await body.first()
    if declared is None and not first:
        raise UnsupportedMedia(
            "the upload does not state its kind of audio",
            hint="send the metadata filetype, such as audio/wav, or a filename with an extension such as .wav",
        )
    return parse_content_type(declared, first)


# -- tus ----------------------------------------------------------------------------------------------------------

Handler = Callable[[Admitted], Awaitable[web.StreamResponse]]

PLACE: Final = "/v1/ingest/{tenant}/tus"
UPLOAD: Final = f"{PLACE}/{{upload}}"

_TUS_DIALECT: Final = "tus"
_MADE: Final = {"Location": "The upload's address.", "Upload-Expires": "How long it waits for its client."}
_STATE: Final = {
    "Upload-Offset": "Bytes that are durable.",
    "Upload-Length": "How many bytes the upload will have, if that was stated.",
    "Upload-Complete": "Whether the end is durable (IETF).",
}
_NEXT: Final = Answer(text="The bytes are durable.", headers=_STATE)
_PROBLEMS: Final = (400, 408, 409, 412, 413, 415, 422, 423, 460, 507)

_APPENDED: Final = {204: _NEXT, 201: Answer(text="The upload is complete (IETF).", headers=_STATE)}
_CREATED: Final = {201: Answer(text="The upload exists; bytes sent with it are durable.", headers=_MADE)}
_KNOWN: Final = {
    200: Answer(text="The upload is known.", headers=_STATE),
    204: Answer(text="The same (IETF)."),
}
_CREATION: Final = ("Upload-Length", "Upload-Metadata")
_APPENDING: Final = ("Upload-Offset", "Upload-Length", "Upload-Checksum")

OPERATIONS: Final = Operations("ingest")


def prepare(app: web.Application) -> None:
    """Have every answer carry the headers that tus requires."""
    app.on_response_prepare.append(_mark)


async def _mark(request: web.Request, response: web.StreamResponse) -> None:
    """Put Tus-Resumable on every answer to a tus client, failures included (Tus-Resumable, Tus-Version)."""
    resource = request.match_info.route.resource
    if resource is None or resource.canonical not in {PLACE, UPLOAD}:
        return
    if ietf.is_ietf(request.headers):
        if response.status == web.HTTPRequestEntityTooLarge.status_code:
            response.headers["Upload-Limit"] = f"max-size={request.app[CONFIG].server.max_recording_bytes}"
        return
    response.headers["Tus-Resumable"] = tus.VERSION
    if response.status == web.HTTPPreconditionFailed.status_code:
        response.headers["Tus-Version"] = tus.VERSION


@OPERATIONS(f"OPTIONS {PLACE}", Act.INGEST, {204: Answer(text="They are in the headers.")})
async def upload_options(request: Admitted) -> web.Response:
    """Show the versions, extensions and limits of tus 1.0 and of the IETF's resumable uploads."""
    limit = request.http.app[CONFIG].server.max_recording_bytes
    return web.Response(
        status=204,
        headers={
            "Tus-Version": tus.VERSION,
            "Tus-Extension": ",".join(tus.EXTENSIONS),
            "Tus-Checksum-Algorithm": ",".join(tus.CHECKSUMS),
            "Tus-Max-Size": str(limit),
            "Accept-Patch": f"{tus.BYTES}, {ietf.PARTIAL}",
            "Upload-Limit": ietf.limits(None, max_size=limit, age_seconds=None),
        },
    )


async def _create(request: Admitted) -> web.Response:
    tus.require_version(request.http.headers)
    vault = request.vault
    wanted = tus.creation(request.http.headers, limit=request.http.app[CONFIG].server.max_recording_bytes)
    description = describe(wanted.metadata, wanted.unusable)
    with incoming(request) as (body, writer):
        if wanted.carries:
            require_room(0, await _checked(wanted.checksum, request, body), wanted.length)
        media = await media_in(description, body if wanted.carries else None)
        session, new = await vault.uploads.create(
            request.tenant, description, media, wanted.length, actor=request.actor
        )
        made = {"Location": location(request, session.recording.id)}
        if new or wanted.carries:
            async with begun(request, session, writer, new=new):
                if wanted.carries:
                    if new or not session.received:
                        await receive(request, session, body, dialect=_TUS_DIALECT)
                    made["Upload-Offset"] = str(await vault.uploads.settle(session))
        return web.Response(status=201, headers={**made, **_expiry(request, session)})


async def _append(request: Admitted) -> web.Response:
    tus.require_version(request.http.headers)
    vault = request.vault
    vault.uploads.require_taking()
    wanted = tus.append(request.http.headers, limit=request.http.app[CONFIG].server.max_recording_bytes)
    with incoming(request) as (body, writer):
        adding = await _checked(wanted.checksum, request, body)
        async with vault.uploads.entered(
            request.tenant, path_upload(request), Verb.APPEND, writer, actor=request.actor, offset=wanted.offset
        ) as standing:
            session = standing.session
            if session is None:
                if await body.first():
                    raise UploadComplete("the upload is complete; nothing was added to it")
                return web.Response(status=204, headers={"Upload-Offset": str(standing.offset)})
            await vault.uploads.announce(session, wanted.length)
            require_room(standing.offset, adding, session.total)
            await receive(request, session, body, dialect=_TUS_DIALECT)
            offset = await vault.uploads.settle(session)
            return web.Response(status=204, headers={"Upload-Offset": str(offset), **_expiry(request, session)})


async def _checked(checksum: tus.Checksum | None, request: Admitted, body: Incoming) -> int | None:
    """Return how many bytes the request adds, None if unknown; a checksum is verified first."""
    if checksum is None:
        return request.http.content_length
    tus.require_checkable(request.http.content_length or 0)
    pieces = await body.whole(tus.require_checkable)
    checksum.require(pieces)
    return sum(map(len, pieces))


async def _head(request: Admitted) -> web.Response:
    # A HEAD need not state a version, so that a browser can look at the address.
    tus.require_version(request.http.headers, required=False)
    uploads = request.vault.uploads
    writer = Writer()
    async with uploads.entered(request.tenant, path_upload(request), Verb.ASK, writer, actor=request.actor) as standing:
        session, offset, total = standing.session, standing.offset, standing.total
        # If the answer to the last bytes was lost, the client may only ask with HEAD, and never send again.
        if session is not None and session.complete:
            offset = await uploads.settle(session)
        length = {"Upload-Defer-Length": "1"} if total is None else {"Upload-Length": str(total)}
        return web.Response(
            headers={
                "Upload-Offset": str(offset),
                **length,
                "Cache-Control": "no-store",
                **_expiry(request, session),
            }
        )


async def _by_protocol(request: Admitted, one: Handler, other: Handler) -> web.StreamResponse:
    """Answer with `one` for tus, with `other` for a request of the IETF's protocol."""
    return await (other if ietf.is_ietf(request.http.headers) else one)(request)


@OPERATIONS(f"POST {PLACE}", Act.INGEST, _CREATED, headers=_CREATION, problems=_PROBLEMS, asks=True)
async def create_upload(request: Admitted) -> web.StreamResponse:
    """Create an upload: tus 1.0, or the IETF's with Upload-Complete."""
    return await _by_protocol(request, _create, create)


@OPERATIONS(f"PUT {PLACE}", Act.INGEST, _CREATED, headers=_CREATION, problems=_PROBLEMS, asks=True)
async def put_upload(request: Admitted) -> web.StreamResponse:
    """Create an upload: the IETF's, with Upload-Complete."""
    return await create(request)


@OPERATIONS(f"HEAD {UPLOAD}", Act.INGEST, _KNOWN, problems=(410, 412, 423), asks=True)
async def upload_offset(request: Admitted) -> web.StreamResponse:
    """Show the offset at which the upload continues."""
    return await _by_protocol(request, _head, head)


@OPERATIONS(f"PATCH {UPLOAD}", Act.INGEST, _APPENDED, headers=_APPENDING, problems=(410, *_PROBLEMS), asks=True)
async def append_upload(request: Admitted) -> web.StreamResponse:
    """Add the next bytes."""
    return await _by_protocol(request, _append, append)


@OPERATIONS(
    f"DELETE {UPLOAD}",
    Act.INGEST,
    {204: Answer(text="The upload has ended.")},
    problems=(409, 410, 412, 423),
    asks=True,
)
async def terminate_upload(request: Admitted) -> web.StreamResponse:
    """Terminate an unfinished upload: the recording ends as truncated, and is kept."""
    alone = ietf.is_ietf(request.http.headers)
    if not alone:
        tus.require_version(request.http.headers)
    upload = path_upload(request)
    await request.vault.uploads.terminate(request.tenant, upload, Writer(), actor=request.actor, alone=alone)
    return web.Response(status=204)


@OPERATIONS(
    f"POST {UPLOAD}",
    Act.INGEST,
    _APPENDED,
    headers=("X-HTTP-Method-Override", *_APPENDING),
    problems=(405, 410, *_PROBLEMS),
    asks=True,
)
async def override_upload(request: Admitted) -> web.StreamResponse:
    """PATCH, HEAD or DELETE an upload with X-HTTP-Method-Override, for clients that have only POST."""
    method = request.http.headers.get("X-HTTP-Method-Override", "").upper()
    handler = _ON_UPLOADS.get(method)
    if handler is None:
        raise web.HTTPMethodNotAllowed(request.http.method, list(_ON_UPLOADS))
    return await handler(request)


def _expiry(request: Admitted, session: IngestSession | None) -> Mapping[str, str]:
    """Return Upload-Expires of an unfinished upload (Expiration)."""
    if session is None or session.ended is not None:
        return {}
    return {"Upload-Expires": expires(request.vault.uploads.expires_at(session))}


_ON_UPLOADS: Final[Mapping[str, Handler]] = {
    "HEAD": upload_offset,
    "PATCH": append_upload,
    "DELETE": terminate_upload,
}


# -- ietf ---------------------------------------------------------------------------------------------------------
# The IETF's resumable uploads, draft-ietf-httpbis-resumable-upload, at the same addresses as tus.
#
# The interim responses (104) are written directly: the first has the upload's address, later ones how many bytes are
# durable.

_IETF_DIALECT: Final = "resumable"
_ACK_SECONDS: Final = 0.5
"""How often a sending client is told the durable offset, in seconds."""


class _Interim:
    """The interim responses of one request; a client that does not state that it understands them gets none."""

    def __init__(self, request: Admitted) -> None:
        self._transport = request.http.transport
        self._version = ietf.interop(request.http.headers) if request.http.version >= HttpVersion11 else None

    def send(self, fields: Mapping[str, str]) -> None:
        """Send one interim response with these fields."""
        if self._version is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.write(ietf.interim(self._version, fields))

    @contextmanager
    def follow(self, session: IngestSession) -> Iterator[None]:
        """Send the durable offset whenever it grows, inside the context."""
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


async def create(request: Admitted) -> web.Response:
    """Create an upload, with none, some or all of its bytes (Upload Creation)."""
    tus.require_version(request.http.headers, required=False)  # a PUT comes here with any version
    vault, limit = request.vault, request.http.app[CONFIG].server.max_recording_bytes
    wanted = ietf.creation(request.http.headers, request.http.content_length, limit=limit)
    description = describe(wanted.metadata, wanted.unusable)
    interim = _Interim(request)
    with incoming(request) as (body, writer):
        media = await media_in(description, body)
        session, new = await vault.uploads.create(
            request.tenant, description, media, wanted.length, actor=request.actor
        )
        named = {"Location": location(request, session.recording.id)}
        async with begun(request, session, writer, new=new):
            interim.send({**named, "Upload-Limit": _limit(request)})
            if new or not session.received:
                with interim.follow(session):
                    await receive(request, session, body, dialect=_IETF_DIALECT)
                await _settle(request, session, complete=wanted.complete)
            return _answer(request, session, 201, **named)


async def append(request: Admitted) -> web.Response:
    """Add the next bytes (Upload Append)."""
    vault, limit = request.vault, request.http.app[CONFIG].server.max_recording_bytes
    vault.uploads.require_taking()
    wanted = ietf.append(request.http.headers, request.http.content_length, limit=limit)
    try:
        with incoming(request) as (body, writer):
            async with vault.uploads.entered(
                request.tenant,
                path_upload(request),
                Verb.APPEND,
                writer,
                actor=request.actor,
                alone=True,
                offset=wanted.offset,
            ) as standing:
                if standing.session is None:
                    if await body.first():
                        raise UploadComplete("the upload is complete; nothing was added to it")
                    return web.Response(status=204, headers=_state(request, standing))
                session = standing.session
                await vault.uploads.announce(session, wanted.length)
                require_room(standing.offset, request.http.content_length, session.total)
                with _Interim(request).follow(session):
                    await receive(request, session, body, dialect=_IETF_DIALECT)
                await _settle(request, session, complete=wanted.complete)
                return _answer(request, session, 201 if session.ended else 204)
    except OffsetMismatch as error:
        expected = error.facts["offset"]
        members = {"offset": expected, "expected-offset": expected, "provided-offset": wanted.offset}
        raise MismatchingOffset(error.message, hint=error.hint, **members) from error


async def head(request: Admitted) -> web.Response:
    """Return the durable offset (Offset Retrieval)."""
    uploads = request.vault.uploads
    writer = Writer()
    async with uploads.entered(
        request.tenant, path_upload(request), Verb.ASK, writer, actor=request.actor, alone=True
    ) as standing:
        if standing.session is not None and standing.session.complete:
            await uploads.settle(standing.session)
        return web.Response(status=204, headers={**_state(request, standing), "Cache-Control": "no-store"})


async def _settle(request: Admitted, session: IngestSession, *, complete: bool) -> None:
    """Make the bytes durable; with `complete` also the end. InconsistentLength if fewer bytes came than announced."""
    if complete and not session.sent:
        raise Invalid("the upload has no audio", hint="send the recording as the request's content")
    if complete and session.total is not None and not session.complete:
        raise InconsistentLength(f"the upload ends at byte {session.sent}, but {session.total} bytes were announced")
    await request.vault.uploads.settle(session, end=complete)


def _answer(request: Admitted, session: IngestSession, status: int, **fields: str) -> web.Response:
    done = session.ended is not None
    headers = {**fields, "Upload-Offset": str(session.received), "Upload-Complete": ietf.flag(done)}
    if not done:
        return web.Response(status=status, headers={**headers, "Upload-Limit": _limit(request)})
    assert session.digest is not None
    state = "sealed" if session.done.is_set() else "open"
    shown = receipt(session.recording, session.durable, session.digest.hexdigest(), state)
    return reply(shown, status=status, headers=headers)


def _state(request: Admitted, standing: Standing) -> dict[str, str]:
    session = standing.session
    done = session is None or session.ended is not None
    total = standing.total if session is None else session.total
    state = {
        "Upload-Offset": str(standing.offset if session is None else session.received),
        "Upload-Complete": ietf.flag(done),
    }
    if total is not None:
        state["Upload-Length"] = str(total)
    if not done:
        state["Upload-Limit"] = _limit(request)
    return state


def _limit(request: Admitted) -> str:
    """Return Upload-Limit; each request starts the grace period again."""
    return ietf.limits(
        ietf.interop(request.http.headers),
        max_size=request.http.app[CONFIG].server.max_recording_bytes,
        age_seconds=int(request.vault.uploads.grace.total_seconds()),
    )
