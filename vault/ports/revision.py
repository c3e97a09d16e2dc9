"""Changes of a row as a function of its present content, so that a change is not based on an outdated read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from vault.model import AuditEvent

T = TypeVar("T")

Revision = Callable[[T], tuple[T, Sequence[AuditEvent]]]
"""Returns the new row and its audit events, given the present row.

It is called inside the transaction that writes its result, possibly more than once, so it must be pure. An error that
it raises passes through, and nothing is changed then. The row's id must not change.
"""
