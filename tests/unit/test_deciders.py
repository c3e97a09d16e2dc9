"""Who decides together, written down a second time: every pair of roles of every decision."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from vault.errors import Forbidden
from vault.ids import TenantId, TokenId
from vault.model import HoldKind, Principal, Role
from vault.protocol.deciders import PAIRS, RELEASE_OF, AskedSinceError, Asker, Decider, Decision, check_two
from vault.protocol.permissions import Act, permits

OURS, THEIRS = TenantId("oakfield"), TenantId("elmtree")
TABLE = {
    Decision.RELEASE: {"dpo compliance"},
    Decision.SAFEGUARDING_RELEASE: {"safeguarding_lead safeguarding_lead", "dpo safeguarding_lead"},
    Decision.ERASURE: {"dpo compliance", "dpo safeguarding_lead"},
    Decision.POLICY: {"dpo compliance", "dpo safeguarding_lead"},
    Decision.OFFBOARDING: {"dpo operator"},
    Decision.TENANT_OVERRIDE: {"dpo operator"},
    Decision.CLOCK_OVERRIDE: {"operator operator"},
}
ASKS = {
    Decision.RELEASE: (Act.HOLD_RELEASE_REQUEST, Act.HOLD_RELEASE_APPROVE),
    Decision.SAFEGUARDING_RELEASE: (Act.HOLD_RELEASE_REQUEST, Act.HOLD_RELEASE_APPROVE),
    Decision.ERASURE: (Act.ERASURE_REQUEST, Act.ERASURE_DECIDE),
    Decision.POLICY: (Act.POLICY_DECIDE, Act.POLICY_DECIDE),
    Decision.OFFBOARDING: (Act.TENANT_OFFBOARD, Act.TENANT_OFFBOARD),
    Decision.TENANT_OVERRIDE: (Act.SWEEP_OVERRIDE, Act.SWEEP_OVERRIDE),
    Decision.CLOCK_OVERRIDE: (Act.SWEEP_OVERRIDE, Act.SWEEP_OVERRIDE),
}


def person(name: str, role: Role, tenant: TenantId = OURS, issued_by: str | None = None) -> Principal:
    return Principal(
        token_id=TokenId(f"tok_{name}"),
        name=name,
        role=role,
        tenant=None if role is Role.OPERATOR else tenant,
        issued_by=None if issued_by is None else TokenId(issued_by),
    )


def decides(decision: Decision, one: Principal, other: Principal) -> str | None:
    """Return why the two do not decide, None if they do."""
    try:
        check_two(
            decision,
            asked_by=one.token_id,
            asker=Asker(token=one.token_id, decider=Decider.acting(one)),
            approves=other,
            tenant=OURS,
        )
    except Forbidden as refused:
        return f"{refused.message}; {refused.hint}"
    return None


def test_two_people_decide_in_exactly_the_roles_of_the_table_whoever_asks() -> None:
    for decision, one, other in product(Decision, Role, Role):
        allowed = {f"{one} {other}", f"{other} {one}"} & TABLE[decision]
        said = decides(decision, person("ann", one), person("bob", other))
        assert (said is None) == bool(allowed), (decision, one, other, said)


def test_whoever_decides_something_may_ask_for_it_and_approve_it() -> None:
    for decision, pairs in PAIRS.items():
        assert all(permits(role, act) for pair in pairs for role in pair for act in ASKS[decision]), decision


def test_nobody_approves_what_they_asked_for_nor_for_another_tenant() -> None:
    for decision, pairs in PAIRS.items():
        for first, second in pairs:
            one, other = person("ann", first), person("bob", second)
            assert decides(decision, one, replace(one, role=second, tenant=other.tenant)) is not None
            if second is not Role.OPERATOR:
                assert decides(decision, one, person("bob", second, THEIRS)) is not None
            if first is not Role.OPERATOR:
                assert decides(decision, person("ann", first, THEIRS), other) is not None


@pytest.mark.parametrize(
    ("decision", "asked", "approves", "words"),
    [
        (Decision.OFFBOARDING, Role.OPERATOR, Role.OPERATOR, ("the tenant's dpo approves",)),
        (Decision.OFFBOARDING, Role.DPO, Role.DPO, ("an operator approves",)),
        (Decision.ERASURE, Role.COMPLIANCE, Role.COMPLIANCE, ("the tenant's dpo approves",)),
        (Decision.ERASURE, Role.DPO, Role.DPO, ("compliance or a safeguarding lead approves",)),
        (Decision.SAFEGUARDING_RELEASE, Role.SAFEGUARDING_LEAD, Role.COMPLIANCE, ("a safeguarding lead",)),
        (Decision.CLOCK_OVERRIDE, Role.OPERATOR, Role.DPO, ("decided by two operators", "an operator approves")),
    ],
)
def test_a_refusal_names_who_is_missing(
    decision: Decision, asked: Role, approves: Role, words: tuple[str, ...]
) -> None:
    said = decides(decision, person("ann", asked), person("bob", approves))
    assert said is not None
    assert all(each in said for each in words), said


def test_with_an_operator_neither_token_was_made_by_the_other_nor_both_by_one() -> None:
    operator, dpo = person("op", Role.OPERATOR), person("dpo", Role.DPO)
    for decision, second in (
        (Decision.OFFBOARDING, dpo),
        (Decision.TENANT_OVERRIDE, dpo),
        (Decision.CLOCK_OVERRIDE, person("second", Role.OPERATOR)),
    ):
        made = replace(second, issued_by=operator.token_id)
        assert "issued by the other" in str(decides(decision, operator, made))
        assert "issued by the other" in str(decides(decision, made, operator))
        both = [replace(each, issued_by=TokenId("tok_root")) for each in (operator, second)]
        assert "issued by the same" in str(decides(decision, *both))
        assert decides(decision, operator, replace(second, issued_by=TokenId("tok_other"))) is None


def test_what_somebody_unknown_asked_for_is_approved_by_nobody() -> None:
    with pytest.raises(Forbidden, match="not known"):
        check_two(
            Decision.ERASURE,
            asked_by="tok_gone",
            asker=Asker(token="tok_gone", decider=None),
            approves=person("bob", Role.DPO),
            tenant=OURS,
        )


def test_a_look_at_another_one_who_asked_decides_nothing() -> None:
    with pytest.raises(AskedSinceError):
        check_two(
            Decision.ERASURE,
            asked_by="tok_new",
            asker=Asker(token="tok_old", decider=None),
            approves=person("bob", Role.DPO),
            tenant=OURS,
        )


def test_every_kind_of_hold_has_deciders() -> None:
    assert set(RELEASE_OF) == set(HoldKind)
    assert set(PAIRS) == set(Decision)
