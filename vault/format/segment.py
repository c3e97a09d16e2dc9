"""A segment object's header, and the list of a recording's objects that stays once they are deleted (docs/format.md).

The header bytes are the context of the message that follows, so a segment with a changed header cannot be opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError  # noqa: N812 - a class that the library spells small
from typing import Any, Final, TypeAlias

from vault.errors import FormatError
from vault.format import codec
from vault.format.codec import frame, unframe
from vault.format.names import check_attempt, check_index, check_recording, manifest_name, segment_name
from vault.ids import RecordingId, TenantId
from vault.model import MANIFEST_INDEX, Coordinate, Part, SegmentRef

# -- segment ------------------------------------------------------------------------------------------------------

MAGIC: Final = b"CVS1"
VERSION: Final = 1
MAX_SEGMENT_BYTES: Final = 8 << 20
"""The greatest number of plaintext bytes in a segment."""
MAX_NUMBER: Final = (1 << 53) - 1
"""The greatest offset, length or time; doubles, and so all JSON readers, represent it exactly."""


def check_number(value: int, what: str) -> int:
    """Return `value` if it is in 0..2^53-1; raises FormatError, which names it `what`."""
    if not 0 <= value <= MAX_NUMBER:
        raise FormatError(f"{what} {value} is out of range")
    return value


def check_coordinate(coordinate: Coordinate) -> list[str | int]:
    """Return the coordinate's encoding if that decodes to the same coordinate; raises FormatError."""
    encoded = codec.encode_coordinate(coordinate)
    if codec.decode_coordinate(encoded) != coordinate:
        raise FormatError("a coordinate does not survive its encoding")
    return encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPlace:
    """What a reader knows about a segment before reading it. An object that states another place is refused."""

    recording: RecordingId
    index: int
    offset: int
    attempt: str
    coordinate: Coordinate

    @classmethod
    def of(cls, ref: SegmentRef, coordinate: Coordinate) -> SegmentPlace:
        """Return the place of a segment in a catalog or a manifest; `coordinate` is that of the recording's part."""
        return cls(
            recording=ref.recording, index=ref.index, offset=ref.offset, attempt=ref.attempt, coordinate=coordinate
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """Where a segment belongs. `offset` counts the recording's plaintext bytes, `created_ms` is Unix milliseconds.

    `attempt` is 32 hex digits, new for each attempt to store a segment. Impossible values raise FormatError.
    """

    recording: RecordingId
    part: Part
    index: int
    offset: int
    attempt: str
    coordinate: Coordinate
    created_ms: int
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise FormatError(f"segment version {self.version} is not known; this code reads {VERSION}")
        check_recording(self.recording)
        check_index(self.index)
        check_number(self.offset, "segment offset")
        check_attempt(self.attempt)
        check_coordinate(self.coordinate)
        check_number(self.created_ms, "creation time")
        if self.part is not self.coordinate.cohort.part:
            raise FormatError("a segment's part is not the one its coordinate names")

    @property
    def place(self) -> SegmentPlace:
        """The members of the header that a reader knows in advance."""
        return SegmentPlace(
            recording=self.recording,
            index=self.index,
            offset=self.offset,
            attempt=self.attempt,
            coordinate=self.coordinate,
        )

    @property
    def name(self) -> str:
        """The object's name."""
        cohort = self.coordinate.cohort
        return segment_name(cohort.tenant, cohort.period, self.recording, self.index, self.attempt)


def encode_header(header: SegmentHeader) -> bytes:
    """Return the header's canonical bytes: the context of the message that follows them."""
    return codec.pack(
        {
            "version": header.version,
            "recording": header.recording,
            "part": header.part.value,
            "index": header.index,
            "offset": header.offset,
            "attempt": header.attempt,
            "coordinate": codec.encode_coordinate(header.coordinate),
            "created_ms": header.created_ms,
        }
    )


def decode_header(data: bytes) -> SegmentHeader:
    """Return the header that these bytes encode; FormatError for bytes that `encode_header` does not produce."""
    value: Any = codec.unpack(data)
    version, recording, part, index, offset, attempt, coordinate, created_ms = codec.fields(
        value,
        version=int,
        recording=str,
        part=str,
        index=int,
        offset=int,
        attempt=str,
        coordinate=list,
        created_ms=int,
    )
    if part not in set(Part):
        raise FormatError("a segment names an unknown part")
    header = SegmentHeader(
        version=version,
        recording=RecordingId(recording),
        part=Part(part),
        index=index,
        offset=offset,
        attempt=attempt,
        coordinate=codec.decode_coordinate(coordinate),
        created_ms=created_ms,
    )
    if encode_header(header) != data:
        raise FormatError("a segment header, but not in canonical form")
    return header


def segment_frame(header: SegmentHeader) -> bytes:
    """Return the bytes before the object's message."""
    return frame(MAGIC, encode_header(header))


def parse_segment(data: bytes | bytearray | memoryview) -> tuple[SegmentHeader, bytes, int]:
    """Return header, header bytes and the offset of the message, from an object or its first bytes.

    Nothing is authenticated yet. FormatError or Truncated.
    """
    header_bytes, start = unframe(MAGIC, data)
    return decode_header(header_bytes), header_bytes, start


# -- object list --------------------------------------------------------------------------------------------------

_OBJECT: Final = Struct(">i16sIQ32s")
_NO_ATTEMPT: Final = bytes(16)
_SHORT: Final = b"\x01"
"""Begins a list of objects in order from index 0, which need no index; no other list begins so."""
_SHORT_MANIFEST: Final = Struct(">3s32s")
_SHORT_SEGMENT: Final = Struct(">16s3s3s32s")

_Object: TypeAlias = tuple[int, bytes, int, int, int, bytes]
"""Index, attempt (none for a manifest), offset, length, size and digest."""


def pack_objects(objects: Sequence[_Object]) -> bytes | None:
    """Return a recording's objects as one value; None where that would not give all of them back as they are.

    An object is its index, its attempt (no bytes for a manifest), its offset, its length, its size and its digest.
    """
    # Without other objects in between: a sweep passes millions of these.
    for pack, unpack in ((_pack_short, _unpack_short), (_pack_long, _unpack_long)):
        try:
            packed = pack(objects)
            if [*unpack(packed)] == objects:
                return packed
        except (FormatError, OverflowError, StructError, ValueError):
            continue
    return None


def unpack_objects(recording: RecordingId, tenant: TenantId, period: int, packed: bytes) -> Sequence[SegmentRef]:
    """Return the objects that `pack_objects` was given; FormatError for what it does not produce.

    Names follow from the recording, its tenant and its period, and offsets from the lengths before them.
    """
    unpack = _unpack_short if packed[:1] == _SHORT else _unpack_long
    found: list[SegmentRef] = []
    for index, raw_attempt, offset, length, size, sha256 in unpack(packed):
        attempt = raw_attempt.hex()
        if index == MANIFEST_INDEX:
            name = manifest_name(tenant, period, recording)
        else:
            name = segment_name(tenant, period, recording, index, attempt)
        found.append(
            SegmentRef(
                recording=recording,
                index=index,
                attempt=attempt,
                name=name,
                offset=offset,
                length=length,
                object_bytes=size,
                sha256=sha256.hex(),
            )
        )
    return found


def _pack_long(objects: Sequence[_Object]) -> bytes:
    return b"".join(
        _OBJECT.pack(index, attempt, length, size, sha256) for index, attempt, _, length, size, sha256 in objects
    )


def _unpack_long(packed: bytes) -> Iterator[_Object]:
    if len(packed) % _OBJECT.size:
        raise FormatError(f"a list of objects has {_OBJECT.size} bytes for each")
    offset = 0
    for index, attempt, length, size, sha256 in _OBJECT.iter_unpack(packed):
        if index != MANIFEST_INDEX:
            yield index, attempt, offset, length, size, sha256
            offset += length
        elif attempt == _NO_ATTEMPT and not length:
            yield index, b"", 0, 0, size, sha256
        else:
            raise FormatError("a manifest in a list of objects has neither attempt nor length")


def _pack_short(objects: Sequence[_Object]) -> bytes:
    manifest = [each for each in objects if each[0] == MANIFEST_INDEX]
    return b"".join(
        (
            _SHORT,
            bytes([len(manifest)]),
            *(_SHORT_MANIFEST.pack(size.to_bytes(3), sha256) for *_, size, sha256 in manifest),
            *(
                _SHORT_SEGMENT.pack(attempt, length.to_bytes(3), size.to_bytes(3), sha256)
                for index, attempt, _, length, size, sha256 in objects
                if index != MANIFEST_INDEX
            ),
        )
    )


def _unpack_short(packed: bytes) -> Iterator[_Object]:
    start, offset, manifest = 2, 0, packed[1:2]
    try:
        if manifest == b"\x01":
            size, sha256 = _SHORT_MANIFEST.unpack_from(packed, start)
            yield MANIFEST_INDEX, b"", 0, 0, int.from_bytes(size), sha256
            start += _SHORT_MANIFEST.size
        elif manifest != b"\x00":
            raise FormatError("a list of objects has one manifest at most")
        for index, (attempt, length, size, sha256) in enumerate(_SHORT_SEGMENT.iter_unpack(packed[start:])):
            yield index, attempt, offset, int.from_bytes(length), int.from_bytes(size), sha256
            offset += int.from_bytes(length)
    except StructError as error:
        raise FormatError("a list of objects ends within one of them") from error
