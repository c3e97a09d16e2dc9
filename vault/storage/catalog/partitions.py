"""Partitions of the rows of objects on PostgreSQL: one for each period of audio, dropped once the period is certified.

There is no default partition: with one, a new partition would have to wait for all readers of the table. A partition is
made ahead, or else in the transaction that writes its first row, under the writer's lock.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from vault.format.names import MAX_PERIOD
from vault.storage.catalog import tags
from vault.storage.catalog.database import Database
from vault.storage.catalog.tables import (
    IS_FINISHED,
    IS_OPEN,
    IS_UNDELETED,
    recordings,
    segments,
    sweep_floor,
)
from vault.storage.catalog.writer import Transaction, is_locked, translate

NEAR: Final = 400
"""How many periods above the floor get a partition each. A statement without a period locks every partition."""
FAR: Final = 30
"""How many later periods share a partition."""
MOVED: Final = 2_000
"""How many recordings of a period may be moved into a new partition so that the old one can be dropped."""
_PATIENCE: Final = "250ms"
"""How long a drop waits for readers of its partition; new readers wait behind it meanwhile."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The periods of a partition, from `low` to below `high`."""

    low: int
    high: int

    @property
    def name(self) -> str:
        """The partition's name."""
        return f"segments_{self.low}_{self.high}"


def span_for(period: int, there: Iterable[Span], floor: int | None) -> Span:
    """Return the partition of a period that has none: its own, or its share of those between their neighbours."""
    low, high = period, period + 1
    if floor is not None and period - floor > NEAR:
        low = period - period % FAR
        high = low + FAR
    for span in there:
        if span.high <= period:
            low = max(low, span.high)
        else:
            high = min(high, span.low)
    return Span(low, high)


_r = recordings.c
_FLOOR = sa.select(sweep_floor.c.period)
_STRETCH = sa.select(sa.func.min(_r.audio_period).label("first"), sa.func.max(_r.audio_period).label("last")).where(
    _r.id.in_(sa.bindparam("keys", expanding=True))
)
_SPANS = sa.text(
    "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = to_regclass(:parent) AND c.relname LIKE 'segments\\_%'"
)
_PERIODS: tuple[sa.BindParameter[int], sa.BindParameter[int]] = (sa.bindparam("low"), sa.bindparam("below"))
_WITHIN = _r.audio_period.between(*_PERIODS)
_LIVE = sa.union(*(sa.select(_r.id).where(_WITHIN, which) for which in (IS_FINISHED, IS_OPEN, IS_UNDELETED))).limit(
    MOVED + 1
)
_OF_SPAN = sa.select(segments.c.recording).where(segments.c.audio_period.between(*_PERIODS))
_HAS_LIST = sa.exists().where(_r.id == segments.c.recording, _r.objects.is_not(None))
_WITHOUT_LIST = _OF_SPAN.distinct().where(~_HAS_LIST).limit(MOVED + 1)
_WITH_LIST = _OF_SPAN.where(_HAS_LIST).limit(1)


def spans(connection: sa.Connection, of: str = "segments") -> Sequence[Span]:
    """Return the partitions in order of period; none on a database without partitions."""
    if connection.dialect.name != "postgresql":
        return []
    names = connection.execute(_SPANS, {"parent": of}).scalars()
    return sorted(Span(*map(int, name.split("_")[1:])) for name in names)


def make(connection: sa.Connection, periods: Iterable[int], *, of: str = "segments") -> set[int]:
    """Make the missing partitions of these periods; return the periods that had one or need none."""
    if connection.dialect.name != "postgresql":
        return set(periods)
    there = [*spans(connection, of)]
    floor = connection.execute(_FLOOR).scalar()
    had = set()
    for period in sorted(set(periods)):
        if any(span.low <= period < span.high for span in there):
            had.add(period)
            continue
        span = span_for(period, there, floor)
        _attach(connection, span, span.name, of)
        there.append(span)
    return had


