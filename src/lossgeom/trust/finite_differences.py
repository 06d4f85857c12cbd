"""Derivatives by autograd beside finite differences of what they are derivatives of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.linalg import random_numbers, some_direction
from lossgeom.losses.graphs import check_differentiable_again
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.problem.agreement import COARSE, DIFFERENCES
from lossgeom.problem.double import in_double
from lossgeom.problem.evaluation import Evaluation
from lossgeom.problem.isolation import measuring
from lossgeom.problem.model_copy import ReentryError

Order = Literal["first", "second", "third", "nested forward"]
Status = Literal["right", "wrong", "unsupported", "unchecked"]
BAD: tuple[Status, ...] = ("wrong", "unsupported")

# Relative to the parameters, the likeliest first: so small that a ReLU hardly ever switches inside
# a difference, smaller still, then large enough for models that round to float32.
STEPS = (1e-8, 1e-9, 1e-5, 1e-4, 1e-3, 1e-7, 1e-6, 1e-2)
AWAY = 1e-2  # how far to go from the parameters, so that no kink is hit exactly
DIRECTIONS = 3
FLOOR = 1e-7  # below this part of the function's own size, a derivative is as good as zero
RAISED = (RuntimeError, TypeError, ValueError, NonFiniteError)  # where there is no derivative


@dataclass(frozen=True)
class Finding:
    """How a derivative compares with finite differences.

    Attributes:
        status: ``"right"``; ``"wrong"``; ``"unsupported"`` where autograd raises; ``"unchecked"``
            where the function itself cannot be evaluated in float64.
        error: the relative difference, at the best of several steps and directions; NaN if none.
        message: what autograd said, where it raised.
    """

    status: Status
    error: float = math.nan
    message: str = ""


class Point:
    """A random point near a problem's parameters, at which its first batch has been evaluated.

    Args:
        problem: with the parameters.
        seed: of the point and the directions from it.
        tolerance: up to which a derivative is right there, in float64.

    Raises:
        Exception: what the model or the loss says there.
    """

    def __init__(self, problem: Problem, seed: int = 0, tolerance: float = DIFFERENCES) -> None:
        self.problem, self.batch = problem, problem.first_batch()
        self.tolerance = tolerance if problem.theta.dtype == torch.float64 else COARSE
        theta, network = problem.theta.detach(), problem.evaluation.network
        sizes = [
            p.square().mean().sqrt().clamp(min=AWAY).expand(p.numel())
            for p in network.split(theta)
            if p.numel()
        ]
        self._scale = torch.cat(sizes).masked_fill_(network.without_gradient(), 0)
        self._generator = random_numbers(seed)
        self.theta = theta + AWAY * self.direction()
        with measuring(theta.device):
            try:
                self.here  # noqa: B018
            except Exception:  # or only where gradients are wanted, which every order meets again
                forward(problem.evaluation, self.batch, self.theta)

    def direction(self) -> Tensor:
        """Draw the next direction of the seed's sequence."""
        return some_direction(self._scale, self._generator) * self._scale

    @cached_property
    def here(self) -> Pass:
        """The pass at the point, whose graph is kept."""
        return Pass(self, self.theta)


