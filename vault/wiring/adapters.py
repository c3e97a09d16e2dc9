"""Creates the configured adapter of each port, root-key providers included, and the machine's clock."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from vault.config import S3_SCHEME, Config, S3Access
from vault.config.root import (
    AwsKmsRootSection,
    Pkcs11RootSection,
    RootSection,
    SingleRootSection,
    TransitRootSection,
)
from vault.errors import ConfigError, Invalid
from vault.keystore.keyring import Keyring
from vault.keystore.replicas import DirectoryReplica
from vault.keystore.root.common import RootKeys, Secret
from vault.keystore.root.file import FileRootKeys
from vault.keystore.root.pairs import CompositeRootKeys, MovingRootKeys
from vault.model import Assurance
from vault.ports.cluster import ClusterLocks
from vault.ports.keys import KeyringStore
from vault.ports.objects import ObjectStore
from vault.ports.time import Clock, Entropy
from vault.storage.objects.filesystem import FilesystemObjectStore
from vault.storage.objects.memory import MemoryObjectStore
from vault.storage.objects.prefixed import PrefixedObjectStore
from vault.storage.postgres import FileClusterLocks, PostgresClusterLocks, PostgresSettings
from vault.threads import in_thread
from vault.wiring.files import TO_READ_KEYS, refuse_unusable

if TYPE_CHECKING:
    from vault.storage.s3.client import S3Settings

# -- root keys ----------------------------------------------------------------------------------------------------


def provider_of(section: RootSection | SingleRootSection, config: Config, clock: Clock, entropy: Entropy) -> RootKeys:
    """Return the provider that a section describes, without touching it; ConfigError if an extra is not installed."""
    if isinstance(section, RootSection) and section.composite is not None:
        return CompositeRootKeys(
            provider_of(section.composite.first, config, clock, entropy),
            provider_of(section.composite.second, config, clock, entropy),
            entropy=entropy,
        )
    if section.pkcs11 is not None:
        return _pkcs11(section.pkcs11, config, clock, entropy)
    if section.transit is not None:
        return _transit(section.transit, config, clock, entropy)
    if section.awskms is not None:
        return _awskms(section.awskms, clock, entropy)
    return FileRootKeys(config.file_root_path(section), clock=clock, entropy=entropy)


def root_directories(config: Config) -> Sequence[Path]:
    """Return the directories of file providers that `init` will make."""
    root = config.keyring.root
    halves = (root,) if root.composite is None else (root.composite.first, root.composite.second)
    return [config.file_root_path(half) for half in halves if half.kind == "file"]


def _pkcs11(section: Pkcs11RootSection, config: Config, clock: Clock, entropy: Entropy) -> RootKeys:
    if find_spec("pkcs11") is None:
        raise ConfigError(
            'keyring.root.kind: "pkcs11" needs a library that is not installed',
            hint="pip install 'callvault[pkcs11]'",
        )
    from vault.keystore.root.pkcs11 import Pkcs11RootKeys, TokenSettings  # noqa: PLC0415 - the extra may be absent

    settings = TokenSettings(
        library=section.library,
        token=section.token,
        pin=_secret(section.pin, section.pin_file, config, "keyring.root.pkcs11.pin_file", "CALLVAULT_PKCS11_PIN"),
        assurance=Assurance(section.assurance),
    )
    return Pkcs11RootKeys(settings, prefix=section.prefix, mechanism=section.mechanism, clock=clock, entropy=entropy)


def _transit(section: TransitRootSection, config: Config, clock: Clock, entropy: Entropy) -> RootKeys:
    from vault.keystore.root.transit import TransitRootKeys, TransitSettings  # noqa: PLC0415 - few vaults need it

    settings = TransitSettings(
        address=section.address,
        mount=section.mount,
        namespace=section.namespace,
        token=_secret(
            section.token, section.token_file, config, "keyring.root.transit.token_file", "CALLVAULT_TRANSIT_TOKEN"
        ),
        ca_file=None if section.ca_file is None else config.resolve(section.ca_file, ""),
        timeout_seconds=section.timeout.total_seconds(),
    )
    return TransitRootKeys(settings, prefix=section.prefix, clock=clock, entropy=entropy)


def _awskms(section: AwsKmsRootSection, clock: Clock, entropy: Entropy) -> RootKeys:
    from vault.keystore.root.awskms import AwsKmsRootKeys, KmsSettings  # noqa: PLC0415 - its SDK is slow to load

    settings = KmsSettings(
        region=section.region,
        endpoint=section.endpoint,
        access_key=section.access_key,
        secret_key=section.secret_key.get_secret_value() if section.secret_key else None,
        timeout_seconds=section.timeout.total_seconds(),
    )
    return AwsKmsRootKeys(settings, prefix=section.prefix, clock=clock, entropy=entropy)


def _secret(value: SecretStr | None, file: Path | None, config: Config, key: str, variable: str) -> Secret:
    if file is not None:
        return Secret(file=config.resolve(file, ""))
    if value is None:
        raise ConfigError(f"{key}: there is no credential for the root keys", hint=f"name a file, or set {variable}")
    return Secret(value=value.get_secret_value())


# -- adapters -----------------------------------------------------------------------------------------------------

KEYRING_ID = "keyring_id"
"""The catalog setting with the id of its keyring."""
RECONCILE = "reconcile"
"""The catalog setting with the reason why it must be reconciled before it is served; empty if it need not be."""
RESTORED_FROM = "restored_from"
"""The catalog setting with the name of the backup it was loaded from."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the wall clock."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds of CLOCK_BOOTTIME, which also counts while the machine is suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def root_keys(config: Config, clock: Clock, entropy: Entropy) -> RootKeys:
    """Return the configured root-key provider; while the vault moves, with the previous one behind it. ConfigError."""
    current = provider_of(config.keyring.root, config, clock, entropy)
    if config.keyring.previous_root is None:
        return current
    return MovingRootKeys(current, previous=provider_of(config.keyring.previous_root, config, clock, entropy))


