"""A flag keeps a recording at once, also during the call, and somebody hears of it however long that takes."""

import asyncio
import json
import re
import socket
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from jwcrypto import jws
from jwcrypto.common import JWException

from tests.helpers.app import PCMU, TENANTS, app, sound
from tests.helpers.flags import OURS, calling
from tests.helpers.webhooks import receiving, verified
from vault.model import Role
from vault.ports.holds import MOST_HOLDS
from vault.wiring.doctor import alert_findings

__all__ = ["app"]

DISTRESS = {"category": "distress"}


async def flag(app, recording, who=Role.AGENT, **body):
    return await app.ask("POST", f"/v1/recordings/{recording}/flag", who, body={**DISTRESS, **body})


async def flag_call(app, key, who=Role.RECORDER, **body):
    return await app.ask("POST", f"/v1/ingest/{OURS}/{key}/flag", who, body={**DISTRESS, **body})


async def listen(app, url):
    body = {"safeguarding_webhook": url}
    answer = await app.ask("PUT", f"/v1/tenants/{OURS}", Role.OPERATOR, body=body)
    assert answer.status == 200, answer.body
    return answer


async def metrics(app, name):
    lines = [line.rpartition(" ") for line in (await app.metrics()).splitlines() if line.startswith(name)]
    return {name: float(value) for name, _, value in lines}


async def found(app):
    """Return what doctor finds about alerts."""
    return await alert_findings(app.vault.catalog, app.config, now=app.clock.now())


async def test_a_recorder_flags_its_call_and_expiry_takes_the_others(app):
    async with receiving() as lead:
        await listen(app, lead.url)
        quiet = await app.upload("quiet", sound(3_000, 2))
        async with calling(app) as recording:
            answer = await flag_call(app, "live")
            assert (answer.status, answer.json["live"]) == (201, True)
            assert answer.json["alert"] in {"pending", "acknowledged"}
            assert answer.json["recording_id"] == recording
            await lead.times(1)
        app.clock.advance(days=12)
        assert (await app.sweep())["shredded"] == 1
        assert (await app.play(quiet)).status == 410
        assert (await app.play(recording)).body == sound(100_000)


async def test_the_alert_says_what_and_where_but_not_who_called(app):
    async with receiving() as lead:
        await listen(app, lead.url)
        call = await app.upload("call", sound(500), headers={"Call-From": "+442079460123", "Call-Tags": "vip"})
        flagged = await flag(app, call, category="self_harm", reason="she said she would not go on")
        await lead.times(1)
        (headers, body), key = lead.heard[0], (await app.ask("GET", "/v1/issuer-key", None)).body
        assert verified(headers, body, key)
        assert lead.messages[0] == {
            "type": "recording.flagged",
            "timestamp": flagged.json["flagged_at"],
            "data": {
                "recording_id": call,
                "hold_id": flagged.json["hold_id"],
                "tenant": OURS,
                "flagged_at": flagged.json["flagged_at"],
                "live": False,
                "category": "self_harm",
                "flagged_by": {"role": "agent", "token_name": f"agent of {OURS}"},
                "link": f"/v1/recordings/{call}",
            },
        }
        held = await app.ask("GET", f"/v1/holds/{flagged.json['hold_id']}")
        assert "would not go on" in held.json["reason"]
        assert (held.json["kind"], held.json["owner"]) == ("safeguarding", "dpo")
        # What was signed is no JWS, and no part of it changes without the signature noticing.
        assert not verified(headers, body.replace(b"self_harm", b"distress "), key)
        assert not verified({**headers, "webhook-id": "msg_" + "0" * 32}, body, key)
        assert not verified(headers, body, key, now=int(headers["webhook-timestamp"]) + 301)


async def test_the_verification_that_the_page_shows_verifies_and_refuses(app):
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    named = {}
    exec(page.split("<!-- verify:")[1].split("```python\n")[1].split("```")[0], named)
    async with receiving() as lead:
        await listen(app, lead.url)
        await flag(app, await app.upload("call", sound(500)))
        await lead.times(1)
    (headers, body), key = lead.heard[0], (await app.ask("GET", "/v1/issuer-key", None)).body
    assert named["verify"](headers, body, key) == lead.ids[0]
    for altered in (body + b" ", body.replace(b"distress", b"neglect ")):
        with pytest.raises(InvalidSignature):
            named["verify"](headers, altered, key)
    for wrong in ({"webhook-timestamp": "1780315200"}, {"webhook-signature": "v1,AAAA"}):
        with pytest.raises(ValueError, match=r"old|signature"):
            named["verify"]({**headers, **wrong}, body, key)


