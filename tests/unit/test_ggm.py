from __future__ import annotations

import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vectors import generate
from vault.crypto import ggm, spans

SEED = bytes(range(32))
LAST = (1 << 32) - 1
leaves = st.integers(0, LAST) | st.integers(0, 40) | st.integers(LAST - 40, LAST)
runs = st.lists(st.tuples(leaves, leaves).map(lambda pair: (min(pair), max(pair))), max_size=4).map(spans.union)
small = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda at: (at[0], at[0] + at[1])), max_size=6)


def listed(each: spans.Spans) -> set[int]:
    return {leaf for first, last in each for leaf in range(first, last + 1)}


@given(small, small)
def test_span_arithmetic_agrees_with_sets(left, right):
    a, b = spans.union(left), spans.union(right)
    assert listed(spans.intersect(a, b)) == listed(a) & listed(b)
    assert listed(spans.subtract(a, b)) == listed(a) - listed(b)
    assert spans.union((*a, *b)) == spans.points(listed(a) | listed(b))
    for result in (a, spans.intersect(a, b), spans.subtract(a, b)):
        assert result == spans.points(listed(result)), "not in normal form"


@given(small, st.integers(0, 70), st.integers(0, 8))
def test_span_membership_agrees_with_sets(raw, first, length):
    each, span = spans.union(raw), (first, first + length)
    assert spans.contain(each, span) == (listed((span,)) <= listed(each))
    assert spans.overlap(each, span) == bool(listed((span,)) & listed(each))


def test_a_leaf_key_is_the_documented_walk():
    leaf = 0b1011 << 28 | 5
    seed = SEED
    for shift in range(31, -1, -1):
        seed = hmac.digest(seed, b"callvault/v1/ggm" + bytes([leaf >> shift & 1]), "sha256")
    assert ggm.leaf_key(ggm.plant(SEED), leaf) == seed


@given(leaves, leaves)
def test_leaves_have_different_keys(a, b):
    cover = ggm.plant(SEED)
    assert (ggm.leaf_key(cover, a) == ggm.leaf_key(cover, b)) == (a == b)


@settings(max_examples=60)
@given(runs, runs, leaves)
def test_a_puncture_takes_exactly_its_leaves(first, second, leaf):
    whole = ggm.plant(SEED)
    cover = ggm.puncture(ggm.puncture(whole, first), second)
    taken = spans.union((*first, *second))
    assert ggm.spans(cover) == spans.subtract(((0, LAST),), taken)
    for probe in {leaf, *(edge for run in taken for edge in run)}:
        gone = spans.contain(taken, (probe, probe))
        assert ggm.leaf_key(cover, probe) == (None if gone else ggm.leaf_key(whole, probe))
        assert ggm.derives(cover, probe) != gone
    assert ggm.descends(whole, cover)


@settings(max_examples=60)
@given(runs, runs)
def test_retaining_is_puncturing_the_rest(taken, kept):
    cover = ggm.puncture(ggm.plant(SEED), taken)
    rest = spans.subtract(((0, LAST),), kept)
    assert ggm.retain(cover, kept) == ggm.puncture(cover, rest)


def test_a_batch_puncture_equals_its_punctures_one_by_one():
    batch = [0, 1, 7, 1 << 31, LAST]
    one_by_one = ggm.plant(SEED)
    for leaf in batch:
        one_by_one = ggm.puncture(one_by_one, spans.points([leaf]))
    assert ggm.puncture(ggm.plant(SEED), spans.points(batch)) == one_by_one


def test_no_node_of_a_cover_lies_above_a_taken_leaf():
    cover = ggm.puncture(ggm.plant(SEED), spans.points([12345]))
    assert sorted(cover.nodes) == sorted((32 - k, (12345 >> k) ^ 1) for k in range(32))


def test_retaining_whole_subtrees_keeps_their_node_and_not_their_leaves():
    cover = ggm.retain(ggm.plant(SEED), ((0, (1 << 20) - 1),))
    assert list(cover.nodes) == [(12, 0)]


def test_retaining_nothing_leaves_nothing():
    assert not ggm.retain(ggm.plant(SEED), ()).nodes


def test_puncturing_a_taken_leaf_again_changes_nothing():
    cover = ggm.puncture(ggm.plant(SEED), spans.points([9]))
    assert ggm.puncture(cover, spans.points([9])) == cover


def test_a_changed_seed_or_a_returned_leaf_does_not_descend():
    whole = ggm.plant(SEED)
    cover = ggm.puncture(whole, spans.points([9]))
    node = next(iter(cover.nodes))
    assert not ggm.descends(whole, ggm.Cover.of({**cover.nodes, node: bytes(32)}))
    assert not ggm.descends(cover, whole)


def test_a_cover_is_immutable_and_never_prints_a_seed():
    cover = ggm.plant(b"secret seed of thirty-two bytes!")
    assert "secret" not in repr(cover)
    with pytest.raises(TypeError):
        cover.nodes[0, 0] = bytes(32)


@pytest.mark.parametrize("leaf", [-1, 1 << 32])
def test_a_leaf_outside_the_tree_has_no_key(leaf):
    assert ggm.leaf_key(ggm.plant(SEED), leaf) is None


def test_a_seed_of_another_size_is_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        ggm.plant(bytes(16))


@pytest.mark.parametrize("case", generate.load("ggm"), ids=lambda case: case["name"])
def test_stored_vectors_are_derived(case):
    cover = ggm.plant(bytes.fromhex(case["root"]))
    if "kept" in case:
        cover = ggm.retain(cover, tuple(map(tuple, case["kept"])))
    else:
        cover = ggm.puncture(cover, tuple(map(tuple, case["taken"])))
    assert cover.nodes == {(depth, prefix): bytes.fromhex(seed) for depth, prefix, seed in case["cover"]}
    key = ggm.leaf_key(cover, case["leaf"])
    assert (key is None) == (case["outcome"] == "shredded")
    assert key == (bytes.fromhex(case["key"]) if "key" in case else None)
