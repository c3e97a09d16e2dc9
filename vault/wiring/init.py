"""`init`: creates a new vault."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry

from vault.config import Config, IdentitySettings
from vault.crypto.signing import SigningKey
from vault.disk import write_whole
from vault.errors import ConfigError
from vault.keystore.keyring import Keyring
from vault.keystore.root.common import RootKeys
from vault.model import DataKey, Finding, Role, Token
from vault.ports.time import Clock, Entropy
from vault.retention.periods import check_new_width
from vault.services.keys import COUNTED_SINCE
from vault.services.people.access import Access
from vault.services.surroundings import Surroundings
from vault.storage.catalog.catalog import SqlCatalog, open_catalog
from vault.storage.objects.filesystem import FilesystemObjectStore
from vault.telemetry import Metrics
from vault.threads import in_thread
from vault.wiring.adapters import (
    KEYRING_ID,
    SystemClock,
    catalog_place,
    keyring_replicas,
    provision_bucket,
    root_directories,
    root_keys,
)
from vault.wiring.files import Piece, refuse_unmakeable, refuse_unusable
from vault.wiring.lineage import kept_keyring, no_catalog
from vault.wiring.retention import bounds_in, retention_findings

# -- init ---------------------------------------------------------------------------------------------------------


def identity_findings(identity: IdentitySettings, *, trial: bool) -> Sequence[Finding]:
    """Return the finding on placeholders; none for a trial vault, whose certificates prove nothing anyway."""
    if trial or not identity.unnamed:
        return ()
    names = " and ".join(f"identity.{name}" for name in identity.unnamed)
    verb = "are placeholders" if len(identity.unnamed) > 1 else "is a placeholder"
    message = f"{names} {verb}: no certificate can say who runs this vault, so nothing is shredded until they do"
    hint = "set processor and contact in [identity] of config.toml, and restart"
    return (Finding(level="error", subject="identity", message=message, hint=hint),)


@dataclass(frozen=True, slots=True, kw_only=True)
class InitResult:
    """What `init` made, and its findings; the token is shown once."""

    operator_token: str = field(repr=False)
    created: Sequence[str]
    findings: Sequence[Finding]


def _existing(config: Config) -> list[Path]:
    places = [
        *([config.catalog_path] if config.catalog_path else []),
        config.journal_path,
        config.issuer_path,
        *config.replica_paths,
        *root_directories(config),
    ]
    if config.objects.kind == "filesystem":
        places.append(config.objects_path)
    return [place for place in places if place.exists()]


async def init_vault(
    config: Config, *, trial: bool = False, clock: Clock | None = None, entropy: Entropy = os.urandom
) -> InitResult:
    """Create every piece of state; ConfigError if any of it exists already, so nothing is ever overwritten.

    `trial` marks the vault for ever as a trial vault, whose recordings may be deleted early.
    """
    clock = clock or SystemClock()
    bounds = bounds_in(config, trial=trial)
    check_new_width(config.retention.cohort_width, trial=trial)
    await in_thread(refuse_unmakeable, config)
    if not (config.catalog_path and config.catalog_path.exists()) and await kept_keyring(config):
        raise await no_catalog(config)
    if found := _existing(config):
        raise ConfigError(
            f"{found[0]} exists already; nothing was created or changed",
            hint="init creates a vault once; to start over, move all of its directories away first",
        )
    if config.keyring.previous_root is not None:
        raise ConfigError("keyring.previous_root: a new vault has no previous provider; nothing was created")
    catalog = open_catalog(catalog_place(config), clock=clock)
    try:
        token, created = await _create(config, catalog, clock, entropy, trial=trial)
    finally:
        await catalog.close()
    findings = (*retention_findings(bounds, trial=trial), *identity_findings(config.identity, trial=trial))
    return InitResult(operator_token=token, created=created, findings=findings)


async def _create(
    config: Config, catalog: SqlCatalog, clock: Clock, entropy: Entropy, *, trial: bool
) -> tuple[str, Sequence[str]]:
    if not await catalog.is_empty():
        raise ConfigError(
            "catalog.url: the database holds a catalog already; nothing was created or changed",
            hint="a further node of that vault needs a journal directory and no init",
        )
    created: list[str] = []
    config.resolve(None, "").mkdir(parents=True, exist_ok=True, mode=0o700)
    # The provider goes first: if a key service refuses, nothing has been made that would refuse the next attempt.
    provider = root_keys(config, clock, entropy)
    created.append(await provider.create())
    await _create_objects(config, created)
    config.journal_path.mkdir(parents=True, mode=0o700)
    created.append(f"journal {config.journal_path}")
    keyring_id = entropy(16)
    await Keyring.create(
        keyring_replicas(config),
        provider,
        keyring_id=keyring_id,
        cohort_width_seconds=config.retention.cohort_width.total_seconds(),
        lease=config.keyring.lease,
        trial=trial,
        entropy=entropy,
    )
    await _mark_created(config, provider, clock, entropy)
    created += [f"keyring replica {path}" for path in config.replica_paths]
    issuer = SigningKey.generate(entropy(32))
    write_whole(config.issuer_path, issuer.to_pem())
    config.issuer_path.with_suffix(".pub").write_bytes(issuer.public.to_pem())
    created.append(f"issuer key {config.issuer_path}, public half beside it as .pub")
    # The catalog comes last: its presence shows that init was completed.
    await catalog.migrate()
    await catalog.save_setting(KEYRING_ID, keyring_id.hex())
    await catalog.save_setting(COUNTED_SINCE, "0")
    surroundings = Surroundings(clock=clock, entropy=entropy, metrics=Metrics(CollectorRegistry()))
    access = Access(catalog=catalog, surroundings=surroundings, sealing_keys=_no_recorder)
    _, token = await access.issue(name="first operator", role=Role.OPERATOR, tenant=None, actor=None)
    created.append(f"catalog {config.catalog_path or 'in PostgreSQL'}")
    return token, created


def _no_recorder() -> Sequence[DataKey]:
    raise AssertionError("only recorders' secrets are sealed, and the first token is an operator's")


async def prepare_root_keys(config: Config, *, clock: Clock | None = None, entropy: Entropy = os.urandom) -> str:
    """Make the store of [keyring.root] for a vault that moves there from [keyring.previous_root]; say what was made.

    ConfigError if no previous provider is named, or the store exists. A crash leaves at most a store without a version
    that has wrapped anything.
    """
    if config.keyring.previous_root is None:
        raise ConfigError(
            "keyring.previous_root: the provider that holds the root keys now has to be named; nothing was made",
            hint="name the present provider as previous_root and the new one as root: see docs/providers.md",
        )
    return await root_keys(config, clock or SystemClock(), entropy).create()


async def _mark_created(config: Config, provider: RootKeys, clock: Clock, entropy: Entropy) -> None:
    """Set the clock guard's first time, so that the first sweep has one to compare with."""
    keyring = await Keyring.open(keyring_replicas(config), provider, clock=clock, entropy=entropy)
    try:
        async with keyring.writer() as writer:
            await writer.set_last_sweep(clock.now())
    finally:
        await keyring.close()


async def _create_objects(config: Config, created: list[str]) -> None:
    match config.objects.kind:
        case "filesystem":
            await FilesystemObjectStore.create(config.objects_path)
            created.append(f"object store {config.objects_path}")
        case "s3":
            created.append(f"bucket {await provision_bucket(config)}")
        case _:
            created.append("object store in memory: recordings end with the process")


# -- operator token -----------------------------------------------------------------------------------------------


async def issue_operator(config: Config, *, name: str, expires_at: datetime | None) -> tuple[Token, str]:
    """Issue an operator's token in the catalog, beside the server or without one, and return its text.

    The audit trail names the vault itself as the actor. ConfigError without a catalog of this version.
    """
    await in_thread(refuse_unusable, config, (Piece.CATALOG,))
    clock = SystemClock()
    catalog = open_catalog(catalog_place(config), clock=clock)
    try:
        await catalog.check_schema()
        access = Access(
            catalog=catalog,
            surroundings=Surroundings(clock=clock, entropy=os.urandom, metrics=Metrics(CollectorRegistry())),
            sealing_keys=tuple,
        )
        return await access.issue(name=name, role=Role.OPERATOR, tenant=None, actor=None, expires_at=expires_at)
    finally:
        await catalog.close()
