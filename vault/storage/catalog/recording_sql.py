"""The SQL of recordings: prepared statements with named parameters, the page of a query, and exact counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from vault.ids import TenantId
from vault.model import HoldState, Part, RecordingState
from vault.ports.recordings import RecordingQuery
from vault.storage.catalog import rows
from vault.storage.catalog.database import Database
from vault.storage.catalog.tables import (
    HAS_METADATA,
    IS_AHEAD,
    IS_FINISHED,
    IS_LIVE,
    IS_MISDECLARED,
    IS_OPEN,
    IS_UNCONFIRMED,
    IS_UNDELETED,
    NOT_CHANGED,
    ROW,
    hold_recordings,
    holds,
    leaf_counters,
    live_counts,
    measured_days,
    recording_counts,
    recording_notes,
    recordings,
    segments,
    sweep_floor,
)
from vault.storage.catalog.writer import Transaction

# -- prepared statements ------------------------------------------------------------------------------------------

_r, _k, _l, _m = recordings.c, recording_counts.c, live_counts.c, measured_days.c
_MEDIA = ("container", "codec", "rate", "channels", "channel_map")
BY_ID = sa.select(*ROW).where(_r.id == sa.bindparam("key"))
BY_ID_IN = BY_ID.where(_r.tenant == sa.bindparam("in_tenant"))
_PLACE = ("period", "generation", "leaf")
_KEYS = ("id", "tenant", "state", "started_at", *(f"{part}_{of}" for part in ("audio", "metadata") for of in _PLACE))
KEYS_OF = sa.select(*(_r[name] for name in _KEYS)).where(_r.id.in_(sa.bindparam("keys", expanding=True)))
# The tenant is wrapped: a database without statistics would otherwise read all that the tenant has for each page.
KEYS_OF_IN = KEYS_OF.where(sa.func.coalesce(_r.tenant, "") == sa.bindparam("in_tenant"))
PLACE = sa.select(_r.started_at, _r.retain_until, _r.audio_period).where(_r.id == sa.bindparam("key"))
"""The place of a row in each of the orders of pages."""
PLACE_IN = PLACE.where(_r.tenant == sa.bindparam("in_tenant"))
BY_CALL = sa.select(*ROW).where(
    _r.tenant == sa.bindparam("tenant_id"), _r.call_token.in_(sa.bindparam("tokens", expanding=True))
)
BY_OBJECT = (
    sa.select(*ROW)
    .where(_r.tenant == sa.bindparam("tenant_id"), _r.object_token.in_(sa.bindparam("tokens", expanding=True)))
    .order_by(_r.id.desc())
    .limit(sa.bindparam("most"))
)
OPEN = sa.select(*ROW).where(IS_OPEN).order_by(_r.started_at, _r.id)
_IN_TENANT = _r.tenant == sa.bindparam("tenant_id")


def _further(order: Sequence[sa.ColumnElement[Any]]) -> sa.ColumnElement[bool]:
    """Return the condition that a row comes after the one of the parameters `after_place` and `after`."""
    after: sa.BindParameter[bytes] = sa.bindparam("after")
    if len(order) == 1:
        return order[0] > after
    return sa.tuple_(*order) > sa.tuple_(sa.bindparam("after_place", type_=sa.BigInteger), after)


_DUE: Mapping[tuple[Part, bool], Sequence[sa.ColumnElement[bool]]] = {
    (Part.AUDIO, False): (IS_FINISHED, _r.audio_period <= sa.bindparam("through"), NOT_CHANGED),
    (Part.AUDIO, True): (IS_FINISHED, _IN_TENANT, _r.audio_period <= sa.bindparam("through")),
    (Part.METADATA, True): (
        HAS_METADATA,
        _IN_TENANT,
        _r.state != RecordingState.OPEN.value,
        _r.metadata_period <= sa.bindparam("through"),
        # Facts without a certificate were lost unnoticed: nobody saw their key go, so nobody certifies that.
        sa.func.length(_r.sealed_facts) > 0,
    ),
}
"""The conditions of due rows, by part and whether of one tenant; tenants' metadata periods differ."""
_IN_ORDER: Mapping[tuple[Part, bool], Sequence[sa.ColumnElement[Any]]] = {
    (Part.AUDIO, False): (_r.audio_period, _r.id),
    (Part.AUDIO, True): (_r.retain_until, _r.id),
    (Part.METADATA, True): (_r.id,),
}
DUE = {
    of: sa.select(*ROW).where(*where, _further(_IN_ORDER[of])).order_by(*_IN_ORDER[of]).limit(sa.bindparam("page"))
    for of, where in _DUE.items()
}
COUNT_DUE = {of: sa.select(sa.func.count()).select_from(recordings).where(*where) for of, where in _DUE.items()}
CHANGED = (
    sa.select(*ROW)
    .where(
        IS_FINISHED,
        _IN_TENANT,
        _r.created_at <= sa.bindparam("through"),
        _r.started_at <= sa.bindparam("started_to"),
        _further((_r.started_at, _r.id)),
    )
    .order_by(_r.started_at, _r.id)
    .limit(sa.bindparam("page"))
)
UNDELETED = (
    sa.select(_r.id, _r.tenant, _r.audio_period, _r.certificate_id)
    .where(IS_UNDELETED, _r.id > sa.bindparam("after"))
    .order_by(_r.id)
    .limit(sa.bindparam("page"))
)
UNCONFIRMED = (
    sa.select(*ROW).where(IS_UNCONFIRMED, _r.id > sa.bindparam("after")).order_by(_r.id).limit(sa.bindparam("page"))
)
COUNT_UNDELETED = {
    of_tenant: sa.union_all(
        *(
            sa.select(sa.func.count())
            .select_from(recordings)
            .where(waits, _r.tenant == sa.bindparam("in_tenant") if of_tenant else sa.true())
            for waits in (IS_UNDELETED, sa.and_(IS_UNCONFIRMED, ~IS_UNDELETED))
        )
    )
    for of_tenant in (False, True)
}
"""Two counts, by whether they are of one tenant."""
# One statement, so one snapshot: a row that leaves its day meanwhile is counted on both sides or on none.
COUNT_LIVE = sa.select(
    sa.select(sa.func.coalesce(sa.func.sum(_l.n), 0))
    .where(_l.tenant == sa.bindparam("tenant_id"), _l.day < sa.bindparam("day"))
    .scalar_subquery()
    + sa.select(sa.func.count())
    .select_from(recordings)
    .where(_IN_TENANT, _r.created_at.between(sa.bindparam("day_start"), sa.bindparam("through")), IS_LIVE)
    .scalar_subquery()
)
COUNT = sa.select(_k.state, sa.func.sum(_k.n).label("n")).group_by(_k.state)
FOUND = sa.select(_r.id).where(_r.id.in_(sa.bindparam("keys", expanding=True)))
# The same SQL in two dialects: the unique index of the database decides which call tokens are taken.
INSERT_UNLESS_TAKEN: Mapping[str, sa.Executable] = {
    "sqlite": sqlite.insert(recordings).on_conflict_do_nothing(index_elements=["tenant", "call_token"]),
    "postgresql": postgresql.insert(recordings).on_conflict_do_nothing(index_elements=["tenant", "call_token"]),
}
FINISH = (
    sa.update(recordings)
    .where(_r.id == sa.bindparam("key"))
    .values(
        state=sa.bindparam("new_state"),
        state_reason=sa.bindparam("new_reason"),
        ended_at=sa.bindparam("new_end"),
        stored_bytes=sa.bindparam("new_bytes"),
        lasted_ms=sa.bindparam("new_lasted"),
    )
)
FREE_CALL_KEY = sa.update(recordings).where(_r.id == sa.bindparam("key")).values(call_token=sa.bindparam("new_token"))
SET_BYTES = sa.update(recordings).where(_r.id == sa.bindparam("key")).values(stored_bytes=sa.bindparam("new_bytes"))
SET_MEDIA = (
    sa.update(recordings)
    .where(_r.id == sa.bindparam("key"), IS_OPEN)
    .values(**{name: sa.bindparam(f"new_{name}") for name in _MEDIA})
)
SET_HEARD = (
    sa.update(recordings)
    .where(_r.id == sa.bindparam("key"), IS_OPEN)
    .values(**{name: sa.bindparam(f"new_{name}") for name in (*_MEDIA, "content", "misdeclared_by")})
)
MISDECLARED = (
    sa.select(_r.misdeclared_by, _r.tenant, _r.container, _r.content, sa.func.count().label("found"))
    .where(IS_MISDECLARED, _r.created_at >= sa.bindparam("since"))
    .group_by(_r.misdeclared_by, _r.tenant, _r.container, _r.content)
    .order_by(_r.tenant, _r.misdeclared_by, _r.container, _r.content)
)
TAKEN = sa.select(_r.tenant, _r.call_token).where(_r.call_token.in_(sa.bindparam("tokens", expanding=True)))
STATES = sa.select(_r.id, _r.tenant, _r.state, _r.audio_period, _r.started_at).where(
    _r.id.in_(sa.bindparam("keys", expanding=True))
)

