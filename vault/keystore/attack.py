"""An attack with old keyrings: every head, index and page ever copied, under every key that is live today.

The attacker has all copies and today's root keys, and tries every combination. If an old keyring opens, the keys that
it derives were not erased.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vault.crypto import ggm
from vault.crypto.ggm import Cover
from vault.errors import Destroyed, IntegrityError, Unavailable
from vault.format.keyring import Head, PageRef, decode_head
from vault.keystore import sealing
from vault.model import Cohort, Coordinate, DataKey
from vault.ports.keys import RootKeyProvider


@dataclass(slots=True, kw_only=True)
class OldKeyrings:
    """The result of the attack. `attempts` counts unwraps, and decryptions of indexes and pages."""

    heads: int = 0
    opened_secrets: int = 0
    opened_indexes: int = 0
    opened_pages: int = 0
    attempts: int = 0
    covers: dict[Cohort, list[Cover]] = field(default_factory=dict, repr=False)

    def keys(self, coordinate: Coordinate) -> list[DataKey]:
        """Return every key that any opened page derives at the coordinate."""
        found = (ggm.leaf_key(cover, coordinate.leaf) for cover in self.covers.get(coordinate.cohort, ()))
        return [DataKey(material) for material in {material for material in found if material is not None}]


async def attack(providers: Sequence[RootKeyProvider], files: Iterable[bytes]) -> OldKeyrings:
    """Try every file as head, index and page, with every root version of every provider.

    Unavailable passes through: an outage proves nothing.
    """
    outcome = OldKeyrings()
    heads: dict[bytes, Head] = {}
    blobs: dict[bytes, bytes] = {}
    for data in files:
        try:
            heads[data] = decode_head(data)[0]
        except IntegrityError:
            blobs[hashlib.sha256(data).digest()] = data
    outcome.heads = len(heads)
    secrets: set[bytes] = set()
    for provider in providers:
        secrets |= await _secrets(provider, heads.values(), outcome)
    outcome.opened_secrets = len(secrets)
    refs = _indexes(secrets, heads.values(), blobs, outcome)
    for keyring, ref in refs:
        for data in blobs.values():
            outcome.attempts += 1
            try:
                page = sealing.open_page(ref.key, keyring, ref.tenant, data)
            except IntegrityError:
                continue
            outcome.opened_pages += 1
            for cohort, nodes in page.cohorts.items():
                outcome.covers.setdefault(cohort, []).append(Cover.of(nodes))
    return outcome


async def _secrets(provider: RootKeyProvider, heads: Iterable[Head], outcome: OldKeyrings) -> set[bytes]:
    """Unwrap every head's secret under its own root version and under every live one."""
    alive = [*(await provider.versions())]
    found: set[bytes] = set()
    for head in heads:
        aad = sealing.wrap_aad(head.keyring, head.epoch)
        for version in {head.root, *alive}:
            outcome.attempts += 1
            try:
                found.add(await provider.unwrap(version, head.wrapped, aad))
            except (Destroyed, IntegrityError):
                continue
            except Unavailable:
                if version in alive:
                    raise
    return found


def _indexes(
    secrets: Iterable[bytes], heads: Iterable[Head], blobs: Mapping[bytes, bytes], outcome: OldKeyrings
) -> set[tuple[bytes, PageRef]]:
    """Open every blob as the index of every head under every secret; return the pages they name, with their keys."""
    refs: set[tuple[bytes, PageRef]] = set()
    places = list(heads)
    for secret in secrets:
        for data in blobs.values():
            for head in places:
                outcome.attempts += 1
                try:
                    index = sealing.open_index(secret, head, data)
                except IntegrityError:
                    continue
                outcome.opened_indexes += 1
                refs |= {(index.keyring, ref) for ref in index.pages}
                break
    return refs
