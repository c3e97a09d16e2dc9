"""Conditions in the head of an S3 write: a hold, a longer retention, or that the key has no object yet.

After the Amazon S3 API reference, "PutObject" and "Locking objects with Object Lock". A condition that the vault does
not offer is refused, because a success would promise it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from vault.errors import Invalid
from vault.protocol.facts.stated import instant

_LOCK: Final = "x-amz-object-lock-"
_HOLD: Final = _LOCK + "legal-hold"
_MODE: Final = _LOCK + "mode"
_UNTIL: Final = _LOCK + "retain-until-date"
_LOCKS: Final = frozenset({_HOLD, _MODE, _UNTIL})
_NOT_OFFERED: Final[Mapping[str, str]] = {
    "if-match": "a recording is never overwritten, so If-Match is not offered",
    "x-amz-write-offset-bytes": "an object is not appended to: send it in parts",
    "x-amz-server-side-encryption-customer-algorithm": "the vault seals with keys of its own, not a client's",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The conditions: a `legal_hold`, `keep_until` at least that instant, `only_new` if the key has no object."""

    legal_hold: bool = False
    keep_until: datetime | None = None
    only_new: bool = False


def terms(headers: Sequence[tuple[str, str]], *, begins: bool, now: datetime) -> Terms:
    """Return the conditions in the headers; Invalid, with S3's code, for a malformed one or one that is not offered.

    A lock is accepted only in the request that `begins` the object.
    """
    named: dict[str, str] = {}
    for name, value in headers:
        named.setdefault(name.lower(), value.strip())
    for name, why in _NOT_OFFERED.items():
        if name in named:
            raise Invalid(f"{why}; nothing was kept", s3="NotImplemented")
    if named.get("if-none-match", "*") != "*":
        raise Invalid("If-None-Match is * or is left out; nothing was kept", s3="NotImplemented")
    locks = {name for name in named if name.startswith(_LOCK)}
    if locks - _LOCKS:
        raise Invalid(f"{min(locks - _LOCKS)} is not offered; nothing was kept", s3="NotImplemented")
    if locks and not begins:
        raise Invalid(
            "a lock is asked for with PutObject or CreateMultipartUpload; nothing was kept", s3="InvalidRequest"
        )
    return Terms(
        legal_hold=_hold(named.get(_HOLD)),
        keep_until=_until(named.get(_MODE), named.get(_UNTIL), now),
        only_new="if-none-match" in named,
    )


def _hold(stated: str | None) -> bool:
    if stated not in (None, "ON", "OFF"):
        raise Invalid(f"{_HOLD} is ON or OFF; nothing was kept", s3="InvalidArgument")
    return stated == "ON"


def _until(mode: str | None, stated: str | None, now: datetime) -> datetime | None:
    if mode is None and stated is None:
        return None
    if mode is None or stated is None:
        raise Invalid(f"{_MODE} and {_UNTIL} come together; nothing was kept", s3="InvalidArgument")
    if mode == "COMPLIANCE":
        raise Invalid(
            "COMPLIANCE promises that nobody deletes the object before its date, but here two people may decide to; "
            "nothing was kept",
            hint="ask for GOVERNANCE, and for a legal hold if it must not be deleted",
            s3="NotImplemented",
        )
    if mode != "GOVERNANCE":
        raise Invalid(f"{_MODE} is GOVERNANCE; nothing was kept", s3="InvalidArgument")
    try:
        until = instant(stated)
    except ValueError as error:
        raise Invalid(f"{_UNTIL} is not an instant with a time zone; nothing was kept", s3="InvalidArgument") from error
    if until <= now:
        raise Invalid(f"{_UNTIL} has passed; nothing was kept", s3="InvalidArgument")
    return until
