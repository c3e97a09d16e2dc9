"""Uploads of whole bodies: a body is spooled and checked before any byte is recorded, so a refused one leaves nothing.

A spooled body has no file name, and only this process has its key, so a crash leaves nothing of it. It is acknowledged
only after it is in the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final
from weakref import WeakValueDictionary

from vault.errors import Conflict, Unavailable
from vault.format.notes import Etag, etag_of
from vault.ids import RecordingId, TenantId, call_keys, call_name, new_id
from vault.model import DataKey, Principal, Recording, RecordingState
from vault.ports.journal import Spool
from vault.services.ingest.call_keys import CallKeys
from vault.services.ingest.call_notes import Notes
from vault.services.ingest.ingest import Ingest
from vault.services.ingest.open_rows import Joiner
from vault.services.ingest.sessions import CallStart, IngestSession
from vault.services.ingest.slots import Shares
from vault.services.playback.playback import Playable, Playback
from vault.services.recordings.reading import unix_ms
from vault.services.recordings.search import Search
from vault.services.surroundings import Surroundings
from vault.services.uploads.parts import continued
from vault.services.uploads.spooling import BodyReader, BodyWriter, PartKey, Windows

_RETRIED: Final = 4
"""How many of a name's newest recordings a body is compared with; a retry follows closely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A recording whose end is durable."""

    recording: Recording
    size: int
    etag: str
    """The ETag of the answer to its recorder; the SHA-256 of the stored bytes if it did not come over S3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A body that is being received."""

    writer: BodyWriter
    part: PartKey

    async def reader(self) -> BodyReader:
        """End the body and return its reader; nothing may be written afterwards."""
        await self.writer.end()
        return await BodyReader.open(self.writer.file, self.part)


