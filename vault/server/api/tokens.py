"""Tokens over HTTP: list, issue, revoke."""

from __future__ import annotations

from typing import Final, NotRequired

from aiohttp import web
from typing_extensions import TypedDict

from vault import model
from vault.access.permissions import Act
from vault.ids import TokenId
from vault.model import Role
from vault.server.context import VAULT, answer, body, caller, checked_id, checked_tenant, lister, possible_id, principal
from vault.server.operation import Answer, Operations, told
from vault.server.schemas import Body, Instant, Moment, Page, TenantRef, Who, Words, render

OPERATIONS: Final = Operations("administration")


class IssueToken(Body):
    """POST /v1/tokens."""

    name: Words
    role: Role
    tenant: str | None = None
    imports_until: Instant | None = None
    """Until then a recorder's calls are kept from their true starts: at most 90 days ahead; an operator issues it."""
    expires_at: Instant | None = None
    """From then on the token begins nothing: at most ten years ahead; null never."""


class Token(TypedDict):
    """A token."""

    id: Who
    name: str
    role: Role
    tenant: TenantRef | None
    created_at: Moment
    revoked_at: Moment | None
    imports_until: Moment | None
    """Until then its recordings are kept from their true starts; null: it does not import."""
    expires_at: Moment | None
    """From then on it begins nothing; what it began before, it finishes. Null: never."""
    issued_by: Who | None
    """The operator's token that issued it; null: whoever owns the vault's files."""
    token: NotRequired[str]
    """The secret; only in the answer that issued it."""


class TokenList(TypedDict):
    """Tokens, without their secrets."""

    tokens: list[Token]


def render_token(token: model.Token, *, secret: str | None = None) -> Token:
    """Render a token, with its secret where it has just been issued."""
    return render(Token, token, token=secret)


@OPERATIONS("GET /v1/tokens", Act.TOKEN_ADMIN, told("Tokens.", TokenList), query=Page, queries=("tenant",))
async def list_tokens(request: web.Request) -> web.Response:
    """List tokens, without their secrets."""
    vault, _, tenant = await lister(request, Act.TOKEN_ADMIN)
    found = await vault.catalog.tokens(tenant=tenant)
    return await answer(request, TokenList(tokens=[render_token(item) for item in found]))


@OPERATIONS(
    "POST /v1/tokens",
    Act.TOKEN_ADMIN,
    told("The token with its secret.", Token, status=201),
    body=IssueToken,
    problems=(404,),
)
async def issue_token(request: web.Request) -> web.Response:
    """Issue a token; its secret is shown in this answer only."""
    vault, actor = await caller(request, Act.TOKEN_ADMIN)
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
    return await answer(request, render_token(issued, secret=secret), status=201, headers={"Cache-Control": "no-store"})


@OPERATIONS("DELETE /v1/tokens/{token}", Act.TOKEN_ADMIN, {204: Answer(text="The token is revoked.")}, problems=(409,))
async def revoke_token(request: web.Request) -> web.Response:
    """Revoke a token."""
    vault = request.app[VAULT]
    actor = await principal(request)
    wanted = request.match_info["token"]
    await vault.access.authorise(actor, Act.TOKEN_ADMIN, target=possible_id(wanted, "tok"))
    identifier = checked_id(wanted, "tok", "token")
    await vault.access.revoke(TokenId(identifier), actor=actor)
    return web.Response(status=204)
