"""`callvault tenants`: the organisations whose calls are kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

import typer

from cli.client import segment
from cli.command import Remote, new_group, remote
from vault.retention.durations import format_duration

group = new_group("The organisations called: the data controllers.")

TenantName = Annotated[str, typer.Argument(help="The tenant's id, such as northfield-college.")]
_ADD = (
    'callvault tenants add northfield-college --name "Northfield College" '
    '--controller "Northfield College Corporation" --contact dpo@northfield.example --retention 90d'
)
_RETENTION = "How long future recordings are kept, such as 90d; "


def _retention(tenant: Mapping[str, Any]) -> str:
    seconds = tenant["retention_seconds"]
    return "the vault's default" if seconds is None else format_duration(timedelta(seconds=seconds))


def _fields(tenant: Mapping[str, Any]) -> list[tuple[str, object]]:
    return [
        ("tenant", tenant["id"]),
        ("name", tenant["name"]),
        ("controller", tenant["controller"]),
        ("contact", tenant["contact"]),
        ("retention", _retention(tenant)),
        ("created", tenant["created_at"]),
    ]


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
    contact: Annotated[str, typer.Option(help="Where its data protection officer is reached.")],
    retention: Annotated[str | None, typer.Option(help=_RETENTION + "the vault's default if left out.")] = None,
) -> None:
    """Add a tenant."""
    body = {"id": tenant, "name": name, "controller": controller, "contact": contact, "retention": retention}
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
    ],
)
async def change(
    call: Remote,
    tenant: TenantName,
    retention: Annotated[
        str, typer.Option(help=_RETENTION + '"default" follows the vault. Existing ones keep theirs.')
    ],
) -> None:
    """Change how long future recordings are kept; what exists keeps its date."""
    wanted = None if retention == "default" else retention
    changed = await call.client.call("PUT", f"/v1/tenants/{segment(tenant)}", body={"retention": wanted})
    call.out.show(changed, _fields(changed))
