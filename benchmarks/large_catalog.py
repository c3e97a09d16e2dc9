"""Makes the catalog of a vault that has been in use for long: rows written straight into SQLite or PostgreSQL.

200 tenants, the largest with a twentieth of the calls; 100 days, of which the first nine are shredded; a segment and a
manifest of each recording that is not; as many entries of the audit trail as recordings. Tenants, cohorts and keys are
real, so that holds can be placed. The trail's hashes are no chain, and there are objects only where `copy_objects` puts
some.
"""

import hashlib
import itertools
import random
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import asyncpg
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, DropIndex

from vault.ids import TenantId, TokenId
from vault.model import Cohort, Part, Principal, Role
from vault.ports.objects import ObjectMeta
from vault.retention.periods import Period
from vault.retention.policy import expiry_period, metadata_period
from vault.storage.catalog.tables import metadata

TENANTS = 200
DAYS = 100
RETENTION = timedelta(days=91)
"""What is older is shredded: nine days of the hundred."""
OPERATOR = Principal(token_id=TokenId("tok_" + "0" * 32), name="bench", role=Role.OPERATOR, tenant=None)
SWITCHBOARD = "f" * 32
"""The number that a fifth of each tenant's calls went to."""
_CALLERS = 5000
_WIDTH = 86_400.0
_BATCH = 20_000
_SEED = 20_260_301
HOURS = (
    "INSERT INTO audit_hours (first, hour) SELECT seq, hour FROM (SELECT seq, at / 3600000000 AS hour,"
    " lag(at / 3600000000) OVER (ORDER BY seq) AS earlier FROM audit) AS p WHERE coalesce(earlier, -1) <> hour"
    " ON CONFLICT DO NOTHING"
)
"""Notes the hours of the entries there are."""
_EVENTS = ("recording.sealed", "recording.sealed", "recording.sealed", "access.play", "access.search")
LARGEST, SMALLEST = TenantId("bench-000"), TenantId(f"bench-{TENANTS - 1:03d}")


def tenant_names():
    return [TenantId(f"bench-{number:03d}") for number in range(TENANTS)]


class SqliteRows:
    """Writes without waiting for the disk: what a crash leaves is made again."""

    dialect = sqlite.dialect()

    def __init__(self, path):
        self._database = sqlite3.connect(path, isolation_level=None)
        for pragma in ("synchronous=OFF", "cache_size=-262144", "temp_store=MEMORY"):
            self._database.execute(f"PRAGMA {pragma}")

    async def execute(self, statement):
        self._database.execute(statement)

    async def fetch(self, statement):
        return self._database.execute(statement).fetchall()

    async def copy(self, table, columns, rows):
        marks = ",".join("?" * len(columns))
        self._database.execute("BEGIN")
        self._database.executemany(f"INSERT INTO {table} ({','.join(columns)}) VALUES ({marks})", rows)
        self._database.execute("COMMIT")

    async def close(self):
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._database.close()


class PostgresRows:
    """Writes with COPY."""

    dialect = postgresql.dialect()

    def __init__(self, connection):
        self._connection = connection

    async def execute(self, statement):
        await self._connection.execute(statement, timeout=3600)

    async def fetch(self, statement):
        return [tuple(row) for row in await self._connection.fetch(statement, timeout=3600)]

    async def copy(self, table, columns, rows):
        await self._connection.copy_records_to_table(table, records=rows, columns=columns, timeout=3600)

    async def close(self):
        await self._connection.execute("VACUUM ANALYZE", timeout=3600)
        await self._connection.close()


async def rows_of(place):
    if isinstance(place, Path):
        return SqliteRows(place)
    return PostgresRows(await asyncpg.connect(place.url))


def _micros(at):
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def calls(count, now, *, days=DAYS, seed=_SEED):
    """Yield the calls of some days up to now, oldest first, each as the values of its row."""
    rng = random.Random(seed)
    names = tenant_names()
    weights = list(itertools.accumulate(1 / (number + 5.3) for number in range(TENANTS)))
    began, ended = now - timedelta(days=days), now - timedelta(hours=1)
    step = (ended - began) / count
    gone = now - RETENTION
    leaves = dict.fromkeys(names, 0)
    facts = rng.randbytes(160)
    commitment = rng.randbytes(32)
    for number, tenant in enumerate(rng.choices(names, cum_weights=weights, k=count)):
        created = began + number * step
        until = created + RETENTION
        at, micro = int(created.timestamp() * 1000), _micros(created)
        key = ((at << 80) | (7 << 76) | (2 << 62) | (rng.getrandbits(60))).to_bytes(16)
        audio = expiry_period(until, _WIDTH)
        leaves[tenant] = leaf = leaves[tenant] + 1
        seconds = 5 + int(rng.expovariate(1 / 180))
        shredded = created < gone
        state = "shredded" if shredded else "truncated" if number % 50 == 0 else "sealed"
        yield {
            "id": key,
            "tenant": tenant,
            "call_token": f"{rng.getrandbits(128):032x}",
            "state": state,
            "state_reason": "connection lost" if state == "truncated" else None,
            "audio_period": audio,
            "audio_generation": 0,
            "audio_leaf": leaf,
            "metadata_period": metadata_period(created),
            "metadata_generation": 0,
            "metadata_leaf": leaf,
            "container": "raw",
            "codec": "pcmu",
            "rate": 8000,
            "channels": 2,
            "channel_map": '["caller","called"]',
            "created_at": micro,
            "started_at": micro - rng.randrange(2_000_000),
            "ended_at": micro + seconds * 1_000_000,
            "retain_until": _micros(until),
            "retention_class": "default",
            "stored_bytes": seconds * 16_000,
            "sealed_facts": facts,
            "certificate_id": f"cert_{key.hex()}" if shredded else None,
            "caller_token": f"{number % _CALLERS:032x}",
            "called_token": SWITCHBOARD if number % 5 == 0 else f"{_CALLERS + number % 97:032x}",
            "audio_commitment": commitment,
            "metadata_commitment": commitment,
            "lasted_ms": seconds * 1000,
        }


