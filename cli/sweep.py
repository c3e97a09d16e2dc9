"""`callvault sweep`: shred what is due and not held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli.arguments import instant_or_none
from cli.client import segment
from cli.command import Remote, Shown, Yes, digest, new_group, remote
from cli.output import who

group = new_group("Shred what is due and not held, or see what that would be.")
override = new_group("Let a sweep pass a tripped guard; it takes two people.")
group.add_typer(override, name="override")

_PAGE = 10_000

OverrideName = Annotated[str, typer.Argument(metavar="OVERRIDE", help="ovr_ and 32 hex digits.")]


def _fields(report: Mapping[str, Any]) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = [
        ("at", report["at"]),
        ("would shred" if report["dry_run"] else "shredded", report["shredded"]),
        ("kept by holds", report["kept"]),
    ]
    if not report["dry_run"]:
        pairs.append(("objects deleted for", report["objects_deleted_for"]))
        pairs += _waiting(report)
    pairs += [("postponed", _postponed(each)) for each in report["postponed"]]
    if receipt := report.get("receipt"):
        pairs += [
            ("epoch destroyed", receipt["epoch_destroyed"]),
            ("assurance", receipt["assurance"]),
            ("unrecoverable since", receipt["unrecoverable_at"]),
        ]
    return pairs


def _waiting(found: Mapping[str, Any]) -> list[tuple[str, object]]:
    return [
        ("waiting for deletion", found["waiting_for_deletion"]),
        ("approved erasures waiting", found["erasures"]["waiting"]),
    ]


def _warn(call: Remote, erasures: Mapping[str, Any]) -> None:
    if erasures["reason"]:
        call.out.note(f"warning: approved erasures wait: {erasures['reason']}")
        call.out.hint("the vault's operator sees what to do with callvault doctor, on the vault's machine")


def _postponed(item: Mapping[str, Any]) -> str:
    return f"{item['tenant'] or 'the whole sweep'}: {item['reason']}"


def _override_fields(item: Mapping[str, Any]) -> list[tuple[str, object]]:
    names = (
        *("id", "tenant", "stopped", "early", "through", "reason", "requested_by", "requested_at"),
        *("approved_by", "rejected_by", "used_at", "shown"),
    )
    pairs = [(name.replace("_", " "), who(item, name) if name.endswith("_by") else item[name]) for name in names]
    return [(name, value) for name, value in pairs if value is not None]


@remote(
    group,
    "run",
    examples=["callvault sweep run --dry-run", "callvault sweep run --dry-run --json", "callvault sweep run"],
)
async def run(
    call: Remote,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go and why; change nothing.")] = False,
) -> None:
    """Sweep now.

    A dry run shows how many recordings of each tenant would go, and the first of them. With --json it prints lines: the
    totals, then every recording.
    """
    report = await call.client.post("/v1/sweeps", {"dry_run": dry_run})
    if not dry_run:
        call.out.show(report, _fields(report))
    elif call.out.as_json:
        await _lines(call, report)
    else:
        _foreseen(call, report)
    for each in report["postponed"]:
        call.out.note(f"warning: the guard stopped {_postponed(each)}")
        if each["tenant"]:
            lift = f"callvault sweep override request --tenant {each['tenant']} --through +2h --reason TEXT"
            call.out.hint(f"if this is intended, the tenant's dpo and an operator override the guard: {lift}")
    _warn(call, report["erasures"])


def _foreseen(call: Remote, report: Mapping[str, Any]) -> None:
    """Show the totals of a dry run, and the first of its recordings."""
    call.out.fields(_fields(report))
    counts = [(item["tenant"], item["action"], item["recordings"], item["reason"]) for item in report["counts"]]
    call.out.table(["tenant", "action", "recordings", "reason"], counts, empty="nothing is due", sentence=True)
    if not counts:
        return
    call.out.text("")
    rows = [(item["id"], item["tenant"], item["action"], item["reason"]) for item in report["recordings"]]
    call.out.table(["recording", "tenant", "action", "reason"], rows, empty="nothing is due", sentence=True)
    if report["after"] is not None:
        total = sum(item["recordings"] for item in report["counts"])
        call.out.hint(f"these are {len(rows)} of {total}; all of them: callvault sweep run --dry-run --json")


async def _lines(call: Remote, report: Mapping[str, Any]) -> None:
    """Print a dry run's totals as one line, and a line for each of its recordings, page by page."""
    pages = {"recordings", "after"}
    call.out.line({name: value for name, value in report.items() if name not in pages})
    for item in report["recordings"]:
        call.out.line(item)
    while report["after"] is not None:
        report = await call.client.post("/v1/sweeps", {"dry_run": True, "after": report["after"], "limit": _PAGE})
        for item in report["recordings"]:
            call.out.line(item)


