"""Where alerts may be sent: the vault posts from inside a network, so private addresses are refused unless allowed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from vault.errors import Invalid
from vault.protocol.webhook import Network, checked_webhook, is_forbidden_address

_PATIENCE_SECONDS: Final = 5.0

Resolve = Callable[[str], Awaitable[Sequence[str]]]


async def resolve(host: str) -> Sequence[str]:
    """Return the addresses of a host name; none if it has none, or there is no answer within 5 s."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return ()
    return [str(sockaddr[0]) for *_, sockaddr in found]


class Webhooks:
    """Checks addresses of webhooks; those within `networks` are allowed although they are not public."""

    def __init__(self, *, networks: Sequence[Network], resolve: Resolve = resolve) -> None:
        self._networks = tuple(networks)
        self._resolve = resolve

    async def checked(self, url: str) -> str:
        """Return `url`; Invalid if it is no webhook's address, or its host is in a network that is not allowed.

        A name without an address is accepted: its host may not be set up yet.
        """
        checked_webhook(url)
        if await self.leads_inside(url):
            raise Invalid(
                "that webhook leads to a private or link-local address",
                hint="alerts.private_networks in config.toml lists the networks that webhooks may lead to",
            )
        return url

    async def leads_inside(self, url: str) -> bool:
        """Tell whether the webhook's host has an address that is neither public nor allowed."""
        return any(
            is_forbidden_address(address, self._networks)
            for address in await self._resolve(urlsplit(url).hostname or "")
        )
