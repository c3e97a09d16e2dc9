"""Every decoder is the inverse of its encoder and refuses everything else."""

import contextlib
import hashlib

from hypothesis import given
from hypothesis import strategies as st

from tests.vectors.make_manifest import manifest, segment
from vault.errors import FormatError
from vault.format import codec, names
from vault.format.manifest import Gap, decode_manifest, encode_manifest
from vault.format.segment import SegmentHeader, decode_header, encode_header
from vault.ids import RecordingId, TenantId
from vault.model import Cohort, Coordinate, Part

tenants = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True).map(TenantId)
recordings = st.binary(min_size=16, max_size=16).map(lambda raw: RecordingId(f"rec_{raw.hex()}"))
attempts = st.binary(min_size=16, max_size=16).map(bytes.hex)
coordinates = st.builds(
    lambda tenant, part, period, generation, leaf: Coordinate(
        cohort=Cohort(tenant=tenant, part=part, period=period, generation=generation), leaf=leaf
    ),
    tenants,
    st.sampled_from(Part),
    st.integers(0, (1 << 48) - 1),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 32) - 1),
)
headers = st.builds(
    lambda recording, index, offset, attempt, coordinate, created_ms: SegmentHeader(
        recording=recording,
        part=coordinate.cohort.part,
        index=index,
        offset=offset,
        attempt=attempt,
        coordinate=coordinate,
        created_ms=created_ms,
    ),
    recordings,
    st.integers(0, names.MAX_INDEX),
    st.integers(0, (1 << 53) - 1),
    attempts,
    coordinates,
    st.integers(0, (1 << 53) - 1),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(value=values)
def test_canonical_messagepack_survives(value):
    packed = codec.pack(value)
    assert codec.unpack(packed) == value
    assert codec.pack(codec.unpack(packed)) == packed


@given(data=st.binary(max_size=60))
def test_bytes_that_decode_are_the_only_ones_for_their_value(data):
    with contextlib.suppress(FormatError):
        assert codec.pack(codec.unpack(data)) == data


@given(header=headers)
def test_headers_survive(header):
    assert decode_header(encode_header(header)) == header


@given(header=headers, data=st.data())
def test_a_changed_header_is_refused_or_is_another_header(header, data):
    encoded = bytearray(encode_header(header))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(FormatError):
        changed = decode_header(bytes(encoded))
        assert changed != header
        assert encode_header(changed) == encoded


@given(header=headers)
def test_segment_names_survive(header):
    cohort = header.coordinate.cohort
    assert names.parse_segment_name(header.name) == names.SegmentName(
        tenant=cohort.tenant,
        period=cohort.period,
        recording=header.recording,
        index=header.index,
        attempt=header.attempt,
    )


@given(text=st.text(max_size=120) | st.from_regex(r"v1/[a-z]{1,3}/[0-9]{1,3}/rec_[0-9a-f]{32}/.{0,50}", fullmatch=True))
def test_strings_that_parse_are_the_only_ones_for_their_place(text):
    with contextlib.suppress(FormatError):
        place = names.parse_name(text)
        if isinstance(place, names.SegmentName):
            made = names.segment_name(place.tenant, place.period, place.recording, place.index, place.attempt)
        else:
            made = names.manifest_name(place.tenant, place.period, place.recording)
        assert made == text


@given(lengths=st.lists(st.integers(1, 8 << 20), max_size=20), data=st.data())
def test_manifests_survive(lengths, data):
    offsets = [sum(lengths[:count]) for count in range(len(lengths))]
    segments = [segment(index, offset, lengths[index]) for index, offset in enumerate(offsets)]
    marks = data.draw(st.lists(st.integers(0, sum(lengths)), unique=True, max_size=5).map(sorted))
    made = manifest(
        segments=segments,
        gaps=tuple(Gap(offset=mark, missing_ms=mark % 1000 + 1) for mark in marks),
        sha256=hashlib.sha256(bytes(len(lengths))).hexdigest(),
    )
    assert decode_manifest(encode_manifest(made)) == made


@given(data=st.binary(max_size=200))
def test_junk_is_never_a_manifest(data):
    with contextlib.suppress(FormatError):
        raise AssertionError(f"junk decoded to {decode_manifest(data)}")
