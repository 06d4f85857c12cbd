"""An attack that the user brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lossgeom.lipschitz.ball import Ball

AttackFunction = Callable[[nn.Module, Tensor, Tensor, float], Tensor]


@dataclass(frozen=True, eq=False)
class OwnAttack:
    """A function ``(model, inputs, targets, eps) -> attacked inputs``, and a model for it alone.

    Whatever it does to the model, what it finds is judged by another.
    """

    function: AttackFunction
    model: nn.Module

    def points(
        self, ball: Ball, x: Float[Tensor, "B ..."], targets: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B D"]:
        """What it finds, moved into the ball by no more than rounding.

        Raises:
            TypeError: if it is no tensor.
            ValueError: if it has another shape, is not finite, or is outside.
        """
        found = self.function(self.model, x.clone(), targets.clone(), ball.eps)
        if not isinstance(found, Tensor):
            raise TypeError(
                f"expected attack= to return a tensor of attacked inputs, got a "
                f"{type(found).__name__}"
            )
        if found.shape != x.shape:
            raise ValueError(
                f"expected attack= to return inputs of shape {tuple(x.shape)}, got "
                f"{tuple(found.shape)}; return one attacked input for each that it is given"
            )
        if not torch.isfinite(found).all():
            raise ValueError("expected attack= to return finite inputs, got NaN or infinity")
        points, centres = found.detach().to(x).flatten(1), x.flatten(1)
        ball.check_contains(points, centres)
        return ball.project(points, centres)
