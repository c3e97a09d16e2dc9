"""Declares the operations of the HTTP API at their handlers, and builds the OpenAPI 3.1 document.

The router and the document at /v1/openapi.json are both built from the declarations.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, Generic, get_args, get_type_hints, overload

from aiohttp import web
from pydantic import ConfigDict, create_model
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema
from typing_extensions import TypeVar, is_typeddict

from vault import __version__
from vault.access.permissions import Act, roles_with
from vault.server.context import VAULT, Admitted, Handler, admitted, asked_later, named, read_body, read_query, reply
from vault.server.problems import PROBLEM, REASONS
from vault.server.schemas import Body

# -- declarations -------------------------------------------------------------------------------------------------

Schema = Mapping[str, Any]
R = TypeVar("R", bound=Handler)
"""A handler of the request itself."""
H = TypeVar("H")
Declaring = Callable[[H], H]
A = TypeVar("A", default=Any)
"""What an operation answers with."""
A_co = TypeVar("A_co", covariant=True, default=Any)
B = TypeVar("B", bound=Body)
"""What it takes."""
T = TypeVar("T")
"""What its path names."""
Of = Callable[[Admitted], Awaitable[T]]
Given = Awaitable[A | web.StreamResponse]

TEXT: Final[Schema] = {"type": "string"}
_JSON: Final = "application/json"
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_THINGS: Final = frozenset({"tenant", "recording", "recordings"})
"""What a query or a body names that may be another tenant's."""
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
class Answer(Generic[A_co]):
    """One documented answer: its words, and per media type a model or a schema (None: bytes).

    Of a `private` one nobody on its way keeps a copy.
    """

    text: str
    content: Mapping[str, type | Schema | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    private: bool = False


def answer(
    text: str,
    kind: type[A],
    *,
    status: int = 200,
    location: bool = False,
    private: bool = False,
    also: Mapping[str, Schema] = MappingProxyType({}),
) -> dict[int, Answer[A]]:
    """Declare an answer of one JSON document, by its status; with `location` it says where that is to be found.

    `also` are the other media types in which it can come.
    """
    headers = {"Location": "URL"} if location else {}
    return {status: Answer(text=text, content={_JSON: kind, **also}, headers=headers, private=private)}


def empty(text: str) -> dict[int, Answer[None]]:
    """Declare an answer without a document."""
    return {204: Answer(text=text)}


@functools.cache
def _names_tokens(kind: Any) -> bool:
    """Tell whether answers of this kind have, anywhere, the id of a token that acted."""
    members = get_type_hints(kind) if is_typeddict(kind) else {}
    parts = (*members.values(), *get_args(kind))
    return any(name.endswith("_by") for name in members) or any(_names_tokens(part) for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path. With `act` None no token is needed. `queries` are the query parameters with an effect.

    With `signed`, the request carries an AWS signature instead of a token. `pattern` is the path for the router, if a
    placeholder does not match exactly one segment. With `asks`, the handler itself sends `100 Continue` to a client
    that expects it. With `heads`, a HEAD is answered like a GET.
    """

    method: str
    path: str
    name: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    handler: Callable[..., Awaitable[Any]]
    act: Act | None = None
    narrower: Act | None = None
    """What lets in a role that may do it and not `act`: the handler sees to what is shown then."""
    of: Callable[[Admitted], Awaitable[Any]] | None = None
    """Returns what the path names."""
    raw: bool = False
    """The handler takes the request itself, and sees to who sent it."""
    body: type[Body] | None = None
    uploads: bool = False
    takes: tuple[str, ...] = ()
    """The media types of the body, if it is neither JSON nor audio."""
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
        """Whether it takes an Idempotency-Key: all operations outside ingest that change something do."""
        acts = self.method == "post" and self.act is not None and not self.path.endswith("/search")
        return acts and self.path.startswith("/v1/") and not self.path.startswith("/v1/ingest/")

    @property
    def refusals(self) -> tuple[int, ...]:
        """The statuses of its problem documents: the declared ones, and those that follow from its input."""
        also = {
            *(() if self.act is None else (401, 403, 503)),
            *((404,) if self.names_things else ()),
            *(() if self.body is None and self.query is None else (422,)),
            *((400, 409, 422) if self.keyed else ()),
        }
        return tuple(sorted({*self.problems, *also}))

    @property
    def names_things(self) -> bool:
        """Tell whether a request can name what is another tenant's, or is not there."""
        if self.act is None or "{" in self.path:
            return self.act is not None
        said = {*self.queries, *(() if self.body is None else self.body.model_fields)}
        return bool(said & _THINGS)

    @property
    def shapes(self) -> Iterator[type]:
        """The models of its answers."""
        for each in self.answers.values():
            yield from (kind for kind in each.content.values() if isinstance(kind, type))

    @property
    def route(self) -> web.RouteDef:
        """Its route."""
        also: dict[str, Any] = {"expect_handler": asked_later} if self.asks else {}
        if self.method == "get":
            also["allow_head"] = self.heads
        return web.route(
            self.method.upper(), self.pattern or self.path, self.handler if self.raw else self.serve, **also
        )

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Let the sender in, read what the request names and takes, carry it out, and answer as is declared."""
        let_in = await self.let_in(request)
        given: list[Any] = [let_in]
        if self.of is not None:
            given.append(await self.of(let_in))
        if self.body is not None:
            given.append(await read_body(request, self.body))
        elif self.query is not None:
            given.append(read_query(request, self.query))
        return await self.answer(request, await self.handler(*given))

    async def let_in(self, request: web.Request) -> Admitted:
        """Return the request once its sender may do this; raises for anybody else."""
        assert self.act is not None
        return await admitted(request, *filter(None, (self.narrower, self.act)))

    async def answer(self, request: web.Request, made: Any) -> web.StreamResponse:
        """Return the first answer declared with this document, or without one; a response is the answer itself."""
        if isinstance(made, web.StreamResponse):
            return made
        status, declared = next(iter(self.answers.items()))
        if made is None:
            return web.Response(status=status)
        headers = {"Location": f"{self.path}/{made['id']}"} if "Location" in declared.headers else {}
        if declared.private:
            headers["Cache-Control"] = "no-store"
        if _names_tokens(declared.content[_JSON]):
            made = await named(request.app[VAULT], made)
        return reply(made, status=status, headers=headers)


class Operations:
    """The operations of one subject, in the order in which they are declared."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._declared: list[Operation] = []

    def __iter__(self) -> Iterator[Operation]:
        """Iterate over the declared operations."""
        return iter(self._declared)

    @overload
    def __call__(
        self, place: str, act: Act, answers: Mapping[int, Answer[A]], *, of: Of[T], body: type[B], **more: Any
    ) -> Declaring[Callable[[Admitted, T, B], Given[A]]]: ...
    @overload
    def __call__(
        self, place: str, act: Act, answers: Mapping[int, Answer[A]], *, of: Of[T], query: type[B], **more: Any
    ) -> Declaring[Callable[[Admitted, T, B], Given[A]]]: ...
    @overload
    def __call__(
        self, place: str, act: Act, answers: Mapping[int, Answer[A]], *, of: Of[T], **more: Any
    ) -> Declaring[Callable[[Admitted, T], Given[A]]]: ...
    @overload
    def __call__(
        self, place: str, act: Act, answers: Mapping[int, Answer[A]], *, body: type[B], **more: Any
    ) -> Declaring[Callable[[Admitted, B], Given[A]]]: ...
    @overload
    def __call__(
        self, place: str, act: Act, answers: Mapping[int, Answer[A]], *, query: type[B], **more: Any
    ) -> Declaring[Callable[[Admitted, B], Given[A]]]: ...
    @overload
    def __call__(
        self, place: str, act: Act, answers: Mapping[int, Answer[A]], **more: Any
    ) -> Declaring[Callable[[Admitted], Given[A]]]: ...
    def __call__(self, place: str, act: Act, answers: Mapping[int, Answer[Any]], **more: Any) -> Any:
        """Declare the handler as the operation at `place`: a method and a path.

        The handler gets the request once its sender may do `act`; what the path names, which `of` returns; and what the
        body or the query has. It returns the document of the first of `answers`, or a response. See `raw`.
        """
        return self.raw(place, act, answers, raw=False, **more)

    def raw(
        self,
        place: str,
        act: Act | None,
        answers: Mapping[int, Answer[Any]],
        *,
        tag: str | None = None,
        name: str | None = None,
        summary: str | None = None,
        query: type[Body] | None = None,
        queries: tuple[str, ...] = (),
        raw: bool = True,
        **more: Any,
    ) -> Callable[[R], R]:
        """Declare a handler that takes the request itself, and sees to who sent it.

        Unless they are given, its id is the handler's name and its summary the first line of the handler's docstring.
        Every member of `query` has an effect, unless `queries` names some. `more` are fields of the Operation.
        """
        method, _, path = place.partition(" ")
        members = {} if query is None else query.model_fields

        def declare(handler: R) -> R:
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
                raw=raw,
                **more,
            )
            self._declared.append(operation)
            return handler

        return declare


def routes(operations: Iterable[Operation]) -> list[web.RouteDef]:
    """Return the routes of operations, in the same order."""
    return [each.route for each in operations]


HEADERS: Final[Mapping[str, tuple[str, Schema]]] = {
    "Upload-Offset": ("Continue at this byte; it must be the durable end.", _COUNT),
    "Upload-Length": ("How many bytes the upload will have, once that is known.", _COUNT),
    "Upload-Metadata": ("tus: pairs of a key and a base64 value; docs/api.md lists the keys.", TEXT),
    "Upload-Checksum": ("tus: an algorithm and the base64 digest of this request's bytes.", TEXT),
    "X-HTTP-Method-Override": ("The actual method.", {"type": "string", "enum": ["PATCH", "HEAD", "DELETE"]}),
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
        "A fresh UUID in quotes: for 24 hours the same request under it takes effect once, and gets the first answer.",
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
    "call_key": "The recorder's name for the call: 1-200 of A-Z a-z 0-9 . _ ~ @ : + = , -",
    "bucket": "The tenant's id.",
    "key": "The recorder's name for the call; what a call key cannot have in it is escaped.",
    "upload": "The upload's id: that of the recording.",
    "number": "The document's number, from 0.",
    "certificate": "The certificate's id; with `.jws` appended the answer is the compact JWS alone.",
    "token": "The token's id (not its secret).",
    "policy": "The policy request's id.",
}


# -- the OpenAPI document -----------------------------------------------------------------------------------------

_REFERENCE: Final = "#/components/schemas/{model}"
_PLACEHOLDER: Final = re.compile(r"{(\w+)}")
_ABOUT: Final = (
    "Recordings stream in, are sealed on arrival, kept for their retention, and shredded with a certificate. "
    "Errors are RFC 9457 problem documents. Every list and object is JSON in UTF-8; instants are RFC 3339 in UTC."
)
_SIGNED: Final = "AWS Signature Version 4 with the recorder token's id as access key and its secret part as secret key."
_TAGS: Final = (
    ("ingest", "Recorders write recordings; a recorder's token permits no other operation."),
    ("recordings", "Look up, explain and play."),
    ("holds", "Reasons to keep. Releasing one takes two people."),
    ("erasures", "Erasure before the date, decided by two people; a hold prevents it."),
    ("certificates", "Proofs of deletion that anyone can verify offline."),
    ("administration", "Tenants, tokens and the audit trail."),
    ("policies", "Changes of how long existing calls and their metadata are kept; two people decide them."),
    ("sweeps", "Deletion on time, and the guards around it."),
    ("server", "Health, metrics and this document."),
)


_NAME: Final = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_ANSWERS: Final = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class _Plain(GenerateJsonSchema):
    """Builds the schemas of answers: without titles, and with a name beside the id of each token that acted."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # pydantic's signature
        """Return False, because a title would repeat the name."""
        return False

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> dict[str, Any]:
        """Return the schema of one answer."""
        described = super().typed_dict_schema(schema)
        names = {f"{name}_name": _NAME for name in described["properties"] if name.endswith("_by")}
        described["properties"] |= names
        described["required"] = sorted((*described.get("required", ()), *names))
        return {name: each for name, each in described.items() if name not in ("title", "description")}


def build(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the document, which is the same for every server of this version."""
    operations = tuple(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Callvault",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": words} for name, words in _TAGS],
        "paths": paths,
        "components": {
            "schemas": {
                "Problem": PROBLEM,
                **_bodies({each.body for each in operations if each.body is not None}),
                **_answers({kind for each in operations for kind in each.shapes}),
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "The token is the password."},
                "sigv4": {"type": "apiKey", "in": "header", "name": "Authorization", "description": _SIGNED},
            },
        },
    }


