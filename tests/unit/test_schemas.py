"""How an answer is filled from what it shows."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import NotRequired

import pytest
from pydantic_core import to_json
from typing_extensions import TypedDict

from vault.model import HoldKind
from vault.server.schemas import Body, Moment, render


class Shown(TypedDict):
    id: str
    kind: HoldKind | None
    at: Moment | None
    why: NotRequired[str]


class Alone(TypedDict):
    id: str


@dataclass(frozen=True)
class Value:
    id: str = "one"
    kind: HoldKind | None = HoldKind.LEGAL
    at: datetime | None = datetime(2026, 5, 30, 12, tzinfo=timezone(timedelta(hours=2)))
    why: str = "never taken: it may be left out"


class Asked(Body):
    id: str
    other: str


def test_a_member_is_the_attribute_of_its_name_unless_it_is_given():
    assert render(Shown, Value()) == {"id": "one", "kind": "legal", "at": "2026-05-30T10:00:00.000Z"}
    given = datetime(2026, 5, 30, tzinfo=UTC)
    shown = render(Shown, Value(), at=given, kind=HoldKind.REGULATORY, why="said")
    assert shown == {"id": "one", "kind": "regulatory", "at": "2026-05-30T00:00:00.000Z", "why": "said"}
    assert render(Alone, Value()) == {"id": "one"}


def test_an_answer_is_plain_json_whose_missing_members_are_null_or_left_out():
    shown = render(Shown, Value(kind=None, at=None), why=None)
    assert to_json(shown) == b'{"id":"one","kind":null,"at":null}'
    assert type(render(Shown, Value())["kind"]) is str


def test_a_member_that_the_answer_does_not_have_is_refused():
    with pytest.raises(AssertionError, match="no such member"):
        render(Alone, Value(), another=1)


def test_a_request_gives_a_value_what_both_have():
    assert Asked(id="two", other="x").into(Value, why="given") == Value(id="two", why="given")
