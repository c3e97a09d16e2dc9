"""Requests with an Idempotency-Key: each takes effect once, and repetitions get its first answer.

Order: claim → the act, whose transaction also stores its effect with the claim → answer stored. The claim is renewed
while the act is carried out, so nobody else carries it out meanwhile, however long it takes. A crash after the claim
leaves a claim without an effect; once its time is up, a repetition carries the request out. A crash after the act
leaves the effect, which a repetition finds. An attempt whose claim was taken over can no longer take effect: its
transaction fails.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from vault.crypto.derive import open_with_any
from vault.crypto.values import open_answer, seal_answer
from vault.errors import Conflict, KeyReused, Malformed, OutcomeUnknown, Unavailable, UnderWay
from vault.ids import TokenId
from vault.model import DataKey
from vault.ports.repeats import Keyed, KeyedRows
from vault.services.surroundings import Surroundings

_KEPT: Final = timedelta(hours=24)
_PATIENCE: Final = timedelta(seconds=30)
"""How long an attempt counts as alive after it was claimed or renewed; then a repetition takes it over."""
_RENEWED_EVERY: Final = 10.0
"""Seconds between renewals of a claim: two may fail."""
_MAX_KEY: Final = 255
_NONCE_BYTES: Final = 12

logger = logging.getLogger(__name__)


def checked_key(text: str) -> str:
    """Return the key in a header's value, quoted as in RFC 8941 or bare; Malformed, whose message omits the value."""
    key = text.strip()
    if len(key) > 1 and key.startswith('"') and key.endswith('"'):
        key = key[1:-1]
    if not 1 <= len(key) <= _MAX_KEY or not key.isascii() or not key.isprintable() or '"' in key:
        raise Malformed("Idempotency-Key: not a valid key", hint='send a fresh UUID in quotes: "8e03978e-40d5-…"')
    return key


class Repeats:
    """Claims keys and stores answers; `sealing_keys` returns the keyring's parts of the keys that seal them.

    The first one seals, and any may open.
    """

    def __init__(
        self, *, catalog: KeyedRows, surroundings: Surroundings, sealing_keys: Callable[[], Sequence[DataKey]]
    ) -> None:
        self._catalog = catalog
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._sealing_keys = sealing_keys

    async def claim(self, token: TokenId, key: str, request: bytes) -> tuple[Keyed, bool]:
        """Return the request under this key, and whether the caller must carry it out.

        KeyReused if the key came with another request. UnderWay while the first one is being carried out.
        """
        now = self._clock.now()
        asked = Keyed(
            token=token,
            key=hashlib.sha256(key.encode()).hexdigest(),
            request=hashlib.sha256(request).hexdigest(),
            attempt=self._entropy(16).hex(),
            created_at=now,
            until=now + _PATIENCE,
        )
        found = await self._catalog.claim_request(asked, now=now, forget_before=now - _KEPT)
        if found.request != asked.request:
            raise KeyReused(
                "this Idempotency-Key was used for another request; nothing was done",
                hint="a new request needs a new key",
            )
        if found.status is None and found.attempt != asked.attempt:
            raise UnderWay(
                "the first request with this Idempotency-Key is still under way", hint="repeat it in a moment"
            )
        return found, found.attempt == asked.attempt

    @asynccontextmanager
    async def alive(self, keyed: Keyed) -> AsyncIterator[None]:
        """Renew the claim while what runs inside carries out the act."""
        renewing = asyncio.create_task(self._renew(keyed), name="renewal of a claim")
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def _renew(self, keyed: Keyed) -> None:
        while True:
            await asyncio.sleep(_RENEWED_EVERY)
            try:
                await self._catalog.renew_request(keyed, until=self._clock.now() + _PATIENCE)
            except (Unavailable, OutcomeUnknown) as error:
                logger.warning("a claim was not renewed", extra={"fields": {"reason": error.message}})
            except Exception:
                # The next round tries again: a claim that runs out in silence lets a repeat begin the same act.
                logger.exception("a claim was not renewed")

    async def keep(self, keyed: Keyed, key: str, *, status: int, answer: bytes) -> None:
        """Store the answer for a day. The act is durable already, so an outage costs only the answer."""
        sealed = seal_answer(self._sealing_keys()[0], keyed.token, key, answer, nonce=self._entropy(_NONCE_BYTES))
        try:
            await self._catalog.settle_request(keyed, status=status, answer=sealed)
        except Unavailable as error:
            logger.warning("an answer was not kept", extra={"fields": {"reason": error.message}})

    async def leave(self, keyed: Keyed) -> None:
        """Give up the claim, so that the next request with this key carries the act out."""
        try:
            await self._catalog.leave_request(keyed, at=self._clock.now())
        except (Unavailable, Conflict) as error:
            logger.warning("a request's claim stays until its time is up", extra={"fields": {"reason": error.message}})

    def answer(self, keyed: Keyed, key: str) -> bytes:
        """Return the first answer."""
        answer = keyed.answer
        assert answer is not None
        return open_with_any(self._sealing_keys(), lambda part: open_answer(part, keyed.token, key, answer))
