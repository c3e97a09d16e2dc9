"""JSON Schemas of what is answered about a call beside its audio; `vault.server.callnotes` renders these members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vault.server.shapes import (
    COUNT,
    FLAG,
    FORMER_ID,
    MOMENT,
    RECORDING_ID,
    SHA256,
    TEXT,
    Schema,
    array,
    nullable,
    record,
)

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
