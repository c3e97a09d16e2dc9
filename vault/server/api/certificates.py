"""Deletion certificates over HTTP, and the key that verifies them."""

from __future__ import annotations

import base64
from typing import Final

from aiohttp import web
from typing_extensions import TypedDict

from vault.access.permissions import Act
from vault.certificates.canonical import canonical_json
from vault.ids import CertificateId, RecordingId
from vault.model import CertificateStatus, Part, StoredCertificate
from vault.server.context import VAULT, Admitted, query_id
from vault.server.operation import TEXT, Answer, Operations, answer
from vault.server.schemas import CertificateRef, Count, Moment, Page, RecordingRef, TenantRef, render

OPERATIONS: Final = Operations("certificates")


class ListCertificates(Page):
    """GET /v1/certificates."""

    recording: str | None = None


class Certificate(TypedDict):
    """A certificate: its summary, the JWS, and the document that the JWS signs."""

    id: CertificateRef
    recording_id: RecordingRef
    parts: list[Part]
    tenant: TenantRef
    status: CertificateStatus
    supersedes: CertificateRef | None
    issued_at: Moment
    jws: str
    """The certificate itself: a compact JWS."""
    document: str
    """The exact JSON text that the JWS signs."""


class CertificatePage(TypedDict):
    """Certificates, newest first."""

    certificates: list[Certificate]
    before: CertificateRef | None


class _Object(TypedDict):
    name: str
    bytes: Count
    sha256: str


class CertificateObjects(TypedDict):
    """The objects that a certificate counts, in exactly the bytes that its digest covers."""

    certificate_id: CertificateRef
    objects: list[_Object]


def render_certificate(value: StoredCertificate, jws: str) -> Certificate:
    """Render a certificate."""
    payload = jws.split(".")[1]
    document = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()
    return render(
        Certificate,
        value,
        recording_id=value.recording,
        parts=[Part(each) for each in value.parts],
        jws=jws,
        document=document,
    )


@OPERATIONS(
    "GET /v1/certificates",
    Act.CERTIFICATE_READ,
    answer("One page, newest first; `before` continues it.", CertificatePage),
    query=ListCertificates,
)
async def list_certificates(request: Admitted, wanted: ListCertificates) -> CertificatePage:
    """List deletion certificates."""
    vault, tenant = request.vault, await request.within(wanted.tenant)
    recording = query_id(wanted.recording, "rec", "recording")
    before = query_id(wanted.before, "cert", "before")
    page = await vault.catalog.certificates(
        tenant=tenant,
        recording=RecordingId(recording) if recording else None,
        before=CertificateId(before) if before else None,
        limit=wanted.limit,
    )
    more = page[-1].id if len(page) == wanted.limit else None
    texts = await vault.certificates.texts(page)
    shown = [render_certificate(item, jws) for item, jws in zip(page, texts, strict=True)]
    return CertificatePage(certificates=shown, before=more)


async def _certificate(request: Admitted) -> StoredCertificate:
    return await request.own("certificate", request.vault.catalog.certificate)


@OPERATIONS(
    "GET /v1/certificates/{certificate}",
    Act.CERTIFICATE_READ,
    answer("The certificate.", Certificate, also={"application/jose": TEXT}),
    of=_certificate,
)
async def get_certificate(request: Admitted, found: StoredCertificate) -> Certificate | web.Response:
    """Fetch one deletion certificate."""
    jws = await request.vault.certificates.jws(found)
    if request.http.match_info["certificate"].endswith(".jws"):
        return web.Response(text=jws, content_type="application/jose")
    return render_certificate(found, jws)


@OPERATIONS(
    "GET /v1/certificates/{certificate}/objects",
    Act.CERTIFICATE_READ,
    answer("The list, in the order of the certificate's tree.", CertificateObjects),
    of=_certificate,
)
async def get_certificate_objects(request: Admitted, found: StoredCertificate) -> web.Response:
    """Fetch the list of objects that a certificate counts."""
    listed = await request.vault.certificates.objects(found)
    return web.Response(body=canonical_json(listed), content_type="application/json")


@OPERATIONS.raw(
    "GET /v1/issuer-key", None, {200: Answer(text="An Ed25519 public key.", content={"application/x-pem-file": TEXT})}
)
async def issuer_key(request: web.Request) -> web.Response:
    """Fetch the public key that verifies certificates."""
    return web.Response(text=request.app[VAULT].certificates.issuer_public_pem, content_type="application/x-pem-file")
