"""`callvault sweep`: shred what is due and not held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli.client import segment
from cli.command import Remote, new_group, remote
from cli.instants import instant_or_none

group = new_group("Shred what is due and not held, or see what that would be.")
override = new_group("Let a sweep pass a tripped guard; it takes two people.")
group.add_typer(override, name="override")


def _fields(report: Mapping[str, Any]) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = [
        ("at", report["at"]),
        ("would shred" if report["dry_run"] else "shredded", report["shredded"]),
        ("kept by holds", report["kept"]),
    ]
    if not report["dry_run"]:
        pairs += [
            ("objects deleted for", report["objects_deleted_for"]),
            ("waiting for deletion", report["waiting_for_deletion"]),
        ]
    if receipt := report.get("receipt"):
        pairs += [
            ("epoch destroyed", receipt["epoch_destroyed"]),
            ("assurance", receipt["assurance"]),
            ("unrecoverable since", receipt["unrecoverable_at"]),
        ]
    return pairs


def _override_fields(item: Mapping[str, Any]) -> list[tuple[str, object]]:
    names = ("id", "through", "reason", "requested_by", "requested_at", "approved_by")
    return [(name.replace("_", " "), item[name]) for name in names]


@remote(group, "run", examples=["callvault sweep run --dry-run", "callvault sweep run"])
async def run(
    call: Remote,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go and why; change nothing.")] = False,
) -> None:
    """Sweep now."""
    report = await call.client.post("/v1/sweeps", {"dry_run": dry_run})
    call.out.show(report, _fields(report))
    if dry_run and not call.out.as_json:
        rows = [(item["id"], item["action"], item["reason"]) for item in report["recordings"]]
        call.out.table(["recording", "action", "reason"], rows, empty="nothing is due")


@remote(group, "status", examples=["callvault sweep status", "callvault sweep status --json"])
async def status(call: Remote) -> None:
    """Say when the last sweep was and how late the promise is."""
    found = await call.client.get("/v1/sweeps")
    pairs: list[tuple[str, object]] = [
        ("last sweep", found["last_sweep_at"]),
        ("overdue", f"{found['overdue_seconds']:.0f} s"),
        ("overrides", [item["id"] for item in found["overrides"]]),
    ]
    call.out.show(found, [*pairs, *(_fields(found["last"])[1:] if found["last"] else [])])


@remote(
    override,
    "request",
    examples=['callvault sweep override request --through +2h --reason "machine was off for a week; clock is right"'],
)
async def request(
    call: Remote,
    through: Annotated[str, typer.Option(help="Until when the guard is lifted: +2h or an instant.")],
    reason: Annotated[str, typer.Option(help="Why the clock and the number are right.")],
) -> None:
    """Vouch, as the first person, for the clock and for what is due."""
    asked = await call.client.post("/v1/sweeps/overrides", {"through": instant_or_none(through), "reason": reason})
    call.out.show(asked, _override_fields(asked))
    call.out.hint(f"a second operator, with their own token: callvault sweep override approve {asked['id']}")


@remote(
    override,
    "approve",
    examples=["callvault sweep override approve ovr_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f"],
)
async def approve(
    call: Remote, identifier: Annotated[str, typer.Argument(metavar="OVERRIDE", help="ovr_ and 32 hex digits.")]
) -> None:
    """Agree as the second person."""
    approved = await call.client.post(f"/v1/sweeps/overrides/{segment(identifier)}/approve", {})
    call.out.show(approved, _override_fields(approved))
