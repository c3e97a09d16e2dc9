"""Whether a part of a recording may be shredded now, and why: the precedence table of docs/retention.md.

Sweeps, dry runs, erasures, ends of contracts and explanations all call `decide` with the same facts. A catalog or a
keyring only selects candidates. Retention outranks deletion: a hold of any kind, however late it was placed, outranks
every ground for shredding.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from vault.errors import Conflict, Invalid
from vault.ids import HoldId
from vault.instants import rfc3339
from vault.model import HoldKind, HoldState, HoldTerms, MetadataChange, Part, Recording, RecordingState, RetentionChange
from vault.retention.periods import Period, maybe_period
from vault.retention.policy import changed_until, covers, metadata_until, period_instant

# -- review -------------------------------------------------------------------------------------------------------

_TERM: Final = {
    # Limitation Act 1980 s5: six years from the event for simple contract.
    HoldKind.LEGAL: Period(months=6 * 12),
    # FCA SYSC 10A.1.6: recordings are kept five years from the date they were made.
    HoldKind.REGULATORY: Period(months=5 * 12),
}
_YEAR: Final = Period(months=12)
_HINT: Final = "name the date of the hold's next review"


def check_review(
    review_at: datetime,
    kind: HoldKind,
    *,
    now: datetime,
    latest: datetime | None = None,
) -> datetime:
    """Return `review_at`; Invalid unless it lies after `now`.

    `latest` is the end of the tenant's retention cap. It limits only holds placed at a client's request.
    """
    if review_at <= now:
        raise Invalid("the review date has already passed", hint=_HINT)
    if kind is HoldKind.CLIENT_REQUEST and latest is not None and review_at > latest:
        raise Invalid("a client's request cannot be reviewed after the tenant's retention cap ends", hint=_HINT)
    return review_at


def check_release(hold: HoldTerms, *, now: datetime) -> None:
    """Raise Conflict for a regulatory hold before its review date, because the law sets a minimum."""
    if hold.kind is HoldKind.REGULATORY and now < hold.review_at:
        raise Conflict(
            f"{hold.id} is a minimum set by law until {rfc3339(hold.review_at)}; it is not released before",
            hint="if its kind is wrong, place a hold of the right kind beside it; this one stays until its date",
        )


def check_not_sooner(hold: HoldTerms, review_at: datetime) -> None:
    """Raise Conflict if the date of a regulatory hold would move earlier: it is a minimum set by law.

    Dates are compared to the millisecond, as people are shown them.
    """
    if hold.kind is HoldKind.REGULATORY and rfc3339(review_at) < rfc3339(hold.review_at):
        raise Conflict(
            f"{hold.id} is a minimum set by law until {rfc3339(hold.review_at)}; its date only moves later",
            hint="name that date or a later one",
        )


def suggest_review(kind: HoldKind, *, now: datetime, call_started: datetime, latest: datetime) -> datetime:
    """Return the review date of a hold whose request has none.

    - Legal: the limitation date, six years after the call.
    - Regulatory: five years after the call.
    - Safeguarding: one year from now.
    - Client request: `latest`, the end of the tenant's retention cap, which may have passed.

    One year from now replaces a legal or regulatory date that has passed.
    """
    if kind is HoldKind.CLIENT_REQUEST:
        return latest
    if kind is HoldKind.SAFEGUARDING:
        return _YEAR.after(now)
    term = _TERM[kind].after(call_started)
    return term if term > now else _YEAR.after(now)


def review_overdue(hold: HoldTerms, *, now: datetime) -> bool:
    """Tell whether the hold is in force and its review date has come; the hold still protects."""
    return in_force(hold) and hold.review_at <= now


# -- decide -------------------------------------------------------------------------------------------------------

IN_FORCE: Final = frozenset({HoldState.PLACING, HoldState.ACTIVE, HoldState.RELEASE_REQUESTED})
"""States in which a hold protects recordings.

