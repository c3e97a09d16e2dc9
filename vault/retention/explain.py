"""Why a recording is kept or deleted, rule by rule, in plain words. `vault.retention.decide` decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from vault.ids import CertificateId, HoldId
from vault.instants import rfc3339
from vault.model import HoldKind, HoldState, HoldTerms, Part, RecordingState
from vault.retention.decide import (
    Due,
    Facts,
    Gone,
    Ground,
    Held,
    NotDue,
    decide,
    decide_parts,
    falls_due,
    in_force,
    in_grace,
    ranked,
)

_RULES = {
    HoldKind.LEGAL: "a legal hold keeps until its matter is resolved",
    HoldKind.REGULATORY: "a regulatory hold is a minimum set by law",
    HoldKind.SAFEGUARDING: "a safeguarding hold keeps until a person has reviewed it",
    HoldKind.CLIENT_REQUEST: "the controller asked for longer retention",
}
_GROUNDS = {
    Ground.ERASURE: "by an erasure",
    Ground.CONTRACT_END: "by the end of the contract",
    Ground.EXPIRY: "because its retention ended",
}
_STOPPED = "a guard has stopped the sweep before it; two people may let it go"
_FACTS = "its numbers, tags and other facts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """The token that acted, and its name if that is still known."""

    token: str
    name: str | None = None

    def __str__(self) -> str:
        """Return the token and its name."""
        return self.token if self.name is None else f"{self.token} ({self.name})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An erasure that two people decided. `reference` is None once the reference was deleted."""

    id: str
    basis: str
    reference: str | None
    asked: Person
    approved: Person


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """The end of a contract that two people decided."""

    ended: datetime
    asked: Person
    approved: Person


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a part was destroyed, as its certificate states it."""

    ground: Ground
    at: datetime
    certificate: CertificateId


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The decisions about a recording and the people who made them. Only roles that may read certificates see it."""

    endings: Mapping[Part, Ending] = field(default_factory=dict)
    case: Case | None = None
    contract: Contract | None = None
    change: tuple[Person, Person] | None = None
    """Who requested the change of its date that is in force, and who approved it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLine:
    """One rule of the explanation: whether it `applies`, its `effect` (keeps, deletes, none) and the words for it.

    A hold's reason is not repeated here: it may name people.
    """

    rule: str
    applies: bool
    effect: str
    text: str
    hold: HoldId | None = None
    matter: str | None = None
    until: datetime | None = None
    certificate: CertificateId | None = None
    erasure: str | None = None
    requested_by: str | None = None
    approved_by: str | None = None


def explain(
    facts: Facts, *, now: datetime, story: Story | None = None, stopped: frozenset[Part] = frozenset()
) -> list[RuleLine]:
    """Return why a recording is kept or was deleted: the rules in order of precedence, the decision as the last line.

    The last line states what `decide` returns for the audio. `story` is None for callers who may not know who decided.
    `stopped` are the parts that a guard keeps from being swept.
    """
    story = story or Story()
    return [
        *_hold_lines(facts, now),
        *_state_lines(facts),
        *_case_lines(facts, story),
        *_contract_lines(facts, story, now),
        _clock_line(facts, story, now),
        _metadata_line(facts, story, now, stopped),
        _decision_line(facts, story, now, stopped),
    ]


def _hold_lines(facts: Facts, now: datetime) -> Iterator[RuleLine]:
    known = {hold.id for hold in facts.holds}
    for hold in ranked(facts.holds):
        yield _hold_line(facts, hold, now)
    for unknown in sorted(facts.pins - known):
        text = "the keyring keeps it for a hold that the catalog does not know"
        yield RuleLine(rule="pin", applies=True, effect="keeps", text=text, hold=unknown)
    if not facts.holds and not facts.pins:
        yield RuleLine(rule="holds", applies=False, effect="none", text="no hold protects this recording")


def _hold_line(facts: Facts, hold: HoldTerms, now: datetime) -> RuleLine:
    rule = f"{hold.kind.value}_hold"
    decisions = decide_parts(facts, now=now).values()
    keeping = any(isinstance(each, Held) and hold.id in each.holds for each in decisions)
    if keeping and in_force(hold):
        text = f"{_RULES[hold.kind]}; review due {stamp(hold.review_at)}"
        return RuleLine(rule=rule, applies=True, effect="keeps", text=text, hold=hold.id, matter=hold.matter)
    if keeping and in_grace(hold, now=now):
        text = f"released; keeps until {stamp(hold.grace_until)}, so that the release can be undone"
        return RuleLine(
            rule="release_grace",
            applies=True,
            effect="keeps",
            text=text,
            hold=hold.id,
            matter=hold.matter,
            until=hold.grace_until,
        )
    text = f"released {stamp(hold.released_at)}" if hold.state is HoldState.RELEASED else "no longer protects anything"
    return RuleLine(rule=rule, applies=False, effect="none", text=text, hold=hold.id, matter=hold.matter)


def _state_lines(facts: Facts) -> Iterator[RuleLine]:
    state = facts.recording.state
    if state is RecordingState.OPEN:
        text = "the call is still being recorded; only finished recordings are shredded"
        yield RuleLine(rule="state", applies=True, effect="keeps", text=text)
    elif state is RecordingState.SHREDDING:
        yield RuleLine(rule="state", applies=True, effect="deletes", text="its shred was decided and is under way")
    elif state is not RecordingState.SHREDDED:
        yield RuleLine(rule="state", applies=False, effect="none", text=f"finished: {state.value}")


def _case_lines(facts: Facts, story: Story) -> Iterator[RuleLine]:
    case = story.case
    if case is None:
        return
    took = [part for part, ending in story.endings.items() if ending.ground is Ground.ERASURE]
    certificate = story.endings[took[0]].certificate if took else None
    named = case.id if case.reference is None else f"{case.id} (reference {case.reference})"
    what = "erased" if took or not facts.keys else "its erasure was decided"
    text = f"{what}: {case.basis}, case {named}; {case.asked} asked for it, {case.approved} approved it"
    yield RuleLine(
        rule="erasure",
        applies=True,
        effect="deletes",
        text=text if certificate is None else f"{text}; certificate {certificate}",
        certificate=certificate,
        erasure=case.id,
        requested_by=case.asked.token,
        approved_by=case.approved.token,
    )


def _contract_lines(facts: Facts, story: Story, now: datetime) -> Iterator[RuleLine]:
    contract, over = story.contract, facts.clocks.contract_over
    if contract is None or over is None:
        return
    took = [ending for ending in story.endings.values() if ending.ground is Ground.CONTRACT_END]
    if not facts.keys and not took:
        return
    certificate = took[0].certificate if took else None
    text = (
        f"the contract with the controller ended {stamp(contract.ended)}, and its export window {stamp(over)}; "
        f"{contract.asked} asked for it, {contract.approved} approved it"
    )
    yield RuleLine(
        rule="contract",
        applies=True,
        effect="deletes" if now >= over else "none",
        text=text if certificate is None else f"{text}; certificate {certificate}",
        until=over,
        certificate=certificate,
        requested_by=contract.asked.token,
        approved_by=contract.approved.token,
    )


def _clock_line(facts: Facts, story: Story, now: datetime) -> RuleLine:
    row = facts.recording
    change = facts.clocks.changes(row)
    due = row.retain_until if change is None else falls_due(row, Part.AUDIO, facts.clocks) or row.retain_until
    past_due = now >= due
    words = "has passed" if past_due else "lies ahead"
    text = f"retain-until {stamp(due)} {words} (retention class {row.retention_class})"
    asked = approved = None
    if change is not None:
        text = f"{text}; two people changed it from {stamp(row.retain_until)}: {change.request}, {change.retention}"
        if story.change is not None:
            first, second = story.change
            text = f"{text}; {first} asked for it, {second} approved it"
            asked, approved = first.token, second.token
    if Part.AUDIO in facts.keys:
        effect = "deletes" if past_due else "keeps"
        return RuleLine(
            rule="retention",
            applies=True,
            effect=effect,
            text=text,
            until=due,
            requested_by=asked,
            approved_by=approved,
        )
    ending = story.endings.get(Part.AUDIO)
    if ending is not None and ending.ground is Ground.EXPIRY:
        text = text.replace(words, "had come when it was shredded", 1)
        return RuleLine(
            rule="retention",
            applies=True,
            effect="deletes",
            text=text,
            until=due,
            certificate=ending.certificate,
            requested_by=asked,
            approved_by=approved,
        )
    return RuleLine(rule="retention", applies=False, effect="none", text=text, until=due)


def _metadata_line(facts: Facts, story: Story, now: datetime, stopped: frozenset[Part]) -> RuleLine:
    change = facts.clocks.changed_by(facts.recording.metadata.cohort.period)
    changed = "" if change is None else f"; two people changed its clock: {change.request}"
    match decide(facts, Part.METADATA, now=now):
        case Gone():
            certificate = facts.recording.metadata_certificate_id
            ending = story.endings.get(Part.METADATA)
            how = "" if ending is None else f" since {stamp(ending.at)}, {_GROUNDS[ending.ground]}"
            text = f"{_FACTS} are gone{how}" + (f"; certificate {certificate}" if certificate else "")
            return RuleLine(rule="metadata", applies=True, effect="deletes", text=text, certificate=certificate)
        case Held(grace_until=grace):
            text = f"{_FACTS} are kept by the same holds"
            return RuleLine(rule="metadata", applies=True, effect="keeps", text=text, until=grace)
        case NotDue() as kept:
            text = f"{_FACTS} are {_kept(kept)}{changed}"
            return RuleLine(rule="metadata", applies=True, effect="keeps", text=text, until=kept.until)
        case Due(since=since, ground=ground):
            when = _STOPPED if _waits(Part.METADATA, ground, stopped) else "they go with the next sweep"
            text = f"{_FACTS} are due since {stamp(since)} {_GROUNDS[ground]}: {when}{changed}"
            return RuleLine(rule="metadata", applies=True, effect="deletes", text=text)


def _decision_line(facts: Facts, story: Story, now: datetime, stopped: frozenset[Part]) -> RuleLine:
    match decide(facts, Part.AUDIO, now=now):
        case Gone():
            return _gone_line(facts, story)
        case Held(holds=holds, grace_until=grace):
            named = ", ".join(holds)
            text = f"kept until {stamp(grace)}: the grace of {named}, released" if grace else f"kept: held by {named}"
            return RuleLine(rule="decision", applies=True, effect="keeps", text=text, until=grace)
        case NotDue() as kept:
            return RuleLine(rule="decision", applies=True, effect="keeps", text=_kept(kept), until=kept.until)
        case Due(since=since, ground=ground):
            when = _STOPPED if _waits(Part.AUDIO, ground, stopped) else "goes with the next sweep of its cohort"
            text = f"due since {stamp(since)} {_GROUNDS[ground]}: {when}"
            return RuleLine(rule="decision", applies=True, effect="deletes", text=text)


def _waits(part: Part, ground: Ground, stopped: frozenset[Part]) -> bool:
    """Tell whether a guard keeps a due part from being swept; no guard stops an erasure."""
    return part in stopped and ground is not Ground.ERASURE


def _gone_line(facts: Facts, story: Story) -> RuleLine:
    certificate = facts.recording.certificate_id
    ending = story.endings.get(Part.AUDIO)
    how = "" if ending is None else f" since {stamp(ending.at)}, {_GROUNDS[ending.ground]}"
    text = f"deleted: its key no longer exists{how}" + (f"; certificate {certificate}" if certificate else "")
    return RuleLine(rule="decision", applies=True, effect="deletes", text=text, certificate=certificate)


def _kept(decision: NotDue) -> str:
    if decision.recording:
        return "kept: the call is still being recorded"
    if decision.until is None:
        return "kept as long as the contract"
    return f"kept until {stamp(decision.until)}" + (", the end of the export window" if decision.with_contract else "")


def stamp(instant: datetime | None) -> str:
    """Return an instant in RFC 3339; words for None."""
    return "at an unrecorded time" if instant is None else rfc3339(instant)
