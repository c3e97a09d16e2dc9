"""How long a recording is kept, whatever start its recorder states."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from vault.retention.periods import Period
from vault.retention.policy import FIRST_START, LONGEST_CALL, MAX_AHEAD, StartEffect, joined_at, lifetime

RECEIPT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
DAY = timedelta(days=1)
PERIOD = timedelta(days=90)
BACKDATING = timedelta(days=7)
SPANS = st.timedeltas(timedelta(0), timedelta(days=3650))
STARTS = st.datetimes(timezones=st.just(UTC))


def kept(stated, *, receipt=RECEIPT, period=PERIOD, floor=DAY, backdating=BACKDATING, at_least=None):
    after, least = Period(period).after, Period(floor).after
    return lifetime(stated, receipt=receipt, after=after, floor=least, backdating=backdating, at_least=at_least)


def test_a_stated_start_counts_from_no_earlier_than_backdating_before_the_receipt() -> None:
    ago = {
        timedelta(0): (PERIOD, StartEffect.NONE),
        timedelta(hours=1): (PERIOD - timedelta(hours=1), StartEffect.SHORTENED),
        BACKDATING: (PERIOD - BACKDATING, StartEffect.SHORTENED),
        BACKDATING + timedelta(microseconds=1): (PERIOD - BACKDATING, StartEffect.BOUNDED),
        PERIOD - timedelta(seconds=4): (PERIOD - BACKDATING, StartEffect.BOUNDED),
        timedelta(days=9000): (PERIOD - BACKDATING, StartEffect.BOUNDED),
        -DAY: (PERIOD + DAY, StartEffect.LENGTHENED),
    }
    for distance, (left, effect) in ago.items():
        life = kept(RECEIPT - distance)
        assert (life.retain_until - RECEIPT, life.effect) == (left, effect), distance
        assert (life.started_at, life.unstated_until) == (RECEIPT - distance, RECEIPT + PERIOD)


def test_a_start_before_2000_or_more_than_a_day_ahead_is_replaced_by_the_receipt() -> None:
    tick = timedelta(microseconds=1)
    least, most = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    for stated in (FIRST_START - tick, RECEIPT + MAX_AHEAD + tick, least, most):
        for backdating in (BACKDATING, None):
            life = kept(stated, backdating=backdating)
            assert (life.started_at, life.retain_until) == (RECEIPT, RECEIPT + PERIOD)
            assert life.effect is StartEffect.REPLACED
    assert kept(FIRST_START).started_at == FIRST_START
    assert kept(None).effect is StartEffect.NONE


def test_a_date_that_is_asked_for_lengthens_and_never_shortens() -> None:
    for stated in (None, RECEIPT, RECEIPT - DAY, FIRST_START - DAY):
        life = kept(stated)
        for days in (-9, 0, 1, 90, 91, 400):
            asked = RECEIPT + timedelta(days=days)
            assert kept(stated, at_least=asked) == replace(life, retain_until=max(life.retain_until, asked))


def test_an_import_takes_true_dates_and_keeps_the_floor() -> None:
    recent, old = RECEIPT - PERIOD + 2 * DAY, RECEIPT - timedelta(days=2000)
    assert kept(recent, backdating=None).retain_until == RECEIPT + 2 * DAY
    assert kept(old, backdating=None).retain_until == RECEIPT + DAY
    assert kept(old, backdating=None).started_at == old


def test_a_retention_shorter_than_the_floor_is_not_lengthened_by_it() -> None:
    hour = timedelta(hours=1)
    assert kept(RECEIPT - DAY, period=hour).retain_until == RECEIPT + hour
    assert kept(RECEIPT - DAY, period=hour).effect is StartEffect.NONE


@given(stated=STARTS, period=SPANS, floor=SPANS, backdating=st.none() | SPANS)
@example(stated=RECEIPT - PERIOD + timedelta(seconds=4), period=PERIOD, floor=DAY, backdating=BACKDATING)
def test_no_stated_start_ends_a_recording_before_the_floor_or_before_backdating_allows(
    stated: datetime, period: timedelta, floor: timedelta, backdating: timedelta | None
) -> None:
    life = kept(stated, period=period, floor=floor, backdating=backdating)
    assert life.retain_until >= RECEIPT + min(floor, period)
    assert backdating is None or life.retain_until >= RECEIPT - backdating + period
    # Nor does any keep it longer than a start a day ahead does.
    assert life.retain_until <= RECEIPT + MAX_AHEAD + period
    assert life.started_at in (stated, RECEIPT)
    shorter = {StartEffect.SHORTENED, StartEffect.BOUNDED}
    assert (life.retain_until < RECEIPT + period) == (life.effect in shorter)
    assert (life.retain_until > RECEIPT + period) == (life.effect is StartEffect.LENGTHENED)


@given(age=SPANS, ago=st.none() | SPANS, backdating=st.none() | SPANS, period=SPANS, floor=SPANS)
@example(age=9 * DAY, ago=None, backdating=BACKDATING, period=PERIOD, floor=DAY)
def test_a_call_that_joins_a_recording_however_old_is_kept_at_most_the_longest_call_shorter(
    age: timedelta, ago: timedelta | None, backdating: timedelta | None, period: timedelta, floor: timedelta
) -> None:
    stated = None if ago is None else RECEIPT - ago
    terms = {"period": period, "floor": floor, "backdating": backdating}
    own = kept(stated, **terms)
    joined = kept(stated, receipt=joined_at(RECEIPT - age, RECEIPT), **terms)
    assert own.retain_until - min(age, LONGEST_CALL) <= joined.retain_until <= own.retain_until


@given(ago=st.none() | SPANS, backdating=st.none() | SPANS)
def test_what_began_with_the_same_statement_is_kept_as_long_as_what_joins_it(
    ago: timedelta | None, backdating: timedelta | None
) -> None:
    stated = None if ago is None else RECEIPT - ago
    begun = kept(stated, backdating=backdating)
    for later in (timedelta(0), timedelta(seconds=5), LONGEST_CALL):
        receipt = joined_at(RECEIPT, RECEIPT + later)
        assert kept(stated, receipt=receipt, backdating=backdating).retain_until <= begun.retain_until
