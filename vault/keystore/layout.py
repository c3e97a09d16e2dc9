"""What a keyring replica consists of, whatever its medium (docs/format.md, "Keyring")."""

from __future__ import annotations

from typing import Final

from vault.errors import ConfigError

MARKER: Final = "REPLICA"
HEAD: Final = "head"
INDEX: Final = "index"
PAGES: Final = "pages"


def not_empty(replica: str) -> ConfigError:
    """Return the refusal to make a replica where something is."""
    return ConfigError(
        f"the keyring replica {replica} is not empty; nothing was changed",
        hint="keyring.replicas names new places for a new vault",
    )


def unmarked(replica: str) -> ConfigError:
    """Return what to say of a place that should be a replica and has no marker."""
    return ConfigError(
        f"{replica} is not a keyring replica: it is not mounted, or has no {MARKER} file; nothing was changed",
        hint=f"mount it; if it is lost, run `callvault keys repair {replica}` to refill it from the other replicas",
    )


def damaged_marker(replica: str) -> ConfigError:
    """Return what to say of a marker that cannot be read."""
    return ConfigError(
        f"the marker of the keyring replica {replica} is damaged; nothing was changed",
        hint="move what is there away, then run `callvault keys repair` with its name",
    )
