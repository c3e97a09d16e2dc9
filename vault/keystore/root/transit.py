"""Root-key provider in the transit engine of HashiCorp Vault or OpenBao: one key for each root version.

Trimming a single key's versions removes the oldest first, so an orphan newer than the live version could not be
destroyed without it; a key for each version is deleted by itself. A version's tag is in its key's name, so creating the
key and tagging it are one act.
"""

from __future__ import annotations

import base64
import os
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from vault.errors import ConfigError, Destroyed, Unavailable, VaultError, reason
from vault.keystore.root.common import (
    Names,
    Secret,
    binding,
    check_key,
    check_tag,
    check_unused,
    finding,
    prove,
    tampered,
)
from vault.model import Assurance, Finding
from vault.ports.keys import DestroyReceipt, VersionInfo
from vault.ports.time import Clock, Entropy
from vault.threads import in_thread

_ERROR_MAX_CHARS: Final = 160
_ANSWERS: Final = frozenset({HTTPStatus.OK, HTTPStatus.NO_CONTENT, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND})
_HINTS: Final = {
    HTTPStatus.FORBIDDEN: "the token is missing, expired, revoked or lacks a right: see docs/providers.md",
    HTTPStatus.NOT_FOUND: "check address, mount and namespace in [keyring.root.transit]",
    HTTPStatus.SERVICE_UNAVAILABLE: "the key service is sealed or has no active node: unseal it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitSettings:
    """The address of the transit engine, and its login."""

    address: str
    token: Secret
    mount: str = "transit"
    namespace: str | None = None
    ca_file: Path | None = None
    timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The server's answer: done, 400 (the request does not fit), or 404 (no such key, or no such mount)."""

    status: int
    errors: tuple[str, ...]
    data: Mapping[str, Any]

    @property
    def done(self) -> bool:
        """Whether the server carried the request out."""
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

        Answers that prove nothing about keys are Unavailable: no connection, a timeout, a redirect, a refused token, a
        sealed server, a server error, a body that is not the API's.
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
        """Return the names of all keys of the engine, none if it says "not found"; Unavailable."""
        answer = await self.engine("GET", "keys?list=true")
        if answer.nothing_there:
            return []
        names = answer.data.get("keys")
        if not answer.done or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self.refused(answer)
        return names

    def refused(self, answer: Answer) -> Unavailable:
        """Return the error for an answer that refuses the request."""
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
    """Opens a session for each use, as uses are rare."""

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
            context = await in_thread(ssl.create_default_context, cafile=settings.ca_file)
        except OSError as error:
            raise Unavailable(f"the certificate authorities in {settings.ca_file} cannot be read") from error
        async with aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds),
            connector=aiohttp.TCPConnector(ssl=context),
        ) as http:
            yield TransitSession(http, settings)


_CIPHERTEXT: Final = re.compile(r"[a-z]+:v1:[A-Za-z0-9+/]+=*")
_TAGGED: Final = re.compile(r"([0-9a-f]{16})-t((?:[0-9a-f]{2})*)")
_KEY: Final = {"type": "aes256-gcm96", "exportable": False, "allow_plaintext_backup": False}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_RENEW_SECONDS: Final = 7 * 86400


