"""Several nodes of one vault, as processes: each finishes what its journal has, and nobody else's."""

import asyncio
import json
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from tests.helpers.catalogs import SteppingClock
from tests.helpers.recorder import Line, Recorder, path
from tests.helpers.seaweed import ACCESS_KEY, REGION, SECRET_KEY
from tests.helpers.server import PURPOSE, Site, make_site, session, zygote
from tests.helpers.soak import sample
from tests.helpers.streams import token_id
from tests.helpers.trail import audit_entries
from vault.certificates.audit_chain import verify_chain
from vault.keystore.keyring import Keyring
from vault.protocol.facts.parties import DEFAULT_REGION
from vault.services.recordings.search import BlindIndex, Search
from vault.storage.catalog import open_catalog
from vault.wiring.adapters import SystemClock, catalog_place, keyring_replicas, root_keys

pytestmark = pytest.mark.soak
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def processes():
    with zygote() as started:
        yield started


ON_POSTGRES = pytest.param("postgres", marks=pytest.mark.xdist_group("postgres"))
ON_A_BUCKET = pytest.param("postgres and s3", marks=pytest.mark.xdist_group("seaweed"))


@pytest.fixture(params=sample(["sqlite", ON_POSTGRES], 1, of="nodes"))
def sections(request):
    kind = request.param
    if kind == "sqlite":
        return {}
    server = request.getfixturevalue("postgres")
    catalog = {"url": server.url(asyncio.run(server.new_database()))}
    return {"catalog": catalog} if kind == "postgres" else {"catalog": catalog, "objects": bucket(request)}


def bucket(request):
    store = request.getfixturevalue("seaweed")
    s3 = {
        "bucket": f"nodes-{random.randbytes(4).hex()}",
        "endpoint": store.endpoint,
        "region": REGION,
        "allowed_regions": [REGION],
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
    }
    return {"kind": "s3", "s3": s3}


def on_each_store(of):
    return pytest.mark.parametrize("sections", sample(["sqlite", ON_POSTGRES, ON_A_BUCKET], 1, of=of), indirect=True)


def nodes_of(site: Site) -> list[Site]:
    """Return the site as each node sees it: all of it is shared but the journal."""
    found = []
    for name in NAMES:
        journal = site.directory / f"journal-{name}"
        journal.mkdir(mode=0o700)
        document = {**site.document, "journal": {**site.document["journal"], "path": str(journal)}}
        found.append(replace(site, document=document))
    return found


@pytest.fixture
def nodes(tmp_path, sections):
    return nodes_of(asyncio.run(make_site(tmp_path, server={"resume_grace": "60s", "idle_timeout": "60s"}, **sections)))


def command(site: Site, *words: str) -> tuple[int, dict, str]:
    """Run `callvault` over the site's settings; return exit code, JSON and what it said."""
    config = site.directory / "config.toml"
    lines = []
    for section, values in site.document.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    config.write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cli", *words, "--config", str(config), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


async def catalog_of(site: Site):
    return open_catalog(catalog_place(site.config), clock=SteppingClock())


async def _regions(_: str) -> list[str]:
    return [DEFAULT_REGION]


async def row_of(site: Site, key: str):
    catalog = await catalog_of(site)
    clock = SystemClock()
    keyring = await Keyring.observe(
        keyring_replicas(site.config), root_keys(site.config, clock, random.randbytes), clock=clock
    )
    try:
        index = BlindIndex(keyring=keyring)
        row = await Search(catalog=catalog, keyring=keyring, index=index, regions=_regions).call("northfield", key)
        return row, await catalog.segments(row.id) if row else []
    finally:
        await keyring.close()
        await catalog.close()


async def trail_is_whole(site: Site) -> None:
    catalog = await catalog_of(site)
    try:
        verify_chain(await audit_entries(catalog, limit=1_000_000))
    finally:
        await catalog.close()


async def durable(recorder: Recorder, key: str, size: int) -> None:
    for _ in range(400):
        async with recorder.client.head(path(key), headers=recorder.site.auth("recorder")) as answer:
            if answer.status == 200 and int(answer.headers["Upload-Offset"]) == size:
                return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{size} bytes of {key} are not durable")


