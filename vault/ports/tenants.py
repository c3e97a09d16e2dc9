"""Tenants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from vault.ids import TenantId
from vault.model import AuditEvent, Tenant
from vault.ports.revision import Revision


class TenantLookup(Protocol):
    """Tenants as they stand."""

    async def tenant(self, tenant: TenantId) -> Tenant:
        """Return one; NotFound."""

    async def tenants(self) -> Sequence[Tenant]:
        """Return all, by id."""


class TenantRows(TenantLookup, Protocol):
    """Tenants, and how they change."""

    async def add_tenant(self, tenant: Tenant, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; Conflict if it exists."""

    async def revise_tenant(self, tenant: TenantId, revision: Revision[Tenant]) -> Tenant:
        """Replace the tenant as `revision` says and return it; NotFound.

        A webhook that is new makes the tenant's waiting alerts due at once.
        """
