"""Delivers alerts until they are acknowledged: each at least once, rarely more often.

Order: claim durable (nobody else sends the alert before the claim ends) → send → outcome durable. After a crash in
between, the alert is sent again when the claim has run out, under the same id.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta
from typing import Final

from vault.crypto.signing import SigningKey
from vault.errors import Unavailable, VaultError
from vault.ids import TenantId
from vault.ports.alerts import AlertRows, Claimed, Messenger
from vault.protocol.webhook import pause_after, signed_headers
from vault.services.audit import event
from vault.services.holds.holds import Holds
from vault.services.surroundings import Surroundings

_CLAIM: Final = timedelta(seconds=15)
"""Longer than a messenger may take."""
_ROUND_SECONDS: Final = 1.0
_MOST_AT_ONCE: Final = 32
_UNFINISHED_FOR: Final = timedelta(seconds=30)
"""A hold still being placed after this time is completed here: the keyring was out of reach."""

logger = logging.getLogger(__name__)


class Alerts:
    """Sends the alerts in the outbox, one for each tenant at a time, so none waits for another's webhook."""

    def __init__(
        self,
        *,
        catalog: AlertRows,
        holds: Holds,
        messenger: Messenger,
        issuer_key: SigningKey,
        surroundings: Surroundings,
    ) -> None:
        self._catalog = catalog
        self._holds = holds
        self._messenger = messenger
        self._issuer_key = issuer_key
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._metrics = surroundings.metrics
        self._sending: set[TenantId] = set()
        self._woken = asyncio.Event()
        self._mended_at = surroundings.clock.monotonic()

    def wake(self) -> None:
        """Look for alerts now, because a flag was raised."""
        self._woken.set()

    async def run(self) -> None:
        """Deliver alerts until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._woken.clear()
                try:
                    await self._begin(group)
                    await self._mend()
                except VaultError as error:
                    logger.warning("alerts wait", extra={"fields": {"reason": error.message}})
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ROUND_SECONDS):
                        await self._woken.wait()

    async def _begin(self, group: asyncio.TaskGroup) -> None:
        """Start sending what is due."""
        while len(self._sending) < _MOST_AT_ONCE:
            claimed = await self._claim()
            if claimed is None:
                return
            group.create_task(self._send(claimed))

    async def _claim(self) -> Claimed | None:
        now = self._clock.now()
        claimed = await self._catalog.claim_alert(now=now, until=now + _CLAIM, excluding=self._sending)
        if claimed is not None:
            self._sending.add(claimed.alert.tenant)
        return claimed

    async def _send(self, claimed: Claimed) -> None:
        alert = claimed.alert
        try:
            await self._attempt(claimed)
        except VaultError as error:
            # The outcome is not stored, so the alert is sent again when the claim runs out.
            logger.warning("an alert's outcome is not noted", extra={"fields": {"alert": alert.id, "why": error.code}})
        finally:
            self._sending.discard(alert.tenant)
            self.wake()

    async def _attempt(self, claimed: Claimed) -> None:
        alert = claimed.alert
        body = alert.body.encode()
        headers = signed_headers(alert.id, body, at=self._clock.now(), sign=self._issuer_key.sign)
        try:
            await self._messenger.post(claimed.webhook, body, headers)
        except Unavailable as error:
            share = int.from_bytes(self._entropy(2), "big") / 0xFFFF
            again = self._clock.now() + pause_after(alert.attempts, share=share)
            logger.warning(
                "an alert is not acknowledged",
                extra={"fields": {"alert": alert.id, "attempts": alert.attempts, "reason": error.message}},
            )
            self._metrics.alerts.labels("failed").inc()
            await self._catalog.settle_alert(alert.id, next_at=again, delivered_at=None)
            return
        now = self._clock.now()
        acknowledged = event(
            "flag.acknowledged",
            None,
            tenant=alert.tenant,
            target=alert.recording,
            detail={"alert": alert.id, "hold": alert.hold, "attempts": alert.attempts},
        )
        self._metrics.alerts.labels("acknowledged").inc()
        await self._catalog.settle_alert(alert.id, next_at=now, delivered_at=now, audit=[acknowledged])

    async def _mend(self) -> None:
        """Complete holds that an outage left half placed, so that a flag takes effect without a restart."""
        now = self._clock.monotonic()
        if now - self._mended_at >= _UNFINISHED_FOR.total_seconds():
            self._mended_at = now
            await self._holds.recover(older_than=_UNFINISHED_FOR)