@remote(group, "status", examples=["callvault sweep status", "callvault sweep status --json"])
async def status(call: Remote) -> None:
    """Show the last sweep, what a guard stopped, and how long due recordings have waited."""
    found = await call.client.get("/v1/sweeps")
    pairs: list[tuple[str, object]] = [
        ("last sweep", found["last_sweep_at"]),
        ("overdue", f"{found['overdue_seconds']:.0f} s"),
        *(("stopped", _postponed(item)) for item in found["tripped"]),
        ("overrides", [item["id"] for item in found["overrides"]]),
    ]
    call.out.show(found, [*pairs, *(_fields(found["last"])[1:] if found["last"] else _waiting(found))])
    _warn(call, found["erasures"])


@remote(
    override,
    "request",
    examples=[
        'callvault sweep override request --through +2h --reason "machine was off for a week; clock is right"',
        'callvault sweep override request --tenant northfield-college --through +1d --reason "left; exported"',
    ],
)
async def request(
    call: Remote,
    *,
    tenant: Annotated[
        str | None, typer.Option(help="The tenant whose guard to override; left out, the clock guard.")
    ] = None,
    through: Annotated[str, typer.Option(help="Until when the guard is lifted: +2h or an instant.")],
    reason: Annotated[str, typer.Option(help="Why the clock and the number are right.")],
) -> None:
    """Request, as the first person, an override of the clock guard or of a tenant's guard."""
    body = {"through": instant_or_none(through), "reason": reason, **({"tenant": tenant} if tenant else {})}
    asked = await call.client.post("/v1/sweeps/overrides", body)
    call.out.show(asked, _override_fields(asked))
    second = "another operator" if asked["tenant"] is None else "the other of operator and the tenant's dpo,"
    call.out.hint(f"{second} with their own token: callvault sweep override approve {asked['id']}")


@remote(
    override,
    "approve",
    examples=[
        "callvault sweep override approve ovr_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f",
        "callvault sweep override approve ovr_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f --json --shown DIGEST",
    ],
)
async def approve(
    call: Remote,
    identifier: OverrideName,
    *,
    shown: Shown = None,
    yes: Yes = False,
) -> None:
    """Approve a request, as the second person."""
    path = f"/v1/sweeps/overrides/{segment(identifier)}"
    named = await digest(
        call,
        path,
        see="callvault sweep status --json",
        look=lambda found: found["shown"],
        render=lambda found: call.out.fields(_override_fields(found)),
        shown=shown,
        yes=yes,
    )
    approved = await call.client.post(f"{path}/approve", {"shown": named})
    call.out.show(approved, _override_fields(approved))


@remote(
    override,
    "reject",
    examples=["callvault sweep override reject ovr_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f"],
)
async def reject(call: Remote, identifier: OverrideName) -> None:
    """Reject a request as the second person, or withdraw one's own."""
    path = f"/v1/sweeps/overrides/{segment(identifier)}/approve"
    rejected = await call.client.post(path, {"approve": False})
    call.out.show(rejected, _override_fields(rejected))
