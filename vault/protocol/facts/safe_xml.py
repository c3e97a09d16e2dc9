"""Parses untrusted XML. Documents with a document type are refused, so no entity is expanded and nothing is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from xml.parsers import expat  # defused here: no document type is admitted


class Walker(Protocol):
    """Receives elements and texts in document order. It bounds what it keeps, and raises to stop."""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """Receive the beginning of an element."""

    def text(self, data: str) -> None:
        """Receive text of the innermost open element."""

    def end(self, name: str) -> None:
        """Receive the end of an element."""


class Defused(ValueError):
    """The document has a document type or declares an entity."""


def walk(document: bytes, walker: Walker) -> None:
    """Pass the content of a document to `walker`.

    Defused for a document type or an entity. ValueError if it is not well-formed or its encoding is unknown.
    """
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
