"""How a row that people decide on changes: by a decision about the row as it is, never by what somebody read before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from vault.model import AuditEvent

T = TypeVar("T")

Revision = Callable[[T], tuple[T, Sequence[AuditEvent]]]
"""What becomes of a row, and what the trail says of it.

It is asked inside the transaction that writes its answer, perhaps more than once, so it is pure. What it raises is the
answer of the revision, and nothing is changed then. The row's identity stays.
"""
