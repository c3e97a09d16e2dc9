"""Tenants: the controllers on whose behalf recordings are kept."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from datetime import timedelta

from vault.errors import Invalid, Unavailable
from vault.model import Principal, Tenant, TenantId, parse_tenant
from vault.ports.catalog import Catalog
from vault.ports.time import Clock
from vault.services.audit import event
from vault.services.coordinates import Coordinates

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RetentionBounds:
    """The vault's default retention and the bounds within which a tenant may choose its own."""

    default: timedelta
    floor: timedelta
    cap: timedelta
    periods_ahead: int


class Tenants:
    """Adds, changes and lists tenants."""

    def __init__(self, *, catalog: Catalog, coordinates: Coordinates, clock: Clock, bounds: RetentionBounds) -> None:
        self._catalog = catalog
        self._coordinates = coordinates
        self._clock = clock
        self._bounds = bounds
        self._retentions: dict[TenantId, timedelta] = {}

    async def add(
        self,
        *,
        identifier: str,
        name: str,
        controller: str,
        contact: str,
        retention: timedelta | None,
        actor: Principal | None,
    ) -> Tenant:
        """Create a tenant and the cohorts its first calls need; Conflict if it exists."""
        self._check(retention)
        tenant = Tenant(
            id=parse_tenant(identifier),
            name=name,
            controller=controller,
            contact=contact,
            created_at=self._clock.now(),
            retention_seconds=retention.total_seconds() if retention is not None else None,
        )
        await self._catalog.add_tenant(
            tenant,
            audit=[event("admin.config", actor, tenant=tenant.id, target=tenant.id, detail={"action": "tenant added"})],
        )
        await self._precreate_if_possible()
        return tenant

    def _check(self, retention: timedelta | None) -> None:
        if retention is not None and not self._bounds.floor <= retention <= self._bounds.cap:
            raise Invalid(
                "the retention is outside the vault's bounds",
                hint=f"choose between {self._bounds.floor} and {self._bounds.cap}",
            )

    async def change(self, identifier: TenantId, *, retention: timedelta | None, actor: Principal) -> Tenant:
        """Set the default retention of future recordings; what exists keeps its date."""
        self._check(retention)
        before = await self._catalog.tenant(identifier)
        after = dataclasses.replace(
            before, retention_seconds=retention.total_seconds() if retention is not None else None
        )
        detail = {"before": before.retention_seconds, "after": after.retention_seconds}
        await self._catalog.save_tenant(
            after,
            audit=[
                event(
                    "policy.changed",
                    actor,
                    tenant=identifier,
                    target=identifier,
                    detail={key: None if value is None else str(value) for key, value in detail.items()},
                )
            ],
        )
        self._retentions.pop(identifier, None)
        await self._precreate_if_possible()
        return after

    async def _precreate_if_possible(self) -> None:
        """The tenant exists either way: an ingest creates the cohort it misses, and the next round the others."""
        try:
            await self.precreate()
        except Unavailable as error:
            logger.warning("cohorts not created ahead", extra={"fields": {"reason": error.message}})

    async def retention(self, identifier: TenantId) -> timedelta:
        """Return how long this tenant's recordings are kept by default; NotFound for an unknown tenant."""
        known = self._retentions.get(identifier)
        if known is None:
            known = self._retentions[identifier] = self._of(await self._catalog.tenant(identifier))
        return known

    def _of(self, tenant: Tenant) -> timedelta:
        if tenant.retention_seconds is None:
            return self._bounds.default
        return timedelta(seconds=tenant.retention_seconds)

    async def all(self) -> Sequence[Tenant]:
        """Return every tenant."""
        return await self._catalog.tenants()

    async def precreate(self) -> None:
        """Create the cohorts of the coming periods for every tenant."""
        tenants = [(tenant.id, self._of(tenant)) for tenant in await self._catalog.tenants()]
        await self._coordinates.precreate(tenants, now=self._clock.now(), periods_ahead=self._bounds.periods_ahead)
