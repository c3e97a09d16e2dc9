"""Requests to change how long the metadata of existing calls is kept, and the rows that keep them."""

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
    """`requested → approved → applied`, or rejected before it is applied."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    APPLIED = "applied"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPreview:
    """How many recordings get another date, an earlier or a later one; `held` of them wait for no date.

    `live` are still being recorded. For audio moreover: how many of them are `due_at_once` when the change takes
    effect, and between which instants the new dates lie.
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
    """Asks that metadata through a month (as in `Cohort.period`) be kept otherwise than was agreed for it.

    With `retention`, a period as text, it is about the audio of the calls captured up to `requested_at` instead.
    `metadata_retention` is a period as text, counted from the end of the month of a call; None keeps it until the
    contract ends. `preview` is
    of when it was asked for. `decided_by` approved or rejected it. It is applied by the first sweep from
    `takes_effect_at` on.
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
    """The requests as they stand."""

    async def policy_requests(self, *, tenant: TenantId | None = None) -> Sequence[PolicyRequest]:
        """Return all, or a tenant's, newest first."""


class PolicyRows(PolicyLookup, Protocol):
    """The requests, and how they change; each method is one transaction."""

    async def add_policy_request(self, request: PolicyRequest, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; Conflict if it exists, or if another one of its tenant is open."""

    async def revise_policy_request(self, request: str, revision: Revision[PolicyRequest]) -> PolicyRequest:
        """Replace the request as `revision` says and return it; NotFound."""

    async def apply_policy_request(
        self, request: str, revision: Revision[tuple[PolicyRequest, Tenant]]
    ) -> tuple[PolicyRequest, Tenant]:
        """Replace the request and its tenant together as `revision` says and return them; NotFound."""
