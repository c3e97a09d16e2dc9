"""Flags: a person or recorder states that a call needs a safeguarding lead now; the alert is sent until acknowledged.

Order: hold row `placing` and alert row, in one transaction → pins durable in the keyring → hold `active` → answer. So
every pin of a flag has its alert. A crash after the first step leaves both rows: the alert is sent, and the pins are
set at the next start, by the next round of `Alerts`, or by the next flag. An alert does not wait for the pins, because
an outage of the keyring must not delay it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from vault.crypto.signing import SigningKey
from vault.errors import Conflict, Invalid, NotFound, TooLate, Unavailable, VaultError
from vault.ids import HoldId, TenantId, call_name, new_id
from vault.model import Hold, HoldKind, HoldState, Principal, Recording, RecordingState, Tenant
from vault.ports.holds import Alert, AlertRows, Claimed, FlagRows, Messenger
from vault.ports.tenants import TenantLookup
from vault.protocol.webhook import FlagCategory, flagged_body, pause_after, signed_headers
from vault.retention.periods import Period
from vault.services.audit import event
from vault.services.holds.holds import Holds
from vault.services.ingest.call_keys import CallKeys
from vault.services.ingest.ingest import Ingest
from vault.services.ingest.sessions import IngestSession
from vault.services.surroundings import Surroundings

# -- alerts -------------------------------------------------------------------------------------------------------
# An alert is sent at least once, and again until it is acknowledged.
#
# Order: claim durable (no other node sends the alert before the claim ends) → send → outcome durable. After a crash in
# between, the alert is sent again when the claim has run out, under the same id.

_CLAIM: Final = timedelta(seconds=15)
"""How long a claim lasts; longer than a messenger may take."""
_ROUND_SECONDS: Final = 1.0
_MOST_AT_ONCE: Final = 32
_UNFINISHED_FOR: Final = timedelta(seconds=30)
"""A hold that is still being placed after this time is completed here; the keyring had been out of reach."""

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
        """Look for due alerts now instead of at the next round."""
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
        """Start sending the due alerts."""
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
            logger.warning("an alert's outcome is not stored", extra={"fields": {"alert": alert.id, "why": error.code}})
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
        """Complete holds whose placing an outage interrupted, so that a flag takes effect without a restart."""
        now = self._clock.monotonic()
        if now - self._mended_at >= _UNFINISHED_FOR.total_seconds():
            self._mended_at = now
            await self._holds.recover(older_than=_UNFINISHED_FOR)


# -- flags --------------------------------------------------------------------------------------------------------

_RECORDER_MAY: Final = timedelta(hours=1)
"""How long after a call its recorder may flag it; a stolen recorder's token cannot place holds on older calls."""

