"""The errors of the vault, grouped by the party that must act.

The caller corrects the cause of `Refused`, the operator that of `ConfigError`. `Unavailable` is retried. An
`IntegrityError` needs an investigation. Messages carry no key, token, phone number or audio.
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
    """A header is missing, or does not have the form that its protocol defines."""

    code = "malformed"


class InconsistentLength(Malformed):
    """An upload's length was announced differently before, or its bytes are more or fewer than announced."""

    code = "inconsistent_length"


class UploadComplete(Malformed):
    """The upload is complete: nothing can be added to it."""

    code = "upload_complete"


class UnsupportedVersion(Refused):
    """The client speaks another version of its protocol than the vault."""

    code = "unsupported_version"


class ChecksumMismatch(Refused):
    """The bytes of a request do not have the checksum announced; none of them was kept."""

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
    """The thing does not exist, or this credential may not know of it."""

    code = "not_found"


class RangeNotSatisfiable(Refused):
    """The byte range lies outside the representation; `total` in facts is its length."""

    code = "range_not_satisfiable"


class Conflict(Refused):
    """The request contradicts the present state."""

    code = "conflict"


class ChangedSince(Conflict):
    """The request has changed since the decider saw it; nothing was decided."""

    code = "changed_since"


class UnderWay(Conflict):
    """The first request with this Idempotency-Key has no answer yet; nothing was done by this one."""

    code = "under_way"
    retry_after_seconds = 5


class AnswerLost(Conflict):
    """An earlier request with this Idempotency-Key took effect and its answer is lost; `target` in facts has its id."""

    code = "answer_lost"


class KeyReused(Invalid):
    """The Idempotency-Key was used for a different request before; nothing was done."""

    code = "key_reused"


class OffsetMismatch(Conflict):
    """An upload did not continue at its durable end; `offset` in facts is where to continue."""

    code = "offset_mismatch"


class MismatchingOffset(OffsetMismatch):
    """OffsetMismatch as the IETF's resumable uploads report it."""

    code = "mismatching_offset"


class Locked(Conflict):
    """Another request is still writing to this upload: wait, and try again."""

    code = "locked"


class UploadGone(Refused):
    """The upload ended before it was complete and cannot be continued; what arrived is kept."""

    code = "upload_gone"


class UnderHold(Refused):
    """A hold forbids the act; nothing was deleted."""

    code = "under_hold"


class TooLate(Refused):
    """A hold was placed after the keys were destroyed, or after their destruction was decided."""

    code = "too_late"


class GenerationPassed(Refused):
    """A rotation closed the coordinate's generation: reserve another coordinate. Raised inside the vault only."""

    code = "generation_passed"


class UploadStalled(Refused):
    """The recorder sent nothing for too long; what was received is durable."""

    code = "upload_stalled"


class Shredded(Refused):
    """The recording's key no longer exists; `certificate_id` in facts names the certificate once it is issued."""

    code = "shredded"


class GuardTripped(Refused):
    """A safety guard (clock jump, mass shred) stopped the sweep until two people override it."""

    code = "guard_tripped"


class IntegrityError(VaultError):
    """Stored bytes are not those that were written; none of them was returned."""

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
    """A dependency cannot answer now. Nothing is known to be lost; this never means "destroyed"."""

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
    """The caller has too many operations under way at once; nothing was begun."""

    code = "crowded"


class OverShare(Unavailable):
    """The caller already has its share of a resource, and others wait for it; nothing was begun."""

    code = "over_share"


class JournalFull(Unavailable):
    """The journal reached its bound; recorders are told to try again later."""

    code = "journal_full"


class DiskFull(Unavailable):
    """A file system is full."""

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
    """The request may have taken effect, or may still do so: repeat it with its Idempotency-Key, or look first."""

    code = "outcome_unknown"


class Destroyed(VaultError):
    """The provider states that this root version no longer exists. Never raised for an outage."""

    code = "destroyed"


class ConfigError(VaultError):
    """The configuration or the state on disk is not usable; the message names the setting."""

    code = "config"


class InUse(ConfigError):
    """Another process uses what only one may use, such as a journal directory."""


def not_listening(setting: str, place: str, error: OSError) -> ConfigError:
    """Return the error for an address that cannot be listened on; `setting` names its setting."""
    return ConfigError(
        f"{setting}: cannot listen on {place}: {reason(error)}",
        hint=f"end the process that listens there (ss -ltnp shows it), or choose another address in {setting}"
        if error.errno == errno.EADDRINUSE
        else None,
    )


class Unexpected(VaultError):
    """A defect of the server. The log names the line of code; the answer has the request id."""

    code = "internal"


def error_codes() -> Sequence[str]:
    """Return the codes of all errors, sorted."""
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
"""The place in a library where it failed, which tells a reader nothing."""
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[0-9]+")


def kind_in_words(kind: type) -> str:
    """Return the name of a Python type for messages, such as "a whole number"."""
    return _KINDS.get(kind, "something else")


def reason(error: BaseException) -> str:
    """Return why a library or the system failed, for a message: the system's text, else the type of the error."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError):
        tls_reason = getattr(error, "reason", None)
        if isinstance(tls_reason, str):
            return tls_reason.replace("_", " ").lower()
        if error.errno is not None and error.errno in errno.errorcode:
            # By number: a library can put its own text beside it, with addresses in it.
            return os.strerror(error.errno)
        return _PLACE.sub("", error.strerror or str(error)).strip() or "the system refused"
    name = type(error).__name__.removesuffix("Exception").removesuffix("Error")
    return " ".join(word.lower() for word in _WORD.findall(name)) or "it failed"
