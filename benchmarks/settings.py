"""The best setting of a competitor that has to be told one, found before the clock runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import Choices, Steps

Attempt = Callable[[Any], tuple[float, Any]]
Check = Callable[[Any], dict[str, object]]


@dataclass(frozen=True)
class Setting:
    """A setting and what to say of it."""

    value: Any
    words: str = ""


def best_setting(
    how: Steps | Choices, attempt: Attempt, check: Check, k: int, patience: int
) -> Setting:
    """The fewest steps that are right, or the fastest of several choices.

    An attempt is given a setting, and gives its seconds and its result.
    """
    if isinstance(how, Choices):
        return _fastest(how, attempt)

    def right(steps: int) -> bool:
        return check(attempt(steps)[1])["status"] == "right"

    return _fewest(how, k, patience, right)


def _fastest(choices: Choices, attempt: Attempt) -> Setting:
    if len(choices.values) == 1:
        return Setting(choices.values[0])
    seconds = {value: _seconds(attempt, value) for value in choices.values}
    best = min(seconds, key=seconds.__getitem__)
    return Setting(best, choices.words(best))


def _seconds(attempt: Attempt, value: Any) -> float:
    with suppress(Exception):  # it will raise again in the race, where that is recorded
        return attempt(value)[0]
    return math.inf


def _fewest(steps: Steps, k: int, patience: int, right: Callable[[int], bool]) -> Setting:
    """Double the steps until it is right, then halve the interval to a tenth."""
    wrong, n = 0, steps.first(k)
    while not _safely(right, n):
        if steps.products(k, 2 * n) > patience:
            return Setting(n, f"{n} steps; wrong, and more would be over {patience} products")
        wrong, n = n, 2 * n
    while wrong and n - wrong > max(1, n // 10):
        middle = (n + wrong) // 2
        wrong, n = (wrong, middle) if right(middle) else (middle, n)
    return Setting(n, f"{n} steps, by an oracle")


def _safely(right: Callable[[int], bool], n: int) -> bool:
    try:
        return right(n)
    except Exception:
        return True
