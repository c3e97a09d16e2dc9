"""One sweep over N expired recordings: seconds until none has a key, and until each has its certificate.

`python -m benchmarks.shred [--recordings 10000 100000 1000000] [--tenants 10] [--objects 2] [--postgres] [--s3] [--kept
DIRECTORY]`. Rows of recordings and of their objects (a manifest and segments) are written straight into the catalog;
the keyring, the sweep and the certificates are the real ones. `floor` is the same catalog work alone, in the same run:
SQLite reads the rows, stores a certificate's bytes for each and moves each row along, in transactions of the same size,
without a hash or a signature; on PostgreSQL there is none. `seconds_to_deleted`, up to `--delete-up-to`, is when the
last object is gone from the disk, and `seconds_to_final` when each has its final certificate, which waits for the
leases of keys. `deletion_cpu_us` is the CPU of both, a recording. `floor.seconds_to_unlinked` is the time in which as
many files are unlinked below the same directories by a loop of `os.unlink` with `dir_fd`, and by eight threads of it,
and `floor.unlink_cpu_us` the CPU of that: 2,000 recordings are measured, just before the sweep.

`--s3` is about the object store alone: it prints how many requests the deletion of N recordings takes on a SeaweedFS,
and how many the look once the leases are over.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import os
import pickle
import random
import shutil
import sqlite3
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from benchmarks.common import report, run
from benchmarks.large_catalog import rows_of
from benchmarks.scale import postgres_below
from vault.certificates.document import verify_certificate
from vault.config import parse_config
from vault.disk import sync_directory
from vault.format.names import object_below, recording_prefix
from vault.ids import TenantId, TokenId
from vault.model import CallFacts, Codec, Container, Media, Principal, Role
from vault.ports.objects import ObjectMeta
from vault.ports.recordings import RecordingQuery
from vault.retention.periods import Period
from vault.services.ingest.sessions import CallStart
from vault.storage.catalog.rows import recording_id
from vault.storage.catalog.tables import metadata
from vault.storage.s3 import bucket
from vault.storage.s3.store import S3ObjectStore
from vault.wiring import SystemClock, init_vault, open_vault
from vault.wiring.adapters import catalog_place

OPERATOR = Principal(token_id=TokenId("tok_" + "0" * 32), name="bench", role=Role.OPERATOR, tenant=None)
BATCH = 4096
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON", "cache_size=-16384")


class MovedClock(SystemClock):
    """The machine's clock, moved ahead once everything is in place."""

    ahead = timedelta(0)

    def now(self):
        return datetime.now(UTC) + self.ahead


async def one_recording(vault, tenant, *, key="call"):
    call = CallStart(
        tenant=tenant,
        call_key=key,
        media=Media(container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=1),
        facts=CallFacts(),
        started_at=None,
        retention=Period(timedelta(days=1)),
    )
    session = await vault.ingest.start(call, actor=dataclasses.replace(OPERATOR, tenant=tenant))
    await vault.ingest.write(session, os.urandom(1600))
    await vault.ingest.finish(session)
    await session.done.wait()
    return session.recording


@contextlib.asynccontextmanager
async def opened(place):
    rows = await rows_of(place)
    try:
        yield rows
    finally:
        await rows.close()


async def whole(rows, table, order):
    names = metadata.tables[table].columns.keys()
    fetched = await rows.fetch(f"SELECT {','.join(names)} FROM {table} ORDER BY {order}")
    return [dict(zip(names, row, strict=True)) for row in fetched]


async def insert(rows, table, values):
    names = metadata.tables[table].columns.keys()
    await rows.copy(table, names, (tuple(row[name] for name in names) for row in values))


