"""A request under an Idempotency-Key takes effect once, and a failure says whether anything may have taken effect."""

import asyncio
import json
import uuid
from datetime import timedelta

import aiohttp
import pytest

from tests.helpers.app import SETTINGS, TENANTS, app, out_of_reach, running, sound
from tests.helpers.crashing import memory_directory
from vault.config import parse_config
from vault.errors import Unavailable
from vault.model import HoldState, Role
from vault.retention.guards import Guard, Tripped
from vault.server.app import serve
from vault.server.routes import OPERATIONS
from vault.wiring import open_vault

__all__ = ["app"]

OURS = TENANTS[0]


def key() -> dict[str, str]:
    return {"Idempotency-Key": f'"{uuid.uuid4()}"'}


async def place(app, body, headers):
    return await app.ask("POST", "/v1/holds", Role.COMPLIANCE, body=body, headers=headers)


async def holds(app):
    return (await app.ask("GET", "/v1/holds", Role.COMPLIANCE)).json["holds"]


async def test_every_creation_takes_effect_once_under_its_key(app):
    recording = await app.upload("call", sound(500))
    other = await app.upload("other", sound(500))
    erasure = {"basis": "art17", "case_reference": "C-1", "recordings": [other]}
    tenant = {"id": "eastgate", "name": "E", "controller": "E", "contact": "dpo"}
    override = {"through": (app.clock.now() + timedelta(hours=1)).isoformat(), "reason": "the clock was checked"}
    await app.vault.overrides.remember([Tripped(guard=Guard.CLOCK_JUMP, reason="the clock jumped")])
    token = {"name": "second", "role": "recorder", "tenant": OURS}
    jumped = Tripped(guard=Guard.CLOCK_JUMP, reason="the clock is ahead of the last sweep")
    await app.vault.overrides.remember([jumped])
    for path, who, body in (
        ("/v1/holds", Role.COMPLIANCE, app.hold_body(recording)),
        ("/v1/erasures", Role.COMPLIANCE, erasure),
        ("/v1/tenants", Role.OPERATOR, tenant),
        ("/v1/tokens", Role.OPERATOR, token),
        ("/v1/policies", Role.DPO, {"metadata_retention": "90d"}),
        ("/v1/sweeps/overrides", Role.OPERATOR, override),
        (f"/v1/recordings/{other}/flag", Role.AGENT, {"category": "distress", "matter": "one"}),
        ("/v1/sweeps", Role.OPERATOR, {"dry_run": True}),
    ):
        headers = key()
        first = await app.ask("POST", path, who, body=body, headers=headers)
        assert first.status < 300, (path, first.body)
        [declared] = [each.answers for each in OPERATIONS if (each.method, each.path) == ("post", path)] or [None]
        assert declared is None or ("Location" in declared[first.status].headers) == ("Location" in first.headers), path
        before = await app.audit()
        again = await app.ask("POST", path, who, body=body, headers=headers)
        assert (again.status, again.body) == (first.status, first.body), path
        assert again.headers.get("Location") == first.headers.get("Location")
        assert again.headers["Idempotency-Replayed"] == "true"
        assert await app.audit() == before, path
        changed = await app.ask("POST", path, who, body={**body, "reason": "x"}, headers=headers)
        assert (changed.status, changed.problem) == (422, "key_reused"), path
    assert len([each for each in await holds(app) if each["matter"] == "SMITH-2026"]) == 1


async def test_a_key_is_the_tokens_own_and_is_checked(app):
    recording = await app.upload("call", sound(500))
    headers, body = key(), app.hold_body(recording)
    assert (await place(app, body, headers)).status == 201
    second = await app.second_person(Role.COMPLIANCE)
    theirs = await app.ask("POST", "/v1/holds", second, body={**body, "matter": "other"}, headers=headers)
    assert theirs.status == 201
    for wrong in ('"', "x" * 256, '"a" "b"', ""):
        refused = await place(app, body, {"Idempotency-Key": wrong})
        assert refused.status == 400, wrong
    # A search only looks: a key changes nothing there, and keeps no answer.
    for _ in range(2):
        found = await app.ask("POST", "/v1/recordings/search", body={}, headers=headers)
        assert found.status == 200
        assert "Idempotency-Replayed" not in found.headers


async def test_a_refused_sender_claims_no_key_and_learns_nothing_from_a_malformed_one(app, monkeypatch):
    monkeypatch.setattr(app.vault.repeats, "claim", None)
    for headers in (key(), {"Idempotency-Key": '"'}):
        for who, status in ((None, 401), (Role.RECORDER, 403), (Role.AUDITOR, 403)):
            before = await app.denials()
            answer = await app.ask("POST", "/v1/tokens", who, body={"nonsense": 1}, headers=headers)
            assert answer.status == status, (who, headers, answer.body)
            assert await app.denials() == before + (who is not None)
        theirs = await app.ask("POST", f"/v1/tenants/{TENANTS[1]}/offboard", Role.DPO, body={}, headers=headers)
        assert (theirs.status, theirs.problem) == (404, "not_found")


