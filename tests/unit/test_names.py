"""Object names."""

import pytest

from vault.errors import FormatError
from vault.format import names
from vault.ids import RecordingId, TenantId

TENANT = TenantId("northgate")
RECORDING = RecordingId("rec_018f3a5c7d2e7b3a9c4d5e6f70819203")
ATTEMPT = "00112233445566778899aabbccddeeff"
SEGMENT = f"v1/northgate/20512/{RECORDING}/000041-{ATTEMPT}.seg"
MANIFEST = f"v1/northgate/20512/{RECORDING}/manifest"


def test_names_are_the_documented_ones():
    assert names.segment_name(TENANT, 20_512, RECORDING, 41, ATTEMPT) == SEGMENT
    assert names.manifest_name(TENANT, 20_512, RECORDING) == MANIFEST


def test_prefixes_nest():
    prefix = names.recording_prefix(TENANT, 20_512, RECORDING)
    assert SEGMENT.startswith(prefix)
    assert MANIFEST.startswith(prefix)
    assert prefix.startswith(names.tenant_prefix(TENANT))
    assert names.tenant_prefix(TENANT).startswith(names.ROOT)


def test_no_tenants_prefix_is_the_beginning_of_anothers():
    assert not names.tenant_prefix(TenantId("north-gate")).startswith(names.tenant_prefix(TenantId("north")))


def test_a_name_states_its_place():
    place = names.SegmentName(tenant=TENANT, period=20_512, recording=RECORDING, index=41, attempt=ATTEMPT)
    assert names.parse_segment_name(SEGMENT) == names.parse_name(SEGMENT) == place
    place = names.ManifestName(tenant=TENANT, period=20_512, recording=RECORDING)
    assert names.parse_name(MANIFEST) == place


def test_segments_sort_by_index():
    made = [names.segment_name(TENANT, 1, RECORDING, index, ATTEMPT) for index in (0, 9, 10, 99_999, 999_999)]
    assert made == sorted(made)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "v1/",
        SEGMENT + "\n",
        "/" + SEGMENT,
        SEGMENT.replace("v1", "v2"),
        SEGMENT.replace("northgate", "Northgate"),
        SEGMENT.replace("northgate", "north.gate"),
        SEGMENT.replace("northgate", ".."),
        SEGMENT.replace("20512", "020512"),
        SEGMENT.replace("20512", "-1"),
        SEGMENT.replace("20512", "\u0662"),
        SEGMENT.replace("20512", str(1 << 48)),
        SEGMENT.replace("20512", "9" * 15),
        SEGMENT.replace("rec_", "hold_"),
        SEGMENT.replace("rec_018f", "rec_018F"),
        SEGMENT.replace("000041", "41"),
        SEGMENT.replace("000041", "0000041"),
        SEGMENT.replace("000041", "-00041"),
        SEGMENT.replace("00112233", "0011223"),
        SEGMENT.replace("aabb", "AABB"),
        SEGMENT.replace(".seg", ""),
        SEGMENT.replace(".seg", "xseg"),
        MANIFEST + "/",
        MANIFEST + ".json",
        MANIFEST.replace("manifest", "manifest/manifest"),
    ],
)
def test_any_other_string_is_refused(name):
    with pytest.raises(FormatError):
        names.parse_name(name)


def test_a_manifests_name_is_no_segments():
    with pytest.raises(FormatError):
        names.parse_segment_name(MANIFEST)


@pytest.mark.parametrize(
    "change",
    [
        {"index": -1},
        {"index": 1_000_000},
        {"attempt": "x"},
        {"recording": "rec_1"},
        {"period": -1},
        {"period": 1 << 48},
    ],
    ids=str,
)
def test_a_name_is_never_made_for_an_impossible_place(change):
    place = {"tenant": TENANT, "period": 1, "recording": RECORDING, "index": 0, "attempt": ATTEMPT}
    with pytest.raises(FormatError):
        names.segment_name(**(place | change))


def test_a_tenant_cannot_climb_out_of_its_prefix():
    with pytest.raises(FormatError):
        names.tenant_prefix(TenantId("../other"))
