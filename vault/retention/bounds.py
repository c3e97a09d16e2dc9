"""What a vault's own retention and its tenants' lie between."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from vault.errors import ConfigError, Invalid
from vault.retention.periods import Period

FLOOR: Final = Period(timedelta(days=1))
"""The floor of a vault that sets none. Only a trial vault may have a lower one."""
WIDTH_FLOOR: Final = timedelta(hours=1)
"""What the cohorts of a vault are at least wide, unless it is a trial one."""
_TRIAL_HINT: Final = "a vault to try things in may go lower, for ever: callvault init --trial"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionBounds:
    """How long recordings are kept by default, and the bounds within which a tenant may choose.

    They bind the expiry of recordings alone: no erasure, objection or end of a contract waits for the floor. `floor`
    None binds nothing.
    """

    default: Period
    floor: Period | None
    cap: Period

    def check(self, chosen: Period) -> None:
        """Raise Invalid unless `chosen`, from whatever instant it counts, is within floor and cap."""
        if self.of(chosen) is not chosen:
            low = self.floor or "above zero"
            raise Invalid(
                f"the retention {chosen} is outside the vault's bounds", hint=f"choose between {low} and {self.cap}"
            )

    def of(self, chosen: Period | None) -> Period:
        """Return how long a recording of now is kept under a tenant's choice; None follows the vault.

        The choice is held within the bounds here as well as when it is made: bounds that changed since bind it too.
        """
        if chosen is None:
            return self.default
        if self.floor is not None and not chosen.covers(self.floor):
            return self.floor
        return chosen if self.cap.covers(chosen) else self.cap


def retention_bounds(
    *, default: Period, floor: Period | None, cap: Period, trial: bool, predates: bool
) -> RetentionBounds:
    """Return the bounds that the settings give a vault; ConfigError where it may not have them.

    A vault that `predates` the mark of trial vaults was made when there was no floor: unset or zero means none there,
    so that it starts and keeps what it keeps. Everywhere else unset means FLOOR, and `trial` alone allows less.
    """
    if predates:
        floor = floor or None
    elif floor is None:
        floor = FLOOR
    elif not floor:
        raise ConfigError("retention.floor: the floor has to be longer than nothing", hint=_hint(trial=trial))
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
        raise ConfigError("retention.cohort_width: cohorts are wider than nothing", hint='leave it at "1d"')
    if not trial and width < WIDTH_FLOOR:
        raise ConfigError("retention.cohort_width: a cohort is at least an hour wide", hint=_TRIAL_HINT)


def _hint(*, trial: bool) -> str:
    if trial:
        return 'leave the line out, or set one above zero: floor = "1s"'
    return f'leave the line out, or set floor = "{FLOOR}" or longer; {_TRIAL_HINT}'
