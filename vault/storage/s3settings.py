"""How to reach one bucket: a value shared by the data path (aioboto3) and by provisioning (minio SDK)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """One bucket. Without `access_key` the SDK's default credential chain applies.

    `endpoint` is a URL, or host[:port] with `secure` choosing the scheme; None is AWS itself. `checksum_mode`
    "when_required" suits every store; "when_supported" adds an x-amz-checksum-sha256 that some stores ignore or refuse.
    `object_lock` other than "off" locks each object until its retain-until, if the bucket has Object Lock.
    `attempts` counts requests, the first included; `operation_timeout_seconds` bounds one request with its retries.
    """

    bucket: str
    endpoint: str | None = None
    region: str = "eu-west-2"
    allowed_regions: tuple[str, ...] = ("eu-west-2",)
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    secure: bool = True
    addressing: Literal["path", "virtual", "auto"] = "path"
    checksum_mode: Literal["when_required", "when_supported"] = "when_required"
    object_lock: Literal["off", "governance", "compliance"] = "off"
    bypass_governance: bool = False
    server_side_encryption: bool = True
    max_connections: int = 32
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 30.0
    operation_timeout_seconds: float = 120.0
    attempts: int = 3
    page_size: int = 1000

    @property
    def endpoint_url(self) -> str | None:
        """Return the endpoint with its scheme."""
        if self.endpoint is None or "://" in self.endpoint:
            return self.endpoint
        return f"{'https' if self.secure else 'http'}://{self.endpoint}"
