"""Names of root versions in a key service that lists names: one marker for each store, and the store's versions.

The marker gives an absence its meaning. A service that lists the marker but not the version states that the version is
gone. One that lists neither may be the wrong mount, namespace or token, and states nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from vault.errors import ConfigError, Unavailable, VaultError
from vault.keystore.root.wrapping import KEY_BYTES, foreign
from vault.model import Finding
from vault.ports.keys import RootKeyProvider, VersionInfo
from vault.ports.time import Entropy

_PROBE: Final = b"callvault/probe"


def finding(level: str, message: str, hint: str | None = None) -> Finding:
    """Return a finding on the root keys."""
    return Finding(level=level, subject="root keys", message=message, hint=hint)


class RootKeys(RootKeyProvider, Protocol):
    """A root-key provider, with the two calls that `init` and a change of provider need."""

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
                hint="make the file readable for the vault's user, and for nobody else",
            ) from error
