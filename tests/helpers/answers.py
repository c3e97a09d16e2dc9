"""Answers of the shapes the server gives."""

from typing import Any

from tests.helpers.stub import StubServer, answer

REC = "rec_" + "1" * 32
HOLD = "hold_" + "2" * 32
CERT = "cert_" + "3" * 32
TOK = "tok_" + "4" * 32
ERA = "era_" + "6" * 32
OVR = "ovr_" + "5" * 32
POL = "pol_" + "0" * 32
SHOWN = "ab" * 32
AT = "2026-11-24T03:04:52.870Z"

TENANT = {
    "id": "a-college",
    "name": "A College",
    "controller": "A College Trust",
    "contact": "dpo@a-college.example",
    "created_at": AT,
    "retention": "1d",
    "retention_seconds": 86400.0,
    "metadata_retention": "2y",
    "metadata_retention_seconds": 63158400.0,
    "metadata_before": [{"through": "2026-11", "retention": "3y", "retention_seconds": 94694400.0}],
    "retention_changed": {"captured_through": AT, "retention": "180d", "since": AT, "policy": POL},
    "metadata_changed": {"through": "2026-10", "retention": "90d", "retention_seconds": 7776000.0, "policy": POL},
    "contract_end": None,
    "offboard_requested_by": None,
    "offboard_requested_by_name": None,
    "offboard_approved_by": None,
    "offboard_approved_by_name": None,
    "offboard_approved_at": None,
    "offboarding": {"recordings": 12, "held": 3, "goes_from": AT, "shown": SHOWN},
    "numbering_region": "GB",
    "keep_dtmf": True,
    "safeguarding_webhook": "https://alerts.a-college.example",
    "origins": ["https://portal.a-college.example"],
}
FLAGGED = {
    "recording_id": REC,
    "hold_id": HOLD,
    "flagged_at": AT,
    "review_at": AT,
    "live": True,
    "alert": "none_configured",
}
TOKEN_ROW = {
    "id": TOK,
    "name": "pbx-1",
    "role": "recorder",
    "tenant": "a-college",
    "created_at": AT,
    "revoked_at": None,
    "imports_until": None,
    "expires_at": None,
    "issued_by": None,
    "issued_by_name": None,
}
RECORDING: dict[str, Any] = {
    "id": REC,
    "tenant": "a-college",
    "state": "sealed",
    "state_reason": None,
    "live": False,
    "bytes": 4,
    "media": {
        "container": "raw",
        "codec": "pcmu",
        "rate": 8000,
        "channels": 2,
        "channel_map": ["caller", "callee"],
        "content": None,
    },
    "created_at": AT,
    "started_at": AT,
    "ended_at": AT,
    "duration_ms": 187_000,
    "finished_at": AT,
    "retain_until": AT,
    "retention_class": "recording",
    "certificate_id": None,
    "metadata_certificate_id": None,
}
OBJECTS = {"certificate_id": CERT, "objects": [{"name": "v1/a/1.seg", "bytes": 1600, "sha256": "ab" * 32}]}
WHY = {
    "id": REC,
    "recording_id": REC,
    "state": "sealed",
    "retain_until": AT,
    "key_exists": True,
    "certificate_id": None,
    "rules": [
        {"rule": "holds", "applies": False, "effect": "none", "text": "no hold protects this recording"},
        {"rule": "decision", "applies": True, "effect": "keeps", "text": "kept until later"},
    ],
}
PAUSE = {"id": REC, "recording_id": REC, "paused": True, "ends_at": AT, "bytes": 800}
NOTES: dict[str, Any] = {
    "id": REC,
    "recording_id": REC,
    "live": True,
    "paused": True,
    "gaps": [{"offset": 800, "at": AT, "reason": "paused", "missing_ms": 4000, "dropped_bytes": 32000}],
    "dtmf": [{"offset": 900, "at": AT, "digit": "5", "duration_ms": None}],
    "documents": [
        {"number": 0, "offset": 0, "at": AT, "media_type": "text/xml", "bytes": 12, "sha256": "0" * 64},
    ],
    "aside": [{"number": 0, "part": 2, "bytes": 5}],
}
HOLD_ROW: dict[str, Any] = {
    "id": HOLD,
    "tenant": "a-college",
    "kind": "legal",
    "matter": "SMITH-2026",
    "reason": "letter",
    "authority": "Legal",
    "owner": "Asha",
    "state": "active",
    "created_at": AT,
    "placed_by": TOK,
    "placed_by_name": "Asha Patel",
    "review_at": AT,
    "recordings_held": 1,
    "recordings_too_late": 1,
    "recordings": [{"id": REC, "outcome": "held"}, {"id": "rec_" + "9" * 32, "outcome": "too_late"}],
    "before": None,
    "release_requested_by": None,
    "release_requested_by_name": None,
    "release_reason": None,
    "released_by": None,
    "released_by_name": None,
    "released_at": None,
    "grace_until": None,
    "shown": SHOWN,
}
ERASURE: dict[str, Any] = {
    "id": ERA,
    "tenant": "a-college",
    "basis": "art17",
    "case_reference": "DSR-1",
    "queue": False,
    "state": "requested",
    "requested_by": TOK,
    "requested_by_name": "Asha Patel",
    "requested_at": AT,
    "decided_by": None,
    "decided_by_name": None,
    "decided_at": None,
    "recordings": [
        {
            "id": REC,
            "outcome": "pending",
            "held": True,
            "live": False,
            "holds": [{"id": HOLD, "matter": "SMITH-2026", "grace_until": None}],
            "gone": False,
            "certificates": [],
        }
    ],
    "shown": SHOWN,
}
ERASURES = {
    "erasures": [
        {
            **{key: value for key, value in ERASURE.items() if key not in ("recordings", "shown")},
            "outcomes": {"pending": 3},
        }
    ],
    "before": None,
}
CERTIFICATE = {
    "id": CERT,
    "recording_id": REC,
    "parts": ["audio"],
    "tenant": "a-college",
    "status": "final",
    "supersedes": None,
    "issued_at": AT,
    "jws": "a.b.c",
    "document": "{}",
}
SWEEP = {
    "at": AT,
    "dry_run": False,
    "shredded": 2,
    "kept": 1,
    "objects_deleted_for": 2,
    "waiting_for_deletion": 0,
    "postponed": [],
    "erasures": {"waiting": 0, "reason": None},
    "receipt": {
        "epoch_destroyed": 3,
        "epoch_live": 4,
        "provider": "file",
        "assurance": "best_effort",
        "unrecoverable_at": AT,
    },
}
DRY_RUN = {
    **{key: value for key, value in SWEEP.items() if key != "receipt"},
    "dry_run": True,
    "counts": [
        {"tenant": "a-college", "action": "shred", "reason": "retention ended", "recordings": 2},
        {"tenant": "b-school", "action": "keep", "reason": "a hold protects it", "recordings": 1},
    ],
    "recordings": [{"id": REC, "tenant": "a-college", "action": "shred", "reason": "retention ended"}],
    "after": None,
}
TRIPPED = {"guard": "mass_shred", "tenant": "b-school", "reason": "7 of 9 would go early", "early": 7, "live": 9}
OVERRIDE = {
    "id": OVR,
    "tenant": "b-school",
    "stopped": "7 of 9 would go early",
    "early": 7,
    "through": AT,
    "reason": "was off",
    "requested_by": TOK,
    "requested_by_name": "Asha Patel",
    "requested_at": AT,
    "approved_by": None,
    "approved_by_name": None,
    "rejected_by": None,
    "rejected_by_name": None,
    "used_at": None,
    "shown": SHOWN,
}
POLICY = {
    "id": POL,
    "tenant": "a-college",
    "through": "2026-11",
    "metadata_retention": None,
    "retention_seconds": None,
    "state": "requested",
    "retention": None,
    "preview": {
        "changed": 9,
        "earlier": 7,
        "later": 2,
        "held": 1,
        "live": 0,
        "due_at_once": 0,
        "earliest": None,
        "latest": None,
    },
    "requested_by": TOK,
    "requested_by_name": "Asha Patel",
    "requested_role": "dpo",
    "requested_at": AT,
    "decided_by": None,
    "decided_by_name": None,
    "decided_role": None,
    "decided_at": None,
    "takes_effect_at": None,
    "applied_at": None,
    "shown": SHOWN,
}
ENTRY = {
    "seq": 1,
    "at": "2026-11-24T03:04:52.870123Z",
    "event": "admin.token",
    "actor": "vault",
    "role": None,
    "tenant": None,
    "outcome": "ok",
    "purpose": None,
    "request_id": None,
    "target": TOK,
    "detail": {},
    "previous_sha256": "0" * 64,
    "sha256": "0" * 64,
}
STATUS = {
    "last": SWEEP,
    "waiting_for_deletion": 0,
    "erasures": {"waiting": 0, "reason": None},
    "last_sweep_at": AT,
    "overdue_seconds": 0.0,
    "tripped": [TRIPPED],
    "overrides": [OVERRIDE],
}


