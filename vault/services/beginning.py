"""The first durable things of a recording: its coordinates, its sealed facts, its row."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from vault.crypto.blind import Field
from vault.crypto.derive import commitment
from vault.crypto.sealed import seal_facts
from vault.errors import GenerationPassed, Invalid, OutcomeUnknown, TooLate, Unavailable
from vault.ids import NodeId, RecordingId, new_id
from vault.model import Cohort, DataKey, Principal, Recording, RecordingState
from vault.ports.catalog import Catalog
from vault.ports.keys import Keyring
from vault.ports.time import Clock, Entropy
from vault.retention.guards import effective_now
from vault.services.audit import event
from vault.services.coordinates import Coordinates
from vault.services.search import CALL_KEY, BlindIndex
from vault.services.sessions import CallStart, stated

_DEFAULT_CLASS = "recording"


class Beginning:
    """Creates open rows: cohort seed durable in the keyring, then the row with its coordinates."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        keyring: Keyring,
        coordinates: Coordinates,
        index: BlindIndex,
        clock: Clock,
        entropy: Entropy,
        node: NodeId,
    ) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._coordinates = coordinates
        self._index = index
        self._clock = clock
        self._entropy = entropy
        self._node = node
        self.doubtful: set[RecordingId] = set()
        """Whose row may or may not exist: its commit's answer was lost."""

    async def create(self, call: CallStart, *, actor: Principal) -> tuple[Recording, DataKey]:
        """Return the new open row and its key; Conflict if the call key is taken, Invalid for a start that cannot be.

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
        wall = self._clock.now()
        # A clock that stepped back must not shorten a retention: time is at least the last sweep's.
        now = effective_now(wall, self._keyring.last_sweep_at)
        started = call.started_at or now
        if started > now + timedelta(days=1):
            raise Invalid("Call-Started lies in the future", hint="send the start of the call in UTC, RFC 3339")
        retain_until = call.retention.after(started)
        if retain_until <= now:
            raise Invalid(
                "Call-Started is longer ago than recordings are kept: it would be deleted on arrival",
                hint="check the recorder's clock, or give the tenant a longer retention",
            )
        identifier = RecordingId(new_id("rec", at=now, entropy=self._entropy))
        metadata = await self._coordinates.metadata(call.tenant, now)
        facts = replace(call.facts, extra={**stated(call.facts).extra, **call.terms, CALL_KEY: call.call_key})
        metadata_key = self._keyring.derive(metadata)
        sealed = seal_facts(metadata_key, identifier, facts, nonce=self._entropy(12))
        audio = await self._coordinates.audio(call.tenant, retain_until)
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
            started_at=started,
            ended_at=None,
            retain_until=retain_until,
            retention_class=_DEFAULT_CLASS,
            stored_bytes=0,
            sealed_facts=sealed,
            caller_token=self._token(metadata.cohort, Field.CALLER, facts.caller),
            called_token=self._token(metadata.cohort, Field.CALLED, facts.called),
            node=self._node,
            audio_commitment=commitment(key),
            metadata_commitment=commitment(metadata_key),
            retention_period=str(call.retention),
        )
        elsewhere = self._index.elsewhere(metadata.cohort, Field.CALL_KEY, call.call_key)
        started_event = event("recording.started", actor, tenant=call.tenant, target=identifier)
        try:
            await self._catalog.create_recording(recording, elsewhere=elsewhere, audit=[started_event])
        except OutcomeUnknown:
            self.doubtful.add(identifier)
            raise
        except TooLate as error:
            raise Invalid("the recording's retention has already run out", hint="check the recorder's clock") from error
        return recording, key

    def _token(self, cohort: Cohort, field: Field, value: str | None) -> str | None:
        return None if value is None else self._index.token_in(cohort, field, value)
