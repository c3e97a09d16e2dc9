"""Plays recordings: the access is checked and logged, the key derived, and bytes are verified before they are sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from vault.errors import Conflict, IntegrityError, Invalid, Shredded
from vault.format.notes import KeptAside, Note, audio_end, dropped_bytes, kept_aside
from vault.ids import RecordingId
from vault.model import DataKey, Principal, Recording, RecordingState, SegmentRef
from vault.ports.audit import AuditTrail
from vault.ports.journal import JournalEntry
from vault.ports.keys import Keyring
from vault.ports.recordings import RecordingLookup
from vault.services.audit import event
from vault.services.ingest.ingest import Ingest
from vault.services.ingest.slots import Slots
from vault.services.recordings.reading import WINDOW_BYTES, Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Playable:
    """A recording that can be read: `stored` bytes, fixed when it was opened; `sha256` covers all of them."""

    recording: Recording
    stored: int
    live: bool
    key: DataKey = field(repr=False)
    segments: Sequence[SegmentRef]
    entry: JournalEntry | None = field(default=None, repr=False)
    sha256: str | None = None
    notes: Sequence[Note] = field(default=(), repr=False)
    """What happened besides the audio, in the order of its offsets."""

    @property
    def length(self) -> int:
        """How many of the stored bytes are audio."""
        return audio_end(self.notes, self.stored)

    @property
    def aside(self) -> Sequence[KeptAside]:
        """Parts that were acknowledged and are not in the audio; they are stored after it."""
        return kept_aside(self.notes, self.stored)

    @property
    def received(self) -> int:
        """How many bytes the recorder sent: those stored, and those that pauses dropped."""
        return self.length + dropped_bytes(self.notes, self.length)


class PlaybackRows(RecordingLookup, AuditTrail, Protocol):
    """The catalog methods that playback needs."""


class Playback:
    """Opens recordings for reading."""

    def __init__(
        self,
        *,
        catalog: PlaybackRows,
        keyring: Keyring,
        ingest: Ingest,
        reader: Reader,
        purposes: Sequence[str],
        each: int,
    ) -> None:
        self.slots = Slots(each, what="playbacks")
        """Playbacks of one token at a time."""
        self._catalog = catalog
        self._keyring = keyring
        self._ingest = ingest
        self._reader = reader
        self._purposes = frozenset(purposes)

    def check_purpose(self, purpose: str | None) -> str:
        """Return a permitted purpose; Invalid names the permitted ones."""
        if purpose is None or purpose not in self._purposes:
            raise Invalid(
                "every play, export and search carries a purpose"
                if purpose is None
                else "that purpose is not permitted here",
                hint="name one in the header Purpose, or with --purpose: " + ", ".join(sorted(self._purposes)),
            )
        return purpose

    async def open(
        self, identifier: RecordingId, *, actor: Principal, purpose: str, act: str = "access.play"
    ) -> Playable:
        """Log the access as `act`, then make the recording readable up to its durable end.

        Shredded once its key is gone or about to go; IntegrityError if the manifest is missing or wrong.
        """
        recording = await self._catalog.recording(identifier)
        key = self._key(recording)
        # The entry comes first: an access that cannot be logged does not happen.
        await self._catalog.append_audit(
            [event(act, actor, tenant=recording.tenant, target=recording.id, purpose=purpose)]
        )
        try:
            return await self.prepare(recording, key)
        except IntegrityError:
            self._require_key(recording)
            raise

    def _key(self, recording: Recording) -> DataKey:
        if recording.state not in (RecordingState.SHREDDING, RecordingState.SHREDDED):
            try:
                return self._keyring.derive(recording.audio)
            except Shredded:
                pass
        facts = {"certificate_id": recording.certificate_id} if recording.certificate_id else {}
        raise Shredded(f"{recording.id} was shredded: its key no longer exists anywhere", **facts)

    async def prepare(self, recording: Recording, key: DataKey) -> Playable:
        """Return the readable view of a recording whose access is already allowed and logged."""
        session = self._ingest.live(recording.id)
        if session is not None:
            return Playable(
                recording=recording,
                stored=session.durable,
                live=True,
                key=key,
                segments=session.segments,
                entry=session.entry,
                notes=session.keeping.settled(session.durable),
            )
        if recording.state is RecordingState.OPEN:
            # It was finished between the two look-ups, or belongs to another process.
            recording = await self._catalog.recording(recording.id)
            if recording.state is RecordingState.OPEN:
                raise Conflict(
                    f"{recording.id} is still being recorded on {recording.node or 'another node'}",
                    hint="ask that node, or wait for the end of the call",
                )
        objects = await self._catalog.segments(recording.id)
        manifest = await self._reader.manifest(recording, key, objects)
        named = {(s.name, s.index, s.offset, s.length, s.sha256) for s in manifest.segments}
        segments = [ref for ref in objects if (ref.name, ref.index, ref.offset, ref.length, ref.sha256) in named]
        return Playable(
            recording=recording,
            stored=manifest.length,
            live=False,
            key=key,
            segments=segments,
            sha256=manifest.sha256,
            notes=manifest.notes,
        )

    async def finished(self, recording: Recording) -> Playable:
        """Return a finished recording by its manifest, for a recorder that sends it again."""
        return await self.prepare(recording, self._key(recording))

    async def read(
        self, playable: Playable, start: int, end: int, *, window: int = WINDOW_BYTES
    ) -> AsyncGenerator[bytes, None]:
        """Yield verified stored bytes `[start, end)`; Shredded, and no further byte, once the key is gone.

        At most `window` bytes are decrypted before they are asked for.
        """
        reading = self._reader.read(
            playable.recording, playable.key, playable.segments, start, end, entry=playable.entry, window=window
        )
        async with aclosing(reading):
            try:
                self._require_key(playable.recording)
                async for piece in reading:
                    # `playable` still has a key that is being destroyed, so the keyring is asked for every window.
                    self._require_key(playable.recording)
                    yield piece
                    self._require_key(playable.recording)
            except IntegrityError:
                # Objects are deleted after their key, so a missing one is no damage then.
                self._require_key(playable.recording)
                raise

    def _require_key(self, recording: Recording) -> None:
        if not self._keyring.derivable(recording.audio):
            raise Shredded(f"{recording.id} was shredded while it was being played")
