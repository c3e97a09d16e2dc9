"""A clock that steps a hundred days ahead or back: nothing is shredded, nothing lives shorter, two people decide."""

import asyncio
import hashlib
import random
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from tests.helpers.load import CONTENT_TYPE
from tests.helpers.server import PURPOSE, TENANT, in_process, make_site
from vault.wiring import SystemClock

STEP = timedelta(days=100)


class SteppedClock(SystemClock):
    """The machine's clock with a wall that a test moves; the monotonic one never steps."""

    def __init__(self):
        self.offset = timedelta(0)

    def now(self):
        return super().now() + self.offset


class World:
    """One served vault under a clock that steps."""

    def __init__(self, site, client, vault, clock):
        self.site = site
        self.client = client
        self.vault = vault
        self.clock = clock

    async def record(self, key):
        data = random.randbytes(5_000)
        headers = self.site.auth("recorder", **CONTENT_TYPE)
        async with self.client.put(f"/v1/ingest/{TENANT}/{key}", data=data, headers=headers) as answer:
            receipt = await answer.json()
            assert (answer.status, receipt["sha256"]) == (201, hashlib.sha256(data).hexdigest())
        return receipt["recording_id"], data

    async def audio(self, recording):
        url = f"/v1/recordings/{recording}/audio?format=raw"
        async with self.client.get(url, headers=self.site.auth("agent", **PURPOSE)) as answer:
            return answer.status, await answer.read()

    async def retain_until(self, recording):
        async with self.client.get(f"/v1/recordings/{recording}", headers=self.site.auth("agent")) as answer:
            assert answer.status == 200
            return datetime.fromisoformat((await answer.json())["retain_until"])

    async def post(self, target, body, *, role="operator"):
        async with self.client.post(target, json=body, headers=self.site.auth(role)) as answer:
            return answer.status, await answer.json()

    async def sweep(self):
        return await self.post("/v1/sweeps", {})

    async def events(self):
        async with self.client.get("/v1/audit?limit=1000", headers=self.site.auth("operator")) as answer:
            assert answer.status == 200
            return [(entry["event"], entry["outcome"]) for entry in (await answer.json())["entries"]]


@pytest.fixture
async def world(tmp_path):
    clock = SteppedClock()
    roles = ("recorder", "agent", "compliance", "dpo")
    site = await make_site(tmp_path, clock=clock, roles=roles, retention={"default": "90d"})
    async with in_process(site, clock=clock) as (vault, url), aiohttp.ClientSession(url) as client:
        yield World(site, client, vault, clock)


async def test_a_clock_far_ahead_shreds_nothing_until_two_operators_vouch_for_it(world):
    recording, data = await world.record("call")
    world.clock.offset = STEP
    status, problem = await world.sweep()
    assert (status, problem["title"]) == (409, "guard tripped")
    assert ("sweep.tripped", "refused") in await world.events()
    assert await world.audio(recording) == (200, data)

    through = (world.clock.now() + timedelta(hours=1)).isoformat()
    status, override = await world.post("/v1/sweeps/overrides", {"through": through, "reason": "the clock is right"})
    assert status == 202
    approve = f"/v1/sweeps/overrides/{override['id']}/approve"
    assert (await world.sweep())[0] == 409
    seen = {"shown": override["shown"]}
    assert (await world.post(approve, {}, role="operator2"))[0] == 422, "approved unseen"
    assert (await world.post(approve, seen))[0] == 403
    assert (await world.sweep())[0] == 409
    assert await world.audio(recording) == (200, data)

    assert (await world.post(approve, seen, role="operator2"))[0] == 200
    status, report = await world.sweep()
    assert (status, report["shredded"]) == (200, 1)
    assert (await world.audio(recording))[0] == 410


async def test_a_clock_that_comes_back_from_far_ahead_leaves_no_trace_on_older_recordings(world):
    recording, data = await world.record("before")
    due = await world.retain_until(recording)
    world.clock.offset = STEP
    assert (await world.sweep())[0] == 409
    meanwhile, others = await world.record("meanwhile")
    world.clock.offset = timedelta(0)
    status, report = await world.sweep()
    assert (status, report["shredded"]) == (200, 0)
    assert await world.audio(recording) == (200, data)
    assert await world.audio(meanwhile) == (200, others)
    assert await world.retain_until(recording) == due
    assert await world.retain_until(meanwhile) >= datetime.now(UTC) + timedelta(days=89)
    after, more = await world.record("after")
    assert await world.audio(after) == (200, more)
    assert timedelta(days=89) < await world.retain_until(after) - datetime.now(UTC) < timedelta(days=91)


