"""Who may do what: the roles table of docs/design.md as data. Anything not written here is forbidden."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from vault.ids import TenantId
from vault.model import Principal, Role, Token


class Why(enum.StrEnum):
    """What a credential is denied an act for."""

    ROLE = "role"
    """Its role may not do this."""
    NOT_ITS_OWN = "not its own"
    """What it named is another tenant's, or is not there."""


class Act(enum.StrEnum):
    """Everything a credential can be used for."""

    INGEST = "ingest"
    RECORDING_LIST = "recording_list"
    RECORDING_SHOW = "recording_show"
    RECORDING_WHY = "recording_why"
    FACTS_READ = "facts_read"
    """See who called: numbers and tags, sealed in the catalog."""
    PLAY = "play"
    PLAY_HELD = "play_held"
    """Play what a hold protects; comes on top of PLAY."""
    PAUSE = "pause"
    """Pause and resume a live call by its recording; a recorder does so by its call key."""
    FLAG = "flag"
    FLAG_LIVE = "flag_live"
    """Flag, by its call key, a call that one records oneself."""
    HOLD_OWN = "hold_own"
    """Hold, and have kept longer, what one records oneself."""
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
    """Read what the audit trail says of a recording that a safeguarding hold keeps."""
    SWEEP_READ = "sweep_read"
    SWEEP_RUN = "sweep_run"
    SWEEP_OVERRIDE = "sweep_override"
    """Request or approve passing a tripped guard; `vault.access.two_people` says which two."""
    TENANT_READ = "tenant_read"
    TENANT_ADMIN = "tenant_admin"
    TENANT_OFFBOARD = "tenant_offboard"
    """End a contract: request, approve or reject; `vault.access.two_people` says which two."""
    POLICY_READ = "policy_read"
    POLICY_DECIDE = "policy_decide"
    """Request, approve or withdraw a change of how long existing calls are kept: see `vault.access.two_people`."""
    TOKEN_ADMIN = "token_admin"  # noqa: S105 - the name of an act
    KEYS_READ = "keys_read"
    KEYS_ROTATE = "keys_rotate"


_SEE: Final = frozenset({Act.RECORDING_LIST, Act.RECORDING_SHOW, Act.RECORDING_WHY})
_ERASE: Final = frozenset({Act.ERASURE_READ, Act.ERASURE_REQUEST, Act.ERASURE_DECIDE})
_POLICY: Final = frozenset({Act.POLICY_READ, Act.POLICY_DECIDE})
_HOLDS: Final = frozenset({Act.HOLD_LIST, Act.HOLD_PLACE, Act.HOLD_REVIEW, Act.HOLD_RELEASE_REQUEST})

PERMISSIONS: Final[Mapping[Role, frozenset[Act]]] = {
    # Append only: a stolen recorder credential can neither read, list nor delete. Flags and holds only keep.
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
    # Runs the vault and sees rows without people in them: no audio, no facts, no holds of its own.
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
    """Return the roles that may do this, in the order of the table."""
    return tuple(role for role, acts in PERMISSIONS.items() if act in acts)


def permits(role: Role, act: Act) -> bool:
    """Tell whether the role may perform the act at all, tenant and purpose aside."""
    return act in PERMISSIONS[role]


def permits_in(principal: Principal, act: Act, tenant: TenantId | None) -> bool:
    """Tell whether the principal may perform the act on `tenant`'s things, or vault-wide when `tenant` is None.

    A credential bound to a tenant never reaches another one nor the vault as a whole; an unbound one is an operator's
    by construction, and any other role without a tenant may do nothing.
    """
    if not permits(principal.role, act):
        return False
    if principal.tenant is None:
        return principal.role is Role.OPERATOR
    return tenant is not None and principal.tenant == tenant


def has_expired(token: Token, *, now: datetime) -> bool:
    """Tell whether a token has expired: from then on it begins nothing."""
    return token.expires_at is not None and token.expires_at <= now
