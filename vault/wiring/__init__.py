"""The composition root: from the configuration to an open vault, and the work that needs no server."""

from vault.wiring.adapters import SystemClock
from vault.wiring.init import InitResult, init_vault, prepare_root_keys
from vault.wiring.open import open_vault

__all__ = [
    "InitResult",
    "SystemClock",
    "init_vault",
    "open_vault",
    "prepare_root_keys",
]
