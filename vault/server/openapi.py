"""The OpenAPI 3.1 document of the HTTP API, built from the same models that parse the requests."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from pydantic.json_schema import models_json_schema

from vault import __version__
from vault.access.permissions import PERMISSIONS, Act
from vault.server.operation import AUDIO_TYPES, HEADERS, PATH_PARAMETERS, Answer, Operation
from vault.server.operations import OPERATIONS
from vault.server.problems import REASONS
from vault.server.shapes import NOTE_SCHEMAS, SCHEMAS, reference

_REFERENCE: Final = "#/components/schemas/{model}"
_PLACEHOLDER: Final = re.compile(r"{(\w+)}")
_ABOUT: Final = (
    "Recordings stream in, are sealed on arrival, kept as promised and shredded provably. "
    "Errors are RFC 9457 problem documents. Every list and object is JSON in UTF-8; instants are RFC 3339 in UTC."
)
_SIGNED: Final = "AWS Signature Version 4 with the recorder token's id as access key and its secret part as secret key."
_TAGS: Final = (
    ("ingest", "Recorders write. They can do nothing else."),
    ("recordings", "Look up, explain and play."),
    ("holds", "Reasons to keep. Releasing one takes two people."),
    ("erasures", "Erasure before the date: two people, and no hold in the way."),
    ("certificates", "Proof of deletion that anyone can check offline."),
    ("administration", "Tenants, tokens and the audit trail."),
    ("policies", "Changes of how long existing calls and their metadata are kept; two people decide them."),
    ("sweeps", "Deletion on time, and the guards around it."),
    ("server", "Health, metrics and this document."),
)


async def document(_: web.Request) -> web.Response:
    """GET /v1/openapi.json; no token needed."""
    return web.Response(body=_encoded(), content_type="application/json", charset="utf-8")


@functools.cache
def _encoded() -> bytes:
    return json.dumps(build(), ensure_ascii=False, separators=(",", ":")).encode()


def build() -> dict[str, Any]:
    """Return the document; the same for every server of this version."""
    models = sorted({each.body for each in OPERATIONS if each.body is not None}, key=lambda model: model.__name__)
    _, generated = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
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
            "schemas": {**SCHEMAS, **NOTE_SCHEMAS, **generated["$defs"]},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "The token is the password."},
                "sigv4": {"type": "apiKey", "in": "header", "name": "Authorization", "description": _SIGNED},
            },
        },
    }


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
        roles = [role.value for role, acts in PERMISSIONS.items() if operation.act in acts]
        described["security"] = [{"sigv4": []}] if operation.signed else [{"bearer": []}, {"basic": []}]
        described["description"] = f"Roles: {', '.join(roles)}."
        described["x-callvault-roles"] = roles
    if operation.body is not None:
        described["requestBody"] = _body({"application/json": {"schema": reference(operation.body.__name__)}})
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
            "description": PATH_PARAMETERS[name],
            "schema": {"type": "string"},
        }
        for name in _PLACEHOLDER.findall(operation.path)
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return [
            {"name": name, "in": "query", "required": False, "schema": {"type": "string"}} for name in operation.queries
        ]
    schema = operation.query.model_json_schema()
    properties = _inlined(schema["properties"], schema.get("$defs", {}))
    return [
        {"name": name, "in": "query", "required": False, "schema": _present(properties[name])}
        for name in operation.queries
    ]


def _inlined(value: Any, definitions: Mapping[str, Any]) -> Any:
    """Write enumerations out in place: parameters stand by themselves."""
    if isinstance(value, list):
        return [_inlined(each, definitions) for each in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _inlined(definitions[value["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(each, definitions) for key, each in value.items()}


def _present(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter that is there: a query string says "none" by leaving it out, never by null."""
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
    refusals = {
        *operation.problems,
        *(() if operation.act is None else (401, 403, 503)),
        *((400, 409, 422) if operation.keyed else ()),
    }
    for status in sorted(refusals):
        responses[str(status)] = _problem(REASONS.get(status) or HTTPStatus(status).phrase)
    responses["default"] = _problem("Any other failure")
    return responses


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.text}
    if answer.content:
        described["content"] = {
            kind: {} if schema is None else {"schema": schema} for kind, schema in answer.content.items()
        }
    if answer.headers:
        described["headers"] = {
            name: {"description": words, "schema": {"type": "string"}} for name, words in answer.headers.items()
        }
    return described


def _problem(words: str) -> dict[str, Any]:
    return {"description": words, "content": {"application/problem+json": {"schema": reference("Problem")}}}
