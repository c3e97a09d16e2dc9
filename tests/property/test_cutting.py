"""Laws of the age at which a segment is cut, over all settings, calls and journals."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from vault.services.ingest.storing import HURRIED, UNHURRIED, seconds_to_cut

AGES = st.floats(0.001, 100_000.0)
STORED = st.integers(0, 5_000)
FILLED = st.floats(0.0, 1.0)
SHARES = st.floats(0.6, 1.0)


@given(first=AGES, longest=AGES, stored=STORED, filled=FILLED, share=SHARES)
def test_no_segment_waits_longer_than_the_longest_age(
    first: float, longest: float, stored: int, filled: float, share: float
) -> None:
    age = seconds_to_cut(first=first, longest=longest, stored=stored, filled=filled, share=share)
    assert 0 < age <= longest * (1 + 1e-9)
    assert age >= min(first, longest) * share * (1 - 1e-9)


@given(first=AGES, longest=AGES, stored=STORED, filled=st.floats(HURRIED, 1.0))
def test_from_half_a_journal_on_every_segment_is_as_young_as_the_first(
    first: float, longest: float, stored: int, filled: float
) -> None:
    assert seconds_to_cut(first=first, longest=longest, stored=stored, filled=filled, share=1.0) == min(first, longest)


@given(first=AGES, longest=AGES, stored=STORED, fills=st.lists(FILLED, min_size=2, max_size=2).map(sorted))
def test_a_fuller_journal_never_lets_a_segment_wait_longer(
    first: float, longest: float, stored: int, fills: list[float]
) -> None:
    emptier, fuller = (
        seconds_to_cut(first=first, longest=longest, stored=stored, filled=fill, share=1.0) for fill in fills
    )
    assert fuller <= emptier


@given(first=AGES, longest=AGES, filled=st.floats(0.0, UNHURRIED))
def test_with_room_each_segment_waits_twice_as_long_as_the_one_before_up_to_the_longest(
    first: float, longest: float, filled: float
) -> None:
    assume(first <= longest)
    ages = [seconds_to_cut(first=first, longest=longest, stored=n, filled=filled, share=1.0) for n in range(40)]
    assert ages[0] == first
    assert all(abs(after - min(before * 2, longest)) <= after * 1e-9 for before, after in pairwise(ages))


@given(share=SHARES, filled=st.floats(0.0, UNHURRIED))
def test_a_call_of_half_an_hour_is_seventeen_segments(share: float, filled: float) -> None:
    cut, stored = 0.0, 0
    while cut < 30 * 60:
        cut += seconds_to_cut(first=30.0, longest=120.0, stored=stored, filled=filled, share=share)
        stored += 1
    assert stored == 17
