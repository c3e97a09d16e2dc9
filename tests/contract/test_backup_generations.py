"""A backup has the catalog of one instant, however much of it earlier backups wrote: on SQLite and on PostgreSQL."""

import os
import random
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from tests.helpers.catalogs import (
    NOW,
    SteppingClock,
    certificate,
    certify,
    event,
    hold,
    sealed,
    shred,
)
from tests.helpers.soak import sampled
from vault.errors import Conflict, Unavailable
from vault.format import backup as layout
from vault.ids import RecordingId, new_id
from vault.model import DataKey
from vault.ports.progress import Silent
from vault.services.backup import catalog_parts
from vault.services.backup.care import BackupCare
from vault.services.backup.making import BackupMaker
from vault.services.backup.place import BackupPlace
from vault.services.surroundings import Surroundings
from vault.storage.catalog import open_catalog, tags
from vault.storage.catalog.tables import metadata
from vault.storage.objects.memory import MemoryObjectStore
from vault.telemetry import Metrics

KEYRING = b"k" * 16
STEPS = 24
COLUMNS = [
    *[("recordings", "state_reason"), ("segments", "length"), ("audit", "detail"), ("holds", "reason")],
    *[("certificate_batches", "statement"), ("shreds", "trigger"), ("hold_recordings", "position")],
]


class Clock(SteppingClock):
    """A clock that goes on by hours."""

    skipped = timedelta(0)

    def now(self):
        return NOW + (super().now() - NOW) * 3600 + self.skipped

    def skip(self, time):
        self.skipped += time


class Destination(MemoryObjectStore):
    """A store that lets something happen between two puts, or fails one."""

    def __init__(self):
        super().__init__()
        self.puts = 0
        self.fails_at = None
        self.error = None
        self.meanwhile = None

    async def put(self, name, chunks, *, meta):
        self.puts += 1
        if self.puts == self.fails_at:
            raise self.error
        await super().put(name, chunks, meta=meta)
        if self.meanwhile is not None:
            await self.meanwhile()


class History:
    """A catalog, what happens in it, and the backups made of it."""

    def __init__(self, catalog, seed):
        self.catalog = catalog
        self.random = random.Random(seed)
        self.store = Destination()
        self.key = os.urandom(32)
        self.clock = Clock()
        self.made = {}
        """What the catalog was, by backup."""

    @property
    def place(self):
        return BackupPlace(store=self.store, keys=[DataKey(self.key)], keyring=KEYRING, entropy=os.urandom)

    async def back_up(self, **options):
        surroundings = Surroundings(clock=self.clock, entropy=os.urandom, metrics=Metrics(CollectorRegistry()))
        maker = BackupMaker(
            place=self.place,
            catalog=self.catalog,
            store=MemoryObjectStore(),
            surroundings=surroundings,
            progress=Silent(),
        )
        report = await maker.create(keyring=KEYRING, keyring_epoch=1, issuer=None, objects=False, **options)
        self.made[report.manifest.backup] = await dump(self.catalog)
        return report

    async def prune(self, keep):
        surroundings = Surroundings(clock=self.clock, entropy=os.urandom, metrics=Metrics(CollectorRegistry()))
        care = BackupCare(place=self.place, surroundings=surroundings, progress=Silent())
        done = await care.prune(keep=keep)
        self.made = {backup: self.made[backup] for backup in done.kept}

    async def check(self):
        """Every backup that is kept has what the catalog was, and nothing is there that none needs."""
        needed = set()
        for backup, was in self.made.items():
            manifest = await self.place.manifest(backup)
            assert await content(self.place, manifest) == was
            assert manifest.counts == {table: len(rows) for table, rows in was.items() if rows}
            needed |= {part.name for part in manifest.parts} | {layout.manifest_name(backup)}
        assert {info.name async for info in self.store.list(layout.SNAPSHOTS)} == needed

    # -- what happens -------------------------------------------------------------------------------------------

    def identifier(self):
        """Return a recording's id of any time of some months."""
        millisecond = 1_772_000_000_000 + self.random.randrange(100) * 86_400_000
        return RecordingId(f"rec_{millisecond:012x}7{self.random.getrandbits(76):019x}")

    async def happen(self):
        await self.random.choice([self.call, self.call, self.shredding, self.holding, self.anything, self.anything])()

    async def call(self):
        for _ in range(self.random.randrange(1, 5)):
            await sealed(self.catalog, id=self.identifier())

    async def shredding(self):
        [gone] = await self.some("recordings", 1)
        row = await self.catalog.recording(RecordingId(f"rec_{gone.id.hex()}"))
        if row.certificate_id is None:
            await certify(self.catalog, [certificate(row)], audit=[event()])

    async def holding(self):
        rows = [RecordingId(f"rec_{row.id.hex()}") for row in await self.some("recordings", 3)]
        with suppress(Conflict):  # all of them are held for this matter already
            await self.catalog.add_hold(
                hold(*[await self.catalog.recording(each) for each in rows]), audit=[event(), event()]
            )
        await self.catalog.intend_shred(shred(due_through=None))

    async def anything(self):
        """Change or delete rows with a statement that the code does not know."""
        name, changed = self.random.choice(COLUMNS)
        table = metadata.tables[name]
        for row in await self.some(name, self.random.randrange(1, 4)):
            chosen = sa.and_(*(column == getattr(row, column.name) for column in table.primary_key.columns))
            value = self.random.getrandbits(30)
            value = value if isinstance(table.columns[changed].type, sa.Integer) else str(value)
            statement = sa.update(table).where(chosen).values({changed: value})
            if name == "segments" and self.random.random() < 0.5:
                statement = sa.delete(table).where(chosen)
            async with self.catalog._database.engine.begin() as connection:
                await connection.execute(statement)

    async def some(self, name, count):
        table = metadata.tables[name]
        found = await self.catalog._database.fetch(sa.select(table).order_by(*table.primary_key.columns))
        return self.random.sample(found, min(count, len(found)))


