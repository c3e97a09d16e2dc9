"""Converts values of vault.model to rows and back."""

from __future__ import annotations

import json
from binascii import b2a_base64
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from json.encoder import encode_basestring
from typing import Any, Final

import rfc8785
import sqlalchemy as sa

from vault.certificates.attested import POLICY_VERSION, Policy
from vault.certificates.batch import pack_entries, unpack_entries
from vault.certificates.canonical import stamp_at
from vault.certificates.template import Lot
from vault.errors import FormatError, Invalid
from vault.format.names import SegmentName, object_below, parse_name, recording_prefix
from vault.ids import CertificateId, RecordingId, TenantId, id_bytes
from vault.model import (
    MANIFEST_INDEX,
    AuditEntry,
    AuditEvent,
    BatchPlace,
    CertificateStatus,
    Codec,
    Cohort,
    Container,
    Content,
    Coordinate,
    Examined,
    Media,
    Part,
    Recording,
    RecordingKeys,
    RecordingState,
    SegmentRef,
    StoredCertificate,
)
from vault.ports.audit import AuditLine
from vault.ports.shreds import BatchEntries, CertificateBatch
from vault.storage.catalog.tables import ROW

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PREFIX = "rec_"
_COLUMNS: Final = tuple(column.name for column in ROW)
_WHOLE: Final[Any] = namedtuple("_WHOLE", _COLUMNS)  # type: ignore[misc]  # noqa: PYI024  # the table's own columns
DAY: Final = 86_400_000_000
"""Microseconds of a day."""
HOUR: Final = 3_600_000_000
"""Microseconds of an hour."""

Values = dict[str, Any]


def micros(moment: datetime) -> int:
    """Return whole microseconds since the Unix epoch; `moment` carries its zone."""
    return (moment - _EPOCH) // _MICROSECOND


def maybe_micros(moment: datetime | None) -> int | None:
    """Return `micros`, or None for None."""
    return None if moment is None else micros(moment)


def moment(value: int) -> datetime:
    """Return the UTC time of `micros`."""
    return _EPOCH + timedelta(microseconds=value)


def maybe_moment(value: int | None) -> datetime | None:
    """Return `moment`, or None for None."""
    return None if value is None else moment(value)


def key(recording: RecordingId) -> bytes:
    """Return the 16 bytes by which a recording's rows are found; Invalid for any other text than a recording id."""
    if not recording.startswith(_PREFIX):
        raise Invalid(f"{recording[:80]!r} is not a recording id", hint="ids look like rec_ followed by 32 hex digits")
    return id_bytes(recording)


def recording_id(value: bytes) -> RecordingId:
    """Return the id that `key` came from."""
    return RecordingId(_PREFIX + value.hex())


def from_media(media: Media) -> Values:
    """Return the media columns of a recording."""
    return {
        "container": media.container.value,
        "codec": media.codec.value,
        "rate": media.rate,
        "channels": media.channels,
        "channel_map": json.dumps(media.channel_map, ensure_ascii=False, separators=(",", ":")),
    }


def from_examined(examined: Examined) -> Values:
    """Return the columns that a recording's first bytes decide."""
    content = None if examined.content is None else examined.content.value
    return {**from_media(examined.media), "content": content, "misdeclared_by": examined.recorder}


def whole_ms(duration: timedelta | None) -> int | None:
    """Return an optional duration in whole milliseconds, as stored."""
    return None if duration is None else duration // timedelta(milliseconds=1)


def is_live(values: Mapping[str, Any]) -> bool:
    """Tell whether audio or metadata of a recording is left; see `tables.IS_LIVE`."""
    kept = values["metadata_certificate_id"] is None and bool(values["sealed_facts"])
    return kept or values["state"] != RecordingState.SHREDDED.value


def own_token(recording: bytes) -> str:
    """Return what is stored as the call's token where that is the recording's id: the id in 22 characters."""
    return b2a_base64(recording, newline=False)[:22].decode()


