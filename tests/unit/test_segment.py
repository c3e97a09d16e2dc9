"""Segment objects: header, place, sealing, ranged reads."""

import hashlib

import pytest

from tests.vectors.make_manifest import three
from tests.vectors.make_segment import KEY, SALT, coordinate, header, header_json
from vault.crypto import chunked
from vault.crypto.derive import Purpose, subkey
from vault.crypto.sealed import HEAD_BYTES, SegmentOpener, open_segment, seal_manifest, seal_segment
from vault.errors import FormatError, IntegrityError, Tampered, TooLarge, Truncated
from vault.format import codec
from vault.format.codec import MAX_HEADER_BYTES, frame, unframe
from vault.format.names import MAX_INDEX, MAX_PERIOD
from vault.format.segment import (
    MAX_NUMBER,
    SegmentPlace,
    decode_header,
    encode_header,
    parse_segment,
    segment_frame,
)
from vault.ids import RecordingId, TenantId
from vault.model import Cohort, Coordinate, DataKey, Part, SegmentRef

AUDIO = b"Good morning, admissions office."
OTHER_PLACES = {
    "recording": {"recording": RecordingId("rec_" + "0" * 32)},
    "index": {"index": 42},
    "offset": {"offset": 0},
    "attempt": {"attempt": "f" * 32},
    "leaf": {"coordinate": coordinate(leaf=8)},
    "tenant": {"coordinate": coordinate(tenant="southgate")},
    "created": {"created_ms": 1},
}


def sealed(plaintext=AUDIO, **changes):
    return bytes(seal_segment(KEY, header(**changes), plaintext, salt=SALT))


def pattern(length):
    return (bytes(range(251)) * (length // 251 + 1))[:length]


def test_a_header_survives():
    assert decode_header(encode_header(header())) == header()


def test_the_longest_header_fits_the_first_read():
    cohort = Cohort(tenant=TenantId("t" * 63), part=Part.TRANSCRIPT, period=MAX_PERIOD, generation=(1 << 32) - 1)
    longest = header(
        part=Part.TRANSCRIPT,
        index=MAX_INDEX,
        offset=MAX_NUMBER,
        coordinate=Coordinate(cohort=cohort, leaf=(1 << 32) - 1),
        created_ms=MAX_NUMBER,
    )
    assert len(segment_frame(longest)) + chunked.PREFIX_BYTES < HEAD_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"recording": "hold_" + "0" * 32},
        {"part": Part.METADATA},
        {"index": -1},
        {"index": 1_000_000},
        {"offset": -1},
        {"offset": 1 << 53},
        {"attempt": "0" * 31},
        {"attempt": "0" * 31 + "G"},
        {"coordinate": coordinate(tenant="northgate", leaf=1 << 32)},
        {"created_ms": -1},
    ],
    ids=str,
)
def test_an_impossible_header_cannot_be_made(change):
    with pytest.raises(FormatError):
        header(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": True},
        {"part": "video"},
        {"part": "metadata"},
        {"index": "41"},
        {"index": None},
        {"attempt": b"0" * 32},
        {"coordinate": ["northgate", "audio", 1, 1]},
        {"coordinate": "northgate"},
        {"created_ms": -1},
        {"extra": 1},
    ],
    ids=str,
)
def test_bytes_of_an_impossible_header_are_refused(change):
    with pytest.raises(FormatError):
        decode_header(codec.pack(header_json(header()) | change))


def test_a_header_without_one_of_its_fields_is_refused():
    for field in header_json(header()):
        rest = {key: value for key, value in header_json(header()).items() if key != field}
        with pytest.raises(FormatError):
            decode_header(codec.pack(rest))


def test_the_frame_is_the_documented_one():
    assert frame(b"CVS1", b"abc") == b"CVS1\x00\x00\x00\x03abc"
    assert unframe(b"CVS1", b"CVS1\x00\x00\x00\x03abcmessage") == (b"abc", 11)


@pytest.mark.parametrize("size", [0, MAX_HEADER_BYTES + 1])
def test_a_header_of_impossible_length_is_neither_framed_nor_read(size):
    with pytest.raises(FormatError):
        frame(b"CVS1", bytes(size))
    with pytest.raises(FormatError, match="bound is 4096"):
        unframe(b"CVS1", b"CVS1" + size.to_bytes(4, "big") + bytes(size))


def test_what_is_sealed_opens_in_its_place():
    for expected in (header(), header().place, None):
        assert open_segment(KEY, expected, sealed()) == (header(), AUDIO)


def test_the_place_of_a_catalogued_segment_is_its_headers():
    ref = SegmentRef(
        recording=header().recording,
        index=header().index,
        attempt=header().attempt,
        name=header().name,
        offset=header().offset,
        length=len(AUDIO),
        object_bytes=len(sealed()),
        sha256=hashlib.sha256(sealed()).hexdigest(),
    )
    assert SegmentPlace.of(ref, coordinate()) == header().place


def test_the_name_of_a_segment_states_its_place():
    assert header().name == f"v1/northgate/20512/{header().recording}/000041-{header().attempt}.seg"


