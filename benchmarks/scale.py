"""What people and sweeps ask of a catalog with N recordings, each timed; one JSON line an act.

`python -m benchmarks.scale [--recordings 1000000] [--postgres] [--keep DIR] [--acts holds ...]`. The catalog is made by
`benchmarks.large_catalog`, in SQLite or in a PostgreSQL that is started for it. With `--keep` it stays, and the next
run upgrades it and uses it again. With `--objects` what is held has small objects on disk. `cpu_ms` is this process's,
whose threads SQLite runs in; PostgreSQL's own is not in it.
"""

import argparse
import asyncio
import contextlib
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import aiohttp

from benchmarks.common import ROOT, child, cpu_seconds, report, run
from benchmarks.large_catalog import (
    LARGEST,
    OPERATOR,
    SMALLEST,
    SWITCHBOARD,
    copy_objects,
    fill,
    live_a_day,
    make_tenants,
)
from vault.config import load_config
from vault.model import HoldKind, Principal, RecordingState, Role
from vault.ports.audit import AuditQuery
from vault.ports.progress import Silent
from vault.ports.recordings import RecordingQuery
from vault.retention.policy import due_through
from vault.services.holds.holds import HoldRequest
from vault.storage.catalog import open_catalog
from vault.wiring import SystemClock, open_vault
from vault.wiring.adapters import catalog_place
from vault.wiring.backup import open_backups
from vault.wiring.journals import recount_catalog

_REPEATS = 5
_LONG = 3.0
"""An act that takes longer is not repeated."""
_HOLDS = (1, 100, 1_000, 10_000)
_ACTS = ("lists", "sweeps", "trails", "holds", "http", "backups")
_DAY = timedelta(days=1)
HOLDER = Principal(token_id=OPERATOR.token_id, name="bench", role=Role.COMPLIANCE, tenant=LARGEST)


class Acts:
    """Times acts and prints them."""

    def __init__(self, **what):
        self._what = what

    def print(self, act, milliseconds, **figures):
        report("scale", act=act, **self._what, ms=[round(each, 2) for each in milliseconds], **figures)

    async def time(self, act, ask, *, repeats=_REPEATS):
        """Print the median, the first and the CPU of an act; return its last answer."""
        taken, used = [], []
        for _ in range(repeats):
            cpu, began = time.process_time(), time.perf_counter()
            answer = await ask()
            taken.append(1000 * (time.perf_counter() - began))
            used.append(1000 * (time.process_time() - cpu))
            if taken[-1] > 1000 * _LONG:
                break
        figures = {"median": round(statistics.median(taken), 2), "cpu_ms": round(statistics.median(used), 2)}
        rows = len(answer) if isinstance(answer, list | tuple) else None
        self.print(act, taken, rows=rows, **figures)
        return answer


async def lists(acts, catalog, now):
    """Ask for pages as an operator and as a tenant do."""

    async def page(act, **chosen):
        query = RecordingQuery(**{"limit": 100, **chosen})
        return await acts.time(f"list {act}", lambda: catalog.recordings(query))

    def day(back):
        return {"started_from": now - back * _DAY, "started_to": now - (back - 1) * _DAY}

    states = RecordingState
    first = await page("all")
    await page("all, next page", before=first[-1].id)
    [deep] = await catalog.recordings(RecordingQuery(tenant=LARGEST, limit=1, started_to=now - 60 * _DAY))
    await page("all, 60 days deep", before=deep.id)
    for tenant, name in ((None, "all"), (LARGEST, "largest"), (SMALLEST, "smallest")):
        mine = {} if tenant is None else {"tenant": tenant}
        if tenant is not None:
            await page(f"{name} tenant", **mine)
        for state in (states.OPEN, states.SEALED, states.TRUNCATED, states.SHREDDING, states.SHREDDED):
            await page(f"{name}, state={state.value}", **mine, state=state)
        await page(f"{name}, one day", **mine, **day(40))
        await page(f"{name}, a day to come", **mine, **day(-5))
        for state in (states.SHREDDED, states.OPEN):
            window = {"started_from": now - 60 * _DAY, "state": state}
            await page(f"{name}, 60 days, state={state.value} (none)", **mine, **window)
        await page(f"{name}, held", **mine, held=True)
        await page(f"{name}, not held", **mine, held=False)
        await page(f"{name}, ahead (none)", **mine, ahead=True)
        await page(f"{name}, expires within a day", **mine, expires_to=now + _DAY)
        await page(f"{name}, expires in 10 years (none)", **mine, expires_from=now + 3650 * _DAY)
    mine = {"tenant": LARGEST}
    await page("largest tenant, 60 days deep", **mine, before=deep.id)
    await page("largest, size (none)", **mine, min_bytes=1 << 50)
    await page("largest, duration (none)", **mine, min_duration=10 * _DAY)
    await page("largest, one day, duration", **mine, **day(40), min_duration=timedelta(seconds=300))
    await page("largest, caller", **mine, caller_tokens=(f"{7:032x}",))
    await page("largest, switchboard", **mine, called_tokens=(SWITCHBOARD,))
    await page("largest, switchboard, one day", **mine, **day(40), called_tokens=(SWITCHBOARD,))
    await page("largest, no such call", **mine, call_tokens=("none",))


