"""Gauges that are read from the catalog when somebody looks."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from vault.ids import TenantId
from vault.model import HoldKind, HoldState, RecordingState, Role
from vault.protocol.permissions import has_expired
from vault.retention.review import review_overdue
from vault.services.vault import Vault

EXPIRES_SOON: Final = timedelta(days=14)
"""How long before a token expires it is spoken of."""


async def overdue_seconds(vault: Vault, *, now: datetime, tenant: TenantId | None = None) -> float:
    """Return how long the oldest recording, of one tenant or all, that is due and not held has waited; 0 if none is."""
    oldest = await vault.catalog.oldest_due(now=now, tenant=tenant)
    return max((now - oldest).total_seconds(), 0.0) if oldest else 0.0


async def refresh_gauges(vault: Vault) -> None:
    """Set the gauges that no event keeps current."""
    now = vault.clock.now()
    counts = await vault.catalog.count_recordings()
    for state in RecordingState:
        vault.metrics.recordings.labels(state.value).set(counts.get(state, 0))
    vault.metrics.sweep_overdue.set(await overdue_seconds(vault, now=now))
    holds = await vault.catalog.holds(states=[HoldState.ACTIVE, HoldState.RELEASE_REQUESTED])
    for kind in HoldKind:
        vault.metrics.holds_active.labels(kind.value).set(sum(hold.kind is kind for hold in holds))
    vault.metrics.holds_review_overdue.set(sum(review_overdue(hold, now=now) for hold in holds))
    waiting = await vault.catalog.alerts_waiting()
    vault.metrics.alerts_pending.set(waiting.count)
    vault.metrics.alert_oldest.set(max((now - waiting.oldest).total_seconds(), 0.0) if waiting.oldest else 0.0)
    expiring = [
        each for each in await vault.catalog.tokens(expiring_by=now + EXPIRES_SOON) if not has_expired(each, now=now)
    ]
    for role in Role:
        vault.metrics.tokens_expiring.labels(role.value).set(sum(token.role is role for token in expiring))
    usage = vault.journal.usage()
    vault.metrics.journal_bytes.set(usage.bytes_used)
