"""Reads of recordings: by id, by search, and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from vault.ids import RecordingId, TenantId
from vault.model import Misdeclared, Recording, RecordingState, SegmentRef


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingQuery:
    """Filters for a page of recordings, newest call first: by the start of the call, then by id.

    - `before` is the last id of the previous page. After an unknown id, or another tenant's, there is nothing.
    - `ahead` True selects recordings whose stated start lies after their receipt, False the others.
    - `call_tokens`, `caller_tokens` and `called_tokens` match rows with any of them; an empty tuple matches none.
    - `agent_tokens` match rows with one of the first as caller or one of the second as called.
    - Bounds are inclusive. Bounds of bytes and durations need a tenant and match recordings that have ended.
    - `expires_from` and `expires_to` match finished recordings that are not shredded. With one of them the page is in
      order of expiry, the earliest first.
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
        """Whether the page is in order of expiry, the earliest first."""
        return self.expires_from is not None or self.expires_to is not None

    @property
    def measures(self) -> bool:
        """Whether it has a bound of bytes or of duration."""
        bounds = (self.min_bytes, self.max_bytes, self.min_duration, self.max_duration)
        return any(bound is not None for bound in bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How many recordings of a tenant are not shredded, and how many of those are held."""

    live: int
    held: int


class RecordingLookup(Protocol):
    """Reads recordings by id, and their objects."""

    async def recording(self, recording: RecordingId, *, tenant: TenantId | None = None) -> Recording:
        """Return the row; NotFound, also if `tenant` is given and it belongs to another."""

    async def recordings_of(
        self, recordings: Sequence[RecordingId], *, tenant: TenantId | None = None
    ) -> Mapping[RecordingId, Recording]:
        """Return the rows of these that there are, however many, with `tenant` only that tenant's."""

    async def segments(self, recording: RecordingId) -> Sequence[SegmentRef]:
        """Return the recording's objects in index order, the manifest (index -1) first if there is one."""

    async def segments_of(self, recordings: Sequence[RecordingId]) -> Mapping[RecordingId, Sequence[SegmentRef]]:
        """Return the `segments` of up to 1,000 recordings; an unknown recording has none."""


class RecordingSearch(Protocol):
    """Finds recordings by what is known about the call."""

    async def recordings(self, query: RecordingQuery) -> Sequence[Recording]:
        """Return one page of the recordings that match the query."""

    async def recording_by_call(self, tenant: TenantId, tokens: Sequence[str]) -> Recording | None:
        """Return the newest row with one of these call tokens; None if there is none."""

    async def recordings_by_object(self, tenant: TenantId, tokens: Sequence[str], *, limit: int) -> Sequence[Recording]:
        """Return up to `limit` rows with one of these object tokens, newest first."""


class RecordingCounts(Protocol):
    """Counts recordings."""

    async def count_recordings(self) -> Mapping[RecordingState, int]:
        """Return the number of rows in each state; it takes as long with any number of them."""

    async def miscounted(self) -> Sequence[tuple[TenantId, RecordingState, int]]:
        """Read every row, and return by how much more rows a tenant has in a state than was counted."""

    async def recount(self) -> None:
        """Count the rows anew."""

    async def count_kept(self, tenant: TenantId) -> Kept:
        """Count a tenant's recordings that are not shredded, and those of them under a hold in force."""

    async def oldest_due(self, *, now: datetime, tenant: TenantId | None = None) -> datetime | None:
        """Return the earliest retain-until <= `now` of finished rows without an active hold; None without one.

        The rows are of one tenant or of all.
        """

    async def misdeclared(self, *, since: datetime) -> Sequence[Misdeclared]:
        """Count recordings since `since` whose content is not what was declared, by recorder and by both formats."""
