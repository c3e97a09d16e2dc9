"""How things look as JSON; the shapes programs rely on."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from vault.access.shown import shown_digest
from vault.ids import TenantId, TokenId
from vault.media.length import call_ended
from vault.model import Hold, HoldState, Principal, StoredCertificate, Token
from vault.ports.erasures import Erasure, ErasureState
from vault.ports.overrides import SweepOverride
from vault.ports.policies import PolicyRequest
from vault.protocol.facts.parties import SENT
from vault.protocol.webhook import origin_of
from vault.retention.guards import Tripped
from vault.retention.periods import Period, format_duration, parse_period
from vault.retention.policy import month_name
from vault.services.deletion.erasures import ErasureView, erasure_document
from vault.services.deletion.sweep import SweepReport
from vault.services.holds.holds import release_document
from vault.services.ingest.ingest import IngestLimits
from vault.services.ingest.sessions import FRAMES_LEFT_OUT, LEFT_OUT, STATED_START
from vault.services.playback.showing import RecordingView
from vault.services.recordings.search import CALL_KEY
from vault.services.tenants.tenants import TenantView


def moment(value: datetime | None) -> str | None:
    """Render an instant as RFC 3339 in UTC, to the millisecond."""
    if value is None:
        return None
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment_of_ms(value: int) -> str | None:
    """Render whole milliseconds since 1970 likewise."""
    return moment(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value))


def terms(tenant: TenantId, retention: Period, *, actor: Principal, limits: IngestLimits) -> dict[str, Any]:
    """Render what holds for what a recorder sends."""
    return {
        "tenant": tenant,
        "retention": str(retention),
        "floor": str(limits.retention_floor),
        "backdating": format_duration(limits.backdating),
        "imports_until": moment(actor.imports_until),
        "max_recording_bytes": limits.max_recording_bytes,
    }


def recording(view: RecordingView) -> dict[str, Any]:
    """Render a recording; `call`, with what the recorder said, only where the viewer opened the facts."""
    row = view.recording
    shown: dict[str, Any] = {
        "id": row.id,
        "tenant": row.tenant,
        "state": row.state.value,
        "state_reason": row.state_reason,
        "live": view.live,
        "bytes": view.length,
        "media": {
            "container": row.media.container.value,
            "codec": row.media.codec.value,
            "rate": row.media.rate,
            "channels": row.media.channels,
            "channel_map": list(row.media.channel_map),
            "content": None if row.content is None else row.content.value,
        },
        "created_at": moment(row.created_at),
        "started_at": moment(row.started_at),
        "ended_at": moment(call_ended(row)),
        "duration_ms": None if row.lasted is None else row.lasted // timedelta(milliseconds=1),
        "finished_at": moment(row.ended_at),
        "retain_until": moment(row.retain_until),
        "retention_class": row.retention_class,
        "certificate_id": row.certificate_id,
        "metadata_certificate_id": row.metadata_certificate_id,
    }
    if view.facts is not None:
        shown["call"] = {
            "call_key": view.facts.extra.get(CALL_KEY),
            "caller": view.facts.caller,
            "called": view.facts.called,
            "direction": view.facts.direction,
            "tags": list(view.facts.tags),
        }
        also = (STATED_START, *SENT, LEFT_OUT, FRAMES_LEFT_OUT)
        shown["call"] |= {name: view.facts.extra[name] for name in also if name in view.facts.extra}
    if view.holds:
        shown["holds"] = [{"id": hold.id, "kind": hold.kind.value, "state": hold.state.value} for hold in view.holds]
    return shown


def hold(value: Hold, *, placed_by: TokenId | None = None) -> dict[str, Any]:
    """Render a hold; who placed it is in the audit trail."""
    return {
        "id": value.id,
        "tenant": value.tenant,
        "kind": value.kind.value,
        "matter": value.matter,
        "reason": value.reason,
        "authority": value.authority,
        "owner": value.owner,
        "state": value.state.value,
        "created_at": moment(value.created_at),
        "placed_by": placed_by,
        "review_at": moment(value.review_at),
        "recordings": [{"id": item, "outcome": "held"} for item in value.recordings]
        + [{"id": item, "outcome": "too_late"} for item in value.too_late],
        "release_requested_by": value.release_requested_by,
        "release_reason": value.release_reason,
        "released_by": value.released_by,
        "released_at": moment(value.released_at),
        "grace_until": moment(value.grace_until),
        "shown": shown_digest(release_document(value)) if value.state is HoldState.RELEASE_REQUESTED else None,
    }


def certificate(value: StoredCertificate, jws: str) -> dict[str, Any]:
    """Render a certificate: its summary, the JWS, and the document the JWS signs."""
    payload = jws.split(".")[1]
    document = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()
    return {
        "id": value.id,
        "recording_id": value.recording,
        "parts": list(value.parts),
        "tenant": value.tenant,
        "status": value.status.value,
        "supersedes": value.supersedes,
        "issued_at": moment(value.issued_at),
        "jws": jws,
        "document": document,
    }


def token(value: Token) -> dict[str, Any]:
    """Render a token without its secret."""
    return {
        "id": value.id,
        "name": value.name,
        "role": value.role.value,
        "tenant": value.tenant,
        "created_at": moment(value.created_at),
        "revoked_at": moment(value.revoked_at),
        "imports_until": moment(value.imports_until),
        "expires_at": moment(value.expires_at),
        "issued_by": value.issued_by,
    }


def tenant(view: TenantView) -> dict[str, Any]:
    """Render a tenant."""
    value, kept = view.tenant, view.kept
    return {
        "id": value.id,
        "name": value.name,
        "controller": value.controller,
        "contact": value.contact,
        "created_at": moment(value.created_at),
        "retention": value.retention,
        "retention_seconds": _seconds(value.retention),
        "metadata_retention": value.metadata_retention,
        "metadata_retention_seconds": _seconds(value.metadata_retention),
        "metadata_before": [
            {"through": month_name(month), "retention": kept, "retention_seconds": _seconds(kept)}
            for month, kept in value.metadata_before
        ],
        "metadata_changed": None
        if value.metadata_changed is None
        else {
            "through": month_name(value.metadata_changed.through),
            "retention": value.metadata_changed.retention,
            "retention_seconds": _seconds(value.metadata_changed.retention),
            "policy": value.metadata_changed.request,
        },
        "retention_changed": None
        if value.retention_changed is None
        else {
            "captured_through": moment(value.retention_changed.through),
            "retention": value.retention_changed.retention,
            "since": moment(value.retention_changed.since),
            "policy": value.retention_changed.request,
        },
        "contract_end": moment(value.contract_end),
        "offboard_requested_by": value.offboard_requested_by,
        "offboard_approved_by": value.offboard_approved_by,
        "offboard_approved_at": moment(value.offboard_approved_at),
        "offboarding": None
        if kept is None
        else {"recordings": kept.live, "held": kept.held, "goes_from": moment(view.goes_from), "shown": view.shown},
        "numbering_region": value.numbering_region,
        "keep_dtmf": value.keep_dtmf,
        "safeguarding_webhook": origin_of(value.safeguarding_webhook),
        "origins": list(value.origins),
    }


def _seconds(period: str | None) -> float | None:
    """Return how many seconds a period is at its longest, for those who still read numbers."""
    return None if period is None else parse_period(period).longest.total_seconds()


def erasure_summary(case: Erasure) -> dict[str, Any]:
    """Render an erasure with the number of its recordings for each outcome."""
    outcomes = Counter(outcome.value for outcome in case.recordings.values())
    return {**_erasure(case), "outcomes": dict(outcomes)}


def erasure(value: ErasureView) -> dict[str, Any]:
    """Render an erasure; each recording that stays for now says what keeps it."""
    recordings = [
        {
            "id": recording,
            "outcome": outcome.value,
            "held": recording in value.held,
            "live": recording in value.live,
            "holds": [
                {"id": hold.id, "matter": hold.matter, "grace_until": moment(hold.grace_until)}
                for hold in value.held.get(recording, ())
            ],
            "gone": recording in value.gone,
            "certificates": list(value.gone.get(recording, ())),
        }
        for recording, outcome in value.erasure.recordings.items()
    ]
    waits = value.erasure.state is ErasureState.REQUESTED
    shown = shown_digest(erasure_document(value)) if waits else None
    return {**_erasure(value.erasure), "recordings": recordings, "shown": shown}


def _erasure(case: Erasure) -> dict[str, Any]:
    return {
        "id": case.id,
        "tenant": case.tenant,
        "basis": case.basis.value,
        "case_reference": case.case_reference,
        "queue": case.queue,
        "state": case.state.value,
        "requested_by": case.requested_by,
        "requested_at": moment(case.requested_at),
        "decided_by": case.decided_by,
        "decided_at": moment(case.decided_at),
    }


def sweep(value: SweepReport) -> dict[str, Any]:
    """Render a sweep's outcome."""
    shown: dict[str, Any] = {
        "at": moment(value.at),
        "dry_run": value.dry_run,
        "shredded": value.shredded,
        "kept": value.kept,
        "objects_deleted_for": value.deleted,
        "waiting_for_deletion": value.waiting_for_deletion,
        "postponed": [tripped(each) for each in value.postponed],
    }
    if value.dry_run:
        shown["recordings"] = [
            {"id": line.recording, "tenant": line.tenant, "action": line.action, "reason": line.reason}
            for line in value.lines
        ]
    if value.receipt is not None:
        shown["receipt"] = {
            "epoch_destroyed": value.receipt.epoch_destroyed,
            "epoch_live": value.receipt.epoch_live,
            "provider": value.receipt.provider,
            "assurance": value.receipt.assurance.value,
            "unrecoverable_at": moment(value.receipt.unrecoverable_at),
        }
    return shown