def catalog_place(config: Config) -> Path | PostgresSettings:
    """Return the SQLite file or the PostgreSQL database of the section [catalog]."""
    if config.catalog_path is not None:
        return config.catalog_path
    assert config.catalog.url is not None
    return PostgresSettings(url=config.catalog.url.get_secret_value())


def cluster_locks(config: Config, clock: Clock, *, observes: bool = False) -> ClusterLocks:
    """Return the locks that all processes of the vault share, kept where its catalog is.

    With `observes` no lock file is made: it would belong to this user and could keep the vault's own user out.
    """
    place = catalog_place(config)
    if isinstance(place, PostgresSettings):
        return PostgresClusterLocks(place, clock=clock)
    return FileClusterLocks(config.locks_path, clock=clock, makes=not observes)


def keyring_replicas(config: Config) -> Sequence[KeyringStore]:
    """Return the configured replicas of the keyring, in their order."""
    return [
        _bucket_replica(config.keyring_s3, place) if place.startswith(S3_SCHEME) else DirectoryReplica(Path(place))
        for place in config.replicas
    ]


def _bucket_replica(access: S3Access, place: str) -> KeyringStore:
    from vault.storage.s3.keyring_replica import BucketReplica  # noqa: PLC0415 - its SDK is slow to load

    bucket, _, prefix = place.removeprefix(S3_SCHEME).partition("/")
    return BucketReplica(_s3_settings(access, bucket=bucket), prefix)


async def provision_bucket(config: Config) -> str:
    """Make and set up the bucket of the section [objects.s3]; return its name."""
    from vault.storage.s3.bucket import provision  # noqa: PLC0415 - its SDK is slow to load

    settings = _objects_settings(config)
    await in_thread(provision, settings)
    return settings.bucket


def _objects_settings(config: Config) -> S3Settings:
    section = config.objects.s3
    assert section is not None
    return _s3_settings(
        section,
        bucket=section.bucket,
        object_lock=section.object_lock,
        bypass_governance=section.bypass_governance,
        server_side_encryption=section.server_side_encryption,
    )


def _s3_settings(section: S3Access, **more: Any) -> S3Settings:
    from vault.storage.s3.client import S3Settings  # noqa: PLC0415 - its SDK is slow to load

    return S3Settings(
        endpoint=section.endpoint,
        region=section.region,
        allowed_regions=section.allowed_regions,
        access_key=section.access_key,
        secret_key=section.secret_key.get_secret_value() if section.secret_key else None,
        addressing=section.addressing,
        checksum_mode=section.checksum_mode,
        **more,
    )


async def open_store(config: Config, *, observes: bool = False) -> ObjectStore:
    """Open the configured object store; ConfigError if it was never created.

    With `observes` it does not remove what a crash left half written.
    """
    match config.objects.kind:
        case "filesystem":
            return await FilesystemObjectStore.open(config.objects_path, tidies=not observes)
        case "s3":
            return await _open_bucket(_objects_settings(config))
        case _:
            return MemoryObjectStore()


async def _open_bucket(settings: S3Settings) -> ObjectStore:
    from vault.storage.s3.store import S3ObjectStore  # noqa: PLC0415 - its SDK is slow to load

    return await S3ObjectStore.open(settings)


async def observe_keyring(config: Config, clock: Clock, entropy: Entropy = os.urandom) -> Keyring:
    """Read the keyring beside a server that may be running; changes nothing."""
    await in_thread(refuse_unusable, config, TO_READ_KEYS)
    provider = root_keys(config, clock, entropy)
    return await Keyring.observe(keyring_replicas(config), provider, clock=clock, entropy=entropy)


async def open_destination(config: Config, text: str, *, create: bool) -> ObjectStore:
    """Open a directory or `s3://bucket/prefix` as a destination of backups.

    With `create` a missing directory is made. ConfigError if it is missing otherwise, Invalid for another kind of
    address.
    """
    if not text.startswith(S3_SCHEME):
        if "://" in text:
            raise Invalid(f"{text[:80]} is not a destination", hint="give a directory or s3://bucket/prefix")
        path = Path(text)
        if create:
            await FilesystemObjectStore.create(path)
        return await FilesystemObjectStore.open(path)
    access = config.backup.s3 or config.objects.s3
    if access is None:
        raise ConfigError(
            "backup.s3: this section is missing, so S3 cannot be reached",
            hint="add the section [backup.s3]: callvault init --defaults explains it",
        )
    bucket, _, prefix = text.removeprefix(S3_SCHEME).partition("/")
    prefix = prefix.strip("/")
    store = await _open_bucket(_s3_settings(access, bucket=bucket))
    return PrefixedObjectStore(store, f"{prefix}/" if prefix else "")
