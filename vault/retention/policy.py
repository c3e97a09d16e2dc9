"""Retention arithmetic: the cohort that a recording expires with, and the date on which a month of metadata is due.

Instants are integer microseconds since the Unix epoch, so rounding cannot move a recording into a cohort that falls due
before its retain-until.
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
"""The greatest period (docs/format.md, "Coordinate")."""
METADATA_FLOOR: Final = Period(timedelta(days=1))
METADATA_CAP: Final = timedelta(days=36_525)
FIRST_START: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""The earliest start that is accepted. An earlier one comes from a clock that was never set."""
MAX_AHEAD: Final = timedelta(days=1)
"""How far the stated start of a call may lie after its receipt, so that a wrong time zone is tolerated."""
LONGEST_CALL: Final = timedelta(hours=4)
"""How old a recording may be for a recorder that joins it without a date to count from its receipt."""
_MICROSECOND: Final = timedelta(microseconds=1)


class StartEffect(enum.StrEnum):
    """How the start that a recorder stated changes the retention of the recording."""

    NONE = "none"
    SHORTENED = "shortened"
    BOUNDED = "bounded"
    """Shortened, but by less than stated: the retention counts from `retention.backdating` before the receipt."""
    LENGTHENED = "lengthened"
    REPLACED = "replaced"
    """The stated start is impossible; the time of receipt is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """When a call began, until when its recording is kept, and until when without a stated start."""

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
    """Return how long a recording is kept that is received at `receipt`, if its recorder states the start `stated`.

    `after` adds the retention to an instant, `floor` the least retention; both raise Invalid beyond the calendar.

    - The retention counts from the stated start, but not from earlier than `backdating` before the receipt. With None
      it counts from any start.
    - The result is not before the floor after the receipt, or the retention after it if that is shorter.
    - A start before the year 2000, or more than a day after the receipt, is ignored.
    - The result is not before `at_least`; that does not change `effect`.
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
    """Return the receipt time that counts for a call that joins an existing recording.

    It is `created`, the recording's own receipt, so that a recorder may take over from another. It is never more than
    LONGEST_CALL ago: an older recording was held open, and its age must not shorten the retention of the call.
    """
    return max(created, now - LONGEST_CALL)


def expiry_period(retain_until: datetime, width_seconds: float) -> int:
    """Return the first period whose instant is not before `retain_until`: ceil(retain_until / width).

    Rounding down would let a cohort fall due before the retain-until of its last recordings.
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
    """Return the month of `created` in UTC as `year * 12 + month - 1`: the period of its metadata cohort."""
    utc = created.astimezone(UTC)
    return utc.year * 12 + utc.month - 1


def month_name(period: int) -> str:
    """Return the period of a metadata cohort as people write a month, such as 2026-11."""
    year, month = divmod(period, 12)
    return f"{year:04d}-{month + 1:02d}"


def metadata_until(period: int, retention: Period) -> datetime:
    """Return when the metadata of a creation month falls due: `retention` after the month's end."""
    return retention.after(month_end(period))


def month_end(period: int) -> datetime:
    """Return the first instant of the month after a creation month; Invalid beyond the calendar."""
    year, month = divmod(period + 1, 12)
    try:
        return datetime(year, month + 1, 1, tzinfo=UTC)
    except (OverflowError, ValueError):
        raise Invalid("the retention ends beyond the calendar") from None


def metadata_due(tenant: Tenant, months: Iterable[int], *, now: datetime) -> tuple[int | None, frozenset[int]]:
    """Return the last of `months` whose metadata is due at `now`, and the months before it that are not due.

    Each month follows the retention agreed when it was recorded, so a later month can be due first.
    """
    known = set(months)
    kept = {month: maybe_period(tenant.metadata_retention_of(month)) for month in known}
    due = {month for month, period in kept.items() if period is not None and metadata_until(month, period) <= now}
    through = max(due, default=None)
    return through, frozenset(month for month in known - due if through is not None and month < through)


def with_metadata_retention(tenant: Tenant, retention: str | None, *, now: datetime) -> Tenant:
    """Return the tenant with a new retention of metadata, for calls from next month on.

    A month is one cohort with one due date, and this month already has calls recorded under the former retention.
    """
    this, before = metadata_period(now), tenant.metadata_before
    if not before or before[-1][0] < this:
        before = (*before, (this, tenant.metadata_retention))
    return replace(tenant, metadata_retention=retention, metadata_before=before)


def check_metadata_outlives(metadata: Period | None, audio: Period) -> None:
    """Raise Invalid if metadata would be kept shorter than its audio: nobody could find that audio."""
    if metadata is not None and not metadata.covers(audio):
        raise Invalid(
            f"metadata kept for {metadata} would go before its audio, which is kept for {audio}",
            hint="choose a metadata retention that is at least that of the audio",
        )


def export_ends(tenant: Tenant, window: Period) -> datetime | None:
    """Return when a sweep may delete a leaving tenant: `window` after its contract ended and two people approved that.

    None while two people have not approved it. The later of the two instants counts, so an end that is approved
    afterwards still leaves the whole window for exports and corrections.
    """
    if tenant.ends_at is None or tenant.offboard_approved_at is None:
        return None
    return window.after(max(tenant.ends_at, tenant.offboard_approved_at))


def check_metadata_retention(retention: Period | None) -> None:
    """Raise Invalid unless the retention is between METADATA_FLOOR and METADATA_CAP.

    Without the floor a new call could belong to a month that is already due.
    """
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
    """Return until when `change` keeps the audio of a recording that it covers; `captured` is the date without it.

    The date counts as at capture, with the changed period. A shorter date is not before `change.since`, so that the
    notice period runs first. Invalid beyond the calendar.
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
    """Tell whether the recording already existed when the change was requested."""
    return recording.created_at <= change.through


def _imported(recording: Recording, change: RetentionChange) -> bool:
    """Tell whether the recording was imported: its retention counts from a start before the backdating bound."""
    bound = recording.created_at - timedelta(seconds=change.backdating_seconds)
    period = maybe_period(recording.retention_period)
    return period is not None and recording.started_at < bound and recording.retain_until < period.after(bound)
