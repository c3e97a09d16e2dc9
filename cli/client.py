"""HTTP to a server: JSON requests and answers, audio streams, and problem documents as the vault's errors."""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

from vault import errors

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"

_PROBLEM_PREFIX = "urn:callvault:problem:"
_RESERVED = frozenset({"type", "title", "status", "detail", "hint", "retry_after_seconds", "message"})
_TOKEN = re.compile(r"[\x21-\x7e]{1,500}")
_CLAIM = re.compile(r"cv_([0-9a-f]{32})_", re.ASCII)
_VAULT = re.compile(r"vlt_[0-9a-f]{32}", re.ASCII)
_PAUSES: Final = (0.5, 2.0)
_BY_STATUS: Final[Mapping[int, type[errors.VaultError]]] = {
    400: errors.Refused,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.Shredded,
    413: errors.TooLarge,
    415: errors.UnsupportedMedia,
    416: errors.RangeNotSatisfiable,
    422: errors.Invalid,
}


def _by_code(kind: type[errors.VaultError]) -> dict[str, type[errors.VaultError]]:
    found = {kind.code: kind}
    for child in kind.__subclasses__():
        found.update(_by_code(child))
    return found


class ServerFault(errors.VaultError):
    """An unexpected failure of the server; its log has the details."""

    code = "internal"


class Unanswered(errors.Unavailable):
    """A request was sent, and no answer came."""

    code = "unanswered"


def error_of(status: int, body: bytes) -> errors.VaultError:
    """Return the error of an answer: its problem document's, or else the one that fits its status."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or not str(problem.get("type", "")).startswith(_PROBLEM_PREFIX):
        kind = _BY_STATUS.get(status, errors.Unavailable)
        return kind(
            f"the server answered {status} without a reason",
            hint="is this a callvault server, and no other program before it? see --server and CALLVAULT_SERVER",
        )
    code = str(problem["type"]).removeprefix(_PROBLEM_PREFIX)
    kind = _by_code(errors.VaultError).get(code) or _BY_STATUS.get(status, ServerFault)
    facts = {
        key: value
        for key, value in problem.items()
        if key not in _RESERVED and isinstance(value, str | int) and key.isidentifier()
    }
    hint = problem.get("hint")
    return kind(str(problem.get("detail") or problem.get("title") or code), hint=str(hint) if hint else None, **facts)


def server_url(text: str) -> URL:
    """Return the server's address; ConfigError unless it is http or https with a host."""
    from yarl import URL  # noqa: PLC0415 - a command imports what it needs when it runs

    try:
        url = URL(text.rstrip("/"))
    except ValueError as error:
        raise errors.ConfigError("the server's address is not a URL", hint=f"for example {DEFAULT_SERVER}") from error
    if url.scheme not in {"http", "https"} or not url.host or url.user or url.password or url.query_string:
        raise errors.ConfigError(
            "the server's address is not an http or https URL", hint=f"for example {DEFAULT_SERVER}"
        )
    return url


def segment(text: str) -> str:
    """Return user input as one path segment; Invalid if it cannot be one."""
    if text in {"", ".", ".."}:
        raise errors.Invalid(f"{text!r} is not an id")
    return quote(text, safe="")


def carries_clear(url: URL) -> bool:
    """Tell whether tokens and audio would cross a network unencrypted."""
    if url.scheme == "https" or url.host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(url.host or "").is_loopback
    except ValueError:
        return True


def checked_token(token: str) -> str:
    """Return the token if it is well-formed; Invalid, which never quotes it, as it may be a real one with a typo."""
    if not token:
        raise errors.Invalid("the token is empty", hint="set CALLVAULT_TOKEN, or pass --token-file FILE")
    if not _TOKEN.fullmatch(token):
        raise errors.Invalid(
            "the token holds characters a token cannot have", hint="copy it again, complete and without other text"
        )
    return token


