"""config.toml → frozen settings; the only reader of settings files and environment."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator

from vault.config.root import RootSection, SingleRootSection, overlay
from vault.config.sections import CalendarPeriod, Duration, Retention, Section, Size
from vault.errors import ConfigError, Invalid
from vault.ids import parse_tenant
from vault.media.descriptor import MAX_CHANNELS, MAX_RATE, MIN_RATE
from vault.places import unusable
from vault.retention.periods import Period
from vault.wording import first_misfit

# -- [streams] ----------------------------------------------------------------------------------------------------

_PLACE: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)):([0-9]{1,5})", re.ASCII)
_MAX_PORT: Final = 65_535


class Listener(Section):
    """One listener; every client that reaches it records for `tenant`, and the audit trail names it as `token`."""

    tenant: str
    token: str = Field(pattern=r"^tok_[0-9a-f]{32}$")
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    listen: str
    """After the TLS settings: what they are decides where it may listen."""

    @field_validator("tenant")
    @classmethod
    def _tenant(cls, value: str) -> str:
        try:
            return parse_tenant(value)
        except Invalid as error:
            raise ValueError("that is not a tenant id") from error

    @field_validator("listen")
    @classmethod
    def _guarded(cls, value: str, info: ValidationInfo) -> str:
        host, _ = _split(value)
        given = [info.data.get(name) is not None for name in ("tls_cert", "tls_key", "client_ca")]
        if any(given) and not all(given):
            raise ValueError("tls_cert, tls_key and client_ca come together")
        if not any(given) and not _is_loopback(host):
            raise ValueError(
                f"anyone who reaches {host} could record: set tls_cert, tls_key and client_ca, so that only clients "
                "with a certificate of yours can, or listen on 127.0.0.1"
            )
        return value

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return _split(self.listen)


class RtpengineListener(Listener):
    """For `rtpengine-recording --tcp-send-to`, which does not say what it sends: its --tcp-resample and channels."""

    rate: int = Field(default=8_000, ge=MIN_RATE, le=MAX_RATE)
    channels: int = Field(default=1, ge=1, le=MAX_CHANNELS)


class StreamSettings(Section):
    """Which listeners there are; none by default."""

    audiosocket: Listener | None = None
    rtpengine: RtpengineListener | None = None


def _split(place: str) -> tuple[str, int]:
    match = _PLACE.fullmatch(place)
    if match is None or int(match[3]) > _MAX_PORT:
        raise ValueError("an address is host:port, for example 127.0.0.1:9019")
    return match[1] or match[2], int(match[3])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False  # a name may come to lead elsewhere


# -- the other sections, and the whole file -----------------------------------------------------------------------

S3_SCHEME = "s3://"


class ServerSettings(Section):
    """Where and how the server listens."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_plain_http: bool = False
    max_recording_bytes: Size = 4 << 30
    idle_timeout: Duration = timedelta(seconds=30)
    resume_grace: Duration = timedelta(seconds=60)
    upload_grace: Duration = timedelta(hours=1)
    public_url: str | None = Field(default=None, pattern=r"^https?://[^/?#\s]+$")
    drain_grace: Duration = timedelta(seconds=30)
    finish_wait: Duration = timedelta(seconds=1)
    max_open_recordings: int = Field(default=20_000, gt=0)
    max_requests: int = Field(default=1_000, gt=0)
    max_connections: int | None = Field(default=None, gt=0)
    max_unauthenticated: int | None = Field(default=None, gt=0)
    unauthenticated_timeout: Duration = Field(default=timedelta(seconds=10), gt=timedelta(0))

    @property
    def loopback(self) -> bool:
        """Whether the listener can only be reached from this machine."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @model_validator(mode="after")
    def _tls(self) -> ServerSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key come together")
        if self.tls_cert is None and not self.loopback and not self.allow_plain_http:
            raise ValueError(
                f"plain HTTP on {self.host} would carry audio in clear: set tls_cert and tls_key, listen on 127.0.0.1 "
                "behind a TLS proxy, or set allow_plain_http = true if you know the network is private"
            )
        return self


class CatalogSettings(Section):
    """Where the rows live: a SQLite file, or a PostgreSQL database, whose address is also in CALLVAULT_CATALOG_URL."""

    path: Path | None = None
    url: SecretStr | None = None

    @model_validator(mode="after")
    def _one_place(self) -> CatalogSettings:
        if self.path is not None and self.url is not None:
            raise ValueError("path and url (or CALLVAULT_CATALOG_URL) exclude each other")
        return self


class S3Access(Section):
    """How to reach an S3 store, and which of its regions are allowed."""

    endpoint: str | None = None
    region: str = "eu-west-2"
    allowed_regions: tuple[str, ...] = ("eu-west-2",)
    access_key: str | None = None
    secret_key: SecretStr | None = None
    addressing: Literal["path", "virtual", "auto"] = "path"
    checksum_mode: Literal["when_required", "when_supported"] = "when_required"


class S3Section(S3Access):
    """An S3 bucket; credentials also from CALLVAULT_S3_ACCESS_KEY and CALLVAULT_S3_SECRET_KEY."""

    bucket: str
    object_lock: Literal["off", "governance", "compliance"] = "off"
    bypass_governance: bool = False
    server_side_encryption: bool = True


class ObjectSettings(Section):
    """Where the sealed objects live."""

    kind: Literal["filesystem", "s3", "memory"] = "filesystem"
    path: Path | None = None
    s3: S3Section | None = None

    @model_validator(mode="after")
    def _s3(self) -> ObjectSettings:
        if (self.kind == "s3") != (self.s3 is not None):
            raise ValueError('kind = "s3" and the section [objects.s3] come together')
        return self


class KeyringSettings(Section):
    """Where the keyring's replicas and the root key live; never inside one backup set."""

    replicas: tuple[str, ...] | None = None
    s3: S3Access | None = None
    root_keys: Path | None = None
    precreate_days: int = Field(default=2, ge=0)
    lease: Duration = Field(default=timedelta(seconds=15), gt=timedelta(0), le=timedelta(seconds=15))
    root: RootSection = RootSection()
    previous_root: RootSection | None = None

    @model_validator(mode="after")
    def _roots(self) -> KeyringSettings:
        if self.root_keys is not None and self.root.file is not None and self.root.file.path is not None:
            raise ValueError("root_keys and root.file.path name the same thing: give one")
        if self.root == self.previous_root:
            raise ValueError("previous_root is the provider before root, not the same one")
        return self


