"""Holds and the recordings that they protect; alerts about flags, as outbox rows and their delivery."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from vault.ids import HoldId, RecordingId, TenantId
from vault.model import AuditEvent, CountedHold, Hold, HoldState, HoldTerms
from vault.ports.revision import Revision

# -- holds --------------------------------------------------------------------------------------------------------

MOST_HOLDS: Final = 32
"""How many holds may protect one recording, not counting those that flags place. A hold is a pin for each part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One of the recordings that a hold names, and whether it came too late for it."""

    recording: RecordingId
    too_late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlabelled:
    """A hold with recordings whose objects do not all say yet whether they are held; those up to `through` do."""

    hold: HoldId
    tenant: TenantId
    released: bool
    through: RecordingId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCounts:
    """How many holds in force are not on all their objects yet, and how many recordings failed and are tried again."""

    waiting: int
    failed: int


class HoldLookup(Protocol):
    """Reads holds with their recordings."""

    async def hold(self, hold: HoldId, *, tenant: TenantId | None = None) -> Hold:
        """Return a hold; NotFound, also if `tenant` is given and it belongs to another."""

    async def holds(
        self, *, tenant: TenantId | None = None, states: Sequence[HoldState] = (), limit: int = 1000
    ) -> Sequence[Hold]:
        """Return up to `limit` holds with their recordings, newest first; empty `states` means all states."""


class HoldTermsLookup(Protocol):
    """Reads what holds say, without their recordings."""

    async def hold_terms(self, *, states: Sequence[HoldState]) -> Sequence[HoldTerms]:
        """Return the terms of every hold in one of these states, newest first."""

    async def terms_of(self, holds: Sequence[HoldId]) -> Mapping[HoldId, HoldTerms]:
        """Return the terms of those of these holds that there are, however many."""

    async def holds_on(self, recording: RecordingId) -> Sequence[HoldTerms]:
        """Return the terms of the holds of any state that cover the recording; it is not in their `too_late`."""


class HoldPages(Protocol):
    """Reads holds with the number of their recordings, and those in pages."""

    async def counted_hold(self, hold: HoldId, *, tenant: TenantId | None = None) -> CountedHold:
        """Return a hold without its recordings; NotFound as `hold`."""

    async def counted_holds(self, *, tenant: TenantId | None = None, limit: int = 1000) -> Sequence[CountedHold]:
        """Return up to `limit` holds without their recordings, newest first."""

    async def members(self, hold: HoldId, *, before: RecordingId | None = None, limit: int = 1000) -> Sequence[Member]:
        """Return up to `limit` of the recordings that a hold names, the newest id first, after `before` if given."""

    async def first_members(self, holds: Sequence[HoldId], *, most: int) -> Mapping[HoldId, Sequence[Member]]:
        """Return, of each of these holds that names any, up to `most` of its recordings, the newest id first."""

    async def earliest_start(self, hold: HoldId) -> datetime | None:
        """Return when the first call that the hold protects started; None if it protects none."""


class HoldRows(HoldLookup, Protocol):
    """Reads and changes holds."""

    async def add_hold(self, hold: Hold, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert a hold; NotFound if it names an unknown recording.

        Conflict if it exists, if a hold of the same kind and matter is `placing` or active on all of its recordings
        (`hold` in facts), or if one of them has MOST_HOLDS that are not released.
        """

    async def revise_hold(self, hold: HoldId, revision: Revision[Hold]) -> Hold:
        """Replace the hold with the one that `revision` returns, and return it; NotFound if there is none.

        A new hold, and one that is released by this, is unlabelled from then on.
        """

    async def revise_terms(self, hold: HoldId, revision: Revision[CountedHold]) -> CountedHold:
        """Do as `revise_hold`, without reading or changing which recordings the hold names, or their number."""


