"""Ask this container's own server whether it is ready; exit code 0 if so. Usage: healthcheck.py CONFIG."""  # noqa: INP001  # a script beside the package, not part of it

import http.client
import ssl
import sys
from ipaddress import ip_address
from pathlib import Path

from vault.config import ServerSettings, load_config
from vault.errors import ConfigError

_TIMEOUT_SECONDS = 4


def _address(host: str) -> str:
    """Return where a server that listens on `host` is reached from within: a wildcard is not an address to call."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004  # the IP version


def _connection(server: ServerSettings) -> http.client.HTTPConnection:
    host = _address(server.host)
    if server.tls_cert is None:
        return http.client.HTTPConnection(host, server.port, timeout=_TIMEOUT_SECONDS)
    # The certificate names the public host, and this asks by loopback and sends no token: there is nothing to verify.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, server.port, timeout=_TIMEOUT_SECONDS, context=context)


def main(config: Path) -> int:
    """Return 0 if /readyz answers 200, else 1."""
    try:
        connection = _connection(load_config(config).server)
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        sys.stdout.write(f"{answer.status} {answer.read(1000).decode(errors='replace')}\n")
    except (OSError, http.client.HTTPException, ConfigError) as error:
        sys.stdout.write(f"not ready: {error}\n")
        return 1
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
