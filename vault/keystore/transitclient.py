"""HTTP to the transit engine of HashiCorp Vault or OpenBao: what an answer means, and what is no answer."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp

from vault.errors import Unavailable, reason
from vault.keystore.secret import Secret
from vault.keystore.threads import in_thread

_ERROR_MAX_CHARS: Final = 160
_ANSWERS: Final = frozenset({HTTPStatus.OK, HTTPStatus.NO_CONTENT, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND})
_HINTS: Final = {
    HTTPStatus.FORBIDDEN: "the token is missing, expired, revoked or lacks a right: see docs/providers.md",
    HTTPStatus.NOT_FOUND: "check address, mount and namespace in [keyring.root.transit]",
    HTTPStatus.SERVICE_UNAVAILABLE: "the key service is sealed or has no active node: unseal it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitSettings:
    """Where the transit engine is and how to be let in."""

    address: str
    token: Secret
    mount: str = "transit"
    namespace: str | None = None
    ca_file: Path | None = None
    timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server said: done, 400 (the request does not fit), or 404 (no such key, or no such mount)."""

    status: int
    errors: tuple[str, ...]
    data: Mapping[str, Any]

    @property
    def done(self) -> bool:
        """Whether the server carried it out."""
        return self.status < HTTPStatus.BAD_REQUEST

    @property
    def nothing_there(self) -> bool:
        """Whether a mounted engine said that it has no such key; a missing mount or namespace names an error."""
        return self.status == HTTPStatus.NOT_FOUND and not self.errors


class TransitSession:
    """Requests over one connection pool, each with a bound on its time."""

    def __init__(self, http: aiohttp.ClientSession, settings: TransitSettings) -> None:
        self._http = http
        self._settings = settings

    async def engine(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Ask the transit engine; see `ask`."""
        return await self.ask(method, f"{self._settings.mount}/{path}", body)

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Return the server's answer to the request itself.

        Everything that says nothing about keys is Unavailable: no connection, a timeout, a redirect, a refused token,
        a sealed server, a server error, a body that is not the API's.
        """
        try:
            # A redirect is not followed: it would carry the token to wherever the answer points.
            async with self._http.request(
                method, f"{self._settings.address.rstrip('/')}/v1/{path}", json=body, allow_redirects=False
            ) as response:
                status, text = response.status, await response.read()
                document = await response.json(content_type=None) if text else {}
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unavailable(
                f"the key service at {self._settings.address} does not answer ({reason(error)}); "
                "nothing is known to be lost"
            ) from error
        answer = _parsed(status, document)
        if answer is None or status not in _ANSWERS:
            raise self.refused(answer or Answer(status=status, errors=(), data={}))
        return answer

    async def keys(self) -> list[str]:
        """Return the names of all keys of the engine, which says "not found" if there are none; Unavailable."""
        answer = await self.engine("GET", "keys?list=true")
        if answer.nothing_there:
            return []
        names = answer.data.get("keys")
        if not answer.done or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self.refused(answer)
        return names

    def refused(self, answer: Answer) -> Unavailable:
        """Return the error for an answer that does not say what was asked."""
        said = f": {answer.errors[0][:_ERROR_MAX_CHARS]}" if answer.errors else ""
        return Unavailable(
            f"the key service at {self._settings.address} refused (HTTP {answer.status}{said}); "
            "nothing is known to be lost",
            hint=_HINTS.get(HTTPStatus(answer.status)) if answer.status in set(HTTPStatus) else None,
        )


def _parsed(status: int, document: Any) -> Answer | None:
    if not isinstance(document, dict):
        return None
    errors, data = document.get("errors") or (), document.get("data") or {}
    if not isinstance(errors, list | tuple) or not isinstance(data, dict):
        return None
    return Answer(status=status, errors=tuple(str(error) for error in errors), data=data)


class TransitClient:
    """Opens sessions; a shred an hour needs no connection in between."""

    def __init__(self, settings: TransitSettings) -> None:
        self.settings = settings

    @asynccontextmanager
    async def open(self) -> AsyncIterator[TransitSession]:
        """Enter a session with the credential as it is now."""
        settings = self.settings
        headers = {"X-Vault-Token": await in_thread(settings.token.read), "X-Vault-Request": "true"}
        if settings.namespace is not None:
            headers["X-Vault-Namespace"] = settings.namespace
        try:
            context = await in_thread(ssl.create_default_context, cafile=settings.ca_file) if settings.ca_file else True
        except OSError as error:
            raise Unavailable(f"the certificate authorities in {settings.ca_file} cannot be read") from error
        async with aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds),
            connector=aiohttp.TCPConnector(ssl=context),
        ) as http:
            yield TransitSession(http, settings)
