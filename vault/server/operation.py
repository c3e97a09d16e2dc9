"""How one operation of the HTTP API is described, and the parameters that several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel

from vault.access.permissions import Act
from vault.server.shapes import COUNT, TEXT, Schema, reference

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
    """One method on one path. `act` None: no token is needed; `queries` are the query parameters with an effect.

    `signed`: the request carries an AWS signature instead of a token.
    """

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
    signed: bool = False
    query: type[BaseModel] | None = None
    queries: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    problems: tuple[int, ...] = ()

    @property
    def keyed(self) -> bool:
        """Tell whether it takes an Idempotency-Key: what acts outside ingest does, and a search only looks."""
        acts = self.method == "post" and self.act is not None and not self.path.endswith("/search")
        return acts and self.path.startswith("/v1/") and not self.path.startswith("/v1/ingest/")


def json_answer(text: str, schema: str, **headers: str) -> Answer:
    """Describe an answer of one JSON document; `headers` are named with underscores."""
    named = {name.replace("_", "-"): words for name, words in headers.items()}
    return Answer(text=text, content={"application/json": reference(schema)}, headers=named)


HEADERS: Final[Mapping[str, tuple[str, Schema]]] = {
    "Upload-Offset": ("Continue at this byte; it must be the durable end.", COUNT),
    "Upload-Length": ("How many bytes the upload will have, once that is known.", COUNT),
    "Upload-Metadata": ("tus: pairs of a key and a base64 value; docs/api.md lists the keys.", TEXT),
    "Upload-Checksum": ("tus: an algorithm and the base64 digest of this request's bytes.", TEXT),
    "X-HTTP-Method-Override": ("The method that is meant.", {"type": "string", "enum": ["PATCH", "HEAD", "DELETE"]}),
    "Content-Range": (
        "The body is this piece of the recording: `bytes a-b/*`, or with the total in place of the star.",
        TEXT,
    ),
    "Call-From": ("The caller's number. Sealed under the metadata key.", TEXT),
    "Call-To": ("The called number. Sealed under the metadata key.", TEXT),
    "Call-Direction": ("Which way the call went.", {**TEXT, "examples": ["inbound", "outbound"]}),
    "Call-Started": ("When the call began; the clock of its retention. Default: now.", TEXT),
    "Call-Tags": ("Up to 20 tags, separated by commas. Sealed under the metadata key.", TEXT),
    "Idempotency-Key": (
        "A fresh UUID in quotes: for 24 hours the same request under it takes effect once, and has the first answer.",
        {**TEXT, "maxLength": 257},
    ),
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
    "bucket": "The tenant's id.",
    "key": "The recorder's name for the call; what a call key cannot have in it is escaped.",
    "recording": "The recording's id.",
    "upload": "The upload's id: that of the recording.",
    "number": "The document's number, from 0.",
    "hold": "The hold's id.",
    "erasure": "The erasure's id.",
    "certificate": "The certificate's id; with `.jws` appended the answer is the compact JWS alone.",
    "token": "The token's id (not its secret).",
    "override": "The override's id.",
    "policy": "The policy request's id.",
}
