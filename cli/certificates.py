"""`callvault certificates`: proof of deletion, and its verification without a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import local_minute, zone
from cli.client import segment
from cli.command import Remote, local, new_group, remote
from cli.files import STDOUT, read_file, whole_file
from cli.output import Output
from vault.errors import FormatError, Invalid

if TYPE_CHECKING:
    from vault.crypto.signing import VerifyKey

group = new_group("Deletion certificates: list, fetch, and verify without a server.")

CertificateName = Annotated[str, typer.Argument(metavar="CERTIFICATE", help="The certificate's id.")]
Target = Annotated[str, typer.Option("--output", "-o", help="The file to write, or - for standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")]

_ID = "cert_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f"
_MAX_KEY_BYTES = 16 << 10
_MAX_CERTIFICATE_BYTES = 4 << 20
_MAX_OBJECTS_BYTES = 512 << 20


@remote(
    group,
    "list",
    examples=[
        "callvault certificates list",
        "callvault certificates list --recording rec_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f --json",
    ],
)
async def listing(
    call: Remote,
    recording: Annotated[str | None, typer.Option(help="Only this recording's.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    before: Annotated[str | None, typer.Option(help="Continue after this certificate, the last one of a page.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many, newest first.")] = 100,
) -> None:
    """List deletion certificates, newest first."""
    found = await call.client.get("/v1/certificates", recording=recording, tenant=tenant, before=before, limit=limit)
    if call.out.as_json:
        call.out.document(found)
        return
    rows = [
        (item["id"], item["status"], local_minute(item["issued_at"]), item["recording_id"], item["tenant"])
        for item in found["certificates"]
    ]
    columns = ["certificate", "status", f"issued ({zone(now=datetime.now(UTC))})", "recording", "tenant"]
    call.out.table(columns, rows, empty="no certificates match")
    if found["before"] is not None:
        call.out.hint(f"there may be more: add --before {found['before']}")


def _deliver(out: Output, text: str, output: str, *, force: bool, what: str) -> None:
    """Print `text`, or write it to a file and print a note."""
    if output == STDOUT:
        out.text(text)
        return
    with whole_file(Path(output), force=force) as file:
        file.write(text.encode() + b"\n")
    out.note(f"{what} written to {output}")


@remote(
    group,
    "get",
    examples=[f"callvault certificates get {_ID} -o deleted.jws", f"callvault certificates get {_ID} --json"],
)
async def get(call: Remote, certificate: CertificateName, output: Target = STDOUT, force: Force = False) -> None:
    """Fetch one certificate: the signed text itself, or with --json also its content."""
    found = await call.client.get(f"/v1/certificates/{segment(certificate)}")
    if output != STDOUT or not call.out.as_json:
        _deliver(call.out, found["jws"], output, force=force, what=f"{found['status']} certificate")
    if call.out.as_json:
        call.out.document(found)


@remote(group, "objects", examples=[f"callvault certificates objects {_ID} -o objects.json"])
async def objects(call: Remote, certificate: CertificateName, output: Target = STDOUT, force: Force = False) -> None:
    """Fetch the list of objects that a certificate counts, for `verify --objects`."""
    from vault.certificates.batch import ObjectList  # noqa: PLC0415 - a command imports what it needs when it runs
    from vault.certificates.canonical import canonical_json, from_json  # noqa: PLC0415 - likewise

    found = await call.client.get(f"/v1/certificates/{segment(certificate)}/objects")
    if output != STDOUT or not call.out.as_json:
        text = canonical_json(from_json(ObjectList, found)).decode()
        _deliver(call.out, text, output, force=force, what=f"list of {len(found['objects'])} objects")
    if call.out.as_json:
        call.out.document(found)


@remote(group, "key", examples=["callvault certificates key -o issuer.pub"])
async def key(call: Remote, output: Target = STDOUT, force: Force = False) -> None:
    """Fetch the issuer's public key; before you rely on it, compare it with one from another source."""
    from vault.crypto.signing import VerifyKey  # noqa: PLC0415 - a command imports what it needs when it runs

    pem = (await call.client.text("/v1/issuer-key")).strip()
    known = VerifyKey.from_pem(pem.encode()).key_id
    if output != STDOUT or not call.out.as_json:
        _deliver(call.out, pem, output, force=force, what=f"issuer key {known}")
    if call.out.as_json:
        call.out.document({"key_id": known, "pem": pem})


def read_key(data: bytes) -> VerifyKey:
    """Return an Ed25519 public key from PEM or JWK bytes; FormatError for anything else."""
    from vault.crypto.signing import VerifyKey  # noqa: PLC0415 - a command imports what it needs when it runs

    if not data.lstrip().startswith(b"{"):
        return VerifyKey.from_pem(data)
    try:
        jwk: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError("the key is neither PEM nor a JWK") from error
    return VerifyKey.from_jwk(jwk)


@local(
    group,
    "verify",
    examples=[
        "callvault certificates verify deleted.jws --key issuer.pub",
        "callvault certificates verify deleted.jws --key issuer.pub --objects objects.json",
    ],
)
def verify(
    out: Output,
    file: Annotated[Path, typer.Argument(help="The certificate: a compact JWS.", show_default=False)],
    key_file: Annotated[Path, typer.Option("--key", help="The issuer's public key: PEM or JWK.", show_default=False)],
    objects_file: Annotated[
        Path | None, typer.Option("--objects", help="The list of objects to compare with it.", show_default=False)
    ] = None,
) -> None:
    """Verify a certificate offline, with only the issuer's public key.

    It exits with 5 if the certificate was changed, contradicts itself, or was signed by another key.
    docs/certificates.md lists the rules.
    """
    from vault.certificates.document import certificate_text, verify_certificate, verify_objects  # noqa: PLC0415 - likewise

    issuer = read_key(read_file(key_file, what="the key", limit_bytes=_MAX_KEY_BYTES))
    raw = read_file(file, what="the certificate", limit_bytes=_MAX_CERTIFICATE_BYTES)
    if not raw:
        raise Invalid(f"the certificate {file} is empty")
    verified = verify_certificate(certificate_text(raw), issuer)
    lines = list(verified.lines)
    if objects_file is not None:
        listed = read_file(objects_file, what="the list of objects", limit_bytes=_MAX_OBJECTS_BYTES)
        count = len(verify_objects(listed, verified.certificate).objects)
        lines.append(f"list: {count} objects, the ones that the certificate counts")
    if out.as_json:
        out.document(
            {
                "verified": True,
                "key_id": issuer.key_id,
                "status": verified.certificate.status.value,
                "checked": lines,
                "certificate": json.loads(verified.payload),
            }
        )
        return
    out.fields([(name, value) for name, _, value in (line.partition(": ") for line in lines)])
    out.text("verified")