async def test_an_alerts_signature_is_nobodys_certificate(app):
    async with receiving() as lead:
        await listen(app, lead.url)
        await flag(app, await app.upload("call", sound(500)))
        await lead.times(1)
        headers, body = lead.heard[0]
        signature = headers["webhook-signature"].removeprefix("v1a,").rstrip("=").translate(str.maketrans("+/", "-_"))
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body.decode()}"
        head, _, rest = signed.partition(".")
        for text in (f"{signed}.{signature}", f"{head}.{rest.replace('.', '')}.{signature}"):
            try:
                jws.JWS().deserialize(text)
            except (JWException, ValueError):
                continue
            raise AssertionError("an alert parses as a JWS")


async def test_a_receiver_that_fails_is_asked_until_it_acknowledges_and_not_once_more(app):
    async with receiving() as lead:
        lead.answers = [500, 302]
        await listen(app, lead.url)
        flagged = await flag(app, await app.upload("call", sound(500)))
        await lead.times(3)
        while (await flag(app, flagged.json["recording_id"])).json["alert"] != "acknowledged":
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)
        assert len(lead.heard) == 3
        assert len(set(lead.ids)) == 1
        assert lead.ids[0].startswith("msg_")
        assert len({body for _, body in lead.heard}) == 1
        counted = await metrics(app, "callvault_alert")
        assert counted['callvault_alerts_total{outcome="failed"}'] == 2
        assert counted['callvault_alerts_total{outcome="acknowledged"}'] == 1
        assert counted["callvault_alerts_pending"] == counted["callvault_alert_oldest_seconds"] == 0
        assert len(await app.audit("flag.acknowledged")) == 1


async def test_a_receiver_that_never_answers_holds_up_neither_flags_nor_another_tenants_alert(app):
    async with receiving() as silent, receiving() as lead:
        silent.answers = [None] * 50
        await listen(app, silent.url)
        theirs = {"safeguarding_webhook": lead.url}
        assert (await app.ask("PUT", f"/v1/tenants/{TENANTS[1]}", Role.OPERATOR, body=theirs)).status == 200
        calls = [await app.upload(f"call-{each}", sound(500, each)) for each in range(3)]
        async with asyncio.timeout(5):
            for call in calls:
                assert (await flag(app, call)).json["alert"] == "pending"
            await silent.times(1)
            other = await app.upload("other", sound(500), tenant=TENANTS[1])
            path = f"/v1/recordings/{other}/flag"
            assert (await app.ask("POST", path, Role.AGENT, tenant=TENANTS[1], body=DISTRESS)).status == 201
            await lead.times(1)
        waiting = await metrics(app, "callvault_alert")
        assert waiting["callvault_alerts_pending"] >= 3
        assert waiting["callvault_alert_oldest_seconds"] > 0


async def test_a_recording_has_one_flags_hold_and_one_alert_whoever_flags_and_under_whatever_matter(app):
    async with receiving() as lead:
        await listen(app, lead.url)
        call = await app.upload("call", sound(500))
        racing = [flag(app, call, who) for who in (Role.AGENT, Role.COMPLIANCE, Role.SAFEGUARDING_LEAD) * 3]
        answers = await asyncio.gather(*racing, flag_call(app, "call"))
        assert len({answer.json["hold_id"] for answer in answers}) == 1
        assert sorted(answer.status for answer in answers) == [200] * 9 + [201]
        await lead.times(1)
        named = await flag(app, call, matter="SG-2026-014", reason="said so again")
        assert (named.status, named.json["hold_id"]) == (200, answers[0].json["hold_id"])
        raised = await app.audit("flag.raised")
        assert len(raised) == 11
        assert raised[-1]["detail"] == {
            "category": "distress",
            "live": False,
            "matter": "SG-2026-014",
            "reason": "said so again",
            "additional": True,
        }
        assert len(lead.messages) == 1


