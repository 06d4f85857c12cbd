"""Checks of numbers that callers pass."""

from __future__ import annotations

import math
from numbers import Integral, Real


def check_at_least(minimum: int, **arguments: int | None) -> None:
    """Raise for a number that is too small.

    >>> check_at_least(1, runs=2, every=None)
    """
    for name, value in arguments.items():
        if value is not None and not isinstance(value, Real):
            raise TypeError(f"expected {name} to be a number of at least {minimum}, got {value!r}")
        if value is not None and not value >= minimum:
            raise ValueError(f"expected {name} of at least {minimum}, got {value}")


def check_whole(minimum: int, **arguments: int) -> None:
    """Raise for what is no whole number, or too small a one.

    >>> check_whole(1, samples=2)
    """
    for name, value in arguments.items():
        if not isinstance(value, Integral):
            raise TypeError(f"expected {name} to be a whole number, got {value!r}")
    check_at_least(minimum, **arguments)


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
