"""A catalog that is not there: whether one was lost or none was ever made is what the keyring's replicas say."""

from __future__ import annotations

from vault.config import Config
from vault.errors import ConfigError, VaultError
from vault.format.keyring import MARKER
from vault.wiring.adapters import keyring_replicas


async def kept_keyring(config: Config) -> str | None:
    """Return the name of a replica that holds a keyring, None if no replica that answers does."""
    for store in keyring_replicas(config):
        try:
            if (await store.read([MARKER]))[MARKER] is not None:
                return store.name
        except VaultError:
            continue
        finally:
            await store.close()
    return None


async def no_catalog(config: Config) -> ConfigError:
    """Return what is to be said where no catalog is: a vault that lost it must not be taken for none."""
    replica = await kept_keyring(config)
    if replica is None:
        return ConfigError(f"there is no vault at {config.resolve(None, '')}", hint="create one: callvault init")
    place = config.catalog_path or "the database of catalog.url"
    return ConfigError(
        f"there is no catalog at {place}, but the vault's keyring is at {replica}: the catalog was lost or moved; "
        "nothing was created or changed",
        hint="put it back, or restore it from a backup: callvault backup restore DEST; only where an init was cut "
        "short, and nothing was ever recorded, move all of the vault's directories away and run init again",
    )
