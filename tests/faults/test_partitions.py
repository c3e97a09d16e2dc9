"""Partitions of objects' rows on PostgreSQL: nothing waits for one, and none goes that a living recording needs."""

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.helpers.catalogs import (
    PERIOD,
    SteppingClock,
    at_commits,
    certificate,
    certify,
    finish,
    recording,
    segment,
    shred,
)
from vault.format.names import manifest_name, segment_name
from vault.model import MANIFEST_INDEX, CertificateStatus, RecordingState
from vault.storage.catalog import open_catalog, partitions
from vault.storage.catalog.partitions import FAR, NEAR, Span, span_for

pytestmark = pytest.mark.xdist_group("postgres")


@pytest.fixture
async def catalog(postgres_settings):
    opened = open_catalog(postgres_settings, clock=SteppingClock())
    yield opened
    await opened.close()


@pytest.fixture
async def another(postgres_settings, catalog):
    """The catalog as another node has it."""
    opened = open_catalog(postgres_settings, clock=SteppingClock())
    yield opened
    await opened.close()


def objects_of(row):
    place = (row.tenant, row.audio.cohort.period, row.id)
    yield replace(segment(row, MANIFEST_INDEX), attempt="", name=manifest_name(*place))
    for index in range(2):
        attempt = f"{index:032x}"
        yield replace(segment(row, index), attempt=attempt, name=segment_name(*place, index, attempt))


async def stored(catalog, period=PERIOD, *, ended=True):
    row = recording(period=period)
    manifest, *segments = objects_of(row)
    await catalog.create_recording(row)
    await catalog.add_segments(segments, stored_bytes=2000)
    if ended:
        await finish(catalog, row, objects=[manifest])
    return row


async def gone(catalog, *rows):
    """Certify them for good."""
    first = [certificate(row) for row in rows]
    await certify(catalog, first)
    await certify(
        catalog,
        [certificate(row, CertificateStatus.FINAL, supersedes=each.id) for row, each in zip(rows, first, strict=True)],
    )


async def spans(catalog):
    return [(span.low, span.high) for span in await catalog._database.inspect(partitions.spans)]


async def pages(catalog):
    async with catalog.snapshot() as snapshot:
        return (await snapshot.tags()).digest("segments", "", None)


async def counted(catalog):
    [row] = await catalog._database.fetch(sa.text("SELECT count(*) AS n FROM segments"))
    return row.n


async def whole(catalog, *rows):
    """Tell whether each has its objects, whether as rows or as a list."""
    found = await catalog.segments_of([row.id for row in rows])
    return [sorted(found[row.id], key=lambda ref: ref.index) == [*objects_of(row)] for row in rows]


def test_a_period_gets_a_partition_of_its_own_and_those_far_ahead_share_one_between_their_neighbours():
    assert span_for(7, (), None) == Span(7, 8)
    assert span_for(7 + NEAR, (), 7) == Span(7 + NEAR, 8 + NEAR)
    far = 100 * FAR + 4
    assert span_for(far, (), 7) == Span(100 * FAR, 101 * FAR)
    there = [Span(100 * FAR + 3, 100 * FAR + 4), Span(100 * FAR + 20, 100 * FAR + 21)]
    assert span_for(far, there, 7) == Span(far, 100 * FAR + 20)
    for period in range(far, far + 16):
        assert span_for(period, there, 7) == Span(far, 100 * FAR + 20)


async def test_calls_of_any_period_are_stored_whether_their_partition_was_made_ahead_or_not(catalog, another):
    await catalog.make_room([PERIOD, PERIOD + 1, PERIOD])
    assert await spans(catalog) == [(PERIOD, PERIOD + 1), (PERIOD + 1, PERIOD + 2)]
    await catalog.intend_shred(shred(due_through=PERIOD - 100))
    # As planned, of an archive, of a clock that is wrong, and kept for seven years, by two nodes at once.
    periods = (PERIOD, PERIOD - 50, PERIOD + 50, PERIOD + 2555, PERIOD + 2556)
    rows = await asyncio.gather(*[stored(each, period) for period in periods for each in (catalog, another)])
    assert await whole(catalog, *rows) == await whole(another, *rows) == [True] * 10
    assert len(await spans(catalog)) == 5


async def test_a_period_goes_once_everything_of_it_is_certified_for_good_and_its_lists_stay(catalog):
    rows = [await stored(catalog) for _ in range(3)]
    later = await stored(catalog, PERIOD + 1)
    await catalog.intend_shred(shred())
    await gone(catalog, *rows)
    assert await counted(catalog) == 12
    before = await pages(catalog)
    assert await catalog.drop_listed() == 1
    assert await pages(catalog) != before, "a backup reads again what it went from"
    assert (await counted(catalog), await spans(catalog)) == (3, [(PERIOD + 1, PERIOD + 2)])
    assert await whole(catalog, *rows, later) == [True] * 4
    assert await catalog.drop_listed() == 0


