"""What all TLS listeners share: the protocol, and certificate files that are read again while the server runs."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vault.config import Config
from vault.errors import ConfigError
from vault.places import READ, check

_AEAD_OF_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 with forward secrecy and authenticated encryption only (RFC 9325 section 4.2); 1.3 has nothing else."""


def server_context() -> ssl.SSLContext:
    """Return the settings of a server, without a certificate: TLS 1.2 at least, AEAD suites only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_AEAD_OF_1_2)
    return context


def load_chain(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Give a context its certificate and key, without asking for a password; ConfigError or OSError."""
    for each in (certificate, key):
        check(each, READ)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise OSError(f"{certificate} and {key} are not a certificate in PEM and its key") from error


def _no_password() -> str:
    raise OSError("the key is encrypted; the server needs one without a password")


class Certified:
    """The TLS of one listener. `read` makes it from the settings and its files, and raises ConfigError."""

    def __init__(self, listener: str, config: Config, read: Callable[[Config], ssl.SSLContext | None]) -> None:
        self.listener = listener
        self._read = read
        self.context = read(config)
        """The context of new handshakes; None for a listener without TLS."""

    def reread(self, config: Config) -> bool:
        """Read the files again for new handshakes; return whether the listener has TLS. Open connections keep theirs.

        ConfigError if they cannot be used, or would turn TLS on or off: the present context then stays in force.
        """
        context = self._read(config)
        if (context is None) != (self.context is None):
            raise ConfigError(f"{self.listener}: TLS is turned on or off by a restart")
        self.context = context
        return context is not None
