"""Finished and open recordings as the catalog knows them: by id, by what finds them, and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from vault.ids import RecordingId, TenantId
from vault.model import Misdeclared, Recording, RecordingState, SegmentRef


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingQuery:
    """Filters for a page of recordings, newest id first; `before` is the last id of the previous page.

    With a tenant, another tenant's `before` is as one that is nobody's.
    `ahead`: only those whose stated start lies after their receipt, which keeps them longer, or only the others.
    `call_tokens`, `caller_tokens` and `called_tokens` match rows that carry any of them; an empty tuple matches none.
    `agent_tokens` match rows that carry one of the first as caller or one of the second as called.
    Bounds belong to what they bound. Those of bytes and of durations need a tenant and match what has ended; with one
    of `expires_from` and `expires_to`, which match what is finished and not shredded, what goes first comes first.
    """

    tenant: TenantId | None = None
    state: RecordingState | None = None
    started_from: datetime | None = None
    started_to: datetime | None = None
    held: bool | None = None
    ahead: bool | None = None
    call_tokens: tuple[str, ...] | None = None
    caller_tokens: tuple[str, ...] | None = None
    called_tokens: tuple[str, ...] | None = None
    agent_tokens: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None
    min_duration: timedelta | None = None
    max_duration: timedelta | None = None
    expires_from: datetime | None = None
    expires_to: datetime | None = None
    before: RecordingId | None = None
    limit: int = 100

    @property
    def by_expiry(self) -> bool:
        """Whether what goes first comes first."""
        return self.expires_from is not None or self.expires_to is not None

    @property
    def measures(self) -> bool:
        """Whether it asks for how much or how long."""
        bounds = (self.min_bytes, self.max_bytes, self.min_duration, self.max_duration)
        return any(bound is not None for bound in bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How many recordings of a tenant there are, and how many of them are held."""

    live: int
    held: int


class RecordingLookup(Protocol):
    """Recordings by id, and their objects."""

    async def recording(self, recording: RecordingId, *, tenant: TenantId | None = None) -> Recording:
        """Return the row, with `tenant` only if it is that tenant's; NotFound."""

    async def recordings_of(
        self, recordings: Sequence[RecordingId], *, tenant: TenantId | None = None
    ) -> Mapping[RecordingId, Recording]:
        """Return the rows of these that there are, however many, with `tenant` only that tenant's."""

    async def segments(self, recording: RecordingId) -> Sequence[SegmentRef]:
        """Return the recording's objects in index order, the manifest (index -1) first if there is one."""

    async def segments_of(self, recordings: Sequence[RecordingId]) -> Mapping[RecordingId, Sequence[SegmentRef]]:
        """Return `segments` of each of up to 1,000 recordings at once; an unknown one has none."""


class RecordingSearch(Protocol):
    """Recordings by what is known of the call."""

    async def recordings(self, query: RecordingQuery) -> Sequence[Recording]:
        """Return one page, newest first."""

    async def recording_by_call(self, tenant: TenantId, tokens: Sequence[str]) -> Recording | None:
        """Return the row that has one of these call tokens, the newest if there are several."""

    async def recordings_by_object(self, tenant: TenantId, tokens: Sequence[str], *, limit: int) -> Sequence[Recording]:
        """Return the newest rows that have one of these object tokens, newest first."""


class RecordingCounts(Protocol):
    """How many recordings there are, and how late the oldest that is due."""

    async def count_recordings(self) -> Mapping[RecordingState, int]:
        """Count rows per state."""

    async def count_kept(self, tenant: TenantId) -> Kept:
        """Count a tenant's recordings that are not shredded, and of them those that holds in force protect."""

    async def oldest_due(self, *, now: datetime, tenant: TenantId | None = None) -> datetime | None:
        """Return the earliest retain-until <= now among finished rows without an active hold, or None.

        Of one tenant or all.
        """

    async def misdeclared(self, *, since: datetime) -> Sequence[Misdeclared]:
        """Count the recordings since then whose content is not what was declared, by recorder and both of these."""
