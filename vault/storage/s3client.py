"""How the vault speaks S3: its clients, and the bound and the words of each request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig

from vault.errors import VaultError
from vault.storage.s3errors import translate
from vault.storage.s3settings import S3Settings


def new_client(settings: S3Settings) -> Any:
    """Return an async context manager that gives a client for one bucket's store."""
    session = aioboto3.Session(
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        region_name=settings.region,
    )
    return session.client("s3", endpoint_url=settings.endpoint_url, config=_client_config(settings))


@asynccontextmanager
async def answered(operation: str, settings: S3Settings) -> AsyncIterator[None]:
    """Bound one request, and give its failure the vault's words."""
    try:
        # The SDK's timeouts do not cover a store that stops reading in the middle of an upload.
        async with asyncio.timeout(settings.operation_timeout_seconds):
            yield
    except VaultError:
        raise
    except Exception as error:
        translated = translate(error, operation)
        if translated is None:
            raise
        raise translated from error


def bucket_location(settings: S3Settings) -> dict[str, Any]:
    """Return what CreateBucket must be told of the region: nothing in the first of them."""
    if settings.region == "us-east-1":
        return {}
    return {"CreateBucketConfiguration": {"LocationConstraint": settings.region}}


def _client_config(settings: S3Settings) -> AioConfig:
    return AioConfig(
        signature_version="s3v4",
        # The body is not part of the signature: hashing it would happen on the event loop. Its digest is a header.
        s3={"addressing_style": settings.addressing, "payload_signing_enabled": False},
        request_checksum_calculation=settings.checksum_mode,
        response_checksum_validation=settings.checksum_mode,
        retries={"mode": "standard", "total_max_attempts": settings.attempts},
        connect_timeout=settings.connect_timeout_seconds,
        read_timeout=settings.read_timeout_seconds,
        max_pool_connections=settings.max_connections,
        tcp_keepalive=True,
    )
