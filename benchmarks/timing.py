"""Times of competitors, round after round, in units of one gradient."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

UNIT_SECONDS = 0.2  # to spend on the unit in every round
UNIT_MOST = 20


@dataclass
class Lap:
    """What one competitor took in each round, and what it computed in the first."""

    units: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    verdict: dict[str, object] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        """Whether its result was right."""
        return self.verdict.get("status") == "right"

    def summary(self) -> dict[str, object]:
        """Medians and ranges, for the record."""
        if not self.units:
            return dict(self.verdict)
        return {
            **self.verdict,
            "gradients": statistics.median(self.units),
            "low": min(self.units),
            "high": max(self.units),
            "seconds": statistics.median(self.seconds),
            "repeats": len(self.units),
        }


def timed(function: Callable[[], T]) -> tuple[float, T]:
    """Call a function; return the seconds it took, and the result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def unit(gradient: Callable[[], None]) -> float:
    """Seconds of a gradient: the median of as many as fit, at least three."""
    gradient()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < UNIT_SECONDS and len(times) < UNIT_MOST):
        times.append(timed(gradient)[0])
    return statistics.median(times)


Run = Callable[[], tuple[float, T]]
Check = Callable[[T], dict[str, object]]


def race(
    runs: Mapping[str, Run[T]],
    gradient: Callable[[], None],
    check: Check[T],
    repeats: int,
    within: float = math.inf,
) -> dict[str, Lap]:
    """Race round robin: every competitor once in each round, each round from another one on.

    A run gives its seconds and its result; the first result is checked. Who is wrong, or slower
    than ``within`` times the fastest that is right, is left out of the other rounds.
    """
    laps = {name: Lap() for name in runs}
    names = list(runs)
    for number in range(repeats):
        names = _still_in(laps, names, within)
        turn = number % max(len(names), 1)
        for name in names[turn:] + names[:turn]:
            gc.collect()
            _lap(laps[name], runs[name], gradient, check)
    return laps


def _lap(lap: Lap, run: Run[T], gradient: Callable[[], None], check: Check[T]) -> None:
    one = unit(gradient)
    try:
        seconds, result = run()
    except Exception as error:  # of whatever a competitor is; its words are its result
        lap.verdict = {"status": "error", "message": said(error)}
        return
    if not lap.verdict:
        lap.verdict = check(result)
    lap.seconds.append(seconds)
    lap.units.append(seconds / one)


def said(error: BaseException) -> str:
    """The first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]


def _still_in(laps: Mapping[str, Lap], names: list[str], within: float) -> list[str]:
    right = [statistics.median(laps[name].units) for name in names if laps[name].right]
    limit = within * min(right, default=math.inf)
    return [name for name in names if _stays(laps[name], limit)]


def _stays(lap: Lap, limit: float) -> bool:
    return not lap.verdict or (lap.right and statistics.median(lap.units) <= limit)


def steady(products: Iterable[float], account_for: int) -> float:
    """Seconds per product, from those of set-up with the first product and of some more.

    What was not taken of the products to account for counts as the median of those after the first.
    """
    first, *others = products
    missing = account_for - 1 - len(others)
    return (first + sum(others) + missing * statistics.median(others)) / account_for
