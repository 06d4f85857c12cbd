"""Gradient ascent on the inputs, for lower estimates of what Jacobians reach."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.smoothness.exact import from_gram, gram

WARM_UP = 5  # steps in which only the direction of the outputs turns
FIRST_STEP = 0.5  # of the radius; the steps shrink to zero linearly
CHUNK = 64  # centres at a time
CHUNK_NUMBERS = 2**24  # of the Jacobians that are held at a time
ROUNDING = 1e-10  # of a norm from double precision, relative to the Jacobians it is made of

Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Ascent:
    r"""Maximises || sum_m s_m J(x_m) || over points x_m in balls, for a batch of centres at once.

    With the unit vector u in the outputs, :math:`\phi = \frac12 \|(\sum_m s_m J(x_m))^\top u\|^2`
    has as its gradient in u one step of power iteration, and as its gradient in the points the
    direction to go; both come from one backward pass through a backward pass. Where the gradient in
    the points vanishes, as it does for piecewise linear networks, the direction is random. Every
    value seen, with \|u\| = 1, is a lower bound of the norm at its points.
    """

    model: Model
    signs: tuple[float, ...]
    radius: float
    steps: int
    restarts: int
    generator: torch.Generator

    def __call__(
        self, centres: Float[Tensor, "B ..."]
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "M B ..."]]:
        """The largest value for each centre, made smaller by what rounding may add, and where."""
        parts = [self._of_chunk(part) for part in torch.split(centres, CHUNK)]
        values, places = zip(*parts, strict=True)
        return torch.cat(values), torch.cat(places, dim=1)

    def at(self, centres: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
        """The values where all points are at the centres."""
        return self._exact(centres.expand(len(self.signs), *centres.shape))

    def _of_chunk(
        self, centres: Float[Tensor, "B ..."]
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "M B ..."]]:
        places = centres.expand(len(self.signs), *centres.shape).clone()
        best = self._exact(places)
        for restart in range(self.restarts):
            points = self._start(centres, restart)
            with torch.no_grad():
                u = self._unit(self.model(centres))
            for step in range(-WARM_UP, self.steps + 1):
                value, gradient, u = self._climb(points, u)
                better = value > best
                best = torch.where(better, value, best)
                places = torch.where(_over(better[None], points), points, places)
                if step >= 0:
                    length = FIRST_STEP * (1 - step / max(self.steps, 1)) * self._reach(centres)
                    points = self._project(points + length * gradient, centres)
        return torch.maximum(best, self._exact(places)), places

    def _exact(self, places: Float[Tensor, "M B ..."]) -> Float[Tensor, " B"]:
        """The norms at some points, from all rows of the Jacobians."""
        numbers = self.model(places[0, :1]).numel() * places[:, 0].numel()
        parts = torch.split(places, max(1, CHUNK_NUMBERS // numbers), dim=1)
        return torch.cat([self._norms(part) for part in parts])

    def _norms(self, points: Float[Tensor, "M B ..."]) -> Float[Tensor, " B"]:
        x = points.detach().requires_grad_()
        outputs = torch.unflatten(self.model(x.flatten(0, 1)), 0, points.shape[:2])
        if not outputs.requires_grad:
            return points.new_zeros(points.shape[1])
        C = outputs.shape[2]
        rows = torch.eye(C).to(x)[:, None, None].expand(C, *outputs.shape)
        (J,) = torch.autograd.grad(outputs, x, rows, is_grads_batched=True)
        J = J.flatten(3).permute(1, 2, 0, 3)
        signs = torch.tensor(self.signs).to(x)[:, None, None, None]
        rounding: Tensor = ROUNDING * J.flatten(2).norm(dim=2).sum(0)
        norms = from_gram(*gram((signs * J).sum(0)))  # LAPACK's SVD may not converge
        return (norms - rounding).clamp(min=0)

    def _climb(
        self, points: Float[Tensor, "M B ..."], u: Float[Tensor, "B C"]
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "M B ..."], Float[Tensor, "B C"]]:
        """The value at points, a unit direction to move them, and the next u."""
        signs = torch.tensor(self.signs).to(u)[:, None, None]
        x, u = points.detach().requires_grad_(), u.detach().requires_grad_()
        outputs = torch.unflatten(self.model(x.flatten(0, 1)), 0, points.shape[:2])
        (pulled,) = torch.autograd.grad(
            (signs * outputs * u).sum(), x, create_graph=True, materialize_grads=True
        )
        difference = pulled.sum(0).flatten(1)
        objective = difference.square().sum() / 2
        along, turned = torch.zeros_like(x), torch.zeros_like(u)
        if objective.requires_grad:
            along, turned = torch.autograd.grad(objective, (x, u), materialize_grads=True)
        sizes = pulled.detach().flatten(2).norm(dim=2).sum(0)
        value = difference.detach().norm(dim=1) - ROUNDING * sizes
        return value, self._unit(along.flatten(0, 1)).view_as(x), _normalised(turned, u.detach())

    def _start(self, centres: Tensor, restart: int) -> Float[Tensor, "M B ..."]:
        """At the centres or on opposite sides first, then at random distances from the centre."""
        if restart == 0 and len(self.signs) == 1:
            return centres[None].clone()
        step = self._reach(centres) * self._unit(torch.zeros_like(centres))
        lengths = torch.tensor(self.signs, dtype=torch.float64)[:, None].expand(-1, len(centres))
        if restart:
            lengths = lengths * torch.rand(
                lengths.shape, generator=self.generator, dtype=torch.float64
            )
        return centres + _over(lengths.to(centres), step[None]) * step

    def _unit(self, directions: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Directions at unit length, random ones in the place of zeros."""
        shape = directions.shape
        random = torch.randn(shape, generator=self.generator, dtype=torch.float64).to(directions)
        return _normalised(directions, _normalised(random, random))

    def _reach(self, centres: Tensor) -> Tensor | float:
        """The radius; without one, the length of the input, or 1."""
        if math.isfinite(self.radius):
            return self.radius
        lengths = centres.flatten(1).norm(dim=1)
        return _over(torch.where(lengths > 0, lengths, 1), centres)

    def _project(self, points: Tensor, centres: Tensor) -> Tensor:
        if math.isinf(self.radius):
            return points
        steps = points - centres
        lengths = steps.flatten(2).norm(dim=2).clamp(min=1e-300)
        return centres + steps * _over((self.radius / lengths).clamp(max=1), steps)


def _over(numbers: Tensor, like: Tensor) -> Tensor:
    return numbers.reshape(*numbers.shape, *[1] * (like.ndim - numbers.ndim))


def _normalised(
    x: Float[Tensor, "B ..."], instead: Float[Tensor, "B ..."]
) -> Float[Tensor, "B ..."]:
    """Rows at unit length, others in the place of zeros and of what is not finite."""
    lengths = x.flatten(1).norm(dim=1)
    usable = (lengths > 0) & lengths.isfinite()
    return torch.where(_over(usable, x), x / _over(torch.where(usable, lengths, 1), x), instead)