@pytest.mark.parametrize("change", OTHER_PLACES.values(), ids=OTHER_PLACES)
def test_an_object_swapped_for_one_of_another_place_is_refused(change):
    data = sealed(**change)
    with pytest.raises(Tampered) as caught:
        open_segment(KEY, header(), data)
    assert caught.value.facts["cause"] == "position"
    opener = SegmentOpener(KEY, header(), length=len(AUDIO))
    with pytest.raises(Tampered) as caught:
        opener.check_prefix(data)
    assert caught.value.facts["cause"] == "position"


@pytest.mark.parametrize("change", OTHER_PLACES.values(), ids=OTHER_PLACES)
def test_a_header_rewritten_to_the_expected_place_opens_nothing(change):
    moved = sealed(**change)
    start = parse_segment(moved)[2]
    with pytest.raises(Tampered, match="commitment"):
        open_segment(KEY, header(), segment_frame(header()) + moved[start:])


def test_a_place_does_not_compare_the_time_of_creation():
    assert open_segment(KEY, header().place, sealed(created_ms=5))[1] == AUDIO


def test_every_single_bit_flip_of_an_object_is_refused():
    data = sealed(b"hello")
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            open_segment(KEY, None, changed)


def test_every_truncation_of_an_object_is_refused():
    data = sealed(b"hello")
    for end in range(len(data)):
        with pytest.raises(IntegrityError):
            open_segment(KEY, None, data[:end])


def test_an_extended_object_is_refused():
    with pytest.raises(Tampered):
        open_segment(KEY, None, sealed() + b"\0")


def test_another_data_key_is_refused():
    with pytest.raises(Tampered):
        open_segment(DataKey(bytes(32)), header(), sealed())


def test_a_segments_key_is_not_a_manifests():
    with pytest.raises(Tampered):
        chunked.open_message(
            subkey(KEY, Purpose.MANIFEST), encode_header(header()), sealed()[len(segment_frame(header())) :]
        )


def test_a_failure_names_the_segment_and_says_that_nothing_was_returned():
    broken = bytearray(sealed())
    broken[-1] ^= 1
    with pytest.raises(Tampered, match=f"segment 41 of {header().recording} failed.*nothing of it was returned"):
        open_segment(KEY, header(), broken)
    with pytest.raises(Truncated, match=r"segment 41 of .* is cut short"):
        open_segment(KEY, header(), sealed()[: -len(AUDIO) - 1])


def test_a_segment_above_the_bound_or_without_a_byte_is_not_sealed(monkeypatch):
    monkeypatch.setattr("vault.crypto.sealed.MAX_SEGMENT_BYTES", 10)
    assert seal_segment(KEY, header(), [b"12345", b"67890"], salt=SALT)
    with pytest.raises(TooLarge, match="bound is 10"):
        seal_segment(KEY, header(), [b"12345", b"678901"], salt=SALT)
    with pytest.raises(ValueError, match="at least one byte"):
        seal_segment(KEY, header(), [], salt=SALT)


def test_a_ranged_read_needs_only_a_prefix_and_the_chunks_of_the_range():
    plain = pattern(100_000)
    data = sealed(plain)
    opener = SegmentOpener(KEY, header(), length=len(plain))
    assert opener.object_bytes == len(data)
    opener.check_prefix(data[: opener.prefix_bytes])
    for start, end in ((0, 1), (0, 0), (16_383, 16_385), (99_999, 100_000), (5, 99_000), (0, 100_000)):
        a, b = opener.ciphertext_range(start, end)
        assert b - a <= end - start + 2 * chunked.STRIDE_BYTES
        assert opener.open(start, end, data[a:b]) == plain[start:end]


def test_a_ranged_read_of_a_shortened_object_fails_at_its_end():
    data = sealed(pattern(40_000))
    opener = SegmentOpener(KEY, header(), length=40_000 - 100)
    opener.check_prefix(data[: opener.prefix_bytes])
    a, b = opener.ciphertext_range(0, opener.length)
    with pytest.raises(Tampered):
        opener.open(0, opener.length, data[a:b])


def test_nothing_opens_before_the_prefix_was_checked():
    opener = SegmentOpener(KEY, header(), length=len(AUDIO))
    with pytest.raises(ValueError, match="prefix has not been checked"):
        opener.open(0, 1, b"")


def test_a_prefix_of_another_attempt_is_refused_by_its_commitment():
    data = sealed()
    start = len(segment_frame(header()))
    other = bytes(seal_segment(KEY, header(attempt="f" * 32), AUDIO, salt=SALT))
    opener = SegmentOpener(KEY, header(), length=len(AUDIO))
    with pytest.raises(Tampered, match="commitment"):
        opener.check_prefix(data[:start] + other[len(segment_frame(header(attempt="f" * 32))) :])


def test_a_manifest_is_not_a_segment():
    from_manifest = seal_manifest(KEY, three(), salt=SALT)
    with pytest.raises(FormatError, match="CVS1"):
        open_segment(KEY, None, from_manifest)


def test_two_attempts_at_one_segment_share_no_ciphertext():
    one = sealed(bytes(1000))
    other = bytes(seal_segment(KEY, header(), bytes(1000), salt=bytes(24)))
    start = len(segment_frame(header())) + 56
    assert not {one[at : at + 16] for at in range(start, start + 900)} & {
        other[at : at + 16] for at in range(start, start + 900)
    }
