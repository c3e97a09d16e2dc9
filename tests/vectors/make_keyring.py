"""Keyring files: marker, head, index and page, sound and damaged."""

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

from tests.vectors.encoding import from_json, seed, to_json
from vault.crypto import ggm, spans
from vault.errors import FormatError, IntegrityError
from vault.format import keyring as fmt
from vault.format.codec import pack, unpack
from vault.ids import TenantId
from vault.keystore import sealing
from vault.keystore.replicas import Files
from vault.keystore.root import antiforensic, common, file
from vault.model import Cohort, Part

NAME = "keyring"
ABOUT = (
    "Keyring files by `kind`. `secret` is the epoch secret, `salt` starts a sealed index, `page_key` is the key that "
    "the index gives the page. `place` is what the file must be bound to. `plain` is the canonical MessagePack inside. "
    "In a split, `material` recovers `secret`, 64 bytes there. A root version is read under the name `version` and "
    "gives `root_key`; a wrapped key is `wrapped` under that key with the associated data `aad`, and gives `key`. "
    "Bytes are hex; in a list, a number is that many zero bytes."
)

ID = seed("keyring id", 16)
SECRET = seed("epoch secret")
SALT = seed("index salt")
ACME = TenantId("northgate")
AUDIO = Cohort(tenant=ACME, part=Part.AUDIO, period=20_512, generation=1)
MONTH = Cohort(tenant=ACME, part=Part.METADATA, period=24_312, generation=0)
PAGE_KEY = seed("page key")


def page():
    punctured = ggm.puncture(ggm.plant(seed("audio tree")), spans.points([7]))
    trees = {AUDIO: punctured.nodes, MONTH: ggm.plant(seed("month tree")).nodes}
    return fmt.PageRecord(tenant=ACME, cohorts=trees, pins={AUDIO: {seed("hold", 16): ((3, 5), (200, 200))}})


def index(older=(), trial=None):
    ref = fmt.PageRef(tenant=ACME, name="ab" * 16, sha256=seed("page hash"), key=PAGE_KEY)
    return fmt.Index(
        keyring=ID,
        epoch=3,
        revision=4,
        fence=2,
        generation=1,
        last_sweep_ms=1_764_000_000_000,
        swept_through=None,
        cohort_width_ms=86_400_000,
        lease_ms=15_000,
        backup_key=seed("backup key"),
        older_backup_keys=older,
        trial=trial,
        pages=(ref,),
    )


def head():
    return fmt.Head(
        keyring=ID,
        fence=2,
        epoch=3,
        revision=4,
        root="root-3",
        wrapped=seed("wrapped secret", 60),
        index="cd" * 16,
        index_sha256=seed("index hash"),
    )


def outcome(act):
    """Return what opening gave: recorded, and compared with what the case says it must be."""
    try:
        act()
    except FormatError:
        return "format"
    except IntegrityError:
        return "tampered"
    return "ok"


def marker_case(name, expected, data):
    assert outcome(lambda: fmt.decode_marker(data)) == expected
    return {"name": name, "kind": "marker", "outcome": expected, "file": data.hex()}


def head_case(name, expected, data, *, secret=SECRET):
    assert outcome(lambda: sealing.check_head(secret, *fmt.decode_head(data))) == expected
    return {"name": name, "kind": "head", "outcome": expected, "secret": secret.hex(), "file": data.hex()}


def index_case(name, expected, data, *, place=None, plain=None):
    place = place or head()
    assert outcome(lambda: sealing.open_index(SECRET, place, data)) == expected
    found = {
        "name": name,
        "kind": "index",
        "outcome": expected,
        "secret": SECRET.hex(),
        "place": {"keyring": place.keyring.hex(), "epoch": place.epoch, "revision": place.revision},
        "file": data.hex(),
    }
    return found | ({"plain": fmt.encode_index(plain or index()).hex()} if expected == "ok" else {})


def page_case(name, expected, data, *, tenant=ACME):
    assert outcome(lambda: sealing.open_page(PAGE_KEY, ID, tenant, data)) == expected
    found = {
        "name": name,
        "kind": "page",
        "outcome": expected,
        "page_key": PAGE_KEY.hex(),
        "place": {"keyring": ID.hex(), "tenant": tenant},
        "file": data.hex(),
    }
    return found | ({"plain": fmt.encode_page(page()).hex()} if expected == "ok" else {})


