"""Tokens: who may ask the vault for something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from vault.ids import TenantId, TokenId
from vault.model import AuditEvent, Token


class TokenLookup(Protocol):
    """Tokens as they stand."""

    async def token(self, token: TokenId) -> Token | None:
        """Return one, revoked ones included."""

    async def tokens(self, *, tenant: TenantId | None = None, expiring_by: datetime | None = None) -> Sequence[Token]:
        """Return all or a tenant's, oldest first; with `expiring_by` those not revoked that expire by then."""

    async def token_names(self, tokens: Sequence[TokenId]) -> Mapping[TokenId, str]:
        """Return the names of those of these tokens that there are, revoked ones included."""


class TokenRows(TokenLookup, Protocol):
    """Tokens, issued and revoked."""

    async def add_token(self, token: Token, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; Conflict if it exists, or the token that issues it has been revoked."""

    async def revoke_token(self, token: TokenId, *, at: datetime, audit: Sequence[AuditEvent] = ()) -> None:
        """Revoke; NotFound. Repeating is harmless."""
