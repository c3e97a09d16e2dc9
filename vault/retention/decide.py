"""May this part of a recording be shredded now, and why: the precedence table of docs/design.md as a pure function.

Sweeps, their dry runs, erasures, the ends of contracts and the explanation of a recording all ask `decide` over the
same facts. What a catalog or a keyring selects are candidates, never decisions. Retention beats deletion: a hold
outranks whatever makes a recording due, whatever its kind and however late it was placed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from vault.ids import HoldId
from vault.model import Hold, HoldKind, HoldState, MetadataChange, Part, Recording, RecordingState, RetentionChange
from vault.retention.periods import Period, maybe_period
from vault.retention.policy import changed_until, covers, metadata_until, period_instant

IN_FORCE: Final = frozenset({HoldState.PLACING, HoldState.ACTIVE, HoldState.RELEASE_REQUESTED})
"""States in which a hold keeps. `placing` is one: its pin may already be durable while its row is not yet active."""

PARTS: Final = (Part.AUDIO, Part.METADATA)
"""The parts that a recording has."""

_RANK: Final = {HoldKind.LEGAL: 1, HoldKind.REGULATORY: 2, HoldKind.SAFEGUARDING: 3, HoldKind.CLIENT_REQUEST: 4}


class Ground(enum.StrEnum):
    """What makes a part due; the first that applies is the one that its certificate names."""

    ERASURE = "erasure"
    CONTRACT_END = "contract_end"
    EXPIRY = "expiry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """The clocks that one tenant's recordings go by.

    Audio falls due with its cohort, a period of `cohort_width` seconds. Metadata does `metadata_retention` after the
    end of its month, or with the contract if that is None, and never before its audio; `metadata_before` are the
    retentions agreed before, each with the last month that it holds for, in order. `metadata_changed` outranks both for
    the months that it names. `contract_over` is when the export window after the contract ends; None while two people
    have not ended the contract.
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
        """The clocks as they were agreed when the calls were recorded."""
        return replace(self, metadata_changed=None, retention_changed=None)

    def changes(self, recording: Recording) -> RetentionChange | None:
        """Return the change that two people decided for the audio of a recording, if they did."""
        change = self.retention_changed
        return change if change is not None and covers(change, recording) else None

    def changed_by(self, month: int) -> MetadataChange | None:
        """Return the change that two people decided for the metadata of a month, if they did."""
        change = self.metadata_changed
        return change if change is not None and month <= change.through else None

    def metadata_kept(self, month: int) -> Period | None:
        """Return how long after its end the metadata of a month is kept; None as long as the contract."""
        if change := self.changed_by(month):
            return maybe_period(change.retention)
        return next((kept for through, kept in self.metadata_before if month <= through), self.metadata_retention)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that decides about one recording.

    `keys` are the parts whose key exists. `holds` are those that protect it, released ones included. `pins` are the
    holds whose pins are on its keys: one that is not among `holds` keeps too, for a stale catalog frees nothing.
    `erasing_since` is when two people decided to erase it.
    """

    recording: Recording
    clocks: Clocks
    keys: frozenset[Part] = frozenset(PARTS)
    holds: Sequence[Hold] = ()
    pins: frozenset[HoldId] = frozenset()
    erasing_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """Its key no longer exists: there is nothing left to decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Must be kept: by `holds`, strongest kind first; `grace_until` is set when only released holds still keep it."""

    holds: tuple[HoldId, ...]
    grace_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotDue:
    """Must be kept until `until`, or as long as the contract (None); `recording`: moreover it is still being written.

    `with_contract` tells that it is the end of the contract that comes first.
    """

    until: datetime | None
    recording: bool = False
    with_contract: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """May be shredded, and has been due `since` on this ground."""

    since: datetime
    ground: Ground


Decision = Gone | Held | NotDue | Due


def in_force(hold: Hold) -> bool:
    """Tell whether the hold keeps what it protects; passing its review date never ends it."""
    return hold.state in IN_FORCE


def in_grace(hold: Hold, *, now: datetime) -> bool:
    """Tell whether a released hold still keeps, so that a mistaken release can be undone."""
    return hold.state is HoldState.RELEASED and hold.grace_until is not None and now < hold.grace_until


def falls_due(recording: Recording, part: Part, clocks: Clocks) -> datetime | None:
    """Return when the part falls due by its own clock; None for metadata that is kept as long as the contract.

    For audio that is never before its retain-until, even if its period were wrong, unless two people changed it.
    Metadata never falls due before its audio; a change that shortens the audio leaves its metadata where it was.
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
    """Say whether a part of a recording may be shredded at `now`; the first rule that applies decides.

    One whose shred is under way is due unless held: neither a clock stepped back nor a grace recalls it.
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
    """Decide about each part."""
    return {part: decide(facts, part, now=now) for part in PARTS}


def decide_erasure(facts: Facts, *, now: datetime) -> Decision:
    """Say what would become of an erasure of the whole recording that two people had decided by now.

    Erased is all that is left of it or nothing: what keeps one part keeps the other. A call that is being recorded is
    NotDue.
    """
    asked = facts if facts.erasing_since is not None else replace(facts, erasing_since=now)
    decisions = decide_parts(asked, now=now).values()
    keeping = next((each for each in decisions if isinstance(each, Held | NotDue)), None)
    return keeping or next((each for each in decisions if isinstance(each, Due)), Gone())


def held_by(facts: Facts) -> tuple[HoldId, ...]:
    """Return the holds in force, strongest kind first; then those that the keyring alone knows."""
    known = {hold.id for hold in facts.holds}
    return (*(hold.id for hold in ranked(facts.holds) if in_force(hold)), *sorted(facts.pins - known))


def ranked(holds: Iterable[Hold]) -> list[Hold]:
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
