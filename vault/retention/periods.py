"""Retention periods as people write them, such as `90d`, `18mo` and `7y`, and the bounds between which they lie."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final

from vault.errors import ConfigError, Invalid

# -- periods ------------------------------------------------------------------------------------------------------

_MILLISECONDS: Final = {
    "w": 7 * 24 * 3600 * 1000,
    "d": 24 * 3600 * 1000,
    "h": 3600 * 1000,
    "m": 60 * 1000,
    "s": 1000,
    "ms": 1,
}
_ORDER: Final = tuple(_MILLISECONDS)
_DURATION: Final = re.compile(r"(?:[0-9]{1,15}(?:ms|[wdhms]))+", re.ASCII)
_BARE: Final = re.compile(r"[0-9]+", re.ASCII)
_TERM: Final = re.compile(r"([0-9]+)(ms|[wdhms])")
_DURATION_HINT: Final = "write whole numbers with a unit, largest first: 90d, 12h, 1h30m, 500ms"


def parse_duration(text: str) -> timedelta:
    """Return the duration that `text` writes: one or more of `<n>w <n>d <n>h <n>m <n>s <n>ms`, largest unit first.

    Each unit occurs at most once. Signs, spaces and fractions are not allowed. Any other text raises Invalid.
    """
    if _BARE.fullmatch(text):
        raise Invalid(f"{text[:40]!r} has no unit", hint=_DURATION_HINT)
    if not _DURATION.fullmatch(text):
        raise Invalid(f"{text[:40]!r} is not a duration", hint=_DURATION_HINT)
    terms = [(int(number), unit) for number, unit in _TERM.findall(text)]
    ranks = [_ORDER.index(unit) for _, unit in terms]
    if any(later <= earlier for earlier, later in pairwise(ranks)):
        raise Invalid(f"{text[:40]!r} repeats a unit or is out of order", hint=_DURATION_HINT)
    try:
        return timedelta(milliseconds=sum(number * _MILLISECONDS[unit] for number, unit in terms))
    except OverflowError:
        raise Invalid(f"{text[:40]!r} is longer than ten thousand years", hint=_DURATION_HINT) from None


def format_duration(duration: timedelta) -> str:
    """Return the duration as `parse_duration` reads it, in days and smaller units, cut to whole milliseconds.

    Weeks are not written, because policies promise days, such as `90d`. A negative duration raises Invalid.
    """
    rest = duration // timedelta(milliseconds=1)
    if rest < 0:
        raise Invalid("a duration cannot be negative", hint=_DURATION_HINT)
    terms = []
    for unit in _ORDER[1:]:
        count, rest = divmod(rest, _MILLISECONDS[unit])
        if count:
            terms.append(f"{count}{unit}")
    return "".join(terms) or "0s"


_TEXT: Final = re.compile(r"(?:([0-9]{1,15})y)?(?:([0-9]{1,15})mo)?(.*)", re.ASCII | re.DOTALL)
_PERIOD_HINT: Final = "write whole numbers with a unit, largest first: 7y, 18mo, 90d, 12h, 1h30m"
_MONTHS: Final = 120_000
_DAYS: Final = timedelta(days=3_652_500)
"""Ten thousand years, the longest period that is accepted."""
_CYCLE_MONTHS: Final = 4_800
_CYCLE_DAYS: Final = 146_097
"""After 400 years the Gregorian calendar repeats itself."""


@dataclass(frozen=True, slots=True)
class Period:
    """A number of calendar months plus a fixed time. Its length depends on the instant that it counts from."""

    rest: timedelta = timedelta(0)
    months: int = 0

    def after(self, start: datetime) -> datetime:
        """Return the end of the period that begins at `start`, in UTC; Invalid beyond the calendar.

        Adding months keeps the day of the month. If the month reached is shorter, its last day is taken: one month
        from 31 January is 28 or 29 February.
        """
        utc = start.astimezone(UTC)
        year, month = divmod(utc.year * 12 + utc.month - 1 + self.months, 12)
        try:
            day = min(utc.day, monthrange(year, month + 1)[1])
            return utc.replace(year=year, month=month + 1, day=day) + self.rest
        except (OverflowError, ValueError):
            raise Invalid("the date lies beyond the calendar") from None

    def before(self, end: datetime) -> datetime:
        """Return the instant one period before `end`, in UTC; the day of the month as in `after`."""
        return Period(-self.rest, -self.months).after(end)

    @property
    def shortest(self) -> timedelta:
        """The least length that the period has, whenever it begins."""
        return timedelta(days=_days(self.months)[0]) + self.rest

    @property
    def longest(self) -> timedelta:
        """The greatest length that the period has, whenever it begins."""
        return timedelta(days=_days(self.months)[1]) + self.rest

    def covers(self, other: Period) -> bool:
        """Tell whether it ends at or after `other` for every common beginning. False if that is not certain."""
        more = self.months - other.months
        if more >= 0:
            return timedelta(days=_days(more)[0]) + self.rest >= other.rest
        return self.shortest >= other.longest

    def __bool__(self) -> bool:
        return bool(self.months or self.rest)

    def __str__(self) -> str:
        """Return it as `parse_period` reads it: years, months, days and smaller units, cut to whole milliseconds."""
        years, months = divmod(self.months, 12)
        text = (f"{years}y" if years else "") + (f"{months}mo" if months else "")
        rest = format_duration(self.rest)
        return text if text and rest == "0s" else text + rest


def parse_period(text: str) -> Period:
    """Return the period that `text` writes: `<n>y`, `<n>mo`, then a duration for `parse_duration`; each is optional.

    Any other text, or more than ten thousand years, raises Invalid.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise AssertionError("the last group takes anything")
    years, months, rest = match.groups()
    try:
        period = Period(
            parse_duration(rest) if rest or (years is None and months is None) else timedelta(0),
            int(years or 0) * 12 + int(months or 0),
        )
    except Invalid as error:
        raise Invalid(error.message.replace(repr(rest[:40]), repr(text[:40])), hint=_PERIOD_HINT) from None
    if period.months > _MONTHS or period.rest > _DAYS:
        raise Invalid(f"{text[:40]!r} is longer than ten thousand years", hint=_PERIOD_HINT)
    return period


