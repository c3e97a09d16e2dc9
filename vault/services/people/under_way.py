"""What is under way for each token: the work of a token that is revoked ends with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from vault.errors import Unauthenticated, VaultError
from vault.ids import TokenId
from vault.ports.tokens import TokenLookup

_ROUND_SECONDS = 2.0

logger = logging.getLogger(__name__)


def ended() -> Unauthenticated:
    """Return what work is answered with whose token was revoked meanwhile."""
    return Unauthenticated(
        "the token was revoked while this was under way; what was acknowledged is durable",
        hint="continue with a token that is in force",
    )


class UnderWay:
    """The requests, calls and playbacks of this process, by token.

    A token that this process knows as revoked stays known: who was let in before that, and begins only after it, finds
    the door shut.
    """

    def __init__(self, *, catalog: TokenLookup) -> None:
        self._catalog = catalog
        self._ends: dict[TokenId, set[Callable[[], None]]] = {}
        self._revoked: set[TokenId] = set()

    def knows(self, token: TokenId) -> bool:
        """Tell whether this process knows the token as revoked."""
        return token in self._revoked

    def require(self, token: TokenId) -> None:
        """Return unless this process knows the token as revoked; else Unauthenticated."""
        if self.knows(token):
            raise ended()

    def enter(self, token: TokenId, end: Callable[[], None]) -> Callable[[], None]:
        """Have `end` called once if the token is revoked; return what withdraws that, which may be called again.

        `end` returns at once and raises nothing: it makes the work stop soon. Unauthenticated if the token is revoked
        already.
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
        """End what is under way for the revoked token in this process, and let nothing more begin."""
        self._revoked.add(token)
        for end in self._ends.pop(token, ()):
            end()

    async def run(self) -> None:
        """End what is under way for tokens that were revoked elsewhere, until cancelled."""
        while True:
            await asyncio.sleep(_ROUND_SECONDS)
            try:
                await self.look()
            except VaultError as error:
                # The next round asks again; a catalog that cannot be asked revokes nothing.
                logger.warning("revoked tokens could not be looked for", extra={"fields": {"error": error.code}})

    async def look(self) -> None:
        """Ask the catalog for every token that has something under way, and end what is revoked."""
        for token in tuple(self._ends):
            found = await self._catalog.token(token)
            if found is None or found.revoked_at is not None:
                self.end(token)
