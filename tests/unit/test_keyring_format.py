from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import generate
from tests.vectors.encoding import from_json
from tests.vectors.make_keyring import read_root
from vault.errors import FormatError, Tampered
from vault.format import keyring as fmt
from vault.format.codec import pack, unpack
from vault.ids import TenantId
from vault.keystore import sealing
from vault.keystore.root import antiforensic, common
from vault.model import Cohort, Part

ID = bytes(range(16))
ACME = TenantId("acme")
COHORT = Cohort(tenant=ACME, part=Part.AUDIO, period=20_000, generation=1)
HEAD = fmt.Head(
    keyring=ID,
    fence=2,
    epoch=3,
    revision=4,
    root="v3",
    wrapped=b"w" * 60,
    index="0f" * 16,
    index_sha256=b"h" * 32,
)
REF = fmt.PageRef(tenant=ACME, name="ab" * 16, sha256=b"s" * 32, key=b"secret page key of 32 bytes long")
INDEX = fmt.Index(
    keyring=ID,
    epoch=3,
    revision=4,
    fence=2,
    generation=1,
    last_sweep_ms=1_700_000_000_000,
    swept_through=None,
    cohort_width_ms=86_400_000,
    lease_ms=15_000,
    backup_key=b"secret backup key, also 32 bytes",
    pages=(REF, replace(REF, tenant=TenantId("beta"), name="cd" * 16)),
)
PAGE = fmt.PageRecord(
    tenant=ACME,
    cohorts={COHORT: {(1, 0): b"a" * 32, (32, 0xFFFFFFFF): b"b" * 32}, replace(COHORT, period=1): {(0, 0): b"c" * 32}},
    pins={COHORT: {b"t" * 16: ((1, 5), (7, 7), (400, 70_000)), b"u" * 16: ((0, 0xFFFFFFFF),)}},
)
LAYOUTS = [
    (fmt.encode_marker(ID), lambda data: fmt.encode_marker(fmt.decode_marker(data))),
    (fmt.encode_head(HEAD, b"m" * 32), lambda data: fmt.encode_head(*fmt.decode_head(data))),
    (fmt.encode_index(INDEX), lambda data: fmt.encode_index(fmt.decode_index(data))),
    (fmt.encode_page(PAGE), lambda data: fmt.encode_page(fmt.decode_page(data))),
]


def test_every_layout_reads_back_as_written():
    assert fmt.decode_marker(fmt.encode_marker(ID)) == ID
    assert fmt.decode_head(fmt.encode_head(HEAD, b"m" * 32)) == (HEAD, b"m" * 32)
    assert fmt.decode_index(fmt.encode_index(INDEX)) == INDEX
    assert fmt.decode_page(fmt.encode_page(PAGE)) == PAGE


