"""JSON text in which every name occurs once (RFC 8259 section 4 leaves the meaning of a repeated one open)."""

from __future__ import annotations

import json
from typing import Any


class NotJson(ValueError):
    """The text is no JSON, is not UTF-8, or nests too deeply to be read."""


class Repeated(NotJson):
    """An object has two members of one name: readers differ about which of them counts."""


def load_unique(text: str | bytes) -> Any:
    """Return the value that `text` is; NotJson, also for NaN and the infinities; Repeated."""
    try:
        return json.loads(
            text.decode() if isinstance(text, bytes) else text, object_pairs_hook=_unique, parse_constant=_constant
        )
    except Repeated:
        raise
    except (ValueError, RecursionError) as error:
        raise NotJson("the text is no JSON, or nests too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise Repeated("a name occurs twice in one object")
    return document


def _constant(name: str) -> None:
    raise NotJson(f"{name} is no JSON")