async def multiply(place, total, objects_each):
    """Write further rows like the first ones, by turns, until there are `total`; each with its own id, key and leaf."""
    async with opened(place) as rows:
        firsts = await whole(rows, "recordings", "id")
        objects = {row["id"]: [] for row in firsts}
        for row in await whole(rows, "segments", "recording, number"):
            objects[row["recording"]].append(row)
        for each in objects.values():
            further = [{**each[-1], "number": number} for number in range(1, objects_each - len(each) + 1)]
            await insert(rows, "segments", further)
            each.extend(further)
        base = int.from_bytes(max(objects))
        numbers = range(len(firsts), total)

        def copy(number):
            first = firsts[number % len(firsts)]
            leaf = 1 + number // len(firsts)
            key = (base + number).to_bytes(16)
            own = {"id": key, "call_token": f"copy-{number}", "audio_leaf": leaf, "metadata_leaf": leaf}
            times = {name: first[name] + number % 10**6 - 10**6 for name in ("started_at", "retain_until")}
            return {**first, **own, **times}

        def copied_objects(number):
            first = firsts[number % len(firsts)]["id"]
            key = (base + number).to_bytes(16)
            for row in objects[first]:
                yield {**row, "recording": key}

        await insert(rows, "recordings", (copy(number) for number in numbers))
        await insert(rows, "segments", (row for number in numbers for row in copied_objects(number)))


async def copy_objects(config):
    """Give every recording the objects that its rows name, so that deleting them is real work."""
    root = config.objects_path / "objects"
    sample = next(root.glob("v1/*/*/rec_*/000000-*")).read_bytes()
    places = (
        "SELECT r.tenant, r.audio_period, r.id, s.number, s.attempt FROM segments s"
        " JOIN recordings r ON r.id = s.recording ORDER BY r.id"
    )
    async with opened(catalog_place(config)) as rows:
        for tenant, period, key, number, attempt in await rows.fetch(places):
            prefix = recording_prefix(tenant, period, recording_id(key))
            path = root / f"{object_below(prefix, number, attempt.hex())}#object"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sample)


def floor(path):
    """Do by hand in SQL what certifying does to the catalog; return its seconds."""
    with sqlite3.connect(path, isolation_level=None) as database:
        for pragma in PRAGMAS:
            database.execute(f"PRAGMA {pragma}")
        began, last = time.perf_counter(), b""
        while found := database.execute(
            "SELECT id, tenant, audio_leaf, started_at, retain_until FROM recordings"
            " WHERE state != 'open' AND state != 'shredded' AND id > ? ORDER BY id LIMIT ?",
            (last, BATCH),
        ).fetchall():
            span = (found[0][0], found[-1][0])
            database.execute(
                "SELECT recording, number, attempt, object_bytes, sha256 FROM segments WHERE recording BETWEEN ? AND ?",
                span,
            ).fetchall()
            last = found[-1][0]
            database.execute("BEGIN IMMEDIATE")
            database.execute(
                "INSERT INTO certificate_batches (id, issued_at, statement, leaves, entries) VALUES (?,1,'',?,?)",
                ("bat_" + last.hex(), bytes(32 * len(found)), bytes(160 * len(found))),
            )
            database.executemany(
                "UPDATE recordings SET state = 'shredded', certificate_id = ?, undeleted_since = 1 WHERE id = ?",
                (("cert_" + row[0].hex(), row[0]) for row in found),
            )
            database.execute("COMMIT")
        return time.perf_counter() - began


def unlink(directories):
    for directory in directories:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        with os.scandir(handle) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            os.unlink(name, dir_fd=handle)
        os.close(handle)
        directory.rmdir()


def unlink_floor(config, recordings, objects, *, sample=2000):
    """Unlink objects of the same size in a copy of the layout; return what that would take for `recordings`."""
    body = next((config.objects_path / "objects").glob("v1/*/*/rec_*/000000-*")).read_bytes()
    figures = {}
    for threads in (1, 8):
        with tempfile.TemporaryDirectory(prefix="floor-", dir=config.objects_path.parent) as root:
            directories = [Path(root) / f"{number % 10}" / f"rec_{number}" for number in range(sample)]
            for directory in directories:
                directory.mkdir(parents=True)
                for number in range(objects):
                    (directory / f"{number:06d}-{'0' * 32}#object").write_bytes(body)
            os.sync()
            cpu, began = time.process_time(), time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(unlink, [directories[start::threads] for start in range(threads)]))
            for tenant in Path(root).iterdir():
                sync_directory(tenant)
            seconds = (time.perf_counter() - began) * recordings / sample
            cpu = (time.process_time() - cpu) / sample * 1e6
        figures[f"{threads}_threads"] = round(seconds, 2)
    return {"seconds_to_unlinked": figures, "unlink_cpu_us": round(cpu, 1)}


