"""Root-key provider on a PKCS#11 token: AES-256 token objects that never leave the token.

A version's tag is its object's CKA_ID, its name the CKA_LABEL; both are given when the key is generated, so no crash
leaves a key without them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, MechanismFlag, ObjectClass, SecretKey, Session, SlotFlag
from pkcs11.exceptions import (
    NoSuchToken,
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
    UserPinNotInitialized,
)

from vault.errors import ConfigError, Destroyed, Unavailable, VaultError, reason
from vault.keystore.root.common import (
    KEY_BYTES,
    Names,
    Secret,
    binding,
    check_key,
    check_tag,
    check_unused,
    finding,
    prove,
    tampered,
    unwrap_bytes,
    wrap_bytes,
)
from vault.model import Assurance, Finding
from vault.ports.keys import DestroyReceipt, VersionInfo
from vault.ports.time import Clock, Entropy
from vault.threads import in_thread

_PIN_ERRORS: Final = (PinIncorrect, PinLocked, PinInvalid, PinLenRange, PinExpired, UserPinNotInitialized)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """The token, its library, and its login."""

    library: Path
    token: str
    pin: Secret
    assurance: Assurance = Assurance.HSM


@functools.cache
def _lock_of(library: Path) -> threading.Lock:
    """Return this process's lock on a library, whose state and logins belong to the process, not to a session."""
    del library
    return threading.Lock()


class Token:
    """Opens sessions on one token; blocking, for worker threads."""

    def __init__(self, settings: TokenSettings) -> None:
        self.settings = settings
        self._refused_pin: str | None = None
        self._stale = False

    @contextlib.contextmanager
    def session(self) -> Iterator[pkcs11.Session]:
        """Enter a read-write session as the token's user, with the library to itself; Unavailable if none opens.

        ConfigError if the slot contradicts the configured assurance.
        """
        with _lock_of(self.settings.library):
            try:
                with self._logged_in() as session:
                    yield session
            except PKCS11Error as error:
                self._stale = True
                raise self._unavailable(error) from error

    def _logged_in(self) -> pkcs11.Session:
        pin = self.settings.pin.read()
        if pin == self._refused_pin:
            # Most tokens lock after a few wrong PINs, and a sweeper tries again every hour.
            raise self._wrong_pin("was refused before and is not tried again")
        token = self._found()
        try:
            return token.open(rw=True, user_pin=pin)
        except _PIN_ERRORS as error:
            self._refused_pin = pin
            raise self._wrong_pin(f"was refused ({reason(error)})") from error

    def _found(self) -> pkcs11.Token:
        token = None
        if not self._stale:
            with contextlib.suppress(NoSuchToken):
                token = self._library().get_token(token_label=self.settings.token)
        if token is None:
            # The library knows only the tokens present at its start, and finalising it fails if one is gone.
            with contextlib.suppress(PKCS11Error):
                self._library().finalize()
            token = self._library().get_token(token_label=self.settings.token)
            self._stale = False
        if self.settings.assurance is Assurance.HSM and not token.slot.flags & SlotFlag.HW_SLOT:
            raise ConfigError(
                f'keyring.root.pkcs11.assurance: the slot of the token "{self.settings.token}" does not say that it is '
                "hardware, so certificates must not say so either",
                hint='set assurance = "device"',
            )
        return token

    def _library(self) -> pkcs11._pkcs11.lib:
        return pkcs11.lib(str(self.settings.library))

    def _wrong_pin(self, what: str) -> Unavailable:
        return Unavailable(
            f'the PIN for the token "{self.settings.token}" {what}; nothing is known to be lost',
            hint="correct the PIN in its file, or in the environment and restart; unlock the token if it is locked",
        )

    def _unavailable(self, error: PKCS11Error) -> Unavailable:
        return Unavailable(
            f'the token "{self.settings.token}" of {self.settings.library} cannot be used '
            f"({reason(error)}); nothing is known to be lost",
            hint="check that the library is installed and the token present: callvault doctor",
        )


WrapMechanism = Literal["auto", "aes-gcm", "aes-key-wrap-pad"]
_GCM: Final = b"\x01"
_PADDED: Final = b"\x02"
_NONCE_BYTES: Final = 12
_TAG_BITS: Final = 128
_KINDS: Final = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.AES}
_HIDDEN: Final = {
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.PRIVATE: True,
    Attribute.MODIFIABLE: False,
}
_SHOWN: Final = {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}

# The binding builds a key's class at run time, from what the key may do.
_Key: TypeAlias = Any
_T = TypeVar("_T")


