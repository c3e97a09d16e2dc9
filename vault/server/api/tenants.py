"""Tenants over HTTP: add, show, change and reindex them, and end a contract by two people."""

from __future__ import annotations

from typing import Annotated, Final, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from vault import model
from vault.access.permissions import Act
from vault.access.two_people import Decision
from vault.config.sections import Retention
from vault.errors import Invalid, NotFound
from vault.ids import RecordingId
from vault.protocol.facts.parties import DEFAULT_REGION
from vault.protocol.webhook import origin_of
from vault.retention.policy import month_name
from vault.server.context import Admitted, checked_id, checked_tenant
from vault.server.operation import Operations, answer
from vault.server.schemas import (
    Approve,
    Body,
    Count,
    Instant,
    LongestSeconds,
    Moment,
    Number,
    PolicyRef,
    RecordingRef,
    Refusal,
    Sha256,
    TenantRef,
    Who,
    Words,
    longest_seconds,
    render,
)
from vault.services.tenants.tenants import UNCHANGED, TenantView
from vault.services.vault import Vault

OPERATIONS: Final = Operations("administration")
Address = Annotated[str, Field(min_length=1, max_length=2000)]


class AddTenant(Body):
    """POST /v1/tenants."""

    id: str
    name: Words
    controller: Words
    contact: Words
    retention: Retention | None = None
    metadata_retention: Retention | None = None
    numbering_region: str = DEFAULT_REGION
    """The region in which numbers without a country code are read, ISO 3166-1."""
    keep_dtmf: bool = False
    safeguarding_webhook: Address | None = None
    origins: list[Address] = Field(default=[])


class ChangeTenant(Body):
    """PUT /v1/tenants/{tenant}: a member that is left out changes nothing."""

    retention: Retention | None = None
    """null: the vault's default."""
    metadata_retention: Retention | None = None
    """null keeps metadata until the contract ends."""
    safeguarding_webhook: Address | None = None
    """The address that gets the alerts of flags; null: no alerts are sent."""
    numbering_region: str | None = None
    """The region in which numbers without a country code are read; null changes nothing."""
    keep_dtmf: bool | None = None
    """Whether pressed keys are kept; null changes nothing."""
    origins: list[Address] | None = None
    """The web origins whose pages may record; null changes nothing."""


class Reindex(Body):
    """POST /v1/tenants/{tenant}/reindex: which page."""

    before: Number | None = None


class EndContract(Body):
    """POST /v1/tenants/{tenant}/offboard."""

    contract_end: Instant | None = None


class _Before(TypedDict):
    through: str
    retention: str | None
    retention_seconds: LongestSeconds


class _MetadataChange(_Before):
    policy: PolicyRef


class _RetentionChange(TypedDict):
    captured_through: Moment
    retention: str
    since: Moment
    policy: PolicyRef


class _Offboarding(TypedDict):
    recordings: Count
    held: Count
    goes_from: Moment
    shown: Sha256 | None
    """The value that an approval of this request repeats as `shown`; null if no approval is pending."""


class Tenant(TypedDict):
    """A tenant."""

    id: TenantRef
    name: str
    controller: str
    contact: str
    created_at: Moment
    retention: str | None
    """How long recordings are kept; null: the vault's default."""
    retention_seconds: LongestSeconds
    metadata_retention: str | None
    """How long metadata is kept after the month of its call; null: until the contract ends."""
    metadata_retention_seconds: LongestSeconds
    metadata_before: list[_Before]
    """Earlier metadata retentions, each with the last month of calls that it applies to."""
    metadata_changed: _MetadataChange | None
    """The change by two people for the metadata of calls through a month; it replaces the agreed retention."""
    retention_changed: _RetentionChange | None
    """The change by two people for the audio of calls captured until then; it replaces the date of capture."""
    contract_end: Moment | None
    offboard_requested_by: Who | None
    offboard_approved_by: Who | None
    offboard_approved_at: Moment | None
    offboarding: _Offboarding | None
    """The end of the contract: how many recordings go, the earliest time, and the `shown` of its approval."""
    numbering_region: str
    """The region in which numbers without a country code are read, ISO 3166-1; `GB` if left out."""
    keep_dtmf: bool
    """Whether the keys that callers press are kept."""
    safeguarding_webhook: str | None
    """The address that gets alerts, only with scheme, host and port, because the rest may be a secret."""
    origins: list[str]
    """The web origins whose pages may record."""
    may_not_approve: NotRequired[Refusal]
    """Why this token may not approve the request; left out if it may, if nothing waits, and in other answers."""


class TenantList(TypedDict):
    """Tenants."""

    tenants: list[Tenant]


class Reindexed(TypedDict):
    """The result of reindexing a page of recordings."""

    looked_at: Count
    changed: Count
    before: RecordingRef | None
    """The `before` of the next page; null after the last page."""


def render_tenant(view: TenantView) -> Tenant:
    """Render a tenant."""
    tenant, kept = view.tenant, view.kept
    metadata, audio = tenant.metadata_changed, tenant.retention_changed
    return render(
        Tenant,
        tenant,
        retention_seconds=longest_seconds(tenant.retention),
        metadata_retention_seconds=longest_seconds(tenant.metadata_retention),
        metadata_before=[_before(month, agreed) for month, agreed in tenant.metadata_before],
        metadata_changed=None
        if metadata is None
        else _MetadataChange(**_before(metadata.through, metadata.retention), policy=metadata.request),
        retention_changed=None
        if audio is None
        else render(_RetentionChange, audio, captured_through=audio.through, policy=audio.request),
        offboarding=None if kept is None else render(_Offboarding, view, recordings=kept.live, held=kept.held),
        safeguarding_webhook=origin_of(tenant.safeguarding_webhook),
        origins=list(tenant.origins),
    )


