"""Derivatives by autograd beside finite differences of what they are derivatives of."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lossgeom.batches import Batch
from lossgeom.linalg import random_numbers
from lossgeom.measuring import measuring
from lossgeom.network import check_differentiable_again
from lossgeom.problem import NonFiniteError, Problem

Order = Literal["first", "second", "third", "nested forward"]
Status = Literal["right", "wrong", "unsupported", "unchecked"]

TOLERANCE = 1e-3  # relative; float32 inside a model lets differences be no better
COARSE = 5e-2  # where a model cannot run in float64
# Relative to the parameters, the likeliest first: small enough that no ReLU switches inside a
# difference, then large enough for models that round to float32, then smaller still.
STEPS = (1e-7, 1e-5, 1e-4, 1e-3, 1e-9, 1e-8, 1e-6, 1e-2)
DIRECTIONS = 3
AWAY = 1e-2  # how far to go from the point, so that no kink is hit exactly
FLOOR = 1e-7  # below this part of the function's own size, a derivative is as good as zero


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


def examine(problem: Problem, order: Order, seed: int = 0) -> Finding:
    """Compare derivatives of one order, of the loss on the problem's first batch.

    They are taken at a random point near the parameters, where no unit sits exactly at a kink.
    """
    with measuring(problem.theta.device):
        try:
            point = _Point.near(problem, seed)
            size = point.loss(point.theta).detach()
        except Exception as error:  # of whatever a module is, away from the user's own point
            return Finding("unchecked", message=_first_line(error))
        exact = problem.theta.dtype == torch.float64
        tolerance = TOLERANCE if exact else COARSE
        best = math.inf
        for direction in point.directions:
            try:
                errors = list(COMPARISONS[order](point, direction, size))
            except (RuntimeError, TypeError, ValueError, NonFiniteError) as error:
                return Finding("unsupported", message=_first_line(error))
            if not errors:
                return Finding("unchecked", message="nothing to differentiate")
            best = min(best, max(errors))
            if best <= tolerance:
                return Finding("right", best)
        if not exact:
            return Finding("unchecked", best, "in float32 only, where differences are too coarse")
        return Finding("wrong", best)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


@dataclass(frozen=True, eq=False)
class _Point:
    """A problem's first batch as functions of theta."""

    problem: Problem
    batch: Batch
    theta: Tensor
    directions: list[Tensor]

    @classmethod
    def near(cls, problem: Problem, seed: int) -> _Point:
        theta = problem.theta.detach()
        pieces = problem.network.split(theta)
        scale = torch.cat(
            [
                p.square().mean().sqrt().clamp(min=AWAY).expand(p.numel())
                for p in pieces
                if p.numel()
            ]
        )
        generator = random_numbers(seed)
        shape = (1 + DIRECTIONS, theta.numel())
        noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(theta) * scale
        noise[:, problem.network.without_gradient()] = 0
        away, *directions = noise.unbind()
        return cls(problem, problem.first_batch(), theta + AWAY * away, list(directions))

    def outputs(self, theta: Tensor) -> Tensor:
        with _in_double(theta):
            return self.problem.outputs(theta, self.batch)

    def loss(self, theta: Tensor) -> Tensor:
        outputs = self.outputs(theta)
        with _in_double(theta):
            return self.problem.terms(outputs, self.batch)[0]

    def gradient(self, theta: Tensor, create_graph: bool = False) -> Tensor:
        leaf = theta if theta.requires_grad else theta.detach().requires_grad_()
        total = self.loss(leaf)
        if not total.requires_grad:
            return torch.zeros_like(theta)
        return torch.autograd.grad(total, leaf, create_graph=create_graph, materialize_grads=True)[
            0
        ]

    def hessian_product(self, theta: Tensor, v: Tensor, create_graph: bool = False) -> Tensor:
        leaf = theta if theta.requires_grad else theta.detach().requires_grad_()
        gradient = self.gradient(leaf, create_graph=True)
        check_differentiable_again(gradient)
        if not gradient.requires_grad:
            return torch.zeros_like(theta)
        return torch.autograd.grad(
            gradient, leaf, v, create_graph=create_graph, materialize_grads=True
        )[0]

    def along(self, function: Callable[[Tensor], Tensor], v: Tensor) -> Iterator[Tensor]:
        """Central differences of a function along v, for one step size after the other."""
        for step in STEPS:
            up, down = function(self.theta + step * v), function(self.theta - step * v)
            yield (up.detach() - down.detach()) / (2 * step)


