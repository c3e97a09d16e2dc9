"""Every route there is, and things of a tenant that it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tests.helpers.app import PCMU, App, sound
from vault.access.permissions import Act
from vault.ids import TenantId
from vault.model import Role
from vault.retention.guards import Guard, Tripped

ROUTES: dict[tuple[str, str], Act | None] = {
    ("GET", "/v1/ingest/{tenant}"): Act.INGEST,
    ("PUT", "/v1/ingest/{tenant}/{call_key}"): Act.INGEST,
    ("POST", "/v1/ingest/{tenant}/{call_key}"): Act.INGEST,
    ("HEAD", "/v1/ingest/{tenant}/{call_key}"): Act.INGEST,
    ("OPTIONS", "/v1/ingest/{tenant}/tus"): Act.INGEST,
    ("POST", "/v1/ingest/{tenant}/tus"): Act.INGEST,
    ("PUT", "/v1/ingest/{tenant}/tus"): Act.INGEST,
    ("HEAD", "/v1/ingest/{tenant}/tus/{upload}"): Act.INGEST,
    ("PATCH", "/v1/ingest/{tenant}/tus/{upload}"): Act.INGEST,
    ("DELETE", "/v1/ingest/{tenant}/tus/{upload}"): Act.INGEST,
    ("POST", "/v1/ingest/{tenant}/tus/{upload}"): Act.INGEST,
    ("GET", "/v1/ingest/{tenant}/ws"): Act.INGEST,
    ("GET", "/v1/ingest/{tenant}/audiohook"): Act.INGEST,
    ("POST", "/v1/ingest/{tenant}/rtpengine"): Act.INGEST,
    ("GET", "/v1/ingest/{tenant}/rtpengine"): Act.INGEST,
    ("POST", "/v1/ingest/{tenant}/{call_key}/pause"): Act.INGEST,
    ("POST", "/v1/ingest/{tenant}/{call_key}/resume"): Act.INGEST,
    ("POST", "/v1/ingest/{tenant}/{call_key}/siprec"): Act.INGEST,
    ("POST", "/v1/recordings/{recording}/pause"): Act.PAUSE,
    ("POST", "/v1/recordings/{recording}/resume"): Act.PAUSE,
    ("GET", "/v1/recordings/{recording}/notes"): Act.PLAY,
    ("GET", "/v1/recordings/{recording}/documents/{number}"): Act.PLAY,
    ("GET", "/v1/recordings/{recording}/aside/{number}"): Act.PLAY,
    ("GET", "/v1/recordings"): Act.RECORDING_LIST,
    ("POST", "/v1/recordings/search"): Act.RECORDING_LIST,
    ("GET", "/v1/recordings/{recording}"): Act.RECORDING_SHOW,
    ("GET", "/v1/recordings/{recording}/audio"): Act.PLAY,
    ("GET", "/v1/recordings/{recording}/why"): Act.RECORDING_WHY,
    # After playing: what is flagged is held, and not every role that may play may play that.
    ("POST", "/v1/ingest/{tenant}/{call_key}/flag"): Act.FLAG_LIVE,
    ("POST", "/v1/recordings/{recording}/flag"): Act.FLAG,
    ("POST", "/v1/holds"): Act.HOLD_PLACE,
    ("GET", "/v1/holds"): Act.HOLD_LIST,
    ("GET", "/v1/holds/{hold}"): Act.HOLD_LIST,
    ("POST", "/v1/holds/{hold}/review"): Act.HOLD_REVIEW,
    ("POST", "/v1/holds/{hold}/release"): Act.HOLD_RELEASE_REQUEST,
    ("POST", "/v1/holds/{hold}/approve"): Act.HOLD_RELEASE_APPROVE,
    ("GET", "/v1/certificates"): Act.CERTIFICATE_READ,
    ("GET", "/v1/certificates/{certificate}"): Act.CERTIFICATE_READ,
    ("GET", "/v1/certificates/{certificate}/objects"): Act.CERTIFICATE_READ,
    ("GET", "/v1/tenants"): Act.TENANT_READ,
    ("POST", "/v1/tenants"): Act.TENANT_ADMIN,
    ("GET", "/v1/tenants/{tenant}"): Act.TENANT_READ,
    ("PUT", "/v1/tenants/{tenant}"): Act.TENANT_ADMIN,
    ("POST", "/v1/policies"): Act.POLICY_DECIDE,
    ("GET", "/v1/policies"): Act.POLICY_READ,
    ("GET", "/v1/policies/{policy}"): Act.POLICY_READ,
    ("POST", "/v1/policies/{policy}/approve"): Act.POLICY_DECIDE,
    ("GET", "/v1/tokens"): Act.TOKEN_ADMIN,
    ("POST", "/v1/tokens"): Act.TOKEN_ADMIN,
    ("DELETE", "/v1/tokens/{token}"): Act.TOKEN_ADMIN,
    ("GET", "/v1/keys"): Act.KEYS_READ,
    ("GET", "/v1/keys/findings"): Act.KEYS_READ,
    ("POST", "/v1/keys/rotate"): Act.KEYS_ROTATE,
    ("POST", "/v1/sweeps"): Act.SWEEP_RUN,
    ("GET", "/v1/sweeps"): Act.SWEEP_READ,
    ("POST", "/v1/sweeps/overrides"): Act.SWEEP_OVERRIDE,
    ("GET", "/v1/sweeps/overrides/{override}"): Act.SWEEP_READ,
    ("POST", "/v1/sweeps/overrides/{override}/approve"): Act.SWEEP_OVERRIDE,
    ("GET", "/v1/audit"): Act.AUDIT_READ,
    ("POST", "/v1/erasures"): Act.ERASURE_REQUEST,
    ("GET", "/v1/erasures"): Act.ERASURE_READ,
    ("GET", "/v1/erasures/{erasure}"): Act.ERASURE_READ,
    ("POST", "/v1/erasures/{erasure}/approve"): Act.ERASURE_DECIDE,
    ("POST", "/v1/erasures/{erasure}/reject"): Act.ERASURE_DECIDE,
    ("POST", "/v1/tenants/{tenant}/reindex"): Act.TENANT_ADMIN,
    ("POST", "/v1/tenants/{tenant}/offboard"): Act.TENANT_OFFBOARD,
    ("POST", "/v1/tenants/{tenant}/offboard/approve"): Act.TENANT_OFFBOARD,
    ("GET", "/v1/issuer-key"): None,
    ("GET", "/v1/openapi.json"): None,
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/metrics"): None,
}


SIGNED = {
    (method, folder + path)
    for folder in ("/s3", "")
    for method, path in (
        *((method, "/{bucket}/{key}") for method in ("PUT", "POST", "DELETE", "GET")),
        ("GET", "/{bucket}"),
        ("PUT", "/{bucket}"),
    )
}
"""Addresses that take a signature instead of a token: test_s3_refusals tries them."""


PRIVATE = [route for route, act in ROUTES.items() if act is not None]


ABOUT_ONE = [route for route in PRIVATE if "{" in route[1]]


@dataclass(slots=True, kw_only=True)
class Things:
    """What one tenant owns, and how to fill in a route with it."""

    tenant: str
    recording: str
    hold: str
    certificate: str = ""
    erasure: str = ""
    policy: str = ""
    override: str = ""
    upload: str = ""
    token: str

    def path(self, template: str) -> str:
        return template.format(
            tenant=self.tenant,
            call_key="call-1",
            upload=self.upload or self.recording,
            recording=self.recording,
            hold=self.hold,
            certificate=self.certificate,
            token=self.token,
            erasure=self.erasure,
            policy=self.policy,
            override=self.override,
            number="0",
        )

    def body(self, app: App, route: tuple[str, str]) -> Any:
        later = app.hold_body()["review_at"]
        bodies = {
            ("POST", "/v1/holds"): app.hold_body(self.recording, tenant=self.tenant),
            ("POST", "/v1/holds/{hold}/review"): {"next_review": later, "note": "looked"},
            ("POST", "/v1/holds/{hold}/release"): {"reason": "settled"},
            ("POST", "/v1/erasures"): self.erasure_body(self.recording),
            ("POST", "/v1/policies"): {"tenant": self.tenant, "metadata_retention": "90d"},
            ("POST", "/v1/recordings/search"): {"limit": 5, "tenant": self.tenant},
            ("POST", "/v1/recordings/{recording}/flag"): {"category": "other"},
            ("POST", "/v1/ingest/{tenant}/{call_key}/flag"): {"category": "other"},
            ("POST", "/v1/tenants"): {"id": "third", "name": "t", "controller": "t", "contact": "t"},
            ("PUT", "/v1/tenants/{tenant}"): {"retention": "5d"},
            ("POST", "/v1/tokens"): {"name": "mine", "role": "compliance", "tenant": self.tenant},
            ("POST", "/v1/sweeps/overrides"): {"tenant": self.tenant, "through": later, "reason": "looked at"},
        }
        return bodies.get(route, {} if route[0] == "POST" else None)

    def erasure_body(self, recording: str) -> Any:
        return {"basis": "art17", "case_reference": "DSR-1", "recordings": [recording], "tenant": self.tenant}

    async def ask(
        self,
        app: App,
        route: tuple[str, str],
        who: Role | str | None,
        tenant: str,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        query: str = "",
    ) -> Any:
        method, template = route
        sending = {"Purpose": "quality"}
        sent: dict[str, Any] = {"body": self.body(app, route)}
        if "ingest" in template and not template.endswith("/flag"):
            sent = {"data": None if method == "HEAD" else b"x" * 200}
            sending["Content-Type"] = PCMU
        path = self.path(template) + query
        return await app.ask(method, path, who, tenant=tenant, headers={**sending, **headers}, **sent)


async def things(app: App, tenant: str) -> Things:
    """Give the tenant a certified deletion, a recording, a hold on another one, and note their ids."""
    await app.upload("old", sound(500), tenant=tenant)
    app.clock.advance(days=12)
    await app.sweep()
    page = await app.ask("GET", "/v1/certificates", Role.AUDITOR, tenant=tenant)
    recording = await app.upload("call-1", sound(500, 2), tenant=tenant, headers={"Call-From": "+442079460123"})
    held = await app.hold(await app.upload("held", sound(500, 3), tenant=tenant), tenant=tenant)
    tokens = (await app.ask("GET", f"/v1/tokens?tenant={tenant}", Role.OPERATOR)).json["tokens"]
    made = Things(
        tenant=tenant,
        recording=recording,
        hold=held.json["id"],
        certificate=page.json["certificates"][0]["id"],
        token=tokens[0]["id"],
    )
    unwanted = made.erasure_body(await app.upload("unwanted", sound(500, 4), tenant=tenant))
    asked = {"metadata_retention": "90d"}
    made.policy = (await app.ask("POST", "/v1/policies", Role.DPO, tenant=tenant, body=asked)).json["id"]
    made.erasure = (await app.ask("POST", "/v1/erasures", tenant=tenant, body=unwanted)).json["id"]
    stopped = Tripped(guard=Guard.MASS_SHRED, reason="too much goes early", tenant=TenantId(tenant), early=2, live=2)
    await app.vault.overrides.remember([*await app.vault.overrides.tripped(), stopped])
    lifted = made.body(app, ("POST", "/v1/sweeps/overrides"))
    made.override = (await app.ask("POST", "/v1/sweeps/overrides", Role.DPO, tenant=tenant, body=lifted)).json["id"]
    return made
