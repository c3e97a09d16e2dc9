"""Changes of how long existing audio is kept: sooner and later than the day of its cohort, never against a hold."""

from __future__ import annotations

from typing import Any

from tests.helpers import approvals
from tests.helpers.app import SETTINGS, Answer, App, app, running, sound
from tests.helpers.crashing import memory_directory
from vault.certificates.document import verify_certificate
from vault.crypto.signing import VerifyKey
from vault.ids import TenantId
from vault.model import Part, Recording, Role
from vault.retention.decide import decide

__all__ = ["app"]

AUDIO = sound(2000)
CALLER = {"Call-From": "+442079460123"}


async def ask(app: App, retention: str, who: Role | str = Role.DPO) -> Answer:
    return await app.ask("POST", "/v1/policies", who, body={"retention": retention})


async def agreed(app: App, retention: str) -> Answer:
    """Have two people of the tenant change the audio that exists; the notice runs from now on."""
    asked = await ask(app, retention)
    assert asked.status == 202, asked.body
    approved = await approvals.approve(app, f"/v1/policies/{asked.json['id']}", Role.COMPLIANCE)
    assert (approved.status, approved.json["state"]) == (200, "approved"), approved.body
    return asked


async def is_gone(app: App, recording: str) -> bool:
    return (await app.play(recording)).status == 410


async def row(app: App, recording: str) -> Recording:
    return await app.vault.catalog.recording(recording)


async def long(app: App) -> None:
    body = {"retention": "100d"}
    assert (await app.ask("PUT", "/v1/tenants/northfield", Role.OPERATOR, body=body)).status == 200


async def certificate(app: App, recording: str) -> Any:
    found = (await app.ask("GET", f"/v1/certificates?recording={recording}", Role.COMPLIANCE)).json["certificates"]
    key = VerifyKey.from_pem((await app.ask("GET", "/v1/issuer-key", None)).body)
    return verify_certificate(found[0]["jws"], key).certificate


async def test_shorter_audio_goes_after_two_people_and_the_notice_and_its_metadata_stays(app):
    await long(app)
    await app.ask("PUT", "/v1/tenants/southgate", Role.OPERATOR, body={"retention": "100d"})
    old = await app.upload("old", AUDIO, headers=CALLER)
    theirs = await app.upload("theirs", AUDIO, tenant="southgate")
    app.clock.advance(days=2)
    asked = await agreed(app, "5d")
    preview = asked.json["preview"]
    assert {name: preview[name] for name in ("changed", "earlier", "later", "held", "live", "due_at_once")} == {
        "changed": 1,
        "earlier": 1,
        "later": 0,
        "held": 0,
        "live": 0,
        "due_at_once": 1,
    }
    assert preview["earliest"] == preview["latest"] is not None
    later = await app.upload("later", AUDIO)
    app.clock.advance(days=13)
    await app.sweep()
    assert not await is_gone(app, old), "the notice runs"
    app.clock.advance(days=1, hours=1)
    dry = (await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body={"dry_run": True})).json
    assert [line["id"] for line in dry["recordings"] if line["action"] == "shred"] == [old]
    assert not await is_gone(app, old), "a dry run changes nothing"
    assert (await app.sweep())["shredded"] == 1
    assert await is_gone(app, old)
    assert not await is_gone(app, later), "what was captured after the approval goes by its own date"
    assert (await app.play(theirs, tenant="southgate")).status == 200, "another tenant's calls are not meant"
    shown = (await app.ask("GET", f"/v1/recordings/{old}")).json
    assert shown["call"]["caller"] == CALLER["Call-From"], "metadata is not shortened with its audio"
    said = await certificate(app, old)
    assert (said.trigger.kind, said.retention.captured.period, said.retention.applied.period) == (
        *("expiry", "100d"),
        "5d",
    )
    assert [each.role for each in said.authorisation.deciders] == [Role.DPO, Role.COMPLIANCE]
    [line] = [
        each
        for each in (await app.ask("GET", f"/v1/recordings/{old}/why")).json["rules"]
        if each["rule"] == "retention"
    ]
    assert asked.json["id"] in line["text"]
    assert line["requested_by"] != line["approved_by"] is not None
    tenant = (await app.ask("GET", "/v1/tenants/northfield")).json
    assert (tenant["retention_changed"]["retention"], tenant["retention"]) == ("5d", "100d")


