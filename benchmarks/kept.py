"""What one shredded recording leaves in the catalog for ever: bytes of each table and its indexes; one JSON line.

`python -m benchmarks.kept [--recordings 4000] [--tenants 20] [--segments 4] [--postgres]`. Recordings of five minutes
each: rows of segments and a manifest, and the entries of the audit trail that a real one had, are copied from recorded
samples; the sweep, its certificates and the deletion of the objects are the real ones. Tables are compacted before they
are measured (VACUUM, on PostgreSQL VACUUM FULL), so what a database keeps free for later writes is not in it. The empty
catalog's bytes are taken off. `with_metadata` has the recording's facts and tokens still; `without` is after they went,
with certificates of their own. `year_tb` is for 10,000,000 live recordings of 90 days.
"""

import argparse
import asyncio
import contextlib
import os
import sqlite3
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path

import asyncpg

from benchmarks.common import report, run
from benchmarks.large_catalog import HOURS, PostgresRows, SqliteRows
from benchmarks.scale import postgres_below
from benchmarks.shred import OPERATOR, MovedClock, add_tenants
from vault.config import parse_config
from vault.format.names import manifest_name, segment_name
from vault.ids import TenantId
from vault.model import SegmentRef
from vault.retention.periods import Period
from vault.storage.catalog import rows as rows_of
from vault.wiring import init_vault, open_vault
from vault.wiring.adapters import catalog_place

_A_YEAR = 10_000_000 * 365 / 90
_GROUPS = {
    "recordings": "recordings",
    "segments": "objects",
    "audit": "audit",
    "shred_kept": "shreds",
    "shreds": "shreds",
}


async def tables_of(place):
    """Return the bytes of each table with its indexes, compacted."""
    if isinstance(place, Path):
        with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as database:
            database.execute("VACUUM")
            found = database.execute(
                "SELECT coalesce(s.tbl_name, d.name), sum(d.pgsize) FROM dbstat d"
                " LEFT JOIN sqlite_schema s ON s.name = d.name GROUP BY 1"
            )
            return dict(found.fetchall())
    connection = await asyncpg.connect(place.url)
    try:
        await connection.execute("VACUUM FULL ANALYZE")
        sizes = await connection.fetch(
            "SELECT coalesce(i.inhparent, c.oid)::regclass::text AS name, pg_total_relation_size(c.oid) AS size"
            " FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid"
            " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
        )
        found = Counter()
        for row in sizes:
            found[row["name"]] += row["size"]
        return found
    finally:
        await connection.close()


class _Copies:
    """Further recordings like the samples, by turns, each with its own id, key, objects and entries of the trail."""

    def __init__(self, samples, segments):
        self._samples = samples
        self._segments = segments

    def rows(self, total):
        base = max(int.from_bytes(row["id"]) for row, _ in self._samples)
        for number in range(len(self._samples), total):
            first, entries = self._samples[number % len(self._samples)]
            leaf = 1 + number // len(self._samples)
            times = {
                name: first[name] + number % 10**6 - 10**6 for name in ("created_at", "started_at", "retain_until")
            }
            key = (base + number).to_bytes(16)
            row = {
                **first,
                **times,
                "id": key,
                "call_token": os.urandom(16).hex(),
                "audio_leaf": leaf,
                "metadata_leaf": leaf,
                "caller_token": os.urandom(16).hex(),
                "called_token": os.urandom(16).hex(),
                "sealed_facts": os.urandom(160),
                "audio_commitment": os.urandom(32),
                "metadata_commitment": os.urandom(32),
            }
            yield row, [*self._objects(row)], [self._entry(each, first["id"], key) for each in entries]

    def _objects(self, row):
        recording = rows_of.recording_id(row["id"])
        place = (TenantId(row["tenant"]), row["audio_period"], recording)
        for index in range(-1, self._segments):
            attempt = "" if index < 0 else os.urandom(16).hex()
            ref = SegmentRef(
                recording=recording,
                index=index,
                attempt=attempt,
                name=manifest_name(*place) if index < 0 else segment_name(*place, index, attempt),
                offset=max(index, 0) * 960_000,
                length=0 if index < 0 else 960_000,
                object_bytes=1100 if index < 0 else 961_024,
                sha256=os.urandom(32).hex(),
            )
            yield {**rows_of.from_segment(ref), "audio_period": row["audio_period"]}

    def _entry(self, entry, first, key):
        digests = {"previous_sha256": os.urandom(32), "sha256": os.urandom(32)}
        return {**entry, **digests, "target": entry["target"].replace(first.hex(), key.hex())}


