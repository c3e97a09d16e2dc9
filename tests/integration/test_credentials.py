"""What one stolen credential does to held audio, to decisions and to calls under way, whatever it asks for."""

from __future__ import annotations

import pytest

from tests.helpers import approvals
from tests.helpers.app import PURPOSE, TENANTS, app, sound
from tests.helpers.routes import PRIVATE, things
from vault.access.permissions import Act, permits
from vault.model import Role
from vault.server.app import build_app

__all__ = ["app"]

OURS, THEIRS = TENANTS


@pytest.mark.parametrize("role", [None, *Role])
async def test_no_credential_alone_loses_held_audio_whatever_it_asks_for(app, role):
    ours = await things(app, OURS)
    held = (await app.ask("GET", f"/v1/holds/{ours.hold}")).json["recordings"]
    for _ in range(2):  # what the first round begins is there for the second
        for route in PRIVATE:
            await ours.ask(app, route, role, OURS)
        await approvals.approve(app, f"/v1/holds/{ours.hold}", role)
    app.clock.advance(days=80)
    await app.sweep()
    assert (await app.play(held[0]["id"])).body == sound(500, 3)


@pytest.mark.parametrize("role", list(Role))
async def test_no_credential_alone_decides_what_takes_two(app, role):
    recording = await app.upload("call", sound(500))
    hold = (await app.hold(await app.upload("held", sound(500, 2)))).json["id"]
    await app.ask("POST", f"/v1/holds/{hold}/release", role, body={"reason": "settled"})
    body = {"basis": "art17", "case_reference": "DSR-1", "recordings": [recording], "tenant": OURS}
    asked = await app.ask("POST", "/v1/erasures", role, body=body)
    await app.ask("POST", f"/v1/tenants/{OURS}/offboard", role, body={})
    acts = {
        f"/v1/holds/{hold}": Act.HOLD_RELEASE_APPROVE,
        f"/v1/tenants/{OURS}/offboard": Act.TENANT_OFFBOARD,
        **({f"/v1/erasures/{asked.json['id']}": Act.ERASURE_DECIDE} if asked.status == 202 else {}),
    }
    for path, act in acts.items():
        answer = await approvals.approve(app, path, role)
        assert answer.status == 403 if not permits(role, act) else answer.status in (403, 409), path
    assert (await app.ask("GET", f"/v1/holds/{hold}")).json["state"] != "released"
    app.clock.advance(days=5)
    await app.sweep()
    assert (await app.play(recording)).body == sound(500)


async def test_an_instant_that_no_calendar_has_is_refused_and_stops_nobodys_sweep(app):
    ours, theirs = await app.upload("call", sound(500)), await app.upload("call", sound(500), tenant=THEIRS)
    held = (await app.hold(ours)).json["id"]
    for beyond in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", 4_102_444_800, "4102444800"):
        asked = {
            f"/v1/tenants/{OURS}/offboard": (Role.DPO, {"contract_end": beyond}),
            "/v1/holds": (Role.COMPLIANCE, app.hold_body(ours, matter="other", review_at=beyond)),
            f"/v1/holds/{held}/review": (Role.SAFEGUARDING_LEAD, {"next_review": beyond, "note": "looked"}),
            "/v1/sweeps/overrides": (Role.OPERATOR, {"through": beyond, "reason": "drift"}),
            "/v1/tokens": (Role.OPERATOR, {"name": "t", "role": "agent", "tenant": OURS, "expires_at": beyond}),
            "/v1/recordings/search": (Role.COMPLIANCE, {"from": beyond}),
        }
        for path, (role, body) in asked.items():
            answer = await app.ask("POST", path, role, body=body, headers=PURPOSE)
            assert (answer.status, answer.problem) == (422, "invalid"), (path, beyond, answer.body)
    assert (await app.ask("GET", "/v1/tenants", Role.OPERATOR)).status == 200
    app.clock.advance(days=12)
    assert (await app.sweep())["shredded"] == 1
    assert (await app.play(theirs, tenant=THEIRS)).status == 410
    assert (await app.play(ours)).body == sound(500)


