"""`callvault tenants`: the organisations whose calls are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli import policy
from cli.arguments import instant_or_none
from cli.client import segment
from cli.command import Remote, Shown, Yes, digest, new_group, remote
from vault.errors import Invalid

group = new_group("The tenants: the organisations, as data controllers, whose calls are kept.")

TenantName = Annotated[str, typer.Argument(help="The tenant's id, such as northfield-college.")]
_ADD = (
    'callvault tenants add northfield-college --name "Northfield College" '
    '--controller "Northfield College Corporation" --contact dpo@northfield.example --retention 90d'
)
_METADATA = "How long numbers and tags are kept after the month of the call, such as 730d or 2y; "
_KEEP_DTMF = "Keep the keys that callers press, sealed like the audio: they can be card numbers."
_WEBHOOK = "The https address that gets the alerts of safeguarding flags; "
_REGION = "The region in which numbers without a country code are read, such as GB or IE; "
_ORIGIN = "The origin of a web page that may record, such as https://portal.northfield.example; repeat for several; "
_EXISTING = "Request it, as the first of two people, for the existing calls instead of future ones."
_RETENTION = "How long future recordings are kept, such as 90d, 18mo or 7y; "


def _retention(tenant: Mapping[str, Any]) -> str:
    return tenant["retention"] or "the vault's default"


def _fields(tenant: Mapping[str, Any]) -> list[tuple[str, object]]:
    return [
        ("tenant", tenant["id"]),
        ("name", tenant["name"]),
        ("controller", tenant["controller"]),
        ("contact", tenant["contact"]),
        ("retention", _retention(tenant)),
        ("metadata kept for", _metadata_retention(tenant["metadata_retention"])),
        *(
            (f"  through {each['through']}", _metadata_retention(each["retention"]))
            for each in tenant["metadata_before"]
        ),
        *_changed(tenant),
        *_changed_audio(tenant),
        ("numbers of", tenant["numbering_region"]),
        ("pressed keys", "kept" if tenant["keep_dtmf"] else "dropped"),
        ("flags told to", tenant["safeguarding_webhook"]),
        ("pages that may record", ", ".join(tenant["origins"]) or "none"),
        ("created", tenant["created_at"]),
        ("contract ends", _contract_end(tenant)),
        *_leaving(tenant),
    ]


def _changed(tenant: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return the lines about a change of existing calls' metadata by two people."""
    change = tenant["metadata_changed"]
    if change is None:
        return []
    kept = _metadata_retention(change["retention"])
    return [(f"  changed through {change['through']}", f"{kept} ({change['policy']})")]


