"""Ids by their first characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from vault.ids import TenantId


class IdLookup(Protocol):
    """Finds abbreviated ids."""

    async def ids_beginning(self, beginning: str, *, tenant: TenantId | None, limit: int) -> Sequence[str]:
        """Return up to `limit` ids that begin with `beginning`, oldest first; with `tenant` only that tenant's.

        It finds recordings, holds, certificates, erasures and policy requests.
        """
