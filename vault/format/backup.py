"""Byte layouts and names of a backup (docs/format.md, "Backups").

A destination is an object store. `pool/` has the objects of the vault under their own names. `snapshots/<backup>/` has
one backup: sealed parts and a manifest, which is written last. A backup without a manifest does not exist.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import rfc8785

from vault.errors import FormatError, Invalid
from vault.format import codec
from vault.format.codec import frame, unframe
from vault.ids import RecordingId, id_time
from vault.model import Coordinate

MAGIC: Final = b"CVB1"
SCHEMA: Final = "callvault/backup/v2"
SCHEMA_1: Final = "callvault/backup/v1"
"""Of backups whose parts all lie under their own prefix; it is no longer written."""
POOL: Final = "pool/"
SNAPSHOTS: Final = "snapshots/"
PRUNING: Final = "pruning/"
MANIFEST: Final = "manifest.json"
STARTED: Final = "started"
CATALOG: Final = "catalog"
OBJECTS: Final = "objects"
ISSUER: Final = "issuer"
RANGES: Final = "ranges"

_KINDS: Final = (CATALOG, OBJECTS, ISSUER, RANGES)
_BACKUP: Final = re.compile(r"bak_[0-9a-f]{32}")
_PART: Final = re.compile(r"snapshots/(bak_[0-9a-f]{32})/(catalog|objects|issuer|ranges)-([0-9]{6,})")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST_BYTES: Final = 32
_MAX_NUMBER: Final = (1 << 53) - 1
_MAC: Final = "mac"

Cell = int | float | str | bytes | bool | None
"""A value of a dumped table."""


def check_backup(text: str) -> str:
    """Return `text` if it is a backup id, `bak_` and 32 hex digits; raises Invalid."""
    if not _BACKUP.fullmatch(text):
        raise Invalid(f"{text[:80]!r} is not a backup's id", hint="callvault backup list shows them")
    return text


def backup_began(backup: str) -> datetime:
    """Return when the backup began, which its id states; raises Invalid."""
    return id_time(check_backup(backup))


def snapshot_prefix(backup: str) -> str:
    """Return the prefix of all object names of one backup."""
    return f"{SNAPSHOTS}{check_backup(backup)}/"


def manifest_name(backup: str) -> str:
    """Return the name of the manifest; the backup exists if it is present."""
    return snapshot_prefix(backup) + MANIFEST


def pool_name(name: str) -> str:
    """Return the name under which the pool has the object `name`."""
    return POOL + name


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHeader:
    """The place of a sealed part; its encoding is the context of the part's message."""

    backup: str
    keyring: bytes
    kind: str
    index: int

    @property
    def name(self) -> str:
        """The part's object name."""
        return f"{snapshot_prefix(self.backup)}{self.kind}-{self.index:06d}"

    @classmethod
    def named(cls, name: str, keyring: bytes) -> PartHeader:
        """Return the header that the part of this name must have; FormatError."""
        match = _PART.fullmatch(name)
        if match is None:
            raise FormatError("not the name of a backup's part")
        backup, kind, index = match.groups()
        return cls(backup=backup, keyring=keyring, kind=kind, index=int(index))


def part_frame(header: PartHeader) -> tuple[bytes, bytes]:
    """Return the bytes before the part's message, and the header bytes."""
    encoded = codec.pack(
        {
            "backup": header.backup,
            "index": header.index,
            "keyring": header.keyring,
            "kind": header.kind,
            "version": 1,
        }
    )
    return frame(MAGIC, encoded), encoded


def parse_part(data: bytes) -> tuple[PartHeader, bytes, int]:
    """Return header, header bytes and the message's offset, unauthenticated. Raises FormatError or Truncated."""
    encoded, start = unframe(MAGIC, data)
    backup, index, keyring, kind, version = codec.fields(
        codec.unpack(encoded), backup=str, index=int, keyring=bytes, kind=str, version=int
    )
    if version != 1 or kind not in _KINDS or not _BACKUP.fullmatch(backup):
        raise FormatError("not the header of a backup's part of version 1")
    return PartHeader(backup=backup, keyring=keyring, kind=kind, index=index), encoded, start


# -- contents of parts -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRows:
    """Some rows of one table; a row has one cell for each column."""

    table: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]


def encode_tables(sections: Sequence[TableRows]) -> bytes:
    """Return the plaintext of a catalog part: `[[table, columns, rows], …]`; a float is an array of one text."""
    return codec.pack(
        [
            [section.table, list(section.columns), [[_cell(cell) for cell in row] for row in section.rows]]
            for section in sections
        ]
    )


