"""Every error the vault raises, arranged by who has to act.

`Refused` is the caller's to fix, `IntegrityError` pages someone, `Unavailable` is retried, `ConfigError` is the
operator's. Messages carry no key, token, phone number or audio.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final


def size_text(size: int) -> str:
    """Return a size in bytes as messages show it: 512 B, 60 MiB, 1.5 GiB."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{size} B"


class VaultError(Exception):
    """Base of all errors; `hint` says what the reader can do next."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None, **facts: str | int) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts


class Refused(VaultError):
    """The request is understood and will not be carried out; nothing was changed."""

    code = "refused"


class Invalid(Refused):
    """The request itself is malformed or contradicts itself."""

    code = "invalid"


class Malformed(Invalid):
    """A header is missing, or is not what its protocol says it is."""

    code = "malformed"


class InconsistentLength(Malformed):
    """An upload's length was announced differently before, or more or fewer bytes came than announced."""

    code = "inconsistent_length"


class UploadComplete(Malformed):
    """The upload has ended as it was meant to: nothing can be added to it."""

    code = "upload_complete"


class UnsupportedVersion(Refused):
    """The client speaks another version of its protocol than the vault."""

    code = "unsupported_version"


class ChecksumMismatch(Refused):
    """The bytes of a request are not those that were sent; none of them was kept."""

    code = "checksum_mismatch"


class UnsupportedMedia(Refused):
    """The declared media type is not one the vault can keep and play."""

    code = "unsupported_media"


class TooLarge(Refused):
    """The recording or request exceeds a configured limit."""

    code = "too_large"


class Unauthenticated(Refused):
    """No usable credential was presented."""

    code = "unauthenticated"


class Forbidden(Refused):
    """The credential is valid but does not permit this act."""

    code = "forbidden"


class NotFound(Refused):
    """No such thing, or none that this credential may know of."""

    code = "not_found"


class RangeNotSatisfiable(Refused):
    """The byte range lies outside the representation; `total` in facts is its length."""

    code = "range_not_satisfiable"


class Conflict(Refused):
    """The request contradicts the present state."""

    code = "conflict"


class ChangedSince(Conflict):
    """What is decided about is not what the decider was shown; nothing was decided."""

    code = "changed_since"


class UnderWay(Conflict):
    """The first request with this Idempotency-Key has no answer yet; nothing was done by this one."""

    code = "under_way"


class AnswerLost(Conflict):
    """The request took effect before, and its answer is lost; `target` in facts is what to look at."""

    code = "answer_lost"


class KeyReused(Invalid):
    """An Idempotency-Key came with another request before; nothing was done."""

    code = "key_reused"


class OffsetMismatch(Conflict):
    """An upload continued at another byte than the durable end; `offset` in facts is where to continue."""

    code = "offset_mismatch"


class MismatchingOffset(OffsetMismatch):
    """The same, told in the terms of the IETF's resumable uploads."""

    code = "mismatching_offset"


class Locked(Conflict):
    """Another request is writing to this upload and is heard: wait, and ask again."""

    code = "locked"


class UploadGone(Refused):
    """The upload ended before it was complete and cannot be continued; what arrived is kept."""

    code = "upload_gone"


class UnderHold(Refused):
    """A hold, restriction or freeze forbids the act; nothing was deleted."""

    code = "under_hold"


class TooLate(Refused):
    """A hold arrived after the keys were gone or their destruction was decided."""

    code = "too_late"


class GenerationPassed(Refused):
    """The coordinate's generation was closed by a rotation: ask for another one. No caller of the vault sees this."""

    code = "generation_passed"


class UploadStalled(Refused):
    """The recorder went quiet for too long; what was received is durable."""

    code = "upload_stalled"


class Shredded(Refused):
    """The recording's key no longer exists; `certificate_id` in facts names the proof once issued."""

    code = "shredded"


class GuardTripped(Refused):
    """A safety guard (clock jump, mass shred) stopped the sweep until two people override it."""

    code = "guard_tripped"


