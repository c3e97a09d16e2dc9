"""What people are shown: names beside tokens, an id by its beginning where one only reads, one word for one thing."""

import pytest

from tests.helpers.app import PURPOSE, TENANTS, app, sound
from tests.helpers.routes import things
from vault.model import Role

__all__ = ["app"]

OURS, THEIRS = TENANTS


async def test_names_stand_beside_the_tokens_of_who_acted(app):
    held = (await app.hold(await app.upload("held", sound(500)))).json
    names = {each["id"]: each["name"] for each in (await app.ask("GET", "/v1/tokens", Role.OPERATOR)).json["tokens"]}
    assert held["placed_by_name"] == names[held["placed_by"]]
    assert (held["released_by"], held["released_by_name"]) == (None, None)
    asked = await app.ask("POST", f"/v1/holds/{held['id']}/release", Role.DPO, body={"reason": "settled"})
    assert asked.json["release_requested_by_name"] == names[asked.json["release_requested_by"]]
    body = {"basis": "art17", "case_reference": "DSR-1", "recordings": [await app.upload("unwanted", sound(500, 2))]}
    erasure = (await app.ask("POST", "/v1/erasures", body=body)).json
    assert erasure["requested_by_name"] == names[erasure["requested_by"]]
    for path, name in (("holds", "holds"), ("erasures", "erasures")):
        [listed] = (await app.ask("GET", f"/v1/{path}")).json[name]
        acted = {each: listed[each] for each in listed if each.endswith("_by_name")}
        assert acted
        assert acted.items() <= (asked.json if path == "holds" else erasure).items()


async def test_what_only_reads_takes_the_beginning_of_an_id(app):
    ours, theirs = await things(app, OURS), await things(app, THEIRS)
    paths = {"recordings": "recording", "holds": "hold", "certificates": "certificate", "erasures": "erasure"}
    for path, noun in {**paths, "policies": "policy"}.items():
        whole, foreign = getattr(ours, noun), getattr(theirs, noun)
        found = await app.ask("GET", f"/v1/{path}/{whole[:-4]}")
        assert (found.status, found.json["id"]) == (200, whole), path
        assert (await app.ask("GET", f"/v1/{path}/{foreign[:-4]}")).status == 404
        assert (await app.ask("GET", f"/v1/{path}/{whole.partition('_')[0]}_0123")).status == 404, "too short to be one"
    assert (await app.ask("GET", f"/v1/recordings/{ours.recording[:-1]}/why")).json["id"] == ours.recording
    assert (await app.audit("access.metadata"))[-1]["target"] == ours.recording


async def test_a_beginning_of_several_ids_names_the_callers_own_and_no_other(app):
    mine = [await app.upload(f"call-{n}", sound(500)) for n in range(2)]
    theirs = await app.upload("call", sound(500), tenant=THEIRS)
    common = mine[0][:12]
    assert all(each.startswith(common) for each in (*mine, theirs)), "made within a minute"
    told = await app.ask("GET", f"/v1/recordings/{common}")
    assert (told.status, told.problem) == (422, "invalid")
    assert all(each in told.json["detail"] for each in mine)
    assert theirs not in told.json["detail"]


@pytest.mark.parametrize("act", ["pause", "flag"])
async def test_what_acts_takes_whole_ids_alone(app, act):
    call = await app.upload("call", sound(500))
    body = {"category": "other"} if act == "flag" else {}
    refused = await app.ask("POST", f"/v1/recordings/{call[:-1]}/{act}", body=body)
    assert (refused.status, refused.json["hint"][:17]) == (404, "give the whole id")
    assert (await app.hold(call[:-1])).status == 404


async def test_one_word_stands_for_one_thing_and_the_former_one_is_still_sent_and_taken(app):
    call = await app.upload("call", sound(500))
    for path in ("why", "notes"):
        answer = (await app.ask("GET", f"/v1/recordings/{call}/{path}", headers=PURPOSE)).json
        assert answer["id"] == answer["recording_id"] == call
    hold = (await app.hold(call)).json
    again = app.hold_body()["review_at"]
    path = f"/v1/holds/{hold['id']}/review"
    for name in ("review_at", "next_review"):
        assert (await app.ask("POST", path, body={name: again, "note": "looked"})).status == 200
    for wrong in ({}, {"review_at": again, "next_review": again}):
        refused = await app.ask("POST", path, body={**wrong, "note": "looked"})
        assert (refused.status, refused.problem) == (422, "invalid")
