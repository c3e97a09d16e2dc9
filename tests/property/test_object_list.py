"""Laws of lists of objects: a list gives back what it was made of, or is not made."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.errors import FormatError
from vault.format.names import manifest_name, segment_name
from vault.format.segment import pack_objects, unpack_objects
from vault.ids import RecordingId, TenantId
from vault.model import MANIFEST_INDEX, SegmentRef

RECORDING = RecordingId("rec_" + "0a" * 16)
TENANT = TenantId("northgate")
PERIOD = 20_512
SIZES = st.integers(1, 8 << 20)
BYTES = st.binary(min_size=16, max_size=16)


@st.composite
def objects(draw: st.DrawFn) -> list[SegmentRef]:
    """A recording's objects as its vault wrote them."""
    found: list[SegmentRef] = []
    if draw(st.booleans()):
        name = manifest_name(TENANT, PERIOD, RECORDING)
        sha256 = draw(st.binary(min_size=32, max_size=32)).hex()
        found.append(
            SegmentRef(
                recording=RECORDING,
                index=MANIFEST_INDEX,
                attempt="",
                name=name,
                offset=0,
                length=0,
                object_bytes=draw(SIZES),
                sha256=sha256,
            )
        )
    offset = 0
    for index in range(draw(st.integers(0, 5))):
        attempt, length = draw(BYTES).hex(), draw(SIZES)
        found.append(
            SegmentRef(
                recording=RECORDING,
                index=index,
                attempt=attempt,
                name=segment_name(TENANT, PERIOD, RECORDING, index, attempt),
                offset=offset,
                length=length,
                object_bytes=draw(SIZES),
                sha256=draw(st.binary(min_size=32, max_size=32)).hex(),
            )
        )
        offset += length
    return found


def rows_of(found: list[SegmentRef]) -> list[tuple]:
    return [
        (
            *(each.index, bytes.fromhex(each.attempt), each.offset),
            *(each.length, each.object_bytes, bytes.fromhex(each.sha256)),
        )
        for each in found
    ]


@given(found=objects())
def test_a_list_gives_back_the_objects_it_was_made_of(found: list[SegmentRef]) -> None:
    packed = pack_objects(rows_of(found))
    assert packed is not None
    assert len(packed) <= 2 + 54 * len(found)
    assert unpack_objects(RECORDING, TENANT, PERIOD, packed) == found
    # A hole, or a size beyond three bytes, takes the longer form, which is also that of earlier versions.
    for change in ({"index": 9}, {"object_bytes": 1 << 24}):
        if found and found[-1].index >= 0:
            last = replace(found[-1], **change)
            other = [*found[:-1], replace(last, name=segment_name(TENANT, PERIOD, RECORDING, last.index, last.attempt))]
            packed = pack_objects(rows_of(other))
            assert packed is not None
            assert len(packed) == 64 * len(other)
            assert unpack_objects(RECORDING, TENANT, PERIOD, packed) == other


@given(
    found=objects().filter(lambda found: any(each.index >= 0 for each in found)),
    change=st.sampled_from(
        [(1, b"a" * 15), (1, b"a" * 17), (2, 1), (3, -1), (3, 1 << 64), (5, b"a" * 31), (5, b"a" * 33), (1, b"")]
    ),
)
def test_what_a_list_would_not_give_back_is_made_into_none(found: list[SegmentRef], change: tuple[int, object]) -> None:
    place, value = change
    rows = rows_of(found)
    rows[-1] = (*rows[-1][:place], value, *rows[-1][place + 1 :])
    if place == 2 and sum(each.length for each in found[:-1]) == value:
        return
    assert pack_objects(rows) is None


def test_a_manifest_with_an_attempt_or_a_length_is_made_into_none() -> None:
    for attempt, offset, length in ((b"a" * 16, 0, 0), (b"", 1, 0), (b"", 0, 1)):
        assert pack_objects([(MANIFEST_INDEX, attempt, offset, length, 7, bytes(32))]) is None
    assert pack_objects([(MANIFEST_INDEX, b"", 0, 0, 7, bytes(32))] * 2) is not None


@pytest.mark.parametrize(
    "packed",
    [
        b"x" * 63,
        b"\xff" * 64,
        b"\xff\xff\xff\xfe" + bytes(60),
        b"\1",
        b"\1\2",
        b"\1\1" + bytes(34),
        b"\1\0" + bytes(53),
    ],
)
def test_what_is_no_list_of_objects_is_refused(packed: bytes) -> None:
    with pytest.raises(FormatError):
        unpack_objects(RECORDING, TENANT, PERIOD, packed)
