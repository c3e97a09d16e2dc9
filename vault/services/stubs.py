"""Rows for what only the store or the journal knows: as much as can be known, and nothing that is made up."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from vault.crypto.derive import commitment
from vault.crypto.sealed import seal_facts
from vault.errors import NotFound, TooLate
from vault.ids import NodeId, RecordingId, TenantId, born
from vault.model import AuditEvent, CallFacts, Codec, Container, Coordinate, Media, Recording, RecordingState, Tenant
from vault.ports.catalog import Catalog
from vault.ports.journal import ReplayedRecording
from vault.ports.keys import Keyring
from vault.ports.time import Clock, Entropy
from vault.retention.policy import period_instant
from vault.services.audit import event
from vault.services.coordinates import Coordinates

_NONCE_BYTES = 12
_CLASS = "recording"
_UNKNOWN = "unknown: rebuilt after a restore"
_UNKNOWN_MEDIA = Media(container=Container.RAW, codec=Codec.STREAM)

logger = logging.getLogger(__name__)


async def own_tenant(catalog: Catalog, tenant: TenantId, *, at: datetime) -> bool:
    """Add a tenant of which only its id is known, if the catalog has none of that id; tell whether it was added."""
    try:
        await catalog.tenant(tenant)
    except NotFound:
        stub = Tenant(id=tenant, name=tenant, controller=_UNKNOWN, contact=_UNKNOWN, created_at=at)
        detail = {"action": "tenant rebuilt after a restore"}
        await catalog.add_tenant(stub, audit=[event("admin.config", None, tenant=tenant, target=tenant, detail=detail)])
        return True
    return False


async def stub_row(
    recording: RecordingId,
    audio: Coordinate,
    created: datetime,
    *,
    coordinates: Coordinates,
    keyring: Keyring,
    clock: Clock,
    entropy: Entropy,
    node: NodeId | None = None,
) -> Recording:
    """Return an open row for a call whose facts are lost: new ones that say nothing, under a fresh coordinate."""
    tenant = audio.cohort.tenant
    metadata = await coordinates.metadata(tenant, clock.now())
    row = Recording(
        id=recording,
        tenant=tenant,
        call_token=recording,
        state=RecordingState.OPEN,
        state_reason=None,
        audio=audio,
        metadata=metadata,
        media=_UNKNOWN_MEDIA,
        created_at=created,
        started_at=created,
        ended_at=None,
        retain_until=period_instant(audio.cohort.period, keyring.cohort_width_seconds),
        retention_class=_CLASS,
        stored_bytes=0,
        sealed_facts=seal_facts(keyring.derive(metadata), recording, CallFacts(), nonce=entropy(_NONCE_BYTES)),
        node=node,
    )
    return committed(row, keyring)


def committed(row: Recording, keyring: Keyring) -> Recording:
    """Return the row with the commitments to those of its keys that there are."""

    def known(place: Coordinate) -> bytes | None:
        return commitment(keyring.derive(place)) if keyring.derivable(place) else None

    return replace(row, audio_commitment=known(row.audio), metadata_commitment=known(row.metadata))


def rebuilt(row: Recording, *, source: str, size: int) -> AuditEvent:
    """Describe a row that was rebuilt from its manifest, its segments or the journal."""
    return event("recording.rebuilt", None, tenant=row.tenant, target=row.id, detail={"from": source, "bytes": size})


async def row_from_journal(
    found: ReplayedRecording,
    *,
    catalog: Catalog,
    coordinates: Coordinates,
    keyring: Keyring,
    node: NodeId,
    clock: Clock,
    entropy: Entropy,
) -> Recording | None:
    """Give a recording that only the journal knows an open row; None, and it is logged, if its period is swept."""
    row = await stub_row(
        RecordingId(found.opening.recording),
        found.opening.coordinate,
        born(found.opening.recording),
        coordinates=coordinates,
        keyring=keyring,
        clock=clock,
        entropy=entropy,
        node=node,
    )
    await own_tenant(catalog, row.tenant, at=clock.now())
    told = rebuilt(row, source="journal", size=found.durable - found.first_offset)
    try:
        await catalog.create_recording(row, begun_before=True, audit=[told])
    except TooLate:
        logger.error(  # noqa: TRY400  # the fact, not the trace
            "the journal holds a recording that the catalog does not know; it is kept",
            extra={"fields": {"recording": row.id}},
        )
        return None
    return row