class TransitRootKeys:
    """Keeps each root version as a transit key that cannot be exported or backed up in plaintext.

    Only a list of keys with the store's marker says anything about its versions. Assurance is by device: the service
    deletes a key from its storage, but its snapshots may keep copies.
    """

    name = "transit"
    assurance = Assurance.DEVICE

    def __init__(
        self, settings: TransitSettings, *, prefix: str = "callvault", clock: Clock, entropy: Entropy = os.urandom
    ) -> None:
        self._client = TransitClient(settings)
        self._names = Names(self.name, prefix)
        self._clock = clock
        self._entropy = entropy

    async def create(self) -> str:
        """Make the store's marker and prove every permission that will be needed; ConfigError."""
        settings = self._client.settings
        try:
            async with self._client.open() as session:
                names = await session.keys()
                if not self._names.markers(names):
                    await _make(session, self._names.marker(self._entropy))
                else:
                    check_unused(self.name, self._listed(names).values())
        except Unavailable as error:
            raise ConfigError(f"keyring.root.transit: {error.message}", hint=error.hint) from error
        await prove(self, self._entropy)
        return f"root keys in the transit engine {settings.mount} at {settings.address}: exactly one is live"

    async def owns(self, version: str) -> bool:
        """Tell whether this store made the version."""
        if not self._names.fits(version):
            return False
        async with self._client.open() as session:
            store = self._names.store(await session.keys())
        return version.startswith(self._names.version(store, ""))

    async def new_version(self, tag: bytes) -> str:
        """Create a key named for the version and its tag."""
        check_tag(tag)
        async with self._client.open() as session:
            store = self._names.store(await session.keys())
            identifier = self._names.fresh(self._entropy)
            await _make(session, f"{self._names.name(store, identifier)}-t{tag.hex()}")
        return self._names.version(store, identifier)

    async def wrap(self, version: str, key: bytes, aad: bytes) -> bytes:
        """Encrypt 32 bytes under the version."""
        check_key(key)
        async with self._client.open() as session:
            # The key is looked up first, because encrypting under a name that does not exist can create it.
            name = await self._live(session, version)
            answer = await session.engine(
                "POST",
                f"encrypt/{name}",
                {"plaintext": _text(key), "associated_data": _text(binding(version, aad))},
            )
            blob = answer.data.get("ciphertext")
            if not answer.done or not isinstance(blob, str) or not _CIPHERTEXT.fullmatch(blob):
                raise session.refused(answer)
            return blob.encode()

    async def unwrap(self, version: str, blob: bytes, aad: bytes) -> bytes:
        """Decrypt; Destroyed, Tampered or Unavailable as the port says."""
        async with self._client.open() as session:
            name = await self._live(session, version)
            ciphertext = blob.decode("ascii", errors="replace")
            if not _CIPHERTEXT.fullmatch(ciphertext):
                raise tampered(version)
            answer = await session.engine(
                "POST",
                f"decrypt/{name}",
                {"ciphertext": ciphertext, "associated_data": _text(binding(version, aad))},
            )
            if answer.done:
                return _plain(session, answer)
            # The server answers 400 for many reasons. The blob is at fault only if the key itself is unchanged.
            if answer.status == 400 and _usable(await session.engine("GET", f"keys/{name}")):  # noqa: PLR2004 - HTTP
                raise tampered(version)
            raise session.refused(answer)

    async def destroy(self, version: str) -> DestroyReceipt:
        """Delete the version's key and read back that it is gone."""
        async with self._client.open() as session:
            last: Answer | None = None
            for name in await self._matching(session, version):
                # A crash after this permission leaves a live, listed key, which is deleted again.
                await session.engine("POST", f"keys/{name}/config", {"deletion_allowed": True})
                last = await session.engine("DELETE", f"keys/{name}")
                if not (await session.engine("GET", f"keys/{name}")).nothing_there:
                    raise session.refused(last)
            if last is not None and await self._matching(session, version):
                raise session.refused(last)
        return DestroyReceipt(version=version, effective_at=self._clock.now())

    async def versions(self) -> Mapping[str, VersionInfo]:
        """List the live versions; creation times are not kept in a list of names."""
        async with self._client.open() as session:
            return {info.version: info for info in self._listed(await session.keys()).values()}

    async def self_check(self) -> Sequence[Finding]:
        """Report reachability, how the keys may leave the service, and the token."""
        try:
            return await self._self_check()
        except VaultError as error:
            return (finding("error", error.message, error.hint),)

    async def _self_check(self) -> Sequence[Finding]:
        settings = self._client.settings
        async with self._client.open() as session:
            live = self._listed(await session.keys())
            text = f"{len(live)} live root version(s) in the transit engine {settings.mount} at {settings.address}"
            found = [finding("ok", text)]
            for name, info in live.items():
                found += _key_findings(info.version, await session.engine("GET", f"keys/{name}"))
            found += _token_findings(await session.ask("GET", "auth/token/lookup-self"))
        url = urlsplit(settings.address)
        if url.scheme != "https" and url.hostname not in _LOOPBACK:
            text = f"{settings.address} is reached without TLS: the token and unwrapped keys cross the network in clear"
            found.append(finding("error", text, "use an https address"))
        text = "the key service's snapshots and storage backups can hold deleted keys: assurance is by device"
        hint = "let its snapshots expire within the time you promise, or use a composite with an HSM"
        return (*found, finding("warning", text, hint))

    def _listed(self, names: Sequence[str]) -> Mapping[str, VersionInfo]:
        """Return the store's versions by the name of their key."""
        store = self._names.store(names)
        start = self._names.name(store, "")
        return {
            name: VersionInfo(
                version=self._names.version(store, match[1]), tag=bytes.fromhex(match[2]), created_at=None
            )
            for name in names
            if name.startswith(start) and (match := _TAGGED.fullmatch(name.removeprefix(start)))
        }

    async def _live(self, session: TransitSession, version: str) -> str:
        names = await self._matching(session, version)
        if not names:
            raise Destroyed(f"root version {version} was destroyed")
        return names[0]

    async def _matching(self, session: TransitSession, version: str) -> list[str]:
        names = await session.keys()
        store = self._names.store(names)
        start = f"{self._names.name(store, self._names.identifier(store, version))}-t"
        return [name for name in names if name.startswith(start)]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _plain(session: TransitSession, answer: Answer) -> bytes:
    try:
        return base64.b64decode(answer.data["plaintext"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise session.refused(answer) from error


async def _make(session: TransitSession, name: str) -> None:
    """Create a key and read back that it is what was asked for."""
    answer = await session.engine("POST", f"keys/{name}", _KEY)
    if not answer.done:
        raise session.refused(answer)
    made = await session.engine("GET", f"keys/{name}")
    if not _usable(made) or any(made.data.get(field) != value for field, value in _KEY.items()):
        raise Unavailable("the key service made a key that can leave it; nothing was wrapped with it")


def _usable(answer: Answer) -> bool:
    data: Mapping[str, Any] = answer.data
    keys = data.get("keys")
    return (
        answer.done
        and isinstance(keys, dict)
        and "1" in keys
        and not data.get("soft_deleted")
        and data.get("min_decryption_version", 1) <= 1
    )


def _key_findings(version: str, answer: Answer) -> Sequence[Finding]:
    found = [
        finding(
            "error",
            f"root version {version} has {field} set: its key can leave the service",
            "this cannot be undone: rotate to a new root version (callvault keys rotate)",
        )
        for field in ("exportable", "allow_plaintext_backup")
        if answer.data.get(field) is not False
    ]
    if answer.data.get("deletion_allowed"):
        text = f"root version {version} can be deleted by whoever may delete its key: a destroy was interrupted"
        found.append(finding("warning", text, "restart the vault: opening the keyring destroys what is left over"))
    return found


def _token_findings(answer: Answer) -> Sequence[Finding]:
    found = []
    if "root" in (answer.data.get("policies") or ()):
        text = "the vault uses a root token of the key service"
        found.append(finding("warning", text, "issue one with the policy in docs/providers.md"))
    ttl = answer.data.get("ttl")
    if isinstance(ttl, int) and 0 < ttl < _RENEW_SECONDS:
        text = f"the token ends in {ttl // 3600} h; after that nothing can be opened or shredded"
        found.append(finding("warning", text, "let an agent renew it into token_file"))
    return found
