"""Canonical MessagePack."""

import sys

import msgpack
import pytest

from vault.errors import FormatError
from vault.format import codec
from vault.model import Cohort, Coordinate, Part

WHERE = Coordinate(cohort=Cohort(tenant="northgate", part=Part.AUDIO, period=20_512, generation=3), leaf=7)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -1,
        127,
        128,
        1 << 63,
        (1 << 64) - 1,
        -(1 << 63),
        "",
        "é",
        b"",
        b"\0",
        [],
        [[], {}],
        {"a": 1},
    ],
)
def test_every_kind_of_value_survives(value):
    assert codec.unpack(codec.pack(value)) == value


def test_keys_are_ordered_by_their_bytes_whatever_the_order_of_insertion():
    assert codec.pack({"b": 1, "é": 2, "a": 3}) == codec.pack({"é": 2, "a": 3, "b": 1})
    assert list(codec.unpack(codec.pack({"b": 1, "é": 2, "a": 3, "Z": 4}))) == ["Z", "a", "b", "é"]


def test_the_encoding_is_the_documented_one():
    assert codec.pack({"b": [1, None, True], "a": b"\1"}).hex() == "82a161c40101a1629301c0c3"


@pytest.mark.parametrize(
    "value",
    [1.0, ..., {1: 2}, {b"a": 1}, {1, 2}, bytearray(b"a"), 1 << 64, -(1 << 63) - 1, "\ud800", {"\ud800": 1}],
    ids=repr,
)
def test_what_has_no_canonical_encoding_is_refused(value):
    with pytest.raises(FormatError):
        codec.pack(value)


def test_nesting_without_end_is_refused_and_not_a_crash():
    value = []
    value.append(value)
    with pytest.raises(FormatError):
        codec.pack(value)


def test_the_depth_is_bounded_by_the_format_and_not_by_the_interpreter():
    deepest = None
    for _ in range(codec.MAX_DEPTH):
        deepest = [deepest]
    assert codec.unpack(codec.pack(deepest)) == deepest
    with pytest.raises(FormatError, match="nests deeper"):
        codec.pack([deepest])
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        with pytest.raises(FormatError):
            codec.unpack(b"\x91" * 400 + b"\x90")
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"\xc1", "never used"),
        (b"\x01\x01", "two values"),
        (b"\xcc\x01", "integer not in its shortest form"),
        (b"\xd9\x01a", "string header not in its shortest form"),
        (b"\xdc\x00\x00", "array header not in its shortest form"),
        (b"\x82\xa1b\x01\xa1a\x01", "keys out of order"),
        (b"\x82\xa1a\x01\xa1a\x02", "key repeated"),
        (b"\x81\x01\x01", "key not a string"),
        (b"\x81\xc4\x01a\x01", "key of bytes"),
        (b"\x81\x90\x01", "key of an array"),
        (b"\xa1\xff", "not UTF-8"),
        (b"\xcb" + bytes(8), "float"),
        (b"\xd4\x01\x00", "extension"),
        (b"\xd6\xff\x00\x00\x00\x00", "timestamp"),
        (b"\xdd\xff\xff\xff\xff", "array longer than the input"),
        (b"\xc6\xff\xff\xff\xff", "bytes longer than the input"),
        (b"\x91" * 33 + b"\x90", "nested deeper than the format allows"),
        (b"\x91" * 600 + b"\x90", "nested deeper than anything has reason to be"),
        (b"\x91" * 100_000 + b"\x90", "nested to exhaust the stack"),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_other_bytes_are_refused(data, why):
    with pytest.raises(FormatError):
        codec.unpack(data)


def test_input_above_the_bound_is_refused_unread(monkeypatch):
    monkeypatch.setattr(codec, "_MAX_INPUT_BYTES", 8)
    with pytest.raises(FormatError, match="the bound is 8"):
        codec.unpack(codec.pack(b"1234567"))


def test_fields_returns_the_values_in_the_order_asked():
    assert codec.fields({"a": 1, "b": "x"}, b=str, a=int) == ["x", 1]


@pytest.mark.parametrize("value", [{}, {"a": 1, "b": 1}, {"a": True}, {"a": "1"}, {"a": None}, [1], None])
def test_fields_refuses_another_shape(value):
    with pytest.raises(FormatError):
        codec.fields(value, a=int)


def test_a_coordinate_survives():
    assert codec.decode_coordinate(codec.unpack(codec.pack(codec.encode_coordinate(WHERE)))) == WHERE


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        ["northgate", "audio", 1, 1],
        ["northgate", "audio", 1, 1, 1, 1],
        ["northgate", "video", 1, 1, 1],
        ["North gate", "audio", 1, 1, 1],
        ["northgate", "audio", -1, 1, 1],
        ["northgate", "audio", 1 << 48, 1, 1],
        ["northgate", "audio", 1, 1 << 32, 1],
        ["northgate", "audio", 1, 1, 1 << 32],
        ["northgate", "audio", True, 1, 1],
        [b"northgate", "audio", 1, 1, 1],
    ],
)
def test_an_impossible_coordinate_is_refused(value):
    with pytest.raises(FormatError):
        codec.decode_coordinate(value)


def test_msgpack_of_a_canonical_value_reads_the_same_with_a_plain_reader():
    assert msgpack.unpackb(codec.pack({"a": [1, "x", b"y"]})) == {"a": [1, "x", b"y"]}
