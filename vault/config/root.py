"""The sections [keyring.root] and [keyring.previous_root]: where root keys live, and how to be let in there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, model_validator

from vault.config.sections import Duration, Section

_PREFIX: Final = r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$"
_SECRETS: Final = {
    "pkcs11": {"pin": "CALLVAULT_PKCS11_PIN"},
    "transit": {"token": "CALLVAULT_TRANSIT_TOKEN"},
    "awskms": {"access_key": "CALLVAULT_KMS_ACCESS_KEY", "secret_key": "CALLVAULT_KMS_SECRET_KEY"},
}

Prefix = Annotated[str, Field(pattern=_PREFIX)]


class FileRootSection(Section):
    """One private directory, on a disk without snapshots."""

    path: Path | None = None


class Pkcs11RootSection(Section):
    """A token behind a PKCS#11 library; its PIN also from CALLVAULT_PKCS11_PIN."""

    library: Path
    token: str
    pin: SecretStr | None = None
    pin_file: Path | None = None
    prefix: Prefix = "callvault"
    assurance: Literal["hsm", "device"] = "hsm"
    mechanism: Literal["auto", "aes-gcm", "aes-key-wrap-pad"] = "auto"


class TransitRootSection(Section):
    """A transit engine of HashiCorp Vault or OpenBao; its token also from CALLVAULT_TRANSIT_TOKEN."""

    address: str = Field(pattern=r"^https?://[^/]+")
    mount: str = "transit"
    namespace: str | None = None
    token: SecretStr | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    prefix: Prefix = "callvault"
    timeout: Duration = timedelta(seconds=10)


class AwsKmsRootSection(Section):
    """AWS KMS in one region; credentials also from CALLVAULT_KMS_ACCESS_KEY and _SECRET_KEY, or AWS's default chain."""

    region: str
    endpoint: str | None = None
    access_key: str | None = None
    secret_key: SecretStr | None = None
    prefix: Prefix = "callvault"
    timeout: Duration = timedelta(seconds=10)


class _Providers(Section):
    file: FileRootSection | None = None
    pkcs11: Pkcs11RootSection | None = None
    transit: TransitRootSection | None = None
    awskms: AwsKmsRootSection | None = None


class SingleRootSection(_Providers):
    """One provider: its kind, and the section of that name."""

    kind: Literal["file", "pkcs11", "transit", "awskms"] = "file"

    @model_validator(mode="after")
    def _one(self) -> SingleRootSection:
        _check_sections(self, self.kind)
        return self


class CompositeRootSection(Section):
    """Two providers, both needed to read; a version is gone when either has deleted its half."""

    first: SingleRootSection
    second: SingleRootSection

    @model_validator(mode="after")
    def _two(self) -> CompositeRootSection:
        if self.first == self.second:
            raise ValueError("first and second are two different stores")
        return self


class RootSection(_Providers):
    """The provider that makes root versions."""

    kind: Literal["file", "pkcs11", "transit", "awskms", "composite"] = "file"
    composite: CompositeRootSection | None = None

    @model_validator(mode="after")
    def _one(self) -> RootSection:
        _check_sections(self, self.kind)
        return self


def _check_sections(section: _Providers, kind: str) -> None:
    for name, given in section:
        if isinstance(given, Section) and name != kind:
            raise ValueError(f'the section {name} does not go with kind = "{kind}"')
    if kind != "file" and getattr(section, kind) is None:
        raise ValueError(f'kind = "{kind}" needs a section of that name')


def overlay(keyring: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Put credentials from the environment into a parsed [keyring]; a section that names a file keeps to the file."""
    for root in _roots(keyring):
        for kind, variables in _SECRETS.items():
            section = root.get(kind)
            if not isinstance(section, dict):
                continue
            for key, variable in variables.items():
                if variable in environment and f"{key}_file" not in section:
                    section[key] = environment[variable]


def _roots(keyring: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("root", "previous_root"):
        root = keyring.get(name)
        if not isinstance(root, dict):
            continue
        yield root
        halves = root.get("composite")
        if isinstance(halves, dict):
            yield from (half for half in halves.values() if isinstance(half, dict))