@given(st.sampled_from(LAYOUTS), st.data())
def test_any_changed_byte_is_refused_or_is_itself_canonical(layout, data):
    encoded, again = layout
    at = data.draw(st.integers(0, len(encoded) - 1))
    changed = bytearray(encoded)
    changed[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(FormatError):
        assert again(bytes(changed)) == bytes(changed)


@given(st.sampled_from(LAYOUTS), st.binary(max_size=200))
def test_arbitrary_bytes_are_a_format_error(layout, junk):
    encoded, again = layout
    for data in (junk, encoded[:-1], encoded + b"\0"):
        with pytest.raises(FormatError):
            again(data)


@pytest.mark.parametrize("trial", [None, False, True])
def test_an_index_says_trial_not_trial_or_is_older_than_the_mark(trial):
    index = replace(INDEX, trial=trial)
    assert ("trial" in unpack(fmt.encode_index(index))) is (trial is not None)
    assert fmt.decode_index(fmt.encode_index(index)) == index


def altered(encoded: bytes, **values: object) -> bytes:
    return pack({**unpack(encoded), **values})


@pytest.mark.parametrize(
    "values",
    [
        {"epoch": 0},
        {"epoch": True},
        {"revision": -1},
        {"index": "../../etc/passwd"},
        {"index_sha256": b"short"},
        {"keyring": b"short"},
        {"fence": -1},
        {"fence": True},
        {"format": 1},
    ],
)
def test_an_impossible_head_is_refused(values):
    with pytest.raises(FormatError):
        fmt.decode_head(pack([altered(fmt.head_body(HEAD), **values), b"m" * 32]))


@pytest.mark.parametrize(
    "values",
    [
        {"last_sweep_ms": [1, 2]},
        {"last_sweep_ms": [True]},
        {"swept_through": [-1]},
        {"cohort_width_ms": 0},
        {"generation": 1 << 32},
        {"fence": -1},
        {"lease_ms": 0},
        {"backup_key": b"short"},
        {"older_backup_keys": []},
        {"older_backup_keys": [b"short"]},
        {"older_backup_keys": b"not a list of them, but 32 bytes"},
        {"trial": None},
        {"trial": 1},
        {"format": 1},
        {"pages": [["beta", "cd" * 16, b"s" * 32, b"k" * 32], ["acme", "ab" * 16, b"s" * 32, b"k" * 32]]},
        {"pages": [["acme", "ab" * 16, b"s" * 32, b"k" * 32]] * 2},
        {"pages": [["ACME", "ab" * 16, b"s" * 32, b"k" * 32]]},
        {"pages": [["acme", "../secret", b"s" * 32, b"k" * 32]]},
        {"pages": [["acme", "ab" * 16, b"s" * 32, b"k" * 31]]},
    ],
)
def test_an_impossible_index_is_refused(values):
    with pytest.raises(FormatError):
        fmt.decode_index(altered(fmt.encode_index(INDEX), **values))


def test_an_index_keeps_the_backup_keys_of_before_its_rotations():
    rotated = replace(INDEX, older_backup_keys=(b"b" * 32, b"a" * 32))
    assert fmt.decode_index(fmt.encode_index(rotated)) == rotated
    assert b"older_backup_keys" not in fmt.encode_index(INDEX)


def node(depth: int, prefix: int) -> bytes:
    return bytes([depth]) + prefix.to_bytes(4, "big") + b"n" * 32


@pytest.mark.parametrize(
    "nodes",
    [
        b"",
        node(0, 0)[:-1],
        node(0, 1),
        node(33, 0),
        node(0, 0) + node(1, 1),
        node(1, 1) + node(1, 0),
        node(1, 0) + node(1, 0),
        node(2, 1) + node(1, 0),
    ],
    ids=["empty", "short", "prefix", "depth", "ancestor", "order", "twice", "descendant"],
)
def test_a_cover_with_overlapping_or_misplaced_nodes_is_refused(nodes):
    with pytest.raises(FormatError):
        fmt.decode_page(altered(fmt.encode_page(PAGE), cohorts=[["audio", 20_000, 1, nodes]], pins=[]))


@pytest.mark.parametrize(
    "pin",
    [
        ["audio", 20_000, 1, 5, 1, b"t" * 16],
        ["audio", 20_000, 1, 0, 1 << 32, b"t" * 16],
        ["audio", 20_000, 1, 0, 1, b"t" * 15],
        ["audio", 20_000, 1, False, 1, b"t" * 16],
        ["audio", 9, 1, 0, 1, b"t" * 16],
        ["video", 20_000, 1, 0, 1, b"t" * 16],
    ],
)
def test_an_impossible_pin_of_the_former_format_is_refused(pin):
    with pytest.raises(FormatError):
        fmt.decode_page(altered(fmt.encode_page(PAGE), format=1, pins=[pin]))


@pytest.mark.parametrize(
    "pin",
    [
        ["audio", 20_000, 1, b"t" * 15, b"\0\0"],
        ["audio", 9, 1, b"t" * 16, b"\0\0"],
        ["video", 20_000, 1, b"t" * 16, b"\0\0"],
        ["audio", 20_000, 1, b"t" * 16, b""],
        ["audio", 20_000, 1, b"t" * 16, b"\0"],
        ["audio", 20_000, 1, b"t" * 16, b"\0\0\0"],
        ["audio", 20_000, 1, b"t" * 16, b"\0\x80"],
        ["audio", 20_000, 1, b"t" * 16, b"\0\x80\0"],
        ["audio", 20_000, 1, b"t" * 16, b"\0\x81\x80\0"],
        ["audio", 20_000, 1, b"t" * 16, b"\x80\x80\x80\x80\x10\0"],
        ["audio", 20_000, 1, b"t" * 16, b"\0\x80\x80\x80\x80\x80\x01"],
        ["audio", 20_000, 1, b"t" * 16, 3],
    ],
    ids=["tag", "cohort", "part", "none", "half", "odd", "cut", "zero", "longer", "beyond", "long", "number"],
)
def test_impossible_runs_of_pins_are_refused(pin):
    page = altered(fmt.encode_page(PAGE), pins=[pin])
    with pytest.raises(FormatError):
        fmt.decode_page(page)


def test_pins_of_a_page_are_in_order_each_tag_of_a_cohort_once():
    one, other = ["audio", 20_000, 1, b"t" * 16, b"\0\0"], ["audio", 20_000, 1, b"u" * 16, b"\0\0"]
    assert fmt.decode_page(altered(fmt.encode_page(PAGE), pins=[one, other])).pins[COHORT].keys() == {one[3], other[3]}
    for pins in ([other, one], [one, one]):
        with pytest.raises(FormatError):
            fmt.decode_page(altered(fmt.encode_page(PAGE), pins=pins))


def test_a_page_of_the_former_format_is_read_and_what_overlaps_or_adjoins_under_a_tag_is_one_run():
    leaves = [(1, 5), (2, 3), (6, 6), (9, 9)]
    pins = [["audio", 20_000, 1, first, last, b"t" * 16] for first, last in leaves]
    read = fmt.decode_page(altered(fmt.encode_page(PAGE), format=1, pins=pins))
    assert read == replace(PAGE, pins={COHORT: {b"t" * 16: ((1, 6), (9, 9))}})


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=50))
def test_any_runs_read_back_as_written(steps):
    runs, free = [], 0
    for gap, more in steps:
        runs.append((free + gap, free + gap + more))
        free = runs[-1][1] + 2
    page = replace(PAGE, pins={COHORT: {b"t" * 16: tuple(runs)}})
    assert fmt.decode_page(fmt.encode_page(page)) == page


