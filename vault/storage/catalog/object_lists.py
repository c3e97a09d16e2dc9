"""Lists of deleted objects: one value in a recording's row replaces its rows of objects, with the final certificate."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from vault.format.segment import pack_objects, unpack_objects
from vault.ids import TenantId
from vault.model import RecordingState, SegmentRef
from vault.storage.catalog import rows
from vault.storage.catalog.database import Database
from vault.storage.catalog.tables import recordings, segments, sweep_floor
from vault.storage.catalog.writer import Transaction
from vault.threads import in_thread

_PACKED_AT_ONCE = 100
"""Recordings whose rows of objects are fetched together; a call of half an hour has 17 objects."""
_r, _s = recordings.c, segments.c
_KEYS: sa.BindParameter[Sequence[bytes]] = sa.bindparam("keys", expanding=True)
_LISTS = sa.select(_r.id, _r.objects, _r.tenant, _r.audio_period).where(_r.id.in_(_KEYS), _r.objects.is_not(None))
_IS_OVER = sa.and_(
    _r.state == RecordingState.SHREDDED.value, _r.certificate_id.is_not(None), _r.undeleted_since.is_(None)
)
_IS_UNLISTED = _r.objects.is_(None)
_UNLISTED = sa.select(_r.id, _r.audio_period).where(_r.id.in_(_KEYS), _IS_OVER, _IS_UNLISTED)
_OF_LISTED = sa.and_(
    _s.recording.in_(_KEYS), _s.audio_period.between(sa.bindparam("first_period"), sa.bindparam("last_period"))
)
_OBJECTS = (
    sa.select(_s.recording, _s.number, _s.attempt, _s.start, _s.length, _s.object_bytes, _s.sha256)
    .where(_OF_LISTED)
    .order_by(_s.recording, _s.number)
)
_OBJECT = itemgetter(1, 2, 3, 4, 5, 6)
"""What a list has of a row of `_OBJECTS`."""
_FLOOR = sa.select(sweep_floor.c.period)
_SET = sa.update(recordings).where(_r.id == sa.bindparam("key")).values(objects=sa.bindparam("new_objects"))
_DROP = sa.delete(segments).where(_OF_LISTED)
_NEXT = (
    sa.select(_r.id)
    .where(_IS_OVER, _IS_UNLISTED, _r.id > sa.bindparam("after"), sa.exists().where(_s.recording == _r.id))
    .order_by(_r.id)
    .limit(sa.bindparam("page"))
)


async def listed(database: Database, keys: Sequence[bytes]) -> Sequence[Sequence[SegmentRef]]:
    """Return the objects of each of these recordings that has a list."""
    found = await database.fetch(_LISTS, {"keys": [*keys]}) if keys else ()
    return [
        unpack_objects(rows.recording_id(row.id), TenantId(row.tenant), row.audio_period, row.objects) for row in found
    ]


async def fold(transaction: Transaction, keys: Sequence[bytes]) -> None:
    """Replace the rows of objects of recordings with a final certificate by one list each.

    Rows that a list cannot represent exactly stay. So do rows in partitions below the floor, which are dropped whole.
    """
    found = {row.id: row.audio_period for row in await transaction.fetch(_UNLISTED, {"keys": [*keys]})} if keys else {}
    if not found:
        return
    periods = {*found.values()}
    lists: list[dict[str, Any]] = []
    keys = [*found]
    for start in range(0, len(keys), _PACKED_AT_ONCE):
        share = {"keys": keys[start : start + _PACKED_AT_ONCE], **_stretch(periods)}
        lists += await in_thread(_packed, await transaction.fetch(_OBJECTS, share))
    if not lists:
        return
    await transaction.write(_SET, lists)
    if transaction.dialect == "postgresql":
        floor = (await transaction.fetch(_FLOOR))[0].period
        periods = {period for period in periods if floor is None or period > floor}
    if periods:
        await transaction.write(_DROP, {"keys": [each["key"] for each in lists], **_stretch(periods)})


def _packed(objects: Sequence[sa.Row[Any]]) -> list[dict[str, Any]]:
    """Return the lists that can be made of these rows of objects, which come recording by recording."""
    made = ((key, pack_objects([*map(_OBJECT, of_one)])) for key, of_one in groupby(objects, key=itemgetter(0)))
    return [{"key": key, "new_objects": packed} for key, packed in made if packed is not None]


def _stretch(periods: Collection[int]) -> Mapping[str, int]:
    return {"first_period": min(periods), "last_period": max(periods)}


async def next_unlisted(database: Database, after: bytes, limit: int) -> Sequence[bytes]:
    """Return recordings after `after`, in order, that have a final certificate and still rows of objects."""
    return [row.id for row in await database.fetch(_NEXT, {"after": after, "page": limit})]
