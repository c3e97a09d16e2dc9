"""One connection's worth of HTTP to a server; what goes wrong on the way is said as the vault's own errors."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from yarl import URL

from cli.client import Unanswered, error_of
from vault import errors

_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600)


def new_session(headers: Mapping[str, str]) -> aiohttp.ClientSession:
    """Return a session that sends these headers with every request."""
    return aiohttp.ClientSession(timeout=_TIMEOUT, headers=headers, raise_for_status=False)


@asynccontextmanager
async def answer(
    session: aiohttp.ClientSession, url: URL, method: str, path: str, *, also: Collection[int] = (), **sent: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Yield the answer of the server at `url` once it says success; any other not in `also` raises what it stands for.

    Unavailable if no server answers, Truncated if it stops in the middle of the answer. Redirects are not followed: a
    token goes only to the address it was meant for.
    """
    try:
        async with session.request(
            method, url.joinpath(path.lstrip("/"), encoded=True), allow_redirects=False, **sent
        ) as response:
            if response.status not in also and (not response.ok or response.status in range(300, 400)):
                raise error_of(response.status, await response.read())
            yield response
    except aiohttp.ClientConnectorError as error:
        raise errors.Unavailable(
            f"no server answers at {url}: {_reason(error)}",
            hint="is it running? start it with callvault serve, or set CALLVAULT_SERVER",
        ) from error
    except aiohttp.ClientPayloadError as error:
        raise errors.Truncated(
            "the answer broke off before its end: the connection was lost or the server stopped at bytes that "
            "failed verification",
            hint="try once more; if it breaks off again, the server's log says why",
        ) from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unanswered(f"the server at {url} did not answer ({type(error).__name__})", hint="try again") from error


def _reason(error: aiohttp.ClientConnectorError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else "its address leads nowhere"
