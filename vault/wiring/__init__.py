"""The composition root: config → open vault, and the few things that work without a server."""

from vault.wiring.adapters import SystemClock
from vault.wiring.backing import open_backups
from vault.wiring.checks import check_vault, repair_replica
from vault.wiring.create import InitResult, init_vault
from vault.wiring.opening import open_vault
from vault.wiring.proving import prove_erasure, prove_restore
from vault.wiring.restoring import restore_vault

__all__ = [
    "InitResult",
    "SystemClock",
    "check_vault",
    "init_vault",
    "open_backups",
    "open_vault",
    "prove_erasure",
    "prove_restore",
    "repair_replica",
    "restore_vault",
]