def _objects(row):
    attempt = bytes.fromhex(row["call_token"])
    yield (row["id"], -1, b"", 0, 0, 1100, attempt * 2, row["audio_period"])
    length = row["stored_bytes"]
    yield (row["id"], 0, attempt, 0, length, length + 400, attempt * 2, row["audio_period"])


@lru_cache(maxsize=4096)
def _actor(tenant, number):
    return f"tok_{hashlib.sha256(f'{tenant} {number}'.encode()).hexdigest()[:32]} recorder {number}"


def _entry(seq, row):
    digest = row["audio_commitment"]
    actor = _actor(row["tenant"], seq % 5)
    return (
        *(seq, row["created_at"], _EVENTS[seq % len(_EVENTS)], actor, "ok", "recorder", row["tenant"], None),
        *(f"{seq:032x}", f"rec_{row['id'].hex()}", '{"bytes":123456,"segments":1}', digest, digest),
    )


async def make_tenants(vault, now):
    """Add the tenants and give them the cohorts of every day and month; return the generation of these."""
    for tenant in tenant_names():
        await vault.tenants.add(
            identifier=tenant,
            name="Bench",
            controller="Bench",
            contact="bench@example.org",
            retention=Period(RETENTION),
            actor=OPERATOR,
        )
    days = [now - timedelta(days=day) for day in range(DAYS + 1)]
    generation = vault.keyring.generation
    async with vault.keyring.writer() as writer:
        for tenant in tenant_names():
            audio = {
                expiry_period(day + RETENTION, _WIDTH) for day in days if day + RETENTION > now - timedelta(days=1)
            }
            cohorts = [
                *(Cohort(tenant=tenant, part=Part.AUDIO, period=each, generation=generation) for each in audio),
                *(
                    Cohort(tenant=tenant, part=Part.METADATA, period=each, generation=generation)
                    for each in {metadata_period(day) for day in days}
                ),
            ]
            await writer.add_cohorts(cohorts)
    await vault.catalog.make_room({each.period for each in cohorts if each.part is Part.AUDIO})
    return generation


async def fill(place, count, *, now, generation):
    """Write the rows of `count` recordings into a migrated catalog; indexes are made when they are there."""
    rows = await rows_of(place)
    indexes = [index for table in ("recordings", "segments", "audit") for index in metadata.tables[table].indexes]
    for index in indexes:
        await rows.execute(str(DropIndex(index).compile(dialect=rows.dialect)))
    columns = list(next(calls(1, now)))
    of_objects = [column.name for column in metadata.tables["segments"].columns]
    of_entries = [column.name for column in metadata.tables["audit"].columns]
    seq = 1_000_000  # above those of the tenants
    made = ({**row, "audio_generation": generation, "metadata_generation": generation} for row in calls(count, now))
    while batch := list(itertools.islice(made, _BATCH)):
        await rows.copy("recordings", columns, [tuple(row.values()) for row in batch])
        await rows.copy(
            "segments", of_objects, [each for row in batch if row["state"] != "shredded" for each in _objects(row)]
        )
        await rows.copy("audit", of_entries, [_entry(seq + place, row) for place, row in enumerate(batch)])
        seq += len(batch)
    last = f"(SELECT sha256 FROM audit WHERE seq = {seq - 1})"
    await rows.execute(f"UPDATE audit_head SET seq = {seq - 1}, sha256 = {last}")
    await rows.execute(HOURS)
    for index in indexes:
        await rows.execute(str(CreateIndex(index).compile(dialect=rows.dialect)))
    await rows.close()


async def live_a_day(place, count, *, now):
    """Write what a day changes: its calls, a hundredth of `count`, and the end of as many that the day shreds."""
    rows = await rows_of(place)
    gone = _micros(now - RETENTION)
    due = f"state <> 'shredded' AND created_at < {gone}"
    await rows.execute(f"DELETE FROM segments WHERE recording IN (SELECT id FROM recordings WHERE {due})")
    await rows.execute(f"UPDATE recordings SET state = 'shredded', certificate_id = call_token WHERE {due}")
    columns = list(next(calls(1, now)))
    of_objects = [column.name for column in metadata.tables["segments"].columns]
    of_entries = [column.name for column in metadata.tables["audit"].columns]
    # Above all earlier ones, and below those of another day.
    seq = 1_000_000_000 + _micros(now) // 1_000
    batch = list(calls(count // DAYS, now, days=1, seed=seq))
    await rows.copy("recordings", columns, [tuple(row.values()) for row in batch])
    await rows.copy("segments", of_objects, [each for row in batch for each in _objects(row)])
    await rows.copy("audit", of_entries, [_entry(seq + place, row) for place, row in enumerate(batch)])
    await rows.execute(HOURS)
    await rows.close()


async def copy_objects(vault, config, recordings):
    """Put a small object under each name that the catalog has for these recordings; return how many."""
    refs = [ref for each in recordings for ref in await vault.catalog.segments(each)]
    root = config.objects_path / "objects"
    meta = ObjectMeta(retain_until=datetime.now(UTC) + RETENTION, retention_class="default", sha256=refs[0].sha256)
    await vault.store.put(refs[0].name, [b"x" * 400], meta=meta)
    first, *further = (root / f"{ref.name}#object" for ref in refs)
    for path in further:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(first, path)
    return len(refs)
