"""Which two people decide together: a table of roles, and one rule that every decision of two people asks.

Until people are known by more than their tokens, two tokens stand for two people. Where an operator takes part, neither
may have been made by the other, nor both by one and the same: whoever issues tokens could be both.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vault.errors import Forbidden
from vault.ids import TenantId, TokenId
from vault.model import HoldKind, Principal, Role, Token


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

_APART: Final = frozenset(each for each, pairs in PAIRS.items() if any(Role.OPERATOR in pair for pair in pairs))
_NAMES: Final[Mapping[Role, str]] = {
    Role.DPO: "the tenant's dpo",
    Role.COMPLIANCE: "compliance",
    Role.SAFEGUARDING_LEAD: "a safeguarding lead",
    Role.OPERATOR: "an operator",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """One of the two: its token, what it may do and for whom, and the token that issued it, if a token did."""

    token: TokenId
    role: Role
    tenant: TenantId | None
    issued_by: TokenId | None = None

    @classmethod
    def of(cls, token: Token) -> Decider:
        """Return the decider that a stored token stands for."""
        return cls(token=token.id, role=token.role, tenant=token.tenant, issued_by=token.issued_by)

    @classmethod
    def acting(cls, actor: Principal) -> Decider:
        """Return the decider that acts now."""
        return cls(token=actor.token_id, role=actor.role, tenant=actor.tenant, issued_by=actor.issued_by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Which token asked, and who it stands for; None if that is not known."""

    token: str | None
    decider: Decider | None


class AskedSinceError(Exception):
    """Somebody else asked between the look at who did and the decision: look again."""


def check_two(
    decision: Decision, *, asked_by: str | None, asker: Asker, approves: Principal, tenant: TenantId | None
) -> None:
    """Raise Forbidden unless the one who asked and the one who approves are the two who decide this of `tenant`.

    Nobody approves what was asked for by who is not known. AskedSinceError if `asker` is not the one that asked.
    """
    if asker.token != asked_by:
        raise AskedSinceError
    asked, other = asker.decider, Decider.acting(approves)
    if asked_by == approves.token_id:
        raise Forbidden(
            f"the person who asked for {decision.value} cannot approve it",
            hint=f"{_who(decision, approves.role)} approves with their own token",
        )
    if asked is None:
        raise Forbidden(
            f"who asked for {decision.value} is not known any more", hint="reject it, and let somebody ask again"
        )
    strangers = [each for each in (asked, other) if each.role is not Role.OPERATOR and each.tenant != tenant]
    pairs = {frozenset(pair) for pair in PAIRS[decision]}
    if strangers or frozenset({asked.role, approves.role}) not in pairs:
        raise Forbidden(
            f"{decision.value} is decided by {_pairs(decision)}",
            hint=f"{_who(decision, asked.role)} approves with their own token",
        )
    if decision in _APART:
        _check_apart(asked, other)


def _check_apart(one: Decider, other: Decider) -> None:
    hint = "another operator issues one of the two tokens, or decides"
    if one.issued_by == other.token or other.issued_by == one.token:
        raise Forbidden("one of the two tokens was issued by the other, so one person may hold both", hint=hint)
    if one.issued_by is not None and one.issued_by == other.issued_by:
        raise Forbidden("both tokens were issued by the same one, so one person may hold both", hint=hint)


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
