"""How one operation of the HTTP API is described, and the parameters that several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel

from vault.protocol.permissions import Act
from vault.server.shapes import COUNT, MOMENT, TEXT, Schema, reference

AUDIO_TYPES: Final = (
    "audio/basic",
    "audio/PCMU",
    "audio/PCMA",
    "audio/L16",
    "audio/wav",
    "audio/ogg",
    "audio/webm",
    "audio/mpeg",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One documented answer: its words, and per media type a schema (None: bytes)."""

    text: str
    content: Mapping[str, Schema | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path. `act` None: no token is needed; `queries` are the query parameters with an effect."""

    method: str
    path: str
    name: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    act: Act | None = None
    body: type[BaseModel] | None = None
    uploads: bool = False
    takes: tuple[str, ...] = ()
    """The media types of a body that is neither JSON nor audio."""
    query: type[BaseModel] | None = None
    queries: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    problems: tuple[int, ...] = ()


def json_answer(text: str, schema: str, **headers: str) -> Answer:
    """Describe an answer of one JSON document; `headers` are named with underscores."""
    named = {name.replace("_", "-"): words for name, words in headers.items()}
    return Answer(text=text, content={"application/json": reference(schema)}, headers=named)


HEADERS: Final[Mapping[str, tuple[str, Schema]]] = {
    "Upload-Offset": ("Continue at this byte; it must be the durable end.", COUNT),
    "Content-Range": (
        "The body is this piece of the recording: `bytes a-b/*`, or with the total in place of the star.",
        TEXT,
    ),
    "Call-From": ("The caller's number. Sealed under the metadata key.", {**TEXT, "maxLength": 200}),
    "Call-To": ("The called number. Sealed under the metadata key.", {**TEXT, "maxLength": 200}),
    "Call-Direction": ("Which way the call went.", {"type": "string", "enum": ["inbound", "outbound"]}),
    "Call-Started": ("When the call began; the clock of its retention. Default: now.", MOMENT),
    "Call-Tags": ("Up to 20 tags, separated by commas. Sealed under the metadata key.", {**TEXT, "maxLength": 200}),
    "Purpose": (
        "What the access is for: one of `access.purposes`. A list needs it with a caller, a called number or a tag.",
        TEXT,
    ),
    "Range": ("One byte range of the representation (RFC 9110 section 14).", TEXT),
    "X-API-KEY": ("A recorder token's id, with a signature; or the token.", TEXT),
    "Audiohook-Session-Id": ("The session's UUID.", {**TEXT, "format": "uuid"}),
    "Audiohook-Organization-Id": ("The Genesys organization's UUID.", {**TEXT, "format": "uuid"}),
    "Audiohook-Correlation-Id": ("Only signed.", TEXT),
    "Signature-Input": ("RFC 9421; covers the address and the four fields above.", TEXT),
    "Signature": ("HMAC-SHA256 with the token's secret.", TEXT),
}

PATH_PARAMETERS: Final[Mapping[str, str]] = {
    "tenant": "The tenant's id.",
    "call_key": "The recorder's name for the call: 1-200 of A-Z a-z 0-9 . _ ~ @ : + = , -",
    "recording": "The recording's id.",
    "number": "The document's number, from 0.",
    "hold": "The hold's id.",
    "erasure": "The erasure's id.",
    "certificate": "The certificate's id; with `.jws` appended the answer is the compact JWS alone.",
    "token": "The token's id (not its secret).",
    "override": "The override's id.",
}
