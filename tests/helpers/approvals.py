"""Approving in tests as people do: look at the request, and approve what it says."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from vault.access.two_people import shown_digest
from vault.errors import Conflict
from vault.ids import HoldId, TenantId, TokenId
from vault.model import Hold, Principal, Role, Tenant, Token
from vault.ports.erasures import ErasureId
from vault.services.deletion.erasures import ErasureView, erasure_document
from vault.services.holds.holds import release_document
from vault.services.vault import Vault

if TYPE_CHECKING:
    from tests.helpers.app import Answer, App


async def known(vault: Vault, *people: Principal) -> None:
    """Let the catalog know the tokens of people who never were issued one, as of an operator of each one's own."""
    for each in people:
        if await vault.catalog.token(each.token_id) is not None:
            continue
        issuer = None
        if each.role is not Role.OPERATOR:
            issuer = TokenId(f"{each.token_id}0")
            await _add(vault, issuer, f"issuer of {each.name}", Role.OPERATOR)
        await _add(vault, each.token_id, each.name, each.role, tenant=each.tenant, issued_by=issuer)


async def _add(vault: Vault, token: TokenId, name: str, role: Role, **more: Any) -> None:
    row = {"tenant": None, "secret_sha256": "0" * 64, "created_at": vault.clock.now(), **more}
    with suppress(Conflict):  # who acts twice at once is added twice at once
        await vault.catalog.add_token(Token(id=token, name=name, role=role, **row))


async def operator_of_its_own(vault: Vault, name: str) -> tuple[Principal, str]:
    """Return an operator that no token issued, as whoever owns the vault's files issues one, and its token."""
    _, text = await vault.access.issue(name=name, role=Role.OPERATOR, tenant=None, actor=None)
    return await vault.access.authenticate(text), text


async def issue_apart(vault: Vault, role: Role, tenant: TenantId, *, name: str = "") -> str:
    """Return the token of a person whom an operator of their own issued it: they decide with anybody else."""
    name = name or f"{role.value} of {tenant}"
    issuer, _ = await operator_of_its_own(vault, f"issuer of {name}")
    return (await vault.access.issue(name=name, role=role, tenant=tenant, actor=issuer))[1]


async def approve_release(vault: Vault, hold: HoldId, *, actor: Principal) -> Hold:
    await known(vault, actor)
    shown = shown_digest(release_document(await vault.catalog.hold(hold)))
    return await vault.holds.decide_release(hold, approve=True, shown=shown, actor=actor)


async def approve_erasure(vault: Vault, erasure: ErasureId, *, actor: Principal) -> ErasureView:
    await known(vault, actor)
    seen = await vault.erasures.show(erasure)
    return await vault.erasures.approve(erasure, shown=shown_digest(erasure_document(seen)), actor=actor)


async def approve_offboarding(vault: Vault, tenant: TenantId, *, actor: Principal) -> Tenant:
    await known(vault, actor)
    seen = await vault.tenants.view(await vault.catalog.tenant(tenant))
    return await vault.tenants.decide_offboarding(tenant, approve=True, shown=seen.shown, actor=actor)


async def approve(app: App, path: str, who: Any, **body: Any) -> Answer:
    """Look at what lies under `path`, as its approver, and approve that."""
    seen = (await app.ask("GET", path.removesuffix("/offboard"), who)).json
    shown = (seen.get("offboarding") or seen).get("shown")
    return await app.ask("POST", f"{path}/approve", who, body={"shown": shown or "0" * 64, **body})