def override(value: SweepOverride) -> dict[str, Any]:
    """Render a two-person override; `shown` is the digest of the rest."""
    document = {
        "id": value.id,
        "tenant": value.tenant,
        "stopped": value.stopped,
        "early": value.early,
        "through": moment(value.through),
        "reason": value.reason,
        "requested_by": value.requested_by,
        "requested_at": moment(value.requested_at),
        "approved_by": value.approved_by,
        "rejected_by": value.rejected_by,
        "used_at": moment(value.used_at),
    }
    return {**document, "shown": shown_digest(document)}


def policy(value: PolicyRequest) -> dict[str, Any]:
    """Render a request to change existing metadata; `shown` is the digest of the rest."""
    document = {
        "id": value.id,
        "tenant": value.tenant,
        "through": month_name(value.through),
        "metadata_retention": value.metadata_retention,
        "retention_seconds": _seconds(value.metadata_retention),
        "retention": value.retention,
        "state": value.state.value,
        "preview": {
            **asdict(value.preview),
            "earliest": moment(value.preview.earliest),
            "latest": moment(value.preview.latest),
        },
        "requested_by": value.requested_by,
        "requested_role": value.requested_role.value,
        "requested_at": moment(value.requested_at),
        "decided_by": value.decided_by,
        "decided_role": None if value.decided_role is None else value.decided_role.value,
        "decided_at": moment(value.decided_at),
        "takes_effect_at": moment(value.takes_effect_at),
        "applied_at": moment(value.applied_at),
    }
    return {**document, "shown": shown_digest(document)}


def tripped(value: Tripped) -> dict[str, Any]:
    """Render what a guard stopped; without a tenant it is the whole sweep."""
    return {
        "guard": value.guard.value,
        "tenant": value.tenant,
        "reason": value.reason,
        "early": value.early,
        "live": value.live,
    }
