"""Erasure before the date over HTTP: two people, holds, queues, one epoch for many, and what certificates say."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.helpers import approvals
from tests.helpers.app import PCMU, PURPOSE, SETTINGS, App, app, out_of_reach, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.tenants import metadata_kept, offboard
from vault.certificates.canonical import canonical_json
from vault.certificates.document import (
    Case,
    DeletionCertificate,
    Trigger,
    TriggerFacts,
    reference_digest,
    verify_certificate,
)
from vault.crypto.derive import commitment
from vault.crypto.signing import VerifyKey
from vault.errors import Unavailable
from vault.ids import RecordingId, TenantId
from vault.model import Part, Role
from vault.storage.postgres import FileClusterLocks

__all__ = ["app"]

AUDIO = sound(2000)
CALLER = {"Call-From": "+442079460123", "Call-To": "+441632960987", "Call-Tags": "admissions"}
OTHER = {"Call-From": "+442079460555"}


def asking(*recordings: str, **changes: Any) -> dict[str, Any]:
    return {"basis": "art17", "case_reference": "DSR-2026-17", "recordings": list(recordings), **changes}


async def request(app: App, *recordings: str, **changes: Any) -> Any:
    return await app.ask("POST", "/v1/erasures", body=asking(*recordings, **changes))


async def approve(app: App, erasure: str) -> Any:
    return await approvals.approve(app, f"/v1/erasures/{erasure}", Role.DPO)


async def erase(app: App, *recordings: str, **changes: Any) -> Any:
    asked = await request(app, *recordings, **changes)
    assert asked.status == 202, asked.body
    return await approve(app, asked.json["id"])


async def certificates(app: App, recording: str) -> list[DeletionCertificate]:
    key = VerifyKey.from_pem((await app.ask("GET", "/v1/issuer-key", None)).body)
    page = await app.ask("GET", f"/v1/certificates?recording={recording}")
    return [verify_certificate(each["jws"], key).certificate for each in page.json["certificates"]]


def outcomes(answer: Any) -> dict[str, str]:
    return {each["id"]: each["outcome"] for each in answer.json["recordings"]}


async def test_an_erasure_takes_two_people_and_both_parts_and_says_so_on_its_certificate(app):
    wanted, other = await app.upload("a", AUDIO, headers=CALLER), await app.upload("b", AUDIO, headers=CALLER)
    asked = await request(app, wanted)
    assert (asked.status, asked.json["state"], outcomes(asked)) == (202, "requested", {wanted: "pending"})
    looked = (await app.ask("GET", asked.headers["Location"])).json
    assert "cannot approve it" in looked.pop("may_not_approve")["detail"]
    assert looked == asked.json
    before = await app.vault.catalog.recording(wanted)
    keys = [app.vault.keyring.derive(place) for place in (before.audio, before.metadata)]
    committed = [commitment(key).hex() for key in keys]
    own = await approvals.approve(app, f"/v1/erasures/{asked.json['id']}", Role.COMPLIANCE)
    assert (own.status, own.problem) == (403, "forbidden")
    assert (await app.play(wanted)).status == 200
    done = await approve(app, asked.json["id"])
    assert (done.status, done.json["state"], outcomes(done)) == (200, "done", {wanted: "erased"})
    gone = await app.play(wanted)
    assert (gone.status, gone.problem) == (410, "shredded")
    shown = (await app.ask("GET", f"/v1/recordings/{wanted}")).json
    assert "call" not in shown
    assert shown["certificate_id"] == shown["metadata_certificate_id"]
    assert (await app.play(other)).body == AUDIO
    assert (await app.ask("GET", f"/v1/recordings/{other}")).json["call"]["caller"] == "+442079460123"
    assert [each.status for each in await certificates(app, wanted)] == ["provisional"]
    await app.certified()
    final, provisional = await certificates(app, wanted)
    assert (final.status, provisional.status) == ("final", "provisional")
    for each in (final, provisional):
        assert each.parts == (Part.AUDIO, Part.METADATA)
        row = await app.vault.catalog.recording(wanted)
        assert [part.coordinate for part in each.recording.parts] == [row.audio, row.metadata]
        assert [part.key_commitment for part in each.recording.parts] == committed, "a part is not named by its own key"
        assert {part.shredded_at for part in each.recording.parts} == {each.sanitisation.unrecoverable_at}
        digest = reference_digest(asked.json["id"], "DSR-2026-17")
        assert each.trigger == TriggerFacts(
            kind=Trigger.ART17, case=Case(id=asked.json["id"], reference_sha256=digest), range=None
        )
        assert b"DSR-2026-17" not in canonical_json(each), "a case is named in words"
        asker, approver = each.authorisation.deciders
        assert (asker.role, approver.role, asker.token == approver.token) == (Role.COMPLIANCE, Role.DPO, False)
        assert asker.at is not None
        assert approver.at is not None
        assert asker.at <= approver.at <= each.sanitisation.unrecoverable_at
        assert each.authorisation.hold_revision == app.vault.keyring.epoch
        assert each.claims.version == "callvault/claims/audio-and-metadata/v1"
        assert [left.where for left in each.residuals if "tokens" in left.where], "what is left is not said"
    names = [entry["event"] for entry in await app.audit() if entry["event"].startswith(("case.", "shred."))]
    assert names == ["case.received", "case.approved", "shred.intended", "shred.done", "case.fulfilled"]
    assert (await approve(app, asked.json["id"])).status == 409


async def test_a_second_request_of_one_case_is_refused_with_the_id_of_the_open_one(app):
    one, two = await app.upload("a", AUDIO), await app.upload("b", AUDIO)
    open_one = (await request(app, one)).json["id"]
    again = await request(app, two, one)
    assert (again.status, again.problem) == (409, "conflict")
    assert open_one in again.json["detail"]
    assert open_one in again.json["hint"]
    assert (await request(app, two)).status == 202  # the same case, and another recording
    for changes in ({"case_reference": "DSR-2026-18"}, {"basis": "controller_instruction"}):
        assert (await request(app, one, **changes)).status == 202
    assert (await app.ask("POST", f"/v1/erasures/{open_one}/reject", Role.DPO)).status == 200
    together = await asyncio.gather(request(app, one), request(app, one))
    assert sorted(answer.status for answer in together) == [202, 409]


async def overlapping(app):
    """Return three recordings, and two erasures of different cases that both name the second."""
    rows = [await app.upload(key, AUDIO, headers=CALLER) for key in "abc"]
    first = (await request(app, *rows[:2])).json["id"]
    second = (await request(app, *rows[1:], case_reference="DSR-2026-18")).json["id"]
    return rows, first, second


async def named_on(app, recording):
    """Return the case that the certificates of a recording name, if all name one."""
    (case,) = {each.trigger.case.id for each in await certificates(app, recording)}
    return case


async def test_of_two_cases_that_name_a_recording_the_later_says_what_took_it_and_claims_nothing(app):
    (one, both, two), first, second = await overlapping(app)
    seen = (await app.ask("GET", f"/v1/erasures/{second}", Role.DPO)).json["shown"]
    assert outcomes(await approve(app, first)) == {one: "erased", both: "erased"}
    blind = await app.ask("POST", f"/v1/erasures/{second}/approve", Role.DPO, body={"shown": seen})
    assert (blind.status, blind.problem) == (409, "changed_since")
    assert (await app.play(two)).status == 200
    looked = (await app.ask("GET", f"/v1/erasures/{second}", Role.DPO)).json["recordings"]
    assert [(each["id"], each["gone"]) for each in looked] == [(both, True), (two, False)]
    done = await approve(app, second)
    assert (done.status, done.json["state"], outcomes(done)) == (200, "done", {both: "gone", two: "erased"})
    taken = (await app.ask("GET", f"/v1/recordings/{both}")).json["certificate_id"]
    assert [each["certificates"] for each in done.json["recordings"]] == [[taken], []]
    assert (await named_on(app, both), await named_on(app, two)) == (first, second)
    counts = [entry["detail"] for entry in await app.audit("case.fulfilled")]
    assert counts == [{"erased": 2}, {"gone": 1, "erased": 1}]


async def test_of_two_cases_that_are_approved_at_once_each_recording_goes_for_one(app, monkeypatch):
    monkeypatch.setattr(app.vault.erasures, "_window", timedelta(seconds=0.3))
    (one, both, two), first, second = await overlapping(app)
    answers = await asyncio.gather(approve(app, first), approve(app, second))
    assert [(answer.status, answer.json["state"]) for answer in answers] == [(200, "done")] * 2
    told = {each: outcomes(answer) for each, answer in zip((first, second), answers, strict=True)}
    takes, finds = (first, second) if told[first][both] == "erased" else (second, first)
    assert (told[takes][both], told[finds][both]) == ("erased", "gone")
    assert (told[first][one], told[second][two]) == ("erased", "erased")
    assert await named_on(app, both) == takes
    assert len(await app.audit("shred.intended")) == 1, "approvals at once share one shred"
    assert len(await certificates(app, both)) == 1
    await app.certified()
    assert [(each.status, each.trigger.case.id) for each in await certificates(app, both)] == [
        ("final", takes),
        ("provisional", takes),
    ]


async def test_of_two_cases_whose_shred_broke_off_the_next_sweep_ends_both_truly(app, monkeypatch):
    monkeypatch.setattr(app.vault.erasures, "_window", timedelta(seconds=0.3))
    (_, both, _), first, second = await overlapping(app)
    with out_of_reach(app.vault.erasures._shredder, "account"):
        answers = await asyncio.gather(approve(app, first), approve(app, second))
    assert {answer.status for answer in answers} == {503}
    shown = [(await app.ask("GET", f"/v1/erasures/{each}", Role.DPO)).json for each in (first, second)]
    assert [each["state"] for each in shown] == ["approved", "approved"]
    assert {each["outcome"] for case in shown for each in case["recordings"] if each["id"] == both} == {
        "erasing",
        "pending",
    }
    await app.sweep()
    shown = [(await app.ask("GET", f"/v1/erasures/{each}", Role.DPO)).json for each in (first, second)]
    assert [each["state"] for each in shown] == ["done", "done"]
    ended = {case["id"]: each["outcome"] for case in shown for each in case["recordings"] if each["id"] == both}
    assert sorted(ended.values()) == ["erased", "gone"]
    assert ended[await named_on(app, both)] == "erased"


async def test_a_rejected_erasure_erases_nothing_and_is_over(app):
    wanted = await app.upload("a", AUDIO)
    asked = (await request(app, wanted)).json["id"]
    rejected = await app.ask("POST", f"/v1/erasures/{asked}/reject", Role.DPO)
    assert (rejected.status, rejected.json["state"]) == (200, "rejected")
    assert (await approve(app, asked)).status == 409
    await app.sweep()
    assert (await app.play(wanted)).body == AUDIO


async def test_what_a_hold_protects_is_refused_with_the_hold_and_its_matter(app):
    held = await app.upload("held", AUDIO)
    hold = (await app.hold(held)).json["id"]
    refused = await request(app, held)
    assert (refused.status, refused.problem) == (409, "under_hold")
    assert hold in refused.json["detail"]
    assert "SMITH-2026" in refused.json["detail"]
    assert (await app.ask("GET", "/v1/erasures")).json["erasures"] == []
    free = await app.upload("free", AUDIO)
    asked = (await request(app, free)).json["id"]
    later = (await app.hold(free)).json["id"]
    too_late = await approve(app, asked)
    assert (too_late.status, too_late.problem) == (409, "under_hold")
    assert later in too_late.json["detail"]
    assert (await app.ask("GET", f"/v1/erasures/{asked}")).json["state"] == "requested"
    assert (await app.play(free)).body == AUDIO


async def test_an_erasure_takes_one_of_the_adjoining_recordings_that_a_released_hold_has_one_pin_on(app):
    one, other = [await app.upload(f"adjoining-{number}", AUDIO) for number in range(2)]
    hold = (await app.hold(one, other)).json["id"]
    assert [pin.last - pin.first for pin in app.vault.keyring.pins()] == [1, 1], "adjoining keys are one pin a part"
    await app.ask("POST", f"/v1/holds/{hold}/release", body={"reason": "settled"})
    await approvals.approve(app, f"/v1/holds/{hold}", Role.DPO)
    app.clock.advance(days=1, minutes=1)
    done = await erase(app, one)
    assert outcomes(done) == {one: "erased"}
    assert ((await app.play(one)).status, (await app.play(other)).body) == (410, AUDIO)
    assert {pin.first for pin in app.vault.keyring.pins()} == {(await app.vault.catalog.recording(other)).audio.leaf}


async def test_a_queued_erasure_fires_by_itself_once_every_hold_has_ended_and_its_grace_has_passed(app):
    held = await app.upload("held", AUDIO)
    holds = [(await app.hold(held, matter=matter)).json["id"] for matter in ("A", "B")]
    waiting = await erase(app, held, queue=True)
    assert (waiting.json["state"], outcomes(waiting)) == ("approved", {held: "pending"})
    assert {hold["id"] for hold in waiting.json["recordings"][0]["holds"]} == set(holds)
    for hold in holds:
        await app.sweep()
        assert (await app.play(held)).body == AUDIO
        await app.ask("POST", f"/v1/holds/{hold}/release", body={"reason": "settled"})
        await approvals.approve(app, f"/v1/holds/{hold}", Role.DPO)
    await app.sweep()
    assert (await app.play(held)).body == AUDIO, "the grace has not passed"
    refused = await request(app, held)
    assert refused.json["detail"].count("; released, keeps until 20") == len(holds)
    assert refused.json["hint"].startswith("ask again when the grace has passed")
    app.clock.advance(days=1, minutes=1)
    await app.sweep()
    assert (await app.play(held)).status == 410
    assert not app.vault.keyring.pins()
    shown = await app.ask("GET", f"/v1/erasures/{waiting.json['id']}")
    assert (shown.json["state"], outcomes(shown)) == ("done", {held: "erased"})


async def test_everything_of_a_caller_goes_but_what_is_held_which_is_listed(app):
    mine = [await app.upload(f"mine-{n}", AUDIO, headers=CALLER) for n in range(3)]
    other = await app.upload("other", AUDIO, headers=OTHER)
    await app.hold(mine[1])
    done = await erase(app, caller="020 7946 0123", recordings=[])
    assert done.json["state"] == "done"
    assert outcomes(done) == {mine[0]: "erased", mine[1]: "kept", mine[2]: "erased"}
    assert [each["holds"][0]["matter"] for each in done.json["recordings"] if each["held"]] == ["SMITH-2026"]
    for recording in (mine[1], other):
        assert (await app.play(recording)).body == AUDIO
    found = await app.ask("POST", "/v1/recordings/search", body={"caller": "+442079460123"}, headers=PURPOSE)
    assert [each["id"] for each in found.json["recordings"]] == [mine[1]], "an erased call is still found by its number"
    for entry in await app.audit():
        assert "79460123" not in str(entry)
    again = await request(app, caller="020 7946 0123", recordings=[])
    assert (again.status, again.problem) == (409, "under_hold")
    nobody = await request(app, caller="+442079460999", recordings=[])
    assert (nobody.status, nobody.problem) == (404, "not_found")
    assert b"79460999" not in nobody.body


async def test_a_call_under_way_is_refused_or_waits_for_its_end(app):
    gate = asyncio.Event()

    async def talk():
        yield AUDIO[:1000]
        await gate.wait()
        yield AUDIO[1000:]

    call = asyncio.create_task(app.upload("live", talk(), headers=CALLER))
    while not (found := (await app.ask("GET", "/v1/recordings?state=open")).json["recordings"]):
        await asyncio.sleep(0.005)
    live = found[0]["id"]
    refused = await request(app, live)
    assert (refused.status, refused.problem) == (409, "conflict")
    assert "still being recorded" in refused.json["detail"]
    waiting = await erase(app, live, queue=True)
    assert waiting.json["recordings"][0]["live"]
    gate.set()
    assert await call == live
    assert (await app.play(live)).body == AUDIO
    await app.sweep()
    assert (await app.play(live)).status == 410


async def test_approvals_close_together_share_one_epoch():
    retention = {**SETTINGS["retention"], "erasure_window": "300ms"}
    with memory_directory() as base:
        async with running(base, retention=retention) as app:
            recordings = [await app.upload(f"call-{n}", AUDIO) for n in range(8)]
            asked = [(await request(app, each)).json["id"] for each in recordings]
            before = app.vault.keyring.epoch
            done = await asyncio.gather(*(approve(app, each) for each in asked))
            assert {each.json["state"] for each in done} == {"done"}
            assert app.vault.keyring.epoch == before + 1
            await app.certified()
            for recording in recordings:
                assert (await app.play(recording)).status == 410
                assert len(await certificates(app, recording)) == 2


async def test_an_outage_in_an_erasure_leaves_its_recordings_unread_and_the_next_sweep_finishes_it(app, monkeypatch):
    wanted = await app.upload("a", AUDIO, headers=CALLER)
    asked = (await request(app, wanted)).json["id"]
    provider = app.vault.keyring._engine._provider
    new_version = provider.new_version

    async def down(_tag):
        raise Unavailable("the provider is down")

    monkeypatch.setattr(provider, "new_version", down)
    assert (await approve(app, asked)).status == 503
    assert (await app.play(wanted)).status == 410, "the intent is durable: it is not read any more"
    assert (await app.hold(wanted)).problem == "too_late"
    shown = await app.ask("GET", f"/v1/erasures/{asked}")
    assert (shown.json["state"], outcomes(shown)) == ("approved", {wanted: "erasing"})
    monkeypatch.setattr(provider, "new_version", new_version)
    await app.sweep()
    assert (await app.ask("GET", f"/v1/erasures/{asked}")).json["state"] == "done"
    await app.certified()
    assert len(await certificates(app, wanted)) == 2


async def test_after_the_audio_went_on_its_day_the_metadata_can_still_be_erased(app):
    wanted = await app.upload("a", AUDIO, headers=CALLER)
    app.clock.advance(days=12)
    await app.sweep()
    assert (await app.ask("GET", f"/v1/recordings/{wanted}")).json["call"]["caller"] == "+442079460123"
    done = await erase(app, wanted, basis="controller_instruction")
    assert done.json["state"] == "done"
    assert "call" not in (await app.ask("GET", f"/v1/recordings/{wanted}")).json
    await app.certified()
    issued = await certificates(app, wanted)
    last, first = [each for each in issued if Part.METADATA in each.parts]
    for each, status in ((first, "provisional"), (last, "final")):
        assert (each.parts, each.status, each.data.objects.count) == ((Part.METADATA,), status, 0)
    assert last.supersedes == first.certificate_id
    assert last.trigger.kind == "controller_instruction"
    assert [each.parts for each in issued].count((Part.AUDIO,)) == 2
    nothing = await request(app, wanted)
    assert (nothing.status, nothing.problem) == (409, "conflict")


@pytest.mark.parametrize(
    "wrong",
    [
        {"basis": "whim"},
        {"case_reference": " "},
        {"recordings": []},
        {"caller": "020 7946 0123"},
        {"recordings": [], "caller": ""},
    ],
)
async def test_an_erasure_that_says_too_little_is_refused_and_leaves_nothing(app, wrong):
    recording = await app.upload("a", AUDIO, headers=CALLER)
    answer = await app.ask("POST", "/v1/erasures", body=asking(recording) | wrong)
    assert (answer.status, answer.problem) == (422, "invalid")
    assert (await app.ask("GET", "/v1/erasures")).json["erasures"] == []


async def test_recordings_of_another_tenant_cannot_be_named(app):
    theirs = await app.upload("theirs", AUDIO, tenant="southgate")
    answer = await request(app, theirs)
    assert (answer.status, answer.problem) == (404, "not_found")
    assert (await app.play(theirs, tenant="southgate")).body == AUDIO


# -- the metadata's own clock -------------------------------------------------------------------------------------


async def set_metadata_retention(app: App, duration: str | None) -> Any:
    body = {"retention": None, "metadata_retention": duration}
    return await app.ask("PUT", "/v1/tenants/northfield", Role.OPERATOR, body=body)


async def test_metadata_goes_after_its_month_and_retention_and_is_certified_by_itself(app):
    await metadata_kept(app.vault, "northfield", days=60)
    due, kept = await app.upload("due", AUDIO, headers=CALLER), await app.upload("held", AUDIO, headers=CALLER)
    theirs = await app.upload("theirs", AUDIO, tenant="southgate", headers=CALLER)
    hold = (await app.hold(kept)).json["id"]
    app.clock.advance(days=12)
    await app.sweep()
    assert (await app.play(due)).status == 410
    assert (await app.ask("GET", f"/v1/recordings/{due}")).json["call"]["caller"] == "+442079460123"
    app.clock.advance(days=100)
    later = await app.upload("later", AUDIO, headers=CALLER)
    preview = (await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body={"dry_run": True})).json
    assert {each["id"]: each["action"] for each in preview["recordings"]} == {due: "shred", kept: "keep"}
    assert (await app.sweep())["shredded"] == 1
    assert "call" not in (await app.ask("GET", f"/v1/recordings/{due}")).json
    for alive, tenant in ((kept, "northfield"), (theirs, "southgate")):
        shown = await app.ask("GET", f"/v1/recordings/{alive}", tenant=tenant)
        assert shown.json["call"]["caller"] == "+442079460123"
    for what, expected in (({"caller": "020 7946 0123"}, [later, kept]), ({"called": "01632 960987"}, [later, kept])):
        for limit in (1, 5):
            asked: list[str] = []
            before = None
            while True:
                body = {**what, "limit": limit, **({"before": before} if before else {})}
                page = (await app.ask("POST", "/v1/recordings/search", body=body, headers=PURPOSE)).json
                asked += [each["id"] for each in page["recordings"]]
                before = page["before"]
                if before is None:
                    break
            assert asked == expected, "a held call is lost to the search with its month's index"
    certificate, *_ = await certificates(app, due)
    assert certificate.parts == (Part.METADATA,)
    assert certificate.trigger.kind == "expiry"
    assert certificate.retention.retain_until <= certificate.sanitisation.unrecoverable_at
    assert certificate.retention.captured is None
    assert certificate.retention.applied is not None
    assert certificate.retention.applied.name == "metadata"
    assert certificate.claims.version == "callvault/claims/metadata/v1"
    assert not [left for left in certificate.residuals if "tokens" in left.where], "the index went with the month"
    await app.ask("POST", f"/v1/holds/{hold}/release", body={"reason": "settled"})
    await approvals.approve(app, f"/v1/holds/{hold}", Role.DPO)
    app.clock.advance(days=2)
    assert (await app.sweep())["shredded"] == 1
    last = (await certificates(app, kept))[0]
    assert last.parts == (Part.AUDIO, Part.METADATA)
    assert not app.vault.keyring.cohorts("northfield", Part.METADATA)[:-1], "a month without a key is still there"
    assert (await app.sweep())["shredded"] == 0


async def test_metadata_never_goes_before_its_audio_and_is_found_as_long_as_that_lives(app):
    # A recorder may ask for longer than its tenant does, so metadata can be due while the audio of one call is not.
    await app.ask("PUT", "/v1/tenants/northfield", Role.OPERATOR, body={"retention": "200d"})
    long = await app.upload("long", AUDIO, headers=CALLER)
    await app.ask("PUT", "/v1/tenants/northfield", Role.OPERATOR, body={"retention": "10d"})
    short = await app.upload("short", AUDIO, headers=CALLER)
    await metadata_kept(app.vault, "northfield", days=10)
    app.clock.advance(days=50)
    preview = (await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body={"dry_run": True})).json
    assert long not in {each["id"] for each in preview["recordings"]}
    await app.sweep()
    shown = [(await app.ask("GET", f"/v1/recordings/{each}")).json for each in (long, short)]
    assert [each.get("call", {}).get("caller") for each in shown] == ["+442079460123", None]
    found = await app.ask("POST", "/v1/recordings/search", body={"caller": "020 7946 0123"}, headers=PURPOSE)
    assert [each["id"] for each in found.json["recordings"]] == [long]
    epoch = app.vault.keyring.epoch
    assert (await app.sweep())["shredded"] == 0
    assert app.vault.keyring.epoch == epoch, "a month that one call outlives is shredded again and again"
    app.clock.advance(days=200)
    assert (await app.sweep())["shredded"] == 1
    assert "call" not in (await app.ask("GET", f"/v1/recordings/{long}")).json
    assert not app.vault.keyring.cohorts("northfield", Part.METADATA)
    assert not [left for left in (await certificates(app, long))[0].residuals if "tokens" in left.where]


async def test_one_operators_change_of_the_metadata_retention_is_for_calls_from_the_next_month_on(app):
    await metadata_kept(app.vault, "northfield", days=730)
    old = await app.upload("old", AUDIO, headers=CALLER)
    shorter = await set_metadata_retention(app, "30d")
    this = app.clock.now().strftime("%Y-%m")
    assert shorter.json["metadata_retention_seconds"] == 30 * 86400
    assert shorter.json["metadata_before"] == [{"through": this, "retention": "730d", "retention_seconds": 730 * 86400}]
    same_month = await app.upload("same-month", AUDIO, headers=CALLER)
    app.clock.advance(days=32)
    new = await app.upload("new", AUDIO, headers=CALLER)
    app.clock.advance(days=15)
    assert (await app.sweep())["shredded"] == 3, "their audio"
    app.clock.advance(days=60)
    assert (await app.sweep())["shredded"] == 1, "the metadata of the new call alone"
    names = [
        (await app.ask("GET", f"/v1/recordings/{each}")).json.get("call", {}).get("caller")
        for each in (old, same_month, new)
    ]
    assert names == ["+442079460123", "+442079460123", None]
    agreed = [each.retention.applied.period for each in await certificates(app, new) if each.parts == (Part.METADATA,)]
    assert agreed == ["30d"]
    found = await app.ask("POST", "/v1/recordings/search", body={"caller": "020 7946 0123"}, headers=PURPOSE)
    assert [each["id"] for each in found.json["recordings"]] == [same_month, old]
    epoch = app.vault.keyring.epoch
    await app.sweep()
    assert app.vault.keyring.epoch == epoch, "a spared month is shredded again and again"
    for _ in range(2):
        app.clock.advance(days=375)
        await app.sweep()
    assert not app.vault.keyring.cohorts("northfield", Part.METADATA)


async def test_metadata_that_would_be_kept_shorter_than_its_audio_is_refused_naming_both(app):
    before = (await app.ask("GET", "/v1/tenants/northfield", Role.OPERATOR)).json
    for body in (
        {"metadata_retention": "9d"},
        {"retention": "90d", "metadata_retention": "60d"},
        {"retention": None, "metadata_retention": "1d"},
    ):
        refused = await app.ask("PUT", "/v1/tenants/northfield", Role.OPERATOR, body=body)
        assert (refused.status, refused.problem) == (422, "invalid")
        assert body["metadata_retention"] in refused.json["detail"]
        assert (body.get("retention") or "10d") in refused.json["detail"]
    assert (await set_metadata_retention(app, "60d")).status == 200
    longer = await app.ask("PUT", "/v1/tenants/northfield", Role.OPERATOR, body={"retention": "90d"})
    assert longer.status == 422, "audio may not outgrow its metadata either"
    added = {"id": "east", "name": "E", "controller": "E", "contact": "dpo", "metadata_retention": "2d"}
    assert (await app.ask("POST", "/v1/tenants", Role.OPERATOR, body=added)).status == 422
    after = (await app.ask("GET", "/v1/tenants/northfield", Role.OPERATOR)).json
    assert (before["retention_seconds"], after["retention_seconds"]) == (None, None)


async def test_a_queued_erasure_whose_recording_went_on_its_own_day_is_done(app):
    held = await app.upload("held", AUDIO, headers=CALLER)
    hold = (await app.hold(held)).json["id"]
    waiting = await erase(app, held, queue=True)
    await metadata_kept(app.vault, "northfield", days=1)
    await app.ask("POST", f"/v1/holds/{hold}/release", body={"reason": "settled"})
    await approvals.approve(app, f"/v1/holds/{hold}", Role.DPO)
    await approvals.approve(app, f"/v1/erasures/{waiting.json['id']}", Role.DPO)
    app.clock.advance(days=60)
    await app.sweep()
    shown = await app.ask("GET", f"/v1/erasures/{waiting.json['id']}")
    assert (shown.json["state"], outcomes(shown)) == ("done", {held: "erased"})
    assert [entry["detail"] for entry in await app.audit("case.fulfilled")] == [{"erased": 1}]
    assert {each.trigger.kind for each in await certificates(app, held)} == {"art17"}


async def test_without_a_metadata_retention_numbers_stay_as_long_as_the_contract(app):
    recording = await app.upload("a", AUDIO, headers=CALLER)
    app.clock.advance(days=380)
    await app.sweep()
    assert (await app.ask("GET", f"/v1/recordings/{recording}")).json["call"]["caller"] == "+442079460123"
    assert (await set_metadata_retention(app, "12h")).status == 422
    unchanged = await app.ask("PUT", "/v1/tenants/northfield", Role.OPERATOR, body={"retention": "20d"})
    assert unchanged.json["metadata_retention_seconds"] is None


# -- off-boarding -------------------------------------------------------------------------------------------------


async def test_a_contract_is_ended_by_the_tenants_dpo_and_an_operator_and_never_by_operators_alone(app):
    path = "/v1/tenants/northfield/offboard"

    async def issued(issuer: Role | str, role: Role, tenant: str | None = None) -> str:
        body = {"name": role.value, "role": role.value, "tenant": tenant}
        return str((await app.ask("POST", "/v1/tokens", issuer, body=body)).json["token"])

    another = await issued(Role.OPERATOR, Role.OPERATOR)
    theirs, ours = await issued(another, Role.DPO, "northfield"), await issued(Role.OPERATOR, Role.DPO, "northfield")
    foreign = app.token(Role.DPO, "southgate")
    for first, second, status in (
        (Role.OPERATOR, another, 403),
        (another, Role.OPERATOR, 403),
        (Role.DPO, theirs, 403),
        (Role.OPERATOR, Role.COMPLIANCE, 403),
        (Role.OPERATOR, foreign, 404),
        (Role.OPERATOR, ours, 403),
        (another, ours, 403),
        (Role.DPO, another, 200),
    ):
        asked = await app.ask("POST", path, first, body={})
        assert asked.status == 202, asked.body
        decided = await app.ask("POST", f"{path}/approve", second, body={"shown": asked.json["offboarding"]["shown"]})
        assert decided.status == status, (first, second, decided.body)
        if (first, second) == (Role.OPERATOR, another):
            assert "the tenant's dpo approves" in decided.json["hint"]
        if status != 200:
            assert (await app.ask("GET", "/v1/tenants/northfield", Role.DPO)).json["offboard_approved_by"] is None
            assert (await app.ask("POST", f"{path}/approve", Role.DPO, body={"approve": False})).status == 200


async def test_what_two_operators_ended_before_stands_and_what_was_open_needs_the_dpo(app):
    ends = app.clock.now()
    first, second = [
        (await app.vault.access.issue(name=name, role=Role.OPERATOR, tenant=None, actor=None))[0] for name in "ab"
    ]
    for tenant, approved in (("northfield", None), ("southgate", second.id)):
        await app.vault.catalog.revise_tenant(
            TenantId(tenant),
            lambda found, approved=approved: (
                replace(
                    found,
                    contract_end=ends,
                    offboard_requested_by=first.id,
                    offboard_approved_by=approved,
                    offboard_approved_at=None if approved is None else ends,
                ),
                [],
            ),
        )
    assert (await approvals.approve(app, "/v1/tenants/northfield/offboard", Role.OPERATOR)).status == 403
    assert (await approvals.approve(app, "/v1/tenants/northfield/offboard", Role.DPO)).status == 200
    left = (await app.ask("GET", "/v1/tenants/southgate", Role.OPERATOR)).json
    assert (left["offboard_approved_by"], left["offboarding"]["shown"]) == (second.id, None)


async def test_a_tenant_that_leaves_takes_everything_along_but_what_is_held(app):
    gone, held = await app.upload("gone", AUDIO, headers=CALLER), await app.upload("held", AUDIO, headers=CALLER)
    theirs = await app.upload("theirs", AUDIO, tenant="southgate", headers=CALLER)
    hold = (await app.hold(held)).json["id"]
    await offboard(app)
    refused = await app.ask(
        "PUT", "/v1/ingest/northfield/new", Role.RECORDER, data=AUDIO, headers={"Content-Type": PCMU}
    )
    assert (refused.status, refused.problem) == (409, "conflict")
    app.clock.advance(days=5)
    await app.sweep()
    assert (await app.play(gone)).body == AUDIO, "the export window is open"
    app.clock.advance(days=26)
    assert (await app.sweep())["shredded"] == 2
    assert (await app.play(gone)).status == 410
    assert "call" not in (await app.ask("GET", f"/v1/recordings/{gone}")).json
    assert (await app.play(held)).body == AUDIO
    assert (await app.ask("GET", f"/v1/recordings/{held}")).json["call"]["caller"] == "+442079460123"
    certificate, *_ = await certificates(app, gone)
    assert (certificate.trigger.kind, certificate.parts) == ("contract_end", (Part.AUDIO, Part.METADATA))
    asker, approver = certificate.authorisation.deciders
    assert asker.token != approver.token
    assert approver.at is not None
    assert (await app.ask("GET", f"/v1/recordings/{theirs}", tenant="southgate")).json["call"]["caller"]
    epoch = app.vault.keyring.epoch
    assert (await app.sweep())["shredded"] == 0
    assert app.vault.keyring.epoch == epoch, "a tenant that is gone is dropped again and again"
    await app.ask("POST", f"/v1/holds/{hold}/release", body={"reason": "settled"})
    await approvals.approve(app, f"/v1/holds/{hold}", Role.DPO)
    app.clock.advance(days=2)
    assert (await app.sweep())["shredded"] == 1
    assert (await app.play(held)).status == 410
    assert not app.vault.keyring.cohorts("northfield", Part.METADATA)
    assert not app.vault.keyring.cohorts("northfield", Part.AUDIO)


async def test_a_contract_that_one_person_ended_or_two_disagreed_on_goes_on(app):
    path = "/v1/tenants/northfield/offboard"
    assert (await approvals.approve(app, f"{path}", Role.DPO)).status == 409
    ends = (app.clock.now() + timedelta(days=3)).isoformat()
    await app.ask("POST", path, Role.DPO, body={"contract_end": ends})
    app.clock.advance(days=40)
    await app.upload("still", AUDIO)
    rejected = await app.ask("POST", f"{path}/approve", Role.OPERATOR, body={"approve": False})
    assert rejected.json["contract_end"] is None
    app.clock.advance(days=1)
    await app.sweep()
    recording = RecordingId(await app.upload("later", AUDIO))
    assert (await app.play(recording)).body == AUDIO


async def test_an_approval_waits_for_another_node_that_shreds(app):
    recording = await app.upload("call", sound(5000))
    locks = FileClusterLocks(app.config.locks_path, clock=app.clock)
    async with locks.hold("sweeper"):
        approving = asyncio.create_task(erase(app, recording))
        await asyncio.sleep(0.3)
        assert not approving.done()
        assert (await app.play(recording)).status == 200
    await approving
    assert (await app.play(recording)).status == 410


async def test_an_end_of_contract_is_approved_as_it_was_shown_and_a_second_request_does_not_replace_it(app):
    path = "/v1/tenants/northfield/offboard"
    later = (app.clock.now() + timedelta(days=700)).isoformat()
    recording = await app.upload("call", AUDIO)
    await app.hold(recording)
    asked = await app.ask("POST", path, Role.OPERATOR, body={"contract_end": later})
    seen = asked.json["offboarding"]
    assert (seen["recordings"], seen["held"]) == (1, 1)
    again = await app.ask("POST", path, Role.OPERATOR, body={"contract_end": "2001-01-01T00:00:00Z"})
    assert (again.status, again.problem) == (409, "conflict")
    # Withdrawn by who asked, asked for otherwise, and approved by somebody who saw the first: refused.
    withdrawn = await app.ask("POST", f"{path}/approve", Role.OPERATOR, body={"approve": False})
    assert (withdrawn.status, withdrawn.json["contract_end"], withdrawn.json["offboarding"]) == (200, None, None)
    await app.ask("POST", path, Role.OPERATOR, body={"contract_end": "2001-01-01T00:00:00Z"})
    blind = await app.ask("POST", f"{path}/approve", Role.DPO, body={"shown": seen["shown"]})
    assert (blind.status, blind.problem) == (409, "changed_since")
    unseen = await app.ask("POST", f"{path}/approve", Role.DPO, body={})
    assert unseen.status == 422
    assert "read the request first" in unseen.json["hint"]
    assert (await app.ask("GET", "/v1/tenants/northfield", Role.DPO)).json["offboard_approved_by"] is None
    actions = [entry["detail"]["action"] for entry in await app.audit("admin.config") if "action" in entry["detail"]]
    assert [each for each in actions if each.startswith("off")] == [
        "offboarding requested",
        "offboarding withdrawn",
        "offboarding requested",
    ]


async def test_the_window_for_exports_counts_from_the_approval_when_the_contract_ended_before_it(app):
    path = "/v1/tenants/northfield/offboard"
    recording = await app.upload("call", AUDIO, headers=CALLER)
    await app.ask("PUT", "/v1/tenants/northfield", Role.OPERATOR, body={"retention": "200d"})
    kept = await app.upload("kept", AUDIO, headers=CALLER)
    await app.ask("POST", path, Role.OPERATOR, body={"contract_end": "2001-01-01T00:00:00Z"})
    app.clock.advance(days=5)
    approved = await approvals.approve(app, path, Role.DPO)
    assert approved.status == 200, approved.body
    goes = datetime.fromisoformat(approved.json["offboarding"]["goes_from"])
    assert abs(goes - app.clock.now() - timedelta(days=30)) < timedelta(minutes=1)
    assert approved.json["offboarding"]["shown"] is None
    app.clock.advance(days=29)
    await app.sweep()
    assert (await app.play(kept)).body == AUDIO, "a whole tenant went before its window was over"
    app.clock.advance(days=2)
    await app.sweep()
    assert [(await app.play(each)).status for each in (recording, kept)] == [410, 410]


async def test_an_erasure_is_approved_as_it_was_shown(app):
    one, two = await app.upload("one", AUDIO, headers=CALLER), await app.upload("two", AUDIO, headers=CALLER)
    asked = await request(app, one, two)
    path = f"/v1/erasures/{asked.json['id']}"
    unseen = await app.ask("POST", f"{path}/approve", Role.DPO, body={})
    assert (unseen.status, unseen.problem) == (422, "invalid")
    await app.hold(two)
    blind = await app.ask("POST", f"{path}/approve", Role.DPO, body={"shown": asked.json["shown"]})
    assert (blind.status, blind.problem) == (409, "changed_since"), "less goes than the approver saw"
    assert (await app.play(one)).body == AUDIO
    done = await approvals.approve(app, path, Role.DPO)
    assert (done.status, outcomes(done)) == (200, {one: "erased", two: "kept"})
    assert done.json["shown"] is None


async def test_who_asked_for_an_erasure_may_withdraw_it(app):
    one = await app.upload("one", AUDIO, headers=CALLER)
    asked = await request(app, one)
    withdrawn = await app.ask("POST", f"/v1/erasures/{asked.json['id']}/reject", Role.COMPLIANCE)
    assert (withdrawn.status, withdrawn.json["state"]) == (200, "rejected")
    assert len(await app.audit("case.withdrawn")) == 1
    assert (await app.play(one)).body == AUDIO
