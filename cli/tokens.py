"""`callvault tokens`: credentials for recorders and people."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.arguments import end_or_none, instant_or_none, local_day
from cli.client import segment
from cli.command import Remote, load_config, new_group, remote
from cli.output import who
from vault.errors import Invalid
from vault.model import Role

group = new_group("Credentials for recorders and people.")


@remote(
    group,
    "issue",
    examples=[
        "callvault tokens issue --tenant northfield-college --role recorder --name pbx-1",
        "(umask 077 && callvault tokens issue --tenant northfield-college --role compliance --name Asha > asha.token)",
        'callvault tokens issue --tenant northfield-college --role auditor --name "External audit" --expires 90d',
        "callvault tokens issue --tenant northfield-college --role recorder --name old-archive --imports-until +14d",
        'callvault tokens issue --role operator --name "Kit Moss" --config /etc/callvault/config.toml',
    ],
)
async def issue(
    call: Remote,
    *,
    role: Annotated[Role, typer.Option(help="What the token may do.")],
    name: Annotated[str, typer.Option(help="The person or recorder that uses it.")],
    tenant: Annotated[str | None, typer.Option(help="The tenant whose calls it reaches; operators have none.")] = None,
    expires: Annotated[
        str | None,
        typer.Option(help="When it expires: 90d, 1y or a date. Without it, it is in force until revoked."),
    ] = None,
    imports_until: Annotated[
        str | None,
        typer.Option(help="For a migration: until then retention counts from stated starts; at most +90d."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Issue an operator's token directly from the vault's own files, without a server.",
        ),
    ] = None,
) -> None:
    """Issue a token and print it. It is printed only this time and cannot be read back."""
    if config is not None:
        _show(call, await _issued_aside(config, name=name, role=role, tenant=tenant, expires=expires))
        return
    wanted = {
        "name": name,
        "role": role.value,
        "tenant": tenant,
        "expires_at": end_or_none(expires),
        "imports_until": instant_or_none(imports_until),
    }
    _show(call, await call.client.post("/v1/tokens", {key: each for key, each in wanted.items() if each is not None}))


async def _issued_aside(
    config: Path, *, name: str, role: Role, tenant: str | None, expires: str | None
) -> dict[str, Any]:
    from vault.wiring.init import issue_operator  # noqa: PLC0415 - loads storage drivers; most commands need none

    if role is not Role.OPERATOR or tenant is not None:
        raise Invalid("--config issues operators' tokens only", hint="issue the other tokens over the server")
    until = end_or_none(expires)
    token, text = await issue_operator(
        load_config(config), name=name, expires_at=None if until is None else datetime.fromisoformat(until)
    )
    return {"id": token.id, "name": token.name, "role": token.role.value, "token": text}


def _show(call: Remote, issued: dict[str, Any]) -> None:
    if call.out.as_json:
        call.out.document(issued)
        return
    call.out.note(f"{issued['role']} token {issued['id']} for {issued['name']}; this is the only time it is shown:")
    call.out.text(issued["token"])


@remote(group, "list", examples=["callvault tokens list", "callvault tokens list --tenant northfield-college --json"])
async def listing(call: Remote, tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None) -> None:
    """List tokens, without their secrets."""
    found = await call.client.get("/v1/tokens", tenant=tenant)
    if call.out.as_json:
        call.out.document(found)
        return
    rows = [
        (
            item["id"],
            item["name"],
            item["role"],
            item["tenant"],
            local_day(item["revoked_at"]),
            local_day(item["expires_at"]),
            local_day(item["created_at"]),
            who(item, "issued_by"),
            local_day(item["imports_until"]),
        )
        for item in found["tokens"]
    ]
    heads = ["token", "name", "role", "tenant", "revoked", "expires", "created", "issued by", "imports until"]
    call.out.table(heads, rows, empty="no tokens")


@remote(group, "revoke", examples=["callvault tokens revoke tok_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f"])
async def revoke(call: Remote, token_id: Annotated[str, typer.Argument(help="tok_ and 32 hex digits.")]) -> None:
    """End a token at once."""
    await call.client.call("DELETE", f"/v1/tokens/{segment(token_id)}")
    call.out.show({"id": token_id, "revoked": True}, [("token", token_id), ("revoked", True)])
