"""What recorders state about a call in JSON or in the URL: its call key and its facts, without secrets.

The first value of a repeated name counts. NaN and infinities, which RFC 8259 does not have, are left out. Both are
noted as unusable facts. Size and depth are bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from vault.errors import Invalid
from vault.ids import call_key_of
from vault.model import CallFacts
from vault.protocol.facts.stated import MAX_FACT, Reading, Unusable
from vault.protocol.live.events import Dtmf

# -- JSON objects, with repeated members noted ----------------------------------------------------------------------


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


# -- call keys and facts from JSON or an address --------------------------------------------------------------------

MAX_TEXT: Final = 1 << 18
"""How many characters of JSON a recorder may send in one message."""

UNREADABLE: Final = (
    "the first text begins like JSON but is not JSON: send it whole, or put ?call_key=…&rate=8000 into the URL"
)
"""The message for a connection whose first text is unreadable and whose URL does not describe the audio."""

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
    """Return the JSON object in `text`, as far as it can be read; None for other text, or if it is too long."""
    if not isinstance(text, str) or len(text) > MAX_TEXT or not _begins_one(text):
        return None
    try:
        return load_members(text)
    except NotJson:
        return None


def unreadable(text: str | bytes) -> bool:
    """Tell whether a text begins like a JSON object and cannot be read as one."""
    return isinstance(text, str) and _begins_one(text) and parse_object(text) is None


def _begins_one(text: str) -> bool:
    return text.lstrip(" \t\r\n").startswith("{")


def call_key(document: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Return the call key of the first of `names` that has a text or an integer; None without one."""
    values = (str(document[name]) for name in names if type(document.get(name)) in {str, int})
    return next((call_key_of(value) for value in values if value), None)


def number(document: Mapping[str, Any], name: str) -> int | None:
    """Return a count, written as a JSON number or as decimal digits; None if it is absent, Invalid for other values."""
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
    """Return the facts in a recorder's document; `known` are names that have another meaning.

    `read` are the objects that the document was made from; what could not be read in them is noted as unusable. Other
    members go to the extras, nested ones under dotted names: at most 50, each printable and at most 200 characters. A
    member that is longer, unprintable or named like a credential is left out.
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
        caller=reading.text("from", _value(document, _CALLER)),
        called=reading.text("to", _value(document, _CALLED)),
        direction=reading.direction("direction", _value(document, _DIRECTION)),
        extra=extra,
        unusable=reading.unusable,
    )


def _note(reading: Reading, read: Sequence[object], depth: int, *, others: bool = False) -> None:
    """Note what could not be read in objects and in nested ones."""
    within: list[object] = []
    for each in read:
        if isinstance(each, Members):
            for names, why in ((each.constants, Unusable.VALUE), (each.repeated, Unusable.REPEATED)):
                for name in names:
                    reading.leave_out("others" if others else _FACTS.get(name, "others"), why)
        if isinstance(each, Mapping | list):
            within += each.values() if isinstance(each, Mapping) else each
    if depth:
        noted = {id(each) for each in read}
        _note(reading, [each for each in within if id(each) not in noted], depth - 1, others=True)


def _first(document: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if type(document.get(name)) in {str, int}), None)


def _value(document: Mapping[str, Any], names: Sequence[str]) -> str | None:
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
    """Return the facts in a URL's query (`from`, `to`, `direction`), for recorders that send no metadata."""
    return {name: query[name] for name in ("from", "to", "direction") if name in query}


def dtmf(digit: object, duration_ms: Any = None) -> Sequence[Dtmf]:
    """Return the key that was pressed, or nothing if `digit` is not a telephone key."""
    if not isinstance(digit, str) or not _DTMF.fullmatch(digit):
        return ()
    known = isinstance(duration_ms, int) and not isinstance(duration_ms, bool) and 0 <= duration_ms <= _MAX_MS
    return (Dtmf(digit=digit.upper(), duration_ms=duration_ms if known else None),)
