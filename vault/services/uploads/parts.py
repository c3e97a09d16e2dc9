"""Uploads in parts: each part is sealed into the spool, durable before it is acknowledged, and put together in order.

An acknowledged part is always kept. A part sent again with other bytes becomes a further version. Some parts are not in
the final audio: earlier versions, parts that a completion left out, and parts after a gap. They are kept aside: after
the audio, in the same recording, under the same key.

The steps of an upload, and what a crash after each one leaves:

1. the catalog row: an open recording without bytes, closed after the grace;
2. its folder in the spool: the same;
3. a part kept: the part is in the spool at the next start;
4. the note of the parts kept aside: the next completion replaces the note;
5. pieces in the journal: the next completion compares them and continues after them;
6. the end in the journal: the recording completes;
7. the folder dropped. Without it, a folder has no open recording, and the next start drops it.

An abort writes its audit entry first and then takes the same steps. If a crash interrupts it, the end of the grace
completes it with every part.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count, takewhile
from typing import Final, Protocol

from vault.errors import (
    Conflict,
    IntegrityError,
    Invalid,
    NotFound,
    Refused,
    TooLarge,
    Unavailable,
    UnderHold,
)
from vault.ids import RecordingId, TenantId, TokenId
from vault.model import Principal, Recording, RecordingState
from vault.ports.audit import AuditTrail
from vault.ports.journal import Spool
from vault.ports.keys import Keyring
from vault.ports.recordings import RecordingLookup
from vault.ports.time import Clock
from vault.protocol.s3.body import WholeChecks
from vault.protocol.s3.checksums import ALGORITHMS
from vault.protocol.s3.requests import NamedPart, upload_etag
from vault.services.audit import event
from vault.services.ingest.call_notes import Notes
from vault.services.ingest.ingest import Ingest
from vault.services.ingest.sessions import CallStart, IngestSession
from vault.services.ingest.slots import Shares
from vault.services.keys import is_pinned
from vault.services.recordings.search import S3_KEY, extra_of
from vault.services.surroundings import Surroundings
from vault.services.uploads.spooling import BodyReader, BodyWriter, PartKey, Windows

ABORTED: Final = "truncated:aborted"
"""The end of an upload that its recorder aborted; it keeps every acknowledged part."""

_TICK_SECONDS: Final = 1.0
_MOST_REPLACED: Final = 1_000
_LEFTOVER: Final = 0
"""The number, which no part has, of the bytes that an interrupted completion had written."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A durable part. `etag` is the MD5 of its bytes in hex; of two versions, the later one has the higher number."""

    number: int
    version: int
    size: int
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The parts of the audio and the parts kept aside, each in order."""

    audio: Sequence[Part]
    aside: Sequence[Part]

    @property
    def length(self) -> int:
        """Bytes of the audio."""
        return sum(part.size for part in self.audio)


@dataclass(slots=True, kw_only=True, eq=False)
class Upload:
    """An upload in parts that is neither completed nor aborted in this process."""

    session: IngestSession
    key: str = field(repr=False)
    """Its object key."""
    parts: dict[int, Part] = field(default_factory=dict)
    """The current part under each number."""
    replaced: list[Part] = field(default_factory=list)
    """Earlier versions of parts, which were acknowledged too."""
    digests: dict[tuple[int, int], dict[str, bytes]] = field(default_factory=dict)
    """Digests by algorithm of each part, by its number and version; none for parts from before a restart."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a part is kept, and while the parts are written to the recording."""

    @property
    def every(self) -> Sequence[Part]:
        """All acknowledged parts, in order of number and version."""
        return sorted((*self.parts.values(), *self.replaced), key=lambda part: (part.number, part.version))

    def plan(self, numbers: Sequence[int]) -> Plan:
        """Return the plan whose audio is the current parts of these numbers; all others are kept aside."""
        audio = [self.parts[number] for number in sorted(numbers)]
        return Plan(audio=audio, aside=[part for part in self.every if part not in audio])


