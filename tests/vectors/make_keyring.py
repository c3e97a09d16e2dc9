"""Keyring files: marker, head, index and page, sound and damaged."""

from dataclasses import replace

from tests.vectors.encoding import seed
from vault.crypto import ggm, spans
from vault.errors import FormatError, IntegrityError
from vault.format import keyring as fmt
from vault.format.codec import pack, unpack
from vault.ids import TenantId
from vault.keystore import antiforensic, sealing
from vault.model import Cohort, Part, Pin

NAME = "keyring"
ABOUT = (
    "Keyring files by `kind`. `secret` is the epoch secret, `salt` starts a sealed index, `page_key` is the key that "
    "the index gives the page. `place` is what the file must be bound to. `plain` is the canonical MessagePack inside. "
    "In a split, `material` recovers `secret`, which is 64 bytes there."
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
    pin = Pin(cohort=AUDIO, first=3, last=5, tag=seed("hold", 16))
    trees = {AUDIO: punctured.nodes, MONTH: ggm.plant(seed("month tree")).nodes}
    return fmt.PageRecord(tenant=ACME, cohorts=trees, pins=frozenset({pin}))


def index():
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


def index_case(name, expected, data, *, place=None):
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
    return found | ({"plain": fmt.encode_index(index()).hex()} if expected == "ok" else {})


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


def split_case():
    secret = seed("root secret", 64)
    material = antiforensic.split(secret, 4, lambda count: seed("noise", count))
    assert antiforensic.merge(material) == secret
    return {"name": "a split", "kind": "split", "outcome": "ok", "secret": secret.hex(), "material": material.hex()}


def cases():
    marker = fmt.encode_marker(ID)
    body = head()
    sound_head = fmt.encode_head(body, sealing.head_mac(SECRET, body))
    moved = fmt.encode_head(replace(body, revision=5), sealing.head_mac(SECRET, body))
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
        plain_page_case("a pin without a cohort", cohorts=[], pins=[["audio", 1, 0, 0, 0, bytes(16)]]),
        split_case(),
    ]