async def test_longer_audio_outlives_the_day_of_its_cohort_with_its_metadata_and_then_goes(app):
    old = await app.upload("old", AUDIO, headers=CALLER)
    asked = await ask(app, "60d")
    await approvals.approve(app, f"/v1/policies/{asked.json['id']}", Role.COMPLIANCE)
    assert (await app.vault.catalog.policy_requests())[0].preview.later == 1
    # The default of ten days ends before the notice: what is to be kept must be asked for in time.
    app.clock.advance(days=12)
    await app.sweep()
    assert await is_gone(app, old)
    await long(app)
    kept = await app.upload("kept", AUDIO, headers=CALLER)
    held = await app.upload("held", AUDIO)
    hold = (await app.hold(held)).json["id"]
    erased = await app.upload("erased", AUDIO)
    app.clock.advance(days=5)
    await app.sweep()
    await agreed(app, "300d")
    app.clock.advance(days=15)
    await app.sweep()
    pins = [pin for pin in app.vault.keyring.pins(TenantId("northfield")) if pin.cohort.part is Part.AUDIO]
    assert len({pin.tag for pin in pins}) == 2, "a hold's, and the change's"
    app.clock.advance(days=120)
    swept = await app.sweep()
    assert (swept["shredded"], await is_gone(app, kept)) == (0, False)
    assert (await app.ask("GET", f"/v1/recordings/{kept}")).json["call"]["caller"] == CALLER["Call-From"]
    facts = await app.vault.recordings._dossiers.facts(await row(app, kept))
    assert type(decide(facts, Part.AUDIO, now=app.clock.now())).__name__ == "NotDue"
    body = {"basis": "art17", "case_reference": "DSR-1", "recordings": [erased]}
    era = (await app.ask("POST", "/v1/erasures", body=body)).json["id"]
    assert (await approvals.approve(app, f"/v1/erasures/{era}", Role.DPO)).status == 200
    assert await is_gone(app, erased), "a longer retention is no hold against an erasure"
    assert not await is_gone(app, kept)
    app.clock.advance(days=200)
    assert (await app.sweep())["shredded"] >= 1
    assert await is_gone(app, kept)
    assert (await app.play(held)).status == 200, "a hold outranks every date"
    said = await certificate(app, kept)
    assert (said.retention.captured.period, said.retention.applied.period) == ("100d", "300d")
    await app.ask("POST", f"/v1/holds/{hold}/release", body={"reason": "settled"})
    await approvals.approve(app, f"/v1/holds/{hold}", Role.DPO)
    app.clock.advance(days=3)
    await app.sweep()
    assert await is_gone(app, held)
    assert not [pin for pin in app.vault.keyring.pins(TenantId("northfield")) if pin.cohort.part is Part.AUDIO]


async def test_nobody_alone_and_nothing_withdrawn_changes_audio_that_exists(app):
    await long(app)
    old = await app.upload("old", AUDIO)
    for who in (Role.OPERATOR, Role.AUDITOR, Role.AGENT, Role.RECORDER):
        assert (
            await app.ask("POST", "/v1/policies", who, body={"retention": "5d", "tenant": "northfield"})
        ).status == 403
    for who in (Role.DPO, Role.COMPLIANCE, Role.SAFEGUARDING_LEAD):
        asked = await ask(app, "5d", who)
        path = f"/v1/policies/{asked.json['id']}"
        assert (await ask(app, "6d")).status == 409, "one at a time"
        assert (await approvals.approve(app, path, who)).status == 403
        app.clock.advance(days=20)
        await app.sweep()
        assert not await is_gone(app, old)
        assert (await app.ask("POST", f"{path}/approve", who, body={"approve": False})).status == 200
    asked = await agreed(app, "5d")
    app.clock.advance(days=10)
    await app.ask("POST", f"/v1/policies/{asked.json['id']}/approve", Role.COMPLIANCE, body={"approve": False})
    app.clock.advance(days=10)
    await app.sweep()
    assert not await is_gone(app, old)


