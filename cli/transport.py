"""One HTTP connection to a server; its failures are raised as the vault's errors."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
from yarl import URL

from cli.client import Unanswered, error_of
from cli.tls import presented, trust, untrusted
from vault import errors
from vault.threads import in_thread

_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600)


def new_session(url: URL, ca_file: Path | None) -> aiohttp.ClientSession:
    """Return a session for one server, trusted by the authorities in `ca_file` or this machine's; ConfigError."""
    connector = aiohttp.TCPConnector(ssl=trust(ca_file)) if url.scheme == "https" else None
    return aiohttp.ClientSession(timeout=_TIMEOUT, connector=connector, raise_for_status=False)


@asynccontextmanager
async def answer(
    session: aiohttp.ClientSession, url: URL, method: str, path: str, *, also: Collection[int] = (), **sent: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Yield the answer of the server at `url` if its status is a success or in `also`; any other raises its error.

    Unavailable if no server answers, Untrusted if its certificate is not trusted, Truncated if the answer breaks off.
    Redirects are not followed, so that the token goes only to the given address.
    """
    try:
        async with session.request(
            method, url.joinpath(path.lstrip("/"), encoded=True), allow_redirects=False, **sent
        ) as response:
            if response.status not in also and (not response.ok or response.status in range(300, 400)):
                raise error_of(response.status, await response.read())
            yield response
    except aiohttp.ClientConnectorCertificateError as error:
        raise await _untrusted(url, error) from error
    except aiohttp.ClientSSLError as error:
        raise errors.Unavailable(
            f"no TLS with {url}: {_tls_reason(error)}; nothing was sent",
            hint="does the server speak https at this port? if not, its address begins with http://",
        ) from error
    except aiohttp.ClientConnectorError as error:
        raise errors.Unavailable(
            f"no server answers at {url}: {_reason(error)}",
            hint="is it running? start it with callvault serve, or set CALLVAULT_SERVER",
        ) from error
    except aiohttp.ClientPayloadError as error:
        raise errors.Truncated(
            "the answer broke off before its end: the connection was lost, or the server stopped at bytes that "
            "failed verification",
            hint="try once more; if it breaks off again, the server's log has the reason",
        ) from error
    except (aiohttp.ClientError, TimeoutError) as error:
        hint = "try again" if url.scheme == "https" else "try again, with https:// if the server speaks TLS"
        raise Unanswered(f"the server at {url} did not answer: {_silence(error)}", hint=hint) from error


async def _untrusted(url: URL, error: aiohttp.ClientConnectorCertificateError) -> errors.VaultError:
    host, port = url.host or "", url.port or 443
    refused = error.certificate_error
    code, why = 0, ""
    if isinstance(refused, ssl.SSLCertVerificationError):
        code, why = refused.verify_code, refused.verify_message
    return untrusted(host, port, code, why, await in_thread(presented, host, port))


def _tls_reason(error: aiohttp.ClientSSLError) -> str:
    if error.os_error is not None and getattr(error.os_error, "reason", None) in _NOT_TLS:
        return "the server does not speak TLS there"
    return "the server and this program have no version or cipher in common"


def _reason(error: aiohttp.ClientConnectorError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else "host not found"


def _silence(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection, like a server that speaks only https"
    return "its answer is not HTTP"


_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"})