def decode_tables(data: bytes) -> Sequence[TableRows]:
    """Return the rows that `encode_tables` wrote; raises FormatError."""
    return [_section(item) for item in _list(codec.unpack(data))]


def _cell(cell: Cell) -> Any:
    return [repr(cell)] if isinstance(cell, float) else cell


def _uncell(item: Any) -> Cell:
    match item:
        case None | bool() | int() | str() | bytes():
            return item
        case [str() as text]:
            try:
                value = float(text)
            except ValueError as error:
                raise FormatError("a float in a catalog part is no number") from error
            if repr(value) != text:
                raise FormatError("a float in a catalog part is not in canonical form")
            return value
        case _:
            raise FormatError("a cell of a catalog part has another shape")


def _section(item: Any) -> TableRows:
    match item:
        case [str() as table, list() as columns, list() as rows] if all(isinstance(name, str) for name in columns):
            pass
        case _:
            raise FormatError("a section of a catalog part is [table, columns, rows]")
    decoded = [[_uncell(cell) for cell in _list(row)] for row in rows]
    if any(len(row) != len(columns) for row in decoded):
        raise FormatError("a row of a catalog part has another width than its columns")
    return TableRows(table=table, columns=tuple(columns), rows=decoded)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedObject:
    """One object of the pool: its own name, size and ciphertext SHA-256 in hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedRecording:
    """A recording's objects, the coordinate of its key, and the retention that the store records with them."""

    recording: RecordingId
    coordinate: Coordinate
    retain_until_ms: int
    retention_class: str
    objects: tuple[BackedObject, ...]


def encode_objects(recordings: Sequence[BackedRecording]) -> bytes:
    """Return the plaintext of an objects part."""
    return codec.pack(
        [
            [
                each.recording,
                codec.encode_coordinate(each.coordinate),
                each.retain_until_ms,
                each.retention_class,
                [[item.name, item.size, bytes.fromhex(item.sha256)] for item in each.objects],
            ]
            for each in recordings
        ]
    )


def decode_objects(data: bytes) -> Sequence[BackedRecording]:
    """Return the recordings that `encode_objects` wrote; raises FormatError."""
    return [_backed_recording(item) for item in _list(codec.unpack(data))]


def _backed_recording(item: Any) -> BackedRecording:
    match item:
        case [str() as recording, list() as coordinate, int() as retain, str() as kept_as, list() as objects]:
            return BackedRecording(
                recording=RecordingId(recording),
                coordinate=codec.decode_coordinate(coordinate),
                retain_until_ms=_number(retain),
                retention_class=kept_as,
                objects=tuple(_backed_object(each) for each in objects),
            )
        case _:
            raise FormatError("an entry of an objects part has another shape")


def _backed_object(item: Any) -> BackedObject:
    match item:
        case [str() as name, int() as size, bytes() as digest] if len(digest) == 32:  # noqa: PLR2004 - SHA-256
            return BackedObject(name=name, size=_number(size), sha256=digest.hex())
        case _:
            raise FormatError("an object of an objects part is [name, size, sha256]")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise FormatError("a backup's part holds no list where one belongs")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_NUMBER:
        raise FormatError("a number of a backup is out of range")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One sealed part as the manifest lists it."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRange:
    """The rows of a table from the page `start` to where its next range starts, and the parts that have them.

    `digest` is that of the pages' tags when the rows were read; it is empty if there are none to compare.
    """

    table: str
    start: str
    digest: bytes
    rows: int
    parts: tuple[Part, ...]


def encode_ranges(ranges: Sequence[RowRange]) -> bytes:
    """Return the plaintext of a ranges part: each range takes the next of the catalog parts."""
    return codec.pack([[each.table, each.start, each.digest, each.rows, len(each.parts)] for each in ranges])


