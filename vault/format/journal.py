"""Bytes of a journal file: header, record prefix, opening (docs/format.md, "Journal").

A file is a 64-byte header and records: `u32 length | u8 type | u32 handle | u64 seq | body`, big-endian; `length`
counts the body. Zeroes instead of a prefix end the file: it was allocated before it was written.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from typing import Final

from vault.errors import FormatError, Invalid, Truncated
from vault.format import codec
from vault.ids import RecordingId, id_bytes
from vault.model import Coordinate

MAGIC: Final = b"CVJ1"
VERSION: Final = 1
SALT_BYTES: Final = 32
HEADER_BYTES: Final = 64
PREFIX_BYTES: Final = 17
TAG_BYTES: Final = 16
OVERHEAD_BYTES: Final = PREFIX_BYTES + TAG_BYTES
"""The bytes that a record has beside its plaintext."""
MAX_PIECE_BYTES: Final = 1 << 20
MAX_OPENING_BYTES: Final = 4096
MAX_REASON_BYTES: Final = 1024
MAX_FILE_BYTES: Final = 1 << 30
"""The greatest size of a file. A replay reads a file into memory."""
MAX_NUMBER: Final = (1 << 53) - 1

OPEN: Final = 1
DATA: Final = 2
END: Final = 3

_FIELDS: Final = struct.Struct(">4sIQQ32s")
_PREFIX: Final = struct.Struct(">IBIQ")
_DIGEST_BYTES: Final = HEADER_BYTES - _FIELDS.size
_NAME: Final = re.compile(r"journal-([0-9]{12})\.cvj(\.damaged)?")
_BODY_BOUNDS: Final = {
    OPEN: (TAG_BYTES + 1, TAG_BYTES + MAX_OPENING_BYTES),
    DATA: (TAG_BYTES + 1, TAG_BYTES + MAX_PIECE_BYTES),
    END: (TAG_BYTES + 1, TAG_BYTES + MAX_REASON_BYTES),
}

pack_prefix = _PREFIX.pack
"""`(length, type, handle, seq) -> 17 bytes`. The prefix is authenticated with the record, and so is its place."""

PREFIX_PATTERN: Final = re.compile(rb"(?s)(?=\x00[\x00-\x10]..[\x01-\x03].{12})")
"""Matches where a record's prefix can begin, to find records after damaged bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHeader:
    """`number` orders the files of a directory, `salt` is fresh per file, `created_ms` is Unix milliseconds."""

    number: int
    created_ms: int
    salt: bytes


def encode_header(header: FileHeader) -> bytes:
    """Return the 64 bytes a file starts with: the fields and the first 8 bytes of their SHA-256."""
    if (
        len(header.salt) != SALT_BYTES
        or not 0 < header.number <= MAX_NUMBER
        or not 0 <= header.created_ms <= MAX_NUMBER
    ):
        raise FormatError("a journal header's field is out of range")
    data = _FIELDS.pack(MAGIC, VERSION, header.number, header.created_ms, header.salt)
    return data + hashlib.sha256(data).digest()[:_DIGEST_BYTES]


def decode_header(data: bytes) -> FileHeader:
    """Return the header at the start of a file. Truncated if it was not completely written, else FormatError.

    A header with a wrong digest is Truncated too, because an interrupted write leaves one.
    """
    head = bytes(data[:HEADER_BYTES])
    body = head[: _FIELDS.size]
    if len(head) < HEADER_BYTES or hashlib.sha256(body).digest()[:_DIGEST_BYTES] != head[_FIELDS.size :]:
        raise Truncated("the journal file's header is not whole")
    magic, version, number, created_ms, salt = _FIELDS.unpack(body)
    if magic != MAGIC:
        raise FormatError("not a journal file")
    if version != VERSION:
        raise FormatError(f"journal version {version} is not known; this code reads {VERSION}")
    if not 0 < number <= MAX_NUMBER or created_ms > MAX_NUMBER:
        raise FormatError("a journal header's field is out of range")
    return FileHeader(number=number, created_ms=created_ms, salt=salt)


@dataclass(frozen=True, slots=True)
class Prefix:
    """One record's prefix; `length` counts its body."""

    length: int
    kind: int
    handle: int
    seq: int


def decode_prefix(data: bytes, position: int) -> Prefix | None:
    """Return the prefix at `position`; None unless its type is known, its length possible and its body complete."""
    if position + PREFIX_BYTES > len(data):
        return None
    length, kind, handle, seq = _PREFIX.unpack_from(data, position)
    bounds = _BODY_BOUNDS.get(kind)
    if bounds is None or not bounds[0] <= length <= bounds[1] or position + PREFIX_BYTES + length > len(data):
        return None
    if not handle or (seq == 0) is not (kind == OPEN):
        return None
    return Prefix(length, kind, handle, seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What an OPEN record states in clear: the recording under its handle, from plaintext byte `offset` on.

    Bytes before `released` were in the object store when it was written, so a replay does not need them.
    """

    recording: RecordingId
    coordinate: Coordinate
    offset: int
    released: int


def encode_opening(opening: Opening) -> bytes:
    """Return the opening as canonical MessagePack and the first 8 bytes of its SHA-256; raises FormatError.

    The digest can be checked without a key. Without it a damaged coordinate could be taken for a shredded recording's.
    """
    packed = codec.pack(
        {
            "recording": opening.recording,
            "coordinate": codec.encode_coordinate(opening.coordinate),
            "offset": opening.offset,
            "released": opening.released,
        }
    )
    _check_opening(opening.recording, opening.offset, opening.released)
    if codec.decode_coordinate(codec.encode_coordinate(opening.coordinate)) != opening.coordinate:
        raise FormatError("a journal opening's coordinate does not survive its encoding")
    return packed + hashlib.sha256(packed).digest()[:_DIGEST_BYTES]


def decode_opening(data: bytes) -> Opening:
    """Return the opening that `encode_opening` wrote; FormatError."""
    packed = data[:-_DIGEST_BYTES]
    if hashlib.sha256(packed).digest()[:_DIGEST_BYTES] != data[-_DIGEST_BYTES:]:
        raise FormatError("a journal opening is not whole")
    recording, coordinate, offset, released = codec.fields(
        codec.unpack(packed), recording=str, coordinate=list, offset=int, released=int
    )
    _check_opening(recording, offset, released)
    return Opening(
        recording=RecordingId(recording),
        coordinate=codec.decode_coordinate(coordinate),
        offset=offset,
        released=released,
    )


def _check_opening(recording: str, offset: int, released: int) -> None:
    try:
        id_bytes(recording)
    except Invalid as error:
        raise FormatError("a journal opening names no recording") from error
    if not recording.startswith("rec_") or not 0 <= released <= offset <= MAX_NUMBER:
        raise FormatError("a journal opening's field is out of range")


def encode_reason(reason: str) -> bytes:
    """Return the plaintext of an END record: 1 to 1024 bytes of UTF-8; FormatError."""
    try:
        data = reason.encode()
    except UnicodeEncodeError as error:
        raise FormatError("an end reason is not Unicode") from error
    if not 0 < len(data) <= MAX_REASON_BYTES:
        raise FormatError(f"an end reason has 1 to {MAX_REASON_BYTES} bytes")
    return data


def file_name(number: int) -> str:
    """Return the name of journal file `number`; names sort in creation order."""
    return f"journal-{number:012d}.cvj"


def parse_file_name(name: str) -> tuple[int, bool] | None:
    """Return the file's number and whether it was set aside as damaged; None if it is not a journal file."""
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match[1]), match[2] is not None)
