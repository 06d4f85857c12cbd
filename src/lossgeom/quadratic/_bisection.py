"""Roots of monotone functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALVINGS = 200


def bisected(low: Tensor, high: Tensor, beyond: Callable[[Tensor], Tensor]) -> Tensor:
    """Halve intervals around roots until nothing is left of them.

    Args:
        low: lower ends.
        high: upper ends.
        beyond: whether a number lies above its root, or at it.
    """
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = beyond(middle)
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return low
