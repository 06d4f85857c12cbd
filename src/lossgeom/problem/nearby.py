"""A point near theta, and random numbers, for trying what may be right by accident at theta."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg import random_numbers, some_direction
from lossgeom.losses import NonFiniteError

NEARBY = 0.01  # relative distance of a point near theta

T = TypeVar("T")


def nearby(theta: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """A random point near theta, where no accident, such as weights of zero, hides anything."""
    return theta + NEARBY * (theta.square().mean().sqrt() + NEARBY) * drawn(theta)


def drawn(like: Float[Tensor, ...]) -> Float[Tensor, ...]:
    """Random numbers in the form of a tensor, the same ones at every call and on every device."""
    return some_direction(like, random_numbers(0))


def near_or_at(theta: Float[Tensor, " P"], look: Callable[[Float[Tensor, " P"]], T]) -> T:
    """Look at a point near theta, or at theta, where the other is outside of a model's domain."""
    try:
        return look(nearby(theta))
    except (NonFiniteError, RuntimeError):  # torch raises the latter for what is not there
        return look(theta)
