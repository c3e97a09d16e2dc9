"""tus 1.0 over HTTP: creation, PATCH, HEAD and DELETE; the IETF's resumable uploads share its addresses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from vault.access.permissions import Act
from vault.errors import UploadComplete
from vault.protocol.uploads import ietf, tus
from vault.protocol.uploads.resumable import Verb, describe, require_room
from vault.server.context import CONFIG, VAULT, authorised
from vault.server.ingest import ietf as resumable
from vault.server.ingest.body import Incoming
from vault.server.ingest.resumable import begun, expires, incoming, location, media_in, path_upload, receive
from vault.server.operation import Answer, Operations
from vault.services.ingest.sessions import IngestSession
from vault.services.uploads.resumable import Writer

Handler = Callable[[web.Request], Awaitable[web.Response]]

PLACE: Final = "/v1/ingest/{tenant}/tus"
UPLOAD: Final = f"{PLACE}/{{upload}}"

_DIALECT: Final = "tus"
_MADE: Final = {"Location": "The upload's address.", "Upload-Expires": "Until when it waits for its client."}
_STATE: Final = {
    "Upload-Offset": "Bytes that are durable.",
    "Upload-Length": "Bytes the upload will have, if that was said.",
    "Upload-Complete": "Whether the end is durable (IETF).",
}
_NEXT: Final = Answer(text="What came is durable.", headers=_STATE)
_PROBLEMS: Final = (400, 408, 409, 412, 413, 415, 422, 423, 460, 507)

_APPENDED: Final = {204: _NEXT, 201: Answer(text="The upload is complete (IETF).", headers=_STATE)}
_CREATED: Final = {201: Answer(text="The upload exists; what came with it is durable.", headers=_MADE)}
_KNOWN: Final = {
    200: Answer(text="The upload is known.", headers=_STATE),
    204: Answer(text="The same (IETF)."),
}
_CREATION: Final = ("Upload-Length", "Upload-Metadata")
_APPENDING: Final = ("Upload-Offset", "Upload-Length", "Upload-Checksum")

OPERATIONS: Final = Operations("ingest")


def prepare(app: web.Application) -> None:
    """Put the headers on every answer that tus wants there."""
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
async def upload_options(request: web.Request) -> web.Response:
    """Versions, extensions and limits of tus 1.0 and of the IETF's resumable uploads."""
    await authorised(request)
    limit = request.app[CONFIG].server.max_recording_bytes
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


async def _create(request: web.Request) -> web.Response:
    tenant, actor = await authorised(request)
    tus.require_version(request.headers)
    vault = request.app[VAULT]
    wanted = tus.creation(request.headers, limit=request.app[CONFIG].server.max_recording_bytes)
    description = describe(wanted.metadata, wanted.unusable)
    with incoming(request) as (body, writer):
        if wanted.carries:
            require_room(0, await _checked(wanted.checksum, request, body), wanted.length)
        media = await media_in(description, body if wanted.carries else None)
        session, new = await vault.uploads.create(tenant, description, media, wanted.length, actor=actor)
        made = {"Location": location(request, tenant, session.recording.id)}
        if new or wanted.carries:
            async with begun(request, session, writer, new=new):
                if wanted.carries:
                    if new or not session.received:
                        await receive(request, session, body, dialect=_DIALECT)
                    made["Upload-Offset"] = str(await vault.uploads.settle(session))
        return web.Response(status=201, headers={**made, **_expiry(request, session)})


async def _append(request: web.Request) -> web.Response:
    tenant, actor = await authorised(request)
    tus.require_version(request.headers)
    vault = request.app[VAULT]
    vault.uploads.require_taking()
    wanted = tus.append(request.headers, limit=request.app[CONFIG].server.max_recording_bytes)
    with incoming(request) as (body, writer):
        adding = await _checked(wanted.checksum, request, body)
        async with vault.uploads.entered(
            tenant, path_upload(request), Verb.APPEND, writer, actor=actor, offset=wanted.offset
        ) as standing:
            session = standing.session
            if session is None:
                if await body.first():
                    raise UploadComplete("the upload is complete; nothing was added to it")
                return web.Response(status=204, headers={"Upload-Offset": str(standing.offset)})
            await vault.uploads.announce(session, wanted.length)
            require_room(standing.offset, adding, session.total)
            await receive(request, session, body, dialect=_DIALECT)
            offset = await vault.uploads.settle(session)
            return web.Response(status=204, headers={"Upload-Offset": str(offset), **_expiry(request, session)})


