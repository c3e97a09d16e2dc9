"""How one operation of the HTTP API is declared, at its handler: what it takes, who may do it and how it answers.

The router and the document at /v1/openapi.json are made of the declarations.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from aiohttp import web

from vault.access.permissions import Act
from vault.server.context import Handler, asked_later
from vault.server.schemas import Body

Schema = Mapping[str, Any]
H = TypeVar("H", bound=Handler)

TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_WORD: Final = re.compile(r"_(\w)")

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
    """One documented answer: its words, and per media type a model or a schema (None: bytes)."""

    text: str
    content: Mapping[str, type | Schema | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def told(text: str, kind: type, *, status: int = 200, location: bool = False) -> dict[int, Answer]:
    """Declare an answer of one JSON document, by its status; with `location` it says where that is to be found."""
    headers = {"Location": "URL"} if location else {}
    return {status: Answer(text=text, content={"application/json": kind}, headers=headers)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path. `act` None: no token is needed; `queries` are the query parameters with an effect.

    `signed`: the request carries an AWS signature instead of a token. `pattern` is the path as the router matches it
    where its placeholders do not match whatever stands between two slashes. `asks`: the handler asks for the body of
    who expects to be asked. `heads`: a HEAD is answered as a GET is.
    """

    method: str
    path: str
    name: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    handler: Handler
    act: Act | None = None
    body: type[Body] | None = None
    uploads: bool = False
    takes: tuple[str, ...] = ()
    """The media types of a body that is neither JSON nor audio."""
    signed: bool = False
    query: type[Body] | None = None
    queries: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    problems: tuple[int, ...] = ()
    pattern: str | None = None
    asks: bool = False
    heads: bool = True

    @property
    def keyed(self) -> bool:
        """Tell whether it takes an Idempotency-Key: what acts outside ingest does, and a search only looks."""
        acts = self.method == "post" and self.act is not None and not self.path.endswith("/search")
        return acts and self.path.startswith("/v1/") and not self.path.startswith("/v1/ingest/")

    @property
    def refusals(self) -> tuple[int, ...]:
        """The statuses of its problem documents: those declared, and those that what it takes brings along."""
        also = {
            *(() if self.act is None else (401, 403, 503)),
            *((404,) if self.act is not None and "{" in self.path else ()),
            *(() if self.body is None and self.query is None else (422,)),
            *((400, 409, 422) if self.keyed else ()),
        }
        return tuple(sorted({*self.problems, *also}))

    @property
    def shapes(self) -> Iterator[type]:
        """The shapes of its answers."""
        for answer in self.answers.values():
            yield from (kind for kind in answer.content.values() if isinstance(kind, type))

    @property
    def route(self) -> web.RouteDef:
        """How the router knows it."""
        also: dict[str, Any] = {"expect_handler": asked_later} if self.asks else {}
        if self.method == "get":
            also["allow_head"] = self.heads
        return web.route(self.method.upper(), self.pattern or self.path, self.handler, **also)


class Operations:
    """The operations of one subject, in the order in which they are declared."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._declared: list[Operation] = []

    def __iter__(self) -> Iterator[Operation]:
        """Iterate over what is declared."""
        return iter(self._declared)

    def __call__(
        self,
        place: str,
        act: Act | None,
        answers: Mapping[int, Answer],
        *,
        tag: str | None = None,
        name: str | None = None,
        summary: str | None = None,
        query: type[Body] | None = None,
        queries: tuple[str, ...] = (),
        **more: Any,
    ) -> Callable[[H], H]:
        """Declare the handler as the operation at `place`: a method and a path.

        Its id is the handler's name, and its summary the first line of the handler's docstring, unless they are given.
        Of `query` every member has an effect unless `queries` names some. `more` are fields of the Operation.
        """
        method, _, path = place.partition(" ")
        members = {} if query is None else query.model_fields

        def declare(handler: H) -> H:
            operation = Operation(
                method=method.lower(),
                path=path,
                name=name or _WORD.sub(lambda found: found[1].upper(), handler.__name__),
                tag=tag or self._tag,
                summary=summary or (inspect.getdoc(handler) or "").partition("\n")[0].removesuffix("."),
                answers=answers,
                handler=handler,
                act=act,
                query=query,
                queries=queries or tuple(field.alias or each for each, field in members.items()),
                **more,
            )
            self._declared.append(operation)
            return handler

        return declare


def routes(operations: Iterable[Operation]) -> list[web.RouteDef]:
    """Return the routes of operations, in their order."""
    return [each.route for each in operations]


HEADERS: Final[Mapping[str, tuple[str, Schema]]] = {
    "Upload-Offset": ("Continue at this byte; it must be the durable end.", _COUNT),
    "Upload-Length": ("How many bytes the upload will have, once that is known.", _COUNT),
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
