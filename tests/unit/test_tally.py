"""What counts repeats: exact in number and time, bounded in memory, however much repeats."""

from datetime import UTC, datetime, timedelta

from vault.access.tally import MOST_DIFFERENT, NAMED, Tally
from vault.instants import rfc3339

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


def tally(numbers):
    counted = Tally("targets")
    for number in numbers:
        counted.add(BEGAN + timedelta(seconds=number), targets=f"id-{number}", tokens="not told apart here")
    return counted


def test_the_count_is_exact_and_what_it_was_about_is_a_bounded_sample():
    counted = tally(range(10_000))
    document = counted.document()
    assert document == {
        "count": 10_000,
        "first": rfc3339(BEGAN),
        "last": rfc3339(BEGAN + timedelta(seconds=9_999)),
        "targets": [f"id-{number}" for number in range(NAMED)],
        "different_targets": MOST_DIFFERENT,
    }
    assert len(counted._seen["targets"]._hashes) == MOST_DIFFERENT


def test_the_same_target_is_one_however_often_it_is_named():
    assert tally([1, 1, 2, 1, 7, 8, 9, 11, 12, 12, 11]).document()["different_targets"] == 7


def test_two_tallies_merge_into_what_one_would_have_counted():
    early, late, one = tally(range(60)), tally(range(3, 200)), tally([*range(60), *range(3, 200)])
    late.merge(early)
    assert late.document() == {**one.document(), "targets": [f"id-{number}" for number in range(3, 3 + NAMED)]}
    several = tally(range(20))
    several.merge(tally(range(3, 25)))
    assert several.document()["different_targets"] == 25
