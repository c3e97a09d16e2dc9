"""The catalog rows of tenants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from vault.ids import TenantId
from vault.model import AuditEvent, Tenant
from vault.ports.revision import Revision


class TenantLookup(Protocol):
    """Reads tenants."""

    async def tenant(self, tenant: TenantId) -> Tenant:
        """Return a tenant; NotFound if there is none."""

    async def tenants(self) -> Sequence[Tenant]:
        """Return all tenants, in order of id."""


class TenantRows(TenantLookup, Protocol):
    """Reads and changes tenants."""

    async def add_tenant(self, tenant: Tenant, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert a tenant; Conflict if it exists."""

    async def revise_tenant(self, tenant: TenantId, revision: Revision[Tenant]) -> Tenant:
        """Replace the tenant with the one that `revision` returns, and return it; NotFound if there is none.

        A new webhook makes the tenant's waiting alerts due at once.
        """
