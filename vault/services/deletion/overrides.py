"""Overrides of a tripped guard: what had tripped, who asked, who approved. Each serves one sweep.

What stops a sweep is stored where every node reads it, so that people see what tripped on any node.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from vault.access.two_people import Decision, check_two
from vault.errors import Conflict, Invalid, NotFound
from vault.ids import TenantId, new_id
from vault.instants import rfc3339
from vault.model import AuditEvent, Principal
from vault.ports.shreds import OverrideRows, SweepOverride
from vault.ports.tenants import SettingRows, TokenLookup
from vault.retention.guards import Guard, Tripped, override_lifts
from vault.services.audit import event
from vault.services.people.two_people import the_two
from vault.services.surroundings import Surroundings

_TRIPPED = "sweep.tripped"


class PermissionRows(OverrideRows, SettingRows, TokenLookup, Protocol):
    """The catalog methods that overrides need."""


class Overrides:
    """Stores what tripped, and lets two people override it."""

    def __init__(self, *, catalog: PermissionRows, surroundings: Surroundings) -> None:
        self._catalog = catalog
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy

    # -- what tripped -------------------------------------------------------------------------------------------

    async def tripped(self, *, tenant: TenantId | None = None) -> Sequence[Tripped]:
        """Return what stopped the last sweep; with `tenant`, for that tenant only."""
        text = await self._catalog.setting(_TRIPPED)
        found = [_from_json(each) for each in json.loads(text)] if text else []
        return [each for each in found if tenant is None or each.tenant == tenant]

    async def remember(self, tripped: Sequence[Tripped]) -> None:
        """Replace what stopped the last sweep."""
        if [*tripped] != [*await self.tripped()]:
            await self._catalog.save_setting(_TRIPPED, json.dumps([_to_json(each) for each in tripped]))

    # -- lifting it ---------------------------------------------------------------------------------------------

    async def all(self, *, tenant: TenantId | None = None) -> Sequence[SweepOverride]:
        """Return every override, newest first; with `tenant`, those of that tenant only."""
        return [each for each in await self._catalog.overrides() if tenant is None or each.tenant == tenant]

    async def show(self, identifier: str, *, tenant: TenantId | None = None) -> SweepOverride:
        """Return one, with `tenant` only if it is that tenant's; NotFound."""
        for each in await self.all(tenant=tenant):
            if each.id == identifier:
                return each
        raise NotFound("there is no such override")

    async def request(
        self, *, tenant: TenantId | None, through: datetime, reason: str, actor: Principal
    ) -> SweepOverride:
        """Request, as the first person, an override until `through` of the clock guard (`tenant` None) or a tenant's.

        Conflict if no such guard has tripped, or if another request for it is open.
        """
        now = self._clock.now()
        if through <= now:
            raise Invalid("an override reaches into the future", hint="say until when the guard is lifted")
        stopped = next((each for each in await self.tripped() if each.tenant == tenant), None)
        if stopped is None:
            whose = "the sweep as a whole" if tenant is None else f"what goes of {tenant}"
            raise Conflict(f"no guard has stopped {whose}", hint="callvault sweep status says what is stopped")
        override = SweepOverride(
            id=new_id("ovr", at=now, entropy=self._entropy),
            tenant=tenant,
            stopped=stopped.reason,
            early=stopped.early,
            through=through,
            reason=reason,
            requested_by=actor.token_id,
            requested_at=now,
        )
        detail = {"reason": reason, "through": rfc3339(through), "stopped": stopped.reason}
        await self._catalog.add_override(
            override,
            audit=[event("sweep.override_requested", actor, tenant=tenant, target=override.id, detail=detail)],
        )
        return override

    async def decide(self, found: SweepOverride, *, approve: bool, actor: Principal) -> SweepOverride:
        """Approve or reject `found`, as the second person.

        Forbidden unless the two are two operators for the clock guard, or an operator and the tenant's dpo for a
        tenant's guard. Conflict if it is decided, used or expired.
        """
        now = self._clock.now()
        two = await the_two(self._catalog, found.requested_by, actor)
        decision = Decision.CLOCK_OVERRIDE if found.tenant is None else Decision.TENANT_OVERRIDE

        def revision(before: SweepOverride) -> tuple[SweepOverride, Sequence[AuditEvent]]:
            if before.approved_by is not None or not before.is_open(now=now):
                raise Conflict(f"{before.id} is decided already, or over", hint="ask again if the guard still trips")
            if not approve:
                after = dataclasses.replace(before, rejected_by=actor.token_id)
                return after, [event("sweep.override_rejected", actor, tenant=before.tenant, target=before.id)]
            check_two(decision, two, asked_by=before.requested_by, tenant=before.tenant)
            after = dataclasses.replace(before, approved_by=actor.token_id)
            return after, [event("sweep.override_approved", actor, tenant=before.tenant, target=before.id)]

        return await self._catalog.revise_override(found.id, revision)

    async def use(self, stopped: Tripped, now: datetime, actor: Principal | None) -> bool:
        """Use up an override of what tripped, if there is one; before the sweep, so that it never serves twice."""
        for override in await self._catalog.overrides():
            if not _serves(override, stopped, now):
                continue

            def revision(before: SweepOverride) -> tuple[SweepOverride, Sequence[AuditEvent]]:
                if not _serves(before, stopped, now):
                    raise Conflict(f"{before.id} no longer serves; nothing was shredded")
                used = event("sweep.override_used", actor, tenant=before.tenant, target=before.id)
                return dataclasses.replace(before, used_at=now), [used]

            await self._catalog.revise_override(override.id, revision)
            return True
        return False


def _serves(override: SweepOverride, stopped: Tripped, now: datetime) -> bool:
    return override.approved_by is not None and override_lifts(
        stopped,
        tenant=override.tenant,
        early=override.early,
        through=override.through,
        used=not override.is_open(now=now),
        now=now,
    )


def _to_json(tripped: Tripped) -> Mapping[str, Any]:
    return {**dataclasses.asdict(tripped), "guard": tripped.guard.value}


def _from_json(stored: Mapping[str, Any]) -> Tripped:
    return Tripped(**{**stored, "guard": Guard(stored["guard"])})
