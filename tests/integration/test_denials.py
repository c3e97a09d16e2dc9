"""Denials in the audit trail: the first of a kind at once, what repeats it counted, none swallowed, none for free."""

import asyncio
import json

import pytest

from cli.audit import parse_entries
from tests.helpers.app import TENANTS, app, out_of_reach, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.trail import audit_entries
from vault.access.permissions import Act, Why
from vault.certificates.audit_chain import verify_chain
from vault.errors import Unavailable
from vault.ids import TenantId, TokenId
from vault.model import Principal, Role
from vault.services.people.access import MOST_KINDS, WINDOW_SECONDS
from vault.wiring import open_vault

__all__ = ["app"]

OURS, THEIRS = TENANTS


def nobodys(number):
    return f"rec_{number:032x}"


def somebody(number, tenant=OURS):
    return Principal(token_id=TokenId(f"tok_{number:032x}"), name="somebody", role=Role.AGENT, tenant=TenantId(tenant))


async def test_a_thousand_denied_requests_write_a_handful_of_entries_that_count_every_one(app):
    theirs = await app.upload("call", sound(500), tenant=THEIRS)

    async def scan(part):
        for number in range(part, 1000, 20):
            identifier = theirs if number % 10 == 3 else nobodys(number)
            assert (await app.ask("GET", f"/v1/recordings/{identifier}")).status == 404

    await asyncio.gather(*(scan(part) for part in range(20)))
    await app.vault.access.denials.settle()
    first, counted = await app.audit("access.denied")
    assert first["detail"] == {"act": "recording_show", "why": "not its own"}
    detail = counted["detail"]
    assert detail.items() > first["detail"].items()
    assert (detail["count"], len(detail["targets"]), detail["different_targets"]) == (999, 5, 100)
    assert detail["first"] < detail["last"]
    assert (counted["actor"], counted["outcome"], counted["target"]) == (first["actor"], "refused", None)
    lines = "\n".join(json.dumps(entry) for entry in await app.audit())
    assert verify_chain(parse_entries(lines.encode().splitlines())).seq == counted["seq"]

    for role in Role:
        for _ in range(20):
            mine = ("GET", f"/v1/recordings/{theirs}/audio") if role is Role.OPERATOR else ("POST", "/v1/keys/rotate")
            assert (await app.ask(*mine, role)).status == 403
    await app.vault.access.denials.settle()
    entries = (await app.audit("access.denied"))[2:]
    assert sorted(entry["detail"].get("count", 1) for entry in entries) == [1] * len(Role) + [19] * len(Role)


async def test_what_repeats_nothing_is_written_at_once(app):
    for who, path, tenant in (
        (Role.COMPLIANCE, f"/v1/recordings/{nobodys(1)}", OURS),
        (Role.COMPLIANCE, f"/v1/holds/hold_{1:032x}", OURS),
        (Role.AGENT, f"/v1/recordings/{nobodys(1)}", OURS),
        (Role.COMPLIANCE, f"/v1/recordings/{nobodys(1)}", THEIRS),
        (Role.AGENT, "/v1/tokens", OURS),
    ):
        before = len(await app.audit("access.denied"))
        for _ in range(3):
            assert (await app.ask("GET", path, who, tenant=tenant)).status in (403, 404)
        assert len(await app.audit("access.denied")) == before + 1


async def test_a_refused_role_hears_which_roles_may(app):
    refused = await app.ask("GET", "/v1/keys", Role.AGENT)
    assert refused.status == 403
    assert refused.json["hint"] == "a token of one of these roles may: operator"
    held = await app.upload("held", sound(500))
    flagged = await app.ask("POST", f"/v1/recordings/{held}/flag", Role.AGENT, body={"category": "distress"})
    assert flagged.status == 201
    headers = {"Purpose": "quality"}
    refused = await app.ask("GET", f"/v1/recordings/{held}/audio", Role.AGENT, headers=headers)
    assert refused.status == 403
    assert refused.json["hint"].startswith("a hold protects this recording; ")
    assert "compliance" in refused.json["hint"]
    assert "agent" not in refused.json["hint"]


async def test_a_window_that_ends_is_one_entry_and_the_next_denial_is_a_first_one_again(app):
    denials = app.vault.access.denials
    for number in range(3):
        await app.ask("GET", f"/v1/recordings/{nobodys(number)}")
    await denials.settle(until=app.vault.clock.monotonic())
    assert len(await app.audit("access.denied")) == 1
    app.clock.slept += WINDOW_SECONDS
    await denials.settle(until=app.vault.clock.monotonic())
    counted = (await app.audit("access.denied"))[1]["detail"]
    assert (counted["count"], counted["targets"]) == (2, [nobodys(1), nobodys(2)])
    await app.ask("GET", f"/v1/recordings/{nobodys(3)}")
    assert (await app.audit("access.denied"))[2]["target"] == nobodys(3)
    await denials.settle()
    assert len(await app.audit("access.denied")) == 3