async def _fetch(place, query, key=None):
    if isinstance(place, Path):
        with contextlib.closing(sqlite3.connect(place)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query, () if key is None else (key,)).fetchall()]
    connection = await asyncpg.connect(place.url)
    try:
        return [dict(row) for row in await connection.fetch(query.replace("?", "$1"), *(() if key is None else (key,)))]
    finally:
        await connection.close()


async def multiply(place, total, segments):
    """Write the copies; return how many entries of the trail a recording has."""
    samples = []
    for row in await _fetch(place, "SELECT * FROM recordings ORDER BY id"):
        target = rows_of.recording_id(row["id"])
        samples.append((row, await _fetch(place, "SELECT * FROM audit WHERE target = ?", target)))
    into = SqliteRows(place) if isinstance(place, Path) else PostgresRows(await asyncpg.connect(place.url))
    seq = 1_000_000
    made = [*_Copies(samples, segments).rows(total)]

    async def put(table, values):
        await into.copy(table, [*values[0]], [tuple(each.values()) for each in values])

    await put("recordings", [row for row, _, _ in made])
    await put("segments", [each for _, objects, _ in made for each in objects])
    entries = [each for _, _, entries in made for each in entries]
    await put("audit", [{**each, "seq": seq + place} for place, each in enumerate(entries)])
    moved = f"(SELECT sha256 FROM audit WHERE seq = {seq + len(entries) - 1})"
    await into.execute(HOURS)
    await into.execute(f"UPDATE audit_head SET seq = {seq + len(entries) - 1}, sha256 = {moved}")
    await into.close()
    return round(len(entries) / len(made), 2)


def grouped(before, after, recordings):
    """Return bytes a recording by subject."""
    found = {}
    for table, size in after.items():
        subject = _GROUPS.get(table, "certificates" if table.startswith("certificate") else "other")
        found[subject] = found.get(subject, 0) + size - before.get(table, 0)
    figures = {subject: round(size / recordings) for subject, size in sorted(found.items())}
    return {**figures, "bytes": sum(figures.values()), "year_tb": round(sum(figures.values()) * _A_YEAR / 1e12, 3)}


async def gone(vault):
    """Sweep, and again once the leases have run out, until every certificate is final."""
    while True:
        await vault.sweeper.sweep(trigger="expiry", actor=OPERATOR)
        waits = await vault.catalog.undeleted_recordings(after=None, limit=1)
        if not waits and not await vault.catalog.unconfirmed_metadata(after=None, limit=1):
            return
        await asyncio.sleep(4)


async def measure(arguments, base, server):
    """Make the vault, measure it empty, and after each part of its recordings is certified gone."""
    clock = MovedClock()
    document = {
        "journal": {"disk_reserve": "64MiB"},
        "sweep": {"enabled": False, "max_jump": "4000d", "max_share": 1.0},
    }
    if server is not None:
        await server.new_database()
        document["catalog"] = {"url": server.url("vault_1")}
    config = parse_config(document, base=base)
    place = catalog_place(config)
    await init_vault(config, trial=True, clock=clock)
    async with open_vault(config, clock=clock) as vault:
        await add_tenants(vault, arguments.tenants, metadata_retention=Period(timedelta(days=400)))
    before = await tables_of(place)
    entries = await multiply(place, arguments.recordings, arguments.segments)
    figures = {}
    for name, ahead in (("with_metadata", 3), ("without", 500)):
        clock.ahead = timedelta(days=ahead)
        async with open_vault(config, clock=clock, background=False) as vault:
            await gone(vault)
        figures[name] = grouped(before, await tables_of(place), arguments.recordings - arguments.tenants)
    report(
        "kept",
        database="sqlite" if server is None else "postgresql",
        recordings=arguments.recordings,
        tenants=arguments.tenants,
        objects=arguments.segments + 1,
        entries=entries,
        **figures,
    )


def main(arguments):
    """Measure in a directory that goes."""
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="callvault-bench-")))
        server = stack.enter_context(postgres_below(base)) if arguments.postgres else None
        run(measure(arguments, base, server))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=4000)
    parser.add_argument("--tenants", type=int, default=20)
    parser.add_argument("--segments", type=int, default=4)
    parser.add_argument("--postgres", action="store_true")
    main(parser.parse_args())
