"""Who must answer "who listened to this call?" asks the audit trail, and hears of its own tenant alone."""

import pytest

from tests.helpers.app import PURPOSE, TENANTS, app, sound
from vault.model import AuditEvent, Role
from vault.storage.catalog.tables import MANY_EVENTS

__all__ = ["app"]

OURS, THEIRS = TENANTS


async def asked(app, who, **filters):
    """Return the entries that match, without the way in which they are chained."""
    parts = "&".join(f"{name}={value}" for name, value in filters.items())
    answer = await app.ask("GET", f"/v1/audit?{parts}", who)
    assert answer.status == 200, answer.body
    return answer.json["entries"]


def identity(actor):
    return actor.partition(" ")[0]


async def test_who_listened_to_a_call_is_one_question(app):
    call, other = await app.upload("one", sound(500)), await app.upload("two", sound(500, 2))
    for who in (Role.AGENT, Role.COMPLIANCE):
        assert (await app.play(call, who)).status == 200
    assert (await app.play(other, Role.AGENT)).status == 200
    for role in (Role.DPO, Role.COMPLIANCE, Role.AUDITOR, Role.OPERATOR):
        heard = await asked(app, role, recording=call, event="access.play", order="newest")
        assert [entry["role"] for entry in heard] == ["compliance", "agent"]
        assert {entry["purpose"] for entry in heard} == {PURPOSE["Purpose"]}
        assert {entry["target"] for entry in heard} == {call}
    agent = identity(heard[1]["actor"])
    mine = await asked(app, Role.DPO, actor=agent, event="access.play")
    assert [entry["target"] for entry in mine] == [call, other]
    for bound, expected in (("from", [other]), ("to", [call])):
        bounded = {"actor": agent, "event": "access.play", bound: mine[1]["at"]}
        assert [entry["target"] for entry in await asked(app, Role.DPO, **bounded)] == expected


async def test_entries_that_every_recording_leaves_are_in_no_index_of_events(app):
    call = await app.upload("one", sound(500))
    assert [entry["event"] for entry in await asked(app, Role.DPO, recording=call)] == [*MANY_EVENTS]


async def test_pages_of_an_answer_go_on_from_either_end(app):
    call = await app.upload("one", sound(500))
    for _ in range(3):
        await app.play(call)
    whole = [entry["seq"] for entry in await asked(app, Role.DPO, recording=call, event="access.play")]
    for order, name, expected in (("oldest", "after", whole), ("newest", "before", whole[::-1])):
        read, place = [], ""
        while True:
            path = f"/v1/audit?recording={call}&event=access.play&order={order}&limit=2{place}"
            page = (await app.ask("GET", path, Role.DPO)).json
            read += [entry["seq"] for entry in page["entries"]]
            if len(page["entries"]) < 2:
                break
            place = f"&{name}={page[name]}"
        assert read == expected


async def test_no_question_reaches_another_tenants_entries(app):
    ours, theirs = await app.upload("one", sound(500)), await app.upload("one", sound(500), tenant=THEIRS)
    for tenant, call in ((OURS, ours), (THEIRS, theirs)):
        await app.play(call, tenant=tenant)
    [heard] = await asked(app, Role.OPERATOR, recording=theirs, event="access.play")
    for role in (Role.DPO, Role.COMPLIANCE, Role.AUDITOR):
        assert (await app.ask("GET", f"/v1/audit?recording={theirs}", role)).status == 404
        assert await asked(app, role, actor=identity(heard["actor"])) == []
        assert {entry["tenant"] for entry in await asked(app, role, order="newest", limit=1000)} == {OURS}
        assert {entry["tenant"] for entry in await asked(app, role, limit=1000)} == {OURS}
        assert (await app.ask("GET", f"/v1/audit?tenant={THEIRS}", role)).status == 404
    assert {entry["tenant"] for entry in await asked(app, Role.OPERATOR, tenant=THEIRS)} == {THEIRS}
    whole = await asked(app, Role.OPERATOR, limit=1000)
    assert {entry["tenant"] for entry in whole} == {OURS, THEIRS, None}


async def test_a_safeguarding_lead_hears_who_listened_to_what_its_holds_keep_and_no_more(app):
    held, other = await app.upload("one", sound(500)), await app.upload("two", sound(500, 2))
    for call, kind in ((held, "safeguarding"), (other, "legal")):
        assert (await app.hold(call, kind=kind)).status == 201
        await app.play(call)
    lead = Role.SAFEGUARDING_LEAD
    heard = await asked(app, lead, recording=held)
    assert "access.play" in {entry["event"] for entry in heard}
    assert {entry["target"] for entry in heard} == {held}
    theirs = await app.upload("one", sound(500), tenant=THEIRS)
    assert (await app.hold(theirs, tenant=THEIRS, kind="safeguarding")).status == 201
    beyond = (("", 403), (f"?recording={other}", 403), ("?event=access.play", 403), (f"?recording={theirs}", 404))
    for question, status in beyond:
        before = await app.denials()
        assert (await app.ask("GET", f"/v1/audit{question}", lead)).status == status
        assert await app.denials() == before + 1


async def test_an_event_that_does_not_exist_is_named_with_the_nearest_and_one_of_earlier_versions_is_found(app):
    for name, near in (("acces.play", "access.play"), ("hold.create", "hold.created"), ("zzz", "begin with: access, ")):
        answer = await app.ask("GET", f"/v1/audit?event={name}", Role.DPO)
        assert (answer.status, answer.problem) == (422, "invalid")
        assert f"no event {name}" in answer.json["detail"]
        assert near in answer.json["hint"]
    assert await asked(app, Role.DPO, event="shred.done") == []
    await app.vault.trail.note(AuditEvent(event="earlier.act", actor="vault", outcome="ok"))
    assert len(await asked(app, Role.OPERATOR, event="earlier.act")) == 1


@pytest.mark.parametrize(
    "wrong",
    ["recording=rec_1", "actor=Asha", "event=access.*", "from=yesterday", "order=newest&after=3", "before=3", "x=1"],
)
async def test_a_question_that_cannot_be_asked_is_refused(app, wrong):
    answer = await app.ask("GET", f"/v1/audit?{wrong}", Role.DPO)
    assert (answer.status, answer.problem) == (422, "invalid")
