"""The drill: a real server loses its catalog and its objects, and every backup ever taken brings all survivors back."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from tests.helpers.crashing import memory_directory
from tests.helpers.server import Site, bearer, document, log_of, make_site, session, zygote
from tests.helpers.soak import sample
from vault.model import RecordingState
from vault.ports.recordings import RecordingQuery
from vault.storage.catalog.catalog import open_catalog
from vault.wiring import SystemClock
from vault.wiring.adapters import observe_keyring

SHORT, LONG = "northfield", "southgate"
PCMU = {"Content-Type": "audio/PCMU;rate=8000;channels=1"}
PURPOSE = {"Purpose": "quality"}
SETTINGS = document(
    retention={"default": "3s", "floor": "1s", "cohort_width": "1s", "release_grace": "1s"},
    segments={"max_bytes": "64KiB", "max_age": "300ms"},
    sweep={"enabled": False, "max_jump": "1d"},
    server={"finish_wait": "5s", "resume_grace": "1s"},
    keyring={"lease": "2s"},
)
ROOT = Path(__file__).parents[2]


def write_config(site: Site) -> Path:
    """Write the site's settings where the command finds them."""
    path = site.directory / "config.toml"
    lines = []
    for section, settings in site.document.items():
        lines += [f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in settings.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def command(site: Site, *words: str) -> dict:
    """Run callvault as a process of its own; return its JSON."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cli", *words, "--config", str(site.directory / "config.toml"), "--json"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


class Drill:
    """The server's callers and holders, and what each recording is."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.audio: dict[str, bytes] = {}
        self.tenant_of: dict[str, str] = {}
        self.held: list[str] = []
        self.tokens: dict[tuple[str, str], str] = {}

    async def appoint(self, client: aiohttp.ClientSession) -> None:
        await self.ask(
            client, "POST", "/v1/tenants",
            {"id": LONG, "name": LONG, "controller": "S", "contact": "dpo", "retention": "90d"},
        )  # fmt: skip
        for tenant in (SHORT, LONG):
            for role in ("recorder", "compliance"):
                made = await self.ask(client, "POST", "/v1/tokens", {"name": role, "role": role, "tenant": tenant})
                self.tokens[tenant, role] = made["token"]

    async def ask(self, client, method, path, body, token=None):
        headers = bearer(token or self.site.tokens["operator"])
        async with client.request(method, path, json=body, headers=headers) as answer:
            assert answer.status in (200, 201), await answer.text()
            return await answer.json()

    async def record(self, client, tenant: str, key: str, size: int = 40_000) -> str:
        data = random.Random(key).randbytes(size)
        headers = bearer(self.tokens[tenant, "recorder"], **PCMU)
        async with client.put(f"/v1/ingest/{tenant}/{key}", data=data, headers=headers) as answer:
            assert answer.status == 201, await answer.text()
            recording = (await answer.json())["recording_id"]
        self.audio[recording], self.tenant_of[recording] = data, tenant
        return recording

    async def hold(self, client, recording: str) -> str:
        body = {
            "kind": "legal", "matter": "SMITH-2026", "reason": "claim", "authority": "counsel", "owner": "legal",
            "review_at": "2099-01-01T00:00:00Z", "recordings": [recording],
        }  # fmt: skip
        made = await self.ask(client, "POST", "/v1/holds", body, self.tokens[self.tenant_of[recording], "compliance"])
        self.held.append(recording)
        return made["id"]

    async def sweep(self, client) -> int:
        return (await self.ask(client, "POST", "/v1/sweeps", {}))["shredded"]

    async def play(self, client, recording: str) -> tuple[int, bytes]:
        headers = bearer(self.tokens[self.tenant_of[recording], "compliance"], **PURPOSE)
        async with client.get(f"/v1/recordings/{recording}/audio?format=raw", headers=headers) as answer:
            return answer.status, await answer.read()


async def back_up(drill: Drill) -> tuple[str, set[str]]:
    """Return a backup's id, and the finished recordings it has."""
    known = set(drill.audio)
    made = await asyncio.to_thread(command, drill.site, "backup", "create", str(drill.site.directory / "b"))
    return made["backup"], known


async def live(drill: Drill, process) -> tuple[list[tuple[str, set[str]]], set[str]]:
    """Run the server through calls, holds, backups and sweeps, then kill it; return the backups and the survivors."""
    site, backups = drill.site, []
    server = process.start(site)
    async with session(server) as client:
        await drill.appoint(client)
        kept = [await drill.record(client, LONG, f"long-{n}", 150_000) for n in range(3)]
        short = [await drill.record(client, SHORT, f"short-{n}") for n in range(3)]
        await drill.hold(client, short[0])
        backed_up = asyncio.Event()
        upload = asyncio.create_task(long_call(drill, client, "under-way", backed_up))
        backups.append(await back_up(drill))
        backed_up.set()
        kept.append(await upload)
        kept += [await drill.record(client, LONG, f"middle-{n}") for n in range(2)]
        short += [await drill.record(client, SHORT, f"middle-short-{n}") for n in range(2)]
        await until_shredded(drill, client, len(short) - 1)
        backups.append(await back_up(drill))
        kept += [await drill.record(client, LONG, f"last-{n}") for n in range(2)]
        late = await drill.record(client, SHORT, "late-held")
        await drill.hold(client, late)
    assert server.kill() == -9
    return backups, {*kept, short[0], late}


async def long_call(drill: Drill, client, key: str, end: asyncio.Event) -> str:
    """Talk from before a backup until after it."""
    speech = random.Random(key)
    data = bytearray()

    async def talk():
        while not end.is_set():
            data.extend(speech.randbytes(4_000))
            yield bytes(data[-4_000:])
            await asyncio.sleep(0.2)

    headers = bearer(drill.tokens[LONG, "recorder"], **PCMU)
    async with client.put(f"/v1/ingest/{LONG}/{key}", data=talk(), headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        recording = (await answer.json())["recording_id"]
    drill.audio[recording], drill.tenant_of[recording] = bytes(data), LONG
    return recording


async def until_shredded(drill: Drill, client, count: int) -> None:
    end = time.monotonic() + 20
    gone = 0
    while (gone := gone + await drill.sweep(client)) < count:
        assert time.monotonic() < end, f"{gone} of {count} were shredded"
        await asyncio.sleep(0.3)


async def check(drill: Drill, site: Site, process, survivors: set[str]) -> None:
    """Serve what was restored and hold it to everything that is true."""
    server = process.start(site)
    async with session(server) as client:
        for recording, data in drill.audio.items():
            status, played = await drill.play(client, recording)
            if recording in survivors:
                assert (status, played) == (200, data), f"{recording}: {status}; {log_of(site)}"
            else:
                assert status in (404, 410), recording
        again = await drill.record(client, LONG, f"after-{random.getrandbits(64)}")
        assert await drill.play(client, again) == (200, drill.audio[again])
        await drill.sweep(client)
        for recording in drill.held:
            assert (await drill.play(client, recording))[0] == 200, "a hold outlives every restore"
    server.terminate()
    assert server.wait() == 0
    del drill.audio[again]
    await leaves_are_unique(site)


async def leaves_are_unique(site: Site) -> None:
    catalog = open_catalog(site.config.catalog_path, clock=SystemClock())
    keyring = await observe_keyring(site.config, SystemClock())
    rows = await catalog.recordings(RecordingQuery(limit=1000))
    await catalog.close()
    places = [each for row in rows for each in (row.audio, row.metadata)]
    assert len(places) == len(set(places))
    for row in rows:
        assert (row.state is not RecordingState.SHREDDED) or not keyring.derivable(row.audio)


@pytest.mark.soak
@pytest.mark.parametrize("objects", sample(["lost", "kept"], 1, of="drill"))
async def test_every_backup_brings_all_survivors_back_and_nothing_that_was_shredded(objects):
    with memory_directory() as base, zygote() as process:
        directory = base / "vault"
        directory.mkdir()
        drill = Drill(await make_site(directory, roles=(), **SETTINGS))
        write_config(drill.site)
        backups, survivors = await live(drill, process)
        assert len(survivors) == 10
        proof = await asyncio.to_thread(command, drill.site, "prove", "restore", str(directory / "b"), backups[0][0])
        assert (proof["readable"], proof["unfinished"], proof["shredded_and_gone"]) == (4, 1, 2)
        for number, (backup, known) in enumerate(sample(backups, 1, of="backups")):
            site = Site(directory=base / f"again-{number}", document=drill.site.document, tokens=drill.site.tokens)
            shutil.copytree(directory, site.directory)
            lose(site, known if objects == "lost" else set())
            found = await asyncio.to_thread(command, site, "backup", "restore", str(site.directory / "b"), backup)
            assert found["unreadable"] == found["holds_too_late"] == 0
            assert found["holds_rebuilt"] == 1, "the hold that was placed after both backups"
            assert found["surviving"] == len(survivors)
            await check(drill, site, process, survivors)


def lose(site: Site, recordings: set[str]) -> None:
    """Erase the catalog and the objects of these recordings."""
    for path in site.config.catalog_path.parent.glob(f"{site.config.catalog_path.name}*"):
        path.unlink()
    for path in site.config.objects_path.glob("objects/v1/*/*/*"):
        if path.name in recordings:
            shutil.rmtree(path)
