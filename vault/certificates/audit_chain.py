"""The audit trail's hash chain: each entry's hash covers the one before it, so a changed entry is noticed.

`hash(n) = SHA-256(hash(n - 1) ‖ RFC 8785 JSON of {seq, at, and the event's fields})`; `hash(0)` is 32 zero bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import rfc8785

from vault.certificates.canonical import stamp
from vault.errors import IntegrityError, Invalid
from vault.model import AuditEntry, AuditEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """The number and the hash (hex) of the last entry, with which a change to any earlier entry can be found."""

    seq: int
    sha256: str


_GAPS: Final = (
    "if the export was filtered, it is a part of the trail: check it with --part; if it was made with --after, check "
    "it with --after NUMBER:HASH, the head before it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPart:
    """The result of a check of part of the trail: `entries` match their hashes, `links` continue the one before."""

    entries: int
    links: int
    head: AuditHead


GENESIS = AuditHead(seq=0, sha256="00" * 32)


def instant(moment: datetime) -> str:
    """Return a time as it is hashed and exported: RFC 3339, UTC, with six digits of microseconds."""
    return stamp(moment)


def canonical(event: AuditEvent, *, seq: int, at: datetime) -> bytes:
    """Return the bytes that an entry's hash covers after the previous hash; Invalid if `detail` is not plain JSON."""
    body = {
        "actor": event.actor,
        "at": instant(at),
        "detail": dict(event.detail),
        "event": event.event,
        "outcome": event.outcome,
        "purpose": event.purpose,
        "request_id": event.request_id,
        "role": event.role,
        "seq": seq,
        "target": event.target,
        "tenant": event.tenant,
    }
    try:
        return rfc8785.dumps(body)
    except (ValueError, TypeError, RecursionError) as error:
        raise Invalid(f"the audit event {event.event} has no canonical JSON; nothing was written") from error


def entry_hash(event: AuditEvent, *, seq: int, at: datetime, previous_sha256: str) -> str:
    """Return the entry's hash in hex."""
    return hashlib.sha256(bytes.fromhex(previous_sha256) + canonical(event, seq=seq, at=at)).hexdigest()


def extend_chain(head: AuditHead, events: Sequence[AuditEvent], *, at: datetime) -> list[AuditEntry]:
    """Number and chain `events` after `head`; the last entry returned is the new head."""
    entries: list[AuditEntry] = []
    previous = head.sha256
    for seq, event in enumerate(events, start=head.seq + 1):
        digest = entry_hash(event, seq=seq, at=at, previous_sha256=previous)
        entries.append(AuditEntry(seq=seq, at=at, event=event, previous_sha256=previous, sha256=digest))
        previous = digest
    return entries


def _check_link(entry: AuditEntry, head: AuditHead) -> None:
    if entry.previous_sha256 != head.sha256:
        raise IntegrityError(f"audit entry {entry.seq} does not continue entry {head.seq}: one of them was replaced")


def _check_hash(entry: AuditEntry) -> None:
    try:
        known = entry_hash(entry.event, seq=entry.seq, at=entry.at, previous_sha256=entry.previous_sha256)
    except Invalid as error:
        raise IntegrityError(f"audit entry {entry.seq} has a value that no entry can have") from error
    if known != entry.sha256:
        raise IntegrityError(f"audit entry {entry.seq} does not match its hash: it was changed after it was written")


def _check_published(head: AuditHead, expected: AuditHead) -> None:
    if head != expected:
        raise IntegrityError(f"audit entry {head.seq} is not the one published: the trail was rewritten")


def _gap(found: int, before: int, *, first: bool) -> str:
    if first:
        return f"the export begins with audit entry {found}, not with entry {before + 1}"
    if found > before:
        return f"audit entry {found} follows entry {before}: what was between them is missing"
    return f"audit entry {found} follows entry {before}: entries are repeated or reordered"


def verify_chain(
    entries: Iterable[AuditEntry], *, after: AuditHead = GENESIS, expected: AuditHead | None = None
) -> AuditHead:
    """Check that `entries` continue `after` without a gap, and return their last head.

    A chain alone cannot show that its newest entries were cut off. If `expected` is given, a head published earlier,
    the chain must contain it. IntegrityError names the first entry that does not fit.
    """
    head = after
    met = expected is None or expected == after
    for entry in entries:
        if entry.seq != head.seq + 1:
            raise IntegrityError(_gap(entry.seq, head.seq, first=head is after), hint=_GAPS)
        _check_link(entry, head)
        _check_hash(entry)
        head = AuditHead(seq=entry.seq, sha256=entry.sha256)
        if expected is not None and head.seq == expected.seq:
            _check_published(head, expected)
            met = True
    if not met:
        assert expected is not None
        raise IntegrityError(f"the audit trail ends at entry {head.seq}, before the published entry {expected.seq}")
    return head


def part_of(entries: Iterable[AuditEntry]) -> str | None:
    """Return the tenant that all `entries` belong to; None if they belong to several, or include the first entry.

    The first entry of the trail belongs to no tenant: it is the issue of the first operator's token.
    """
    tenants: set[str | None] = set()
    for entry in entries:
        tenants.add(entry.event.tenant)
        if entry.seq == GENESIS.seq + 1 or len(tenants) > 1:
            return None
    return next(iter(tenants), None)


def verify_part(entries: Iterable[AuditEntry], *, expected: AuditHead | None = None) -> AuditPart:
    """Check entries in ascending order, between which others may be missing.

    Each must match its own hash, and continue the one before if that is present. `expected`, a head published earlier,
    must be among them. The check cannot show whether entries were left out. IntegrityError names the first entry that
    does not fit.
    """
    head, count, links, met = GENESIS, 0, 0, expected is None
    for entry in entries:
        if entry.seq <= head.seq:
            raise IntegrityError(_gap(entry.seq, head.seq, first=False))
        if entry.seq == head.seq + 1:
            _check_link(entry, head)
            links += count > 0
        _check_hash(entry)
        head = AuditHead(seq=entry.seq, sha256=entry.sha256)
        count += 1
        if expected is not None and head.seq == expected.seq:
            _check_published(head, expected)
            met = True
    if not met:
        assert expected is not None
        raise IntegrityError(f"the published entry {expected.seq} is not in this part of the audit trail")
    return AuditPart(entries=count, links=links, head=head)