# One round trip for both: the floors, and which of these rows existed before.
FLOOR_AND_FOUND = sa.union_all(
    sa.select(sweep_floor.c.period, sweep_floor.c.generation, sa.null().label("id")),
    sa.select(sa.null(), sa.null(), _r.id).where(_r.id.in_(sa.bindparam("keys", expanding=True))),
)

# With the periods of these recordings, the statement reads only their partitions. With a list of periods instead of a
# stretch PostgreSQL 18 goes through the index of each partition once for every period: that takes 25 times as long.
SEGMENTS_OF = (
    sa.select(segments, _r.tenant)
    .join(recordings, _r.id == segments.c.recording)
    .where(
        segments.c.recording.in_(sa.bindparam("keys", expanding=True)),
        segments.c.audio_period.between(sa.bindparam("first_period"), sa.bindparam("last_period")),
    )
    .order_by(segments.c.recording, segments.c.number)
)
PLACES_OF = {
    dialect: sa.select(
        segments.c.recording,
        segments.c.audio_period,
        _r.tenant,
        sa.func.aggregate_strings(sa.cast(segments.c.number, sa.Text).concat(":").concat(attempt), ","),
    )
    .join(recordings, _r.id == segments.c.recording)
    .where(
        segments.c.recording.in_(sa.bindparam("keys", expanding=True)),
        segments.c.audio_period.between(sa.bindparam("first_period"), sa.bindparam("last_period")),
    )
    .group_by(segments.c.recording, segments.c.audio_period, _r.tenant)
    for dialect, attempt in (
        ("sqlite", sa.func.lower(sa.func.hex(segments.c.attempt))),
        ("postgresql", sa.func.encode(segments.c.attempt, "hex")),
    )
}
"""Where the objects of each recording lie, by dialect: `number:attempt` of all of them in one text, by commas."""
DROP_SEGMENT = sa.delete(segments).where(
    segments.c.recording == sa.bindparam("key"),
    segments.c.number == sa.bindparam("at"),
    segments.c.audio_period == sa.bindparam("within"),
)
INSERT_SEGMENT = sa.insert(segments)
INSERT_NOTES = sa.insert(recording_notes)
DROP_NOTES = sa.delete(recording_notes).where(recording_notes.c.recording == sa.bindparam("key"))

