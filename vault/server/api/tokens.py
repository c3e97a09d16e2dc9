"""Tokens over HTTP: list, issue, revoke."""

from __future__ import annotations

from typing import Final, NotRequired

from typing_extensions import TypedDict

from vault import model
from vault.access.permissions import Act
from vault.ids import TokenId
from vault.model import Role
from vault.server.context import Admitted
from vault.server.operation import Operations, answer, empty
from vault.server.schemas import Body, Instant, Moment, OfTenant, TenantRef, Who, Words, render

OPERATIONS: Final = Operations("administration")


class IssueToken(Body):
    """POST /v1/tokens."""

    name: Words
    role: Role
    tenant: str | None = None
    imports_until: Instant | None = None
    """Until then a recorder's calls are kept from their stated starts: at most 90 days ahead; an operator issues it."""
    expires_at: Instant | None = None
    """From then on the token can begin no recording: at most ten years ahead; null: never."""


class Token(TypedDict):
    """A token."""

    id: Who
    name: str
    role: Role
    tenant: TenantRef | None
    created_at: Moment
    revoked_at: Moment | None
    imports_until: Moment | None
    """Until then its recordings are kept from their stated starts; null: it does not import."""
    expires_at: Moment | None
    """From then on it can begin no recording; it may finish those it began before. Null: never."""
    issued_by: Who | None
    """The operator's token that issued it; null: it was issued on the vault's machine."""
    token: NotRequired[str]
    """The secret; only in the answer that issued it."""


class TokenList(TypedDict):
    """Tokens, without their secrets."""

    tokens: list[Token]


def render_token(token: model.Token, *, secret: str | None = None) -> Token:
    """Return a token for display, with its secret if it was just issued."""
    return render(Token, token, token=secret)


@OPERATIONS("GET /v1/tokens", Act.TOKEN_ADMIN, answer("Tokens.", TokenList), query=OfTenant)
async def list_tokens(request: Admitted, wanted: OfTenant) -> TokenList:
    """List tokens, without their secrets."""
    found = await request.vault.catalog.tokens(tenant=await request.within(wanted.tenant))
    return TokenList(tokens=[render_token(item) for item in found])


@OPERATIONS(
    "POST /v1/tokens",
    Act.TOKEN_ADMIN,
    answer("The token with its secret.", Token, status=201, private=True),
    body=IssueToken,
    problems=(404,),
)
async def issue_token(request: Admitted, wanted: IssueToken) -> Token:
    """Issue a token; its secret is shown in this answer only."""
    issued, secret = await request.vault.access.issue(
        name=wanted.name,
        role=wanted.role,
        tenant=await request.within(wanted.tenant),
        actor=request.actor,
        imports_until=wanted.imports_until,
        expires_at=wanted.expires_at,
    )
    return render_token(issued, secret=secret)


async def _token(request: Admitted) -> TokenId:
    return TokenId(request.id_of("token"))


@OPERATIONS(
    "DELETE /v1/tokens/{token}",
    Act.TOKEN_ADMIN,
    empty("The token is revoked."),
    of=_token,
    problems=(409,),
)
async def revoke_token(request: Admitted, token: TokenId) -> None:
    """Revoke a token."""
    await request.vault.access.revoke(token, actor=request.actor)