def plain_page_case(name, **values):
    data = pack({**unpack(fmt.encode_page(page())), **values})
    assert outcome(lambda: fmt.decode_page(data)) == "format"
    return {"name": name, "kind": "plain page", "outcome": "format", "file": data.hex()}


def node(depth, prefix):
    return bytes([depth]) + prefix.to_bytes(4, "big") + seed("node")


_ONE_TREE = {"cohorts": [["audio", 1, 0, bytes(5) + seed("node")]]}
_LONG = b"\0\x80\0"
_BEYOND = b"\x80\x80\x80\x80\x10\0"


def former_page_case(name):
    tag = seed("hold", 16)
    pins = [["audio", AUDIO.period, AUDIO.generation, first, last, tag] for first, last in ((3, 5), (200, 200))]
    data = pack({**unpack(fmt.encode_page(page())), "format": 1, "pins": pins})
    assert fmt.decode_page(data) == page()
    return {"name": name, "kind": "plain page", "outcome": "ok", "file": data.hex()}


def split_case():
    secret = seed("root secret", 64)
    material = antiforensic.split(secret, 4, lambda count: seed("noise", count))
    assert antiforensic.merge(material) == secret
    return {"name": "a split", "kind": "split", "outcome": "ok", "secret": secret.hex(), "material": material.hex()}


STORE = seed("root store", 8)
ROOT_KEY = seed("root key")
VERSION = f"{STORE.hex()}-{seed('root version', 8).hex()}"
TAG = sealing.version_tag(ID, 3)


