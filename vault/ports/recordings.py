"""The catalog rows of recordings: reads, a row's life, candidates of a sweep, leaves, notes and index tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import Protocol

from vault.certificates.template import Lot
from vault.ids import HoldId, NodeId, RecordingId, TenantId
from vault.model import (
    AuditEvent,
    Cohort,
    Examined,
    Misdeclared,
    Part,
    Recording,
    RecordingKeys,
    RecordingState,
    SegmentRef,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingQuery:
    """Filters for a page of recordings, newest call first: by the start of the call, then by id.

    - `before` is the last id of the previous page. After an unknown id, or another tenant's, there is nothing.
    - `ahead` True selects recordings whose stated start lies after their receipt, False the others.
    - `call_tokens`, `caller_tokens` and `called_tokens` match rows with any of them; an empty tuple matches none.
    - `agent_tokens` match rows with one of the first as caller or one of the second as called.
    - `under` matches the recordings of these holds, whatever their state.
    - `metadata_of` matches rows of one of these periods and generations of metadata.
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
    under: tuple[HoldId, ...] | None = None
    metadata_of: tuple[tuple[int, int], ...] | None = None
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
    def contradicts(self) -> bool:
        """Whether no row can match, because the state excludes what a bound asks for."""
        unfinished = self.state is RecordingState.OPEN
        return (self.measures and unfinished) or (
            self.by_expiry and (unfinished or self.state is RecordingState.SHREDDED)
        )

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
    """Reads a recording by its id, and its objects."""

    async def recording(self, recording: RecordingId, *, tenant: TenantId | None = None) -> Recording:
        """Return the row; NotFound, also if `tenant` is given and it belongs to another."""

    async def segments(self, recording: RecordingId) -> Sequence[SegmentRef]:
        """Return the recording's objects in index order, the manifest (index -1) first if there is one."""


class RecordingsLookup(Protocol):
    """Reads of many recordings at once where their keys and objects are."""

    async def keys_of(
        self, recordings: Sequence[RecordingId], *, tenant: TenantId | None = None
    ) -> Mapping[RecordingId, RecordingKeys]:
        """Return where the keys of these are, however many; with `tenant` only of that tenant's."""

    async def segments_of(self, recordings: Sequence[RecordingId]) -> Mapping[RecordingId, Sequence[SegmentRef]]:
        """Return the `segments` of up to 1,000 recordings; an unknown recording has none."""

    async def object_names(self, recordings: Sequence[RecordingId]) -> Mapping[RecordingId, Sequence[str]]:
        """Return the names of these `segments`, none for what has its final certificate."""


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

    async def count_kept(self, tenant: TenantId) -> Kept:
        """Count a tenant's recordings that are not shredded, and those of them under a hold in force."""


class RecordingGauges(Protocol):
    """Reads what monitors show of recordings."""

    async def oldest_due(self, *, now: datetime, tenant: TenantId | None = None) -> datetime | None:
        """Return the earliest retain-until <= `now` of finished rows without an active hold; None without one.

        The rows are of one tenant or of all.
        """

    async def misdeclared(self, *, since: datetime) -> Sequence[Misdeclared]:
        """Count recordings since `since` whose content is not what was declared, by recorder and by both formats."""


class CountUpkeep(Protocol):
    """Compares the counts of recordings with the rows."""

    async def miscounted(self) -> Sequence[tuple[TenantId, RecordingState | date, int]]:
        """Read every row, and return by how many more rows a tenant has than were counted.

        Each is of a state, of a day of capture for the recordings that `count_live` counts, or of a day on which calls
        began for those outside the sizes and durations that are kept for it.
        """

    async def recount(self) -> None:
        """Count the rows anew."""


