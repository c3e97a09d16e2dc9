"""What every section of config.toml is made of."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    WithJsonSchema,
)
from pydantic_core import core_schema

from vault.errors import Invalid
from vault.media.sizes import parse_size
from vault.retention.periods import Period, parse_duration, parse_period

PERIOD_SCHEMA = {
    "type": "string",
    "pattern": "^(?=.)(?:[0-9]+y)?(?:[0-9]+mo)?(?:[0-9]+(?:ms|[wdhms]))*$",
    "examples": ["90d", "18mo", "7y", "1h30m"],
}


def _duration(value: Any) -> timedelta:
    # A bare number would be read as seconds, even if days were meant.
    if not isinstance(value, str):
        raise ValueError('a duration is text with a unit: "90d", "12h", "1h30m", "500ms"')  # noqa: TRY004 - for pydantic
    try:
        return parse_duration(value)
    except Invalid as error:
        # The hint alone: the message quotes what was sent.
        raise ValueError(error.hint or "not a duration") from error


def _period(value: Any) -> Period:
    if not isinstance(value, str):
        raise ValueError('a period is text with a unit: "90d", "18mo", "7y"')  # noqa: TRY004 - for pydantic
    try:
        return parse_period(value)
    except Invalid as error:
        raise ValueError(error.hint or "not a period") from error


def _validates(_source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
    # The text alone: of the value's own members the described API knows nothing.
    return core_schema.no_info_plain_validator_function(_period)


def _kept(value: Period) -> Period:
    if not value:
        raise ValueError('a retention is longer than nothing: "90d"')
    return value


def _size(value: Any) -> int:
    try:
        size = parse_size(value if isinstance(value, str) else "")
    except Invalid as error:
        raise ValueError(error.hint or "not a size") from error
    if not size:
        raise ValueError('a size is larger than nothing: "8MiB"')
    return size


Duration = Annotated[timedelta, BeforeValidator(_duration)]
"""Text with units, in config.toml and in the bodies of the API alike; no number is one."""
CalendarPeriod = Annotated[Period, GetPydanticSchema(_validates), WithJsonSchema(PERIOD_SCHEMA)]
"""A duration that may also have calendar months and years: `18mo`, `7y`."""
Retention = Annotated[CalendarPeriod, AfterValidator(_kept)]
"""How long something is kept: a period that is not zero."""
Size = Annotated[int, BeforeValidator(_size)]
"""Bytes, as text with a unit; no number is one."""


class Section(BaseModel):
    """A section: unknown settings are refused, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
