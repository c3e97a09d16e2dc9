"""Ids by how they begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from vault.ids import TenantId


class IdLookup(Protocol):
    """Ids that a person abbreviated."""

    async def ids_beginning(self, beginning: str, *, tenant: TenantId | None, limit: int) -> Sequence[str]:
        """Return the ids that begin so, the oldest first, with `tenant` only of that tenant's things.

        Of recordings, holds, certificates, erasures, requests about policies; of everything else there are none.
        """
