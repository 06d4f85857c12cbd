"""Regularisers that add a quantity to the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from lossgeom.lab.training import Objective, Quantity, Regularizer
from lossgeom.messages.checks import check_number


def add(quantity: Quantity, weigh: Callable[[Tensor, int], Tensor]) -> Regularizer:
    """Add a function of the mean of a quantity, and of the step."""

    def regularizer(objective: Objective) -> Objective:
        return replace(objective, penalties=(*objective.penalties, (quantity, weigh)))

    return regularizer


def add_multiple(strength: float, quantity: Quantity) -> Regularizer:
    """Add a multiple of the mean of a quantity."""
    check_number("strength", strength, 0, at_low=True)
    return add(quantity, lambda mean, step: strength * mean)  # noqa: ARG005
