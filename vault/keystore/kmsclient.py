"""Calls to AWS KMS: what an answer means, and what is no answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from vault.errors import Unavailable, reason

NOT_FOUND: Final = "NotFoundException"
STATE: Final = "KMSInvalidStateException"
UNREADABLE: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_HINTS: Final = {
    "AccessDeniedException": "the credentials lack a right: see the policy in docs/providers.md",
    "UnrecognizedClientException": "the credentials are not valid",
    "ExpiredTokenException": "the credentials have expired",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsSettings:
    """Which region of which account; without `access_key` the SDK's default credential chain applies."""

    region: str
    endpoint: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    timeout_seconds: float = 10.0
    attempts: int = 3


class Kms:
    """One client; every failure but the codes a caller names as answers is Unavailable."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def ask(self, operation: str, *, answers: frozenset[str] = frozenset(), **request: Any) -> Any:
        """Return the response, or the error code as a string if it is one of `answers`."""
        try:
            return await getattr(self._client, operation)(**request)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            if code in answers:
                return code
            raise Unavailable(
                f"AWS KMS refused {operation} ({code}); nothing is known to be lost", hint=_HINTS.get(code)
            ) from error
        except (BotoCoreError, OSError, TimeoutError) as error:
            raise Unavailable(
                f"AWS KMS did not answer {operation} ({reason(error)}); nothing is known to be lost"
            ) from error

    async def describe(self, key_id: str) -> dict[str, Any] | None:
        """Return the key's metadata; None if KMS says that it does not exist in this account and region."""
        answer = await self.ask("describe_key", answers=frozenset({NOT_FOUND}), KeyId=key_id)
        return None if isinstance(answer, str) else answer["KeyMetadata"]

    async def aliases(self) -> dict[str, str]:
        """Return the key id behind every alias of the account and region, by alias without `alias/`."""
        found: dict[str, str] = {}
        page: dict[str, Any] = {}
        while True:
            answer = await self.ask("list_aliases", Limit=100, **page)
            for alias in answer["Aliases"]:
                found[alias["AliasName"].removeprefix("alias/")] = alias.get("TargetKeyId", "")
            if not answer.get("Truncated"):
                return found
            page = {"Marker": answer["NextMarker"]}


class KmsClient:
    """Opens clients; a shred an hour needs no connection in between, but the description of the API is read once."""

    def __init__(self, settings: KmsSettings) -> None:
        self.settings = settings
        self._session = get_session()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Kms]:
        """Enter a client."""
        settings = self.settings
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(
                    self._session.create_client(
                        "kms",
                        region_name=settings.region,
                        endpoint_url=settings.endpoint,
                        aws_access_key_id=settings.access_key,
                        aws_secret_access_key=settings.secret_key,
                        config=AioConfig(
                            connect_timeout=settings.timeout_seconds,
                            read_timeout=settings.timeout_seconds,
                            retries={"mode": "standard", "total_max_attempts": settings.attempts},
                        ),
                    )
                )
            except BotoCoreError as error:
                text = f"AWS KMS cannot be reached ({reason(error)}); nothing is known to be lost"
                raise Unavailable(text) from error
            yield Kms(client)
