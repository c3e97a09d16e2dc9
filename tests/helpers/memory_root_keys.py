"""Root-key provider in memory: what it forgets is gone, and everything is gone with the process."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from vault.errors import Destroyed
from vault.keystore.root.common import check_key, check_tag, finding, foreign, unwrap_bytes, wrap_bytes
from vault.model import Assurance, Finding
from vault.ports.keys import DestroyReceipt, VersionInfo
from vault.ports.time import Clock, Entropy

_ID_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    key: bytes = field(repr=False)
    tag: bytes
    created_at: datetime


class MemoryRootKeys:
    """Keeps root versions in this process, for tests and for demonstrations that may be lost."""

    name = "memory"
    assurance = Assurance.BEST_EFFORT

    def __init__(self, *, clock: Clock, entropy: Entropy = os.urandom) -> None:
        self._clock = clock
        self._entropy = entropy
        self._live: dict[str, _Version] = {}
        self._gone: set[str] = set()

    async def create(self) -> str:
        """Say what there is to know; nothing needs making."""
        return "root keys in memory: every recording is unreadable when the process ends"

    async def owns(self, version: str) -> bool:
        """Tell whether this store made the version."""
        return version in self._live or version in self._gone

    async def new_version(self, tag: bytes) -> str:
        """Create a version."""
        check_tag(tag)
        version = self._entropy(_ID_BYTES).hex()
        self._live[version] = _Version(key=self._entropy(32), tag=tag, created_at=self._clock.now())
        return version

    async def wrap(self, version: str, key: bytes, aad: bytes) -> bytes:
        """Encrypt 32 bytes under the version."""
        check_key(key)
        return wrap_bytes(self._key(version), version, key, aad, self._entropy)

    async def unwrap(self, version: str, blob: bytes, aad: bytes) -> bytes:
        """Decrypt what `wrap` returned."""
        return unwrap_bytes(self._key(version), version, blob, aad)

    async def destroy(self, version: str) -> DestroyReceipt:
        """Forget the version."""
        if self._live.pop(version, None) is not None:
            self._gone.add(version)
        elif version not in self._gone:
            raise foreign(version)
        return DestroyReceipt(version=version, effective_at=self._clock.now())

    async def versions(self) -> Mapping[str, VersionInfo]:
        """List the live versions."""
        return {
            version: VersionInfo(version=version, tag=each.tag, created_at=each.created_at)
            for version, each in self._live.items()
        }

    async def self_check(self) -> Sequence[Finding]:
        """Warn that nothing survives the process."""
        text = "root versions are kept in memory: when this process ends, every recording is unreadable"
        return (finding("warning", text, "configure the file provider or a key service"),)

    def _key(self, version: str) -> bytes:
        if version in self._live:
            return self._live[version].key
        if version in self._gone:
            raise Destroyed(f"root version {version} was destroyed")
        raise foreign(version)
