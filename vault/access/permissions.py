"""The roles table of docs/access.md as data. An act that is not listed for a role is forbidden to it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from vault.ids import TenantId
from vault.model import Principal, Role, Token


class Why(enum.StrEnum):
    """Why a credential is denied an act."""

    ROLE = "role"
    """Its role may not do this."""
    NOT_ITS_OWN = "not its own"
    """The thing it named belongs to another tenant, or does not exist."""


class Act(enum.StrEnum):
    """An act that a credential may be allowed to do."""

    INGEST = "ingest"
    RECORDING_LIST = "recording_list"
    RECORDING_SHOW = "recording_show"
    RECORDING_WHY = "recording_why"
    FACTS_READ = "facts_read"
    """See who called: numbers and tags, sealed in the catalog."""
    PLAY = "play"
    PLAY_HELD = "play_held"
    """Play a recording under hold; needed in addition to PLAY."""
    PAUSE = "pause"
    """Pause and resume a live call by recording id. A recorder does it by call key, which needs INGEST."""
    FLAG = "flag"
    FLAG_LIVE = "flag_live"
    """Flag, by call key, a call that the same tenant's recorder is recording."""
    HOLD_OWN = "hold_own"
    """Place a hold on, or extend the retention of, one's own uploads."""
    HOLD_LIST = "hold_list"
    HOLD_PLACE = "hold_place"
    HOLD_REVIEW = "hold_review"
    HOLD_RELEASE_REQUEST = "hold_release_request"
    HOLD_RELEASE_APPROVE = "hold_release_approve"
    ERASURE_READ = "erasure_read"
    ERASURE_REQUEST = "erasure_request"
    ERASURE_DECIDE = "erasure_decide"
    CERTIFICATE_READ = "certificate_read"
    AUDIT_READ = "audit_read"
    AUDIT_READ_HELD = "audit_read_held"
    """Read audit entries about a recording under a safeguarding hold."""
    SWEEP_READ = "sweep_read"
    SWEEP_RUN = "sweep_run"
    SWEEP_OVERRIDE = "sweep_override"
    """Request or approve an override of a tripped guard; `vault.access.two_people` says which two roles decide."""
    TENANT_READ = "tenant_read"
    TENANT_ADMIN = "tenant_admin"
    TENANT_OFFBOARD = "tenant_offboard"
    """Request, approve or reject the end of a contract; `vault.access.two_people` says which two roles decide."""
    POLICY_READ = "policy_read"
    POLICY_DECIDE = "policy_decide"
    """Request, approve or withdraw a change of the retention of existing calls; see `vault.access.two_people`."""
    TOKEN_ADMIN = "token_admin"  # noqa: S105 - the name of an act
    KEYS_READ = "keys_read"
    KEYS_ROTATE = "keys_rotate"


_SEE: Final = frozenset({Act.RECORDING_LIST, Act.RECORDING_SHOW, Act.RECORDING_WHY})
_ERASE: Final = frozenset({Act.ERASURE_READ, Act.ERASURE_REQUEST, Act.ERASURE_DECIDE})
_POLICY: Final = frozenset({Act.POLICY_READ, Act.POLICY_DECIDE})
_HOLDS: Final = frozenset({Act.HOLD_LIST, Act.HOLD_PLACE, Act.HOLD_REVIEW, Act.HOLD_RELEASE_REQUEST})

PERMISSIONS: Final[Mapping[Role, frozenset[Act]]] = {
    # A stolen recorder credential can add recordings, flags and holds. It cannot read, list or delete.
    Role.RECORDER: frozenset({Act.INGEST, Act.FLAG_LIVE, Act.HOLD_OWN}),
    Role.AGENT: _SEE | {Act.FACTS_READ, Act.PLAY, Act.PAUSE, Act.FLAG},
    Role.SAFEGUARDING_LEAD: _SEE
    | _HOLDS
    | _ERASE
    | _POLICY
    | {
        Act.FACTS_READ,
        Act.PLAY,
        Act.PLAY_HELD,
        Act.PAUSE,
        Act.FLAG,
        Act.HOLD_RELEASE_APPROVE,
        Act.CERTIFICATE_READ,
        Act.AUDIT_READ_HELD,
    },
    Role.COMPLIANCE: _SEE
    | _HOLDS
    | _ERASE
    | _POLICY
    | {
        Act.FACTS_READ,
        Act.PLAY,
        Act.PLAY_HELD,
        Act.PAUSE,
        Act.FLAG,
        Act.HOLD_RELEASE_APPROVE,
        Act.CERTIFICATE_READ,
        Act.AUDIT_READ,
        Act.SWEEP_READ,
        Act.TENANT_READ,
    },
    Role.DPO: _SEE
    | _ERASE
    | _POLICY
    | {
        Act.TENANT_OFFBOARD,
        Act.FACTS_READ,
        Act.PLAY,
        Act.PLAY_HELD,
        Act.HOLD_LIST,
        Act.HOLD_RELEASE_REQUEST,
        Act.HOLD_RELEASE_APPROVE,
        Act.CERTIFICATE_READ,
        Act.AUDIT_READ,
        Act.SWEEP_READ,
        Act.SWEEP_OVERRIDE,
        Act.TENANT_READ,
    },
    # An operator runs the vault and sees rows without personal data: no audio and no facts. It places no holds.
    Role.OPERATOR: _SEE
    | {
        Act.HOLD_LIST,
        Act.CERTIFICATE_READ,
        Act.AUDIT_READ,
        Act.SWEEP_READ,
        Act.SWEEP_RUN,
        Act.SWEEP_OVERRIDE,
        Act.TENANT_READ,
        Act.TENANT_ADMIN,
        Act.TENANT_OFFBOARD,
        Act.POLICY_READ,
        Act.TOKEN_ADMIN,
        Act.KEYS_READ,
        Act.KEYS_ROTATE,
    },
    Role.AUDITOR: _SEE
    | {
        Act.HOLD_LIST,
        Act.ERASURE_READ,
        Act.CERTIFICATE_READ,
        Act.AUDIT_READ,
        Act.SWEEP_READ,
        Act.TENANT_READ,
        Act.POLICY_READ,
    },
}


def roles_with(act: Act) -> tuple[Role, ...]:
    """Return the roles that may perform the act, in the order of the table."""
    return tuple(role for role, acts in PERMISSIONS.items() if act in acts)


def permits(role: Role, act: Act) -> bool:
    """Tell whether the role may perform the act, regardless of tenant and purpose."""
    return act in PERMISSIONS[role]


def permits_in(principal: Principal, act: Act, tenant: TenantId | None) -> bool:
    """Tell whether the principal may perform the act for `tenant`, or for the whole vault if `tenant` is None.

    A credential bound to a tenant reaches only that tenant. Of the credentials without a tenant only an operator's may
    do anything.
    """
    if not permits(principal.role, act):
        return False
    if principal.tenant is None:
        return principal.role is Role.OPERATOR
    return tenant is not None and principal.tenant == tenant


def has_expired(token: Token, *, now: datetime) -> bool:
    """Tell whether a token has expired. An expired token begins no new request or recording."""
    return token.expires_at is not None and token.expires_at <= now