class PartSink:
    """Receives one part; `keep` makes it durable and the current one."""

    def __init__(
        self, parts: Parts, upload: Upload, number: int, writer: BodyWriter, clock: Clock, *, room: Callable[[], int]
    ) -> None:
        self._parts = parts
        self._upload = upload
        self._number = number
        self._writer = writer
        self._clock = clock
        self._room = room

    async def write(self, piece: bytes) -> None:
        """Write more bytes of the part; the grace period of the recording starts again."""
        self._upload.session.touch(now=self._clock.monotonic())
        await self._writer.write(piece)

    async def keep(self, digests: Mapping[str, bytes]) -> Part:
        """Make the part durable; the last part kept under a number is current, and earlier versions stay.

        A part with the same bytes as the current one is not kept twice. `digests` are those of its bytes, by algorithm.
        TooLarge if the recording has no room for it.
        """
        md5 = await self._writer.end()
        upload = self._upload
        async with upload.lock:
            # Checked under the lock: once the recording is ending, a new part would be acknowledged and dropped.
            upload.session.require_open()
            known = upload.parts.get(self._number)
            part = Part(
                number=self._number,
                version=0 if known is None else known.version + 1,
                size=self._writer.size,
                etag=md5.hex(),
            )
            if known is None or not await self._parts.same(upload, known, part, self._writer):
                await self._keep(part, known)
            kept = upload.parts[self._number]
            upload.digests.setdefault((kept.number, kept.version), {}).update(digests)
        upload.session.touch(now=self._clock.monotonic())
        return part

    async def _keep(self, part: Part, known: Part | None) -> None:
        upload = self._upload
        if part.size > self._room():  # other parts were kept while this one was received
            raise TooLarge("the parts together exceed what a recording may have; this one was not kept")
        if known is not None and len(upload.replaced) >= _MOST_REPLACED:
            raise TooLarge("parts of this upload were sent again too often; what was acknowledged is safe")
        await self._writer.file.keep(part.version)
        if known is not None:
            upload.replaced.append(known)
        upload.parts[part.number] = part
        upload.session.keep_aside(part.size)


class PartRows(RecordingLookup, AuditTrail, Protocol):
    """The catalog operations that uploads in parts need."""


