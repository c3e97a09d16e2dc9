"""Health of this node: its row in the catalog, its readiness, and the gauges that no event keeps current."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Final, Protocol

from vault.access.permissions import has_expired
from vault.errors import NotFound, Unavailable, VaultError, reason
from vault.ids import TenantId
from vault.model import HoldKind, HoldState, RecordingState, Role
from vault.ports.cluster import Node, NodeRows
from vault.ports.holds import AlertRows, HoldTermsLookup, LabelRows
from vault.ports.journal import Journal
from vault.ports.keys import Keyring
from vault.ports.objects import ObjectStore
from vault.ports.recordings import RecordingCounts, RecordingGauges
from vault.ports.rescue import SchemaCheck
from vault.ports.tenants import TokenLists
from vault.ports.time import Clock
from vault.retention.decide import review_overdue
from vault.services.ingest.ingest import Ingest
from vault.services.surroundings import Surroundings
from vault.services.tenants.tenants import Tenants

# -- this node's row ----------------------------------------------------------------------------------------------

_BEAT_SECONDS = 10.0

logger = logging.getLogger(__name__)


class Presence:
    """Keeps this node's row in the catalog current. People read it; decisions between nodes use locks instead."""

    def __init__(self, *, catalog: NodeRows, ingest: Ingest, clock: Clock, name: str) -> None:
        self._catalog = catalog
        self._ingest = ingest
        self._clock = clock
        self._name = name
        self.seen = True
        """Whether the latest beat reached the catalog."""

    async def register(self) -> None:
        """Add this node to the catalog, before the first recording, so that no row names an unknown node."""
        now = self._clock.now()
        await self._catalog.register_node(Node(id=self._ingest.node, name=self._name, started_at=now, seen_at=now))

    async def run(self) -> None:
        """Beat until cancelled; during an outage of the catalog the node only looks absent."""
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            try:
                await self.appear()
            except Unavailable as error:
                logger.warning("the node was not seen", extra={"fields": {"reason": error.message}})

    async def appear(self) -> None:
        """Beat; register again if this node was declared lost. Unavailable if the catalog cannot be written."""
        try:
            try:
                await self.beat()
            except NotFound:
                logger.warning("this node had been declared lost; it is registered again")
                await self.register()
        except Unavailable:
            self.seen = False
            raise
        self.seen = True

    async def beat(self) -> None:
        """Store the time and the number of bytes that only the journal has."""
        await self._catalog.beat_node(
            self._ingest.node, at=self._clock.now(), unstored_bytes=self._ingest.unstored_bytes
        )


# -- readiness and gauges -----------------------------------------------------------------------------------------

_CLOSE_SECONDS: Final = 1.0


