"""Plays and shows recordings. Each access is checked and logged, and bytes are verified before they are sent."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from vault.access.permissions import Act, permits
from vault.certificates.attested import Trigger
from vault.certificates.document import AnyCertificate, DeletionCertificate
from vault.errors import Conflict, IntegrityError, Invalid, Shredded
from vault.format.notes import KeptAside, Note, audio_end, dropped_bytes, kept_aside
from vault.ids import RecordingId, TokenId
from vault.model import CallFacts, DataKey, HoldTerms, Part, Principal, Recording, RecordingState, SegmentRef, Tenant
from vault.ports.audit import AuditTrail
from vault.ports.erasures import Erasure, ErasureBasis, ErasureLookup, ErasureOutcome, ErasureState
from vault.ports.holds import HoldLookup, HoldTermsLookup
from vault.ports.journal import JournalEntry
from vault.ports.keys import Keyring
from vault.ports.policies import PolicyLookup
from vault.ports.recordings import RecordingLookup, RecordingQuery, RecordingSearch
from vault.ports.shreds import CertificateLookup
from vault.ports.tenants import TenantLookup, TokenLookup
from vault.ports.time import Clock
from vault.retention.decide import Facts, Ground
from vault.retention.explain import Case, Contract, Ending, Person, RuleLine, Story, explain
from vault.retention.guards import stopped_parts
from vault.services.audit import event
from vault.services.certificates.batches import Certificates
from vault.services.deletion.policies import Overrides
from vault.services.ingest.ingest import Ingest
from vault.services.ingest.slots import Slots
from vault.services.recordings.dossiers import Dossiers
from vault.services.recordings.reading import WINDOW_BYTES, Reader
from vault.services.recordings.search import Search, Wanted, facts_of

# -- playback -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Playable:
    """A recording opened for reading, with the `stored` bytes it had then; `sha256` covers all of them."""

    recording: Recording
    stored: int
    live: bool
    key: DataKey = field(repr=False)
    segments: Sequence[SegmentRef]
    entry: JournalEntry | None = field(default=None, repr=False)
    sha256: str | None = None
    notes: Sequence[Note] = field(default=(), repr=False)
    """The notes of the call, in the order of their offsets."""

    @property
    def length(self) -> int:
        """How many of the stored bytes are audio."""
        return audio_end(self.notes, self.stored)

    @property
    def aside(self) -> Sequence[KeptAside]:
        """Acknowledged parts that are not in the audio; they are stored after it."""
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
                "a play, export or search needs a purpose" if purpose is None else "that purpose is not permitted here",
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
        # The entry is written first: an access that cannot be logged does not take place.
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
            # The recording finished between the two look-ups, or another process records it.
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

        At most `window` bytes are decrypted ahead of the reader.
        """
        reading = self._reader.read(
            playable.recording, playable.key, playable.segments, start, end, entry=playable.entry, window=window
        )
        async with aclosing(reading):
            try:
                self._require_key(playable.recording)
                async for piece in reading:
                    # `playable` keeps its key even while the keyring destroys it, so every window asks the keyring.
                    self._require_key(playable.recording)
                    yield piece
                    self._require_key(playable.recording)
            except IntegrityError:
                # A missing object is no damage if its key is gone, because objects are deleted after their key.
                self._require_key(playable.recording)
                raise

    def _require_key(self, recording: Recording) -> None:
        if not self._keyring.derivable(recording.audio):
            raise Shredded(f"{recording.id} was shredded while it was being played")


# -- showing recordings -------------------------------------------------------------------------------------------

