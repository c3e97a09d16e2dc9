"""Calls are found by what people know of them, within their tenant, and by facts only who may see facts."""

from datetime import timedelta

import pytest

from tests.helpers.app import PURPOSE, TENANTS, app, sound
from tests.helpers.flags import calling
from tests.helpers.tenants import metadata_kept
from vault.model import Role

__all__ = ["app"]

OURS, THEIRS = TENANTS
SECOND = 8_000


async def found(app, who=Role.COMPLIANCE, tenant=OURS, purpose=True, **asked):
    """Return the ids of the calls that a search finds."""
    headers = PURPOSE if purpose else {}
    answer = await app.ask("POST", "/v1/recordings/search", who, tenant=tenant, body=asked, headers=headers)
    assert answer.status == 200, answer.body
    return [each["id"] for each in answer.json["recordings"]]


async def shown(app, recording):
    return (await app.ask("GET", f"/v1/recordings/{recording}")).json


async def test_the_end_of_a_call_is_not_that_of_its_upload(app):
    begun = app.clock.now() - timedelta(hours=5)
    stated = {"Call-Started": begun.isoformat()}
    later = await shown(app, await app.upload("later", sound(90 * SECOND), headers=stated))
    assert later["duration_ms"] == 90_000
    ended = begun + timedelta(seconds=90)
    assert later["ended_at"] == ended.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert later["finished_at"] > later["ended_at"]
    opaque = b"ID3" + sound(5_000)
    unknown = await shown(app, await app.upload("mp3", opaque, media="audio/mpeg", headers=stated))
    assert (unknown["ended_at"], unknown["duration_ms"]) == (None, None)
    assert unknown["finished_at"] is not None
    spoken = await shown(app, await app.upload("spoken", opaque, media="audio/mpeg"))
    assert spoken["ended_at"] == spoken["finished_at"]


async def test_a_call_is_found_by_whatever_its_recorder_calls_it(app):
    odd = "5f3c@[2001:db8::1]"
    first = await app.upload(odd.replace("[", "%5B").replace("]", "%5D"), sound(500))
    plain = await app.upload("call-1", sound(500, 2))
    again = await app.upload("call-1~2", sound(500, 3))
    theirs = await app.upload("call-1", sound(500), tenant=THEIRS)
    assert await found(app, call_key=odd) == [first]
    assert await found(app, call_key="call-1") == [again, plain]
    assert await found(app, call_key="call-1~2") == [again]
    assert await found(app, tenant=THEIRS, call_key="call-1") == [theirs]
    assert await found(app, call_key="call") == []
    assert await found(app, call_key="call-1", state="shredded") == []
    assert (await app.audit("access.search"))[-1]["detail"] == {"by": "call_key"}


async def test_a_call_is_found_by_the_agent_on_this_side_and_by_its_direction(app):
    agent, other = "sip:201@pbx.example.com", "+441632960001"

    async def call(key, caller, called, **more):
        return await app.upload(key, sound(500), headers={"Call-From": caller, "Call-To": called, **more})

    taken = await call("a", other, agent, **{"Call-Direction": "inbound", "Call-Tags": "sales"})
    made = await call("b", agent, other, **{"Call-Direction": "outbound"})
    rang = await call("c", agent, other, **{"Call-Direction": "inbound"})  # another's: this one was the caller of it
    unsaid = await call("d", agent, other)
    assert await found(app, agent="201@pbx.example.com") == [unsaid, made, taken]
    assert await found(app, agent=agent, direction="inbound") == [taken]
    assert await found(app, direction="inbound") == [rang, taken]
    assert await found(app, direction="inbound", tag="sales", limit=1) == [taken]
    assert await found(app, agent=agent, before=unsaid, limit=1) == [made]
    assert await found(app, tenant=THEIRS, agent=agent) == []


