"""Which two people decide together, and the digest of the document that they were shown.

People are known only by their tokens. Whoever issued a token may also use it, so two tokens count as two people only if
neither descends from the other and no third token issued both, directly or through others. Each chain of issuers begins
with an operator's token that was issued with the configuration file.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import rfc8785

from vault.errors import ChangedSince, Forbidden, Invalid
from vault.ids import TenantId, TokenId
from vault.model import HoldKind, Role

# -- the digest of what an approver was shown ---------------------------------------------------------------------


def shown_digest(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 in hex of the document's RFC 8785 form, without its member `shown`.

    The document states what the decision rests on: who requested it, and what it would delete. It holds nothing that
    changes by itself, such as an age.
    """
    return hashlib.sha256(
        rfc8785.dumps({name: value for name, value in document.items() if name != "shown"})
    ).hexdigest()


def check_shown(stated: str | None, document: Mapping[str, Any]) -> None:
    """Raise ChangedSince unless `stated` is the digest of the document as it is now; Invalid if it is None."""
    if stated is None:
        raise Invalid(
            "an approval states the `shown` digest of the request",
            hint="read the request first, and send its member `shown`",
        )
    if stated != shown_digest(document):
        raise ChangedSince(
            "the request is not the one that was shown: it has changed since, or `shown` is of another request",
            hint="read the request again, and decide about its present content",
        )


# -- which two people decide --------------------------------------------------------------------------------------


class Decision(enum.StrEnum):
    """What two people decide about."""

    RELEASE = "the release of a hold"
    SAFEGUARDING_RELEASE = "the release of a safeguarding hold"
    ERASURE = "an erasure"
    POLICY = "a change of existing calls"
    OFFBOARDING = "the end of a contract"
    TENANT_OVERRIDE = "an override of a tenant's guard"
    CLOCK_OVERRIDE = "an override of the clock guard"


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
"""The pairs of roles that may decide, in either order. Other pairs may not."""

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
    """One of the two people, as known by their token.

    `lineage` is the token, its issuer, the issuer's issuer and so on, up to an operator's token that no token issued;
    None if the chain is broken.
    """

    token: TokenId
    role: Role
    tenant: TenantId | None
    lineage: tuple[TokenId, ...] | None
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Deciders:
    """The token that made the request, the person behind it, and the approver; None for an unknown one."""

    asked_by: str | None
    asker: Decider | None
    approver: Decider | None


class AskedSinceError(Exception):
    """Another token made the request since it was read: read it again."""


def check_two(decision: Decision, two: Deciders, *, asked_by: str | None, tenant: TenantId | None) -> None:
    """Raise Forbidden unless these two may make this decision for `tenant`.

    A request whose requester is unknown cannot be approved. Raises AskedSinceError if `asked_by` is not `two.asked_by`.
    """
    if two.asked_by != asked_by:
        raise AskedSinceError
    asker, approver = two.asker, two.approver
    if asker is None or approver is None:
        raise Forbidden(f"the requester of {decision.value} is no longer known", hint="reject it, and request it again")
    if asker.revoked:
        raise Forbidden(
            f"the token that asked for {decision.value} has been revoked since",
            hint="reject it, and request it again",
        )
    if approver.revoked:
        raise Forbidden("this token has been revoked", hint="approve with one that is in force")
    if asker.token == approver.token:
        raise Forbidden(
            f"the person who asked for {decision.value} cannot approve it",
            hint=f"{_who(decision, approver.role)} approves with their own token; you may withdraw it: reject it",
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
    hint = (
        "issue one of the two again with an operator's token that "
        "`callvault tokens issue --role operator --config FILE` made"
    )
    for each in (one, other):
        if each.lineage is None:
            raise Forbidden(f"who issued {each.token} is not known, so one person may hold both tokens", hint=hint)
    above = next((each for each in one.lineage or () if each in (other.lineage or ())), None)
    if above in (one.token, other.token):
        raise Forbidden("one of the two tokens descends from the other, so one person may hold both", hint=hint)
    if above is not None:
        raise Forbidden(f"both tokens descend from {above}, so one person may hold both", hint=hint)


def _who(decision: Decision, asked: Role) -> str:
    """Return in words the roles that may decide together with the role `asked`; all pairs if it may not decide."""
    others = [_NAMES[pair[1] if pair[0] is asked else pair[0]] for pair in PAIRS[decision] if asked in pair]
    return " or ".join(dict.fromkeys(others)) if others else _pairs(decision)


def _pairs(decision: Decision) -> str:
    """Return the pairs that decide, in words; the role that is in every pair comes first."""
    if len(set(PAIRS[decision][0])) == 1 and len(PAIRS[decision]) == 1:
        return "two operators"
    first = next(role for role in PAIRS[decision][-1] if all(role in pair for pair in PAIRS[decision]))
    others = [pair[1] if pair[0] is first else pair[0] for pair in PAIRS[decision]]
    names = ["a second one" if role is first else _NAMES[role] for role in others]
    return f"{_NAMES[first]} and {' or '.join(names)}"
