"""Parses JSON strictly, so that no name repeats (RFC 8259 section 4), or leniently, for descriptions of audio."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final


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


class Members(dict[str, Any]):
    """The members of a JSON object that could be read."""

    constants: frozenset[str] = frozenset()
    """Names whose values were NaN or infinite; they are left out of the members."""
    repeated: frozenset[str] = frozenset()
    """Names that were repeated with another value; the first value is kept."""


def load_members(text: str) -> Members:
    """Return the JSON object in `text`, without NaN, infinities and repetitions; NotJson for other text."""
    try:
        document = json.loads(text, object_pairs_hook=first_of_each, parse_constant=lambda _: _CONSTANT)
    except (ValueError, RecursionError) as error:
        raise NotJson("the text is not JSON, or nests too deeply") from error
    if not isinstance(document, Members):
        raise NotJson("the text is not a JSON object")
    return document


def first_of_each(pairs: Iterable[tuple[str, Any]]) -> Members:
    """Return the pairs as members; the first value of each name is kept."""
    document = Members()
    constants: list[str] = []
    repeated: list[str] = []
    for name, value in pairs:
        if value is _CONSTANT:
            constants.append(name)
        elif document.setdefault(name, value) != value:
            repeated.append(name)
    if constants:  # most objects have none, and cost less without attributes of their own
        document.constants = frozenset(constants)
    if repeated:
        document.repeated = frozenset(repeated)
    return document


_CONSTANT: Final = object()
