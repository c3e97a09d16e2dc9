"""Object names: each place has exactly one name, and each name one place (docs/format.md, "Object names")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from vault.errors import FormatError, Invalid
from vault.ids import RecordingId, TenantId, parse_tenant
from vault.model import MANIFEST_INDEX

ROOT: Final = "v1/"
MAX_INDEX: Final = 999_999
MAX_PERIOD: Final = (1 << 48) - 1

_MANIFEST = str(MANIFEST_INDEX)
_RECORDING = re.compile(r"rec_[0-9a-f]{32}")
_ATTEMPT = re.compile(r"[0-9a-f]{32}")
_PREFIX = re.compile(r"v1/([^/]+)/(0|[1-9][0-9]{0,14})/([^/]+)/([^/]+)")
_SEGMENT = re.compile(r"([0-9]{6})-([^-]+)\.seg")


def check_recording(text: str) -> RecordingId:
    """Return `text` as a recording id (`rec_` and 32 lower-case hex digits); FormatError."""
    if not _RECORDING.fullmatch(text):
        raise FormatError("a recording id is rec_ followed by 32 lower-case hex digits")
    return RecordingId(text)


def check_attempt(text: str) -> str:
    """Return `text` as an attempt id (32 lower-case hex digits); FormatError."""
    if not _ATTEMPT.fullmatch(text):
        raise FormatError("an attempt id is 32 lower-case hex digits")
    return text


def check_index(index: int) -> int:
    """Return `index` if it is a segment index, 0 to 999999; FormatError."""
    if not 0 <= index <= MAX_INDEX:
        raise FormatError(f"segment index {index} is outside 0..{MAX_INDEX}")
    return index


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentName:
    """The place that a segment's name states."""

    tenant: TenantId
    period: int
    recording: RecordingId
    index: int
    attempt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestName:
    """The place that a manifest's name states."""

    tenant: TenantId
    period: int
    recording: RecordingId


def tenant_prefix(tenant: TenantId) -> str:
    """Return the prefix of all object names of one tenant."""
    return f"{ROOT}{_tenant(tenant)}/"


def recording_prefix(tenant: TenantId, period: int, recording: RecordingId) -> str:
    """Return the prefix of all object names of one recording, which no other recording's names have."""
    return f"{period_prefix(tenant, period)}{check_recording(recording)}/"


def period_prefix(tenant: TenantId, period: int) -> str:
    """Return the prefix of all object names of a tenant's recordings of one audio period."""
    if not 0 <= period <= MAX_PERIOD:
        raise FormatError(f"period {period} is out of range")
    return f"{tenant_prefix(tenant)}{period}/"


def segment_name(tenant: TenantId, period: int, recording: RecordingId, index: int, attempt: str) -> str:
    """Return a segment's name. Each attempt has its own name, so a retry does not overwrite an earlier object."""
    prefix = recording_prefix(tenant, period, recording)
    return f"{prefix}{check_index(index):06d}-{check_attempt(attempt)}.seg"


def manifest_name(tenant: TenantId, period: int, recording: RecordingId) -> str:
    """Return the name of a recording's manifest."""
    return f"{recording_prefix(tenant, period, recording)}manifest"


def object_below(prefix: str, index: int, attempt: str) -> str:
    """Return the name of an object below the prefix of its recording, whose index and attempt are known to be right."""
    return prefix + tail_below(str(index), attempt)


def tail_below(index: str, attempt: str) -> str:
    """Return what `object_below` puts after the prefix, for an index in decimal."""
    return "manifest" if index == _MANIFEST else f"{index:0>6}-{attempt}.seg"


def parse_name(name: str) -> SegmentName | ManifestName:
    """Return the place that `name` states; FormatError for a string that the functions above do not produce."""
    match = _PREFIX.fullmatch(name)
    if match is None:
        raise FormatError("not an object name of this vault")
    tenant, period, recording = _tenant(match[1]), int(match[2]), check_recording(match[3])
    if match[4] == "manifest":
        parsed: SegmentName | ManifestName = ManifestName(tenant=tenant, period=period, recording=recording)
        again = manifest_name(tenant, period, recording)
    elif (tail := _SEGMENT.fullmatch(match[4])) is not None:
        index, attempt = int(tail[1]), check_attempt(tail[2])
        parsed = SegmentName(tenant=tenant, period=period, recording=recording, index=index, attempt=attempt)
        again = segment_name(tenant, period, recording, index, attempt)
    else:
        raise FormatError("an object name ends in <index>-<attempt>.seg or manifest")
    if again != name:
        raise FormatError("an object name, but not in canonical form")
    return parsed


def parse_segment_name(name: str) -> SegmentName:
    """Return the place that a segment's name states; FormatError for any other string, also a manifest's name."""
    parsed = parse_name(name)
    if not isinstance(parsed, SegmentName):
        raise FormatError("a manifest's name where a segment's is expected")
    return parsed


def _tenant(text: str) -> TenantId:
    try:
        return parse_tenant(text)
    except Invalid as error:
        raise FormatError("an object name with an impossible tenant") from error