async def test_one_tenants_storm_is_bounded_and_keeps_nobody_elses_first_denial_out(app):
    denials = app.vault.access.denials
    tokens = MOST_KINDS + 100
    for number in range(tokens):
        await denials.write(somebody(number), Act.PLAY, nobodys(number), Why.NOT_ITS_OWN)
    assert len(await app.audit("access.denied")) == MOST_KINDS + 1
    await denials.write(somebody(0, THEIRS), Act.PLAY, nobodys(0), Why.NOT_ITS_OWN)
    assert (await app.audit("access.denied"))[-1]["tenant"] == THEIRS
    await denials.settle()
    together = (await app.audit("access.denied"))[-1]
    assert (together["tenant"], together["actor"]) == (OURS, "vault")
    detail = together["detail"]
    assert MOST_KINDS + 1 + detail["count"] == tokens
    assert (detail["different_tokens"], detail["acts"]) == (99, ["play"])


async def test_a_denial_that_cannot_be_written_is_counted_and_its_count_waits_for_the_catalog(app):
    denials = app.vault.access.denials
    with out_of_reach(app.vault.catalog, "append_audit"):
        assert (await app.ask("GET", f"/v1/recordings/{nobodys(0)}")).status == 503
        assert (await app.ask("GET", f"/v1/recordings/{nobodys(1)}")).status == 404
        for _ in range(2):
            with pytest.raises(Unavailable):
                await denials.settle()
        assert (await app.ask("GET", f"/v1/recordings/{nobodys(2)}")).status == 404
    assert await app.audit("access.denied") == []
    await denials.settle()
    [counted] = await app.audit("access.denied")
    assert counted["detail"]["count"] == 3


async def test_a_count_that_could_not_be_written_is_added_to_that_of_those_who_came_meanwhile(app, monkeypatch):
    denials, catalog = app.vault.access.denials, app.vault.catalog
    append = catalog.append_audit

    async def deny(number):
        await denials.write(somebody(1), Act.PLAY, nobodys(number), Why.NOT_ITS_OWN)

    async def unanswered(_):
        monkeypatch.setattr(catalog, "append_audit", append)
        for number in (4, 5):
            await deny(number)
        raise Unavailable("no answer")

    for number in (1, 2, 3):
        await deny(number)
    monkeypatch.setattr(catalog, "append_audit", unanswered)
    with pytest.raises(Unavailable):
        await denials.settle()
    assert await app.denials() == 5
    *_, counted = await app.audit("access.denied")
    assert sorted(counted["detail"]["targets"]) == [nobodys(2), nobodys(3), nobodys(5)]


async def test_what_was_counted_is_written_when_the_server_is_shut_down_in_order():
    with memory_directory() as base:
        async with running(base) as app:
            for number in range(4):
                await app.ask("GET", f"/v1/recordings/{nobodys(number)}")
        async with open_vault(app.config, clock=app.clock, background=False) as vault:
            entries = [each.event for each in await audit_entries(vault.catalog)]
    assert [each.detail.get("count", 1) for each in entries if each.event == "access.denied"] == [1, 3]


async def test_refusals_before_a_token_is_known_write_nothing(app):
    before = await app.vault.catalog.audit_head()
    stolen = app.token(Role.OPERATOR)[:-1]
    for who in (None, "cv_nonsense", stolen):
        assert (await app.ask("GET", "/v1/recordings", who)).status == 401
    assert await app.vault.catalog.audit_head() == before


async def test_denials_are_counted_by_reason_from_the_start(app):
    async def told():
        lines = (await app.ask("GET", "/metrics", None)).body.decode().splitlines()
        return [line for line in lines if line.startswith("callvault_denials_total{")]

    assert await told() == ['callvault_denials_total{why="role"} 0.0', 'callvault_denials_total{why="not its own"} 0.0']
    for _ in range(2):
        await app.ask("GET", f"/v1/recordings/{nobodys(1)}")
    await app.ask("GET", "/v1/tokens", Role.AGENT)
    assert await told() == ['callvault_denials_total{why="role"} 1.0', 'callvault_denials_total{why="not its own"} 2.0']