async def test_a_call_is_found_by_size_by_length_and_by_when_it_goes(app):
    short, long = await app.upload("s", sound(2 * SECOND)), await app.upload("l", sound(40 * SECOND))
    await app.upload("l", sound(40 * SECOND), tenant=THEIRS)
    assert await found(app, min_duration="30s") == [long]
    assert await found(app, max_duration="2s") == [short]
    assert await found(app, min_bytes=2 * SECOND, max_bytes=2 * SECOND) == [short]
    goes = (await shown(app, short))["retain_until"]
    beyond = (app.clock.now() + timedelta(days=400)).isoformat()
    assert await found(app, expires_to=goes) == []
    assert await found(app, expires_from=goes, expires_to=beyond) == [short, long], "what goes first comes first"
    assert await found(app, expires_from=goes, before=short) == [long]
    await app.hold(short)
    assert await found(app, expires_to=beyond, held=False) == [long]
    over_all = await app.ask("POST", "/v1/recordings/search", Role.OPERATOR, body={"min_bytes": 1})
    assert (over_all.status, over_all.problem) == (422, "invalid")


async def test_live_calls_are_found_as_they_are_shown(app):
    await app.upload("over", sound(500))
    async with calling(app) as live:
        assert await found(app, state="live", purpose=False) == [live]
        assert await found(app, state="open", purpose=False) == [live]
        assert (await app.ask("GET", "/v1/recordings?state=live")).json["recordings"][0]["live"] is True
        assert await found(app, tenant=THEIRS, state="live") == []
        assert await found(app, state="live", call_key="live") == [live]
    assert await found(app, state="live") == []


@pytest.mark.parametrize("what", [{"call_key": "a"}, {"agent": "201"}, {"direction": "inbound"}])
async def test_who_may_not_see_facts_finds_nothing_by_them(app, what):
    await app.upload("a", sound(500), headers={"Call-To": "201", "Call-Direction": "inbound"})
    for role in (Role.OPERATOR, Role.AUDITOR, Role.RECORDER):
        body = {**what, "tenant": OURS}
        assert (await app.ask("POST", "/v1/recordings/search", role, body=body, headers=PURPOSE)).status == 403
    unsaid = await app.ask("POST", "/v1/recordings/search", body=what)
    assert (unsaid.status, unsaid.problem) == (422, "invalid")
    theirs = await app.ask("POST", "/v1/recordings/search", body={**what, "tenant": THEIRS}, headers=PURPOSE)
    assert theirs.status == 404


async def test_what_a_hold_keeps_is_found_when_the_index_of_its_month_is_gone(app):
    facts = {"Call-From": "+442079460123", "Call-To": "201", "Call-Direction": "inbound"}
    held, gone = [await app.upload(key, sound(40 * SECOND), headers=facts) for key in ("held", "gone")]
    await app.hold(held)
    theirs = await app.upload("theirs", sound(SECOND), tenant=THEIRS)
    app.clock.advance(days=40)
    newer = await app.upload("newer", sound(SECOND), headers=facts)
    await metadata_kept(app.vault, OURS, days=1)
    await app.sweep()
    assert (await shown(app, gone))["state"] == "shredded"
    assert await found(app, call_key="held") == [held]
    assert await found(app, agent="201") == [newer, held]
    assert await found(app, agent="201", before=newer) == [held]
    assert await found(app, caller="+442079460123", min_duration="30s", min_bytes=1) == [held]
    beyond = (app.clock.now() + timedelta(days=400)).isoformat()
    assert await found(app, agent="201", expires_to=beyond) == [held, newer]
    assert await found(app, agent="201", expires_to=beyond, before=held) == [newer]
    for last in (newer, theirs, f"rec_{'0' * 32}"):
        assert await found(app, agent="201", expires_to=beyond, before=last) == []
    others = {"state": "open", "held": False, "max_duration": "30s", "max_bytes": 9, "direction": "outbound"}
    for name, value in others.items():
        assert await found(app, call_key="held", **{name: value}) == []


async def test_a_search_has_the_order_of_the_list_and_pages_lose_nothing(app):
    facts = {"Call-From": "+442079460123", "Call-To": "201", "Call-Direction": "inbound"}
    began = [app.clock.now() - timedelta(hours=each) for each in (0, 2, 1)]
    ids = [
        await app.upload(f"k{number}", sound(SECOND), headers={**facts, "Call-Started": at.isoformat()})
        for number, at in enumerate(began)
    ]
    by_start = [ids[0], ids[2], ids[1]]
    assert await found(app, purpose=False) == by_start
    for sought in ({"caller": facts["Call-From"]}, {"agent": "201"}, {"direction": "inbound"}):
        assert await found(app, **sought) == by_start
        seen, before = [], {}
        while page := await found(app, **sought, **before, limit=1):
            seen += page
            before = {"before": page[-1]}
        assert seen == by_start