@on_each_store("nodes keep their own")
async def test_each_node_keeps_its_own_calls_through_the_death_and_return_of_another(nodes, processes):
    servers = [processes.start(site) for site in nodes]
    data = [random.randbytes(90_000) for _ in nodes]
    async with session(servers[0]) as a, session(servers[1]) as b, session(servers[2]) as c:
        recorders = [Recorder(site, client) for site, client in zip(nodes, (a, b, c), strict=True)]
        lines = [Line(recorder, f"call-{n}") for n, recorder in enumerate(recorders)]
        for n, line in enumerate(lines):
            line.say(data[n][:70_000])
            await durable(recorders[n], f"call-{n}", 70_000)
        row, _ = await row_of(nodes[0], "call-0")
        for offset in ({}, {"Upload-Offset": "70000"}):
            status, headers, problem = await recorders[1].put("call-0", b"x" * 100, **offset)
            assert status == 503
            assert headers["Retry-After"]
            assert row.node in problem["detail"]
        async with b.head(path("call-0"), headers=nodes[1].auth("recorder")) as answer:
            assert answer.status == 503
        url = f"/v1/recordings/{row.id}/audio?format=raw"
        async with b.get(url, headers=nodes[1].auth("agent", **PURPOSE)) as answer:
            assert answer.status == 409
            assert row.node in (await answer.json(content_type=None))["detail"]
        servers[0].kill()
        with pytest.raises(aiohttp.ClientError):
            await lines[0].task
        # A node that starts while another one is down takes up nothing of it.
        lines[1].say(data[1][70_000:])
        assert (await lines[1].end())[0] == 201
        servers[1].terminate()
        await asyncio.to_thread(servers[1].wait)
        servers[1] = await asyncio.to_thread(processes.start, nodes[1])
        assert (await row_of(nodes[0], "call-0"))[0].state.value == "open"
        lines[2].say(data[2][70_000:])
        assert (await lines[2].end())[0] == 201
    servers[0] = await asyncio.to_thread(processes.start, nodes[0])
    async with session(servers[0]) as a, session(servers[1]) as b:
        recorder = Recorder(nodes[0], a)
        offset, state, _ = await recorder.head("call-0")
        assert (offset, state) == (70_000, "open")
        status, _, answer = await recorder.put("call-0", data[0][offset:], **{"Upload-Offset": str(offset)})
        assert status == 201, answer
        elsewhere = Recorder(nodes[1], b)
        for n in range(3):
            await elsewhere.ends_as(f"call-{n}", "sealed")
            assert await elsewhere.audio(f"call-{n}") == data[n]
    for server in servers:
        server.kill()
    await trail_is_whole(nodes[0])


async def test_a_token_that_one_node_revokes_has_ended_on_the_others_within_five_seconds(nodes, processes):
    one, two = (processes.start(site) for site in nodes[:2])
    async with session(one) as a, session(two) as b:
        recorder = Recorder(nodes[0], a)
        line = Line(recorder, "call")
        line.say(sound := random.randbytes(70_000))
        operator = nodes[0].auth("operator")
        body = {"name": "another", "role": "recorder", "tenant": "northfield"}
        async with b.post("/v1/tokens", json=body, headers=operator) as answer:
            another = await answer.json()
        await durable(recorder, "call", len(sound))  # node one has just seen the token in force
        async with asyncio.timeout(5):
            async with b.delete(f"/v1/tokens/{token_id(nodes[0].tokens['recorder'])}", headers=operator) as answer:
                assert answer.status == 204
            assert (await line.task)[0] == 401
            while True:
                async with a.head(path("call"), headers=nodes[0].auth("recorder")) as answer:
                    if answer.status == 401:
                        break
                await asyncio.sleep(0.05)
        nodes[0].tokens["recorder"] = another["token"]
        assert (await recorder.head("call"))[:2] == (len(sound), "open")
    for server in (one, two):
        server.kill()


async def test_a_dead_nodes_journal_is_finished_from_its_directory(nodes, processes):
    dead, alive = processes.start(nodes[0]), processes.start(nodes[1])
    data = random.randbytes(100_000)
    async with session(dead) as client:
        recorder = Recorder(nodes[0], client)
        line = Line(recorder, "cut-off")
        line.say(data)
        await durable(recorder, "cut-off", len(data))
        journal = nodes[0].document["journal"]["path"]
        code, _, said = await asyncio.to_thread(command, nodes[1], "journal", "recover", journal)
        assert code == 7, said
        assert f"has {journal} open" in said
        dead.kill()
        with pytest.raises(aiohttp.ClientError):
            await line.task
    row, _ = await row_of(nodes[0], "cut-off")
    code, found, said = await asyncio.to_thread(command, nodes[1], "journal", "recover", journal)
    assert code == 0, said
    assert found == {"node": row.node, "recordings": 1, "files_left": 0}
    async with session(alive) as client:
        recorder = Recorder(nodes[1], client)
        await recorder.ends_as("cut-off", "truncated")
        assert await recorder.audio("cut-off") == data
    code, found, said = await asyncio.to_thread(command, nodes[1], "journal", "status")
    assert code == 0, said
    assert row.node not in [node["id"] for node in found["nodes"]]
    assert len(found["nodes"]) == 1
    alive.kill()
    await trail_is_whole(nodes[0])


