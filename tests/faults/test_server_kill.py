"""kill -9 on one data directory, over and over: what was acknowledged is there, and no nonce ever repeats."""

import asyncio
import contextlib
import time

import pytest

from tests.helpers.load import Load
from tests.helpers.salts import SaltLedger
from tests.helpers.server import log_of, make_site, session, zygote
from tests.helpers.soak import SOAK, chance

KILLS = 100 if SOAK else 6
CONCURRENT = 6
SETTINGS = {
    "server": {"resume_grace": "2s", "finish_wait": "500ms"},
    "journal": {"file_bytes": "96KiB"},
    "segments": {"max_bytes": "24KiB", "max_age": "300ms"},
}


class Ordeal:
    """One vault, its recorders, and the cycles of load, kill and reckoning."""

    def __init__(self, site, seed, process):
        self.site = site
        self.load = Load(site, seed=seed)
        self.random = self.load.random
        self.process = process
        self.salts = SaltLedger(site.config, site.directory / "kept")
        self.touched = []
        self.kills = 0
        self.resumed = 0
        self.seen_statuses = set()

    def kill(self, server):
        assert server.kill() == -9, f"the server ended by itself:\n{log_of(self.site)}"
        self.kills += 1
        self.salts.inspect()

    async def cycle(self):
        if self.random.random() < 0.1:
            # While it recovers from the last kill.
            server = self.process.launch(self.site)
            await asyncio.sleep(self.random.uniform(0.01, 0.15))
            self.kill(server)
        server = self.process.start(self.site)
        async with session(server) as client:
            await self.reckon(client)
            async with asyncio.TaskGroup() as group:
                await self._under_load(server, client, group)

    async def reckon(self, client):
        """Check everything that the last kill could have hurt, and some of what earlier ones could have."""
        old = self.random.sample(self.load.calls, min(3, len(self.load.calls)))
        await asyncio.gather(*(self.load.verify(client, call) for call in {*self.touched, *old}))

    async def _under_load(self, server, client, group):
        resuming = [call for call in self.touched if not call.whole and not call.abandoned]
        fresh = [self.load.new_call() for _ in range(max(2, CONCURRENT - len(resuming)))]
        for call in resuming:
            if self.random.random() < 0.15:
                call.abandoned = True
            else:
                group.create_task(self._resume(client, call))
        for call in fresh:
            group.create_task(self._send(client, call))
        self.touched = [*(call for call in resuming if not call.abandoned), *fresh]
        group.create_task(self.load.poll(client, self.touched))
        end = time.monotonic() + self._moment()
        while time.monotonic() < end:
            await asyncio.sleep(0.01)
            self.salts.keep()
        self.kill(server)

    def _moment(self):
        # Now and then long enough for the grace of what was abandoned to run out.
        return 2.8 if self.random.random() < 0.06 else self.random.uniform(0.01, 0.6)

    async def _send(self, client, call):
        await asyncio.sleep(self.random.uniform(0, 0.1))
        status = await self.load.upload(client, call)
        assert status in (None, 201), f"{call} was answered {status}:\n{log_of(self.site)}"

    async def _resume(self, client, call):
        with contextlib.suppress(OSError):
            durable = call.acked if self.random.random() < 0.7 and call.known else None
            status = await self.load.upload(client, call, offset=durable)
            self.seen_statuses.add(status)
            assert status in (None, 200, 201, 409), f"{call} was answered {status}:\n{log_of(self.site)}"
            if status == 201:
                self.resumed += 1
            if status == 409:
                await self._refused(client, call)

    async def _refused(self, client, call):
        """A resumption is refused only if the recording has ended: its end was durable, or its grace ran out."""
        try:
            durable = await self.load.progress(client, call)
        except OSError:
            return
        if durable == len(call.data) and call.state in ("open", "sealed"):
            return
        assert call.state == "truncated", f"{call} was refused though it is {call.state} at byte {durable}"
        call.abandoned = True

    async def last_words(self, client):
        """With no more kills coming, every recording ends as it should."""
        await asyncio.gather(*(self.load.verify(client, call) for call in self.load.calls))
        for call in self.load.calls:
            if call.abandoned or call.whole or not call.known:
                continue
            status = await self.load.upload(client, call, offset=call.acked)
            assert status in (200, 201, 409), f"{call} was answered {status}:\n{log_of(self.site)}"
            if status == 409:
                await self._refused(client, call)
        await self.load.settled(client, self.load.calls, seconds=20)
        for call in self.load.calls:
            if not call.known:
                continue
            await self.load.verify(client, call)
            assert call.state == ("truncated" if call.acked < len(call.data) else call.state)
            assert call.state == "sealed" or not call.whole, f"{call} was acknowledged whole and is {call.state}"
        sealed = [call for call in self.load.calls if call.state == "sealed"]
        for call in self.random.sample(sealed, min(20, len(sealed))):
            assert await self.load.upload(client, call) == 200  # the receipt's digest is checked there


@pytest.mark.soak
@pytest.mark.xdist_group("kill")
async def test_kills_lose_no_acknowledged_byte_and_repeat_no_nonce(tmp_path):
    site = await make_site(tmp_path, **SETTINGS)
    with zygote() as process:
        ordeal = Ordeal(site, chance("kills").getrandbits(32), process)
        while ordeal.kills < KILLS:
            await ordeal.cycle()
        server = process.start(site)
        async with session(server) as client:
            await ordeal.last_words(client)
        server.terminate()
        assert server.wait() == 0
        ordeal.salts.inspect()
    states = [call.state for call in ordeal.load.calls]
    # The run is worth nothing unless the kills hit every stage; a few of them need not.
    assert states.count("sealed") > KILLS
    assert ordeal.salts.records > 10 * KILLS
    if SOAK:
        assert states.count("truncated") > KILLS // 20
        assert ordeal.resumed > KILLS // 5
        assert ordeal.salts.objects > 2 * KILLS
        assert ordeal.salts.journal_files >= KILLS // 2
    assert not list(site.config.journal_path.glob("*.damaged"))
    assert {path.name for path in site.config.journal_path.iterdir()} == {"journal.lock", "node.id"}
