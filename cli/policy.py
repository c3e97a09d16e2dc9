"""`callvault policy`: changes of the retention of existing calls and their metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli.client import segment
from cli.command import Remote, Shown, Yes, digest, new_group, remote
from cli.output import who

group = new_group("Change how long existing calls, or their numbers and tags, are kept; it takes two people.")

PolicyName = Annotated[str, typer.Argument(metavar="POLICY", help="pol_ and 32 hex digits.")]


def fields(item: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return a request's fields for display."""
    preview = item["preview"]
    pairs: list[tuple[str, object]] = [
        ("id", item["id"]),
        ("tenant", item["tenant"]),
        ("state", item["state"]),
        ("calls through", _through(item)),
        ("kept for", kept(item)),
        ("get another date", f"{preview['changed']}: {preview['earlier']} earlier, {preview['later']} later"),
        ("of them held", preview["held"]),
        *_dates(preview),
        ("requested by", f"{who(item, 'requested_by')}, {item['requested_role']}"),
        ("requested at", item["requested_at"]),
        ("decided by", who(item, "decided_by")),
        ("takes effect", item["takes_effect_at"]),
        ("applied", item["applied_at"]),
        ("shown", item["shown"]),
    ]
    return [(name, value) for name, value in pairs if value is not None]


def _through(item: Mapping[str, Any]) -> str:
    """Return the end of the covered calls: a month for metadata, the instant of the request for audio."""
    return str(item["through"] if item["retention"] is None else item["requested_at"])


def _dates(preview: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return the dates on which audio would be deleted."""
    if preview["earliest"] is None:
        return []
    return [
        ("still recorded", preview["live"]),
        ("due at once", preview["due_at_once"]),
        ("new dates", f"{preview['earliest']} to {preview['latest']}"),
    ]


def kept(item: Mapping[str, Any]) -> str:
    """Return what a request keeps, for how long, and from when it counts."""
    if item["retention"] is not None:
        return f"audio: {item['retention']} from the call"
    period = item["metadata_retention"]
    return "metadata: the contract" if period is None else f"metadata: {period} after its month"


@remote(group, "list", examples=["callvault policy list", "callvault policy list --json"])
async def listing(call: Remote) -> None:
    """List the requests, newest first."""
    found = await call.client.get("/v1/policies")
    if call.out.as_json:
        call.out.document(found)
        return
    rows = [(item["id"], item["state"], _through(item), kept(item), item["tenant"]) for item in found["policies"]]
    call.out.table(["request", "state", "calls through", "kept for", "tenant"], rows, empty="no requests")


@remote(group, "show", examples=["callvault policy show pol_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f"])
async def show(call: Remote, identifier: PolicyName) -> None:
    """Show one request."""
    found = await call.client.get(f"/v1/policies/{segment(identifier)}")
    call.out.show(found, fields(found))


@remote(
    group,
    "approve",
    examples=[
        "callvault policy approve pol_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f",
        "callvault policy approve pol_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f --json --shown DIGEST",
    ],
)
async def approve(call: Remote, identifier: PolicyName, *, shown: Shown = None, yes: Yes = False) -> None:
    """Approve a request, as the second person; it takes effect after the notice."""
    path = f"/v1/policies/{segment(identifier)}"
    named = await digest(
        call,
        path,
        see=f"callvault policy show {identifier}",
        look=lambda found: found["shown"],
        render=lambda found: call.out.fields(fields(found)),
        shown=shown,
        yes=yes,
    )
    approved = await call.client.post(f"{path}/approve", {"shown": named})
    call.out.show(approved, fields(approved))


@remote(group, "reject", examples=["callvault policy reject pol_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f"])
async def reject(call: Remote, identifier: PolicyName) -> None:
    """Reject a request as the second person, or withdraw it until it is applied: nothing changes.

    An approved request that keeps recordings longer cannot be withdrawn. Once it has taken effect, two people can
    decide about another change.
    """
    rejected = await call.client.post(f"/v1/policies/{segment(identifier)}/approve", {"approve": False})
    call.out.show(rejected, fields(rejected))