async def test_a_clock_far_back_shortens_no_retention_and_shreds_nothing(world):
    before, data = await world.record("before")
    last = world.vault.keyring.last_sweep_at
    world.clock.offset = -STEP
    meanwhile, others = await world.record("meanwhile")
    assert await world.retain_until(meanwhile) >= last + timedelta(days=90)
    status, report = await world.sweep()
    assert (status, report["shredded"]) == (200, 0)
    assert world.vault.keyring.last_sweep_at >= last
    world.clock.offset = timedelta(0)
    status, report = await world.sweep()
    assert (status, report["shredded"]) == (200, 0)
    for recording, audio in ((before, data), (meanwhile, others)):
        assert await world.audio(recording) == (200, audio)
    assert ("sweep.tripped", "refused") not in await world.events()


async def test_a_restart_under_a_stepped_clock_shreds_nothing_either(tmp_path):
    clock = SteppedClock()
    site = await make_site(tmp_path, clock=clock, retention={"default": "90d"})
    async with in_process(site, clock=clock) as (vault, url), aiohttp.ClientSession(url) as client:
        recording, data = await World(site, client, vault, clock).record("call")
    for offset, outcome in ((STEP, 409), (-STEP, 200), (timedelta(0), 200)):
        clock.offset = offset
        async with in_process(site, clock=clock) as (vault, url), aiohttp.ClientSession(url) as client:
            world = World(site, client, vault, clock)
            assert (await world.sweep())[0] == outcome
            assert await world.audio(recording) == (200, data)


async def test_an_interrupted_call_outlives_a_clock_step_until_its_grace_ends(tmp_path):
    clock = SteppedClock()
    site = await make_site(tmp_path, clock=clock, server={"resume_grace": "30s"})
    data = random.randbytes(20_000)

    async def half():
        yield data[:10_000]
        await asyncio.sleep(0.2)  # until it is durable
        raise ConnectionError

    async with in_process(site, clock=clock) as (_, url), aiohttp.ClientSession(url) as client:
        headers = site.auth("recorder", **CONTENT_TYPE)
        target = f"/v1/ingest/{TENANT}/call"
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await client.put(target, data=half(), headers=headers)
        for clock.offset in (STEP, -STEP, timedelta(0)):
            async with client.head(target, headers=headers) as answer:
                assert (answer.headers["Upload-Offset"], answer.headers["Recording-State"]) == ("10000", "open")
        clock.offset = STEP
        headers["Upload-Offset"] = "10000"
        async with client.put(target, data=data[10_000:], headers=headers) as answer:
            assert answer.status == 201
            assert (await answer.json())["sha256"] == hashlib.sha256(data).hexdigest()


async def test_a_clock_far_back_shortens_no_grace_no_notice_and_no_export_window(world):
    held, data = await world.record("held")
    last = world.vault.keyring.last_sweep_at
    review = (datetime.now(UTC) + timedelta(days=400)).isoformat()
    words = {"kind": "legal", "matter": "M", "reason": "r", "authority": "a", "owner": "o", "review_at": review}
    status, hold = await world.post("/v1/holds", {**words, "recordings": [held]}, role="compliance")
    assert status == 201
    world.clock.offset = -STEP
    status, asked = await world.post(f"/v1/holds/{hold['id']}/release", {"reason": "settled"}, role="compliance")
    assert status == 202
    approve = f"/v1/holds/{hold['id']}/approve"
    status, released = await world.post(approve, {"shown": asked["shown"]}, role="dpo")
    assert status == 200
    assert datetime.fromisoformat(released["grace_until"]) >= last + timedelta(days=14)
    status, asked = await world.post("/v1/policies", {"metadata_retention": "9y"}, role="dpo")
    assert status == 202
    status, decided = await world.post(
        f"/v1/policies/{asked['id']}/approve", {"shown": asked["shown"]}, role="compliance"
    )
    assert status == 200
    assert datetime.fromisoformat(decided["takes_effect_at"]) >= last + timedelta(days=14)
    status, asked = await world.post(f"/v1/tenants/{TENANT}/offboard", {}, role="dpo")
    assert status == 202
    shown = {"shown": asked["offboarding"]["shown"]}
    status, leaving = await world.post(f"/v1/tenants/{TENANT}/offboard/approve", shown, role="operator2")
    assert status == 200
    assert datetime.fromisoformat(leaving["offboarding"]["goes_from"]) >= last + timedelta(days=30)
    assert (await world.sweep())[1]["shredded"] == 0
    assert await world.audio(held) == (200, data)