def maybe_period(text: str | None) -> Period | None:
    """Return the period that `text` writes; None for None. Raises Invalid as `parse_period` does."""
    return None if text is None else parse_period(text)


@lru_cache(maxsize=256)
def _days(months: int) -> tuple[int, int]:
    """Return the least and the greatest number of days that `months` calendar months can be."""
    cycles, part = divmod(months, _CYCLE_MONTHS)
    firsts = [date(2000 + month // 12, month % 12 + 1, 1).toordinal() for month in range(_CYCLE_MONTHS + part + 2)]
    whole = [firsts[month + part] - firsts[month] for month in range(_CYCLE_MONTHS)]
    # Fewer days pass from the last day of a month if the month reached is shorter.
    lost = [
        max(0, (firsts[month + 1] - firsts[month]) - (firsts[month + part + 1] - firsts[month + part]))
        for month in range(_CYCLE_MONTHS)
    ]
    shortest = min(days - less for days, less in zip(whole, lost, strict=True))
    return cycles * _CYCLE_DAYS + shortest, cycles * _CYCLE_DAYS + max(whole)


# -- bounds -------------------------------------------------------------------------------------------------------

FLOOR: Final = Period(timedelta(days=1))
"""The floor of a vault that sets none. Only a trial vault may have a lower one."""
WIDTH_FLOOR: Final = timedelta(hours=1)
"""The least cohort width of a vault that is not a trial vault."""
_TRIAL_HINT: Final = "only a trial vault may have less, and it stays one: callvault init --trial"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionBounds:
    """How long recordings are kept by default, and the bounds within which a tenant may choose.

    The bounds apply to expiry only: no erasure, objection or end of a contract waits for the floor. `floor` None means
    that there is no floor.
    """

    default: Period
    floor: Period | None
    cap: Period

    def check(self, chosen: Period) -> None:
        """Raise Invalid unless `chosen` is within floor and cap, whatever instant it counts from."""
        if self.of(chosen) is not chosen:
            bounds = f"choose between {self.floor} and {self.cap}" if self.floor else f"choose {self.cap} or less"
            raise Invalid(f"the retention {chosen} is outside the vault's bounds", hint=bounds)

    def of(self, chosen: Period | None) -> Period:
        """Return how long a new recording is kept under a tenant's choice; None means the vault's default.

        The bounds may have changed since the tenant chose, so the choice is limited to them here again.
        """
        if chosen is None:
            return self.default
        if self.floor is not None and not chosen.covers(self.floor):
            return self.floor
        return chosen if self.cap.covers(chosen) else self.cap


def retention_bounds(
    *, default: Period, floor: Period | None, cap: Period, trial: bool, predates: bool
) -> RetentionBounds:
    """Return the bounds that the settings give a vault; ConfigError for bounds that it may not have.

    A vault that `predates` the mark of trial vaults was made when there was no floor. An unset or zero floor means no
    floor there, so that the vault still starts. In any other vault an unset floor means FLOOR, and only a `trial` vault
    may have a lower one.
    """
    if predates:
        floor = floor or None
    elif floor is None:
        floor = FLOOR
    elif not floor:
        raise ConfigError("retention.floor: the floor must be longer than zero", hint=_hint(trial=trial))
    elif not trial and not floor.covers(FLOOR):
        raise ConfigError(f"retention.floor: {floor} is below {FLOOR}", hint=_hint(trial=trial))
    if floor is not None and not default.covers(floor):
        remedy = f'set a floor below it, such as floor = "{default}"' if trial else _hint(trial=False)
        raise ConfigError(f"retention.default: {default} is below the floor, which is {floor}", hint=remedy)
    if not cap.covers(default):
        raise ConfigError(f"retention.default: {default} is above the cap, which is {cap}", hint="raise retention.cap")
    return RetentionBounds(default=default, floor=floor, cap=cap)


def check_new_width(width: timedelta, *, trial: bool) -> None:
    """Raise ConfigError unless a new vault may have cohorts of this width."""
    if width <= timedelta(0):
        raise ConfigError("retention.cohort_width: the width must be longer than zero", hint='leave it at "1d"')
    if not trial and width < WIDTH_FLOOR:
        raise ConfigError("retention.cohort_width: a cohort is at least an hour wide", hint=_TRIAL_HINT)


def _hint(*, trial: bool) -> str:
    if trial:
        return 'leave the line out, or set one above zero: floor = "1s"'
    return f'leave the line out, or set floor = "{FLOOR}" or longer; {_TRIAL_HINT}'