class LabelRows(Protocol):
    """Which objects do not say yet whether their recording is held: it outlives a crash."""

    async def unlabelled_holds(self) -> Sequence[Unlabelled]:
        """Return the holds that are decided and have recordings that are not labelled yet, oldest first."""

    async def to_label(self, hold: HoldId, *, after: RecordingId | None, limit: int) -> Sequence[RecordingId]:
        """Return up to `limit` recordings that the hold protects, or did, behind `after`, in order of their ids."""

    async def labelled(
        self,
        hold: Unlabelled,
        *,
        through: RecordingId | None,
        before: RecordingId | None,
        again: Collection[RecordingId],
    ) -> bool:
        """Note that the hold's objects are labelled up to `through`, all of them if None, except of those in `again`.

        False, and nothing is noted, unless they were labelled up to `before`, and `released` is what the hold is now.
        """

    async def to_label_again(self, *, after: RecordingId | None, limit: int) -> Sequence[RecordingId]:
        """Return up to `limit` recordings whose labelling is to be tried again, behind `after`, in order."""

    async def labelled_again(self, recordings: Collection[RecordingId]) -> None:
        """Note that these recordings, which were to be tried again, are labelled now."""

    async def protected(
        self, recordings: Sequence[RecordingId], *, pinned: Collection[HoldId]
    ) -> AbstractSet[RecordingId]:
        """Return which of these a hold in force protects, or one of `pinned`: released, but its pins are still set."""

    async def count_unlabelled(self) -> LabelCounts:
        """Count the recordings whose labels are due or failed; an open recording does not count as failed."""


# -- alerts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One message that a webhook must acknowledge. `id` and `body` stay the same when it is sent again."""

    id: str
    tenant: TenantId
    recording: RecordingId
    hold: HoldId
    created_at: datetime
    body: str
    attempts: int = 0
    next_at: datetime
    """When it may be sent again; in the future while a process is sending it."""
    delivered_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """An alert to send now, and its webhook; the URL may hold a secret."""

    alert: Alert
    webhook: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How many alerts of tenants with a webhook are not acknowledged, and when the oldest was made."""

    count: int
    oldest: datetime | None


class FlagRows(Protocol):
    """Holds that a flag places, each with its alert."""

    async def save_flag(
        self,
        hold: Hold,
        alert: Callable[[HoldId], Alert],
        *,
        acknowledged_before: datetime,
        audit: Sequence[AuditEvent] = (),
        joining: Sequence[AuditEvent] = (),
    ) -> HoldId:
        """Insert a hold in state `placing` and its alert in one transaction, and return the hold's id.

        If a hold that a flag placed is `placing` or active on the recording, of any matter, no hold is inserted: that
        hold's id is returned, and `joining` is written instead of `audit`. Its alert is then replaced by a new `alert`
        if it was acknowledged at `acknowledged_before` or earlier.
        """

    async def alert_of(self, hold: HoldId) -> Alert | None:
        """Return the alert of a hold; None if no flag placed the hold."""


class AlertRows(Protocol):
    """The outbox of alerts."""

    async def claim_alert(self, *, now: datetime, until: datetime, excluding: Collection[TenantId]) -> Claimed | None:
        """Claim the alert that has been due longest, among tenants that have a webhook and are not in `excluding`.

        The claim counts an attempt. No other process can claim the alert before `until`. None if no alert is due.
        """

    async def settle_alert(
        self, alert: str, *, next_at: datetime, delivered_at: datetime | None, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Record an acknowledgement, or when to try again.

        An acknowledged alert stays acknowledged. An alert that a new webhook made due in the meantime stays due.
        """

    async def alerts_waiting(self) -> Waiting:
        """Count the alerts that are not acknowledged, of tenants that have a webhook."""


class Messenger(Protocol):
    """Sends messages to webhooks."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Return when the receiver has answered 2xx; Unavailable for any other outcome, within a bounded time.

        Redirects are not followed and the answer's body is not read. The error's message does not contain the URL.
        """