def forward(at: Evaluation, batch: Batch, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate outputs and loss at theta."""
    with at.network.undone():
        outputs = at.outputs(theta, batch)
        with nullcontext() if at.criterion.known else in_double(theta.dtype):
            return outputs, at.terms(outputs, batch)[0]


class Pass:
    """One forward pass of a point's model, and the derivatives that its graph gives.

    Args:
        point: with the model.
        theta: there, or elsewhere.
    """

    def __init__(self, point: Point, theta: Tensor) -> None:
        self.leaf = theta.detach().requires_grad_()
        self.outputs, self.loss = forward(point.problem.evaluation, point.batch, self.leaf)
        self._u = torch.zeros_like(self.outputs).requires_grad_()

    def last_gradient(self) -> Tensor:
        """Take the gradient of the loss, and free the graph."""
        if not self.loss.requires_grad:
            return torch.zeros_like(self.leaf)
        return torch.autograd.grad(self.loss, self.leaf, materialize_grads=True)[0]

    @cached_property
    def gradient(self) -> Tensor:
        """The gradient of the loss plus J^T u, which is zero, as u is; with a graph from both."""
        total = self.loss + (self.outputs * self._u).sum()
        (gradient,) = torch.autograd.grad(
            total, self.leaf, create_graph=True, materialize_grads=True
        )
        check_differentiable_again(gradient)
        return gradient

    def products(self, v: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Return H v and J v, the derivatives of <gradient, v> in theta and in u."""
        if not self.gradient.requires_grad:
            return torch.zeros_like(self.leaf), torch.zeros_like(self._u)
        product, pushed = torch.autograd.grad(
            self.gradient,
            (self.leaf, self._u),
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


@dataclass(frozen=True, eq=False)
class Line:
    """A line through a point, with the differences along it, each taken once."""

    point: Point
    v: Tensor
    _taken: dict[float, Differences] = field(default_factory=dict)

    def differences(self) -> Iterator[Differences]:
        """Yield the differences at each step size, likeliest first."""
        for step in STEPS:
            if step not in self._taken:
                ends = []
                for shift in (step, -step):
                    end = Pass(self.point, self.point.theta + shift * self.v)
                    ends.append((end.loss.detach(), end.outputs.detach(), end.last_gradient()))
                loss, outputs, gradient = (
                    (up - down) / (2 * step) for up, down in zip(*ends, strict=True)
                )
                slope = (ends[0][2] @ self.v + ends[1][2] @ self.v) / 2
                self._taken[step] = Differences(loss, outputs, gradient, slope)
            yield self._taken[step]


def disagreement(
    pairs: Iterable[tuple[Tensor, Tensor]], size: Tensor, tolerance: float = DIFFERENCES
) -> float:
    """The relative error of a derivative, at the best of some step sizes.

    Args:
        pairs: the derivative and its difference at each step size.
        size: of the function, beside which a derivative may be as good as zero.
        tolerance: no better is looked for.
    """
    best = math.inf
    floor = FLOOR * float(size.norm()) + 1e-300
    for exact, difference in pairs:
        scale = max(float(difference.norm()), float(exact.norm()), floor)
        error = float((exact - difference).norm()) / scale
        best = min(best, error if math.isfinite(error) else math.inf)
        if best <= tolerance:
            break
    return best


def _first(line: Line) -> float:
    pairs = ((d.slope, d.loss) for d in line.differences())
    return disagreement(pairs, line.point.here.loss.detach(), line.point.tolerance)


def _second(line: Line) -> float:
    here = line.point.here
    product, pushed = here.products(line.v)
    gradients = ((product, d.gradient) for d in line.differences())
    outputs = ((pushed, d.outputs) for d in line.differences())
    return max(
        disagreement(gradients, here.gradient.detach(), line.point.tolerance),
        disagreement(outputs, here.outputs.detach(), line.point.tolerance),
    )


def _third(line: Line) -> float:
    point, v = line.point, line.v
    product, _ = point.here.products(v, create_graph=True)
    exact = torch.zeros_like(product)
    if product.requires_grad:
        (exact,) = torch.autograd.grad(
            product @ v, point.here.leaf, retain_graph=True, materialize_grads=True
        )

    def curved(step: float) -> Tensor:
        up, down = (Pass(point, point.theta + shift * v).products(v)[0] for shift in (step, -step))
        return (up - down) / (2 * step)

    return disagreement(
        ((exact, curved(step)) for step in STEPS), product.detach(), point.tolerance
    )


def _nested_forward(line: Line) -> float:
    point, v = line.point, line.v
    unwatched = point.problem.evaluation.inside_transforms(seeded=True)

    def loss(theta: Tensor) -> Tensor:
        return forward(unwatched, point.batch, theta)[1]

    def slope(theta: Tensor) -> Any:
        return torch.func.jvp(loss, (theta,), (v,))[1]

    # Gradients stay on: without them, autograd pushes through backward kernels of its own for SiLU
    # and Mish, which have no derivative in forward mode.
    exact: Tensor = torch.func.jvp(slope, (point.theta,), (v,))[1].detach()
    gradient = Pass(point, point.theta).last_gradient()
    pairs = ((exact, d.gradient @ v) for d in line.differences())
    return disagreement(pairs, gradient.norm() * v.norm(), point.tolerance)


COMPARISONS: dict[Order, Callable[[Line], float]] = {
    "first": _first,
    "second": _second,
    "third": _third,
    "nested forward": _nested_forward,
}


def examine(point: Point, orders: Iterable[Order]) -> dict[Order, Finding]:
    """Compare derivatives of the loss at a point, along random directions.

    A further direction is taken only where a derivative disagreed along those before.
    """
    findings = dict.fromkeys(orders, Finding("unchecked", math.inf))
    exact = point.theta.dtype == torch.float64
    other: Status = "wrong" if exact else "unchecked"
    why = "" if exact else "in float32 only, where differences are too coarse"
    with measuring(point.theta.device):
        for _ in range(DIRECTIONS):
            unsettled = [o for o, f in findings.items() if f.status in ("wrong", "unchecked")]
            if not unsettled:
                break
            line = Line(point, point.direction())
            for order in unsettled:
                try:
                    best = min(findings[order].error, COMPARISONS[order](line))
                except ReentryError:
                    raise
                except RAISED as error:
                    findings[order] = Finding("unsupported", message=first_line(error))
                    continue
                right = best <= point.tolerance
                findings[order] = Finding("right", best) if right else Finding(other, best, why)
    return findings


def unchecked(orders: Iterable[Order], error: Exception) -> dict[Order, Finding]:
    """Return findings on a function that cannot be evaluated."""
    return dict.fromkeys(orders, Finding("unchecked", message=first_line(error)))


def first_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of its text."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