async def requests_to_delete(recordings, objects):
    """Print how many requests the deletion of recordings of one day takes on S3, and the look that follows."""
    from tests.helpers.seaweed import Seaweed  # noqa: PLC0415 - only here

    with tempfile.TemporaryDirectory(prefix="callvault-bench-") as directory:
        server = Seaweed(directory=Path(directory))
        await asyncio.to_thread(server.start)
        try:
            settings = server.settings("bench")
            await asyncio.to_thread(bucket.provision, settings)
            store = await S3ObjectStore.open(settings)
            asked = []
            store._client.meta.events.register("before-send.s3", lambda **_: asked.append(1))
            places = {}
            for number in range(recordings):
                prefix = recording_prefix(TenantId("bench"), 20_000, recording_id(number.to_bytes(16)))
                places[prefix] = [object_below(prefix, each, f"{each:032x}") for each in range(objects)]
            meta = ObjectMeta(retain_until=datetime(2020, 1, 1, tzinfo=UTC), retention_class="x", sha256="0" * 64)
            for known in places.values():
                await asyncio.gather(*(store.put(name, [b"x" * 1000], meta=meta) for name in known))
            figures = {}
            for look in ("requests_each", "requests_each_for_the_second_look"):
                asked.clear()
                began = time.perf_counter()
                outcomes = await store.delete_below(places)
                assert all(each.absent for found in outcomes.values() for each in found)
                figures[look] = round(len(asked) / recordings, 3)
                figures[look.replace("requests_each", "seconds")] = round(time.perf_counter() - began, 2)
            report("shred_s3", recordings=recordings, objects=objects, **figures)
            await store.close()
        finally:
            await asyncio.to_thread(server.stop)


async def add_tenants(vault, tenants, **terms):
    """Add so many tenants that keep audio for a day, each with one recording; return the last one's."""
    for number in range(tenants):
        tenant = TenantId(f"bench-{number}")
        await vault.tenants.add(
            identifier=tenant,
            name="Bench",
            controller="Bench",
            contact="bench@example.org",
            retention=Period(timedelta(days=1)),
            actor=OPERATOR,
            **terms,
        )
        sample = await one_recording(vault, tenant)
    return sample


async def prepare(config, clock, recordings, tenants, *, objects, stored):
    """Make a vault with so many due recordings, and have nothing of it wait for the disk."""
    await init_vault(config, trial=True, clock=clock)
    async with open_vault(config, clock=clock) as vault:
        sample = await add_tenants(vault, tenants)
    await multiply(catalog_place(config), recordings, objects)
    if stored:
        await copy_objects(config)
    os.sync()
    return sample


async def from_kept(place, directory, make):
    """Copy the vault that an earlier run kept in `place` to `directory`, or make one there and keep a copy."""
    sample = place / "sample"
    if not sample.exists():
        made = await make()
        place.mkdir(parents=True)
        await asyncio.to_thread(shutil.copytree, directory, place / "vault")
        sample.write_bytes(pickle.dumps(made))
    else:
        await asyncio.to_thread(shutil.copytree, place / "vault", directory, dirs_exist_ok=True)
    os.sync()
    return pickle.loads(sample.read_bytes())


async def check(vault, recordings):
    """Every certificate is there, and of a few at random the text verifies."""
    for row in random.sample(await vault.catalog.recordings(RecordingQuery(limit=1000)), 5):
        page = await vault.catalog.certificates(recording=row.id)
        for jws in await vault.certificates.texts(page):
            verified = verify_certificate(jws, vault.certificates.issuer)
            assert verified.batch
            assert verified.certificate.recording.id == row.id
    query = "SELECT sum(length(leaves)) FROM certificate_batches WHERE status = 'provisional'"
    assert await vault.catalog._database.fetch(sa.text(query)) == [(32 * recordings,)]


