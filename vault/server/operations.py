"""Every operation of the HTTP API as data: what vault.server.app routes, and who may call it."""

from __future__ import annotations

from typing import Final

from vault.protocol.permissions import Act
from vault.server import bodies
from vault.server.describing import Answer, Operation
from vault.server.describing import json_answer as _json
from vault.server.dialects import OPERATIONS as INGEST
from vault.server.flags import OPERATIONS as FLAGS
from vault.server.keys import OPERATIONS as KEYS
from vault.server.personal import PERSONAL
from vault.server.shapes import TEXT, reference

_PLAYED: Final = {
    "Recording-State": "live, sealed or truncated.",
    "Accept-Ranges": "bytes",
}
RECORDINGS: Final = (
    Operation(
        method="get",
        path="/v1/recordings",
        name="listRecordings",
        tag="recordings",
        summary="List recordings, newest first, without personal facts",
        act=Act.RECORDING_LIST,
        query=bodies.ListRecordings,
        queries=("tenant", "state", "from", "to", "held", "caller", "called", "tag", "before", "limit"),
        headers=("Purpose",),
        answers={200: _json("One page; `before` continues it, null at the end.", "RecordingPage")},
        problems=(404, 422),
    ),
    Operation(
        method="get",
        path="/v1/recordings/{recording}",
        name="showRecording",
        tag="recordings",
        summary="Show one recording: facts, retention, holds, state",
        act=Act.RECORDING_SHOW,
        answers={200: _json("The recording.", "Recording")},
        problems=(404,),
    ),
    Operation(
        method="get",
        path="/v1/recordings/{recording}/audio",
        name="playRecording",
        tag="recordings",
        summary="Play the audio; a live call plays up to its durable end",
        act=Act.PLAY,
        query=bodies.PlayAudio,
        queries=("format",),
        headers=("Purpose", "Range"),
        answers={
            200: Answer(text="All of it, verified.", content={"audio/*": None}, headers=_PLAYED),
            206: Answer(text="The range asked for, verified.", content={"audio/*": None}, headers=_PLAYED),
        },
        problems=(404, 409, 410, 416, 422, 429, 500),
    ),
    Operation(
        method="get",
        path="/v1/recordings/{recording}/why",
        name="explainRecording",
        tag="recordings",
        summary="Say, rule by rule, why it is kept or was deleted",
        act=Act.RECORDING_WHY,
        answers={200: _json("The rules in order of precedence, the decision last.", "Why")},
        problems=(404,),
    ),
)

HOLDS: Final = (
    Operation(
        method="post",
        path="/v1/holds",
        name="placeHold",
        tag="holds",
        summary="Place a hold; the answer comes after the pins are durable in every keyring replica",
        act=Act.HOLD_PLACE,
        body=bodies.PlaceHold,
        answers={201: _json("What is held, and what came too late.", "Hold", Location="URL")},
        problems=(404, 409, 422),
    ),
    Operation(
        method="get",
        path="/v1/holds",
        name="listHolds",
        tag="holds",
        summary="List holds",
        act=Act.HOLD_LIST,
        query=bodies.Page,
        queries=("tenant", "limit"),
        answers={200: _json("Holds, newest first.", "HoldList")},
        problems=(422,),
    ),
    Operation(
        method="get",
        path="/v1/holds/{hold}",
        name="showHold",
        tag="holds",
        summary="Show one hold",
        act=Act.HOLD_LIST,
        answers={200: _json("The hold.", "Hold")},
        problems=(404,),
    ),
    Operation(
        method="post",
        path="/v1/holds/{hold}/review",
        name="reviewHold",
        tag="holds",
        summary="Record that somebody looked, and when to look again",
        act=Act.HOLD_REVIEW,
        body=bodies.ReviewHold,
        answers={200: _json("The hold.", "Hold")},
        problems=(404, 409, 422),
    ),
    Operation(
        method="post",
        path="/v1/holds/{hold}/release",
        name="requestRelease",
        tag="holds",
        summary="Ask for the release of a hold: the first of two people",
        act=Act.HOLD_RELEASE_REQUEST,
        body=bodies.ReleaseHold,
        answers={202: _json("The hold, waiting for the second person.", "Hold")},
        problems=(404, 409, 422),
    ),
    Operation(
        method="post",
        path="/v1/holds/{hold}/approve",
        name="decideRelease",
        tag="holds",
        summary="Approve or reject a release: the second of two people; the first may withdraw it",
        act=Act.HOLD_RELEASE_APPROVE,
        body=bodies.Approve,
        answers={200: _json("The hold, released or active again.", "Hold")},
        problems=(404, 409, 422),
    ),
)

CERTIFICATES: Final = (
    Operation(
        method="get",
        path="/v1/certificates",
        name="listCertificates",
        tag="certificates",
        summary="List deletion certificates",
        act=Act.CERTIFICATE_READ,
        query=bodies.Page,
        queries=("tenant", "recording", "before", "limit"),
        answers={200: _json("One page, newest first; `before` continues it.", "CertificatePage")},
        problems=(422,),
    ),
    Operation(
        method="get",
        path="/v1/certificates/{certificate}",
        name="getCertificate",
        tag="certificates",
        summary="Fetch one deletion certificate",
        act=Act.CERTIFICATE_READ,
        answers={
            200: Answer(
                text="The certificate.",
                content={"application/json": reference("Certificate"), "application/jose": TEXT},
            )
        },
        problems=(404,),
    ),
    Operation(
        method="get",
        path="/v1/certificates/{certificate}/objects",
        name="getCertificateObjects",
        tag="certificates",
        summary="Fetch the list of objects that a certificate counts",
        act=Act.CERTIFICATE_READ,
        answers={200: _json("The list, in the order of the certificate's tree.", "CertificateObjects")},
        problems=(404,),
    ),
    Operation(
        method="get",
        path="/v1/issuer-key",
        name="issuerKey",
        tag="certificates",
        summary="Fetch the public key that verifies certificates",
        answers={200: Answer(text="An Ed25519 public key.", content={"application/x-pem-file": TEXT})},
    ),
)

