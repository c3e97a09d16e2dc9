"""The contract of `vault.ports.cluster`, on files and on PostgreSQL sessions."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.tcp_proxy import Mode, tcp_proxy
from vault.errors import Unavailable
from vault.storage.postgres import FileClusterLocks, PostgresClusterLocks, PostgresSettings

LEASE_SECONDS = 1.5
WAIT_SECONDS = 0.4


class MachineClock:
    def now(self):
        raise NotImplementedError

    def monotonic(self):
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def make(place: str, *, wait_seconds: float = WAIT_SECONDS):
    if place.startswith("postgresql:"):
        settings = PostgresSettings(url=place, connect_seconds=5, statement_seconds=5)
        return PostgresClusterLocks(
            settings, clock=MachineClock(), wait_seconds=wait_seconds, lease_seconds=LEASE_SECONDS
        )
    return FileClusterLocks(Path(place), clock=MachineClock(), wait_seconds=wait_seconds)


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres"))])
def place(request, tmp_path):
    if request.param == "file":
        return str(tmp_path / "locks")
    return request.getfixturevalue("postgres").admin_url


@pytest.fixture
def locks(place):
    return make(place)


@pytest.fixture
def holder(place):
    """Another process that holds "sweeper" and says so."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.test_cluster"],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PLACE": place},
    )
    assert child.stdout.readline() == b"held\n"
    yield child
    child.kill()
    child.wait(timeout=10)
    child.stdout.close()


async def hold_and_tell(place: str) -> None:
    async with make(place, wait_seconds=5).hold("sweeper") as held:
        os.write(1, b"held\n")
        while True:
            await asyncio.sleep(0.05)
            held.check()


async def test_one_holds_and_the_next_comes_after(locks, place):
    order = []

    async def work(name, own):
        async with own.hold("keyring"):
            order.append(f"{name} in")
            await asyncio.sleep(0.02)
            order.append(f"{name} out")

    await asyncio.gather(*[work(n, make(place, wait_seconds=10)) for n in range(5)])
    assert [line.split()[1] for line in order] == ["in", "out"] * 5
    assert all(order[n].split()[0] == order[n + 1].split()[0] for n in range(0, 10, 2))


async def test_tasks_of_one_process_exclude_each_other_too(locks):
    async with locks.hold("keyring") as held:
        held.check()
        with pytest.raises(Unavailable, match="keyring"):
            async with locks.hold("keyring"):
                pytest.fail("two hold it")


async def test_trying_does_not_wait_and_tells(locks):
    async with locks.try_hold("sweeper") as first:
        assert first is not None
        async with locks.try_hold("sweeper") as second:
            assert second is None
        first.check()
    async with locks.try_hold("sweeper") as again:
        assert again is not None


async def test_names_do_not_disturb_each_other(locks):
    async with locks.hold("keyring"), locks.hold("sweeper"):
        pass


async def test_a_failing_holder_frees_the_lock(locks):
    with pytest.raises(ZeroDivisionError):
        async with locks.hold("keyring"):
            raise ZeroDivisionError
    async with locks.hold("keyring"):
        pass


async def test_a_cancelled_waiter_leaves_nothing_behind(locks, place):
    async with locks.hold("keyring"):
        waiter = asyncio.create_task(make(place, wait_seconds=30).hold("keyring").__aenter__())
        await asyncio.sleep(0.1)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    async with locks.hold("keyring"):
        pass


async def test_a_cancelled_holder_is_cancelled_and_frees_the_lock(locks):
    entered = asyncio.Event()

    async def work():
        async with locks.hold("keyring"):
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with locks.hold("keyring"):
        pass


async def test_a_killed_holder_frees_the_lock(place, holder):
    async with make(place).try_hold("sweeper") as early:
        assert early is None
    holder.kill()
    async with make(place, wait_seconds=10).hold("sweeper"):
        pass


async def test_a_stopped_holder_never_goes_on_beside_another(place, holder):
    holder.send_signal(signal.SIGSTOP)
    try:
        async with make(place, wait_seconds=LEASE_SECONDS * 2).hold("sweeper"):
            # It was taken from the stopped one, which notices before it does anything more.
            holder.send_signal(signal.SIGCONT)
            assert await asyncio.to_thread(holder.wait, 10) != 0
    except Unavailable:
        # It was not: then it is still the stopped one's.
        assert not place.startswith("postgresql:")
        holder.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.3)
        assert holder.poll() is None


@pytest.mark.xdist_group("postgres")
async def test_a_holder_whose_session_ends_is_ended_with_unavailable(postgres):
    locks = make(postgres.admin_url)

    async def work():
        async with locks.hold("keyring"):
            await postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            )
            await asyncio.sleep(30)
            pytest.fail("it went on without the lock")

    with pytest.raises(Unavailable, match="lost"):
        await work()
    async with locks.hold("keyring"):
        pass


@pytest.mark.xdist_group("postgres")
async def test_a_holder_that_is_cut_off_gives_up_before_another_can_have_the_lock(postgres):
    gave_up = []
    async with tcp_proxy(postgres.port) as proxy:
        far = make(postgres.url("postgres", port=proxy.port))

        async def work():
            try:
                async with far.hold("keyring"):
                    await proxy.set(Mode.STALL)
                    await asyncio.sleep(30)
            finally:
                gave_up.append(time.monotonic())

        task = asyncio.create_task(work())
        await asyncio.sleep(0.3)
        async with make(postgres.admin_url, wait_seconds=15).hold("keyring"):
            had = time.monotonic()
            with pytest.raises(Unavailable, match="lost"):
                await task
    assert gave_up[0] <= had


@pytest.mark.xdist_group("postgres")
async def test_without_a_database_nobody_holds_anything(postgres):
    locks = make(postgres.url("postgres", port=1))
    with pytest.raises(Unavailable):
        async with locks.hold("keyring"):
            pytest.fail("held")
    with pytest.raises(Unavailable):
        async with locks.try_hold("keyring"):
            pytest.fail("held")


if __name__ == "__main__":
    asyncio.run(hold_and_tell(os.environ["PLACE"]))
