"""What one stolen credential does to held audio, to decisions and to calls under way, whatever it asks for."""

from __future__ import annotations

import pytest

from tests import approvals
from tests.integration.app import TENANTS, app, sound
from tests.integration.test_tenancy import PRIVATE, things
from vault.model import Role
from vault.protocol.permissions import Act, permits
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


async def test_whoever_issues_two_tokens_plays_both_people_and_each_issue_is_in_the_trail(app):
    hold = (await app.hold(await app.upload("held", sound(500)))).json["id"]
    before = len(await app.audit("admin.token"))
    first, second = await app.second_person(Role.COMPLIANCE), await app.second_person(Role.DPO)
    assert (await app.ask("POST", f"/v1/holds/{hold}/release", first, body={"reason": "settled"})).status == 202
    assert (await approvals.approve(app, f"/v1/holds/{hold}", second)).status == 200
    issued = [entry for entry in await app.audit("admin.token") if entry["detail"].get("action") == "issued"]
    assert len(issued) == before + 2
