"""Issues an operator's token directly in the catalog, for the owner of its files who has lost every token."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime

from prometheus_client import CollectorRegistry

from vault.config import Config
from vault.model import Role, Token
from vault.services.people.access import Access
from vault.services.surroundings import Surroundings
from vault.storage.catalog.catalog import open_catalog
from vault.telemetry import Metrics
from vault.wiring.adapters import SystemClock, catalog_place
from vault.wiring.files import Piece, refuse_unusable


async def issue_operator(config: Config, *, name: str, expires_at: datetime | None) -> tuple[Token, str]:
    """Issue an operator's token in the catalog, beside the server or without one, and return its text.

    The audit trail names the vault itself as the actor. ConfigError without a catalog of this version.
    """
    await asyncio.to_thread(refuse_unusable, config, (Piece.CATALOG,))
    clock = SystemClock()
    catalog = open_catalog(catalog_place(config), clock=clock)
    try:
        await catalog.check_schema()
        access = Access(
            catalog=catalog,
            surroundings=Surroundings(clock=clock, entropy=os.urandom, metrics=Metrics(CollectorRegistry())),
            sealing_keys=tuple,
        )
        return await access.issue(name=name, role=Role.OPERATOR, tenant=None, actor=None, expires_at=expires_at)
    finally:
        await catalog.close()