class Client:
    """One server and one token; with `vault`, the token is sent only to that vault's server.

    `ca_file` has the authorities that are trusted to certify the server, in place of the machine's.
    """

    def __init__(
        self, server: str, token: str | None, *, ca_file: Path | None = None, vault: str | None = None
    ) -> None:
        self.url = server_url(server)
        self._ca_file = ca_file
        self._vault = vault
        self._token = None if token is None else checked_token(token)
        self._authorization: Mapping[str, str] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Connect; ConfigError, before the token is sent, if the server says that it is another vault."""
        from cli.transport import new_session  # noqa: PLC0415 - a command imports what it needs when it runs

        self._session = new_session(self.url, self._ca_file)
        try:
            if self._vault is not None:
                await self._same_vault(self._vault)
        except BaseException:
            await self._session.close()
            raise
        if self._token is not None:
            self._authorization = {"Authorization": f"Bearer {self._token}"}
        return self

    @property
    def token_id(self) -> str | None:
        """The token's id, None without a token or if it has no id."""
        match = None if self._token is None else _CLAIM.match(self._token)
        return None if match is None else f"tok_{match[1]}"

    async def vault_id(self) -> str:
        """Return the id that the server gives its vault; FormatError if it gives none."""
        said = (await self.get("/healthz")).get("vault")
        if not isinstance(said, str) or not _VAULT.fullmatch(said):
            raise errors.FormatError(
                f"the server at {self.url} does not say which vault it is", hint="is it a callvault server of today?"
            )
        return said

    async def _same_vault(self, expected: str) -> None:
        said = await self.vault_id()
        if said != expected:
            raise errors.ConfigError(
                f"the server at {self.url} is the vault {said}, and the profile is for {expected}; no token was sent",
                hint="is the address right? if this vault replaced that one, remove the profile and add it again",
            )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        data: AsyncIterator[bytes] | None = None,
        also: Collection[int] = (),
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Yield the answer if its status is a success or in `also`; any other raises its error.

        Unavailable if no server answers, Truncated if the answer breaks off. Redirects are not followed, so that the
        token goes only to the given address.
        """
        from cli.transport import answer  # noqa: PLC0415 - a command imports what it needs when it runs

        assert self._session is not None, "used outside `async with`"
        sent = {**self._authorization, **(headers or {})}
        return answer(
            self._session, self.url, method, path, also=also, params=params, headers=sent, json=body, data=data
        )

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        also: Collection[int] = (),
    ) -> dict[str, Any]:
        """Return the JSON object of the answer; an empty answer is an empty object.

        Requests that change something carry an Idempotency-Key and are repeated if their outcome is unknown; they take
        effect once.
        """
        import asyncio  # noqa: PLC0415 - a command imports what it needs when it runs

        acts = method == "POST"
        sent = {**(headers or {}), **({"Idempotency-Key": f'"{uuid.uuid4()}"'} if acts else {})}
        raw = b""
        for pause in (*_PAUSES, None):
            try:
                async with self.request(method, path, params=params, headers=sent, body=body, also=also) as response:
                    raw = await response.read()
                break
            except (Unanswered, errors.Truncated, errors.OutcomeUnknown, errors.UnderWay) as error:
                if not acts:
                    raise
                if pause is None:
                    error.hint = "the request may have taken effect: check before repeating it"
                    raise
            await asyncio.sleep(pause)
        if not raw:
            return {}
        try:
            document = json.loads(raw)
        except ValueError as error:
            raise errors.FormatError("the server's answer is not JSON", hint="is this a callvault server?") from error
        if not isinstance(document, dict):
            raise errors.FormatError("the server's answer is not a JSON object", hint="is this a callvault server?")
        return document

    async def get(self, path: str, **params: str | int | None) -> dict[str, Any]:
        """GET a JSON object; parameters that are None are left out."""
        chosen = {key: str(value) for key, value in params.items() if value is not None}
        return await self.call("GET", path, params=chosen)

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST a JSON object."""
        return await self.call("POST", path, body=body)

    async def text(self, path: str) -> str:
        """GET text."""
        async with self.request("GET", path) as response:
            return await response.text()

    async def audio(self, recording: str, *, purpose: str, span: str | None = None, shape: str = "wav") -> bytes:
        """GET a short recording's audio into memory; `span` is a Range such as `bytes=0-99`."""
        headers = {"Purpose": purpose} | ({"Range": span} if span else {})
        async with self.request(
            "GET", f"/v1/recordings/{recording}/audio", params={"format": shape}, headers=headers
        ) as response:
            return await response.read()
