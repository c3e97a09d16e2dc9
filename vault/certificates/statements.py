"""What certificates claim: their versioned texts, and the rules of docs/certificates.md, "What a verifier refuses".

A text that certificates already carry is not edited. A new wording is a new version beside the old one.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from vault.certificates.attested import OPEN_RESULTS, Check, CheckName, KeyCopy, KeyPlace, Result
from vault.errors import IntegrityError, Invalid
from vault.ids import id_bytes
from vault.model import Assurance, Part

# -- rules --------------------------------------------------------------------------------------------------------
# The rules of docs/certificates.md, "What a verifier refuses": their names, and the checks that both schemas share.
#
# A refusal names its rule, so that it can be compared with that page.

_KINDS: Final = (IntegrityError, Invalid)
_NAMED: Final = re.compile(r"\(rule [A-Z][0-9]+\)\Z")


class Rule(enum.StrEnum):
    """The name of a rule in docs/certificates.md."""

    FILE = "F1"
    COMPACT = "J1"
    HEADER = "J2"
    SIGNATURE = "J3"
    CANONICAL = "P1"
    SCHEMA = "P2"
    MEMBERS = "P3"
    IDS = "C1"
    NONCE = "C2"
    PARTS = "C3"
    DIGESTS = "C4"
    OBJECTS = "C5"
    HOLDS = "C6"
    TRIGGER = "C7"
    PEOPLE = "C8"
    ORDER = "C9"
    TECHNIQUE = "C10"
    ENCRYPTED = "C11"
    KEY_CHECKS = "C12"
    COMPLETED = "C13"
    KEY_COPIES = "C14"
    DATA_COPIES = "C15"
    CHECKS = "C16"
    TEXTS = "C17"
    BATCH_HEADER = "B1"
    BATCH_STATEMENT = "B2"
    BATCH_RULES = "B3"
    BATCH_PATH = "B4"
    LIST = "L1"


class Contradiction(NamedTuple):
    """A rule that a document breaks; `says` tells how."""

    rule: Rule
    says: str


@contextmanager
def naming_rule(rule: Rule) -> Iterator[None]:
    """Add `rule` to the message of a refusal raised inside that names no rule yet. Invalid becomes IntegrityError."""
    try:
        yield
    except _KINDS as error:
        kind = IntegrityError if isinstance(error, Invalid) else type(error)
        named = error.message if _NAMED.search(error.message) else f"{error.message} (rule {rule})"
        raise kind(named, hint=error.hint) from error


def check(contradictions: Iterable[Contradiction]) -> None:
    """Raise Invalid for the first contradiction, if any."""
    for rule, says in contradictions:
        raise Invalid(f"the certificate contradicts itself: {says} (rule {rule})")


def wrong_id(identifier: str, prefix: str, what: str) -> Iterator[Contradiction]:
    """Yield a contradiction unless `identifier` is an id with this prefix; an empty prefix allows any."""
    try:
        id_bytes(identifier)
    except Invalid:
        yield Contradiction(Rule.IDS, f"{what} is not an id")
        return
    if prefix and not identifier.startswith(f"{prefix}_"):
        yield Contradiction(Rule.IDS, f"{what} is not an id of the kind {prefix}_")


def wrong_order(ordered: Iterable[tuple[str, datetime, str, datetime]]) -> Iterator[Contradiction]:
    """Yield a contradiction for each pair whose first time lies after its second."""
    for first, earlier, second, later in ordered:
        if earlier > later:
            yield Contradiction(Rule.ORDER, f"{first} lies after {second}")


def wrong_texts(*texts: Statements) -> Iterator[Contradiction]:
    """Yield a contradiction for each published version whose texts are not the published ones."""
    for text in texts:
        if PUBLISHED.get(text.version, text.texts) != text.texts:
            yield Contradiction(Rule.TEXTS, f"the wording of {text.version} is not the published one")


def wrong_erasure(
    category: str, technique: str, checks: Sequence[Check], *, encrypted_before_first_write: bool
) -> Iterator[Contradiction]:
    """Yield what contradicts a successful cryptographic erase."""
    if (category, technique) != ("purge", "cryptographic erase"):
        yield Contradiction(Rule.TECHNIQUE, "it attests something other than a cryptographic erase")
    if not encrypted_before_first_write:
        # SP 800-88 section 2.6: erasing the key purges only what was never written in clear.
        yield Contradiction(Rule.ENCRYPTED, "cryptographic erase needs encryption before the first write")
    for each in checks:
        if each.check in _KEY_CHECKS and each.result is Result.FAILED:
            yield Contradiction(Rule.KEY_CHECKS, f"the check {each.check} failed: the key is not gone")


_KEY_CHECKS: Final = frozenset({CheckName.OLD_EPOCH_UNWRAP_FAILS, CheckName.LEAF_UNDERIVABLE})
_FINAL_CHECKS: Final = _KEY_CHECKS | {CheckName.OBJECTS_ABSENT}
_FINAL_PLACES: Final = frozenset({KeyPlace.PROVIDER_VERSION, KeyPlace.KEYRING_REPLICA})


def unfinished(
    completed: datetime | None, copies: Sequence[KeyCopy], checks: Sequence[Check]
) -> Iterator[Contradiction]:
    """Yield what keeps a certificate from being final; the objects are checked elsewhere."""
    if completed is None:
        yield Contradiction(Rule.COMPLETED, "a final certificate says when everything was completed")
    if left := sorted({copy.where for copy in copies if copy.result in OPEN_RESULTS}):
        says = f"a final certificate has no failed or unknown key copy: {', '.join(left)}"
        yield Contradiction(Rule.KEY_COPIES, says)
    if not {copy.where for copy in copies if copy.result is Result.DONE} >= _FINAL_PLACES:
        says = "a final certificate accounts for the provider's root version and the keyring"
        yield Contradiction(Rule.KEY_COPIES, says)
    if not {each.check for each in checks if each.result is Result.DONE} >= _FINAL_CHECKS or any(
        each.result in OPEN_RESULTS for each in checks
    ):
        yield Contradiction(Rule.CHECKS, "a final certificate needs every check passed")


# -- statements ---------------------------------------------------------------------------------------------------


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
