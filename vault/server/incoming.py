"""A request's body as pieces, for handlers that another request may interrupt."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from vault.errors import Unavailable, VaultError
from vault.server.pieces import BodyPieces


class Incoming(BodyPieces):
    """The body in pieces of at most 256 KiB; Unavailable when nothing has come for the idle time."""

    def stalled(self) -> VaultError:
        """Return what a body that stopped coming is answered with: clients repeat a 503, and give up at a 408."""
        return Unavailable(
            "nothing arrived for too long, so the request was ended; what was received is kept",
            hint="ask with HEAD where to continue",
        )

    async def first(self) -> bytes:
        """Return the first bytes, enough to recognise a container by, without taking them."""
        piece = await super().first()
        self.push_back(piece)
        return piece

    async def whole(self, check: Callable[[int], None]) -> Sequence[bytes]:
        """Return all there is without taking it; `check` refuses the size before more is read."""
        pieces: deque[bytes] = deque()
        size = 0
        while piece := await self.next():
            size += len(piece)
            check(size)
            pieces.append(piece)
        self._held = pieces
        return tuple(pieces)
