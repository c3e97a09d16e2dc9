"""The section [streams]: listeners for recorders that speak plain TCP and have no credentials."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationInfo, field_validator

from vault.config.sections import Section
from vault.errors import Invalid
from vault.ids import parse_tenant
from vault.media.descriptor import MAX_CHANNELS, MAX_RATE, MIN_RATE

_PLACE: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)):([0-9]{1,5})", re.ASCII)
_MAX_PORT: Final = 65_535


class Listener(Section):
    """One listener; whoever reaches it records for `tenant`, and `token` names who that is in the audit trail."""

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
