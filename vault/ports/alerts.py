"""Alerts about flags: the outbox rows in the catalog, and who carries them to a tenant's safeguarding lead."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from vault.ids import HoldId, RecordingId, TenantId
from vault.model import AuditEvent, Hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One message that somebody must acknowledge. `id` and `body` stay the same however often it is sent."""

    id: str
    tenant: TenantId
    recording: RecordingId
    hold: HoldId
    created_at: datetime
    body: str
    attempts: int = 0
    next_at: datetime
    """When it may be sent again; in the future while somebody is sending it."""
    delivered_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """An alert to send now, and where to; the address may hold a secret."""

    alert: Alert
    webhook: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The alerts of tenants with a webhook that nobody has acknowledged."""

    count: int
    oldest: datetime | None


class FlagRows(Protocol):
    """Holds that a flag places, each with its alert."""

    async def save_flag(
        self,
        hold: Hold,
        alert: Callable[[HoldId], Alert],
        *,
        told_before: datetime,
        audit: Sequence[AuditEvent] = (),
        joining: Sequence[AuditEvent] = (),
    ) -> HoldId:
        """Insert a hold that is being placed and its alert in one transaction, and return its id.

        If a hold that a flag placed is being placed or active on the recording, whatever its matter, that one's id is
        returned and `joining` is written instead of `audit`. Its alert becomes `alert` of it if the last one was
        acknowledged at `told_before` or earlier.
        """

    async def alert_of(self, hold: HoldId) -> Alert | None:
        """Return the alert of a hold; None if the hold was not placed by a flag."""


class AlertRows(Protocol):
    """The outbox."""

    async def claim_alert(self, *, now: datetime, until: datetime, excluding: Collection[TenantId]) -> Claimed | None:
        """Take the alert that has been due longest, of a tenant with a webhook that is not `excluded`.

        It counts an attempt and is nobody else's before `until`, in whatever process. None if nothing is due.
        """

    async def settle_alert(
        self, alert: str, *, next_at: datetime, delivered_at: datetime | None, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Note an acknowledgement, or when to try again.

        One that is acknowledged already stays so. One that a new webhook hastened meanwhile stays due at once.
        """

    async def alerts_waiting(self) -> Waiting:
        """Count what is not acknowledged, of tenants that have a webhook."""


class Messenger(Protocol):
    """Carries one message to a webhook."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Return once the receiver answered 2xx; Unavailable for anything else, within a bounded time.

        Redirects are not followed and the answer's body is not read. The message of the error does not hold the URL.
        """