class Objects:
    """Records whole bodies, and finds recorded ones by their name."""

    def __init__(
        self,
        *,
        ingest: Ingest,
        call_keys: CallKeys,
        notes: Notes,
        playback: Playback,
        search: Search,
        spool: Spool,
        shares: Shares,
        surroundings: Surroundings,
        windows: Windows,
    ) -> None:
        self._ingest = ingest
        self._call_keys = call_keys
        self._notes = notes
        self._playback = playback
        self._search = search
        self._spool = spool
        self._shares = shares
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._windows = windows
        self._alone: WeakValueDictionary[tuple[TenantId, str], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def body(self, tenant: TenantId, *, size: int | None) -> AsyncIterator[Body]:
        """Yield a spooled body to write to, which is dropped at the end of the context.

        `size` is its size in bytes, None if unknown. Unavailable if the tenant may not use so much of the spool now.
        """
        self._shares.require(tenant, size or 0)
        file = await self._spool.scratch(tenant=tenant)
        try:
            # The sealed message needs an id in its context; no recording has this one.
            nobody = RecordingId(new_id("rec", at=self._clock.now(), entropy=self._entropy))
            part = PartKey(key=DataKey(self._entropy(32)), recording=nobody, number=0)
            writer = BodyWriter(file, part, entropy=self._entropy, windows=self._windows)
            try:
                yield Body(writer=writer, part=part)
            finally:
                writer.drop()
        finally:
            await file.close()

    @asynccontextmanager
    async def only_new(
        self, tenant: TenantId, call_key: str, *, object_key: str, but: RecordingId | None = None
    ) -> AsyncIterator[None]:
        """Let one conditional write at a time use a key that has no object yet; the recording `but` does not count.

        Conflict: `s3` PreconditionFailed if the key has an object, ConditionalRequestConflict if another node is
        creating one. The exclusion covers this process; of two nodes the catalog lets one begin under a call key.
        """
        async with self._alone.setdefault((tenant, object_key), asyncio.Lock()):
            found = await self.find(tenant, call_key, object_key=object_key)
            if found is not None and found.recording.id != but:
                raise Conflict("this key already has an object; nothing was kept", s3="PreconditionFailed")
            newest = await self._call_keys.newest(tenant, call_key)
            for number in range(newest, max(newest - _RETRIED, 0), -1):
                row = await self._search.call(tenant, call_name(call_key, number))
                if row is not None and row.state is RecordingState.OPEN and row.node != self._ingest.node:
                    raise _begun_meanwhile()
            yield

    async def put(
        self, call: CallStart, body: Body, *, sha256: str, etag: str, actor: Principal, only_new: bool = False
    ) -> Whole:
        """Record a checked body; durable when this returns. With `only_new`, only if its key has no object yet.

        A body that one of the newest few recordings of its name already has is not recorded again, and keeps that
        recording's ETag. If the name belongs to a recording with other audio, or to an upload in parts, the body
        becomes a further recording, `~2` and so on: no call is refused for its name.
        """
        reader = await body.reader()
        at_ms = max(unix_ms(self._clock.now()), 0)
        call = replace(call, answer=Etag(offset=reader.size, at_ms=at_ms, etag=etag))
        if not only_new:
            return await self._put(call, reader, sha256=sha256, etag=etag, actor=actor)
        async with self.only_new(call.tenant, call.call_key, object_key=call.object_key or call.call_key):
            return await self._put(call, reader, sha256=None, etag=etag, actor=actor)

    async def _put(
        self, call: CallStart, reader: BodyReader, *, sha256: str | None, etag: str, actor: Principal
    ) -> Whole:
        """Record a body as `put` does; without `sha256` only under a name without a recording."""
        newest = await self._call_keys.newest(call.tenant, call.call_key)
        first = max(newest - _RETRIED + 1, 1)
        for number, name in enumerate(call_keys(call.call_key, first=first), first):
            named = replace(call, call_key=name)
            known_taken = number <= newest and self._ingest.live_call(call.tenant, name) is None
            session = None if known_taken else await self._session(named, actor)
            if session is not None:
                if await self._write(session, reader, etag=etag):
                    return await self.ended(session)
            elif sha256 is None and number > newest:
                raise _begun_meanwhile()
            elif sha256 is not None:
                known = await self._same(named, size=reader.size, sha256=sha256, gap=known_taken)
                # A retry may declare another format.
                joiner = replace(Joiner.of(call, actor), media=None)
                if known is not None and await self._ingest.joining.same(joiner, known.recording):
                    return known
        raise Conflict("too many recordings have this call key", hint="give each call a key of its own")

    async def keep_beginning(self, call: CallStart, body: Body, *, length: int, actor: Principal) -> None:
        """Record the first `length` bytes of a body whose recorder is gone; the grace period begins.

        If the name is taken by another recording, nothing is recorded.
        """
        reader = await body.reader()
        session = await self._session(call, actor)
        if session is None:
            return
        try:
            if session.durable < length:
                async with aclosing(reader.pieces(length)) as pieces:
                    await continued(self._ingest, session, pieces)
        finally:
            self._ingest.detach(session)

    async def _session(self, call: CallStart, actor: Principal) -> IngestSession | None:
        """Return a new or an interrupted session with this upload attached; None if the name is taken."""
        session = self._ingest.live_call(call.tenant, call.call_key)
        if session is None:
            try:
                return await self._ingest.start(call, actor=actor)
            except Conflict:
                return None
        if session.leaving or session.owner is not None or session.resumable:
            return None
        joiner = Joiner.of(call, actor)
        if not await self._ingest.joining.may(joiner, session):
            return None
        try:
            await self._ingest.attach(session, offset=None, call=joiner)
        except Conflict as error:
            raise Unavailable("another upload of this call is under way", retry_after_seconds=2) from error
        return session

    async def _write(self, session: IngestSession, reader: BodyReader, *, etag: str) -> bool:
        """Write the body, its ETag, and the recording's end; False if the recording has other durable audio."""
        try:
            async with aclosing(reader.pieces()) as pieces:
                await continued(self._ingest, session, pieces)
            await self._notes.tell_etag(session, offset=reader.size, etag=etag)
            await self._ingest.finish(session)
        except Conflict:
            return False
        finally:
            self._ingest.detach(session)
        return True

    async def _same(self, call: CallStart, *, size: int, sha256: str, gap: bool) -> Whole | None:
        """Return the finished recording of this name if it has this body; with `gap` the name may have no recording."""
        row = await self._call_keys.resolve(call.tenant, call.call_key, here=True)
        if isinstance(row, IngestSession):
            if row.ended is None or row.durable != size:
                return None
            known = await self._ingest.storer.plaintext_sha256(row)
            return await self.ended(row) if known == sha256 else None
        if row is None and gap:
            return None
        if row is None or row.state is RecordingState.OPEN:
            raise Unavailable("another upload of this call is under way", retry_after_seconds=2)
        if row.state not in (RecordingState.SEALED, RecordingState.TRUNCATED) or row.stored_bytes != size:
            return None
        found = await self._playback.finished(row)
        return _whole(found) if found.sha256 == sha256 else None

    async def ended(self, session: IngestSession) -> Whole:
        """Return the recording of an ended session, stored or not."""
        row, size = session.recording, session.keeping.audio(session.durable)
        etag = etag_of(session.keeping.notes, size) or await self._ingest.storer.plaintext_sha256(session)
        return Whole(recording=row, size=size, etag=etag)

    async def whole(self, recording: Recording) -> Whole | None:
        """Return the recording as an object; None if it is not whole, or not finished."""
        session = self._ingest.live(recording.id)
        if session is not None:
            return await self.ended(session) if session.ended == RecordingState.SEALED else None
        if recording.state not in (RecordingState.OPEN, RecordingState.SEALED):
            return None
        try:
            found = await self._playback.finished(recording)  # it may have ended between the two look-ups
        except Conflict:
            return None
        return _whole(found) if found.recording.state is RecordingState.SEALED else None

    async def find(self, tenant: TenantId, call_key: str, *, object_key: str | None = None) -> Whole | None:
        """Return the newest whole recording of a name; None without one, or while it is not finished.

        With `object_key`, recordings with that S3 object key count too.
        """
        known = () if object_key is None else await self._search.object(tenant, object_key)
        found = [await self._first_whole(known), await self._newest_whole(tenant, call_key)]
        return max((each for each in found if each is not None), key=lambda each: each.recording.id, default=None)

    async def _first_whole(self, rows: Iterable[Recording]) -> Whole | None:
        for row in rows:
            if (found := await self.whole(row)) is not None:
                return found
        return None

    async def _newest_whole(self, tenant: TenantId, call_key: str) -> Whole | None:
        for number in range(await self._call_keys.newest(tenant, call_key), 0, -1):
            row = await self._call_keys.resolve(tenant, call_name(call_key, number))
            if isinstance(row, IngestSession):
                row = row.recording
            if row is not None and (found := await self.whole(row)) is not None:
                return found
        return None


def _begun_meanwhile() -> Conflict:
    return Conflict(
        "another upload of this key has begun; nothing was kept", hint="try again", s3="ConditionalRequestConflict"
    )


def _whole(found: Playable) -> Whole:
    row, size = found.recording, found.length
    etag = etag_of(found.notes, size) or found.sha256
    assert etag is not None, "a manifest has it"
    return Whole(recording=row, size=size, etag=etag)