def install(stub: StubServer) -> None:
    """Answer every route as a healthy server would."""
    for method, path, document in (
        ("GET", "/v1/tenants", {"tenants": [TENANT]}),
        ("POST", "/v1/tenants", TENANT),
        ("GET", "/v1/tenants/a-college", TENANT),
        ("PUT", "/v1/tenants/a-college", TENANT),
        ("GET", "/v1/tokens", {"tokens": [TOKEN_ROW]}),
        ("POST", "/v1/tokens", {**TOKEN_ROW, "token": "cv_issued"}),
        ("POST", "/v1/tenants/a-college/reindex", {"looked_at": 12, "changed": 3, "before": None}),
        ("POST", "/v1/tenants/a-college/offboard", TENANT),
        ("POST", "/v1/tenants/a-college/offboard/approve", TENANT),
        ("POST", "/v1/recordings/search", {"recordings": [RECORDING], "before": None}),
        ("POST", "/v1/erasures", ERASURE),
        ("GET", "/v1/erasures", ERASURES),
        ("GET", f"/v1/erasures/{ERA}", ERASURE),
        ("POST", f"/v1/erasures/{ERA}/approve", ERASURE),
        ("POST", f"/v1/erasures/{ERA}/reject", ERASURE),
        ("GET", f"/v1/recordings/{REC}", RECORDING),
        ("GET", f"/v1/recordings/{REC}/why", WHY),
        ("GET", f"/v1/recordings/{REC}/notes", NOTES),
        ("POST", f"/v1/recordings/{REC}/pause", PAUSE),
        ("POST", f"/v1/recordings/{REC}/resume", PAUSE),
        ("POST", f"/v1/recordings/{REC}/flag", FLAGGED),
        ("GET", "/v1/holds", {"holds": [HOLD_ROW]}),
        ("POST", "/v1/holds", HOLD_ROW),
        ("GET", f"/v1/holds/{HOLD}", HOLD_ROW),
        ("POST", f"/v1/holds/{HOLD}/review", HOLD_ROW),
        ("POST", f"/v1/holds/{HOLD}/release", HOLD_ROW),
        ("POST", f"/v1/holds/{HOLD}/approve", HOLD_ROW),
        ("GET", "/v1/certificates", {"certificates": [CERTIFICATE], "before": None}),
        ("GET", f"/v1/certificates/{CERT}", CERTIFICATE),
        ("GET", f"/v1/certificates/{CERT}/objects", OBJECTS),
        ("GET", "/v1/audit", {"entries": [ENTRY], "after": 0, "before": None}),
        ("GET", "/v1/policies", {"policies": [POLICY]}),
        ("POST", "/v1/policies", POLICY),
        ("GET", f"/v1/policies/{POL}", POLICY),
        ("POST", f"/v1/policies/{POL}/approve", POLICY),
        ("POST", "/v1/sweeps", SWEEP),
        ("GET", "/v1/sweeps", STATUS),
        ("POST", "/v1/sweeps/overrides", OVERRIDE),
        ("GET", f"/v1/sweeps/overrides/{OVR}", OVERRIDE),
        ("POST", f"/v1/sweeps/overrides/{OVR}/approve", OVERRIDE),
    ):
        stub.on(method, path, answer(document))
