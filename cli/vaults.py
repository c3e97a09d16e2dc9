"""`callvault init` and `doctor`: what works on a vault's own directories, without a server."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import Client
from cli.command import DEFAULT_CONFIG, CaFile, ConfigPath, ProfileOption, load_config, local
from cli.files import whole_file
from cli.identity import write_identity
from cli.output import Output
from cli.profiles import Connection, nameless
from cli.settings import default_settings
from vault.errors import ConfigError, IntegrityError, VaultError
from vault.model import Finding

if TYPE_CHECKING:
    from vault.config import Config


def register(app: typer.Typer) -> None:
    """Add the commands that stand at the top level."""
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
    local(
        app,
        "doctor",
        examples=[
            "callvault doctor",
            "callvault doctor --server http://127.0.0.1:8080 --json",
            "callvault doctor --profile north",
        ],
    )(doctor)


async def init(
    out: Output,
    *,
    config: ConfigPath = DEFAULT_CONFIG,
    trial: Annotated[
        bool,
        typer.Option("--trial", help="Make a vault to try things in, for ever: its recordings may end within a day."),
    ] = False,
    processor: Annotated[
        str | None, typer.Option(help="Who runs this vault, as certificates say it; written into the settings.")
    ] = None,
    contact: Annotated[
        str | None, typer.Option(help="Where to ask about a certificate; written into the settings too.")
    ] = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Print the default settings, each explained, and make nothing.")
    ] = False,
) -> None:
    """Create a vault: catalog, keyring, issuer key and the first operator's token, printed this once.

    Refuses to overwrite anything. Where there is no config.toml here and --config names no other, the default settings
    are written to it first, and everything lies in `data` beside it.

    At a terminal it asks who runs the vault, if the settings do not say: no certificate is issued under a placeholder,
    and so nothing is shredded. A trial vault says that it is one wherever it speaks of itself, on its certificates too,
    and never becomes another.
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
        if written:  # nothing was created, the settings included
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
    question = {"processor": "Who runs this vault (on certificates)", "contact": "Where to ask about a certificate"}
    return str(typer.prompt(question[name], err=True)).strip()


def _write_defaults(config: Path) -> bool:
    """Write the default settings where they are looked for and nobody put any; tell whether it did."""
    if config != DEFAULT_CONFIG or config.exists():
        return False
    with whole_file(config, force=False) as file:
        file.write(default_settings().encode())
    return True


async def doctor(
    out: Output,
    config: ConfigPath = DEFAULT_CONFIG,
    server: Annotated[
        str | None,
        typer.Option(
            help="Ask this server whether it is ready, and if not why; else the profile's, CALLVAULT_SERVER or the one "
            "that has the vault open."
        ),
    ] = None,
    profile: ProfileOption = None,
    ca_file: CaFile = None,
) -> None:
    """Check everything that can be checked, beside the server or without it, and say what to do.

    Changes nothing. Exits with 5 if it finds an error, with 7 if this user cannot use the vault's files; warnings do
    not change the exit code.
    """
    from vault.wiring import check_vault  # noqa: PLC0415 - loads storage drivers; most commands need none

    settings = load_config(config)
    findings = list(await check_vault(settings, config))
    where = nameless(server=server, ca_file=ca_file, profile=profile, default="")
    if where.server:
        findings += await _ask(where, absent="error")
    elif (own := _own_address(settings)) and any(each.message == "a process has it open" for each in findings):
        findings += await _ask(replace(where, server=own), absent="warning")
    report(out, findings, said_by="doctor")


def _own_address(settings: Config) -> str | None:
    """Return where this machine reaches the server of these settings; None where only the server knows its port."""
    host, port = settings.server.host, settings.server.port
    here = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing listens here
    return (
        f"{'https' if settings.tls_paths else 'http'}://{f'[{here}]' if ':' in here else here}:{port}" if port else None
    )


def report(out: Output, findings: Sequence[Finding], *, said_by: str) -> None:
    """Print findings; ConfigError if a file cannot be used, IntegrityError if another is an error."""
    errors = sum(finding.level == "error" for finding in findings)
    if out.as_json:
        out.document({"findings": [_as_json(finding) for finding in findings], "errors": errors})
    else:
        _print(out, findings)
    if any(finding.level == "error" and finding.subject == "files" for finding in findings):
        raise ConfigError(
            f"{said_by} found {errors} {'error' if errors == 1 else 'errors'}, in files and who may use them"
        )
    if errors:
        raise IntegrityError(f"{said_by} found {errors} {'error' if errors == 1 else 'errors'}")


def _print(out: Output, findings: Sequence[Finding]) -> None:
    rows = [(finding.level, finding.subject, finding.message) for finding in findings]
    out.table(["level", "subject", "finding"], rows, empty="nothing to report", sentence=True)
    for finding in findings:
        if finding.hint:
            out.hint(f"{finding.subject}: {finding.hint}")


def _as_json(finding: Finding) -> dict[str, str | None]:
    return {
        "level": finding.level,
        "subject": finding.subject,
        "message": finding.message,
        "hint": finding.hint,
    }


async def _ask(where: Connection, *, absent: str) -> list[Finding]:
    """Return whether a server takes recordings, each reason why not, and that its certificate is about to end.

    `absent` is the level of no answer.
    """
    server = where.server
    try:
        async with Client(server, None, ca_file=where.ca_file, vault=where.vault) as client:
            said = await client.call("GET", "/readyz", also=(503,))
            ending = await _ending(client)
    except VaultError as error:
        return [Finding(level=absent, subject="server", message=error.message, hint=error.hint)]
    return [*ending, *_ready(server, said)]


async def _ending(client: Client) -> list[Finding]:
    """Return a finding if the certificate that the server shows is about to end, whatever is in its file by now."""
    import asyncio  # noqa: PLC0415 - a command imports what it needs when it runs

    from cli.tls import presented  # noqa: PLC0415 - a command imports what it needs when it runs
    from vault.wiring.doctor import ending_finding  # noqa: PLC0415 - loads storage drivers; most commands need none

    url = client.url
    if url.scheme != "https" or url.host is None:
        return []
    found = await asyncio.to_thread(presented, url.host, url.port or 443)
    if found is None:
        return []
    hint = "renew it where the server runs (server.tls_cert), then systemctl reload callvault, or SIGHUP"
    what = f"the certificate that {url} shows ({found.subject})"
    finding = ending_finding(what, found.ends, now=datetime.now(UTC), hint=hint)
    return [] if finding.level == "ok" else [finding]


def _ready(server: str, said: Mapping[str, Any]) -> list[Finding]:
    if said.get("status") == "ready":
        message = f"ready at {server}; object store {said.get('object_store', 'ok')}"
        return [Finding(level="ok", subject="server", message=message)]
    reasons = said.get("reasons") or [
        {"check": name, "detail": state} for name, state in said.get("checks", {}).items() if state != "ok"
    ]
    return [
        Finding(
            level="error",
            subject="server",
            message=f"not ready at {server}: {each.get('check')}: {each.get('detail')}",
            hint=each.get("hint"),
        )
        for each in reasons
    ] or [Finding(level="error", subject="server", message=f"not ready at {server}, and it does not say why")]
