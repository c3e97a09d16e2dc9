"""Shared by root-key providers: names of versions, secrets, wrapping with key bytes, and timing.

The marker shows whether an absence counts. A service that lists the marker but not the version states that the version
is gone. A service that lists neither may be the wrong mount, namespace or token, so it proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.errors import ConfigError, Invalid, Tampered, Unavailable, VaultError
from vault.format.codec import pack
from vault.model import Finding
from vault.ports.keys import DestroyReceipt, RootKeyProvider, VersionInfo
from vault.ports.time import Clock, Entropy
from vault.telemetry import Metrics

_PROBE: Final = b"callvault/probe"


def finding(level: str, message: str, hint: str | None = None) -> Finding:
    """Return a finding on the root keys."""
    return Finding(level=level, subject="root keys", message=message, hint=hint)


class RootKeys(RootKeyProvider, Protocol):
    """A root-key provider, with the two calls that `init` and a change of provider need."""

    async def create(self) -> str:
        """Make the store and prove every operation on it; return a line that describes it.

        ConfigError if it has versions already or cannot work as configured. An empty store that an interrupted `init`
        left in a key service is taken over. Only `init` and a change of provider call this.
        """

    async def owns(self, version: str) -> bool:
        """Tell whether this store made the version, live or destroyed; Unavailable if that cannot be told now."""


def check_unused(kind: str, versions: Iterable[VersionInfo]) -> None:
    """Raise ConfigError if a key service holds root versions of a vault under this prefix."""
    if any(info.tag != _PROBE for info in versions):
        raise ConfigError(
            f"keyring.root.{kind}: this prefix already has root versions; nothing was changed",
            hint="a new vault needs a prefix of its own",
        )


async def prove(provider: RootKeyProvider, entropy: Entropy) -> None:
    """Make, use and destroy a version, so that a missing permission shows at `init` and not at the first shred.

    ConfigError says which step failed. A version that a crash leaves is destroyed by the next proof.
    """
    step = "make a root version"
    try:
        version = await provider.new_version(_PROBE)
        step = "wrap and unwrap a key"
        key = entropy(KEY_BYTES)
        blob = await provider.wrap(version, key, _PROBE)
        if await provider.unwrap(version, blob, _PROBE) != key:
            raise Unavailable("the unwrapped key is not the wrapped one")
        step = "destroy a root version"
        for left, info in (await provider.versions()).items():
            if info.tag == _PROBE:
                await provider.destroy(left)
        if version in await provider.versions():
            raise Unavailable("the root version is still listed")
    except VaultError as error:
        raise ConfigError(
            f"keyring.root: the {provider.name} provider cannot {step}: {error.message}", hint=error.hint
        ) from error


_ID_BYTES: Final = 8


class Names:
    """The names that one kind of provider gives under one prefix."""

    def __init__(self, kind: str, prefix: str) -> None:
        self._kind = kind
        self._prefix = prefix
        self._marker = re.compile(re.escape(prefix) + r"-store-([0-9a-f]{16})")
        self._version = re.compile(re.escape(kind) + r":([0-9a-f]{16})-([0-9a-z-]+)")

    def marker(self, entropy: Entropy) -> str:
        """Return the marker of a new store."""
        return f"{self._prefix}-store-{entropy(_ID_BYTES).hex()}"

    def markers(self, names: Iterable[str]) -> list[str]:
        """Return the ids of the stores under this prefix; a healthy service has exactly one."""
        return [match[1] for name in names if (match := self._marker.fullmatch(name))]

    def store(self, names: Iterable[str]) -> str:
        """Return the id of the one store; Unavailable if none or several are listed."""
        found = self.markers(names)
        if len(found) != 1:
            raise Unavailable(
                f"{len(found)} {self._kind} stores are listed under the name {self._prefix} instead of one; "
                "nothing is known to be lost",
                hint="check address, mount, token and prefix in [keyring.root]; callvault init makes a store once",
            )
        return found[0]

    def version(self, store: str, identifier: str) -> str:
        """Return the id under which a version is known outside its service."""
        return f"{self._kind}:{store}-{identifier}"

    def identifier(self, store: str, version: str) -> str:
        """Return the service's part of a version's id; Unavailable if another store made it."""
        match = self._version.fullmatch(version)
        if match is None or match[1] != store:
            raise foreign(version)
        return match[2]

    def fits(self, version: str) -> bool:
        """Tell whether the id is of this kind; whether it is of this store, only the marker tells."""
        return self._version.fullmatch(version) is not None

    def fresh(self, entropy: Entropy) -> str:
        """Return a new identifier."""
        return entropy(_ID_BYTES).hex()

    def name(self, store: str, identifier: str) -> str:
        """Return a version's name inside its service."""
        return f"{self._prefix}-{store}-{identifier}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A credential; a file is read at every use, so that renewing it needs no restart of the vault."""

    value: str | None = field(default=None, repr=False)
    file: Path | None = None

    def read(self) -> str:
        """Return the credential, without the line end of a file; Unavailable if the file cannot be read."""
        if self.file is None:
            return self.value or ""
        try:
            return self.file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"the credential in {self.file} cannot be read; no root version was used",
                hint="make the file readable for the vault's user only",
            ) from error


KEY_BYTES: Final = 32
TAG_MAX_BYTES: Final = 72
"""The 64 bytes that the port promises, and 8 that a composite adds to tell its pairs apart."""
_NONCE_BYTES: Final = 12
_LABEL: Final = "callvault/v1/root-wrap"


def check_tag(tag: bytes) -> None:
    """Raise Invalid unless the tag fits every provider."""
    if len(tag) > TAG_MAX_BYTES:
        raise Invalid(f"a root version's tag is at most {TAG_MAX_BYTES} bytes")


def check_key(key: bytes) -> None:
    """Raise Invalid unless there are 32 bytes to wrap."""
    if len(key) != KEY_BYTES:
        raise Invalid(f"a root version wraps exactly {KEY_BYTES} bytes")


def foreign(version: str) -> Unavailable:
    """Return the error for a version of another store: its absence here says nothing about that store."""
    return Unavailable(f"root version {version[:80]} is not one of this store's; nothing is known to be lost")


def binding(version: str, aad: bytes) -> bytes:
    """Return the associated data that ties a blob to its root version and to `aad`."""
    return pack([_LABEL, version, aad])


def tampered(version: str) -> Tampered:
    """Return the error for a blob that a live version does not open."""
    return Tampered(f"a blob does not open under root version {version}: its bytes or its place changed")


def wrap_bytes(root: bytes, version: str, key: bytes, aad: bytes, entropy: Entropy) -> bytes:
    """Return `nonce ‖ AES-256-GCM`, bound to the version and `aad`."""
    nonce = entropy(_NONCE_BYTES)
    return nonce + AESGCM(root).encrypt(nonce, key, binding(version, aad))


def unwrap_bytes(root: bytes, version: str, blob: bytes, aad: bytes) -> bytes:
    """Return what `wrap_bytes` wrapped; Tampered."""
    try:
        return AESGCM(root).decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], binding(version, aad))
    except (InvalidTag, ValueError) as error:
        raise tampered(version) from error


def xor(left: bytes, right: bytes) -> bytes:
    """Return the XOR of two byte strings of equal length."""
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


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
