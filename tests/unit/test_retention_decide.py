"""Precedence: what keeps a recording, what lets it go, and the words for both."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.helpers.retention import CLOCKS, DUE_AT, RECORDING, facts, hold
from vault.ids import CertificateId, HoldId
from vault.model import (
    Hold,
    HoldKind,
    HoldState,
    Part,
    Recording,
    RecordingState,
)
from vault.retention.decide import (
    PARTS,
    Decision,
    Due,
    Facts,
    Gone,
    Ground,
    Held,
    NotDue,
    decide,
    decide_erasure,
    falls_due,
    in_force,
    in_grace,
)
from vault.retention.explain import Case, Contract, Ending, Person, Story, explain, stamp
from vault.retention.periods import Period

BEFORE = DUE_AT - timedelta(microseconds=1)
AFTER = DUE_AT + timedelta(days=3)


def in_state(state: RecordingState) -> Recording:
    return replace(RECORDING, state=state)


AUDIO, METADATA = Part.AUDIO, Part.METADATA


def audio(found: Facts, now: datetime) -> Decision:
    return decide(found, AUDIO, now=now)


EXPIRED = Due(since=DUE_AT, ground=Ground.EXPIRY)
UNTIL_DUE = NotDue(until=DUE_AT)


def test_a_recording_is_due_from_the_very_instant_of_its_retain_until() -> None:
    assert audio(facts(), BEFORE) == UNTIL_DUE
    assert audio(facts(), DUE_AT) == EXPIRED
    assert audio(facts(in_state(RecordingState.TRUNCATED)), AFTER) == EXPIRED


def test_a_recording_goes_with_its_cohort_and_never_before_its_date() -> None:
    later = replace(RECORDING.audio.cohort, period=RECORDING.audio.cohort.period + 1)
    row = replace(RECORDING, audio=replace(RECORDING.audio, cohort=later))
    midnight = datetime(2026, 5, 31, tzinfo=UTC)
    assert falls_due(row, AUDIO, CLOCKS) == midnight
    assert audio(facts(row), DUE_AT) == NotDue(until=midnight)
    assert audio(facts(row), midnight) == Due(since=midnight, ground=Ground.EXPIRY)
    early = replace(RECORDING.audio.cohort, period=3)
    wrong = replace(RECORDING, audio=replace(RECORDING.audio, cohort=early))
    assert audio(facts(wrong), BEFORE) == UNTIL_DUE, "a wrong period shortens nothing"


@pytest.mark.parametrize("kind", HoldKind)
@pytest.mark.parametrize("state", [HoldState.PLACING, HoldState.ACTIVE, HoldState.RELEASE_REQUESTED])
@pytest.mark.parametrize("now", [BEFORE, AFTER, AFTER + timedelta(days=40_000)])
def test_a_hold_of_any_kind_outranks_whatever_makes_it_due(kind: HoldKind, state: HoldState, now: datetime) -> None:
    placed = hold(kind=kind, state=state)
    clocks = replace(CLOCKS, contract_over=BEFORE, metadata_retention=Period(timedelta(days=1)))
    for part in PARTS:
        assert decide(facts(RECORDING, placed), part, now=now) == Held(holds=(placed.id,))
        everything = facts(RECORDING, placed, clocks=clocks, erasing_since=BEFORE)
        assert decide(everything, part, now=now) == Held(holds=(placed.id,))


def test_hold_placed_after_expiry_still_blocks_shredding() -> None:
    late = replace(hold(), created_at=AFTER)
    assert audio(facts(RECORDING, late), AFTER) == Held(holds=(late.id,))


def test_a_pin_of_a_hold_that_the_catalog_does_not_know_keeps() -> None:
    unknown, known = HoldId(f"hold_{9:032x}"), hold()
    assert audio(facts(pins=frozenset({unknown})), AFTER) == Held(holds=(unknown,))
    assert audio(facts(RECORDING, known, pins=frozenset({unknown})), AFTER) == Held(holds=(known.id, unknown))
    released = hold(state=HoldState.RELEASED, grace_until=BEFORE)
    assert audio(facts(RECORDING, released, pins=frozenset({released.id})), AFTER) == EXPIRED


def test_an_erasure_needs_no_date_but_every_hold_and_grace_to_be_over() -> None:
    grace = hold(2, state=HoldState.RELEASED, grace_until=AFTER)
    erased = Due(since=BEFORE, ground=Ground.ERASURE)
    assert decide_erasure(facts(), now=BEFORE) == erased
    assert decide_erasure(facts(RECORDING, hold(), grace), now=BEFORE) == Held(holds=(hold().id,))
    assert decide_erasure(facts(RECORDING, grace), now=BEFORE) == Held(holds=(grace.id,), grace_until=AFTER)
    assert decide_erasure(facts(RECORDING, grace), now=AFTER) == Due(since=AFTER, ground=Ground.ERASURE)
    assert decide_erasure(facts(in_state(RecordingState.TRUNCATED)), now=BEFORE) == erased
    live = decide_erasure(facts(in_state(RecordingState.OPEN)), now=BEFORE)
    assert live == NotDue(until=DUE_AT, recording=True)
    assert isinstance(decide_erasure(facts(in_state(RecordingState.OPEN), hold()), now=BEFORE), Held)


def test_an_erasure_takes_what_is_left_of_a_recording_and_keeps_it_whole_otherwise() -> None:
    left = facts(in_state(RecordingState.SHREDDED), keys=frozenset({METADATA}))
    assert decide_erasure(left, now=BEFORE) == Due(since=BEFORE, ground=Ground.ERASURE)
    assert isinstance(decide_erasure(replace(left, holds=(hold(),)), now=BEFORE), Held)
    assert decide_erasure(replace(left, keys=frozenset()), now=BEFORE) == Gone()


def test_what_two_people_decided_to_erase_is_due_whatever_its_date() -> None:
    for part in PARTS:
        assert decide(facts(erasing_since=BEFORE), part, now=BEFORE) == Due(since=BEFORE, ground=Ground.ERASURE)


def test_the_end_of_a_contract_makes_everything_due_after_its_window() -> None:
    clocks = replace(CLOCKS, contract_over=BEFORE, metadata_retention=None)
    before = BEFORE - timedelta(microseconds=1)
    for part in PARTS:
        assert decide(facts(clocks=clocks), part, now=BEFORE) == Due(since=BEFORE, ground=Ground.CONTRACT_END)
        assert decide(facts(clocks=clocks), part, now=before) == NotDue(until=BEFORE, with_contract=True)
    assert audio(facts(clocks=replace(clocks, contract_over=AFTER)), BEFORE) == UNTIL_DUE


def test_metadata_goes_by_the_clock_of_its_month_or_with_the_contract() -> None:
    month = replace(RECORDING.metadata.cohort, period=2026 * 12 + 1)
    row = replace(in_state(RecordingState.SHREDDED), metadata=replace(RECORDING.metadata, cohort=month))
    ends = datetime(2026, 3, 31, tzinfo=UTC)
    clocks = replace(CLOCKS, metadata_retention=Period(timedelta(days=30)))
    assert decide(facts(row, clocks=clocks), METADATA, now=ends) == Due(since=ends, ground=Ground.EXPIRY)
    assert decide(facts(row, clocks=clocks), METADATA, now=ends - timedelta(seconds=1)) == NotDue(until=ends)
    assert decide(facts(row), METADATA, now=AFTER + timedelta(days=9999)) == NotDue(until=None)
    alive = replace(row, state=RecordingState.SEALED)
    assert decide(facts(alive, clocks=clocks), METADATA, now=ends) == UNTIL_DUE, "never before its audio"
    agreed = replace(clocks, metadata_retention=None, metadata_before=((2026 * 12 + 1, Period(timedelta(days=30))),))
    assert decide(facts(row, clocks=agreed), METADATA, now=ends) == Due(since=ends, ground=Ground.EXPIRY)


def test_an_overdue_review_does_not_release_a_hold() -> None:
    overdue = replace(hold(), review_at=DUE_AT)
    assert isinstance(audio(facts(RECORDING, overdue), AFTER), Held)


def test_releasing_one_hold_leaves_the_others_in_force() -> None:
    released, other = hold(1, state=HoldState.RELEASED), hold(2)
    assert audio(facts(RECORDING, released, other), AFTER) == Held(holds=(other.id,))


def test_the_strongest_kind_of_hold_is_named_first() -> None:
    kinds = [HoldKind.CLIENT_REQUEST, HoldKind.SAFEGUARDING, HoldKind.REGULATORY, HoldKind.LEGAL]
    holds = [hold(number, kind=kind) for number, kind in enumerate(kinds, 1)]
    assert audio(facts(RECORDING, *holds), AFTER) == Held(holds=tuple(h.id for h in reversed(holds)))


def test_a_released_hold_keeps_what_became_overdue_until_the_grace_ends() -> None:
    grace = AFTER + timedelta(days=14)
    released = hold(state=HoldState.RELEASED, grace_until=grace)
    assert audio(facts(RECORDING, released), AFTER) == Held(holds=(released.id,), grace_until=grace)
    assert audio(facts(RECORDING, released), grace) == EXPIRED


def test_the_longest_grace_wins() -> None:
    graces = [AFTER + timedelta(days=days) for days in (1, 14, 7)]
    holds = [hold(n, state=HoldState.RELEASED, grace_until=grace) for n, grace in enumerate(graces)]
    decision = audio(facts(RECORDING, *holds), AFTER)
    assert isinstance(decision, Held)
    assert decision.grace_until == graces[1]


def test_a_release_never_restarts_the_clock() -> None:
    released = hold(state=HoldState.RELEASED, grace_until=AFTER)
    assert audio(facts(RECORDING, released), BEFORE) == UNTIL_DUE
    assert audio(facts(RECORDING, released), AFTER) == EXPIRED
    assert audio(facts(RECORDING, hold(state=HoldState.RELEASED)), DUE_AT) == EXPIRED


def test_a_call_still_being_recorded_is_never_due() -> None:
    live = in_state(RecordingState.OPEN)
    assert audio(facts(live, erasing_since=BEFORE), AFTER) == NotDue(until=DUE_AT, recording=True)
    assert isinstance(audio(facts(live, hold()), AFTER), Held)


def test_a_decided_shred_is_not_recalled_by_a_clock_stepped_back_but_by_a_hold() -> None:
    shredding = in_state(RecordingState.SHREDDING)
    assert audio(facts(shredding), BEFORE) == Due(since=DUE_AT, ground=Ground.ERASURE)
    assert isinstance(audio(facts(shredding, hold()), AFTER), Held)


def test_there_is_nothing_to_decide_about_what_has_no_key() -> None:
    gone = facts(in_state(RecordingState.SHREDDED), hold(), keys=frozenset({METADATA}))
    assert audio(gone, AFTER) == Gone()
    assert isinstance(decide(gone, METADATA, now=AFTER), Held)


# -- the words ----------------------------------------------------------------------------------------------------


def effects(found: Facts, now: datetime) -> list[tuple[str, str]]:
    return [(line.rule, line.effect) for line in explain(found, now=now)]


def test_why_kept_lists_every_rule_in_order_of_precedence() -> None:
    holds = [hold(1, kind=HoldKind.CLIENT_REQUEST), hold(2, state=HoldState.RELEASED), hold(3, kind=HoldKind.LEGAL)]
    assert effects(facts(RECORDING, *holds), AFTER) == [
        ("legal_hold", "none"),
        ("legal_hold", "keeps"),
        ("client_request_hold", "keeps"),
        ("state", "none"),
        ("retention", "deletes"),
        ("metadata", "keeps"),
        ("decision", "keeps"),
    ]


def test_why_kept_names_hold_and_matter_but_not_the_reason_that_may_name_people() -> None:
    text = repr(explain(facts(RECORDING, hold()), now=AFTER))
    assert "MATTER-1" in text
    assert hold().id in text
    assert "Jane" not in text


CERTIFICATE = CertificateId("cert_" + "2" * 32)
GONE = replace(
    RECORDING,
    state=RecordingState.SHREDDED,
    certificate_id=CERTIFICATE,
    metadata_certificate_id=CERTIFICATE,
)
NOTHING_LEFT = facts(GONE, hold(state=HoldState.RELEASED), keys=frozenset())
ANN, BOB = Person(token="tok_1", name="ann"), Person(token="tok_2", name="bob")


def ended(ground: Ground, at: datetime = BEFORE) -> dict[Part, Ending]:
    return {part: Ending(ground=ground, at=at, certificate=CERTIFICATE) for part in PARTS}


def test_why_deleted_points_to_the_certificate_and_says_nothing_is_kept() -> None:
    for now in (BEFORE, AFTER):
        lines = explain(NOTHING_LEFT, now=now)
        assert lines[-1].certificate == CERTIFICATE
        assert lines[-1].effect == "deletes"
        assert all(line.effect != "keeps" for line in lines)


def test_why_gone_by_an_erasure_names_the_case_its_ground_and_both_people() -> None:
    case = Case(id="era_7", basis="UK GDPR Art. 17", reference="DSR-7", asked=ANN, approved=BOB)
    lines = explain(NOTHING_LEFT, now=BEFORE, story=Story(endings=ended(Ground.ERASURE), case=case))
    by_rule = {line.rule: line for line in lines}
    line = by_rule["erasure"]
    assert (line.effect, line.erasure, line.requested_by, line.approved_by) == ("deletes", "era_7", "tok_1", "tok_2")
    for word in ("UK GDPR Art. 17", "era_7", "DSR-7", "ann", "bob", CERTIFICATE):
        assert word in line.text
    assert not by_rule["retention"].applies, "the date did not decide"
    assert "by an erasure" in by_rule["metadata"].text
    assert "by an erasure" in lines[-1].text
    nameless = replace(case, reference=None)
    assert "reference" not in explain(NOTHING_LEFT, now=BEFORE, story=Story(case=nameless))[2].text


def test_why_gone_by_its_date_names_the_policy_and_by_a_contract_the_contract() -> None:
    expired = {line.rule: line for line in explain(NOTHING_LEFT, now=AFTER, story=Story(endings=ended(Ground.EXPIRY)))}
    assert (expired["retention"].effect, expired["retention"].certificate) == ("deletes", CERTIFICATE)
    assert "contract" not in expired
    clocks = replace(CLOCKS, contract_over=BEFORE)
    story = Story(
        endings=ended(Ground.CONTRACT_END),
        contract=Contract(ended=BEFORE - timedelta(days=30), asked=ANN, approved=BOB),
    )
    left = {line.rule: line for line in explain(replace(NOTHING_LEFT, clocks=clocks), now=BEFORE, story=story)}
    assert (left["contract"].effect, left["contract"].requested_by) == ("deletes", "tok_1")
    assert "bob" in left["contract"].text
    assert not left["retention"].applies
    assert "by the end of the contract" in left["decision"].text


def test_why_a_recording_of_a_tenant_that_leaves_is_kept_names_the_end_of_its_window() -> None:
    found = facts(clocks=replace(CLOCKS, contract_over=BEFORE))
    now = BEFORE - timedelta(days=1)
    contract = Contract(ended=BEFORE - timedelta(days=30), asked=ANN, approved=BOB)
    lines = explain(found, now=now, story=Story(contract=contract))
    assert lines[-1].text == "kept until 2026-05-30T09:29:59.999Z, the end of the export window"
    assert [line.effect for line in lines if line.rule == "contract"] == ["none"]


def test_whoever_may_not_know_who_decided_hears_only_that_it_is_gone() -> None:
    text = " ".join(line.text for line in explain(NOTHING_LEFT, now=BEFORE))
    assert "erasure" not in text
    assert "contract" not in text
    assert "tok_" not in text


@pytest.mark.parametrize("state", [s for s in RecordingState if s is not RecordingState.SHREDDED])
@pytest.mark.parametrize("now", [BEFORE, AFTER])
@pytest.mark.parametrize(
    "holds",
    [
        [],
        [hold()],
        [hold(state=HoldState.RELEASED, grace_until=AFTER + timedelta(days=1))],
        [hold(state=HoldState.RELEASED, grace_until=BEFORE - timedelta(days=1))],
    ],
)
def test_the_explanation_agrees_with_the_decision(state: RecordingState, now: datetime, holds: list[Hold]) -> None:
    found = facts(in_state(state), *holds)
    decision = audio(found, now)
    lines = explain(found, now=now)
    assert lines[-1].rule == "decision"
    assert lines[-1].effect == ("deletes" if isinstance(decision, Due) else "keeps")
    keeping = tuple(line.hold for line in lines if line.effect == "keeps" and line.hold)
    assert keeping == (decision.holds if isinstance(decision, Held) else ())


def test_what_only_a_grace_keeps_is_said_to_be_released_and_until_when() -> None:
    released = hold(state=HoldState.RELEASED, grace_until=AFTER + timedelta(days=1))
    lines = {line.rule: line for line in explain(facts(RECORDING, released), now=AFTER)}
    for rule in ("release_grace", "decision"):
        assert "held by" not in lines[rule].text
        assert "released" in lines[rule].text
        assert stamp(released.grace_until) in lines[rule].text
        assert lines[rule].until == released.grace_until
    assert "held by" in explain(facts(RECORDING, hold()), now=AFTER)[-1].text


def test_force_and_grace_never_overlap() -> None:
    for state in HoldState:
        item = hold(state=state, grace_until=AFTER)
        assert in_force(item) == (state is not HoldState.RELEASED)
        assert in_grace(item, now=BEFORE) == (state is HoldState.RELEASED)
