"""A number in every spelling is one person's: found by a search and covered by an erasure, and nobody else's is."""

from __future__ import annotations

import asyncio

from tests.helpers.app import PCMU, PURPOSE, TENANTS, App, app, sound
from tests.helpers.recorder import until
from vault.model import Role
from vault.services.ingest import open_rows

__all__ = ["app"]

TENANT = TENANTS[0]
NUMBER = "+441632905657"
THEIRS = (
    NUMBER,
    "01632 905657",
    "+44 (0)1632 905657",
    "00441632905657",
    "tel:+44-1632-905657",
    f"sip:{NUMBER}@pbx.example.com",
    f'"Bob" <sip:{NUMBER}@pbx.example.com>',
    "01632905657@10.0.0.1",
    f"{NUMBER};tag=1",
)
SIPREC = (
    b'<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>complete</datamode>'
    b'<session session_id="hVpd7YQgRW2nD22h7q60JQ=="><sipSessionID>ab30317f1a784dc48ff824d0d3715d86</sipSessionID>'
    b"</session></recording>"
)
OTHERS = ("client:bob_1632905657", "agent 1632905657", "anonymous", "sip:alice@pbx.example.com", "60006")


async def calls(app: App, numbers: tuple[str, ...], name: str) -> list[str]:
    return [
        await app.upload(f"{name}-{at}", sound(100), headers={"Call-From": said}) for at, said in enumerate(numbers)
    ]


async def found(app: App, caller: str, *, tenant: str = TENANT) -> set[str]:
    page = await app.ask(
        "POST", "/v1/recordings/search", Role.AGENT, tenant=tenant, body={"caller": caller}, headers=PURPOSE
    )
    assert page.status == 200, page.text
    return {row["id"] for row in page.json["recordings"]}


async def test_every_spelling_of_a_number_finds_all_its_calls_and_no_other(app):
    theirs = await calls(app, THEIRS, "theirs")
    others = await calls(app, OTHERS, "others")
    for spelling in THEIRS:
        assert await found(app, spelling) == set(theirs), spelling
    for said, recording in zip(OTHERS, others, strict=True):
        assert await found(app, said) == {recording}, said
    asked = await app.ask(
        "POST", "/v1/erasures", Role.COMPLIANCE, body={"basis": "art17", "case_reference": "C", "caller": THEIRS[5]}
    )
    assert {each["id"] for each in asked.json["recordings"]} == set(theirs)
    shown = await app.ask("GET", f"/v1/recordings/{theirs[6]}", Role.AGENT, headers=PURPOSE)
    assert shown.json["call"]["caller"] == NUMBER
    assert shown.json["call"]["caller_sent"] == THEIRS[6]


async def test_no_erasure_is_about_everybody_who_withheld_the_number(app):
    await calls(app, ("anonymous", "Restricted"), "withheld")
    body = {"basis": "art17", "case_reference": "C", "caller": "withheld"}
    refused = await app.ask("POST", "/v1/erasures", Role.COMPLIANCE, body=body)
    assert refused.status == 422
    assert "many people" in refused.json["detail"]
    assert len(await found(app, "anonymous")) == 2


async def test_numbers_are_read_where_their_tenant_dials(app):
    here = await app.upload("call", sound(100), headers={"Call-From": "01 234 5678"})
    path = f"/v1/tenants/{TENANTS[1]}"
    wrong = await app.ask("PUT", path, Role.OPERATOR, body={"numbering_region": "Eire"})
    assert wrong.status == 422
    changed = await app.ask("PUT", path, Role.OPERATOR, body={"numbering_region": "ie"})
    assert changed.json["numbering_region"] == "IE"
    app.clock.advance(seconds=6)
    there = await app.upload("call", sound(100), tenant=TENANTS[1], headers={"Call-From": "01 234 5678"})
    assert await found(app, "+353 1 234 5678", tenant=TENANTS[1]) == {there}
    assert await found(app, "+35312345678") == set()
    assert await found(app, "01 234 5678") == {here}


