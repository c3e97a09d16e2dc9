"""Reads plaintext ranges of a recording from its segments, and of a live one also from the journal."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from vault.crypto.sealed import SegmentOpener, open_manifest
from vault.errors import IntegrityError, NotFound
from vault.format.manifest import Manifest
from vault.format.notes import audio_end
from vault.format.segment import SegmentHeader
from vault.media.length import call_length
from vault.media.wav_sizes import WavHead, find_wav_head, samples_bytes
from vault.model import MANIFEST_INDEX, Container, DataKey, Part, Recording, SegmentRef
from vault.ports.journal import JournalEntry
from vault.ports.objects import ObjectStore
from vault.threads import in_thread

WINDOW_BYTES = 1 << 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def segment_header(recording: Recording, *, index: int, offset: int, attempt: str) -> SegmentHeader:
    """Return the only valid header of a segment in this position; reading compares the stored one byte for byte."""
    return SegmentHeader(
        recording=recording.id,
        part=Part.AUDIO,
        index=index,
        offset=offset,
        attempt=attempt,
        coordinate=recording.audio,
        created_ms=unix_ms(recording.created_at),
    )


def unix_ms(moment: datetime) -> int:
    """Return whole milliseconds since 1970, in integers, so that whole milliseconds stay exact."""
    return (moment - _EPOCH) // _MILLISECOND


def of_ms(milliseconds: int) -> datetime:
    """Return the instant of whole milliseconds since 1970."""
    return _EPOCH + milliseconds * _MILLISECOND


def lasted_of(manifest: Manifest, *, head: WavHead | None) -> timedelta | None:
    """Return how long the call of a manifest lasted, with its gaps and pauses; None if unknown.

    `head` is a WAV's head.
    """
    copy = manifest.catalog
    length = audio_end(manifest.notes, manifest.length)
    return call_length(
        manifest.media,
        length,
        samples_bytes=samples_bytes(head, length) if head is not None and head.samples_at else None,
        missing=timedelta(milliseconds=sum(gap.missing_ms for gap in manifest.gaps)),
        started_at=of_ms(manifest.started_ms),
        created_at=of_ms(manifest.started_ms if copy is None else copy.created_ms),
        finished_at=of_ms(manifest.ended_ms),
    )


async def look_through(stored_length: int, read: Callable[[int, int], AsyncIterator[bytes]]) -> WavHead | None:
    """Return the head of a stored WAV; `read` yields the bytes between two offsets."""
    looking = find_wav_head(stored_length)
    try:
        start, end = next(looking)
        while True:
            start, end = looking.send(b"".join([piece async for piece in read(start, end)]))
    except StopIteration as found:
        head: WavHead | None = found.value
        return head


class Reader:
    """Returns verified plaintext of byte ranges; a failed check is an IntegrityError."""

    def __init__(self, *, store: ObjectStore) -> None:
        self._store = store

    async def manifest(self, recording: Recording, key: DataKey, objects: Sequence[SegmentRef]) -> Manifest:
        """Fetch, open and check the manifest against the catalog row."""
        ref = next((ref for ref in objects if ref.index == MANIFEST_INDEX), None)
        if ref is None:
            raise IntegrityError(f"{recording.id} is finished but the catalog names no manifest for it")
        data = await self._get(ref, 0, ref.object_bytes)
        manifest = open_manifest(key, recording.id, recording.audio, data)
        if manifest.length != recording.stored_bytes or manifest.state != recording.state.value:
            raise IntegrityError(f"the manifest of {recording.id} contradicts its catalog row; no audio was returned")
        return manifest

    async def read(
        self,
        recording: Recording,
        key: DataKey,
        segments: Sequence[SegmentRef],
        start: int,
        end: int,
        *,
        entry: JournalEntry | None = None,
        window: int = WINDOW_BYTES,
    ) -> AsyncGenerator[bytes, None]:
        """Yield plaintext `[start, end)` in pieces of at most `window`; bytes after the segments come from `entry`.

        `segments` may grow while the recording is live. Journal space is released only after its segment is in the
        list, so bytes that have left the journal are in a segment of the list.
        """
        opener: SegmentOpener | None = None
        current: SegmentRef | None = None
        while start < end:
            ref = _covering(segments, start)
            if ref is None:
                stop = min(end, start + window)
                piece = await self._from_journal(recording, segments, entry, start, stop)
                if piece is None:
                    continue
            else:
                if ref is not current or opener is None:
                    opener, current = await self._opener(recording, key, ref), ref
                stop = min(end, start + window, ref.offset + ref.length)
                a, b = opener.ciphertext_range(start - ref.offset, stop - ref.offset)
                piece = opener.open(start - ref.offset, stop - ref.offset, await self._get(ref, a, b))
            yield piece
            start = stop

    async def wav_head(
        self, recording: Recording, key: DataKey, segments: Sequence[SegmentRef], length: int
    ) -> WavHead | None:
        """Return the head of a WAV whose `length` bytes are all in segments; None if none authenticates."""
        if recording.media.container is not Container.WAV:
            return None
        try:
            return await look_through(length, partial(self.read, recording, key, segments))
        except IntegrityError:
            return None

    async def _from_journal(
        self,
        recording: Recording,
        segments: Sequence[SegmentRef],
        entry: JournalEntry | None,
        start: int,
        stop: int,
    ) -> bytes | None:
        """Read from the journal; None if a segment has replaced the bytes meanwhile."""
        if entry is None:
            raise IntegrityError(f"{recording.id} has no segment for byte {start}; no audio was returned from there")
        try:
            return await in_thread(entry.read, start, stop)
        except (IntegrityError, ValueError, OSError):
            if _covering(segments, start) is not None:
                return None
            raise

    async def _opener(self, recording: Recording, key: DataKey, ref: SegmentRef) -> SegmentOpener:
        header = segment_header(recording, index=ref.index, offset=ref.offset, attempt=ref.attempt)
        opener = SegmentOpener(key, header, length=ref.length)
        opener.check_prefix(await self._get(ref, 0, opener.prefix_bytes))
        return opener

    async def _get(self, ref: SegmentRef, start: int, end: int) -> bytes:
        try:
            data = await self._store.get(ref.name, start=start, length=end - start)
        except NotFound as error:
            raise IntegrityError(
                f"an object of {ref.recording} is missing from the store (segment {ref.index}); no audio was returned",
                hint="the store lost the object or a person deleted it: check its versions and the access log",
            ) from error
        if len(data) != end - start:
            raise IntegrityError(
                f"segment {ref.index} of {ref.recording} is {end - start - len(data)} bytes short; nothing was returned"
            )
        return data


def _covering(segments: Sequence[SegmentRef], offset: int) -> SegmentRef | None:
    for ref in segments:
        if ref.index != MANIFEST_INDEX and ref.offset <= offset < ref.offset + ref.length:
            return ref
    return None
