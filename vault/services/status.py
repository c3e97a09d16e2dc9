"""Gauges that are read from the catalog when somebody looks."""

from __future__ import annotations

from vault.model import HoldKind, HoldState, RecordingState
from vault.services.vault import Vault


async def refresh_gauges(vault: Vault) -> None:
    """Set the gauges that no event keeps current."""
    now = vault.clock.now()
    counts = await vault.catalog.count_recordings()
    for state in RecordingState:
        vault.metrics.recordings.labels(state.value).set(counts.get(state, 0))
    oldest = await vault.catalog.oldest_due(now=now)
    vault.metrics.sweep_overdue.set(max((now - oldest).total_seconds(), 0.0) if oldest else 0.0)
    holds = await vault.catalog.holds(states=[HoldState.ACTIVE, HoldState.RELEASE_REQUESTED])
    for kind in HoldKind:
        vault.metrics.holds_active.labels(kind.value).set(sum(hold.kind is kind for hold in holds))
    vault.metrics.holds_review_overdue.set(sum(hold.review_at <= now for hold in holds))
    usage = vault.journal.usage()
    vault.metrics.journal_bytes.set(usage.bytes_used)
