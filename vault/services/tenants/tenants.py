"""Tenants, the controllers whose recordings the vault keeps, and the reindexing of a tenant's numbers."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from vault.access.two_people import Deciders, Decision, check_shown, check_two, shown_digest
from vault.crypto.values import Field
from vault.errors import Conflict, IntegrityError, Invalid, Shredded, Unavailable
from vault.ids import RecordingId, TenantId, parse_tenant
from vault.instants import rfc3339
from vault.model import AuditEvent, Principal, Recording, Tenant
from vault.ports.audit import AuditLookup, AuditQuery
from vault.ports.keys import Keyring
from vault.ports.recordings import IndexRows, Kept, RecordingCounts, RecordingQuery, RecordingSearch, Reindexed
from vault.ports.revision import Revision
from vault.ports.tenants import TenantRows, TokenLookup
from vault.ports.time import Clock
from vault.protocol.facts.parties import DEFAULT_REGION, checked_region, reread_parties
from vault.protocol.origins import checked_origins
from vault.protocol.webhook import Network, checked_webhook, is_forbidden_address, origin_of
from vault.retention.periods import Period, RetentionBounds, maybe_period
from vault.retention.policy import (
    check_metadata_outlives,
    check_metadata_retention,
    export_ends,
    metadata_period,
    metadata_until,
    month_name,
    with_metadata_retention,
)
from vault.services.audit import event
from vault.services.people.two_people import decide_by_two
from vault.services.recordings.dossiers import Coordinates
from vault.services.recordings.search import BlindIndex, facts_of

# -- reindexing ---------------------------------------------------------------------------------------------------

_REINDEXED: Final = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """The result of reindexing one page of a tenant's recordings."""

    looked_at: int
    changed: int
    before: RecordingId | None
    """The `before` of the next page; None after the last page."""


class ReindexingRows(IndexRows, RecordingSearch, Protocol):
    """The catalog methods that reindexing needs."""


class Reindexing:
    """Computes new tokens for a tenant's recordings, page by page, newest first. Sealed facts stay unchanged."""

    def __init__(self, *, catalog: ReindexingRows, keyring: Keyring, index: BlindIndex, tenants: Tenants) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._index = index
        self._tenants = tenants

    async def page(self, tenant: TenantId, *, before: RecordingId | None, actor: Principal) -> Looked:
        """Store new tokens for one page, with its parties read in the tenant's present region; repeatable.

        A party that was read as a full number keeps its token, so that searches for it still find the call. A row whose
        facts changed or were shredded meanwhile is left unchanged.
        """
        region = await self._tenants.region(tenant)
        rows = await self._catalog.recordings(RecordingQuery(tenant=tenant, before=before, limit=_REINDEXED))
        wanted = [each for row in rows if (each := self._reindexed(row, region)) is not None]
        changed = await self._changed(tenant, wanted, actor=actor)
        return Looked(looked_at=len(rows), changed=changed, before=rows[-1].id if len(rows) == _REINDEXED else None)

    async def _changed(self, tenant: TenantId, wanted: Sequence[Reindexed], *, actor: Principal) -> int:
        if not wanted:
            return 0
        detail = {"action": "reindexed", "recordings": len(wanted), "first": wanted[-1].recording}
        return await self._catalog.reindex(
            wanted, audit=[event("admin.config", actor, tenant=tenant, target=tenant, detail=detail)]
        )

    def _reindexed(self, row: Recording, region: str) -> Reindexed | None:
        """Return the row's new tokens; None if they are right already, or if the facts can no longer be read."""
        try:
            kept = facts_of(self._keyring, row)
            if kept is None:
                return None
            facts = reread_parties(kept, region)
            caller, called = (
                None if value is None else self._index.token_in(row.metadata.cohort, field, value)
                for field, value in ((Field.CALLER, facts.caller), (Field.CALLED, facts.called))
            )
        except (IntegrityError, Shredded) as error:
            logger.warning("a call keeps its tokens", extra={"fields": {"recording": row.id, "error": error.code}})
            return None
        if (caller, called) == (row.caller_token, row.called_token):
            return None
        return Reindexed(recording=row.id, sealed_facts=row.sealed_facts, caller_token=caller, called_token=called)


# -- tenants ------------------------------------------------------------------------------------------------------

_PATIENCE_SECONDS: Final = 5.0

Resolve = Callable[[str], Awaitable[Sequence[str]]]


