"""The loss along random lines near the parameters, every pass made once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.linalg import random_numbers
from lossgeom.problem import Problem
from lossgeom.problem.double import in_double
from lossgeom.problem.network import check_differentiable_again

# Relative to the parameters, the likeliest first: so small that a ReLU hardly ever switches inside
# a difference, smaller still, then large enough for models that round to float32.
STEPS = (1e-8, 1e-9, 1e-5, 1e-4, 1e-3, 1e-7, 1e-6, 1e-2)
AWAY = 1e-2  # how far to go from the parameters, so that no kink is hit exactly


class Point:
    """A random point near a problem's parameters."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem, self.batch = problem, problem.first_batch()
        theta, network = problem.theta.detach(), problem.network
        sizes = [
            p.square().mean().sqrt().clamp(min=AWAY).expand(p.numel())
            for p in network.split(theta)
            if p.numel()
        ]
        self._scale = torch.cat(sizes).masked_fill_(network.without_gradient(), 0)
        self._generator = random_numbers(seed)
        self.theta = theta + AWAY * self.direction()

    def direction(self) -> Tensor:
        """The next one of the seed's sequence."""
        # in float32, which is drawn seven times as fast and points as well in some direction
        noise = torch.randn(self._scale.shape, generator=self._generator, dtype=torch.float32)
        return noise.to(self._scale) * self._scale

    def check_runs(self) -> None:
        """Raise what the loss itself raises here."""
        try:
            self.here  # noqa: B018
        except Exception:  # or only where gradients are wanted, which every order meets again
            forward(self.problem, self.batch, self.theta)

    @cached_property
    def here(self) -> Pass:
        """The pass at the point, whose graph is kept."""
        return self.at(self.theta)

    def at(self, theta: Tensor) -> Pass:
        """A pass elsewhere."""
        return Pass(self.problem, self.batch, theta)


def forward(problem: Problem, batch: Batch, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and loss at theta."""
    with in_double(theta), problem.network.undone():
        outputs = problem.outputs(theta, batch)
        return outputs, problem.terms(outputs, batch)[0]


class Pass:
    """One forward pass, and the derivatives that its graph gives."""

    def __init__(self, problem: Problem, batch: Batch, theta: Tensor) -> None:
        self.leaf = theta.detach().requires_grad_()
        self._beside_outputs = problem.loss_beside_outputs
        self.outputs, self.loss = forward(problem, batch, self.leaf)

    def last_gradient(self) -> Tensor:
        """The gradient of the loss, which frees the graph."""
        if not self.loss.requires_grad:
            return torch.zeros_like(self.leaf)
        return torch.autograd.grad(self.loss, self.leaf, materialize_grads=True)[0]

    @cached_property
    def _gradient(self) -> tuple[Tensor, Tensor]:
        """J^T (s + u), with the slopes s of the loss in the outputs, and u, which is zero."""
        slopes, u = torch.zeros_like(self.outputs), torch.zeros_like(self.outputs).requires_grad_()
        if not self.outputs.requires_grad:
            return torch.zeros_like(self.leaf), u
        if self._beside_outputs:
            return self._whole_gradient(u), u
        if self.loss.requires_grad:
            (slopes,) = torch.autograd.grad(
                self.loss, self.outputs, create_graph=True, materialize_grads=True
            )
        (gradient,) = torch.autograd.grad(
            self.outputs, self.leaf, slopes + u, create_graph=True, materialize_grads=True
        )
        check_differentiable_again(gradient)
        return gradient, u

    def _whole_gradient(self, u: Tensor) -> Tensor:
        """The gradient of a loss that depends on the leaf in other ways, too, with J^T u."""
        zero = (self.outputs * u).sum()
        (gradient,) = torch.autograd.grad(
            self.loss + zero, self.leaf, create_graph=True, materialize_grads=True
        )
        check_differentiable_again(gradient)
        return gradient

    @property
    def gradient(self) -> Tensor:
        """The gradient of the loss, by a graph that is kept."""
        return self._gradient[0].detach()

    def products(self, v: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """H v and J v, the derivatives of <J^T (s + u), v> in theta and in u."""
        gradient, u = self._gradient
        if not gradient.requires_grad:
            return torch.zeros_like(self.leaf), torch.zeros_like(u)
        product, pushed = torch.autograd.grad(
            gradient,
            (self.leaf, u),
            v,
            create_graph=create_graph,
            retain_graph=True,
            materialize_grads=True,
        )
        return product, pushed


class Differences(NamedTuple):
    """Central differences, and the slope of the loss by the gradients at both ends."""

    loss: Tensor
    outputs: Tensor
    gradient: Tensor
    slope: Tensor


class Line:
    """A line through a point, with the differences along it, each taken once."""

    def __init__(self, point: Point, v: Tensor) -> None:
        self.point, self.v = point, v
        self._taken: dict[float, Differences] = {}

    def differences(self) -> Iterator[Differences]:
        """For one step size after the other."""
        for step in STEPS:
            if step not in self._taken:
                self._taken[step] = self._differences(step)
            yield self._taken[step]

    def _differences(self, step: float) -> Differences:
        ends = []
        for shift in (step, -step):
            end = self.point.at(self.point.theta + shift * self.v)
            ends.append((end.loss.detach(), end.outputs.detach(), end.last_gradient()))
        loss, outputs, gradient = ((up - down) / (2 * step) for up, down in zip(*ends, strict=True))
        slope = (ends[0][2] @ self.v + ends[1][2] @ self.v) / 2
        return Differences(loss, outputs, gradient, slope)
