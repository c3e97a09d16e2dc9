"""Long tests: all of each in `make soak`, and a sample of it, another one every day, in `make test`.

CALLVAULT_SEED draws one sample again; the summary of a run names it.
"""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import pytest

SOAK: Final = os.environ.get("CALLVAULT_SOAK") == "1"
SEED: Final = os.environ.setdefault("CALLVAULT_SEED", datetime.now(UTC).date().isoformat())
"""Kept in the environment, so that all workers of a run draw alike."""

T = TypeVar("T")


def sample(every: Sequence[T], most: int, *, of: str) -> list[T]:
    """Return all of `every` in a soak, else `most` of them, in order; `of` names the test, which draws for itself."""
    if SOAK or len(every) <= most:
        return list(every)
    return [every[at] for at in sorted(chance(of).sample(range(len(every)), most))]


def examples(whole: int) -> int:
    """Return how many examples hypothesis tries: `whole` in a soak, else a third, for what fixes its own number."""
    return whole if SOAK else whole // 3


def steps(writes: int, *, of: str) -> list[int]:
    """Return at which writes of an act, counted from 1, to end it: at each in a soak, else at one."""
    return sample(range(1, writes + 1), 1, of=of)


def sampled(name: str, values: Mapping[str, object]) -> Callable[[Callable[..., Any]], Any]:
    """Run a test, marked `soak`, with each of `values`, by their ids, in a soak, else with the one that it draws."""

    def parametrized(test: Callable[..., Any]) -> Any:
        drawn = sample(list(values), 1, of=test.__name__)
        each = pytest.mark.parametrize(name, [pytest.param(values[key], id=key) for key in drawn])
        return pytest.mark.soak(each(test))

    return parametrized


def chance(of: str) -> random.Random:
    """Return the source of what a test draws today."""
    return random.Random(f"{SEED} {of}")
