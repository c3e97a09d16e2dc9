"""Tenants, their tokens, small settings of the vault, and abbreviated ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from vault.ids import TenantId, TokenId
from vault.model import AuditEvent, Tenant, Token
from vault.ports.revision import Revision


class TenantLookup(Protocol):
    """Reads tenants."""

    async def tenant(self, tenant: TenantId) -> Tenant:
        """Return a tenant; NotFound if there is none."""

    async def tenants(self) -> Sequence[Tenant]:
        """Return all tenants, in order of id."""


class TenantRows(TenantLookup, Protocol):
    """Reads and changes tenants."""

    async def add_tenant(self, tenant: Tenant, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert a tenant; Conflict if it exists."""

    async def revise_tenant(self, tenant: TenantId, revision: Revision[Tenant]) -> Tenant:
        """Replace the tenant with the one that `revision` returns, and return it; NotFound if there is none.

        A new webhook makes the tenant's waiting alerts due at once.
        """


class TokenLookup(Protocol):
    """Reads a token."""

    async def token(self, token: TokenId) -> Token | None:
        """Return a token, also a revoked one; None if there is none."""


class TokenLists(Protocol):
    """Reads tokens, and names of them."""

    async def tokens(self, *, tenant: TenantId | None = None, expiring_by: datetime | None = None) -> Sequence[Token]:
        """Return all tokens or a tenant's, oldest first; with `expiring_by` unrevoked ones that expire by then."""

    async def token_names(self, tokens: Sequence[TokenId]) -> Mapping[TokenId, str]:
        """Return the names of tokens, also of revoked ones; unknown tokens are left out."""


class TokenRows(TokenLookup, TokenLists, Protocol):
    """Reads, issues and revokes tokens."""

    async def add_token(self, token: Token, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert a token; Conflict if it exists, or if the token that issues it has been revoked."""

    async def revoke_token(self, token: TokenId, *, at: datetime, audit: Sequence[AuditEvent] = ()) -> None:
        """Revoke a token; NotFound if there is none. It may be repeated."""


class SettingRows(Protocol):
    """Reads and writes settings by name."""

    async def setting(self, name: str) -> str | None:
        """Return a setting of the vault, such as its id; None if it is not set."""

    async def save_setting(self, name: str, value: str) -> None:
        """Insert or replace a setting."""


class IdLookup(Protocol):
    """Finds abbreviated ids."""

    async def ids_beginning(self, beginning: str, *, tenant: TenantId | None, limit: int) -> Sequence[str]:
        """Return up to `limit` ids that begin with `beginning`, oldest first; with `tenant` only that tenant's.

        It finds recordings, holds, certificates, erasures and policy requests.
        """