async def resolve(host: str) -> Sequence[str]:
    """Return the addresses of a host name; empty if it has none, or without an answer within 5 s."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return ()
    return [str(sockaddr[0]) for *_, sockaddr in found]


class Webhooks:
    """Checks addresses of webhooks; those within `networks` are allowed although they are not public."""

    def __init__(self, *, networks: Sequence[Network], resolve: Resolve = resolve) -> None:
        self._networks = tuple(networks)
        self._resolve = resolve

    async def checked(self, url: str) -> str:
        """Return `url`; Invalid if it is not the URL of a webhook, or if its host is in a network that is not allowed.

        A host name without an address is accepted: the host may not be set up yet.
        """
        checked_webhook(url)
        if await self.leads_inside(url):
            raise Invalid(
                "that webhook leads to a private or link-local address",
                hint="alerts.private_networks in config.toml lists the networks that webhooks may lead to",
            )
        return url

    async def leads_inside(self, url: str) -> bool:
        """Tell whether the webhook's host has an address that is neither public nor allowed."""
        return any(
            is_forbidden_address(address, self._networks)
            for address in await self._resolve(urlsplit(url).hostname or "")
        )


_CHANGED: Final = "policy.changed"
_PAGE: Final = 1000
_KNOWN_SECONDS: Final = 5.0
"""How long a tenant is used as it was read; another node's change takes effect here within that time."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TenantView:
    """A tenant for display. If its off-boarding is requested: also what would go, and when at the earliest."""

    tenant: Tenant
    kept: Kept | None = None
    goes_from: datetime | None = None
    shown: str | None = None
    """The digest that an approval names; None if no approval is pending."""


class Unchanged:
    """The value of a setting that stays unchanged, where None is a setting."""


UNCHANGED = Unchanged()


class TenancyRows(TenantRows, AuditLookup, RecordingCounts, TokenLookup, Protocol):
    """The catalog methods that tenants need."""


class Tenants:
    """Adds, changes, lists and off-boards tenants."""

    def __init__(
        self,
        *,
        catalog: TenancyRows,
        coordinates: Coordinates,
        webhooks: Webhooks,
        clock: Clock,
        bounds: RetentionBounds,
        periods_ahead: int,
        export_window: Period,
    ) -> None:
        self._catalog = catalog
        self._webhooks = webhooks
        self._coordinates = coordinates
        self._clock = clock
        self._bounds = bounds
        self._periods_ahead = periods_ahead
        self._export_window = export_window
        self._known: dict[TenantId, tuple[float, Tenant]] = {}
        self._listed: tuple[float, frozenset[str]] | None = None
        self._unprepared: tuple[Sequence[tuple[TenantId, Period]], Unavailable] | None = None
        """The tenant whose cohorts the latest attempt could not create, and the reason."""

    async def add(
        self,
        *,
        identifier: str,
        name: str,
        controller: str,
        contact: str,
        retention: Period | None,
        metadata_retention: Period | None = None,
        numbering_region: str = DEFAULT_REGION,
        keep_dtmf: bool = False,
        safeguarding_webhook: str | None = None,
        origins: Sequence[str] = (),
        actor: Principal | None,
    ) -> Tenant:
        """Create a tenant, and the cohorts that its first calls need; Conflict if it exists."""
        if retention is not None:
            self._bounds.check(retention)
        check_metadata_retention(metadata_retention)
        check_metadata_outlives(metadata_retention, self._bounds.of(retention))
        tenant = Tenant(
            id=parse_tenant(identifier),
            name=name,
            controller=controller,
            contact=contact,
            created_at=self._clock.now(),
            retention=_text(retention),
            metadata_retention=_text(metadata_retention),
            numbering_region=checked_region(numbering_region),
            keep_dtmf=keep_dtmf,
            safeguarding_webhook=await self._webhook(safeguarding_webhook),
            origins=checked_origins(origins),
        )
        detail = {
            "action": "tenant added",
            "safeguarding_webhook": origin_of(safeguarding_webhook),
            "origins": " ".join(tenant.origins),
        }
        await self._catalog.add_tenant(
            tenant, audit=[event("admin.config", actor, tenant=tenant.id, target=tenant.id, detail=detail)]
        )
        self._listed = None
        await self._precreate_if_possible()
        return tenant

    async def _webhook(self, url: str | None) -> str | None:
        return None if url is None else await self._webhooks.checked(url)

    async def change(
        self,
        identifier: TenantId,
        *,
        retention: Period | Unchanged | None = UNCHANGED,
        metadata_retention: Period | Unchanged | None = UNCHANGED,
        numbering_region: str | Unchanged = UNCHANGED,
        keep_dtmf: bool | Unchanged = UNCHANGED,
        safeguarding_webhook: str | Unchanged | None = UNCHANGED,
        origins: Sequence[str] | Unchanged = UNCHANGED,
        actor: Principal,
    ) -> Tenant:
        """Change the settings of a tenant; existing recordings keep their retention.

        A new metadata retention applies from the next month on, because a month of metadata has one date. Invalid if
        metadata would then go before its audio. Unacknowledged alerts go to a new webhook at once; the audit entry has
        only the webhook's origin. `keep_dtmf` applies to keys pressed from now on.
        """
        given = {
            "keep_dtmf": keep_dtmf,
            "numbering_region": numbering_region
            if isinstance(numbering_region, Unchanged)
            else checked_region(numbering_region),
            "origins": origins if isinstance(origins, Unchanged) else checked_origins(origins),
        }
        wanted: dict[str, Any] = {name: value for name, value in given.items() if not isinstance(value, Unchanged)}
        if not isinstance(retention, Unchanged):
            if retention is not None:
                self._bounds.check(retention)
            wanted["retention"] = _text(retention)
        if not isinstance(metadata_retention, Unchanged):
            check_metadata_retention(metadata_retention)
        if not isinstance(safeguarding_webhook, Unchanged):
            wanted["safeguarding_webhook"] = await self._webhook(safeguarding_webhook)

        now = self._clock.now()

        def revision(before: Tenant) -> tuple[Tenant, Sequence[AuditEvent]]:
            after = dataclasses.replace(before, **wanted)
            if not isinstance(metadata_retention, Unchanged):
                after = with_metadata_retention(after, _text(metadata_retention), now=now)
            if "retention" in wanted or not isinstance(metadata_retention, Unchanged):
                check_metadata_outlives(maybe_period(after.metadata_retention), self._of(after))
            detail = _policy_change(before, after)
            return after, [event(_CHANGED, actor, tenant=identifier, target=identifier, detail=detail)]

        changed = await self._revise(identifier, revision)
        await self._precreate_if_possible()
        return changed

    # -- off-boarding -------------------------------------------------------------------------------------------

    async def request_offboarding(
        self, identifier: TenantId, *, contract_end: datetime | None, actor: Principal
    ) -> Tenant:
        """Request, as the first person, the end of the contract; without `contract_end` it ends now.

        Nothing changes before approval. Conflict while a request is open, and once one is approved. Invalid if the end
        of the export window would be beyond the calendar.
        """
        now = self._clock.now()
        end = contract_end or now
        self._export_window.after(max(end, now))  # raises Invalid; the end of the window is shown with the tenant

        def revision(before: Tenant) -> tuple[Tenant, Sequence[AuditEvent]]:
            if before.ends_at is not None:
                raise Conflict(f"the end of the contract with {identifier} is already approved")
            if before.contract_end is not None:
                raise Conflict(
                    f"the end of the contract with {identifier} is already requested and waits for a second person",
                    hint=f"to change it, withdraw it first: callvault tenants offboard {identifier} --reject",
                )
            after = dataclasses.replace(before, contract_end=end, offboard_requested_by=actor.token_id)
            return after, [_offboarding(after, "requested", actor)]

        return await self._revise(identifier, revision)

    async def decide_offboarding(
        self, identifier: TenantId, *, approve: bool, shown: str | None = None, actor: Principal
    ) -> Tenant:
        """Approve the request as it was `shown`, as the second person, or reject it; the first person may reject too.

        From the contract's end no call is accepted. The export window counts from the later of that end and this
        approval; after it a sweep drops the tenant. Forbidden unless the two are the tenant's dpo and an operator.
        Conflict without an open request. ChangedSince if the request changed since it was shown.
        """

        async def asked_by() -> str | None:
            return (await self._catalog.tenant(identifier)).offboard_requested_by

        async def decide(two: Deciders) -> Tenant:
            return await self._decide_offboarding(identifier, approve=approve, shown=shown, actor=actor, two=two)

        return await decide_by_two(self._catalog, asked_by, actor, decide)

    async def _decide_offboarding(
        self, identifier: TenantId, *, approve: bool, shown: str | None, actor: Principal, two: Deciders
    ) -> Tenant:
        now = self._clock.now()

        def revision(before: Tenant) -> tuple[Tenant, Sequence[AuditEvent]]:
            if before.contract_end is None or before.ends_at is not None:
                raise Conflict(
                    f"there is no open request to end the contract with {identifier}",
                    hint=f"callvault tenants offboard {identifier}",
                )
            own = before.offboard_requested_by == actor.token_id
            if approve:
                check_shown(shown, offboarding_document(before, self._export_window))
                check_two(Decision.OFFBOARDING, two, asked_by=before.offboard_requested_by, tenant=identifier)
                after = dataclasses.replace(before, offboard_approved_by=actor.token_id, offboard_approved_at=now)
            else:
                after = dataclasses.replace(before, contract_end=None, offboard_requested_by=None)
            return after, [_offboarding(after, "approved" if approve else "withdrawn" if own else "rejected", actor)]

        return await self._revise(identifier, revision)

    async def _revise(self, identifier: TenantId, revision: Revision[Tenant]) -> Tenant:
        revised = await self._catalog.revise_tenant(identifier, revision)
        self._known.pop(identifier, None)
        self._listed = None
        return revised

    async def view(self, tenant: Tenant) -> TenantView:
        """Return the tenant for display."""
        if tenant.contract_end is None:
            return TenantView(tenant=tenant)
        window = self._export_window
        goes = export_ends(tenant, window) or window.after(max(tenant.contract_end, self._clock.now()))
        waits = tenant.offboard_approved_by is None
        return TenantView(
            tenant=tenant,
            kept=await self._catalog.count_kept(tenant.id),
            goes_from=goes,
            shown=shown_digest(offboarding_document(tenant, window)) if waits else None,
        )

    async def _precreate_if_possible(self) -> None:
        """Create cohorts ahead; a failure is only logged, because a call or the next round creates missing ones."""
        try:
            await self.precreate()
        except Unavailable as error:
            logger.warning("cohorts not created ahead", extra={"fields": {"reason": error.message}})

    async def retention(self, identifier: TenantId) -> Period:
        """Return the default retention of a recording that begins now.

        NotFound for an unknown tenant. Conflict once its contract has ended, because no call is recorded for it then.
        """
        known = await self._lookup(identifier)
        if self._left(known):
            raise Conflict(
                "the contract with this tenant has ended, so new recordings are refused",
                hint="stop its recorders; existing recordings can be exported until the export window ends",
            )
        return self._of(known)

    async def check_kept(self, identifier: TenantId, until: datetime, *, started: datetime | None) -> None:
        """Return if a recording that begins now may be kept until `until`; Invalid, NotFound.

        The limit is the vault's cap, counted from the start of the call, and the retention of the metadata: without
        metadata the recording could not be found.
        """
        tenant, now = await self._lookup(identifier), self._clock.now()
        latest = self._bounds.cap.after(min(started or now, now))
        month = metadata_period(now)
        metadata = maybe_period(tenant.metadata_retention_of(month))
        if metadata is not None:
            latest = min(latest, metadata_until(month, metadata))
        if until > latest:
            raise Invalid(
                f"the recording may be kept until {rfc3339(latest)} at most; nothing was kept",
                hint="name an earlier date, or leave the lock out: then the tenant's retention applies",
                s3="InvalidArgument",
            )

    async def require(self, identifier: TenantId) -> None:
        """Raise NotFound unless there is this tenant."""
        await self._lookup(identifier)

    async def region(self, identifier: TenantId) -> str:
        """Return the region in which this tenant's numbers without a country code are read, ISO 3166-1; NotFound."""
        return (await self._lookup(identifier)).numbering_region

    async def regions(self, identifier: TenantId) -> tuple[str, ...]:
        """Return the tenant's region, then its earlier regions, from the audit trail; NotFound.

        The numbers of existing calls were read in any of them.
        """
        regions = [await self.region(identifier)]
        changes = AuditQuery(target=identifier, event=_CHANGED, newest_first=True, limit=_PAGE)
        while page := await self._catalog.audit_found(changes):
            told = (entry.event.detail.get("numbering_region_before") for entry in page)
            regions += [region for region in told if isinstance(region, str)]
            changes = dataclasses.replace(changes, beyond=page[-1].seq)
        return tuple(dict.fromkeys(regions))

    async def keeps_dtmf(self, identifier: TenantId) -> bool:
        """Tell whether the keys that this tenant's callers press are kept."""
        return (await self._lookup(identifier)).keep_dtmf

    async def origins(self, identifier: TenantId) -> tuple[str, ...]:
        """Return the web origins whose pages may record for this tenant; NotFound."""
        return (await self._lookup(identifier)).origins

    async def listed_origins(self) -> frozenset[str]:
        """Return the web origins of all tenants; which tenant lists one is shown only to its own tokens."""
        now = self._clock.monotonic()
        if self._listed is None or now - self._listed[0] >= _KNOWN_SECONDS:
            try:
                found = frozenset(each for tenant in await self._catalog.tenants() for each in tenant.origins)
            except Unavailable:
                if self._listed is None:
                    raise
                found = self._listed[1]
            self._listed = now, found
        return self._listed[1]

    async def _lookup(self, identifier: TenantId) -> Tenant:
        now = self._clock.monotonic()
        read_at, known = self._known.get(identifier, (-_KNOWN_SECONDS, None))
        if known is None or now - read_at >= _KNOWN_SECONDS:
            try:
                known = await self._catalog.tenant(identifier)
            except Unavailable:
                # A call under way must not end, or wait again and again, because the catalog does not answer.
                if known is None:
                    raise
            self._known[identifier] = now, known
        return known

    def _left(self, tenant: Tenant) -> bool:
        return tenant.ends_at is not None and tenant.ends_at <= self._clock.now()

    def _of(self, tenant: Tenant) -> Period:
        return self._bounds.of(maybe_period(tenant.retention))

    async def one(self, identifier: TenantId) -> Tenant:
        """Return the tenant as the catalog has it now; NotFound."""
        return await self._catalog.tenant(identifier)

    async def all(self) -> Sequence[Tenant]:
        """Return every tenant."""
        return await self._catalog.tenants()

    async def precreate(self) -> None:
        """Create the cohorts of the coming periods for every tenant."""
        tenants = [(tenant.id, self._of(tenant)) for tenant in await self._catalog.tenants() if not self._left(tenant)]
        try:
            await self._coordinates.precreate(tenants, now=self._clock.now(), periods_ahead=self._periods_ahead)
        except Unavailable as error:
            self._unprepared = tenants, error
            raise
        self._unprepared = None

    def require_prepared(self) -> None:
        """Raise Unavailable if calls that begin now need cohorts that could not be created."""
        if self._unprepared is not None:
            tenants, error = self._unprepared
            if self._coordinates.lack(tenants, now=self._clock.now()):
                raise error