async def delete(vault, sweeping, began, recordings):
    """Wait until all objects are gone and all certificates are final; return what that took."""
    cpu = time.process_time()
    done = await sweeping
    deleted, gone = time.perf_counter() - began, done.deleted
    while gone < recordings:
        async with vault.shredder.alone():
            deletions = await vault.shredder.delete()
        gone += deletions.done
        await asyncio.sleep(0 if deletions.again_in is None else deletions.again_in.total_seconds())
    return {
        "seconds_to_deleted": round(deleted, 2),
        "seconds_to_final": round(time.perf_counter() - began, 2),
        "deletion_cpu_us": round((time.process_time() - cpu) / recordings * 1e6, 1),
    }


async def sweep(config, clock, sample, recordings, *, stored):
    async with open_vault(config, clock=clock, background=False) as vault:
        assert vault.keyring.derivable(sample.audio)
        began = time.perf_counter()
        cpu = time.process_time()
        sweeping = asyncio.create_task(vault.sweeper.sweep(trigger="expiry", actor=OPERATOR))
        while not (found := await vault.catalog.unfinished_shreds()) or not found[0].receipt:
            await asyncio.sleep(0.002)
        unreadable = time.perf_counter() - began
        assert not vault.keyring.derivable(sample.audio)
        while await vault.catalog.unfinished_shreds():
            await asyncio.sleep(0.02 if recordings <= BATCH * 5 else 0.25)
        certified, cpu = time.perf_counter() - began, time.process_time() - cpu
        figures = {
            "seconds_to_unrecoverable": round(unreadable, 3),
            "seconds_to_certified": round(certified, 2),
            "certified_per_second": round(recordings / certified),
            "cpu_us_per_certificate": round(cpu / recordings * 1e6, 1),
        }
        if stored:
            figures |= await delete(vault, sweeping, began, recordings)
        else:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
        await check(vault, recordings)
    return figures


async def measure(recordings, tenants, *, objects, stored, server, kept):
    clock = MovedClock()
    with tempfile.TemporaryDirectory(prefix="callvault-bench-") as temporary:
        directory = Path(temporary)
        document = {
            "journal": {"disk_reserve": "64MiB"},
            "sweep": {"enabled": False, "max_jump": "30d", "max_share": 1.0},
        }
        if server is not None:
            document["catalog"] = {"url": server.url(await server.new_database())}
        config = parse_config(document, base=directory)
        make = functools.partial(prepare, config, clock, recordings, tenants, objects=objects, stored=stored)
        if kept is None or server is not None or stored:
            sample = await make()
        else:
            sample = await from_kept(kept / f"{recordings}-{tenants}-{objects}", directory, make)
        seconds = None
        if server is None:
            spare = directory / "floor.db"
            await asyncio.to_thread(shutil.copyfile, config.catalog_path, spare)
            seconds = round(await asyncio.to_thread(floor, spare), 2)
            spare.unlink()
        unlinked = await asyncio.to_thread(unlink_floor, config, recordings, objects) if stored else {}
        clock.ahead = timedelta(days=3)
        figures = await sweep(config, clock, sample, recordings, stored=stored)
        report(
            "shred",
            database="sqlite" if server is None else "postgresql",
            recordings=recordings,
            tenants=tenants,
            objects=objects,
            **figures,
            floor={"seconds_to_certified": seconds, **unlinked},
        )


async def every(arguments, server):
    for recordings in arguments.recordings:
        await measure(
            recordings,
            min(arguments.tenants, recordings),
            objects=arguments.objects,
            stored=recordings <= arguments.delete_up_to,
            server=server,
            kept=arguments.kept,
        )


def main(arguments):
    with contextlib.ExitStack() as stack:
        if arguments.s3:
            for recordings in arguments.recordings:
                run(requests_to_delete(recordings, arguments.objects))
            return
        server = None
        if arguments.postgres:
            base = stack.enter_context(tempfile.TemporaryDirectory(prefix="callvault-bench-"))
            server = stack.enter_context(postgres_below(Path(base)))
        run(every(arguments, server))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--tenants", type=int, default=10)
    parser.add_argument("--objects", type=int, default=2, help="of each recording, its manifest among them")
    parser.add_argument("--delete-up-to", type=int, default=100_000, help="larger runs end once all is certified")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--kept", type=Path, help="keep a vault whose objects are not on the disk here, for later runs")
    parser.add_argument("--s3", action="store_true", help="only how many requests the deletion of objects takes")
    main(parser.parse_args())
