"""May this recording be shredded now, and why: the precedence table of docs/design.md as pure functions.

Retention beats deletion: a hold outranks an elapsed retain-until, whatever its kind and however late it was placed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

from vault.errors import Shredded
from vault.ids import CertificateId, HoldId
from vault.model import Hold, HoldKind, HoldState, Recording, RecordingState

IN_FORCE: Final = frozenset({HoldState.PLACING, HoldState.ACTIVE, HoldState.RELEASE_REQUESTED})
"""States in which a hold keeps. `placing` is one: its pin may already be durable while its row is not yet active."""

_RANK: Final = {HoldKind.LEGAL: 1, HoldKind.REGULATORY: 2, HoldKind.SAFEGUARDING: 3, HoldKind.CLIENT_REQUEST: 4}
_RULES: Final = {
    HoldKind.LEGAL: "a legal hold keeps until its matter is resolved",
    HoldKind.REGULATORY: "a regulatory hold is a minimum set by law",
    HoldKind.SAFEGUARDING: "a safeguarding hold keeps until a person has reviewed it",
    HoldKind.CLIENT_REQUEST: "the controller asked for longer retention",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Must be kept: by `holds`, strongest kind first; `grace_until` is set when only released holds still keep it."""

    holds: tuple[HoldId, ...]
    grace_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotDue:
    """Must be kept until `retain_until`; `recording` tells that it is moreover still being written."""

    retain_until: datetime
    recording: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """May be shredded, and has been due `since`."""

    since: datetime


Decision = Held | NotDue | Due


def in_force(hold: Hold) -> bool:
    """Tell whether the hold keeps what it protects; passing its review date never ends it."""
    return hold.state in IN_FORCE


def in_grace(hold: Hold, *, now: datetime) -> bool:
    """Tell whether a released hold still keeps, so that a mistaken release can be undone."""
    return hold.state is HoldState.RELEASED and hold.grace_until is not None and now < hold.grace_until


def decide(recording: Recording, holds: Sequence[Hold], *, now: datetime) -> Decision:
    """Say whether `recording` may be shredded at `now`; a hold outranks an elapsed retain-until.

    `holds` are those that protect this recording, released ones included, as `HoldRows.holds_on` returns them. A
    recording in state shredding is Due unless held: its shred is under way and a clock stepped back does not recall
    it. Shredded is raised for one that is gone: there is nothing left to decide.
    """
    if recording.state is RecordingState.SHREDDED:
        raise _gone(recording)
    if keeping := [hold for hold in _ranked(holds) if in_force(hold)]:
        return Held(holds=tuple(hold.id for hold in keeping))
    if recording.state is RecordingState.OPEN:
        return NotDue(retain_until=recording.retain_until, recording=True)
    if now < recording.retain_until and recording.state is not RecordingState.SHREDDING:
        return NotDue(retain_until=recording.retain_until)
    if released := [hold for hold in _ranked(holds) if _grace_keeps(recording, hold, now=now)]:
        grace = max(hold.grace_until for hold in released if hold.grace_until is not None)
        return Held(holds=tuple(hold.id for hold in released), grace_until=grace)
    return Due(since=recording.retain_until)


