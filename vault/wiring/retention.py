"""What is to be said of a vault's retention before anything is kept under it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vault.model import Finding

_SUBJECT: Final = "retention"


def retention_findings(*, trial: bool) -> Sequence[Finding]:
    """Return the warnings that init, serve and doctor give."""
    if not trial:
        return ()
    message = "this is a trial vault: its recordings may end within a day, and its certificates say trial"
    return (Finding(level="warning", subject=_SUBJECT, message=message, hint="keep nothing in it that matters"),)
