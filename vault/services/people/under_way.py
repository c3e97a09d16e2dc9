"""Work under way for each token; the work of a revoked token is ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from vault.errors import Unauthenticated, VaultError
from vault.ids import TokenId
from vault.ports.tenants import TokenLookup

_ROUND_SECONDS = 2.0

logger = logging.getLogger(__name__)


def ended() -> Unauthenticated:
    """Return the error of work whose token was revoked meanwhile."""
    return Unauthenticated(
        "the token was revoked while this was under way; what was acknowledged is durable",
        hint="continue with a token that is in force",
    )


class UnderWay:
    """The requests, calls and playbacks of this process, by token.

    A token that this process knows as revoked is remembered, so that a request accepted before the revocation cannot
    begin its work after it.
    """

    def __init__(self, *, catalog: TokenLookup) -> None:
        self._catalog = catalog
        self._ends: dict[TokenId, set[Callable[[], None]]] = {}
        self._revoked: set[TokenId] = set()

    def knows(self, token: TokenId) -> bool:
        """Tell whether this process knows the token as revoked."""
        return token in self._revoked

    def require(self, token: TokenId) -> None:
        """Raise Unauthenticated if this process knows the token as revoked."""
        if self.knows(token):
            raise ended()

    def enter(self, token: TokenId, end: Callable[[], None]) -> Callable[[], None]:
        """Have `end` called once if the token is revoked; return what withdraws this and may be called twice.

        `end` must return at once and raise nothing: it makes the work stop soon. Unauthenticated if the token is
        revoked already.
        """
        self.require(token)

        def once() -> None:
            end()

        self._ends.setdefault(token, set()).add(once)

        def leave() -> None:
            ends = self._ends.get(token)
            if ends is not None:
                ends.discard(once)
                if not ends:
                    del self._ends[token]

        return leave

    def end(self, token: TokenId) -> None:
        """End the token's work in this process, and let no more begin."""
        self._revoked.add(token)
        for end in self._ends.pop(token, ()):
            end()

    async def run(self) -> None:
        """End the work of tokens that were revoked elsewhere, until cancelled."""
        while True:
            await asyncio.sleep(_ROUND_SECONDS)
            try:
                await self.look()
            except VaultError as error:
                # The next round asks again; while the catalog does not answer, nothing is ended.
                logger.warning("revoked tokens could not be looked for", extra={"fields": {"error": error.code}})

    async def look(self) -> None:
        """Ask the catalog for every token with work under way, and end that of revoked ones."""
        for token in tuple(self._ends):
            found = await self._catalog.token(token)
            if found is None or found.revoked_at is not None:
                self.end(token)
