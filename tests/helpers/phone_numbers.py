"""Phone numbers in what must have none."""

from __future__ import annotations

import re

NUMBERS = {
    "caller": ("020 7946 0123", "2079460123"),
    "called": ("+44 (0)1632 960 987", "1632960987"),
    "abroad": ("+33-1-99-00-12-34", "199001234"),
    "extension": ("7700900461#12", "7700900461"),
}


def number_in(hay: bytes) -> str | None:
    """Look at the digits alone, so that no punctuation hides a number."""
    digits = re.sub(rb"\D", b"", hay)
    return next((name for name, (_, national) in NUMBERS.items() if national.encode() in digits), None)
