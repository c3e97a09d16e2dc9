"""Manifests: what one promises, and the Merkle root that needs no key."""

import dataclasses
import hashlib

import pytest

from tests.vectors.encoding import seed
from tests.vectors.make_manifest import SALT, manifest, segment, three
from tests.vectors.make_segment import KEY, RECORDING, coordinate
from vault.crypto.sealed import open_manifest, seal_manifest
from vault.errors import FormatError, IntegrityError, Tampered
from vault.format import codec
from vault.format.manifest import (
    Gap,
    decode_manifest,
    decode_manifest_header,
    encode_manifest,
    encode_manifest_header,
    merkle_root,
    parse_manifest_object,
)
from vault.ids import RecordingId
from vault.model import DataKey


def root(segments):
    return merkle_root([bytes.fromhex(item.sha256) for item in segments])


def with_segments(*segments, length=None):
    return manifest(segments=segments, **({} if length is None else {"length": length}))


def changed(item, **changes):
    return dataclasses.replace(item, **changes)


@pytest.mark.parametrize("value", [three(), manifest(), with_segments(segment(0, 0, 5))], ids=["full", "empty", "one"])
def test_a_manifest_survives(value):
    assert decode_manifest(encode_manifest(value)) == value
    assert open_manifest(KEY, RECORDING, coordinate(), seal_manifest(KEY, value, salt=SALT)) == value


def test_a_manifest_knows_its_tenant_and_name():
    assert three().tenant == "northgate"
    assert three().name == f"v1/northgate/20512/{RECORDING}/manifest"


@pytest.mark.parametrize(
    ("segments", "length"),
    [
        ([segment(0, 1, 5)], 6),
        ([segment(0, 0, 5), segment(1, 6, 5)], 11),
        ([segment(0, 0, 5), segment(1, 6, 5)], 10),
        ([segment(0, 0, 5), segment(1, 4, 5)], 9),
        ([segment(0, 0, 5), segment(1, 0, 5)], 5),
        ([segment(1, 0, 5), segment(0, 5, 5)], 10),
        ([segment(0, 0, 5), segment(0, 5, 5)], 10),
        ([segment(0, 0, 5)], 4),
        ([segment(0, 0, 5)], 6),
        ([], 1),
        ([segment(0, 0, 0)], 0),
        ([segment(0, 0, (8 << 20) + 1)], (8 << 20) + 1),
        ([changed(segment(0, 0, 5), index=-1)], 5),
        ([changed(segment(0, 0, 5), object_bytes=5)], 5),
        ([changed(segment(0, 0, 5), object_bytes=1 << 53)], 5),
        ([changed(segment(0, 0, 5), name=segment(1, 0, 5).name)], 5),
        ([changed(segment(0, 0, 5), name=segment(0, 0, 5).name.replace("northgate", "southgate"))], 5),
        ([changed(segment(0, 0, 5), name=segment(0, 0, 5).name.replace("20512", "20513"))], 5),
        ([changed(segment(0, 0, 5), name=segment(0, 0, 5).name.replace(RECORDING, "rec_" + "0" * 32))], 5),
        ([changed(segment(0, 0, 5), name=three().name)], 5),
    ],
)
def test_segments_that_do_not_tile_the_recording_are_refused(segments, length):
    with pytest.raises(FormatError):
        with_segments(*segments, length=length)


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64])
def test_a_digest_that_is_not_64_hex_digits_is_refused(digest):
    with pytest.raises(FormatError):
        manifest(sha256=digest)
    odd = changed(segment(0, 0, 5), sha256=digest)
    with pytest.raises(FormatError):
        dataclasses.replace(with_segments(segment(0, 0, 5)), segments=(odd,))