async def test_while_the_first_is_under_way_a_repeat_waits_and_then_gets_its_answer(app, monkeypatch):
    recording = await app.upload("call", sound(500))
    headers, body = key(), app.hold_body(recording)
    reached, go_on = asyncio.Event(), asyncio.Event()
    add_hold = app.vault.catalog.add_hold

    async def slow(*args, **words):
        reached.set()
        await go_on.wait()
        await add_hold(*args, **words)

    monkeypatch.setattr(app.vault.catalog, "add_hold", slow)
    first = asyncio.create_task(place(app, body, headers))
    await reached.wait()
    early = await place(app, body, headers)
    assert (early.status, early.problem) == (409, "under_way")
    # The first one's node seems dead: the repeat carries the request out, and the first one changes nothing any more.
    app.clock.advance(seconds=31)
    monkeypatch.setattr(app.vault.catalog, "add_hold", add_hold)
    repeated = await place(app, body, headers)
    assert repeated.status == 201
    go_on.set()
    assert (await first).status == 409
    assert [each["id"] for each in await holds(app)] == [repeated.json["id"]]


async def test_a_sweep_of_more_than_half_a_minute_is_not_taken_over_by_a_repeat(app, monkeypatch):
    monkeypatch.setattr("vault.services.repeats._RENEWED_EVERY", 0.01)
    reached, go_on = asyncio.Event(), asyncio.Event()
    renewed = asyncio.Event()
    sweep, renew = app.vault.sweeper.sweep, app.vault.catalog.renew_request
    sweeps = 0

    async def slow(*args, **words):
        nonlocal sweeps
        sweeps += 1
        reached.set()
        await go_on.wait()
        return await sweep(*args, **words)

    async def counted(*args, **words):
        await renew(*args, **words)
        renewed.set()

    monkeypatch.setattr(app.vault.sweeper, "sweep", slow)
    monkeypatch.setattr(app.vault.catalog, "renew_request", counted)

    async def ask():
        return await app.ask("POST", "/v1/sweeps", Role.OPERATOR, body={}, headers=headers)

    headers = key()
    first = asyncio.create_task(ask())
    await reached.wait()
    for _ in range(3):
        app.clock.advance(seconds=25)
        renewed.clear()
        await renewed.wait()
        renewed.clear()
        await renewed.wait()
    with out_of_reach(app.vault.catalog, "renew_request"):
        await asyncio.sleep(0.05)
        early = await ask()
    assert (early.status, early.problem, early.headers["Retry-After"]) == (409, "under_way", "5")
    go_on.set()
    done = await first
    assert (done.status, sweeps) == (200, 1)
    renewed.clear()
    await asyncio.sleep(0.05)
    assert not renewed.is_set(), "what has ended is not renewed"
    assert (await ask()).headers["Idempotency-Replayed"] == "true"


async def test_a_hold_that_failed_half_way_says_so_and_becomes_active_under_its_key(app):
    recording = await app.upload("call", sound(500))
    headers, body = key(), app.hold_body(recording)
    with out_of_reach(app.vault.keyring._engine._replicas, "survey"):
        for _ in range(2):
            answer = await place(app, body, headers)
            assert (answer.status, answer.problem) == (503, "outcome_unknown")
            assert "nothing" not in answer.json["detail"]
            assert "Idempotency-Key" in answer.json["hint"]
        [hold] = await holds(app)
        assert hold["state"] == "placing"
    placed = await place(app, body, headers)
    assert (placed.status, placed.json["id"], placed.json["state"]) == (201, hold["id"], "active")
    assert placed.headers["Location"] == f"/v1/holds/{hold['id']}"
    assert len(await holds(app)) == 1
    assert (await place(app, body, headers)).body == placed.body


async def test_without_a_key_a_half_placed_hold_is_outcome_unknown_and_an_untouched_one_is_not(app):
    recording = await app.upload("call", sound(500))
    with out_of_reach(app.vault.keyring._engine._replicas, "survey"):
        assert (await app.hold(recording)).problem == "outcome_unknown"
    with out_of_reach(app.vault.catalog, "add_hold"):
        assert (await app.hold(recording, matter="other")).problem == "unavailable"
    assert len(await holds(app)) == 1
    await app.vault.holds.recover()
    assert [each["state"] for each in await holds(app)] == [HoldState.ACTIVE.value]


