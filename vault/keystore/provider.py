"""What wiring asks of a root-key provider beside the port: to be made once, and to know its own versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from vault.errors import ConfigError, Unavailable, VaultError
from vault.keystore.wrapping import KEY_BYTES
from vault.model import Finding
from vault.ports.keys import RootKeyProvider, VersionInfo
from vault.ports.time import Entropy

_PROBE: Final = b"callvault/probe"


def finding(level: str, message: str, hint: str | None = None) -> Finding:
    """Return a finding on the root keys."""
    return Finding(level=level, subject="root keys", message=message, hint=hint)


class RootKeys(RootKeyProvider, Protocol):
    """A root-key provider that `init` can create and that a change of provider can ask whose a version is."""

    async def create(self) -> str:
        """Make the store and prove that it can do all it will be asked; return a line that says what was made.

        ConfigError if it holds versions already or cannot work as configured. An empty store that an interrupted
        `init` left in a key service is taken over. Only `init` and a change of provider call this.
        """

    async def owns(self, version: str) -> bool:
        """Tell whether this store made the version, live or destroyed; Unavailable if that cannot be told now."""


def check_unused(kind: str, versions: Iterable[VersionInfo]) -> None:
    """Raise ConfigError if a key service holds root versions of a vault under this prefix."""
    if any(info.tag != _PROBE for info in versions):
        raise ConfigError(
            f"keyring.root.{kind}: there are root versions under this prefix already; nothing was changed",
            hint="a new vault needs a prefix of its own",
        )


async def prove(provider: RootKeyProvider, entropy: Entropy) -> None:
    """Make, use and destroy a version, so that a missing right shows at `init` and not at the first shred.

    ConfigError says which step failed. What a crash leaves in between is destroyed by the next proof.
    """
    step = "make a root version"
    try:
        version = await provider.new_version(_PROBE)
        step = "wrap and unwrap a key"
        key = entropy(KEY_BYTES)
        blob = await provider.wrap(version, key, _PROBE)
        if await provider.unwrap(version, blob, _PROBE) != key:
            raise Unavailable("what was unwrapped is not what was wrapped")
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
