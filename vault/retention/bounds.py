"""The floor and the cap between which a vault's default retention and its tenants' choices lie."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from vault.errors import ConfigError, Invalid
from vault.retention.periods import Period

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
            low = self.floor or "above zero"
            raise Invalid(
                f"the retention {chosen} is outside the vault's bounds", hint=f"choose between {low} and {self.cap}"
            )

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
