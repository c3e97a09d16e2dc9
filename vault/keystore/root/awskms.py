"""Root-key provider in AWS KMS: one key with imported material for each root version.

KMS deletes only imported material at once; a key whose material KMS made waits at least seven days. So the material is
made here and imported. No other copy is kept, so that it cannot be imported again after its deletion.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from vault.errors import ConfigError, Destroyed, Unavailable, VaultError, reason
from vault.keystore.root.common import (
    KEY_BYTES,
    Names,
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

NOT_FOUND: Final = "NotFoundException"
STATE: Final = "KMSInvalidStateException"
UNREADABLE: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_HINTS: Final = {
    "AccessDeniedException": "the credentials lack a permission: see the policy in docs/providers.md",
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
    """One client. Error codes that a caller names as answers are returned; every other failure is Unavailable."""

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
    """Opens a client for each use, as uses are rare; the SDK's description of the API is read once."""

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


_MIN_WAIT: Final = timedelta(days=7)
"""The shortest time between the request to delete a KMS key and its deletion: a younger key still exists."""
_IDENTIFIER: Final = re.compile(r"([0-9a-f]{8})-([0-9a-f-]{36})")
_DESCRIPTION: Final = re.compile(r"callvault root version, tag ((?:[0-9a-f]{2})*)")
_POLLS: Final = 20
_POLL_SECONDS: Final = 0.5
_READY: Final = "Enabled"
_EMPTY: Final = "PendingImport"
_ENDING: Final = "PendingDeletion"


