"""One S3 request: who signed it, what it asks for, and how its body is checked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from vault.access.permissions import Act
from vault.errors import Invalid, NotFound, UploadStalled
from vault.ids import RecordingId, TenantId, TokenId, call_key_of
from vault.model import Media, Principal
from vault.protocol.s3 import requests as s3
from vault.protocol.s3.body import S3Body, plan_body
from vault.protocol.s3.requests import S3Operation
from vault.protocol.s3.sigv4 import ChunkSigner, Claim, RequestHead, is_signed, read_claim, verify
from vault.protocol.s3.terms import Terms, terms
from vault.server.context import CONFIG, HOLDER, VAULT, came_from, checked_tenant, claims, possible_id, require_uncoded
from vault.server.ingest.body import BodyPieces
from vault.services.ingest.sessions import CallStart
from vault.services.uploads.whole import Whole
from vault.services.vault import Vault

DIALECT: Final = "s3"
FOLDER: Final = "/s3/"
"""The path of the protocol, which also answers signed requests at the root."""

_OWN_KEY: Final = "x-amz-meta-call-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A request with a valid signature, of a recorder of the bucket's tenant."""

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
        """The headers and the query parameters, which in a presigned address may replace headers."""
        return [*self.head.headers, *self.parameters.items()]

    @property
    def call_key(self) -> str:
        """The call key of the object."""
        return s3.call_key_for(self.key) if self.own_key is None else call_key_of(self.own_key)

    @property
    def object_key(self) -> str:
        """The object key as it is stored and shown."""
        return s3.object_key(self.key)


_SIGNED = web.RequestKey("s3", Signed)


async def signed(request: web.Request) -> Signed:
    """Return the signed request; checked once a request, before its body is read."""
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
        operation=s3.operation(request.method, key, parameters, copies=head.header("x-amz-copy-source") is not None),
        parameters=dict(parameters),
    )
    request[_SIGNED] = found
    return found


def _head(request: web.Request) -> RequestHead:
    path, _, query = request.raw_path.partition("?")
    headers = [(name, value) for name, value in request.headers.items()]
    return RequestHead(method=request.method, path=path, query=query, headers=headers)


def _key(request: web.Request) -> str:
    """Return the object key as the client wrote it: the router would have resolved `//` and `..`."""
    path = request.raw_path.partition("?")[0]
    if request.path.startswith(FOLDER):
        path = path.removeprefix(FOLDER[:-1])
    return unquote(path.removeprefix("/").partition("/")[2], errors="surrogateescape")


def xml(root: str, members: s3.Tree, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer with one XML document."""
    return web.Response(body=s3.render(root, members), content_type="application/xml", headers=headers)


def identified(found: Whole) -> Mapping[str, str]:
    """Return the headers that identify the object to its client, and the recording to people."""
    return {"ETag": f'"{found.etag}"', "Recording-Id": found.recording.id}


def expected_body(request: web.Request, asked: Signed, *, limit: int | None = None, audio: bool = True) -> S3Body:
    """Return the check of the request's body; refusals that do not need the body are raised here.

    Without `audio` the head's checksums are not the body's.
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
    """Return what the request states about its call; Invalid if it is to be kept longer than allowed."""
    stated, started = s3.meta_facts(asked.said)
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
    """Return what the request asks for besides storing; Invalid for terms that the vault would not keep."""
    return terms(asked.said, begins=begins, now=vault.clock.now())


async def held(vault: Vault, asked: Signed, recording: RecordingId, wanted: Terms) -> None:
    """Return once the legal hold that the request asks for is in force."""
    if wanted.legal_hold:
        await vault.access.authorise(asked.actor, Act.HOLD_OWN, tenant=asked.tenant, target=recording)
        await vault.holds.lock(recording, asked.tenant, actor=asked.actor)
