"""Tenants over HTTP: add, show, change, read their numbers anew, and end a contract by two people."""

from __future__ import annotations

from typing import Annotated, Final

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from vault import model
from vault.access.permissions import Act
from vault.config.sections import Retention
from vault.errors import Invalid, NotFound
from vault.ids import RecordingId
from vault.model import Principal
from vault.protocol.facts.parties import DEFAULT_REGION
from vault.protocol.webhook import origin_of
from vault.retention.policy import month_name
from vault.server.context import VAULT, answer, body, caller, checked_id, checked_tenant, path_tenant, reply
from vault.server.operation import Operations, told
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
    """Where numbers without a country code are dialled, ISO 3166-1."""
    keep_dtmf: bool = False
    safeguarding_webhook: Address | None = None
    origins: list[Address] = Field(default=[])


class ChangeTenant(Body):
    """PUT /v1/tenants/{tenant}: what is left out stays as it is."""

    retention: Retention | None = None
    """null follows the vault."""
    metadata_retention: Retention | None = None
    """null keeps metadata until the contract ends."""
    safeguarding_webhook: Address | None = None
    """Where flags are told; null tells nobody."""
    numbering_region: str | None = None
    """Where numbers without a country code are dialled; null changes nothing."""
    keep_dtmf: bool | None = None
    """Whether pressed keys are kept; null changes nothing."""
    origins: list[Address] | None = None
    """The web origins whose pages may record; null changes nothing."""


class Reindex(Body):
    """POST /v1/tenants/{tenant}/reindex: where the page begins."""

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
    """What an approval of this request names as `shown`; null if none is waited for."""


class Tenant(TypedDict):
    """A tenant."""

    id: TenantRef
    name: str
    controller: str
    contact: str
    created_at: Moment
    retention: str | None
    """How long recordings are kept; null follows the vault."""
    retention_seconds: LongestSeconds
    metadata_retention: str | None
    """How long metadata is kept after the month of its call; null: as long as the contract."""
    metadata_retention_seconds: LongestSeconds
    metadata_before: list[_Before]
    """What was agreed before, each through its last month; later ones follow the present."""
    metadata_changed: _MetadataChange | None
    """What two people decided for the calls through a month; outranks what was agreed."""
    retention_changed: _RetentionChange | None
    """What two people decided for the audio of calls captured until then; outranks its date."""
    contract_end: Moment | None
    offboard_requested_by: Who | None
    offboard_approved_by: Who | None
    offboard_approved_at: Moment | None
    offboarding: _Offboarding | None
    """What goes if the contract ends, not before when, and what its approval names."""
    numbering_region: str
    """Where numbers without a country code are dialled, ISO 3166-1; `GB` if left out."""
    keep_dtmf: bool
    """Whether the keys that callers press are kept."""
    safeguarding_webhook: str | None
    """Where flags are told: scheme, host and port alone, for the rest may be a secret."""
    origins: list[str]
    """The web origins whose pages may record."""


class TenantList(TypedDict):
    """Tenants."""

    tenants: list[Tenant]


class Reindexed(TypedDict):
    """What became of a page of recordings whose numbers were read anew."""

    looked_at: Count
    changed: Count
    before: RecordingRef | None
    """Where the next page begins; null after the last."""


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
    """Render a tenant with what would go if its contract ended."""
    return render_tenant(await vault.tenants.view(tenant))


@OPERATIONS("GET /v1/tenants", Act.TENANT_READ, told("Every tenant the token may see.", TenantList))
async def list_tenants(request: web.Request) -> web.Response:
    """List tenants."""
    vault, actor = await caller(request, Act.TENANT_READ)
    found = [item for item in await vault.tenants.all() if actor.tenant in (None, item.id)]
    return await answer(request, TenantList(tenants=[await tenant_answer(vault, item) for item in found]))


async def _tenant(request: web.Request, act: Act) -> tuple[model.Tenant, Principal]:
    """Return the tenant in the path, and who asks, once they may do `act` with it; NotFound, logged."""
    identifier = path_tenant(request)
    vault, actor = await caller(request, act, tenant=identifier)
    try:
        return await vault.tenants.one(identifier), actor
    except NotFound:
        raise await vault.access.none_of_its_own(actor, act, identifier) from None


