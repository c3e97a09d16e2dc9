"""Recordings and holds to decide about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from vault.ids import HoldId, RecordingId, TenantId
from vault.model import (
    Codec,
    Cohort,
    Container,
    Coordinate,
    Hold,
    HoldKind,
    HoldState,
    Media,
    Part,
    Recording,
    RecordingState,
)
from vault.retention.decide import (
    Clocks,
    Facts,
)

DUE_AT = datetime(2026, 5, 30, 9, 30, tzinfo=UTC)


TENANT = TenantId("oakfield")


def coordinate(part: Part) -> Coordinate:
    return Coordinate(cohort=Cohort(tenant=TENANT, part=part, period=20603, generation=0), leaf=7)


RECORDING = Recording(
    id=RecordingId("rec_" + "1" * 32),
    tenant=TENANT,
    call_token="call-1",
    state=RecordingState.SEALED,
    state_reason=None,
    audio=coordinate(Part.AUDIO),
    metadata=coordinate(Part.METADATA),
    media=Media(container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=1),
    created_at=DUE_AT - timedelta(days=90),
    started_at=DUE_AT - timedelta(days=90),
    ended_at=DUE_AT - timedelta(days=89),
    retain_until=DUE_AT,
    retention_class="recording",
    stored_bytes=8000,
    sealed_facts=b"",
)


def hold(
    number: int = 1,
    *,
    kind: HoldKind = HoldKind.LEGAL,
    state: HoldState = HoldState.ACTIVE,
    grace_until: datetime | None = None,
) -> Hold:
    return Hold(
        id=HoldId(f"hold_{number:032x}"),
        tenant=TENANT,
        kind=kind,
        matter=f"MATTER-{number}",
        reason="Jane Example's claim",
        authority="counsel",
        owner="compliance",
        state=state,
        created_at=DUE_AT - timedelta(days=1),
        review_at=DUE_AT + timedelta(days=365),
        recordings=(RECORDING.id,),
        released_at=DUE_AT if state is HoldState.RELEASED else None,
        grace_until=grace_until,
    )


CLOCKS = Clocks(cohort_width=86_400)


def facts(recording: Recording = RECORDING, *holds: Hold, **more: Any) -> Facts:
    return Facts(recording=recording, clocks=more.pop("clocks", CLOCKS), holds=holds, **more)
