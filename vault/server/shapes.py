"""JSON Schemas (2020-12) of what the server answers; `vault.server.views` renders exactly these members."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

from vault.model import (
    Assurance,
    CertificateStatus,
    Codec,
    Container,
    Content,
    HoldKind,
    HoldState,
    Part,
    RecordingState,
    Role,
)
from vault.ports.erasures import ErasureBasis, ErasureOutcome, ErasureState
from vault.ports.policies import PolicyState
from vault.retention.guards import Guard
from vault.services.health.status import CHECKS

Schema = Mapping[str, Any]

TEXT: Final[Schema] = {"type": "string"}
_DETAIL: Final = (
    "What the event says more. Of `access.denied`: `act` and `why`; where it counts what repeats an earlier one, also "
    "`count`, `first`, `last`, `targets` and `different_targets`; beyond 256 kinds of a tenant's, `tokens`, "
    "`different_tokens`, `acts` and `different_acts` in place of `act` and `why`."
)
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
FLAG: Final[Schema] = {"type": "boolean"}
MOMENT: Final[Schema] = {"type": "string", "format": "date-time"}
SHA256: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def reference(name: str) -> Schema:
    """Point at a named schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Schema) -> Schema:
    """Allow null beside `schema`."""
    return {"anyOf": [dict(schema), {"type": "null"}]}


def array(schema: Schema) -> Schema:
    """Describe a list of `schema`."""
    return {"type": "array", "items": dict(schema)}


_SECONDS: Final[Schema] = {
    **nullable({"type": "number", "minimum": 0}),
    "description": "The same in seconds, at its longest; it goes in the next version.",
    "deprecated": True,
}


ACTED: Final = frozenset(
    f"{act}_by"
    for act in (
        *("requested", "decided", "approved", "rejected", "released", "issued", "placed"),
        *("release_requested", "offboard_requested", "offboard_approved"),
    )
)
"""Members that name the token that did something; `vault.server.api.names` puts its name beside each."""


def record(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """Describe an object with exactly these members, and the names of who acted beside their tokens."""
    names = {f"{name}_name": nullable(TEXT) for name in required if name in ACTED}
    required = {**required, **names}
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": sorted(required),
        "additionalProperties": False,
    }


def identifier(prefix: str) -> Schema:
    """Describe a prefixed id."""
    return {"type": "string", "pattern": f"^{prefix}_[0-9a-f]{{32}}$"}


def choice(kind: type[enum.StrEnum]) -> Schema:
    """Describe the values of an enumeration."""
    return {"type": "string", "enum": [member.value for member in kind]}


RECORDING_ID: Final = identifier("rec")
FORMER_ID: Final[Schema] = {**RECORDING_ID, "description": "The same as `id`; it goes.", "deprecated": True}
HOLD_ID: Final = identifier("hold")
TENANT_ID: Final[Schema] = {"type": "string", "pattern": "^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"}

SHOWN: Final[Schema] = {
    **nullable(SHA256),
    "description": "What an approval of this request names as `shown`; null if none is waited for.",
}

PROBLEM: Final[Schema] = {
    "type": "object",
    "description": "An RFC 9457 problem document. Further members name facts of the case, such as offset or "
    "certificate_id.",
    "properties": {
        "type": {"type": "string", "format": "uri", "examples": ["urn:callvault:problem:under_hold"]},
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What broke and what did not."},
        "hint": {"type": "string", "description": "What to do next."},
        "request_id": TEXT,
    },
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": {"type": ["string", "integer"]},
}

_MEDIA: Final = record(
    {
        "container": choice(Container),
        "codec": choice(Codec),
        "rate": {**COUNT, "description": "Hertz, of a container as its head says; 0 if it says none."},
        "channels": {**COUNT, "description": "As with the rate."},
        "channel_map": array(TEXT),
        "content": {
            **nullable(choice(Content)),
            "description": "What the first bytes are, where that is not what was declared.",
        },
    }
)

_RULE: Final = record(
    {
        "rule": TEXT,
        "applies": FLAG,
        "effect": {"type": "string", "enum": ["keeps", "deletes", "none"]},
        "text": TEXT,
        "hold": nullable(HOLD_ID),
        "matter": nullable(TEXT),
        "until": nullable(MOMENT),
        "certificate": nullable(identifier("cert")),
        "erasure": nullable(identifier("era")),
        "requested_by": nullable(identifier("tok")),
        "approved_by": nullable(identifier("tok")),
    }
)

