"""Changes of how long the metadata of existing calls is kept: two people, a notice, then a sweep."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.helpers import approvals
from tests.helpers.app import SETTINGS, Answer, App, app, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.tenants import metadata_kept
from tests.helpers.uploads import Resumable
from vault.ids import TenantId
from vault.model import Part, Role
from vault.retention.periods import parse_period
from vault.retention.policy import metadata_period, month_name

__all__ = ["app"]

AUDIO = sound(2000)
CALLER = {"Call-From": "+442079460123"}


async def ask(app: App, who: Role | str = Role.DPO, retention: str | None = "30d", **body: Any) -> Answer:
    return await app.ask("POST", "/v1/policies", who, body={"metadata_retention": retention, **body})


def counted(asked: Answer) -> dict[str, int]:
    """Return what of the preview is counted at all."""
    return {name: count for name, count in asked.json["preview"].items() if count}


async def approve(app: App, asked: Answer, who: Role | str = Role.COMPLIANCE, **body: Any) -> Answer:
    return await approvals.approve(app, f"/v1/policies/{asked.json['id']}", who, **body)


async def show(app: App, asked: Answer) -> Any:
    return (await app.ask("GET", f"/v1/policies/{asked.json['id']}")).json


async def knows_the_caller(app: App, recording: str) -> bool:
    return "call" in (await app.ask("GET", f"/v1/recordings/{recording}")).json


async def old_calls(app: App, *, days: float = 730) -> list[str]:
    """Record two calls whose audio is gone and whose metadata was agreed for so long."""
    await metadata_kept(app.vault, "northfield", days=days)
    made = [await app.upload(f"call-{number}", AUDIO, headers=CALLER) for number in range(2)]
    app.clock.advance(days=60)
    await app.sweep()
    return made


async def test_a_change_of_existing_calls_takes_effect_after_two_people_and_the_notice_and_not_before(app):
    old = await old_calls(app)
    asked = await ask(app)
    assert asked.status == 202, asked.body
    assert counted(asked) == {"changed": 2, "earlier": 2}
    assert asked.json["takes_effect_at"] is None
    app.clock.advance(days=60)
    assert (await app.sweep())["shredded"] == 0, "nobody else has agreed"
    approved = await approve(app, asked)
    assert (approved.status, approved.json["state"]) == (200, "approved")
    app.clock.advance(days=13)
    assert (await app.sweep())["shredded"] == 0, "the notice runs"
    assert all([await knows_the_caller(app, each) for each in old])
    app.clock.advance(days=1)
    preview = (await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body={"dry_run": True})).json
    assert {line["id"] for line in preview["recordings"] if line["action"] == "shred"} == set(old)
    assert (await show(app, asked))["state"] == "approved", "a dry run changes nothing"
    assert (await app.sweep())["shredded"] == 2
    assert not any([await knows_the_caller(app, each) for each in old])
    assert (await show(app, asked))["state"] == "applied"
    tenant = (await app.ask("GET", "/v1/tenants/northfield")).json
    assert tenant["metadata_changed"] == {
        "through": asked.json["through"],
        "retention": "30d",
        "retention_seconds": 30 * 86400,
        "policy": asked.json["id"],
    }
    assert tenant["metadata_retention_seconds"] == 730 * 86400, "calls to come keep what was agreed"
    trail = [entry for entry in await app.audit() if entry["target"] == asked.json["id"]]
    assert [entry["event"] for entry in trail] == ["policy.requested", "policy.approved", "policy.applied"]


async def test_calls_that_were_to_go_are_kept_longer_and_why_names_the_request(app):
    old = await old_calls(app, days=90)
    asked = await ask(app, retention="730d")
    assert counted(asked) == {"changed": 2, "later": 2}
    await approve(app, asked)
    app.clock.advance(days=15)
    await app.sweep()
    app.clock.advance(days=100)
    assert (await app.sweep())["shredded"] == 0
    assert all([await knows_the_caller(app, each) for each in old])
    lines = (await app.ask("GET", f"/v1/recordings/{old[0]}/why")).json["rules"]
    [line] = [each for each in lines if each["rule"] == "metadata"]
    assert (line["effect"], asked.json["id"] in line["text"]) == ("keeps", True)
    for _ in range(2):
        app.clock.advance(days=375)
        await app.sweep()
    assert not app.vault.keyring.cohorts("northfield", Part.METADATA)


async def test_a_change_is_for_the_months_before_it_was_asked_for_whenever_it_is_approved(app):
    await metadata_kept(app.vault, "northfield", days=730)
    asked = await ask(app, retention="1d")
    assert (asked.json["through"], counted(asked)) == (month_name(metadata_period(app.clock.now()) - 1), {})
    recording = await app.upload("call", AUDIO, headers=CALLER)
    await approve(app, asked)
    app.clock.advance(days=100)
    await app.sweep()
    assert (await show(app, asked))["state"] == "applied"
    assert await knows_the_caller(app, recording), "nobody was shown that it would go"


async def test_a_preview_counts_the_metadata_of_a_call_that_is_recorded_into_another_month(app):
    await metadata_kept(app.vault, "northfield", days=730)
    assert (await Resumable(app).begin(complete=False)).status == 201
    app.clock.advance(days=31)
    assert counted(await ask(app)) == {"changed": 1, "earlier": 1, "live": 1}


async def test_one_person_takes_nothing_back_that_keeps_metadata_longer(app):
    old = await old_calls(app, days=90)
    asked = await ask(app, retention="730d")
    path = f"/v1/policies/{asked.json['id']}/approve"
    await approve(app, asked)
    for who in (Role.COMPLIANCE, Role.DPO):
        refused = await app.ask("POST", path, who, body={"approve": False})
        assert (refused.status, refused.problem) == (409, "conflict")
    app.clock.advance(days=15)
    await app.sweep()
    app.clock.advance(days=100)
    await app.sweep()
    assert all([await knows_the_caller(app, each) for each in old])


async def test_metadata_is_never_changed_to_go_before_its_audio(app):
    operator = await app.vault.access.authenticate(app.token(Role.OPERATOR))
    await app.vault.tenants.change(TenantId("northfield"), retention=parse_period("300d"), actor=operator)
    recording = await app.upload("call", AUDIO, headers=CALLER)
    app.clock.advance(days=31)
    asked = await ask(app, retention="1d")
    assert counted(asked)["changed"] == 1
    await approve(app, asked)
    app.clock.advance(days=200)
    await app.sweep()
    assert (await show(app, asked))["state"] == "applied"
    assert await knows_the_caller(app, recording)
    app.clock.advance(days=110)
    await app.sweep()
    assert not await knows_the_caller(app, recording)


async def test_the_two_are_the_dpo_and_compliance_or_a_safeguarding_lead_of_the_tenant(app):
    for first, second, status in (
        (Role.COMPLIANCE, Role.SAFEGUARDING_LEAD, 403),
        (Role.DPO, await app.second_person(Role.DPO), 403),
        (Role.DPO, Role.DPO, 403),
        (Role.DPO, Role.OPERATOR, 403),
        (Role.DPO, Role.SAFEGUARDING_LEAD, 200),
        (Role.COMPLIANCE, Role.DPO, 200),
    ):
        asked = await ask(app, first)
        assert asked.status == 202, asked.body
        answer = await approve(app, asked, second)
        assert answer.status == status, (first, second)
        assert (await show(app, asked))["state"] == ("approved" if status == 200 else "requested")
        gone = await app.ask("POST", f"/v1/policies/{asked.json['id']}/approve", Role.DPO, body={"approve": False})
        assert (gone.status, gone.json["state"]) == (200, "rejected"), "it can be withdrawn until it is applied"
    asked = await ask(app, Role.DPO)
    for who in (Role.OPERATOR, Role.AUDITOR, Role.AGENT, Role.RECORDER):
        assert (await ask(app, who, tenant="northfield")).status == 403
        assert (await approve(app, asked, who)).status == 403
    app.clock.advance(days=60)
    await app.sweep()
    assert (await app.ask("GET", "/v1/tenants/northfield")).json["metadata_changed"] is None


async def test_one_request_is_open_at_a_time_and_its_approval_names_what_was_shown(app):
    asked = await ask(app)
    second = await ask(app, Role.COMPLIANCE, "60d")
    assert (second.status, asked.json["id"] in second.json["detail"]) == (409, True)
    path = f"/v1/policies/{asked.json['id']}/approve"
    for body, status, code in (({}, 422, "invalid"), ({"shown": "0" * 64}, 409, "changed_since")):
        refused = await app.ask("POST", path, body=body)
        assert (refused.status, refused.problem) == (status, code)
    assert (await approve(app, asked)).status == 200
    assert (await approve(app, asked)).status == 409, "it is approved already"
    assert (await ask(app)).status == 409, "an approved one is open until it is applied"
    app.clock.advance(days=15)
    await app.sweep()
    assert (await app.ask("POST", path, body={"approve": False})).status == 409, "it is applied"
    assert (await ask(app)).status == 202


async def test_of_an_approval_and_a_withdrawal_at_once_one_stands(app):
    asked = await ask(app)
    path = f"/v1/policies/{asked.json['id']}/approve"
    withdrawn = app.ask("POST", path, Role.DPO, body={"approve": False})
    answers = await asyncio.gather(approve(app, asked), withdrawn)
    assert answers[1].status == 200
    assert answers[0].status in {200, 409}
    assert (await show(app, asked))["state"] == "rejected"


async def test_a_request_changes_one_thing_within_its_bounds(app):
    for body in ({}, {"retention": None}, {"retention": "5d", "metadata_retention": "30d"}, {"retention": "8y"}):
        refused = await app.ask("POST", "/v1/policies", Role.DPO, body=body)
        assert (refused.status, refused.problem) == (422, "invalid"), body
    assert (await ask(app, retention="1h")).status == 422


async def test_what_goes_early_by_a_change_is_counted_by_the_guard():
    with memory_directory() as base:
        async with running(base, sweep={**SETTINGS["sweep"], "max_share": 0.5}) as app:
            old = await old_calls(app)
            asked = await ask(app)
            await approve(app, asked)
            app.clock.advance(days=15)
            swept = await app.sweep()
            [stopped] = swept["postponed"]
            assert (stopped["tenant"], stopped["guard"], stopped["early"]) == ("northfield", "mass_shred", 2)
            assert all([await knows_the_caller(app, each) for each in old])
            for number in range(6):
                await app.upload(f"later-{number}", b"\xff")
            [again] = (await app.sweep())["postponed"]
            assert (again["early"], again["live"]) == (2, 2), "what came after the decision is no part of the whole"


async def test_what_falls_due_only_after_a_change_is_early_too():
    with memory_directory() as base:
        async with running(base, sweep={**SETTINGS["sweep"], "max_share": 0.5}) as app:
            old = await old_calls(app)
            asked = await ask(app, retention="120d")
            await approve(app, asked)
            app.clock.advance(days=15)
            assert (await app.sweep())["postponed"] == []
            assert (await show(app, asked))["state"] == "applied"
            app.clock.advance(days=90)
            await app.sweep()
            app.clock.advance(days=1)
            assert [each["early"] for each in (await app.sweep())["postponed"]] == [2]
            assert all([await knows_the_caller(app, each) for each in old])


async def test_a_clock_that_jumped_applies_nothing():
    with memory_directory() as base:
        async with running(base, sweep={**SETTINGS["sweep"], "max_jump": "20d"}) as app:
            await app.sweep()
            asked = await ask(app)
            await approve(app, asked)
            app.clock.advance(days=21)
            assert (await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body={})).status == 409
            assert (await show(app, asked))["state"] == "approved"
