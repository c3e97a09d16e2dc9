"""The audit trail over HTTP: read in order, or searched."""

from __future__ import annotations

from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import Field, WithJsonSchema
from pydantic_core import to_json
from typing_extensions import TypedDict

from vault.access.permissions import Act
from vault.errors import Invalid
from vault.ids import RecordingId, TokenId
from vault.model import HoldKind, Role
from vault.ports.audit import AuditQuery
from vault.server.context import Admitted, query_id, reply
from vault.server.operation import Operations, answer
from vault.server.schemas import Body, Count, Instant, Moment, Sha256, TenantRef
from vault.services.vault import Vault

OPERATIONS: Final = Operations("administration")


class ReadAudit(Body):
    """GET /v1/audit."""

    tenant: str | None = None
    recording: str | None = None
    """Only acts on this recording itself; those on its holds and erasures have their ids as `target`."""
    actor: str | None = None
    """Only acts of this token."""
    event: Annotated[str, Field(pattern=r"^[a-z_]{1,60}(\.[a-z_]{1,60})?$")] | None = None
    """One event such as `access.play`, or `access` for all events that begin with it."""
    since: Instant | None = Field(default=None, alias="from")
    until: Instant | None = Field(default=None, alias="to")
    order: Annotated[str, Field(pattern="^(oldest|newest)$")] = "oldest"
    before: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    """With `order=newest`: continue after this entry, the last one of a page."""
    after: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """With `order=oldest`: continue after this entry, the last one of a page."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


_Role = Annotated[str, WithJsonSchema({"type": "string", "enum": [each.value for each in Role]})]
_Detail = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "description": (
                "Further facts of the event. `access.denied` has `act` and `why`. An entry that counts repetitions "
                "also has `count`, `first`, `last`, `targets` and `different_targets`. Beyond 256 kinds of denials of "
                "a tenant, `tokens`, `different_tokens`, `acts` and `different_acts` replace `act` and `why`."
            ),
        }
    ),
]


class _Entry(TypedDict):
    seq: Count
    at: Moment
    event: str
    actor: str
    role: _Role | None
    tenant: TenantRef | None
    outcome: str
    purpose: str | None
    request_id: str | None
    target: str | None
    detail: _Detail
    previous_sha256: Sha256
    sha256: Sha256


class AuditPage(TypedDict):
    """A page of the trail."""

    entries: list[_Entry]
    after: Count
    before: Count | None
    """The `before` of the next page of the newest entries; null after the last page."""


@OPERATIONS(
    "GET /v1/audit",
    Act.AUDIT_READ,
    answer("Entries that the token may see. `after` continues the oldest, `before` the newest.", AuditPage),
    narrower=Act.AUDIT_READ_HELD,
    query=ReadAudit,
)
async def read_audit(request: Admitted, wanted: ReadAudit) -> web.Response:
    """Read the audit trail in order, or find entries in it by recording, token, event and time."""
    vault, actor, act = request.vault, request.actor, request.act
    tenant = await request.within(wanted.tenant)
    recording = query_id(wanted.recording, "rec", "recording")
    if recording is not None:
        await vault.access.own(actor, act, vault.catalog.recording, recording)
    if act is Act.AUDIT_READ_HELD and not await _safeguarded(vault, recording):
        await vault.access.authorise(actor, Act.AUDIT_READ, target=recording)
    newest = wanted.order == "newest"
    if newest and wanted.after:
        raise Invalid("after: continue the newest entries with before")
    if not newest and wanted.before is not None:
        raise Invalid("before: continue the oldest entries with after")
    token = query_id(wanted.actor, "tok", "actor")
    entries = await vault.trail.read(
        wanted.into(
            AuditQuery,
            tenant=tenant,
            target=recording,
            actor=None if token is None else await vault.trail.actor(TokenId(token)),
            newest_first=newest,
            beyond=wanted.before if newest else wanted.after or None,
        )
    )
    last = entries[-1].seq if entries else None
    after = wanted.after if last is None or newest else last
    before = last if newest and len(entries) == wanted.limit else None
    # The entries come written: an export reads the whole trail.
    written = ",".join(each.text for each in entries)
    return reply(f'{{"entries":[{written}],"after":{after},"before":{to_json(before).decode()}}}'.encode())


async def _safeguarded(vault: Vault, recording: str | None) -> bool:
    """Tell whether a safeguarding hold keeps the recording."""
    holds = [] if recording is None else await vault.holds.in_force_on(RecordingId(recording))
    return any(hold.kind is HoldKind.SAFEGUARDING for hold in holds)
