"""Exit codes of errors."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from vault import errors


class Exit(enum.IntEnum):
    """The exit codes of `callvault`."""

    DONE = 0
    USAGE = 2
    REFUSED = 3
    NOT_FOUND = 4
    INTEGRITY = 5
    UNAVAILABLE = 6
    CONFIGURATION = 7
    INTERRUPTED = 130


EXITS: Final[Mapping[type[errors.VaultError], Exit]] = {
    errors.Invalid: Exit.USAGE,
    errors.RangeNotSatisfiable: Exit.USAGE,
    errors.NotFound: Exit.NOT_FOUND,
    errors.Refused: Exit.REFUSED,
    errors.IntegrityError: Exit.INTEGRITY,
    # A root version is gone although it is needed: no outage that a retry would cure.
    errors.Destroyed: Exit.INTEGRITY,
    errors.Unavailable: Exit.UNAVAILABLE,
    errors.ConfigError: Exit.CONFIGURATION,
    errors.VaultError: Exit.UNAVAILABLE,
}


def exit_code(error: errors.VaultError) -> Exit:
    """Return the code of the most specific class listed."""
    return next(EXITS[kind] for kind in type(error).__mro__ if kind in EXITS)
