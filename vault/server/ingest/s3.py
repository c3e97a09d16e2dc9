"""The S3 subset: routes, whole objects, and answers as S3 gives them.

Served below `/s3`, and at the root for clients that only accept a host and a port. The bucket is the tenant, the access
key a recorder token's id, the secret key its secret part. Path style only.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Final

from aiohttp import web

from vault.access.permissions import Act
from vault.errors import Invalid, NotFound, Unauthenticated, Unexpected, UploadStalled, VaultError
from vault.media.descriptor import parse_content_type
from vault.model import Media
from vault.protocol.s3 import requests as s3
from vault.protocol.s3.requests import S3Operation
from vault.protocol.s3.terms import Terms
from vault.server.context import VAULT, go_on
from vault.server.ingest import s3_multipart
from vault.server.ingest.s3_request import (
    DIALECT,
    Signed,
    arriving,
    call_start,
    expected_body,
    held,
    identified,
    signed,
    terms_of,
)
from vault.server.operation import Answer, Operations
from vault.server.problems import s3_problem
from vault.server.refusals import failing
from vault.services.recordings.search import extra_of
from vault.services.uploads.whole import Body
from vault.services.vault import Vault
from vault.telemetry import request_id

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
"""Names at the root that are the vault's own; a tenant with such a name is reached below /s3."""
_FOLDERS: Final = {"/s3": ("", ""), "": ("AtRoot", _RESERVED)}

OPERATIONS: Final = Operations("ingest")


async def handle(request: web.Request) -> web.StreamResponse:
    """Carry out one operation; errors are answered with S3's error documents."""
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
        return _refusal(request, Unexpected("something went wrong in the server; what was acknowledged before is safe"))
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
    # What the head shows to be refused is refused before its body.
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
    return parse_content_type(s3.audio_type(asked.head.header("content-type")), body.writer.first)


async def _keep(vault: Vault, asked: Signed, body: Body, length: int, wanted: Terms) -> None:
    """Store what has come of a body that broke off and is known to be the recorder's."""
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
        **s3.rclone_headers(extra_of(vault.keyring, found.recording)),
    }
    return web.Response(headers=headers)


async def _bucket(_: web.Request, asked: Signed) -> web.Response:
    """HeadBucket: 200 if the tenant exists and is this recorder's."""
    return web.Response(headers={"x-amz-bucket-region": asked.claim.scope.split("/")[1]})


async def _location(_: web.Request, asked: Signed) -> web.Response:
    """GetBucketLocation: the region that the recorder signs for."""
    region = asked.claim.scope.split("/")[1]
    return web.Response(body=s3.location(region), content_type="application/xml")


_HANDLERS: Final[Mapping[S3Operation, Callable[[web.Request, Signed], Awaitable[web.Response]]]] = {
    S3Operation.PUT_OBJECT: _put,
    S3Operation.HEAD_OBJECT: _head_object,
    S3Operation.HEAD_BUCKET: _bucket,
    S3Operation.GET_LOCATION: _location,
    **s3_multipart.HANDLERS,
}

for _folder, (_suffix, _but) in _FOLDERS.items():
    for (_method, _keyed), (_name, _summary) in _SUMMARIES.items():
        OPERATIONS(
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
