"""What is known of a module near each of some points, from both sides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.linalg.arithmetic import lengths
from lossgeom.lipschitz import (
    Bracket,
    lipschitz_global,
    lipschitz_lower,
    local_variation_lower,
)
from lossgeom.lipschitz.certified.propagation import MARGIN
from lossgeom.lipschitz.lipschitz import certified_on_balls
from lossgeom.problem import Problem
from lossgeom.problem.model_copy import private_copy
from lossgeom.smoothness import jacobian_norms


@dataclass(frozen=True, eq=False)
class Near:
    """What is known of a module near each of some points.

    Attributes:
        size: lengths of its outputs at the points.
        jacobian: norms of its Jacobian there.
        lipschitz: its Lipschitz constants on balls round them.
        variation: the variation of the Jacobian on the balls.
        curvature: the Lipschitz constant of the Jacobian on the balls.
    """

    size: Bracket
    jacobian: Bracket
    lipschitz: Bracket
    variation: Bracket
    curvature: Bracket

    @classmethod
    def of(cls, module: nn.Module, points: Tensor, delta: float, searched: int, seed: int) -> Near:
        """What propagation certifies, and what evaluation and ascents on a few balls find."""
        outputs = outputs_at(module, points)
        problem = _problem(module, points, outputs)
        at, on = certified_on_balls(problem, 0.0), certified_on_balls(problem, delta)
        norms = jacobian_norms(problem).values
        top = (at.norm + on.variation).topk(min(searched, len(points))).indices
        variation = torch.zeros_like(norms)
        if searched:
            few = _problem(module, points[top], outputs[top])
            variation[top] = local_variation_lower(few, delta, seed=seed)
        return cls(
            Bracket(lengths(outputs, 1), MARGIN * lengths(torch.maximum(-at.lower, at.upper), 1)),
            Bracket(norms, at.norm),
            Bracket(norms, on.norm),
            Bracket(variation, on.variation),
            Bracket(variation / (2 * delta), on.curvature),
        )


class Difference(nn.Module):
    """The difference of the outputs of two modules."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: Tensor) -> Tensor:
        """One less the other."""
        difference: Tensor = self.one(x) - self.other(x)
        return difference


class Measurable(nn.Module):
    """A module, also one without parameters, of which problems need one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.unused = module, nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of the module."""
        outputs: Tensor = self.module(x)
        return outputs


def in_double(module: nn.Module) -> nn.Module:
    """A copy in float64 and eval mode."""
    return private_copy(module, torch.float64)[0].eval()


@torch.no_grad()
def outputs_at(module: nn.Module, points: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
    """The outputs at some points."""
    outputs: Tensor = module(points)
    return outputs


def everywhere(
    module: nn.Module, points: Float[Tensor, "N D"], searched: int, seed: int
) -> Bracket:
    """The Lipschitz constant on all of the space, from below by ascents from some points."""
    problem = _problem(module, points, outputs_at(module, points))
    if searched:
        lower = lipschitz_lower(problem, starts=searched, seed=seed).value
    else:
        lower = jacobian_norms(problem).max
    return Bracket.between(lower, lipschitz_global(problem))


def _problem(module: nn.Module, points: Tensor, outputs: Tensor) -> Problem:
    data, module = [(points, outputs)], Measurable(module)
    return Problem(module, "squared_error", data, dtype=torch.float64, check=False)
