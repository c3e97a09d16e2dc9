"""Creates the root-key provider that [keyring.root] describes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from pydantic import SecretStr

from vault.config import Config
from vault.config.root import (
    AwsKmsRootSection,
    Pkcs11RootSection,
    RootSection,
    SingleRootSection,
    TransitRootSection,
)
from vault.errors import ConfigError
from vault.keystore.root.awskms import AwsKmsRootKeys, KmsSettings
from vault.keystore.root.common import RootKeys, Secret
from vault.keystore.root.file import FileRootKeys
from vault.keystore.root.pairs import CompositeRootKeys
from vault.keystore.root.transit import TransitRootKeys, TransitSettings
from vault.model import Assurance
from vault.ports.time import Clock, Entropy


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
