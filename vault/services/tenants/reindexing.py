"""Computes the blind tokens of existing calls again, after numbers are read differently than when the calls came."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from vault.crypto.blind import Field
from vault.errors import IntegrityError, Shredded
from vault.ids import RecordingId, TenantId
from vault.model import Principal, Recording
from vault.ports.keys import Keyring
from vault.ports.recordings import IndexRows, RecordingQuery, RecordingSearch, Reindexed
from vault.protocol.facts.parties import reread_parties
from vault.services.audit import event
from vault.services.recordings.search import BlindIndex, facts_of
from vault.services.tenants.tenants import Tenants

_PAGE: Final = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """The result for one page of a tenant's recordings."""

    looked_at: int
    changed: int
    before: RecordingId | None
    """Where the next page begins; None after the last."""


class ReindexingRows(IndexRows, RecordingSearch, Protocol):
    """The catalog methods that reindexing needs."""


class Reindexing:
    """Goes through a tenant's recordings page by page, newest first. Sealed facts stay unchanged."""

    def __init__(self, *, catalog: ReindexingRows, keyring: Keyring, index: BlindIndex, tenants: Tenants) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._index = index
        self._tenants = tenants

    async def page(self, tenant: TenantId, *, before: RecordingId | None, actor: Principal) -> Looked:
        """Give one page the tokens of its parties as they are read now; repeatable.

        A number that was read in full keeps its token, so that searches for it still find the call.

        A row whose facts changed or went meanwhile is left unchanged.
        """
        region = await self._tenants.region(tenant)
        rows = await self._catalog.recordings(RecordingQuery(tenant=tenant, before=before, limit=_PAGE))
        wanted = [each for row in rows if (each := self._reindexed(row, region)) is not None]
        changed = await self._changed(tenant, wanted, actor=actor)
        return Looked(looked_at=len(rows), changed=changed, before=rows[-1].id if len(rows) == _PAGE else None)

    async def _changed(self, tenant: TenantId, wanted: Sequence[Reindexed], *, actor: Principal) -> int:
        if not wanted:
            return 0
        detail = {"action": "reindexed", "recordings": len(wanted), "first": wanted[-1].recording}
        return await self._catalog.reindex(
            wanted, audit=[event("admin.config", actor, tenant=tenant, target=tenant, detail=detail)]
        )

    def _reindexed(self, row: Recording, region: str) -> Reindexed | None:
        """Return the row's tokens as they should be; None if they are, or if they cannot be known any more."""
        try:
            kept = facts_of(self._keyring, row)
            if kept is None:
                return None
            facts = reread_parties(kept, region)
            caller, called = (
                None if value is None else self._index.token_in(row.metadata.cohort, field, value)
                for field, value in ((Field.CALLER, facts.caller), (Field.CALLED, facts.called))
            )
        except (IntegrityError, Shredded) as error:
            logger.warning("a call keeps its tokens", extra={"fields": {"recording": row.id, "error": error.code}})
            return None
        if (caller, called) == (row.caller_token, row.called_token):
            return None
        return Reindexed(recording=row.id, sealed_facts=row.sealed_facts, caller_token=caller, called_token=called)
