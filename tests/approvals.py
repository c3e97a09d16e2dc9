"""Approving in tests as people do: look at the request, and approve what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vault.ids import HoldId, TenantId
from vault.model import Hold, Principal, Tenant, Token
from vault.ports.erasures import ErasureId
from vault.retention.shown import shown_digest
from vault.services.erasure import ErasureView, erasure_document
from vault.services.holds import release_document
from vault.services.vault import Vault

if TYPE_CHECKING:
    from tests.integration.app import Answer, App


async def known(vault: Vault, *people: Principal) -> None:
    """Let the catalog know the tokens of people who never were issued one."""
    for each in people:
        if await vault.catalog.token(each.token_id) is None:
            await vault.catalog.add_token(
                Token(
                    id=each.token_id,
                    name=each.name,
                    role=each.role,
                    tenant=each.tenant,
                    secret_sha256="0" * 64,
                    created_at=vault.clock.now(),
                    issued_by=each.issued_by,
                )
            )


async def approve_release(vault: Vault, hold: HoldId, *, actor: Principal) -> Hold:
    shown = shown_digest(release_document(await vault.catalog.hold(hold)))
    return await vault.holds.decide_release(hold, approve=True, shown=shown, actor=actor)


async def approve_erasure(vault: Vault, erasure: ErasureId, *, actor: Principal) -> ErasureView:
    seen = await vault.erasures.show(erasure)
    return await vault.erasures.approve(erasure, shown=shown_digest(erasure_document(seen)), actor=actor)


async def approve_offboarding(vault: Vault, tenant: TenantId, *, actor: Principal) -> Tenant:
    seen = await vault.tenants.view(await vault.catalog.tenant(tenant))
    return await vault.tenants.decide_offboarding(tenant, approve=True, shown=seen.shown, actor=actor)


async def approve(app: App, path: str, who: Any, **body: Any) -> Answer:
    """Look at what lies under `path`, as its approver, and approve that."""
    seen = (await app.ask("GET", path.removesuffix("/offboard"), who)).json
    shown = (seen.get("offboarding") or seen).get("shown")
    return await app.ask("POST", f"{path}/approve", who, body={"shown": shown or "0" * 64, **body})
