"""The keyring as a whole: its status, its verification, and its rotation.

The order of a rotation: audit entry → the keyring's shred under a new root version and a new generation → the catalog
closes the older generations → leaves that were never reserved are dropped → the trees of coming calls are created →
audit entry. After a crash at any step the keyring can be used, and the rotation is repeated. docs/crash-order.md says
what each step leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from vault.errors import Unavailable
from vault.ids import new_id
from vault.model import Coordinate, Finding, Principal, RecordingState, ShredPlan, ShredReceipt
from vault.ports.audit import AuditTrail
from vault.ports.keys import Keyring, KeyringStatus
from vault.ports.recordings import LeafRows, RecordingCounts
from vault.ports.tenants import SettingRows
from vault.services.audit import event
from vault.services.surroundings import Surroundings

COUNTED_SINCE: Final = "leaves_counted_since"
"""The catalog setting with the first generation whose leaf counters are certainly complete.

Whenever an older catalog may have replaced this one, the setting and the keyring's generation are raised together.
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """The result of a rotation. `dropped` counts trees without a reserved leaf; `under_way` calls keep old keys."""

    receipt: ShredReceipt
    generation: int
    dropped: int
    under_way: int


def is_pinned(keyring: Keyring, place: Coordinate) -> bool:
    """Tell whether a pin is on the key at a coordinate; reads memory only."""
    return bool(keyring.pins_on(place))


class KeyRows(LeafRows, RecordingCounts, SettingRows, AuditTrail, Protocol):
    """The catalog methods that renewing keys needs."""


class Keys:
    """The operator's acts on the whole keyring; `ahead` creates the trees of coming calls."""

    def __init__(
        self,
        *,
        catalog: KeyRows,
        keyring: Keyring,
        surroundings: Surroundings,
        ahead: Callable[[], Awaitable[None]],
    ) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._ahead = ahead

    async def status(self) -> KeyringStatus:
        """Return the status of the keyring and its replicas."""
        return await self._keyring.status()

    async def verify(self) -> Sequence[Finding]:
        """Check that every replica opens to the same tree and that only one root version is live; return findings."""
        return await self._keyring.check()

    async def rotate(self, *, actor: Principal) -> Rotation:
        """Replace the root version, and every tree that a coming recording would use.

        No older copy of the keyring opens under the new version. A copy with the old root version opens no recording
        that begins after this returned, on any node. The configured provider makes the new version, so this also moves
        a vault from one provider to another. Repeatable after any failure.
        """
        now = self._clock.now()
        identifier = new_id("shr", at=now, entropy=self._entropy)
        await self._catalog.append_audit([event("keyring.rotation_intended", actor, target=identifier)])
        async with self._keyring.writer() as writer:
            receipt = await writer.shred(ShredPlan(intent_id=identifier, at=now, new_generation=True))
            generation = self._keyring.generation
        dropped = await self._retire(identifier, generation, actor)
        try:
            await self._ahead()
        except Unavailable as error:
            logger.warning("cohorts not created ahead", extra={"fields": {"reason": error.message}})
        counts = await self._catalog.count_recordings()
        done = Rotation(receipt=receipt, generation=generation, dropped=dropped, under_way=counts[RecordingState.OPEN])
        detail = {
            "epoch_destroyed": receipt.epoch_destroyed,
            "epoch_live": receipt.epoch_live,
            "generation": generation,
            "trees_dropped": dropped,
        }
        await self._catalog.append_audit([event("keyring.rotated", actor, target=identifier, detail=detail)])
        return done

    async def _retire(self, identifier: str, generation: int, actor: Principal) -> int:
        """Close the earlier generations, then drop their unreserved leaves; return how many trees were dropped.

        In the other order, a leaf that a node reserved in between would lose its key.
        """
        known = await self._catalog.setting(COUNTED_SINCE)
        since = generation if known is None else int(known)
        closed = event("keyring.generations_closed", actor, target=identifier, detail={"below": generation})
        used = await self._catalog.close_generations(generation, since=since, audit=[closed])
        async with self._keyring.writer() as writer:
            return await writer.retire(used, since=since, below=generation)
