"""Review dates of holds. A date lies in the future when it is set, and passing it releases nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from vault.errors import Conflict, Invalid
from vault.instants import rfc3339
from vault.model import HoldKind, HoldTerms
from vault.retention.decide import in_force
from vault.retention.periods import Period

_TERM: Final = {
    # Limitation Act 1980 s5: six years from the event for simple contract.
    HoldKind.LEGAL: Period(months=6 * 12),
    # FCA SYSC 10A.1.6: recordings are kept five years from the date they were made.
    HoldKind.REGULATORY: Period(months=5 * 12),
}
_YEAR: Final = Period(months=12)
_HINT: Final = "name the day on which somebody will review this hold"


def check_review(
    review_at: datetime,
    kind: HoldKind,
    *,
    now: datetime,
    latest: datetime | None = None,
) -> datetime:
    """Return `review_at`; Invalid unless it lies after `now`.

    `latest` is the end of the tenant's retention cap. It limits only holds placed at a client's request.
    """
    if review_at <= now:
        raise Invalid("the review date has already passed", hint=_HINT)
    if kind is HoldKind.CLIENT_REQUEST and latest is not None and review_at > latest:
        raise Invalid("a client's request cannot be reviewed after the tenant's retention cap ends", hint=_HINT)
    return review_at


def check_release(hold: HoldTerms, *, now: datetime) -> None:
    """Raise Conflict for a regulatory hold before its review date, because the law sets a minimum."""
    if hold.kind is HoldKind.REGULATORY and now < hold.review_at:
        raise Conflict(
            f"{hold.id} is a minimum set by law until {rfc3339(hold.review_at)}; it is not released before",
            hint="if its kind is wrong, place a hold of the right kind beside it; this one stays until its date",
        )


def check_not_sooner(hold: HoldTerms, review_at: datetime) -> None:
    """Raise Conflict if the date of a regulatory hold would move earlier: it is a minimum set by law."""
    if hold.kind is HoldKind.REGULATORY and review_at < hold.review_at:
        raise Conflict(
            f"{hold.id} is a minimum set by law until {rfc3339(hold.review_at)}; its date only moves later",
            hint="name that date or a later one",
        )


def suggest_review(kind: HoldKind, *, now: datetime, call_started: datetime, latest: datetime) -> datetime:
    """Return the review date of a hold for which nobody named one.

    - Legal: the limitation date, six years after the call.
    - Regulatory: five years after the call.
    - Safeguarding: one year from now.
    - Client request: `latest`, the end of the tenant's retention cap, which may have passed.

    One year from now replaces a legal or regulatory date that has passed.
    """
    if kind is HoldKind.CLIENT_REQUEST:
        return latest
    if kind is HoldKind.SAFEGUARDING:
        return _YEAR.after(now)
    term = _TERM[kind].after(call_started)
    return term if term > now else _YEAR.after(now)


def review_overdue(hold: HoldTerms, *, now: datetime) -> bool:
    """Tell whether the hold is in force and its review date has come; the hold still protects."""
    return in_force(hold) and hold.review_at <= now