ADMINISTRATION: Final = (
    Operation(
        method="get",
        path="/v1/tenants",
        name="listTenants",
        tag="administration",
        summary="List tenants",
        act=Act.TENANT_READ,
        answers={200: _json("Every tenant the token may see.", "TenantList")},
    ),
    Operation(
        method="post",
        path="/v1/tenants",
        name="addTenant",
        tag="administration",
        summary="Add a tenant",
        act=Act.TENANT_ADMIN,
        body=bodies.AddTenant,
        answers={201: _json("The tenant.", "Tenant", Location="URL")},
        problems=(409, 422),
    ),
    Operation(
        method="get",
        path="/v1/tenants/{tenant}",
        name="showTenant",
        tag="administration",
        summary="Show one tenant",
        act=Act.TENANT_READ,
        answers={200: _json("The tenant.", "Tenant")},
        problems=(404, 422),
    ),
    Operation(
        method="put",
        path="/v1/tenants/{tenant}",
        name="changeTenant",
        tag="administration",
        summary="Set the retention of a tenant's future recordings, that of its metadata, or its safeguarding webhook",
        act=Act.TENANT_ADMIN,
        body=bodies.ChangeTenant,
        answers={200: _json("The tenant.", "Tenant")},
        problems=(404, 422),
    ),
    Operation(
        method="get",
        path="/v1/tokens",
        name="listTokens",
        tag="administration",
        summary="List tokens, without their secrets",
        act=Act.TOKEN_ADMIN,
        query=bodies.Page,
        queries=("tenant",),
        answers={200: _json("Tokens.", "TokenList")},
        problems=(422,),
    ),
    Operation(
        method="post",
        path="/v1/tokens",
        name="issueToken",
        tag="administration",
        summary="Issue a token; its secret is shown in this answer only",
        act=Act.TOKEN_ADMIN,
        body=bodies.IssueToken,
        answers={201: _json("The token with its secret.", "Token")},
        problems=(404, 422),
    ),
    Operation(
        method="delete",
        path="/v1/tokens/{token}",
        name="revokeToken",
        tag="administration",
        summary="Revoke a token",
        act=Act.TOKEN_ADMIN,
        answers={204: Answer(text="The token is revoked.")},
        problems=(404,),
    ),
    Operation(
        method="get",
        path="/v1/audit",
        name="readAudit",
        tag="administration",
        summary="Read the audit trail in order",
        act=Act.AUDIT_READ,
        query=bodies.Page,
        queries=("after", "limit"),
        answers={200: _json("Entries the token may see; `after` continues.", "AuditPage")},
        problems=(422,),
    ),
)

SWEEPS: Final = (
    Operation(
        method="get",
        path="/v1/sweeps",
        name="sweepStatus",
        tag="sweeps",
        summary="Show the last sweep, the overrides, and how late the promise is",
        act=Act.SWEEP_READ,
        answers={200: _json("The sweeper's state.", "SweepStatus")},
    ),
    Operation(
        method="post",
        path="/v1/sweeps",
        name="runSweep",
        tag="sweeps",
        summary="Sweep now, or with dry_run say what a sweep would do",
        act=Act.SWEEP_RUN,
        body=bodies.RunSweep,
        answers={200: _json("What was, or would be, shredded and kept.", "Sweep")},
        problems=(409, 422),
    ),
    Operation(
        method="post",
        path="/v1/sweeps/overrides",
        name="requestOverride",
        tag="sweeps",
        summary="Ask to pass a tripped guard: the first of two people",
        act=Act.SWEEP_OVERRIDE,
        body=bodies.RequestOverride,
        answers={202: _json("The override, waiting for the second person.", "Override")},
        problems=(422,),
    ),
    Operation(
        method="post",
        path="/v1/sweeps/overrides/{override}/approve",
        name="approveOverride",
        tag="sweeps",
        summary="Approve an override: the second of two people",
        act=Act.SWEEP_OVERRIDE,
        answers={200: _json("The override, in force until its end.", "Override")},
        problems=(404,),
    ),
)

SERVER: Final = (
    Operation(
        method="get",
        path="/v1/openapi.json",
        name="openapi",
        tag="server",
        summary="This document",
        answers={200: Answer(text="OpenAPI 3.1.", content={"application/json": {"type": "object"}})},
    ),
    Operation(
        method="get",
        path="/healthz",
        name="healthz",
        tag="server",
        summary="Tell that the process answers, and whether its vault is a trial one",
        answers={200: _json("It does.", "Liveness")},
    ),
    Operation(
        method="get",
        path="/readyz",
        name="readyz",
        tag="server",
        summary="Tell whether new recordings are accepted",
        answers={200: _json("They are.", "Readiness"), 503: _json("They are not.", "Readiness")},
    ),
    Operation(
        method="get",
        path="/metrics",
        name="metrics",
        tag="server",
        summary="Metrics in the Prometheus text format",
        answers={200: Answer(text="The metrics.", content={"text/plain": TEXT})},
    ),
)

OPERATIONS: Final = (
    *(*INGEST, *RECORDINGS, *HOLDS, *FLAGS, *PERSONAL, *CERTIFICATES, *ADMINISTRATION, *SWEEPS, *KEYS, *SERVER),
)
