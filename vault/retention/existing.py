"""When audio that exists falls due by a change of its retention that two people decided."""

from __future__ import annotations

from datetime import datetime, timedelta

from vault.model import Recording, RetentionChange
from vault.retention.periods import maybe_period, parse_period
from vault.retention.policy import lifetime


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
