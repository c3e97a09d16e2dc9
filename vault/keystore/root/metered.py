"""Times every call to a root-key provider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from vault.errors import VaultError
from vault.model import Finding
from vault.ports.keys import DestroyReceipt, RootKeyProvider, VersionInfo
from vault.ports.time import Clock
from vault.telemetry import Metrics


class MeteredRootKeys:
    """Answers as `inner` does, and observes `root_provider_seconds{op, outcome}`."""

    def __init__(self, inner: RootKeyProvider, *, metrics: Metrics, clock: Clock) -> None:
        self.name = inner.name
        self.assurance = inner.assurance
        self._inner = inner
        self._metrics = metrics
        self._clock = clock

    async def new_version(self, tag: bytes) -> str:
        """Create a version."""
        with self._timed("new_version"):
            return await self._inner.new_version(tag)

    async def wrap(self, version: str, key: bytes, aad: bytes) -> bytes:
        """Encrypt 32 bytes."""
        with self._timed("wrap"):
            return await self._inner.wrap(version, key, aad)

    async def unwrap(self, version: str, blob: bytes, aad: bytes) -> bytes:
        """Decrypt."""
        with self._timed("unwrap"):
            return await self._inner.unwrap(version, blob, aad)

    async def destroy(self, version: str) -> DestroyReceipt:
        """Destroy a version."""
        with self._timed("destroy"):
            return await self._inner.destroy(version)

    async def versions(self) -> Mapping[str, VersionInfo]:
        """List the live versions."""
        with self._timed("versions"):
            return await self._inner.versions()

    async def self_check(self) -> Sequence[Finding]:
        """Return the provider's findings."""
        with self._timed("self_check"):
            return await self._inner.self_check()

    @contextmanager
    def _timed(self, op: str) -> Iterator[None]:
        started = self._clock.monotonic()
        outcome = "error"
        try:
            yield
            outcome = "ok"
        except VaultError as error:
            outcome = error.code
            error.facts.setdefault("cause", "root provider")
            raise
        finally:
            self._metrics.root_provider.labels(op, outcome).observe(self._clock.monotonic() - started)
