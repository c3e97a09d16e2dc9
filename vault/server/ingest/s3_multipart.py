"""S3 uploads in parts; the upload's id is the recording's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import replace
from typing import Final

from aiohttp import web

from vault.access.permissions import Act
from vault.errors import Conflict, Invalid, NotFound, UploadStalled
from vault.ids import RecordingId
from vault.media.descriptor import parse_content_type
from vault.model import Recording, RecordingState
from vault.protocol.s3 import requests as s3
from vault.protocol.s3.body import S3Body, whole_checks
from vault.protocol.s3.listing import ListedPart, Unfinished, parts_page, uploads_page, uploads_query
from vault.protocol.s3.requests import S3Operation
from vault.server.context import CONFIG, VAULT, possible_id
from vault.server.ingest.s3_request import (
    DIALECT,
    Signed,
    arriving,
    call_start,
    expected_body,
    held,
    identified,
    terms_of,
    xml,
)
from vault.services.uploads.parts import Upload
from vault.services.uploads.whole import Whole
from vault.services.vault import Vault

_TRIES: Final = 3


async def _create(request: web.Request, asked: Signed) -> web.Response:
    """CreateMultipartUpload: begins a recording; if its name is taken, under a further one, `~2` and so on."""
    vault = request.app[VAULT]
    declared = s3.audio_type(asked.head.header("content-type")) or s3.type_by_name(asked.key)
    if declared is None:
        raise Invalid(
            "an upload in parts must state its format before its first byte",
            hint="send a Content-Type such as audio/wav, or give the key an extension such as .wav",
            s3="InvalidArgument",
        )
    wanted = terms_of(vault, asked, begins=True)
    if wanted.only_new:
        async with _only_new(vault, asked):
            pass
    call = await call_start(vault, asked, parse_content_type(declared), wanted)
    upload = None
    for _ in range(_TRIES):
        call = replace(call, call_key=await vault.call_keys.next_free(asked.tenant, asked.call_key))
        try:
            upload = await vault.parts.begin(call, actor=asked.actor)
            break
        except Conflict:  # another upload took the name meanwhile
            continue
    if upload is None:
        raise Conflict("other uploads of this call begin at the same time")
    await held(vault, asked, upload, wanted)
    members = [("Bucket", asked.tenant), ("Key", asked.key), ("UploadId", upload)]
    return xml("InitiateMultipartUploadResult", members, {"Recording-Id": upload})


def _identifier(asked: Signed) -> RecordingId:
    found = possible_id(asked.parameters["uploadId"], "rec")
    if found is None:
        raise NotFound("there is no such upload", s3="NoSuchUpload")
    return RecordingId(found)


async def _row(vault: Vault, asked: Signed) -> Recording:
    identifier = _identifier(asked)
    look_up = vault.catalog.recording
    try:
        return await vault.access.own(asked.actor, Act.INGEST, look_up, identifier, tenant=asked.tenant)
    except NotFound as error:
        raise NotFound(error.message, s3="NoSuchUpload") from error


async def _found(vault: Vault, asked: Signed) -> Upload | Recording:
    """Return the upload, or the recording it has become; NotFound, logged, if the tenant has no such upload.

    Unavailable if another node has it, which the recorder's next attempt may reach.
    """
    try:
        return vault.parts.find(_identifier(asked), tenant=asked.tenant)
    except NotFound:
        row = await _row(vault, asked)
        if row.state is RecordingState.OPEN and vault.ingest.live(row.id) is None:
            vault.ingest.require_here(row)
        return row


async def _on_this_node(vault: Vault, asked: Signed) -> Upload:
    """Return the upload as `_found` does; NotFound also if it was completed or aborted."""
    found = await _found(vault, asked)
    if isinstance(found, Recording):
        raise NotFound("the upload was completed or aborted", s3="NoSuchUpload")
    return found


async def _part(request: web.Request, asked: Signed) -> web.Response:
    """UploadPart: 200 once the part is durable."""
    vault = request.app[VAULT]
    number = s3.part_number(asked.parameters["partNumber"])
    terms_of(vault, asked, begins=False)
    upload = await _on_this_node(vault, asked)
    expected = expected_body(request, asked, limit=vault.parts.room(upload, number))
    async with vault.parts.receive(upload, number, size=expected.announced) as sink:
        async with aclosing(arriving(request, expected)) as pieces:
            async for piece in pieces:
                await sink.write(piece)
        part = await sink.keep(expected.digests)
    vault.metrics.ingest_bytes.labels(DIALECT).inc(part.size)
    return web.Response(headers={"ETag": f'"{part.etag}"', **expected.answers})


async def _complete(request: web.Request, asked: Signed) -> web.Response:
    """CompleteMultipartUpload: 200 once the whole recording and its end are durable, also when repeated."""
    vault = request.app[VAULT]
    expected = expected_body(request, asked, limit=s3.MAX_XML_BYTES, audio=False)
    named = s3.parse_complete(await _document(request, expected))
    found = await _found(vault, asked)
    wanted = terms_of(vault, asked, begins=False)
    if isinstance(found, Upload):
        checks = whole_checks(asked.head, parts=len(named))
        async with _only_new(vault, asked) if wanted.only_new else nullcontext():
            await vault.parts.complete(found, named, checks=checks)
        whole: Whole | None = await vault.objects.ended(found.session)
    else:  # its answer may have been lost
        whole = await vault.objects.whole(found)
    if whole is None:
        raise NotFound("there is no such upload, or it was aborted", s3="NoSuchUpload")
    described = identified(whole)
    members = [
        ("Location", asked.head.path),
        ("Bucket", asked.tenant),
        ("Key", asked.key),
        ("ETag", described["ETag"]),
    ]
    return xml("CompleteMultipartUploadResult", members, described)


def _only_new(vault: Vault, asked: Signed) -> AbstractAsyncContextManager[None]:
    """Hold the key's lock, if the request may only create an object and not replace one."""
    own = asked.parameters.get("uploadId")
    return vault.objects.only_new(
        asked.tenant,
        asked.call_key,
        object_key=asked.object_key,
        but=None if own is None else RecordingId(own),
    )


