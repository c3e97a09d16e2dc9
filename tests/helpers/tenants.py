"""Tenants as tests want them to have begun."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.helpers import approvals
from tests.helpers.app import App
from vault.ids import TenantId
from vault.model import Role
from vault.retention.periods import format_duration
from vault.services.vault import Vault


async def metadata_kept(vault: Vault, tenant: str, *, days: float) -> None:
    """Let the tenant have been added with this retention of metadata, whatever that of its audio is."""
    await vault.catalog.revise_tenant(
        TenantId(tenant),
        lambda found: (
            replace(found, metadata_retention=format_duration(timedelta(days=days)), metadata_before=()),
            [],
        ),
    )


async def offboard(app: App) -> None:
    path = "/v1/tenants/northfield/offboard"
    asked = await app.ask("POST", path, Role.OPERATOR, body={})
    assert (asked.status, asked.json["offboard_approved_by"]) == (202, None)
    assert (await approvals.approve(app, f"{path}", Role.OPERATOR)).status == 403
    approved = await approvals.approve(app, f"{path}", Role.DPO)
    assert approved.status == 200
