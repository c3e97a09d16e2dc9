"""`callvault holds`: named reasons to keep recordings beyond their retention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli.arguments import instant_or_none, local_day
from cli.client import segment
from cli.command import Remote, Shown, Yes, digest, new_group, remote
from cli.output import who
from vault.model import HoldKind

group = new_group("Named reasons to keep recordings beyond their retention.")

HoldName = Annotated[str, typer.Argument(help="hold_ and 32 hex digits.")]

_HOLD = "hold_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f"
_PLACE = "callvault holds place rec_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f"
_PLACING = (
    f'{_PLACE} --kind legal --matter SMITH-2026 --reason "letter before claim" '
    '--authority "Head of Legal" --owner "Asha Patel" --review-at 2027-01-31'
)


def _fields(hold: Mapping[str, Any]) -> list[tuple[str, object]]:
    held = [item["id"] for item in hold["recordings"] if item["outcome"] == "held"]
    late = [item["id"] for item in hold["recordings"] if item["outcome"] == "too_late"]
    more = hold["before"] is not None
    pairs = [
        ("hold", hold["id"]),
        ("state", hold["state"]),
        ("kind", hold["kind"]),
        ("tenant", hold["tenant"]),
        ("matter", hold["matter"]),
        ("reason", hold["reason"]),
        ("authority", hold["authority"]),
        ("owner", hold["owner"]),
        ("placed", hold["created_at"]),
        ("placed by", who(hold, "placed_by")),
        ("review", hold["review_at"]),
        ("recordings held", hold["recordings_held"]),
        ("recordings missed", hold["recordings_too_late"] or None),
        ("holds", held),
        ("came too late for", late),
        ("continue with", f"callvault holds show {hold['id']} --before {hold['before']}" if more else None),
        ("release requested by", who(hold, "release_requested_by")),
        ("release reason", hold["release_reason"]),
        ("released by", who(hold, "released_by")),
        ("released", hold["released_at"]),
        ("keeps until", hold["grace_until"]),
        ("shown", hold["shown"]),
    ]
    return [(name, value) for name, value in pairs if value not in (None, [])]


@remote(
    group,
    "place",
    examples=[_PLACING],
)
async def place(
    call: Remote,
    *,
    recordings: Annotated[list[str], typer.Argument(help="The recordings to keep.", show_default=False)],
    kind: Annotated[HoldKind, typer.Option(help="Why they are kept.")],
    matter: Annotated[str, typer.Option(help="The case the hold belongs to.")],
    reason: Annotated[str, typer.Option(help="What happened.")],
    authority: Annotated[str, typer.Option(help="Who decided it.")],
    owner: Annotated[str, typer.Option(help="Who answers for it.")],
    review: Annotated[
        str | None,
        typer.Option(
            "--review-at",
            "--review",
            help="The date of the review: 2027-01-31 or +180d; without it, a date by the kind.",
        ),
    ] = None,
) -> None:
    """Keep recordings beyond their retention, until two people release them.

    Without --review-at the kind decides the date of the review: legal six years after the call, regulatory five years,
    safeguarding a year from now, a client's request when the longest retention ends. The answer says for each recording
    whether it is held or the hold came too late.
    """
    body = {
        "kind": kind.value,
        "matter": matter,
        "reason": reason,
        "authority": authority,
        "owner": owner,
        "review_at": instant_or_none(review),
        "recordings": recordings,
    }
    placed = await call.client.post("/v1/holds", body)
    call.out.show(placed, _fields(placed))


@remote(group, "list", examples=["callvault holds list", "callvault holds list --json"])
async def listing(
    call: Remote,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.")] = 100,
) -> None:
    """List holds."""
    found = await call.client.get("/v1/holds", tenant=tenant, limit=limit)
    if call.out.as_json:
        call.out.document(found)
        return
    rows = [
        (
            item["id"],
            item["state"],
            item["kind"],
            item["matter"],
            local_day(item["review_at"]),
            item["recordings_held"],
            item["owner"],
            item.get("placed_by_name"),
        )
        for item in found["holds"]
    ]
    columns = ["hold", "state", "kind", "matter", "review", "recordings", "owner", "placed by"]
    call.out.table(columns, rows, empty="no holds")


@remote(group, "show", examples=[f"callvault holds show {_HOLD}"])
async def show(
    call: Remote,
    hold: HoldName,
    before: Annotated[str | None, typer.Option(help="Continue after this recording.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many of its recordings.")] = 1000,
) -> None:
    """Show one hold and what it protects, the newest recordings first."""
    found = await call.client.get(f"/v1/holds/{segment(hold)}", before=before, limit=limit)
    call.out.show(found, _fields(found))


@remote(group, "review", examples=[f'callvault holds review {_HOLD} --review-at +180d --note "claim still open"'])
async def review(
    call: Remote,
    hold: HoldName,
    next_review: Annotated[
        str, typer.Option("--review-at", "--next", help="The date of the next review: 2027-01-31, +180d.")
    ],
    note: Annotated[str, typer.Option(help="Why it stays.")],
) -> None:
    """Record a review of the hold, and why it stays."""
    body = {"review_at": instant_or_none(next_review), "note": note}
    reviewed = await call.client.post(f"/v1/holds/{segment(hold)}/review", body)
    call.out.show(reviewed, _fields(reviewed))


@remote(group, "release", examples=[f'callvault holds release {_HOLD} --reason "claim settled"'])
async def release(call: Remote, hold: HoldName, reason: Annotated[str, typer.Option(help="Why it may end.")]) -> None:
    """Request the release of a hold; a second person approves it."""
    asked = await call.client.post(f"/v1/holds/{segment(hold)}/release", {"reason": reason})
    call.out.show(asked, _fields(asked))
    call.out.hint(f"a second person, with their own token: callvault holds approve {hold}")


@remote(
    group,
    "approve",
    examples=[
        f"callvault holds approve {_HOLD}",
        f"callvault holds approve {_HOLD} --json --shown DIGEST",
        f"callvault holds approve {_HOLD} --reject",
    ],
)
async def approve(
    call: Remote,
    hold: HoldName,
    reject: Annotated[bool, typer.Option("--reject", help="Refuse the release: the hold stays.")] = False,
    shown: Shown = None,
    yes: Yes = False,
) -> None:
    """Decide about a requested release, as the second person; the first may withdraw it with --reject."""
    path = f"/v1/holds/{segment(hold)}"
    body: dict[str, Any] = {"approve": not reject}
    if not reject:
        body["shown"] = await digest(
            call,
            path,
            see=f"callvault holds show {hold}",
            look=lambda found: found["shown"],
            render=lambda found: call.out.show(found, _fields(found)),
            shown=shown,
            yes=yes,
        )
    decided = await call.client.post(f"{path}/approve", body)
    call.out.show(decided, _fields(decided))
