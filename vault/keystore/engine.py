"""The acts that change a keyring, in an order that is safe to interrupt at any step.

Additive changes (revise) stay in their epoch. Subtractive ones (shred) write a new epoch under a new root version,
prove that it reads back as exactly the survivors, and destroy the old root version last: docs/crash-order.md.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Final

from vault.crypto import spans
from vault.crypto.spans import Span, Spans
from vault.errors import ConfigError, Destroyed, IntegrityError, Unavailable, VaultError
from vault.keystore import recovery, sealing
from vault.keystore import state as states
from vault.keystore.pages import EpochSecret, Stored, load, newest, stage, wrap_secret
from vault.keystore.replicas import Rank, Replicas, Round, Survey, rank_of
from vault.keystore.state import State, Taking
from vault.model import Cohort, Finding, ShredPlan, ShredReceipt
from vault.ports.keys import DestroyReceipt, KeyringStatus, KeyringStore, ReplicaStatus, RootKeyProvider
from vault.ports.repeats import took_effect
from vault.ports.time import Clock, Entropy
from vault.telemetry import Metrics
from vault.threads import in_thread

_LOG: Final = logging.getLogger(__name__)


class Engine:
    """One keyring in memory and on its replicas. Its caller runs one act at a time.

    The state in memory may be used until the lease runs out. The lease counts from before the read of the replicas that
    the state came from, on a clock that runs on while the machine sleeps.
    """

    def __init__(
        self,
        *,
        replicas: Replicas,
        provider: RootKeyProvider,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics | None,
        stored: Stored,
        looked_at: float,
    ) -> None:
        self._replicas = replicas
        self._provider = provider
        self._clock = clock
        self._entropy = entropy
        self._metrics = metrics
        self._stored = stored
        self._closing: dict[str, Taking] = {}
        # The fence under which this process writes; None until it has taken the keyring over.
        self._tenure: int | None = None
        # True while the disk may differ from memory: the next writer recovers first.
        self._uncertain = False
        # True while root versions that an earlier writer left may be alive.
        self._owing = False
        self._fresh_until = looked_at + self.lease.total_seconds()
        self._trouble: VaultError | None = None
        """Why the latest look failed."""
        self._replicas_ok = 0
        self._measured_at = looked_at
        if metrics is not None:
            metrics.keyring_replicas_ok.set_function(self._replicas_now)
            metrics.keyring_lease.set_function(lambda: self._fresh_until - self._clock.monotonic())

    @classmethod
    async def look(
        cls,
        *,
        replicas: Replicas,
        provider: RootKeyProvider,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics | None,
    ) -> Engine:
        """Read the newest state from a read quorum; writes nothing."""
        looked_at, survey, stored = await _settled_look(replicas, provider, clock, known=None)
        engine = cls(
            replicas=replicas,
            provider=provider,
            clock=clock,
            entropy=entropy,
            metrics=metrics,
            stored=stored,
            looked_at=looked_at,
        )
        engine._settle(stored, survey.holding(stored.head))
        return engine

    @property
    def settled(self) -> State:
        """The state at the last look, however long ago."""
        return self._stored.state

    @property
    def state(self) -> State:
        """The content of the keyring; Unavailable once the lease of the last look has run out."""
        if self._clock.monotonic() >= self._fresh_until:
            raise self._run_out()
        return self._stored.state

    def _run_out(self) -> Unavailable:
        trouble = self._trouble
        why = "" if trouble is None else f" ({trouble.message})"
        cause = "keyring" if trouble is None else trouble.facts.get("cause", "keyring")
        return Unavailable(
            f"the keyring's replicas were not read within the lease{why}; no key is derived until they are",
            hint=(trouble and trouble.hint) or "too few replicas answer, or this process was stopped for a while",
            cause=cause,
        )

    @property
    def rank(self) -> Rank:
        """The rank of the last settled head among all heads of this keyring."""
        return rank_of(self._stored.head)

    @property
    def lease(self) -> timedelta:
        """How long after a look keys may be derived."""
        return timedelta(milliseconds=self._stored.state.lease_ms)

    def seed(self) -> bytes:
        """Return 32 fresh random bytes."""
        return self._entropy(32)

    def closes(self, cohort: Cohort, span: Span) -> bool:
        """Tell whether a shred under way takes any leaf of `span`."""
        return any(spans.overlap(taken.of(cohort), span) for taken in self._closing.values())

    def closing(self, cohort: Cohort) -> Spans:
        """Return the leaves that shreds under way take of a cohort."""
        return spans.union(span for taken in self._closing.values() for span in taken.of(cohort))

    def _renew(self, looked_at: float) -> None:
        self._fresh_until = max(self._fresh_until, looked_at + self.lease.total_seconds())

    async def refresh(self) -> None:
        """Look at the replicas and renew the lease, adopting what another process wrote; reads only.

        This may run beside an act of this process. A state that it reads is adopted only if it is newer than the one in
        memory: a look that began before an act ended must not bring back keys that the act destroyed.
        """
        try:
            looked_at, survey, found = await _settled_look(
                self._replicas, self._provider, self._clock, known=self._stored
            )
            self._require_same(survey)
        except ConfigError as error:
            self._trouble = self._went_away(error)
            raise self._trouble from error
        except VaultError as error:
            self._measure_seen()
            self._trouble = error
            raise
        self._trouble = None
        if rank_of(found.head) > rank_of(self._stored.head):
            self._settle(found, survey.holding(found.head))
        if found.head == self._stored.head:
            self._measure(survey.holding(found.head))
            self._renew(looked_at)

    async def ready(self, *, cleared: bool) -> None:
        """Make memory agree with the replicas and hold the fence, or raise; every act starts here.

        With `cleared`, also destroy the leftovers of earlier writers at the provider. Without it the provider is not
        asked while the epoch is the one in memory, so that a hold does not wait for a key service.
        """
        looked_at = self._clock.monotonic()
        survey = await self._survey()
        ours = self._tenure == self._stored.state.fence and survey.newest()[:1] == [self._stored.head]
        if self._uncertain or not ours:
            tenure = await recovery.take_over(
                self._replicas,
                self._provider,
                survey,
                known=self._stored,
                thorough=self._uncertain or self._tenure is None,
                entropy=self._entropy,
            )
            self._settle(tenure.stored, tenure.replicas_ok)
            self._tenure = tenure.stored.state.fence
            self._uncertain = False
            self._owing = True
        elif survey.holding(self._stored.head) < len(self._replicas.stores):
            stored = self._stored
            mended = await self._replicas.mend(survey, stored.head, stored.blobs(), thorough=False)
            self._measure(len(mended.stores))
        self._renew(looked_at)
        if cleared and self._owing:
            await recovery.destroy_leftovers(self._provider, self._stored)
            self._owing = False

    async def _survey(self) -> Survey:
        try:
            survey = await self._replicas.survey()
        except ConfigError as error:
            raise self._went_away(error) from error
        except Unavailable:
            self._measure_seen()
            raise
        self._require_same(survey)
        return survey

    def _went_away(self, error: ConfigError) -> Unavailable:
        """Return Unavailable for a ConfigError of a running process, which means that it lost a replica."""
        self._measure_seen()
        return Unavailable(error.message, hint=error.hint, cause="keyring")

    def _require_same(self, survey: Survey) -> None:
        if survey.keyring != self._stored.state.keyring:
            raise Unavailable("the keyring's replicas were exchanged under a running process")

    async def check(self) -> Sequence[Finding]:
        """Return findings on replicas, root versions and agreement; reads only."""
        found = await recovery.check(self._replicas, self._provider, self._stored)
        survey = await self._survey()
        self._measure(survey.holding(self._stored.head))
        return found

    async def status(self) -> KeyringStatus:
        """Read every replica and return its state; changes nothing."""
        survey = await self._survey()
        self._measure(survey.holding(self._stored.head))
        state = self._stored.state
        return KeyringStatus(
            epoch=state.epoch,
            revision=state.revision,
            fence=state.fence,
            generation=state.generation,
            provider=self._provider.name,
            assurance=self._provider.assurance,
            lease=self.lease,
            last_sweep_at=None if state.last_sweep_ms is None else states.from_unix_ms(state.last_sweep_ms),
            trial=state.trial is True,
            tenants=len(state.pages),
            cohorts=states.size(state),
            pins=states.pin_count(state),
            write_quorum=self._replicas.write_quorum,
            replicas=[self._replica_status(store, survey) for store in self._replicas.stores],
        )

    def _replica_status(self, store: KeyringStore, survey: Survey) -> ReplicaStatus:
        if store in survey.out:
            return ReplicaStatus(name=store.name, ok=False, detail=survey.out[store].message)
        ok = survey.heads[store] == self._stored.head
        return ReplicaStatus(name=store.name, ok=ok, detail=None if ok else "has another head; the next write mends it")

    def _measure(self, replicas_ok: int) -> None:
        self._replicas_ok = replicas_ok
        self._measured_at = self._clock.monotonic()

    def _measure_seen(self) -> None:
        """Count, after a failed look, the replicas that answered it with the live head."""
        self._measure(sum(head == self._stored.head for head in self._replicas.seen.values()))

    def _replicas_now(self) -> int:
        """Return how many replicas the latest look found current; 0 if no look ended within the last lease."""
        return self._replicas_ok if self._clock.monotonic() - self._measured_at < self.lease.total_seconds() else 0

    @contextmanager
    def _risky(self) -> Iterator[None]:
        """Mark the state in memory as uncertain if the block raises."""
        try:
            yield
        except BaseException:
            self._uncertain = True
            raise

    def _settle(self, stored: Stored, replicas_ok: int) -> None:
        self._stored = stored
        self._measure(replicas_ok)
        if self._metrics is not None:
            self._metrics.keyring_epoch.set(stored.state.epoch)
            self._metrics.keyring_replicas.set(len(self._replicas.stores))

    async def revise(self, state: State) -> None:
        """Make an additive change durable: blobs first, then the heads, each on a write quorum."""
        before = self._stored
        state = replace(state, revision=before.state.revision + 1)
        with self._risky():
            looked_at = self._clock.monotonic()
            writing = self._replicas.round(self._replicas.stores)
            after = await self._write(writing, state, before.secret)
            took_effect()
            await writing.swap(before.head, after.head)
            self._settle(after, len(writing.stores))
            self._renew(looked_at)
            await self._collect(before)

    async def _write(self, writing: Round, state: State, secret: EpochSecret) -> Stored:
        after, blobs = await in_thread(stage, state, secret, before=self._stored, entropy=self._entropy)
        await writing.write(blobs)
        return after

    async def _collect(self, before: Stored) -> None:
        """Remove the blobs that the new head does not name from the replicas that answer; a takeover removes others."""
        superseded = sorted(before.blobs().keys() - self._stored.blobs().keys())
        for store in self._replicas.stores:
            try:
                await store.remove(superseded)
            except Unavailable as error:
                _LOG.info("superseded blobs stay", extra={"fields": {"replica": store.name, "reason": error.message}})

    async def shred(self, plan: ShredPlan) -> ShredReceipt:
        """Run the whole shred; see `Writer.shred` for its promise."""
        before = self._stored
        # From here on the plan's keys answer Shredded. The intent is durable, so their recordings must not be served
        # any more, even if this attempt fails.
        self._closing[plan.intent_id] = states.taking(before.state, plan)
        with self._risky():
            backup_key = self.seed() if plan.new_generation else None
            state = await in_thread(states.shredded, before.state, plan, backup_key=backup_key)
            writing = self._replicas.round(self._replicas.stores)
            after = await self._next_epoch(writing, state)
            await self._verify(writing, before, after, plan)
            looked_at = self._clock.monotonic()
            took_effect()
            await writing.swap(before.head, after.head)
            await writing.require_heads(after.head)
            await load(self._provider, writing.stores, after.state.keyring, after.head, known=after)
            # A process that looked before this instant may use that state for one more lease.
            swapped_at = self._clock.now()
            # The point of no return comes after the proof that all survivors have keys. In the other order a crash in
            # between would lose every survivor.
            self._settle(after, len(writing.stores))
            self._renew(looked_at)
            gone = await self._destroy(before)
            await self._collect(before)
        del self._closing[plan.intent_id]
        _LOG.info("keyring epoch destroyed", extra={"fields": {"intent": plan.intent_id, "epoch": before.state.epoch}})
        return ShredReceipt(
            intent_id=plan.intent_id,
            epoch_destroyed=before.state.epoch,
            epoch_live=after.state.epoch,
            root_version_destroyed=before.secret.root,
            provider=self._provider.name,
            assurance=self._provider.assurance,
            replicas=len(writing.stores),
            unrecoverable_at=gone.effective_at,
            caches_clear_at=max(gone.effective_at, swapped_at + self.lease),
        )

    async def _next_epoch(self, writing: Round, state: State) -> Stored:
        """Write `state` under a new root version; until the heads name it, it is an orphan that recovery destroys."""
        root = await self._provider.new_version(sealing.version_tag(state.keyring, state.epoch))
        return await self._write(writing, state, await wrap_secret(self._provider, root, state, self._entropy))

    async def _verify(self, writing: Round, before: Stored, after: Stored, plan: ShredPlan) -> None:
        """Read the new epoch back from each replica, through the provider, and compare leaf by leaf.

        A replica that does not read back is left out; a tree that is wrong stops the shred.
        """

        async def read_back(store: KeyringStore) -> None:
            try:
                # Pages that are carried over are compared by hash: they were opened when they were written.
                found = await load(self._provider, [store], before.state.keyring, after.head, known=before)
            except (Destroyed, IntegrityError) as error:
                writing.lose(store, error)
                return
            await in_thread(states.verify_shred, before.state, found.state, plan, after.state)

        await writing.each(read_back)

    async def _destroy(self, before: Stored) -> DestroyReceipt:
        """Destroy the old epoch's root version; returns only when its secret provably does not open any more."""
        receipt = await self._provider.destroy(before.secret.root)
        aad = sealing.wrap_aad(before.state.keyring, before.state.epoch)
        try:
            await self._provider.unwrap(before.secret.root, before.secret.wrapped, aad)
        except Destroyed:
            return receipt
        raise Unavailable("the root-key provider still opens a version it was told to destroy; it will be told again")


async def _settled_look(
    replicas: Replicas, provider: RootKeyProvider, clock: Clock, *, known: Stored | None
) -> tuple[float, Survey, Stored]:
    """Look until two looks agree: a writer may swap heads, remove blobs and destroy versions meanwhile.

    Returns when the look began, so that a lease counts from there. IntegrityError if nothing opens and no head changes.
    """
    while True:
        looked_at = clock.monotonic()
        survey = await replicas.survey()
        failure: IntegrityError | None = None
        try:
            found = await newest(provider, survey, replicas.stores, known=known)
            if found.head == survey.newest()[0]:
                return looked_at, survey, found
        except IntegrityError as error:
            failure = error
        # The newest head does not open, because it is damaged or was replaced while it was read.
        if (await replicas.survey()).heads == survey.heads:
            if failure is not None:
                raise failure
            return looked_at, survey, found
