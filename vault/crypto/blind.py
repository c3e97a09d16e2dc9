"""The blind index: tokens by which the catalog finds calls without storing numbers (docs/format.md, "Blind index").

Each metadata cohort has its own index key, at a leaf that no recording gets. The same value has unrelated tokens in
different cohorts. Without the leaf a token cannot be linked to a value.
"""

from __future__ import annotations

import enum
import hmac
from typing import Final

from vault.crypto.derive import Purpose, subkey
from vault.model import DataKey

_TOKEN_BYTES: Final = 16


class Field(enum.StrEnum):
    """An indexed field. Its value goes into the key, so a number has different tokens as caller and as called."""

    CALL_KEY = "call_key"
    CALLER = "caller"
    CALLED = "called"
    OBJECT_KEY = "object_key"


def token(leaf: DataKey, field: Field, value: str) -> str:
    """Return the token of `value` in hex: the first 16 bytes of HMAC-SHA256(subkey of the field, value)."""
    key = subkey(leaf, Purpose.BLIND_INDEX, field.value.encode())
    return hmac.digest(key, value.encode(), "sha256")[:_TOKEN_BYTES].hex()