class IntegrityError(VaultError):
    """Stored bytes are not what was stored; nothing of them was returned."""

    code = "integrity"


class FormatError(IntegrityError):
    """Bytes do not parse as the format they claim to be."""

    code = "format"


class Tampered(IntegrityError):
    """Authentication failed: content, header or position changed after it was sealed."""

    code = "tampered"


class Truncated(IntegrityError):
    """Bytes are missing at the end."""

    code = "truncated"


class Unavailable(VaultError):
    """A dependency cannot answer now; nothing is known to be lost, and it is never read as "destroyed"."""

    code = "unavailable"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after_seconds: int = 5,
        **facts: str | int,
    ) -> None:
        super().__init__(message, hint=hint, **facts)
        self.retry_after_seconds = retry_after_seconds


class Crowded(Unavailable):
    """Whoever asks has as much under way already as one may have at once; nothing was begun."""

    code = "crowded"


class OverShare(Unavailable):
    """Others wait, and whoever asks has its share of what it asks for; nothing was begun."""

    code = "over_share"


class JournalFull(Unavailable):
    """The journal reached its bound; recorders are asked to come back."""

    code = "journal_full"


class DiskFull(Unavailable):
    """The file system has no room for another durable byte; the remedy is the same wherever that is."""

    code = "disk_full"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = "free space on that disk",
        retry_after_seconds: int = 5,
        **facts: str | int,
    ) -> None:
        super().__init__(message, hint=hint, retry_after_seconds=retry_after_seconds, **facts)


class OutcomeUnknown(Unavailable):
    """What was asked may have taken effect, or may yet: repeat it with the same Idempotency-Key, or look first."""

    code = "outcome_unknown"


class Destroyed(VaultError):
    """The provider states that this root version no longer exists. Never raised for an outage."""

    code = "destroyed"


class ConfigError(VaultError):
    """The configuration or the state on disk does not permit a start; names section and key."""

    code = "config"


class InUse(ConfigError):
    """Another process has what only one may have, such as a journal directory."""


def not_listening(setting: str, place: str, error: OSError) -> ConfigError:
    """Return what is said of an address that cannot be listened on, by the name of its setting."""
    return ConfigError(
        f"{setting}: cannot listen on {place}: {reason(error)}",
        hint=f"end the process that listens there (ss -ltnp shows it), or choose another address in {setting}"
        if error.errno == errno.EADDRINUSE
        else None,
    )


class Unexpected(VaultError):
    """A defect of the server; the log has the place, the answer has the request id."""

    code = "internal"


def error_codes() -> Sequence[str]:
    """Return the code of every kind of error."""
    kinds: list[type[VaultError]] = [VaultError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return sorted({kind.code for kind in kinds})


_KINDS: Final[Mapping[type, str]] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    bytes: "bytes",
    list: "a list",
    tuple: "a list",
    dict: "an object",
    type(None): "null",
}
_PLACE: Final = re.compile(r"^\[[A-Z0-9:_ ]+\]|\(_ssl\.c:[0-9]+\)$")
"""Where in a library something failed, which says nothing to a reader."""
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[0-9]+")


def kind_in_words(kind: type) -> str:
    """Return what a kind of value is called in messages."""
    return _KINDS.get(kind, "something else")


def reason(error: BaseException) -> str:
    """Say why a library or the system failed, for a message: what the system says, else what kind of failure it was."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError):
        said = getattr(error, "reason", None)  # what TLS calls it
        if isinstance(said, str):
            return said.replace("_", " ").lower()
        if error.errno is not None and error.errno in errno.errorcode:
            # By its number: the text beside it can be put together by a library, addresses in brackets and all.
            return os.strerror(error.errno)
        return _PLACE.sub("", error.strerror or str(error)).strip() or "the system refused"
    name = type(error).__name__.removesuffix("Exception").removesuffix("Error")
    return " ".join(word.lower() for word in _WORD.findall(name)) or "it failed"
