"""The floor binds expiry in every vault but trial ones, and takes nothing from older vaults."""

from __future__ import annotations

from datetime import timedelta

import pytest

from vault.errors import ConfigError, Invalid
from vault.retention.periods import Period, check_new_width, parse_period, retention_bounds

NINETY, DAY, SEVEN_YEARS = (parse_period(text) for text in ("90d", "1d", "7y"))


def bounds(floor=None, *, default="90d", cap="7y", trial=False, predates=False):
    return retention_bounds(
        default=parse_period(default),
        floor=None if floor is None else parse_period(floor),
        cap=parse_period(cap),
        trial=trial,
        predates=predates,
    )


def test_a_floor_that_nobody_sets_is_a_day():
    assert bounds().floor == DAY
    assert bounds(trial=True).floor == DAY


def test_only_a_trial_vault_may_have_a_floor_below_a_day():
    for floor in ("0s", "1s", "23h59m"):
        with pytest.raises(ConfigError, match=r"^retention\.floor: ") as refused:
            bounds(floor)
        assert 'floor = "1d"' in (refused.value.hint or "")
        assert "init --trial" in (refused.value.hint or "")
    assert bounds("1d").floor == DAY
    assert bounds("1mo").floor == Period(months=1)
    assert bounds("1s", default="2s", trial=True).floor == Period(timedelta(seconds=1))


def test_no_floor_of_a_trial_vault_is_nothing():
    with pytest.raises(ConfigError, match=r"^retention\.floor: ") as refused:
        bounds("0s", trial=True)
    assert 'floor = "1s"' in (refused.value.hint or "")


def test_a_default_below_the_floor_is_refused_by_its_own_name():
    for wanted in ({"default": "23h"}, {"default": "2s", "trial": True}, {"floor": "30d", "default": "28d"}):
        with pytest.raises(ConfigError, match=r"^retention\.default: .* below the floor"):
            bounds(**wanted)
    with pytest.raises(ConfigError, match=r"^retention\.default: .* above the cap"):
        bounds(default="8y")


def test_a_vault_older_than_the_mark_starts_and_keeps_what_it_kept():
    for floor in (None, "0s"):
        older = bounds(floor, default="2h", predates=True)
        assert (older.floor, older.of(None)) == (None, parse_period("2h"))
        assert older.of(parse_period("1h")) == parse_period("1h")
    assert bounds("12h", predates=True).floor == parse_period("12h")
    with pytest.raises(ConfigError, match=r"^retention\.default: "):
        bounds("3h", default="2h", predates=True)


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [(None, "90d"), ("30d", "30d"), ("1h", "1d"), ("9999d", "7y"), ("7y", "7y"), ("84mo", "7y"), ("2555d", "2555d")],
)
def test_a_tenants_choice_counts_within_floor_and_cap(chosen, kept):
    assert bounds().of(None if chosen is None else parse_period(chosen)) == parse_period(kept)


def test_a_choice_outside_the_bounds_is_refused_when_it_is_made():
    for inside in ("1d", "1mo", "7y", "6y12mo", "2555d"):
        bounds().check(parse_period(inside))
    for outside in ("23h", "2557d", "7y1s", "8y"):
        with pytest.raises(Invalid, match="outside the vault's bounds") as refused:
            bounds().check(parse_period(outside))
        assert refused.value.hint == "choose between 1d and 7y"
    with pytest.raises(Invalid) as refused:
        bounds(predates=True).check(parse_period("8y"))
    assert refused.value.hint == "choose 7y or less"


def test_cohorts_of_less_than_an_hour_are_for_new_trial_vaults():
    check_new_width(timedelta(hours=1), trial=False)
    check_new_width(timedelta(seconds=1), trial=True)
    for width, trial in ((timedelta(minutes=59), False), (timedelta(0), True), (timedelta(0), False)):
        with pytest.raises(ConfigError, match=r"^retention\.cohort_width: "):
            check_new_width(width, trial=trial)