def from_recording(recording: Recording) -> Values:
    """Return all columns of a new row; Invalid if its coordinates belong to another tenant or part."""
    audio, metadata = recording.audio.cohort, recording.metadata.cohort
    if (audio.tenant, audio.part, metadata.tenant, metadata.part) != (
        recording.tenant,
        Part.AUDIO,
        recording.tenant,
        Part.METADATA,
    ):
        raise Invalid(f"the coordinates of {recording.id} belong to another tenant or part; nothing was written")
    return {
        "id": key(recording.id),
        "tenant": recording.tenant,
        "call_token": own_token(key(recording.id)) if recording.call_token == recording.id else recording.call_token,
        "state": recording.state.value,
        "state_reason": recording.state_reason,
        "audio_period": audio.period,
        "audio_generation": audio.generation,
        "audio_leaf": recording.audio.leaf,
        "metadata_period": metadata.period,
        "metadata_generation": metadata.generation,
        "metadata_leaf": recording.metadata.leaf,
        **from_media(recording.media),
        "created_at": micros(recording.created_at),
        "started_at": micros(recording.started_at),
        "ended_at": maybe_micros(recording.ended_at),
        "retain_until": micros(recording.retain_until),
        "retention_class": recording.retention_class,
        "stored_bytes": recording.stored_bytes,
        "sealed_facts": recording.sealed_facts,
        "certificate_id": recording.certificate_id,
        "undeleted_since": None,
        "unconfirmed_since": None,
        "caller_token": recording.caller_token,
        "called_token": recording.called_token,
        "metadata_certificate_id": recording.metadata_certificate_id,
        "node": recording.node,
        "audio_commitment": recording.audio_commitment,
        "metadata_commitment": recording.metadata_commitment,
        "retention_period": recording.retention_period,
        "object_token": recording.object_token,
        "content": None if recording.content is None else recording.content.value,
        "misdeclared_by": None,
        "lasted_ms": whole_ms(recording.lasted),
    }


def to_recording(row: Sequence[Any]) -> Recording:
    """Return the recording of a whole row."""
    # A database row looks every name up, which takes half the time of a page; a named tuple has its names at hand.
    return _recording(_WHOLE._make(row))


def to_keys(row: sa.Row[Any]) -> RecordingKeys:
    """Return the keys of a row of `KEYS_OF`, whose columns come in this order."""
    key_, owner, state, started_at, *places = tuple(row)
    tenant = TenantId(owner)
    return RecordingKeys(
        id=recording_id(key_),
        tenant=tenant,
        state=RecordingState(state),
        started_at=moment(started_at),
        audio=_coordinate(tenant, Part.AUDIO, *places[:3]),
        metadata=_coordinate(tenant, Part.METADATA, *places[3:]),
    )


def _recording(row: Any) -> Recording:
    tenant = TenantId(row.tenant)
    return Recording(
        id=recording_id(row.id),
        tenant=tenant,
        # Earlier rows have the recording's id.
        call_token=recording_id(row.id) if row.call_token == own_token(row.id) else row.call_token,
        state=RecordingState(row.state),
        state_reason=row.state_reason,
        audio=audio_coordinate(row),
        metadata=_coordinate(tenant, Part.METADATA, row.metadata_period, row.metadata_generation, row.metadata_leaf),
        media=_media(row.container, row.codec, row.rate, row.channels, row.channel_map),
        created_at=moment(row.created_at),
        started_at=moment(row.started_at),
        ended_at=maybe_moment(row.ended_at),
        retain_until=moment(row.retain_until),
        retention_class=row.retention_class,
        stored_bytes=row.stored_bytes,
        sealed_facts=row.sealed_facts,
        caller_token=row.caller_token,
        called_token=row.called_token,
        certificate_id=row.certificate_id,
        metadata_certificate_id=row.metadata_certificate_id,
        node=row.node,
        audio_commitment=row.audio_commitment,
        metadata_commitment=row.metadata_commitment,
        retention_period=row.retention_period,
        object_token=row.object_token,
        content=None if row.content is None else Content(row.content),
        lasted=None if row.lasted_ms is None else timedelta(milliseconds=row.lasted_ms),
    )


def audio_coordinate(row: Any) -> Coordinate:
    """Return the coordinate of a row's audio key."""
    return _coordinate(TenantId(row.tenant), Part.AUDIO, row.audio_period, row.audio_generation, row.audio_leaf)