async def _checked(checksum: tus.Checksum | None, request: web.Request, body: Incoming) -> int | None:
    """Return how many bytes the request adds, None if unknown; a checksum is verified first."""
    if checksum is None:
        return request.content_length
    tus.require_checkable(request.content_length or 0)
    pieces = await body.whole(tus.require_checkable)
    checksum.require(pieces)
    return sum(map(len, pieces))


async def _head(request: web.Request) -> web.Response:
    tenant, actor = await authorised(request)
    # A HEAD need not state a version, so that a browser can look at the address.
    tus.require_version(request.headers, required=False)
    uploads = request.app[VAULT].uploads
    writer = Writer()
    async with uploads.entered(tenant, path_upload(request), Verb.ASK, writer, actor=actor) as standing:
        session, offset, total = standing.session, standing.offset, standing.total
        # A client whose last bytes were stored but whose answer was lost may only ask, and never send again.
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


async def _terminate(request: web.Request) -> web.Response:
    tenant, actor = await authorised(request)
    tus.require_version(request.headers)
    writer = Writer()
    await request.app[VAULT].uploads.terminate(tenant, path_upload(request), writer, actor=actor)
    return web.Response(status=204)


async def _by_protocol(request: web.Request, one: Handler, other: Handler) -> web.Response:
    """Answer as tus does with `one`, or as the IETF's protocol does, where that is spoken, with `other`."""
    return await (other if ietf.is_ietf(request.headers) else one)(request)


@OPERATIONS(f"POST {PLACE}", Act.INGEST, _CREATED, headers=_CREATION, problems=_PROBLEMS, asks=True)
async def create_upload(request: web.Request) -> web.Response:
    """Create an upload: tus 1.0, or the IETF's with Upload-Complete."""
    return await _by_protocol(request, _create, resumable.create)


@OPERATIONS(f"PUT {PLACE}", Act.INGEST, _CREATED, headers=_CREATION, problems=_PROBLEMS, asks=True)
async def put_upload(request: web.Request) -> web.Response:
    """Create an upload: the IETF's, with Upload-Complete."""
    return await resumable.create(request)


@OPERATIONS(f"HEAD {UPLOAD}", Act.INGEST, _KNOWN, problems=(410, 412, 423), asks=True)
async def upload_offset(request: web.Request) -> web.Response:
    """Ask where the upload goes on."""
    return await _by_protocol(request, _head, resumable.head)


@OPERATIONS(f"PATCH {UPLOAD}", Act.INGEST, _APPENDED, headers=_APPENDING, problems=(410, *_PROBLEMS), asks=True)
async def append_upload(request: web.Request) -> web.Response:
    """Add the next bytes."""
    return await _by_protocol(request, _append, resumable.append)


@OPERATIONS(
    f"DELETE {UPLOAD}",
    Act.INGEST,
    {204: Answer(text="The upload has ended.")},
    problems=(409, 410, 412, 423),
    asks=True,
)
async def terminate_upload(request: web.Request) -> web.Response:
    """Withdraw an unfinished upload: it ends as truncated, and is kept."""
    return await _by_protocol(request, _terminate, resumable.cancel)


@OPERATIONS(
    f"POST {UPLOAD}",
    Act.INGEST,
    _APPENDED,
    headers=("X-HTTP-Method-Override", *_APPENDING),
    problems=(405, 410, *_PROBLEMS),
    asks=True,
)
async def override_upload(request: web.Request) -> web.Response:
    """PATCH, HEAD or DELETE for clients that have only POST: X-HTTP-Method-Override."""
    await authorised(request)
    method = request.headers.get("X-HTTP-Method-Override", "").upper()
    handler = _ON_UPLOADS.get(method)
    if handler is None:
        raise web.HTTPMethodNotAllowed(request.method, list(_ON_UPLOADS))
    return await handler(request)


def _expiry(request: web.Request, session: IngestSession | None) -> Mapping[str, str]:
    """Return Upload-Expires of an unfinished upload (Expiration)."""
    if session is None or session.ended is not None:
        return {}
    return {"Upload-Expires": expires(request.app[VAULT].uploads.expires_at(session))}


_ON_UPLOADS: Final[Mapping[str, Handler]] = {
    "HEAD": upload_offset,
    "PATCH": append_upload,
    "DELETE": terminate_upload,
}
