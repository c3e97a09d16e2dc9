"""Parses JSON in which no object repeats a name (RFC 8259 section 4 does not define the meaning of a repetition)."""

from __future__ import annotations

import json
from typing import Any


class NotJson(ValueError):
    """The text is not JSON, is not UTF-8, or nests too deeply."""


class Repeated(NotJson):
    """An object has two members with one name. Readers differ in which of them they use."""


def load_unique(text: str | bytes) -> Any:
    """Return the JSON value in `text`. NotJson, also for NaN and infinities; Repeated for a repeated name."""
    try:
        return json.loads(
            text.decode() if isinstance(text, bytes) else text, object_pairs_hook=_unique, parse_constant=_constant
        )
    except Repeated:
        raise
    except (ValueError, RecursionError) as error:
        raise NotJson("the text is not JSON, or nests too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise Repeated("a name occurs twice in one object")
    return document


def _constant(name: str) -> None:
    raise NotJson(f"{name} is not JSON")
