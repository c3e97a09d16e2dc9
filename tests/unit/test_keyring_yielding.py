"""Leaves with a date of their own: pins that only bridge the day of a cohort, and leaves that go before it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from vault.crypto import ggm
from vault.errors import UnderHold
from vault.ids import TenantId
from vault.keystore import state
from vault.keystore.state import Page, State, gathered
from vault.model import Cohort, Coordinate, Part, Pin, ShredPlan

ACME = TenantId("acme")
COHORT = Cohort(tenant=ACME, part=Part.AUDIO, period=10, generation=1)
AT = datetime(2026, 5, 31, tzinfo=UTC)
POLICY, HOLD = b"p" * 16, b"h" * 16
PLAN = ShredPlan(intent_id="shr_1", at=AT, yielding=frozenset({POLICY}))


def world(*pins: Pin) -> State:
    cover = ggm.plant(bytes(range(32)))
    return State(
        keyring=bytes(16),
        epoch=1,
        revision=0,
        fence=1,
        generation=1,
        cohort_width_ms=86_400_000,
        last_sweep_ms=None,
        swept_through=None,
        lease_ms=15_000,
        backup_key=bytes(32),
        pages={ACME: Page(tenant=ACME, cohorts={COHORT: cover}, pins=gathered(pins))},
    )


def pin(first: int, last: int, tag: bytes) -> Pin:
    return Pin(cohort=COHORT, first=first, last=last, tag=tag)


def left(before: State, plan: ShredPlan) -> set[int]:
    """Return which of the first eight leaves have a key after the shred, which is proved as the engine proves it."""
    after = state.shredded(before, plan)
    state.verify_shred(before, after, plan, after)
    cover = after.cover(COHORT)
    return {leaf for leaf in range(8) if cover is not None and ggm.derives(cover, leaf)}


def test_a_leaf_that_is_kept_longer_survives_the_day_of_its_cohort_and_goes_on_its_own() -> None:
    before = world(pin(2, 5, POLICY))
    passed = replace(PLAN, due_through=10)
    assert left(before, passed) == {2, 3, 4, 5}
    assert state.has_due(before, passed)
    survivors = state.shredded(before, passed)
    assert left(survivors, replace(passed, expired={COHORT: ((3, 4),)})) == {2, 5}
    assert not state.has_due(survivors, passed)


def test_a_leaf_that_goes_sooner_goes_before_the_day_of_its_cohort_unless_something_keeps_it() -> None:
    expired = replace(PLAN, expired={COHORT: ((0, 3),)})
    assert left(world(), expired) == {4, 5, 6, 7}
    assert left(world(pin(1, 1, HOLD)), expired) == {1, 4, 5, 6, 7}, "a hold outranks it"
    kept = replace(expired, keep=frozenset({Coordinate(cohort=COHORT, leaf=2)}))
    assert left(world(), kept) == {2, 4, 5, 6, 7}


def test_what_keeps_longer_is_no_hold_against_an_erasure_or_the_end_of_a_contract() -> None:
    before = world(pin(0, 7, POLICY))
    erased = replace(PLAN, leaves=frozenset({Coordinate(cohort=COHORT, leaf=4)}))
    assert left(before, erased) == {0, 1, 2, 3, 5, 6, 7}
    assert left(before, replace(PLAN, drop_tenants=frozenset({ACME}))) == set()
    assert left(world(pin(0, 7, POLICY), pin(6, 6, HOLD)), replace(PLAN, drop_tenants=frozenset({ACME}))) == {6}


def test_a_catalog_that_does_not_know_the_change_takes_nothing_that_it_keeps() -> None:
    before = world(pin(0, 3, POLICY))
    stale = replace(PLAN, yielding=frozenset())
    assert left(before, replace(stale, due_through=10)) == {0, 1, 2, 3}
    assert left(before, replace(stale, drop_tenants=frozenset({ACME}))) == {0, 1, 2, 3}
    with pytest.raises(UnderHold):
        left(before, replace(stale, leaves=frozenset({Coordinate(cohort=COHORT, leaf=1)})))
