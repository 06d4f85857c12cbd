"""Derivatives by autograd beside finite differences of what they are derivatives of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lossgeom.problem import NonFiniteError, Problem
from lossgeom.problem.isolation import measuring
from lossgeom.problem.network import ReentryError
from lossgeom.trust.finite_differences import STEPS, Line, Point, forward

Order = Literal["first", "second", "third", "nested forward"]
Status = Literal["right", "wrong", "unsupported", "unchecked"]

TOLERANCE = 1e-3  # relative; float32 inside a model lets differences be no better
COARSE = 5e-2  # where a model cannot run in float64
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


def examine(problem: Problem, orders: Iterable[Order], seed: int = 0) -> dict[Order, Finding]:
    """Compare derivatives of some orders, of the loss on the problem's first batch.

    They are taken at a random point near the parameters, where no unit sits exactly at a kink, and
    along random directions, a further one only where a derivative disagreed along those before.
    """
    findings = dict.fromkeys(orders, Finding("unchecked", math.inf))
    with measuring(problem.theta.device):
        try:
            point = Point(problem, seed)
            point.check_runs()
        except Exception as error:  # of whatever a module is, away from the user's own point
            return dict.fromkeys(findings, Finding("unchecked", message=_first_line(error)))
        for _ in range(DIRECTIONS):
            unsettled = [o for o, f in findings.items() if f.status in ("wrong", "unchecked")]
            if not unsettled:
                break
            line = Line(point, point.direction())
            for order in unsettled:
                findings[order] = _compared(line, order, findings[order].error)
    return findings


def _compared(line: Line, order: Order, best: float) -> Finding:
    """What is known after one more direction, with the error of those before."""
    try:
        best = min(best, COMPARISONS[order](line))
    except ReentryError:
        raise
    except RAISED as error:
        return Finding("unsupported", message=_first_line(error))
    exact = line.point.theta.dtype == torch.float64
    if best <= (TOLERANCE if exact else COARSE):
        return Finding("right", best)
    if exact:
        return Finding("wrong", best)
    return Finding("unchecked", best, "in float32 only, where differences are too coarse")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


def disagreement(pairs: Iterable[tuple[Tensor, Tensor]], size: Tensor) -> float:
    """The relative difference between what is exact and what is not, at the step that is best."""
    best = math.inf
    floor = FLOOR * float(size.norm()) + 1e-300
    for exact, difference in pairs:
        scale = max(float(difference.norm()), float(exact.norm()), floor)
        error = float((exact - difference).norm()) / scale
        best = min(best, error if math.isfinite(error) else math.inf)
        if best <= TOLERANCE:
            break
    return best


def _first(line: Line) -> float:
    pairs = ((d.slope, d.loss) for d in line.differences())
    return disagreement(pairs, line.point.here.loss.detach())


def _second(line: Line) -> float:
    here = line.point.here
    product, pushed = here.products(line.v)
    gradients = ((product, d.gradient) for d in line.differences())
    outputs = ((pushed, d.outputs) for d in line.differences())
    return max(disagreement(gradients, here.gradient), disagreement(outputs, here.outputs.detach()))


def _third(line: Line) -> float:
    point, v = line.point, line.v
    product, _ = point.here.products(v, create_graph=True)
    exact = torch.zeros_like(product)
    if product.requires_grad:
        (exact,) = torch.autograd.grad(
            product @ v, point.here.leaf, retain_graph=True, materialize_grads=True
        )

    def curved(step: float) -> Tensor:
        up, down = (point.at(point.theta + shift * v).products(v)[0] for shift in (step, -step))
        return (up - down) / (2 * step)

    return disagreement(((exact, curved(step)) for step in STEPS), product.detach())


def _nested_forward(line: Line) -> float:
    point, v = line.point, line.v
    unwatched = point.problem.inside_transforms(point.batch)

    def loss(theta: Tensor) -> Tensor:
        return forward(unwatched, point.batch, theta)[1]

    def slope(theta: Tensor) -> Any:
        return torch.func.jvp(loss, (theta,), (v,))[1]

    # Gradients stay on: without them, autograd pushes through backward kernels of its own for SiLU
    # and Mish, which have no derivative in forward mode.
    exact: Tensor = torch.func.jvp(slope, (point.theta,), (v,))[1].detach()
    gradient = point.at(point.theta).last_gradient()
    pairs = ((exact, d.gradient @ v) for d in line.differences())
    return disagreement(pairs, gradient.norm() * v.norm())


COMPARISONS: dict[Order, Callable[[Line], float]] = {
    "first": _first,
    "second": _second,
    "third": _third,
    "nested forward": _nested_forward,
}
