"""Recordings that may be due. The catalog selects candidates; `vault.retention.decide` decides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from vault.certificates.attested import Subject
from vault.ids import RecordingId, TenantId
from vault.model import Part, Recording


class DueRows(Protocol):
    """The candidates of a sweep. Each list has an order of its own; `after` is the last id of the previous page."""

    async def due_recordings(
        self,
        *,
        through: int,
        after: RecordingId | None,
        limit: int,
        part: Part = Part.AUDIO,
        tenant: TenantId | None = None,
    ) -> Sequence[Recording]:
        """Return finished rows whose part's period is <= `through` and has no certificate yet.

        The rows are of one tenant or of all. Metadata can only be selected for one tenant, because each tenant has its
        own retention of it; rows whose metadata was removed without a certificate are left out.
        """

    async def count_due(self, *, through: int, part: Part = Part.AUDIO, tenant: TenantId | None = None) -> int:
        """Count the rows that `due_recordings` returns in all pages."""

    async def doubtful_recordings(
        self, *, through: int, now: datetime, after: RecordingId | None, limit: int
    ) -> Sequence[Recording]:
        """Return the rows of `due_recordings` for audio that may have to be kept.

        They have a retain-until after `now`, or a hold in force. Both are rare; a sweep does not examine the other rows
        one by one.
        """

    async def changed_recordings(
        self, tenant: TenantId, *, through: datetime, started_to: datetime, after: RecordingId | None, limit: int
    ) -> Sequence[Recording]:
        """Return the tenant's finished rows captured up to `through`, of calls begun up to `started_to`.

        They are the rows that a tenant's change of retention covers. `due_recordings` of all tenants, `count_due`,
        `doubtful_recordings` and `due_subjects` leave them out.
        """

    async def count_live(self, tenant: TenantId, *, through: datetime) -> int:
        """Count the tenant's rows captured up to `through` whose audio or metadata has no certificate yet."""

    async def due_subjects(self, *, through: int, after: RecordingId | None, limit: int) -> Sequence[Subject]:
        """Return what certificates state about each row of `due_recordings`, with objects in index order."""
