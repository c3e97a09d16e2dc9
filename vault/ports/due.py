"""Recordings whose time is up, as the catalog narrows them down; the rules of retention decide."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from vault.certificates.attested import Subject
from vault.ids import RecordingId, TenantId
from vault.model import Part, Recording


class DueRows(Protocol):
    """What a sweep may take."""

    async def due_recordings(
        self,
        *,
        through: int,
        after: RecordingId | None,
        limit: int,
        part: Part = Part.AUDIO,
        tenant: TenantId | None = None,
    ) -> Sequence[Recording]:
        """Return finished rows whose part's period is <= `through` and whose part is not certified gone, in id order.

        Of one tenant or all; metadata only of one, because no clock of it is shared, and only where it was not
        forgotten.
        """

    async def count_due(self, *, through: int, part: Part = Part.AUDIO, tenant: TenantId | None = None) -> int:
        """Count the rows that `due_recordings` pages through."""

    async def doubtful_recordings(
        self, *, through: int, now: datetime, after: RecordingId | None, limit: int
    ) -> Sequence[Recording]:
        """Return those of the audio's `due_recordings` that something speaks for, in id order.

        That is a retain-until after `now`, or a hold in force. Both are rare: what a sweep takes and nobody looks at
        row by row is everything else.
        """

    async def changed_recordings(
        self, tenant: TenantId, *, through: datetime, started_to: datetime, after: RecordingId | None, limit: int
    ) -> Sequence[Recording]:
        """Return the tenant's finished rows captured up to `through`, of calls begun up to `started_to`, in id order.

        `due_recordings` of all tenants, `count_due`, `doubtful_recordings` and `due_subjects` leave out what a tenant's
        change of retention is for: these rows go by it.
        """

    async def count_live(self, tenant: TenantId, *, through: datetime) -> int:
        """Count the tenant's rows captured up to `through` of which audio or metadata is not certified gone."""

    async def due_subjects(self, *, through: int, after: RecordingId | None, limit: int) -> Sequence[Subject]:
        """Return what certificates say of each of `due_recordings`, objects in index order."""
