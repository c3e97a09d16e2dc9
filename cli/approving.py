"""Approvals: a command names the digest of what its user was shown, so that nothing else is approved."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from cli.command import Remote
from vault.errors import Conflict, Forbidden, Invalid

Shown = Annotated[
    str | None, typer.Option("--shown", help="Approve what has this digest: the `shown` of the request as you saw it.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Approve the request as it is printed, without being asked.")]


async def digest(
    call: Remote,
    path: str,
    *,
    see: str,
    asked_by: Callable[[Mapping[str, Any]], str | None],
    look: Callable[[Mapping[str, Any]], str | None],
    render: Callable[[Mapping[str, Any]], None],
    shown: str | None,
    yes: bool,
) -> str:
    """Return the digest to approve: the given one, or that of the request, printed and confirmed.

    Invalid where nobody sees the request (--json, no terminal) and no digest is given. Conflict if no approval is
    pending. Forbidden, before anybody is asked, if this token made the request. `asked_by` and `look` return the
    requester and the digest from the answer of `path`; `render` prints that answer. `see` is the command that shows it.
    """
    if shown is not None:
        return shown
    if call.out.as_json or not (yes or sys.stdin.isatty()):
        raise Invalid(
            "an approval names the digest of what was shown, and nothing was shown here",
            hint=f"look at it first, {see} prints it, then approve with --shown and its digest; or let --yes print it",
        )
    request = await call.client.get(path)
    found = look(request)
    if found is None:
        raise Conflict("no approval is pending here; nothing was approved")
    if call.client.token_id is not None and asked_by(request) == call.client.token_id:
        raise Forbidden(
            "whoever asked for this cannot approve it too; nothing was approved",
            hint="a second person approves, with their own token; whoever asked may take it back (reject)",
        )
    render(request)
    if not yes and not typer.confirm("approve this?", err=True):
        raise Conflict("not approved")
    return found
