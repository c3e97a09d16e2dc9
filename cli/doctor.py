"""`callvault doctor`: checks a vault's own directories, whether or not its server runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import Client
from cli.command import DEFAULT_CONFIG, CaFile, ConfigPath, ProfileOption, load_config, local
from cli.output import Output
from cli.profiles import Connection, nameless
from vault.errors import ConfigError, IntegrityError, VaultError
from vault.model import Finding
from vault.threads import in_thread

if TYPE_CHECKING:
    from vault.config import Config


def register(app: typer.Typer) -> None:
    """Add the command."""
    local(
        app,
        "doctor",
        examples=[
            "callvault doctor",
            "callvault doctor --server http://127.0.0.1:8080 --json",
            "callvault doctor --profile north",
        ],
    )(doctor)


async def doctor(
    out: Output,
    config: ConfigPath = DEFAULT_CONFIG,
    server: Annotated[
        str | None,
        typer.Option(
            help="The server to ask whether it is ready; else the profile's, CALLVAULT_SERVER or the one that has the "
            "vault open."
        ),
    ] = None,
    profile: ProfileOption = None,
    ca_file: CaFile = None,
) -> None:
    """Check settings, files, keys and stores of a vault, whether or not its server runs, and say what to do.

    It changes nothing. It exits with 5 if it finds an error, with 7 if this user cannot use the vault's files; warnings
    do not change the exit code.
    """
    from vault.wiring.doctor import check_vault  # noqa: PLC0415 - loads storage drivers; most commands need none

    settings = load_config(config)
    findings = list(await check_vault(settings, config))
    where = nameless(server=server, ca_file=ca_file, profile=profile, default="")
    if where.server:
        findings += await _ask(where, absent="error")
    elif (own := _own_address(settings)) and any(each.message == "a process has it open" for each in findings):
        findings += await _ask(replace(where, server=own), absent="warning")
    report(out, findings, said_by="doctor")


def _own_address(settings: Config) -> str | None:
    """Return the server's address on this machine; None if only the server knows its port."""
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
    """Return whether a server accepts recordings, why not, and whether its certificate is about to end.

    `absent` is the level of the finding if there is no answer.
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
    """Return a finding if the certificate that the server presents is about to end; its file may be newer."""
    from cli.tls import presented  # noqa: PLC0415 - a command imports what it needs when it runs
    from vault.wiring.doctor import ending_finding  # noqa: PLC0415 - loads storage drivers; most commands need none

    url = client.url
    if url.scheme != "https" or url.host is None:
        return []
    found = await in_thread(presented, url.host, url.port or 443)
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
