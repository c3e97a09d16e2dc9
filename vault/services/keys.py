"""Looks after the keyring as a whole: where it stands, whether it is whole, and a new root version on demand."""

from __future__ import annotations

from collections.abc import Sequence

from vault.ids import new_id
from vault.model import Finding, Principal, ShredPlan, ShredReceipt
from vault.ports.catalog import Catalog
from vault.ports.keys import Keyring, KeyringStatus
from vault.ports.time import Clock, Entropy
from vault.services.audit import event


class Keys:
    """The operator's view of the keyring."""

    def __init__(self, *, catalog: Catalog, keyring: Keyring, clock: Clock, entropy: Entropy) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._clock = clock
        self._entropy = entropy

    async def status(self) -> KeyringStatus:
        """Say where the keyring and its replicas stand."""
        return await self._keyring.status()

    async def verify(self) -> Sequence[Finding]:
        """Prove that every replica opens to the same tree and that one root version lives; errors say what is not."""
        return await self._keyring.check()

    async def rotate(self, *, actor: Principal) -> ShredReceipt:
        """Replace the root version: a shred that takes nothing, so that every older copy of the keyring opens nothing.

        The new version is made by the configured provider, so this also moves a vault from one provider to another.
        """
        now = self._clock.now()
        identifier = new_id("shr", at=now, entropy=self._entropy)
        await self._catalog.append_audit([event("keyring.rotation_intended", actor, target=identifier)])
        async with self._keyring.writer() as writer:
            receipt = await writer.shred(ShredPlan(intent_id=identifier, at=now))
        detail = {"epoch_destroyed": receipt.epoch_destroyed, "epoch_live": receipt.epoch_live}
        await self._catalog.append_audit([event("keyring.rotated", actor, target=identifier, detail=detail)])
        return receipt