_ERASURE: Final[Mapping[str, Schema]] = {
    "id": identifier("era"),
    "tenant": TENANT_ID,
    "basis": choice(ErasureBasis),
    "case_reference": TEXT,
    "queue": FLAG,
    "state": choice(ErasureState),
    "requested_by": identifier("tok"),
    "requested_at": MOMENT,
    "decided_by": nullable(identifier("tok")),
    "decided_at": nullable(MOMENT),
}

SCHEMAS: Final[Mapping[str, Schema]] = {
    "Problem": PROBLEM,
    "Terms": record(
        {
            "tenant": TENANT_ID,
            "retention": {**TEXT, "description": "How long a recording that begins now is kept.", "examples": ["90d"]},
            "floor": {**TEXT, "description": "What it is kept at least after its receipt.", "examples": ["1d"]},
            "backdating": {
                **TEXT,
                "description": "How long before the receipt the retention counts from at most, unless this imports.",
                "examples": ["7d"],
            },
            "imports_until": {
                **nullable(MOMENT),
                "description": "Until then the retention counts from true starts; null: this token does not import.",
            },
            "max_recording_bytes": COUNT,
        }
    ),
    "Receipt": record(
        {
            "id": RECORDING_ID,
            "recording_id": FORMER_ID,
            "bytes": COUNT,
            "sha256": {**nullable(SHA256), "description": "Of the stored plaintext bytes."},
            "state": choice(RecordingState),
        }
    ),
    "Recording": record(
        {
            "id": RECORDING_ID,
            "tenant": TENANT_ID,
            "state": choice(RecordingState),
            "state_reason": nullable(TEXT),
            "live": FLAG,
            "bytes": COUNT,
            "media": _MEDIA,
            "created_at": MOMENT,
            "started_at": MOMENT,
            "ended_at": {**nullable(MOMENT), "description": "The call's end; null during it, or if nobody can tell."},
            "duration_ms": {**nullable(COUNT), "description": "How long the call lasted, with its pauses and gaps."},
            "finished_at": {**nullable(MOMENT), "description": "When the last of it had come; null while it is open."},
            "retain_until": MOMENT,
            "retention_class": TEXT,
            "certificate_id": nullable(identifier("cert")),
            "metadata_certificate_id": nullable(identifier("cert")),
        },
        {
            "call": {
                **record(
                    {
                        "call_key": nullable(TEXT),
                        "caller": nullable(TEXT),
                        "called": nullable(TEXT),
                        "direction": nullable(TEXT),
                        "tags": array(TEXT),
                    },
                    {
                        "stated_start": {
                            **MOMENT,
                            "description": "What the recorder stated, where the receipt stands for the start.",
                        },
                        "caller_sent": {
                            **TEXT,
                            "description": "How the recorder spelt the caller, where that differs.",
                        },
                        "facts_left_out": {**TEXT, "description": "Which stated facts were not kept, and why."},
                        "frames_left_out": {
                            **TEXT,
                            "description": "How many frames of a live call could not be read, and why.",
                        },
                        "called_sent": {**TEXT, "description": "How it spelt the called party, where that differs."},
                    },
                ),
                "description": "Only for roles that may read facts, and only while their key exists.",
            },
            "holds": array(record({"id": HOLD_ID, "kind": choice(HoldKind), "state": choice(HoldState)})),
        },
    ),
    "RecordingPage": record({"recordings": array(reference("Recording")), "before": nullable(RECORDING_ID)}),
    "Why": record(
        {
            "id": RECORDING_ID,
            "recording_id": FORMER_ID,
            "state": choice(RecordingState),
            "retain_until": MOMENT,
            "key_exists": FLAG,
            "certificate_id": nullable(identifier("cert")),
            "metadata_key_exists": FLAG,
            "metadata_certificate_id": nullable(identifier("cert")),
            "rules": array(_RULE),
        }
    ),
    "Hold": record(
        {
            "id": HOLD_ID,
            "tenant": TENANT_ID,
            "kind": choice(HoldKind),
            "matter": TEXT,
            "reason": TEXT,
            "authority": TEXT,
            "owner": TEXT,
            "state": choice(HoldState),
            "created_at": MOMENT,
            "placed_by": {**nullable(identifier("tok")), "description": "Null where the vault rebuilt it."},
            "review_at": MOMENT,
            "recordings": array(
                record({"id": RECORDING_ID, "outcome": {"type": "string", "enum": ["held", "too_late"]}})
            ),
            "release_requested_by": nullable(identifier("tok")),
            "release_reason": nullable(TEXT),
            "released_by": nullable(identifier("tok")),
            "released_at": nullable(MOMENT),
            "grace_until": nullable(MOMENT),
            "shown": SHOWN,
        }
    ),
    "HoldList": record({"holds": array(reference("Hold"))}),
    "Flagged": record(
        {
            "recording_id": RECORDING_ID,
            "hold_id": HOLD_ID,
            "flagged_at": MOMENT,
            "review_at": MOMENT,
            "live": FLAG,
            "alert": {"type": "string", "enum": ["pending", "acknowledged", "none_configured"]},
        }
    ),
    "Certificate": record(
        {
            "id": identifier("cert"),
            "recording_id": RECORDING_ID,
            "parts": array({"type": "string", "enum": [part.value for part in Part]}),
            "tenant": TENANT_ID,
            "status": choice(CertificateStatus),
            "supersedes": nullable(identifier("cert")),
            "issued_at": MOMENT,
            "jws": {"type": "string", "description": "The certificate itself: a compact JWS."},
            "document": {"type": "string", "description": "The exact JSON text that the JWS signs."},
        }
    ),
    "CertificateObjects": record(
        {
            "certificate_id": identifier("cert"),
            "objects": array(record({"name": TEXT, "bytes": COUNT, "sha256": TEXT})),
        }
    ),
    "CertificatePage": record(
        {"certificates": array(reference("Certificate")), "before": nullable(identifier("cert"))}
    ),
    "Tenant": record(
        {
            "id": TENANT_ID,
            "name": TEXT,
            "controller": TEXT,
            "contact": TEXT,
            "created_at": MOMENT,
            "retention": {**nullable(TEXT), "description": "How long recordings are kept; null follows the vault."},
            "retention_seconds": _SECONDS,
            "metadata_retention": {
                **nullable(TEXT),
                "description": "How long metadata is kept after the month of its call; null: as long as the contract.",
            },
            "metadata_retention_seconds": _SECONDS,
            "metadata_before": {
                **array(record({"through": TEXT, "retention": nullable(TEXT), "retention_seconds": _SECONDS})),
                "description": "What was agreed before, each through its last month; later ones follow the present.",
            },
            "metadata_changed": {
                **nullable(
                    record(
                        {
                            "through": TEXT,
                            "retention": nullable(TEXT),
                            "retention_seconds": _SECONDS,
                            "policy": identifier("pol"),
                        }
                    )
                ),
                "description": "What two people decided for the calls through a month; outranks what was agreed.",
            },
            "retention_changed": {
                **nullable(
                    record(
                        {"captured_through": MOMENT, "retention": TEXT, "since": MOMENT, "policy": identifier("pol")}
                    )
                ),
                "description": "What two people decided for the audio of calls captured until then; outranks its date.",
            },
            "contract_end": nullable(MOMENT),
            "offboard_requested_by": nullable(identifier("tok")),
            "offboard_approved_by": nullable(identifier("tok")),
            "offboard_approved_at": nullable(MOMENT),
            "offboarding": {
                **nullable(record({"recordings": COUNT, "held": COUNT, "goes_from": MOMENT, "shown": SHOWN})),
                "description": "What goes if the contract ends, not before when, and what its approval names.",
            },
            "numbering_region": {
                **TEXT,
                "description": "Where numbers without a country code are dialled, ISO 3166-1; `GB` if left out.",
            },
            "keep_dtmf": {**FLAG, "description": "Whether the keys that callers press are kept."},
            "safeguarding_webhook": {
                **nullable(TEXT),
                "description": "Where flags are told: scheme, host and port alone, for the rest may be a secret.",
            },
            "origins": {**array(TEXT), "description": "The web origins whose pages may record."},
        }
    ),
    "PolicyRequest": record(
        {
            "id": identifier("pol"),
            "tenant": TENANT_ID,
            "through": {**TEXT, "description": "The last month of calls that it is for; audio: up to `requested_at`."},
            "metadata_retention": nullable(TEXT),
            "retention_seconds": _SECONDS,
            "state": choice(PolicyState),
            "retention": {**nullable(TEXT), "description": "For audio; null for a request about metadata."},
            "preview": {
                **record(
                    {
                        **dict.fromkeys(("changed", "earlier", "later", "held", "live", "due_at_once"), COUNT),
                        "earliest": nullable(MOMENT),
                        "latest": nullable(MOMENT),
                    }
                ),
                "description": "Recordings that would get another date, counted when it was asked for.",
            },
            "requested_by": identifier("tok"),
            "requested_role": choice(Role),
            "requested_at": MOMENT,
            "decided_by": nullable(identifier("tok")),
            "decided_role": nullable(choice(Role)),
            "decided_at": nullable(MOMENT),
            "takes_effect_at": nullable(MOMENT),
            "applied_at": nullable(MOMENT),
            "shown": {**SHA256, "description": "Of what is shown here; an approval repeats it."},
        }
    ),
    "PolicyRequests": record({"policies": array(reference("PolicyRequest"))}),
    "Erasure": record(
        {
            **_ERASURE,
            "recordings": array(
                record(
                    {
                        "id": RECORDING_ID,
                        "outcome": choice(ErasureOutcome),
                        "held": {**FLAG, "description": "A hold keeps it now."},
                        "live": {**FLAG, "description": "Its call is still being recorded."},
                        "holds": array(record({"id": HOLD_ID, "matter": TEXT, "grace_until": nullable(MOMENT)})),
                        "gone": {**FLAG, "description": "Something else took it: `certificates` say what."},
                        "certificates": array(identifier("cert")),
                    }
                )
            ),
            "shown": SHOWN,
        }
    ),
    "ErasurePage": record(
        {
            "erasures": array(
                record({**_ERASURE, "outcomes": record({}, {each.value: COUNT for each in ErasureOutcome})})
            ),
            "before": nullable(identifier("era")),
        }
    ),
    "TenantList": record({"tenants": array(reference("Tenant"))}),
    "Token": record(
        {
            "id": identifier("tok"),
            "name": TEXT,
            "role": choice(Role),
            "tenant": nullable(TENANT_ID),
            "created_at": MOMENT,
            "revoked_at": nullable(MOMENT),
            "imports_until": {
                **nullable(MOMENT),
                "description": "Until then its recordings are kept from their true starts; null: it does not import.",
            },
            "expires_at": {
                **nullable(MOMENT),
                "description": "From then on it begins nothing; what it began before, it finishes. Null: never.",
            },
            "issued_by": {
                **nullable(identifier("tok")),
                "description": "The operator's token that issued it; null: whoever owns the vault's files.",
            },
        },
        {"token": {"type": "string", "description": "The secret; only in the answer that issued it."}},
    ),
    "TokenList": record({"tokens": array(reference("Token"))}),
    "Sweep": record(
        {
            "at": MOMENT,
            "dry_run": FLAG,
            "shredded": COUNT,
            "kept": COUNT,
            "objects_deleted_for": COUNT,
            "waiting_for_deletion": COUNT,
            "postponed": array(reference("Tripped")),
        },
        {
            "recordings": array(
                record(
                    {
                        "id": RECORDING_ID,
                        "tenant": TENANT_ID,
                        "action": {"type": "string", "enum": ["keep", "shred", "postpone"]},
                        "reason": TEXT,
                    }
                )
            ),
            "receipt": record(
                {
                    "epoch_destroyed": COUNT,
                    "epoch_live": COUNT,
                    "provider": TEXT,
                    "assurance": choice(Assurance),
                    "unrecoverable_at": MOMENT,
                }
            ),
        },
    ),
    "SweepStatus": record(
        {
            "last": nullable(reference("Sweep")),
            "last_sweep_at": nullable(MOMENT),
            "overdue_seconds": {"type": "number", "minimum": 0},
            "tripped": array(reference("Tripped")),
            "overrides": array(reference("Override")),
        }
    ),
    "Tripped": record(
        {
            "guard": choice(Guard),
            "tenant": {**nullable(TENANT_ID), "description": "Null: the whole sweep is stopped."},
            "reason": TEXT,
            "early": {**COUNT, "description": "Recordings that would go before the date fixed at capture."},
            "live": COUNT,
        }
    ),
    "Override": record(
        {
            "id": identifier("ovr"),
            "tenant": {**nullable(TENANT_ID), "description": "Null: of the clock, for everybody."},
            "stopped": {**TEXT, "description": "What had tripped when it was asked for."},
            "early": {**COUNT, "description": "The permission covers no more recordings than these."},
            "through": MOMENT,
            "reason": TEXT,
            "requested_by": identifier("tok"),
            "requested_at": MOMENT,
            "approved_by": nullable(identifier("tok")),
            "rejected_by": nullable(identifier("tok")),
            "used_at": nullable(MOMENT),
            "shown": {**SHA256, "description": "Of what is shown here; an approval repeats it."},
        }
    ),
    "AuditPage": record(
        {
            "entries": array(
                record(
                    {
                        "seq": COUNT,
                        "at": MOMENT,
                        "event": TEXT,
                        "actor": TEXT,
                        "role": nullable(choice(Role)),
                        "tenant": nullable(TENANT_ID),
                        "outcome": TEXT,
                        "purpose": nullable(TEXT),
                        "request_id": nullable(TEXT),
                        "target": nullable(TEXT),
                        "detail": {"type": "object", "description": _DETAIL},
                        "previous_sha256": SHA256,
                        "sha256": SHA256,
                    }
                )
            ),
            "after": COUNT,
            "before": {**nullable(COUNT), "description": "Continues the newest entries; null after the last."},
        }
    ),
    "Readiness": record(
        {
            "status": {"type": "string", "enum": ["ready", "not ready"]},
            "checks": {"type": "object", "additionalProperties": {"type": "string", "enum": ["ok", "failing"]}},
            "reasons": array(
                record({"check": {"type": "string", "enum": list(CHECKS)}, "detail": TEXT, "hint": nullable(TEXT)})
            ),
            "object_store": TEXT,
        }
    ),
    "Keyring": record(
        {
            "epoch": COUNT,
            "revision": COUNT,
            "fence": COUNT,
            "generation": COUNT,
            "provider": TEXT,
            "assurance": choice(Assurance),
            "lease_seconds": {"type": "number", "exclusiveMinimum": 0},
            "last_sweep_at": nullable(MOMENT),
            "trial": FLAG,
            "tenants": COUNT,
            "cohorts": COUNT,
            "pins": COUNT,
            "write_quorum": COUNT,
            "replicas": array(record({"name": TEXT, "ok": FLAG, "detail": nullable(TEXT)})),
        }
    ),
    "Findings": record(
        {
            "findings": array(
                record(
                    {
                        "level": {"type": "string", "enum": ["ok", "warning", "error"]},
                        "subject": TEXT,
                        "message": TEXT,
                        "hint": nullable(TEXT),
                    }
                )
            )
        }
    ),
    "Rotation": record(
        {
            "epoch_destroyed": COUNT,
            "epoch_live": COUNT,
            "provider": TEXT,
            "assurance": choice(Assurance),
            "replicas": COUNT,
            "unrecoverable_at": MOMENT,
            "caches_clear_at": MOMENT,
            "generation": COUNT,
            "trees_dropped": COUNT,
            "calls_under_way": COUNT,
        }
    ),
    "Reindexed": record(
        {
            "looked_at": COUNT,
            "changed": COUNT,
            "before": {
                **nullable(identifier("rec")),
                "description": "Where the next page begins; null after the last.",
            },
        }
    ),
    "Liveness": record(
        {"status": {"const": "ok"}, "vault": {"type": "string", "pattern": "^vlt_[0-9a-f]{32}$"}, "trial": FLAG}
    ),
}