def noise(count):
    """Return noise that is nearly all zeroes, so that a vector stays small; a reader cannot tell."""
    return seed("stripe 1", 64) + bytes(count // 2) + seed("a later stripe", 64) + bytes(count - count // 2 - 128)


def root_file(*, name=VERSION, root=ROOT_KEY):
    """Return the file of a root version, as the file provider writes it."""
    header = pack({"format": 1, "version": name, "tag": TAG, "created_ms": 1_764_000_000_000})
    secret = root + hashlib.sha256(header).digest()
    material = antiforensic.split(secret, file.MATERIAL_BYTES // antiforensic.STRIPE_BYTES, noise)
    return struct.pack(">4sI", b"CVRK", len(header)) + header + material


class OneFile(Files):
    """A root-key directory of one version, in memory."""

    def __init__(self, name, data):
        self.content = {file.MARKER: root_marker(), name: data}

    def names(self, _):
        return set(self.content)

    def read(self, path):
        return self.content[path.name]


def root_marker():
    return pack({"format": 1, "kind": "root keys", "store": STORE})


def read_root(version, data):
    """Return the root key in a version's file, as the file provider reads it."""
    keys = file.FileRootKeys(Path("/nowhere"), clock=None, files=OneFile(version, data))
    return keys._root(STORE.hex(), version)


def root_case(name, expected, data, *, version=VERSION):
    try:
        found = read_root(version, data)
    except FormatError:
        assert expected == "format", name
    else:
        assert (expected, found) == ("ok", ROOT_KEY), name
    answer = {"name": name, "kind": "root version", "outcome": expected, "version": version, "file": to_json(data)}
    return answer | ({"root_key": ROOT_KEY.hex(), "tag": TAG.hex()} if expected == "ok" else {})


def wrapped_case(name, expected, blob, *, version=VERSION, epoch=3):
    aad = sealing.wrap_aad(ID, epoch)
    assert outcome(lambda: common.unwrap_bytes(ROOT_KEY, version, blob, aad)) == expected, name
    found = {
        "name": name,
        "kind": "wrapped key",
        "outcome": expected,
        "root_key": ROOT_KEY.hex(),
        "version": version,
        "aad": aad.hex(),
        "wrapped": blob.hex(),
    }
    return found | ({"key": SECRET.hex()} if expected == "ok" else {})


def wrap():
    nonce = seed("wrap nonce", 12)
    return common.wrap_bytes(ROOT_KEY, VERSION, SECRET, sealing.wrap_aad(ID, 3), lambda _: nonce)


def roots():
    whole = root_file()
    spot = len(whole) - file.MATERIAL_BYTES + 100_000
    lost = whole[:spot] + bytes([whole[spot] ^ 1]) + whole[spot + 1 :]
    assert from_json(to_json(whole)) == whole
    other = f"{STORE.hex()}-{'0' * 16}"
    return [
        root_case("a root version", "ok", whole),
        root_case("a root version that lost one bit of its material", "format", lost),
        root_case("a root version that is cut short", "format", whole[:-1]),
        root_case("a root version under another name", "format", whole, version=other),
        wrapped_case("a wrapped key", "ok", wrap()),
        wrapped_case("a wrapped key of another root version", "tampered", wrap(), version=other),
        wrapped_case("a wrapped key of another epoch", "tampered", wrap(), epoch=4),
        wrapped_case("a wrapped key that is cut short", "tampered", wrap()[:11]),
    ]


def cases():
    marker = fmt.encode_marker(ID)
    body = head()
    sound_head = fmt.encode_head(body, sealing.head_mac(SECRET, body))
    moved = fmt.encode_head(replace(body, revision=5), sealing.head_mac(SECRET, body))
    trial, earnest = index(trial=True), index(trial=False)
    turned = index(older=(seed("the backup key before"), seed("the first backup key")))
    sealed_index = sealing.seal_index(SECRET, index(), SALT)
    sealed_page = sealing.seal_page(PAGE_KEY, ID, page())
    flip = bytes([sealed_page[-1] ^ 1])
    return [
        marker_case("a marker", "ok", marker),
        marker_case("a marker with a byte too many", "format", marker + b"\0"),
        head_case("a head", "ok", sound_head),
        head_case("a head moved to another revision", "tampered", moved),
        head_case("a head under another secret", "tampered", sound_head, secret=seed("another epoch secret")),
        head_case("a head that is cut short", "format", sound_head[:-1]),
        index_case("an index", "ok", sealed_index),
        index_case("an index after two rotations", "ok", sealing.seal_index(SECRET, turned, SALT), plain=turned),
        index_case("an index of a trial vault", "ok", sealing.seal_index(SECRET, trial, SALT), plain=trial),
        index_case(
            "an index of a vault that is no trial one", "ok", sealing.seal_index(SECRET, earnest, SALT), plain=earnest
        ),
        index_case("an index of another revision", "tampered", sealed_index, place=replace(body, revision=5)),
        index_case("an index of another epoch", "tampered", sealed_index, place=replace(body, epoch=4)),
        index_case("an index with another salt", "tampered", seed("another salt") + sealed_index[32:]),
        page_case("a page", "ok", sealed_page),
        page_case("a page of another tenant", "tampered", sealed_page, tenant=TenantId("southgate")),
        page_case("a page with its tag changed", "tampered", sealed_page[:-1] + flip),
        plain_page_case("a page without a node", cohorts=[["audio", 1, 0, b""]], pins=[]),
        plain_page_case("a node above another", cohorts=[["audio", 1, 0, node(0, 0) + node(1, 1)]], pins=[]),
        plain_page_case("nodes out of order", cohorts=[["audio", 1, 0, node(1, 1) + node(1, 0)]], pins=[]),
        plain_page_case("a node outside its depth", cohorts=[["audio", 1, 0, node(1, 2)]], pins=[]),
        plain_page_case("a pin without a cohort", cohorts=[], pins=[["audio", 1, 0, bytes(16), b"\0\0"]]),
        plain_page_case("half a run", **_ONE_TREE, pins=[["audio", 1, 0, bytes(16), b"\0"]]),
        plain_page_case(
            "a run's number with a byte too many", **_ONE_TREE, pins=[["audio", 1, 0, bytes(16), b"\0\x80\0"]]
        ),
        plain_page_case("a run beyond the last leaf", **_ONE_TREE, pins=[["audio", 1, 0, bytes(16), _BEYOND]]),
        former_page_case("a page of format 1"),
        split_case(),
        *roots(),
    ]
