"""The base of request and answer models, and the kinds of values that several of them have.

A request is a `Body`, which is validated. An answer is a TypedDict, which `render` fills from a value. A model is the
only place where its shape is written: the document at /v1/openapi.json is built from the models and their docstrings.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import Enum, EnumType
from itertools import pairwise
from operator import attrgetter
from typing import Annotated, Any, Final, NotRequired, TypeVar, cast, get_args, get_origin, get_type_hints, overload

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from typing_extensions import TypedDict

from vault.access.two_people import shown_digest
from vault.ids import CertificateId, HoldId, RecordingId, TenantId
from vault.instants import rfc3339
from vault.ports.erasures import ErasureId
from vault.retention.periods import parse_period

_T = TypeVar("_T")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER: Final = re.compile(r"\s*[+-]?[\d.]+(?:e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)


# -- instants ---------------------------------------------------------------------------------------------------


@overload
def moment(value: datetime) -> str: ...
@overload
def moment(value: None) -> None: ...
def moment(value: datetime | None) -> str | None:
    """Return an instant as RFC 3339 in UTC; None for None."""
    return None if value is None else rfc3339(value)


def moment_of_ms(value: int) -> str:
    """Return the instant of whole milliseconds since 1970 as RFC 3339 in UTC."""
    return rfc3339(_EPOCH + timedelta(milliseconds=value))


def _no_number(value: object) -> object:
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        raise ValueError("write an instant as RFC 3339: 2026-12-01T09:00:00Z")
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("the instant is beyond the calendar") from None


Instant = Annotated[AwareDatetime, AfterValidator(_in_utc), BeforeValidator(_no_number)]
"""An instant in a request, converted to UTC. One that is beyond the calendar in UTC is refused."""


# -- kinds of values in bodies and answers ----------------------------------------------------------------------


def _id(prefix: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{prefix}_[0-9a-f]{{32}}$"})


Words = Annotated[str, Field(min_length=1, max_length=500)]
Number = Annotated[str, Field(min_length=1, max_length=200)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""An instant in an answer, as `moment` renders it."""
Count = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0})]
Seconds = Annotated[float, WithJsonSchema({"type": "number", "minimum": 0})]
LongestSeconds = Annotated[
    Seconds | None,
    Field(
        description="The same in seconds, at its longest; the next version no longer has it.",
        json_schema_extra={"deprecated": True},
    ),
]
Sha256 = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[0-9a-f]{64}$"})]
TenantRef = Annotated[TenantId, WithJsonSchema({"type": "string", "pattern": "^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"})]
RecordingRef = Annotated[RecordingId, _id("rec")]
FormerRef = Annotated[
    RecordingRef, Field(description="The same as `id`; it goes.", json_schema_extra={"deprecated": True})
]
HoldRef = Annotated[HoldId, _id("hold")]
CertificateRef = Annotated[CertificateId, _id("cert")]
ErasureRef = Annotated[ErasureId, _id("era")]
PolicyRef = Annotated[str, _id("pol")]
OverrideRef = Annotated[str, _id("ovr")]
Who = Annotated[str, _id("tok")]
"""The id of a token. A member of this kind whose name ends in `_by` has the token's name in a member beside it."""


def longest_seconds(period: str | None) -> float | None:
    """Return how many seconds a period is at its longest, for clients that still read numbers."""
    return None if period is None else parse_period(period).longest.total_seconds()


# -- the bases of bodies and answers ----------------------------------------------------------------------------


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Give the fields of a schema their docstrings, which pydantic itself would read when a server starts."""
    for kind in model.__mro__:
        if not issubclass(kind, BaseModel) or kind is BaseModel:
            continue
        [written] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        for named, said in pairwise(cast("ast.ClassDef", written).body):
            match named, said:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    schema["properties"][name].setdefault("description", inspect.cleandoc(text))


class Body(BaseModel):
    """A request body, or a query string."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, json_schema_extra=_describe)

    def into(self, kind: type[_T], /, **more: Any) -> _T:
        """Return a dataclass; its fields are taken from `more`, else from the body's members of the same names."""
        shared = {field.name for field in fields(kind)} & type(self).model_fields.keys()  # type: ignore[arg-type]
        return kind(**{name: getattr(self, name) for name in shared - more.keys()}, **more)


def render(kind: type[_T], value: object, /, **more: Any) -> _T:
    """Return the answer; its members are taken from `more`, else from `value`'s attributes of the same names.

    Instants are rendered. A member that may be left out is left out if it is None. Answers are plain dictionaries and
    are not validated, because a page of a list has thousands of values.
    """
    order, taken, read, moments, choices, optional = _members(cast("Any", kind), tuple(more))
    made: dict[str, Any] = dict.fromkeys(order)
    made.update(zip(taken, read(value), strict=False))
    made |= more
    for name in moments:
        if isinstance(at := made[name], datetime):
            made[name] = rfc3339(at)
    for name in choices:
        if isinstance(choice := made[name], Enum):
            made[name] = choice.value
    for name in optional:
        if made[name] is None:
            del made[name]
    return cast("_T", made)


@functools.cache
def _members(
    kind: Any, more: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...], Callable[[Any], Any], list[str], list[str], list[str]]:
    """Return how an answer of this kind is rendered, computed once for each kind and set of names in `more`.

    That is: its members in order; the attributes taken from the value and the getter that reads them; the members that
    are instants, enumerations, or may be left out. The getter also reads the class of the value, because a getter of a
    single attribute returns no tuple.
    """
    hints = get_type_hints(kind, include_extras=True)
    assert hints.keys() >= set(more), f"{kind.__name__} has no such member"
    optional = [name for name, hint in hints.items() if get_origin(hint) is NotRequired]
    taken = tuple(name for name in hints if name not in more and name not in optional)
    kinds = {name: (hints[name], *get_args(hints[name])) for name in (*taken, *more)}
    moments = [name for name, each in kinds.items() if Moment in each]
    choices = [name for name, each in kinds.items() if any(isinstance(one, EnumType) for one in each)]
    order = tuple(name for name in hints if name in more or name not in optional)
    return order, taken, attrgetter(*taken, "__class__"), moments, choices, [name for name in optional if name in more]


class Refusal(TypedDict):
    """Why the token that reads a request may not approve it, as its approval would be told."""

    detail: str
    hint: str | None


def sealed(asked: _T) -> _T:
    """Return a request for two people, with the digest of its other members as `shown`."""
    document = cast("Mapping[str, Any]", asked)
    return cast("_T", {**document, "shown": shown_digest(document)})


class OfTenant(Body):
    """The query of a whole list."""

    tenant: str | None = None


class Newest(OfTenant):
    """The query of the newest of a list."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class Page(Newest):
    """The query of a page of a list other than recordings."""

    before: str | None = None


class Approve(Body):
    """A decision by the second person. An approval names the `shown` of the request that it approves."""

    approve: bool = True
    shown: Digest | None = None
