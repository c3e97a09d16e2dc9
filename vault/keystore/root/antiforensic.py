"""Anti-forensic splitting (LUKS TKS1, section 2.4): a secret spread so that losing any piece of it loses all of it.

A disk that keeps one old block of an overwritten file then keeps nothing of use.
"""

from __future__ import annotations

import hashlib
from typing import Final

from vault.keystore.root.common import xor
from vault.ports.time import Entropy

STRIPE_BYTES: Final = 64
"""One SHA-512 digest."""


def split(secret: bytes, stripes: int, entropy: Entropy) -> bytes:
    """Return `stripes` x 64 bytes, all of which are needed to recover the 64-byte `secret`."""
    if len(secret) != STRIPE_BYTES:
        raise ValueError(f"the secret is {STRIPE_BYTES} bytes")
    noise = entropy((stripes - 1) * STRIPE_BYTES)
    return noise + xor(_fold(noise), secret)


def merge(material: bytes) -> bytes:
    """Return the secret that `split` spread over `material`; any other bytes give nonsense, not an error."""
    return xor(_fold(material[:-STRIPE_BYTES]), material[-STRIPE_BYTES:])


def _fold(noise: bytes) -> bytes:
    state = bytes(STRIPE_BYTES)
    for at in range(0, len(noise), STRIPE_BYTES):
        mixed = xor(state, noise[at : at + STRIPE_BYTES])
        # TKS1's diffusion hashes each digest-sized block behind its number; a stripe here is exactly block 0.
        state = hashlib.sha512(b"\0\0\0\0" + mixed).digest()
    return state