async def sweeps(acts, catalog, now):
    """Ask what a sweep asks, as of tomorrow: a hundredth is due."""
    through = due_through(now + _DAY, 86_400.0)
    await acts.time("count_due", lambda: catalog.count_due(through=through))
    await acts.time("count_due, nothing due", lambda: catalog.count_due(through=through - 30))
    await acts.time("due, first page", lambda: catalog.due_recordings(through=through, after=None, limit=500))
    none = through - 30
    await acts.time("due, nothing due", lambda: catalog.due_recordings(through=none, after=None, limit=500))
    await acts.time("due lots, first page", lambda: catalog.due_lots(through=through, after=None, limit=4096))
    tomorrow = now + 2 * _DAY
    doubtful = {"through": through, "now": tomorrow, "after": None, "limit": 500}
    await acts.time("doubtful", lambda: catalog.doubtful_recordings(**doubtful))
    await acts.time("oldest due", lambda: catalog.oldest_due(now=tomorrow))
    await acts.time("oldest due, none", lambda: catalog.oldest_due(now=now - _DAY))
    await acts.time("oldest due of a tenant", lambda: catalog.oldest_due(now=tomorrow, tenant=LARGEST))
    await acts.time("count by state", catalog.count_recordings)
    await acts.time("kept of a tenant", lambda: catalog.count_kept(LARGEST))


async def trails(acts, catalog, now):
    """Read the trail as an export does, and as somebody who asks for a recording, a token, a time or an event."""
    exported = {}
    for name, tenant in (("smallest tenant", SMALLEST), ("largest tenant", LARGEST), ("all", None)):
        query = AuditQuery(tenant=tenant, limit=1000)
        exported[name] = await acts.time(f"audit export, 1,000 of {name}", partial(catalog.audit_lines, query))
    entry = json.loads(exported["largest tenant"][-1].text)
    questions = {
        "of a recording": {"target": entry["target"]},
        "of a token": {"actor": entry["actor"]},
        "of a token, one day": {"actor": entry["actor"], **_day(now, 40)},
        "of largest tenant, one day": {"tenant": LARGEST, **_day(now, 40)},
        "of all, one day": _day(now, 40),
        "of all, a day to come (none)": _day(now, -5),
        "of largest tenant, one event": {"tenant": LARGEST, "event": "access.play"},
        "of largest tenant, an event (none)": {"tenant": LARGEST, "event": "recording.misdeclared"},
        "of largest tenant, holds (none)": {"tenant": LARGEST, "event": "hold"},
        "of all, holds (none)": {"event": "hold"},
        "of all, an event of a week (none)": {"event": "recording.misdeclared", "since": now - 7 * _DAY},
    }
    for act, chosen in questions.items():
        for newest in (False, True):
            query = AuditQuery(**chosen, newest_first=newest, limit=100)
            order = "newest" if newest else "oldest"
            await acts.time(f"audit {act}, {order} 100", partial(catalog.audit_lines, query))


def _day(now, back):
    return {"since": now - back * _DAY, "until": now - (back - 1) * _DAY}


