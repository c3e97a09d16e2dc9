"""Changes of how long the metadata of existing calls is kept: two people, a notice, then a sweep.

Order: request row → approval, which fixes when it takes effect → by a sweep, request and tenant in one transaction →
that sweep's own intent. A crash between leaves a request that the next sweep applies, or a change that it goes by.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import datetime

from vault.errors import Conflict, NotFound
from vault.ids import RecordingId, TenantId, TokenId, new_id
from vault.model import AuditEvent, MetadataChange, Part, Principal, Tenant
from vault.ports.catalog import Catalog
from vault.ports.policies import PolicyPreview, PolicyRequest, PolicyState
from vault.ports.time import Clock, Entropy
from vault.protocol.deciders import Asker, Decider, Decision, check_two
from vault.retention.decide import Facts, falls_due, held_by
from vault.retention.periods import Period
from vault.retention.policy import check_metadata_retention, metadata_period
from vault.services.audit import event
from vault.services.dossiers import Dossiers

_PAGE = 500


class Policies:
    """Requests, decisions about them, and what a sweep applies."""

    def __init__(self, *, catalog: Catalog, dossiers: Dossiers, clock: Clock, entropy: Entropy, notice: Period) -> None:
        self._catalog = catalog
        self._dossiers = dossiers
        self._clock = clock
        self._entropy = entropy
        self._notice = notice

    async def all(self, *, tenant: TenantId | None = None) -> Sequence[PolicyRequest]:
        """Return every request, or a tenant's, newest first."""
        return await self._catalog.policy_requests(tenant=tenant)

    async def show(self, identifier: str, *, tenant: TenantId | None = None) -> PolicyRequest:
        """Return one, with `tenant` only of that tenant; NotFound."""
        for each in await self.all(tenant=tenant):
            if each.id == identifier:
                return each
        raise NotFound("there is no such policy request")

    async def request(self, identifier: TenantId, *, retention: Period | None, actor: Principal) -> PolicyRequest:
        """First of two people: keep the metadata of the calls up to this month for `retention`; None: the contract.

        Nothing changes before it is approved and its notice has ended. Invalid for a retention that no tenant may
        have, NotFound, Conflict while another one of the tenant is open.
        """
        check_metadata_retention(retention)
        now = self._clock.now()
        tenant = await self._catalog.tenant(identifier)
        change = MetadataChange(
            request=new_id("pol", at=now, entropy=self._entropy),
            through=metadata_period(now),
            retention=None if retention is None else str(retention),
        )
        request = PolicyRequest(
            id=change.request,
            tenant=identifier,
            through=change.through,
            metadata_retention=change.retention,
            state=PolicyState.REQUESTED,
            preview=await self._preview(tenant, change),
            requested_by=actor.token_id,
            requested_role=actor.role,
            requested_at=now,
        )
        await self._catalog.add_policy_request(request, audit=[_event("requested", request, actor)])
        return request

    async def decide(self, identifier: str, *, approve: bool, actor: Principal) -> PolicyRequest:
        """Approve as the second person, or reject or withdraw, which anybody who may decide can until it is applied.

        Forbidden for the first person, and unless of the two one is a dpo, and the other compliance or a safeguarding
        lead. Conflict if it is decided.
        """
        now = self._clock.now()
        found = await self.show(identifier)
        asked = await self._catalog.token(TokenId(found.requested_by))
        asker = Asker(token=found.requested_by, decider=None if asked is None else Decider.of(asked))

        def revision(before: PolicyRequest) -> tuple[PolicyRequest, Sequence[AuditEvent]]:
            if not before.is_open or (approve and before.state is not PolicyState.REQUESTED):
                raise Conflict(f"{before.id} is {before.state.value} already", hint="ask for another change")
            if approve:
                check_two(
                    Decision.POLICY, asked_by=before.requested_by, asker=asker, approves=actor, tenant=before.tenant
                )
            after = dataclasses.replace(
                before,
                state=PolicyState.APPROVED if approve else PolicyState.REJECTED,
                decided_by=actor.token_id,
                decided_role=actor.role,
                decided_at=now,
                takes_effect_at=self._notice.after(now) if approve else None,
            )
            return after, [_event(after.state.value, after, actor)]

        return await self._catalog.revise_policy_request(identifier, revision)

    async def ready(self, now: datetime) -> Sequence[PolicyRequest]:
        """Return the requests that a sweep at `now` applies."""
        return [each for each in await self._catalog.policy_requests() if each.is_ready(now=now)]

    async def apply(self, now: datetime) -> None:
        """Apply what two people approved and whose notice has ended; one that was withdrawn meanwhile is left."""
        for each in await self.ready(now):

            def revision(
                before: tuple[PolicyRequest, Tenant],
            ) -> tuple[tuple[PolicyRequest, Tenant], Sequence[AuditEvent]]:
                request, tenant = before
                if not request.is_ready(now=now):
                    return before, []
                after = dataclasses.replace(request, state=PolicyState.APPLIED, applied_at=now)
                return (after, changed(tenant, request)), [_event("applied", after, None)]

            await self._catalog.apply_policy_request(each.id, revision)

    async def _preview(self, tenant: Tenant, change: MetadataChange) -> PolicyPreview:
        """Count the recordings whose metadata would get another date."""
        dossier = await self._dossiers.of(tenant)
        earlier, later, held = 0, 0, 0
        after: RecordingId | None = None
        while page := await self._catalog.due_recordings(
            through=change.through, after=after, limit=_PAGE, part=Part.METADATA, tenant=tenant.id
        ):
            for row in page:
                facts = dossier.facts(row)
                was, becomes = _dates(facts, change)
                if was == becomes or Part.METADATA not in facts.keys:
                    continue
                sooner = becomes is not None and (was is None or becomes < was)
                earlier, later = earlier + sooner, later + (not sooner)
                held += bool(held_by(facts))
            after = page[-1].id
            await asyncio.sleep(0)
        return PolicyPreview(changed=earlier + later, earlier=earlier, later=later, held=held)


def changed(tenant: Tenant, request: PolicyRequest) -> Tenant:
    """Return the tenant as the request changes it: later ones name later months, so one is in force at a time."""
    change = MetadataChange(request=request.id, through=request.through, retention=request.metadata_retention)
    return dataclasses.replace(tenant, metadata_changed=change)


def _dates(facts: Facts, change: MetadataChange) -> tuple[datetime | None, datetime | None]:
    clocks = dataclasses.replace(facts.clocks, metadata_changed=change)
    return (
        falls_due(facts.recording, Part.METADATA, facts.clocks),
        falls_due(facts.recording, Part.METADATA, clocks),
    )


def _event(what: str, request: PolicyRequest, actor: Principal | None) -> AuditEvent:
    detail = {
        "through": str(request.through),
        "metadata_retention": request.metadata_retention or "contract",
        "changed": str(request.preview.changed),
    }
    return event(f"policy.{what}", actor, tenant=request.tenant, target=request.id, detail=detail)
