"""The web origins (RFC 6454) whose pages may send recordings for a tenant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from vault.errors import Invalid

_MOST: Final = 20
# As browsers write it: lower case, no path, no default port. Plain http is only for this machine.
_ORIGIN: Final = re.compile(
    r"https://[a-z0-9.-]{1,253}(?::[1-9][0-9]{0,4})?|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[1-9][0-9]{0,4})?",
    re.ASCII,
)
_HINT: Final = "scheme, host and port as browsers send them: https://portal.example.org, without a path"


def checked_origins(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the origins sorted, without repetitions.

    Invalid for a text that browsers do not send, for plain http except to this machine, and for more than 20.
    """
    for text in texts:
        if not _ORIGIN.fullmatch(text) or text.endswith(":443"):
            raise Invalid("that is not the origin of a web page", hint=_HINT)
    if len(texts) > _MOST:
        raise Invalid(f"a tenant lists up to {_MOST} origins")
    return tuple(sorted({*texts}))