async def test_a_lead_is_told_again_of_a_recording_but_not_with_every_flag(app):
    async with receiving() as lead:
        await listen(app, lead.url)
        call = await app.upload("call", sound(500))
        await flag(app, call)
        await lead.times(1)
        while (await flag(app, call)).json["alert"] != "acknowledged":
            await asyncio.sleep(0.01)
        app.clock.advance(minutes=6)
        for category in ("threat", "abuse", "other"):
            await flag(app, call, category=category)
        await lead.times(2)
        assert len({message["data"]["hold_id"] for message in lead.messages}) == 1
        assert lead.messages[1]["data"]["category"] == "threat"


async def test_no_role_makes_the_keyring_grow_by_repeating_itself(app):
    """The page of a tenant holds one pin a part for each hold; holds on a recording are bounded."""
    call = await app.upload("call", sound(500))
    pages = [path / "pages" for path in app.config.replica_paths]

    def size():
        return max(path.stat().st_size for path in pages[0].iterdir())

    await flag(app, call)
    once = size()
    for number in range(20):
        assert (await flag(app, call, matter=f"M-{number}")).status == 200
        assert (await flag_call(app, "call")).status == 200
    assert size() == once
    statuses = [(await app.hold(call, matter=f"M-{number}")).status for number in range(MOST_HOLDS + 3)]
    assert statuses.count(201) <= MOST_HOLDS
    assert set(statuses[MOST_HOLDS:]) == {409}
    full = size()
    assert (await flag(app, call, matter="still")).status == 200
    assert (await app.hold(call, matter="M-0")).status == 409
    assert size() == full < once + 200 * MOST_HOLDS


async def test_a_flag_after_a_release_was_asked_for_is_a_new_concern(app):
    call = await app.upload("call", sound(500))
    first = (await flag(app, call)).json["hold_id"]
    asked = await app.ask("POST", f"/v1/holds/{first}/release", body={"reason": "seen to"})
    assert asked.status == 202
    again = await flag(app, call)
    assert (again.status, again.json["hold_id"] != first) == (201, True)


async def test_without_a_webhook_a_flag_keeps_and_says_that_nobody_is_told_until_one_is_set(app):
    call = await app.upload("call", sound(500))
    flagged = await flag(app, call)
    assert (flagged.status, flagged.json["alert"]) == (201, "none_configured")
    assert (await metrics(app, "callvault_alerts_pending"))["callvault_alerts_pending"] == 0
    (warning, other) = await found(app)
    assert (warning.level, OURS in warning.message, TENANTS[1] in other.message) == ("warning", True, True)
    async with receiving() as lead:
        await listen(app, lead.url)
        await lead.times(1)
        assert lead.messages[0]["data"]["recording_id"] == call
    assert OURS not in "".join(each.message for each in await found(app))


async def test_a_new_webhook_hears_at_once_what_the_old_one_refused(app):
    async with receiving() as wrong, receiving() as lead:
        wrong.answers = [404] * 50
        await listen(app, wrong.url)
        await flag(app, await app.upload("call", sound(500)))
        await wrong.times(3)
        await listen(app, lead.url)
        await lead.times(1, seconds=3)


async def test_what_the_old_webhook_answers_after_the_change_puts_the_new_one_off_no_longer(app, monkeypatch):
    settle, refused, changed = app.vault.catalog.settle_alert, asyncio.Event(), asyncio.Event()

    async def settled_late(alert, **outcome):
        if len(wrong.heard) == 3 and not changed.is_set():
            refused.set()
            await changed.wait()
        await settle(alert, **outcome)

    monkeypatch.setattr(app.vault.catalog, "settle_alert", settled_late)
    async with receiving() as wrong, receiving() as lead:
        wrong.answers = [404] * 50
        await listen(app, wrong.url)
        await flag(app, await app.upload("call", sound(500)))
        await refused.wait()
        await listen(app, lead.url)
        changed.set()
        await lead.times(1, seconds=1.5)


