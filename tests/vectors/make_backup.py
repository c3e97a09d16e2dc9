"""Parts and manifests of backups."""

from tests.vectors.encoding import seed
from tests.vectors.make_chunked import flipped
from tests.vectors.make_segment import RECORDING, coordinate
from vault.crypto.backup import seal_manifest, seal_part
from vault.format.backup import (
    SCHEMA,
    SCHEMA_1,
    BackedObject,
    BackedRecording,
    BackupManifest,
    Part,
    PartHeader,
    RowRange,
    TableRows,
    encode_objects,
    encode_ranges,
    encode_tables,
)
from vault.model import DataKey

NAME = "backup"
ABOUT = (
    "Backups under `backup_key`: with `part`, one sealed part that must be the one `part` describes, and its "
    "`plaintext`; else a stored manifest, as text."
)

KEY = DataKey(seed("backup key"))
KEYRING = seed("keyring id", 16)
BACKUP = "bak_01a21013adbb7533a86f3c25f96ea564"
EARLIER = "bak_01a20b5af3bb7533a86f3c25f96ea564"
SALT = seed("backup salt", 24)


def header(kind="catalog", index=0, backup=BACKUP):
    return PartHeader(backup=backup, keyring=KEYRING, kind=kind, index=index)


def tables():
    return [
        TableRows(table="settings", columns=("name", "value"), rows=[["a", "1"], ["b", "ü"]]),
        TableRows(
            table="tenants",
            columns=("id", "on", "retention", "blob", "none"),
            rows=[["t", True, 0.1, b"\x00\xff", None]],
        ),
        TableRows(table="numbers", columns=("n",), rows=[[-(1 << 63)], [(1 << 63) - 1], [-7.5e300]]),
    ]


def objects():
    item = BackedObject(name=f"v1/acme/20000/{RECORDING}/manifest", size=700, sha256=seed("object").hex())
    return [
        BackedRecording(
            recording=RECORDING,
            coordinate=coordinate(),
            retain_until_ms=1_764_000_000_000,
            retention_class="recording",
            objects=(item,),
        )
    ]


def manifest(**changes):
    values = {
        "backup": BACKUP,
        "keyring": KEYRING.hex(),
        "keyring_epoch": 7,
        "created": "2026-11-25T00:20:54.843799+00:00",
        "finished": "2026-11-25T00:20:55.041903+00:00",
        "software": "callvault 0.1.0",
        "schema_revision": "0001",
        "counts": {"settings": 2, "tenants": 1},
        "parts": (Part(name=header().name, size=100, sha256=seed("part").hex()),),
        "pool_objects": 1,
        "pool_bytes": 700,
        "schema": SCHEMA_1,
    }
    return BackupManifest(**(values | changes))


def shared():
    """Return a manifest with a part of an earlier backup."""
    names = [header(index=2, backup=EARLIER).name, header().name, header("ranges").name]
    parts = tuple(Part(name=name, size=100, sha256=seed(name).hex()) for name in names)
    return manifest(schema=SCHEMA, parts=parts)


def ranges():
    """Return ranges over the catalog parts of that manifest."""
    one, other = shared().of_kind("catalog")
    return [
        RowRange(table="recordings", start="", digest=seed("tags"), rows=5, parts=(one, other)),
        RowRange(table="recordings", start="019a0c1", digest=seed("other tags"), rows=0, parts=()),
        RowRange(table="settings", start="", digest=b"", rows=0, parts=()),
    ]


def part(name, outcome, sealed, *, expected=None, plaintext=None):
    place = expected or header()
    found = {
        "name": name,
        "outcome": outcome,
        "backup_key": KEY.material.hex(),
        "part": {"backup": place.backup, "keyring": place.keyring.hex(), "kind": place.kind, "index": place.index},
        "object": bytes(sealed).hex(),
    }
    return found if plaintext is None else found | {"plaintext": plaintext.hex()}


def stored(name, outcome, data):
    return {"name": name, "outcome": outcome, "backup_key": KEY.material.hex(), "manifest": data.decode()}


def cases():
    rows, listed = encode_tables(tables()), encode_objects(objects())
    sealed = seal_part(KEY, header(), rows, salt=SALT)
    whole = seal_manifest(KEY, manifest())
    later = seal_manifest(KEY, shared())
    stretches = encode_ranges(ranges())
    return [
        part("rows of a catalog", "ok", sealed, plaintext=rows),
        part(
            "a list of objects",
            "ok",
            seal_part(KEY, header("objects", 3), listed, salt=SALT),
            expected=header("objects", 3),
            plaintext=listed,
        ),
        part("last byte changed", "tampered", flipped(sealed, len(sealed) - 1)),
        part("salt changed", "tampered", flipped(sealed, len(sealed) - len(rows) - 16 - 56)),
        part("cut short", "truncated", sealed[: -20 - len(rows)]),
        part("another part's place", "wrong_position", sealed, expected=header(index=1)),
        part("another backup's", "wrong_position", sealed, expected=header(backup="bak_" + "0" * 32)),
        part("another magic", "format", b"CVS1" + sealed[4:]),
        stored("a manifest", "ok", whole),
        stored("a manifest without objects", "ok", seal_manifest(KEY, manifest(pool_objects=None, pool_bytes=None))),
        stored("another epoch", "tampered", whole.replace(b'"keyring_epoch":7', b'"keyring_epoch":8')),
        stored("another hash", "tampered", whole.replace(seed("part").hex().encode(), seed("trap").hex().encode())),
        stored("not canonical", "format", whole.replace(b'"backup":', b' "backup":')),
        part(
            "ranges of the catalog",
            "ok",
            seal_part(KEY, header("ranges"), stretches, salt=SALT),
            expected=header("ranges"),
            plaintext=stretches,
        ),
        stored("a manifest with a part of an earlier backup", "ok", later),
        stored("a part of an earlier backup in the first schema", "format", later.replace(b"backup/v2", b"backup/v1")),
        stored("a part that is none", "format", later.replace(b"catalog-000002", b"catalog-00000x")),
        stored("a member too many", "format", whole[:-1] + b',"zebra":1}'),
    ]
