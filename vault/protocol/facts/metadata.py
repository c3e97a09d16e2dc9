"""What recorders say about a call in JSON or in the address: its name, its facts, and nothing secret.

Of a name that comes twice the first value counts; NaN and the infinities, which RFC 8259 does not have, are none. What
is left out for that is noted as any other fact. What is read is bounded in size and depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from vault.errors import Invalid
from vault.ids import call_key_of
from vault.model import CallFacts
from vault.protocol.facts.lenient_json import Members, load_members
from vault.protocol.facts.stated import MAX_FACT, Reading, Unusable
from vault.protocol.facts.strict_json import NotJson
from vault.protocol.live.events import Dtmf

MAX_TEXT: Final = 1 << 18
"""How many characters of JSON a recorder may send at once: as many as fit into one message."""

UNREADABLE: Final = (
    "the first text begins as JSON and is none: send it whole, or put ?call_key=…&rate=8000 into the URL"
)
"""What to say where nothing else tells what the audio is."""

_MAX_DEPTH: Final = 4
_MAX_EXTRAS: Final = 50
_MAX_NAME: Final = 100
_MAX_DIGITS: Final = 9
_MAX_MS: Final = 3_600_000

_CALLER: Final = ("from", "caller", "callerID", "callerId", "caller_id", "caller_number")
_CALLED: Final = ("to", "called", "callee", "calledNumber", "called_number", "destination")
_DIRECTION: Final = ("direction",)
_FACTS: Final = {
    **dict.fromkeys(_CALLER, "from"),
    **dict.fromkeys(_CALLED, "to"),
    **dict.fromkeys((*_DIRECTION,), "direction"),
    "tags": "tags",
}
_SECRET: Final = re.compile(r"token|passw|secret|auth|credential|apikey|privatekey|cookie|bearer|signature")
_SEPARATORS: Final = re.compile(r"[-_. ]")
_DTMF: Final = re.compile(r"[0-9*#A-Da-d]")


def parse_object(text: str | bytes) -> Members | None:
    """Return the JSON object that `text` is, as far as it can be read; None if it is none, or is too long."""
    if not isinstance(text, str) or len(text) > MAX_TEXT or not _begins_one(text):
        return None
    try:
        return load_members(text)
    except NotJson:
        return None


def unreadable(text: str | bytes) -> bool:
    """Tell whether a text begins as a JSON object and is none."""
    return isinstance(text, str) and _begins_one(text) and parse_object(text) is None


def _begins_one(text: str) -> bool:
    return text.lstrip(" \t\r\n").startswith("{")


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


def call_facts(
    document: Mapping[str, Any], *, known: frozenset[str] = frozenset(), read: Sequence[Mapping[str, Any]] = ()
) -> CallFacts:
    """Return what a recorder's document says about a call; `known` are names that say something else.

    `read` is what the document was made of: what could not be read in it is noted.

    What has no place of its own goes to the extras, nested values under dotted names: at most
    50, each printable and at most 200 characters. Anything longer, unprintable or named like a credential is left out.
    """
    reading = Reading()
    _note(reading, read, _MAX_DEPTH)
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


def _note(reading: Reading, read: Sequence[object], depth: int, *, others: bool = False) -> None:
    """Note what could not be read of objects and of those within them."""
    within: list[object] = []
    for each in read:
        if isinstance(each, Members):
            for names, why in ((each.constants, Unusable.VALUE), (each.repeated, Unusable.REPEATED)):
                for name in names:
                    reading.leave_out("others" if others else _FACTS.get(name, "others"), why)
        if isinstance(each, Mapping | list):
            within += each.values() if isinstance(each, Mapping) else each
    if depth:
        _note(reading, [each for each in within if not any(each is top for top in read)], depth - 1, others=True)


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
