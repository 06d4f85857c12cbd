"""Checks of numbers that callers pass."""

from __future__ import annotations

import math
from numbers import Real


def check_at_least(minimum: int, **arguments: int | None) -> None:
    """Raise for a number that is too small.

    >>> check_at_least(1, runs=2, every=None)
    """
    for name, value in arguments.items():
        if value is not None and not isinstance(value, Real):
            raise TypeError(f"expected {name} to be a number of at least {minimum}, got {value!r}")
        if value is not None and value < minimum:
            raise ValueError(f"expected {name} of at least {minimum}, got {value}")


def check_number(
    name: str, value: float, low: float, high: float = math.inf, *, at_low: bool = False
) -> None:
    """Raise unless low < value < high, or equal to low where that is allowed.

    >>> check_number("momentum", 0.0, 0, 1, at_low=True)
    """
    if not (low < value < high or (at_low and value == low)):
        least = f"{name} >= {low:g}" if at_low else f"{name} > {low:g}"
        most = f" and < {high:g}" if math.isfinite(high) else " and finite" * (value == math.inf)
        raise ValueError(f"expected {least}{most}, got {value}")