class _Double(TorchFunctionMode):
    """Lets a model go on in float64 where it says float32, so that differences stay exact."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.float:
            return args[0].double()
        given = {key: _doubled(value) for key, value in (kwargs or {}).items()}
        return func(*map(_doubled, args), **given)


def _doubled(argument: Any) -> Any:
    return torch.float64 if argument is torch.float32 else argument


@contextmanager
def _in_double(theta: Tensor) -> Iterator[None]:
    if theta.dtype != torch.float64:
        yield
        return
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with _Double():
            yield
    finally:
        torch.set_default_dtype(before)


def _disagreement(exact: Tensor, differences: Iterator[Tensor], size: Tensor) -> float:
    """The relative difference, at the step that is best."""
    best = math.inf
    floor = FLOOR * float(size.norm()) + 1e-300
    for difference in differences:
        scale = max(float(difference.norm()), float(exact.norm()), floor)
        error = float((exact - difference).norm()) / scale
        best = min(best, error if math.isfinite(error) else math.inf)
        if best <= TOLERANCE:
            break
    return best


def _first(point: _Point, v: Tensor, size: Tensor) -> Iterator[float]:
    exact = (point.gradient(point.theta) @ v).detach()
    yield _disagreement(exact, point.along(point.loss, v), size)


def _second(point: _Point, v: Tensor, size: Tensor) -> Iterator[float]:  # noqa: ARG001
    gradient = point.gradient(point.theta)
    product = point.hessian_product(point.theta, v)
    yield _disagreement(product, point.along(point.gradient, v), gradient)
    outputs, pushed = _pushed(point, v)
    yield _disagreement(pushed, point.along(point.outputs, v), outputs)


def _pushed(point: _Point, v: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs and J v, by the transpose of the transposed product."""
    leaf = point.theta.detach().requires_grad_()
    outputs = point.outputs(leaf)
    if not outputs.requires_grad:
        return outputs, torch.zeros_like(outputs)
    u = torch.zeros_like(outputs, requires_grad=True)
    (pulled,) = torch.autograd.grad(outputs, leaf, u, create_graph=True, materialize_grads=True)
    check_differentiable_again(pulled)
    if not pulled.requires_grad:
        return outputs.detach(), torch.zeros_like(outputs)
    return outputs.detach(), torch.autograd.grad(pulled, u, v)[0]


def _third(point: _Point, v: Tensor, size: Tensor) -> Iterator[float]:  # noqa: ARG001
    leaf = point.theta.detach().requires_grad_()
    product = point.hessian_product(leaf, v, create_graph=True)
    exact = torch.zeros_like(leaf)
    if product.requires_grad:
        (exact,) = torch.autograd.grad(product @ v, leaf, materialize_grads=True)
    curved = point.along(lambda theta: point.hessian_product(theta, v), v)
    yield _disagreement(exact.detach(), curved, product.detach())


def _nested_forward(point: _Point, v: Tensor, size: Tensor) -> Iterator[float]:  # noqa: ARG001
    network = copy.copy(point.problem.network)
    network.watched = False  # the state of a generator cannot be read inside these transforms
    unwatched = replace(point, problem=point.problem.on(point.batch, network))

    def slope(theta: Tensor) -> Any:
        return torch.func.jvp(unwatched.loss, (theta,), (v,))[1]

    with torch.no_grad():
        exact: Tensor = torch.func.jvp(slope, (point.theta,), (v,))[1]
    gradient = point.gradient(point.theta)
    curved = (difference @ v for difference in point.along(point.gradient, v))
    yield _disagreement(exact.detach(), curved, gradient.norm() * v.norm())


COMPARISONS: dict[Order, Callable[[_Point, Tensor, Tensor], Iterator[float]]] = {
    "first": _first,
    "second": _second,
    "third": _third,
    "nested forward": _nested_forward,
}
