"""The newest of a call's names is found without asking for each of them."""

from types import SimpleNamespace

import pytest

from vault.errors import Invalid, Unavailable
from vault.ids import call_key_of, call_keys, call_name, call_number
from vault.model import RecordingState
from vault.services.ingest.call_keys import CallKeys


class Taken:
    """Stands for the sessions and the catalog: which names are taken, and what was asked."""

    def __init__(self, *, stored=(), live=()):
        self.stored, self.live, self.asked = set(stored), set(live), 0

    def live_call(self, tenant, name):
        return name in self.live or None

    def live_numbers(self, tenant, key):
        return sorted(number for name in self.live for at, number in [call_number(name)] if at == key)

    def live_calls(self, tenant, key):
        return {call_name(key, number): object() for number in self.live_numbers(tenant, key)}

    async def any_call(self, tenant, names):
        self.asked += 1
        return not self.stored.isdisjoint(names)


def named(count, first=1):
    return {call_name("k", number) for number in range(first, count + 1)}


async def test_the_newest_name_is_found_whatever_its_number():
    for count in [*range(40), 99, 100, 101, 128, 1000]:
        taken = Taken(stored=named(count))
        names = CallKeys(ingest=taken, search=taken)
        assert await names.newest("t", "k") == count
        assert taken.asked <= 2 * count.bit_length() + 2, "a look that remembers nothing asks for every name"
        for further in range(count + 1, count + 4):
            taken.stored.add(call_name("k", further))
            taken.asked = 0
            assert await names.newest("t", "k") == further
            assert taken.asked <= 4


async def test_names_that_went_with_their_month_leave_a_free_one_and_another_nodes_are_found():
    taken = Taken(stored=named(200))
    names = CallKeys(ingest=taken, search=taken)
    assert await names.newest("t", "k") == 200
    taken.stored |= named(260)
    assert await names.newest("t", "k") == 260
    taken.stored = named(300, first=270)
    free = call_name("k", await names.newest("t", "k") + 1)
    assert free not in taken.stored
    taken.stored.clear()
    assert await names.newest("t", "k") == 0


async def test_free_names_that_empty_recordings_left_hide_no_newer_one():
    for count in (2, 3, 5, 17, 100):
        for gap in range(1, 4):
            for first in range(1, count - gap + 1):
                taken = Taken(stored=named(count) - named(first + gap - 1, first=first))
                assert await CallKeys(ingest=taken, search=taken).newest("t", "k") == count
    taken = Taken(live={"k~3"})
    assert await CallKeys(ingest=taken, search=taken).newest("t", "k") == 3


async def test_a_key_so_long_that_it_has_no_further_names_is_looked_for():
    taken = Taken()
    names = CallKeys(ingest=taken, search=taken)
    assert await names.newest("t", "k" * 199) == 0
    with pytest.raises(Invalid):
        await names.newest("t", "k" * 201)


async def test_a_broken_connection_comes_back_without_the_catalog():
    taken = Taken(live={"k~120"})
    names = CallKeys(ingest=taken, search=taken)
    tried = names.to_try("t", "k")
    assert (await anext(tried), taken.asked) == ("k~120", 0)
    assert [await anext(tried), await anext(tried)] == ["k~120", "k~121"]


async def test_a_key_is_its_sessions_before_the_catalogs_and_what_is_open_elsewhere_is_not_to_be_had_here():
    def require_here(row):
        raise Unavailable(f"{row} is open elsewhere")

    async def call(_tenant, key):
        return rows.get(key)

    opened, sealed = SimpleNamespace(state=RecordingState.OPEN), SimpleNamespace(state=RecordingState.SEALED)
    session, rows = object(), {"k": opened, "k~2": opened, "k~3": sealed}
    ingest = SimpleNamespace(live_call=lambda _, key: session if key == "k" else None, require_here=require_here)
    keys = CallKeys(ingest=ingest, search=SimpleNamespace(call=call))
    assert await keys.resolve("t", "k", here=True) is session
    assert await keys.resolve("t", "k~2") is opened
    with pytest.raises(Unavailable):
        await keys.resolve("t", "k~2", here=True)
    assert await keys.resolve("t", "k~3", here=True) is sealed
    assert await keys.resolve("t", "k~4", here=True) is None


async def test_the_next_free_key_follows_the_newest():
    for count in (0, 1, 7):
        taken = Taken(stored=named(count))
        assert await CallKeys(ingest=taken, search=taken).next_free("t", "k") == call_name("k", count + 1)


def test_a_name_and_its_number_are_one_another():
    for number in (1, 2, 10, 101):
        assert call_number(call_name("a~b", number)) == ("a~b", number)
    for odd in ("k~1", "k~02", "k~", "~2", "k~0"):
        assert call_number(odd) == (odd, 1)
    assert list(call_keys("k", first=0))[:2] == ["k", "k~2"]
    assert next(call_keys("k", first=150)) == "k~150"
    with pytest.raises(Invalid):
        call_name("k" * 199, 2)


def test_whatever_a_recorder_calls_a_call_is_a_call_key_with_room_for_further_ones():
    for name in ("call-1", "a" * 180, "5f3c@192.0.2.1:5060", "a=b"):
        assert call_key_of(name) == name
    odd = [
        "5f3c@[2001:db8::1]",
        "%40",
        "*",
        "!",
        "a b",
        "a/b",
        "é",
        "a" * 181,
        "a" * 5000,
        "\udce9",
        "\ud83d",
        "é" * 60,
    ]
    keys = [call_key_of(name) for name in odd]
    assert len(set(keys)) == len(odd)
    assert keys[:3] == ["5f3c@=5B2001:db8::1=5D", "=2540", "=2A"]
    for key in keys:
        assert call_key_of(key) == key
        assert call_name(key, 10**12).endswith("~1000000000000")
    with pytest.raises(Invalid):
        call_key_of("")