async def test_a_contract_whose_export_window_no_calendar_has_is_not_asked_for(app):
    answer = await app.ask(
        "POST", f"/v1/tenants/{OURS}/offboard", Role.DPO, body={"contract_end": "9999-12-31T23:59:59Z"}
    )
    assert (answer.status, answer.problem) == (422, "invalid")
    found = (await app.ask("GET", "/v1/tenants", Role.OPERATOR)).json["tenants"]
    assert [each["contract_end"] for each in found] == [None, None]


async def test_a_place_in_the_trail_that_no_catalog_can_count_is_refused(app):
    assert (await app.ask("GET", f"/v1/audit?after={(1 << 63) - 1}", Role.DPO)).json["entries"] == []
    for beyond in (1 << 63, 10**40):
        assert (await app.ask("GET", f"/v1/audit?after={beyond}", Role.DPO)).problem == "invalid"


async def test_an_operators_sweeps_take_nothing_before_its_date(app):
    recording = await app.upload("call", sound(500))
    for _ in range(2):
        assert (await app.sweep())["shredded"] == 0
        app.clock.advance(days=5, minutes=-1)
    assert (await app.play(recording)).body == sound(500)
    app.clock.advance(days=2)
    assert (await app.sweep())["shredded"] == 1


def test_no_address_takes_a_recording_back(app):
    routes = {(route.method, route.resource.canonical) for route in build_app(app.vault, app.config).router.routes()}
    assert not [path for method, path in routes if method in ("DELETE", "PUT", "PATCH") and "{recording}" in path]


async def test_one_operators_credential_brings_about_no_two_people(app):
    """Whatever tokens it issues, and lets those issue: what takes two people is refused to each two of them.

    The request itself says so, to whoever may not approve it and to nobody else.
    """

    async def issue(issuer: Role | str, role: Role) -> str:
        body = {"name": role.value, "role": role.value, "tenant": None if role is Role.OPERATOR else OURS}
        return str((await app.ask("POST", "/v1/tokens", issuer, body=body)).json["token"])

    held = await app.upload("held", sound(500))
    hold = (await app.hold(held)).json["id"]
    other = await app.upload("other", sound(500))
    second = await issue(Role.OPERATOR, Role.OPERATOR)
    compliance, dpo = await issue(Role.OPERATOR, Role.COMPLIANCE), await issue(second, Role.DPO)
    case = {"tenant": OURS, "basis": "art17", "case_reference": "DSR-1", "recordings": [other]}
    for path, body, first, approver in (
        (f"/v1/holds/{hold}/release", {"reason": "settled"}, compliance, dpo),
        ("/v1/erasures", case, compliance, dpo),
        ("/v1/policies", {"retention": "5d", "tenant": OURS}, compliance, dpo),
        (f"/v1/tenants/{OURS}/offboard", {}, second, dpo),
        (f"/v1/tenants/{OURS}/offboard", {}, Role.OPERATOR, dpo),
    ):
        asked = await app.ask("POST", path, first, body=body)
        assert asked.status in (201, 202), (path, asked.body)
        collection = path.removesuffix("/release").removesuffix("/offboard")
        row = collection if collection != path else f"{path}/{asked.json['id']}"
        assert "may_not_approve" not in asked.json
        decision = f"{path}/approve" if path.endswith("/offboard") else f"{row}/approve"
        shown = (asked.json.get("offboarding") or asked.json)["shown"]
        refused = await app.ask("POST", decision, approver, body={"shown": shown})
        assert (refused.status, "one person may hold both" in refused.json["detail"]) == (403, True), (path, refused)
        assert "--config" in refused.json["hint"]
        told = {"detail": refused.json["detail"], "hint": refused.json["hint"]}
        assert (await app.ask("GET", row, approver)).json["may_not_approve"] == told, path
        own = (await app.ask("GET", row, first)).json["may_not_approve"]
        assert "cannot approve it" in own["detail"]
        assert "may_not_approve" not in (await app.ask("GET", row, Role.DPO)).json, path
        if path.endswith("/offboard"):
            assert (await app.ask("POST", decision, approver, body={"approve": False})).status == 200
    app.clock.advance(days=6)
    await app.sweep()
    for recording in (held, other):
        assert (await app.play(recording)).status == 200