async def test_a_refusal_that_changed_nothing_is_decided_anew_and_an_outage_too(app):
    recording = await app.upload("call", sound(500))
    headers, body = key(), app.hold_body(recording, owner=" ")
    assert (await place(app, body, headers)).status == 422
    assert (await place(app, {**body, "owner": "legal"}, headers)).status == 201
    headers, body = key(), app.hold_body(recording, matter="other")
    with out_of_reach(app.vault.catalog, "add_hold"):
        assert (await place(app, body, headers)).status == 503
    assert (await place(app, body, headers)).status == 201


async def test_a_token_whose_answer_was_lost_is_named_and_not_issued_twice(app):
    headers = key()
    body = {"name": "lost", "role": "recorder", "tenant": OURS}
    with out_of_reach(app.vault.catalog, "settle_request"):
        first = await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=body, headers=headers)
    assert first.status == 201
    app.clock.advance(seconds=31)
    again = await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=body, headers=headers)
    assert (again.status, again.problem, again.json["target"]) == (409, "answer_lost", first.json["id"])
    listed = (await app.ask("GET", "/v1/tokens", Role.OPERATOR)).json["tokens"]
    assert len([each for each in listed if each["name"] == "lost"]) == 1


async def test_a_tenant_an_erasure_and_a_release_whose_answers_were_lost_are_shown(app):
    recording = await app.upload("call", sound(500))
    held = await app.hold(await app.upload("held", sound(500)))
    release = f"/v1/holds/{held.json['id']}/release"
    tenant = {"id": "eastgate", "name": "E", "controller": "E", "contact": "dpo"}
    erasure = {"basis": "art17", "case_reference": "C-1", "recordings": [recording]}
    for path, who, body in (
        ("/v1/tenants", Role.OPERATOR, tenant),
        ("/v1/erasures", Role.COMPLIANCE, erasure),
        (release, Role.COMPLIANCE, {"reason": "over"}),
    ):
        headers = key()
        with out_of_reach(app.vault.catalog, "settle_request"):
            first = await app.ask("POST", path, who, body=body, headers=headers)
        app.clock.advance(seconds=31)
        again = await app.ask("POST", path, who, body=body, headers=headers)
        assert (again.status, again.json["id"]) == (first.status, first.json["id"]), again.body
        assert again.headers.get("Location") == first.headers.get("Location"), path


async def test_an_answer_is_replayed_for_a_day_on_a_node_that_starts_later_and_lies_nowhere_in_readable_form():
    with memory_directory() as base:
        async with running(base) as app:
            headers = {**key(), "Authorization": "Bearer " + app.token(Role.OPERATOR)}
            body = {"name": "second", "role": "compliance", "tenant": OURS}
            first = await app.ask("POST", "/v1/tokens", None, body=body, headers=headers)
            text = first.json["token"]
            stored = b"".join(path.read_bytes() for path in base.rglob("*") if path.is_file())
            for secret in (text, text.split("_", 2)[2], headers["Idempotency-Key"].strip('"')):
                assert secret.encode() not in stored
            (base / "journal-2").mkdir(mode=0o700)
            second = parse_config({**SETTINGS, "journal": {**SETTINGS["journal"], "path": "journal-2"}}, base=base)
            async with open_vault(second, clock=app.clock, background=False) as vault:
                stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
                server = asyncio.create_task(serve(vault, second, stop=stop, started=started.set_result))
                async with aiohttp.ClientSession(await started, headers=headers) as client:
                    async with client.post("/v1/tokens", json=body) as again:
                        assert (again.status, await again.read()) == (first.status, first.body)
                    app.clock.advance(hours=25)
                    await vault.keyring.refresh()
                    async with client.post("/v1/tokens", json=body) as anew:
                        assert (await anew.json())["id"] != first.json["id"]
                stop.set()
                await server


async def test_an_interrupted_commit_leaves_nothing_that_a_repeat_doubles(app, monkeypatch):
    """The process fails between the act and its answer: the evidence is in the act's own transaction."""
    recording = await app.upload("call", sound(500))
    headers, body = key(), app.hold_body(recording)
    complete = app.vault.holds._decide

    async def failing(*args, **words):
        raise RuntimeError("the power went")

    monkeypatch.setattr(app.vault.holds, "_decide", failing)
    answer = await place(app, body, headers)
    assert (answer.status, answer.problem) == (503, "outcome_unknown")
    monkeypatch.setattr(app.vault.holds, "_decide", complete)
    assert (await place(app, body, headers)).json["state"] == "active"
    assert len(await holds(app)) == 1


async def test_a_shred_that_was_begun_is_outcome_unknown(app):
    with pytest.MonkeyPatch.context() as outage:

        async def unanswered(*_):
            raise Unavailable("no answer; nothing is known to be lost")

        outage.setattr(app.vault.keyring._engine, "_destroy", unanswered)
        answer = await app.ask("POST", "/v1/keys/rotate", Role.OPERATOR, headers=key())
    assert (answer.status, answer.problem) == (503, "outcome_unknown")
    assert json.loads(answer.body)["detail"].startswith("no answer; the request had begun")
