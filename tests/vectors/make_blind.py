"""Blind index tokens of call keys and numbers."""

from tests.vectors.encoding import seed
from vault.crypto.values import Field, token
from vault.model import DataKey

NAME = "blind"
ABOUT = "The `token` of `value` as `field` under `leaf`, the last leaf key of a metadata cohort. Values are UTF-8."

MARCH, APRIL = (DataKey(seed(month)) for month in ("march", "april"))


def case(name, leaf, field, value):
    return {
        "name": name,
        "outcome": "ok",
        "leaf": leaf.material.hex(),
        "field": field.value,
        "value": value,
        "token": token(leaf, field, value),
    }


def cases():
    number = "+441632960001"
    return [
        case("a caller", MARCH, Field.CALLER, number),
        case("the same number, called", MARCH, Field.CALLED, number),
        case("the same caller in another month", APRIL, Field.CALLER, number),
        case("a call key", MARCH, Field.CALL_KEY, "pbx7~1764000000.42"),
        case("an object key", MARCH, Field.OBJECT_KEY, "2026/a b.wav"),
        case("a SIP user outside ASCII", MARCH, Field.CALLER, "rené@pbx.example"),
    ]