class JournalSettings(Section):
    """The local write-ahead log of audio not yet in the object store."""

    path: Path | None = None
    max_bytes: Size = 4 << 30
    file_bytes: Size = 256 << 20
    disk_reserve: Size = 1 << 30
    commit_interval: Duration = timedelta(milliseconds=5)
    max_undurable_bytes: Size = 256 << 20


class PartsSettings(Section):
    """Parts of uploads that are not yet put together; they lie in the journal's directory."""

    max_bytes: Size = 8 << 30


class IngestSettings(Section):
    """What calls under way may ask for."""

    pause_max: Duration = Field(default=timedelta(minutes=15), gt=timedelta(0), le=timedelta(days=1))


class SegmentSettings(Section):
    """How a recording is cut into objects."""

    max_bytes: Size = 8 << 20
    first_age: Duration = timedelta(seconds=30)
    max_age: Duration = timedelta(minutes=2)
    concurrency: int = Field(default=4, gt=0)

    @model_validator(mode="after")
    def _bound(self) -> SegmentSettings:
        if self.max_bytes > 8 << 20:
            raise ValueError("a segment is at most 8MiB")
        return self


class RetentionSettings(Section):
    """How long recordings are kept. `cohort_width` is fixed at `init`.

    What an unset `floor` means, and how low a set one may be, depends on the vault: `vault.retention.periods`.
    """

    default: Retention = Period(timedelta(days=90))
    floor: CalendarPeriod | None = None
    cap: Retention = Period(months=12 * 7)
    backdating: Duration = timedelta(days=7)
    cohort_width: Duration = timedelta(days=1)
    release_grace: CalendarPeriod = Period(timedelta(days=14))
    flag_review: Retention = Period(timedelta(days=7))
    export_window: CalendarPeriod = Period(timedelta(days=30))
    erasure_window: Duration = timedelta(seconds=1)
    notice: CalendarPeriod = Period(timedelta(days=14))

    @model_validator(mode="after")
    def _bounds(self) -> RetentionSettings:
        if not (self.default.covers(self.floor or Period()) and self.cap.covers(self.default)):
            raise ValueError("floor, default and cap are in this order")
        return self


