"""What stops a sweep, who hears of it, and which two people lift it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.helpers import approvals
from tests.helpers.app import SETTINGS, Answer, App, app, running, sound
from tests.helpers.crashing import memory_directory
from vault.ids import RecordingId, TenantId
from vault.model import Role
from vault.retention.periods import Period
from vault.services.vault import Vault
from vault.storage.catalog.rows import key

__all__ = ["app"]

AUDIO = sound(2000)
THEIRS = "southgate"


@asynccontextmanager
async def guarded(**sweep: Any) -> AsyncIterator[App]:
    with memory_directory() as base:
        async with running(base, sweep={**SETTINGS["sweep"], "max_share": 0.5, **sweep}) as app:
            yield app


async def is_shredded(app: App, recording: str, tenant: str = "northfield") -> bool:
    return (await app.play(recording, tenant=tenant)).status == 410


async def offboard(app: App) -> None:
    path = "/v1/tenants/northfield/offboard"
    await app.ask("POST", path, Role.OPERATOR, body={})
    assert (await approvals.approve(app, path, Role.DPO)).status == 200


async def request(app: App, who: Role | str, tenant: str | None, of: str = "northfield") -> Answer:
    body = {"through": (app.clock.now() + timedelta(days=60)).isoformat(), "reason": "exported and checked"}
    return await app.ask(
        "POST", "/v1/sweeps/overrides", who, tenant=of, body=body if tenant is None else {**body, "tenant": tenant}
    )


async def approve(app: App, asked: Answer, who: Role | str, of: str = "northfield", **body: Any) -> Answer:
    path = f"/v1/sweeps/overrides/{asked.json['id']}"
    shown = (await app.ask("GET", path, Role.OPERATOR)).json["shown"]
    return await app.ask("POST", f"{path}/approve", who, tenant=of, body={"shown": shown, **body})


async def issued_operator(app: App) -> str:
    body = {"name": "issued operator", "role": "operator"}
    return str((await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=body)).json["token"])


async def second_operator(app: App) -> str:
    """Return the token of an operator that no other one issued."""
    _, text = await app.vault.access.issue(name="second operator", role=Role.OPERATOR, tenant=None, actor=None)
    return text


async def leaving(app: App) -> tuple[str, str]:
    """Off-board one tenant with a call whose date lies ahead, beside another tenant with one that is due."""
    theirs = await app.upload("theirs", AUDIO, tenant=THEIRS)
    await app.vault.tenants.change(
        TenantId("northfield"),
        retention=Period(rest=timedelta(days=300)),
        actor=await app.vault.access.authenticate(app.token(Role.OPERATOR)),
    )
    ours = await app.upload("ours", AUDIO)
    await offboard(app)
    app.clock.advance(days=31)
    return ours, theirs


# -- what trips ---------------------------------------------------------------------------------------------------


async def test_ordinary_expiry_never_trips_however_much_of_it_comes_on_one_day():
    async with guarded() as app:
        short = [await app.upload(f"short-{number}", AUDIO, tenant=THEIRS) for number in range(5)]
        ours = await app.upload("ours", AUDIO)
        app.clock.advance(days=12)
        swept = await app.sweep()
        assert (swept["shredded"], swept["postponed"]) == (6, [])
        assert await is_shredded(app, ours)
        for each in short:
            assert await is_shredded(app, each, THEIRS)


async def test_a_tenant_that_trips_is_postponed_alone_and_its_own_dates_go_on():
    async with guarded() as app:
        dated = await app.upload("dated", AUDIO)
        ours, theirs = await leaving(app)
        more = await app.upload("more", AUDIO, tenant=THEIRS)
        swept = await app.sweep()
        [stopped] = swept["postponed"]
        assert (stopped["tenant"], stopped["guard"], stopped["early"], stopped["live"]) == (
            *("northfield", "mass_shred"),
            *(2, 2),
        )
        assert await is_shredded(app, theirs, THEIRS), "the other tenant's day had come"
        assert await is_shredded(app, dated), "what goes on the date it was given needs nobody"
        assert not await is_shredded(app, ours)
        why = (await app.ask("GET", f"/v1/recordings/{ours}/why")).json["rules"]
        assert [each["text"].partition(": ")[2] for each in why[-2:]] == [
            "a guard has stopped the sweep before it; two people may let it go"
        ] * 2, "no sweep takes it before"
        assert not await is_shredded(app, more, THEIRS)
        [entry] = await app.audit("sweep.tripped")
        assert (entry["tenant"], entry["outcome"]) == ("northfield", "refused")
        metrics = (await app.ask("GET", "/metrics", None)).body.decode()
        assert "callvault_sweep_tripped_total 1.0" in metrics
        assert "callvault_sweep_tripped_tenants 1.0" in metrics


async def test_what_is_captured_after_the_end_of_a_contract_was_decided_lifts_no_guard():
    async with guarded() as app:
        await app.ask("PUT", "/v1/tenants/northfield", Role.OPERATOR, body={"retention": "300d"})
        ours = await app.upload("ours", AUDIO)
        ends = (app.clock.now() + timedelta(days=2)).isoformat()
        await app.ask("POST", "/v1/tenants/northfield/offboard", Role.OPERATOR, body={"contract_end": ends})
        assert (await approvals.approve(app, "/v1/tenants/northfield/offboard", Role.DPO)).status == 200
        late = await app.upload("late", AUDIO)
        for number in range(6):
            await app.hold(await app.upload(f"held-{number}", b"\xff"))
        app.clock.advance(days=33)
        [stopped] = (await app.sweep())["postponed"]
        assert (stopped["early"], stopped["live"]) == (2, 2), "what goes is a part of the whole, what is held is not"
        for each in (ours, late):
            assert not await is_shredded(app, each)


async def test_a_clock_that_jumped_stops_everybody_until_two_operators_vouch_for_it_once():
    async with guarded(max_jump="2d") as app:
        first = await app.upload("first", AUDIO)
        assert (await request(app, Role.OPERATOR, None)).status == 409, "nothing has tripped"
        app.clock.advance(days=12)
        assert (await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body={})).problem == "guard_tripped"
        assert not await is_shredded(app, first)
        why = (await app.ask("GET", f"/v1/recordings/{first}/why")).json["rules"]
        assert why[-1]["text"].endswith("a guard has stopped the sweep before it; two people may let it go")
        for role in (Role.DPO, Role.COMPLIANCE, Role.AUDITOR):
            assert (await app.ask("GET", "/v1/sweeps", role)).json["tripped"] == []
            assert (await request(app, role, None)).status in (403, 409), "a tenant does not vouch for the clock"
        asked = await request(app, Role.OPERATOR, None)
        assert (await request(app, Role.OPERATOR, None)).status == 409, "one request at a time"
        assert (await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body={})).status == 409
        assert (await approve(app, asked, Role.OPERATOR)).status == 403
        assert (await approve(app, asked, Role.DPO)).status == 404, "whose the clock's is not"
        assert (await approve(app, asked, await issued_operator(app))).status == 403, "one person may hold both"
        assert (await approve(app, asked, await second_operator(app))).status == 200
        assert (await app.sweep())["shredded"] == 1
        assert await is_shredded(app, first)
        assert (await app.ask("GET", "/v1/sweeps", Role.OPERATOR)).json["tripped"] == []
        app.clock.advance(days=12)
        assert (await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body={})).status == 409, "it served twice"


# -- who lifts it -------------------------------------------------------------------------------------------------


async def test_what_goes_early_of_a_tenant_takes_one_of_its_people_and_an_operator():
    async with guarded() as app:
        ours, _ = await leaving(app)
        await app.sweep()
        by_operator = await request(app, Role.OPERATOR, "northfield")
        assert by_operator.status == 202
        assert by_operator.json["stopped"].startswith("1 of 1 live recordings")
        assert (await approve(app, by_operator, Role.OPERATOR)).status == 403, "one's own"
        another = await second_operator(app)
        assert (await approve(app, by_operator, another)).status == 403, "two operators and nobody of the tenant"
        assert (await approve(app, by_operator, Role.DPO, THEIRS)).status == 404
        assert (await approve(app, by_operator, Role.AUDITOR)).status == 403
        assert (await approve(app, by_operator, Role.DPO, shown=None)).status == 422, "approved unseen"
        changed = await approve(app, by_operator, Role.DPO, shown="0" * 64)
        assert (changed.status, changed.problem) == (409, "changed_since")
        assert not await is_shredded(app, ours)
        rejected = await approve(app, by_operator, Role.DPO, approve=False)
        assert (rejected.status, rejected.json["approved_by"]) == (200, None)
        assert (await approve(app, by_operator, Role.DPO)).status == 409
        by_tenant = await request(app, Role.DPO, None)
        assert (by_tenant.status, by_tenant.json["tenant"]) == (202, "northfield")
        assert (await approve(app, by_tenant, Role.COMPLIANCE)).status == 403, "two of the tenant and no operator"
        assert (await approve(app, by_tenant, Role.OPERATOR)).status == 200
        swept = await app.sweep()
        assert (swept["shredded"], swept["postponed"]) == (1, [])
        assert await is_shredded(app, ours)
        [used] = await app.audit("sweep.override_used")
        assert used["tenant"] == "northfield"


async def test_a_permission_covers_no_more_than_what_was_seen_to_go():
    async with guarded() as app:
        await app.upload("second", AUDIO)
        ours, _ = await leaving(app)
        await app.sweep()
        asked = await request(app, Role.DPO, None)
        await approve(app, asked, Role.OPERATOR)
        override = app.vault.overrides
        [stopped] = await override.tripped()
        more = dataclasses.replace(stopped, early=stopped.early + 1)
        assert not await override.use(more, app.clock.now(), None)
        assert await override.use(stopped, app.clock.now(), None)
        assert not await override.use(stopped, app.clock.now(), None)
        assert not await is_shredded(app, ours)


# -- who hears of it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
async def test_a_token_hears_of_sweeps_what_is_its_tenants_and_performs_no_vault_wide_act(role):
    async with guarded() as app:
        await leaving(app)
        await app.sweep()
        await request(app, Role.OPERATOR, "northfield")
        status = await app.ask("GET", "/v1/sweeps", role)
        theirs = await app.ask("GET", "/v1/sweeps", role, tenant=THEIRS)
        if role in {Role.RECORDER, Role.AGENT, Role.SAFEGUARDING_LEAD}:
            assert {status.status, theirs.status} == {403}
        else:
            assert [each["tenant"] for each in status.json["overrides"]] == ["northfield"]
            assert [each["tenant"] for each in status.json["tripped"]] == ["northfield"]
        if role is Role.OPERATOR:
            assert status.json["last"]["shredded"] == 1
            return
        if theirs.status == 200:
            assert (theirs.json["overrides"], theirs.json["tripped"], theirs.json["last"]) == ([], [], None)
            assert b"northfield" not in theirs.body
            assert b"exported" not in theirs.body
        for method, path, body in (
            ("POST", "/v1/sweeps", {}),
            ("POST", "/v1/sweeps", {"dry_run": True}),
            ("POST", "/v1/tenants", {"id": "x", "name": "x", "controller": "x", "contact": "x"}),
            ("POST", "/v1/tokens", {"name": "x", "role": "operator"}),
            ("GET", "/v1/tokens", None),
            ("POST", "/v1/keys/rotate", {}),
            ("GET", "/v1/keys", None),
        ):
            assert (await app.ask(method, path, role, body=body)).status in (403, 404, 405), (method, path)


# -- what a dry run says ------------------------------------------------------------------------------------------


async def test_a_dry_run_counts_recordings_as_the_sweep_does_and_lists_what_a_guard_postpones():
    async with guarded(max_share=1.0) as app:
        await app.ask("PUT", "/v1/tenants/northfield", Role.OPERATOR, body={"metadata_retention": "1d"})
        both = await app.upload("both", AUDIO)
        held = await app.upload("held", AUDIO)
        await app.hold(held)
        app.clock.advance(days=60)
        dry = (await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body={"dry_run": True})).json
        assert {each["id"]: each["action"] for each in dry["recordings"]} == {both: "shred", held: "keep"}
        assert (dry["shredded"], dry["kept"]) == (1, 1), "a recording of two parts is one recording"
        told = sorted((each["tenant"], each["action"], each["recordings"]) for each in dry["counts"])
        assert (told, dry["after"]) == ([("northfield", "keep", 1), ("northfield", "shred", 1)], None)
        asked = {"dry_run": True, "limit": 1}
        first = (await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body=asked)).json
        assert (first["recordings"], first["counts"]) == (dry["recordings"][:1], dry["counts"])
        assert first["after"] == first["recordings"][0]["id"]
        rest = (await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body={**asked, "after": first["after"]})).json
        assert (rest["recordings"], rest["after"]) == (dry["recordings"][1:], None)
        for wrong in ({"after": first["after"]}, {**asked, "after": "x"}, {**asked, "limit": 0}):
            assert (await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body=wrong)).status == 422
        assert not await is_shredded(app, both)
        swept = await app.sweep()
        assert (swept["shredded"], swept["kept"]) == (1, 1)
        over = await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body={"dry_run": True, "after": both})
        assert (over.status, over.problem) == (409, "conflict")
    async with guarded() as app:
        ours, theirs = await leaving(app)
        dry = (await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body={"dry_run": True})).json
        assert {each["id"]: each["action"] for each in dry["recordings"]} == {ours: "postpone", theirs: "shred"}
        assert [each["tenant"] for each in dry["postponed"]] == ["northfield"]


# -- a plan that contradicts the rule -----------------------------------------------------------------------------


async def move_date(vault: Vault, recording: RecordingId) -> None:
    """Write into the catalog what no code of the vault would."""
    statement = sa.text("UPDATE recordings SET retain_until = 4000000000000000 WHERE id = :id")
    async with vault.catalog._database.engine.begin() as connection:
        await connection.execute(statement, {"id": key(recording)})


async def test_a_row_that_the_rule_keeps_is_spared_although_its_cohort_goes(app, caplog):
    """The catalog was changed behind the vault's back: a date that lies behind the end of its own period."""
    odd, plain = RecordingId(await app.upload("odd", AUDIO)), RecordingId(await app.upload("plain", AUDIO))
    await move_date(app.vault, odd)
    app.clock.advance(days=12)
    assert (await app.sweep())["shredded"] == 1
    assert await is_shredded(app, plain)
    assert (await app.play(odd)).body == AUDIO
    assert "it is spared" in caplog.text
    assert "receipt" not in await app.sweep(), "what is spared is not tried again and again"
    assert (await app.play(odd)).body == AUDIO


