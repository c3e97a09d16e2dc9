"""What recorders say about a call in JSON or in the address: its name, its facts, and nothing secret.

JSON is read strictly, RFC 8259: one object, each name once, no NaN. What is read is bounded in size and depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from vault.errors import Invalid
from vault.ids import call_key_of
from vault.model import CallFacts
from vault.protocol.facts.stated import MAX_FACT, Reading, Unusable
from vault.protocol.facts.strict_json import NotJson, load_unique
from vault.protocol.live.events import Dtmf

MAX_TEXT: Final = 1 << 16
"""How many characters of JSON a recorder may send at once."""

_MAX_DEPTH: Final = 4
_MAX_EXTRAS: Final = 50
_MAX_NAME: Final = 100
_MAX_DIGITS: Final = 9
_MAX_MS: Final = 3_600_000

_CALLER: Final = ("from", "caller", "callerID", "callerId", "caller_id", "caller_number")
_CALLED: Final = ("to", "called", "callee", "calledNumber", "called_number", "destination")
_DIRECTION: Final = ("direction",)
_SECRET: Final = re.compile(r"token|passw|secret|auth|credential|apikey|privatekey|cookie|bearer|signature")
_SEPARATORS: Final = re.compile(r"[-_. ]")
_DTMF: Final = re.compile(r"[0-9*#A-Da-d]")


def parse_object(text: str | bytes) -> dict[str, Any] | None:
    """Return the JSON object that `text` is, or None if it is none, is too long or names something twice."""
    if not isinstance(text, str) or len(text) > MAX_TEXT or not text.lstrip(" \t\r\n").startswith("{"):
        return None
    try:
        document = load_unique(text)
    except NotJson:
        return None
    assert isinstance(document, dict)
    return document


def call_key(document: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Return the call key that the first of `names` gives, as a text or as a JSON integer."""
    said = (str(document[name]) for name in names if type(document.get(name)) in {str, int})
    return next((call_key_of(value) for value in said if value), None)


def number(document: Mapping[str, Any], name: str) -> int | None:
    """Return a count, written as a JSON number or in decimal digits; None if absent, Invalid if it is neither."""
    value = document.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        return int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**_MAX_DIGITS):
        return value
    raise Invalid(f"{name} is not a number")


def call_facts(document: Mapping[str, Any], *, known: frozenset[str] = frozenset()) -> CallFacts:
    """Return what a recorder's document says about a call; `known` are names that say something else.

    What has no place of its own goes to the extras, nested values under dotted names: at most
    50, each printable and at most 200 characters. Anything longer, unprintable or named like a credential is left out.
    """
    reading = Reading()
    used = {name for names in (_CALLER, _CALLED, _DIRECTION) if (name := _first(document, names)) is not None}
    rest = {name: value for name, value in document.items() if name not in known | used}
    extra: dict[str, str] = {}
    for name, value in _flat(rest, "", _MAX_DEPTH):
        if len(extra) == _MAX_EXTRAS:
            reading.leave_out("others", Unusable.MANY)
            break
        if _is_fact(value) and _is_fact(name) and len(name) <= _MAX_NAME:
            extra[name] = value
        else:
            reading.leave_out("others", Unusable.TEXT)
    return CallFacts(
        caller=reading.text("from", _said(document, _CALLER)),
        called=reading.text("to", _said(document, _CALLED)),
        direction=reading.direction("direction", _said(document, _DIRECTION)),
        extra=extra,
        unusable=reading.unusable,
    )


def _first(document: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if type(document.get(name)) in {str, int}), None)


def _said(document: Mapping[str, Any], names: Sequence[str]) -> str | None:
    name = _first(document, names)
    return None if name is None else str(document[name])


def _is_fact(value: str) -> bool:
    return len(value) <= MAX_FACT and value.isprintable()


def _flat(value: object, name: str, depth: int) -> Iterator[tuple[str, str]]:
    match value:
        case dict() if depth:
            for key, each in value.items():
                if not _SECRET.search(_SEPARATORS.sub("", key.lower())):
                    yield from _flat(each, f"{name}.{key}" if name else key, depth - 1)
        case list() if depth:
            for index, each in enumerate(value):
                yield from _flat(each, f"{name}.{index}", depth - 1)
        case bool():
            yield name, "true" if value else "false"
        case str():
            yield name, value
        case int() | float():
            yield name, str(value)


def address_facts(query: Mapping[str, str]) -> dict[str, str]:
    """Return the facts that an address may carry (`from`, `to`, `direction`), for recorders that send none."""
    return {name: query[name] for name in ("from", "to", "direction") if name in query}


def dtmf(digit: object, duration_ms: Any = None) -> Sequence[Dtmf]:
    """Return the key pressed, or nothing if `digit` is no key."""
    if not isinstance(digit, str) or not _DTMF.fullmatch(digit):
        return ()
    known = isinstance(duration_ms, int) and not isinstance(duration_ms, bool) and 0 <= duration_ms <= _MAX_MS
    return (Dtmf(digit=digit.upper(), duration_ms=duration_ms if known else None),)
