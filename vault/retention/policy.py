"""Retention arithmetic: from a retain-until to the cohort it expires with, and from a month to when it is due.

All of it is exact: instants are integer microseconds since the Unix epoch, so no rounding can move a recording into
an earlier cohort than its retain-until allows.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from vault.errors import Invalid
from vault.model import Recording, RetentionChange, Tenant
from vault.retention.periods import Period, maybe_period, parse_period

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST_PERIOD: Final = (1 << 48) - 1
"""No period lies above it (docs/format.md, "Coordinate")."""
METADATA_FLOOR: Final = Period(timedelta(days=1))
METADATA_CAP: Final = timedelta(days=36_525)
FIRST_START: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""No recorder made a call before it: an earlier start is that of a clock which was never set."""
MAX_AHEAD: Final = timedelta(days=1)
"""How far the start of a call may lie after its receipt: a wrong time zone does, a call does not."""
LONGEST_CALL: Final = timedelta(hours=4)
"""For how long a recording that somebody else began is believed to be of the call that joins it without a date."""
_MICROSECOND: Final = timedelta(microseconds=1)


class StartEffect(enum.StrEnum):
    """What the start that a recorder states does to how long the recording is kept."""

    NONE = "none"
    SHORTENED = "shortened"
    BOUNDED = "bounded"
    """It is shortened too, and would have been by more: it counts from `retention.backdating` before the receipt."""
    LENGTHENED = "lengthened"
    REPLACED = "replaced"
    """It cannot be a start; the time of receipt stands for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """When a call began, from when its recording may be shredded, and what would hold had no start been stated."""

    started_at: datetime
    retain_until: datetime
    unstated_until: datetime
    effect: StartEffect


def lifetime(
    stated: datetime | None,
    *,
    receipt: datetime,
    after: Callable[[datetime], datetime],
    floor: Callable[[datetime], datetime],
    backdating: timedelta | None,
    at_least: datetime | None = None,
) -> Lifetime:
    """Return how long a recording that begins at `receipt` is kept, whatever start its recorder states.

    `after` adds the retention to an instant, `floor` the least one; Invalid beyond the calendar. The retention counts
    from the stated start, but from no earlier than `backdating` before the receipt; None takes true dates. Nothing ends
    before the floor after the receipt, or the retention after it where that is less. A start before the year 2000 or
    more than a day ahead counts as none. Nothing ends before `at_least` either, which changes no `effect`.
    """
    receipt = receipt.astimezone(UTC)
    unstated = after(receipt)
    if stated is None or not FIRST_START <= stated <= receipt + MAX_AHEAD:
        effect = StartEffect.NONE if stated is None else StartEffect.REPLACED
        until = max(unstated, at_least or unstated)
        return Lifetime(started_at=receipt, retain_until=until, unstated_until=unstated, effect=effect)
    started = stated.astimezone(UTC)
    counted = started if backdating is None or receipt - started <= backdating else receipt - backdating
    until = max(after(counted), min(floor(receipt), unstated))
    effect = StartEffect.NONE
    if until != unstated:
        shortened = StartEffect.SHORTENED if counted == started else StartEffect.BOUNDED
        effect = shortened if until < unstated else StartEffect.LENGTHENED
    until = max(until, at_least or until)
    return Lifetime(started_at=started, retain_until=until, unstated_until=unstated, effect=effect)


def joined_at(created: datetime, now: datetime) -> datetime:
    """Return which receipt counts for a call that joins a recording of `created`, as to how long it is to be kept.

    A recorder that takes over from another is as entitled as that one was, so the recording's own receipt counts. But a
    recording that is older than any call was held open, and its age is not taken from the call.
    """
    return max(created, now - LONGEST_CALL)


def expiry_period(retain_until: datetime, width_seconds: float) -> int:
    """Return the first period whose instant is not before `retain_until`: ceil(retain_until / width).

    Rounding up is what keeps the promise: a cohort never falls due before the last of its recordings.
    """
    return -(-_microseconds(retain_until) // _width(width_seconds))


def due_through(now: datetime, width_seconds: float) -> int:
    """Return the greatest period whose instant is at or before `now`: every cohort up to it is due."""
    return _microseconds(now) // _width(width_seconds)


def period_instant(period: int, width_seconds: float) -> datetime:
    """Return when the cohorts of `period` fall due; Invalid if that lies beyond the calendar."""
    try:
        return EPOCH + timedelta(microseconds=period * _width(width_seconds))
    except OverflowError:
        raise Invalid("the period lies beyond the calendar") from None


def metadata_period(created: datetime) -> int:
    """Return the UTC creation month as `year * 12 + month - 1`: the bucket of metadata cohorts."""
    utc = created.astimezone(UTC)
    return utc.year * 12 + utc.month - 1


def month_name(period: int) -> str:
    """Return a bucket of metadata as people write a month: 2026-11."""
    year, month = divmod(period, 12)
    return f"{year:04d}-{month + 1:02d}"


def metadata_until(period: int, retention: Period) -> datetime:
    """Return when the metadata of a creation month falls due: `retention` after the month's end."""
    return retention.after(month_end(period))


