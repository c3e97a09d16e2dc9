"""JSON text (RFC 8259) that describes audio: it is read as far as it goes, because nothing else is done by it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from vault.protocol.facts.strict_json import NotJson


class Members(dict[str, Any]):
    """Names and values, as far as they can be read."""

    constants: frozenset[str] = frozenset()
    """Names whose values were NaN or an infinity, which are none: they are not members."""
    repeated: frozenset[str] = frozenset()
    """Names that came again with another value: the first one counts."""


def load_members(text: str) -> Members:
    """Return the JSON object that `text` is, without what is no JSON or comes again in it; NotJson for another text."""
    try:
        document = json.loads(text, object_pairs_hook=first_of_each, parse_constant=lambda _: _CONSTANT)
    except (ValueError, RecursionError) as error:
        raise NotJson("the text is no JSON, or nests too deeply") from error
    if not isinstance(document, Members):
        raise NotJson("the text is no JSON object")
    return document


def first_of_each(pairs: Iterable[tuple[str, Any]]) -> Members:
    """Return the members that the pairs are: of each name the first one."""
    document, constants, repeated = Members(), set(), set()
    for name, value in pairs:
        if value is _CONSTANT:
            constants.add(name)
        elif document.setdefault(name, value) != value:
            repeated.add(name)
    document.constants, document.repeated = frozenset(constants), frozenset(repeated)
    return document


_CONSTANT: Final = object()