_TELL_AGAIN: Final = timedelta(minutes=5)
"""How long after the acknowledgement of an alert a further flag sends no new one; after that it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flagged:
    """The result of a flag. `repeated` if the hold existed already. `alert` is None if no webhook is configured."""

    recording: Recording
    hold: Hold
    alert: Alert | None
    live: bool
    repeated: bool


class FlaggingRows(FlagRows, TenantLookup, Protocol):
    """The catalog methods that flags need."""


class Flags:
    """Raises flags."""

    def __init__(
        self,
        *,
        catalog: FlaggingRows,
        holds: Holds,
        ingest: Ingest,
        call_keys: CallKeys,
        surroundings: Surroundings,
        review: Period,
        raised: Callable[[], None],
    ) -> None:
        self._catalog = catalog
        self._holds = holds
        self._ingest = ingest
        self._call_keys = call_keys
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._review = review
        self._raised = raised

    async def flag(
        self,
        row: Recording,
        *,
        category: FlagCategory,
        matter: str | None = None,
        reason: str | None = None,
        actor: Principal,
    ) -> Flagged:
        """Hold the recording and alert the tenant's safeguarding lead; returns once the keyring has the pins.

        Flagging again, under any matter, returns the same hold until its release is requested. The lead is alerted
        again if five minutes have passed since the last alert was acknowledged. TooLate if the recording is shredded;
        nothing is written then.
        """
        if matter is not None and not matter.strip():
            raise Invalid("matter: must not be empty", hint="leave it out, or name the case")
        if row.state in (RecordingState.SHREDDING, RecordingState.SHREDDED):
            raise TooLate(f"{row.id} is already shredded: there is nothing to keep")
        tenant = await self._catalog.tenant(row.tenant)
        hold = self._hold(row, tenant, category=category, matter=matter, reason=reason)
        live = self._live(row)

        def alert(holding: HoldId) -> Alert:
            return self._alert(row, holding, at=hold.created_at, category=category, live=live, actor=actor)

        detail = {"category": category.value, "live": live}
        words = {name: text for name, text in (("matter", matter), ("reason", reason)) if text is not None}
        identifier = await self._catalog.save_flag(
            hold,
            alert,
            acknowledged_before=hold.created_at - _TELL_AGAIN,
            audit=[event("flag.raised", actor, tenant=row.tenant, target=row.id, detail=detail)],
            # An existing hold keeps its own reason; the new flag's goes into the audit trail.
            joining=[
                event(
                    "flag.raised",
                    actor,
                    tenant=row.tenant,
                    target=row.id,
                    detail={**detail, **words, "additional": True},
                )
            ],
        )
        self._raised()
        placed = await self._holds.complete(identifier, actor=actor)
        return Flagged(
            recording=row,
            hold=placed,
            alert=await self._catalog.alert_of(identifier) if tenant.safeguarding_webhook is not None else None,
            live=live,
            repeated=identifier != hold.id,
        )

    async def flag_call(self, tenant: TenantId, call_key: str, *, category: FlagCategory, actor: Principal) -> Flagged:
        """Flag the call with the recorder's call key, while it runs or shortly after; Conflict later, NotFound.

        Of several recordings with this call key, the open one that the actor began comes first, else the newest.
        """
        own = self._ingest.own_call(tenant, call_key, actor.token_id)
        row = own.recording if own is not None else await self._newest(tenant, call_key)
        if row is None:
            raise NotFound("there is no recording under this call key")
        if row.ended_at is not None and self._clock.now() - row.ended_at > _RECORDER_MAY:
            raise Conflict(
                "the call ended too long ago for its recorder to flag it",
                hint="a person with the right to flag can flag the recording by its id",
            )
        return await self.flag(row, category=category, actor=actor)

    async def _newest(self, tenant: TenantId, call_key: str) -> Recording | None:
        """Return the newest recording of a call; a recorder that reconnected after the end has several."""
        name = call_name(call_key, await self._call_keys.newest(tenant, call_key))
        found = await self._call_keys.resolve(tenant, name)
        return found.recording if isinstance(found, IngestSession) else found

    def _live(self, row: Recording) -> bool:
        session = self._ingest.live(row.id)
        return row.state is RecordingState.OPEN and (session is None or session.ended is None)

    def _hold(
        self, row: Recording, tenant: Tenant, *, category: FlagCategory, matter: str | None, reason: str | None
    ) -> Hold:
        now = self._clock.now()
        words = f"safeguarding flag: {category.value.replace('_', ' ')}"
        return Hold(
            id=HoldId(new_id("hold", at=now, entropy=self._entropy)),
            tenant=row.tenant,
            kind=HoldKind.SAFEGUARDING,
            matter=matter or f"flag-{row.id}",
            reason=f"{words}; {reason}" if reason else words,
            authority=f"safeguarding policy of {tenant.controller}",
            owner=tenant.contact,
            state=HoldState.PLACING,
            created_at=now,
            review_at=self._review.after(now),
            recordings=(row.id,),
        )

    def _alert(
        self, row: Recording, hold: HoldId, *, at: datetime, category: FlagCategory, live: bool, actor: Principal
    ) -> Alert:
        return Alert(
            id=new_id("msg", at=at, entropy=self._entropy),
            tenant=row.tenant,
            recording=row.id,
            hold=hold,
            created_at=at,
            body=flagged_body(row, hold, category=category, actor=actor, live=live, at=at),
            next_at=at,
        )
