"""Balls of inputs that an ascent may choose from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.wording import one_of

Norm = Literal["l2", "linf"]
NORMS: tuple[Norm, ...] = ("l2", "linf")
Box = tuple[float | Tensor, float | Tensor]
Points = Float[Tensor, "*#R B D"]  # of B balls
ULP = 2.0**-50  # rounding of an input and a step when added, relative to their lengths
HALVINGS = 20  # halvings of the interval that a factor is in; the lower end is taken
FIRST_STEP = 0.5  # relative to the radius, in an ascent whose steps shrink to zero linearly


def check_norm(norm: Norm) -> None:
    """Raise for a norm that is not one of those known."""
    if norm not in NORMS:
        raise ValueError(f"expected norm to be one of {one_of(NORMS)}, got {norm!r}")


@dataclass(frozen=True, eq=False)
class Ball:
    """All inputs within eps of an example, in l2 or l_inf, and within the bounds of valid ones."""

    eps: float
    norm: Norm = "l2"
    bounds: Box | None = None

    def steepest(self, gradient: Points) -> Points:
        """The step of unit length that rises most to first order; zero where none does."""
        if self.norm == "linf":
            return gradient.sign().nan_to_num()
        scaled = gradient / _lengths(gradient, torch.inf).clamp(
            min=torch.finfo(gradient.dtype).tiny
        )
        return (scaled / _lengths(scaled, 2)).nan_to_num(0, 0, 0)

    def drawn(self, shape: tuple[int, ...], generator: torch.Generator) -> Points:
        """Steps (..., D) that are uniformly distributed in the ball."""
        if self.norm == "linf":
            uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
            return self.eps * (2 * uniform - 1)
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        uniform = torch.rand((*shape[:-1], 1), generator=generator, dtype=torch.float64)
        return self.eps * uniform ** (1 / shape[-1]) * normal / _lengths(normal, 2)

    def project(self, points: Points, centres: Points) -> Points:
        """The nearest inputs that are allowed, if the centres are, also after they are rounded."""
        steps = points - centres
        if self.norm == "linf":
            reach = self._reach(centres.abs())
            return self.within(centres + torch.maximum(torch.minimum(steps, reach), -reach))
        shrink = self._reach(_lengths(centres, 2)) / _lengths(steps, 2).clamp(
            min=torch.finfo(steps.dtype).tiny
        )
        if self.bounds is not None:
            shrink = self._shrink(steps, centres)
        return self.within(centres + shrink.clamp(max=1) * steps)

    def _reach(self, sizes: Tensor) -> Tensor:
        """How far to go from centres of these sizes without ending outside by rounding."""
        return (self.eps - ULP * (sizes + self.eps)).clamp(min=0)

    def _shrink(self, steps: Points, centres: Points) -> Float[Tensor, "*R B 1"]:
        """The largest factor at which a step that is then moved into the bounds is in the ball.

        By the conditions of Karush, Kuhn and Tucker, it gives the nearest point of both sets.
        """
        low = torch.zeros_like(steps[..., :1])
        high = torch.ones_like(low)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            moved = self.within(centres + middle * steps)
            inside = _lengths(moved - centres, 2) <= self.eps * (1 - ULP)
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        return low

    def within(self, points: Points) -> Points:
        """Points moved into the bounds, each coordinate by itself."""
        if self.bounds is None:
            return points
        low, high = (torch.as_tensor(bound).to(points) for bound in self.bounds)
        return torch.minimum(torch.maximum(points, low), high)


def _lengths(x: Points, order: float) -> Float[Tensor, "*R B 1"]:
    lengths: Tensor = torch.linalg.vector_norm(x, order, dim=-1, keepdim=True)
    return lengths
