"""The first durable things of a recording: its coordinates, its sealed facts, its row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial

from vault.crypto.blind import Field
from vault.crypto.derive import commitment
from vault.crypto.notes import seal_note
from vault.crypto.sealed import seal_facts
from vault.errors import GenerationPassed, OutcomeUnknown, TooLate, Unavailable
from vault.ids import NodeId, RecordingId, TenantId, new_id
from vault.model import CallFacts, Cohort, DataKey, Principal, Recording, RecordingState
from vault.ports.catalog import Catalog
from vault.ports.keys import Keyring
from vault.ports.time import Entropy
from vault.protocol.facts import kind_of
from vault.protocol.parties import read
from vault.retention.policy import Lifetime, StartEffect
from vault.services.audit import event
from vault.services.coordinates import Coordinates
from vault.services.joining import Joiner, Joining, imports
from vault.services.search import CALL_KEY, S3_KEY, BlindIndex
from vault.services.sessions import BEGUN_BY, STATED_START, CallStart, stated
from vault.telemetry import Metrics

_DEFAULT_CLASS = "recording"
_LOCKED_CLASS = "object_lock"
"""Of a recording whose date is the one that its recorder asked for, later than that of any policy."""


class Beginning:
    """Creates open rows: cohort seed durable in the keyring, then the row with its coordinates."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        keyring: Keyring,
        coordinates: Coordinates,
        index: BlindIndex,
        region: Callable[[TenantId], Awaitable[str]],
        joining: Joining,
        entropy: Entropy,
        node: NodeId,
        metrics: Metrics,
    ) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._coordinates = coordinates
        self._index = index
        self._region = region
        self._joining = joining
        self._entropy = entropy
        self._node = node
        self._metrics = metrics
        self.doubtful: set[RecordingId] = set()
        """Whose row may or may not exist: its commit's answer was lost."""

    async def create(self, call: CallStart, *, actor: Principal) -> tuple[Recording, DataKey]:
        """Return the new open row and its key; Conflict if the call key is taken.

        No start that a recorder states is refused; what it does to the retention is counted and in the audit trail.

        The key is derived before there is a row: a row without a session would hold its call key until a restart. A
        rotation that ends between the two makes this begin again, under a key that no copy from before it opens.
        """
        try:
            return await self._create(call, actor=actor)
        except GenerationPassed:
            await self._keyring.refresh()
        try:
            return await self._create(call, actor=actor)
        except GenerationPassed as error:
            raise Unavailable("the keyring is being rotated; nothing was taken in", retry_after_seconds=1) from error

    async def _create(self, call: CallStart, *, actor: Principal) -> tuple[Recording, DataKey]:
        now = self._joining.now()
        life = self._joining.life(Joiner.of(call, actor), call.retention, receipt=now)
        # No policy gave a date that is its recorder's.
        locked = life.retain_until == call.keep_until
        identifier = RecordingId(new_id("rec", at=now, entropy=self._entropy))
        metadata = await self._coordinates.metadata(call.tenant, now)
        said = read(stated(call.facts), await self._region(call.tenant))
        noted = {**_noted(call.started_at, life), **_left_out(call.facts)}
        if locked:
            noted["locked_until"] = life.retain_until.isoformat()
        extra = {**said.extra, **call.terms, CALL_KEY: call.call_key, BEGUN_BY: actor.token_id}
        if call.started_at is not None and life.effect is StartEffect.REPLACED:
            extra[STATED_START] = call.started_at.isoformat()
        facts = replace(said, extra=extra)
        metadata_key = self._keyring.derive(metadata)
        sealed = seal_facts(metadata_key, identifier, facts, nonce=self._entropy(12))
        audio = await self._coordinates.audio(call.tenant, life.retain_until)
        key = self._keyring.derive(audio)
        recording = Recording(
            id=identifier,
            tenant=call.tenant,
            call_token=self._index.token_in(metadata.cohort, Field.CALL_KEY, call.call_key),
            state=RecordingState.OPEN,
            state_reason=None,
            audio=audio,
            metadata=metadata,
            media=call.media,
            created_at=now,
            started_at=life.started_at,
            ended_at=None,
            retain_until=life.retain_until,
            retention_class=_LOCKED_CLASS if locked else _DEFAULT_CLASS,
            stored_bytes=0,
            sealed_facts=sealed,
            caller_token=self._token(metadata.cohort, Field.CALLER, facts.caller),
            called_token=self._token(metadata.cohort, Field.CALLED, facts.called),
            node=self._node,
            audio_commitment=commitment(key),
            metadata_commitment=commitment(metadata_key),
            retention_period=None if locked else str(call.retention),
            object_token=self._token(metadata.cohort, Field.OBJECT_KEY, extra.get(S3_KEY)),
        )
        elsewhere = self._index.elsewhere(metadata.cohort, Field.CALL_KEY, call.call_key)
        detail = {**noted, "import": True} if imports(actor, now) and call.started_at is not None else noted
        notes = {} if call.answer is None else {0: seal_note(key, identifier, 0, call.answer, nonce=self._entropy(12))}
        started_event = event("recording.started", actor, tenant=call.tenant, target=identifier, detail=detail)
        creating = asyncio.ensure_future(
            self._catalog.create_recording(recording, elsewhere=elsewhere, notes=notes, audit=[started_event])
        )
        try:
            await asyncio.shield(creating)
        except asyncio.CancelledError:
            # The catalog carries out what it has begun: its row would hold the call key until a restart.
            self.doubtful.add(identifier)
            creating.add_done_callback(partial(self._created_unheard, identifier))
            raise
        except OutcomeUnknown:
            self.doubtful.add(identifier)
            raise
        except TooLate as error:
            # Only where the floor is next to nothing: a sweep came between the look at the clock and the row.
            raise Unavailable(
                "a sweep passed the end of the recording as it began; nothing was taken in", retry_after_seconds=1
            ) from error
        self._metrics.stated_starts.labels(life.effect.value).inc()
        for name, why in call.facts.unusable.items():
            self._metrics.facts_left_out.labels(kind_of(name), why).inc()
        return recording, key

    def _created_unheard(self, identifier: RecordingId, creating: asyncio.Future[None]) -> None:
        """Forget a row that will not come: only one that is there, or may be, is looked for."""
        error = None if creating.cancelled() else creating.exception()
        if creating.cancelled() or (error is not None and not isinstance(error, OutcomeUnknown)):
            self.doubtful.discard(identifier)

    def _token(self, cohort: Cohort, field: Field, value: str | None) -> str | None:
        return None if value is None else self._index.token_in(cohort, field, value)


def _left_out(facts: CallFacts) -> Mapping[str, str]:
    """Return which facts the audit trail says were not kept: none by a name that its recorder chose."""
    kinds = sorted({kind_of(name) for name in facts.unusable})
    return {"facts_left_out": ", ".join(kinds)} if kinds else {}


def _noted(stated_start: datetime | None, life: Lifetime) -> Mapping[str, str]:
    """Return what the audit trail says of a stated start that changed a life or was replaced."""
    if stated_start is None or life.effect is StartEffect.NONE:
        return {}
    return {
        "stated_start": stated_start.isoformat(),
        "retention": life.effect.value,
        "retain_until": life.retain_until.isoformat(),
        "unstated_until": life.unstated_until.isoformat(),
    }
