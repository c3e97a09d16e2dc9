"""The S3 subset: signed requests, uploads of whole objects and in parts, and S3's own answers.

Served below `/s3`, and at the root for clients that only accept a host and a port. The bucket is the tenant, the access
key a recorder token's id, the secret key its secret part. Path style only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from vault.access.permissions import Act
from vault.errors import Conflict, Invalid, NotFound, Unauthenticated, Unexpected, UploadStalled, VaultError
from vault.ids import RecordingId, TenantId, TokenId, call_key_of
from vault.media.descriptor import parse_content_type
from vault.model import Media, Principal, Recording, RecordingState
from vault.protocol.s3 import requests
from vault.protocol.s3.body import S3Body, plan_body, whole_checks
from vault.protocol.s3.listing import ListedPart, Unfinished, parts_page, uploads_page, uploads_query
from vault.protocol.s3.requests import S3Operation, Terms, terms
from vault.protocol.s3.sigv4 import ChunkSigner, Claim, RequestHead, is_signed, read_claim, verify
from vault.server.context import (
    CONFIG,
    HOLDER,
    VAULT,
    came_from,
    checked_tenant,
    claims,
    go_on,
    possible_id,
    require_uncoded,
)
from vault.server.ingest.body import BodyPieces
from vault.server.operation import Answer, Operations
from vault.server.problems import s3_problem
from vault.server.refused_request import failing
from vault.services.ingest.sessions import CallStart
from vault.services.recordings.search import extra_of
from vault.services.uploads.parts import Upload
from vault.services.uploads.whole import Body, Whole
from vault.services.vault import Vault
from vault.telemetry import request_id

# -- signed requests ----------------------------------------------------------------------------------------------

DIALECT: Final = "s3"
FOLDER: Final = "/s3/"
"""The path of the protocol, which also answers signed requests at the root."""

_OWN_KEY: Final = "x-amz-meta-call-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A request with a valid signature by a recorder of the bucket's tenant."""

    head: RequestHead
    claim: Claim
    signing_key: bytes
    actor: Principal
    tenant: TenantId
    key: str
    """The object key; empty for the bucket itself."""
    operation: S3Operation
    parameters: Mapping[str, str]

    @property
    def own_key(self) -> str | None:
        """The call key that the request states in a header of its own, besides the object key."""
        return next((value for name, value in self.said if name.lower() == _OWN_KEY), None)

    @property
    def said(self) -> Sequence[tuple[str, str]]:
        """The headers, and the query parameters, which replace headers in a presigned address."""
        return [*self.head.headers, *self.parameters.items()]

    @property
    def call_key(self) -> str:
        """The call key of the object."""
        return requests.call_key_for(self.key) if self.own_key is None else call_key_of(self.own_key)

    @property
    def object_key(self) -> str:
        """The object key as it is stored and shown."""
        return requests.object_key(self.key)


_SIGNED = web.RequestKey("s3", Signed)


async def signed(request: web.Request) -> Signed:
    """Return the signed request, which is checked once, before its body is read."""
    known: Signed | None = request.get(_SIGNED)
    if known is not None:
        return known
    vault = request.app[VAULT]
    head = _head(request)
    if not is_signed(head) and not request.path.startswith(FOLDER):
        raise web.HTTPNotFound  # an unsigned request at the root is not S3's
    claim = read_claim(head)
    parameters = head.parameters()

    async def began(token: TokenId) -> bool:
        upload = possible_id(dict(parameters).get("uploadId", ""), "rec")
        return upload is not None and await vault.begun.upload(token, RecordingId(upload))

    claims(request, claim.access_key)
    actor, secret = await vault.access.signing_secret(claim.access_key, began=began)
    signing_key = verify(claim, head, secret, now=vault.clock.now())
    came_from(request, actor)
    request[HOLDER] = actor.token_id
    key = _key(request)
    try:
        tenant = checked_tenant(request.match_info["bucket"])
        await vault.access.authorise(actor, Act.INGEST, tenant=tenant, target=tenant)
    except (Invalid, NotFound) as error:
        raise NotFound(error.message, s3="NoSuchBucket") from error
    require_uncoded(request)
    found = Signed(
        head=head,
        claim=claim,
        signing_key=signing_key,
        actor=actor,
        tenant=tenant,
        key=key,
        operation=requests.operation(
            request.method, key, parameters, copies=head.header("x-amz-copy-source") is not None
        ),
        parameters=dict(parameters),
    )
    request[_SIGNED] = found
    return found