async def _document(request: web.Request, expected: S3Body) -> bytes:
    """Return a body that is not audio; UploadStalled unless it is complete within `server.idle_timeout`."""
    document = bytearray()
    try:
        async with (
            asyncio.timeout(request.app[CONFIG].server.idle_timeout.total_seconds()),
            aclosing(arriving(request, expected)) as pieces,
        ):
            async for piece in pieces:
                document += piece
    except TimeoutError as error:
        raise UploadStalled("the request's body did not arrive; nothing was done", hint="send it again") from error
    return bytes(document)


async def _abort(request: web.Request, asked: Signed) -> web.Response:
    """AbortMultipartUpload: the recording ends truncated, with everything that was acknowledged."""
    vault = request.app[VAULT]
    await vault.parts.abort(await _on_this_node(vault, asked), actor=asked.actor)
    return web.Response(status=204)


async def _list(request: web.Request, asked: Signed) -> web.Response:
    """ListParts: the durable parts of an upload."""
    upload = await _on_this_node(request.app[VAULT], asked)
    parts = [ListedPart(number=number, etag=part.etag, size=part.size) for number, part in sorted(upload.parts.items())]
    members = [("Bucket", asked.tenant), ("Key", asked.key), ("UploadId", _identifier(asked))]
    return xml("ListPartsResult", [*members, *parts_page(asked.parameters, parts)])


async def _unfinished(request: web.Request, asked: Signed) -> web.Response:
    """ListMultipartUploads: those that this token began and this process can continue."""
    vault = request.app[VAULT]
    there = [
        Unfinished(key=upload.key, upload=upload.session.recording.id, initiated=upload.session.recording.created_at)
        for upload in vault.parts.unfinished(asked.tenant, begun_by=asked.actor.token_id)
    ]
    page = uploads_page(asked.tenant, uploads_query(asked.parameters), there, owner=asked.actor.token_id)
    return xml("ListMultipartUploadsResult", page)


HANDLERS: Final[Mapping[S3Operation, Callable[[web.Request, Signed], Awaitable[web.Response]]]] = {
    S3Operation.CREATE_UPLOAD: _create,
    S3Operation.UPLOAD_PART: _part,
    S3Operation.COMPLETE_UPLOAD: _complete,
    S3Operation.ABORT_UPLOAD: _abort,
    S3Operation.LIST_PARTS: _list,
    S3Operation.LIST_UPLOADS: _unfinished,
}
