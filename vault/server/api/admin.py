"""Certificates, tenants, tokens and the audit trail over HTTP."""

from __future__ import annotations

from aiohttp import web

from vault.access.permissions import Act
from vault.certificates.canonical import canonical_json
from vault.errors import Invalid, NotFound
from vault.ids import CertificateId, RecordingId, TokenId
from vault.model import Principal, StoredCertificate, Tenant
from vault.server import views
from vault.server.api.names import answer
from vault.server.api.recordings import scope
from vault.server.bodies import (
    AddTenant,
    Approve,
    ChangeTenant,
    EndContract,
    IssueToken,
    Page,
    Reindex,
)
from vault.server.context import (
    VAULT,
    body,
    checked_id,
    checked_tenant,
    path_tenant,
    possible_id,
    principal,
    query,
    query_id,
    whole_id,
)
from vault.services.tenants.tenants import UNCHANGED


async def _certificate(request: web.Request) -> StoredCertificate:
    vault = request.app[VAULT]
    actor = await principal(request)
    wanted = request.match_info["certificate"].removesuffix(".jws")
    await vault.access.authorise(actor, Act.CERTIFICATE_READ, target=possible_id(wanted, "cert"))
    identifier = checked_id(await whole_id(request, actor, wanted, "cert"), "cert", "certificate")
    look_up = vault.catalog.certificate
    return await vault.access.own(actor, Act.CERTIFICATE_READ, look_up, CertificateId(identifier))


async def certificate(request: web.Request) -> web.Response:
    """GET /v1/certificates/{id} and {id}.jws."""
    found = await _certificate(request)
    jws = await request.app[VAULT].certificates.jws(found)
    if request.match_info["certificate"].endswith(".jws"):
        return web.Response(text=jws, content_type="application/jose")
    return web.json_response(views.certificate(found, jws))


async def certificate_objects(request: web.Request) -> web.Response:
    """GET /v1/certificates/{id}/objects: the list that the certificate counts, as the bytes that are checked."""
    found = await _certificate(request)
    listed = await request.app[VAULT].certificates.objects(found)
    return web.Response(body=canonical_json(listed), content_type="application/json")


async def certificates(request: web.Request) -> web.Response:
    """GET /v1/certificates."""
    vault = request.app[VAULT]
    actor = await principal(request)
    wanted = query(request, Page)
    asked = checked_tenant(wanted.tenant) if wanted.tenant else None
    await vault.access.authorise(actor, Act.CERTIFICATE_READ, tenant=asked)
    recording = query_id(wanted.recording, "rec", "recording")
    before = query_id(wanted.before, "cert", "before")
    page = await vault.catalog.certificates(
        tenant=scope(wanted.tenant, actor.tenant),
        recording=RecordingId(recording) if recording else None,
        before=CertificateId(before) if before else None,
        limit=wanted.limit,
    )
    more = page[-1].id if len(page) == wanted.limit else None
    texts = await vault.certificates.texts(page)
    shown = [views.certificate(item, jws) for item, jws in zip(page, texts, strict=True)]
    return web.json_response({"certificates": shown, "before": more})


async def issuer_key(request: web.Request) -> web.Response:
    """GET /v1/issuer-key: the public key that verifies certificates; no token needed."""
    return web.Response(text=request.app[VAULT].certificates.issuer_public_pem, content_type="application/x-pem-file")


async def tenants(request: web.Request) -> web.Response:
    """GET /v1/tenants."""
    vault = request.app[VAULT]
    actor = await principal(request)
    await vault.access.authorise(actor, Act.TENANT_READ)
    found = [item for item in await vault.tenants.all() if actor.tenant in (None, item.id)]
    return await answer(request, {"tenants": [views.tenant(await vault.tenants.view(item)) for item in found]})


async def _tenant(request: web.Request, act: Act) -> tuple[Tenant, Principal]:
    """Return the tenant in the path, and who asks, once they may do `act` with it; NotFound, logged."""
    vault = request.app[VAULT]
    actor = await principal(request)
    identifier = path_tenant(request)
    await vault.access.authorise(actor, act, tenant=identifier, target=identifier)
    try:
        return await vault.catalog.tenant(identifier), actor
    except NotFound:
        raise await vault.access.none_of_its_own(actor, act, identifier) from None


async def tenant(request: web.Request) -> web.Response:
    """GET /v1/tenants/{tenant}."""
    found, _ = await _tenant(request, Act.TENANT_READ)
    return await answer(request, views.tenant(await request.app[VAULT].tenants.view(found)))


async def add_tenant(request: web.Request) -> web.Response:
    """POST /v1/tenants."""
    vault = request.app[VAULT]
    actor = await principal(request)
    await vault.access.authorise(actor, Act.TENANT_ADMIN)
    wanted = await body(request, AddTenant)
    added = await vault.tenants.add(
        identifier=checked_tenant(wanted.id),
        name=wanted.name,
        controller=wanted.controller,
        contact=wanted.contact,
        retention=wanted.retention,
        metadata_retention=wanted.metadata_retention,
        numbering_region=wanted.numbering_region,
        keep_dtmf=wanted.keep_dtmf,
        safeguarding_webhook=wanted.safeguarding_webhook,
        origins=wanted.origins,
        actor=actor,
    )
    return await answer(
        request,
        views.tenant(await vault.tenants.view(added)),
        status=201,
        headers={"Location": f"/v1/tenants/{added.id}"},
    )


