"""What an S3 store's failures mean to the vault.

The one rule that matters: only a store that knows the bucket and answers that it has no such key has said "absent".
"""

from __future__ import annotations

from typing import Final

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError, ParamValidationError

from vault.errors import DiskFull, NotFound, RangeNotSatisfiable, Unavailable, VaultError, reason

CODE: Final = "s3_code"

LOCKED: Final = frozenset({"AccessDenied", "ObjectLocked"})
"""Answers to deleting a version that a lock, or a policy, still protects."""

UNSUPPORTED: Final = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})
"""Answers to a request the server has no code for."""

_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchVersion", "NotFound", "404"})
_FULL: Final = frozenset({"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "507"})


def translate(error: Exception, operation: str) -> VaultError | None:
    """Return the vault's error for one raised by the SDK or the transport; None if it is a defect of ours.

    NotFound here means that the answer was 404: over HEAD, a missing bucket looks the same, so the caller asks for the
    bucket before it believes it. Messages name the operation and the store's code, never a header or a credential.
    """
    if isinstance(error, ClientError):
        return _answered(error, operation)
    if isinstance(error, ParamValidationError):
        return None
    if isinstance(error, NoCredentialsError):
        return Unavailable(f"no credentials for the object store ({operation})", s3_code="NoCredentials")
    # A cut body leaves aiobotocore as the bare error of its HTTP library, which this layer does not import.
    transport = (BotoCoreError, HTTPClientError, OSError, TimeoutError)
    if isinstance(error, transport) or type(error).__module__.startswith("aiohttp"):
        return Unavailable(f"the object store did not answer {operation}: {reason(error)}")
    return None


def code_of(error: VaultError) -> str:
    """Return the store's own code behind a translated error, or ""."""
    return str(error.facts.get(CODE, ""))


def _answered(error: ClientError, operation: str) -> VaultError:
    code = str(error.response.get("Error", {}).get("Code", "unknown"))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    facts: dict[str, str | int] = {CODE: code, "status": status}
    text = f"the object store answered {operation} with {status} {code}"
    if code in _ABSENT:
        return NotFound(text, hint=None, **facts)
    if code == "InvalidRange" or status == 416:  # noqa: PLR2004 - RFC 9110, Range Not Satisfiable
        return RangeNotSatisfiable(text, hint=None, **facts)
    if code in _FULL:
        return DiskFull(text, hint=None, retry_after_seconds=60, **facts)
    if code == "NoSuchBucket":
        text = "the bucket does not exist; nothing is known of its objects"
    return Unavailable(text, hint=None, retry_after_seconds=5, **facts)