def test_an_index_names_several_pages_of_a_tenant_in_a_format_of_its_own():
    several = replace(INDEX, pages=(REF, replace(REF, name="cd" * 16)))
    encoded = fmt.encode_index(several)
    assert (unpack(encoded)["format"], unpack(fmt.encode_index(INDEX))["format"]) == (3, 2)
    assert fmt.decode_index(encoded) == several
    for version, index in ((2, several), (3, INDEX)):
        with pytest.raises(FormatError):
            fmt.decode_index(altered(fmt.encode_index(index), format=version))


def test_key_material_is_never_printed():
    assert "secret" not in repr(INDEX)
    assert "aaaa" not in repr(PAGE)


def test_an_index_opens_only_with_its_secret_and_at_its_place():
    secret = b"u" * 32
    sealed = sealing.seal_index(secret, INDEX, b"z" * 32)
    assert sealing.open_index(secret, HEAD, sealed) == INDEX
    for other in (replace(HEAD, revision=5), replace(HEAD, epoch=4), replace(HEAD, keyring=b"o" * 16)):
        with pytest.raises(Tampered):
            sealing.open_index(secret, other, sealed)
    with pytest.raises(FormatError):
        sealing.open_index(secret, replace(HEAD, fence=3), sealed)
    with pytest.raises(Tampered):
        sealing.open_index(b"v" * 32, HEAD, sealed)
    with pytest.raises(Tampered):
        sealing.open_index(secret, HEAD, b"y" + sealed[1:])


def test_a_page_opens_only_with_its_key_and_for_its_tenant():
    sealed = sealing.seal_page(REF.key, ID, PAGE)
    assert sealing.open_page(REF.key, ID, ACME, sealed) == PAGE
    for key, keyring, tenant in ((b"k" * 32, ID, ACME), (REF.key, b"o" * 16, ACME), (REF.key, ID, TenantId("beta"))):
        with pytest.raises(Tampered):
            sealing.open_page(key, keyring, tenant, sealed)


def test_a_head_pointed_elsewhere_fails_its_mac():
    secret = b"u" * 32
    mac = sealing.head_mac(secret, HEAD)
    sealing.check_head(secret, HEAD, mac)
    with pytest.raises(Tampered):
        sealing.check_head(secret, replace(HEAD, index="1f" * 16), mac)


def test_only_root_versions_of_the_same_keyring_are_owned():
    tag = sealing.version_tag(ID, 7)
    assert len(tag) <= 64
    assert sealing.owns(ID, tag)
    assert not sealing.owns(b"o" * 16, tag)
    assert not sealing.owns(ID, tag + b"x")
    assert not sealing.owns(ID, b"backup of the web server")


def opened(case: dict) -> bytes | None:
    """Return the plaintext a vector's file holds, None where a kind has none to compare."""
    data = from_json(case.get("file", ""))
    place = case.get("place", {})
    match case["kind"]:
        case "marker":
            fmt.decode_marker(data)
        case "head":
            sealing.check_head(bytes.fromhex(case["secret"]), *fmt.decode_head(data))
        case "index":
            facts = {**place, "keyring": bytes.fromhex(place["keyring"])}
            found = sealing.open_index(bytes.fromhex(case["secret"]), replace(HEAD, **facts), data)
            return fmt.encode_index(found)
        case "page":
            key, keyring = bytes.fromhex(case["page_key"]), bytes.fromhex(place["keyring"])
            return fmt.encode_page(sealing.open_page(key, keyring, TenantId(place["tenant"]), data))
        case "plain page":
            fmt.decode_page(data)
        case "split":
            assert antiforensic.merge(bytes.fromhex(case["material"])).hex() == case["secret"]
        case "root version":
            assert read_root(case["version"], data).hex() == case["root_key"]
        case "wrapped key":
            root, blob, aad = (bytes.fromhex(case[name]) for name in ("root_key", "wrapped", "aad"))
            assert common.unwrap_bytes(root, case["version"], blob, aad).hex() == case["key"]
        case kind:
            raise AssertionError(kind)
    return None


@pytest.mark.parametrize("case", generate.load("keyring"), ids=lambda case: case["name"])
def test_stored_vectors_have_their_outcome(case):
    error = {"tampered": Tampered, "format": FormatError}.get(case["outcome"])
    if error is not None:
        with pytest.raises(error):
            opened(case)
        return
    plain = opened(case)
    assert plain == (bytes.fromhex(case["plain"]) if "plain" in case else None)
