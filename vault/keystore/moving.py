"""Root-key provider for a change of provider: what is new goes to the current one, what exists stays where it is.

One shred with an empty batch then moves the vault: the new epoch's version is made by the current provider, and the old
epoch's is destroyed at the previous one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vault.errors import VaultError
from vault.keystore.assurances import weaker
from vault.keystore.provider import RootKeys, finding
from vault.keystore.wrapping import foreign
from vault.model import Finding
from vault.ports.keys import DestroyReceipt, VersionInfo


class MovingRootKeys:
    """The current provider, and the previous one for the versions that it made.

    While both are configured the assurance is the weaker one: a certificate of these days may attest a version that
    was destroyed at the previous provider.
    """

    def __init__(self, current: RootKeys, *, previous: RootKeys) -> None:
        self.name = f"{current.name} or {previous.name}"
        self.assurance = weaker(current.assurance, previous.assurance)
        self._current = current
        self._previous = previous

    async def create(self) -> str:
        """Make the current provider's store; the previous one exists."""
        return await self._current.create()

    async def owns(self, version: str) -> bool:
        """Tell whether either made the version."""
        return await self._current.owns(version) or await self._previous.owns(version)

    async def new_version(self, tag: bytes) -> str:
        """Create a version at the current provider."""
        return await self._current.new_version(tag)

    async def wrap(self, version: str, key: bytes, aad: bytes) -> bytes:
        """Encrypt 32 bytes under the version, where it is."""
        return await (await self._owner(version)).wrap(version, key, aad)

    async def unwrap(self, version: str, blob: bytes, aad: bytes) -> bytes:
        """Decrypt where the version is."""
        return await (await self._owner(version)).unwrap(version, blob, aad)

    async def destroy(self, version: str) -> DestroyReceipt:
        """Destroy the version where it is."""
        return await (await self._owner(version)).destroy(version)

    async def versions(self) -> Mapping[str, VersionInfo]:
        """List the live versions of both; Unavailable if either cannot answer."""
        return {**await self._previous.versions(), **await self._current.versions()}

    async def self_check(self) -> Sequence[Finding]:
        """Return both providers' findings, and whether the previous one is still needed."""
        found = (*await self._current.self_check(), *await self._previous.self_check())
        try:
            left = len(await self._previous.versions())
        except VaultError as error:
            return (*found, finding("error", f"the previous provider cannot be left: {error.message}", error.hint))
        if left:
            text = f"{left} root version(s) are still at the previous provider ({self._previous.name})"
            return (*found, finding("warning", text, "move the vault: callvault keys rotate"))
        text = f"nothing is left at the previous provider ({self._previous.name})"
        return (*found, finding("ok", text, "remove [keyring.previous_root] and restart"))

    async def _owner(self, version: str) -> RootKeys:
        for provider in (self._current, self._previous):
            if await provider.owns(version):
                return provider
        raise foreign(version)
