"""Posts alerts over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from ssl import create_default_context

import aiohttp

from vault.errors import Unavailable, reason
from vault.ports.holds import Messenger
from vault.threads import in_thread


class HttpMessenger(Messenger):
    """Implements `vault.ports.holds.Messenger` within `patience` an attempt."""

    def __init__(self, *, patience: timedelta = timedelta(seconds=10)) -> None:
        self._timeout = aiohttp.ClientTimeout(total=patience.total_seconds())

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Post once, on a new connection: alerts are rare, so a kept connection may be dead when one is due.

        An https address is trusted by the authorities of this machine as they are now.
        """
        try:
            connector = aiohttp.TCPConnector(ssl=await in_thread(create_default_context))
            async with (
                aiohttp.ClientSession(
                    connector=connector, timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
                ) as session,
                session.post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # ValueError: a name that the resolver cannot encode. The text of the error has the address, which may have
            # a secret in it.
            raise Unavailable(f"the webhook cannot be reached ({reason(error)})") from None
        if not 200 <= status < 300:  # noqa: PLR2004 - the class of statuses that acknowledge
            raise Unavailable(f"the webhook answered {status}")
