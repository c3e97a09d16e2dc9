"""The blind index: tokens by which the catalog finds a call without knowing it (docs/format.md, "Blind index").

Each metadata cohort has an index key of its own, a leaf no recording gets. Tokens of different cohorts have nothing in
common, and without the leaf nobody can tell whose they are.
"""

from __future__ import annotations

import enum
import hmac
from typing import Final

from vault.crypto.derive import Purpose, subkey
from vault.model import DataKey

_TOKEN_BYTES: Final = 16


class Field(enum.StrEnum):
    """What is indexed; the value separates the fields, so that a number has another token as caller than as called."""

    CALL_KEY = "call_key"
    CALLER = "caller"
    CALLED = "called"
    OBJECT_KEY = "object_key"


def token(leaf: DataKey, field: Field, value: str) -> str:
    """Return the token of `value` in hex: the first 16 bytes of HMAC-SHA256(subkey of the field, value)."""
    key = subkey(leaf, Purpose.BLIND_INDEX, field.value.encode())
    return hmac.digest(key, value.encode(), "sha256")[:_TOKEN_BYTES].hex()