class Parts:
    """Owns the uploads in parts of this node."""

    def __init__(
        self,
        *,
        catalog: PartRows,
        ingest: Ingest,
        keyring: Keyring,
        notes: Notes,
        spool: Spool,
        shares: Shares,
        surroundings: Surroundings,
        grace: timedelta,
        patience: timedelta,
        limit: int,
        windows: Windows,
    ) -> None:
        self.windows = windows
        self._catalog = catalog
        self._ingest = ingest
        self._keyring = keyring
        self._notes = notes
        self._spool = spool
        self._shares = shares
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._grace = grace
        self._patience = patience
        """How long a silent upload keeps its room in the spool while others wait for room."""
        self._limit = limit
        self._uploads: dict[RecordingId, Upload] = {}

    async def begin(self, call: CallStart, *, actor: Principal) -> RecordingId:
        """Create the recording; its id is the upload's. Conflict if the call key is taken."""
        session = await self._ingest.start(call, actor=actor)
        try:
            await self._spool.prepare(session.recording.id)
            self._adopt(Upload(session=session, key=call.object_key or call.call_key))
        finally:
            self._ingest.detach(session)
        return session.recording.id

    def _adopt(self, upload: Upload) -> None:
        session = upload.session
        session.belong_to(upload, grace=self._grace, before_end=partial(self._keep_beginning, upload))
        self._uploads[session.recording.id] = upload

    def is_upload(self, session: IngestSession) -> bool:
        """Tell whether a recording is an upload in parts."""
        return session.recording.id in self._uploads

    def find(self, identifier: RecordingId, *, tenant: TenantId) -> Upload:
        """Return the tenant's upload; NotFound."""
        upload = self._uploads.get(identifier)
        if upload is None or upload.session.recording.tenant != tenant or upload.session.ended is not None:
            raise NotFound("there is no such upload, or it was completed or aborted", s3="NoSuchUpload")
        return upload

    def unfinished(self, tenant: TenantId, *, begun_by: TokenId) -> Sequence[Upload]:
        """Return the tenant's uploads that this token began and that can be continued here."""
        return [
            upload
            for upload in self._uploads.values()
            if upload.session.recording.tenant == tenant
            and upload.session.begun_by == begun_by
            and not upload.session.leaving
        ]

    def room(self, upload: Upload, number: int) -> int:
        """Return how many bytes part `number` may have without making the recording too large.

        The current part with this number does not count, because the new one may equal it. `PartSink.keep` checks the
        room of a different one.
        """
        others = sum(part.size for part in upload.every if part is not upload.parts.get(number))
        return max(self._limit - others, 0)

    def _left(self, upload: Upload) -> int:
        return self._limit - sum(part.size for part in upload.every)

    @asynccontextmanager
    async def receive(self, upload: Upload, number: int, *, size: int | None) -> AsyncIterator[PartSink]:
        """Yield a sink for a part, which is dropped at the end of the context unless `keep` was called.

        `size` is its size in bytes, None if unknown. Unavailable if the tenant may not use so much of the spool now.
        """
        recording = upload.session.recording
        self._shares.require(recording.tenant, size or 0)
        with self._ingest.hearing(upload.session):
            file = await self._spool.begin(recording.id, number, tenant=recording.tenant)
            try:
                key = _part_key(upload.session, number)
                writer = BodyWriter(file, key, entropy=self._entropy, windows=self.windows)
                try:
                    yield PartSink(self, upload, number, writer, self._clock, room=partial(self._left, upload))
                finally:
                    writer.drop()
            finally:
                await file.close()

    # -- the end ------------------------------------------------------------------------------------------------

    async def complete(self, upload: Upload, named: Sequence[NamedPart], *, checks: WholeChecks) -> None:
        """Write the named parts to the recording in ascending order, and end it; durable when this returns.

        The other parts are kept aside. Nothing is changed by these errors: Invalid (`s3` InvalidPart, BadDigest or
        InvalidRequest) if a part or the whole differs from what is stated; UnderHold if a part would be kept aside
        while a hold protects the recording.
        """
        session = upload.session
        async with upload.lock:
            if session.ended == "sealed":
                return
            for each in named:
                if each.number not in upload.parts or upload.parts[each.number].etag != each.etag:
                    raise _other_part(each.number)
            plan = upload.plan([each.number for each in named])
            if plan.aside and is_pinned(self._keyring, session.recording.audio):
                raise UnderHold(
                    "a hold protects this recording, and this completion leaves out acknowledged parts; nothing was "
                    "changed",
                    hint="name every part as it was first sent, or abort: an abort keeps every part",
                    s3="OperationAborted",
                )
            await self._compare(upload, plan, named, checks)
            await self._ingest.attach(session, offset=None, owner=upload)
            try:
                await self._put_together(upload, plan)
                await self._notes.tell_etag(
                    session, offset=plan.length, etag=upload_etag([each.etag for each in named])
                )
                await self._ingest.finish(session)
            finally:
                self._ingest.detach(session)
        await self._drop(upload)

    async def _compare(self, upload: Upload, plan: Plan, named: Sequence[NamedPart], checks: WholeChecks) -> None:
        """Compare the parts and the whole with their stated sizes and digests, before any byte is recorded."""
        if checks.size is not None and checks.size != plan.length:
            raise Invalid(
                "the parts together have another size than is stated; nothing was recorded", s3="InvalidRequest"
            )
        for part, stated in zip(plan.audio, named, strict=True):
            digests = await self._digests(upload, part, {*stated.checksums, *checks.composite})
            if any(digests[name] != digest for name, digest in stated.checksums.items()):
                raise _other_part(part.number)
        for name, digest in checks.composite.items():
            joined = ALGORITHMS[name]()
            for part in plan.audio:
                joined.update(upload.digests[part.number, part.version][name])
            if joined.digest() != digest:
                raise _other_whole()
        if checks.whole and await self._digested(upload, plan.audio, checks.whole) != checks.whole:
            raise _other_whole()

    async def _digests(self, upload: Upload, part: Part, names: AbstractSet[str]) -> Mapping[str, bytes]:
        """Return digests of one part; reads the part if one of them is not known."""
        known = upload.digests.setdefault((part.number, part.version), {})
        if unknown := names - known.keys():
            known.update(await self._digested(upload, [part], unknown))
        return known

    async def _digested(self, upload: Upload, parts: Sequence[Part], names: Iterable[str]) -> Mapping[str, bytes]:
        """Read parts and return digests of them together, by algorithm."""
        running = {name: ALGORITHMS[name]() for name in names}
        async with aclosing(self._bytes(upload, parts)) as pieces:
            async for piece in pieces:
                for each in running.values():
                    each.update(piece)
        return {name: each.digest() for name, each in running.items()}

    async def _put_together(self, upload: Upload, plan: Plan) -> None:
        """Write the note of the parts kept aside, then the audio, then those parts."""
        session = upload.session
        if plan.aside or session.keeping.aside is not None:
            await self._notes.set_aside(session, offset=plan.length, pieces=_pieces_of(plan.aside))
        async with aclosing(self._bytes(upload, [*plan.audio, *plan.aside])) as pieces:
            await continued(self._ingest, session, pieces)

    async def abort(self, upload: Upload, *, actor: Principal) -> None:
        """End the recording as truncated, with every acknowledged part.

        The audit entry is written before the end. A crash between them leaves an upload that the end of its grace ends
        in the same way.
        """
        session = upload.session
        async with upload.lock:
            session.require_open(unless=ABORTED)
            if session.ended is None:
                recording = session.recording
                entry = event("recording.aborted", actor, tenant=recording.tenant, target=recording.id)
                await self._catalog.append_audit([entry])
                await self._keep_everything(upload)
                await self._ingest.finish(session, ended=ABORTED)
        await self._drop(upload)

    async def _keep_beginning(self, upload: Upload) -> None:
        """Write every acknowledged part of an upload whose grace is over.

        A completion that is under way is waited for, and stays as it is.
        """
        session = upload.session
        async with upload.lock:
            if session.ending is None and not session.uploads:
                await self._keep_everything(upload)

    async def _keep_everything(self, upload: Upload) -> None:
        """Write parts 1, 2, … up to the first gap as the audio, and keep all others aside."""
        session = upload.session
        plan = upload.plan(list(takewhile(upload.parts.__contains__, count(1))))
        await self._ingest.attach(session, offset=None, owner=upload)
        try:
            before = session.keeping.audio(session.durable)
            try:
                await self._put_together(upload, plan)
            except (Refused, IntegrityError) as error:
                # An earlier completion wrote another list of parts, or a part is damaged: the durable bytes are audio.
                fields = {"recording": session.recording.id, "error": error.code}
                logger.error("the parts of an upload do not fit together", extra={"fields": fields})  # noqa: TRY400
                await self._ingest.commit(session)
                damaged = isinstance(error, IntegrityError)
                await self._keep_apart(upload, min(plan.length, session.durable) if damaged else before)
        finally:
            self._ingest.detach(session)

    async def _keep_apart(self, upload: Upload, end: int) -> None:
        """Keep every intact part aside: after `end` bytes of audio and the bytes that an earlier list left there."""
        session = upload.session
        sound = [part for part in upload.every if await self._is_sound(upload, part)]
        leftover = session.durable - end
        pieces = [*([(_LEFTOVER, leftover)] if leftover else []), *_pieces_of(sound)]
        await self._notes.set_aside(session, offset=end, pieces=pieces)
        async with aclosing(self._bytes(upload, sound)) as found:
            async for piece in found:
                await self._ingest.write(session, piece, bounded=False)

    async def _is_sound(self, upload: Upload, part: Part) -> bool:
        try:
            async with aclosing(self._bytes(upload, [part])) as pieces:
                async for _ in pieces:
                    pass
        except (Refused, IntegrityError) as error:
            fields = {"recording": upload.session.recording.id, "part": part.number, "error": error.code}
            logger.error("a part in the spool is damaged", extra={"fields": fields})  # noqa: TRY400  # the fact
            return False
        return True

    async def _bytes(self, upload: Upload, parts: Sequence[Part]) -> AsyncGenerator[bytes, None]:
        session = upload.session
        for part in parts:
            file = await self._spool.open(session.recording.id, part.number, part.version)
            try:
                reader = await BodyReader.open(file, _part_key(session, part.number))
                # A part whose `keep` failed half way may be in the file of another version.
                if (await reader.md5()).hex() != part.etag:
                    raise Invalid(f"part {part.number} is not the acknowledged one: send it again", s3="InvalidPart")
                async with aclosing(reader.pieces()) as pieces:
                    async for piece in pieces:
                        yield piece
            finally:
                await file.close()

    async def same(self, upload: Upload, known: Part, part: Part, writer: BodyWriter) -> bool:
        """Tell whether the written part equals the known one, byte for byte: equal ETags do not prove that."""
        if (known.size, known.etag) != (part.size, part.etag):
            return False
        reader = await BodyReader.open(writer.file, _part_key(upload.session, part.number))
        async with aclosing(self._bytes(upload, [known])) as before, aclosing(reader.pieces()) as now:
            async for piece in before:
                if piece != await anext(now, b""):
                    return False
        return True

    async def _drop(self, upload: Upload) -> None:
        recording = upload.session.recording
        self._uploads.pop(recording.id, None)
        try:
            await self._spool.drop(recording.id, tenant=recording.tenant)
        except Unavailable as error:  # the next start drops it
            logger.warning("parts were not removed", extra={"fields": {"reason": error.message}})

    # -- background ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled, drop the parts of ended recordings, and make room for tenants below their share."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            await self.tidy()
            self.make_room()

    async def tidy(self) -> None:
        """Drop the parts of recordings that have ended."""
        for upload in tuple(self._uploads.values()):
            if upload.session.ended is not None and not upload.lock.locked():
                await self._drop(upload)

    def make_room(self) -> None:
        """End one upload of a tenant above its share, while a tenant below its own finds no room in the spool.

        The upload is the one left longest ago, if it has been silent for the patience. Only one ends at a time, because
        the room that it frees may be enough.
        """
        crowding = self._shares.crowding()
        sessions = [upload.session for upload in self._uploads.values()] if crowding else []
        if any(session.displaced for session in sessions):
            return
        latest = self._clock.monotonic() - self._patience.total_seconds()
        for tenant in crowding:
            left = [
                (session.detached_at, session)
                for session in sessions
                if session.recording.tenant == tenant
                and not (session.arriving or session.leaving)
                and session.spooled
                and session.detached_at is not None
                and session.detached_at <= latest
            ]
            if left:
                self._ingest.displace(min(left, key=lambda each: each[0])[1])
                self._shares.displaced()
                return

    async def recover(self) -> None:
        """Resume the uploads of an earlier process; drop the spooled parts of ended recordings.

        Call it once the open recordings are resumed.
        """
        for identifier, sizes in (await self._spool.kept()).items():
            session = self._ingest.live(identifier)
            row = session.recording if session is not None else await self._row(identifier)
            tenant = "" if row is None else row.tenant
            self._shares.count(tenant, sum(sizes.values()))
            if session is not None and session.ended is None:
                key = extra_of(self._keyring, session.recording).get(S3_KEY) or session.call_key or ""
                upload = Upload(session=session, key=key)
                self._adopt(upload)
                with self._ingest.hearing(session):
                    for number, version in sorted(sizes):
                        await self._take_up(upload, number, version)
            elif session is not None or (row is not None and _is_over(row)):
                await self._spool.drop(identifier, tenant=tenant)

    async def _take_up(self, upload: Upload, number: int, version: int) -> None:
        file = await self._spool.open(upload.session.recording.id, number, version)
        try:
            reader = await BodyReader.open(file, _part_key(upload.session, number))
            etag = (await reader.md5()).hex()
            if number in upload.parts:
                upload.replaced.append(upload.parts[number])
            upload.parts[number] = Part(number=number, version=version, size=reader.size, etag=etag)
            upload.session.keep_aside(reader.size)
        except IntegrityError as error:
            fields = {"recording": upload.session.recording.id, "part": number, "error": error.code}
            logger.error("a part in the spool is damaged", extra={"fields": fields})  # noqa: TRY400  # the fact
        finally:
            await file.close()

    async def _row(self, identifier: RecordingId) -> Recording | None:
        try:
            return await self._catalog.recording(identifier)
        except NotFound:
            # A restored catalog may lack a row that a newer one has. Acknowledged parts are not dropped for that.
            fields = {"recording": identifier}
            logger.error("the spool holds parts of an unknown recording; they are kept", extra={"fields": fields})  # noqa: TRY400
            return None