NOTE_SCHEMAS: Final[Mapping[str, Schema]] = {
    "Pause": record(
        {
            "id": RECORDING_ID,
            "recording_id": FORMER_ID,
            "paused": FLAG,
            "ends_at": {**nullable(MOMENT), "description": "When the vault will end the pause; null without one."},
            "bytes": {**COUNT, "description": "Durable bytes of the call so far."},
        }
    ),
    "SiprecReceipt": record(
        {
            "id": RECORDING_ID,
            "recording_id": FORMER_ID,
            "document": {**COUNT, "description": "Its number among the call's documents, from 0."},
            "parsed": FLAG,
            "why": {**nullable(TEXT), "description": "Why it could not be read."},
            "participants": COUNT,
        }
    ),
    "Notes": record(
        {
            "id": RECORDING_ID,
            "recording_id": FORMER_ID,
            "live": FLAG,
            "paused": FLAG,
            "gaps": array(
                record(
                    {
                        "offset": {**COUNT, "description": "Byte of the stored audio before which it happened."},
                        "at": nullable(MOMENT),
                        "reason": {"type": "string", "enum": ["paused", "lost"]},
                        "missing_ms": COUNT,
                        "dropped_bytes": COUNT,
                    }
                )
            ),
            "dtmf": array(
                record({"offset": COUNT, "at": nullable(MOMENT), "digit": TEXT, "duration_ms": nullable(COUNT)})
            ),
            "documents": array(
                record(
                    {
                        "number": COUNT,
                        "offset": COUNT,
                        "at": nullable(MOMENT),
                        "media_type": TEXT,
                        "bytes": COUNT,
                        "sha256": SHA256,
                    }
                )
            ),
            "aside": array(
                record(
                    {
                        "number": COUNT,
                        "part": {
                            **COUNT,
                            "description": "The part's number in its upload; 0 for what a completion that broke off "
                            "had written.",
                        },
                        "bytes": COUNT,
                    }
                )
            ),
        }
    ),
}
