"""The slow attack: every 32-byte window of every artefact as a key, on every processor, up to a bound."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final

from vault.crypto.commitments import WINDOW_BYTES, Hit, Target, windows
from vault.ports.progress import Progress
from vault.services.artefacts import BLOCK_BYTES, Artefact, is_blank

_PER_WORKER: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A window of an artefact that opens a recording."""

    target: Target
    origin: str
    offset: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowAttack:
    """What was tried: `covered_bytes` of `total_bytes`, each as the start of a window, against `targets` objects."""

    targets: int
    covered_bytes: int
    total_bytes: int
    strikes: tuple[Strike, ...]


async def attack(
    artefacts: Sequence[Artefact], targets: Sequence[Target], *, limit: int, progress: Progress, workers: int = 0
) -> WindowAttack:
    """Try windows in the order of the artefacts until `limit` bytes are covered."""
    total = sum(artefact.size for artefact in artefacts)
    progress.begin("windows", min(limit, total))
    strikes: list[Strike] = []
    covered = 0
    if targets and limit:
        workers = workers or os.cpu_count() or 1
        slots = asyncio.Semaphore(workers * _PER_WORKER)
        # A fresh interpreter for each worker: this process has threads, which a fork would copy in mid-motion.
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))

        async def work(piece: _Piece) -> None:
            try:
                task = asyncio.get_running_loop().run_in_executor(pool, _task, piece.data, targets, piece.starts)
                strikes.extend(piece.strike(hit, targets) for hit in await task)
            finally:
                slots.release()
            progress.advance(piece.starts)

        try:
            async with asyncio.TaskGroup() as group:
                for piece in _pieces(artefacts, limit):
                    await slots.acquire()
                    covered += piece.starts
                    group.create_task(work(piece))
        finally:
            pool.shutdown(cancel_futures=True)
    return WindowAttack(
        targets=len(targets),
        covered_bytes=covered,
        total_bytes=total,
        strikes=tuple(sorted(strikes, key=lambda strike: (strike.origin, strike.offset, strike.kind))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A run of `starts` window starts; `data` reaches one window further, so that no border hides a key."""

    origin: str
    at: int
    data: bytes
    starts: int

    def strike(self, hit: Hit, targets: Sequence[Target]) -> Strike:
        return Strike(target=targets[hit.target], origin=self.origin, offset=self.at + hit.offset, kind=hit.kind)


def _pieces(artefacts: Sequence[Artefact], limit: int) -> Iterator[_Piece]:
    left = limit
    for artefact in artefacts:
        if left <= 0:
            return
        data = artefact.read()
        for at in range(0, len(data), BLOCK_BYTES):
            if is_blank(data, at):
                continue
            starts = min(BLOCK_BYTES, len(data) - at, left)
            if starts <= 0:
                return
            yield _Piece(origin=artefact.origin, at=at, data=data[at : at + starts + WINDOW_BYTES - 1], starts=starts)
            left -= starts


def _task(data: bytes, targets: Sequence[Target], starts: int) -> list[Hit]:
    return list(windows(data, targets, start=0, end=starts))