def offboarding_document(tenant: Tenant, window: Period) -> dict[str, object]:
    """Return the document that an approver of the end of a contract decides about.

    It has no number of recordings: that changes with every call, and all of them go.
    """
    return {
        "tenant": tenant.id,
        "controller": tenant.controller,
        "contract_end": None if tenant.contract_end is None else rfc3339(tenant.contract_end),
        "offboard_requested_by": tenant.offboard_requested_by,
        "export_window": str(window),
    }


def _policy_change(before: Tenant, after: Tenant) -> Mapping[str, str | None]:
    detail = {
        "before": before.retention,
        "after": after.retention,
        "metadata_before": before.metadata_retention,
        "metadata_after": after.metadata_retention,
        "metadata_kept_through": month_name(after.metadata_before[-1][0]) if after.metadata_before else None,
        "numbering_region_before": before.numbering_region,
        "numbering_region_after": after.numbering_region,
        "keep_dtmf_before": before.keep_dtmf,
        "keep_dtmf_after": after.keep_dtmf,
        "webhook_before": origin_of(before.safeguarding_webhook),
        "webhook_after": origin_of(after.safeguarding_webhook),
        "origins_before": " ".join(before.origins),
        "origins_after": " ".join(after.origins),
    }
    return {key: None if value is None else str(value) for key, value in detail.items()}


def _offboarding(tenant: Tenant, decided: str, actor: Principal) -> AuditEvent:
    end = rfc3339(tenant.contract_end) if tenant.contract_end else None
    detail = {"action": f"offboarding {decided}", "contract_end": end}
    return event("admin.config", actor, tenant=tenant.id, target=tenant.id, detail=detail)


def _text(period: Period | None) -> str | None:
    return None if period is None else str(period)
