"""Which two people decide together: a table of roles, and one rule that every decision of two people asks.

Until people are known by more than their tokens, two tokens stand for two people only if no token stands above both in
the chain of who issued whom: whoever issues tokens could be everybody below. Each chain begins with an operator's token
that whoever owns the vault's files issued.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vault.errors import Forbidden
from vault.ids import TenantId, TokenId
from vault.model import HoldKind, Role


class Decision(enum.StrEnum):
    """What two people decide about."""

    RELEASE = "the release of a hold"
    SAFEGUARDING_RELEASE = "the release of a safeguarding hold"
    ERASURE = "an erasure"
    POLICY = "a change of existing calls"
    OFFBOARDING = "the end of a contract"
    TENANT_OVERRIDE = "what goes early of a tenant"
    CLOCK_OVERRIDE = "what the clock says"


Pair = tuple[Role, Role]
PAIRS: Final[Mapping[Decision, tuple[Pair, ...]]] = {
    Decision.RELEASE: ((Role.DPO, Role.COMPLIANCE),),
    Decision.SAFEGUARDING_RELEASE: (
        (Role.DPO, Role.SAFEGUARDING_LEAD),
        (Role.SAFEGUARDING_LEAD, Role.SAFEGUARDING_LEAD),
    ),
    Decision.ERASURE: ((Role.DPO, Role.COMPLIANCE), (Role.DPO, Role.SAFEGUARDING_LEAD)),
    Decision.POLICY: ((Role.DPO, Role.COMPLIANCE), (Role.DPO, Role.SAFEGUARDING_LEAD)),
    Decision.OFFBOARDING: ((Role.DPO, Role.OPERATOR),),
    Decision.TENANT_OVERRIDE: ((Role.DPO, Role.OPERATOR),),
    Decision.CLOCK_OVERRIDE: ((Role.OPERATOR, Role.OPERATOR),),
}
"""Which roles two people have, in either order. Anything not written here does not decide."""

RELEASE_OF: Final[Mapping[HoldKind, Decision]] = {
    HoldKind.LEGAL: Decision.RELEASE,
    HoldKind.REGULATORY: Decision.RELEASE,
    HoldKind.CLIENT_REQUEST: Decision.RELEASE,
    HoldKind.SAFEGUARDING: Decision.SAFEGUARDING_RELEASE,
}

_NAMES: Final[Mapping[Role, str]] = {
    Role.DPO: "the tenant's dpo",
    Role.COMPLIANCE: "compliance",
    Role.SAFEGUARDING_LEAD: "a safeguarding lead",
    Role.OPERATOR: "an operator",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """One of the two: its token, what it may do and for whom.

    `lineage` is the token itself, the one that issued it, the one that issued that, up to an operator's that no token
    issued; None if it cannot be followed so far.
    """

    token: TokenId
    role: Role
    tenant: TenantId | None
    lineage: tuple[TokenId, ...] | None
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Deciders:
    """Which token asked, who that is, and who approves; None for whoever is not known."""

    asked_by: str | None
    asker: Decider | None
    approver: Decider | None


class AskedSinceError(Exception):
    """Somebody else asked between the look at who did and the decision: look again."""


def check_two(decision: Decision, two: Deciders, *, asked_by: str | None, tenant: TenantId | None) -> None:
    """Raise Forbidden unless these are the two who decide this of `tenant`.

    Nobody approves what was asked for by who is not known. AskedSinceError if it was not `two.asked_by` that asked.
    """
    if two.asked_by != asked_by:
        raise AskedSinceError
    asker, approver = two.asker, two.approver
    if asker is None or approver is None:
        raise Forbidden(
            f"who asked for {decision.value} is not known any more", hint="reject it, and let somebody ask again"
        )
    if asker.revoked:
        raise Forbidden(
            f"the token that asked for {decision.value} has been revoked since",
            hint="reject it, and let somebody ask again",
        )
    if approver.revoked:
        raise Forbidden("this token has been revoked", hint="approve with one that is in force")
    if asker.token == approver.token:
        raise Forbidden(
            f"the person who asked for {decision.value} cannot approve it",
            hint=f"{_who(decision, approver.role)} approves with their own token",
        )
    strangers = [each for each in (asker, approver) if each.role is not Role.OPERATOR and each.tenant != tenant]
    pairs = {frozenset(pair) for pair in PAIRS[decision]}
    if strangers or frozenset({asker.role, approver.role}) not in pairs:
        raise Forbidden(
            f"{decision.value} is decided by {_pairs(decision)}",
            hint=f"{_who(decision, asker.role)} approves with their own token",
        )
    _check_apart(asker, approver)


def _check_apart(one: Decider, other: Decider) -> None:
    hint = "an operator issued with `callvault tokens issue --role operator --config FILE` issues one of the two anew"
    for each in (one, other):
        if each.lineage is None:
            raise Forbidden(f"who issued {each.token} is not known, so one person may hold both tokens", hint=hint)
    above = next((each for each in one.lineage or () if each in (other.lineage or ())), None)
    if above in (one.token, other.token):
        raise Forbidden("one of the two tokens descends from the other, so one person may hold both", hint=hint)
    if above is not None:
        raise Forbidden(f"both tokens descend from {above}, so one person may hold both", hint=hint)


def _who(decision: Decision, asked: Role) -> str:
    """Say who decides together with one of this role; anybody of the table if such a one does not decide at all."""
    others = [_NAMES[pair[1] if pair[0] is asked else pair[0]] for pair in PAIRS[decision] if asked in pair]
    return " or ".join(dict.fromkeys(others)) if others else _pairs(decision)


def _pairs(decision: Decision) -> str:
    """Say which two decide: who is in every pair first."""
    if len(set(PAIRS[decision][0])) == 1 and len(PAIRS[decision]) == 1:
        return "two operators"
    first = next(role for role in PAIRS[decision][-1] if all(role in pair for pair in PAIRS[decision]))
    others = [pair[1] if pair[0] is first else pair[0] for pair in PAIRS[decision]]
    names = ["a second one" if role is first else _NAMES[role] for role in others]
    return f"{_NAMES[first]} and {' or '.join(names)}"
