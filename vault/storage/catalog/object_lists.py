"""Lists of deleted objects: a row a recording for a row an object, in the transaction of the final certificate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import sqlalchemy as sa

from vault.format.segment import pack_objects, unpack_objects
from vault.ids import TenantId
from vault.model import RecordingState, SegmentRef
from vault.storage.catalog import rows
from vault.storage.catalog.database import Database
from vault.storage.catalog.tables import object_lists, recordings, segments
from vault.storage.catalog.writer import Transaction

_r, _l, _s = recordings.c, object_lists.c, segments.c
_KEYS: sa.BindParameter[Sequence[bytes]] = sa.bindparam("keys", expanding=True)
_LISTS = (
    sa.select(_l.recording, _l.objects, _r.tenant, _r.audio_period)
    .join(recordings, _r.id == _l.recording)
    .where(_l.recording.in_(_KEYS))
)
_IS_OVER = sa.and_(
    _r.state == RecordingState.SHREDDED.value, _r.certificate_id.is_not(None), _r.undeleted_since.is_(None)
)
_UNLISTED = (
    sa.select(segments, _r.tenant, _r.audio_period)
    .join(recordings, _r.id == _s.recording)
    .where(_s.recording.in_(_KEYS), _IS_OVER, ~sa.exists().where(_l.recording == _s.recording))
    .order_by(_s.recording, _s.number)
)
_INSERT = sa.insert(object_lists)
_DROP = sa.delete(segments).where(_s.recording.in_(_KEYS))
_NEXT = (
    sa.select(_r.id)
    .where(_IS_OVER, _r.id > sa.bindparam("after"), sa.exists().where(_s.recording == _r.id))
    .order_by(_r.id)
    .limit(sa.bindparam("page"))
)


async def listed(database: Database, keys: Sequence[bytes]) -> Sequence[Sequence[SegmentRef]]:
    """Return the objects of each of these recordings that has a list."""
    found = await database.fetch(_LISTS, {"keys": [*keys]}) if keys else ()
    return [
        unpack_objects(rows.recording_id(row.recording), TenantId(row.tenant), row.audio_period, row.objects)
        for row in found
    ]


async def fold(transaction: Transaction, keys: Sequence[bytes]) -> None:
    """Replace the object rows of those of these recordings that are certified for good by a list each.

    Rows that a list would not give back as they are stay.
    """
    found = await transaction.fetch(_UNLISTED, {"keys": [*keys]}) if keys else ()
    lists = []
    for key, of_one in groupby(found, key=lambda row: row.recording):
        objects = [*of_one]
        place = rows.recording_id(key), TenantId(objects[0].tenant), objects[0].audio_period
        packed = pack_objects(*place, [rows.to_segment(row) for row in objects])
        if packed is not None:
            lists.append({"recording": key, "objects": packed})
    if lists:
        await transaction.write(_INSERT, lists)
        await transaction.write(_DROP, {"keys": [each["recording"] for each in lists]})


async def next_unlisted(database: Database, after: bytes, limit: int) -> Sequence[bytes]:
    """Return recordings behind `after`, in order, that are certified for good and still have a row an object."""
    return [row.id for row in await database.fetch(_NEXT, {"after": after, "page": limit})]