async def change_tenant(request: web.Request) -> web.Response:
    """PUT /v1/tenants/{tenant}: what the body names, of its retention, that of metadata, and its webhook."""
    vault = request.app[VAULT]
    found, actor = await _tenant(request, Act.TENANT_ADMIN)
    wanted = await body(request, ChangeTenant)
    given = wanted.model_fields_set
    if not given:
        raise Invalid("there is nothing to change", hint="retention, metadata_retention or safeguarding_webhook")
    changed = await vault.tenants.change(
        found.id,
        retention=wanted.retention if "retention" in given else UNCHANGED,
        metadata_retention=wanted.metadata_retention if "metadata_retention" in given else UNCHANGED,
        safeguarding_webhook=wanted.safeguarding_webhook if "safeguarding_webhook" in given else UNCHANGED,
        numbering_region=UNCHANGED if wanted.numbering_region is None else wanted.numbering_region,
        keep_dtmf=UNCHANGED if wanted.keep_dtmf is None else wanted.keep_dtmf,
        origins=UNCHANGED if wanted.origins is None else wanted.origins,
        actor=actor,
    )
    return await answer(request, views.tenant(await vault.tenants.view(changed)))


async def reindex(request: web.Request) -> web.Response:
    """POST /v1/tenants/{tenant}/reindex: one page of its recordings."""
    vault = request.app[VAULT]
    actor = await principal(request)
    identifier = path_tenant(request)
    await vault.access.authorise(actor, Act.TENANT_ADMIN, tenant=identifier, target=identifier)
    wanted = await body(request, Reindex)
    before = None if wanted.before is None else RecordingId(checked_id(wanted.before, "rec", "recording"))
    done = await vault.reindexing.page(identifier, before=before, actor=actor)
    return web.json_response({"looked_at": done.looked_at, "changed": done.changed, "before": done.before})


async def request_offboarding(request: web.Request) -> web.Response:
    """POST /v1/tenants/{tenant}/offboard: the first person says when the contract ends."""
    vault = request.app[VAULT]
    found, actor = await _tenant(request, Act.TENANT_OFFBOARD)
    wanted = await body(request, EndContract)
    asked = await vault.tenants.request_offboarding(found.id, contract_end=wanted.contract_end, actor=actor)
    return await answer(request, views.tenant(await vault.tenants.view(asked)), status=202)


async def decide_offboarding(request: web.Request) -> web.Response:
    """POST /v1/tenants/{tenant}/offboard/approve: the other of dpo and operator decides."""
    vault = request.app[VAULT]
    found, actor = await _tenant(request, Act.TENANT_OFFBOARD)
    wanted = await body(request, Approve)
    decided = await vault.tenants.decide_offboarding(found.id, approve=wanted.approve, shown=wanted.shown, actor=actor)
    return await answer(request, views.tenant(await vault.tenants.view(decided)))


async def tokens(request: web.Request) -> web.Response:
    """GET /v1/tokens."""
    vault = request.app[VAULT]
    actor = await principal(request)
    wanted = query(request, Page)
    asked = checked_tenant(wanted.tenant) if wanted.tenant else None
    await vault.access.authorise(actor, Act.TOKEN_ADMIN, tenant=asked)
    found = await vault.catalog.tokens(tenant=scope(wanted.tenant, actor.tenant))
    return await answer(request, {"tokens": [views.token(item) for item in found]})


async def issue_token(request: web.Request) -> web.Response:
    """POST /v1/tokens: the only answer that ever contains the secret."""
    vault = request.app[VAULT]
    actor = await principal(request)
    await vault.access.authorise(actor, Act.TOKEN_ADMIN)
    wanted = await body(request, IssueToken)
    tenant_id = checked_tenant(wanted.tenant) if wanted.tenant else None
    await vault.access.authorise(actor, Act.TOKEN_ADMIN, tenant=tenant_id)
    issued, secret = await vault.access.issue(
        name=wanted.name,
        role=wanted.role,
        tenant=tenant_id,
        actor=actor,
        imports_until=wanted.imports_until,
        expires_at=wanted.expires_at,
    )
    return await answer(
        request,
        {**views.token(issued), "token": secret},
        status=201,
        headers={"Cache-Control": "no-store"},
    )


async def revoke_token(request: web.Request) -> web.Response:
    """DELETE /v1/tokens/{token}."""
    vault = request.app[VAULT]
    actor = await principal(request)
    wanted = request.match_info["token"]
    await vault.access.authorise(actor, Act.TOKEN_ADMIN, target=possible_id(wanted, "tok"))
    identifier = checked_id(wanted, "tok", "token")
    await vault.access.revoke(TokenId(identifier), actor=actor)
    return web.Response(status=204)