class OpenRecordingRows(Protocol):
    """Creates, extends and finishes recordings."""

    async def create_recording(
        self,
        recording: Recording,
        *,
        elsewhere: Sequence[str] = (),
        begun_before: bool = False,
        notes: Mapping[int, bytes] = MappingProxyType({}),
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Insert a new row, and its notes as `put_notes` does.

        `elsewhere` are the tokens of the same call key in the tenant's other metadata cohorts.

        - Conflict if the tenant already has its call token or one of `elsewhere`.
        - TooLate if the period of `recording.audio` is at or below the sweep floor: a sweep is about to shred that
          cohort.
        - GenerationPassed if a coordinate's generation is closed, unless the recording was `begun_before` in a journal.
        """

    async def open_recordings(self, *, node: NodeId | None = None) -> Sequence[Recording]:
        """Return all open rows, or those whose journal is `node`'s."""

    async def add_segments(
        self, segments: Sequence[SegmentRef], *, stored_bytes: int | None = None, examined: Examined | None = None
    ) -> None:
        """Add verified objects to their recording and, if given, set its stored byte count and its media.

        It may be repeated.
        """

    async def finish_recording(
        self,
        recording: RecordingId,
        *,
        state: RecordingState,
        reason: str | None,
        ended_at: datetime,
        stored_bytes: int,
        objects: Sequence[SegmentRef],
        examined: Examined | None = None,
        lasted: timedelta | None = None,
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Set an open row to `sealed` or `truncated`, and add `objects`: the manifest and segments not yet added.

        `examined` is the media that the first bytes show, if their segment is among them. The notes are removed in the
        same transaction, because the manifest has them. With the reason `EMPTY` the call key becomes free again: the
        row's call token becomes its id. It may be repeated: a row that is not open is not changed, and the audit events
        are not written again.
        """


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

    async def doubtful_recordings(
        self, *, through: int, now: datetime, after: RecordingId | None, limit: int
    ) -> Sequence[Recording]:
        """Return the rows of `due_recordings` for audio that may have to be kept.

        They have a retain-until after `now`, or a hold in force. Both are rare; a sweep does not examine the other rows
        one by one.
        """

    async def exceptional_recordings(
        self, *, through: int, now: datetime, tenants: Collection[TenantId], after: RecordingId | None, limit: int
    ) -> Sequence[Recording]:
        """Return the rows of `due_recordings` for audio, in its order, about which more than their cohort may decide.

        They have a retain-until after `now`, a hold of any state or a shred under way, or are of one of `tenants`.
        """

    async def changed_recordings(
        self, tenant: TenantId, *, through: datetime, started_to: datetime, after: RecordingId | None, limit: int
    ) -> Sequence[Recording]:
        """Return the tenant's finished rows captured up to `through`, of calls begun up to `started_to`.

        They are the rows that a tenant's change of retention covers. `due_recordings` of all tenants, `count_due`,
        `doubtful_recordings` and `due_lots` leave them out.
        """

    async def due_lots(self, *, through: int, after: RecordingId | None, limit: int) -> Sequence[Lot]:
        """Return what certificates state about the rows of `due_recordings`, in lots that come in any order.

        Within a lot the order is any too; the objects of a recording are in index order.
        """


class DueCounts(Protocol):
    """Counts the candidates of a sweep."""

    async def count_due(self, *, through: int, part: Part = Part.AUDIO, tenant: TenantId | None = None) -> int:
        """Count the rows that `due_recordings` returns in all pages."""

    async def count_due_cohorts(self, *, through: int) -> Mapping[Cohort, int]:
        """Count the rows of `due_recordings` for audio in each cohort of it."""

    async def count_undeleted(self, *, tenant: TenantId | None = None) -> int:
        """Count shredded recordings that have no final certificate yet; `tenant` counts only that tenant's."""

    async def count_live(self, tenant: TenantId, *, through: datetime) -> int:
        """Count the tenant's rows captured up to `through` whose audio or metadata has no certificate yet."""


class LeafRows(Protocol):
    """Reserves leaves of cohorts, each once."""

    async def reserve_leaves(self, cohort: Cohort, count: int) -> int:
        """Reserve `count` consecutive leaves that no other call gets, and return the first.

        GenerationPassed if the cohort's generation is closed.
        """

    async def make_room(self, periods: Collection[int]) -> None:
        """Prepare for the objects of calls of these audio periods, so that none of them has to wait for that.

        A call of another period is stored all the same.
        """

    async def close_generations(
        self, below: int, *, since: int, audit: Sequence[AuditEvent] = ()
    ) -> Mapping[Cohort, int]:
        """Close the generations below `below` for good: no leaf of them is reserved, and no recording begins in them.

        Returns how many leaves of each cohort of the generations `since` to `below - 1` were reserved.
        """


class NoteRows(Protocol):
    """Notes and changed facts of open recordings."""

    async def put_notes(
        self, recording: RecordingId, notes: Mapping[int, bytes], *, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Insert or replace notes by number; NotFound if there is no row, Conflict if it is not open."""

    async def notes(self, recording: RecordingId) -> Mapping[int, bytes]:
        """Return an open recording's sealed notes by number, in order; none for a recording that is not open."""

    async def revise_facts(
        self,
        recording: RecordingId,
        *,
        sealed_facts: bytes,
        caller_token: str | None,
        called_token: str | None,
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Replace an open row's sealed facts and number tokens; NotFound without a row, Conflict if it is not open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reindexed:
    """New tokens for a row, which apply only if its sealed facts are still `sealed_facts`."""

    recording: RecordingId
    sealed_facts: bytes
    caller_token: str | None
    called_token: str | None


class IndexRows(Protocol):
    """Replaces tokens of numbers."""

    async def reindex(self, rows: Sequence[Reindexed], *, audit: Sequence[AuditEvent] = ()) -> int:
        """Replace tokens in one transaction and return in how many rows; rows with other facts are not changed."""