COUNTER = (
    leaf_counters.c.tenant == sa.bindparam("in_tenant"),
    leaf_counters.c.part == sa.bindparam("in_part"),
    leaf_counters.c.period == sa.bindparam("in_period"),
    leaf_counters.c.generation == sa.bindparam("in_generation"),
)
NEXT_LEAF = sa.select(leaf_counters.c.next_leaf).where(*COUNTER)
GENERATION_FLOOR = sa.select(sweep_floor.c.generation)
CLOSE_GENERATIONS = (
    sa.update(sweep_floor)
    .where(sa.or_(sweep_floor.c.generation.is_(None), sweep_floor.c.generation < sa.bindparam("new_generation")))
    .values(generation=sa.bindparam("new_generation"))
)
RESERVED = sa.select(leaf_counters).where(
    leaf_counters.c.generation >= sa.bindparam("since"), leaf_counters.c.generation < sa.bindparam("below")
)
MOVE_COUNTER = sa.update(leaf_counters).where(*COUNTER).values(next_leaf=sa.bindparam("new_next"))
INSERT_COUNTER = sa.insert(leaf_counters)

IN_FORCE = tuple(state.value for state in HoldState if state is not HoldState.RELEASED)
HELD_BY = hold_recordings.join(holds, holds.c.id == hold_recordings.c.hold)
HELD = (
    sa.select(hold_recordings.c.recording)
    .select_from(HELD_BY)
    .where(hold_recordings.c.too_late.is_(sa.false()), holds.c.state.in_(IN_FORCE))
)
_IS_HELD = HELD.where(hold_recordings.c.recording == _r.id).correlate(recordings).exists()
COUNT_HELD = sa.select(sa.func.coalesce(sa.func.sum(holds.c.held), 0).label("n")).where(holds.c.state.in_(IN_FORCE))
"""Of holds in force; a recording under two of them counts twice."""
COUNT_HELD_OF = COUNT_HELD.where(holds.c.tenant == sa.bindparam("tenant_id"))
LOOKED_THROUGH: Final = 10_000
"""So many rows of a list are looked through in 10 ms; so many held ones are found by their holds in 20 ms."""
_IN_STATE = _k.state == sa.bindparam("in_state")
COUNT_IN_STATE = sa.select(sa.func.coalesce(sa.func.sum(_k.n), 0).label("n")).where(_IN_STATE)
COUNT_IN_STATE_OF = COUNT_IN_STATE.where(_k.tenant == sa.bindparam("tenant_id"))
COUNT_KEPT = sa.select(
    sa.select(sa.func.coalesce(sa.func.sum(_k.n), 0))
    .where(_k.tenant == sa.bindparam("tenant_id"), _k.state != RecordingState.SHREDDED.value)
    .scalar_subquery()
    .label("live"),
    sa.select(sa.func.count())
    .select_from(recordings)
    .where(
        sa.func.coalesce(_r.tenant, "") == sa.bindparam("tenant_id"),
        _r.state != RecordingState.SHREDDED.value,
        _r.id.in_(HELD.where(holds.c.tenant == sa.bindparam("tenant_id"))),
    )
    .scalar_subquery()
    .label("held"),
)
# A released hold protects until its grace is over, so its recordings are not late before that.
OLDEST_DUE = (
    sa.select(_r.retain_until)
    .where(
        IS_FINISHED,
        _r.retain_until <= sa.bindparam("now"),
        NOT_CHANGED,
        sa.not_(
            sa.exists()
            .select_from(HELD_BY)
            .where(
                hold_recordings.c.recording == _r.id,
                hold_recordings.c.too_late.is_(sa.false()),
                sa.or_(holds.c.state.in_(IN_FORCE), holds.c.grace_until > sa.bindparam("now")),
            )
        ),
    )
    .order_by(_r.retain_until)
    .limit(1)
)
OLDEST_DUE_OF = OLDEST_DUE.where(_IN_TENANT)


