"""What a backup's bytes can say, and that nothing else is taken for it."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vectors import generate
from tests.vectors.make_backup import BACKUP, KEY, KEYRING, header, manifest, objects, ranges, shared, tables
from vault.crypto.backup import open_manifest, open_part, seal_manifest, seal_part
from vault.errors import FormatError, IntegrityError, Invalid, Tampered, Truncated
from vault.format import codec
from vault.format.backup import (
    PageTags,
    PartHeader,
    TableRows,
    backup_began,
    check_backup,
    decode_manifest,
    decode_objects,
    decode_ranges,
    decode_tables,
    encode_manifest,
    encode_objects,
    encode_ranges,
    encode_tables,
)
from vault.ids import new_id

ERRORS = {"tampered": Tampered, "wrong_position": Tampered, "truncated": Truncated, "format": FormatError}
CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
)


def refuse(case, act):
    with pytest.raises(IntegrityError) as caught:
        act()
    assert type(caught.value) is ERRORS[case["outcome"]]
    assert (caught.value.facts.get("cause") == "position") == (case["outcome"] == "wrong_position")


@pytest.mark.parametrize("case", generate.load("backup"), ids=lambda case: case["name"])
def test_backup_vector(case):
    if "manifest" in case:
        data = case["manifest"].encode()
        if case["outcome"] == "ok":
            assert seal_manifest(KEY, open_manifest(KEY, data)) == data
        else:
            refuse(case, lambda: open_manifest(KEY, data))
        return
    place = PartHeader(**(case["part"] | {"keyring": bytes.fromhex(case["part"]["keyring"])}))
    data = bytes.fromhex(case["object"])
    if case["outcome"] == "ok":
        assert open_part(KEY, place, data).hex() == case["plaintext"]
    else:
        refuse(case, lambda: open_part(KEY, place, data))


@settings(deadline=None)
@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=5))
def test_every_cell_survives_and_keeps_its_type(rows):
    [section] = decode_tables(encode_tables([TableRows(table="t", columns=("a", "b"), rows=rows)]))
    assert [[(type(cell), cell) for cell in row] for row in section.rows] == [
        [(type(cell), cell) for cell in row] for row in rows
    ]


def test_contents_survive():
    assert list(decode_tables(encode_tables(tables()))) == tables()
    assert list(decode_objects(encode_objects(objects()))) == objects()
    assert list(decode_ranges(encode_ranges(ranges()), shared().of_kind("catalog"))) == ranges()
    for each in (manifest(), shared()):
        assert decode_manifest(encode_manifest(each, bytes(32))) == (each, bytes(32))


@pytest.mark.parametrize(
    "value",
    [1, [1], [["t", ["a"], [[1, 2]]]], [["t", [1], []]], [["t", ["a"], [1]]], [["t", ["a"], [[["x"]]]]],
     [["t", ["a"], [[["1"]]]]], [["t", ["a"], [[{}]]]]],
)  # fmt: skip
def test_other_tables_are_refused(value):
    with pytest.raises(FormatError):
        decode_tables(codec.pack(value))


@pytest.mark.parametrize("value", [1, [1], [["r", [], 0, "c", []]], [[]]])
def test_other_objects_are_refused(value):
    with pytest.raises(FormatError):
        decode_objects(codec.pack(value))


DIGEST = b"d" * 32


@pytest.mark.parametrize(
    "value",
    [1, [1], [["t", "", DIGEST, 0]], [["t", "", b"d", 0, 1]], [["t", "", DIGEST, -1, 1]], [["t", "a", DIGEST, 0, 1]],
     [["t", "", DIGEST, 0, 0]], [["t", "", DIGEST, 0, 2]], [["t", "", DIGEST, 0, -1], ["t", "a", DIGEST, 0, 1]],
     [["t", "", DIGEST, 0, 1], ["t", "", DIGEST, 0, 0]], [["t", "b", DIGEST, 0, 1], ["t", "a", DIGEST, 0, 0]]],
)  # fmt: skip
def test_other_ranges_are_refused(value):
    with pytest.raises(FormatError):
        decode_ranges(codec.pack(value), manifest().of_kind("catalog"))


def test_the_tags_of_a_stretch_are_told_from_all_others():
    pages = [("a", b"1"), ("b", b"2"), ("c", b"3")]
    tags = PageTags(base=b"base", tags={"t": pages})
    same = tags.digest("t", "b", "c")
    assert PageTags(base=b"base", tags={"t": [("a", b"9"), ("b", b"2"), ("c", b"9")]}).digest("t", "b", "c") == same
    others = [
        PageTags(base=b"else", tags={"t": pages}).digest("t", "b", "c"),
        PageTags(base=b"base", tags={"t": [("b", b"9")]}).digest("t", "b", "c"),
        PageTags(base=b"base", tags={"t": [("b", b"2"), ("bb", b"2")]}).digest("t", "b", "c"),
        tags.digest("t", "b", None),
        tags.digest("t", "", "c"),
        tags.digest("u", "b", "c"),
    ]
    assert len({same, *others}) == 1 + len(others)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_are_taken_for_a_part_or_a_manifest(data):
    with pytest.raises(IntegrityError):
        open_part(KEY, header(), data)
    with pytest.raises(IntegrityError):
        open_manifest(KEY, data)


def test_two_parts_of_one_text_share_no_byte_of_their_messages():
    one, other = (seal_part(KEY, header(), b"x" * 64, salt=bytes([n]) * 24) for n in (1, 2))
    assert one[-80:] != other[-80:]
    assert PartHeader(backup=BACKUP, keyring=KEYRING, kind="catalog", index=0) == header()


def test_a_backups_id_says_when_it_began():
    at = datetime(2026, 11, 25, 1, 2, 3, 456000, tzinfo=UTC)
    assert backup_began(new_id("bak", at=at, entropy=bytes)) == at
    with pytest.raises(Invalid):
        check_backup("rec_" + "0" * 32)