def _head(request: web.Request) -> RequestHead:
    path, _, query = request.raw_path.partition("?")
    headers = [(name, value) for name, value in request.headers.items()]
    return RequestHead(method=request.method, path=path, query=query, headers=headers)


def _key(request: web.Request) -> str:
    """Return the object key as the client wrote it; the router's path has `//` and `..` resolved."""
    path = request.raw_path.partition("?")[0]
    if request.path.startswith(FOLDER):
        path = path.removeprefix(FOLDER[:-1])
    return unquote(path.removeprefix("/").partition("/")[2], errors="surrogateescape")


def xml(root: str, members: requests.Tree, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer with one XML document."""
    return web.Response(body=requests.render(root, members), content_type="application/xml", headers=headers)


def identified(found: Whole) -> Mapping[str, str]:
    """Return the headers that identify the object to its client, and the recording to people."""
    return {"ETag": f'"{found.etag}"', "Recording-Id": found.recording.id}


def expected_body(request: web.Request, asked: Signed, *, limit: int | None = None, audio: bool = True) -> S3Body:
    """Return the checker of the request's body; refuses here what can be refused without the body.

    Without `audio`, the checksums in the headers do not cover this body.
    """
    most = request.app[CONFIG].server.max_recording_bytes
    return S3Body(
        plan_body(asked.head, asked.claim, audio=audio),
        signer=ChunkSigner(asked.claim, asked.signing_key),
        limit=most if limit is None else min(limit, most),
    )


async def arriving(request: web.Request, body: S3Body) -> AsyncGenerator[bytes, None]:
    """Yield the decoded body in pieces of at most 256 KiB and check it at its end; UploadStalled if nothing comes."""
    source = BodyPieces(request)
    try:
        async for data in source:
            for piece in body.feed(data):
                yield piece
    except UploadStalled as error:
        raise UploadStalled("nothing arrived for too long, so the upload was closed", hint="send it again") from error
    finally:
        source.close()
    body.finish()


async def call_start(vault: Vault, asked: Signed, media: Media, wanted: Terms) -> CallStart:
    """Return the call that the request states; Invalid if it asks for a longer retention than allowed."""
    stated, started = requests.meta_facts(asked.said)
    if wanted.keep_until is not None:
        await vault.tenants.check_kept(asked.tenant, wanted.keep_until, started=started)
    return CallStart(
        tenant=asked.tenant,
        call_key=asked.call_key,
        media=media,
        facts=stated,
        started_at=started,
        retention=await vault.tenants.retention(asked.tenant),
        object_key=asked.object_key,
        keep_until=wanted.keep_until,
    )


def terms_of(vault: Vault, asked: Signed, *, begins: bool) -> Terms:
    """Return the retention and hold that the request asks for; Invalid for terms that the vault does not support."""
    return terms(asked.said, begins=begins, now=vault.clock.now())


async def held(vault: Vault, asked: Signed, recording: RecordingId, wanted: Terms) -> None:
    """Return once the legal hold that the request asks for is in force."""
    if wanted.legal_hold:
        await vault.access.authorise(asked.actor, Act.HOLD_OWN, tenant=asked.tenant, target=recording)
        await vault.holds.lock(recording, asked.tenant, actor=asked.actor)


# -- uploads in parts ---------------------------------------------------------------------------------------------

_TRIES: Final = 3


async def _create(request: web.Request, asked: Signed) -> web.Response:
    """CreateMultipartUpload: begins a recording; if its name is taken, under a further one, `~2` and so on."""
    vault = request.app[VAULT]
    declared = requests.audio_type(asked.head.header("content-type")) or requests.type_by_name(asked.key)
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
    """Return the upload, or its finished recording; NotFound, logged, if the tenant has no such upload.

    Unavailable if another node has it, because the recorder's next attempt may reach that node.
    """
    try:
        return vault.parts.find(_identifier(asked), tenant=asked.tenant)
    except NotFound:
        row = await _row(vault, asked)
        if row.state is RecordingState.OPEN and vault.ingest.live(row.id) is None:
            vault.ingest.require_here(row)
        return row


async def _on_this_node(vault: Vault, asked: Signed) -> Upload:
    """Return the upload like `_found`; NotFound also if it was completed or aborted."""
    found = await _found(vault, asked)
    if isinstance(found, Recording):
        raise NotFound("the upload was completed or aborted", s3="NoSuchUpload")
    return found


async def _part(request: web.Request, asked: Signed) -> web.Response:
    """UploadPart: 200 once the part is durable."""
    vault = request.app[VAULT]
    number = requests.part_number(asked.parameters["partNumber"])
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
    expected = expected_body(request, asked, limit=requests.MAX_XML_BYTES, audio=False)
    named = requests.parse_complete(await _document(request, expected))
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
    """AbortMultipartUpload: the recording ends as truncated, with every acknowledged part."""
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
    """ListMultipartUploads: the uploads that this token began and this process can continue."""
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


# -- routes -------------------------------------------------------------------------------------------------------

logger = logging.getLogger(__name__)

_SUMMARIES: Final = {
    ("put", True): ("s3Put", "PutObject, or UploadPart with partNumber and uploadId"),
    ("post", True): ("s3Post", "CreateMultipartUpload with uploads, CompleteMultipartUpload with uploadId"),
    ("delete", True): ("s3Delete", "AbortMultipartUpload, with uploadId"),
    ("get", True): ("s3Get", "ListParts, with uploadId; HEAD is HeadObject"),
    ("get", False): (
        "s3GetBucket",
        "GetBucketLocation with location, ListMultipartUploads with uploads; HEAD is HeadBucket",
    ),
    ("put", False): ("s3PutBucket", "Refused: a tenant is added over /v1/tenants"),
}
_RESERVED: Final = r"(?!(?:v1|s3|log|healthz|readyz|metrics)(?:/|$))"
"""The vault's own names at the root; a tenant with such a name can be reached only below /s3."""
_FOLDERS: Final = {"/s3": ("", ""), "": ("AtRoot", _RESERVED)}

OPERATIONS: Final = Operations("ingest")


async def handle(request: web.Request) -> web.StreamResponse:
    """Carry out one operation; answer errors with S3's error documents."""
    try:
        asked = await signed(request)
        go_on(request)
        answer = await _HANDLERS[asked.operation](request, asked)
    except VaultError as error:
        return _refusal(request, error)
    except (ConnectionError, web.RequestPayloadError):
        return _refusal(request, Invalid("the request ended before its body was complete", s3="IncompleteBody"))
    except web.HTTPException:
        raise
    except Exception as error:  # the outermost handler of this protocol
        logger.exception("request failed unexpectedly", exc_info=error)
        return _refusal(request, Unexpected("the server failed unexpectedly; what was acknowledged before is safe"))
    answer.headers["x-amz-request-id"] = request_id.get() or ""
    return answer


def _refusal(request: web.Request, error: VaultError) -> web.Response:
    request.app[VAULT].metrics.ingest_refused.labels(error.code).inc()
    failing(request, error, dialect=DIALECT)
    unread = request.can_read_body and not request.content.at_eof()
    return s3_problem(error, request_id=request_id.get() or "", head=request.method == "HEAD", close=unread)


# -- whole objects --------------------------------------------------------------------------------------------------


async def _put(request: web.Request, asked: Signed) -> web.Response:
    """PutObject: the whole body is checked before any of it is recorded."""
    vault = request.app[VAULT]
    expected, wanted = expected_body(request, asked), terms_of(vault, asked, begins=True)
    # A request that its headers already show to be refused is refused before its body.
    await call_start(vault, asked, parse_content_type("audio/basic"), wanted)
    if wanted.only_new:
        async with vault.objects.only_new(asked.tenant, asked.call_key, object_key=asked.object_key):
            pass
    async with vault.objects.body(asked.tenant, size=expected.announced) as body:
        try:
            async with aclosing(arriving(request, expected)) as pieces:
                async for piece in pieces:
                    await body.writer.write(piece)
        except (ConnectionError, web.RequestPayloadError, UploadStalled, Unauthenticated):
            await _keep(vault, asked, body, expected.vouched, wanted)
            raise
        if not expected.size:
            raise Invalid("the upload has no audio", s3="InvalidArgument")
        call = await call_start(vault, asked, _media(asked, body), wanted)
        found = await vault.objects.put(
            call,
            body,
            sha256=expected.sha256,
            etag=expected.md5.hex(),
            actor=asked.actor,
            only_new=wanted.only_new,
        )
    await held(vault, asked, found.recording.id, wanted)
    vault.metrics.ingest_bytes.labels(DIALECT).inc(expected.size)
    return web.Response(headers={**identified(found), **expected.answers})


def _media(asked: Signed, body: Body) -> Media:
    return parse_content_type(requests.audio_type(asked.head.header("content-type")), body.writer.first)


async def _keep(vault: Vault, asked: Signed, body: Body, length: int, wanted: Terms) -> None:
    """Store the beginning of a body that broke off, if it is proved to be the recorder's."""
    if not length:
        return
    try:
        call = await call_start(vault, asked, _media(asked, body), wanted)
        await vault.objects.keep_beginning(call, body, length=length, actor=asked.actor)
    except VaultError as error:
        logger.info("the beginning of an upload was not kept", extra={"fields": {"error": error.code}})
    else:
        vault.metrics.ingest_bytes.labels(DIALECT).inc(length)


async def _head_object(request: web.Request, asked: Signed) -> web.Response:
    """HeadObject: 200 for a complete recording."""
    vault = request.app[VAULT]
    object_key = asked.object_key if asked.own_key is None else None
    found = await vault.objects.find(asked.tenant, asked.call_key, object_key=object_key)
    if found is None:
        raise NotFound("there is no complete recording under this key", s3="NoSuchKey")
    headers = {
        **identified(found),
        "Content-Length": str(found.size),
        "Last-Modified": found.recording.started_at.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        **requests.rclone_headers(extra_of(vault.keyring, found.recording)),
    }
    return web.Response(headers=headers)


async def _bucket(_: web.Request, asked: Signed) -> web.Response:
    """HeadBucket: 200 if the tenant exists and is this recorder's."""
    return web.Response(headers={"x-amz-bucket-region": asked.claim.scope.split("/")[1]})


async def _location(_: web.Request, asked: Signed) -> web.Response:
    """GetBucketLocation: the region that the recorder signs for."""
    region = asked.claim.scope.split("/")[1]
    return web.Response(body=requests.location(region), content_type="application/xml")


_HANDLERS: Final[Mapping[S3Operation, Callable[[web.Request, Signed], Awaitable[web.Response]]]] = {
    S3Operation.PUT_OBJECT: _put,
    S3Operation.HEAD_OBJECT: _head_object,
    S3Operation.HEAD_BUCKET: _bucket,
    S3Operation.GET_LOCATION: _location,
    **HANDLERS,
}

for _folder, (_suffix, _but) in _FOLDERS.items():
    for (_method, _keyed), (_name, _summary) in _SUMMARIES.items():
        OPERATIONS.raw(
            f"{_method} {_folder}/{{bucket}}" + ("/{key}" if _keyed else ""),
            Act.INGEST,
            {200: Answer(text="As S3 answers; every acknowledged byte is durable.")},
            name=_name + _suffix,
            summary=f"S3: {_summary}",
            uploads=_method == "put" and _keyed,
            signed=True,
            problems=(400, 404, 409, 501),
            pattern=f"{_folder}/{{bucket:{_but}[^/]+}}" + ("/{key:.*}" if _keyed else ""),
            asks=True,
        )(handle)
