"""Nodes of a vault in one process."""

from __future__ import annotations

import random
from pathlib import Path

from tests.helpers.crashing import (
    ACME,
)
from vault.config import Config, parse_config
from vault.services.vault import Vault

SOUND = random.Random(12).randbytes


def node_config(base: Path, name: str = "one") -> Config:
    """Return the configuration of one node: all is shared but the journal; trees are created three days ahead."""
    return parse_config(
        {
            "journal": {
                "file_bytes": "1MiB",
                "max_bytes": "8MiB",
                "disk_reserve": "1MiB",
                "commit_interval": "0ms",
                "path": str(base / f"journal-{name}"),
            },
            "segments": {"max_bytes": "16KiB"},
            "retention": {"default": "10d", "cohort_width": "1d"},
            "sweep": {"enabled": False, "max_jump": "400d"},
            "keyring": {"precreate_days": 3},
            "identity": {"processor": "Vault Ltd", "contact": "dpo@vault.example"},
        },
        base=base,
    )


async def add_tenant(vault: Vault) -> None:
    await vault.tenants.add(identifier=ACME, name="A", controller="A", contact="dpo", retention=None, actor=None)
