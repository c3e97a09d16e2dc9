"""A cancelled caller leaves nothing taken behind."""

import asyncio
import os
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tests.helpers.crashing import ManualClock
from vault.keystore.replicas import DirectoryReplica, Files
from vault.services.ingest.slots import Shares
from vault.services.uploads.spooling import SPOOL
from vault.storage.spool import FileSpool
from vault.telemetry import Metrics


class Slow(Files):
    """Takes a lock only when it is let go."""

    def __init__(self):
        self.asked, self.go = threading.Event(), threading.Event()

    def lock(self, path):
        self.asked.set()
        self.go.wait(5)
        return super().lock(path)


async def cancelled_while(work, asked, go):
    """Cancel the work while its thread waits, and let the thread end."""
    task = asyncio.create_task(work)
    await asyncio.get_running_loop().run_in_executor(None, asked.wait, 5)
    task.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_writer_leaves_no_lock_on_a_replica(tmp_path):
    slow = Slow()
    replica = DirectoryReplica(tmp_path, files=slow, wait_seconds=0)
    await replica.initialise()

    async def write():
        async with replica.exclusive():
            raise AssertionError("the writer was cancelled")

    await cancelled_while(write(), slow.asked, slow.go)
    async with replica.exclusive():
        pass


async def test_a_cancelled_upload_leaves_no_open_file(tmp_path, monkeypatch):
    asked, go = threading.Event(), threading.Event()
    opened = FileSpool._scratch

    def slow(self):
        asked.set()
        go.wait(5)
        return opened(self)

    monkeypatch.setattr(FileSpool, "_scratch", slow)
    room = Shares(1 << 20, SPOOL, clock=ManualClock(), metrics=Metrics(CollectorRegistry()))
    spool = FileSpool(tmp_path / "parts", room=room, disk_reserve_bytes=0, entropy=os.urandom)
    before = len([*Path("/proc/self/fd").iterdir()])
    await cancelled_while(spool.scratch(tenant="northfield"), asked, go)
    assert len([*Path("/proc/self/fd").iterdir()]) == before
