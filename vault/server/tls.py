"""What every TLS listener has in common."""

from __future__ import annotations

import ssl
from typing import Final

_AEAD_OF_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 with forward secrecy and authenticated encryption only (RFC 9325 section 4.2); 1.3 has nothing else."""


def server_context() -> ssl.SSLContext:
    """Return the settings of a server, without a certificate: TLS 1.2 at least, AEAD suites only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_AEAD_OF_1_2)
    return context
