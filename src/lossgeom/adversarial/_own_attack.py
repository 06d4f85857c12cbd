"""An attack that the user brings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.adversarial._attack import Examples
from lossgeom.lipschitz.ball import Ball

AttackFunction = Callable[[nn.Module, Tensor, Any, float], Tensor]
ROUNDING = 1e-6  # error of inputs that an attack returns in float32, relative to their size


def attacked_inputs(
    attack: AttackFunction,
    model: nn.Module,
    shape: tuple[int, ...],
    ball: Ball,
    examples: Examples,
) -> Float[Tensor, "B D"]:
    """What an attack ``(model, inputs, targets, eps) -> attacked inputs`` finds, in a flat row.

    It is moved into the ball by no more than rounding.

    Raises:
        TypeError: if it is no tensor.
        ValueError: if it has another shape, is not finite, or is outside.
    """
    inputs = examples.inputs.reshape(-1, *shape)
    targets = None if examples.targets is None else examples.targets.clone()
    found = attack(model, inputs.clone(), targets, ball.eps)
    if not isinstance(found, Tensor):
        raise TypeError(
            f"expected attack= to return a tensor of attacked inputs, got a {type(found).__name__}"
        )
    if found.shape != inputs.shape:
        raise ValueError(
            f"expected attack= to return inputs of shape {tuple(inputs.shape)}, got "
            f"{tuple(found.shape)}; return one attacked input for each that it is given"
        )
    if not torch.isfinite(found).all():
        raise ValueError("expected attack= to return finite inputs, got NaN or infinity")
    points = found.detach().to(inputs).flatten(1)
    _check_inside(ball, points, examples.inputs)
    return ball.project(points, examples.inputs)


def _check_inside(ball: Ball, points: Float[Tensor, "B D"], centres: Float[Tensor, "B D"]) -> None:
    order = torch.inf if ball.norm == "linf" else 2
    far = torch.linalg.vector_norm(points - centres, order, dim=1)
    allowed = ball.eps + torch.linalg.vector_norm(centres, order, dim=1)
    excess = far - ball.eps - ROUNDING * allowed
    if excess.amax() > 0:
        raise ValueError(
            f"expected attack= to return inputs within eps={ball.eps:g} of the examples in "
            f"{ball.norm}, got one at a distance of {far[excess.argmax()].item():g}; project "
            "them onto the ball"
        )
    outside = (ball.within(points) - points).abs() - ROUNDING * (1 + points.abs())
    if outside.amax() > 0:
        raise ValueError(
            "expected attack= to return inputs within bounds=, got one that is outside by "
            f"{outside.amax().item():g}; clamp them"
        )
