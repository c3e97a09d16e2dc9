"""Decisions of two people about deletion: changes of the retention of existing calls, and overrides of a tripped guard.

A change applies to the recordings that exist when it is requested, so that the approver sees all it affects. Calls that
arrive while it waits for approval keep their own dates.

Order: request row → approval, which fixes when it takes effect → a sweep pins the audio to be kept longer → the sweep
stores request and tenant in one transaction → the sweep's own intent. A crash leaves an applied change, or a request
that the next sweep applies; its pins keep the audio meanwhile. In the other order a sweep could destroy a key that two
people had decided to keep.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from vault.access.two_people import Decision, check_two
from vault.crypto.spans import points
from vault.errors import Conflict, Invalid, NotFound
from vault.ids import RecordingId, TenantId, id_bytes, new_id
from vault.instants import rfc3339
from vault.model import (
    AuditEvent,
    Cohort,
    MetadataChange,
    Part,
    Pin,
    Principal,
    Recording,
    RecordingState,
    RetentionChange,
    Tenant,
)
from vault.ports.keys import Keyring
from vault.ports.policies import PolicyPreview, PolicyRequest, PolicyRows, PolicyState
from vault.ports.recordings import DueRows, RecordingQuery, RecordingSearch
from vault.ports.shreds import OverrideRows, SweepOverride
from vault.ports.tenants import SettingRows, TenantLookup, TokenLookup
from vault.retention.decide import Facts, falls_due, held_by
from vault.retention.guards import Guard, Tripped, override_lifts
from vault.retention.periods import FLOOR, Period, RetentionBounds
from vault.retention.policy import check_metadata_retention, metadata_period, period_instant
from vault.services.audit import event
from vault.services.people.two_people import the_two
from vault.services.recordings.dossiers import Dossiers
from vault.services.surroundings import Surroundings

# -- changes of retention -----------------------------------------------------------------------------------------

_PAGE = 500


class RetentionRows(PolicyRows, RecordingSearch, DueRows, TenantLookup, TokenLookup, Protocol):
    """The catalog methods that changes of retention need."""


class Policies:
    """Requests and decides changes of retention, and applies them for a sweep."""

    def __init__(
        self,
        *,
        catalog: RetentionRows,
        keyring: Keyring,
        dossiers: Dossiers,
        surroundings: Surroundings,
        notice: Period,
        bounds: RetentionBounds,
        backdating: timedelta,
    ) -> None:
        self._keyring = keyring
        self._bounds = bounds
        self._backdating = backdating
        self._catalog = catalog
        self._dossiers = dossiers
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._notice = notice

    async def all(self, *, tenant: TenantId | None = None) -> Sequence[PolicyRequest]:
        """Return every request, or a tenant's, newest first."""
        return await self._catalog.policy_requests(tenant=tenant)

    async def show(self, identifier: str, *, tenant: TenantId | None = None) -> PolicyRequest:
        """Return one request; NotFound, also if it is not of `tenant`, when given."""
        for each in await self.all(tenant=tenant):
            if each.id == identifier:
                return each
        raise NotFound("there is no such policy request")

    async def request(self, identifier: TenantId, *, retention: Period | None, actor: Principal) -> PolicyRequest:
        """Request, as the first person, to keep past months' metadata for `retention`; None for the whole contract.

        Nothing changes before it is approved and its notice has ended. Invalid if no tenant may have that retention.
        NotFound for the tenant. Conflict while another request of the tenant is open.
        """
        check_metadata_retention(retention)
        tenant = await self._catalog.tenant(identifier)
        request = self._asked(identifier, actor=actor, metadata_retention=None if retention is None else str(retention))
        return await self._add(tenant, request, actor=actor)

    async def request_audio(self, identifier: TenantId, *, retention: Period, actor: Principal) -> PolicyRequest:
        """Request, as the first person, to keep the audio of calls captured up to now for `retention`.

        Nothing changes before it is approved and its notice has ended. Invalid outside the vault's floor and cap.
        NotFound for the tenant. Conflict while another request of the tenant is open.
        """
        self._bounds.check(retention)
        tenant = await self._catalog.tenant(identifier)
        request = self._asked(identifier, actor=actor, retention=str(retention))
        return await self._add(tenant, request, actor=actor)

    def _asked(
        self,
        tenant: TenantId,
        *,
        actor: Principal,
        metadata_retention: str | None = None,
        retention: str | None = None,
    ) -> PolicyRequest:
        now = self._clock.now()
        return PolicyRequest(
            id=new_id("pol", at=now, entropy=self._entropy),
            tenant=tenant,
            through=metadata_period(now) - (retention is None),
            metadata_retention=metadata_retention,
            retention=retention,
            state=PolicyState.REQUESTED,
            preview=PolicyPreview(changed=0, earlier=0, later=0, held=0),
            requested_by=actor.token_id,
            requested_role=actor.role,
            requested_at=now,
        )

    async def _add(self, tenant: Tenant, request: PolicyRequest, *, actor: Principal) -> PolicyRequest:
        request = dataclasses.replace(request, preview=await self._preview(tenant, request))
        await self._catalog.add_policy_request(request, audit=[_event("requested", request, actor)])
        return request

    async def decide(self, identifier: str, *, approve: bool, actor: Principal) -> PolicyRequest:
        """Approve or reject as the second person, or withdraw as the first person until it is applied.

        Forbidden if the first person approves, or unless one of the two is a dpo and the other compliance or a
        safeguarding lead. Conflict if it is already decided, or if one person withdraws an approved request that keeps
        recordings longer.
        """
        now = self._clock.now()
        found = await self.show(identifier)
        two = await the_two(self._catalog, found.requested_by, actor)
        longer = 0
        if found.is_open and not approve:
            longer = (await self._preview(await self._catalog.tenant(found.tenant), found)).later

        def revision(before: PolicyRequest) -> tuple[PolicyRequest, Sequence[AuditEvent]]:
            if not before.is_open or (approve and before.state is not PolicyState.REQUESTED):
                raise Conflict(f"{before.id} is already {before.state.value}", hint="request another change")
            if approve:
                check_two(Decision.POLICY, two, asked_by=before.requested_by, tenant=before.tenant)
            elif longer and before.state is PolicyState.APPROVED:
                raise Conflict(
                    f"{before.id} is approved and keeps {longer} recordings longer; one person cannot take that back",
                    hint="let it take effect, then request another change, which two people decide",
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
        """Apply the approved requests whose notice has ended; skip one that was withdrawn meanwhile."""
        for each in await self.ready(now):
            if each.retention is not None:
                await self._carry(each)

            def revision(
                before: tuple[PolicyRequest, Tenant],
            ) -> tuple[tuple[PolicyRequest, Tenant], Sequence[AuditEvent]]:
                request, tenant = before
                if not request.is_ready(now=now):
                    return before, []
                after = dataclasses.replace(request, state=PolicyState.APPLIED, applied_at=now)
                return (after, self.changed(tenant, request)), [_event("applied", after, None)]

            await self._catalog.apply_policy_request(each.id, revision)

    def changed(self, tenant: Tenant, request: PolicyRequest) -> Tenant:
        """Return the tenant with the request applied. A later change replaces an earlier one, so one is in force."""
        if request.retention is None:
            return dataclasses.replace(tenant, metadata_changed=_metadata_change(request))
        return dataclasses.replace(tenant, retention_changed=self._audio_change(request))

    def _audio_change(self, request: PolicyRequest) -> RetentionChange:
        assert request.retention is not None, "a change of audio names its retention"
        return RetentionChange(
            request=request.id,
            through=request.requested_at,
            retention=request.retention,
            since=request.takes_effect_at or self._notice.after(request.requested_at),
            floor=str(self._bounds.floor or FLOOR),
            backdating_seconds=self._backdating.total_seconds(),
        )

    async def _carry(self, request: PolicyRequest) -> None:
        """Pin the leaves to be kept longer than their cohort; one pin covers a run of leaves, so many cost little."""
        tenant = await self._catalog.tenant(request.tenant)
        clocks = self._dossiers.clocks(self.changed(tenant, request))
        leaves: dict[Cohort, list[int]] = defaultdict(list)
        async for row in self._recordings(request.tenant):
            cohort = row.audio.cohort
            until = falls_due(row, Part.AUDIO, clocks)
            if clocks.changes(row) is None or until is None or not self._keyring.derivable(row.audio):
                continue
            if until > period_instant(cohort.period, clocks.cohort_width):
                leaves[cohort].append(row.audio.leaf)
        tag = id_bytes(request.id)
        async with self._keyring.writer() as writer:
            await writer.pin(
                [
                    Pin(cohort=cohort, first=first, last=last, tag=tag)
                    for cohort, each in leaves.items()
                    for first, last in points(each)
                ]
            )

    async def _recordings(self, tenant: TenantId, *, state: RecordingState | None = None) -> AsyncIterator[Recording]:
        """Yield the tenant's recordings whose audio is not shredded; with `state`, only those in it."""
        before: RecordingId | None = None
        while page := await self._catalog.recordings(
            RecordingQuery(tenant=tenant, state=state, before=before, limit=_PAGE)
        ):
            for row in page:
                if row.state not in (RecordingState.SHREDDING, RecordingState.SHREDDED):
                    yield row
            before = page[-1].id
            await asyncio.sleep(0)

    async def _preview(self, tenant: Tenant, request: PolicyRequest) -> PolicyPreview:
        if request.retention is None:
            return await self._preview_metadata(tenant, _metadata_change(request))
        return await self._preview_audio(tenant, self._audio_change(request))

    async def _preview_audio(self, tenant: Tenant, change: RetentionChange) -> PolicyPreview:
        """Count the recordings whose audio would get another date, with the earliest and latest of the new dates."""
        dossier = await self._dossiers.of(tenant)
        clocks = dataclasses.replace(dossier.clocks, retention_changed=change)
        count: Counter[str] = Counter()
        dates: list[datetime] = []
        async for row in self._recordings(tenant.id):
            facts = dossier.facts(row)
            was, becomes = (falls_due(row, Part.AUDIO, each) for each in (facts.clocks, clocks))
            if was is None or becomes is None or was == becomes or Part.AUDIO not in facts.keys:
                continue
            count["earlier" if becomes < was else "later"] += 1
            count["held"] += bool(held_by(facts))
            count["live"] += row.state is RecordingState.OPEN
            count["due_at_once"] += becomes <= change.since
            dates = [min([*dates, becomes]), max([*dates, becomes])]
        return PolicyPreview(
            changed=count["earlier"] + count["later"],
            **{name: count[name] for name in ("earlier", "later", "held", "live", "due_at_once")},
            earliest=dates[0] if dates else None,
            latest=dates[1] if dates else None,
        )

    async def _preview_metadata(self, tenant: Tenant, change: MetadataChange) -> PolicyPreview:
        """Count the recordings whose metadata would get another date."""
        dossier = await self._dossiers.of(tenant)
        earlier, later, held, live = 0, 0, 0, 0
        async for row in self._with_metadata(tenant.id, change.through):
            facts = dossier.facts(row)
            was, becomes = _dates(facts, change)
            if was == becomes or Part.METADATA not in facts.keys:
                continue
            sooner = becomes is not None and (was is None or becomes < was)
            earlier, later = earlier + sooner, later + (not sooner)
            held += bool(held_by(facts))
            live += row.state is RecordingState.OPEN
        return PolicyPreview(changed=earlier + later, earlier=earlier, later=later, held=held, live=live)

    async def _with_metadata(self, tenant: TenantId, through: int) -> AsyncIterator[Recording]:
        """Yield the tenant's recordings up to a month whose metadata is not shredded, open ones too."""
        after: RecordingId | None = None
        while page := await self._catalog.due_recordings(
            through=through, after=after, limit=_PAGE, part=Part.METADATA, tenant=tenant
        ):
            for row in page:
                yield row
            after = page[-1].id
            await asyncio.sleep(0)
        async for row in self._recordings(tenant, state=RecordingState.OPEN):
            if row.metadata.cohort.period <= through:
                yield row


def _metadata_change(request: PolicyRequest) -> MetadataChange:
    return MetadataChange(request=request.id, through=request.through, retention=request.metadata_retention)


def _dates(facts: Facts, change: MetadataChange) -> tuple[datetime | None, datetime | None]:
    clocks = dataclasses.replace(facts.clocks, metadata_changed=change)
    return (
        falls_due(facts.recording, Part.METADATA, facts.clocks),
        falls_due(facts.recording, Part.METADATA, clocks),
    )


def _event(what: str, request: PolicyRequest, actor: Principal | None) -> AuditEvent:
    detail = {
        "through": str(request.through),
        **(
            {"metadata_retention": request.metadata_retention or "contract"}
            if request.retention is None
            else {"retention": request.retention}
        ),
        "changed": str(request.preview.changed),
    }
    return event(f"policy.{what}", actor, tenant=request.tenant, target=request.id, detail=detail)


# -- overrides ----------------------------------------------------------------------------------------------------
# An override of a tripped guard names what tripped, who requested it and who approved it. It serves one sweep.
#
# What tripped is stored in the catalog, so that every node can show it.

_TRIPPED = "sweep.tripped"


class PermissionRows(OverrideRows, SettingRows, TokenLookup, Protocol):
    """The catalog methods that overrides need."""


class Overrides:
    """Stores which guards tripped, and lets two people override one."""

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

    # -- overriding it ------------------------------------------------------------------------------------------

    async def all(self, *, tenant: TenantId | None = None) -> Sequence[SweepOverride]:
        """Return every override, newest first; with `tenant`, those of that tenant only."""
        return [each for each in await self._catalog.overrides() if tenant is None or each.tenant == tenant]

    async def show(self, identifier: str, *, tenant: TenantId | None = None) -> SweepOverride:
        """Return one override; NotFound, also if it is not of `tenant`, when given."""
        for each in await self.all(tenant=tenant):
            if each.id == identifier:
                return each
        raise NotFound("there is no such override")

    async def request(
        self, *, tenant: TenantId | None, through: datetime, reason: str, actor: Principal
    ) -> SweepOverride:
        """Request, as the first person, an override of a tenant's guard, or of the clock guard without `tenant`.

        `through` is the instant up to which the guard is lifted. Conflict if no such guard has tripped, or if another
        request for it is open.
        """
        now = self._clock.now()
        if through <= now:
            raise Invalid("an override must end in the future", hint="say until when the guard is lifted")
        stopped = next((each for each in await self.tripped() if each.tenant == tenant), None)
        if stopped is None:
            subject = "the sweep as a whole" if tenant is None else f"the share of {tenant}"
            raise Conflict(f"no guard has stopped {subject}", hint="callvault sweep status says what is stopped")
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

        The clock guard needs two operators; a tenant's guard needs an operator and the tenant's dpo: else Forbidden.
        Conflict if the override is already decided, used or expired.
        """
        now = self._clock.now()
        two = await the_two(self._catalog, found.requested_by, actor)
        decision = Decision.CLOCK_OVERRIDE if found.tenant is None else Decision.TENANT_OVERRIDE

        def revision(before: SweepOverride) -> tuple[SweepOverride, Sequence[AuditEvent]]:
            if before.approved_by is not None or not before.is_open(now=now):
                raise Conflict(
                    f"{before.id} is already decided or has expired", hint="request another if the guard still trips"
                )
            if not approve:
                after = dataclasses.replace(before, rejected_by=actor.token_id)
                return after, [event("sweep.override_rejected", actor, tenant=before.tenant, target=before.id)]
            check_two(decision, two, asked_by=before.requested_by, tenant=before.tenant)
            after = dataclasses.replace(before, approved_by=actor.token_id)
            return after, [event("sweep.override_approved", actor, tenant=before.tenant, target=before.id)]

        return await self._catalog.revise_override(found.id, revision)

    async def use(self, stopped: Tripped, now: datetime, actor: Principal | None) -> bool:
        """Use up an override of `stopped`, if there is one; called before the sweep, so that it never serves twice."""
        for override in await self._catalog.overrides():
            if not _serves(override, stopped, now):
                continue

            def revision(before: SweepOverride) -> tuple[SweepOverride, Sequence[AuditEvent]]:
                if not _serves(before, stopped, now):
                    raise Conflict(f"{before.id} was used or has expired meanwhile; nothing was shredded")
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
