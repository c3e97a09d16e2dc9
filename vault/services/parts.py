"""Uploads in parts: each part is sealed into the spool, durable before it is acknowledged, and put together in order.

Order, and what a crash leaves: catalog row (an open recording without bytes, closed after the grace) → its place in the
spool (as before) → a part kept (it is there at the next start) → pieces in the journal (the next completion compares
them and goes on behind) → the end in the journal (the recording completes) → the place dropped (a place without an open
recording, which the next start drops).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count, takewhile
from typing import Final

from vault.errors import Conflict, IntegrityError, Invalid, NotFound, Refused, TooLarge, Unavailable
from vault.ids import RecordingId, TenantId
from vault.model import Principal, RecordingState
from vault.ports.catalog import Catalog
from vault.ports.spool import Spool
from vault.ports.time import Clock, Entropy
from vault.protocol.checksums import ALGORITHMS
from vault.services.ingest import Ingest
from vault.services.sessions import CallStart, IngestSession
from vault.services.spooling import BodyReader, BodyWriter, PartKey, Windows

_TICK_SECONDS: Final = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part that is durable. `etag` is the MD5 of its bytes, in hex."""

    size: int
    etag: str


@dataclass(slots=True, kw_only=True, eq=False)
class Upload:
    """An upload in parts that is neither completed nor aborted here."""

    session: IngestSession
    parts: dict[int, Part] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a part is put in its place, and while the parts become a recording."""


class PartSink:
    """Takes one part; `keep` makes it durable and the one that counts."""

    def __init__(
        self, upload: Upload, number: int, writer: BodyWriter, clock: Clock, *, room: Callable[[], int]
    ) -> None:
        self._upload = upload
        self._number = number
        self._writer = writer
        self._clock = clock
        self._room = room

    async def write(self, piece: bytes) -> None:
        """Take more of it; the recording waits for its recorder anew."""
        _touch(self._upload.session, self._clock)
        await self._writer.write(piece)

    async def keep(self) -> Part:
        """Make it durable; the last one kept under a number is the one that counts."""
        md5 = await self._writer.end()
        upload = self._upload
        async with upload.lock:
            # Whoever finishes the recording has read the parts by now: this one would be acknowledged and dropped.
            upload.session.require_open()
            if self._writer.size > self._room():  # others were kept while this one came
                raise TooLarge("the parts together exceed what a recording may have; this one was not kept")
            await self._writer.file.keep()
            part = upload.parts[self._number] = Part(size=self._writer.size, etag=md5.hex())
        _touch(upload.session, self._clock)
        return part


def _touch(session: IngestSession, clock: Clock) -> None:
    if session.detached_at is not None:
        session.detached_at = clock.monotonic()


class Parts:
    """Owns the uploads in parts of this node."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        ingest: Ingest,
        spool: Spool,
        clock: Clock,
        entropy: Entropy,
        grace: timedelta,
        limit: int,
        windows: Windows,
    ) -> None:
        self.windows = windows
        self._catalog = catalog
        self._ingest = ingest
        self._spool = spool
        self._clock = clock
        self._entropy = entropy
        self._grace = grace
        self._limit = limit
        self._uploads: dict[RecordingId, Upload] = {}

    async def begin(self, call: CallStart, *, actor: Principal) -> RecordingId:
        """Create the recording; its id is the upload's. Conflict if the call key is taken."""
        session = await self._ingest.start(call, actor=actor)
        try:
            await self._spool.prepare(session.recording.id)
            self._adopt(Upload(session=session))
        finally:
            self._ingest.detach(session)
        return session.recording.id

    def _adopt(self, upload: Upload) -> None:
        session = upload.session
        session.grace = self._grace
        session.before_end = partial(self._keep_beginning, upload)
        self._uploads[session.recording.id] = upload

    def is_upload(self, session: IngestSession) -> bool:
        """Tell whether a recording is made of parts."""
        return session.recording.id in self._uploads

    def find(self, identifier: RecordingId, *, tenant: TenantId) -> Upload:
        """Return an upload of the tenant's; NotFound."""
        upload = self._uploads.get(identifier)
        if upload is None or upload.session.recording.tenant != tenant or upload.session.ended is not None:
            raise NotFound("there is no such upload, or it was completed or aborted", s3="NoSuchUpload")
        return upload

    def room(self, upload: Upload, number: int) -> int:
        """Return how many bytes part `number` may have without making the recording too large."""
        others = sum(part.size for other, part in upload.parts.items() if other != number)
        return max(self._limit - others, 0)

    @asynccontextmanager
    async def receive(self, upload: Upload, number: int) -> AsyncIterator[PartSink]:
        """Take a part in; what the context leaves without `keep` is gone."""
        file = await self._spool.begin(upload.session.recording.id, number)
        try:
            writer = BodyWriter(file, _part_key(upload.session, number), entropy=self._entropy, windows=self.windows)
            try:
                yield PartSink(upload, number, writer, self._clock, room=partial(self.room, upload, number))
            finally:
                writer.drop()
        finally:
            await file.close()

    # -- the end ------------------------------------------------------------------------------------------------

    async def complete(self, upload: Upload, named: Mapping[int, str], *, checks: Mapping[str, bytes]) -> None:
        """Make the named parts the recording, in ascending order, and end it; durable when this returns.

        `named` are ETags by number, `checks` digests of the whole by algorithm. Invalid with `s3` InvalidPart or
        BadDigest, and nothing is changed, if one is not that part or the whole is another one.
        """
        session = upload.session
        async with upload.lock:
            if session.ended == "sealed":
                return
            for number, etag in named.items():
                if number not in upload.parts or upload.parts[number].etag != etag:
                    raise Invalid(f"part {number} was not received, or is another one", s3="InvalidPart")
            await self._compare(upload, sorted(named), checks)
            await self._ingest.attach(session, offset=None)
            try:
                async with aclosing(self._bytes(upload, sorted(named))) as pieces:
                    await continued(self._ingest, session, pieces)
                await self._ingest.finish(session)
            finally:
                self._ingest.detach(session)
        await self._drop(upload)

    async def _compare(self, upload: Upload, numbers: Sequence[int], checks: Mapping[str, bytes]) -> None:
        """Read the whole before any of it is recorded, if there is something to compare it with."""
        running = {name: ALGORITHMS[name]() for name in checks}
        if not running:
            return
        async with aclosing(self._bytes(upload, numbers)) as pieces:
            async for piece in pieces:
                for each in running.values():
                    each.update(piece)
        if any(each.digest() != checks[name] for name, each in running.items()):
            raise Invalid("the checksum is not that of the parts together; nothing was recorded", s3="BadDigest")

    async def abort(self, upload: Upload) -> None:
        """End the recording without any part. The end comes first: without it the place would look lost."""
        async with upload.lock:
            await self._ingest.finish(upload.session, ended="truncated:aborted")
        await self._drop(upload)

    async def _bytes(self, upload: Upload, numbers: Sequence[int]) -> AsyncGenerator[bytes, None]:
        session = upload.session
        for number in numbers:
            file = await self._spool.open(session.recording.id, number)
            try:
                reader = await BodyReader.open(file, _part_key(session, number))
                # A part whose keeping failed half way may have taken the place of the one that was acknowledged.
                if (await reader.md5()).hex() != upload.parts[number].etag:
                    raise Invalid(
                        f"part {number} is another one than was acknowledged: send it again", s3="InvalidPart"
                    )
                async for piece in reader.pieces():
                    yield piece
            finally:
                await file.close()

    async def _keep_beginning(self, upload: Upload) -> None:
        """The grace is over: parts 1, 2, … up to the first gap become what the truncated recording has.

        One that is being completed is waited for: its end is the better one.
        """
        session = upload.session
        async with upload.lock:
            if session.ending is not None or session.uploads:
                return
            await self._ingest.attach(session, offset=None)
            try:
                numbers = list(takewhile(upload.parts.__contains__, count(1)))
                async with aclosing(self._bytes(upload, numbers)) as pieces:
                    await continued(self._ingest, session, pieces)
            except (Refused, IntegrityError) as error:
                # Another list of parts had been begun, or a part is damaged: what is durable is what remains.
                fields = {"recording": session.recording.id, "error": error.code}
                logger.error("not every part of an upload could be kept", extra={"fields": fields})  # noqa: TRY400
            finally:
                self._ingest.detach(session)

    async def _drop(self, upload: Upload) -> None:
        self._uploads.pop(upload.session.recording.id, None)
        try:
            await self._spool.drop(upload.session.recording.id)
        except Unavailable as error:  # the next start drops it
            logger.warning("parts were not removed", extra={"fields": {"reason": error.message}})

    # -- background ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Drop the parts of recordings that the vault ended, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            await self.tidy()

    async def tidy(self) -> None:
        """Drop the parts of recordings that have ended."""
        for upload in tuple(self._uploads.values()):
            if upload.session.ended is not None and not upload.lock.locked():
                await self._drop(upload)

    async def recover(self) -> None:
        """Take up the uploads of an earlier incarnation; drop what belongs to no open recording of this node.

        Call it once the open recordings have been taken up.
        """
        for identifier, sizes in (await self._spool.kept()).items():
            session = self._ingest.live(identifier)
            if session is not None and session.ended is None:
                upload = Upload(session=session)
                for number in sorted(sizes):
                    await self._take_up(upload, number)
                self._adopt(upload)
            elif session is not None or await self._is_over(identifier):
                await self._spool.drop(identifier)

    async def _take_up(self, upload: Upload, number: int) -> None:
        file = await self._spool.open(upload.session.recording.id, number)
        try:
            reader = await BodyReader.open(file, _part_key(upload.session, number))
            upload.parts[number] = Part(size=reader.size, etag=(await reader.md5()).hex())
        except IntegrityError as error:
            fields = {"recording": upload.session.recording.id, "part": number, "error": error.code}
            logger.error("a part in the spool is damaged", extra={"fields": fields})  # noqa: TRY400  # the fact
        finally:
            await file.close()

    async def _is_over(self, identifier: RecordingId) -> bool:
        try:
            row = await self._catalog.recording(identifier)
        except NotFound:
            # Without its row nothing says where its key is: a catalog from a backup does not know it.
            logger.error("parts of an unknown recording are dropped", extra={"fields": {"recording": identifier}})  # noqa: TRY400
            return True
        if row.state is RecordingState.OPEN:
            fields = {"recording": identifier}
            logger.error("the spool holds parts of another node's recording; they are kept", extra={"fields": fields})
        return row.state is not RecordingState.OPEN


async def continued(ingest: Ingest, session: IngestSession, pieces: AsyncIterator[bytes]) -> None:
    """Write a whole body into an attached recording, of which a beginning may be durable already.

    Conflict, and nothing is written, if the body does not begin with what is durable.
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


def _part_key(session: IngestSession, number: int) -> PartKey:
    return PartKey(key=session.key, recording=session.recording.id, number=number)