class AwsKmsRootKeys:
    """Keeps each root version as a symmetric KMS key under an alias that says which store made it.

    KMS is eventually consistent, so an absence proves nothing by itself. A version is Destroyed when its key is ending
    after `destroy`, or is absent so long after it was made that KMS can have deleted it. Assurance is by device: that
    the material is gone at once is a statement of AWS.
    """

    name = "awskms"
    assurance = Assurance.DEVICE

    def __init__(
        self,
        settings: KmsSettings,
        *,
        prefix: str = "callvault",
        clock: Clock,
        entropy: Entropy = os.urandom,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = KmsClient(settings)
        self._names = Names(self.name, prefix)
        self._clock = clock
        self._entropy = entropy
        self._pause = pause

    async def create(self) -> str:
        """Make the store's marker, a key that never gets material, and prove every permission; ConfigError."""
        try:
            async with self._client.open() as kms:
                if not self._names.markers(await kms.aliases()):
                    marker = await _new_key(kms, "callvault store marker: keep it, it never holds key material")
                    await self._name(kms, self._names.marker(self._entropy), marker["KeyId"])
                else:
                    check_unused(self.name, [info for info, _ in await self._listed(kms)])
        except Unavailable as error:
            raise ConfigError(f"keyring.root.awskms: {error.message}", hint=error.hint) from error
        await prove(self, self._entropy)
        return f"root keys in AWS KMS, {self._client.settings.region}: exactly one is live"

    async def owns(self, version: str) -> bool:
        """Tell whether this store made the version."""
        if not self._names.fits(version):
            return False
        async with self._client.open() as kms:
            store = self._names.store(await kms.aliases())
        return version.startswith(self._names.version(store, ""))

    async def new_version(self, tag: bytes) -> str:
        """Create a key, name it, import material.

        The name goes before the material: a crash in between leaves an empty key that is listed, and destroyed.
        """
        check_tag(tag)
        async with self._client.open() as kms:
            store = self._names.store(await kms.aliases())
            key = await _new_key(kms, f"callvault root version, tag {tag.hex()}")
            key_id, created_at = str(key["KeyId"]), _utc(key["CreationDate"])
            identifier = f"{int(created_at.timestamp()):08x}-{key_id}"
            await self._name(kms, self._names.name(store, identifier), key_id)
            await _import(kms, key_id, self._entropy(KEY_BYTES))
            await self._until(kms, key_id, _READY)
        return self._names.version(store, identifier)

    async def wrap(self, version: str, key: bytes, aad: bytes) -> bytes:
        """Encrypt 32 bytes under the version."""
        check_key(key)
        async with self._client.open() as kms:
            return await self._used(kms, version, "encrypt", "CiphertextBlob", aad, Plaintext=key)

    async def unwrap(self, version: str, blob: bytes, aad: bytes) -> bytes:
        """Decrypt; Destroyed, Tampered or Unavailable as the port says."""
        async with self._client.open() as kms:
            # An empty ciphertext would be a malformed request; one zero byte is refused like any wrong one.
            return await self._used(kms, version, "decrypt", "Plaintext", aad, CiphertextBlob=blob or b"\0")

    async def destroy(self, version: str) -> DestroyReceipt:
        """Delete the imported material, read back that it is gone, then schedule the empty key's deletion.

        The alias is removed last. Until then the version is listed, so after a crash the destroy is repeated.
        """
        async with self._client.open() as kms:
            aliases = await kms.aliases()
            key_id, made_at = self._key(aliases, version)
            state = await self._state(kms, key_id, made_at)
            if state is not None:
                # A key that is ending keeps its state, so only the answer to the deletion confirms it.
                harmless = frozenset({STATE}) if state != _ENDING else frozenset[str]()
                await kms.ask("delete_imported_key_material", answers=harmless, KeyId=key_id)
                await self._until(kms, key_id, _EMPTY if state != _ENDING else _ENDING)
            effective_at = self._clock.now()
            if state not in {None, _ENDING}:
                await kms.ask("schedule_key_deletion", KeyId=key_id, PendingWindowInDays=_MIN_WAIT.days)
            for name in [name for name, target in aliases.items() if target == key_id]:
                await kms.ask("delete_alias", answers=frozenset({NOT_FOUND}), AliasName=f"alias/{name}")
        return DestroyReceipt(version=version, effective_at=effective_at)

    async def versions(self) -> Mapping[str, VersionInfo]:
        """List the keys under the store's aliases in any state, half-made and half-destroyed ones too."""
        async with self._client.open() as kms:
            return {info.version: info for info, _ in await self._listed(kms)}

    async def self_check(self) -> Sequence[Finding]:
        """Report reachability, and keys in a state that needs an operator."""
        try:
            async with self._client.open() as kms:
                listed = await self._listed(kms)
        except VaultError as error:
            return (finding("error", error.message, error.hint),)
        found = [finding("ok", f"{len(listed)} live root version(s) in AWS KMS, {self._client.settings.region}")]
        found += [
            finding(
                "error", f"root version {info.version} is {state}: it opens nothing", "enable it, or cancel its end"
            )
            for info, state in listed
            if state != _READY
        ]
        text = "only AWS can say that deleted key material is gone everywhere at once: assurance is by device"
        return (*found, finding("warning", text, "a composite with a provider of your own removes the doubt"))

    async def _listed(self, kms: Kms) -> Sequence[tuple[VersionInfo, str]]:
        aliases = await kms.aliases()
        store = self._names.store(aliases)
        start = self._names.name(store, "")
        listed = []
        for name, key_id in aliases.items():
            identifier = name.removeprefix(start)
            if not name.startswith(start) or not _IDENTIFIER.fullmatch(identifier):
                continue
            metadata = await kms.describe(key_id)
            if metadata is None:
                raise Unavailable(f"AWS KMS has an alias for the key {key_id} and does not know it")
            match = _DESCRIPTION.fullmatch(metadata["Description"])
            info = VersionInfo(
                version=self._names.version(store, identifier),
                tag=bytes.fromhex(match[1]) if match else b"",
                created_at=_utc(metadata["CreationDate"]),
            )
            listed.append((info, str(metadata["KeyState"])))
        return listed

    def _key(self, aliases: Mapping[str, str], version: str) -> tuple[str, datetime]:
        identifier = self._names.identifier(self._names.store(aliases), version)
        match = _IDENTIFIER.fullmatch(identifier)
        if match is None:
            raise Unavailable(f"root version {version[:80]} is not a name that this provider gives")
        return match[2], datetime.fromtimestamp(int(match[1], 16), tz=UTC)

    async def _state(self, kms: Kms, key_id: str, made_at: datetime) -> str | None:
        """Return the key's state, None if it was deleted; Unavailable if it is missing and too young for that."""
        metadata = await kms.describe(key_id)
        if metadata is not None:
            return str(metadata["KeyState"])
        if self._clock.now() - made_at < _MIN_WAIT:
            raise Unavailable(
                f"AWS KMS does not know the key {key_id}, which cannot have ended yet; nothing is known to be lost",
                hint="check region and account; a new key can take minutes to become visible everywhere",
            )
        return None

    async def _used(self, kms: Kms, version: str, operation: str, result: str, aad: bytes, **request: bytes) -> bytes:
        aliases = await kms.aliases()
        key_id, made_at = self._key(aliases, version)
        # AWS logs the context in clear, so it is a digest.
        context = {"callvault": hashlib.sha256(binding(version, aad)).hexdigest()}
        answers = UNREADABLE | {STATE, NOT_FOUND}
        answer = await kms.ask(operation, answers=answers, KeyId=key_id, EncryptionContext=context, **request)
        if isinstance(answer, str):
            if answer in UNREADABLE:
                raise tampered(version)
            raise await self._unusable(kms, version, key_id, made_at, named=key_id in aliases.values())
        return bytes(answer[result])

    async def _unusable(self, kms: Kms, version: str, key_id: str, made_at: datetime, *, named: bool) -> VaultError:
        """Return why a key cannot be used: Destroyed, or Unavailable if it can come back.

        `destroy` schedules a key's deletion and then removes its alias. So a key with a scheduled deletion and an alias
        was scheduled by another party: the deletion can be cancelled, and the material comes back. A key without
        material may be one whose import is not visible everywhere yet.
        """
        state = await self._state(kms, key_id, made_at)
        if state is None or (state == _ENDING and not named):
            return Destroyed(f"root version {version} was destroyed")
        return Unavailable(
            f"the AWS KMS key of root version {version} is {state}; nothing is known to be lost",
            hint="enable the key, or cancel its deletion; a key without material that stays so has lost it",
        )

    async def _name(self, kms: Kms, alias: str, key_id: str) -> None:
        await kms.ask("create_alias", AliasName=f"alias/{alias}", TargetKeyId=key_id)

        async def listed() -> bool:
            return alias in await kms.aliases()

        await self._seen(listed, f"the alias {alias}")

    async def _until(self, kms: Kms, key_id: str, state: str) -> None:
        async def reached() -> bool:
            metadata = await kms.describe(key_id)
            return metadata is not None and metadata["KeyState"] == state

        await self._seen(reached, f"the key {key_id} as {state}")

    async def _seen(self, shown: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait until KMS shows the change; Unavailable after a bounded number of tries."""
        for _ in range(_POLLS):
            if await shown():
                return
            await self._pause(_POLL_SECONDS)
        raise Unavailable(f"AWS KMS does not show {what} yet; nothing is known to be lost")


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC)


async def _new_key(kms: Kms, description: str) -> Any:
    answer = await kms.ask("create_key", Origin="EXTERNAL", KeySpec="SYMMETRIC_DEFAULT", Description=description)
    return answer["KeyMetadata"]


async def _import(kms: Kms, key_id: str, material: bytes) -> None:
    parameters = await kms.ask(
        "get_parameters_for_import", KeyId=key_id, WrappingAlgorithm="RSAES_OAEP_SHA_256", WrappingKeySpec="RSA_4096"
    )
    public = load_der_public_key(parameters["PublicKey"])
    if not isinstance(public, RSAPublicKey):
        raise Unavailable("AWS KMS gave a wrapping key that is not RSA; no key material was sent")
    await kms.ask(
        "import_key_material",
        KeyId=key_id,
        ImportToken=parameters["ImportToken"],
        EncryptedKeyMaterial=public.encrypt(material, OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=None)),
        ExpirationModel="KEY_MATERIAL_DOES_NOT_EXPIRE",
    )
