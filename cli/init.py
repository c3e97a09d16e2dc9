"""`callvault init`: creates a vault, and the default settings if there are none."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from cli.command import DEFAULT_CONFIG, ConfigPath, load_config, local
from cli.files import whole_file
from cli.identity import write_identity
from cli.output import Output
from vault.errors import ConfigError, IntegrityError

# -- settings -----------------------------------------------------------------------------------------------------


def default_settings(**changed: str) -> str:
    """Return the text of the default config.toml, with the values of the given settings replaced.

    A value is given as TOML, quotes included. IntegrityError if the package's file is damaged.
    """
    text = resources.files("cli").joinpath("data", "config.toml").read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    for name, value in changed.items():
        at = [number for number, line in enumerate(lines) if line.startswith(f"{name} = ")]
        if len(at) != 1:
            raise IntegrityError("the default settings that come with callvault are damaged", hint="install it again")
        lines[at[0]] = f"{name} = {value}\n"
    return "".join(lines)


# -- init ---------------------------------------------------------------------------------------------------------


def register(app: typer.Typer) -> None:
    """Add the command."""
    local(
        app,
        "init",
        examples=[
            "callvault init",
            "(umask 077 && callvault init --config /etc/callvault/config.toml > operator.token)",
            'callvault init --processor "Northfield IT Ltd" --contact privacy@northfield.example',
            "callvault init --trial",
            "callvault init --defaults > /etc/callvault/config.toml",
        ],
    )(init)


async def init(
    out: Output,
    *,
    config: ConfigPath = DEFAULT_CONFIG,
    trial: Annotated[
        bool,
        typer.Option("--trial", help="Make a trial vault, which stays one: its recordings may end within a day."),
    ] = False,
    processor: Annotated[
        str | None, typer.Option(help="Who runs this vault, for the certificates; written into the settings.")
    ] = None,
    contact: Annotated[
        str | None, typer.Option(help="The contact for questions about a certificate; written into the settings.")
    ] = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Print the default settings, each with its explanation; make no vault.")
    ] = False,
) -> None:
    """Create a vault: catalog, keyring, issuer key and the first operator's token, which is printed only this time.

    It never overwrites files. If there is no config.toml here and --config names no other file, the default settings
    are written to it first, and the vault's files are in `data` beside it.

    At a terminal it asks who runs the vault, if the settings do not say. With a placeholder no certificate can be
    issued, and so nothing is shredded. A trial vault says on its certificates and elsewhere that it is one. It never
    becomes another vault.
    """
    from vault.wiring import init_vault  # noqa: PLC0415 - loads storage drivers; most commands need none

    if defaults:
        out.document({"settings": default_settings()}) if out.as_json else out.text(default_settings().rstrip("\n"))
        return
    written = _write_defaults(config)
    try:
        settings = load_config(config)
        given = {name: value for name, value in (("processor", processor), ("contact", contact)) if value is not None}
        if not trial and not out.as_json and sys.stdin.isatty():
            given |= {name: _asked(name) for name in settings.identity.unnamed if name not in given}
        if given:
            write_identity(config, given)
            settings = load_config(config)
        made = await init_vault(settings, trial=trial)
    except (ConfigError, typer.Abort):
        if written:  # no vault was created, so its new settings are removed too
            config.unlink(missing_ok=True)
        raise
    created = [*([f"settings {config.absolute()}"] if written else []), *made.created]
    if out.as_json:
        out.document({"created": created, "trial": trial, "operator_token": made.operator_token})
        return
    for line in created:
        out.note(f"created {line}")
    for finding in made.findings:
        out.note(f"warning: {finding.message}")
        if finding.hint:
            out.hint(finding.hint)
    out.note("the first operator's token; this is the only time it is shown:")
    out.text(made.operator_token)
    out.hint("next: callvault serve, then callvault tenants add with this token in CALLVAULT_TOKEN")


def _asked(name: str) -> str:
    question = {"processor": "Who runs this vault (for certificates)", "contact": "Contact for questions about them"}
    return str(typer.prompt(question[name], err=True)).strip()


def _write_defaults(config: Path) -> bool:
    """Write the default settings to the default place, if there are none; return whether this wrote them."""
    if config != DEFAULT_CONFIG or config.exists():
        return False
    with whole_file(config, force=False) as file:
        file.write(default_settings().encode())
    return True
