"""Durations as people write them in config.toml and policies: `90d`, `30s`, `1h30m`."""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import pairwise
from typing import Final

from vault.errors import Invalid

_MILLISECONDS: Final = {
    "w": 7 * 24 * 3600 * 1000,
    "d": 24 * 3600 * 1000,
    "h": 3600 * 1000,
    "m": 60 * 1000,
    "s": 1000,
    "ms": 1,
}
_ORDER: Final = tuple(_MILLISECONDS)
_DURATION: Final = re.compile(r"(?:[0-9]{1,15}(?:ms|[wdhms]))+", re.ASCII)
_TERM: Final = re.compile(r"([0-9]+)(ms|[wdhms])")
_HINT: Final = "write whole numbers with a unit, largest first: 90d, 12h, 1h30m, 500ms"


def parse_duration(text: str) -> timedelta:
    """Return the duration `text` spells: one or more of `<n>w <n>d <n>h <n>m <n>s <n>ms`, largest unit first.

    Each unit occurs at most once, without signs, spaces or fractions; anything else raises Invalid.
    """
    if not _DURATION.fullmatch(text):
        raise Invalid(f"{text[:40]!r} is not a duration", hint=_HINT)
    terms = [(int(number), unit) for number, unit in _TERM.findall(text)]
    ranks = [_ORDER.index(unit) for _, unit in terms]
    if any(later <= earlier for earlier, later in pairwise(ranks)):
        raise Invalid(f"{text[:40]!r} repeats a unit or is out of order", hint=_HINT)
    try:
        return timedelta(milliseconds=sum(number * _MILLISECONDS[unit] for number, unit in terms))
    except OverflowError:
        raise Invalid(f"{text[:40]!r} is longer than any calendar", hint=_HINT) from None


def format_duration(duration: timedelta) -> str:
    """Return the text `parse_duration` reads back, in days and smaller, cut to whole milliseconds.

    Weeks are never written: `90d` is how the policy promises it. A negative duration raises Invalid.
    """
    rest = duration // timedelta(milliseconds=1)
    if rest < 0:
        raise Invalid("a duration cannot be negative", hint=_HINT)
    terms = []
    for unit in _ORDER[1:]:
        count, rest = divmod(rest, _MILLISECONDS[unit])
        if count:
            terms.append(f"{count}{unit}")
    return "".join(terms) or "0s"
