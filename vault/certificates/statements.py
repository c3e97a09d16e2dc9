"""The versioned texts in certificates: what is claimed, and what is not.

A text that certificates already carry is not edited. A new wording is a new version beside the old one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from vault.model import Assurance, Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """Sentences and the version that identifies them."""

    version: str
    texts: tuple[str, ...]


CLAIMS: Final = Statements(
    version="callvault/claims/v1",
    texts=(
        "Every stored byte of this recording's audio was encrypted with AES-256-GCM before its first write to disk.",
        (
            "The key existed only as a leaf of a keyring that is readable under the live root version alone; "
            "it was never written to the catalog, to an object or to a backup."
        ),
        (
            "At unrecoverable_at the root version that protected this key was destroyed at the named "
            "provider, after a keyring without this leaf had been written and verified."
        ),
        (
            "Catalog, objects, journals and keyring copies of any age, backups included, together with the "
            "root versions that still exist, do not yield this key."
        ),
        "No hold on this recording was in force when its deletion was decided.",
    ),
)

_SEALED_FACTS: Final = (
    "What the recorder said about this call - numbers, direction, tags - was written to disk only encrypted with "
    "AES-256-GCM under a key of its own."
)
METADATA_CLAIMS: Final = Statements(version="callvault/claims/metadata/v1", texts=(_SEALED_FACTS, *CLAIMS.texts[1:]))
BOTH_CLAIMS: Final = Statements(
    version="callvault/claims/audio-and-metadata/v1",
    texts=(
        CLAIMS.texts[0],
        _SEALED_FACTS,
        "There were two keys, one for the audio and one for the metadata; what is said of the key is true of both.",
        *CLAIMS.texts[1:],
    ),
)


def claims(parts: Collection[Part]) -> Statements:
    """Return what a certificate for these parts claims."""
    if Part.METADATA not in parts:
        return CLAIMS
    return BOTH_CLAIMS if Part.AUDIO in parts else METADATA_CLAIMS


_LEFT_BEFORE: Final = (
    "Nothing is claimed about copies that left the vault before deletion: audio that was played, "
    "exported or downloaded."
)
_CAPTURED_V1: Final = (
    "Nothing is claimed against someone who captured both the root version and the keyring while the "
    "recording existed, or who read the memory of a running vault process before caches_clear_at."
)
_CAPTURED_V2: Final = (
    (
        "Nothing is claimed against someone who captured the root version and the keyring together while the recording "
        "existed, or who read the memory of a running vault process before caches_clear_at: with such a capture and "
        "the stored bytes the recording stays readable, whatever was destroyed since."
    ),
    (
        "Keys are prepared ahead of the recordings that use them: a root version and a keyring captured together "
        "before the recording began also yield its key, unless the keyring was rotated in between. A rotation gives "
        "everything that begins after it keys that no earlier capture holds."
    ),
)
_OTHERS: Final = (
    (
        "Copies of the root key that the provider's operator made by other means, such as backups of the "
        "provider itself, are outside what the vault can see."
    ),
    "The call's metadata has a key and a retention period of its own and is not covered unless listed under parts.",
    "Encrypted remains of objects may persist in backups or abandoned storage; without the key they are unreadable.",
)

_BY_ASSURANCE: Final[Mapping[Assurance, str]] = {
    Assurance.BEST_EFFORT: (
        "Assurance is best effort: the root version was a file that was overwritten in place, synchronised and "
        "removed. Flash storage, copy-on-write or journaling file systems, snapshots and backups of that directory "
        "can keep an older copy that software cannot reach; whoever holds such a copy and a keyring of the same epoch "
        "could still derive the key."
    ),
    Assurance.DEVICE: (
        "Assurance is by device: destruction relies on the key service that held the root version deleting it as "
        "documented; the service's own storage and backups were not examined."
    ),
    Assurance.HSM: (
        "Assurance is by hardware: destruction relies on the security module erasing a key that cannot be exported; "
        "encrypted backups of the module itself, if its operator makes any, were not examined."
    ),
    Assurance.DELAYED: (
        "Assurance is delayed: the provider destroys a root version only after a waiting period; until "
        "unrecoverable_at its operator could have cancelled the destruction."
    ),
}


_NON_CLAIMS: Final[Mapping[str, tuple[Mapping[Assurance, str], tuple[str, ...]]]] = {
    "v1": (_BY_ASSURANCE, (_LEFT_BEFORE, _CAPTURED_V1, *_OTHERS)),
    "v2": (_BY_ASSURANCE, (_LEFT_BEFORE, *_CAPTURED_V2, *_OTHERS)),
}
"""By version, the oldest first: the text for each assurance, and the texts that are the same for all."""


def non_claims(assurance: Assurance, version: str = [*_NON_CLAIMS][-1]) -> Statements:
    """Return the non-claims of a certificate under this assurance; the text about the assurance comes first."""
    limits, texts = _NON_CLAIMS[version]
    name = f"callvault/non-claims/{assurance.value.replace('_', '-')}/{version}"
    return Statements(version=name, texts=(limits[assurance], *texts))


PUBLISHED: Final[Mapping[str, tuple[str, ...]]] = {
    statements.version: statements.texts
    for statements in (
        *(CLAIMS, METADATA_CLAIMS, BOTH_CLAIMS),
        *(non_claims(each, version) for version in _NON_CLAIMS for each in Assurance),
    )
}
"""The sentences of each version that was ever issued, as docs/certificates.md prints them."""
