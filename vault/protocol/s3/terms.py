"""What the head of an S3 write asks for beside storing: a hold, a longer retention, or to be the first of its key.

After the Amazon S3 API reference, "PutObject" and "Locking objects with Object Lock". What the vault would not keep to
is refused: an answer that passed over it would promise it.
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
    "if-match": "a recording is never written over, so there is nothing that If-Match could replace",
    "x-amz-write-offset-bytes": "an object is not appended to: send it in parts",
    "x-amz-server-side-encryption-customer-algorithm": "the vault seals with keys of its own, not a client's",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is asked for: a `legal_hold`, `keep_until` an instant at least, `only_new` if the key has no object."""

    legal_hold: bool = False
    keep_until: datetime | None = None
    only_new: bool = False


def terms(said: Sequence[tuple[str, str]], *, begins: bool, now: datetime) -> Terms:
    """Return what the headers ask for; Invalid, with S3's code, for what is malformed or would not be kept to.

    A lock belongs to the request that `begins` the object.
    """
    named: dict[str, str] = {}
    for name, value in said:
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
            hint="ask for GOVERNANCE, and for a legal hold where it must not go",
            s3="NotImplemented",
        )
    if mode != "GOVERNANCE":
        raise Invalid(f"{_MODE} is GOVERNANCE; nothing was kept", s3="InvalidArgument")
    try:
        until = instant(stated)
    except ValueError as error:
        raise Invalid(f"{_UNTIL} is no instant with a time zone; nothing was kept", s3="InvalidArgument") from error
    if until <= now:
        raise Invalid(f"{_UNTIL} has passed; nothing was kept", s3="InvalidArgument")
    return until
