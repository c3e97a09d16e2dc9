"""Every address of the server against every credential: another tenant's, another role's, and none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest

from tests.helpers.app import BOUND_ROLES, PCMU, PURPOSE, TENANTS, App, app, sound
from vault.access.permissions import Act, permits
from vault.ids import TenantId
from vault.model import Role
from vault.retention.guards import Guard, Tripped
from vault.server.app import build_app

__all__ = ["app"]

OURS, THEIRS = TENANTS

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
LISTS = [
    ("/v1/recordings", "recordings"),
    ("/v1/holds", "holds"),
    ("/v1/erasures", "erasures"),
    ("/v1/certificates", "certificates"),
    ("/v1/tenants", "tenants"),
    ("/v1/policies", "policies"),
    ("/v1/audit?limit=1000", "entries"),
]


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


def test_the_table_of_routes_is_the_router(app):
    routes = {(route.method, route.resource.canonical) for route in build_app(app.vault, app.config).router.routes()}
    # aiohttp answers HEAD wherever it answers GET.
    found = {(method, path) for method, path in routes if method != "HEAD" or ("GET", path) not in routes}
    assert found == ROUTES.keys() | SIGNED


async def test_nothing_private_answers_without_a_token(app):
    ours = await things(app, OURS)
    for route in PRIVATE:
        answer = await ours.ask(app, route, None, OURS)
        assert answer.status == 401, route
        assert "WWW-Authenticate" in answer.headers
    for method, template in SIGNED:
        path = template.format(bucket=OURS, key="call-1")
        assert (await app.ask(method, path, None)).status == (403 if path.startswith("/s3/") else 404), path
    for (method, path), act in ROUTES.items():
        if act is None:
            assert (await app.ask(method, path, None)).status == 200, path


@pytest.mark.parametrize("role", BOUND_ROLES)
async def test_another_tenants_token_reaches_nothing_and_every_attempt_is_logged(app, role):
    theirs = await things(app, THEIRS)
    for route in ABOUT_ONE:
        before = await app.denials()
        answer = await theirs.ask(app, route, role, OURS)
        allowed = permits(role, ROUTES[route])
        assert answer.status == (404 if allowed else 403), route
        assert await app.denials() == before + 1, route
        assert THEIRS.encode() not in answer.body
    assert (await app.play(theirs.recording, tenant=THEIRS)).body == sound(500, 2)


async def test_a_hold_reaches_no_recording_of_another_tenant_whichever_tenant_it_claims(app):
    ours, theirs = await things(app, OURS), await things(app, THEIRS)
    for claimed in (None, OURS, THEIRS):
        before = await app.denials()
        body = app.hold_body(ours.recording, theirs.recording, tenant=claimed)
        answer = await app.ask("POST", "/v1/holds", Role.COMPLIANCE, tenant=OURS, body=body)
        assert answer.status == 404
        assert await app.denials() == before + 1
    holds = (await app.ask("GET", "/v1/holds", Role.OPERATOR)).json["holds"]
    assert {hold["id"] for hold in holds} == {ours.hold, theirs.hold}


@pytest.mark.parametrize("what", [{"caller": "020 7946 0123"}, {"called": "020 7946 0123"}, {"tag": "x"}])
async def test_a_search_by_number_stays_in_its_tenant_and_needs_a_role_and_a_purpose(app, what):
    await things(app, THEIRS)
    for role in (Role.OPERATOR, Role.AUDITOR, Role.RECORDER):
        assert (await app.ask("POST", "/v1/recordings/search", role, body=what, headers=PURPOSE)).status == 403
    found = await app.ask("POST", "/v1/recordings/search", Role.AGENT, body=what, headers=PURPOSE)
    assert (found.status, found.json["recordings"]) == (200, [])
    before = await app.denials()
    other = await app.ask("POST", "/v1/recordings/search", Role.AGENT, body={**what, "tenant": THEIRS}, headers=PURPOSE)
    assert other.status == 404
    assert await app.denials() == before + 1
    for headers in ({}, {"Purpose": "curiosity"}):
        refused = await app.ask("POST", "/v1/recordings/search", Role.AGENT, body=what, headers=headers)
        assert (refused.status, refused.problem) == (422, "invalid")


@pytest.mark.parametrize("role", BOUND_ROLES)
async def test_lists_hold_the_tokens_own_tenant_and_no_other(app, role):
    await things(app, OURS)
    theirs = await things(app, THEIRS)
    foreign = {theirs.tenant, theirs.recording, theirs.hold, theirs.certificate, theirs.erasure, theirs.token}
    foreign.add(theirs.policy)
    for path, name in LISTS:
        answer = await app.ask("GET", path, role, tenant=OURS)
        if not permits(role, ROUTES["GET", path.partition("?")[0]]):
            assert answer.status == 403
            continue
        assert answer.status == 200
        assert answer.json[name], f"{path} shows {role} nothing of its own"
        assert not [each for each in foreign if each in json.dumps(answer.json[name])]


@pytest.mark.parametrize("path", ["/v1/recordings", "/v1/holds", "/v1/erasures", "/v1/certificates"])
async def test_asking_a_list_for_another_tenant_is_refused_and_logged(app, path):
    await things(app, THEIRS)
    before = await app.denials()
    answer = await app.ask("GET", f"{path}?tenant={THEIRS}", Role.COMPLIANCE, tenant=OURS)
    assert answer.status == 404
    assert await app.denials() == before + 1


async def test_a_recording_of_another_tenant_cannot_be_told_apart_from_none(app):
    theirs = await things(app, THEIRS)
    for suffix in ("", "/why", "/audio"):
        real = await app.ask("GET", f"/v1/recordings/{theirs.recording}{suffix}", tenant=OURS)
        none = await app.ask("GET", f"/v1/recordings/rec_{'0' * 32}{suffix}", tenant=OURS)
        assert (real.status, real.problem) == (none.status, none.problem) == (404, "not_found")


@pytest.mark.parametrize("role", list(Role))
async def test_each_role_may_do_at_each_address_what_the_table_of_permissions_says(app, role):
    ours = await things(app, OURS)
    for route in PRIVATE:
        before = await app.denials()
        answer = await ours.ask(app, route, role, OURS)
        denied = await app.denials() - before
        assert denied == (not permits(role, ROUTES[route])), (route, answer.status, answer.body)
        assert answer.status == 403 if denied else answer.status < 500


@pytest.mark.parametrize("role", [role for role in BOUND_ROLES if not permits(role, Act.HOLD_PLACE)])
async def test_a_refused_role_learns_nothing_from_a_malformed_body(app, role):
    for path in ("/v1/holds", "/v1/tokens", "/v1/tenants", "/v1/sweeps"):
        before = await app.denials()
        assert (await app.ask("POST", path, role, body={"nonsense": 1})).status == 403
        assert await app.denials() == before + 1


async def test_no_token_of_a_tenant_is_an_operators(app):
    body = {"name": "deputy", "role": "operator", "tenant": OURS}
    answer = await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=body)
    assert (answer.status, answer.problem) == (422, "invalid")
    tokens = (await app.ask("GET", f"/v1/tokens?tenant={OURS}", Role.OPERATOR)).json["tokens"]
    assert {token["role"] for token in tokens} == {role.value for role in BOUND_ROLES}


async def test_a_revoked_token_opens_nothing_at_once(app):
    ours = await things(app, OURS)
    for role in Role:
        body = {"name": "leaves", "role": role.value, "tenant": None if role is Role.OPERATOR else OURS}
        issued = (await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=body)).json
        secret = issued["token"]
        seen = await app.ask("GET", "/v1/recordings", secret)
        assert seen.status == (403 if role is Role.RECORDER else 200)
        assert (await app.ask("DELETE", f"/v1/tokens/{issued['id']}", Role.OPERATOR)).status == 204
        for route in PRIVATE:
            assert (await ours.ask(app, route, secret, OURS)).status == 401, (role, route)
        wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
        assert (await app.ask("GET", "/v1/recordings", wrong)).status == 401