def _bodies(kinds: Iterable[type[Body]]) -> dict[str, Any]:
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    found: dict[str, Any] = models_json_schema([(kind, "validation") for kind in ordered], ref_template=_REFERENCE)[1]
    return found["$defs"]  # type: ignore[no-any-return]


def _answers(kinds: Iterable[type]) -> dict[str, Any]:
    fields: dict[str, Any] = {kind.__name__: (kind, ...) for kind in sorted(kinds, key=lambda kind: kind.__name__)}
    whole = create_model("Answers", __config__=_ANSWERS, **fields)
    found = whole.model_json_schema(mode="serialization", schema_generator=_Plain, ref_template=_REFERENCE)
    return _standing(found["$defs"])


def _standing(schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return the named schemas, with enumerations and `_Parts` written out in place."""
    inner = {name: schema for name, schema in schemas.items() if name.startswith("_") or "enum" in schema}
    for schema in inner.values():
        if "enum" in schema:
            schema.pop("description", None)
    return {name: _inlined(schema, inner) for name, schema in schemas.items() if name not in inner}


def _reference(model: type) -> Schema:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_header_parameters(operation)],
        "responses": _responses(operation),
    }
    if operation.act is None:
        described["security"] = []
    else:
        roles = [role.value for role in roles_with(operation.act)]
        described["security"] = [{"sigv4": []}] if operation.signed else [{"bearer": []}, {"basic": []}]
        described["description"] = f"Roles: {', '.join(roles)}."
        described["x-callvault-roles"] = roles
    if operation.body is not None:
        described["requestBody"] = _body({"application/json": {"schema": _reference(operation.body)}})
    elif operation.uploads or operation.takes:
        described["requestBody"] = _body({kind: {} for kind in operation.takes or AUDIO_TYPES})
    return described


def _body(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": dict(content)}


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PATH_PARAMETERS.get(name, f"The {name}'s id."),
            "schema": {"type": "string"},
        }
        for name in _PLACEHOLDER.findall(operation.path)
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    properties = dict.fromkeys(operation.queries, TEXT)
    if operation.query is not None:
        schema = operation.query.model_json_schema()
        properties = _inlined(schema["properties"], schema.get("$defs", {}))
    return [
        {"name": name, "in": "query", "required": False, "schema": _present(properties[name])}
        for name in operation.queries
    ]


def _inlined(value: Any, definitions: Mapping[str, Any]) -> Any:
    """Write enumerations out in place, because the schema of a parameter has no definitions of its own."""
    if isinstance(value, list):
        return [_inlined(each, definitions) for each in value]
    if not isinstance(value, dict):
        return value
    found = definitions.get(value.get("$ref", "").rpartition("/")[2])
    if found is not None:
        beside = {key: each for key, each in value.items() if key != "$ref"}
        return {**_inlined({key: each for key, each in found.items() if key != "title"}, definitions), **beside}
    return {key: _inlined(each, definitions) for key, each in value.items()}


def _present(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a present parameter, without null: a query string leaves a parameter out instead."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    merged = {**schema, **(kinds[0] if kinds else {})}
    return {
        key: value
        for key, value in merged.items()
        if key not in {"anyOf", "title", "description"} and (key, value) != ("default", None)
    }


def _header_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "header",
            "required": name == "Purpose" and operation.act is Act.PLAY,
            "description": HEADERS[name][0],
            "schema": HEADERS[name][1],
        }
        for name in (*operation.headers, *(("Idempotency-Key",) if operation.keyed else ()))
    ]


def _responses(operation: Operation) -> dict[str, Any]:
    responses = {str(status): _answer(answer) for status, answer in operation.answers.items()}
    for status in operation.refusals:
        responses[str(status)] = _problem(REASONS.get(status) or HTTPStatus(status).phrase)
    responses["default"] = _problem("Any other failure")
    return responses


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.text}
    if answer.content:
        described["content"] = {
            kind: {} if shape is None else {"schema": _reference(shape) if isinstance(shape, type) else shape}
            for kind, shape in answer.content.items()
        }
    if answer.headers:
        described["headers"] = {
            name: {"description": words, "schema": {"type": "string"}} for name, words in answer.headers.items()
        }
    return described


def _problem(words: str) -> dict[str, Any]:
    return {
        "description": words,
        "content": {"application/problem+json": {"schema": {"$ref": _REFERENCE.format(model="Problem")}}},
    }
