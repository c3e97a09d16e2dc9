"""`callvault profile`: the vaults that a person works with, each under a name."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cli.client import Client, checked_token
from cli.command import local, new_group
from cli.files import STDOUT
from cli.output import Output
from cli.profiles import Profile, check_name, find, keep_token, own_token_file, read_profiles, read_token, save
from vault.errors import ConfigError, Conflict, Invalid, NotFound

group = new_group("Named vaults: address, authority, token file. CALLVAULT_PROFILE or --profile chooses one.")

ProfileName = Annotated[
    str, typer.Argument(metavar="NAME", help="What you call it, such as north.", show_default=False)
]

_STDIN: Final = STDOUT
_TOKEN_BYTES: Final = 4096


@local(
    group,
    "add",
    examples=[
        "callvault profile add north --server https://vault.example.org",
        "callvault profile add north --server https://vault.example.org --token-file - < asha.token",
        "callvault profile add lab --server https://vault.internal:8443 --ca-file /etc/callvault/ca.pem",
    ],
)
async def add(
    out: Output,
    *,
    name: ProfileName,
    server: Annotated[str, typer.Option("--server", help="The server's address.", show_default=False)],
    ca_file: Annotated[
        Path | None,
        typer.Option(
            "--ca-file", envvar="CALLVAULT_CA_FILE", help="Trust the authorities in this file, and no others."
        ),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            "--token-file", help="The token is in this file, mode 600, and stays there; - reads and keeps it."
        ),
    ] = None,
    vault: Annotated[str | None, typer.Option(help="Refuse any vault but this one, vlt_ and 32 hex digits.")] = None,
) -> None:
    """Ask a server for its vault's id, and store that with the address and the token under a name.

    From then on the token is sent only to that vault: a server with another id does not get it. At a terminal, this
    asks for the token. Without a terminal and without --token-file, the profile has no token.
    """
    known = read_profiles()
    if check_name(name) in known:
        raise Conflict(f"there is a profile {name}; nothing was changed", hint=f"callvault profile remove {name}")
    if ca_file is not None:
        ca_file = ca_file.absolute()
    async with Client(server, None, ca_file=ca_file) as client:
        said = await client.vault_id()
    if vault is not None and said != vault:
        raise ConfigError(f"the server at {client.url} is the vault {said}, not {vault}; nothing was kept")
    place = _token_place(name, token_file)
    save(
        {
            **known,
            name: Profile(
                server=str(client.url).rstrip("/"),
                vault=said,
                ca_file=None if ca_file is None else str(ca_file),
                token_file=None if place is None else str(place),
            ),
        }
    )
    _show(out, name, find(name))
    out.hint(f"choose it with --profile {name}, or for every command: export CALLVAULT_PROFILE={name}")


def _token_place(name: str, token_file: str | None) -> Path | None:
    """Return the file with the token: the given one, or a new one that is written now."""
    if token_file is not None and token_file != _STDIN:
        place = Path(token_file).absolute()
        checked_token(read_token(place))
        return place
    if token_file == _STDIN:
        token = sys.stdin.read(_TOKEN_BYTES).strip()
        if not token:
            raise Invalid("standard input has no token; nothing was kept")
    elif sys.stdin.isatty():
        token = typer.prompt("token (nothing for none)", default="", hide_input=True, show_default=False, err=True)
    else:
        return None
    return keep_token(name, checked_token(token)) if token else None


def _document(name: str, profile: Profile) -> dict[str, Any]:
    return {
        "name": name,
        "server": profile.server,
        "vault": profile.vault,
        "ca_file": profile.ca_file,
        "token_file": profile.token_file,
        "chosen": os.environ.get("CALLVAULT_PROFILE") == name,
    }


def _show(out: Output, name: str, profile: Profile) -> None:
    document = _document(name, profile)
    out.show(document, [(key.replace("_", " "), value) for key, value in document.items()])


@local(group, "list", examples=["callvault profile list", "callvault profile list --json"])
def listing(out: Output) -> None:
    """List profiles; no token is shown."""
    found = [_document(name, profile) for name, profile in read_profiles().items()]
    if out.as_json:
        out.document({"profiles": found})
        return
    rows = [(each["name"], each["server"], each["vault"], each["chosen"]) for each in found]
    out.table(["profile", "server", "vault", "chosen"], rows, empty="there are no profiles: callvault profile add")


@local(group, "show", examples=["callvault profile show north"])
def show(out: Output, name: ProfileName) -> None:
    """Show one profile, and where its token is; the token itself is not shown."""
    _show(out, name, find(name))


@local(group, "remove", examples=["callvault profile remove north"])
def remove(out: Output, name: ProfileName) -> None:
    """Remove a profile, and its token if the profile stored it; the vault accepts the token until it is revoked."""
    known = read_profiles()
    if known.pop(check_name(name), None) is None:
        raise NotFound(f"there is no profile {name}", hint="callvault profile list")
    # The secret first: a crash in between leaves a profile whose token cannot be read, not a token without a profile.
    own_token_file(name).unlink(missing_ok=True)
    save(known)
    out.show({"removed": name}, [("removed", name)])