def decode_ranges(data: bytes, parts: Sequence[Part]) -> Sequence[RowRange]:
    """Return the ranges that `encode_ranges` wrote; `parts` are the manifest's catalog parts. FormatError."""
    ranges: list[RowRange] = []
    taken = 0
    starts: dict[str, str] = {}
    for item in _list(codec.unpack(data)):
        match item:
            case [str() as table, str() as start, bytes() as digest, int() as rows, int() as count]:
                pass
            case _:
                raise FormatError("a range of a ranges part is [table, start, digest, rows, parts]")
        # A table's first range starts with its first page, and each later one further on.
        follows = start > starts[table] if table in starts else start == ""
        if len(digest) not in (0, _DIGEST_BYTES) or not follows:
            raise FormatError("the ranges of a ranges part do not follow each other")
        starts[table] = start
        chosen = tuple(parts[taken : taken + _number(count)])
        taken += len(chosen)
        if len(chosen) != count:
            raise FormatError("a ranges part names more parts than there are")
        ranges.append(RowRange(table=table, start=start, digest=digest, rows=_number(rows), parts=chosen))
    if taken != len(parts):
        raise FormatError("a ranges part names fewer parts than there are")
    return ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTags:
    """The tags of the catalog's pages at one instant: of each table the pages and their tags, in order.

    `base` is the tag of every page that is not among them. A page's rows have changed if its tag has.
    """

    base: bytes
    tags: Mapping[str, Sequence[tuple[str, bytes]]]

    def digest(self, table: str, start: str, end: str | None) -> bytes:
        """Return what stands for the tags of the pages from `start` to before `end`, None for the last ones."""
        pages = self.tags.get(table, ())
        low = bisect_left(pages, (start,))
        high = len(pages) if end is None else bisect_left(pages, (end,))
        return hashlib.sha256(codec.pack([self.base, [list(each) for each in pages[low:high]]])).digest()


# -- the manifest ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupManifest:
    """The content of one backup. `pool_objects` and `pool_bytes` are None if objects were left out.

    `counts` has the number of rows of each table. A part may be one that an earlier backup wrote.
    """

    backup: str
    keyring: str
    keyring_epoch: int
    created: str
    finished: str
    software: str
    schema_revision: str
    counts: Mapping[str, int]
    parts: tuple[Part, ...]
    pool_objects: int | None
    pool_bytes: int | None
    schema: str = SCHEMA

    def of_kind(self, kind: str) -> Sequence[Part]:
        """Return the parts of one kind in order."""
        return [part for part in self.parts if part.name.rpartition("/")[2].startswith(f"{kind}-")]


def manifest_body(manifest: BackupManifest) -> bytes:
    """Return the canonical JSON (RFC 8785) that the MAC is computed over."""
    return rfc8785.dumps(_document(manifest))


def encode_manifest(manifest: BackupManifest, mac: bytes) -> bytes:
    """Return the stored manifest: the body with a further member, `mac`, in hex."""
    return rfc8785.dumps({**_document(manifest), _MAC: mac.hex()})


def decode_manifest(data: bytes) -> tuple[BackupManifest, bytes]:
    """Return the manifest and its MAC, which is not verified here; raises FormatError."""
    try:
        document = json.loads(data)
        manifest = _from_document(document)
        mac = bytes.fromhex(document[_MAC])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError("not a backup's manifest") from error
    if encode_manifest(manifest, mac) != data:
        raise FormatError("a backup's manifest, but not in canonical form")
    return manifest, mac


def _document(manifest: BackupManifest) -> dict[str, Any]:
    return {
        "schema": manifest.schema,
        "backup": manifest.backup,
        "keyring": manifest.keyring,
        "keyring_epoch": manifest.keyring_epoch,
        "created": manifest.created,
        "finished": manifest.finished,
        "software": manifest.software,
        "schema_revision": manifest.schema_revision,
        "counts": dict(manifest.counts),
        "parts": [[part.name, part.size, part.sha256] for part in manifest.parts],
        "pool": None if manifest.pool_objects is None else [manifest.pool_objects, manifest.pool_bytes],
    }


def _from_document(document: Any) -> BackupManifest:
    schema = document["schema"]
    if schema not in (SCHEMA, SCHEMA_1):
        raise ValueError("another schema")
    objects, size = (None, None) if document["pool"] is None else map(_number, document["pool"])
    return BackupManifest(
        backup=check_backup(document["backup"]),
        keyring=document["keyring"],
        keyring_epoch=_number(document["keyring_epoch"]),
        created=document["created"],
        finished=document["finished"],
        software=document["software"],
        schema_revision=document["schema_revision"],
        counts={str(name): _number(count) for name, count in document["counts"].items()},
        parts=tuple(_part(item, document["backup"] if schema == SCHEMA_1 else None) for item in document["parts"]),
        pool_objects=objects,
        pool_bytes=size,
        schema=schema,
    )


def _part(item: Any, backup: str | None) -> Part:
    """Return one part; with `backup` it has to be that one's own."""
    name, size, sha256 = item
    found = _PART.fullmatch(name)
    if not found or found[1] != (backup or found[1]) or not _SHA256.fullmatch(sha256):
        raise ValueError("not a part of this backup")
    return Part(name=name, size=_number(size), sha256=sha256)
