"""Every address of the server against every credential: another tenant's, another role's, and none."""

from __future__ import annotations

import json

import pytest

from tests.helpers.app import BOUND_ROLES, PURPOSE, TENANTS, app, sound
from tests.helpers.routes import ABOUT_ONE, PRIVATE, ROUTES, SIGNED, things
from vault.access.permissions import Act, permits
from vault.model import Role
from vault.server.app import build_app
from vault.server.routes import OPERATIONS

__all__ = ["app"]

OURS, THEIRS = TENANTS

LISTS = [
    ("/v1/recordings", "recordings"),
    ("/v1/holds", "holds"),
    ("/v1/erasures", "erasures"),
    ("/v1/certificates", "certificates"),
    ("/v1/tenants", "tenants"),
    ("/v1/policies", "policies"),
    ("/v1/audit?limit=1000", "entries"),
]


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
    assert 404 in next(each.refusals for each in OPERATIONS if (each.method, each.path) == ("get", path))
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


async def test_a_refused_role_learns_nothing_from_a_malformed_query(app):
    for path in ("/v1/recordings", "/v1/holds", "/v1/erasures", "/v1/certificates", "/v1/policies", "/v1/tokens"):
        before = await app.denials()
        assert (await app.ask("GET", f"{path}?nonsense=1", Role.RECORDER)).status == 403, path
        assert await app.denials() == before + 1, path
        assert (await app.ask("GET", f"{path}?nonsense=1", Role.OPERATOR)).status in (403, 422), path


async def test_nobody_without_a_token_learns_what_a_tenants_id_looks_like(app):
    for suffix in ("", "/reindex", "/offboard"):
        method = "POST" if suffix else "GET"
        assert (await app.ask(method, f"/v1/tenants/NO_ID{suffix}", None)).status == 401
        assert (await app.ask(method, f"/v1/tenants/NO_ID{suffix}", Role.OPERATOR, body={})).status == 422


async def test_an_empty_tenant_is_the_tokens_own_wherever_one_is_named(app):
    for path, body in (
        ("/v1/holds", app.hold_body(await app.upload("held", sound(500)))),
        ("/v1/policies", {"metadata_retention": "90d"}),
    ):
        role = next(role for role in BOUND_ROLES if permits(role, ROUTES["POST", path]))
        answer = await app.ask("POST", path, role, tenant=OURS, body={**body, "tenant": ""})
        assert (answer.status, answer.json["tenant"]) in ((201, OURS), (202, OURS)), path


async def test_an_operator_who_names_no_tenant_of_the_vault_is_told_so_by_every_list(app):
    lists = [each for each in OPERATIONS if each.method == "get" and "tenant" in each.queries]
    assert len(lists) >= 7
    for each in lists:
        answer = await app.ask("GET", f"{each.path}?tenant=nosuch", Role.OPERATOR)
        if not permits(Role.OPERATOR, each.act):
            assert answer.status == 403, each.path
            continue
        assert (answer.status, answer.problem) == (404, "not_found"), each.path
        assert (answer.json["detail"], answer.json["hint"]) == (
            "there is no tenant nosuch",
            "callvault tenants list shows them",
        )
        assert 404 in each.refusals, each.path
        mine = next((role for role in BOUND_ROLES if permits(role, each.act)), None)
        if mine is not None:
            unknown, theirs = [
                (await app.ask("GET", f"{each.path}?tenant={name}", mine, tenant=OURS)).json
                for name in ("nosuch", THEIRS)
            ]
            assert {**unknown, "request_id": ""} == {**theirs, "request_id": ""}, each.path


async def test_a_list_takes_no_name_that_has_no_effect_on_it(app):
    for path in ("/v1/tokens?limit=5", "/v1/policies?before=a", f"/v1/holds?before=rec_{'0' * 32}"):
        answer = await app.ask("GET", path, Role.OPERATOR)
        assert (answer.status, answer.problem) == (422, "invalid"), path


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