`placing` is one of them: the hold's pin may already be durable while its row is not yet active.
"""

PARTS: Final = (Part.AUDIO, Part.METADATA)

_RANK: Final = {HoldKind.LEGAL: 1, HoldKind.REGULATORY: 2, HoldKind.SAFEGUARDING: 3, HoldKind.CLIENT_REQUEST: 4}


class Ground(enum.StrEnum):
    """Why a part is due, in order of precedence. Its certificate names the first ground that applies."""

    ERASURE = "erasure"
    CONTRACT_END = "contract_end"
    EXPIRY = "expiry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """The rules from which the due dates of one tenant's recordings follow.

    Audio falls due with its cohort, which is `cohort_width` seconds wide. Metadata falls due `metadata_retention` after
    the end of its month, and never before its audio. If `metadata_retention` is None, it falls due when the contract
    ends. `metadata_before` lists earlier retentions in order, each with the last month that it holds for.
    `metadata_changed` outranks both for the months that it names. `contract_over` is the end of the export window after
    the contract; None while two people have not ended the contract.
    """

    cohort_width: float
    metadata_retention: Period | None = None
    metadata_before: tuple[tuple[int, Period | None], ...] = ()
    metadata_changed: MetadataChange | None = None
    retention_changed: RetentionChange | None = None
    contract_over: datetime | None = None
    contract_approved: datetime | None = None
    """When two people ended the contract."""

    @property
    def as_captured(self) -> Clocks:
        """The clocks without any later change: those agreed when the calls were recorded."""
        return replace(self, metadata_changed=None, retention_changed=None)

    def changes(self, recording: Recording) -> RetentionChange | None:
        """Return the approved change that covers the audio of a recording, if any."""
        change = self.retention_changed
        return change if change is not None and covers(change, recording) else None

    def changed_by(self, month: int) -> MetadataChange | None:
        """Return the approved change that covers the metadata of a month, if any."""
        change = self.metadata_changed
        return change if change is not None and month <= change.through else None

    def metadata_kept(self, month: int) -> Period | None:
        """Return how long after the month's end its metadata is kept; None means as long as the contract."""
        if change := self.changed_by(month):
            return maybe_period(change.retention)
        return next((kept for through, kept in self.metadata_before if month <= through), self.metadata_retention)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What `decide` needs to know about one recording.

    `keys` are the parts whose key exists. `holds` are the holds that cover the recording, released ones included.
    `pins` are the holds that the keyring knows. A pin whose hold is not among `holds` protects too, because the catalog
    may be stale. `erasing_since` is when two people decided to erase the recording.
    """

    recording: Recording
    clocks: Clocks
    keys: frozenset[Part] = frozenset(PARTS)
    holds: Sequence[HoldTerms] = ()
    pins: frozenset[HoldId] = frozenset()
    erasing_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """The part's key no longer exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Must be kept because of `holds`, strongest kind first.

    `grace_until` is set when all of them are released and only their grace period still protects the part.
    """

    holds: tuple[HoldId, ...]
    grace_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotDue:
    """Must be kept until `until`; None means as long as the contract.

    `recording` is true while the call is still being recorded. `with_contract` is true if `until` is the end of the
    contract's export window.
    """

    until: datetime | None
    recording: bool = False
    with_contract: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """May be shredded; due `since` that instant, for reason `ground`."""

    since: datetime
    ground: Ground


Decision = Gone | Held | NotDue | Due


def in_force(hold: HoldTerms) -> bool:
    """Tell whether the hold protects its recordings; a passed review date does not end it."""
    return hold.state in IN_FORCE


def in_grace(hold: HoldTerms, *, now: datetime) -> bool:
    """Tell whether a released hold still protects, so that a mistaken release can be undone."""
    return hold.state is HoldState.RELEASED and hold.grace_until is not None and now < hold.grace_until


def falls_due(recording: Recording, part: Part, clocks: Clocks) -> datetime | None:
    """Return when the part expires; None for metadata that is kept as long as the contract.

    Audio does not expire before its retain-until, even if its cohort's period is wrong, unless two people changed the
    date. Metadata does not expire before its audio. A change that shortens the audio does not shorten its metadata.
    """
    captured = max(recording.retain_until, period_instant(recording.audio.cohort.period, clocks.cohort_width))
    change = clocks.changes(recording)
    audio = captured if change is None else changed_until(recording, change, captured=captured)
    if part is not Part.METADATA:
        return audio
    month = recording.metadata.cohort.period
    kept = clocks.metadata_kept(month)
    if kept is None:
        return None
    until = metadata_until(month, kept)
    if recording.state is RecordingState.SHREDDED:
        return until if change is None else max(until, captured)
    return max(until, audio, captured)


def decide(facts: Facts, part: Part, *, now: datetime) -> Decision:
    """Return whether a part of a recording may be shredded at `now`; the first rule that applies decides.

    A part whose shred is under way stays due unless it is held. A clock that was set back or a grace period does not
    stop that shred.
    """
    row = facts.recording
    if part not in facts.keys:
        return Gone()
    if keeping := held_by(facts):
        return Held(holds=keeping)
    if row.state is RecordingState.SHREDDING:
        return Due(since=facts.erasing_since or row.retain_until, ground=Ground.ERASURE)
    due = None if row.state is RecordingState.OPEN else _due(facts, part, now)
    if due is None:
        return replace(_not_due(facts, part), recording=row.state is RecordingState.OPEN)
    if released := [hold for hold in ranked(facts.holds) if in_grace(hold, now=now)]:
        grace = max(hold.grace_until for hold in released if hold.grace_until is not None)
        return Held(holds=tuple(hold.id for hold in released), grace_until=grace)
    return due


def decide_parts(facts: Facts, *, now: datetime) -> Mapping[Part, Decision]:
    """Return the decision for each part."""
    return {part: decide(facts, part, now=now) for part in PARTS}


def decide_erasure(facts: Facts, *, now: datetime) -> Decision:
    """Return whether the whole recording may be erased at `now`, as if two people had approved the erasure.

    All parts that are left are erased together: what protects one part protects the other. A call that is still being
    recorded is NotDue.
    """
    approved = facts if facts.erasing_since is not None else replace(facts, erasing_since=now)
    decisions = decide_parts(approved, now=now).values()
    keeping = next((each for each in decisions if isinstance(each, Held | NotDue)), None)
    return keeping or next((each for each in decisions if isinstance(each, Due)), Gone())


def held_by(facts: Facts) -> tuple[HoldId, ...]:
    """Return the holds in force, strongest kind first, then the pinned holds that the catalog does not know."""
    known = {hold.id for hold in facts.holds}
    return (*(hold.id for hold in ranked(facts.holds) if in_force(hold)), *sorted(facts.pins - known))


def ranked(holds: Iterable[HoldTerms]) -> list[HoldTerms]:
    """Return the holds, strongest kind first."""
    return sorted(holds, key=lambda hold: (_RANK[hold.kind], hold.id))


def _due(facts: Facts, part: Part, now: datetime) -> Due | None:
    since = {
        Ground.ERASURE: facts.erasing_since,
        Ground.CONTRACT_END: facts.clocks.contract_over,
        Ground.EXPIRY: falls_due(facts.recording, part, facts.clocks),
    }
    return next((Due(since=at, ground=ground) for ground, at in since.items() if at is not None and at <= now), None)


def _not_due(facts: Facts, part: Part) -> NotDue:
    own, over = falls_due(facts.recording, part, facts.clocks), facts.clocks.contract_over
    first = over is not None and (own is None or over < own)
    return NotDue(until=over if first else own, with_contract=first)
