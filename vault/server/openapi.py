"""The OpenAPI 3.1 document of the HTTP API, built from the same models that parse the requests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from pydantic import ConfigDict, create_model
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from vault import __version__
from vault.access.permissions import PERMISSIONS, Act
from vault.server.operation import AUDIO_TYPES, HEADERS, PATH_PARAMETERS, TEXT, Answer, Operation, Schema
from vault.server.problems import PROBLEM, REASONS
from vault.server.schemas import Body

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


_NAME: Final = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_ANSWERS: Final = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class _Plain(GenerateJsonSchema):
    """Describes answers: without titles, and with the name beside each token that acted."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # pydantic's signature
        """Titles repeat the names."""
        return False

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> dict[str, Any]:
        """Describe one answer."""
        described = super().typed_dict_schema(schema)
        names = {f"{name}_name": _NAME for name in described["properties"] if name.endswith("_by")}
        described["properties"] |= names
        described["required"] = sorted((*described.get("required", ()), *names))
        return {name: each for name, each in described.items() if name not in ("title", "description")}


def build(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the document; the same for every server of this version."""
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
    """Keep the schemas that have a name of their own; describe enumerations and `_Parts` where they stand."""
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
        roles = [role.value for role, acts in PERMISSIONS.items() if operation.act in acts]
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
            "description": PATH_PARAMETERS[name],
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
    """Write enumerations out in place: parameters stand by themselves."""
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