async def holds(acts, vault, config, arguments):
    """Place holds on recordings of the largest tenant, and read them and what they are on."""
    sizes, found, before = arguments.holds, [], None
    sealed = RecordingQuery(tenant=LARGEST, state=RecordingState.SEALED, limit=1000)
    while len(found) < sum(sizes) and (page := await vault.catalog.recordings(replace(sealed, before=before))):
        found += [row.id for row in page]
        before = page[-1].id
    random.Random(time.time_ns()).shuffle(found)
    for size in sizes:
        chosen, found = tuple(sorted(found[:size])), found[size:]
        if len(chosen) < size:
            acts.print(f"hold on {size} (the tenant has too few)", [])
            continue
        objects = await copy_objects(vault, config, chosen) if arguments.objects else 0
        request = HoldRequest(
            tenant=LARGEST,
            kind=HoldKind.LEGAL,
            matter=f"M-{size}-{time.time_ns()}",
            reason="bench",
            authority="bench",
            owner="bench",
            review_at=datetime.now(UTC) + 80 * _DAY,
            recordings=chosen,
        )
        act = f"hold on {size}, {objects} objects"
        await acts.time(act, partial(vault.holds.place, request, actor=HOLDER), repeats=1)
        await acts.time(f"holds on one of {size}", partial(vault.catalog.holds_on, chosen[0]))
        row = await vault.catalog.recording(chosen[0])
        await acts.time(f"show of one of {size}", partial(vault.recordings.show, row, actor=HOLDER, facts=False))
    await acts.time("list of holds", partial(_list_holds, vault.catalog))


async def _list_holds(catalog):
    """Read what a list shows: holds with their counts, and the first recordings of each."""
    found = await catalog.counted_holds(tenant=LARGEST)
    await catalog.first_members([hold.id for hold in found], most=10)
    return found


async def backups(acts, base, config, count, now):
    """Back the catalog up whole, again when nothing has changed, and again after a day."""
    destination = base / "backups"
    shutil.rmtree(destination, ignore_errors=True)

    async def back_up():
        async with open_backups(config, str(destination), create=True) as opened:
            return await opened.make(objects=False, progress=Silent())

    for what in ("first", "nothing changed", "a day later"):
        if what == "a day later":
            await live_a_day(catalog_place(config), count, now=now + _DAY)
        began, cpu = time.perf_counter(), time.process_time()
        made = await back_up()
        figures = {"cpu_ms": round(1000 * (time.process_time() - cpu)), "written": made.written_bytes}
        acts.print(f"backup, {what}", [1000 * (time.perf_counter() - began)], kept=made.kept_bytes, **figures)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    acts.print("most memory so far", [], kib=peak)


async def over_http(acts, config, token):
    """Ask a server for what monitors ask for."""
    port_file = config.parent / "port"
    port_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "cli", "serve", "--config", str(config), "--port-file", str(port_file)]
    began = time.perf_counter()
    with child(command, port_file, core=None) as (process, port):
        acts.print("start-up", [1000 * (time.perf_counter() - began)])
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            for path in ("/metrics", "/readyz", "/v1/holds", "/v1/recordings?limit=100"):
                cpu = cpu_seconds(process.pid)

                async def get(path=path):
                    async with session.get(path, headers={"Authorization": f"Bearer {token}"}) as answer:
                        assert answer.status == 200, await answer.text()
                        return await answer.text()

                await acts.time(f"GET {path}", get, repeats=10)
                acts.print(f"GET {path}, the server's CPU", [100 * (cpu_seconds(process.pid) - cpu)])
            await during_a_sweep(acts, session, token)


