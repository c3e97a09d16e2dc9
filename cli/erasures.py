"""`callvault erasures`: erase recordings before their date, by two people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli.arguments import local_day
from cli.client import segment
from cli.command import Remote, Shown, Yes, digest, new_group, remote
from cli.output import who
from vault.ports.erasures import ErasureBasis

group = new_group("Erase recordings before their date; it takes two people.")

ErasureName = Annotated[str, typer.Argument(metavar="ERASURE", help="era_ and 32 hex digits.")]

_ERASURE = "era_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f"
_REC = "rec_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f"


def _fields(erasure: Mapping[str, Any]) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = [
        ("erasure", erasure["id"]),
        ("state", erasure["state"]),
        ("tenant", erasure["tenant"]),
        ("basis", erasure["basis"]),
        ("case", erasure["case_reference"]),
        ("waits for holds", erasure["queue"]),
        ("requested by", who(erasure, "requested_by")),
        ("requested", erasure["requested_at"]),
        ("decided by", who(erasure, "decided_by")),
        ("decided", erasure["decided_at"]),
        ("shown", erasure["shown"]),
    ]
    return [(name, value) for name, value in pairs if value is not None]


def _why(item: Mapping[str, Any]) -> str:
    if item["gone"]:
        return f"gone already: {', '.join(item['certificates']) or 'not certified yet, or not by this vault'}"
    if item["live"]:
        return "still being recorded"
    holds = ", ".join(f"{hold['id']} (matter {hold['matter']}{_grace(hold)})" for hold in item["holds"])
    return f"held: {holds or 'pinned in the keyring'}" if item["held"] else ""


def _grace(hold: Mapping[str, Any]) -> str:
    return f"; released, keeps until {hold['grace_until']}" if hold["grace_until"] else ""


def _show(call: Remote, erasure: Mapping[str, Any]) -> None:
    call.out.show(erasure, _fields(erasure))
    if not call.out.as_json:
        rows = [(item["id"], item["outcome"], _why(item)) for item in erasure["recordings"]]
        call.out.table(["recording", "outcome", "why"], rows, empty="no recordings", sentence=True)


@remote(
    group,
    "request",
    examples=[
        f"callvault erasures request {_REC} --basis art17 --case DSR-2026-17",
        "callvault erasures request --caller +441632960001 --basis art17 --case DSR-2026-17 --queue",
    ],
)
async def request(
    call: Remote,
    *,
    basis: Annotated[ErasureBasis, typer.Option(help="The legal basis.")],
    case: Annotated[str, typer.Option(help="The case it belongs to; printed on the certificates.")],
    recordings: Annotated[
        list[str] | None, typer.Argument(help="The recordings to erase, unless a number is given.", show_default=False)
    ] = None,
    caller: Annotated[str | None, typer.Option(help="All calls from this number.")] = None,
    called: Annotated[str | None, typer.Option(help="All calls to this number.")] = None,
    tenant: Annotated[str | None, typer.Option(help="The tenant; the token's own if left out.")] = None,
    queue: Annotated[bool, typer.Option("--queue", help="Wait until holds end, then erase.")] = False,
) -> None:
    """Request an erasure, and see what would go and what is held."""
    body = {
        "tenant": tenant,
        "basis": basis.value,
        "case_reference": case,
        "recordings": recordings or [],
        "caller": caller,
        "called": called,
        "queue": queue,
    }
    asked = await call.client.post("/v1/erasures", body)
    _show(call, asked)
    call.out.hint(f"a second person, with their own token: callvault erasures approve {asked['id']}")


@remote(
    group,
    "approve",
    examples=[f"callvault erasures approve {_ERASURE}", f"callvault erasures approve {_ERASURE} --json --shown DIGEST"],
)
async def approve(call: Remote, erasure: ErasureName, shown: Shown = None, yes: Yes = False) -> None:
    """Approve an erasure, as the second person. It cannot be undone."""
    path = f"/v1/erasures/{segment(erasure)}"
    named = await digest(
        call,
        path,
        see=f"callvault erasures show {erasure}",
        look=lambda found: found["shown"],
        render=lambda found: _show(call, found),
        shown=shown,
        yes=yes,
    )
    decided = await call.client.post(f"{path}/approve", {"shown": named})
    _show(call, decided)
    if decided["state"] == "approved" and not decided["queue"]:
        call.out.note("warning: approved and not yet erased; each sweep tries again")
        call.out.hint("the vault's operator sees why with callvault doctor, on the vault's machine")


@remote(group, "reject", examples=[f"callvault erasures reject {_ERASURE}"])
async def reject(call: Remote, erasure: ErasureName) -> None:
    """Reject an erasure as the second person, or withdraw it as the first: nothing is erased."""
    _show(call, await call.client.post(f"/v1/erasures/{segment(erasure)}/reject", {}))


@remote(group, "show", examples=[f"callvault erasures show {_ERASURE}"])
async def show(call: Remote, erasure: ErasureName) -> None:
    """Show one erasure, and what keeps its remaining recordings."""
    _show(call, await call.client.get(f"/v1/erasures/{segment(erasure)}"))


@remote(group, "list", examples=["callvault erasures list", "callvault erasures list --json"])
async def listing(
    call: Remote,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    before: Annotated[str | None, typer.Option(help="Continue after this erasure, the last one of a page.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many, newest first.")] = 100,
) -> None:
    """List erasures."""
    found = await call.client.get("/v1/erasures", tenant=tenant, before=before, limit=limit)
    if call.out.as_json:
        call.out.document(found)
        return
    rows = [
        (
            item["id"],
            item["state"],
            item["case_reference"],
            local_day(item["requested_at"]),
            sum(item["outcomes"].values()),
            item["basis"],
            item.get("requested_by_name"),
        )
        for item in found["erasures"]
    ]
    columns = ["erasure", "state", "case", "requested", "recordings", "basis", "requested by"]
    call.out.table(columns, rows, empty="no erasures")
    if found["before"] is not None:
        call.out.hint(f"there may be more: add --before {found['before']}")