async def test_an_alert_an_hour_old_is_an_error_in_the_doctors_eyes(app):
    async with receiving() as lead:
        lead.answers = [500] * 500
        await listen(app, lead.url)
        await flag(app, await app.upload("call", sound(500)))
        await lead.times(1)
        app.clock.advance(hours=2)
        assert [each.level for each in await found(app)] == [
            "warning",
            "error",
        ]


async def test_a_recorder_reads_nothing_by_flagging_and_flags_no_old_call(app):
    call = await app.upload("call", sound(500), headers={"Content-Type": PCMU})
    assert (await flag(app, call, Role.RECORDER)).status == 403
    assert (await flag_call(app, "call", Role.AGENT)).status == 403
    assert (await flag_call(app, "unknown")).status == 404
    assert (await flag_call(app, "call")).status == 201
    app.clock.advance(hours=2)
    late = await flag_call(app, "call")
    assert (late.status, late.problem) == (409, "conflict")
    assert (await flag(app, call)).status == 200


async def test_of_a_call_whose_recorder_came_back_after_its_end_the_newest_recording_is_flagged(app):
    await app.upload("call", sound(500))
    async with calling(app, "call~2") as newest:
        assert (await flag_call(app, "call")).json["recording_id"] == newest


async def test_a_shredded_recording_is_too_late_and_leaves_no_alert(app):
    async with receiving() as lead:
        await listen(app, lead.url)
        call = await app.upload("call", sound(500))
        app.clock.advance(days=12)
        await app.sweep()
        late = await flag(app, call)
        assert (late.status, late.problem) == (409, "too_late")
        assert (await app.vault.catalog.alerts_waiting()).count == 0
        assert not lead.heard


async def test_an_outage_of_the_keyring_keeps_nobody_from_hearing_and_the_pin_follows(app, monkeypatch):
    from vault.errors import Unavailable  # noqa: PLC0415  # the fault of this test alone

    async with receiving() as lead:
        await listen(app, lead.url)
        call = await app.upload("call", sound(500))
        writer = type(app.vault.keyring).writer

        def down(*_):
            raise Unavailable("the keyring cannot be written")

        monkeypatch.setattr(type(app.vault.keyring), "writer", down)
        answer = await flag(app, call)
        assert (answer.status, answer.problem) == (503, "outcome_unknown")
        await lead.times(1)
        monkeypatch.setattr(type(app.vault.keyring), "writer", writer)
        again = await flag(app, call)
        assert (again.status, again.json["hold_id"]) == (200, lead.messages[0]["data"]["hold_id"])
        app.clock.advance(days=12)
        await app.sweep()
        assert (await app.play(call)).status == 200


async def test_the_webhooks_secret_is_in_no_answer_log_or_audit_entry(app, caplog):
    # A port that nobody listens on: the failure is logged.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        url = f"http://127.0.0.1:{port}/s3cret-path?key=s3cret"
        answer = await listen(app, url)
        assert answer.json["safeguarding_webhook"] == f"http://127.0.0.1:{port}"
        await flag(app, await app.upload("call", sound(500)))
        async with asyncio.timeout(5):
            while "not acknowledged" not in caplog.text:
                await asyncio.sleep(0.02)
    seen = caplog.text + repr([record.__dict__ for record in caplog.records]) + json.dumps(await app.audit())
    assert "s3cret" not in seen + repr(app.refusals)
    for path in (f"/v1/tenants/{OURS}", "/v1/tenants"):
        assert b"s3cret" not in (await app.ask("GET", path, Role.OPERATOR)).body


async def test_an_address_that_would_leak_is_refused_without_repeating_it(app):
    for url in (
        "http://alerts.example.org/x",
        "https://user:s3cret@alerts.example.org/",
        "ftp://127.0.0.1/",
        "https:///s3cret",
        "https://alerts.example.org/#s3cret",
        "https://alerts.example.org:99999/s3cret",
        "https://alerts.example.org/s3 cret",
        "https://[::1/s3cret",
    ):
        body = {"safeguarding_webhook": url}
        answer = await app.ask("PUT", f"/v1/tenants/{OURS}", Role.OPERATOR, body=body)
        assert (answer.status, answer.problem) == (422, "invalid"), url
        assert not re.search(rb"s3.?cret", answer.body)
    assert (await app.ask("PUT", f"/v1/tenants/{OURS}", Role.OPERATOR, body={})).status == 422
