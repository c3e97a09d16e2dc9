"""Precedence: what keeps a recording, what lets it go, and the words for both."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from vault.errors import Shredded
from vault.ids import CertificateId, HoldId, RecordingId, TenantId
from vault.model import (
    Codec,
    Cohort,
    Container,
    Coordinate,
    Hold,
    HoldKind,
    HoldState,
    Media,
    Part,
    Recording,
    RecordingState,
)
from vault.retention.decide import Due, Held, NotDue, decide, decide_erasure, explain, in_force, in_grace

DUE_AT = datetime(2026, 5, 30, 9, 30, tzinfo=UTC)
BEFORE = DUE_AT - timedelta(microseconds=1)
AFTER = DUE_AT + timedelta(days=3)
TENANT = TenantId("oakfield")


def coordinate(part: Part) -> Coordinate:
    return Coordinate(cohort=Cohort(tenant=TENANT, part=part, period=20603, generation=0), leaf=7)


RECORDING = Recording(
    id=RecordingId("rec_" + "1" * 32),
    tenant=TENANT,
    call_token="call-1",
    state=RecordingState.SEALED,
    state_reason=None,
    audio=coordinate(Part.AUDIO),
    metadata=coordinate(Part.METADATA),
    media=Media(container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=1),
    created_at=DUE_AT - timedelta(days=90),
    started_at=DUE_AT - timedelta(days=90),
    ended_at=DUE_AT - timedelta(days=89),
    retain_until=DUE_AT,
    retention_class="recording",
    stored_bytes=8000,
    sealed_facts=b"",
)


def hold(
    number: int = 1,
    *,
    kind: HoldKind = HoldKind.LEGAL,
    state: HoldState = HoldState.ACTIVE,
    grace_until: datetime | None = None,
) -> Hold:
    return Hold(
        id=HoldId(f"hold_{number:032x}"),
        tenant=TENANT,
        kind=kind,
        matter=f"MATTER-{number}",
        reason="Jane Example's claim",
        authority="counsel",
        owner="compliance",
        state=state,
        created_at=DUE_AT - timedelta(days=1),
        review_at=DUE_AT + timedelta(days=365),
        recordings=(RECORDING.id,),
        released_at=DUE_AT if state is HoldState.RELEASED else None,
        grace_until=grace_until,
    )


def in_state(state: RecordingState) -> Recording:
    return replace(RECORDING, state=state)


def test_a_recording_is_due_from_the_very_instant_of_its_retain_until() -> None:
    assert decide(RECORDING, [], now=BEFORE) == NotDue(retain_until=DUE_AT)
    assert decide(RECORDING, [], now=DUE_AT) == Due(since=DUE_AT)
    assert decide(in_state(RecordingState.TRUNCATED), [], now=AFTER) == Due(since=DUE_AT)


@pytest.mark.parametrize("kind", HoldKind)
@pytest.mark.parametrize("state", [HoldState.PLACING, HoldState.ACTIVE, HoldState.RELEASE_REQUESTED])
@pytest.mark.parametrize("now", [BEFORE, AFTER, AFTER + timedelta(days=40_000)])
def test_a_hold_of_any_kind_outranks_an_elapsed_retain_until(kind: HoldKind, state: HoldState, now: datetime) -> None:
    placed = hold(kind=kind, state=state)
    assert decide(RECORDING, [placed], now=now) == Held(holds=(placed.id,))


def test_hold_placed_after_expiry_still_blocks_shredding() -> None:
    late = replace(hold(), created_at=AFTER)
    assert decide(RECORDING, [late], now=AFTER) == Held(holds=(late.id,))


def test_an_erasure_needs_no_date_but_every_hold_and_grace_to_be_over() -> None:
    grace = hold(2, state=HoldState.RELEASED, grace_until=AFTER)
    assert decide_erasure(RECORDING, [], now=BEFORE) == Due(since=BEFORE)
    assert decide_erasure(RECORDING, [hold(), grace], now=BEFORE) == Held(holds=(hold().id, grace.id))
    assert decide_erasure(RECORDING, [grace], now=BEFORE) == Held(holds=(grace.id,), grace_until=AFTER)
    assert decide_erasure(RECORDING, [grace], now=AFTER) == Due(since=AFTER)
    for state in (RecordingState.TRUNCATED, RecordingState.SHREDDED):
        assert decide_erasure(in_state(state), [], now=BEFORE) == Due(since=BEFORE)
    live = decide_erasure(in_state(RecordingState.OPEN), [], now=BEFORE)
    assert live == NotDue(retain_until=DUE_AT, recording=True)
    assert isinstance(decide_erasure(in_state(RecordingState.OPEN), [hold()], now=BEFORE), Held)


def test_an_overdue_review_does_not_release_a_hold() -> None:
    overdue = replace(hold(), review_at=DUE_AT)
    assert isinstance(decide(RECORDING, [overdue], now=AFTER), Held)


def test_releasing_one_hold_leaves_the_others_in_force() -> None:
    released, other = hold(1, state=HoldState.RELEASED), hold(2)
    assert decide(RECORDING, [released, other], now=AFTER) == Held(holds=(other.id,))


def test_the_strongest_kind_of_hold_is_named_first() -> None:
    kinds = [HoldKind.CLIENT_REQUEST, HoldKind.SAFEGUARDING, HoldKind.REGULATORY, HoldKind.LEGAL]
    holds = [hold(number, kind=kind) for number, kind in enumerate(kinds, 1)]
    assert decide(RECORDING, holds, now=AFTER) == Held(holds=tuple(h.id for h in reversed(holds)))


def test_a_released_hold_keeps_what_became_overdue_until_the_grace_ends() -> None:
    grace = AFTER + timedelta(days=14)
    released = hold(state=HoldState.RELEASED, grace_until=grace)
    assert decide(RECORDING, [released], now=AFTER) == Held(holds=(released.id,), grace_until=grace)
    assert decide(RECORDING, [released], now=grace) == Due(since=DUE_AT)


def test_the_longest_grace_wins() -> None:
    graces = [AFTER + timedelta(days=days) for days in (1, 14, 7)]
    holds = [hold(n, state=HoldState.RELEASED, grace_until=grace) for n, grace in enumerate(graces)]
    decision = decide(RECORDING, holds, now=AFTER)
    assert isinstance(decision, Held)
    assert decision.grace_until == graces[1]


def test_a_release_never_restarts_the_clock() -> None:
    released = hold(state=HoldState.RELEASED, grace_until=AFTER)
    assert decide(RECORDING, [released], now=BEFORE) == NotDue(retain_until=DUE_AT)
    assert decide(RECORDING, [released], now=AFTER) == Due(since=DUE_AT)
    assert decide(RECORDING, [hold(state=HoldState.RELEASED)], now=DUE_AT) == Due(since=DUE_AT)


def test_a_call_still_being_recorded_is_never_due() -> None:
    live = in_state(RecordingState.OPEN)
    assert decide(live, [], now=AFTER) == NotDue(retain_until=DUE_AT, recording=True)
    assert isinstance(decide(live, [hold()], now=AFTER), Held)


def test_a_decided_shred_is_not_recalled_by_a_clock_stepped_back_but_by_a_hold() -> None:
    shredding = in_state(RecordingState.SHREDDING)
    assert decide(shredding, [], now=BEFORE) == Due(since=DUE_AT)
    assert isinstance(decide(shredding, [hold()], now=AFTER), Held)


def test_there_is_nothing_to_decide_about_what_is_gone() -> None:
    certificate = CertificateId("cert_" + "2" * 32)
    gone = replace(RECORDING, state=RecordingState.SHREDDED, certificate_id=certificate)
    with pytest.raises(Shredded) as caught:
        decide(gone, [hold()], now=AFTER)
    assert caught.value.facts == {"certificate_id": certificate}
    with pytest.raises(Shredded):
        decide(in_state(RecordingState.SHREDDED), [], now=AFTER)


def effects(recording: Recording, holds: list[Hold], now: datetime) -> list[tuple[str, str]]:
    return [(line.rule, line.effect) for line in explain(recording, holds, now=now)]


def test_why_kept_lists_every_rule_in_order_of_precedence() -> None:
    holds = [hold(1, kind=HoldKind.CLIENT_REQUEST), hold(2, state=HoldState.RELEASED), hold(3, kind=HoldKind.LEGAL)]
    assert effects(RECORDING, holds, AFTER) == [
        ("legal_hold", "none"),
        ("legal_hold", "keeps"),
        ("client_request_hold", "keeps"),
        ("state", "none"),
        ("retention", "deletes"),
        ("decision", "keeps"),
    ]


def test_why_kept_names_hold_and_matter_but_not_the_reason_that_may_name_people() -> None:
    text = json.dumps([line.as_json() for line in explain(RECORDING, [hold()], now=AFTER)])
    assert "MATTER-1" in text
    assert hold().id in text
    assert "Jane" not in text


def test_why_deleted_points_to_the_certificate() -> None:
    certificate = CertificateId("cert_" + "2" * 32)
    gone = replace(RECORDING, state=RecordingState.SHREDDED, certificate_id=certificate)
    lines = explain(gone, [hold(state=HoldState.RELEASED)], now=AFTER)
    assert lines[-1].certificate == certificate
    assert lines[-1].effect == "deletes"
    assert all(line.effect != "keeps" for line in lines)


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
    decision = decide(in_state(state), holds, now=now)
    lines = explain(in_state(state), holds, now=now)
    assert lines[-1].rule == "decision"
    assert lines[-1].effect == ("deletes" if isinstance(decision, Due) else "keeps")
    keeping = tuple(line.hold for line in lines if line.effect == "keeps" and line.hold)
    assert keeping == (decision.holds if isinstance(decision, Held) else ())


def test_force_and_grace_never_overlap() -> None:
    for state in HoldState:
        item = hold(state=state, grace_until=AFTER)
        assert in_force(item) == (state is not HoldState.RELEASED)
        assert in_grace(item, now=BEFORE) == (state is HoldState.RELEASED)
