"""`callvault recorders`: ready-to-paste configuration for recorders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.client import segment, server_url
from cli.command import Remote, local, new_group, remote
from cli.output import Output
from vault.errors import Forbidden, Invalid, NotFound, Unauthenticated, Unavailable
from vault.ids import TenantId, parse_tenant

if TYPE_CHECKING:
    from cli.setups import Place, Recorder
    from cli.setups.place import File

group = new_group("Configuration with which recorders send their calls.")

_TOKEN_VARIABLE: Final = "CALLVAULT_RECORDER_TOKEN"  # noqa: S105 - the name of a variable


@local(group, "list", examples=["callvault recorders list", "callvault recorders list --json"])
def listing(out: Output) -> None:
    """List the recorders that configuration exists for."""
    from cli.setups import RECORDERS  # noqa: PLC0415 - a command imports what it needs when it runs

    rows = [(each.name, each.title, each.route, each.source) for each in RECORDERS.values()]
    names = ("name", "title", "route", "source")
    if out.as_json:
        out.document({"recorders": [dict(zip(names, row, strict=True)) for row in rows]})
        return
    out.table(["recorder", "title", "route", "documentation"], rows, empty="none")


@remote(
    group,
    "show",
    examples=[
        "callvault recorders show curl --tenant northfield-college --server https://vault.example.org",
        "callvault recorders show twilio --tenant northfield-college --issue reception-twilio",
        "callvault recorders show rclone --tenant northfield-college",
        "callvault recorders show asterisk --tenant northfield-college --address https://vault.internal:8443 --json",
    ],
)
async def show(
    call: Remote,
    *,
    name: Annotated[str, typer.Argument(metavar="RECORDER", help="One of `callvault recorders list`.")],
    tenant: Annotated[str, typer.Option(help="The tenant whose calls it records.")],
    issue: Annotated[
        str | None,
        typer.Option(help="Issue a recorder's token with this name and fill it in; needs an operator's token."),
    ] = None,
    address: Annotated[str | None, typer.Option(help="The server as recorders reach it; --server if left out.")] = None,
) -> None:
    """Print a recorder's configuration for one tenant.

    An existing token is taken from the variable CALLVAULT_RECORDER_TOKEN. Without one, the configuration has
    $CALLVAULT_TOKEN in its place.
    """
    from cli.setups import RECORDERS, Place  # noqa: PLC0415 - a command imports what it needs when it runs

    recorder = RECORDERS.get(name)
    if recorder is None:
        raise NotFound(f"there is no configuration for {name!r}", hint="callvault recorders list")
    identifier = parse_tenant(tenant)
    server = server_url(address) if address else call.client.url
    given = os.environ.get(_TOKEN_VARIABLE)
    if given and issue:
        raise Invalid(f"--issue and {_TOKEN_VARIABLE} exclude each other")
    Place(server, identifier, given or None)  # raises before a token is issued
    if not issue:
        await _look_up(call, identifier)
    else:
        body = {"name": issue, "role": "recorder", "tenant": identifier}
        given = (await call.client.post("/v1/tokens", body))["token"]
    place = Place(server, identifier, given or None)
    _print(call.out, recorder, recorder.files(place), notes(recorder, place))


async def _look_up(call: Remote, tenant: TenantId) -> None:
    """Raise NotFound if the server has no such tenant; note if that could not be checked."""
    if call.client.token_id is None:
        call.out.note(f"without a token it was not checked whether tenant {tenant} exists")
        return
    try:
        await call.client.get(f"/v1/tenants/{segment(tenant)}")
    except NotFound as error:
        raise NotFound(
            f"there is no tenant {tenant}, or not for this token",
            hint="callvault tenants list shows the tenants; callvault tenants add adds one",
        ) from error
    except (Forbidden, Unauthenticated, Unavailable) as error:
        call.out.note(f"it was not checked whether tenant {tenant} exists: {error.message}")


def notes(recorder: Recorder, place: Place) -> Sequence[str]:
    """Return notes for the person who pastes this."""
    said = list(recorder.notes)
    if place.token is None and "audiosocket" not in recorder.name:
        content = "".join(each.content for each in recorder.files(place))
        halves = " Its id is tok_ and the part between the underscores, its secret the rest."
        said.append(
            "Put a recorder's token in the place of $CALLVAULT_TOKEN, or into the environment where a script reads it."
            f"{halves if 'TOKEN_ID' in content else ''} To issue one: "
            f"callvault tokens issue --tenant {place.tenant} --role recorder --name NAME, or --issue NAME here."
        )
    if recorder.route.startswith(("/v1/ingest/{tenant}/ws", "/v1/ingest/{tenant}/audiohook")) and not place.encrypted:
        said.append("Services outside this network connect to wss:// only: give --address https://… as they see it.")
    return said


def _print(out: Output, recorder: Recorder, files: Sequence[File], said: Sequence[str]) -> None:
    if out.as_json:
        document: dict[str, Any] = {
            "name": recorder.name,
            "title": recorder.title,
            "source": recorder.source,
            "files": [{"path": each.path, "content": each.content} for each in files],
            "notes": list(said),
        }
        out.document(document)
        return
    for each in files:
        # A single file can be redirected to its place; several get headings.
        if len(files) > 1:
            out.text(f"==> {each.path} <==")
        else:
            out.note(f"{recorder.title}: {each.path}")
        out.text(each.content.rstrip("\n"))
    for line in said:
        out.note(line)
    out.note(f"documentation: {recorder.source}")
