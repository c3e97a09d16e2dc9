"""The rules of docs/certificates.md, "What a verifier refuses": their names, and the checks that both schemas share.

A refusal names its rule, so that it can be compared with that page.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final, NamedTuple

from vault.certificates.attested import OPEN_RESULTS, Check, CheckName, KeyCopy, KeyPlace, Result
from vault.certificates.statements import PUBLISHED, Statements
from vault.errors import IntegrityError, Invalid
from vault.ids import id_bytes

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