def _coordinate(tenant: TenantId, part: Part, period: int, generation: int, leaf: int) -> Coordinate:
    return Coordinate(cohort=_cohort(tenant, part, period, generation), leaf=leaf)


# Thousands of rows share a handful of these values, which are immutable: a page of rows builds each once.
@lru_cache(maxsize=4096)
def _cohort(tenant: TenantId, part: Part, period: int, generation: int) -> Cohort:
    return Cohort(tenant=tenant, part=part, period=period, generation=generation)


@lru_cache(maxsize=256)
def _media(container: str, codec: str, rate: int, channels: int, channel_map: str) -> Media:
    return Media(
        container=Container(container),
        codec=Codec(codec),
        rate=rate,
        channels=channels,
        channel_map=tuple(json.loads(channel_map)),
    )


def from_segment(ref: SegmentRef) -> Values:
    """Return the columns of one object; Invalid unless its name is the one that its place gives."""
    place = parse_name(ref.name)
    index, attempt = (place.index, place.attempt) if isinstance(place, SegmentName) else (MANIFEST_INDEX, "")
    if (place.recording, index, attempt) != (ref.recording, ref.index, ref.attempt):
        raise Invalid(f"an object of {ref.recording} has the name of another place; nothing was written")
    return {
        "recording": key(ref.recording),
        "number": ref.index,
        "attempt": bytes.fromhex(ref.attempt),
        "start": ref.offset,
        "length": ref.length,
        "object_bytes": ref.object_bytes,
        "sha256": bytes.fromhex(ref.sha256),
    }


def to_segment(row: sa.Row[Any]) -> SegmentRef:
    """Return the object of a row, which has the tenant beside it."""
    recording, attempt = recording_id(row.recording), row.attempt.hex()
    return SegmentRef(
        recording=recording,
        index=row.number,
        attempt=attempt,
        name=object_below(recording_prefix(TenantId(row.tenant), row.audio_period, recording), row.number, attempt),
        offset=row.start,
        length=row.length,
        object_bytes=row.object_bytes,
        sha256=row.sha256.hex(),
    )


def to_certificate(row: sa.Row[Any]) -> StoredCertificate:
    """Return the certificate of a row."""
    return StoredCertificate(
        id=CertificateId(row.id),
        recording=recording_id(row.recording),
        tenant=TenantId(row.tenant),
        status=CertificateStatus(row.status),
        supersedes=row.supersedes,
        issued_at=moment(row.issued_at),
        jws=row.jws,
        place=None
        if row.batch is None
        else BatchPlace(batch=row.batch, index=row.place, form=row.form, entry=row.entry),
        parts=tuple(Part(part) for part in row.parts.split()),
    )


def from_batch(batch: CertificateBatch, entries: BatchEntries) -> Values:
    """Return the columns of a batch."""
    return {
        "id": batch.id,
        "issued_at": micros(batch.issued_at),
        "statement": batch.statement,
        "leaves": batch.leaves,
        "status": entries.status.value,
        "entries": pack_entries(entries.entries),
    }


def to_entries(row: sa.Row[Any]) -> BatchEntries:
    """Return the entries of a batch's row; FormatError, which names the batch."""
    try:
        entries = unpack_entries(row.entries)
    except FormatError as error:
        before = f"cert_{int(row.id[4:16], 16) - 1:012x}{'f' * 20}"
        raise FormatError(
            f"the entries of {row.id} changed after they were stored ({error.message})",
            hint=f"a list goes on behind them: before={before}",
        ) from error
    return BatchEntries(
        batch=row.id, issued_at=moment(row.issued_at), status=CertificateStatus(row.status), entries=entries
    )


def to_batch(row: sa.Row[Any]) -> CertificateBatch:
    """Return the batch of a row."""
    return CertificateBatch(
        id=row.id, issued_at=moment(row.issued_at), statement=row.statement, leaves=bytes(row.leaves)
    )


