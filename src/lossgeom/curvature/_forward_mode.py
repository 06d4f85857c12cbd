"""Derivatives along one direction, by forward mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

FORWARD: Any = forward_ad  # which has no types


def derivative_along(
    field: Callable[[Tensor], Tensor], theta: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Call a function at theta, with the derivative of what it returns along v.

    Returns:
        The leaf that the value depends on, the value with its graph, and the derivative.
    """
    leaf = theta.detach().requires_grad_()
    with FORWARD.dual_level():
        value = field(FORWARD.make_dual(leaf, v))
        tangent = FORWARD.unpack_dual(value).tangent
    return leaf, value, torch.zeros_like(value) if tangent is None else tangent
