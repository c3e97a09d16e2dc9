"""Walks XML that nobody vouches for: without a document type there is no entity to expand and nothing to fetch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from xml.parsers import expat  # defused here: no document type is admitted


class Walker(Protocol):
    """What is told of elements and texts as they come; it bounds what it keeps, and raises to stop."""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""

    def text(self, data: str) -> None:
        """Text inside the innermost open element."""

    def end(self, name: str) -> None:
        """An element ends."""


class Defused(ValueError):
    """The document has a document type or an entity declaration."""


def walk(document: bytes, walker: Walker) -> None:
    """Tell `walker` what is in a document; Defused, or ValueError if it is not well-formed or in no known encoding."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse
    parser.StartElementHandler = walker.start
    parser.CharacterDataHandler = walker.text
    parser.EndElementHandler = walker.end
    try:
        parser.Parse(document, True)  # the parser's own signature
    except (expat.ExpatError, LookupError) as error:
        raise ValueError from error


def _refuse(*_: object) -> None:
    raise Defused
