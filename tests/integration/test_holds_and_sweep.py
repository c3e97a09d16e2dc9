"""Holds, releases, sweeps and certificates over HTTP, and the races between them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
from dataclasses import replace
from datetime import datetime, timedelta

import aiohttp
import pytest
import sqlalchemy as sa

from tests.helpers import approvals
from tests.helpers.app import PCMU, PURPOSE, App, app, running, sound
from tests.helpers.crashing import leases_run_out, memory_directory
from vault.certificates.document import verify_certificate
from vault.crypto.signing import VerifyKey
from vault.errors import IntegrityError, Shredded, TooLate, Unavailable
from vault.ids import RecordingId, TenantId, TokenId
from vault.model import CertificateStatus, HoldKind, HoldState, Principal, Role
from vault.services.holds.holds import HoldRequest

__all__ = ["app"]

AUDIO = sound(2000)
ANN = Principal(token_id=TokenId("tok_ann"), name="ann", role=Role.COMPLIANCE, tenant=TenantId("northfield"))


async def is_shredded(app: App, recording: str) -> bool:
    answer = await app.play(recording)
    if answer.status == 200:
        assert answer.body == AUDIO
        return False
    assert (answer.status, answer.problem) == (410, "shredded")
    return True


# -- placing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(HoldKind))
async def test_a_hold_of_any_kind_outlives_the_retention(app, kind):
    held, free = await app.upload("held", AUDIO), await app.upload("free", AUDIO)
    answer = await app.hold(held, kind=kind.value)
    assert answer.status == 201
    assert answer.json["recordings"] == [{"id": held, "outcome": "held"}]
    assert (await app.ask("GET", answer.headers["Location"])).json == answer.json
    app.clock.advance(days=12)
    await app.sweep()
    assert not await is_shredded(app, held)
    assert await is_shredded(app, free)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "curiosity"},
        {"review_at": "2020-01-01T00:00:00Z"},
        {"review_at": "2099-01-01T00:00:00"},
        {"matter": " "},
        {"authority": ""},
        {"recordings": []},
    ],
)
async def test_a_hold_that_says_too_little_or_too_late_is_refused_and_leaves_nothing(app, wrong):
    recording = await app.upload("call", AUDIO)
    answer = await app.hold(recording, **wrong)
    assert (answer.status, answer.problem) == (422, "invalid")
    assert (await app.ask("GET", "/v1/holds")).json == {"holds": []}
    assert not app.vault.keyring.pins()


async def test_a_hold_names_each_recording_once_and_only_recordings(app):
    recording = await app.upload("call", AUDIO)
    assert (await app.hold(recording, recording)).status == 422
    for stranger in ("rec_" + "0" * 32, "hold_" + recording.removeprefix("rec_"), "nonsense"):
        assert (await app.hold(recording, stranger)).status == 404
    assert (await app.ask("GET", "/v1/holds")).json == {"holds": []}


async def test_a_hold_on_what_is_shredded_is_too_late_and_says_where_the_proof_is(app):
    gone = await app.upload("gone", AUDIO)
    app.clock.advance(days=12)
    await app.sweep()
    await app.certified()
    answer = await app.hold(gone)
    assert (answer.status, answer.problem) == (409, "too_late")
    assert "certificate" in answer.json["hint"]
    assert [entry["target"] for entry in await app.audit("hold.too_late")] == [gone]
    alive = await app.upload("alive", AUDIO)
    both = await app.hold(gone, alive)
    assert both.status == 201
    assert {(each["id"], each["outcome"]) for each in both.json["recordings"]} == {(gone, "too_late"), (alive, "held")}
    certificates = await app.ask("GET", f"/v1/certificates?recording={gone}")
    assert len(certificates.json["certificates"]) == 2


# -- reviewing and releasing --------------------------------------------------------------------------------------


async def test_a_release_takes_two_people_a_grace_and_a_sweep(app):
    recording = await app.upload("call", AUDIO)
    hold = (await app.hold(recording)).json["id"]
    app.clock.advance(days=12)
    assert (await approvals.approve(app, f"/v1/holds/{hold}", Role.COMPLIANCE)).status == 409
    asked = await app.ask("POST", f"/v1/holds/{hold}/release", body={"reason": "settled"})
    assert (asked.status, asked.json["state"]) == (202, "release_requested")
    assert (await app.ask("POST", f"/v1/holds/{hold}/release", body={"reason": "again"})).status == 409
    own = await approvals.approve(app, f"/v1/holds/{hold}", Role.COMPLIANCE)
    assert (own.status, own.problem) == (403, "forbidden")
    await app.sweep()
    assert not await is_shredded(app, recording)
    alike = await approvals.approve(app, f"/v1/holds/{hold}", await app.second_person(Role.COMPLIANCE))
    assert (alike.status, "the tenant's dpo approves" in alike.json["hint"]) == (403, True)
    approved = await approvals.approve(app, f"/v1/holds/{hold}", Role.DPO)
    assert (approved.status, approved.json["state"]) == (200, "released")
    await app.sweep()
    assert not await is_shredded(app, recording), "the grace has not passed"
    app.clock.advance(days=1, minutes=1)
    await app.sweep()
    assert await is_shredded(app, recording)
    assert [entry["event"] for entry in await app.audit() if entry["event"].startswith("hold.")] == [
        "hold.placing",
        "hold.created",
        "hold.release_requested",
        "hold.release_approved",
    ]


async def test_a_rejected_release_leaves_the_hold_in_force(app):
    recording = await app.upload("call", AUDIO)
    hold = (await app.hold(recording)).json["id"]
    await app.ask("POST", f"/v1/holds/{hold}/release", body={"reason": "settled"})
    rejected = await app.ask("POST", f"/v1/holds/{hold}/approve", Role.DPO, body={"approve": False})
    assert (rejected.status, rejected.json["state"]) == (200, "active")
    assert rejected.json["release_requested_by"] is None
    app.clock.advance(days=40)
    await app.sweep()
    assert not await is_shredded(app, recording)


async def test_a_release_is_approved_as_it_was_shown_and_may_be_withdrawn_by_who_asked(app):
    recording = await app.upload("call", AUDIO)
    hold = (await app.hold(recording)).json["id"]
    path = f"/v1/holds/{hold}"
    assert (await app.ask("GET", path)).json["shown"] is None
    seen = (await app.ask("POST", f"{path}/release", body={"reason": "the hold was placed twice"})).json["shown"]
    withdrawn = await app.ask("POST", f"{path}/approve", body={"approve": False})
    assert (withdrawn.status, withdrawn.json["state"], withdrawn.json["shown"]) == (200, "active", None)
    await app.ask("POST", f"{path}/release", body={"reason": "the claim is settled"})
    for body, refused in (({"shown": seen}, "changed_since"), ({}, "invalid"), ({"shown": "no digest"}, "invalid")):
        assert (await app.ask("POST", f"{path}/approve", Role.DPO, body=body)).problem == refused
    assert (await app.ask("GET", path)).json["state"] == "release_requested"
    assert (await approvals.approve(app, path, Role.DPO)).json["state"] == "released"
    assert len(await app.audit("hold.release_withdrawn")) == 1


async def test_releasing_one_hold_leaves_the_other_in_force(app):
    recording = await app.upload("call", AUDIO)
    hold = (await app.hold(recording)).json["id"]
    await app.hold(recording, kind="safeguarding")
    await app.ask("POST", f"/v1/holds/{hold}/release", body={"reason": "settled"})
    await approvals.approve(app, f"/v1/holds/{hold}", Role.DPO)
    app.clock.advance(days=40)
    await app.sweep()
    assert not await is_shredded(app, recording)


async def test_a_review_moves_the_date_and_never_the_hold(app):
    recording = await app.upload("call", AUDIO)
    hold = (await app.hold(recording)).json["id"]
    later = (app.clock.now() + timedelta(days=400)).isoformat()
    for wrong in ({"next_review": "2020-01-01T00:00:00Z", "note": "x"}, {"next_review": later}):
        assert (await app.ask("POST", f"/v1/holds/{hold}/review", body=wrong)).status == 422
    answer = await app.ask("POST", f"/v1/holds/{hold}/review", body={"next_review": later, "note": "still in court"})
    assert (answer.status, answer.json["state"]) == (200, "active")
    assert [entry["detail"]["note"] for entry in await app.audit("hold.reviewed")] == ["still in court"]
    app.clock.advance(days=399)
    await app.sweep()
    assert not await is_shredded(app, recording), "a hold lapsed by itself"
    await app.ask("POST", f"/v1/holds/{hold}/release", body={"reason": "settled"})
    await approvals.approve(app, f"/v1/holds/{hold}", Role.DPO)
    body = {"next_review": (app.clock.now() + timedelta(days=5)).isoformat(), "note": "too late"}
    assert (await app.ask("POST", f"/v1/holds/{hold}/review", body=body)).status == 409


# -- certificates -------------------------------------------------------------------------------------------------


async def test_a_provisional_certificate_is_superseded_once_the_objects_are_gone(app, monkeypatch):
    recording = await app.upload("call", AUDIO)
    app.clock.advance(days=12)
    delete = app.vault.store.delete

    async def unreachable(_name):
        raise Unavailable("the store is down")

    monkeypatch.setattr(app.vault.store, "delete", unreachable)
    assert (await app.sweep())["waiting_for_deletion"] == 1
    assert await is_shredded(app, recording)
    listed = (await app.ask("GET", f"/v1/certificates?recording={recording}", Role.AUDITOR)).json["certificates"]
    assert [each["status"] for each in listed] == ["provisional"]
    monkeypatch.setattr(app.vault.store, "delete", delete)
    assert (await app.sweep())["waiting_for_deletion"] == 1, "the objects are gone, a lease may still run"
    assert (await app.certified())["objects_deleted_for"] == 1
    final, provisional = (await app.ask("GET", "/v1/certificates", Role.AUDITOR)).json["certificates"]
    assert provisional == listed[0]
    assert (final["status"], final["supersedes"]) == ("final", provisional["id"])
    shown = (await app.ask("GET", f"/v1/recordings/{recording}")).json
    assert (shown["state"], shown["certificate_id"]) == ("shredded", final["id"])


async def test_the_status_says_what_waits_for_deletion_now_and_not_at_the_end_of_the_last_sweep(app):
    await app.upload("call", AUDIO)
    before = (await app.ask("GET", "/v1/sweeps", Role.OPERATOR)).json
    assert (before["last"], before["waiting_for_deletion"]) == (None, 0)
    app.clock.advance(days=12)
    assert (await app.sweep())["waiting_for_deletion"] == 1
    for who in (Role.OPERATOR, Role.DPO):
        assert (await app.ask("GET", "/v1/sweeps", who)).json["waiting_for_deletion"] == 1
    other = await app.ask("GET", "/v1/sweeps", Role.DPO, tenant="southgate")
    assert other.json["waiting_for_deletion"] == 0
    await leases_run_out(app.vault, app.clock)
    async with app.vault.shredder.alone():
        await app.vault.shredder.delete()
    after = (await app.ask("GET", "/v1/sweeps", Role.OPERATOR)).json
    assert after["waiting_for_deletion"] == 0
    assert (after["last"]["objects_deleted_for"], after["last"]["waiting_for_deletion"]) == (1, 0)


async def test_a_stranger_verifies_a_certificate_with_the_public_key_alone(app):
    recording = await app.upload("call", AUDIO)
    app.clock.advance(days=12)
    await app.sweep()
    pem = await app.ask("GET", "/v1/issuer-key", None)
    key = VerifyKey.from_pem(pem.body)
    for each in (await app.ask("GET", "/v1/certificates", Role.AUDITOR)).json["certificates"]:
        jws = await app.ask("GET", f"/v1/certificates/{each['id']}.jws", Role.AUDITOR)
        assert (jws.headers["Content-Type"].partition(";")[0], jws.body.decode()) == ("application/jose", each["jws"])
        assert (await app.ask("GET", f"/v1/certificates/{each['id']}", Role.AUDITOR)).json == each
        verified = verify_certificate(each["jws"], key).certificate
        assert verified.recording.id == recording
        assert verified.trial, "the vault of these tests is a trial one, and its certificate does not say so"
        assert verified.status is CertificateStatus(each["status"])
        head, payload, signature = each["jws"].split(".")
        document = json.loads(base64.urlsafe_b64decode(payload + "=="))
        document["recording"]["id"] = "rec_" + "0" * 32
        forged = base64.urlsafe_b64encode(json.dumps(document, separators=(",", ":")).encode()).rstrip(b"=").decode()
        with pytest.raises(IntegrityError):
            verify_certificate(f"{head}.{forged}.{signature}", key)


@pytest.mark.parametrize("identifier", ["cert_" + "0" * 32, "nonsense", "rec_" + "0" * 32, "cert_" + "0" * 32 + ".jws"])
async def test_a_certificate_that_was_never_issued_is_not_found(app, identifier):
    answer = await app.ask("GET", f"/v1/certificates/{identifier}", Role.AUDITOR)
    assert (answer.status, answer.problem) == (404, "not_found")


async def test_a_clock_that_stepped_back_between_two_sweeps_still_certifies(app):
    """What was live at the first sweep is due at the second one, which happens at an earlier wall time."""
    gate = asyncio.Event()
    upload = asyncio.create_task(app.upload("call", halves(gate)))
    await until_live(app)
    app.clock.advance(days=12)
    await app.sweep()
    app.clock.advance(hours=-30)
    gate.set()
    recording = await upload
    assert not await is_shredded(app, recording)
    assert (await app.sweep())["shredded"] == 1
    assert await is_shredded(app, recording)
    await app.certified()
    assert len((await app.ask("GET", "/v1/certificates", Role.AUDITOR)).json["certificates"]) == 2


# -- guards -------------------------------------------------------------------------------------------------------


async def test_a_sweeper_that_meets_a_contradiction_stops_and_leaves_the_vault_running(monkeypatch):
    with memory_directory() as base:
        settings = {"enabled": False, "interval": "1ms", "jitter": "0s"}
        async with running(base, sweep=settings) as app:
            outcomes = [Unavailable("down"), IntegrityError("the new epoch does not keep exactly the surviving keys")]

            async def failing(**_):
                raise outcomes.pop(0)

            monkeypatch.setattr(app.vault.sweeper, "sweep", failing)
            await asyncio.wait_for(app.vault.sweeper.run(), 5)
            assert not outcomes
            assert not await is_shredded(app, await app.upload("call", AUDIO))


# -- races --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, -1])
async def test_a_certificate_that_changed_in_the_catalog_keeps_no_other_from_becoming_final(app, place, caplog):
    """Whether the damage is in the head of its batch, of which nothing can be read then, or in its own values."""

    async def damage(bit):
        """Flip a bit of the first batch."""
        async with app.vault.catalog._database.engine.begin() as connection:
            [(batch, entries)] = await connection.execute(
                sa.text("SELECT id, entries FROM certificate_batches LIMIT 1")
            )
            entries = bytearray(entries)
            entries[place] ^= bit
            change = sa.text("UPDATE certificate_batches SET entries = :entries WHERE id = :batch")
            await connection.execute(change, {"entries": bytes(entries), "batch": batch})

    damaged = await app.upload("damaged", AUDIO)
    app.clock.advance(days=12)
    assert (await app.sweep())["shredded"] == 1
    await damage(1)
    listed = await app.ask("GET", "/v1/certificates")
    assert (listed.status, "changed after" in listed.json["detail"]) == (500, True)
    behind = listed.json["hint"].rpartition(" ")[2]
    assert (await app.ask("GET", f"/v1/certificates?{behind}")).json["certificates"] == []
    for number in range(2):
        await app.upload(f"sound-{number}", AUDIO)
    app.clock.advance(days=12)
    assert (await app.sweep())["shredded"] == 2
    report = await app.certified()
    assert (report["objects_deleted_for"], report["waiting_for_deletion"]) == (2, 1)
    told = [each.fields for each in caplog.records if "changed in the catalog" in each.message]
    assert told
    assert all(each["recording"] == damaged and "changed after" in each["why"] for each in told)
    await damage(1)  # put right, from a backup
    report = await app.sweep()
    assert (report["objects_deleted_for"], report["waiting_for_deletion"]) == (1, 0)


async def test_a_hold_against_a_sweep_is_answered_held_and_kept_or_too_late_and_certified(app):
    vault = app.vault
    seen = set()
    # Close together first; then ever later, until even a busy machine's sweep came before.
    for step, late in enumerate([0.0004 * number for number in range(30)] + [0.02 * 2**number for number in range(7)]):
        if step >= 30 and len(seen) == 2:
            break
        recording = RecordingId(await app.upload(f"call-{step}", AUDIO))
        app.clock.advance(days=12)
        request = HoldRequest(
            tenant=TenantId("northfield"),
            kind=HoldKind.LEGAL,
            matter="M",
            reason="r",
            authority="a",
            owner="o",
            review_at=app.clock.now() + timedelta(days=900),
            recordings=(recording,),
        )

        async def place(request=request, delay=late, matter="M"):
            await asyncio.sleep(delay)
            return await vault.holds.place(replace(request, matter=matter), actor=ANN)

        answers = await asyncio.gather(
            place(),
            place(delay=max(late, 0.006), matter="N"),
            vault.sweeper.sweep(trigger="expiry", actor=None),
            return_exceptions=True,
        )
        assert not isinstance(answers[2], BaseException)
        outcomes = {type(answer) for answer in answers[:2]}
        assert len(outcomes) == 1 or outcomes == {type(answers[0]), TooLate}
        assert len(outcomes) == 1, "one hold was accepted and the other one came too late"
        certificates = await vault.catalog.certificates(recording=recording)
        if TooLate in outcomes:
            seen.add("too late")
            assert len(certificates) == 1
            assert await is_shredded(app, recording)
        else:
            seen.add("held")
            assert not certificates
            assert not await is_shredded(app, recording)
    assert seen == {"held", "too late"}
    assert not await vault.catalog.holds(states=[HoldState.PLACING])


async def halves(gate: asyncio.Event):
    yield AUDIO[:1000]
    await gate.wait()
    yield AUDIO[1000:]


async def until_live(app: App) -> str:
    while (
        not (found := (await app.ask("GET", "/v1/recordings?state=open")).json["recordings"]) or not found[0]["bytes"]
    ):
        await asyncio.sleep(0.005)
    return str(found[0]["id"])


async def test_a_hold_placed_during_a_call_protects_the_recording_being_written(app):
    gate = asyncio.Event()
    upload = asyncio.create_task(app.upload("call", halves(gate)))
    recording = await until_live(app)
    assert (await app.hold(recording)).json["recordings"] == [{"id": recording, "outcome": "held"}]
    gate.set()
    assert await upload == recording
    app.clock.advance(days=12)
    await app.sweep()
    assert not await is_shredded(app, recording)


async def test_a_call_under_way_outlives_the_sweep_of_its_cohort_until_the_next_one(app):
    finished = await app.upload("finished", AUDIO)
    gate = asyncio.Event()
    upload = asyncio.create_task(app.upload("call", halves(gate)))
    live = await until_live(app)
    app.clock.advance(days=12)
    assert (await app.sweep())["shredded"] == 1
    assert await is_shredded(app, finished)
    assert (await app.play(live)).body == AUDIO[:1000]
    assert (await app.sweep())["shredded"] == 0
    gate.set()
    assert await upload == live
    assert not await is_shredded(app, live)
    assert (await app.sweep())["shredded"] == 1
    assert await is_shredded(app, live)


async def test_a_player_hears_no_window_after_the_key_is_gone(app):
    recording = RecordingId(await app.upload("call", sound(300_000)))
    opened = await app.vault.playback.open(recording, actor=ANN, purpose="quality")
    reading = app.vault.playback.read(opened, 0, opened.length)
    assert await anext(reading) == sound(300_000)[: 64 << 10]
    app.clock.advance(days=12)
    await app.sweep()
    with pytest.raises(Shredded):
        await anext(reading)
    with pytest.raises(Shredded):
        await anext(app.vault.playback.read(opened, 0, 100))


async def test_a_playback_over_http_is_cut_off_by_the_shred_and_never_starts_again(app):
    audio = sound(24 << 20)
    recording = await app.upload("call", io.BytesIO(audio))
    headers = {"Authorization": f"Bearer {app.token(Role.COMPLIANCE)}", **PURPOSE}
    got = b""
    async with app.client.get(f"/v1/recordings/{recording}/audio?format=raw", headers=headers) as response:
        got += await response.content.readexactly(1000)
        app.clock.advance(days=12)
        assert (await app.sweep())["shredded"] == 1
        with contextlib.suppress(aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
            async for piece in response.content.iter_any():
                got += piece
    assert len(got) < len(audio)
    assert audio.startswith(got)
    answer = await app.play(recording)
    assert (answer.status, answer.problem) == (410, "shredded")


async def test_a_recording_from_the_past_is_not_born_into_a_swept_cohort(app):
    await app.upload("first", AUDIO)
    app.clock.advance(days=12)
    await app.sweep()
    old = (app.clock.now() - timedelta(days=11)).isoformat()
    headers = {"Content-Type": PCMU, "Call-Started": old}
    late = await app.upload("late", AUDIO, headers=headers)
    await app.sweep()
    assert (await app.play(late)).body == AUDIO


async def test_a_hold_without_a_review_date_gets_the_earliest_that_fits_its_kind_and_any_of_its_calls(app: App) -> None:
    old = (app.clock.now() - timedelta(days=5)).replace(microsecond=0)
    headers = {"Content-Type": PCMU, "Call-Started": old.isoformat()}
    calls = [await app.upload("new", AUDIO), await app.upload("old", AUDIO, headers=headers)]
    for kind, years in (("legal", 6), ("regulatory", 5), ("safeguarding", 1), ("client_request", 7)):
        placed = await app.hold(*calls, kind=kind, review_at=None)
        due, now = (datetime.fromisoformat(placed.json[name]) for name in ("review_at", "created_at"))
        start = now if kind == "safeguarding" else old
        assert due == start.replace(year=start.year + years), kind


async def test_a_controllers_wish_is_reviewed_before_the_cap_ends_when_placed_and_when_reviewed(app: App) -> None:
    recording = await app.upload("wished", sound(160))

    def within(years: int) -> str:
        return (app.clock.now() + timedelta(days=365 * years)).isoformat()

    refused = await app.hold(recording, kind="client_request", review_at=within(60))
    assert (refused.status, "retention cap" in refused.json["detail"]) == (422, True)
    placed = await app.hold(recording, kind="client_request", review_at=within(6))
    assert placed.status == 201, placed.body
    path = f"/v1/holds/{placed.json['id']}/review"
    for years, status in ((60, 422), (-1, 422), (6, 200)):
        body = {"next_review": within(years), "note": "asked again"}
        assert (await app.ask("POST", path, Role.COMPLIANCE, body=body)).status == status, years
    assert (await app.hold(recording, kind="legal", matter="OTHER", review_at=within(60))).status == 201


async def test_a_list_of_holds_counts_their_recordings_and_one_hold_shows_them_in_pages(app):
    recordings = sorted([await app.upload(f"paged-{number}", sound(100)) for number in range(12)], reverse=True)
    placed = (await app.hold(*recordings)).json
    assert {each["id"] for each in placed["recordings"]} == set(recordings)
    assert (placed["recordings_held"], placed["before"]) == (12, None)
    [listed] = (await app.ask("GET", "/v1/holds")).json["holds"]
    assert [each["id"] for each in listed["recordings"]] == recordings[:10]
    assert (listed["recordings_held"], listed["recordings_too_late"], listed["before"]) == (12, 0, recordings[9])
    path = f"/v1/holds/{placed['id']}"
    whole = (await app.ask("GET", path)).json
    assert ([each["id"] for each in whole["recordings"]], whole["before"]) == (recordings, None)
    first = (await app.ask("GET", f"{path}?limit=7")).json
    rest = (await app.ask("GET", f"{path}?limit=7&before={first['before']}")).json
    assert [each["id"] for each in first["recordings"] + rest["recordings"]] == recordings
    assert rest["before"] is None
