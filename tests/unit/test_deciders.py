"""Who decides together, written down a second time: every pair of roles of every decision."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from vault.access.permissions import Act, permits
from vault.access.two_people import PAIRS, RELEASE_OF, AskedSinceError, Decider, Deciders, Decision, check_two
from vault.errors import Forbidden
from vault.ids import TenantId, TokenId
from vault.model import HoldKind, Role

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


def person(name: str, role: Role, tenant: TenantId = OURS, *above: str) -> Decider:
    lineage = (name, *(above or () if role is Role.OPERATOR else above or (f"issuer of {name}",)))
    return Decider(
        token=TokenId(name),
        role=role,
        tenant=None if role is Role.OPERATOR else tenant,
        lineage=tuple(TokenId(each) for each in lineage),
    )


def decides(decision: Decision, one: Decider | None, other: Decider | None) -> str | None:
    """Return why the two do not decide, None if they do."""
    two = Deciders(asked_by="ann" if one is None else one.token, asker=one, approver=other)
    try:
        check_two(decision, two, asked_by=two.asked_by, tenant=OURS)
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


def test_no_token_that_decides_was_brought_about_by_what_brought_about_the_other() -> None:
    for decision, pairs in PAIRS.items():
        for first, second in pairs:
            one, other = person("ann", first, OURS, "a", "root"), person("bob", second, OURS, "b", "other root")
            assert decides(decision, one, other) is None
            for below in (
                person("bob", second, OURS, "b", "ann", "a", "root"),
                person("bob", second, OURS, "a", "root"),
                person("bob", second, OURS, "b", "c", "root"),
            ):
                for pair in ((one, below), (below, one)):
                    assert "one person may hold both" in str(decides(decision, *pair)), (decision, pair)
            for pair in ((one, replace(other, lineage=None)), (replace(one, lineage=None), other)):
                assert "who issued" in str(decides(decision, *pair))


def test_a_revoked_token_neither_approves_nor_has_what_it_asked_for_approved() -> None:
    for decision, pairs in PAIRS.items():
        for first, second in pairs:
            one, other = person("ann", first), person("bob", second)
            assert "revoked" in str(decides(decision, replace(one, revoked=True), other))
            assert "revoked" in str(decides(decision, one, replace(other, revoked=True)))


def test_what_somebody_unknown_asked_for_is_approved_by_nobody() -> None:
    assert "no longer known" in str(decides(Decision.ERASURE, None, person("bob", Role.DPO)))
    assert "no longer known" in str(decides(Decision.ERASURE, person("ann", Role.COMPLIANCE), None))


def test_a_look_at_another_one_who_asked_decides_nothing() -> None:
    two = Deciders(asked_by="old", asker=None, approver=person("bob", Role.DPO))
    with pytest.raises(AskedSinceError):
        check_two(Decision.ERASURE, two, asked_by="new", tenant=OURS)


def test_every_kind_of_hold_has_deciders() -> None:
    assert set(RELEASE_OF) == set(HoldKind)
    assert set(PAIRS) == set(Decision)
