"""Gradient ascent on the inputs, for lower estimates of what Jacobians reach."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.linearized import Linearized
from lossgeom.lipschitz.ball import FIRST_STEP, Ball
from lossgeom.messages.checks import check_at_least
from lossgeom.smoothness.exact import all_rows, from_gram, gram

WARM_UP = 5  # steps in which only the direction of the outputs turns
CHUNK = 64  # centres at a time
CHUNK_NUMBERS = 2**24  # numbers of the Jacobians that are held at a time
ROUNDING = 1e-10  # error of a norm in float64, relative to the Jacobians it is made of

Centres = Float[Tensor, "B D"]
Points = Float[Tensor, "M B D"]
Norms = Float[Tensor, " B"]


@dataclass(frozen=True, eq=False)
class Ascent:
    r"""Maximises || sum_m s_m J(x_m) || over points x_m in balls, for a batch of centres at once.

    With the unit vector u in the outputs, :math:`\phi = \frac12 \|(\sum_m s_m J(x_m))^\top u\|^2`
    has as its gradient in u one step of power iteration, and as its gradient in the points the
    direction to go; both come from one backward pass through a backward pass. Where the gradient in
    the points vanishes, as it does for piecewise linear networks, the direction is random. Every
    value seen, with \|u\| = 1, is a lower bound of the norm at its points.

    Attributes:
        model: of inputs (B, D).
        signs: the s, one for each point.
        radius: of the balls.
        steps: of each ascent.
        restarts: ascents from each centre.
        generator: of random directions.
    """

    model: Callable[[Tensor], Tensor]
    signs: tuple[float, ...]
    radius: float
    steps: int
    restarts: int
    generator: torch.Generator

    def __post_init__(self) -> None:
        if not self.radius >= 0:
            raise ValueError(f"expected a radius >= 0, got {self.radius}")
        check_at_least(0, steps=self.steps)
        check_at_least(1, restarts=self.restarts)

    def __call__(self, centres: Centres) -> tuple[Norms, Points]:
        """The largest value found for each centre, less what rounding may add, and its points."""
        parts = [self._of_chunk(part) for part in torch.split(centres, CHUNK)]
        values, places = zip(*parts, strict=True)
        return torch.cat(values), torch.cat(places, dim=1)

    def at(self, centres: Centres) -> Norms:
        """The values where all points are at the centres."""
        return self._exact(centres.expand(len(self.signs), -1, -1))

    def _of_chunk(self, centres: Centres) -> tuple[Norms, Points]:
        places, best = centres.expand(len(self.signs), -1, -1), self.at(centres)
        for restart in range(self.restarts):
            points = self._start(centres, restart)
            with torch.no_grad():
                u = self._unit(self.model(centres))
            for step in range(-WARM_UP, self.steps + 1):
                value, direction, u = self._climb(points, u)
                better = value > best
                best = torch.where(better, value, best)
                places = torch.where(better[:, None], points, places)
                if step >= 0:
                    length = FIRST_STEP * (1 - step / max(self.steps, 1)) * self._reach(centres)
                    points = self._project(points + length * direction, centres)
        return torch.maximum(best, self._exact(places)), places

    def _signed(self, parts: Float[Tensor, "M B ..."]) -> Float[Tensor, "B ..."]:
        """Add up what belongs to each point, with the signs."""
        total: Tensor = torch.tensordot(torch.tensor(self.signs).to(parts), parts, dims=1)
        return total

    def _exact(self, places: Points) -> Norms:
        """The norms at some points, from all rows of the Jacobians."""
        numbers = self.model(places[0, :1]).numel() * places[:, 0].numel()
        parts = torch.split(places, max(1, CHUNK_NUMBERS // numbers), dim=1)
        return torch.cat([self._norms(part) for part in parts])

    def _norms(self, points: Points) -> Norms:
        x = points.flatten(0, 1).detach().requires_grad_()
        J = torch.unflatten(all_rows(Linearized(x, self.model(x))), 0, points.shape[:2])
        rounding: Tensor = ROUNDING * J.flatten(2).norm(dim=2).sum(0)
        norms = from_gram(*gram(self._signed(J)))  # LAPACK's SVD may not converge
        return (norms - rounding).clamp(min=0)

    def _climb(
        self, points: Points, u: Float[Tensor, "B C"]
    ) -> tuple[Norms, Points, Float[Tensor, "B C"]]:
        """The value at points, a unit direction to move them, and the next u."""
        x, u = points.detach().requires_grad_(), u.detach().requires_grad_()
        outputs = torch.unflatten(self.model(x.flatten(0, 1)), 0, points.shape[:2])
        (pulled,) = torch.autograd.grad(
            (self._signed(outputs) * u).sum(), x, create_graph=True, materialize_grads=True
        )
        objective = pulled.sum(0).square().sum() / 2
        along, turned = torch.zeros_like(x), torch.zeros_like(u)
        if objective.requires_grad:
            along, turned = torch.autograd.grad(objective, (x, u), materialize_grads=True)
        pulled = pulled.detach()
        value = pulled.sum(0).norm(dim=1) - ROUNDING * pulled.norm(dim=2).sum(0)
        return value, self._unit(along), _unit_or(turned, u.detach())

    def _start(self, centres: Centres, restart: int) -> Points:
        """Starts at the centre or on opposite sides of it first, then at random distances."""
        if restart == 0 and len(self.signs) == 1:
            return centres[None]
        step = self._reach(centres) * self._unit(torch.zeros_like(centres))
        lengths = torch.tensor(self.signs, dtype=torch.float64)[:, None].expand(-1, len(centres))
        if restart:
            random = torch.rand(lengths.shape, generator=self.generator, dtype=torch.float64)
            lengths = lengths * random
        return centres + lengths[..., None].to(centres) * step

    def _unit(self, directions: Float[Tensor, "*M B D"]) -> Float[Tensor, "*M B D"]:
        """Scale directions to unit length, and replace zeros by random directions."""
        shape = directions.shape
        random = torch.randn(shape, generator=self.generator, dtype=torch.float64).to(directions)
        return _unit_or(directions, Ball(1.0).steepest(random))

    def _reach(self, centres: Centres) -> Float[Tensor, "B 1"] | float:
        """The unit of steps: the radius or, without one, the length of the input (1 for zeros)."""
        if math.isfinite(self.radius):
            return self.radius
        lengths = centres.norm(dim=1, keepdim=True)
        return torch.where(lengths > 0, lengths, 1)

    def _project(self, points: Tensor, centres: Tensor) -> Tensor:
        return points if math.isinf(self.radius) else Ball(self.radius).project(points, centres)


def _unit_or(x: Float[Tensor, "*M B D"], instead: Tensor) -> Float[Tensor, "*M B D"]:
    """Scale rows to unit length, and replace zeros and what is not finite by others."""
    unit = Ball(1.0).steepest(x)
    return torch.where((unit != 0).any(-1, keepdim=True), unit, instead)
