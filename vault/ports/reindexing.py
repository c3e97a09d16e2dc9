"""New tokens for numbers that are indexed already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vault.ids import RecordingId
from vault.model import AuditEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Reindexed:
    """New tokens for the numbers in a row's facts, as long as those are still the ones that were read."""

    recording: RecordingId
    sealed_facts: bytes
    caller_token: str | None
    called_token: str | None


class IndexRows(Protocol):
    """The tokens of numbers in rows that exist."""

    async def reindex(self, rows: Sequence[Reindexed], *, audit: Sequence[AuditEvent] = ()) -> int:
        """Replace tokens in one transaction, and return in how many rows; other facts or none keep what they have."""