def _changed_audio(tenant: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return the lines about a change of existing calls' audio by two people."""
    change = tenant["retention_changed"]
    if change is None:
        return []
    words = f"{change['retention']} since {change['since']} ({change['policy']})"
    return [(f"  calls until {change['captured_through']}", words)]


def _leaving(tenant: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return the lines about the end of a tenant's contract."""
    leaving = tenant["offboarding"]
    if leaving is None:
        return []
    pairs: list[tuple[str, object]] = [
        ("its recordings", leaving["recordings"]),
        ("of them held", leaving["held"]),
        ("go from", leaving["goes_from"] if leaving["shown"] is None else f"{leaving['goes_from']} if approved now"),
        ("shown", leaving["shown"]),
    ]
    return [(name, value) for name, value in pairs if value is not None]


def _metadata_retention(period: str | None) -> str:
    return "the contract" if period is None else f"{period} after its month"


def _contract_end(tenant: Mapping[str, Any]) -> str:
    if tenant["contract_end"] is None:
        return "not ended"
    if tenant["offboard_approved_by"] is not None:
        return str(tenant["contract_end"])
    return f"{tenant['contract_end']} (waits for a second person)"


@remote(
    group,
    "add",
    examples=[_ADD],
)
async def add(
    call: Remote,
    *,
    tenant: TenantName,
    name: Annotated[str, typer.Option(help="What people call it.")],
    controller: Annotated[str, typer.Option(help="The legal entity that decides about the recordings.")],
    contact: Annotated[str, typer.Option(help="The address of its data protection officer.")],
    retention: Annotated[str | None, typer.Option(help=_RETENTION + "the vault's default if left out.")] = None,
    metadata_retention: Annotated[
        str | None, typer.Option(help=_METADATA + "as long as the contract if left out.")
    ] = None,
    safeguarding_webhook: Annotated[str | None, typer.Option(help=_WEBHOOK + "without it none are sent.")] = None,
    numbering_region: Annotated[str | None, typer.Option(help=_REGION + "GB if left out.")] = None,
    keep_dtmf: Annotated[bool, typer.Option("--keep-dtmf", help=_KEEP_DTMF)] = False,
    origin: Annotated[list[str] | None, typer.Option(help=_ORIGIN + "none if left out.")] = None,
) -> None:
    """Add a tenant."""
    body: dict[str, Any] = {
        "id": tenant,
        "name": name,
        "controller": controller,
        "contact": contact,
        "retention": retention,
        "metadata_retention": metadata_retention,
        "safeguarding_webhook": safeguarding_webhook,
    }
    if numbering_region is not None:
        body["numbering_region"] = numbering_region
    if keep_dtmf:
        body["keep_dtmf"] = True
    if origin:
        body["origins"] = origin
    added = await call.client.post("/v1/tenants", body)
    call.out.show(added, _fields(added))
    call.out.hint(f"callvault tokens issue --tenant {added['id']} --role recorder --name pbx-1")


@remote(group, "list", examples=["callvault tenants list", "callvault tenants list --json"])
async def listing(call: Remote) -> None:
    """List the tenants this token may see."""
    found = await call.client.get("/v1/tenants")
    if call.out.as_json:
        call.out.document(found)
        return
    rows = [(item["id"], item["name"], _retention(item), item["contact"]) for item in found["tenants"]]
    call.out.table(["tenant", "name", "retention", "contact"], rows, empty="no tenants yet")


@remote(group, "show", examples=["callvault tenants show northfield-college"])
async def show(call: Remote, tenant: TenantName) -> None:
    """Show one tenant."""
    found = await call.client.get(f"/v1/tenants/{segment(tenant)}")
    call.out.show(found, _fields(found))


@remote(
    group,
    "set",
    examples=[
        "callvault tenants set northfield-college --retention 180d",
        "callvault tenants set northfield-college --retention default",
        "callvault tenants set northfield-college --retention 90d --metadata-retention 730d",
        "callvault tenants set northfield-college --metadata-retention 365d --existing",
        "callvault tenants set northfield-college --retention 180d --existing",
        "callvault tenants set northfield-college --safeguarding-webhook https://alerts.northfield.example/callvault",
        "callvault tenants set northfield-college --keep-dtmf",
        "callvault tenants set northfield-college --origin https://portal.northfield.example",
    ],
)
async def change(
    call: Remote,
    *,
    tenant: TenantName,
    retention: Annotated[
        str | None, typer.Option(help=_RETENTION + '"default" for the vault\'s. Existing ones keep theirs.')
    ] = None,
    metadata_retention: Annotated[
        str | None, typer.Option(help=_METADATA + '"contract" follows the contract. From the next month on.')
    ] = None,
    safeguarding_webhook: Annotated[str | None, typer.Option(help=_WEBHOOK + '"none" stops them.')] = None,
    numbering_region: Annotated[str | None, typer.Option(help=_REGION + "then run callvault tenants reindex.")] = None,
    keep_dtmf: Annotated[
        bool | None, typer.Option("--keep-dtmf/--drop-dtmf", help=_KEEP_DTMF + " From the next one on.")
    ] = None,
    origin: Annotated[
        list[str] | None, typer.Option(help=_ORIGIN + 'these replace the ones before, "none" removes all.')
    ] = None,
    existing: Annotated[bool, typer.Option("--existing", help=_EXISTING)] = False,
) -> None:
    """Change a tenant: how long calls to come are kept, how numbers are read, who hears of flags.

    What exists stays as it is, but for what --existing asks for.

    A new webhook is told of every flag that was never acknowledged.
    """
    given = (
        ("retention", retention, "default"),
        ("metadata_retention", metadata_retention, "contract"),
        ("safeguarding_webhook", safeguarding_webhook, "none"),
    )
    body: dict[str, Any] = {
        name: None if value == unset else value for name, value, unset in given if value is not None
    }
    if numbering_region is not None:
        body["numbering_region"] = numbering_region
    if keep_dtmf is not None:
        body["keep_dtmf"] = keep_dtmf
    if origin is not None:
        body["origins"] = [] if origin == ["none"] else origin
    if not body:
        raise Invalid("no setting to change", hint="pass --retention, --metadata-retention or another setting")
    if existing:
        if body.keys() - {"retention", "metadata_retention"}:
            raise Invalid("--existing needs --retention or --metadata-retention")
        asked = await call.client.post("/v1/policies", {"tenant": tenant, **body})
        call.out.show(asked, policy.fields(asked))
        call.out.hint(f"a second person, with their own token: callvault policy approve {asked['id']}")
        return
    changed = await call.client.call("PUT", f"/v1/tenants/{segment(tenant)}", body=body)
    call.out.show(changed, _fields(changed))


@remote(group, "reindex", examples=["callvault tenants reindex northfield-college"])
async def reindex(call: Remote, tenant: TenantName) -> None:
    """Reindex the numbers of existing calls, so that a search finds them in every spelling.

    This is needed once after an upgrade from a version that read them differently, and after a change of
    --numbering-region. It can be stopped and begun again; recording continues meanwhile.
    """
    total = {"looked_at": 0, "changed": 0}
    body: dict[str, Any] = {}
    with call.out.progress("reading numbers", None, unit="recordings") as bar:
        while True:
            page = await call.client.post(f"/v1/tenants/{segment(tenant)}/reindex", body)
            total = {name: total[name] + page[name] for name in total}
            bar.update(bar.task_ids[0], completed=total["looked_at"])
            if page["before"] is None:
                break
            body = {"before": page["before"]}
    call.out.show(total, [("recordings looked at", total["looked_at"]), ("reindexed", total["changed"])])


@remote(
    group,
    "offboard",
    examples=[
        "callvault tenants offboard northfield-college --ends 2027-01-31",
        "callvault tenants offboard northfield-college --approve",
        "callvault tenants offboard northfield-college --approve --json --shown DIGEST",
        "callvault tenants offboard northfield-college --reject",
    ],
)
async def offboard(
    call: Remote,
    *,
    tenant: TenantName,
    ends: Annotated[str | None, typer.Option(help="When the contract ends; now if left out.")] = None,
    approve: Annotated[bool, typer.Option("--approve", help="Approve the request, as the second person.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Reject or withdraw the request: nothing changes.")] = False,
    shown: Shown = None,
    yes: Yes = False,
) -> None:
    """End a tenant's contract; it takes the tenant's dpo and an operator.

    From the end of the contract, calls are refused. The export window counts from the later of that end and the
    approval. After it, a sweep shreds every recording that no hold keeps.
    """
    if (approve and reject) or (ends and (approve or reject)):
        raise Invalid("give one of --ends, --approve and --reject")
    path = f"/v1/tenants/{segment(tenant)}/offboard"
    if approve or reject:
        body: dict[str, Any] = {"approve": approve}
        if approve:
            body["shown"] = await digest(
                call,
                f"/v1/tenants/{segment(tenant)}",
                see=f"callvault tenants show {tenant}",
                look=lambda found: found["offboarding"] and found["offboarding"]["shown"],
                render=lambda found: call.out.show(found, _fields(found)),
                shown=shown,
                yes=yes,
            )
        decided = await call.client.post(f"{path}/approve", body)
        call.out.show(decided, _fields(decided))
        return
    asked = await call.client.post(path, {"contract_end": instant_or_none(ends)})
    call.out.show(asked, _fields(asked))
    call.out.hint(f"the other of dpo and operator, with their own token: callvault tenants offboard {tenant} --approve")
