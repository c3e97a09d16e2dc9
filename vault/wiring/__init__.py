"""The composition root: config → open vault, and the few things that work without a server."""

from vault.wiring.adapters import SystemClock
from vault.wiring.checks import check_vault, repair_replica, verify_keyring
from vault.wiring.create import InitResult, init_vault, prepare_root_keys
from vault.wiring.opening import open_vault

__all__ = [
    "InitResult",
    "SystemClock",
    "check_vault",
    "init_vault",
    "open_vault",
    "prepare_root_keys",
    "repair_replica",
    "verify_keyring",
]