async def dump(catalog):
    return {
        name: sorted(map(repr, map(tuple, await catalog._database.fetch(sa.select(table)))))
        for name, table in metadata.tables.items()
        if name != "page_tags"
    }


async def content(place, manifest):
    rows = {name: [] for name in metadata.tables if name != "page_tags"}
    async for section in place.tables(manifest):
        rows[section.table] += [repr(tuple(row)) for row in section.rows]
    return {name: sorted(found) for name, found in rows.items()}


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres"))])
def database(request, tmp_path):
    return tmp_path / "catalog.db" if request.param == "file" else request.getfixturevalue("postgres_settings")


@pytest.fixture
async def catalog(database, monkeypatch):
    # Some rows are a range, and a row or two a part.
    monkeypatch.setattr(catalog_parts, "_RANGE_BYTES", 2000)
    monkeypatch.setattr(catalog_parts, "_SMALL_BYTES", 400)
    monkeypatch.setattr(catalog_parts, "_PART_BYTES", 1200)
    monkeypatch.setattr(catalog_parts, "_FEW", 2)
    monkeypatch.setattr(tags, "_ENTRIES", 4)
    opened = open_catalog(database, clock=SteppingClock())
    await opened.migrate()
    yield opened
    await opened.close()


@sampled("seed", {str(seed): seed for seed in range(40)})
async def test_every_backup_that_is_kept_is_exactly_the_catalog_of_its_time(catalog, seed, tmp_path):
    history = History(catalog, seed)
    for _ in range(5):
        await history.call()
    for _ in range(STEPS):
        await history.happen()
        if history.random.random() < 0.4:
            await history.back_up()
        if history.random.random() < 0.1:
            await history.prune(timedelta(hours=history.random.randrange(1, 60)))
    await history.check()
    again = await history.back_up()
    once_more = await history.back_up()
    assert once_more.kept_bytes > 0
    former, ranges = [
        [each for each in await history.place.ranges(report.manifest) if each.digest] for report in (again, once_more)
    ]
    assert ranges == former, "nothing changed, and nothing but the small tables is written"
    other = open_catalog(tmp_path / "other.db", clock=SteppingClock())
    await other.load(again.manifest.schema_revision, history.place.tables(again.manifest), settings={})
    assert await dump(other) == await dump(catalog)
    await other.close()


async def test_a_backup_of_a_catalog_that_changes_all_the_time_is_of_one_instant(catalog, tmp_path):
    history = History(catalog, 1)
    for _ in range(3):
        await history.call()
    await history.back_up()
    states = [await dump(catalog)]

    async def meanwhile():
        if (tmp_path / "catalog.db").exists():
            with closing(sqlite3.connect(tmp_path / "catalog.db")) as other:
                busy, *_ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                assert not busy, "while a part is written, no snapshot keeps the log from being folded"
        if history.random.random() < 0.2:
            await history.happen()
            states.append(await dump(catalog))

    history.store.meanwhile = meanwhile
    report = await history.back_up(whole=True)
    assert states.index(await content(history.place, report.manifest)) > 2


class Killed(BaseException):
    """An end that nothing cleans up after."""


async def test_a_backup_that_fails_or_is_killed_anywhere_leaves_the_earlier_ones_whole(catalog):
    history = History(catalog, 2)
    for _ in range(6):
        await history.call()
    await history.back_up()
    await history.call()
    await history.shredding()
    for failing in range(1, 60, 2):
        history.store.puts, history.store.fails_at = 0, failing
        history.store.error = Unavailable("the destination went away") if failing % 4 == 1 else Killed()
        try:
            await history.back_up()
        except Unavailable:
            await history.check()
        except Killed:
            history.store.fails_at = None
            with pytest.raises(Unavailable, match="being made"):
                await history.prune(timedelta(0))
            history.clock.skip(timedelta(days=2))
            await history.prune(timedelta(days=9999))
            await history.check()
        else:
            break
    assert failing > 15
    await history.check()