def to_lots(row: sa.Row[Any]) -> list[Lot]:
    """Return the lots of a row, whose columns come in the order of the statement that fetches them."""
    tenant, period, generation, name, kept, uncommitted, *columns = tuple(row)
    keys, leaves, commitments, started, created, until, objects = [(each or "").split(",") for each in columns]
    lot = Lot(
        _cohort(TenantId(tenant), Part.AUDIO, period, generation),
        _policy(name, kept),
        [*map(bytes.fromhex, keys)],
        [*map(int, leaves)],
        () if uncommitted else [*map(bytes.fromhex, commitments)],
        [*map(int, started)],
        [*map(int, created)],
        [*map(int, until)],
        [each.lower() for each in objects],
    )
    if all(objects):
        return [lot]
    bare, stored = lot.only(lambda place: not objects[place]), lot.only(lambda place: bool(objects[place]))
    return [each for each in (bare._replace(objects=()), stored) if each.recordings]


@lru_cache(maxsize=256)
def _policy(name: str, period: str | None) -> Policy:
    return Policy(name=name, version=POLICY_VERSION, period=period)


def from_audit(entry: AuditEntry) -> Values:
    """Return the columns of an audit entry."""
    event = entry.event
    return {
        "seq": entry.seq,
        "at": micros(entry.at),
        "event": event.event,
        "actor": event.actor,
        "outcome": event.outcome,
        "role": event.role,
        "tenant": event.tenant,
        "purpose": event.purpose,
        "request_id": event.request_id,
        "target": event.target,
        "detail": rfc8785.dumps(dict(event.detail)).decode(),
        "previous_sha256": bytes.fromhex(entry.previous_sha256),
        "sha256": bytes.fromhex(entry.sha256),
    }


def target_end(target: str) -> str:
    """Return the last seven characters of a target, with spaces before a shorter one."""
    return target[-7:].rjust(7)


def actor_middle(actor: str) -> str:
    """Return the last twelve characters of the token's id in an actor."""
    return actor[24:36]


EXPORTED: Final = (
    *("seq", "at", "event", "actor", "role", "tenant", "outcome", "purpose"),
    *("request_id", "target", "detail", "previous_sha256", "sha256"),
)
"""The columns of `to_audit_lines`, in the order of the exported members."""


class _Actors(dict[tuple[str | None, ...], str]):
    """The JSON of members that many entries have in common, made once for each combination."""

    def __missing__(self, values: tuple[str | None, ...]) -> str:
        made = self[values] = ",".join(
            f'"{name}":{_json_text(value)}' for name, value in zip(EXPORTED[2:8], values, strict=True)
        )
        return made


# A named tuple's own call takes three times as long.
_line: Callable[[tuple[int, str]], AuditLine] = partial(tuple.__new__, AuditLine)


def to_audit_lines(found: Iterable[Sequence[Any]]) -> list[AuditLine]:
    """Return entries as they are exported, from rows of the columns `EXPORTED`."""
    # By position and as text, because an export passes millions of these. The detail is stored as JSON.
    common = _Actors()
    return [
        _line(
            (
                seq,
                (
                    f'{{"seq":{seq},"at":"{stamp_at(at)}",'
                    f'{common[event, actor, role, tenant, outcome, purpose]},"request_id":{_json_text(request)},'
                    f'"target":{_json_text(target)},"detail":{detail},'
                    f'"previous_sha256":"{previous.hex()}","sha256":"{digest.hex()}"}}'
                ),
            )
        )
        for seq, at, event, actor, role, tenant, outcome, purpose, request, target, detail, previous, digest in found
    ]


def _json_text(value: str | None) -> str:
    return "null" if value is None else encode_basestring(value)


def to_audit(row: sa.Row[Any]) -> AuditEntry:
    """Return the audit entry of a row."""
    return AuditEntry(
        seq=row.seq,
        at=moment(row.at),
        event=AuditEvent(
            event=row.event,
            actor=row.actor,
            outcome=row.outcome,
            role=row.role,
            tenant=row.tenant,
            purpose=row.purpose,
            request_id=row.request_id,
            target=row.target,
            detail=json.loads(row.detail),
        ),
        previous_sha256=row.previous_sha256.hex(),
        sha256=row.sha256.hex(),
    )
