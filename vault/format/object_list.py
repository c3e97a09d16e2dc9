"""The list of a recording's objects as one value, which the catalog keeps once they are deleted (docs/format.md)."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from struct import error as StructError  # noqa: N812 - a class that the library spells small
from typing import Final

from vault.errors import FormatError
from vault.format.names import manifest_name, segment_name
from vault.ids import RecordingId, TenantId
from vault.model import MANIFEST_INDEX, SegmentRef

_OBJECT: Final = Struct(">i16sIQ32s")
_NO_ATTEMPT: Final = bytes(16)


def pack_objects(recording: RecordingId, tenant: TenantId, period: int, objects: Sequence[SegmentRef]) -> bytes | None:
    """Return a recording's objects as one value; None where that would not give all of them back as they are."""
    try:
        packed = b"".join(
            _OBJECT.pack(ref.index, bytes.fromhex(ref.attempt), ref.length, ref.object_bytes, bytes.fromhex(ref.sha256))
            for ref in objects
        )
        again = unpack_objects(recording, tenant, period, packed)
    except (FormatError, StructError, ValueError):
        return None
    return packed if again == list(objects) else None


def unpack_objects(recording: RecordingId, tenant: TenantId, period: int, packed: bytes) -> Sequence[SegmentRef]:
    """Return the objects that `pack_objects` was given; FormatError for what it does not produce.

    Names follow from the recording, its tenant and its period, and offsets from the lengths before them.
    """
    if len(packed) % _OBJECT.size:
        raise FormatError(f"a list of objects has {_OBJECT.size} bytes for each")
    found: list[SegmentRef] = []
    offset = 0
    for index, raw_attempt, length, size, sha256 in _OBJECT.iter_unpack(packed):
        if index == MANIFEST_INDEX:
            if raw_attempt != _NO_ATTEMPT or length:
                raise FormatError("a manifest in a list of objects has neither attempt nor length")
            attempt, name, start = "", manifest_name(tenant, period, recording), 0
        else:
            attempt, start = raw_attempt.hex(), offset
            name = segment_name(tenant, period, recording, index, attempt)
        found.append(
            SegmentRef(
                recording=recording,
                index=index,
                attempt=attempt,
                name=name,
                offset=start,
                length=length,
                object_bytes=size,
                sha256=sha256.hex(),
            )
        )
        offset += length
    return found