_BASES = {
    ErasureBasis.ART17: "requested under UK GDPR Art. 17",
    ErasureBasis.CONTROLLER_INSTRUCTION: "instructed by the controller",
}
_TAKES = frozenset({ErasureOutcome.ERASED, ErasureOutcome.ERASING})
_GROUNDS = {
    Trigger.ART17: Ground.ERASURE,
    Trigger.OBJECTION: Ground.ERASURE,
    Trigger.RANGE: Ground.ERASURE,
    Trigger.CONTROLLER_INSTRUCTION: Ground.ERASURE,
    Trigger.CONTRACT_END: Ground.CONTRACT_END,
    Trigger.EXPIRY: Ground.EXPIRY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingView:
    """A recording for display; `facts` is None if the key is gone or the role may not see them."""

    recording: Recording
    length: int
    live: bool
    facts: CallFacts | None
    holds: Sequence[HoldTerms]


class ShowingRows(
    RecordingSearch,
    HoldLookup,
    HoldTermsLookup,
    ErasureLookup,
    PolicyLookup,
    CertificateLookup,
    TenantLookup,
    TokenLookup,
    AuditTrail,
    Protocol,
):
    """The catalog methods that showing recordings needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """Why a recording is kept or gone: which of its keys exist, and the rules in order of precedence."""

    recording: Recording
    key_exists: bool
    metadata_key_exists: bool
    rules: Sequence[RuleLine]


class Recordings:
    """Logged look-ups of recordings."""

    def __init__(
        self,
        *,
        catalog: ShowingRows,
        keyring: Keyring,
        ingest: Ingest,
        search: Search,
        dossiers: Dossiers,
        certificates: Certificates,
        overrides: Overrides,
        clock: Clock,
    ) -> None:
        self._overrides = overrides
        self._catalog = catalog
        self._dossiers = dossiers
        self._certificates = certificates
        self._search = search
        self._keyring = keyring
        self._ingest = ingest
        self._clock = clock

    async def list(self, query: RecordingQuery, *, actor: Principal, live: bool = False) -> Sequence[RecordingView]:
        """Return one page without personal facts; with `live`, only calls that this process is recording.

        Invalid for a search by size or duration across tenants.
        """
        _check_measures(query)
        await self._catalog.append_audit([event("access.search", actor, tenant=query.tenant)])
        return await self._page(self._catalog.recordings, query, live=live)

    async def search(
        self, query: RecordingQuery, wanted: Wanted, *, purpose: str, actor: Principal, live: bool = False
    ) -> Sequence[RecordingView]:
        """Return one page of the calls that match sealed facts; the audit entry has the searched fields, no values."""
        _check_measures(query)
        entry = event(
            "access.search", actor, tenant=query.tenant, purpose=purpose, detail={"by": ", ".join(wanted.fields)}
        )
        await self._catalog.append_audit([entry])
        return await self._page(partial(self._search.page, wanted=wanted), query, live=live)

    async def _page(
        self, read: Callable[[RecordingQuery], Awaitable[Sequence[Recording]]], query: RecordingQuery, *, live: bool
    ) -> Sequence[RecordingView]:
        if not live:
            return [await self._view(row, facts=False, holds=()) for row in await read(query)]
        found: list[RecordingView] = []
        page = dataclasses.replace(query, state=RecordingState.OPEN)
        # Most open recordings are live, so few pages are read.
        while len(found) < query.limit and (rows := await read(page)):
            views = [await self._view(row, facts=False, holds=()) for row in rows]
            found += [view for view in views if view.live]
            page = dataclasses.replace(page, before=rows[-1].id)
        return found[: query.limit]

    async def show(self, recording: Recording, *, actor: Principal, facts: bool) -> RecordingView:
        """Return one recording for display, with its personal facts if `facts`."""
        await self._catalog.append_audit(
            [event("access.metadata", actor, tenant=recording.tenant, target=recording.id)]
        )
        return await self._view(recording, facts=facts, holds=await self._catalog.holds_on(recording.id))

    async def _view(self, row: Recording, *, facts: bool, holds: Sequence[HoldTerms]) -> RecordingView:
        session = self._ingest.live(row.id)
        finished = row.state in (RecordingState.SEALED, RecordingState.TRUNCATED)
        if finished and not self._keyring.derivable(row.audio):
            # The key is gone, but the certificate is not written yet.
            row = dataclasses.replace(row, state=RecordingState.SHREDDING)
        return RecordingView(
            recording=row,
            length=session.durable if session is not None else row.stored_bytes,
            live=session is not None and session.ended is None,
            facts=facts_of(self._keyring, row) if facts else None,
            holds=holds,
        )

    async def why(self, recording: Recording, *, actor: Principal) -> Explained:
        """Explain, rule by rule, why the recording is kept or gone.

        The people who decided are named only to roles that may read certificates, because those name them too.
        """
        view = await self.show(recording, actor=actor, facts=False)
        facts = await self._dossiers.facts(recording)
        story = await self._story(facts) if permits(actor.role, Act.CERTIFICATE_READ) else None
        row = view.recording
        gone = row.state in (RecordingState.SHREDDING, RecordingState.SHREDDED)
        now = self._dossiers.now(self._clock.now())
        stopped = stopped_parts(
            facts, await self._overrides.tripped(), now=now, last_sweep_at=self._keyring.last_sweep_at
        )
        return Explained(
            recording=row,
            key_exists=not gone and Part.AUDIO in facts.keys,
            metadata_key_exists=Part.METADATA in facts.keys,
            rules=explain(facts, now=now, story=story, stopped=stopped),
        )

    async def _story(self, facts: Facts) -> Story:
        """Return the decisions about a recording, from its erasures, its tenant and its certificates."""
        row = facts.recording
        erasures = await self._catalog.erasures_on(row.id)
        case = next((each for each in erasures if each.recordings[row.id] in _TAKES), None) or next(
            (each for each in erasures if each.state is ErasureState.APPROVED), None
        )
        tenant = await self._catalog.tenant(row.tenant)
        return Story(
            endings=await self._endings(row),
            case=None if case is None else await self._case(case),
            contract=await self._contract(tenant),
            change=await self._change(facts),
        )

    async def _endings(self, row: Recording) -> Mapping[Part, Ending]:
        issued = await self._catalog.certificates_of([row.id])
        current = [each for each in issued if each.id in (row.certificate_id, row.metadata_certificate_id)]
        return {
            part: Ending(
                ground=_GROUNDS[_trigger(document)],
                at=document.sanitisation.unrecoverable_at,
                certificate=stored.id,
            )
            for stored, document in zip(current, await self._certificates.documents(current), strict=True)
            for part in stored.parts
        }

    async def _case(self, erasure: Erasure) -> Case:
        assert erasure.decided_by is not None
        return Case(
            id=erasure.id,
            basis=_BASES[erasure.basis],
            reference=erasure.case_reference or None,
            asked=await self._person(erasure.requested_by),
            approved=await self._person(erasure.decided_by),
        )

    async def _contract(self, tenant: Tenant) -> Contract | None:
        asked, approved = tenant.offboard_requested_by, tenant.offboard_approved_by
        if tenant.ends_at is None or asked is None or approved is None:
            return None
        return Contract(ended=tenant.ends_at, asked=await self._person(asked), approved=await self._person(approved))

    async def _change(self, facts: Facts) -> tuple[Person, Person] | None:
        change = facts.clocks.changes(facts.recording)
        found = None if change is None else await self._catalog.policy_requests(tenant=facts.recording.tenant)
        for each in found or ():
            if change is not None and each.id == change.request and each.decided_by is not None:
                return await self._person(each.requested_by), await self._person(each.decided_by)
        return None

    async def _person(self, token: str) -> Person:
        found = await self._catalog.token(TokenId(token))
        return Person(token=token, name=None if found is None else found.name)


def _check_measures(query: RecordingQuery) -> None:
    if query.measures and query.tenant is None:
        raise Invalid("tenant: a search by size or duration needs a tenant", hint="name the tenant to search")


def _trigger(document: AnyCertificate) -> Trigger:
    """Return why it was deleted, in either version of the document."""
    return document.trigger.kind if isinstance(document, DeletionCertificate) else document.retention.trigger