async def test_what_lives_keeps_its_rows_when_its_period_goes(catalog):
    held, going, *others = [await stored(catalog) for _ in range(4)]
    open_ended = await stored(catalog, ended=False)
    await catalog.intend_shred(shred(), spared=[held.id])
    await certify(catalog, [certificate(going)])
    await gone(catalog, *others)
    assert await catalog.drop_listed() == 1
    assert await counted(catalog) == 3 + 3 + 2
    assert await spans(catalog) == [(PERIOD, PERIOD + 1)]
    assert await whole(catalog, held, going, *others) == [True] * 4
    # A call without end goes on, and is finished, as if nothing had been moved.
    last = segment(open_ended, 2, attempt="a" * 32)
    await catalog.add_segments([last], stored_bytes=3000)
    await finish(catalog, open_ended, RecordingState.TRUNCATED, objects=[])
    assert (await catalog.segments(open_ended.id))[-1] == last
    assert await catalog.drop_listed() == 0
    # Once they may go too, all of the period goes.
    for row in (held, going, open_ended):
        await certify(catalog, [certificate(row)])
        await certify(catalog, [certificate(row, CertificateStatus.FINAL)])
    await catalog.drop_listed()
    assert await whole(catalog, held, going) == [True] * 2


async def test_a_period_of_which_much_is_held_stays_as_it_is(catalog, monkeypatch):
    monkeypatch.setattr(partitions, "MOVED", 2)
    rows = [await stored(catalog) for _ in range(5)]
    await catalog.intend_shred(shred())
    await gone(catalog, *rows[3:])
    assert await catalog.drop_listed() == 0
    assert await counted(catalog) == 15


async def test_what_got_its_rows_while_the_rest_was_looked_through_is_not_dropped_with_it(catalog, monkeypatch):
    row = await stored(catalog)
    late = recording()
    await catalog.create_recording(late)
    await catalog.intend_shred(shred(), spared=[late.id])
    await gone(catalog, row)
    look = partitions._unlisted

    async def slowly(database, span):
        found = await look(database, span)
        await catalog.add_segments([*objects_of(late)][1:], stored_bytes=2000)
        return found

    monkeypatch.setattr(partitions, "_unlisted", slowly)
    assert await catalog.drop_listed() == 1
    assert len(await catalog.segments(late.id)) == 2


async def test_two_sweepers_at_once_drop_each_period_once_and_lose_nothing(catalog, another):
    rows = [await stored(catalog, PERIOD - number) for number in range(4) for _ in range(2)]
    kept = rows[0]
    await catalog.intend_shred(shred(), spared=[kept.id])
    await gone(catalog, *rows[1:])
    dropped = await asyncio.gather(*[each.drop_listed() for each in (catalog, another) * 2])
    assert await spans(catalog) == [(PERIOD, PERIOD + 1)]
    assert sum(dropped) >= 4
    assert await counted(another) == 3
    assert await whole(another, *rows) == [True] * 8


@pytest.mark.parametrize("landed", [False, True])
async def test_a_crash_while_a_period_goes_leaves_all_of_it_or_none(catalog, another, landed):
    held, *others = [await stored(catalog) for _ in range(3)]
    await catalog.intend_shred(shred(), spared=[held.id])
    await gone(catalog, *others)

    class Killed(Exception):
        pass

    def strike(connection):
        if landed:
            connection.engine.dialect.do_commit(connection.connection)
        raise Killed

    with pytest.raises(Killed), at_commits(strike):
        await catalog.drop_listed()
    assert await counted(another) == (3 if landed else 9)
    assert await whole(another, held, *others) == [True] * 3
    assert await another.drop_listed() == (0 if landed else 1)
    assert await counted(another) == 3
    assert await whole(another, held, *others) == [True] * 3


async def test_a_period_that_somebody_reads_stays_until_the_next_time_and_nobody_waits_long(catalog, another):
    row = await stored(catalog)
    await catalog.intend_shred(shred())
    await gone(catalog, row)
    async with another.snapshot() as snapshot:
        assert [page async for page, _ in snapshot.rows("segments")]
        # A partition for new calls is made meanwhile, and calls are stored.
        newer = await asyncio.wait_for(stored(catalog, PERIOD + 7), 5)
        assert await asyncio.wait_for(catalog.drop_listed(), 5) == 0
    assert await catalog.drop_listed() == 1
    assert await whole(catalog, row, newer) == [True] * 2


async def test_a_dump_of_partitions_is_loaded_with_and_without_partitions(
    catalog, postgres, postgres_settings, tmp_path
):
    rows = [await stored(catalog, PERIOD + number) for number in range(3)]
    async with catalog.snapshot() as snapshot:
        sections = [section for name in snapshot.tables async for _, section in snapshot.rows(name)]
    assert not [section.table for section in sections if section.table.startswith("segments_")]

    async def stream():
        for section in sections:
            yield section

    settings = replace(postgres_settings, url=postgres.url(await postgres.new_database()))
    for place in (settings, tmp_path / "catalog.db"):
        loaded = open_catalog(place, clock=SteppingClock())
        await loaded.load(snapshot.schema_revision, stream(), settings={})
        assert await whole(loaded, *rows) == [True] * 3
        await loaded.close()