def month_end(period: int) -> datetime:
    """Return when a creation month is over: the first instant of the next; Invalid beyond the calendar."""
    year, month = divmod(period + 1, 12)
    try:
        return datetime(year, month + 1, 1, tzinfo=UTC)
    except (OverflowError, ValueError):
        raise Invalid("the retention ends beyond the calendar") from None


def metadata_due(tenant: Tenant, months: Iterable[int], *, now: datetime) -> tuple[int | None, frozenset[int]]:
    """Return the last of `months` whose metadata is due at `now`, and those before it that are not due.

    Each month goes by the retention that was agreed when it was recorded, so a later one may be due first.
    """
    known = set(months)
    kept = {month: maybe_period(tenant.metadata_retention_of(month)) for month in known}
    due = {month for month, period in kept.items() if period is not None and metadata_until(month, period) <= now}
    through = max(due, default=None)
    return through, frozenset(month for month in known - due if through is not None and month < through)


def agreed_from_now(tenant: Tenant, retention: str | None, *, now: datetime) -> Tenant:
    """Return the tenant with another retention of metadata for calls from the next month on.

    A month is one cohort with one clock, and calls of this one have been recorded under what was agreed before.
    """
    this, before = metadata_period(now), tenant.metadata_before
    if not before or before[-1][0] < this:
        before = (*before, (this, tenant.metadata_retention))
    return replace(tenant, metadata_retention=retention, metadata_before=before)


def check_metadata_outlives(metadata: Period | None, audio: Period) -> None:
    """Raise Invalid if metadata would be kept shorter than its audio: nobody could find what is still there."""
    if metadata is not None and not metadata.covers(audio):
        raise Invalid(
            f"metadata kept for {metadata} would go before its audio, which is kept for {audio}",
            hint="choose a metadata retention that is at least that of the audio",
        )


def export_ends(tenant: Tenant, window: Period) -> datetime | None:
    """Return from when a sweep drops a tenant that leaves: `window` after its contract ended and was agreed to end.

    None while two people have not agreed. The later of the two counts: an end that is already past when it is agreed
    leaves the whole window for exports and for second thoughts.
    """
    if tenant.ends_at is None or tenant.offboard_approved_at is None:
        return None
    return window.after(max(tenant.ends_at, tenant.offboard_approved_at))


def check_metadata_retention(retention: Period | None) -> None:
    """Raise Invalid for a retention under which a call could be born into a month that is due."""
    if retention is not None and not (retention.covers(METADATA_FLOOR) and retention.longest <= METADATA_CAP):
        raise Invalid(
            "the metadata retention is not between a day and a century",
            hint="it counts from the end of the month of the call: 2y keeps two years",
        )


def _microseconds(instant: datetime) -> int:
    return (instant - EPOCH) // _MICROSECOND


def _width(seconds: float) -> int:
    width = round(seconds * 1_000_000)
    if width <= 0:
        raise Invalid("the cohort width is at least one microsecond")
    return width


def changed_until(recording: Recording, change: RetentionChange, *, captured: datetime) -> datetime:
    """Return until when `change` keeps the audio of a recording that it covers; `captured` is its date from before.

    Counted as at capture, with the changed period. What becomes shorter is due at `change.since` at the earliest: the
    notice runs first. Invalid beyond the calendar.
    """
    life = lifetime(
        recording.started_at,
        receipt=recording.created_at,
        after=parse_period(change.retention).after,
        floor=parse_period(change.floor).after,
        backdating=None if _imported(recording, change) else timedelta(seconds=change.backdating_seconds),
    )
    return life.retain_until if life.retain_until >= captured else min(captured, max(life.retain_until, change.since))


def covers(change: RetentionChange, recording: Recording) -> bool:
    """Tell whether the recording was captured when the change was asked for."""
    return recording.created_at <= change.through


def _imported(recording: Recording, change: RetentionChange) -> bool:
    """Tell whether the retention counted from a true start, further back than any recorder may state one."""
    bound = recording.created_at - timedelta(seconds=change.backdating_seconds)
    period = maybe_period(recording.retention_period)
    return period is not None and recording.started_at < bound and recording.retain_until < period.after(bound)