class SweepSettings(Section):
    """When the sweeper runs and what stops it."""

    enabled: bool = True
    interval: Duration = timedelta(hours=1)
    jitter: Duration = timedelta(minutes=5)
    max_jump: Duration = timedelta(days=2)
    max_share: float = Field(default=0.5, gt=0, le=1)
    max_share_minimum: int | None = Field(default=None, ge=0)
    """Read and ignored, so that older files open: the share counts from the first recording."""


class IdentitySettings(Section):
    """Who runs this vault; printed on certificates."""

    processor: str = Field(default="Callvault operator", min_length=1)
    contact: str = Field(default="privacy@example.org", min_length=1)
    region: str = Field(default="United Kingdom", min_length=1)

    @property
    def unnamed(self) -> tuple[str, ...]:
        """The settings that still have a placeholder; the default region may be the right one."""
        default = IdentitySettings()
        return tuple(name for name in ("processor", "contact") if getattr(self, name) == getattr(default, name))


class AccessSettings(Section):
    """What a play, export or search may be for, and how many plays and exports one token may have under way."""

    purposes: tuple[str, ...] = (
        "quality",
        "training",
        "complaint",
        "safeguarding",
        "legal-claim",
        "access-request",
        "security",
        "client-service",
    )
    max_playbacks: int = Field(default=16, gt=0)


