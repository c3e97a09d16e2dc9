"""Replaces the index tokens of telephone numbers in existing rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vault.ids import RecordingId
from vault.model import AuditEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Reindexed:
    """New tokens for a row, which apply only if its sealed facts are still `sealed_facts`."""

    recording: RecordingId
    sealed_facts: bytes
    caller_token: str | None
    called_token: str | None


class IndexRows(Protocol):
    """Replaces tokens of numbers."""

    async def reindex(self, rows: Sequence[Reindexed], *, audit: Sequence[AuditEvent] = ()) -> int:
        """Replace tokens in one transaction and return in how many rows; rows with other facts are not changed."""