@pytest.mark.parametrize(
    "gaps",
    [
        (Gap(offset=-1, missing_ms=1),),
        (Gap(offset=16_486, missing_ms=1),),
        (Gap(offset=5, missing_ms=0),),
        (Gap(offset=5, missing_ms=-1),),
        (Gap(offset=5, missing_ms=1), Gap(offset=5, missing_ms=1)),
        (Gap(offset=6, missing_ms=1), Gap(offset=5, missing_ms=1)),
    ],
    ids=str,
)
def test_gaps_outside_the_recording_or_out_of_order_are_refused(gaps):
    with pytest.raises(FormatError):
        dataclasses.replace(three(), gaps=gaps)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"recording": RecordingId("rec_1")},
        {"state": "open"},
        {"state": "truncated", "reason": None},
        {"state": "truncated", "reason": ""},
        {"started_ms": -1},
        {"ended_ms": 1 << 53},
        {"length": -1},
        {"merkle_root": bytes(32)},
        {"merkle_root": b""},
    ],
    ids=str,
)
def test_an_impossible_manifest_cannot_be_made(change):
    with pytest.raises(FormatError):
        dataclasses.replace(three(), **change)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", True),
        ("reason", 1),
        ("media", {}),
        ("media", {"container": "raw", "codec": "pcmu", "rate": 8000, "channels": 2, "channel_map": [1]}),
        ("media", {"container": "avi", "codec": "pcmu", "rate": 8000, "channels": 2, "channel_map": []}),
        ("media", {"container": "raw", "codec": "pcmu", "rate": -1, "channels": 2, "channel_map": []}),
        ("sha256", "0" * 64),
        ("sha256", b"short"),
        ("gaps", [[1]]),
        ("gaps", [1]),
        ("segments", [[]]),
        ("segments", [["name", 0, 0, 1, 9, "digest"]]),
        ("segments", {}),
        ("merkle_root", "0" * 64),
        ("catalog", []),
        ("catalog", {}),
        ("coordinate", []),
        ("unknown", 1),
    ],
)
def test_a_body_of_another_shape_is_refused(field, value):
    with pytest.raises(FormatError):
        decode_manifest(codec.pack(codec.unpack(encode_manifest(three())) | {field: value}))


def test_a_body_without_one_of_its_fields_is_refused():
    whole = codec.unpack(encode_manifest(three()))
    for field in whole:
        with pytest.raises(FormatError):
            decode_manifest(codec.pack({key: value for key, value in whole.items() if key != field}))


@pytest.mark.parametrize("value", [None, 1, [], "x"])
def test_a_body_that_is_no_map_is_refused(value):
    with pytest.raises(FormatError):
        decode_manifest(codec.pack(value))


def test_a_header_survives_and_needs_no_key():
    data = seal_manifest(KEY, three(), salt=SALT)
    header, context, start = parse_manifest_object(data)
    assert header == three().header == decode_manifest_header(encode_manifest_header(header))
    assert header.merkle_root == root(three().segments)
    assert data[8:start] == context


@pytest.mark.parametrize("change", [{"version": 2}, {"merkle_root": bytes(31)}, {"recording": "rec_"}, {"extra": 1}])
def test_an_impossible_header_is_refused(change):
    with pytest.raises(FormatError):
        decode_manifest_header(codec.pack(codec.unpack(encode_manifest_header(three().header)) | change))


def test_every_single_bit_flip_is_refused():
    data = seal_manifest(KEY, manifest(), salt=SALT)
    for bit in range(len(data) * 8):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            open_manifest(KEY, RECORDING, coordinate(), broken)


def test_every_truncation_is_refused():
    data = seal_manifest(KEY, manifest(), salt=SALT)
    for end in range(len(data)):
        with pytest.raises(IntegrityError):
            open_manifest(KEY, RECORDING, coordinate(), data[:end])


def test_another_recordings_manifest_is_refused():
    data = seal_manifest(KEY, three(), salt=SALT)
    for recording, where in ((RecordingId("rec_" + "0" * 32), coordinate()), (RECORDING, coordinate(leaf=8))):
        with pytest.raises(Tampered) as caught:
            open_manifest(KEY, recording, where, data)
        assert caught.value.facts["cause"] == "position"


def test_another_key_is_refused():
    with pytest.raises(Tampered, match=r"the manifest of rec_.*failed authentication"):
        open_manifest(DataKey(bytes(32)), RECORDING, coordinate(), seal_manifest(KEY, three(), salt=SALT))


def reference_root(leaves):
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + reference_root(leaves[:split]) + reference_root(leaves[split:])).digest()


def test_the_merkle_root_is_that_of_rfc_6962():
    leaves = [seed(f"leaf {number}") for number in range(70)]
    for count in range(71):
        assert merkle_root(leaves[:count]) == reference_root(leaves[:count])


def test_the_merkle_root_matches_published_values():
    # The test leaves of the Certificate Transparency reference implementation.
    leaves = [bytes.fromhex(leaf) for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
    leaves.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
    roots = {
        0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    for count, expected in roots.items():
        assert merkle_root(leaves[:count]).hex() == expected
