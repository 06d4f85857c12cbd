"""Derivatives along one direction, by forward mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

FORWARD: Any = forward_ad  # which has no types


class _AsGradients(TorchFunctionMode):
    """A mode in which ``torch.no_grad()`` stops tangents, too, and these have no graph.

    Nothing is differentiated through a tangent, and its graph would hold all others until the end.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._C._set_grad_enabled:
            torch._C._set_fwd_grad_enabled(*args)
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            tangent = FORWARD.unpack_dual(part).tangent if isinstance(part, Tensor) else None
            if tangent is not None and tangent.requires_grad and not tangent._is_view():
                tangent.detach_()
        return result


@contextmanager
def _as_gradients_flow() -> Iterator[None]:
    """Let tangents flow where gradients would, and nowhere else."""
    before = torch._C._is_fwd_grad_enabled()
    try:
        with _AsGradients():
            yield
    finally:
        torch._C._set_fwd_grad_enabled(before)


def derivative_along(
    field: Callable[[Tensor], Tensor], theta: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Call a function at theta, with the derivative of what it returns along v.

    Where it switches gradients off, the derivative stops, too, as it does in a backward pass.

    Returns:
        The leaf that the value depends on, the value with its graph, and the derivative.
    """
    leaf = theta.detach().requires_grad_()
    with FORWARD.dual_level(), _as_gradients_flow():
        value = field(FORWARD.make_dual(leaf, v))
        tangent = FORWARD.unpack_dual(value).tangent
    return leaf, value, torch.zeros_like(value) if tangent is None else tangent