class Look:
    """One check of a collaborator. While an answer is outstanding no second question is sent, so none pile up."""

    def __init__(self, what: str, ask: Callable[[], Awaitable[None]], *, clock: Clock) -> None:
        self._what = what
        self._ask = ask
        self._clock = clock
        self._task: asyncio.Task[VaultError | None] | None = None
        self._began = 0.0
        self._latest: tuple[VaultError | None, float] | None = None

    async def within(self, seconds: float) -> VaultError | None:
        """Ask, or wait for a question under way; return None if all is well, else the error.

        Returns Unavailable if there is no answer within `seconds` of the question.
        """
        task = self._task
        if task is None or task.done():
            self._began = self._clock.monotonic()
            task = self._task = asyncio.create_task(self._answer())
        waited = self._clock.monotonic() - self._began
        await asyncio.wait([task], timeout=max(0.0, seconds - waited))
        if task.done():
            return task.result()
        return self._silent()

    async def latest(self, *, patience: float, fresh: float, seconds: float) -> tuple[VaultError | None, float]:
        """Return the latest answer, and how many seconds ago its question was sent.

        A question without an answer after `patience` seconds is Unavailable now. Only if the latest answer is older
        than `fresh` seconds is another one asked for, and waited for up to `seconds`.
        """
        now = self._clock.monotonic()
        if self._task is not None and not self._task.done() and now - self._began >= patience:
            return self._silent(), 0.0
        if self._latest is None or now - self._latest[1] > fresh:
            return await self.within(seconds), 0.0
        error, asked = self._latest
        return error, now - asked

    def _silent(self) -> Unavailable:
        waited = self._clock.monotonic() - self._began
        return Unavailable(f"{self._what} has not answered for {waited:.1f} s", cause=self._what.removeprefix("the "))

    async def _answer(self) -> VaultError | None:
        began, found = self._began, None
        try:
            await self._ask()
        except VaultError as error:
            found = error
        except Exception as error:
            logger.exception("a health check failed unexpectedly", extra={"fields": {"at": self._what}})
            found = Unavailable(f"the check of {self._what} failed unexpectedly ({reason(error)})")
        self._latest = found, began
        return found

    async def close(self) -> None:
        """Cancel the question under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_CLOSE_SECONDS)


EXPIRES_SOON: Final = timedelta(days=14)
"""How long before the expiry of a token or a certificate the vault warns."""
CHECKS: Final = ("draining", "journal", "keyring", "root_provider", "catalog", "objects")
_ANSWER_SECONDS: Final = 0.5
"""How many seconds readiness waits for a collaborator that has no recent check: before its first one."""
_LOOK_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 1.0
_FRESH_SECONDS: Final = 4.0
"""How old a reported readiness can be, in seconds: one interval, one answer, and a late event loop."""
_SCRAPE_SECONDS: Final = 0.25
_LOOKS_A_REFRESH: Final = 5


class StatusRows(
    RecordingCounts, RecordingGauges, HoldTermsLookup, LabelRows, AlertRows, TokenLists, SchemaCheck, Protocol
):
    """The catalog methods that status needs."""


class Status:
    """Answers within a bound, even if a collaborator hangs; call `close` before its collaborators are closed."""

    def __init__(
        self,
        *,
        catalog: StatusRows,
        ingest: Ingest,
        journal: Journal,
        keyring: Keyring,
        presence: Presence,
        store: ObjectStore,
        tenants: Tenants,
        surroundings: Surroundings,
    ) -> None:
        self._catalog = catalog
        self._ingest = ingest
        self._journal = journal
        self._keyring = keyring
        self._presence = presence
        self._tenants = tenants
        self._clock = surroundings.clock
        self._metrics = surroundings.metrics
        self._at_catalog = Look("the catalog", self._ask_catalog, clock=surroundings.clock)
        self._at_store = Look("the object store's disk", store.still_there, clock=surroundings.clock)
        self._at_gauges = Look("the catalog", self._read_gauges, clock=surroundings.clock)
        self._read_at = float("-inf")
        surroundings.metrics.catalog.aged_by(lambda: surroundings.clock.monotonic() - self._read_at)

    async def readiness(self) -> tuple[Mapping[str, VaultError | None], float]:
        """Return for each of CHECKS why no new recording should begin here, or None, and how many seconds old that is.

        Neither the catalog nor a disk is asked: `run` looks at them every second, and what then hangs is told within
        three. Whether the catalog takes writes is what `Presence` saw at its latest beat. Before the first look this
        waits for them, at most half a second.
        """
        found: dict[str, VaultError | None] = dict.fromkeys(CHECKS)
        if self._ingest.draining:
            found["draining"] = Unavailable("the server is shutting down")
        found["journal"] = self._journal.refusal()
        if (trouble := self._no_keys()) is not None:
            found["root_provider" if trouble.facts.get("cause") == "root provider" else "keyring"] = trouble
        bounds = {"patience": _PATIENCE_SECONDS, "fresh": _FRESH_SECONDS, "seconds": _ANSWER_SECONDS}
        (found["catalog"], age), (found["objects"], other) = await asyncio.gather(
            self._at_catalog.latest(**bounds), self._at_store.latest(**bounds)
        )
        return found, max(age, other)

    async def look(self) -> None:
        """Look at what readiness tells of; what does not answer in time is not waited for."""
        await asyncio.gather(self._at_catalog.within(_PATIENCE_SECONDS), self._at_store.within(_PATIENCE_SECONDS))

    def _no_keys(self) -> VaultError | None:
        """Return why a new call would get no key, from memory alone; None if it would get one."""
        try:
            _ = self._keyring.generation
            self._tenants.require_prepared()
        except Unavailable as error:
            return error
        return None

    async def _ask_catalog(self) -> None:
        await self._catalog.check_schema()
        if not self._presence.seen:
            await self._presence.appear()  # a database that cannot be written accepts no call

    async def gauges(self) -> None:
        """Set the gauges that no event keeps current; those of the catalog have the values that `run` last read.

        Before the first reading, this waits for the catalog for a short time. Values that are too old are not reported.
        """
        self._metrics.journal_bytes.set(self._journal.usage().bytes_used)
        if self._read_at == float("-inf"):
            await self.refresh()

    async def refresh(self) -> None:
        """Read the catalog's gauges; they stay as they are if the catalog does not answer at once."""
        await self._at_gauges.within(_SCRAPE_SECONDS)

    async def run(self) -> None:
        """Look every second, and read the catalog's gauges every few, so that no monitor waits; until cancelled."""
        while True:
            await self.refresh()
            for _ in range(_LOOKS_A_REFRESH):
                await self.look()
                await asyncio.sleep(_LOOK_SECONDS)

    async def overdue_seconds(self, *, tenant: TenantId | None = None) -> float:
        """Return for how many seconds the oldest due recording without a hold has waited; 0 without one."""
        now = self._clock.now()
        oldest = await self._catalog.oldest_due(now=now, tenant=tenant)
        return max((now - oldest).total_seconds(), 0.0) if oldest else 0.0

    async def _read_gauges(self) -> None:
        gauges, catalog = self._metrics.catalog, self._catalog
        began, now = self._clock.monotonic(), self._clock.now()
        counts = await catalog.count_recordings()
        overdue = await self.overdue_seconds()
        holds = await catalog.hold_terms(states=[HoldState.ACTIVE, HoldState.RELEASE_REQUESTED])
        labels = await catalog.count_unlabelled()
        waiting = await catalog.alerts_waiting()
        tokens = await catalog.tokens(expiring_by=now + EXPIRES_SOON)
        for state in RecordingState:
            gauges.recordings.labels(state.value).set(counts.get(state, 0))
        gauges.sweep_overdue.set(overdue)
        for kind in HoldKind:
            gauges.holds_active.labels(kind.value).set(sum(hold.kind is kind for hold in holds))
        gauges.holds_review_overdue.set(sum(review_overdue(hold, now=now) for hold in holds))
        gauges.hold_labels_waiting.set(labels.waiting)
        gauges.hold_labels_failed.set(labels.failed)
        gauges.alerts_pending.set(waiting.count)
        gauges.alert_oldest.set(max((now - waiting.oldest).total_seconds(), 0.0) if waiting.oldest else 0.0)
        expiring = [each for each in tokens if not has_expired(each, now=now)]
        for role in Role:
            gauges.tokens_expiring.labels(role.value).set(sum(token.role is role for token in expiring))
        self._read_at = began

    async def close(self) -> None:
        """Cancel questions under way."""
        await self._at_catalog.close()
        await self._at_store.close()
        await self._at_gauges.close()