async def test_prune_leaves_the_parts_of_a_dropped_backup_that_a_kept_one_names(catalog):
    history = History(catalog, 6)
    for _ in range(6):
        await history.call()
    first = await history.back_up()
    await history.call()
    second = await history.back_up()
    shared = {part.name for part in first.manifest.parts} & {part.name for part in second.manifest.parts}
    assert shared
    await history.prune(timedelta(0))
    assert history.made.keys() == {second.manifest.backup}
    await history.check()


async def test_a_range_that_changed_after_it_was_read_is_read_again_in_the_last_snapshot(catalog, monkeypatch):
    monkeypatch.setattr(catalog_parts, "_FEW", 10_000)
    history = History(catalog, 7)
    for _ in range(6):
        await history.call()

    async def meanwhile():
        if history.store.puts > 5:
            history.store.meanwhile = None
            row = (await history.some("recordings", 1))[0]
            await catalog.shred_uncertified([RecordingId(f"rec_{row.id.hex()}")], reason="meanwhile")
            await sealed(catalog, id=RecordingId(f"rec_{row.id.hex()[:12]}7{history.random.getrandbits(76):019x}"))

    history.store.meanwhile = meanwhile
    await history.back_up()
    assert history.store.meanwhile is None
    await history.check()


async def test_what_is_missing_or_of_another_key_is_written_again(catalog):
    history = History(catalog, 3)
    for _ in range(6):
        await history.call()
    first = await history.back_up()
    lost = first.manifest.of_kind(layout.CATALOG)[0]
    await history.store.delete(lost.name)
    second = await history.back_up()
    assert lost.name not in {part.name for part in second.manifest.parts}
    assert second.kept_bytes > 0
    del history.made[first.manifest.backup]
    assert await content(history.place, second.manifest) == history.made[second.manifest.backup]
    assert (await history.back_up(whole=True)).kept_bytes == 0
    history.key = os.urandom(32)
    assert (await history.back_up()).kept_bytes == 0


async def test_a_backup_of_the_first_format_restores_and_no_part_of_it_is_used_again(catalog, tmp_path):
    history = History(catalog, 5)
    for _ in range(3):
        await history.call()
    async with catalog.snapshot() as snapshot:
        sections = [section for name in snapshot.tables async for _, section in snapshot.rows(name)]
    made = await history.back_up()
    backup = new_id("bak", at=NOW, entropy=os.urandom)
    part = await history.place.put_part(backup, layout.CATALOG, 0, layout.encode_tables(sections), at=NOW)
    older = replace(made.manifest, backup=backup, parts=(part,), schema=layout.SCHEMA_1)
    await history.place.forget(made.manifest.backup)
    await history.place.put_manifest(older, at=NOW)
    assert await content(history.place, older) == await dump(catalog)
    assert (await history.back_up()).kept_bytes == 0
    other = open_catalog(tmp_path / "other.db", clock=SteppingClock())
    await other.load(older.schema_revision, history.place.tables(await history.place.manifest(backup)), settings={})
    assert await dump(other) == await dump(catalog)
    await other.close()


async def test_without_its_triggers_a_catalog_is_written_whole_and_what_changed_then_is_not_missed(catalog):
    history = History(catalog, 4)
    for _ in range(6):
        await history.call()
    await history.back_up()
    async with catalog._database.engine.begin() as connection:
        await connection.run_sync(tags.drop)
    await history.anything()
    assert (await history.back_up()).kept_bytes == 0
    await catalog.migrate()
    assert (await history.back_up()).kept_bytes == 0
    assert (await history.back_up()).kept_bytes > 0
    await history.check()


async def test_a_backup_writes_the_forms_and_the_counters_that_came_since_the_last_and_no_others(catalog):
    history = History(catalog, 3)

    async def sweep(day):
        batch = f"bat_{day << 20:012x}{0:020x}"
        async with catalog._database.engine.begin() as connection:
            for number in range(4):
                form = {"digest": bytes([day, number] * 16), "text": "x" * 600, "batch": batch}
                await connection.execute(sa.insert(metadata.tables["certificate_forms"]), form)
            for tenant in range(40):
                counter = {"tenant": f"t{tenant}", "part": "audio", "period": 32 * day, "generation": 0, "next_leaf": 1}
                await connection.execute(sa.insert(metadata.tables["leaf_counters"]), counter)

    def parts(ranges, table):
        return {part.name for each in ranges if each.table == table for part in each.parts}

    for day in range(6):
        await sweep(day)
    former = await history.place.ranges((await history.back_up()).manifest)
    await sweep(6)
    ranges = await history.place.ranges((await history.back_up()).manifest)
    for table in ("certificate_forms", "leaf_counters"):
        before, after = parts(former, table), parts(ranges, table)
        assert len(before & after) >= 4 > len(before - after), table
    await history.check()


def test_every_table_is_either_divided_into_pages_or_known_to_stay_small():
    small = {
        *("alerts", "audit_head", "audit_hours", "erasures", "holds", "keyed_requests", "live_counts"),
        *("measured_days", "nodes", "policy_requests", "recording_counts", "recording_notes", "settings"),
        *("sweep_floor", "sweep_overrides", "tenants", "tokens"),
    }
    assert metadata.tables.keys() == tags.PAGED.keys() | small | {"page_tags"}
