"""A recording's manifest: its segments, media and end (docs/format.md, "Manifest").

The object is framed like a segment. Its header is in clear and has the Merkle root over the ciphertext hashes, so the
stored objects can be checked without a key, also after a shred.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from vault.errors import FormatError
from vault.format import codec
from vault.format.codec import frame, unframe
from vault.format.names import check_index, check_recording, manifest_name, parse_segment_name, segment_name
from vault.format.notes import Note, check_notes, note_of, note_value
from vault.format.segment import MAX_SEGMENT_BYTES, check_coordinate, check_number
from vault.ids import RecordingId, TenantId
from vault.model import Codec, Container, Coordinate, Media, RecordingState

MAGIC: Final = b"CVM1"
VERSION: Final = 1

_STATES = (RecordingState.SEALED.value, RecordingState.TRUNCATED.value)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST_BYTES = 32


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return MTH(leaves) of RFC 6962 section 2.1 over SHA-256; here a leaf is an object's SHA-256 (32 bytes).

    A leaf hashes as `0x00 | leaf`, a node as `0x01 | left | right`; without leaves the root is the SHA-256 of no bytes.
    Each level is paired from the left and an odd last node moves up unchanged. That gives the tree that the RFC defines
    by splitting at the largest power of two.
    """
    if not leaves:
        return hashlib.sha256().digest()
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [hashlib.sha256(b"\1" + left + right).digest() for left, right in pairs] + level[len(level) & ~1 :]
    return level[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestSegment:
    """One segment: plaintext `[offset, offset + length)`, the object's name, size and ciphertext SHA-256 in hex."""

    name: str
    index: int
    offset: int
    length: int
    object_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """At plaintext `offset`, `missing_ms` milliseconds of the call did not reach the vault."""

    offset: int
    missing_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogCopy:
    """The other values of the recording's catalog row, so that the row can be rebuilt from the object store."""

    call_key: str
    metadata: Coordinate
    created_ms: int
    retain_until_ms: int
    retention_class: str
    sealed_facts: bytes

    def __post_init__(self) -> None:
        check_coordinate(self.metadata)
        check_number(self.created_ms, "creation time")
        check_number(self.retain_until_ms, "retain-until")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestHeader:
    """The part of a manifest in clear: the recording, the coordinate of its key, the Merkle root of its objects."""

    recording: RecordingId
    coordinate: Coordinate
    merkle_root: bytes
    version: int = VERSION

    def __post_init__(self) -> None:
        _check_version(self.version)
        check_recording(self.recording)
        check_coordinate(self.coordinate)
        if len(self.merkle_root) != _DIGEST_BYTES:
            raise FormatError("a Merkle root is 32 bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A finished recording. Construction checks the following and raises FormatError.

    - `state` is "sealed", or "truncated" with a reason.
    - `length` and `sha256` (hex) are of the whole plaintext; times are Unix milliseconds.
    - Gaps have strictly ascending offsets; notes have ascending offsets, which may repeat.
    - Segments have ascending indexes and names of this recording; none is empty; together they cover `[0, length)`.
    - `merkle_root` is over the `sha256` of the segments in order.
    """

    recording: RecordingId
    coordinate: Coordinate
    state: str
    reason: str | None
    media: Media
    started_ms: int
    ended_ms: int
    length: int
    sha256: str
    gaps: tuple[Gap, ...]
    segments: tuple[ManifestSegment, ...]
    merkle_root: bytes
    catalog: CatalogCopy | None = None
    notes: tuple[Note, ...] = ()
    version: int = VERSION

    def __post_init__(self) -> None:
        _check_version(self.version)
        check_recording(self.recording)
        check_coordinate(self.coordinate)
        if self.state not in _STATES or (self.state == RecordingState.TRUNCATED and not self.reason):
            raise FormatError("a manifest is sealed, or truncated with a reason")
        check_number(self.started_ms, "start")
        check_number(self.ended_ms, "end")
        check_number(self.length, "recording length")
        check_number(self.media.rate, "sample rate")
        check_number(self.media.channels, "channel count")
        _check_sha256(self.sha256)
        _check_gaps(self.gaps, self.length)
        check_notes(self.notes, self.length)
        _check_segments(self)
        if self.merkle_root != merkle_root([bytes.fromhex(segment.sha256) for segment in self.segments]):
            raise FormatError("a manifest's Merkle root is not that of its segments")

    @property
    def tenant(self) -> TenantId:
        """The recording's tenant, as its coordinate states it."""
        return self.coordinate.cohort.tenant

    @property
    def name(self) -> str:
        """The object's name."""
        return manifest_name(self.tenant, self.coordinate.cohort.period, self.recording)

    @property
    def header(self) -> ManifestHeader:
        """The header of the object that carries this manifest."""
        return ManifestHeader(recording=self.recording, coordinate=self.coordinate, merkle_root=self.merkle_root)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the canonical bytes that are sealed into the manifest object."""
    media = manifest.media
    return codec.pack(
        {
            "version": manifest.version,
            "recording": manifest.recording,
            "coordinate": codec.encode_coordinate(manifest.coordinate),
            "state": manifest.state,
            "reason": manifest.reason,
            "media": {
                "container": media.container.value,
                "codec": media.codec.value,
                "rate": media.rate,
                "channels": media.channels,
                "channel_map": list(media.channel_map),
            },
            "started_ms": manifest.started_ms,
            "ended_ms": manifest.ended_ms,
            "length": manifest.length,
            "sha256": bytes.fromhex(manifest.sha256),
            "gaps": [[gap.offset, gap.missing_ms] for gap in manifest.gaps],
            "segments": [_encode_segment(segment) for segment in manifest.segments],
            "merkle_root": manifest.merkle_root,
            "catalog": _encode_catalog(manifest.catalog),
            **({"notes": [note_value(note) for note in manifest.notes]} if manifest.notes else {}),
        }
    )


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest that these bytes encode; FormatError for bytes that `encode_manifest` does not produce."""
    value: Any = codec.unpack(data)
    optional = {"reason": str, "catalog": dict}
    present = {key: kind for key, kind in optional.items() if isinstance(value, dict) and value.get(key) is not None}
    absent = {key: type(None) for key in optional if key not in present}
    noted = {"notes": list} if isinstance(value, dict) and "notes" in value else {}
    codec.fields(value, **_REQUIRED, **present, **absent, **noted)
    manifest = Manifest(
        version=value["version"],
        recording=RecordingId(value["recording"]),
        coordinate=codec.decode_coordinate(value["coordinate"]),
        state=value["state"],
        reason=value["reason"],
        media=_decode_media(value["media"]),
        started_ms=value["started_ms"],
        ended_ms=value["ended_ms"],
        length=value["length"],
        sha256=value["sha256"].hex(),
        gaps=tuple(_decode_gap(item) for item in value["gaps"]),
        segments=tuple(_decode_segment(item) for item in value["segments"]),
        merkle_root=value["merkle_root"],
        catalog=_decode_catalog(value["catalog"]),
        notes=tuple(note_of(item) for item in value.get("notes", ())),
    )
    if encode_manifest(manifest) != data:
        raise FormatError("a manifest, but not in canonical form")
    return manifest


def manifest_frame(header: ManifestHeader) -> tuple[bytes, bytes]:
    """Return the bytes before the object's message, and the header bytes, which are the message's context."""
    encoded = encode_manifest_header(header)
    return frame(MAGIC, encoded), encoded


def encode_manifest_header(header: ManifestHeader) -> bytes:
    """Return the header's canonical bytes."""
    return codec.pack(
        {
            "version": header.version,
            "recording": header.recording,
            "coordinate": codec.encode_coordinate(header.coordinate),
            "merkle_root": header.merkle_root,
        }
    )


def decode_manifest_header(data: bytes) -> ManifestHeader:
    """Return the header that these bytes encode; FormatError unless `encode_manifest_header` produces them."""
    version, recording, coordinate, root = codec.fields(
        codec.unpack(data), version=int, recording=str, coordinate=list, merkle_root=bytes
    )
    header = ManifestHeader(
        version=version,
        recording=RecordingId(recording),
        coordinate=codec.decode_coordinate(coordinate),
        merkle_root=root,
    )
    if encode_manifest_header(header) != data:
        raise FormatError("a manifest header, but not in canonical form")
    return header


def parse_manifest_object(data: bytes | bytearray | memoryview) -> tuple[ManifestHeader, bytes, int]:
    """Return header, header bytes and the offset of the message, from an object or its first bytes.

    Nothing is authenticated yet. FormatError or Truncated.
    """
    header_bytes, start = unframe(MAGIC, data)
    return decode_manifest_header(header_bytes), header_bytes, start


_REQUIRED: Final[dict[str, type]] = {
    "version": int,
    "recording": str,
    "coordinate": list,
    "state": str,
    "media": dict,
    "started_ms": int,
    "ended_ms": int,
    "length": int,
    "sha256": bytes,
    "gaps": list,
    "segments": list,
    "merkle_root": bytes,
}


def _check_version(version: int) -> None:
    if version != VERSION:
        raise FormatError(f"manifest version {version} is not known; this code reads {VERSION}")


def _check_sha256(text: str) -> None:
    if not _SHA256.fullmatch(text):
        raise FormatError("a SHA-256 is 64 lower-case hex digits")


def _check_gaps(gaps: Sequence[Gap], length: int) -> None:
    previous = -1
    for gap in gaps:
        if not previous < gap.offset <= length:
            raise FormatError("a manifest's gaps do not ascend inside the recording")
        if not check_number(gap.missing_ms, "gap"):
            raise FormatError("a gap of no duration")
        previous = gap.offset


def _check_segments(manifest: Manifest) -> None:
    cohort = manifest.coordinate.cohort
    end, previous = 0, -1
    for segment in manifest.segments:
        place = parse_segment_name(segment.name)
        name = segment_name(cohort.tenant, cohort.period, manifest.recording, check_index(segment.index), place.attempt)
        if segment.name != name:
            raise FormatError(f"segment {segment.index} is named as another recording's or another segment")
        if segment.index <= previous:
            raise FormatError(f"segment {segment.index} comes after segment {previous}")
        if segment.offset != end:
            raise FormatError(f"segment {segment.index} starts at byte {segment.offset}, the one before ends at {end}")
        if not 0 < segment.length <= MAX_SEGMENT_BYTES or not segment.length < segment.object_bytes:
            raise FormatError(f"segment {segment.index} has an impossible length")
        check_number(segment.object_bytes, "object size")
        _check_sha256(segment.sha256)
        end, previous = end + segment.length, segment.index
    if end != manifest.length:
        raise FormatError(f"the segments end at byte {end}, the recording at {manifest.length}")


def _encode_segment(segment: ManifestSegment) -> list[str | int | bytes]:
    digest = bytes.fromhex(segment.sha256)
    return [segment.name, segment.index, segment.offset, segment.length, segment.object_bytes, digest]


def _decode_segment(item: Any) -> ManifestSegment:
    name, index, offset, length, object_bytes, sha256 = _items(item, str, int, int, int, int, bytes)
    return ManifestSegment(
        name=name, index=index, offset=offset, length=length, object_bytes=object_bytes, sha256=sha256.hex()
    )


def _decode_gap(item: Any) -> Gap:
    offset, missing_ms = _items(item, int, int)
    return Gap(offset=offset, missing_ms=missing_ms)


def _decode_media(value: Any) -> Media:
    container, kind, rate, channels, channel_map = codec.fields(
        value, container=str, codec=str, rate=int, channels=int, channel_map=list
    )
    if container not in set(Container) or kind not in set(Codec):
        raise FormatError("a manifest names an unknown container or codec")
    if not all(isinstance(name, str) for name in channel_map):
        raise FormatError("a manifest's channel map is not a list of names")
    return Media(
        container=Container(container), codec=Codec(kind), rate=rate, channels=channels, channel_map=tuple(channel_map)
    )


def _encode_catalog(copy: CatalogCopy | None) -> dict[str, Any] | None:
    if copy is None:
        return None
    return {
        "call_key": copy.call_key,
        "metadata": codec.encode_coordinate(copy.metadata),
        "created_ms": copy.created_ms,
        "retain_until_ms": copy.retain_until_ms,
        "retention_class": copy.retention_class,
        "sealed_facts": copy.sealed_facts,
    }


def _decode_catalog(value: Any) -> CatalogCopy | None:
    if value is None:
        return None
    call_key, metadata, created_ms, retain_until_ms, retention_class, sealed_facts = codec.fields(
        value,
        call_key=str,
        metadata=list,
        created_ms=int,
        retain_until_ms=int,
        retention_class=str,
        sealed_facts=bytes,
    )
    return CatalogCopy(
        call_key=call_key,
        metadata=codec.decode_coordinate(metadata),
        created_ms=created_ms,
        retain_until_ms=retain_until_ms,
        retention_class=retention_class,
        sealed_facts=sealed_facts,
    )


def _items(item: Any, *kinds: type) -> list[Any]:
    if not isinstance(item, list) or [type(part) for part in item] != list(kinds):
        raise FormatError("a manifest's list has an entry of another shape")
    return item
