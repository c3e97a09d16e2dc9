"""Requests that two people decide: changes of retention, and overrides of a tripped guard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from vault.errors import Conflict, NotFound
from vault.ids import TenantId
from vault.model import AuditEvent, Role, Tenant
from vault.ports.policies import PolicyPreview, PolicyRequest, PolicyState
from vault.ports.revision import Revision
from vault.ports.shreds import SweepOverride
from vault.storage.catalog import rows
from vault.storage.catalog.admin import revised_tenant
from vault.storage.catalog.database import Database
from vault.storage.catalog.tables import policy_requests, sweep_overrides
from vault.storage.catalog.writer import Transaction

# -- policies -----------------------------------------------------------------------------------------------------

_ALL = sa.select(policy_requests).order_by(policy_requests.c.requested_at.desc(), policy_requests.c.id.desc())
_OF_TENANT = _ALL.where(policy_requests.c.tenant == sa.bindparam("tenant"))
_ONE = sa.select(policy_requests).where(policy_requests.c.id == sa.bindparam("key"))
_INSERT = sa.insert(policy_requests)
_REPLACE = (
    sa.update(policy_requests)
    .where(policy_requests.c.id == sa.bindparam("key"))
    .values(
        **{column.name: sa.bindparam(f"new_{column.name}") for column in policy_requests.columns if column.name != "id"}
    )
)


class PolicyStore:
    """Implements `vault.ports.policies.PolicyRows`."""

    _database: Database

    async def add_policy_request(self, request: PolicyRequest, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; Conflict if it exists, or if another one of its tenant is open."""

        async def act(transaction: Transaction) -> None:
            if await transaction.fetch(_ONE, {"key": request.id}):
                raise Conflict(f"policy request {request.id} exists")
            for other in [_to_request(row) for row in await transaction.fetch(_OF_TENANT, {"tenant": request.tenant})]:
                if other.is_open:
                    raise Conflict(
                        f"{other.id} is open for this tenant, and a tenant can have only one open request",
                        hint=f"let it take effect, or withdraw it if possible: callvault policy reject {other.id}",
                    )
            await transaction.write(_INSERT, _from_request(request))
            transaction.audit(audit)

        await self._database.writer.run(act)

    async def revise_policy_request(self, request: str, revision: Revision[PolicyRequest]) -> PolicyRequest:
        """Replace; NotFound."""

        async def act(transaction: Transaction) -> PolicyRequest:
            before = await _found(transaction, request)
            after, audit = revision(before)
            await _replace(transaction, before, after)
            transaction.audit(audit)
            return after

        return await self._database.writer.run(act)

    async def apply_policy_request(
        self, request: str, revision: Revision[tuple[PolicyRequest, Tenant]]
    ) -> tuple[PolicyRequest, Tenant]:
        """Replace the request and its tenant together; NotFound."""

        async def act(transaction: Transaction) -> tuple[PolicyRequest, Tenant]:
            before = await _found(transaction, request)
            after = before

            def changed(tenant: Tenant) -> tuple[Tenant, Sequence[AuditEvent]]:
                nonlocal after
                (after, changed_tenant), audit = revision((before, tenant))
                return changed_tenant, audit

            tenant = await revised_tenant(transaction, before.tenant, changed)
            await _replace(transaction, before, after)
            return after, tenant

        return await self._database.writer.run(act)

    async def policy_requests(self, *, tenant: TenantId | None = None) -> Sequence[PolicyRequest]:
        """Return all, or a tenant's, newest first."""
        found = await (
            self._database.fetch(_ALL) if tenant is None else self._database.fetch(_OF_TENANT, {"tenant": tenant})
        )
        return [_to_request(row) for row in found]


async def _found(transaction: Transaction, request: str) -> PolicyRequest:
    found = await transaction.fetch(_ONE, {"key": request})
    if not found:
        raise NotFound("there is no such policy request")
    return _to_request(found[0])


async def _replace(transaction: Transaction, before: PolicyRequest, after: PolicyRequest) -> None:
    if after != before:
        values = {f"new_{name}": value for name, value in _from_request(after).items() if name != "id"}
        await transaction.write(_REPLACE, {"key": before.id, **values})


def _from_request(request: PolicyRequest) -> rows.Values:
    return {
        "id": request.id,
        "tenant": request.tenant,
        "through": request.through,
        "metadata_retention": request.metadata_retention,
        "retention": request.retention,
        "state": request.state.value,
        "preview": json.dumps(_from_preview(request.preview)),
        "requested_by": request.requested_by,
        "requested_role": request.requested_role.value,
        "requested_at": rows.micros(request.requested_at),
        "decided_by": request.decided_by,
        "decided_role": None if request.decided_role is None else request.decided_role.value,
        "decided_at": rows.maybe_micros(request.decided_at),
        "takes_effect_at": rows.maybe_micros(request.takes_effect_at),
        "applied_at": rows.maybe_micros(request.applied_at),
    }


