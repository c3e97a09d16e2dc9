"""Names of root versions in a key service that lists names: one marker for each store, and the store's versions.

The marker is what makes an absence mean something. A service that lists the marker but not the version has stated that
the version is gone; one that lists neither is the wrong mount, namespace or token, and has stated nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from vault.errors import Unavailable
from vault.keystore.wrapping import foreign
from vault.ports.time import Entropy

PREFIX: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
"""What a name prefix looks like; `callvault` is the default. Two vaults in one service need two prefixes."""
_ID_BYTES: Final = 8


class Names:
    """The names of one kind of provider under one prefix."""

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
        """Tell whether the id is of this kind; whether of this store takes its marker."""
        return self._version.fullmatch(version) is not None

    def fresh(self, entropy: Entropy) -> str:
        """Return a new identifier."""
        return entropy(_ID_BYTES).hex()

    def name(self, store: str, identifier: str) -> str:
        """Return a version's name inside its service."""
        return f"{self._prefix}-{store}-{identifier}"
