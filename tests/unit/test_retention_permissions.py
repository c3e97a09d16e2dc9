"""The roles table, written down a second time row by row."""

from __future__ import annotations

import pytest

from vault.access.permissions import PERMISSIONS, Act, permits, permits_in
from vault.ids import TenantId, TokenId
from vault.model import Principal, Role

SEE = "recording_list recording_show recording_why"
TABLE = {
    Role.RECORDER: "ingest flag_live hold_own",
    Role.AGENT: f"{SEE} facts_read play pause flag",
    Role.SAFEGUARDING_LEAD: f"{SEE} facts_read play play_held pause flag hold_list hold_place hold_review "
    "hold_release_request hold_release_approve erasure_read erasure_request erasure_decide certificate_read "
    "audit_read_held policy_read policy_decide",
    Role.COMPLIANCE: f"{SEE} facts_read play play_held pause flag hold_list hold_place hold_review "
    "hold_release_request hold_release_approve erasure_read erasure_request erasure_decide certificate_read "
    "audit_read sweep_read tenant_read policy_read policy_decide",
    Role.DPO: f"{SEE} facts_read play play_held hold_list hold_release_request hold_release_approve "
    "erasure_read erasure_request erasure_decide certificate_read audit_read sweep_read sweep_override tenant_read "
    "tenant_offboard policy_read policy_decide",
    Role.OPERATOR: f"{SEE} hold_list certificate_read audit_read sweep_read sweep_run sweep_override tenant_read "
    "tenant_admin tenant_offboard policy_read token_admin keys_read keys_rotate",
    Role.AUDITOR: f"{SEE} hold_list erasure_read certificate_read audit_read sweep_read tenant_read policy_read",
}


@pytest.mark.parametrize("role", Role)
def test_a_role_may_do_exactly_what_its_row_says(role: Role) -> None:
    assert {act.value for act in Act if permits(role, act)} == set(TABLE[role].split())


def test_every_role_has_a_row_and_every_act_someone_who_may() -> None:
    assert set(PERMISSIONS) == set(Role)
    assert frozenset().union(*PERMISSIONS.values()) == set(Act)


@pytest.mark.parametrize("role", [Role.RECORDER, Role.OPERATOR, Role.AUDITOR])
def test_recorder_operator_and_auditor_never_hear_or_see_a_caller(role: Role) -> None:
    assert not {act for act in (Act.PLAY, Act.PLAY_HELD, Act.FACTS_READ) if permits(role, act)}


def test_an_auditor_reads_rows_trail_and_certificates_and_hears_sees_and_changes_nothing() -> None:
    may = {act for act in Act if permits(Role.AUDITOR, act)}
    assert {Act.RECORDING_LIST, Act.RECORDING_SHOW, Act.AUDIT_READ, Act.CERTIFICATE_READ} <= may
    looks = {act for act in Act if act.value.endswith(("_read", "_list", "_show", "_why"))}
    assert may <= looks - {Act.FACTS_READ}


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.RECORDER])
def test_only_a_recorder_writes_recordings(role: Role) -> None:
    assert not permits(role, Act.INGEST)


def test_nobody_who_runs_sweeps_may_touch_holds() -> None:
    for role in Role:
        runs = permits(role, Act.SWEEP_RUN)
        touches = (Act.HOLD_PLACE, Act.HOLD_REVIEW, Act.HOLD_RELEASE_REQUEST, Act.HOLD_RELEASE_APPROVE)
        assert not (runs and any(permits(role, act) for act in touches))


def test_only_an_operator_lifts_a_guard_for_everybody() -> None:
    for role in Role:
        bound = principal(role, "oakfield")
        assert not permits_in(bound, Act.SWEEP_OVERRIDE, None)
        assert not permits_in(bound, Act.SWEEP_OVERRIDE, TenantId("elmtree"))
        mine = permits_in(bound, Act.SWEEP_OVERRIDE, TenantId("oakfield"))
        assert mine == (role in {Role.DPO, Role.OPERATOR})


def principal(role: Role, tenant: str | None) -> Principal:
    return Principal(
        token_id=TokenId("tok_1"), name="t", role=role, tenant=None if tenant is None else TenantId(tenant)
    )


def test_a_bound_credential_never_leaves_its_tenant() -> None:
    agent = principal(Role.AGENT, "oakfield")
    assert permits_in(agent, Act.PLAY, TenantId("oakfield"))
    assert not permits_in(agent, Act.PLAY, TenantId("elmtree"))
    assert not permits_in(agent, Act.RECORDING_LIST, None)
    assert not permits_in(agent, Act.KEYS_READ, TenantId("oakfield"))


def test_the_operator_reaches_every_tenant_and_the_vault_but_never_audio() -> None:
    operator = principal(Role.OPERATOR, None)
    assert permits_in(operator, Act.TENANT_ADMIN, TenantId("oakfield"))
    assert permits_in(operator, Act.SWEEP_RUN, None)
    assert not permits_in(operator, Act.PLAY, TenantId("oakfield"))


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.OPERATOR])
def test_any_other_role_without_a_tenant_may_do_nothing(role: Role) -> None:
    adrift = principal(role, None)
    assert not any(permits_in(adrift, act, tenant) for act in Act for tenant in (None, TenantId("oakfield")))
