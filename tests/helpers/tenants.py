"""Tenants as tests want them to have begun."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from vault.ids import TenantId
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
