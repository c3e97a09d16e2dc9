"""How long an archive's calls would be kept, computed before any of them is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cli.archives.plan import Item
from vault.retention.periods import Period, parse_duration, parse_period
from vault.retention.policy import Lifetime, StartEffect, lifetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The terms of recordings that a token begins now. Until `imports_until` retention counts from true starts."""

    retention: Period
    floor: Period
    backdating: timedelta
    imports_until: datetime | None
    max_bytes: int

    def life(self, started: datetime | None, *, now: datetime) -> Lifetime:
        """Return how long a call is kept if it is received now."""
        return lifetime(
            started,
            receipt=now,
            after=self.retention.after,
            floor=self.floor.after,
            backdating=self.backdating if self.imports_until is None or self.imports_until <= now else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPreview:
    """How many calls are past their retention, count as younger than they are, or have no start.

    `due_from` and `bounded_until` are the last instants until which the first two are kept.
    """

    calls: int
    due: int
    due_from: datetime | None
    bounded: int
    bounded_until: datetime | None
    unstated: int

    @property
    def harmless(self) -> bool:
        """Whether every call is kept as long as its true start and the retention require."""
        return not (self.due or self.bounded or self.unstated)


def terms_of(document: Mapping[str, Any]) -> Terms:
    """Return the terms in the answer to `GET /v1/ingest/{tenant}`."""
    until = document["imports_until"]
    return Terms(
        retention=parse_period(document["retention"]),
        floor=parse_period(document["floor"]),
        backdating=parse_duration(document["backdating"]),
        imports_until=None if until is None else datetime.fromisoformat(until),
        max_bytes=document["max_recording_bytes"],
    )


def is_due(life: Lifetime, terms: Terms, *, now: datetime) -> bool:
    """Tell whether a call is so old that it is kept for the floor only."""
    return life.retain_until < life.unstated_until and life.retain_until <= terms.floor.after(now)


def retention_preview(items: Iterable[Item], terms: Terms, *, now: datetime) -> RetentionPreview:
    """Return how these calls would be kept if they were received now."""
    count: Counter[str] = Counter()
    last: dict[str, datetime] = {}
    for item in items:
        life = terms.life(item.stated.started, now=now)
        if item.stated.started is None or life.effect is StartEffect.REPLACED:
            kind = "unstated"
        elif is_due(life, terms, now=now):
            kind = "due"
        else:
            kind = "bounded" if life.effect is StartEffect.BOUNDED else "kept"
        count[kind] += 1
        last[kind] = max(life.retain_until, last.get(kind, life.retain_until))
    return RetentionPreview(
        calls=count.total(),
        due=count["due"],
        due_from=last.get("due"),
        bounded=count["bounded"],
        bounded_until=last.get("bounded"),
        unstated=count["unstated"],
    )


def words(preview: RetentionPreview, terms: Terms, *, tenant: str) -> Iterator[str]:
    """Yield what a person has to know before these calls are sent."""
    of = f"of {preview.calls} calls"
    if preview.due and preview.due_from is not None:
        yield (
            f"{preview.due} {of} are past their retention of {terms.retention}: they would be due at once, and are "
            f"shredded from {_day(preview.due_from)} on ({terms.floor} after their receipt) unless a hold keeps them"
        )
        yield (
            f"set the tenant's retention first (callvault tenants set {tenant} --retention …), or hold them before: "
            "the report has their ids"
        )
    if preview.bounded and preview.bounded_until is not None:
        span = str(Period(terms.backdating))
        yield (
            f"{preview.bounded} {of} began more than {span} ago, and this token does not import: their retention of "
            f"{terms.retention} would count from {span} before their receipt, until {_day(preview.bounded_until)}"
        )
        yield (
            "with a token that imports it counts from their true starts: callvault tokens issue --role recorder "
            f"--tenant {tenant} --name archive --imports-until +14d"
        )
    if preview.unstated:
        yield f"{preview.unstated} {of} have no usable start: their retention counts from their receipt"


def _day(moment: datetime) -> str:
    return moment.date().isoformat()
