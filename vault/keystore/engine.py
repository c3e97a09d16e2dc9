"""The acts that change a keyring, in the order that makes them safe to interrupt anywhere.

Additive changes (revise) stay in their epoch. Subtractive ones (shred) write a new epoch under a new root version,
prove that it reads back as exactly the survivors, and destroy the old root version last. docs/design.md has the crash
table.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Final

from vault.crypto import spans
from vault.crypto.spans import Span
from vault.errors import ConfigError, Destroyed, IntegrityError, Unavailable
from vault.keystore import recovery, sealing
from vault.keystore import state as states
from vault.keystore.replicas import Replicas
from vault.keystore.state import State, Taking
from vault.keystore.storing import EpochSecret, Stored, load, stage, wrap_secret
from vault.keystore.threads import in_thread
from vault.model import Cohort, Finding, ShredPlan, ShredReceipt
from vault.ports.keys import DestroyReceipt, RootKeyProvider
from vault.ports.time import Clock, Entropy
from vault.telemetry import Metrics

_LOG: Final = logging.getLogger(__name__)


class Engine:
    """One keyring in memory and on its replicas; its caller sees to it that one act runs at a time."""

    def __init__(
        self,
        *,
        replicas: Replicas,
        provider: RootKeyProvider,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics | None,
        cache_lease: timedelta,
        stored: Stored,
    ) -> None:
        self._replicas = replicas
        self._provider = provider
        self._clock = clock
        self._entropy = entropy
        self._metrics = metrics
        self._lease = cache_lease
        self._stored = stored
        self._closing: dict[str, Taking] = {}
        # True while the disk may differ from memory: whoever writes next recovers first.
        self._uncertain = False

    @property
    def state(self) -> State:
        """What the keyring holds, as last settled."""
        return self._stored.state

    def seed(self) -> bytes:
        """Return 32 fresh random bytes."""
        return self._entropy(32)

    def closes(self, cohort: Cohort, span: Span) -> bool:
        """Tell whether a shred under way takes any leaf of `span`."""
        return any(spans.overlap(taken.of(cohort), span) for taken in self._closing.values())

    async def ready(self) -> None:
        """Make memory agree with the disk, or raise; every act starts here."""
        if not self._uncertain:
            return
        before = self._stored
        if self._metrics is not None:
            self._metrics.keyring_replicas_ok.set(await in_thread(self._replicas.agreeing, before.head))
        try:
            found = await recovery.recover(
                self._replicas, self._provider, before.state.keyring, fence=before.state.fence
            )
        except ConfigError as error:
            # At a start this is the operator's to settle; under a running process it is a disk that went away.
            raise Unavailable(error.message, hint=error.hint) from error
        self._settle(found)
        self._uncertain = False

    async def check(self) -> Sequence[Finding]:
        """Return findings on replicas, root versions and agreement; reads only."""
        if self._metrics is not None:
            self._metrics.keyring_replicas_ok.set(await in_thread(self._replicas.agreeing, self._stored.head))
        return await recovery.check(self._replicas, self._provider, self._stored)

    @contextmanager
    def _risky(self) -> Iterator[None]:
        """Distrust memory if what happens inside does not end well."""
        try:
            yield
        except BaseException:
            self._uncertain = True
            raise

    def _settle(self, stored: Stored) -> None:
        self._stored = stored
        if self._metrics is not None:
            self._metrics.keyring_epoch.set(stored.state.epoch)
            self._metrics.keyring_replicas_ok.set(len(self._replicas.paths))

    async def revise(self, state: State) -> None:
        """Make an additive change durable: blobs everywhere, then the heads."""
        before = self._stored
        state = replace(state, revision=before.state.revision + 1)
        with self._risky():
            after = await self._write(state, before.secret)
            await in_thread(self._replicas.swap, before.head, after.head)
            self._settle(after)
            await self._collect(before)

    async def _write(self, state: State, secret: EpochSecret) -> Stored:
        after, blobs = await in_thread(stage, state, secret, before=self._stored, entropy=self._entropy)
        await in_thread(self._replicas.write, blobs)
        return after

    async def _collect(self, before: Stored) -> None:
        superseded = before.blobs().keys() - self._stored.blobs().keys()
        await in_thread(self._replicas.collect, sorted(superseded))

    async def shred(self, plan: ShredPlan) -> ShredReceipt:
        """Run the whole shred; see the writer for what it promises."""
        before = self._stored
        # From here on the plan's keys answer "shredded": the intent is durable, so nothing they would open may be
        # served any more, whether or not this attempt gets to its end.
        self._closing[plan.intent_id] = states.taking(before.state, plan)
        with self._risky():
            state = await in_thread(states.shredded, before.state, plan)
            after = await self._next_epoch(state)
            await self._verify(before, after, plan)
            await in_thread(self._replicas.swap, before.head, after.head)
            await self._reopen(after)
            # The point of no return comes after the proof that nothing else is lost. In the other order a crash
            # between the two would lose every survivor.
            self._settle(after)
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
            replicas=len(self._replicas.paths),
            unrecoverable_at=gone.effective_at,
            caches_clear_at=max(gone.effective_at, self._clock.now() + self._lease),
        )

    async def _next_epoch(self, state: State) -> Stored:
        """Write `state` under a new root version; until the heads name it, it is an orphan that recovery destroys."""
        root = await self._provider.new_version(sealing.version_tag(state.keyring, state.epoch))
        return await self._write(state, await wrap_secret(self._provider, root, state, self._entropy))

    async def _verify(self, before: Stored, after: Stored, plan: ShredPlan) -> None:
        """Read the new epoch back from each replica, through the provider, and compare leaf by leaf."""
        for replica in range(len(self._replicas.paths)):
            found = await load(self._provider, self._replicas, before.state.keyring, after.head, replica=replica)
            await in_thread(states.verify_shred, before.state, found.state, plan, after.state)

    async def _reopen(self, after: Stored) -> None:
        heads = await in_thread(self._replicas.heads)
        if any(head != after.head for head in heads):
            raise IntegrityError("a replica's head does not read back as written; nothing was destroyed")
        await load(self._provider, self._replicas, after.state.keyring, after.head)

    async def _destroy(self, before: Stored) -> DestroyReceipt:
        """Destroy the old epoch's root version; returns only when its secret provably does not open any more."""
        receipt = await self._provider.destroy(before.secret.root)
        aad = sealing.wrap_aad(before.state.keyring, before.state.epoch)
        try:
            await self._provider.unwrap(before.secret.root, before.secret.wrapped, aad)
        except Destroyed:
            return receipt
        raise Unavailable("the root-key provider still opens a version it was told to destroy; it will be told again")
