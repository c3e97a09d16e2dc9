"""Tokens: the credentials for the vault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from vault.ids import TenantId, TokenId
from vault.model import AuditEvent, Token


class TokenLookup(Protocol):
    """Reads tokens."""

    async def token(self, token: TokenId) -> Token | None:
        """Return a token, also a revoked one; None if there is none."""

    async def tokens(self, *, tenant: TenantId | None = None, expiring_by: datetime | None = None) -> Sequence[Token]:
        """Return all tokens or a tenant's, oldest first; with `expiring_by` unrevoked ones that expire by then."""

    async def token_names(self, tokens: Sequence[TokenId]) -> Mapping[TokenId, str]:
        """Return the names of tokens, also of revoked ones; unknown tokens are left out."""


class TokenRows(TokenLookup, Protocol):
    """Reads, issues and revokes tokens."""

    async def add_token(self, token: Token, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert a token; Conflict if it exists, or if the token that issues it has been revoked."""

    async def revoke_token(self, token: TokenId, *, at: datetime, audit: Sequence[AuditEvent] = ()) -> None:
        """Revoke a token; NotFound if there is none. It may be repeated."""