def _before(month: int, retention: str | None) -> _Before:
    return _Before(through=month_name(month), retention=retention, retention_seconds=longest_seconds(retention))


async def tenant_answer(vault: Vault, tenant: model.Tenant) -> Tenant:
    """Return a tenant for display, with what would go if its contract ended."""
    return render_tenant(await vault.tenants.view(tenant))


@OPERATIONS("GET /v1/tenants", Act.TENANT_READ, answer("Every tenant the token may see.", TenantList))
async def list_tenants(request: Admitted) -> TenantList:
    """List tenants."""
    vault = request.vault
    found = [item for item in await vault.tenants.all() if request.actor.tenant in (None, item.id)]
    return TenantList(tenants=[await tenant_answer(vault, item) for item in found])


async def _tenant(request: Admitted) -> model.Tenant:
    """Return the tenant in the path; NotFound, logged."""
    vault, identifier = request.vault, request.tenant
    try:
        return await vault.tenants.one(identifier)
    except NotFound:
        raise await vault.access.none_of_its_own(request.actor, request.act, identifier) from None


@OPERATIONS(
    "POST /v1/tenants", Act.TENANT_ADMIN, answer("The tenant.", Tenant, location=True, status=201), body=AddTenant
)
async def add_tenant(request: Admitted, wanted: AddTenant) -> Tenant:
    """Add a tenant."""
    given = dict(wanted)
    identifier = checked_tenant(given.pop("id"))
    added = await request.vault.tenants.add(identifier=identifier, actor=request.actor, **given)
    return await tenant_answer(request.vault, added)


@OPERATIONS("GET /v1/tenants/{tenant}", Act.TENANT_READ, answer("The tenant.", Tenant), of=_tenant, problems=(422,))
async def show_tenant(request: Admitted, tenant: model.Tenant) -> Tenant:
    """Show one tenant."""
    shown = await tenant_answer(request.vault, tenant)
    if tenant.contract_end is None or tenant.offboard_approved_by is not None:
        return shown
    asked_by = tenant.offboard_requested_by
    return await request.to_approve(shown, Decision.OFFBOARDING, asked_by=asked_by, tenant=tenant.id)


@OPERATIONS("PUT /v1/tenants/{tenant}", Act.TENANT_ADMIN, answer("The tenant.", Tenant), of=_tenant, body=ChangeTenant)
async def change_tenant(request: Admitted, tenant: model.Tenant, wanted: ChangeTenant) -> Tenant:
    """Change a tenant's settings: retention of future recordings and metadata, webhook, region, keys, origins."""
    given = wanted.model_fields_set
    if not given:
        raise Invalid("no setting to change", hint="for example retention, metadata_retention or safeguarding_webhook")
    changed = await request.vault.tenants.change(
        tenant.id,
        retention=wanted.retention if "retention" in given else UNCHANGED,
        metadata_retention=wanted.metadata_retention if "metadata_retention" in given else UNCHANGED,
        safeguarding_webhook=wanted.safeguarding_webhook if "safeguarding_webhook" in given else UNCHANGED,
        numbering_region=UNCHANGED if wanted.numbering_region is None else wanted.numbering_region,
        keep_dtmf=UNCHANGED if wanted.keep_dtmf is None else wanted.keep_dtmf,
        origins=UNCHANGED if wanted.origins is None else wanted.origins,
        actor=request.actor,
    )
    return await tenant_answer(request.vault, changed)


@OPERATIONS(
    "POST /v1/tenants/{tenant}/reindex", Act.TENANT_ADMIN, answer("The result of the page.", Reindexed), body=Reindex
)
async def reindex_tenant(request: Admitted, wanted: Reindex) -> Reindexed:
    """Reindex the numbers of a page of existing calls in the tenant's present region; repeat with its `before`."""
    before = None if wanted.before is None else RecordingId(checked_id(wanted.before, "rec", "recording"))
    return render(Reindexed, await request.vault.reindexing.page(request.tenant, before=before, actor=request.actor))


@OPERATIONS(
    "POST /v1/tenants/{tenant}/offboard",
    Act.TENANT_OFFBOARD,
    answer("The tenant; a second person decides.", Tenant, status=202),
    of=_tenant,
    body=EndContract,
)
async def request_offboarding(request: Admitted, tenant: model.Tenant, wanted: EndContract) -> Tenant:
    """Request the end of a tenant's contract, as the first of its dpo and an operator."""
    vault, actor = request.vault, request.actor
    asked = await vault.tenants.request_offboarding(tenant.id, contract_end=wanted.contract_end, actor=actor)
    return await tenant_answer(vault, asked)


@OPERATIONS(
    "POST /v1/tenants/{tenant}/offboard/approve",
    Act.TENANT_OFFBOARD,
    answer("The tenant; after the export window a sweep drops it.", Tenant),
    of=_tenant,
    body=Approve,
)
async def decide_offboarding(request: Admitted, tenant: model.Tenant, wanted: Approve) -> Tenant:
    """Approve the end of a contract, as the other of dpo and operator; either of them may reject it."""
    vault, actor = request.vault, request.actor
    decided = await vault.tenants.decide_offboarding(tenant.id, approve=wanted.approve, shown=wanted.shown, actor=actor)
    return await tenant_answer(vault, decided)
