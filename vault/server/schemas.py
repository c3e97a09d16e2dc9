"""What requests and answers are made of, and the kinds of values that several of them have.

A request is a `Body`, which is checked. An answer is a TypedDict, which `render` fills from what it shows. Either is
the only place where its shape is written: the document at /v1/openapi.json is made of them, docstrings included.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import Enum, EnumType
from operator import attrgetter
from typing import Annotated, Any, Final, NotRequired, TypeVar, cast, get_args, get_origin, get_type_hints, overload

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

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
    """Render an instant, if there is one."""
    return None if value is None else rfc3339(value)


def moment_of_ms(value: int) -> str:
    """Render whole milliseconds since 1970 likewise."""
    return rfc3339(_EPOCH + timedelta(milliseconds=value))


def _no_number(value: object) -> object:
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        raise ValueError("write an instant as RFC 3339: 2026-12-01T09:00:00Z")
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("it lies beyond the calendar") from None


Instant = Annotated[AwareDatetime, AfterValidator(_in_utc), BeforeValidator(_no_number)]
"""An instant in a request, in UTC: one that is beyond the calendar there is written, and cannot be read again."""


# -- values -----------------------------------------------------------------------------------------------------


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
        description="The same in seconds, at its longest; it goes in the next version.",
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
"""The id of a token. Beside a member of this kind whose name ends in `_by` stands the token's own name."""


def longest_seconds(period: str | None) -> float | None:
    """Return how many seconds a period is at its longest, for those who still read numbers."""
    return None if period is None else parse_period(period).longest.total_seconds()


# -- models -----------------------------------------------------------------------------------------------------


class Body(BaseModel):
    """A request body, or a query string."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def into(self, kind: type[_T], /, **more: Any) -> _T:
        """Return a dataclass with the fields in `more`, and for the others what the body has of the same names."""
        shared = {field.name for field in fields(kind)} & type(self).model_fields.keys()  # type: ignore[arg-type]
        return kind(**{name: getattr(self, name) for name in shared - more.keys()}, **more)


def render(kind: type[_T], value: object, /, **more: Any) -> _T:
    """Return the answer with the members in `more`, and for the others `value`'s attributes of the same names.

    Instants are rendered, and a member that may be left out is, where it is None. Answers are plain dictionaries:
    nothing is checked again, for a page of a list has thousands of values.
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
    """Return, of an answer that is given `more`: its members, what is taken from the value, by what, what is special.

    The members stand in the order of the kind. What reads the value reads its class too: a single
    attribute would not come in a tuple.
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


def sealed(asked: _T) -> _T:
    """Return a request of two people with the digest of the rest as its `shown`."""
    document = cast("Mapping[str, Any]", asked)
    return cast("_T", {**document, "shown": shown_digest(document)})


class Page(Body):
    """A page of anything but recordings."""

    tenant: str | None = None
    recording: str | None = None
    before: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class Approve(Body):
    """The second person's word: an approval names the `shown` of what it approves."""

    approve: bool = True
    shown: Digest | None = None