def _is_over(row: Recording) -> bool:
    if row.state is RecordingState.OPEN:
        fields = {"recording": row.id}
        logger.error("the spool holds parts of another node's recording; they are kept", extra={"fields": fields})
    return row.state is not RecordingState.OPEN


async def continued(ingest: Ingest, session: IngestSession, pieces: AsyncIterator[bytes]) -> None:
    """Write a whole body into an attached recording that may have durable bytes already.

    Conflict, and nothing is written, if the body does not begin with those bytes.
    """
    missing = session.durable
    resent = hashlib.sha256()
    async for piece in pieces:
        rest = piece
        if missing:
            resent.update(piece[:missing])
            rest = piece[missing:]
            missing -= len(piece) - len(rest)
            if not missing:
                _require_same(session, resent)
        if rest:
            await ingest.write(session, rest)
    if missing:
        raise Conflict("other audio of this call is durable already")


def _require_same(session: IngestSession, resent: hashlib._Hash) -> None:
    assert session.digest is not None
    if resent.digest() != session.digest.digest():
        raise Conflict("other audio of this call is durable already")


def _other_part(number: int) -> Invalid:
    return Invalid(f"part {number} was not received, or differs from the one stated", s3="InvalidPart")


def _other_whole() -> Invalid:
    return Invalid("the checksum is not that of the parts together; nothing was recorded", s3="BadDigest")


def _pieces_of(parts: Sequence[Part]) -> list[tuple[int, int]]:
    return [(part.number, part.size) for part in parts if part.size]


def _part_key(session: IngestSession, number: int) -> PartKey:
    return PartKey(key=session.key, recording=session.recording.id, number=number)