async def test_a_change_of_audio_is_for_the_calls_of_its_preview_whenever_it_is_approved(app):
    await long(app)
    asked = await ask(app, "5d")
    assert asked.json["preview"]["changed"] == 0
    app.clock.advance(days=1)
    since = await app.upload("since", AUDIO)
    assert (await approvals.approve(app, f"/v1/policies/{asked.json['id']}", Role.COMPLIANCE)).status == 200
    app.clock.advance(days=15)
    await app.sweep()
    assert not await is_gone(app, since), "nobody was shown that it would go"
    tenant = (await app.ask("GET", "/v1/tenants/northfield")).json
    assert tenant["retention_changed"]["captured_through"] == asked.json["requested_at"]


async def test_one_person_takes_back_what_goes_sooner_and_never_what_two_decided_to_keep_longer(app):
    await long(app)
    kept = await app.upload("kept", AUDIO)
    asked = await agreed(app, "300d")
    path = f"/v1/policies/{asked.json['id']}/approve"
    for who in (Role.COMPLIANCE, Role.DPO, Role.SAFEGUARDING_LEAD):
        refused = await app.ask("POST", path, who, body={"approve": False})
        assert (refused.status, refused.problem) == (409, "conflict")
        assert "request another change" in refused.json["hint"]
    app.clock.advance(days=15)
    await app.sweep()
    app.clock.advance(days=120)
    await app.sweep()
    assert not await is_gone(app, kept)
    asked = await ask(app, "350d")
    path = f"/v1/policies/{asked.json['id']}/approve"
    assert (await app.ask("POST", path, body={"approve": False})).status == 200, "nobody has approved it"
    asked = await agreed(app, "200d")
    path = f"/v1/policies/{asked.json['id']}/approve"
    assert (await app.ask("POST", path, body={"approve": False})).status == 200, "it only made dates earlier"


async def test_audio_that_goes_early_by_a_change_is_counted_by_the_guard():
    with memory_directory() as base:
        async with running(base, sweep={**SETTINGS["sweep"], "max_share": 0.5}) as app:
            await long(app)
            old = await app.upload("old", AUDIO)
            await agreed(app, "5d")
            app.clock.advance(days=20)
            [stopped] = (await app.sweep())["postponed"]
            assert (stopped["tenant"], stopped["early"], stopped["live"]) == ("northfield", 1, 1)
            assert not await is_gone(app, old)
            for number in range(3):
                await app.upload(f"later-{number}", b"\xff")
            [again] = (await app.sweep())["postponed"]
            assert (again["early"], again["live"]) == (1, 1), "what came after the decision is no part of the whole"
            assert not await is_gone(app, old)
            app.clock.advance(days=90)
            await app.sweep()
            assert await is_gone(app, old), "its own date came"


async def test_a_tenant_that_leaves_takes_what_was_kept_longer(app):
    await long(app)
    kept = await app.upload("kept", AUDIO)
    await agreed(app, "300d")
    app.clock.advance(days=15)
    await app.sweep()
    app.clock.advance(days=100)
    await app.sweep()
    assert not await is_gone(app, kept)
    path = "/v1/tenants/northfield/offboard"
    await app.ask("POST", path, Role.OPERATOR, body={})
    assert (await approvals.approve(app, path, Role.DPO)).status == 200
    app.clock.advance(days=31)
    await app.sweep()
    assert await is_gone(app, kept)
    assert not app.vault.keyring.pins(TenantId("northfield"))


async def test_a_later_change_replaces_an_earlier_one_and_its_pins(app):
    await long(app)
    kept = await app.upload("kept", AUDIO)
    for retention in ("300d", "200d"):
        asked = await agreed(app, retention)
        app.clock.advance(days=15)
        await app.sweep()
    app.clock.advance(days=1)
    await app.sweep()
    tags = {pin.tag for pin in app.vault.keyring.pins(TenantId("northfield"))}
    assert tags <= {bytes.fromhex(asked.json["id"].removeprefix("pol_"))}
    app.clock.advance(days=120)
    await app.sweep()
    assert not await is_gone(app, kept)
    app.clock.advance(days=60)
    await app.sweep()
    assert await is_gone(app, kept), "the later one counts"
