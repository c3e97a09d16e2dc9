"""The contract of `vault.ports.catalog`, in memory, on a file and on a PostgreSQL server."""

import asyncio
import itertools
import json
import random
import re
import shutil
import sqlite3
import time
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import aiosqlite
import pytest
import sqlalchemy as sa
from alembic import command
from prometheus_client import CollectorRegistry

from tests.helpers.catalog_template import transaction
from tests.helpers.catalogs import (
    ACME,
    CHANGE,
    NODE,
    NOW,
    OTHER,
    PERIOD,
    RETENTION_CHANGE,
    SteppingClock,
    alert,
    becomes,
    certificate,
    certify,
    cohort,
    erasure,
    event,
    examined,
    finish,
    hold,
    new_id,
    node,
    override,
    policy_request,
    receipt,
    recording,
    sealed,
    segment,
    shred,
    tenant,
    token,
)
from tests.helpers.trail import audit_entries
from vault.certificates.audit_chain import GENESIS, verify_chain
from vault.certificates.document import subject
from vault.certificates.template import last_of
from vault.errors import (
    ConfigError,
    Conflict,
    DiskFull,
    GenerationPassed,
    IntegrityError,
    Invalid,
    NotFound,
    TooLarge,
    TooLate,
    Unavailable,
)
from vault.format.names import manifest_name, segment_name
from vault.ids import HoldId, NodeId, RecordingId, TenantId, TokenId
from vault.model import (
    INDEX_LEAF,
    MANIFEST_INDEX,
    AuditEvent,
    CertificateStatus,
    Codec,
    Container,
    Content,
    Coordinate,
    Examined,
    HoldKind,
    HoldState,
    HoldTerms,
    Media,
    MetadataChange,
    Part,
    RecordingKeys,
    RecordingState,
    Role,
)
from vault.ports.audit import AuditQuery
from vault.ports.erasures import ErasureBasis, ErasureId, ErasureOutcome, ErasureState
from vault.ports.holds import MOST_HOLDS
from vault.ports.policies import PolicyState
from vault.ports.recordings import RecordingQuery, Reindexed
from vault.storage.catalog import open_catalog, partitions, recording_sql, schema, sqlite, tables
from vault.storage.catalog import rows as rows_of
from vault.storage.catalog.tables import audit_head, audit_hours, recordings, settings
from vault.telemetry import Metrics

MISSING = RecordingId("rec_" + "0" * 32)


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "odd % name?#" / "catalog.db"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Give an empty migrated catalog to copy: migrating anew for each test would take most of the suite's time."""

    async def migrate(path):
        opened = open_catalog(path, clock=SteppingClock())
        await opened.migrate()
        await opened.close()

    path = tmp_path_factory.mktemp("template") / "catalog.db"
    asyncio.run(migrate(path))
    return path


@pytest.fixture
def migrated(path, template):
    path.parent.mkdir()
    shutil.copy(template, path)
    return path


