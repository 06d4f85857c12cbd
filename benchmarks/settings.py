"""The best setting of a competitor that has to be told one, found before the clock runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.cases import Case
from benchmarks.peers import Choices, Pairs, Peer, Steps
from benchmarks.timing import timed

Check = Callable[[Pairs], dict[str, object]]


@dataclass(frozen=True)
class Setting:
    """A setting and what to say of it."""

    value: Any
    words: str = ""


def best_setting(peer: Peer, case: Case, k: int, check: Check) -> Setting:
    """The fewest steps that are right, or the fastest of several choices."""
    solve = peer.top
    if solve is None:
        raise ValueError(f"{peer.name} finds no eigenpairs")
    if isinstance(peer.setting, Choices):
        return _fastest(peer.setting, partial(_solved, solve, case, k))

    def right(steps: int) -> bool:
        return check(solve(case.copy(), k, steps))["status"] == "right"

    return _fewest(peer.setting, k, case.patience, right)


def _solved(solve: Callable[..., Pairs], case: Case, k: int, value: Any) -> Pairs:
    return solve(case.copy(), k, value)


def _fastest(choices: Choices, solve: Callable[[Any], Pairs]) -> Setting:
    if len(choices.values) == 1:
        return Setting(choices.values[0])
    seconds = {value: timed(partial(_quiet, solve, value))[0] for value in choices.values}
    best = min(seconds, key=seconds.__getitem__)
    return Setting(best, "all threads" if best is None else f"{best} BLAS thread")


def _quiet(solve: Callable[[Any], Pairs], value: Any) -> None:
    with suppress(Exception):  # it will raise again in the race, where that is recorded
        solve(value)


def _fewest(steps: Steps, k: int, patience: int, right: Callable[[int], bool]) -> Setting:
    """Double until it is right, then halve the interval to a tenth."""
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
