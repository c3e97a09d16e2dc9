"""One logged-in PKCS#11 session at a time: loading the library, finding the token, giving the PIN.

A session lives for one operation. Whatever broke it - a removed token, a restarted appliance, a lost connection - the
next operation starts over with a freshly initialised library.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pkcs11
from pkcs11 import SlotFlag
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

from vault.errors import ConfigError, Unavailable, reason
from vault.keystore.secret import Secret
from vault.model import Assurance

_PIN_ERRORS: Final = (PinIncorrect, PinLocked, PinInvalid, PinLenRange, PinExpired, UserPinNotInitialized)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """Which token of which library, and how to log in."""

    library: Path
    token: str
    pin: Secret
    assurance: Assurance = Assurance.HSM


@functools.cache
def _lock_of(library: Path) -> threading.Lock:
    """Return the process's lock on a library: its state and its logins belong to the process, not to a session."""
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
        """Enter a read-write session as the token's user, alone on its library; Unavailable if there is none to be had.

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
            # Most tokens lock after a few wrong PINs, and a sweeper that tries again every hour would get there.
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
            # What is loaded knows the tokens of its start, and finalising it may fail because one of them is gone.
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
