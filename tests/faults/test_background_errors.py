"""Work beside the requests that meets an error which nobody foresaw says so and goes on, or gives up what it guards."""

import asyncio
import dataclasses
import os
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from vault.config import parse_config
from vault.errors import Unavailable
from vault.ids import TokenId
from vault.ports.repeats import Keyed
from vault.server.connections.connections import Connections, connections_of
from vault.server.connections.tls import Reread
from vault.services.repeats import Repeats
from vault.services.surroundings import Surroundings
from vault.storage import postgres
from vault.telemetry import Metrics
from vault.wiring import SystemClock

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Turns:
    """A call that fails in a way that nobody foresaw the first time, and notes the second."""

    def __init__(self, answer=None):
        self.again = asyncio.Event()
        self._failed = False
        self._answer = answer

    def __call__(self, *_, **__):
        if not self._failed:
            self._failed = True
            raise ZeroDivisionError
        self.again.set()
        return self._answer


async def test_a_claim_is_renewed_after_a_renewal_that_failed_unexpectedly(monkeypatch):
    monkeypatch.setattr("vault.services.repeats._RENEWED_EVERY", 0.001)
    turns = Turns()

    class Rows:
        async def renew_request(self, *args, **words):
            turns(*args, **words)

    surroundings = Surroundings(clock=SystemClock(), entropy=os.urandom, metrics=Metrics(CollectorRegistry()))
    repeats = Repeats(catalog=Rows(), surroundings=surroundings, sealing_keys=lambda: ())
    claim = Keyed(token=TokenId("tok_1"), key="k", request="r", attempt="a", created_at=NOW, until=NOW)
    async with repeats.alive(claim):
        await asyncio.wait_for(turns.again.wait(), 5)


async def test_settings_are_read_again_after_a_reading_that_failed_unexpectedly(tmp_path):
    config = parse_config({}, base=tmp_path)
    asked, turns = asyncio.Event(), Turns(config)
    async with Reread(asked=asked, load=turns).followed(config, []):
        asked.set()
        while asked.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        asked.set()
        await asyncio.wait_for(turns.again.wait(), 5)


async def test_the_bounds_of_connections_are_enforced_after_a_look_that_failed_unexpectedly(tmp_path, monkeypatch):
    config = parse_config({}, base=tmp_path)
    connections = connections_of(config.server, Metrics(CollectorRegistry()), clock=SystemClock())
    connections.bounds = dataclasses.replace(connections.bounds, stranger_seconds=0.01, idle_seconds=0.01)
    turns = Turns()
    monkeypatch.setattr(Connections, "_enforce", turns)
    async with connections.watched():
        await asyncio.wait_for(turns.again.wait(), 5)


async def test_a_lock_that_can_no_longer_be_watched_is_lost_and_stops_what_it_guards(monkeypatch):
    class Connection:
        async def fetchval(self, *_, **__):
            return True

        async def execute(self, *_, **__):
            raise ZeroDivisionError

        def terminate(self):
            pass

    async def connect(*_, **__):
        return Connection()

    monkeypatch.setattr(postgres, "connect", connect)
    settings = postgres.PostgresSettings(url="postgresql://nowhere/x")
    locks = postgres.PostgresClusterLocks(settings, clock=SystemClock(), lease_seconds=0.05)

    async def held():
        async with locks.try_hold("sweeper"):
            await asyncio.Event().wait()

    with pytest.raises(Unavailable, match="lock sweeper was lost"):
        await asyncio.wait_for(held(), 5)
