"""Tests from a sealed object's first bytes whether a key opens it, and tries each 32-byte window of data as a key.

A window is first compared with the 20 bytes of the key commitment that lie in the first block of HKDF's output. A match
is confirmed with the whole commitment.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from vault.crypto import chunked
from vault.crypto.derive import Purpose, subkey
from vault.errors import Tampered
from vault.ids import RecordingId
from vault.model import Coordinate, DataKey

WINDOW_BYTES: Final = chunked.KEY_BYTES
FEWEST_DISTINCT: Final = 13
"""Windows with fewer different byte values are skipped. A random key is skipped with a probability below 2^-74."""

_BLOCK: Final = slice(44, 64)
_COMMITTED: Final = slice(0, 20)
_SHA512: Final = "sha512"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One sealed object to test keys against: the coordinate of its key, and its first 56 bytes."""

    recording: RecordingId
    coordinate: Coordinate
    purpose: Purpose
    context: bytes
    prefix: bytes

    def opens(self, key: DataKey) -> bool:
        """Tell whether `key` is the object's data key."""
        return self._commits(subkey(key, self.purpose))

    def _commits(self, input_key: bytes) -> bool:
        try:
            chunked.Opener(input_key, self.context, self.prefix)
        except Tampered:
            return False
        return True

    def opens_with_input(self, input_key: bytes) -> bool:
        """Tell whether these 32 bytes are the input key of the object's message."""
        return self._commits(input_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A window that opens a target: the data contains a key in clear at this offset."""

    offset: int
    target: int
    kind: str


def windows(data: bytes, targets: Sequence[Target], *, start: int, end: int) -> Iterator[Hit]:
    """Try each window that starts in `[start, end)` as data key and as input key of each target; yield the matches."""
    digest = hmac.digest
    labels = {target.purpose: target.purpose.encode() + b"\0\1" for target in targets}
    known = [
        (
            number,
            target.purpose,
            chunked.commitment_info(target.prefix[: chunked.SALT_BYTES], target.context) + b"\1",
            bytes(target.prefix[chunked.SALT_BYTES :])[_COMMITTED],
        )
        for number, target in enumerate(targets)
    ]
    for offset in range(start, min(end, len(data) - WINDOW_BYTES + 1)):
        window = data[offset : offset + WINDOW_BYTES]
        if len(set(window)) < FEWEST_DISTINCT:
            continue
        leaves = {purpose: digest(window, label, _SHA512)[:32] for purpose, label in labels.items()}
        for number, purpose, info, expected in known:
            if digest(window, info, _SHA512)[_BLOCK] == expected and targets[number].opens_with_input(window):
                yield Hit(offset=offset, target=number, kind="input key")
            leaf = digest(leaves[purpose], info, _SHA512)[_BLOCK] == expected
            if leaf and targets[number].opens(DataKey(window)):
                yield Hit(offset=offset, target=number, kind="data key")
