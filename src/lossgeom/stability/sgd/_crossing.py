"""The first learning rate at which something grows."""

from __future__ import annotations

from collections.abc import Callable

STEPS = 60  # of bisection, which then knows all digits
PLACES = 16  # at which to look up to the threshold of all examples at once


def first_crossing(growth: Callable[[float], float], scale: float) -> float:
    """The first learning rate at which a growth exceeds 1, found in steps and by bisection."""
    step, high = scale / PLACES, scale / PLACES
    while growth(high) <= 1:
        high += step
    low = high - step
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if growth(middle) > 1 else (middle, high)
        if high - low <= 1e-12 * high:
            break
    return high