@pytest.fixture(params=["memory", "file", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres"))])
def place(request):
    if request.param == "memory":
        return None
    return request.getfixturevalue("migrated" if request.param == "file" else "postgres_settings")


@pytest.fixture
async def catalog(place, metrics):
    opened = open_catalog(place, clock=SteppingClock(), metrics=metrics)
    if place is None:
        await opened.migrate()
    yield opened
    # Whatever a test did: the counts moved with the rows.
    with suppress(Unavailable):
        assert await opened.miscounted() == []
    await opened.close()


@pytest.fixture
async def on_file(migrated, metrics):
    opened = open_catalog(migrated, clock=SteppingClock(), metrics=metrics)
    yield opened
    await opened.close()


class Clock:
    """A clock that a test sets."""

    def __init__(self, at):
        self.at = at

    def now(self):
        return self.at

    def monotonic(self):
        return 0.0


async def plan_of(catalog, reading, *, rows=True):
    """Return how the database finds what the last statement of `reading` asks for.

    Without `rows` for a server to think of, it is how it finds them where a table has too many to read.
    """
    engine = catalog._database._readers or catalog._database.engine
    asked = []

    def collect(_connection, _cursor, statement, parameters, *_rest):
        asked.append((statement, parameters))

    sa.event.listen(engine.sync_engine, "before_cursor_execute", collect)
    await reading
    sa.event.remove(engine.sync_engine, "before_cursor_execute", collect)
    statement, parameters = next(each for each in reversed(asked) if each[0].startswith("SELECT"))
    async with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            told = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            return "; ".join(row[3] for row in told)
        forced = ("seqscan", "bitmapscan", "sort")
        for way in () if rows else forced:
            await connection.exec_driver_sql(f"SET enable_{way} = off")
        told = await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
        for way in () if rows else forced:
            await connection.exec_driver_sql(f"RESET enable_{way}")
        return "; ".join(row[0] for row in told)


async def fill(catalog):
    """Give a server's planner rows of a vault that is in use to think of; SQLite plans without looking at any."""
    engine = catalog._database.engine
    if engine.dialect.name != "postgresql":
        return
    await sealed(catalog, caller_token="x", called_token="y")
    names = [column.name for column in recordings.columns]
    made = {
        "id": "decode(md5(n::text), 'hex')",
        "tenant": "'tenant' || n % 50",
        "call_token": "'call' || n",
        "caller_token": "'from' || n % 700",
        "called_token": "'to' || n % 90",
        "state": "(ARRAY['sealed', 'sealed', 'sealed', 'truncated', 'shredded'])[n % 5 + 1]",
        "stored_bytes": "n",
        "lasted_ms": "n",
        "started_at": "started_at - n * 1000000::bigint",
        "retain_until": "retain_until + n * 1000000::bigint",
    }
    chosen = ", ".join(made.get(name, name) for name in names)
    entry = "n + 1000, 1000 * n, 'access.' || CASE n % 20 WHEN 7 THEN 'play' WHEN 8 THEN 'search' ELSE 'denied' END, "
    entry += "'tok_' || lpad(CAST(n % 90 AS text), 32, '0') || ' A', 'ok', role, 'tenant' || n % 50, purpose, "
    entry += "request_id, 'rec_' || n % 5003, detail, previous_sha256, sha256"
    async with engine.begin() as connection:
        for statement in (
            f"INSERT INTO recordings ({', '.join(names)}) SELECT {chosen} FROM recordings, generate_series(1, 20000) n",
            f"INSERT INTO audit SELECT {entry} FROM (SELECT * FROM audit LIMIT 1) a, generate_series(1, 20000) n",
            "ANALYZE recordings, audit",
        ):
            await connection.exec_driver_sql(statement)


async def trail(catalog):
    return await audit_entries(catalog, limit=100_000)


async def events(catalog):
    return [entry.event.event for entry in await trail(catalog)]


async def outcomes(calls):
    """Return each call's exception, or None for success."""
    return [
        result if isinstance(result, BaseException) else None
        for result in await asyncio.gather(*calls, return_exceptions=True)
    ]


# Leaves


async def test_leaves_never_repeat_under_concurrency(catalog):
    firsts = await asyncio.gather(*[catalog.reserve_leaves(cohort(), 7) for _ in range(60)])
    leaves = [leaf for first in firsts for leaf in range(first, first + 7)]
    assert len(set(leaves)) == len(leaves) == 420
    assert await catalog.reserve_leaves(cohort(), 1) == 420


async def test_each_cohort_counts_its_own_leaves(catalog):
    cohorts = [cohort(), cohort(period=PERIOD + 1), cohort(part=Part.METADATA), cohort(tenant=OTHER)]
    cohorts.append(replace(cohort(), generation=4))
    assert [await catalog.reserve_leaves(one, 5) for one in cohorts] == [0] * 5
    assert [await catalog.reserve_leaves(one, 5) for one in cohorts] == [5] * 5


async def test_a_closed_generation_gives_out_no_leaf_and_lets_nothing_begin_and_never_reopens(catalog):
    old, new = cohort(), replace(cohort(), generation=5)
    await catalog.reserve_leaves(old, 64)
    await catalog.reserve_leaves(replace(old, generation=old.generation + 1), 7)
    await catalog.reserve_leaves(new, 3)
    event = AuditEvent(event="keyring.generations_closed", actor="ops", outcome="ok")
    since = old.generation + 1
    assert await catalog.close_generations(5, since=since, audit=[event]) == {replace(old, generation=since): 7}
    assert (await audit_entries(catalog, after=0, limit=10))[-1].event == event
    assert await catalog.close_generations(2, since=0) == {}
    assert len(await catalog.close_generations(5, since=0)) == 2
    for closed in (old, replace(new, generation=4)):
        with pytest.raises(GenerationPassed):
            await catalog.reserve_leaves(closed, 1)
    assert await catalog.reserve_leaves(new, 1) == 3
    late = recording()
    for place in ("audio", "metadata"):
        moved = {
            each: replace(getattr(late, each), cohort=replace(getattr(late, each).cohort, generation=5))
            for each in ("audio", "metadata")
            if each != place
        }
        with pytest.raises(GenerationPassed):
            await catalog.create_recording(replace(late, **moved))
    await catalog.create_recording(late, begun_before=True)
    assert (await catalog.recording(late.id)).state is RecordingState.OPEN


async def test_the_last_of_a_cohorts_two_to_the_32_leaves_is_never_given_out(catalog):
    assert await catalog.reserve_leaves(cohort(), (1 << 32) - 2) == 0
    with pytest.raises(TooLarge):
        await catalog.reserve_leaves(cohort(), 2)
    assert await catalog.reserve_leaves(cohort(), 1) == INDEX_LEAF - 1
    with pytest.raises(TooLarge):
        await catalog.reserve_leaves(cohort(), 1)
    with pytest.raises(Invalid):
        await catalog.reserve_leaves(cohort(), 0)


# Creating


async def test_a_created_recording_comes_back_as_it_was(catalog):
    one = recording(state_reason="r", certificate_id=None, ended_at=NOW)
    await catalog.create_recording(one)
    assert await catalog.recording(one.id) == one
    assert await catalog.recording_by_call(ACME, [one.call_token]) == one


async def test_a_call_key_belongs_to_one_recording_of_a_tenant(catalog):
    one = recording(call_token="same")
    await catalog.create_recording(one)
    with pytest.raises(Conflict):
        await catalog.create_recording(recording(call_token="same"))
    with pytest.raises(Conflict):
        await catalog.create_recording(one)
    with pytest.raises(Conflict):
        await catalog.create_recording(replace(one, call_token="another"))
    await catalog.create_recording(recording(call_token="same", tenant=OTHER))
    assert (await catalog.recording_by_call(ACME, ["same"])).id == one.id


async def test_of_a_hundred_concurrent_creates_of_one_call_key_exactly_one_wins(catalog):
    rivals = [recording(call_token="same") for _ in range(100)]
    results = await outcomes(catalog.create_recording(one, audit=[event(target=one.id)]) for one in rivals)
    winners = [one for one, result in zip(rivals, results, strict=True) if result is None]
    assert len(winners) == 1
    assert {type(result) for result in results if result is not None} == {Conflict}
    assert [entry.event.target for entry in await trail(catalog)] == [winners[0].id]
    assert [row.id for row in await catalog.recordings(RecordingQuery())] == [winners[0].id]


async def test_the_same_recording_created_a_hundred_times_at_once_is_created_once(catalog):
    one = recording()
    results = await outcomes(catalog.create_recording(one, audit=[event()]) for _ in range(100))
    assert results.count(None) == 1
    assert {type(result) for result in results if result is not None} == {Conflict}
    assert await events(catalog) == ["recording.started"]


async def test_losers_do_not_disturb_the_winners_of_their_batch(catalog):
    await catalog.create_recording(recording(call_token="taken"))
    fresh = [recording() for _ in range(20)]
    mixed = [one for pair in zip(fresh, [recording(call_token="taken") for _ in fresh], strict=True) for one in pair]
    results = await outcomes(catalog.create_recording(one) for one in mixed)
    assert [result is None for result in results] == [True, False] * 20
    assert {row.id for row in await catalog.open_recordings()} >= {one.id for one in fresh}


async def test_no_recording_is_born_at_or_below_the_sweep_floor(catalog):
    await catalog.intend_shred(shred(due_through=PERIOD))
    for period in (PERIOD - 1, PERIOD):
        late = recording(period=period)
        with pytest.raises(TooLate):
            await catalog.create_recording(late, audit=[event()])
        assert await catalog.recording_by_call(ACME, [late.call_token]) is None
    await catalog.create_recording(recording(period=PERIOD + 1))
    assert await events(catalog) == []


async def test_every_birth_that_races_a_sweep_is_refused_or_kept(catalog):
    births = [recording() for _ in range(80)]
    intent = shred()

    async def sweep():
        await asyncio.sleep(0)
        return await catalog.intend_shred(intent)

    tasks = [asyncio.ensure_future(catalog.create_recording(one)) for one in births[:40]]
    sweeping = asyncio.ensure_future(sweep())
    for one in births[40:]:
        await asyncio.sleep(0)
        tasks.append(asyncio.ensure_future(catalog.create_recording(one)))
    results = await outcomes(tasks)
    born = {one.id for one, result in zip(births, results, strict=True) if result is None}
    assert {row.id for row in await sweeping} == born
    assert {type(result) for result in results if result is not None} <= {TooLate}


async def test_coordinates_of_another_tenant_or_part_are_refused(catalog):
    one = recording()
    foreign = Coordinate(cohort=cohort(tenant=OTHER), leaf=1)
    for wrong in (replace(one, audio=foreign), replace(one, metadata=one.audio)):
        with pytest.raises(Invalid):
            await catalog.create_recording(wrong)


# Reading


async def found(catalog, **filters):
    return [row.id for row in await catalog.recordings(RecordingQuery(**filters))]


async def measured(catalog, *, size, seconds, days, **changes):
    """Finish a recording of so many bytes and seconds that is kept for so many days; return its id."""
    one = recording(retain_until=NOW + timedelta(days=days), **changes)
    await catalog.create_recording(one)
    lasted = None if seconds is None else timedelta(seconds=seconds)
    await finish(catalog, one, stored_bytes=size, lasted=lasted)
    return one.id


async def test_recordings_are_found_by_size_duration_and_by_what_goes_when(catalog):
    a = await measured(catalog, size=100, seconds=10, days=9)
    b = await measured(catalog, size=200, seconds=None, days=3)
    c = await measured(catalog, size=300, seconds=30, days=3)
    theirs = await measured(catalog, size=300, seconds=30, days=1, tenant=OTHER)
    live = recording(retain_until=NOW + timedelta(days=2), stored_bytes=500)
    await catalog.create_recording(live)
    assert (await catalog.recording(c)).lasted == timedelta(seconds=30)
    assert (await catalog.recording(b)).lasted is None
    assert await found(catalog, tenant=ACME, min_bytes=200) == [c, b]
    assert await found(catalog, tenant=ACME, min_bytes=100, max_bytes=200) == [b, a]
    assert await found(catalog, tenant=ACME, min_duration=timedelta(seconds=10)) == [c, a]
    assert await found(catalog, tenant=ACME, max_duration=timedelta(seconds=10), before=c) == [a]
    assert await found(catalog, tenant=ACME, min_bytes=0, min_duration=timedelta(0), limit=1) == [c]
    week = NOW + timedelta(days=7)
    assert await found(catalog, tenant=ACME, expires_to=week) == [b, c]
    assert await found(catalog, tenant=ACME, expires_to=week, before=b) == [c]
    assert await found(catalog, tenant=ACME, expires_to=week, min_duration=timedelta(0)) == [c]
    assert await found(catalog, expires_from=NOW, expires_to=week) == [theirs, b, c]
    assert await found(catalog, tenant=ACME, expires_from=NOW + timedelta(days=3), limit=2) == [b, c]
    for another in (theirs, MISSING):
        assert await found(catalog, tenant=ACME, expires_from=NOW, before=another) == []
    assert live.id not in await found(catalog, tenant=ACME, expires_from=NOW)


async def test_what_is_found_by_several_filters_is_what_meets_each_of_them(catalog, monkeypatch):
    drawn = random.Random(7)
    made = []
    for number in range(40):
        began = NOW - timedelta(days=drawn.choice((0, 1, 2, 9, 30)), hours=drawn.randrange(30))
        one = recording(
            tenant=drawn.choice((ACME, ACME, OTHER)),
            started_at=began,
            created_at=began + timedelta(hours=drawn.choice((1, 1, -1))),
            retain_until=NOW + timedelta(days=drawn.randrange(9)),
        )
        await catalog.create_recording(one)
        if number % 8:
            lasted = drawn.choice((None, *(timedelta(seconds=each) for each in (3, 30, 300))))
            state = drawn.choice((RecordingState.SEALED, RecordingState.SEALED, RecordingState.TRUNCATED))
            await finish(catalog, one, state, stored_bytes=drawn.choice((10, 20, 1000)), lasted=lasted)
        made.append(await catalog.recording(one.id))
    await certify(catalog, [certificate(row) for row in made if row.state is RecordingState.SEALED][:5])
    made = [await catalog.recording(row.id) for row in made]
    kept = hold(*(row for row in made[::2] if row.tenant == ACME and row.state is not RecordingState.SHREDDED))
    await catalog.add_hold(kept)
    second = timedelta(seconds=1)
    tests = {
        "tenant": (ACME, lambda row, value: row.tenant == value),
        "state": (drawn.choice([*RecordingState]), lambda row, value: row.state is value),
        "ahead": (True, lambda row, _: row.started_at > row.created_at),
        "held": (True, lambda row, _: row.id in kept.recordings),
        "min_bytes": (20, lambda row, value: row.ended_at is not None and row.stored_bytes >= value),
        "max_bytes": (20, lambda row, value: row.ended_at is not None and row.stored_bytes <= value),
        "min_duration": (30 * second, lambda row, value: row.lasted is not None and row.lasted >= value),
        "max_duration": (29 * second, lambda row, value: row.lasted is not None and row.lasted <= value),
        "started_from": (NOW - timedelta(days=9), lambda row, value: row.started_at >= value),
        "started_to": (NOW - timedelta(days=1), lambda row, value: row.started_at < value),
        "expires_from": (NOW + timedelta(days=3), lambda row, value: row.retain_until >= value),
        "expires_to": (NOW + timedelta(days=7), lambda row, value: row.retain_until < value),
    }
    finished = {RecordingState.SEALED, RecordingState.TRUNCATED, RecordingState.SHREDDING}
    several = [*itertools.combinations(tests, 2), *itertools.combinations(tests, 3)]
    seen = 0
    for some in drawn.sample(several, 60):
        measures = any(name.endswith(("bytes", "duration")) for name in some)
        names = {*some, "tenant"} if measures else {*some}
        by_expiry = any(name.startswith("expires") for name in names)
        chosen = {name: tests[name][0] for name in names}
        matching = [
            row
            for row in made
            if all(meets(row, value) for value, meets in map(tests.get, names))
            and (not by_expiry or row.state in finished)
        ]
        order = (
            sorted(matching, key=lambda row: (row.retain_until, row.id))
            if by_expiry
            else sorted(matching, key=lambda row: (row.started_at, row.id), reverse=True)
        )
        monkeypatch.setattr(recording_sql, "LOOKED_THROUGH", drawn.choice((0, 5, 10_000)))
        listed, before = [], None
        while page := await found(catalog, before=before, limit=3, **chosen):
            listed, before = listed + page, page[-1]
        assert listed == [row.id for row in order], chosen
        seen += len(listed)
    assert seen > 50


async def test_days_of_which_no_call_has_the_size_or_the_duration_are_not_read(catalog):
    at = [NOW - timedelta(days=day) for day in range(6)]
    for day, size in enumerate((10, 10, 500, 10, 10, 500)):
        await measured(catalog, size=size, seconds=size, days=9, started_at=at[day])
    asked = []
    engine = (catalog._database._readers or catalog._database.engine).sync_engine
    sa.event.listen(engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    for chosen in ({"min_bytes": 501}, {"max_bytes": 9}, {"min_duration": timedelta(seconds=501)}):
        assert await found(catalog, tenant=ACME, **chosen) == []
    assert await found(catalog, tenant=OTHER, min_bytes=1) == []
    assert await found(catalog, tenant=ACME, min_bytes=20, started_from=at[1], started_to=at[0]) == []
    assert not [statement for statement in asked if "FROM recordings" in statement]
    assert len(await found(catalog, tenant=ACME, min_bytes=20)) == 2
    assert len([statement for statement in asked if "FROM recordings" in statement]) == 2, "a day each"


async def test_a_list_that_nothing_can_match_reads_no_row(catalog):
    await measured(catalog, size=100, seconds=10, days=9)
    asked = []
    engine = (catalog._database._readers or catalog._database.engine).sync_engine
    sa.event.listen(engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    for chosen in ({"min_bytes": 1}, {"max_duration": timedelta(days=1)}, {"expires_to": NOW + timedelta(days=99)}):
        assert await found(catalog, tenant=ACME, state=RecordingState.OPEN, **chosen) == []
    assert await found(catalog, state=RecordingState.SHREDDED, expires_from=NOW) == []
    assert asked == []
    assert await found(catalog, tenant=ACME, state=RecordingState.SEALED, min_bytes=1) != []
    assert asked


async def test_calls_are_found_by_any_of_their_tokens(catalog):
    calls = {}
    for name, caller, called in (("k", "x", "y"), ("k~2", "z", "x"), ("other", "y", "z")):
        one = recording(call_token=name, caller_token=f"from-{caller}", called_token=f"to-{called}")
        await catalog.create_recording(one)
        calls[name] = one.id
    assert await found(catalog, tenant=ACME, call_tokens=("k", "k~2")) == [calls["k~2"], calls["k"]]
    assert await found(catalog, tenant=OTHER, call_tokens=("k", "k~2")) == []
    assert await found(catalog, tenant=ACME, agent_tokens=(("from-x",), ("to-x",))) == [calls["k~2"], calls["k"]]
    assert await found(catalog, tenant=ACME, agent_tokens=(("from-x",), ("to-x",)), before=calls["k~2"]) == [calls["k"]]
    assert await found(catalog, tenant=ACME, agent_tokens=(("from-y",), ("to-y",)), call_tokens=("k",)) == [calls["k"]]
    assert await found(catalog, tenant=ACME, call_tokens=()) == []


IN_USE = TenantId("tenant7")
THAT = "the last one of the page before"
FIRST, LAST = (NOW + timedelta(days=90, hours=hours) for hours in (1, 3))
WINDOW = {"started_from": NOW - timedelta(hours=2), "started_to": NOW - timedelta(hours=1)}
LISTS = [
    ({"before": THAT}, "ix_recordings_started"),
    (WINDOW | {"before": THAT}, "ix_recordings_started"),
    ({"tenant": IN_USE, "before": THAT}, "ix_recordings_measures"),
    ({"tenant": IN_USE} | WINDOW, "ix_recordings_measures"),
    ({"state": RecordingState.SHREDDED} | WINDOW, "ix_recordings_state"),
    ({"tenant": IN_USE, "state": RecordingState.TRUNCATED} | WINDOW, "ix_recordings_tenant_state"),
    ({"tenant": IN_USE, "min_duration": timedelta(days=9)} | WINDOW, "ix_recordings_measures"),
    ({"tenant": IN_USE, "ahead": True}, "ix_recordings_ahead"),
    ({"tenant": IN_USE, "called_tokens": ("a", "b"), "before": THAT} | WINDOW, "ix_recordings_called_token"),
    ({"tenant": IN_USE, "caller_tokens": ("a",), "state": RecordingState.SEALED}, "ix_recordings_caller_token"),
    ({"tenant": IN_USE, "state": RecordingState.OPEN}, "ix_recordings_tenant_state|ix_recordings_state"),
    ({"tenant": IN_USE, "state": RecordingState.SHREDDED, "before": THAT}, "ix_recordings_tenant_state"),
    ({"tenant": IN_USE, "min_bytes": 19_000}, "ix_recordings_measures"),
    ({"tenant": IN_USE, "max_duration": timedelta(seconds=1), "before": THAT}, "ix_recordings_measures"),
    ({"tenant": IN_USE, "expires_to": LAST}, "ix_recordings_tenant_retain"),
    ({"tenant": IN_USE, "expires_from": FIRST, "expires_to": LAST, "min_bytes": 1}, "ix_recordings_tenant_retain"),
    ({"expires_from": FIRST}, "ix_recordings_retain"),
    ({"tenant": IN_USE, "ahead": True, "expires_to": LAST}, "ix_recordings_ahead_retain"),
    ({"ahead": True, "expires_from": FIRST}, "ix_recordings_ahead_retain"),
    ({"tenant": IN_USE, "ahead": True, "min_bytes": 1}, "ix_recordings_ahead"),
    ({"state": RecordingState.SHREDDING, "expires_from": FIRST}, "ix_recordings_state"),
    (
        {"tenant": IN_USE, "state": RecordingState.SHREDDING, "min_bytes": 1},
        r"ix_recordings_tenant_state|ix_rec\w+_state",
    ),
    ({"tenant": IN_USE, "call_tokens": ("a", "b")}, "uq_recordings_tenant_call_key|sqlite_autoindex_recordings_2"),
    ({"tenant": IN_USE, "agent_tokens": (("a",), ("b",))}, "ix_recordings_caller_token"),
    ({"tenant": IN_USE, "agent_tokens": (("a",), ("b",))}, "ix_recordings_called_token"),
]


async def test_each_filter_of_a_list_is_served_by_an_index(place):
    catalog = open_catalog(place, clock=SteppingClock())
    if place is None:
        await catalog.migrate()
    await fill(catalog)
    last = await sealed(catalog, tenant=IN_USE)
    async with catalog._database.engine.begin() as connection:  # so that nothing tells that no call matches
        await connection.exec_driver_sql(f"UPDATE measured_days SET least_bytes = 0, most_bytes = {1 << 40}")
        await connection.exec_driver_sql(f"UPDATE measured_days SET least_ms = 0, most_ms = {1 << 40}")
    for listed, index in LISTS:
        chosen = {name: last.id if value == THAT else value for name, value in listed.items()}
        plan = await plan_of(catalog, catalog.recordings(RecordingQuery(**chosen)))
        assert re.search(rf"({index})\b", plan), (chosen, plan)
        assert "Seq Scan" not in plan, (chosen, plan)
        # Of these a page or a few rows are sorted.
        sorts = any(re.search("tokens|ahead|bytes|duration", name) for name in chosen)
        sorts = sorts and "expires_to" not in chosen
        sorts = sorts or chosen.get("state") is RecordingState.SHREDDING
        assert sorts or "TEMP B-TREE" not in plan, (chosen, plan)
    due = {"through": PERIOD - 9, "now": NOW, "after": None, "limit": 9}
    for reading in (
        catalog.count_due(through=PERIOD - 9),
        catalog.count_due_cohorts(through=PERIOD - 9),
        catalog.doubtful_recordings(**due),
        catalog.exceptional_recordings(tenants=(), **due),
    ):
        plan = await plan_of(catalog, reading)
        # SQLite does not say that it reads no row, which it does not where the index has every column it needs.
        assert re.search("USING INDEX ix_recordings_due|Index Only Scan using ix_recordings_due", plan), plan
    await catalog.close()


async def test_each_other_list_walks_an_index_in_order(catalog):
    erasure, one = ErasureId(new_id("era")), recording().id
    lists = [
        (catalog.erasures(), "pk_erasures|sqlite_autoindex_erasures_1"),
        (catalog.erasures(states=[ErasureState.APPROVED]), "ix_erasures_state"),
        (catalog.erasures(tenant=IN_USE), "ix_erasures_tenant"),
        (catalog.erasures(tenant=IN_USE, before=erasure), "ix_erasures_tenant"),
        (catalog.erasures_on(one), "ix_erasure_recordings_recording"),
        (catalog.counted_holds(), "ix_holds_created_at"),
        (catalog.counted_holds(tenant=IN_USE), "ix_holds_tenant"),
        (catalog.holds_on(one), "ix_hold_recordings_recording"),
        (catalog.certificates(), "pk_certificate_batches|sqlite_autoindex_certificate_batches_1"),
        (catalog.certificates(tenant=IN_USE), "pk_certificate_tenants|certificate_tenants USING PRIMARY KEY"),
        (catalog.certificates(tenant=IN_USE, recording=one), "pk_recordings|sqlite_autoindex_recordings_1"),
    ]
    for reading, index in lists:
        plan = await plan_of(catalog, reading, rows=False)
        assert re.search(rf"({index})\b", plan), plan
        # `chosen` is one page of erasures.
        assert not re.search(r"Seq Scan|SCAN (?!\w+ USING|chosen)", plan), plan
        few = "erasure" in index or "hold_recordings" in index  # a page's outcomes, what names one recording
        assert few or not re.search(r"Sort |B-TREE", plan), plan


async def test_unknown_and_malformed_ids_are_told_apart(catalog):
    with pytest.raises(NotFound):
        await catalog.recording(MISSING)
    for malformed in ("rec_1", "hold_" + "0" * 32, ""):
        with pytest.raises(Invalid):
            await catalog.recording(RecordingId(malformed))
    assert await catalog.recording_by_call(ACME, ["none"]) is None
    assert await catalog.segments(MISSING) == []


async def test_what_is_looked_up_within_a_tenant_is_that_tenants_or_not_found(catalog):
    mine = await sealed(catalog)
    held, erased = hold(mine), erasure(mine)
    await catalog.add_hold(held)
    await catalog.add_erasure(erased)
    [proof] = await certify(catalog, [certificate(mine)])
    for look_up, identifier in (
        (catalog.recording, mine.id),
        (catalog.hold, held.id),
        (catalog.erasure, erased.id),
        (catalog.certificate, proof.id),
    ):
        assert await look_up(identifier, tenant=ACME) == await look_up(identifier)
        with pytest.raises(NotFound):
            await look_up(identifier, tenant=OTHER)


async def test_pages_run_from_the_newest_to_the_oldest_without_gap_or_repeat(catalog):
    rows = [recording() for _ in range(25)]
    await asyncio.gather(*[catalog.create_recording(one) for one in rows])
    seen: list[str] = []
    before = None
    while page := await catalog.recordings(RecordingQuery(before=before, limit=7)):
        seen += [row.id for row in page]
        before = page[-1].id
    assert seen == sorted((one.id for one in rows), reverse=True)


async def test_filters_narrow_a_page(catalog):
    mine, ended = recording(started_at=NOW), await sealed(catalog, started_at=NOW + timedelta(hours=1))
    theirs = recording(tenant=OTHER, started_at=NOW)
    await catalog.create_recording(mine)
    await catalog.create_recording(theirs)

    async def found(**filters):
        return {row.id for row in await catalog.recordings(RecordingQuery(**filters))}

    assert await found() == {mine.id, ended.id, theirs.id}
    assert await found(tenant=ACME) == {mine.id, ended.id}
    assert await found(state=RecordingState.SEALED) == {ended.id}
    assert await found(tenant=ACME, state=RecordingState.OPEN) == {mine.id}
    assert await found(started_from=NOW + timedelta(microseconds=1)) == {ended.id}
    assert await found(started_from=NOW, started_to=NOW + timedelta(hours=1)) == {mine.id, theirs.id}
    assert await found(ahead=True) == {ended.id}
    assert await found(ahead=False) == {mine.id, theirs.id}
    assert await found(tenant=TenantId("nobody")) == set()
    assert await found(limit=0) == set()


@pytest.mark.parametrize(
    ("state", "too_late", "held"),
    [
        (HoldState.PLACING, False, True),
        (HoldState.ACTIVE, False, True),
        (HoldState.RELEASE_REQUESTED, False, True),
        (HoldState.RELEASED, False, False),
        (HoldState.ACTIVE, True, False),
    ],
)
async def test_held_means_a_hold_in_force_that_came_in_time(catalog, state, too_late, held):
    one, free = await sealed(catalog), await sealed(catalog)
    placed = hold(state=state, too_late=(one.id,)) if too_late else hold(one, state=state)
    await catalog.add_hold(placed)
    with_hold = {row.id for row in await catalog.recordings(RecordingQuery(tenant=ACME, held=True))}
    without = {row.id for row in await catalog.recordings(RecordingQuery(tenant=ACME, held=False))}
    assert with_hold == ({one.id} if held else set())
    assert without == {one.id, free.id} - with_hold


async def test_lists_of_what_is_held_are_the_same_however_much_is_held(catalog, monkeypatch):
    hours = (5, 3, 3, 9, 1, 7, 2, 8, 6, 4, 0, 11)
    rows = [
        await sealed(catalog, started_at=NOW + timedelta(hours=each), tenant=OTHER if each in (2, 9) else ACME)
        for each in hours
    ]
    newest = sorted(rows, key=lambda row: (row.started_at, row.id), reverse=True)
    of = {tenant: [row for row in rows if row.tenant == tenant] for tenant in (ACME, OTHER)}
    placed = [
        hold(*of[ACME][:4]),
        hold(*of[ACME][2:6], of[ACME][8]),
        replace(hold(*of[OTHER][:1]), tenant=OTHER),
        hold(of[ACME][7], state=HoldState.RELEASED),
    ]
    for each in placed:
        await catalog.add_hold(each)
    held = {row for each in placed[:3] for row in each.recordings}
    window = {"started_from": NOW + timedelta(hours=2), "started_to": NOW + timedelta(hours=8)}
    for most in (0, 3, 10_000):
        monkeypatch.setattr(recording_sql, "LOOKED_THROUGH", most)
        for chosen in ({}, {"tenant": ACME}, {"tenant": OTHER}, window, {"tenant": ACME, **window}):
            matching = [
                row.id
                for row in newest
                if row.tenant == chosen.get("tenant", row.tenant)
                and ("started_from" not in chosen or window["started_from"] <= row.started_at < window["started_to"])
            ]
            for wanted in (True, False):
                seen, before = [], None
                while page := await found(catalog, held=wanted, before=before, limit=2, **chosen):
                    seen += page
                    before = page[-1]
                assert seen == [each for each in matching if (each in held) is wanted], (most, chosen, wanted)
    # By their holds, whatever the state of these.
    under = {row for each in placed[1:] for row in each.recordings}
    named = tuple(each.id for each in placed[1:])
    mine = [row.id for row in newest if row.id in under and row.tenant == ACME]
    assert await found(catalog, tenant=ACME, under=named) == mine
    assert await found(catalog, tenant=ACME, under=named, before=mine[2]) == mine[3:]
    assert await found(catalog, tenant=ACME, under=named, held=False) == [of[ACME][7].id]
    place = (rows[0].metadata.cohort.period, rows[0].metadata.cohort.generation)
    assert await found(catalog, tenant=ACME, under=named, metadata_of=(place, (1, 1))) == mine
    assert await found(catalog, tenant=ACME, under=named, metadata_of=((1, 1),)) == []


async def test_due_rows_are_the_finished_ones_of_passed_periods_the_earliest_period_first(catalog):
    due = [await sealed(catalog, period=PERIOD - n % 3) for n in range(10)]
    await sealed(catalog, period=PERIOD + 1)
    await catalog.create_recording(recording())
    gone = await sealed(catalog)
    await certify(catalog, [certificate(gone)])
    seen: list[str] = []
    after = None
    while page := await catalog.due_recordings(through=PERIOD, after=after, limit=4):
        assert len(page) <= 4
        seen += [row.id for row in page]
        after = page[-1].id
    assert seen == [one.id for one in sorted(due, key=lambda one: (one.audio.cohort.period, one.id))]
    assert await catalog.count_due(through=PERIOD) == len(due)


async def test_undeleted_rows_are_the_shredded_ones_without_a_final_certificate(catalog):
    rows = [await sealed(catalog) for _ in range(5)]
    await certify(catalog, [certificate(one) for one in rows[:4]])
    await certify(catalog, [certificate(rows[1], CertificateStatus.FINAL)])
    assert await catalog.count_undeleted() == 3
    first = await catalog.undeleted_recordings(after=None, limit=2)
    rest = await catalog.undeleted_recordings(after=first[-1].id, limit=2)
    assert [row.id for row in (*first, *rest)] == [rows[0].id, rows[2].id, rows[3].id]


async def test_counts_name_every_state(catalog):
    assert await catalog.count_recordings() == dict.fromkeys(RecordingState, 0)
    await catalog.create_recording(recording())
    await sealed(catalog)
    await certify(catalog, [certificate(await sealed(catalog))])
    counts = await catalog.count_recordings()
    assert counts[RecordingState.OPEN] == counts[RecordingState.SEALED] == counts[RecordingState.SHREDDED] == 1


async def test_oldest_due_passes_over_the_open_the_shredded_the_held_and_those_in_grace(catalog):
    def until(days):
        return {"retain_until": NOW + timedelta(days=days)}

    now = NOW + timedelta(days=50)
    assert await catalog.oldest_due(now=now) is None
    await catalog.create_recording(recording(**until(1)))
    await certify(catalog, [certificate(await sealed(catalog, **until(2)))])
    held, graced, late = [await sealed(catalog, **until(days)) for days in (3, 4, 5)]
    await catalog.add_hold(hold(held))
    grace_until = now + timedelta(days=1)
    await catalog.add_hold(hold(graced, state=HoldState.RELEASED, grace_until=grace_until))
    await catalog.add_hold(hold(too_late=(late.id,)))
    await sealed(catalog, **until(60))
    assert await catalog.oldest_due(now=now) == late.retain_until
    assert await catalog.oldest_due(now=NOW) is None
    assert await catalog.oldest_due(now=grace_until) == graced.retain_until


# Segments and finishing


async def test_segments_come_back_in_index_order_with_the_manifest_first(catalog):
    one = recording()
    await catalog.create_recording(one)
    await catalog.add_segments([segment(one, 2), segment(one, 0)], stored_bytes=3000)
    await catalog.add_segments([segment(one, 1)])
    assert await catalog.segments(one.id) == [segment(one, 0), segment(one, 1), segment(one, 2)]
    assert (await catalog.recording(one.id)).stored_bytes == 3000
    await finish(catalog, one, objects=[segment(one, MANIFEST_INDEX), segment(one, 3)], stored_bytes=4000)
    assert [ref.index for ref in await catalog.segments(one.id)] == [MANIFEST_INDEX, 0, 1, 2, 3]


async def test_segments_of_many_recordings_are_those_of_each(catalog):
    first, second, bare = recording(), recording(), recording()
    for one in (first, second, bare):
        await catalog.create_recording(one)
    await catalog.add_segments([segment(first, 1), segment(first, 0)])
    await catalog.add_segments([segment(second, 0)])
    found = await catalog.segments_of([second.id, bare.id, first.id])
    assert {key: list(value) for key, value in found.items()} == {
        first.id: [segment(first, 0), segment(first, 1)],
        second.id: [segment(second, 0)],
        bare.id: [],
    }


def named(row, index):
    """Return an object under the name that it has in a store."""
    place = (row.tenant, row.audio.cohort.period, row.id)
    if index == MANIFEST_INDEX:
        return replace(segment(row, index), attempt="", name=manifest_name(*place))
    attempt = f"{index:032x}"
    return replace(segment(row, index), attempt=attempt, name=segment_name(*place, index, attempt))


async def rows_of_objects(catalog):
    """Return how many rows a recording has in the table of objects, for each that has any."""
    found = await catalog._database.fetch(sa.text("SELECT recording, count(*) FROM segments GROUP BY recording"))
    return {rows_of.recording_id(key): count for key, count in found}


async def test_a_final_certificate_puts_one_list_in_the_place_of_the_objects_rows(catalog):
    gone, going, kept = recording(), recording(), recording()
    objects = {row.id: [named(row, index) for index in (MANIFEST_INDEX, 0, 1, 2)] for row in (gone, going, kept)}
    for row in (gone, going, kept):
        await catalog.create_recording(row)
        await catalog.add_segments(objects[row.id][1:], stored_bytes=3000)
        await finish(catalog, row, objects=objects[row.id][:1], stored_bytes=3000)
    both = [certificate(row) for row in (gone, going)]
    await certify(catalog, both)
    assert set((await rows_of_objects(catalog)).values()) == {4}
    for _ in range(2):  # a repetition after a crash
        await certify(catalog, [certificate(gone, CertificateStatus.FINAL, supersedes=both[0].id)])
    assert await rows_of_objects(catalog) == {going.id: 4, kept.id: 4}
    assert await catalog.segments_of([*objects]) == objects
    assert await catalog.segments(gone.id) == objects[gone.id]


async def test_what_was_certified_before_there_were_lists_gets_them_in_pages_and_what_no_list_holds_stays(catalog):
    gone = [recording() for _ in range(5)]
    objects = {row.id: [named(row, 0), named(row, 1)] for row in gone}
    odd = gone[2].id
    objects[odd] = [replace(each, offset=each.offset + 7) for each in objects[odd]]
    for row in gone:
        await catalog.create_recording(row)
        await finish(catalog, row, stored_bytes=2000, objects=[])
    await certify(catalog, [certificate(row) for row in gone])
    await certify(catalog, [certificate(row, CertificateStatus.FINAL) for row in gone])
    async with catalog._database.engine.begin() as connection:
        refs = [ref for each in objects.values() for ref in each]
        at = {"audio_period": gone[0].audio.cohort.period}
        await connection.run_sync(partitions.make, [at["audio_period"]])
        await connection.execute(sa.insert(tables.segments), [rows_of.from_segment(ref) | at for ref in refs])
    after, pages = None, 0
    while after := await catalog.list_objects(after=after, limit=2):
        pages += 1
    assert (pages, await rows_of_objects(catalog)) == (3, {odd: 2})
    assert await catalog.segments_of([*objects]) == objects
    assert await catalog.list_objects(after=gone[2].id, limit=2) is None


async def test_recording_segments_again_is_harmless_and_the_later_attempt_stays(catalog):
    one = recording()
    await catalog.create_recording(one)
    await catalog.add_segments([])
    for _ in range(2):
        await catalog.add_segments([segment(one, 0)], stored_bytes=1000)
    assert await catalog.segments(one.id) == [segment(one, 0)]
    await catalog.add_segments([segment(one, 0, attempt="a2")], stored_bytes=1000)
    assert await catalog.segments(one.id) == [segment(one, 0, attempt="a2")]


async def test_counts_that_are_not_those_of_the_rows_are_found_and_counted_anew(catalog):
    for tenant_id in (ACME, ACME, OTHER):
        await sealed(catalog, tenant=tenant_id)
    async with catalog._database.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE recording_counts SET n = n - 1 WHERE tenant = 'acme' AND n > 1")
        await connection.exec_driver_sql("DELETE FROM recording_counts WHERE tenant <> 'acme'")
    assert (await catalog.count_recordings())[RecordingState.SEALED] == 1
    assert await catalog.miscounted() == [(ACME, RecordingState.SEALED, 1), (OTHER, RecordingState.SEALED, 1)]
    await catalog.recount()
    assert await catalog.miscounted() == []
    assert (await catalog.count_recordings())[RecordingState.SEALED] == 3


async def test_live_recordings_are_counted_up_to_an_instant_until_audio_and_metadata_are_certified(catalog):
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    at = [midnight - timedelta(days=40), midnight - timedelta(microseconds=1), midnight, NOW, NOW + timedelta(days=1)]
    old, late, first, second, last = [await sealed(catalog, created_at=each) for each in at]
    await sealed(catalog, tenant=OTHER, created_at=midnight)
    unknown = await sealed(catalog, created_at=midnight, sealed_facts=b"")

    async def counted():
        return [await catalog.count_live(ACME, through=each) for each in at]

    assert await counted() == [1, 2, 4, 5, 6]
    await certify(catalog, [certificate(one) for one in (unknown, late)])
    assert await counted() == [1, 2, 3, 4, 5], "its metadata is left of one of them"
    for _ in range(2):
        await certify(catalog, [certificate(late, parts=(Part.METADATA,)), certificate(first, parts=(Part.METADATA,))])
    assert await counted() == [1, 1, 2, 3, 4], "the audio is left of one of them"
    both = (Part.AUDIO, Part.METADATA)
    await certify(catalog, [certificate(first), certificate(second, parts=both), certificate(old, parts=both)])
    await certify(catalog, [certificate(last), certificate(last, parts=(Part.METADATA,))])
    assert await counted() == [0, 0, 0, 0, 0]
    assert await catalog.count_live(OTHER, through=midnight) == 1


async def test_live_recordings_that_were_counted_wrongly_are_found_and_counted_anew(catalog):
    for tenant_id in (ACME, ACME, OTHER):
        await sealed(catalog, tenant=tenant_id)
    async with catalog._database.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE live_counts SET n = n + 1 WHERE tenant = 'acme'")
        await connection.exec_driver_sql("DELETE FROM live_counts WHERE tenant <> 'acme'")
    assert await catalog.miscounted() == [(ACME, NOW.date(), -1), (OTHER, NOW.date(), 1)]
    await catalog.recount()
    assert await catalog.miscounted() == []
    assert await catalog.count_live(ACME, through=NOW + timedelta(days=1)) == 2


async def test_sizes_and_durations_outside_the_bounds_of_their_day_are_found_and_the_bounds_made_anew(catalog):
    early = NOW.replace(year=1960)
    for began, size in ((NOW, 10), (NOW, 20), (early, 30)):
        await measured(catalog, size=size, seconds=size, days=9, started_at=began, created_at=NOW)
    await measured(catalog, size=5, seconds=None, days=9, tenant=OTHER, started_at=NOW)
    assert await catalog.miscounted() == []
    for change, wrong in (
        ("UPDATE measured_days SET most_bytes = 15", [(ACME, early.date(), 1), (ACME, NOW.date(), 1)]),
        ("UPDATE measured_days SET least_ms = NULL", [(ACME, early.date(), 1), (ACME, NOW.date(), 2)]),
        ("DELETE FROM measured_days", [(ACME, early.date(), 1), (ACME, NOW.date(), 2), (OTHER, NOW.date(), 1)]),
    ):
        async with catalog._database.engine.begin() as connection:
            await connection.exec_driver_sql(change)
        assert await catalog.miscounted() == wrong
        await catalog.recount()
        assert await catalog.miscounted() == []
    assert len(await found(catalog, tenant=ACME, min_bytes=11)) == 2
    assert len(await found(catalog, tenant=ACME, max_duration=timedelta(seconds=10))) == 1


async def test_two_writers_of_one_database_keep_each_others_counts(place, metrics):
    if place is None:
        pytest.skip("a catalog in memory has one writer")
    one, two = (open_catalog(place, clock=SteppingClock(), metrics=metrics) for _ in range(2))
    try:
        made = await asyncio.gather(*(sealed(each) for each in (one, two) * 8))
        await asyncio.gather(
            *(
                certify(each, [certificate(row, parts=(Part.AUDIO, Part.METADATA))])
                for each, row in zip((one, two) * 4, made, strict=False)
            )
        )
        assert await two.count_live(ACME, through=NOW + timedelta(days=1)) == 8
        assert await one.miscounted() == []
    finally:
        await one.close()
        await two.close()


async def test_recordings_of_many_ids_are_those_that_there_are_and_the_tenants(catalog):
    mine, theirs = recording(), recording(tenant=OTHER)
    for each in (mine, theirs):
        await catalog.create_recording(each)
    asked = [mine.id, MISSING, theirs.id]
    rows = {each.id: await catalog.recording(each.id) for each in (mine, theirs)}
    found = await catalog.keys_of(asked)
    assert found.keys() == rows.keys()
    for each, row in rows.items():
        assert found[each] == RecordingKeys(**{of.name: getattr(row, of.name) for of in fields(RecordingKeys)})
    assert [*await catalog.keys_of(asked, tenant=ACME)] == [mine.id]
    assert (await catalog.keys_of([*[MISSING] * 1200, mine.id])).keys() == {mine.id}


async def test_segments_of_unknown_or_several_recordings_are_refused(catalog):
    one, other = recording(), recording()
    await catalog.create_recording(one)
    with pytest.raises(NotFound):
        await catalog.add_segments([segment(other)], stored_bytes=1)
    with pytest.raises(Invalid):
        await catalog.add_segments([segment(one), segment(other)])
    assert await catalog.segments(one.id) == []


async def test_finishing_closes_the_row_and_records_everything_at_once(catalog):
    one = recording()
    await catalog.create_recording(one)
    await finish(
        catalog, one, RecordingState.TRUNCATED, reason="idle", stored_bytes=77, audit=[event("recording.truncated")]
    )
    row = await catalog.recording(one.id)
    assert row == replace(
        one,
        state=RecordingState.TRUNCATED,
        state_reason="idle",
        ended_at=NOW + timedelta(minutes=5),
        stored_bytes=77,
    )
    assert [ref.index for ref in await catalog.segments(one.id)] == [MANIFEST_INDEX, 0]
    assert await events(catalog) == ["recording.truncated"]


async def test_a_row_that_ends_empty_gives_its_call_token_to_one_of_those_that_want_it(catalog):
    empty, *others = recording(call_token="call"), *(recording(call_token="call") for _ in range(3))
    kept = recording(call_token="kept")
    for one in (empty, kept):
        await catalog.create_recording(one)
    with pytest.raises(Conflict):
        await catalog.create_recording(others[0])
    for one, reason in ((empty, "empty"), (kept, "idle")):
        await finish(catalog, one, RecordingState.TRUNCATED, reason=reason, stored_bytes=0)
    row = await catalog.recording(empty.id)
    assert (row.call_token, row.state, row.state_reason) == (empty.id, RecordingState.TRUNCATED, "empty")
    assert (row.audio, row.metadata) == (empty.audio, empty.metadata)
    async with catalog._database.engine.begin() as connection:
        assert (
            len((await connection.execute(sa.select(recordings.c.call_token).order_by(recordings.c.id))).first()[0])
            == 22
        )
        await connection.execute(
            sa.update(recordings).values(call_token=empty.id).where(recordings.c.id == rows_of.key(empty.id))
        )
    assert await catalog.recording(empty.id) == row, "as an earlier version wrote it"
    assert await catalog.recording_by_call(ACME, ["call"]) is None
    raced = await asyncio.gather(*(catalog.create_recording(one) for one in others), return_exceptions=True)
    assert sorted(type(each).__name__ for each in raced) == ["Conflict", "Conflict", "NoneType"]
    (taken,) = [one for one, answer in zip(others, raced, strict=True) if answer is None]
    assert (await catalog.recording_by_call(ACME, ["call"])).id == taken.id
    with pytest.raises(Conflict):
        await catalog.create_recording(recording(call_token="kept"))
    await finish(catalog, empty, RecordingState.TRUNCATED, reason="empty", stored_bytes=0)
    assert (await catalog.recording_by_call(ACME, ["call"])).id == taken.id, "a repeated finish took the token back"


async def test_finishing_again_leaves_the_row_and_the_audit_as_they_are(catalog):
    one = recording()
    await catalog.create_recording(one)
    await finish(catalog, one, audit=[event("recording.sealed")])
    row = await catalog.recording(one.id)
    await finish(
        catalog, one, RecordingState.TRUNCATED, stored_bytes=5, reason="x", audit=[event("recording.truncated")]
    )
    assert await catalog.recording(one.id) == row
    assert await events(catalog) == ["recording.sealed"]


async def test_a_manifest_sealed_again_replaces_the_one_recorded(catalog):
    one = recording()
    await catalog.create_recording(one)
    await finish(catalog, one)
    again = replace(segment(one, MANIFEST_INDEX), sha256="cd" * 32)
    await finish(catalog, one, objects=[again])
    assert await catalog.segments(one.id) == [again, segment(one)]


async def test_a_straggler_adds_nothing_to_a_shredded_recording(catalog):
    one = await sealed(catalog)
    await certify(catalog, [certificate(one)])
    await catalog.add_segments([segment(one, 1)], stored_bytes=9)
    await finish(catalog, one, objects=[segment(one, 2)])
    row = await catalog.recording(one.id)
    assert (row.state, row.stored_bytes) == (RecordingState.SHREDDED, 1000)
    assert [ref.index for ref in await catalog.segments(one.id)] == [MANIFEST_INDEX, 0]


async def test_only_a_known_recording_finishes_and_only_as_sealed_or_truncated(catalog):
    one = recording()
    with pytest.raises(NotFound):
        await finish(catalog, one, audit=[event()])
    await catalog.create_recording(one)
    with pytest.raises(Invalid):
        await finish(catalog, one, RecordingState.SHREDDED)
    with pytest.raises(Invalid):
        await finish(catalog, one, objects=[segment(recording())])
    assert (await catalog.recording(one.id)).state is RecordingState.OPEN
    assert await events(catalog) == []


async def test_acts_on_many_recordings_at_once_each_reach_their_own(catalog):
    rows = [recording() for _ in range(40)]
    await asyncio.gather(*[catalog.create_recording(one) for one in rows])
    calls = []
    for n, one in enumerate(rows):
        calls.append(catalog.add_segments([segment(one, 0)], stored_bytes=n))
        if n % 2:
            calls.append(finish(catalog, one, stored_bytes=1000 + n))
    assert set(await outcomes(calls)) == {None}
    for n, one in enumerate(rows):
        row = await catalog.recording(one.id)
        assert row.state is (RecordingState.SEALED if n % 2 else RecordingState.OPEN)
        assert row.stored_bytes == (1000 + n if n % 2 else n)
        assert len(await catalog.segments(one.id)) == (2 if n % 2 else 1)


async def test_the_media_descriptor_changes_only_while_the_row_is_open(catalog):
    one = recording()
    with pytest.raises(NotFound):
        await catalog.update_media(one)
    await catalog.create_recording(one)
    media = Media(container=Container.OGG, codec=Codec.STREAM)
    await catalog.update_media(replace(one, media=media))
    assert (await catalog.recording(one.id)).media == media
    await finish(catalog, one)
    with pytest.raises(Conflict):
        await catalog.update_media(one)
    assert (await catalog.recording(one.id)).media == media


async def test_what_a_head_tells_is_written_with_its_segment_or_the_finish_and_counted_by_recorder(catalog):
    rows = [recording(created_at=NOW + timedelta(days=day)) for day in (0, 1, 1, 2)]
    told = Media(container=Container.WAV, codec=Codec.S16LE, rate=8000, channels=2)
    for row in rows:
        await catalog.create_recording(row)
    await catalog.add_segments([segment(rows[0])], stored_bytes=1000, examined=examined())
    await catalog.add_segments([segment(rows[1])], examined=examined())
    await finish(catalog, rows[2], examined=examined(recorder=None))
    await finish(catalog, rows[3], examined=Examined(media=told))
    for row in rows[:3]:
        assert (await catalog.recording(row.id)).content is Content.TEXT
    last = await catalog.recording(rows[3].id)
    assert (last.media, last.content) == (told, None)
    counted = await catalog.misdeclared(since=NOW)
    assert {(each.recorder, each.tenant, each.declared, each.content, each.count) for each in counted} == {
        (None, ACME, Container.WAV, Content.TEXT, 1),
        (examined().recorder, ACME, Container.WAV, Content.TEXT, 2),
    }
    assert [each.count for each in await catalog.misdeclared(since=NOW + timedelta(days=1))] == [1, 1]
    assert await catalog.misdeclared(since=NOW + timedelta(days=2)) == []
    await finish(catalog, rows[2], examined=Examined(media=told))
    assert (await catalog.recording(rows[2].id)).content is Content.TEXT


# Notes and late facts


async def test_notes_of_an_open_recording_are_replaced_by_number_and_go_with_its_end(catalog):
    one, other = recording(), recording()
    await catalog.create_recording(one, notes={0: b"with its row", 2: b"c"})
    rival = replace(recording(), call_token=one.call_token)
    with pytest.raises(Conflict):
        await catalog.create_recording(rival, notes={0: b"of a row that there is not"})
    assert (await catalog.notes(one.id), await catalog.notes(rival.id)) == ({0: b"with its row", 2: b"c"}, {})
    await catalog.create_recording(other)
    await catalog.put_notes(one.id, {0: b"a", 2: b"c"}, audit=[event("recording.paused")])
    await catalog.put_notes(one.id, {0: b"b", 1: b"d"})
    await catalog.put_notes(other.id, {0: b"e"})
    assert list((await catalog.notes(one.id)).items()) == [(0, b"b"), (1, b"d"), (2, b"c")]
    await finish(catalog, one)
    assert await catalog.notes(one.id) == {}
    assert await catalog.notes(other.id) == {0: b"e"}
    with pytest.raises(Conflict):
        await catalog.put_notes(one.id, {0: b"f"}, audit=[event("recording.resumed")])
    with pytest.raises(NotFound):
        await catalog.put_notes(recording().id, {0: b"f"})
    told = [entry.event.event for entry in await audit_entries(catalog)]
    assert told.count("recording.paused") == 1
    assert "recording.resumed" not in told


async def test_the_newest_entry_of_an_act_at_a_target_is_found(catalog):
    for name, target, actor in (
        ("recording.paused", "rec_1", "first"),
        ("recording.paused", "rec_1", "second"),
        ("recording.paused", "rec_2", "other"),
        ("recording.resumed", "rec_1", "third"),
    ):
        await catalog.append_audit([replace(event(name), target=target, actor=actor)])
    found = await catalog.last_audited("recording.paused", "rec_1")
    assert found is not None
    assert found.event.actor == "second"
    assert found in await audit_entries(catalog, limit=100_000)
    assert await catalog.last_audited("recording.paused", "rec_3") is None


async def test_notes_put_together_are_all_there(catalog):
    rows = [recording() for _ in range(20)]
    for row in rows:
        await catalog.create_recording(row)
    puts = [catalog.put_notes(row.id, {seq: b"%d" % n}) for n, row in enumerate(rows) for seq in range(3)]
    assert set(await outcomes(puts)) == {None}
    for n, row in enumerate(rows):
        assert await catalog.notes(row.id) == dict.fromkeys(range(3), b"%d" % n)


async def test_facts_are_revised_only_while_the_row_is_open(catalog):
    one = recording()
    late = {"sealed_facts": b"later", "caller_token": "caller", "called_token": "called"}
    with pytest.raises(NotFound):
        await catalog.revise_facts(one.id, **late)
    await catalog.create_recording(one)
    await catalog.revise_facts(one.id, **late, audit=[event("recording.facts_revised")])
    assert await catalog.recording(one.id) == replace(one, **late)
    [found] = await catalog.recordings(RecordingQuery(called_tokens=("called",)))
    assert found.id == one.id
    await finish(catalog, one)
    with pytest.raises(Conflict):
        await catalog.revise_facts(one.id, **{**late, "sealed_facts": b"latest"})
    assert (await catalog.recording(one.id)).sealed_facts == b"later"


async def test_tokens_are_computed_anew_only_for_the_facts_that_were_read(catalog):
    one, other = recording(), recording()
    for row in (one, other):
        await catalog.create_recording(row)
        await finish(catalog, row)
    stale = Reindexed(recording=other.id, sealed_facts=b"read before", caller_token="stale", called_token="stale")
    fresh = Reindexed(recording=one.id, sealed_facts=one.sealed_facts, caller_token="new", called_token=None)
    gone = replace(fresh, recording=recording().id)
    assert await catalog.reindex([stale, fresh, gone]) == 1
    [found] = await catalog.recordings(RecordingQuery(caller_tokens=("new",)))
    assert found.id == one.id
    assert found.called_token is None
    assert (await catalog.recording(other.id)).caller_token != "stale"


async def test_the_last_operators_token_is_not_revoked_whoever_asks_at_once(catalog):
    first, second, late = (token(role=Role.OPERATOR, tenant=None) for _ in range(3))
    late = replace(late, expires_at=NOW - timedelta(seconds=1))
    for each in (first, second, late, token()):
        await catalog.add_token(each)
    answers = await asyncio.gather(
        *(catalog.revoke_token(each.id, at=NOW) for each in (first, second)), return_exceptions=True
    )
    assert sorted(type(each) for each in answers if each is not None) == [Conflict]
    left = [each for each in (first, second) if (await catalog.token(each.id)).revoked_at is None]
    assert len(left) == 1
    await catalog.revoke_token(late.id, at=NOW)
    await catalog.add_token(token(role=Role.OPERATOR, tenant=None))
    await catalog.revoke_token(left[0].id, at=NOW)


# Holds


async def test_a_hold_comes_back_as_it_was_saved(catalog):
    rows = [await sealed(catalog) for _ in range(4)]
    placed = hold(rows[2], rows[0], too_late=(rows[3].id, rows[1].id))
    await catalog.add_hold(placed, audit=[event("hold.created")])
    assert await catalog.hold(placed.id) == placed
    released = replace(
        placed,
        state=HoldState.RELEASED,
        recordings=(rows[0].id,),
        too_late=(),
        release_requested_by="ann",
        release_reason="settled",
        released_by="bob",
        released_at=NOW,
        grace_until=NOW + timedelta(days=14),
    )
    assert await catalog.revise_hold(placed.id, becomes(released, event("hold.released"))) == released
    assert await catalog.hold(placed.id) == released
    assert await events(catalog) == ["hold.created", "hold.released"]


async def test_a_hold_is_added_once_and_a_revision_that_refuses_changes_nothing(catalog):
    placed = hold(state=HoldState.ACTIVE)
    with pytest.raises(NotFound):
        await catalog.revise_hold(placed.id, becomes(placed, event()))
    await catalog.add_hold(placed)
    with pytest.raises(Conflict):
        await catalog.add_hold(replace(placed, state=HoldState.RELEASED), audit=[event()])
    with pytest.raises(Conflict, match="not like this"):
        await catalog.revise_hold(placed.id, refuses)
    unknown = replace(placed, recordings=(MISSING,), state=HoldState.RELEASED)
    with pytest.raises(NotFound):
        await catalog.revise_hold(placed.id, becomes(unknown, event()))
    assert await catalog.hold(placed.id) == placed
    assert await events(catalog) == []


def refuses(_):
    raise Conflict("not like this")


EARLIER = NOW - timedelta(minutes=5)
HOOKED = {"safeguarding_webhook": "https://alerts.acme.example/x"}


async def flagged(catalog, row=None, **changes):
    row = row or await sealed(catalog)
    concern = hold(row, state=HoldState.PLACING, **changes)
    raised = alert(row, concern)
    assert (
        await catalog.save_flag(concern, lambda _: raised, acknowledged_before=EARLIER, audit=[event("flag.raised")])
        == concern.id
    )
    return row, concern, raised


async def test_a_flag_is_a_hold_and_its_alert_and_another_joins_it_whatever_its_matter_until_its_release(catalog):
    row, concern, raised = await flagged(catalog)
    assert await catalog.hold(concern.id) == concern
    assert await catalog.alert_of(concern.id) == raised
    for matter in (concern.matter, "another"):
        again = hold(row, state=HoldState.PLACING, matter=matter)
        joined = await catalog.save_flag(
            again,
            lambda _, again=again: alert(row, again),
            acknowledged_before=NOW,
            audit=[event("new")],
            joining=[event("flag.raised")],
        )
        assert joined == concern.id
        assert await catalog.alert_of(again.id) is None
    assert await catalog.alert_of(concern.id) == raised, "it is not acknowledged yet, so nobody is told twice"
    other = await sealed(catalog)
    await flagged(catalog, other)
    await catalog.revise_hold(concern.id, becomes(replace(concern, state=HoldState.RELEASE_REQUESTED)))
    await flagged(catalog, row)
    assert (await events(catalog)).count("flag.raised") == 5


async def test_another_flag_is_told_again_once_the_last_alert_was_acknowledged_long_enough_ago(catalog):
    row, concern, raised = await flagged(catalog)
    await catalog.settle_alert(raised.id, next_at=NOW, delivered_at=NOW)
    again = hold(row, state=HoldState.PLACING)
    message = replace(alert(row, again), hold=concern.id)
    await catalog.save_flag(again, lambda _: message, acknowledged_before=NOW - timedelta(seconds=1))
    assert (await catalog.alert_of(concern.id)).delivered_at == NOW
    await catalog.save_flag(again, lambda _: message, acknowledged_before=NOW)
    assert await catalog.alert_of(concern.id) == message


async def test_a_recording_takes_no_second_hold_of_one_matter_and_a_bounded_number_of_others(catalog):
    row, other = await sealed(catalog), await sealed(catalog)
    first = hold(row, matter="M")
    await catalog.add_hold(first)
    with pytest.raises(Conflict, match=first.id) as refused:
        await catalog.add_hold(hold(row, matter="M"))
    assert refused.value.facts["hold"] == first.id
    both = replace(hold(row, matter="M"), recordings=(row.id, other.id))
    await catalog.add_hold(both)
    with pytest.raises(Conflict, match=both.id):
        await catalog.add_hold(hold(other, matter="M"))
    await catalog.add_hold(hold(row, matter="M", kind=HoldKind.REGULATORY))
    while len(await catalog.holds_on(row.id)) < MOST_HOLDS:
        await catalog.add_hold(hold(row, matter=f"M-{len(await catalog.holds_on(row.id))}"))
    with pytest.raises(Conflict, match="the most that a recording may have"):
        await catalog.add_hold(hold(row, matter="one more"))
    await catalog.add_hold(hold(other, matter="one more"))
    await flagged(catalog, row)
    released = replace(first, state=HoldState.RELEASED)
    await catalog.revise_hold(first.id, becomes(released))
    await catalog.revise_hold(both.id, becomes(replace(both, state=HoldState.RELEASED)))
    await catalog.add_hold(hold(row, matter="M"))


async def test_a_hold_that_no_flag_placed_takes_no_flags_place(catalog):
    row = await sealed(catalog)
    await catalog.add_hold(hold(row, state=HoldState.ACTIVE))
    await flagged(catalog, row)


async def test_a_flag_of_an_unknown_recording_leaves_nothing(catalog):
    unknown = recording()
    concern = hold(unknown, state=HoldState.PLACING)
    with pytest.raises(NotFound):
        await catalog.save_flag(
            concern, alert(unknown, concern), acknowledged_before=EARLIER, audit=[event("flag.raised")]
        )
    assert await catalog.holds() == []
    assert await events(catalog) == []


async def test_an_alert_is_taken_by_one_at_a_time_and_only_for_a_tenant_that_listens(catalog):
    later = NOW + timedelta(seconds=20)
    await catalog.add_tenant(tenant())
    _, _, raised = await flagged(catalog)
    assert await catalog.claim_alert(now=NOW, until=later, excluding=[]) is None
    assert (await catalog.alerts_waiting()).count == 0
    await catalog.revise_tenant(ACME, becomes(tenant(**HOOKED)))
    waiting = await catalog.alerts_waiting()
    assert (waiting.count, waiting.oldest) == (1, NOW)
    assert await catalog.claim_alert(now=NOW, until=later, excluding=[ACME]) is None
    claims = await asyncio.gather(
        *(catalog.claim_alert(now=NOW, until=later, excluding=[]) for _ in range(5)),
    )
    (claimed,) = [each for each in claims if each is not None]
    assert (claimed.alert.id, claimed.alert.attempts) == (raised.id, 1)
    assert claimed.webhook == HOOKED["safeguarding_webhook"]
    assert claimed.webhook not in repr(claimed)
    assert (await catalog.claim_alert(now=later, until=later, excluding=[])).alert.attempts == 2


async def test_an_acknowledged_alert_is_never_taken_again_and_acknowledged_once(catalog):
    await catalog.add_tenant(tenant(**HOOKED))
    _, concern, raised = await flagged(catalog)
    for at in (NOW, NOW + timedelta(days=1)):
        await catalog.settle_alert(raised.id, next_at=at, delivered_at=at, audit=[event("flag.acknowledged")])
    await catalog.settle_alert(raised.id, next_at=NOW, delivered_at=None)
    assert (await catalog.alert_of(concern.id)).delivered_at == NOW
    assert (await events(catalog)).count("flag.acknowledged") == 1
    assert await catalog.claim_alert(now=NOW + timedelta(days=9), until=NOW, excluding=[]) is None
    assert (await catalog.alerts_waiting()).oldest is None


async def test_alerts_are_taken_in_the_order_they_fell_due_and_a_new_webhook_hastens_them(catalog):
    await catalog.add_tenant(tenant(**HOOKED))
    _, _, first = await flagged(catalog)
    _, _, second = await flagged(catalog)
    await catalog.settle_alert(first.id, next_at=NOW + timedelta(hours=1), delivered_at=None)
    until = NOW + timedelta(hours=2)
    assert (await catalog.claim_alert(now=NOW, until=until, excluding=[])).alert.id == second.id
    assert await catalog.claim_alert(now=NOW, until=until, excluding=[]) is None
    await catalog.revise_tenant(ACME, becomes(tenant(**HOOKED, contact="somebody else")))
    assert await catalog.claim_alert(now=NOW, until=until, excluding=[]) is None
    await catalog.revise_tenant(ACME, becomes(tenant(safeguarding_webhook="https://new.example/")))
    hastened = [await catalog.claim_alert(now=NOW, until=until, excluding=[]) for _ in range(2)]
    assert {each.alert.id for each in hastened} == {first.id, second.id}


async def test_of_two_concurrent_decisions_on_a_hold_one_is_refused(catalog):
    placed = hold(state=HoldState.RELEASE_REQUESTED)
    await catalog.add_hold(placed)

    def to(state):
        def revision(before):
            if before.state is not HoldState.RELEASE_REQUESTED:
                raise Conflict("decided already")
            return replace(before, state=state), [event(state.value)]

        return revision

    states = [HoldState.RELEASED, HoldState.ACTIVE]
    results = await outcomes(catalog.revise_hold(placed.id, to(state)) for state in states)
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "NoneType"]
    winner = states[results.index(None)]
    assert (await catalog.hold(placed.id)).state is winner
    assert await events(catalog) == [winner.value]


async def test_a_hold_on_an_unknown_recording_is_refused_whole(catalog):
    one = await sealed(catalog)
    placed = replace(hold(one), recordings=(one.id, MISSING))
    with pytest.raises(NotFound):
        await catalog.add_hold(placed)
    with pytest.raises(NotFound):
        await catalog.hold(placed.id)
    assert await catalog.holds_on(one.id) == []


async def test_holds_are_listed_newest_first_and_filtered(catalog):
    one = await sealed(catalog)
    old = hold(one, created_at=NOW - timedelta(days=2))
    new = hold(one, created_at=NOW, state=HoldState.RELEASED)
    theirs = hold(tenant=OTHER, created_at=NOW - timedelta(days=1))
    for placed in (new, old, theirs):
        await catalog.add_hold(placed)
    assert await catalog.holds() == [new, theirs, old]
    assert await catalog.holds(limit=2) == [new, theirs]
    assert await catalog.holds(tenant=ACME) == [new, old]
    assert await catalog.holds(states=[HoldState.ACTIVE, HoldState.PLACING]) == [theirs, old]
    assert await catalog.holds(tenant=OTHER, states=[HoldState.RELEASED]) == []


async def test_the_terms_of_a_hold_are_read_without_its_recordings(catalog):
    rows = [await sealed(catalog) for _ in range(3)]
    one = replace(hold(*rows), state=HoldState.ACTIVE)
    await catalog.add_hold(one)
    for terms in (
        *await catalog.holds_on(rows[0].id),
        *await catalog.hold_terms(states=[HoldState.ACTIVE, HoldState.RELEASED]),
        *(await catalog.terms_of([HoldId("hold_" + "0" * 32), one.id])).values(),
    ):
        assert type(terms) is HoldTerms
        assert all(getattr(terms, each.name) == getattr(one, each.name) for each in fields(HoldTerms))
        for reading in (catalog.holds_on(rows[0].id), catalog.terms_of([one.id])):
            assert len(await answer_rows(catalog, reading)) == 1
    assert await catalog.hold_terms(states=[HoldState.PLACING]) == []


async def answer_rows(catalog, reading):
    """Return the rows that the database gave for what `reading` asked."""
    given = []
    fetch = catalog._database.fetch

    async def noted(*call):
        found = await fetch(*call)
        given.extend(found)
        return found

    catalog._database.fetch = noted
    await reading
    catalog._database.fetch = fetch
    return given


async def test_a_holds_recordings_are_counted_and_come_in_pages_the_newest_id_first(catalog):
    rows = [await sealed(catalog) for _ in range(5)]
    placed = hold(*rows[:4], too_late=(rows[4].id,), state=HoldState.PLACING)
    small = hold(rows[0], matter="other", created_at=NOW - timedelta(days=1))
    for each in (placed, small):
        await catalog.add_hold(each)
    ids = sorted((row.id for row in rows), reverse=True)
    members = [(each, each == rows[4].id) for each in ids]

    def pairs(found):
        return [(each.recording, each.too_late) for each in found]

    assert pairs(await catalog.members(placed.id)) == members
    assert pairs(await catalog.members(placed.id, before=ids[1], limit=2)) == members[2:4]
    firsts = await catalog.first_members([placed.id, small.id, HoldId(new_id("hold"))], most=3)
    assert {each: pairs(found) for each, found in firsts.items()} == {
        placed.id: members[:3],
        small.id: [(rows[0].id, False)],
    }
    counted = await catalog.counted_holds(tenant=ACME)
    assert [(each.id, each.held, each.late) for each in counted] == [(placed.id, 4, 1), (small.id, 1, 0)]
    assert await catalog.counted_holds(tenant=OTHER) == []
    assert await catalog.counted_hold(placed.id, tenant=ACME) == counted[0]
    with pytest.raises(NotFound):
        await catalog.counted_hold(placed.id, tenant=OTHER)
    assert await catalog.earliest_start(placed.id) == min(row.started_at for row in rows[:4])
    active = replace(counted[0], state=HoldState.ACTIVE)
    assert await catalog.revise_terms(placed.id, becomes(active, event("hold.created"))) == active
    assert await catalog.hold(placed.id) == replace(placed, state=HoldState.ACTIVE)
    late = replace(placed, state=HoldState.ACTIVE, recordings=placed.recordings[1:], too_late=(rows[0].id, rows[4].id))
    await catalog.revise_hold(placed.id, becomes(late))
    assert ((await catalog.counted_hold(placed.id)).held, (await catalog.counted_hold(placed.id)).late) == (3, 2)
    with pytest.raises(NotFound):
        await catalog.revise_terms(HoldId(new_id("hold")), becomes(active))


async def test_what_is_not_labelled_yet_is_known_from_the_holds_decision_on_and_again_from_its_release(catalog):
    rows = sorted([await sealed(catalog) for _ in range(4)], key=lambda row: row.id)
    placed = hold(*rows[:3], too_late=(rows[3].id,), state=HoldState.PLACING)
    await catalog.add_hold(placed)
    assert await catalog.unlabelled_holds() == [], "it is not decided yet"
    await catalog.revise_hold(placed.id, becomes(replace(placed, state=HoldState.ACTIVE)))
    [first] = await catalog.unlabelled_holds()
    assert (first.hold, first.tenant, first.released, first.through) == (placed.id, ACME, False, None)
    assert await catalog.to_label(placed.id, after=None, limit=2) == [rows[0].id, rows[1].id]
    assert await catalog.labelled(first, through=rows[1].id, before=None, again=[rows[0].id])
    assert not await catalog.labelled(first, through=rows[2].id, before=None, again=()), "another was faster"
    [half] = await catalog.unlabelled_holds()
    assert half.through == rows[1].id
    assert await catalog.to_label(placed.id, after=half.through, limit=2) == [rows[2].id]
    counts = await catalog.count_unlabelled()
    assert (counts.waiting, counts.failed) == (1, 1)
    assert await catalog.labelled(half, through=None, before=half.through, again=())
    assert await catalog.unlabelled_holds() == []
    assert await catalog.to_label_again(after=None, limit=5) == [rows[0].id]
    assert await catalog.to_label_again(after=rows[0].id, limit=5) == []
    await catalog.labelled_again([rows[0].id])
    counts = await catalog.count_unlabelled()
    assert (counts.waiting, counts.failed) == (0, 0)
    found = [row.id for row in rows]
    assert await catalog.protected(found, pinned=[]) == set(found[:3])
    released = replace(await catalog.counted_hold(placed.id), state=HoldState.RELEASED)
    await catalog.revise_terms(placed.id, becomes(released))
    [again] = await catalog.unlabelled_holds()
    assert (again.released, again.through) == (True, None)
    assert not await catalog.labelled(first, through=rows[1].id, before=None, again=()), "it was released meanwhile"
    assert await catalog.protected(found, pinned=[]) == set()
    assert await catalog.protected(found, pinned=[placed.id]) == set(found[:3])


async def test_holds_on_a_recording_are_those_that_protect_it_in_any_state(catalog):
    one, other = await sealed(catalog), await sealed(catalog)
    protecting = hold(one, other, created_at=NOW)
    released = hold(one, state=HoldState.RELEASED, created_at=NOW - timedelta(days=1))
    for placed in (released, protecting, hold(other, matter="late", too_late=(one.id,))):
        await catalog.add_hold(placed)
    assert [each.id for each in await catalog.holds_on(one.id)] == [protecting.id, released.id]
    assert await catalog.holds_on(MISSING) == []


async def test_a_hold_may_protect_thousands_of_recordings(catalog):
    rows = [recording() for _ in range(1200)]
    await asyncio.gather(*[catalog.create_recording(one) for one in rows])
    placed = hold(*rows)
    await catalog.add_hold(placed)
    assert (await catalog.hold(placed.id)).recordings == tuple(one.id for one in rows)


# Shreds


async def test_an_intent_names_the_open_recordings_it_must_keep_and_repeats_its_answer(catalog):
    below, at = recording(period=PERIOD - 1), recording()
    for one in (at, below, recording(period=PERIOD + 1)):
        await catalog.create_recording(one)
    await sealed(catalog)
    intent = shred()
    kept = [row.id for row in await catalog.intend_shred(intent, audit=[event("shred.intended")])]
    assert kept == sorted([at.id, below.id])
    await finish(catalog, at)
    again = await catalog.intend_shred(intent, audit=[event("shred.intended")])
    assert [row.id for row in again] == kept
    assert {row.state for row in again} == {RecordingState.OPEN, RecordingState.SEALED}
    assert await events(catalog) == ["shred.intended"]


async def test_the_sweep_floor_only_rises(catalog):
    async def sweep_floor():
        [row] = await catalog._database.fetch(sa.select(tables.sweep_floor.c.period))
        return row.period

    assert await sweep_floor() is None
    assert await catalog.intend_shred(shred(due_through=None)) == []
    assert await sweep_floor() is None
    for through, floor in ((5, 5), (9, 9), (7, 9), (None, 9)):
        await catalog.intend_shred(shred(due_through=through))
        assert await sweep_floor() == floor


async def test_a_shred_goes_from_intent_to_receipt_to_finish_each_once(catalog):
    intent = shred(intended_at=NOW - timedelta(hours=1))
    later = shred(intended_at=NOW, trigger="erasure", due_through=None)
    await catalog.intend_shred(later)
    await catalog.intend_shred(intent)
    assert await catalog.unfinished_shreds() == [intent, later]
    for _ in range(2):
        await catalog.record_receipt(intent.id, receipt(intent), audit=[event("shred.done")])
    await catalog.record_receipt(intent.id, replace(receipt(intent), epoch_live=99), audit=[event("shred.done")])
    assert await catalog.unfinished_shreds() == [replace(intent, receipt=receipt(intent)), later]
    for at in (NOW, NOW + timedelta(days=1)):
        await catalog.finish_shred(intent.id, at=at)
    assert await catalog.unfinished_shreds() == [later]
    ended = sa.select(tables.shreds.c.finished_at).where(tables.shreds.c.id == intent.id)
    [row] = await catalog._database.fetch(ended)
    assert row.finished_at == rows_of.micros(NOW)
    assert await events(catalog) == ["shred.done"]


async def test_an_unknown_shred_is_not_found(catalog):
    for call in (
        catalog.record_receipt("shr_none", receipt(shred()), audit=[event()]),
        catalog.finish_shred("shr_none", at=NOW),
    ):
        with pytest.raises(NotFound):
            await call
    assert await events(catalog) == []


async def test_certificates_move_their_recordings_along(catalog):
    one = await sealed(catalog)
    [first] = await certify(catalog, [certificate(one)], audit=[event("certificate.issued")])
    row = await catalog.recording(one.id)
    assert (row.state, row.certificate_id) == (RecordingState.SHREDDED, first.id)
    [last] = await certify(catalog, [certificate(one, CertificateStatus.FINAL, supersedes=first.id)])
    row = await catalog.recording(one.id)
    assert (row.state, row.certificate_id) == (RecordingState.SHREDDED, last.id)
    assert await catalog.undeleted_recordings(after=None, limit=9) == []
    assert await catalog.certificate(first.id) == first
    assert await catalog.certificate(last.id) == last


async def test_certifying_again_keeps_the_first_and_audits_nothing(catalog):
    one, two = await sealed(catalog), await sealed(catalog)
    [first] = await certify(catalog, [certificate(one)], audit=[event("a")])
    await certify(catalog, [certificate(one)], audit=[event("b")])
    assert await catalog.certificates() == [first]
    _, second, _ = await certify(catalog, [certificate(one), certificate(two), certificate(two)], audit=[event("c")])
    assert await catalog.certificates() == [second, first]
    assert (await catalog.recording(two.id)).certificate_id == second.id
    assert await events(catalog) == ["a", "c"]


async def test_a_late_provisional_certificate_takes_nothing_back(catalog):
    one = await sealed(catalog)
    last = certificate(one, CertificateStatus.FINAL)
    await certify(catalog, [last])
    await certify(catalog, [certificate(one)])
    assert (await catalog.recording(one.id)).certificate_id == last.id
    assert await catalog.undeleted_recordings(after=None, limit=9) == []


async def test_certifying_an_unknown_recording_changes_nothing(catalog):
    one = await sealed(catalog)
    await certify(catalog, [], audit=[event()])
    with pytest.raises(NotFound):
        await certify(catalog, [certificate(one), certificate(recording())], audit=[event()])
    assert (await catalog.recording(one.id)).state is RecordingState.SEALED
    assert await catalog.certificates() == []
    assert await events(catalog) == []


async def test_certificates_are_paged_newest_first_and_filtered(catalog):
    rows = [await sealed(catalog), await sealed(catalog, tenant=OTHER), await sealed(catalog)]
    issued = await certify(catalog, [certificate(one) for one in rows])
    assert await catalog.certificates() == issued[::-1]
    assert await catalog.certificates(limit=2) == issued[:0:-1]
    assert await catalog.certificates(before=issued[1].id) == [issued[0]]
    assert await catalog.certificates(tenant=ACME) == [issued[2], issued[0]]
    assert await catalog.certificates(recording=rows[1].id) == [issued[1]]
    with pytest.raises(NotFound):
        await catalog.certificate("cert_none")


async def test_certificates_of_one_millisecond_are_paged_together_across_batches(catalog):
    rows = [await sealed(catalog, tenant=(ACME, OTHER)[number % 2]) for number in range(24)]
    of_rows = [certificate(one) for one in rows]
    # Twelve batches, each with one of the first half and one of the second.
    for first, second in zip(of_rows[:12], of_rows[12:], strict=True):
        await certify(catalog, [first, second])
    names = [each.id for each in of_rows]
    assert [each.id for each in await catalog.certificates()] == names[::-1]
    assert [each.id for each in await catalog.certificates(limit=5)] == names[:-6:-1]
    assert [each.id for each in await catalog.certificates(limit=5, before=names[12])] == names[11:6:-1]
    assert [each.id for each in await catalog.certificates(tenant=OTHER, limit=5)] == names[-1:-10:-2]
    assert {each.id for each in await catalog.certificates_named(names)} == {*names}
    assert {each.id for each in await catalog.certificates_of([row.id for row in rows])} == {*names}
    with pytest.raises(NotFound):
        await catalog.certificates_named([*names, "cert_" + "0" * 32])
    with pytest.raises(NotFound):
        await catalog.certificate(names[0], tenant=OTHER)
    assert (await catalog.certificate(names[0], tenant=ACME)).id == names[0]


async def test_the_beginning_of_a_certificate_finds_it_in_its_batch(catalog):
    rows = [await sealed(catalog), await sealed(catalog, tenant=OTHER)]
    issued = [each.id for one in rows for each in await certify(catalog, [certificate(one)])]
    for beginning in ("cert_", issued[0][:9], issued[0][:17], issued[0][:20]):
        assert await catalog.ids_beginning(beginning, tenant=None, limit=9) == issued
        assert await catalog.ids_beginning(beginning, tenant=OTHER, limit=9) == issued[1:]
        assert await catalog.ids_beginning(beginning, tenant=None, limit=1) == issued[:1]
    assert await catalog.ids_beginning(issued[0], tenant=None, limit=9) == issued[:1]
    assert await catalog.ids_beginning("cert_f", tenant=None, limit=9) == []


async def test_a_certificate_of_another_millisecond_than_its_batch_is_refused(catalog):
    """It would never be found again."""
    one = await sealed(catalog)
    with pytest.raises(Invalid):
        await certify(catalog, [certificate(one, id=new_id("cert"))])
    assert (await catalog.recording(one.id)).state is RecordingState.SEALED


async def test_a_thousand_certificates_fit_one_transaction(catalog):
    rows = [recording() for _ in range(1100)]
    await asyncio.gather(*[catalog.create_recording(one) for one in rows])
    await certify(catalog, [certificate(one) for one in rows])
    assert (await catalog.count_recordings())[RecordingState.SHREDDED] == 1100


async def test_an_override_is_added_once_and_revised_by_id(catalog):
    one, newer = override(), override(requested_at=NOW + timedelta(seconds=1))
    await catalog.add_override(one, audit=[event("a")])
    await catalog.add_override(newer)
    approved = replace(one, approved_by="bob", used_at=NOW)
    with pytest.raises(Conflict):
        await catalog.add_override(one)
    with pytest.raises(Conflict):
        await catalog.revise_override(one.id, refuses)
    with pytest.raises(NotFound):
        await catalog.revise_override("ovr_none", becomes(one, event()))
    assert await catalog.revise_override(one.id, becomes(approved, event("b"))) == approved
    assert await catalog.overrides() == [newer, approved]
    assert await events(catalog) == ["a", "b"]


async def test_of_overrides_and_policy_requests_that_would_overlap_one_is_open(catalog):
    await catalog.add_tenant(tenant())
    for raced in (
        await outcomes(catalog.add_override(override(through=NOW + timedelta(days=day))) for day in range(1, 6)),
        await outcomes(catalog.add_policy_request(policy_request()) for _ in range(5)),
    ):
        assert raced.count(None) == 1
        assert {type(each) for each in raced if each is not None} == {Conflict}
    (standing,) = await catalog.overrides()
    approved = replace(standing, approved_by="tok_bob")
    await catalog.revise_override(standing.id, becomes(approved))
    with pytest.raises(Conflict, match=standing.id):  # approved, and not used yet
        await catalog.add_override(override(through=NOW + timedelta(days=9)))
    await catalog.revise_override(standing.id, becomes(replace(approved, used_at=NOW)))
    await catalog.add_override(override(through=NOW + timedelta(days=9)))


async def test_a_policy_request_is_the_only_open_one_of_its_tenant_and_is_applied_with_it_or_not_at_all(catalog):
    await catalog.add_tenant(tenant())
    one, theirs = policy_request(), policy_request(tenant=OTHER)
    await catalog.add_policy_request(one, audit=[event("a")])
    await catalog.add_policy_request(theirs)
    for another in (one, policy_request()):
        with pytest.raises(Conflict):
            await catalog.add_policy_request(another, audit=[event()])
    with pytest.raises(Conflict):
        await catalog.revise_policy_request(one.id, refuses)
    with pytest.raises(NotFound):
        await catalog.revise_policy_request("pol_none", becomes(one, event()))
    approved = replace(
        one,
        state=PolicyState.APPROVED,
        decided_by="bob",
        decided_role=Role.COMPLIANCE,
        decided_at=NOW,
        takes_effect_at=NOW + timedelta(days=14),
    )
    assert await catalog.revise_policy_request(one.id, becomes(approved, event("b"))) == approved
    with pytest.raises(Conflict):
        await catalog.add_policy_request(policy_request())
    applied, changed = replace(approved, state=PolicyState.APPLIED, applied_at=NOW), tenant(metadata_changed=CHANGE)
    for identifier, refusal in ((one.id, Conflict), ("pol_none", NotFound), (theirs.id, NotFound)):
        with pytest.raises(refusal):
            await catalog.apply_policy_request(
                identifier, refuses if identifier == one.id else becomes((theirs, changed), event())
            )
    assert await catalog.tenant(ACME) == tenant()
    assert await catalog.apply_policy_request(one.id, becomes((applied, changed), event("c"))) == (applied, changed)
    assert await catalog.tenant(ACME) == changed
    another = policy_request(requested_at=NOW + timedelta(days=1), metadata_retention=None)
    await catalog.add_policy_request(another)
    assert await catalog.policy_requests(tenant=ACME) == [another, applied]
    assert len(await catalog.policy_requests()) == 3
    assert await events(catalog) == ["a", "b", "c"]


async def test_metadata_has_a_certificate_and_a_clock_of_its_own(catalog):
    one = await sealed(catalog, caller_token="caller", called_token="called", object_token="object")
    other = await sealed(catalog, tenant=OTHER)
    month = one.metadata.cohort.period

    async def due(**of):
        found = await catalog.due_recordings(through=month, after=None, limit=9, part=Part.METADATA, **of)
        assert await catalog.count_due(through=month, part=Part.METADATA, **of) == len(found)
        return [row.id for row in found]

    assert await due(tenant=ACME) == [one.id]
    assert await due(tenant=OTHER) == [other.id]
    await certify(catalog, [certificate(one)])
    assert await due(tenant=ACME) == [one.id], "the audio's certificate is not the metadata's"
    first = certificate(one, parts=(Part.METADATA,))
    await certify(catalog, [first])
    assert await due(tenant=ACME) == []
    waiting = await catalog.unconfirmed_metadata(after=None, limit=9)
    assert await catalog.count_undeleted() == 1, "its audio waits, its metadata too"
    assert [(row.id, row.metadata_certificate_id) for row in waiting] == [(one.id, first.id)]
    assert await catalog.unconfirmed_metadata(after=one.id, limit=9) == []
    last = certificate(one, CertificateStatus.FINAL, parts=(Part.METADATA,))
    await certify(catalog, [last])
    assert await catalog.unconfirmed_metadata(after=None, limit=9) == []
    await certify(catalog, [certificate(one, parts=(Part.METADATA,))])
    row = await catalog.recording(one.id)
    assert (row.metadata_certificate_id, row.sealed_facts) == (last.id, b"")
    assert (row.call_token, row.caller_token, row.called_token, row.object_token) == (one.id, None, None, None)
    assert row.certificate_id != last.id
    assert [each.id for each in await catalog.undeleted_recordings(after=None, limit=9)] == [one.id]
    assert {each.parts for each in await catalog.certificates(recording=one.id)} == {(Part.AUDIO,), (Part.METADATA,)}


async def test_a_certificate_for_both_parts_moves_both_along(catalog):
    one = await sealed(catalog, node=NODE)
    assert (await catalog.recording(one.id)).node == NODE
    both = certificate(one, parts=(Part.AUDIO, Part.METADATA))
    await certify(catalog, [both])
    row = await catalog.recording(one.id)
    assert row.node is None, "no journal has bytes of it any more"
    assert (row.state, row.certificate_id, row.metadata_certificate_id) == (RecordingState.SHREDDED, both.id, both.id)
    assert (await catalog.certificate(both.id)).parts == both.parts
    assert await catalog.unconfirmed_metadata(after=None, limit=9) == [], "the objects' absence confirms it"
    last = certificate(one, CertificateStatus.FINAL, parts=both.parts)
    await certify(catalog, [last])
    row = await catalog.recording(one.id)
    assert (row.certificate_id, row.metadata_certificate_id) == (last.id, last.id)


async def test_an_object_token_finds_the_newest_rows_of_its_tenant_first(catalog):
    mine = [await sealed(catalog, object_token=name) for name in ("april", "march", "april")]
    await sealed(catalog, tenant=OTHER, object_token="april")
    found = await catalog.recordings_by_object(ACME, ["april", "march"], limit=2)
    assert [row.id for row in found] == [mine[2].id, mine[1].id]
    assert await catalog.recordings_by_object(ACME, [], limit=2) == []


async def test_tokens_find_calls_of_their_tenant_alone(catalog):
    mine = [await sealed(catalog, caller_token="t1"), await sealed(catalog, caller_token="t2")]
    await sealed(catalog, called_token="t1")
    theirs = await sealed(catalog, tenant=OTHER, caller_token="t3")

    async def found(**filters):
        return [row.id for row in await catalog.recordings(RecordingQuery(tenant=ACME, **filters))]

    assert await found(caller_tokens=("t1", "t2", "t3")) == [mine[1].id, mine[0].id]
    assert await found(caller_tokens=("t1", "t2"), before=mine[1].id) == [mine[0].id]
    assert await found(caller_tokens=()) == []
    assert await found(called_tokens=("t2",)) == []
    assert theirs.id in {row.id for row in await catalog.recordings(RecordingQuery(caller_tokens=("t3",)))}


async def test_a_call_known_in_another_month_is_not_created_again(catalog):
    await catalog.create_recording(recording(call_token="march"))
    with pytest.raises(Conflict):
        await catalog.create_recording(recording(call_token="april"), elsewhere=["march", "may"])
    await catalog.create_recording(recording(call_token="june", tenant=OTHER), elsewhere=["march"])
    assert (await catalog.recording_by_call(ACME, ["april", "march"])).call_token == "march"
    assert await catalog.recording_by_call(ACME, ["april"]) is None
    assert await catalog.recording_by_call(ACME, []) is None


async def test_an_intent_keeps_the_open_calls_of_every_clock_it_takes(catalog):
    mine, theirs = recording(period=PERIOD + 9), recording(period=PERIOD + 9, tenant=OTHER)
    for one in (mine, theirs):
        await catalog.create_recording(one)
    month = mine.metadata.cohort.period
    kept = await catalog.intend_shred(shred(due_through=None, metadata_through={ACME: month}))
    assert [row.id for row in kept] == [mine.id]
    assert await catalog.intend_shred(shred(due_through=None, metadata_through={ACME: month - 1})) == []
    spared = shred(due_through=None, metadata_through={ACME: month}, spared=frozenset({(ACME, month)}))
    assert await catalog.intend_shred(spared) == []
    leaving = shred(
        due_through=None,
        drop_tenants=frozenset({OTHER}),
        metadata_through={ACME: 3},
        spared=frozenset({(ACME, 1)}),
    )
    assert [row.id for row in await catalog.intend_shred(leaving)] == [theirs.id]
    assert (await catalog.unfinished_shreds())[-1] == leaving


# Erasures


async def test_an_erasure_comes_back_as_it_was_and_changes_state_once(catalog):
    rows = [await sealed(catalog) for _ in range(3)]
    asked = erasure(*reversed(rows))
    await catalog.add_erasure(asked, audit=[event("case.received")])
    assert await catalog.erasure(asked.id) == asked
    assert [*(await catalog.erasure(asked.id)).recordings] == [*asked.recordings]
    approved = replace(asked, state=ErasureState.APPROVED, decided_by="tok_bob", decided_at=NOW)

    def approve(before):
        if before.state is not ErasureState.REQUESTED:
            raise Conflict("decided already")
        return approved, [event("case.approved")]

    results = await outcomes(catalog.revise_erasure(asked.id, approve) for _ in range(20))
    assert results.count(None) == 1
    assert {type(each) for each in results if each is not None} == {Conflict}
    with pytest.raises(Conflict):
        await catalog.add_erasure(asked)
    assert await catalog.erasure(asked.id) == approved
    assert await events(catalog) == ["case.received", "case.approved"]
    with pytest.raises(NotFound):
        await catalog.erasure("era_" + "0" * 32)


async def test_an_open_erasure_of_a_case_keeps_a_second_one_of_that_case_from_its_recordings(catalog):
    one, two = [await sealed(catalog) for _ in range(2)]
    first = erasure(one, two)
    await catalog.add_erasure(first)
    for over in ((one,), (two, one)):
        with pytest.raises(Conflict, match=first.id):
            await catalog.add_erasure(erasure(*over))
    await catalog.add_erasure(erasure(one, case_reference="DSR-2"))
    await catalog.add_erasure(erasure(one, basis=ErasureBasis.CONTROLLER_INSTRUCTION))
    await catalog.add_erasure(erasure(await sealed(catalog)))
    settled = replace(first, state=ErasureState.APPROVED, recordings={**first.recordings, one.id: ErasureOutcome.GONE})
    await catalog.revise_erasure(first.id, becomes(settled))
    raced = await outcomes(catalog.add_erasure(each) for each in [erasure(one) for _ in range(5)])
    assert raced.count(None) == 1, "of those at once one is the first"
    with pytest.raises(Conflict, match=first.id):
        await catalog.add_erasure(erasure(two))
    await catalog.revise_erasure(first.id, becomes(replace(first, state=ErasureState.REJECTED)))
    await catalog.add_erasure(erasure(two))


async def test_erasures_are_paged_newest_first_and_filtered(catalog):
    one = await sealed(catalog)
    states = (ErasureState.REQUESTED, ErasureState.DONE, ErasureState.REQUESTED)
    made = [erasure(one, state=state, case_reference=f"DSR-{number}") for number, state in enumerate(states)]
    for each in made:
        await catalog.add_erasure(each)
    assert [each.id for each in await catalog.erasures()] == [each.id for each in reversed(made)]
    assert [each.id for each in await catalog.erasures(states=[ErasureState.DONE])] == [made[1].id]
    assert [each.id for each in await catalog.erasures(before=made[2].id, limit=1)] == [made[1].id]
    assert await catalog.erasures(tenant=OTHER) == []


async def test_an_intent_and_the_erasures_it_serves_are_saved_together(catalog):
    taken, kept, gone = [await sealed(catalog) for _ in range(3)]
    await certify(catalog, [certificate(gone)])
    asked = erasure(taken, kept, gone, state=ErasureState.APPROVED)
    await catalog.add_erasure(asked)
    erasing = replace(
        asked,
        recordings={
            taken.id: ErasureOutcome.ERASING,
            kept.id: ErasureOutcome.KEPT,
            gone.id: ErasureOutcome.ERASING,
        },
    )
    intent = shred(due_through=None, trigger="erasure")
    for _ in range(2):
        await catalog.intend_shred(intent, erasures=[erasing], audit=[event("shred.intended")])
    assert await events(catalog) == ["shred.intended"]
    ((found, rows),) = await catalog.erasures_of(intent.id)
    assert found == erasing
    assert [(row.id, row.state) for row in rows] == [
        (taken.id, RecordingState.SHREDDING),
        (gone.id, RecordingState.SHREDDED),
    ]
    assert (await catalog.recording(kept.id)).state is RecordingState.SEALED
    done = replace(erasing, recordings={**erasing.recordings, taken.id: ErasureOutcome.ERASED})
    undecided = erasure(kept)
    await catalog.add_erasure(undecided)
    for settled in (done, replace(undecided, state=ErasureState.APPROVED)):
        with pytest.raises(Conflict):
            await catalog.intend_shred(shred(due_through=None), erasures=[settled])
    await catalog.revise_erasure(done.id, becomes(done))
    ((found, rows),) = await catalog.erasures_of(intent.id)
    assert (found, len(rows)) == (done, 2)
    assert await catalog.erasures_of("shr_none") == []


# Tenants, tokens, settings


async def test_tenants_are_added_once_and_revised_by_id(catalog):
    with pytest.raises(NotFound):
        await catalog.tenant(ACME)
    with pytest.raises(NotFound):
        await catalog.revise_tenant(ACME, becomes(tenant(), event()))
    zed = tenant("zed", retention="1y1d", metadata_before=((24_314, None), (24_320, "6mo")))
    zed = replace(zed, metadata_changed=CHANGE, retention_changed=RETENTION_CHANGE)
    await catalog.add_tenant(zed)
    await catalog.add_tenant(tenant(), audit=[event("added")])
    with pytest.raises(Conflict):
        await catalog.add_tenant(tenant(), audit=[event()])
    changed = tenant(contact="new@acme.example", retention="5s")
    with pytest.raises(Conflict):
        await catalog.revise_tenant(ACME, refuses)
    assert await catalog.revise_tenant(ACME, becomes(changed, event("saved"))) == changed
    assert await catalog.tenants() == [changed, zed]
    assert await catalog.tenant(TenantId("zed")) == zed
    assert await events(catalog) == ["added", "saved"]


async def test_tokens_that_expire_by_an_instant_are_those_not_revoked(catalog):
    soon, at, later, never, gone = (
        token(expires_at=expires_at, created_at=NOW + timedelta(seconds=number))
        for number, expires_at in enumerate((NOW, NOW + timedelta(days=1), NOW + timedelta(days=2), None, NOW))
    )
    for one in (soon, at, later, never, gone):
        await catalog.add_token(one)
    await catalog.revoke_token(gone.id, at=NOW)
    assert await catalog.tokens(expiring_by=NOW + timedelta(days=1)) == [soon, at]
    assert await catalog.tokens(tenant=OTHER, expiring_by=NOW + timedelta(days=1)) == []


async def test_a_revoked_token_is_still_known_and_revoked_once(catalog):
    mine = token()
    operators = token(tenant=None, created_at=NOW + timedelta(seconds=1))
    for one in (mine, operators):
        await catalog.add_token(one, audit=[event("admin.token")])
    with pytest.raises(Conflict):
        await catalog.add_token(mine)
    for at in (NOW, NOW + timedelta(days=1)):
        await catalog.revoke_token(mine.id, at=at, audit=[event("revoked")])
    assert await catalog.token(mine.id) == replace(mine, revoked_at=NOW)
    assert await catalog.tokens() == [replace(mine, revoked_at=NOW), operators]
    assert await catalog.tokens(tenant=ACME) == [replace(mine, revoked_at=NOW)]
    assert await catalog.token(token().id) is None
    with pytest.raises(NotFound):
        await catalog.revoke_token(token().id, at=NOW, audit=[event()])
    assert await events(catalog) == ["admin.token", "admin.token", "revoked"]


# Nodes


async def test_a_node_comes_back_with_its_open_recordings_counted(catalog):
    second = NodeId("node_" + "2" * 32)
    await catalog.register_node(node())
    await catalog.register_node(node(id=second, name="two:/journal"))
    mine, theirs, done = recording(node=NODE), recording(node=second), recording(node=NODE)
    for one in (mine, theirs, done):
        await catalog.create_recording(one)
    await finish(catalog, done)
    assert await catalog.nodes() == [node(open_recordings=1), node(id=second, name="two:/journal", open_recordings=1)]
    assert [row.id for row in await catalog.open_recordings(node=NODE)] == [mine.id]
    assert {row.id for row in await catalog.open_recordings()} == {mine.id, theirs.id}
    assert (await catalog.recording(theirs.id)).node == second


async def test_a_node_is_seen_replaced_and_forgotten(catalog):
    with pytest.raises(NotFound):
        await catalog.beat_node(NODE, at=NOW, unstored_bytes=1)
    await catalog.register_node(node())
    later = NOW + timedelta(seconds=10)
    await catalog.beat_node(NODE, at=later, unstored_bytes=77)
    assert await catalog.nodes() == [node(seen_at=later, unstored_bytes=77)]
    await catalog.register_node(node(started_at=later))
    assert await catalog.nodes() == [node(started_at=later)]
    for _ in range(2):
        await catalog.forget_node(NODE)
    assert await catalog.nodes() == []


async def test_only_the_first_node_ever_takes_the_open_rows_of_nobody(catalog):
    early, done = recording(), recording()
    for one in (early, done):
        await catalog.create_recording(one)
    await finish(catalog, done)
    await catalog.register_node(node())
    late = recording()
    await catalog.create_recording(late)
    await catalog.register_node(node(id=NodeId("node_" + "2" * 32)))
    assert [row.id for row in await catalog.open_recordings(node=NODE)] == [early.id]
    assert (await catalog.recording(late.id)).node is None
    assert (await catalog.recording(done.id)).node is None


async def test_a_setting_is_replaced(catalog):
    assert await catalog.setting("vault_id") is None
    for value in ("one", "two"):
        await catalog.save_setting("vault_id", value)
        assert await catalog.setting("vault_id") == value


# Audit


async def test_the_trail_has_no_gap_under_concurrency_and_verifies(catalog):
    assert await catalog.audit_head() == GENESIS
    rows = [recording() for _ in range(50)]
    calls = [catalog.create_recording(one, audit=[event(target=one.id), event("access.search")]) for one in rows]
    calls += [catalog.append_audit([event("access.play"), event("access.denied", outcome="denied")]) for _ in range(50)]
    calls.append(catalog.append_audit([]))
    assert set(await outcomes(calls)) == {None}
    entries = await trail(catalog)
    assert [entry.seq for entry in entries] == list(range(1, 201))
    assert verify_chain(entries) == await catalog.audit_head()
    assert await audit_entries(catalog, after=195, limit=3) == entries[195:198]


async def asked(catalog, **query):
    return [entry.seq for entry in await catalog.audit_found(AuditQuery(**query))]


async def test_the_trail_is_asked_by_recording_person_event_and_time(catalog):
    play = event("access.play", actor="tok_1 Asha", tenant=ACME, target="rec_1")
    for one in (
        play,
        replace(play, actor="tok_12 Asha"),
        replace(play, target="rec_2"),
        replace(play, event="access.metadata"),
        replace(play, event="accessory.sold"),
        replace(play, tenant=OTHER),
        replace(play, tenant=None, target=None),
    ):
        await catalog.append_audit([one])
    at = [entry.at for entry in await trail(catalog)]
    assert await asked(catalog, target="rec_1") == [1, 2, 4, 5, 6]
    assert await asked(catalog, target="rec_1", tenant=ACME, newest_first=True) == [5, 4, 2, 1]
    assert await asked(catalog, actor="tok_1 Asha", tenant=ACME) == [1, 3, 4, 5]
    assert await asked(catalog, actor="tok_12 Asha", target="rec_1", tenant=ACME) == [2]
    assert await asked(catalog, event="access", tenant=ACME) == [1, 2, 3, 4]
    assert await asked(catalog, event="access.play", since=at[1], until=at[6]) == [2, 3, 6]
    assert await asked(catalog, event="access_play") == []
    assert await asked(catalog, since=at[5], tenant=OTHER) == [6]
    assert await asked(catalog, limit=0) == []
    assert [entry.seq for entry in await audit_entries(catalog, tenant=ACME, after=1, limit=2)] == [2, 3]


async def test_pages_of_the_trail_are_in_its_order_and_times_are_exact_where_the_clock_went_back(place):
    clock = Clock(NOW)
    catalog = open_catalog(place, clock=clock)
    if place is None:
        await catalog.migrate()
    one = event("access.play", tenant=ACME, target="rec_1")
    hours = (2, 3, 1, 1, 3, 9)
    for each in hours:
        clock.at = NOW + timedelta(hours=each)
        await catalog.append_audit([one, replace(one, event="access.search")])
    await catalog.append_audit([replace(one, tenant=OTHER, target="rec_2")])
    hour_of = {seq: hours[(seq - 1) // 2] for seq in range(1, 13)}
    late = {hour: NOW + timedelta(hours=hour) for hour in range(11)}
    windows = [({}, lambda _: True)]
    windows += [({"since": at}, lambda hour, low=low: hour >= low) for low, at in late.items()]
    windows += [({"until": at}, lambda hour, high=high: hour < high) for high, at in late.items()]
    windows.append(({"since": late[2], "until": late[3]}, lambda hour: hour == 2))
    windows.append(({"since": late[1] + timedelta(minutes=1), "until": late[3]}, lambda hour: hour == 2))
    of_event = ({"event": one.event}, {"event": "access"}, {"tenant": ACME, "event": "access"})
    for named in ({"target": "rec_1"}, {"tenant": ACME}, {"actor": one.actor}, *of_event):
        both = {} if {"target", "tenant"} & named.keys() else {13: hours[-1]}  # the other tenant's too
        for window, matches in windows:
            expected = [seq for seq, hour in (hour_of | both).items() if matches(hour)]
            if named.get("event") == one.event:
                expected = [seq for seq in expected if seq % 2]
            for newest in (False, True):
                read, last = [], None
                while page := await asked(catalog, **named, **window, newest_first=newest, beyond=last, limit=5):
                    read += page
                    last = page[-1]
                assert read == expected[:: -1 if newest else 1], (named, window)
    # A number is a place in the trail, whoever's entry has it.
    assert await asked(catalog, tenant=ACME, newest_first=True, beyond=13, limit=2) == [12, 11]
    assert await asked(catalog, tenant=ACME, beyond=13) == await asked(catalog, beyond=14) == []
    await catalog.close()


async def test_each_process_notes_the_hours_of_the_trail_that_another_has_continued(place):
    clock = Clock(NOW)
    catalog = open_catalog(place, clock=clock)
    if place is None:
        await catalog.migrate()
    hours = audit_hours.c.hour - int(NOW.timestamp()) // 3600
    one = event("access.play", tenant=ACME)
    await catalog.append_audit([one])
    async with catalog._database.engine.begin() as connection:  # as another process
        await connection.execute(sa.update(audit_head).values(seq=2))
        await connection.execute(sa.insert(audit_hours), {"first": 2, "hour": int(NOW.timestamp()) // 3600 + 5})
    await catalog.append_audit([one])
    clock.at = NOW + timedelta(hours=5)
    for _ in range(2):
        await catalog.append_audit([one])
    async with catalog._database.engine.connect() as connection:
        found = (await connection.execute(sa.select(audit_hours.c.first, hours).order_by(audit_hours.c.first))).all()
    assert found == [(1, 0), (2, 5), (3, 0), (4, 5)]
    await catalog.close()


EARLY, LATE = (datetime(1970, 1, 1, 0, 0, second, tzinfo=UTC) for second in (1, 15))
ACTOR = f"tok_{1:032} A"
AUDIT_PLANS = [
    ({"tenant": IN_USE, "target": "rec_1", "actor": ACTOR, "since": EARLY}, "ix_audit_target"),
    ({"tenant": IN_USE, "actor": ACTOR, "event": "access", "until": LATE}, "ix_audit_actor"),
    ({"tenant": IN_USE, "event": "access.play", "since": EARLY}, "ix_audit_tenant_event"),
    ({"actor": ACTOR, "limit": 10}, "ix_audit_actor"),
    ({"tenant": IN_USE, "actor": "vault", "limit": 1000}, "ix_audit_tenant"),
    ({"tenant": IN_USE, "event": "recording.started", "limit": 1000}, "ix_audit_tenant"),
    ({"tenant": IN_USE, "event": "access", "since": EARLY, "limit": 1000}, "ix_audit_tenant_event"),
    ({"tenant": IN_USE, "event": "hold"}, "ix_audit_tenant_event|ix_audit_event"),
    ({"tenant": IN_USE, "event": "recording", "limit": 1000}, "ix_audit_tenant"),
    ({"tenant": IN_USE, "limit": 1000}, "ix_audit_tenant"),
    ({"event": "access.play", "limit": 1000}, "ix_audit_event"),
    ({"event": "hold", "since": EARLY, "until": LATE}, "ix_audit_event"),
    ({"since": EARLY, "until": LATE}, r"pk_audit|INTEGER PRIMARY KEY \(rowid"),
]


async def test_each_question_to_the_trail_walks_an_index_in_order(place):
    catalog = open_catalog(place, clock=SteppingClock())
    if place is None:
        await catalog.migrate()
    await catalog.append_audit([event("access.play", tenant=IN_USE, target="rec_1")])
    await fill(catalog)
    middle = (
        1 if catalog._database.engine.dialect.name == "sqlite" else 11_007
    )  # tenant7 and rec_1, as the first one is
    for chosen, index in AUDIT_PLANS:
        for newest in (False, True):
            query = AuditQuery(**chosen, newest_first=newest, beyond=middle)
            plan = await plan_of(catalog, catalog.audit_found(query))
            assert re.search(rf"({index})\b", plan), (chosen, plan)
            # Of a part before the full stop the pages of its events are sorted. Few entries PostgreSQL sorts at once.
            assert chosen.get("event") in {"access", "hold"} or "TEMP B-TREE" not in plan, (chosen, plan)
            assert chosen.keys() != {"actor", "limit"} or "Sort " not in plan, plan
            assert not re.search(r"Seq Scan on audit\b|SCAN audit$", plan), (chosen, plan)
    plan = await plan_of(catalog, audit_entries(catalog, tenant=IN_USE, after=1))
    assert re.search(r"ix_audit_tenant\b", plan), plan
    plan = await plan_of(catalog, catalog.last_audited("access.play", "rec_1"))
    assert "ix_audit_target" in plan
    await catalog.close()


async def test_an_audit_entry_comes_back_as_it_was_written(catalog):
    one = event("access.play", role="agent", tenant=ACME, purpose="complaint", request_id="r1", target="rec_1")
    await catalog.append_audit([one, replace(one, detail={"a": [1, 2.5, True, None, "\u00e9\u2028"], "b": {"c": {}}})])
    first, second = await trail(catalog)
    assert first.event == one
    assert second.event.detail == {"a": [1, 2.5, True, None, "\u00e9\u2028"], "b": {"c": {}}}
    assert first.at > NOW


async def test_an_act_whose_audit_cannot_be_written_does_not_happen_and_harms_no_neighbour(catalog):
    good, bad, also = recording(), recording(), recording()
    results = await outcomes(
        [
            catalog.create_recording(good, audit=[event(target=good.id)]),
            catalog.create_recording(bad, audit=[event(detail={"at": NOW})]),
            catalog.create_recording(also, audit=[event(target=also.id)]),
        ]
    )
    assert [type(result).__name__ for result in results] == ["NoneType", "Invalid", "NoneType"]
    assert {row.id for row in await catalog.open_recordings()} == {good.id, also.id}
    assert [entry.event.target for entry in await trail(catalog)] == [good.id, also.id]
    verify_chain(await trail(catalog))


async def test_written_events_are_counted_and_refused_ones_are_not(catalog, metrics):
    one = recording()
    await catalog.create_recording(one, audit=[event()])
    with pytest.raises(Conflict):
        await catalog.create_recording(one, audit=[event()])
    labels = {"event": "recording.started", "outcome": "ok"}
    assert metrics.registry.get_sample_value("callvault_audit_events_total", labels) == 1


async def test_tampering_with_the_stored_trail_is_found(on_file, path):
    await on_file.append_audit([event(target=f"rec_{n}") for n in range(5)])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 3")
    connection.close()
    with pytest.raises(IntegrityError, match="entry 3"):
        verify_chain(await trail(on_file))


async def test_a_trail_without_its_head_accepts_nothing(on_file, path):
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM audit_head")
    connection.close()
    one = recording()
    with pytest.raises(IntegrityError, match="head"):
        await on_file.create_recording(one, audit=[event()])
    with pytest.raises(NotFound):
        await on_file.recording(one.id)


async def test_two_processes_on_one_file_keep_one_chain(on_file, path):
    second = open_catalog(path, clock=SteppingClock())
    for n in range(4):
        await (on_file, second)[n % 2].append_audit([event(f"turn.{n}")])
    await asyncio.gather(*[one.append_audit([event()]) for one in (on_file, second) * 10])
    await second.close()
    entries = await trail(on_file)
    assert len(entries) == 24
    assert [entry.event.event for entry in entries[:4]] == [f"turn.{n}" for n in range(4)]
    assert verify_chain(entries) == await on_file.audit_head()


# Group commit


async def test_concurrent_creates_share_a_commit(catalog):
    commits: list[int] = []
    sa.event.listen(catalog._database.engine.sync_engine, "commit", lambda _: commits.append(1))
    await asyncio.gather(*[catalog.create_recording(recording()) for _ in range(100)])
    assert len(commits) <= 2


async def test_an_act_refused_after_it_wrote_leaves_nothing_and_harms_no_neighbour(catalog):
    async def write_then_refuse(transaction):
        await transaction.write(sa.insert(settings), {"name": "half", "value": "done"})
        transaction.audit([event("half")])
        raise Conflict("on second thoughts")

    results = await outcomes(
        [
            catalog.save_setting("before", "1"),
            catalog._database.writer.run(write_then_refuse),
            catalog.save_setting("after", "2"),
            catalog.append_audit([event("kept")]),
        ]
    )
    assert [type(result).__name__ for result in results] == ["NoneType", "Conflict", "NoneType", "NoneType"]
    assert [await catalog.setting(name) for name in ("before", "half", "after")] == ["1", None, "2"]
    assert await events(catalog) == ["kept"]


async def test_a_cancelled_caller_does_not_disturb_its_batch(catalog):
    rows = [recording() for _ in range(30)]
    tasks = [asyncio.ensure_future(catalog.create_recording(one)) for one in rows]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    results = await outcomes(tasks)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [n % 3 == 0 for n in range(30)]
    present = {row.id for row in await catalog.open_recordings()}
    assert {one.id for n, one in enumerate(rows) if n % 3} <= present
    await catalog.create_recording(recording())


async def test_a_caller_cancelled_in_mid_commit_leaves_a_whole_transaction(on_file):
    for _ in range(20):
        one = recording()
        task = asyncio.ensure_future(on_file.create_recording(one, audit=[event(target=one.id)]))
        for _ in range(6):
            await asyncio.sleep(0.0002)
        task.cancel()
        await asyncio.wait([task])
    await on_file.append_audit([event("end")])
    entries = await trail(on_file)
    verify_chain(entries)
    audited = {entry.event.target for entry in entries} - {None}
    assert audited == {row.id for row in await on_file.open_recordings()}


async def test_a_cancelled_reader_leaves_the_catalog_usable(catalog):
    one = await sealed(catalog)
    for delay in (0, 0.0001, 0.0003, 0.001):
        tasks = [asyncio.ensure_future(catalog.recording(one.id)) for _ in range(8)]
        await asyncio.sleep(delay)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert await catalog.recording(one.id) == one


async def test_what_was_submitted_before_close_is_carried_out_and_the_rest_refused(path):
    path.parent.mkdir()
    opened = open_catalog(path, clock=SteppingClock())
    await opened.migrate()
    one = recording()
    pending = asyncio.ensure_future(opened.create_recording(one))
    await asyncio.sleep(0)
    await opened.close()
    await opened.close()
    await pending
    for call in (opened.create_recording(recording()), opened.recording(one.id)):
        with pytest.raises(Unavailable):
            await call
    again = open_catalog(path, clock=SteppingClock())
    assert await again.recording(one.id) == one
    await again.close()


# Schema and faults


async def test_opening_creates_nothing_and_names_what_to_do(tmp_path):
    path = tmp_path / "catalog.db"
    opened = open_catalog(path, clock=SteppingClock())
    with pytest.raises(ConfigError) as caught:
        await opened.check_schema()
    assert "callvault init" in caught.value.hint
    with pytest.raises(Unavailable):
        await opened.recording(recording().id)
    await opened.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_connection_that_cannot_be_opened_leaves_no_thread(path, monkeypatch):
    ended = []

    def work(queue, work=aiosqlite.core._connection_worker_thread):
        work(queue)
        time.sleep(0.02)
        ended.append(queue)

    monkeypatch.setattr(aiosqlite.core, "_connection_worker_thread", work)
    opened = open_catalog(path, clock=SteppingClock())
    with pytest.raises(Unavailable):
        await opened.recording(MISSING)
    assert ended
    await opened.close()


async def test_who_is_cancelled_while_a_connection_cannot_be_opened_is_cancelled(path):
    opening = asyncio.ensure_future(sqlite._connect(path))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening


async def test_an_empty_database_is_not_a_catalog(tmp_path):
    path = tmp_path / "catalog.db"
    path.touch()
    opened = open_catalog(path, clock=SteppingClock())
    with pytest.raises(ConfigError, match="no schema") as caught:
        await opened.check_schema()
    assert "callvault init" in caught.value.hint
    with pytest.raises(ConfigError):
        await opened.recording(recording().id)
    await opened.close()


async def test_a_newer_schema_is_refused_untouched(on_file, path):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for call in (on_file.check_schema(), on_file.migrate()):
        with pytest.raises(ConfigError, match="newer") as caught:
            await call
        assert "upgrade callvault" in caught.value.hint


def first_row(connection):
    """Return the columns of a recording as the first schema had them."""
    then = {each["name"] for each in sa.inspect(connection).get_columns("recordings")}
    values = {name: value for name, value in rows_of.from_recording(recording()).items() if name in then}
    return {**values, "call_key": "call-1"}


async def test_an_older_schema_is_refused_until_migrated_and_its_open_rows_go_to_the_first_node(tmp_path):
    older = open_catalog(tmp_path / "catalog.db", clock=SteppingClock())
    await older._database.create()
    async with older._database.engine.begin() as connection:
        await connection.run_sync(lambda given: command.upgrade(schema._config(given), "0001"))
        values = await connection.run_sync(first_row)
        await connection.execute(sa.insert(sa.table("recordings", *map(sa.column, values))).values(values))
    with pytest.raises(ConfigError, match="older") as caught:
        await older.check_schema()
    await older.migrate()
    await older.check_schema()
    await older.register_node(node())
    await older.register_node(node(id=NodeId("node_" + "2" * 32)))
    assert [row.id for row in await older.open_recordings(node=NODE)] == [rows_of.recording_id(values["id"])]
    await older.close()
    assert "upgrade" in caught.value.hint


async def test_certificates_issued_before_there_were_batches_survive_the_migration(path):
    path.parent.mkdir(exist_ok=True)
    with transaction(path) as connection:
        command.upgrade(schema._config(connection), "0001")
        values = first_row(connection)
        connection.execute(sa.insert(sa.table("recordings", *map(sa.column, values))).values(values))
        connection.execute(
            sa.text(
                "INSERT INTO certificates (id, recording, tenant, status, issued_at, jws)"
                " VALUES ('cert_old', :recording, 'acme', 'provisional', 1, 'a.b.c')"
            ),
            {"recording": values["id"]},
        )
        connection.execute(sa.text("UPDATE recordings SET state = 'shredded', certificate_id = 'cert_old'"))
    identifier = rows_of.recording_id(values["id"])
    opened = open_catalog(path, clock=SteppingClock())
    with pytest.raises(ConfigError, match="older"):
        await opened.check_schema()
    await opened.migrate()
    await opened.check_schema()
    [kept] = await opened.certificates(recording=identifier)
    assert (kept.id, kept.jws, kept.place, kept.parts) == ("cert_old", "a.b.c", None, (Part.AUDIO,))
    await certify(opened, [certificate(recording(id=identifier))])
    assert await opened.certificates(recording=identifier) == [kept]
    await opened.close()


async def test_a_retention_in_seconds_survives_the_migration_as_a_period(path):
    path.parent.mkdir(exist_ok=True)
    chosen = {"acme": 7_776_000.0, "beta": None, "gamma": 5400.5}
    with transaction(path) as connection:
        command.upgrade(schema._config(connection), "0015")
        for name, seconds in chosen.items():
            connection.execute(
                sa.text(
                    "INSERT INTO tenants (id, name, controller, contact, created_at, retention_seconds)"
                    " VALUES (:name, :name, 'c', 'd', 1, :seconds)"
                ),
                {"name": name, "seconds": seconds},
            )
    opened = open_catalog(path, clock=SteppingClock())
    await opened.migrate()
    assert {each.id: each.retention for each in await opened.tenants()} == {
        "acme": "90d",
        "beta": None,
        "gamma": "1h30m500ms",
    }
    await opened.close()


async def test_what_is_due_comes_in_lots_that_say_of_each_row_what_the_row_says(catalog):
    for identifier in ("acme", "beta"):
        await catalog.add_tenant(tenant(identifier))
    kinds = itertools.product(
        ("acme", "beta"),
        (PERIOD - 1, PERIOD),
        (None, b"\xd4" * 32),
        ((), (-1,), (10, -1, 2)),
        ((None, "a"), ("9d", "b,c")),
    )
    expected = {}
    for name, period, commitment, indexes, (kept, named) in kinds:
        policy = {"retention_period": kept, "retention_class": named, "audio_commitment": commitment}
        row = recording(tenant=TenantId(name), period=period, **policy)
        await catalog.create_recording(row)
        objects = [segment(row, index) for index in indexes]
        await finish(catalog, row, objects=objects)
        expected[row.id] = subject(row, await catalog.segments(row.id))
    await catalog.create_recording(recording(tenant=TenantId("acme")))  # open
    found, after, order = [], None, []
    while lots := await catalog.due_lots(through=PERIOD, after=after, limit=7):
        page = [lot.subject(place) for lot in lots for place in range(len(lot.recordings))]
        assert len(page) == 7 or len(found) + len(page) == len(expected)
        after, found = last_of(lots), [*found, *page]
        order += sorted((each.parts[0].coordinate.cohort.period, each.recording_id) for each in page)
        assert len({(lot.cohort, lot.policy, not lot.commitments, not lot.objects) for lot in lots}) == len(lots)
    assert {each.recording_id: each for each in found} == expected
    assert order == sorted(order)
    assert len(found) == len(expected)


async def test_what_a_change_of_retention_is_for_is_left_out_of_what_goes_by_its_cohort(catalog):
    await catalog.add_tenant(tenant("acme", retention_changed=RETENTION_CHANGE))
    await catalog.add_tenant(tenant("beta"))
    ours, after, theirs = (
        recording(created_at=NOW, started_at=NOW),
        recording(created_at=NOW + timedelta(microseconds=1), started_at=NOW),
        recording(tenant=TenantId("beta"), created_at=NOW, started_at=NOW),
    )
    for each in (ours, after, theirs):
        await catalog.create_recording(each)
        await finish(catalog, each)
    through = max(each.audio.cohort.period for each in (ours, after, theirs))
    late = NOW + timedelta(days=3650)
    found = await catalog.due_recordings(through=through, after=None, limit=9)
    assert {each.id for each in found} == {after.id, theirs.id}
    assert await catalog.count_due(through=through) == 2
    lots = await catalog.due_lots(through=through, after=None, limit=9)
    assert {rows_of.recording_id(key) for lot in lots for key in lot.recordings} == {after.id, theirs.id}
    assert ours.id not in {
        each.id for each in await catalog.doubtful_recordings(through=through, now=NOW, after=None, limit=9)
    }
    assert await catalog.count_due_cohorts(through=through) == {after.audio.cohort: 1, theirs.audio.cohort: 1}
    for wanted, exceptional in (((), set()), ((TenantId("acme"),), {after.id})):
        page = {"through": through, "now": late, "after": None, "limit": 9, "tenants": wanted}
        assert {each.id for each in await catalog.exceptional_recordings(**page)} == exceptional
    page = {"through": through, "now": NOW, "after": None, "limit": 1, "tenants": ()}
    [first] = await catalog.exceptional_recordings(**page)
    [second] = await catalog.exceptional_recordings(**{**page, "after": first.id})
    assert {first.id, second.id} == {after.id, theirs.id}, "those that are kept beyond now"
    assert {
        each.id for each in await catalog.due_recordings(through=through, after=None, limit=9, tenant=TenantId("acme"))
    } == {
        ours.id,
        after.id,
    }, "the end of a contract takes all"

    async def changed(**wanted: object) -> list[object]:
        asked = {"through": NOW, "started_to": late, "after": None, "limit": 9, **wanted}
        return [each.id for each in await catalog.changed_recordings(TenantId("acme"), **asked)]

    assert await changed() == [ours.id]
    assert await changed(started_to=NOW - timedelta(microseconds=1)) == []
    assert await changed(through=NOW - timedelta(microseconds=1)) == []
    assert await changed(after=ours.id) == []


async def test_a_metadata_retention_in_seconds_survives_the_migration_as_a_period(path):
    path.parent.mkdir(exist_ok=True)
    with transaction(path) as connection:
        command.upgrade(schema._config(connection), "0019")
        connection.execute(
            sa.text(
                "INSERT INTO tenants (id, name, controller, contact, created_at, metadata_retention_seconds,"
                " metadata_before, metadata_changed) VALUES"
                " ('acme', 'a', 'c', 'd', 1, 63158400.0, '[[24314, null], [24320, 86400.5]]',"
                """ '{"request": "pol_1", "through": 24320, "seconds": 7776000.0}'), """
                "('beta', 'b', 'c', 'd', 1, NULL, '[]', NULL)"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO policy_requests (id, tenant, through, retention_seconds, state, preview, requested_by,"
                " requested_role, requested_at) VALUES ('pol_1', 'acme', 24320, 7776000.0, 'requested',"
                """ '{"changed": 1, "earlier": 1, "later": 0, "held": 0}', 'tok_1', 'dpo', 1), """
                """('pol_2', 'beta', 24320, NULL, 'requested', '{"changed": 1, "earlier": 1, "later": 0, "held": 0}',"""
                " 'tok_1', 'dpo', 2)"
            )
        )
    opened = open_catalog(path, clock=SteppingClock())
    await opened.migrate()
    acme, beta = sorted(await opened.tenants(), key=lambda each: each.id)
    assert acme.metadata_retention == "731d", "what was stored as so many days stays as many"
    assert acme.metadata_before == ((24_314, None), (24_320, "1d500ms"))
    assert acme.metadata_changed == MetadataChange(request="pol_1", through=24_320, retention="90d")
    assert (beta.metadata_retention, beta.metadata_before, beta.metadata_changed) == (None, (), None)
    assert {each.id: each.metadata_retention for each in await opened.policy_requests()} == {
        "pol_1": "90d",
        "pol_2": None,
    }
    await opened.close()


async def test_the_file_is_its_owners_alone_durable_and_in_wal(on_file, path):
    assert path.stat().st_mode & 0o777 == 0o600
    async with on_file._database.engine.begin() as connection:
        found = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}


async def test_readers_cannot_write(on_file):
    with pytest.raises(Unavailable):
        await on_file._database.fetch(sa.text("DELETE FROM settings RETURNING name"))


async def test_a_full_disk_fails_the_whole_batch_and_nothing_more(on_file):
    engine = on_file._database.engine
    await on_file.create_recording(recording(), audit=[event()])
    async with engine.begin() as connection:
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar()
        await connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    large = [recording(sealed_facts=bytes(20_000)) for _ in range(5)]
    results = await outcomes(on_file.create_recording(one, audit=[event()]) for one in large)
    assert {type(result) for result in results} == {DiskFull}
    assert len({id(result) for result in results}) == 5
    assert await events(on_file) == ["recording.started"]
    async with engine.begin() as connection:
        await connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert set(await outcomes(on_file.create_recording(one, audit=[event()]) for one in large)) == {None}
    assert verify_chain(await trail(on_file)).seq == 6


async def test_a_lock_held_elsewhere_is_an_outage(on_file, path):
    async with on_file._database.engine.begin() as connection:
        await connection.exec_driver_sql("PRAGMA busy_timeout = 20")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    one = recording()
    with pytest.raises(Unavailable):
        await on_file.create_recording(one)
    with pytest.raises(NotFound):  # readers do not wait for writers
        await on_file.recording(one.id)
    other.execute("ROLLBACK")
    other.close()
    await on_file.create_recording(one)


async def test_a_damaged_file_is_an_integrity_error_and_never_absence(on_file, path):
    rows = [recording() for _ in range(200)]
    await asyncio.gather(*[on_file.create_recording(one) for one in rows])
    await on_file.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    opened = open_catalog(path, clock=SteppingClock())
    with pytest.raises(IntegrityError):
        await opened.recording(rows[0].id)
    with pytest.raises(IntegrityError):
        await opened.create_recording(recording())
    path.write_bytes(b"this was never a database" * 400)
    await opened.close()
    opened = open_catalog(path, clock=SteppingClock())
    with pytest.raises(IntegrityError):
        await opened.check_schema()
    await opened.close()


async def test_errors_quote_no_values(on_file):
    one = await sealed(on_file)
    with pytest.raises(Conflict) as caught:
        await on_file.add_hold(hold(one, one, reason="+441632960123"))
    assert "+441632960123" not in f"{caught.value}{caught.value.__cause__}"


async def test_ids_sort_by_creation():
    ids = [new_id("rec") for _ in range(3)]
    assert ids == sorted(ids)


async def test_tokens_from_before_their_issuer_was_stored_get_it_from_the_trail(path):
    path.parent.mkdir(exist_ok=True)
    with transaction(path) as connection:
        command.upgrade(schema._config(connection), "0018")
        empty = {"tenant": None, "secret_sha256": "", "created_at": 0}
        for name in ("root", "made", "mystery"):
            values = {"id": f"tok_{name}", "name": name, "role": "operator", **empty}
            connection.execute(sa.insert(sa.table("tokens", *map(sa.column, values))).values(**values))
        for seq, (actor, target, action) in enumerate(
            [("vault", "root", "issued"), ("tok_root Ann", "made", "issued"), ("tok_made x", "root", "revoked")], 1
        ):
            values = {
                "seq": seq, "at": 0, "event": "admin.token", "actor": actor, "outcome": "ok", "target": f"tok_{target}",
                "detail": json.dumps({"action": action}), "previous_sha256": bytes(32), "sha256": bytes(32),
            }  # fmt: skip
            connection.execute(sa.insert(sa.table("audit", *map(sa.column, values))).values(**values))
    opened = open_catalog(path, clock=SteppingClock())
    await opened.migrate()
    assert {each.name: each.issued_by for each in await opened.tokens()} == {
        "root": None,
        "made": "tok_root",
        "mystery": None,
    }
    await opened.close()


async def test_a_revoked_token_issues_nothing_more(catalog):
    root = token(role=Role.OPERATOR, tenant=None)
    await catalog.add_token(root)
    await catalog.add_token(replace(root, id=TokenId("tok_other")))
    await catalog.revoke_token(root.id, at=root.created_at)
    late = replace(root, id=TokenId("tok_late"), issued_by=root.id)
    with pytest.raises(Conflict, match="it can issue no token"):
        await catalog.add_token(late)
    await catalog.add_token(replace(late, issued_by=TokenId("tok_other")))
