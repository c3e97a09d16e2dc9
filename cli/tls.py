"""TLS as a client: its trusted authorities, and the error for a server that it does not trust."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Final

from vault.crypto.presented import Presented, read_presented
from vault.errors import ConfigError, FormatError

_LOOK_SECONDS: Final = 5.0
_EXPIRED: Final = 10
_NOT_YET: Final = 9
_SELF_SIGNED: Final = 18
_UNKNOWN_AUTHORITY: Final = frozenset({0, 2, _SELF_SIGNED, 19, 20, 21})  # 0: not said
_WRONG_NAME: Final = frozenset({62, 64})  # a host, an address
"""OpenSSL's X509_V_ERR_… codes, which the standard library passes on."""

_TRUST: Final = (
    "if it is your vault's, name the authority that signed it: --ca-file FILE, CALLVAULT_CA_FILE, or callvault profile "
    "add NAME --ca-file FILE"
)


class Untrusted(ConfigError):
    """The server's certificate is not trusted; nothing was sent to it."""

    code = "untrusted"


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Return the context that verifies a server by the authorities in `ca_file`, or by this machine's; ConfigError."""
    if ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except ssl.SSLError as error:
        raise ConfigError(
            f"the CA file {ca_file} has no certificate in PEM", hint="it begins with -----BEGIN CERTIFICATE-----"
        ) from error
    except OSError as error:
        raise ConfigError(f"the CA file {ca_file} cannot be read: {error.strerror}") from error


def presented(host: str, port: int) -> Presented | None:
    """Return the server's certificate, None if it cannot be fetched; waits at most a few seconds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The connection only fetches the certificate, to name it in the error; nothing is sent over it.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=_LOOK_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            der = wrapped.getpeercert(binary_form=True)
        return None if der is None else read_presented(der)
    except (OSError, ValueError, FormatError):
        return None


def untrusted(host: str, port: int, code: int, why: str, found: Presented | None) -> Untrusted:
    """Return the error for a certificate that OpenSSL refused with `code`: its names, and a remedy.

    `why` is OpenSSL's own text of the reason.
    """
    at = f"{host}:{port}"
    if found is None:
        return Untrusted(f"the certificate of {at} is not trusted; nothing was sent", hint=_TRUST)
    who = f"the certificate of {at} ({found.subject}, issued by {found.issuer})"
    if code in _WRONG_NAME:
        names = ", ".join(found.names) or "no host at all"
        return Untrusted(
            f"{who} is for {names}, not for {host}; nothing was sent",
            hint="use one of its names as the server's address, or have a certificate issued for this address",
        )
    if code == _EXPIRED:
        return Untrusted(
            f"{who} ended at {found.ends:%Y-%m-%d %H:%M} UTC; nothing was sent",
            hint="renew it where the server runs (server.tls_cert); or is this machine's clock wrong?",
        )
    if code == _NOT_YET:
        return Untrusted(
            f"{who} begins at {found.begins:%Y-%m-%d %H:%M} UTC; nothing was sent",
            hint="is this machine's clock right?",
        )
    if code not in _UNKNOWN_AUTHORITY:
        return Untrusted(
            f"{who} breaks a rule for certificates: {why}; nothing was sent",
            hint="have it issued again by RFC 5280: with key identifiers, and its authority's with a key usage",
        )
    origin = "signed itself" if code == _SELF_SIGNED else "comes from an authority that is not trusted here"
    return Untrusted(f"{who} {origin}; nothing was sent", hint=_TRUST)
