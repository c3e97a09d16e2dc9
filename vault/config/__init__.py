"""config.toml: its sections as frozen settings; `vault.config.file` alone reads settings files and the environment."""

from vault.config.file import (
    S3_SCHEME,
    AccessSettings,
    Config,
    IdentitySettings,
    S3Access,
    S3Section,
    ServerSettings,
    load_config,
    parse_config,
)

__all__ = [
    "S3_SCHEME",
    "AccessSettings",
    "Config",
    "IdentitySettings",
    "S3Access",
    "S3Section",
    "ServerSettings",
    "load_config",
    "parse_config",
]