# -- why it is gone -----------------------------------------------------------------------------------------------


async def why(app: App, recording: str, who: Role) -> dict[str, dict[str, Any]]:
    answer = await app.ask("GET", f"/v1/recordings/{recording}/why", who)
    return {line["rule"]: line for line in answer.json["rules"]}


async def test_why_names_the_erasure_its_case_both_people_and_the_certificate_to_those_who_may_know(app):
    recording = await app.upload("call", AUDIO)
    body = {"basis": "art17", "case_reference": "DSR-2026-017", "recordings": [recording]}
    era = (await app.ask("POST", "/v1/erasures", Role.COMPLIANCE, body=body)).json["id"]
    assert (await approvals.approve(app, f"/v1/erasures/{era}", Role.DPO)).status == 200
    certificate = (await app.ask("GET", f"/v1/recordings/{recording}")).json["certificate_id"]
    for who in (Role.COMPLIANCE, Role.DPO, Role.AUDITOR, Role.OPERATOR, Role.SAFEGUARDING_LEAD):
        rules = await why(app, recording, who)
        line = rules["erasure"]
        assert (line["erasure"], line["certificate"], line["effect"]) == (era, certificate, "deletes")
        assert line["requested_by"] != line["approved_by"]
        for word in ("Art. 17", "DSR-2026-017", "compliance of northfield", "dpo of northfield"):
            assert word in line["text"]
        assert not any(each["effect"] == "keeps" for each in rules.values())
        assert "by an erasure" in rules["metadata"]["text"]
    agent = await why(app, recording, Role.AGENT)
    assert "erasure" not in agent
    assert not any(word in str(agent) for word in ("DSR", "tok_", "Art. 17", "by an erasure"))
    assert agent["decision"]["certificate"] == certificate


async def test_why_names_the_policy_of_what_expired_and_the_contract_of_what_left():
    async with guarded(max_share=1.0) as app:
        expired = await app.upload("expired", AUDIO)
        ours, _ = await leaving(app)
        kept = await why(app, ours, Role.DPO)
        assert kept["decision"]["effect"] == "deletes", "its window is over: no date of its own keeps it"
        await app.sweep()
        left = await why(app, ours, Role.DPO)
        assert "by the end of the contract" in left["decision"]["text"]
        assert "dpo of northfield" in left["contract"]["text"]
        assert left["contract"]["certificate"]
        rules = await why(app, expired, Role.DPO)
        assert "contract" in rules, "both reasons held, and the certificate names the contract"
