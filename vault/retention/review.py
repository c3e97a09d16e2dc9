"""Review dates of holds: every hold has one, it lies ahead when it is set, and passing it never releases anything."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from vault.errors import Invalid
from vault.model import Hold, HoldKind
from vault.retention.decide import in_force

_YEARS: Final = {
    # Limitation Act 1980 s5: six years from the event for simple contract.
    HoldKind.LEGAL: 6,
    # FCA SYSC 10A.1.6: recordings are kept five years from the date they were made.
    HoldKind.REGULATORY: 5,
}
_SAFEGUARDING_YEARS: Final = 1
_HINT: Final = "name the day on which someone will look at this hold again"


def check_review(
    review_at: datetime | None,
    kind: HoldKind,
    *,
    now: datetime,
    latest: datetime | None = None,
) -> datetime:
    """Return `review_at` if it is usable, else raise Invalid: it is required and lies in the future.

    `latest` binds only a client's request: the end of the tenant's cap, which a wish for longer cannot outlast.
    """
    if review_at is None:
        raise Invalid("a hold needs a review date", hint=_HINT)
    if review_at <= now:
        raise Invalid("the review date has already passed", hint=_HINT)
    if kind is HoldKind.CLIENT_REQUEST and latest is not None and review_at > latest:
        raise Invalid("a client's request cannot be reviewed after the tenant's retention cap ends", hint=_HINT)
    return review_at


def suggest_review(kind: HoldKind, *, now: datetime, call_started: datetime, cap: timedelta) -> datetime | None:
    """Return a review date that fits the kind, or None if no future date would.

    Legal: the limitation date, six years after the call. Regulatory: five years after it. Safeguarding: in a year, for
    nobody can know when a matter will be resolved. Client request: the end of the cap. A legal or regulatory date that
    has already passed gives a year from now instead: the hold exists for a reason the term does not cover.
    """
    if kind is HoldKind.CLIENT_REQUEST:
        end = call_started + cap
        return end if end > now else None
    if kind is HoldKind.SAFEGUARDING:
        return add_years(now, _SAFEGUARDING_YEARS)
    term = add_years(call_started, _YEARS[kind])
    return term if term > now else add_years(now, 1)


def review_overdue(hold: Hold, *, now: datetime) -> bool:
    """Tell whether the hold is in force and its review date has come; it keeps all the same."""
    return in_force(hold) and hold.review_at <= now


def add_years(instant: datetime, years: int) -> datetime:
    """Return the same day and time `years` later; 29 February becomes 1 March where there is none."""
    try:
        return instant.replace(year=instant.year + years)
    except ValueError:
        return instant.replace(year=instant.year + years, month=3, day=1)
