"""Identifies the two people of a decision by two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from vault.access.two_people import AskedSinceError, Decider, Deciders, Decision, check_two
from vault.errors import Forbidden
from vault.ids import TenantId, TokenId
from vault.model import Principal, Role
from vault.ports.tenants import TokenLookup

Decided = TypeVar("Decided")


async def the_two(catalog: TokenLookup, asked_by: str | None, actor: Principal) -> Deciders:
    """Return the requester and the actor of now, each with the chain of tokens that issued theirs."""
    return Deciders(
        asked_by=asked_by,
        asker=None if asked_by is None else await _decider(catalog, TokenId(asked_by)),
        approver=await _decider(catalog, actor.token_id),
    )


async def why_not(
    catalog: TokenLookup, decision: Decision, *, asked_by: str | None, tenant: TenantId | None, actor: Principal
) -> Forbidden | None:
    """Return how `actor` would be refused an approval of what `asked_by` requested; None if they may decide."""
    try:
        check_two(decision, await the_two(catalog, asked_by, actor), asked_by=asked_by, tenant=tenant)
    except Forbidden as error:
        return error
    return None


async def decide_by_two(
    catalog: TokenLookup,
    asked_by: Callable[[], Awaitable[str | None]],
    actor: Principal,
    decide: Callable[[Deciders], Awaitable[Decided]],
) -> Decided:
    """Return the result of `decide` with the two; `decide` is repeated if another person has requested meanwhile."""
    while True:
        two = await the_two(catalog, await asked_by(), actor)
        try:
            return await decide(two)
        except AskedSinceError:
            continue


async def _decider(catalog: TokenLookup, token: TokenId) -> Decider | None:
    found = await catalog.token(token)
    if found is None:
        return None
    lineage, above = [found.id], found
    while above.issued_by is not None:
        lineage.append(above.issued_by)
        issuer = await catalog.token(above.issued_by)
        if issuer is None:
            break
        above = issuer
    known = above.issued_by is None and above.role is Role.OPERATOR
    return Decider(
        token=found.id,
        role=found.role,
        tenant=found.tenant,
        lineage=tuple(lineage) if known else None,
        revoked=found.revoked_at is not None,
    )
