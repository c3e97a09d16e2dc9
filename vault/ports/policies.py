"""Requests to change the retention of existing calls, and the catalog rows that store them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vault.ids import TenantId
from vault.model import AuditEvent, Role, Tenant
from vault.ports.revision import Revision


class PolicyState(enum.StrEnum):
    """`requested → approved → applied`; `rejected` from either of the first two."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    APPLIED = "applied"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPreview:
    """How many recordings a change gives another date: `earlier` or `later` ones.

    `held` of them are kept by holds, `live` are still being recorded. For audio it also states how many are
    `due_at_once` when the change takes effect, and the `earliest` and `latest` of the new dates.
    """

    changed: int
    earlier: int
    later: int
    held: int
    live: int = 0
    due_at_once: int = 0
    earliest: datetime | None = None
    latest: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRequest:
    """A request to change the retention of existing calls.

    Without `retention` it is about metadata up to the month `through` (as in `Cohort.period`): `metadata_retention` is
    a period as text, counted from the end of the month of a call; None keeps the metadata until the contract ends. With
    `retention`, a period as text, it is about the audio of calls captured up to `requested_at`.

    `preview` was computed when the request was made. `decided_by` approved or rejected it. The first sweep from
    `takes_effect_at` on applies it.
    """

    id: str
    tenant: TenantId
    through: int
    metadata_retention: str | None = None
    retention: str | None = None
    state: PolicyState
    preview: PolicyPreview
    requested_by: str
    requested_role: Role
    requested_at: datetime
    decided_by: str | None = None
    decided_role: Role | None = None
    decided_at: datetime | None = None
    takes_effect_at: datetime | None = None
    applied_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether it may still take effect."""
        return self.state in (PolicyState.REQUESTED, PolicyState.APPROVED)

    def is_ready(self, *, now: datetime) -> bool:
        """Tell whether it is approved and its notice has ended."""
        approved = self.state is PolicyState.APPROVED
        return approved and self.takes_effect_at is not None and self.takes_effect_at <= now


class PolicyLookup(Protocol):
    """Reads policy requests."""

    async def policy_requests(self, *, tenant: TenantId | None = None) -> Sequence[PolicyRequest]:
        """Return all requests, or those of one tenant, newest first."""


class PolicyRows(PolicyLookup, Protocol):
    """Reads and changes policy requests; each method is one transaction."""

    async def add_policy_request(self, request: PolicyRequest, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert a request; Conflict if it exists, or if another request of its tenant is open."""

    async def revise_policy_request(self, request: str, revision: Revision[PolicyRequest]) -> PolicyRequest:
        """Replace the request with the one that `revision` returns, and return it; NotFound if there is none."""

    async def apply_policy_request(
        self, request: str, revision: Revision[tuple[PolicyRequest, Tenant]]
    ) -> tuple[PolicyRequest, Tenant]:
        """Replace a request and its tenant together with what `revision` returns; NotFound if there is none."""
