"""Labels stored objects as held. The pin protects; the label follows after the hold's answer.

A crash loses the queue: those objects are protected without a label.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from vault.errors import NotFound, Unavailable, VaultError
from vault.ids import RecordingId
from vault.ports.objects import ObjectStore
from vault.ports.recordings import RecordingLookup

_PAGE: Final = 500
_AT_ONCE: Final = 24
"""How many objects are labelled at a time: each waits for a disk or a bucket."""
_AGAIN_SECONDS: Final = 5.0

logger = logging.getLogger(__name__)


class Labels:
    """Labels the objects of what was held, in order, until it is done: an outage only makes it wait."""

    def __init__(self, *, catalog: RecordingLookup, store: ObjectStore) -> None:
        self._catalog = catalog
        self._store = store
        self._waiting: deque[RecordingId] = deque()
        self._work = asyncio.Event()
        self._done = asyncio.Event()
        self._done.set()

    def show(self, recordings: Sequence[RecordingId]) -> None:
        """Have the objects that these recordings have now say that they are held."""
        self._waiting.extend(recordings)
        if self._waiting:
            self._done.clear()
            self._work.set()

    async def settled(self, *, within: float) -> None:
        """Return once everything that was asked for is shown, or after `within` seconds."""
        try:
            async with asyncio.timeout(within):
                await self._done.wait()
        except TimeoutError:
            logger.warning("holds are not shown on all objects", extra={"fields": {"recordings": len(self._waiting)}})

    async def run(self) -> None:
        """Label until cancelled."""
        while True:
            await self._work.wait()
            while self._waiting:
                page = list(islice(self._waiting, _PAGE))
                if not await self._labelled(page):
                    await asyncio.sleep(_AGAIN_SECONDS)
                    continue
                for _ in page:
                    self._waiting.popleft()
            self._work.clear()
            self._done.set()

    async def _labelled(self, page: Sequence[RecordingId]) -> bool:
        """Label what can be; False if the catalog or the store did not answer, and all of it is to be done again."""
        answered = True
        try:
            found = await self._catalog.segments_of(page)
            names = iter([ref.name for recording in page for ref in found[recording]])
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(self._each(names)) for _ in range(_AT_ONCE)]
            if absent := sum(each.result() for each in workers):
                logger.warning(
                    "hold state not shown on objects that are not there", extra={"fields": {"objects": absent}}
                )
        except* Unavailable as errors:
            answered = False
            _warn("hold state not shown on objects yet", errors.exceptions[0])
        except* VaultError as errors:
            _warn("hold state not shown on some objects", errors.exceptions[0])
        return answered

    async def _each(self, names: Iterator[str]) -> int:
        """Label what comes; return how many objects were not there."""
        absent = 0
        for name in names:
            try:
                await self._store.set_held(name, held=True)
            except NotFound:
                absent += 1
        return absent


def _warn(what: str, error: Exception) -> None:
    logger.warning(what, extra={"fields": {"error": type(error).__name__}})