def _attach(connection: sa.Connection, span: Span, name: str, of: str = "segments") -> None:
    """Make an empty table a partition; unlike CREATE TABLE ... PARTITION OF, this does not wait for readers."""
    connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE {of})")
    connection.exec_driver_sql(
        f"ALTER TABLE {of} ATTACH PARTITION {name} FOR VALUES FROM ({span.low}) TO ({span.high})"
    )


async def ensure(transaction: Transaction, periods: Collection[int]) -> None:
    """Make the missing partitions of these periods; changes nothing on a database without partitions."""
    lacking = set(periods) - transaction.periods
    if lacking:
        # Only partitions that existed before are remembered: this transaction may still be rolled back.
        transaction.periods |= await transaction.run(lambda connection: make(connection, lacking))


async def stretch(database: Database, keys: Sequence[bytes]) -> Mapping[str, int]:
    """Return the first and the last period of these recordings, to look into their partitions only."""
    if database.engine.dialect.name != "postgresql":
        return {"first_period": 0, "last_period": MAX_PERIOD}
    found = (await database.fetch(_STRETCH, {"keys": [*keys]}))[0]
    return {"first_period": found.first or 0, "last_period": found.last or 0}


async def release(database: Database) -> int:
    """Drop the rows of objects that lists replace, one partition at a time; return how many partitions were dropped.

    Only periods below the floor are dropped. Rows of recordings without a list stay: if they are few, they are moved
    into a new partition of the period, else the period stays as it is. A partition that is being read stays until the
    next time.
    """
    if database.engine.dialect.name != "postgresql":
        return 0
    gone = 0
    floor = (await database.fetch(_FLOOR))[0].period
    for span in await database.inspect(spans):
        if floor is None or span.high > floor + 1:
            break
        rest = await _unlisted(database, span)
        if rest is None:
            continue
        try:
            async with database.patient() as engine, engine.begin() as connection:
                gone += await connection.run_sync(_clear, span, rest)
        except Exception as error:
            if not is_locked(error):
                raise translate(error) from error
            logger.info("rows of certified objects are not dropped yet", extra={"fields": {"period": span.low}})
    return gone


async def _unlisted(database: Database, span: Span) -> Collection[bytes] | None:
    """Return the recordings of a partition that have no list; None if they are all of it, or too many to move."""
    # By period, not by the partition's name: another node may drop the partition now.
    periods = {"low": span.low, "below": span.high - 1}
    rest = {row.recording for row in await database.fetch(_WITHOUT_LIST, periods)}
    if len(rest) > MOVED or (rest and not await database.fetch(_WITH_LIST, periods)):
        return None
    return rest


def _clear(connection: sa.Connection, span: Span, rest: Collection[bytes]) -> int:
    """Drop the partition under the writer's lock; move the rows of `rest` and of live recordings into a new one."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_PATIENCE}'")
    if span not in spans(connection):
        return 0  # another node was faster
    # A recording that got rows after `rest` was read is not shredded, or its objects are not certified absent.
    live = connection.execute(_LIVE, {"low": span.low, "below": span.high - 1}).scalars()
    kept = {*rest, *live}
    if len(kept) > MOVED:
        return 0
    moved = f"{span.name}_moved"
    if kept:
        connection.exec_driver_sql(f"CREATE TABLE {moved} (LIKE segments)")
        chosen = sa.text(f"INSERT INTO {moved} SELECT * FROM {span.name} WHERE recording IN :kept")  # noqa: S608 - a name of ours
        connection.execute(chosen.bindparams(sa.bindparam("kept", expanding=True)), {"kept": sorted(kept)})
    tags.touch(connection, "segments", span.name)
    connection.exec_driver_sql(f"DROP TABLE {span.name}")
    if kept:
        connection.exec_driver_sql(f"ALTER TABLE {moved} RENAME TO {span.name}")
        connection.exec_driver_sql(
            f"ALTER TABLE segments ATTACH PARTITION {span.name} FOR VALUES FROM ({span.low}) TO ({span.high})"
        )
    return 1