async def test_a_lost_journal_is_given_up_at_what_the_store_has(nodes, processes):
    dead, alive = processes.start(nodes[0]), processes.start(nodes[1])
    data = random.randbytes(100_000)
    async with session(dead) as client:
        line = Line(Recorder(nodes[0], client), "lost")
        line.say(data)
        for _ in range(400):
            await asyncio.sleep(0.02)
            if (await row_of(nodes[0], "lost"))[1]:
                break
        dead.kill()
        with pytest.raises(aiohttp.ClientError):
            await line.task
    row, segments = await row_of(nodes[0], "lost")
    stored = sum(ref.length for ref in segments)
    assert 0 < stored <= len(data)
    shutil.rmtree(nodes[0].document["journal"]["path"])
    code, _, said = await asyncio.to_thread(command, nodes[1], "journal", "abandon", row.node)
    assert code == 3
    assert "--yes" in said
    code, _, said = await asyncio.to_thread(command, nodes[1], "journal", "abandon", row.node, "--yes")
    assert code == 3
    assert "was seen at" in said
    catalog = await catalog_of(nodes[0])
    await catalog.beat_node(row.node, at=datetime.now(UTC) - timedelta(minutes=5), unstored_bytes=0)
    await catalog.close()
    code, found, said = await asyncio.to_thread(command, nodes[1], "journal", "abandon", row.node, "--yes")
    assert code == 0, said
    assert found["recordings"] == 1
    async with session(alive) as client:
        recorder = Recorder(nodes[1], client)
        await recorder.ends_as("lost", "truncated")
        assert await recorder.audio("lost") == data[:stored]
    alive.kill()


def shredding(tmp_path, **sections):
    return make_site(
        tmp_path,
        roles=("recorder", "agent", "auditor"),
        retention={"default": "4s", "floor": "1s", "cohort_width": "1s"},
        sweep={"enabled": True, "interval": "200ms", "jitter": "50ms"},
        keyring={"precreate_days": 0, "lease": "2s"},
        **sections,
    )


async def shredded_once(site: Site, servers, clients) -> None:
    """Record on every node and wait until each call is shredded; every one is certified once of each kind."""
    for n, client in enumerate(clients):
        for turn in range(4):
            status, _, answer = await Recorder(site, client).put(f"call-{n}-{turn}", random.randbytes(5_000))
            assert status == 201, answer
    catalog = await catalog_of(site)
    try:
        for _ in range(300):
            counts = await catalog.count_recordings()
            waiting = await catalog.undeleted_recordings(after=None, limit=100)
            if not waiting and all(not n for state, n in counts.items() if state.value != "shredded"):
                break
            await asyncio.sleep(0.1)
        assert {state.value: n for state, n in counts.items() if n} == {"shredded": 4 * len(servers)}
        certificates = await catalog.certificates(limit=1000)
        assert len(certificates) == 8 * len(servers)
        assert len({(one.recording, one.status) for one in certificates}) == len(certificates)
        assert not await catalog.unfinished_shreds()
        entries = await audit_entries(catalog, limit=100_000)
        verify_chain(entries)
        destroyed = [entry.event.detail["epoch"] for entry in entries if entry.event.event == "keyring.destroyed"]
        assert destroyed
        assert len(set(destroyed)) == len(destroyed), "two sweepers destroyed one epoch"
    finally:
        await catalog.close()


@on_each_store("sweepers")
async def test_of_several_sweepers_one_shreds_and_each_call_is_certified_once(tmp_path, sections, processes):
    nodes = await asyncio.to_thread(lambda: nodes_of(asyncio.run(shredding(tmp_path, **sections))))
    servers = [processes.start(site) for site in nodes]
    async with session(servers[0]) as a, session(servers[1]) as b, session(servers[2]) as c:
        await shredded_once(nodes[0], servers, (a, b, c))
    for server in servers:
        assert processes.ask({"do": "poll", "pid": server.pid}) == {"gone": False}
        server.kill()
