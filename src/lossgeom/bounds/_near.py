"""What is known of a module near each of some points, from both sides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

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
from lossgeom.lipschitz.certified.jacobian_bounds import Bounds
from lossgeom.lipschitz.certified.propagation import MARGIN
from lossgeom.lipschitz.lipschitz import certified_on_balls
from lossgeom.problem import Problem
from lossgeom.problem.model_copy import private_copy
from lossgeom.smoothness import jacobian_norms


@dataclass(frozen=True, eq=False)
class Near:
    """What is known of a module near each of some points, computed where it is asked for.

    From above, propagation certifies it; from below, evaluation and ascents on a few balls find it.

    Attributes:
        module: in float64.
        points: centres of the balls.
        delta: their radius.
        searched: balls on which ascents look for lower estimates.
        seed: of the ascents.
    """

    module: nn.Module
    points: Float[Tensor, "N D"]
    delta: float
    searched: int
    seed: int

    @cached_property
    def size(self) -> Bracket:
        """Lengths of the outputs at the points."""
        most = torch.maximum(-self._at.lower, self._at.upper)
        return Bracket(lengths(self._outputs, 1), MARGIN * lengths(most, 1))

    @cached_property
    def jacobian(self) -> Bracket:
        """Norms of the Jacobian at the points."""
        return Bracket(self._norms, self._at.norm)

    @cached_property
    def lipschitz(self) -> Bracket:
        """Lipschitz constants on the balls."""
        return Bracket(self._norms, self._on.norm)

    @cached_property
    def variation(self) -> Bracket:
        """The variation of the Jacobian on the balls."""
        return Bracket(self._found, self._on.variation)

    @cached_property
    def curvature(self) -> Bracket:
        """The Lipschitz constant of the Jacobian on the balls."""
        return Bracket(self._found / (2 * self.delta), self._on.curvature)

    @cached_property
    def _outputs(self) -> Float[Tensor, "N C"]:
        return outputs_at(self.module, self.points)

    @cached_property
    def _problem(self) -> Problem:
        return _problem(self.module, self.points, self._outputs)

    @cached_property
    def _at(self) -> Bounds:
        return certified_on_balls(self._problem, 0.0)

    @cached_property
    def _on(self) -> Bounds:
        return certified_on_balls(self._problem, self.delta)

    @cached_property
    def _norms(self) -> Float[Tensor, " N"]:
        return jacobian_norms(self._problem).values

    @cached_property
    def _found(self) -> Float[Tensor, " N"]:
        """Lower estimates of the variation, on the balls where most is to be expected."""
        variation = torch.zeros_like(self._norms)
        if self.searched:
            most = self._norms + self._on.variation
            top = most.topk(min(self.searched, len(self.points))).indices
            few = _problem(self.module, self.points[top], self._outputs[top])
            variation[top] = local_variation_lower(few, self.delta, seed=self.seed)
        return variation


class Difference(nn.Module):
    """The difference of the outputs of two modules."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: Any) -> Any:
        """One less the other."""
        return self.one(x) - self.other(x)


class Measurable(nn.Module):
    """A module, also one without parameters, of which problems need one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.unused = module, nn.Parameter(torch.zeros(()))

    def forward(self, x: Any) -> Any:
        """The outputs of the module."""
        return self.module(x)


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