def decide_erasure(recording: Recording, holds: Sequence[Hold], *, now: datetime) -> Decision:
    """Say whether `recording` may be erased at `now`, whatever its retain-until; Due is since `now`.

    A hold keeps it, and so does a released one within its grace: a release that is undone must still find something.
    A call that is being recorded is NotDue. A shredded recording is Due for what else is left of it.
    """
    keeping = [hold for hold in _ranked(holds) if in_force(hold)]
    released = [hold for hold in _ranked(holds) if in_grace(hold, now=now)]
    if keeping or released:
        grace = None if keeping else max(hold.grace_until for hold in released if hold.grace_until is not None)
        return Held(holds=tuple(hold.id for hold in (*keeping, *released)), grace_until=grace)
    if recording.state is RecordingState.OPEN:
        return NotDue(retain_until=recording.retain_until, recording=True)
    return Due(since=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLine:
    """One rule of the explanation: whether it `applies`, its `effect` (keeps, deletes, none) and the words for it.

    `until` is an RFC 3339 instant. A hold's reason is not repeated here: it may name people.
    """

    rule: str
    applies: bool
    effect: str
    text: str
    hold: HoldId | None = None
    matter: str | None = None
    until: str | None = None
    certificate: CertificateId | None = None

    def as_json(self) -> dict[str, str | bool | None]:
        """Return the line as a JSON object."""
        return asdict(self)


def explain(recording: Recording, holds: Sequence[Hold], *, now: datetime) -> list[RuleLine]:
    """Say why `recording` is kept or was deleted: every rule in order of precedence, the decision as the last line.

    Agrees with `decide` in every case, and also answers for a recording that is already shredded.
    """
    if recording.state is RecordingState.SHREDDED:
        return [*_hold_lines(recording, holds, now=now), _clock_line(recording, now=now), _shredded_line(recording)]
    return [
        *_hold_lines(recording, holds, now=now),
        _state_line(recording),
        _clock_line(recording, now=now),
        _decision_line(decide(recording, holds, now=now)),
    ]


def _grace_keeps(recording: Recording, hold: Hold, *, now: datetime) -> bool:
    # Before its retain-until the recording is kept by that alone, and a live one by being live.
    past_due = recording.state is not RecordingState.OPEN and now >= recording.retain_until
    return past_due and in_grace(hold, now=now)


def _ranked(holds: Iterable[Hold]) -> list[Hold]:
    return sorted(holds, key=lambda hold: (_RANK[hold.kind], hold.id))


def _gone(recording: Recording) -> Shredded:
    facts = {} if recording.certificate_id is None else {"certificate_id": str(recording.certificate_id)}
    return Shredded(f"{recording.id} is shredded", **facts)


def _hold_lines(recording: Recording, holds: Sequence[Hold], *, now: datetime) -> list[RuleLine]:
    ranked = _ranked(holds)
    if not ranked:
        return [RuleLine(rule="holds", applies=False, effect="none", text="no hold protects this recording")]
    return [_hold_line(recording, hold, now=now) for hold in ranked]


def _hold_line(recording: Recording, hold: Hold, *, now: datetime) -> RuleLine:
    gone = recording.state is RecordingState.SHREDDED
    rule = f"{hold.kind.value}_hold"
    if in_force(hold) and not gone:
        text = f"{_RULES[hold.kind]}; review due {_stamp(hold.review_at)}"
        return RuleLine(rule=rule, applies=True, effect="keeps", text=text, hold=hold.id, matter=hold.matter)
    if _grace_keeps(recording, hold, now=now) and not gone:
        text = "released; kept through the grace period so that the release can be undone"
        until = _stamp(hold.grace_until)
        return RuleLine(
            rule="release_grace", applies=True, effect="keeps", text=text, hold=hold.id, matter=hold.matter, until=until
        )
    text = f"released {_stamp(hold.released_at)}" if hold.state is HoldState.RELEASED else "no longer protects anything"
    return RuleLine(rule=rule, applies=False, effect="none", text=text, hold=hold.id, matter=hold.matter)


def _state_line(recording: Recording) -> RuleLine:
    if recording.state is RecordingState.OPEN:
        text = "the call is still being recorded; only finished recordings are shredded"
        return RuleLine(rule="state", applies=True, effect="keeps", text=text)
    if recording.state is RecordingState.SHREDDING:
        text = "its shred was decided and is under way"
        return RuleLine(rule="state", applies=True, effect="deletes", text=text)
    return RuleLine(rule="state", applies=False, effect="none", text=f"finished: {recording.state.value}")


def _clock_line(recording: Recording, *, now: datetime) -> RuleLine:
    until = _stamp(recording.retain_until)
    past_due = now >= recording.retain_until
    words = "has passed" if past_due else "lies ahead"
    text = f"retention class {recording.retention_class}: retain-until {until} {words}"
    return RuleLine(rule="retention", applies=True, effect="deletes" if past_due else "keeps", text=text, until=until)


def _decision_line(decision: Decision) -> RuleLine:
    match decision:
        case Held(holds=holds, grace_until=grace):
            text = f"kept: held by {', '.join(holds)}"
            until = None if grace is None else _stamp(grace)
            return RuleLine(rule="decision", applies=True, effect="keeps", text=text, until=until)
        case NotDue(retain_until=instant, recording=recording):
            text = "kept: the call is still being recorded" if recording else f"kept until {_stamp(instant)}"
            return RuleLine(rule="decision", applies=True, effect="keeps", text=text, until=_stamp(instant))
        case Due(since=since):
            text = f"due since {_stamp(since)}: goes with the next sweep of its cohort"
            return RuleLine(rule="decision", applies=True, effect="deletes", text=text)


def _shredded_line(recording: Recording) -> RuleLine:
    certificate = recording.certificate_id
    text = "deleted: its key no longer exists" + (f"; certificate {certificate}" if certificate else "")
    return RuleLine(rule="decision", applies=True, effect="deletes", text=text, certificate=certificate)


def _stamp(instant: datetime | None) -> str:
    if instant is None:
        return "at an unrecorded time"
    return instant.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