async def test_no_change_of_region_takes_a_call_from_who_found_it_before(app):
    path = f"/v1/tenants/{TENANT}"
    headers = {"Call-From": "020 7946 0123", "Call-To": "6123 4567", "Call-Tags": "sales"}
    one = await app.upload("one", sound(100), headers=headers)

    async def everywhere():
        asked = [{"caller": said} for said in ("+44 20 7946 0123", "020 7946 0123")]
        asked += [{"called": "61234567"}, {"agent": "6123 4567"}, {"agent": "+442079460123", "tag": "sales"}]
        search = "/v1/recordings/search"
        told = [(await app.ask("POST", search, Role.AGENT, body=each, headers=PURPOSE)).json for each in asked]
        return [[each["id"] for each in page["recordings"]] for page in told]

    for region in ("IE", "SG", "FR", "GB"):
        assert (await app.ask("PUT", path, Role.OPERATOR, body={"numbering_region": region})).status == 200
        app.clock.advance(seconds=6)
        assert await everywhere() == [[one]] * 5, region
        assert (await app.ask("POST", f"{path}/reindex", Role.OPERATOR, body={})).status == 200
        assert await everywhere() == [[one]] * 5, f"{region}, reindexed"
    assert await found(app, "+353 20 7946 0123") == set(), "it was read once, and stays that number"
    body = {"basis": "art17", "case_reference": "C", "caller": "+44 20 7946 0123"}
    erasure = await app.ask("POST", "/v1/erasures", Role.DPO, body=body)
    assert [each["id"] for each in erasure.json["recordings"]] == [one]


async def test_existing_calls_are_found_in_every_spelling_once_they_are_reindexed(app, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(open_rows, "read_parties", lambda facts, _: facts)
        older = await calls(app, (*THEIRS, OTHERS[0]), "older")
    assert await found(app, NUMBER) == {older[0]}
    refused = await app.ask("POST", f"/v1/tenants/{TENANT}/reindex", Role.COMPLIANCE, body={})
    assert refused.status == 403
    done = await app.ask("POST", f"/v1/tenants/{TENANT}/reindex", Role.OPERATOR, body={})
    assert done.json == {"looked_at": len(older), "changed": len(THEIRS) - 1, "before": None}
    assert await found(app, NUMBER) == set(older[:-1])
    assert (await app.audit("admin.config"))[-1]["detail"]["recordings"] == len(THEIRS) - 1
    again = await app.ask("POST", f"/v1/tenants/{TENANT}/reindex", Role.OPERATOR, body={})
    assert again.json["changed"] == 0


async def test_a_mobile_number_of_mexico_is_one_with_its_former_prefix_and_without(app, monkeypatch):
    spellings = ("+52 1 55 1234 5678", "+52 55 1234 5678", "sip:+5215512345678@pbx.example.com")
    with monkeypatch.context() as before:
        before.setattr(open_rows, "read_parties", lambda facts, _: facts)
        older = await calls(app, ("+5215512345678",), "older")
    theirs = {*older, *await calls(app, spellings, "theirs")}
    for spelling in spellings:
        assert await found(app, spelling) == theirs, spelling
    done = await app.ask("POST", f"/v1/tenants/{TENANT}/reindex", Role.OPERATOR, body={})
    assert done.json["changed"] == 1
    assert await found(app, spellings[0]) == theirs


async def test_a_large_catalog_is_reindexed_page_by_page(app, monkeypatch):
    monkeypatch.setattr("vault.services.tenants.tenants._REINDEXED", 2)
    older = await calls(app, THEIRS[:5], "older")
    seen, before = [], None
    while True:
        page = await app.ask("POST", f"/v1/tenants/{TENANT}/reindex", Role.OPERATOR, body={"before": before})
        seen.append(page.json["looked_at"])
        before = page.json["before"]
        if before is None:
            break
        assert before in older
    assert sum(seen) == len(older)
    assert seen == [2, 2, 1]


async def test_what_is_told_late_of_a_call_takes_back_no_reindexing(app):
    more = asyncio.Event()

    async def call():
        yield sound(500)
        await more.wait()
        yield sound(500)

    headers = {"Content-Type": PCMU, "Call-From": "6123 4567"}
    live = asyncio.create_task(app.ask("PUT", f"/v1/ingest/{TENANT}/live", Role.RECORDER, data=call(), headers=headers))
    await until(lambda: app.vault.ingest.live_call(TENANT, "live"))
    path = f"/v1/tenants/{TENANT}"
    assert (await app.ask("PUT", path, Role.OPERATOR, body={"numbering_region": "SG"})).status == 200
    assert (await app.ask("POST", f"{path}/reindex", Role.OPERATOR, body={})).json["changed"] == 1
    assert len(await found(app, "+65 6123 4567")) == 1
    told = {"Content-Type": "application/rs-metadata+xml"}
    siprec = f"/v1/ingest/{TENANT}/live/siprec"
    assert (await app.ask("POST", siprec, Role.RECORDER, data=SIPREC, headers=told)).json["parsed"] is True
    assert len(await found(app, "+65 6123 4567")) == 1
    more.set()
    recording = (await live).json["recording_id"]
    shown = (await app.ask("GET", f"/v1/recordings/{recording}", Role.AGENT, headers=PURPOSE)).json["call"]
    assert (shown["caller"], shown["caller_sent"]) == ("+6561234567", "6123 4567")
    assert await found(app, "6123 4567") == {recording}