@OPERATIONS(
    "POST /v1/tenants", Act.TENANT_ADMIN, told("The tenant.", Tenant, location=True, status=201), body=AddTenant
)
async def add_tenant(request: web.Request) -> web.Response:
    """Add a tenant."""
    vault, actor = await caller(request, Act.TENANT_ADMIN)
    wanted = await body(request, AddTenant)
    given = dict(wanted)
    added = await vault.tenants.add(identifier=checked_tenant(given.pop("id")), actor=actor, **given)
    return await answer(
        request, await tenant_answer(vault, added), status=201, headers={"Location": f"/v1/tenants/{added.id}"}
    )


@OPERATIONS("GET /v1/tenants/{tenant}", Act.TENANT_READ, told("The tenant.", Tenant), problems=(422,))
async def show_tenant(request: web.Request) -> web.Response:
    """Show one tenant."""
    found, _ = await _tenant(request, Act.TENANT_READ)
    return await answer(request, await tenant_answer(request.app[VAULT], found))


@OPERATIONS("PUT /v1/tenants/{tenant}", Act.TENANT_ADMIN, told("The tenant.", Tenant), body=ChangeTenant)
async def change_tenant(request: web.Request) -> web.Response:
    """Set the retention of a tenant's future recordings, that of its metadata, or its safeguarding webhook."""
    vault = request.app[VAULT]
    found, actor = await _tenant(request, Act.TENANT_ADMIN)
    wanted = await body(request, ChangeTenant)
    given = wanted.model_fields_set
    if not given:
        raise Invalid("there is nothing to change", hint="retention, metadata_retention or safeguarding_webhook")
    changed = await vault.tenants.change(
        found.id,
        retention=wanted.retention if "retention" in given else UNCHANGED,
        metadata_retention=wanted.metadata_retention if "metadata_retention" in given else UNCHANGED,
        safeguarding_webhook=wanted.safeguarding_webhook if "safeguarding_webhook" in given else UNCHANGED,
        numbering_region=UNCHANGED if wanted.numbering_region is None else wanted.numbering_region,
        keep_dtmf=UNCHANGED if wanted.keep_dtmf is None else wanted.keep_dtmf,
        origins=UNCHANGED if wanted.origins is None else wanted.origins,
        actor=actor,
    )
    return await answer(request, await tenant_answer(vault, changed))


@OPERATIONS(
    "POST /v1/tenants/{tenant}/reindex", Act.TENANT_ADMIN, told("What became of the page.", Reindexed), body=Reindex
)
async def reindex_tenant(request: web.Request) -> web.Response:
    """Read the numbers of a page of existing calls anew, as a search reads them; repeat with its `before`."""
    identifier = path_tenant(request)
    vault, actor = await caller(request, Act.TENANT_ADMIN, tenant=identifier)
    wanted = await body(request, Reindex)
    before = None if wanted.before is None else RecordingId(checked_id(wanted.before, "rec", "recording"))
    done = await vault.reindexing.page(identifier, before=before, actor=actor)
    return reply(render(Reindexed, done))


@OPERATIONS(
    "POST /v1/tenants/{tenant}/offboard",
    Act.TENANT_OFFBOARD,
    told("The tenant, waiting for the second person.", Tenant, status=202),
    body=EndContract,
)
async def request_offboarding(request: web.Request) -> web.Response:
    """Ask to end a tenant's contract: its dpo or an operator, the first of the two."""
    vault = request.app[VAULT]
    found, actor = await _tenant(request, Act.TENANT_OFFBOARD)
    wanted = await body(request, EndContract)
    asked = await vault.tenants.request_offboarding(found.id, contract_end=wanted.contract_end, actor=actor)
    return await answer(request, await tenant_answer(vault, asked), status=202)


@OPERATIONS(
    "POST /v1/tenants/{tenant}/offboard/approve",
    Act.TENANT_OFFBOARD,
    told("The tenant; after the export window a sweep drops it.", Tenant),
    body=Approve,
)
async def decide_offboarding(request: web.Request) -> web.Response:
    """Approve the end of a contract: the other of dpo and operator; either rejects or withdraws it."""
    vault = request.app[VAULT]
    found, actor = await _tenant(request, Act.TENANT_OFFBOARD)
    wanted = await body(request, Approve)
    decided = await vault.tenants.decide_offboarding(found.id, approve=wanted.approve, shown=wanted.shown, actor=actor)
    return await answer(request, await tenant_answer(vault, decided))