class Pkcs11RootKeys:
    """Keeps each root version as a key of its own on a token.

    Only a logged-in session that sees the store's marker can say that a version is gone. Library calls block, so they
    run in worker threads, one at a time.
    """

    name = "pkcs11"

    def __init__(
        self,
        settings: TokenSettings,
        *,
        prefix: str = "callvault",
        mechanism: WrapMechanism = "auto",
        clock: Clock,
        entropy: Entropy = os.urandom,
    ) -> None:
        self.assurance = settings.assurance
        self._token = Token(settings)
        self._names = Names(self.name, prefix)
        self._mechanism = mechanism
        self._clock = clock
        self._entropy = entropy

    async def create(self) -> str:
        """Make the store's marker and prove that the token does all that is needed; ConfigError."""
        try:
            await self._run(self._create)
        except Unavailable as error:
            raise ConfigError(f"keyring.root.pkcs11: {error.message}", hint=error.hint) from error
        await prove(self, self._entropy)
        return f'root keys on the token "{self._token.settings.token}": exactly one is live'

    async def owns(self, version: str) -> bool:
        """Tell whether this store made the version."""
        if not self._names.fits(version):
            return False
        store = self._names.store(await self._run(self._keys))
        return version.startswith(self._names.version(store, ""))

    async def new_version(self, tag: bytes) -> str:
        """Generate a key on the token."""
        check_tag(tag)
        return await self._run(self._new_version, tag)

    async def wrap(self, version: str, key: bytes, aad: bytes) -> bytes:
        """Encrypt 32 bytes under the version."""
        check_key(key)
        return await self._run(self._wrap, version, key, aad)

    async def unwrap(self, version: str, blob: bytes, aad: bytes) -> bytes:
        """Decrypt; Destroyed, Tampered or Unavailable as the port says."""
        return await self._run(self._unwrap, version, blob, aad)

    async def destroy(self, version: str) -> DestroyReceipt:
        """Destroy the object, and look for it again in a new session."""
        await self._run(self._destroy, version)
        if version in await self.versions():
            raise Unavailable(f"root version {version} is still on the token after it was destroyed")
        return DestroyReceipt(version=version, effective_at=self._clock.now())

    async def versions(self) -> Mapping[str, VersionInfo]:
        """List the live versions; a token does not keep when a key was made."""
        return await self._run(self._versions)

    async def self_check(self) -> Sequence[Finding]:
        """Report whether the token answers, what it is, and whether its keys could leave it."""
        try:
            return await self._run(self._self_check)
        except VaultError as error:
            return (finding("error", error.message, error.hint),)

    async def _run(self, call: Callable[..., _T], *args: object) -> _T:
        return await in_thread(self._in_session, call, *args)

    def _in_session(self, call: Callable[..., _T], *args: object) -> _T:
        with self._token.session() as session:
            return call(session, *args)

    def _create(self, session: Session) -> None:
        if not self._names.markers(self._keys(session)):
            self._generate(session, self._names.marker(self._entropy), b"")
        else:
            check_unused(self.name, self._versions(session).values())

    def _keys(self, session: Session) -> dict[str, SecretKey]:
        """Return every AES key that the session sees, by label."""
        found = (each for each in session.get_objects(_KINDS) if isinstance(each, SecretKey))
        return {str(key.label): key for key in found}

    def _live(self, session: Session, version: str) -> _Key:
        keys = self._keys(session)
        store = self._names.store(keys)
        name = self._names.name(store, self._names.identifier(store, version))
        if name not in keys:
            raise Destroyed(f"root version {version} was destroyed")
        return keys[name]

    def _generate(self, session: Session, label: str, tag: bytes) -> None:
        may = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
        if self._padded(session):
            may = MechanismFlag.WRAP | MechanismFlag.UNWRAP
        key = session.generate_key(
            KeyType.AES, KEY_BYTES * 8, id=tag, label=label, store=True, capabilities=may, template=_HIDDEN
        )
        if not _is_hidden(key):
            key.destroy()
            raise Unavailable("the token made a key that can leave it; nothing was wrapped with it, and it was removed")

    def _padded(self, session: Session) -> bool:
        if self._mechanism == "auto":
            return Mechanism.AES_GCM not in session.token.slot.get_mechanisms()
        return self._mechanism == "aes-key-wrap-pad"

    def _new_version(self, session: Session, tag: bytes) -> str:
        store = self._names.store(self._keys(session))
        identifier = self._names.fresh(self._entropy)
        self._generate(session, self._names.name(store, identifier), tag)
        return self._names.version(store, identifier)

    def _wrap(self, session: Session, version: str, key: bytes, aad: bytes) -> bytes:
        return self._seal(session, self._live(session, version), version, key, aad)

    def _unwrap(self, session: Session, version: str, blob: bytes, aad: bytes) -> bytes:
        root = self._live(session, version)
        try:
            return _open(root, version, blob, aad)
        except PKCS11Error:
            # Tokens have no common error for "does not authenticate": many say "general error", also when they are
            # broken. So the blob is at fault only if the same key opens a fresh blob in the same session.
            fresh = self._seal(session, root, version, bytes(KEY_BYTES), aad)
            if _open(root, version, fresh, aad) != bytes(KEY_BYTES):
                raise
        raise tampered(version)

    def _seal(self, session: Session, root: _Key, version: str, key: bytes, aad: bytes) -> bytes:
        """Return `1 ‖ nonce ‖ AES-GCM`, or `2 ‖ length ‖ wrapped key ‖ ciphertext` for a root key that only wraps."""
        if root[Attribute.ENCRYPT]:
            nonce = self._entropy(_NONCE_BYTES)
            parameters = GCMParams(nonce, binding(version, aad), _TAG_BITS)
            sealed: bytes = root.encrypt(key, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)
            return _GCM + nonce + sealed
        # AES key wrap binds no associated data. So the token wraps a single-use key, and that key seals with the
        # binding.
        once = session.generate_key(KeyType.AES, KEY_BYTES * 8, store=False, template=_SHOWN)
        wrapped: bytes = root.wrap_key(once, mechanism=Mechanism.AES_KEY_WRAP_PAD)
        bound = wrap_bytes(once[Attribute.VALUE], version, key, aad, self._entropy)
        return _PADDED + bytes([len(wrapped)]) + wrapped + bound

    def _destroy(self, session: Session, version: str) -> None:
        try:
            key = self._live(session, version)
        except Destroyed:
            return
        key.destroy()

    def _versions(self, session: Session) -> Mapping[str, VersionInfo]:
        keys = self._keys(session)
        store = self._names.store(keys)
        start = self._names.name(store, "")
        live = {
            self._names.version(store, name[len(start) :]): key for name, key in keys.items() if name.startswith(start)
        }
        return {
            version: VersionInfo(version=version, tag=bytes(key.id), created_at=None) for version, key in live.items()
        }

    def _self_check(self, session: Session) -> Sequence[Finding]:
        token, settings = session.token, self._token.settings
        live = self._versions(session)
        kind = f"{token.manufacturer_id} {token.model}"
        found = [finding("ok", f'{len(live)} live root version(s) on the token "{settings.token}" ({kind})')]
        found += [
            finding(
                "error", f"root version {version} can leave the token", "rotate to a new one: callvault keys rotate"
            )
            for version in live
            if not _is_hidden(self._live(session, version))
        ]
        if settings.assurance is not Assurance.HSM:
            text = "the settings do not call the token hardware: destroying a key relies on how it deletes its files"
            found.append(finding("warning", text, "use a hardware token, or a composite with one"))
        text = "if this token is lost and not replicated, every recording is lost; if it is backed up, so are its keys"
        return (
            *found,
            finding("warning", text, "replicate it to a second token of the same cluster; keep no old backup"),
        )


def _is_hidden(key: SecretKey) -> bool:
    return bool(key[Attribute.SENSITIVE]) and not key[Attribute.EXTRACTABLE]


def _open(root: _Key, version: str, blob: bytes, aad: bytes) -> bytes:
    """Return what `_seal` sealed; Tampered, or the token's own error, which may mean the same."""
    if blob[:1] == _GCM:
        nonce, sealed = blob[1 : 1 + _NONCE_BYTES], blob[1 + _NONCE_BYTES :]
        parameters = GCMParams(nonce, binding(version, aad), _TAG_BITS)
        opened: bytes = root.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)
        return opened
    if blob[:1] == _PADDED and len(blob) > 1:
        wrapped, sealed = blob[2 : 2 + blob[1]], blob[2 + blob[1] :]
        once = root.unwrap_key(
            ObjectClass.SECRET_KEY,
            KeyType.AES,
            wrapped,
            mechanism=Mechanism.AES_KEY_WRAP_PAD,
            store=False,
            template=_SHOWN,
        )
        return unwrap_bytes(once[Attribute.VALUE], version, sealed, aad)
    raise tampered(version)
