"""Bytes of journal files and records, and their authentication."""

import hashlib

import pytest

from tests.helpers.journals import coordinate, opening
from vault.crypto.journal import RecordKey
from vault.errors import FormatError, Tampered, Truncated
from vault.format import codec
from vault.format.journal import (
    DATA,
    END,
    MAX_PIECE_BYTES,
    OPEN,
    FileHeader,
    Opening,
    Prefix,
    decode_header,
    decode_opening,
    decode_prefix,
    encode_header,
    encode_opening,
    encode_reason,
    file_name,
    pack_prefix,
    parse_file_name,
)
from vault.ids import RecordingId
from vault.model import DataKey

HEADER = FileHeader(number=7, created_ms=1_764_000_000_123, salt=bytes(range(32)))
KEY = DataKey(bytes(range(32)))


def digested(packed):
    return packed + hashlib.sha256(packed).digest()[:8]


def an_opening(**changes):
    fields = {
        "recording": RecordingId(opening(5).recording),
        "coordinate": coordinate(5),
        "offset": 100,
        "released": 60,
    }
    return Opening(**(fields | changes))


def test_a_header_is_64_bytes_and_decodes_to_itself():
    data = encode_header(HEADER)
    assert len(data) == 64
    assert data.startswith(b"CVJ1\0\0\0\x01")
    assert decode_header(data + b"records") == HEADER


def test_a_header_torn_or_changed_anywhere_is_recognised():
    data = encode_header(HEADER)
    for spot in range(64):
        with pytest.raises(Truncated):
            decode_header(data[:spot])
        with pytest.raises(Truncated):
            decode_header(data[:spot] + bytes([data[spot] ^ 0x80]) + data[spot + 1 :])


@pytest.mark.parametrize(
    "header",
    [
        FileHeader(number=0, created_ms=0, salt=bytes(32)),
        FileHeader(number=1, created_ms=-1, salt=bytes(32)),
        FileHeader(number=1, created_ms=0, salt=bytes(31)),
    ],
)
def test_an_impossible_header_is_not_written(header):
    with pytest.raises(FormatError):
        encode_header(header)


def test_an_opening_decodes_to_itself():
    assert decode_opening(encode_opening(an_opening())) == an_opening()


@pytest.mark.parametrize(
    "changes",
    [
        {"recording": "hold_" + "0" * 32},
        {"recording": "rec_1"},
        {"offset": -1, "released": -1},
        {"released": 101},
        {"offset": 1 << 53},
        {"coordinate": coordinate(1 << 32)},
    ],
)
def test_an_impossible_opening_is_not_written(changes):
    with pytest.raises(FormatError):
        encode_opening(an_opening(**changes))


@pytest.mark.parametrize("value", [{}, [], {"recording": 1}, {"offset": True}])
def test_other_values_are_no_opening(value):
    with pytest.raises(FormatError):
        decode_opening(digested(codec.pack(value)))


def test_an_opening_with_any_bit_changed_is_recognised_without_a_key():
    data = encode_opening(an_opening())
    for spot in range(len(data)):
        with pytest.raises(FormatError):
            decode_opening(data[:spot] + bytes([data[spot] ^ 1]) + data[spot + 1 :])


def test_a_prefix_is_17_bytes_and_needs_its_whole_record():
    data = pack_prefix(20, DATA, 9, 4) + bytes(20)
    assert decode_prefix(data, 0) == Prefix(20, DATA, 9, 4)
    assert decode_prefix(b"xx" + data, 2) == Prefix(20, DATA, 9, 4)
    assert all(decode_prefix(data[:size], 0) is None for size in range(len(data)))


@pytest.mark.parametrize(
    "prefix",
    [
        (0, 0, 0, 0),
        (20, 4, 9, 4),
        (20, DATA, 0, 4),
        (20, DATA, 9, 0),
        (20, OPEN, 9, 1),
        (16, DATA, 9, 4),
        (MAX_PIECE_BYTES + 17, DATA, 9, 4),
        (1024 + 17, END, 9, 4),
        (4096 + 17, OPEN, 9, 0),
    ],
)
def test_impossible_prefixes_end_a_file(prefix):
    assert decode_prefix(pack_prefix(*prefix) + bytes(MAX_PIECE_BYTES + 64), 0) is None


@pytest.mark.parametrize("reason", ["", "x" * 1025, "\ud800"])
def test_an_end_reason_is_short_unicode(reason):
    with pytest.raises(FormatError):
        encode_reason(reason)


def test_file_names_sort_in_creation_order():
    names = [file_name(number) for number in (1, 9, 10, 99_999, 100_000)]
    assert sorted(names) == names
    assert [parse_file_name(name) for name in names[:2]] == [(1, False), (9, False)]
    assert parse_file_name(names[0] + ".damaged") == (1, True)
    assert parse_file_name("journal.lock") is parse_file_name("journal-1.cvj") is None


def test_a_record_opens_only_in_its_place():
    key = RecordKey(KEY, salt=HEADER.salt, handle=3)
    prefix, body = key.seal(DATA, 12, b"audio", 5)
    assert prefix == pack_prefix(21, DATA, 3, 12)
    assert key.open_data(12, body) == b"audio"
    for other, kind, seq in [
        (key, DATA, 13),
        (key, END, 12),
        (RecordKey(KEY, salt=HEADER.salt, handle=4), DATA, 12),
        (RecordKey(KEY, salt=bytes(32), handle=3), DATA, 12),
        (RecordKey(DataKey(bytes(32)), salt=HEADER.salt, handle=3), DATA, 12),
    ]:
        with pytest.raises(Tampered):
            other.open(kind, seq, body)
    for spot in range(len(body)):
        with pytest.raises(Tampered):
            key.open_data(12, body[:spot] + bytes([body[spot] ^ 1]) + body[spot + 1 :])


def test_an_opening_is_readable_without_a_key_and_authentic_with_it():
    key = RecordKey(KEY, salt=HEADER.salt, handle=3)
    prefix, body = key.seal_opening(encode_opening(an_opening()))
    assert decode_prefix(prefix + body, 0) == Prefix(len(body), OPEN, 3, 0)
    assert decode_opening(body[:-16]) == an_opening()
    key.check_opening(body)
    for spot in range(len(body)):
        with pytest.raises(Tampered):
            key.check_opening(body[:spot] + bytes([body[spot] ^ 1]) + body[spot + 1 :])