async def during_a_sweep(acts, session, token):
    """Sweep what is due, and ask meanwhile what monitors ask."""
    taken = {"/readyz": [], "/metrics": []}

    async def sweep():
        async with session.post("/v1/sweeps", json={}, headers={"Authorization": f"Bearer {token}"}) as answer:
            return answer.status, await answer.json()

    began = time.perf_counter()
    sweeping = asyncio.create_task(sweep())
    while not sweeping.done():
        for path, found in taken.items():
            asked = time.perf_counter()
            async with session.get(path, headers={"Authorization": f"Bearer {token}"}) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
            found.append(1000 * (time.perf_counter() - asked))
        await asyncio.sleep(0.02)
    status, said = await sweeping
    assert status == 200, said
    acts.print("sweep", [1000 * (time.perf_counter() - began)], shredded=said["shredded"])
    for path, found in taken.items():
        found.sort()
        figures = {f"p{each}": round(found[len(found) * each // 100], 2) for each in (50, 99)}
        acts.print(f"GET {path} during a sweep", found[-1:], asked=len(found), **figures)


@contextlib.contextmanager
def postgres_below(base):
    """Run a PostgreSQL whose data is below `base`."""
    from tests.helpers.postgres import Postgres  # noqa: PLC0415 - nobody else needs the tests
    from tests.helpers.seaweed import free_ports  # noqa: PLC0415

    directory = base / "postgres"
    server = Postgres(directory=directory, settings={"shared_buffers": "512MB", "max_wal_size": "8GB"})
    if directory.exists():
        server.port = free_ports(1)[0]
    directory.mkdir(exist_ok=True)
    base.chmod(0o755)
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def make(base, config_path, count, server):
    """Init a vault and fill its catalog."""
    if server is not None:
        await server.new_database()
    command = [sys.executable, "-m", "cli", "init", "--trial", "--config", str(config_path), "--json"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (base / "token").write_text(json.loads(made.stdout)["operator_token"])
    now = datetime.now(UTC) - 2 * _DAY  # so that a hundredth is due, or two
    config = load_config(config_path)
    async with open_vault(config, background=False) as vault:
        generation = await make_tenants(vault, now)
    began = time.perf_counter()
    await fill(catalog_place(config), count, now=now, generation=generation)
    await recount_catalog(config)
    report("scale", act="make", recordings=count, seconds=round(time.perf_counter() - began, 1))


def write_config(path, server):
    """Write how the vault is reached this time: a server's port is another one with each start."""
    url = "" if server is None else f'[catalog]\nurl = "{server.url("vault_1")}"\n'
    path.write_text(f'{url}[server]\nport = 0\n[journal]\ndisk_reserve = "64MiB"\n[sweep]\nenabled = false\n')


async def measure(base, server, arguments):
    """Make the catalog if it is not there, and time the acts."""
    config_path = base / "config.toml"
    there = config_path.exists()
    write_config(config_path, server)
    if not there:
        await make(base, config_path, arguments.recordings, server)
    if arguments.make:
        return
    config = load_config(config_path)
    acts = Acts(database="sqlite" if server is None else "postgresql", recordings=arguments.recordings)
    if there:
        catalog = open_catalog(catalog_place(config), clock=SystemClock())
        await acts.time("upgrade", catalog.upgrade, repeats=1)
        await catalog.close()
        # What is written straight into the rows, at first or as a day of a backup, is in no count.
        await acts.time("recount", partial(recount_catalog, config), repeats=1)
    now = datetime.now(UTC)
    async with open_vault(config, background=False) as vault:
        if "lists" in arguments.acts:
            await lists(acts, vault.catalog, now)
        if "sweeps" in arguments.acts:
            await sweeps(acts, vault.catalog, now)
            await acts.time("dry run", vault.sweeper.preview)
        if "trails" in arguments.acts:
            await trails(acts, vault.catalog, now)
        if "holds" in arguments.acts:
            await holds(acts, vault, config, arguments)
    if "http" in arguments.acts:
        # Before backups, while something is due: a day of a backup shreds it by hand.
        await over_http(acts, config_path, (base / "token").read_text())
    if "backups" in arguments.acts:
        await backups(acts, base, config, arguments.recordings, now)


def main(arguments):
    """Measure in the directory that stays, or in one that goes."""
    with contextlib.ExitStack() as stack:
        base = arguments.keep
        if base is None:
            base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="callvault-bench-")))
        base.mkdir(parents=True, exist_ok=True)
        server = stack.enter_context(postgres_below(base)) if arguments.postgres else None
        run(measure(base, server, arguments))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=1_000_000)
    parser.add_argument("--holds", type=int, nargs="+", default=_HOLDS)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--objects", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--acts", nargs="+", choices=_ACTS, default=_ACTS)
    parser.add_argument("--make", action="store_true", help="only make the catalog, to keep")
    main(parser.parse_args())