def _from_preview(preview: PolicyPreview) -> dict[str, Any]:
    found = asdict(preview)
    return {name: rows.micros(each) if isinstance(each, datetime) else each for name, each in found.items()}


def _to_preview(stored: dict[str, Any]) -> PolicyPreview:
    """Return the stored preview; an old one has no dates."""
    dates = {name: rows.maybe_moment(stored.get(name)) for name in ("earliest", "latest")}
    return PolicyPreview(**{**stored, **dates})


def _to_request(row: sa.Row[Any]) -> PolicyRequest:
    return PolicyRequest(
        id=row.id,
        tenant=TenantId(row.tenant),
        through=row.through,
        metadata_retention=row.metadata_retention,
        retention=row.retention,
        state=PolicyState(row.state),
        preview=_to_preview(json.loads(row.preview)),
        requested_by=row.requested_by,
        requested_role=Role(row.requested_role),
        requested_at=rows.moment(row.requested_at),
        decided_by=row.decided_by,
        decided_role=None if row.decided_role is None else Role(row.decided_role),
        decided_at=rows.maybe_moment(row.decided_at),
        takes_effect_at=rows.maybe_moment(row.takes_effect_at),
        applied_at=rows.maybe_moment(row.applied_at),
    )


# -- overrides ----------------------------------------------------------------------------------------------------

_OVERRIDES = sa.select(sweep_overrides).order_by(sweep_overrides.c.requested_at.desc(), sweep_overrides.c.id.desc())
_OVERRIDE = sa.select(sweep_overrides).where(sweep_overrides.c.id == sa.bindparam("key"))
_INSERT_OVERRIDE = sa.insert(sweep_overrides)
_REPLACE_OVERRIDE = (
    sa.update(sweep_overrides)
    .where(sweep_overrides.c.id == sa.bindparam("key"))
    .values(
        **{column.name: sa.bindparam(f"new_{column.name}") for column in sweep_overrides.columns if column.name != "id"}
    )
)


class OverrideStore:
    """Implements `vault.ports.shreds`."""

    _database: Database

    async def add_override(self, override: SweepOverride, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; Conflict if it exists, or another one for the same guard is open."""

        async def act(transaction: Transaction) -> None:
            if await transaction.fetch(_OVERRIDE, {"key": override.id}):
                raise Conflict(f"override {override.id} exists")
            others = [_to_override(row) for row in await transaction.fetch(_OVERRIDES)]
            for other in others:
                if other.tenant == override.tenant and other.is_open(now=override.requested_at):
                    raise Conflict(
                        f"{other.id} is already requested for the same guard",
                        hint="approve it or reject it first",
                    )
            await transaction.write(_INSERT_OVERRIDE, _from_override(override))
            transaction.audit(audit)

        await self._database.writer.run(act)

    async def revise_override(self, override: str, revision: Revision[SweepOverride]) -> SweepOverride:
        """Replace; NotFound."""

        async def act(transaction: Transaction) -> SweepOverride:
            found = await transaction.fetch(_OVERRIDE, {"key": override})
            if not found:
                raise NotFound("there is no such override")
            before = _to_override(found[0])
            after, audit = revision(before)
            if after != before:
                values = {f"new_{name}": value for name, value in _from_override(after).items() if name != "id"}
                await transaction.write(_REPLACE_OVERRIDE, {"key": override, **values})
            transaction.audit(audit)
            return after

        return await self._database.writer.run(act)

    async def overrides(self) -> Sequence[SweepOverride]:
        """Return all, newest first."""
        return [_to_override(row) for row in await self._database.fetch(_OVERRIDES)]


def _from_override(override: SweepOverride) -> rows.Values:
    return {
        "id": override.id,
        "through": rows.micros(override.through),
        "reason": override.reason,
        "requested_by": override.requested_by,
        "requested_at": rows.micros(override.requested_at),
        "approved_by": override.approved_by,
        "used_at": rows.maybe_micros(override.used_at),
        "tenant": override.tenant,
        "stopped": override.stopped,
        "early": override.early,
        "rejected_by": override.rejected_by,
    }


def _to_override(row: sa.Row[Any]) -> SweepOverride:
    return SweepOverride(
        id=row.id,
        through=rows.moment(row.through),
        reason=row.reason,
        requested_by=row.requested_by,
        requested_at=rows.moment(row.requested_at),
        approved_by=row.approved_by,
        used_at=rows.maybe_moment(row.used_at),
        tenant=None if row.tenant is None else TenantId(row.tenant),
        stopped=row.stopped,
        early=row.early,
        rejected_by=row.rejected_by,
    )
