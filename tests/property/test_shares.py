"""Max-min shares: any order of asking, giving back, coming again and giving up."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vault.access.shares import Ruling, decide_share, fair_share, holders_above_share

HOLDERS = "abcde"

uses = st.dictionaries(st.sampled_from(HOLDERS), st.integers(1, 40))
lines = st.lists(st.sampled_from(HOLDERS), unique=True)


class Sharing(RuleBasedStateMachine):
    """One resource, with the memory of who waits that the services keep."""

    def __init__(self):
        super().__init__()
        self.capacity = 7
        self.uses = Counter()
        self.waiting = []

    def ask(self, holder, wanted=1):
        ruling = decide_share(self.capacity, +self.uses, self.waiting, holder, wanted)
        if ruling is Ruling.ADMITTED:
            self.uses[holder] += wanted
            if holder in self.waiting:
                self.waiting.remove(holder)
                self.waiting.append(holder)
        elif holder not in self.waiting:
            self.waiting.append(holder)
        return ruling

    @rule(holder=st.sampled_from(HOLDERS), wanted=st.integers(1, 3))
    def asks(self, holder, wanted):
        others = [each for each in self.waiting if each != holder]
        room = self.uses.total() + wanted <= self.capacity
        share = fair_share(self.capacity, +self.uses, {*others, holder})
        before = self.uses[holder]
        ruling = self.ask(holder, wanted)
        if room and (not others or before + wanted <= share):
            assert ruling is Ruling.ADMITTED
        if not room:
            assert ruling is not Ruling.ADMITTED
        if ruling is Ruling.ADMITTED and before + wanted > share:
            assert all(self.uses[each] >= before for each in others)

    @precondition(lambda self: self.uses.total())
    @rule(data=st.data())
    def gives_back(self, data):
        self.uses[data.draw(st.sampled_from(sorted(+self.uses)))] -= 1

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def gives_up(self, data):
        self.waiting.remove(data.draw(st.sampled_from(self.waiting)))

    @rule(holder=st.sampled_from(HOLDERS))
    def a_sole_holder_reaches_the_capacity(self, holder):
        alone = Sharing()
        for _ in range(alone.capacity):
            assert alone.ask(holder) is Ruling.ADMITTED
        assert alone.ask(holder) is Ruling.FULL

    @invariant()
    def never_more_than_there_is(self):
        assert self.uses.total() <= self.capacity

    @invariant()
    def whoever_waits_and_has_least_is_let_in_once_there_is_room(self):
        if self.waiting and self.uses.total() < self.capacity:
            least = min(self.waiting, key=lambda each: self.uses[each])
            assert decide_share(self.capacity, +self.uses, self.waiting, least, 1) is Ruling.ADMITTED


TestSharing = Sharing.TestCase


@given(
    capacity=st.integers(1, 30),
    held=st.lists(st.integers(0, 30), min_size=2, max_size=5),
    order=st.randoms(use_true_random=False),
)
def test_greedy_holders_come_to_their_equal_shares_as_what_is_held_is_given_back(capacity, held, order):
    sharing = Sharing()
    sharing.capacity = capacity
    holders = HOLDERS[: len(held)]
    for holder, units in zip(holders, held, strict=True):
        for _ in range(units):
            sharing.ask(holder)
    share = capacity // len(holders)
    for holder in holders:
        sharing.ask(holder)
    for _ in range(capacity):
        most = max(holders, key=lambda each: sharing.uses[each])
        if not sharing.uses[most]:
            break
        sharing.uses[most] -= 1
        # The one that gives back asks first, and everybody asks often: only the rule keeps the unit for the others.
        for holder in (most, *order.sample(holders, len(holders)), *holders, *holders):
            sharing.ask(holder)
    assert min(sharing.uses[each] for each in holders) >= share
    assert sharing.uses.total() == capacity


@given(capacity=st.integers(1, 4))
def test_where_not_all_can_have_one_each_gets_it_in_turn(capacity):
    sharing = Sharing()
    sharing.capacity = capacity
    served = set()
    for _ in range(3 * len(HOLDERS)):
        for holder in HOLDERS:  # always in the same order: who asks first is no better off
            if sharing.ask(holder) is Ruling.ADMITTED:
                served.add(holder)
        sharing.uses.clear()
    assert served == set(HOLDERS)


@given(capacity=st.integers(1, 60), uses=uses, waiting=lines)
def test_a_share_is_the_water_level_of_what_is_wanted(capacity, uses, waiting):
    share = fair_share(capacity, uses, waiting)
    holders = {*uses, *waiting}

    def poured(height):
        return sum(height if each in waiting else min(uses[each], height) for each in holders)

    assert poured(share) <= capacity
    if waiting:
        assert poured(share + 1) > capacity


few = st.dictionaries(st.sampled_from(HOLDERS), st.integers(1, 6))


@given(capacity=st.integers(1, 15), uses=few, waiting=lines, holder=st.sampled_from(HOLDERS))
def test_only_who_has_more_than_its_share_makes_way_and_only_for_who_has_less(capacity, uses, waiting, holder):
    share = fair_share(capacity, uses, {*waiting, holder})
    found = holders_above_share(capacity, uses, waiting, holder)
    over = {each for each, use in uses.items() if use > share}
    assert set(found) == (over if uses.get(holder, 0) < share else set())
    assert holder not in found
    assert [uses[each] for each in found] == sorted((uses[each] for each in found), reverse=True)
    if found and sum(uses.values()) <= capacity:
        rest = {**uses, found[0]: uses[found[0]] - 1}
        assert decide_share(capacity, rest, waiting, holder, 1) is Ruling.ADMITTED