class AlertSettings(Section):
    """Where alerts may go: networks that are not public and that webhooks may lead to all the same."""

    private_networks: tuple[IPv4Network | IPv6Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


class BackupSettings(Section):
    """How to reach backup destinations in S3; without it, as [objects.s3] does.

    Credentials also come from CALLVAULT_BACKUP_S3_ACCESS_KEY and CALLVAULT_BACKUP_S3_SECRET_KEY.
    """

    s3: S3Access | None = None


class LogSettings(Section):
    """What goes to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Config(Section):
    """The whole of config.toml; relative paths are relative to the file."""

    data: Path = Path("data")
    server: ServerSettings = ServerSettings()
    catalog: CatalogSettings = CatalogSettings()
    objects: ObjectSettings = ObjectSettings()
    keyring: KeyringSettings = KeyringSettings()
    journal: JournalSettings = JournalSettings()
    parts: PartsSettings = PartsSettings()
    ingest: IngestSettings = IngestSettings()
    segments: SegmentSettings = SegmentSettings()
    retention: RetentionSettings = RetentionSettings()
    sweep: SweepSettings = SweepSettings()
    identity: IdentitySettings = IdentitySettings()
    access: AccessSettings = AccessSettings()
    alerts: AlertSettings = AlertSettings()
    backup: BackupSettings = BackupSettings()
    streams: StreamSettings = StreamSettings()
    log: LogSettings = LogSettings()
    base: Path = Field(default=Path(), exclude=True)

    def resolve(self, path: Path | None, default: str) -> Path:
        """Return an absolute path: the setting relative to the file, or `default` inside the data directory."""
        return (self.base / (path if path is not None else self.data / default)).absolute()

    @property
    def catalog_path(self) -> Path | None:
        """The SQLite file, or None if the catalog is a PostgreSQL database."""
        return None if self.catalog.url else self.resolve(self.catalog.path, "catalog.db")

    @property
    def locks_path(self) -> Path:
        """Where the processes of a vault on one machine lock each other out."""
        return self.resolve(None, "locks")

    @property
    def objects_path(self) -> Path:
        """The filesystem object store's root."""
        return self.resolve(self.objects.path, "objects")

    @property
    def journal_path(self) -> Path:
        """The journal's directory."""
        return self.resolve(self.journal.path, "journal")

    @property
    def spool_path(self) -> Path:
        """The directory of parts of uploads, inside the node's journal, so that a takeover of the journal has them."""
        return self.journal_path / "parts"

    @property
    def replicas(self) -> tuple[str, ...]:
        """The keyring's replicas: absolute paths of directories, and s3://bucket/prefix."""
        if self.keyring.replicas is None:
            return tuple(str(self.resolve(None, f"keyring-{letter}")) for letter in "abc")
        return tuple(
            place if place.startswith(S3_SCHEME) else str(self.resolve(Path(place), ""))
            for place in self.keyring.replicas
        )

    @property
    def replica_paths(self) -> tuple[Path, ...]:
        """Those of the keyring's replicas that are directories."""
        return tuple(Path(place) for place in self.replicas if not place.startswith(S3_SCHEME))

    @property
    def keyring_s3(self) -> S3Access:
        """How to reach the buckets of keyring replicas: as the objects' store unless told otherwise."""
        return self.keyring.s3 or self.objects.s3 or S3Access()

    def file_root_path(self, section: SingleRootSection | RootSection) -> Path:
        """Return the directory of a file provider: its own path, else `keyring.root_keys`, else below `data`."""
        own = section.file.path if section.file is not None else None
        return self.resolve(own or self.keyring.root_keys, "root-keys")

    @property
    def tls_paths(self) -> tuple[Path, Path] | None:
        """Certificate chain and key, or None for plain HTTP."""
        if self.server.tls_cert is None or self.server.tls_key is None:
            return None
        return self.resolve(self.server.tls_cert, ""), self.resolve(self.server.tls_key, "")

    @property
    def issuer_path(self) -> Path:
        """The certificate issuer's private key; its public half lies beside it as `.pub`."""
        return self.resolve(None, "issuer.pem")


def parse_config(document: Mapping[str, Any], *, base: Path) -> Config:
    """Validate a parsed document; ConfigError names the section and key."""
    if "base" in document:
        raise ConfigError("base: is not a setting")
    try:
        return Config.model_validate({**document, "base": base})
    except ValidationError as error:
        where, what = first_misfit(error)
        raise ConfigError(
            f"{where or 'the file'}: {what}", hint="callvault init --defaults explains every setting"
        ) from error


def _document(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no configuration at {path}",
            hint="run this on the vault's machine with --config; new vaults begin with the defaults: callvault init",
        ) from error
    except OSError as error:
        raise unusable(path, error) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def load_config(path: Path, *, environment: Mapping[str, str] = os.environ) -> Config:
    """Read `path`, overlaying credentials from the environment; ConfigError."""
    document = _document(path)
    prefixes = {"objects": "CALLVAULT_S3", "keyring": "CALLVAULT_KEYRING_S3", "backup": "CALLVAULT_BACKUP_S3"}
    for section, prefix in prefixes.items():
        s3 = document[section].get("s3") if isinstance(document.get(section), dict) else None
        if isinstance(s3, dict):
            for key in ("access_key", "secret_key"):
                if (variable := f"{prefix}_{key.upper()}") in environment:
                    s3[key] = environment[variable]
    if "CALLVAULT_CATALOG_URL" in environment and isinstance(document.setdefault("catalog", {}), dict):
        document["catalog"]["url"] = environment["CALLVAULT_CATALOG_URL"]
    if isinstance(document.get("keyring"), dict):
        overlay(document["keyring"], environment)
    return parse_config(document, base=path.absolute().parent)
