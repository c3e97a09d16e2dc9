"""A trial vault that is ready to record: a tenant, a recorder, and two people who decide together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vault.config import Config
from vault.model import Role
from vault.ports.time import Clock
from vault.wiring.adapters import SystemClock
from vault.wiring.init import init_vault
from vault.wiring.open import open_vault

TENANT: Final = "northfield-college"
"""The tenant of every example in the documentation."""


async def make_trial(config: Config, *, clock: Clock | None = None) -> Mapping[str, str]:
    """Create a trial vault with a tenant, and return the text of its tokens by the names of their holders.

    Two operators, whose tokens no other token issued, issue those of compliance and of the dpo, who decide together.
    Errors are those of `init_vault`. A crash leaves some of this undone; the caller then removes the vault.
    """
    clock = clock or SystemClock()
    made = await init_vault(config, trial=True, clock=clock)
    async with open_vault(config, clock=clock, background=False) as vault:
        access = vault.access
        first = await access.authenticate(made.operator_token)
        _, other_token = await access.issue(name="second operator", role=Role.OPERATOR, tenant=None, actor=None)
        second = await access.authenticate(other_token)
        tenant = await vault.tenants.add(
            identifier=TENANT,
            name="Northfield College",
            controller="Northfield College Corporation",
            contact="dpo@northfield.example",
            retention=None,
            actor=first,
        )
        tokens = {"operator": made.operator_token, "second-operator": other_token}
        people = ((Role.RECORDER, first), (Role.COMPLIANCE, first), (Role.DPO, second))
        for role, issuer in people:
            name = f"{role.value} of the trial"
            _, tokens[role.value] = await access.issue(name=name, role=role, tenant=tenant.id, actor=issuer)
    return tokens