def _some_due(condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Return the statement of a page of what is due and meets `condition`, whose columns the index has.

    What few rows meet comes first: SQLite asks in this order, and about every due row.
    """
    order = _IN_ORDER[Part.AUDIO, False]
    found = sa.select(_r.id).where(condition, *_DUE[Part.AUDIO, False], _further(order)).order_by(*order)
    return sa.select(*ROW).where(_r.id.in_(found.limit(sa.bindparam("page")))).order_by(*order)


DOUBTFUL = _some_due(
    sa.or_(
        _r.retain_until > sa.bindparam("now"),
        sa.exists()
        .select_from(HELD_BY)
        .where(
            hold_recordings.c.recording == _r.id,
            hold_recordings.c.too_late.is_(sa.false()),
            holds.c.state.in_(IN_FORCE),
        ),
    )
)
_other = recordings.alias("other_recordings")
EXCEPTIONAL = _some_due(
    sa.or_(
        _r.retain_until > sa.bindparam("now"),
        _r.id.in_(sa.select(_other.c.id).where(_other.c.state == RecordingState.SHREDDING.value)),
        _r.tenant.in_(sa.bindparam("tenants", expanding=True)),
        sa.exists().where(hold_recordings.c.recording == _r.id),
    )
)
# A sum, else a server sorts all rows of a period to group them, because the index has them by period.
_PERIOD = _r.audio_period + 0
COUNT_COHORTS = (
    sa.select(_r.tenant, _PERIOD.label("audio_period"), _r.audio_generation, sa.func.count().label("n"))
    .where(*_DUE[Part.AUDIO, False])
    .group_by(_r.tenant, _PERIOD, _r.audio_generation)
)


# -- one page of a query ------------------------------------------------------------------------------------------

_Number: TypeAlias = sa.ColumnElement[int]
_TOKENS_APART = 400
"""SQLite takes at most 500 selects in one statement."""


def page(
    query: RecordingQuery,
    last: int | None,
    *,
    looked_through: int | None = None,
    within: tuple[int, int] | None = None,
    few: bool = False,
) -> sa.Select[Any]:
    """Return the statement of one page; `last` is the place of its `before` in the order.

    Held rows are found by their holds. With `looked_through`, for lists by start alone, only those are found that are
    among so many of the next rows, which is quicker where much is held. With `within` only calls that began in this
    stretch of time are. Of a state that `few` rows are in, all rows are read and sorted.
    """
    order: Sequence[sa.ColumnElement[Any]] = (_r.started_at.desc(), _r.id.desc())
    if query.by_expiry:
        order = (_goes(few), _r.id)
    by_holds = query.under is not None or (query.held is True and not few and not _few(query))
    filters = [*_filters(query, by_holds=by_holds, in_order=looked_through is not None, few=few)]
    where = [*filters, *_bounds(query, last, within=within, few=few)]
    page = max(query.limit, 0)
    whole = sa.select(*ROW).order_by(*order).limit(page)
    if query.call_tokens is not None:
        # A call token is unique within a tenant, so few rows are left for the other conditions.
        found_by = sa.select(_r.id).where(_r.call_token.in_(query.call_tokens))
        where += [sa.or_(*(column.in_(tokens) for column, tokens in columns)) for columns in _parties(query)]
        return whole.where(
            _r.id.in_(found_by if query.tenant is None else found_by.where(_r.tenant == query.tenant)), *where
        )
    if carried := _parties(query):
        # The first list finds the rows, at most a page for each token; the other lists filter these rows.
        where += [sa.or_(*(column.in_(tokens) for column, tokens in columns)) for columns in carried[1:]]
        found = [
            sa.select(_r.id).where(carries, *where).order_by(*order).limit(page).subquery()
            for carries in _carry_one(carried[0])
        ]
        return whole.where(_r.id.in_(sa.union_all(*(sa.select(each.c.id) for each in found))) if found else sa.false())
    if by_holds and looked_through is not None:
        # The start of the last of these rows is the one bound on its side, as in `_bounds`.
        end = _beyond(where, order, looked_through).scalar_subquery()
        before = 0 if query.started_from is None else rows.micros(query.started_from)
        where = [*filters, *_bounds(replace(query, started_from=None), last)]
        return whole.where(_IS_HELD, _r.started_at >= sa.func.coalesce(end, before), *where)
    if by_holds:
        return whole.where(_r.id.in_(_held_by(query)), *where)
    if query.measures and not query.by_expiry and not query.ahead and not few:
        # The index has both numbers, so a row is read only if it matches.
        return whole.where(_r.id.in_(sa.select(_r.id).where(*where).order_by(*order).limit(page)))
    return whole.where(*where)


def beyond(query: RecordingQuery, last: int | None, looked_through: int) -> sa.Select[Any]:
    """Return the statement that finds a row if others follow the ones that `page` looks through."""
    where = [*_filters(query, by_holds=True, in_order=True, few=False), *_bounds(query, last)]
    return _beyond(where, (_r.started_at.desc(), _r.id.desc()), looked_through)


def _beyond(
    where: Sequence[sa.ColumnElement[bool]], order: Sequence[sa.ColumnElement[Any]], looked_through: int
) -> sa.Select[Any]:
    return sa.select(_r.started_at).where(*where).order_by(*order).offset(looked_through).limit(1)


def _goes(few: bool) -> sa.ColumnElement[int]:  # noqa: FBT001 - which of two columns
    """Return when rows go; wrapped where another index is to find them."""
    return sa.func.coalesce(_r.retain_until, 0) if few else _r.retain_until


def _bounds(
    query: RecordingQuery, last: int | None, *, within: tuple[int, int] | None = None, few: bool = False
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the bounds of the page in its order: on each side only the narrower, because an index uses one."""
    started_from = None if query.started_from is None else rows.micros(query.started_from)
    started_to = None if query.started_to is None else rows.micros(query.started_to)
    if within is not None:
        started_from = within[0] if started_from is None else max(started_from, within[0])
        started_to = within[1] if started_to is None else min(started_to, within[1])
    if started_from is not None:
        yield _r.started_at >= started_from
    if query.expires_from is not None:
        yield _goes(few) >= rows.micros(query.expires_from)
    if query.expires_to is not None:
        yield _goes(few) < rows.micros(query.expires_to)
    if started_to is not None and (last is None or query.by_expiry or last >= started_to):
        yield _r.started_at < started_to
    elif query.before is not None and last is not None and not query.by_expiry:
        yield sa.tuple_(_r.started_at, _r.id) < sa.tuple_(last, sa.literal(rows.key(query.before)))
    if query.before is not None and last is not None and query.by_expiry:
        yield sa.tuple_(_goes(few), _r.id) > sa.tuple_(last, sa.literal(rows.key(query.before)))


def _held_by(query: RecordingQuery) -> sa.Select[Any]:
    """Select the recordings of the holds that a query asks for, or of those in force."""
    if query.under is not None:
        return sa.select(hold_recordings.c.recording).where(hold_recordings.c.hold.in_(query.under))
    return HELD if query.tenant is None else HELD.where(holds.c.tenant == query.tenant)


def _few(query: RecordingQuery) -> bool:
    """Tell whether something else than holds finds a few rows."""
    return query.call_tokens is not None or bool(_parties(query))


def _filters(query: RecordingQuery, *, by_holds: bool, in_order: bool, few: bool) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions that a row must meet besides the bounds.

    One index finds the rows in their order. A column outside that index is wrapped: a database without statistics would
    otherwise choose an index that finds more rows, or finds them in no order.
    """
    other = _few(query) or (query.ahead and not few) or (by_holds and not in_order)
    if query.by_expiry:
        yield IS_FINISHED
    if query.tenant is not None:
        yield (sa.func.coalesce(_r.tenant, "") if other else _r.tenant) == query.tenant
    if query.state is not None:
        other = other or ((query.measures or query.by_expiry) and not few)
        yield (sa.func.coalesce(_r.state, "") if other else _r.state) == query.state.value
    if query.held is not None and (query.under is not None or not by_holds):
        yield _IS_HELD if query.held else ~_IS_HELD
    if query.metadata_of is not None:
        yield sa.tuple_(_r.metadata_period, _r.metadata_generation).in_(query.metadata_of)
    if query.ahead is not None:
        yield IS_AHEAD if query.ahead else _r.started_at <= _r.created_at
    if query.measures:
        yield _r.ended_at.is_not(None)
        size: _Number = _r.stored_bytes
        lasted: _Number = _r.lasted_ms
        if query.ahead or few:  # another index has few rows, so these are wrapped
            size, lasted = size + 0, lasted + 0
        yield from _measures(query, (size, size), (lasted, lasted))


def _measures(
    query: RecordingQuery, size: tuple[_Number, _Number], lasted: tuple[_Number, _Number]
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions that the least number, or the first, and the greatest may meet."""
    if query.min_bytes is not None:
        yield size[1] >= query.min_bytes
    if query.max_bytes is not None:
        yield size[0] <= query.max_bytes
    if query.min_duration is not None:
        yield lasted[1] >= rows.whole_ms(query.min_duration)
    if query.max_duration is not None:
        yield lasted[0] <= rows.whole_ms(query.max_duration)


def measured(query: RecordingQuery, last: int | None) -> sa.Select[Any]:
    """Return the statement of the days, newest first, on which calls of these sizes and durations may have begun."""
    where = [_m.tenant == query.tenant]
    if query.started_from is not None:
        where.append(_m.day >= rows.micros(query.started_from) // rows.DAY)
    if query.started_to is not None:
        where.append(_m.day <= rows.micros(query.started_to) // rows.DAY)
    if last is not None and not query.by_expiry:
        where.append(_m.day <= last // rows.DAY)
    where += _measures(query, (_m.least_bytes, _m.most_bytes), (_m.least_ms, _m.most_ms))
    return sa.select(_m.day).where(*where).order_by(_m.day.desc())


def stretches(days: Sequence[int], most: int) -> Sequence[tuple[int, int]]:
    """Return up to `most` stretches of time, each up to but not with its end, that have all of `days`.

    The days are in descending order, and so are the stretches. What is left out is the widest gaps between them.
    """
    if not days:
        return []
    gaps = [place for place in range(1, len(days)) if days[place - 1] - days[place] > 1]
    widest = sorted(gaps, key=lambda place: days[place] - days[place - 1])[: most - 1]
    begins = [0, *sorted(widest)]
    ends = [*begins[1:], len(days)]
    return [(days[end - 1] * rows.DAY, (days[begin] + 1) * rows.DAY) for begin, end in zip(begins, ends, strict=True)]


def _parties(query: RecordingQuery) -> list[list[tuple[Any, Sequence[str]]]]:
    """Return the lists of party conditions. A row meets a list if one of the columns has one of its tokens."""
    asked: list[list[tuple[Any, Sequence[str]]]] = []
    if query.caller_tokens is not None:
        asked.append([(_r.caller_token, query.caller_tokens)])
    if query.called_tokens is not None:
        asked.append([(_r.called_token, query.called_tokens)])
    if query.agent_tokens is not None:
        caller, called = query.agent_tokens
        asked.append([(_r.caller_token, caller), (_r.called_token, called)])
    return asked


def _carry_one(columns: Sequence[tuple[Any, Sequence[str]]]) -> Iterator[sa.ColumnElement[bool]]:
    """Yield a condition for each token, so that an index gives the rows of each in order; one a column for many."""
    if sum(len(tokens) for _, tokens in columns) > _TOKENS_APART:
        yield from (column.in_(tokens) for column, tokens in columns if tokens)
        return
    yield from (column == token for column, tokens in columns for token in tokens)


# -- counts -------------------------------------------------------------------------------------------------------
# How many recordings each tenant has in each state, how many live ones were captured on each day, and within which
# bounds the sizes and durations of each day are. A count moves in the transaction that moves its rows, so it is always
# exact. Counting the rows instead would take time in proportion to their number.

_DAY: sa.ColumnElement[int] = _r.created_at.op("/", return_type=sa.BigInteger())(sa.literal_column(str(rows.DAY)))
_COUNTED = sa.select(_r.tenant, _r.state, sa.func.count().label("n")).group_by(_r.tenant, _r.state)
_LIVE = sa.select(_r.tenant, _DAY.label("day"), sa.func.count().label("n")).where(IS_LIVE).group_by(_r.tenant, _DAY)
_D: sa.ColumnElement[int] = sa.literal_column(str(rows.DAY), sa.BigInteger)
# The remainder of a time before the epoch is negative.
_BEGAN: sa.ColumnElement[int] = (_r.started_at - (_r.started_at % _D + _D) % _D) // _D
_IS_ENDED = _r.ended_at.is_not(None)
_MEASURED = (
    sa.select(
        *(_r.tenant, _BEGAN.label("day"), sa.func.min(_r.stored_bytes), sa.func.max(_r.stored_bytes)),
        *(sa.func.min(_r.lasted_ms), sa.func.max(_r.lasted_ms)),
    )
    .where(_IS_ENDED)
    .group_by(_r.tenant, _BEGAN)
)
_RECOUNT = (
    sa.delete(recording_counts),
    sa.insert(recording_counts).from_select(["tenant", "state", "n"], _COUNTED),
    sa.delete(live_counts),
    sa.insert(live_counts).from_select(["tenant", "day", "n"], _LIVE),
    sa.delete(measured_days),
    sa.insert(measured_days).from_select(measured_days.columns.keys(), _MEASURED),
)


def _wrong(counted: sa.Select[Any], kept: sa.Table, of: str) -> sa.Select[Any]:
    """Return the differences of rows and counts in one statement, so one snapshot of both."""
    both = sa.union_all(counted, sa.select(kept.c.tenant, kept.c[of], -kept.c.n)).subquery()
    return (
        sa.select(both.c.tenant, both.c[of].label("what"), sa.func.sum(both.c.n).label("n"))
        .group_by(both.c.tenant, both.c[of])
        .having(sa.func.sum(both.c.n) != 0)
        .order_by(both.c.tenant, both.c[of])
    )


_WRONG, _WRONG_LIVE = _wrong(_COUNTED, recording_counts, "state"), _wrong(_LIVE, live_counts, "day")
_OUTSIDE = (
    sa.select(_r.tenant, _BEGAN.label("what"), sa.func.count().label("n"))
    .select_from(recordings.outerjoin(measured_days, sa.and_(_m.tenant == _r.tenant, _m.day == _BEGAN)))
    .where(
        _IS_ENDED,
        sa.or_(
            _m.tenant.is_(None),
            ~_r.stored_bytes.between(_m.least_bytes, _m.most_bytes),
            sa.and_(
                _r.lasted_ms.is_not(None),
                sa.or_(_m.least_ms.is_(None), ~_r.lasted_ms.between(_m.least_ms, _m.most_ms)),
            ),
        ),
    )
    .group_by(_r.tenant, _BEGAN)
    .order_by(_r.tenant, _BEGAN)
)
"""The days of which recordings are outside the bounds that are kept."""


class CountStore:
    """Implements the upkeep in `vault.ports.recordings.RecordingCounts`."""

    _database: Database

    async def miscounted(self) -> list[tuple[TenantId, RecordingState | date, int]]:
        """Return each wrong count, with the number of rows minus the number counted or within the bounds kept."""
        wrong: list[tuple[TenantId, RecordingState | date, int]] = [
            (TenantId(row.tenant), RecordingState(row.what), int(row.n)) for row in await self._database.fetch(_WRONG)
        ]
        return wrong + [
            (TenantId(row.tenant), rows.moment(row.what * rows.DAY).date(), int(row.n))
            for statement in (_WRONG_LIVE, _OUTSIDE)
            for row in await self._database.fetch(statement)
        ]

    async def recount(self) -> None:
        """Count the rows anew."""

        async def act(transaction: Transaction) -> None:
            await transaction.write_each(*_RECOUNT)

        await self._database.writer.run(act)


async def count_moved(
    transaction: Transaction, which: sa.ColumnElement[bool], parameters: dict[str, Any], *, to: RecordingState
) -> None:
    """Move the counts of the rows `which` selects and that are about to enter the state `to` from another one."""
    moving = _COUNTED.where(which, _r.state != to.value)
    for row in await transaction.fetch(moving, parameters):
        transaction.count(row.tenant, row.state, -row.n)
        transaction.count(row.tenant, to.value, row.n)


async def count_gone(transaction: Transaction, which: sa.ColumnElement[bool], parameters: dict[str, Any]) -> None:
    """Count the live rows that `which` selects out of their days: they are about to have nothing left."""
    gone = sa.select(_r.tenant, _r.created_at).where(which, IS_LIVE)
    for row in await transaction.fetch(gone, parameters):
        transaction.count_live(row.tenant, row.created_at, -1)
