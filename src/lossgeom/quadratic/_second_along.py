"""Second-order expansions of a network along a direction, by a way that is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import BatchJacobian, Linear, pulled
from lossgeom.batches import Batch
from lossgeom.losses.graphs import check_differentiable_again
from lossgeom.problem import Problem
from lossgeom.problem.agreement import COARSE, DIFFERENCES
from lossgeom.problem.double import in_double
from lossgeom.problem.isolation import measuring
from lossgeom.problem.model_facts import Key
from lossgeom.trust.finite_differences import DIRECTIONS, RAISED, STEPS, Point, disagreement
from lossgeom.trust.trial import LARGEST, DerivativeError, on_few

# Of a batch and d: f + J d + Q(d, d) / 2 and J + Q(d, .).
Expanded = tuple[Tensor, Linear]
Way = Callable[[Problem, Batch, Tensor], Expanded]


def by_forward_mode(problem: Problem, batch: Batch, d: Float[Tensor, " P"]) -> Expanded:
    """Expand by one pass in nested forward mode, with the graph of f + J d."""
    unwatched, leaf = problem.inside_transforms(), problem.leaf()

    def along(theta: Tensor) -> tuple[Tensor, Tensor]:
        f, first, *_ = torch.func.jvp(lambda x: unwatched.outputs(x, batch), (theta,), (d,))
        return f, first

    (f, first), (_, second), *_ = torch.func.jvp(along, (leaf,), (d,))
    return (f + first + second / 2).detach(), BatchJacobian(f + first, leaf)


def by_reverse_mode(problem: Problem, batch: Batch, d: Float[Tensor, " P"]) -> Expanded:
    """Expand by reverse mode alone, from <J^T u, d>, which is linear in u."""
    leaf = problem.leaf()
    turned = _Turned(problem.outputs(leaf, batch), leaf, d)
    return turned.value(), turned


@dataclass(frozen=True, eq=False)
class _Turned:
    """The Jacobian J + Q(d, .) of the expanded outputs, by reverse mode."""

    outputs: Tensor
    leaf: Float[Tensor, " P"]
    d: Float[Tensor, " P"]

    def pull(self, u: Tensor) -> Float[Tensor, " P"]:
        gradient = pulled(self.outputs, self.leaf, u, create_graph=True)
        return gradient.detach() + pulled(gradient, self.leaf, self.d)

    def push(self, v: Float[Tensor, " P"]) -> Tensor:
        return self._along(v, v)

    def value(self) -> Tensor:
        """The outputs to second order."""
        return (self.outputs + self._along(self.d, self.d / 2)).detach()

    @cached_property
    def _linear(self) -> tuple[Tensor, Tensor, Tensor]:
        """J^T u and Q(d, .)^T u, with graphs, and u, which is zero."""
        u = torch.zeros_like(self.outputs).requires_grad_()
        gradient = pulled(self.outputs, self.leaf, u, create_graph=True)
        check_differentiable_again(gradient)
        return gradient, pulled(gradient, self.leaf, self.d, create_graph=True), u

    def _along(self, v: Float[Tensor, " P"], w: Float[Tensor, " P"]) -> Tensor:
        """J v + Q(d, w)."""
        gradient, turned, u = self._linear
        return pulled(gradient, u, v) + pulled(turned, u, w)


WAYS: tuple[Way, ...] = (by_forward_mode, by_reverse_mode)


def way_for(problem: Problem) -> Way:
    """Return the fastest way that agrees with finite differences on a few examples.

    It is reverse mode alone, if the problem was told not to check.

    Raises:
        DerivativeError: if none does.
    """
    if not problem.check or problem.theta.numel() > LARGEST:
        return by_reverse_mode
    return problem.evaluation.facts.known(
        Key(way_for, problem.network.names), lambda: _tried(problem)
    )


def _tried(problem: Problem) -> Way:
    """Try all ways along a direction, and along others only where all fail, as at a kink."""
    small = on_few(problem, problem.first_batch(), lambda few: Point(few).problem, double=True)
    exact = small.theta.dtype == torch.float64
    for seed in range(DIRECTIONS):
        said = []
        for way in WAYS:
            try:
                with measuring(small.theta.device), in_double(small.theta.dtype):
                    error = _error(small, way, seed)
                what = f"a relative error of {error:.1e}"
            except RAISED as raised:
                error, what = torch.inf, f"{type(raised).__name__}: {raised}"
            if error <= (DIFFERENCES if exact else COARSE):
                return way
            said.append(f"{way.__name__.replace('_', ' ')} {what}")
    if not exact:  # where differences are too coarse to tell
        return by_reverse_mode
    raise DerivativeError(
        "the second derivative of the outputs along a direction disagrees with finite differences "
        f"or is not there ({'; '.join(said)}), so that a Taylor model of order 2 would be wrong; "
        "order=1 does without"
    )


def _error(small: Problem, way: Way, seed: int) -> float:
    """The largest of the relative errors of values and products, near the parameters."""
    batch, point = small.first_batch(), Point(small, seed)
    d, v = point.direction(), point.direction()

    def graph(step: float, along: Tensor) -> BatchJacobian:
        there = small.at(point.theta + step * along)
        leaf = there.leaf()
        return BatchJacobian(there.outputs(leaf, batch), leaf)

    def difference(of: Callable[[BatchJacobian], Tensor], step: float, along: Tensor) -> Tensor:
        return (of(graph(step, along)) - of(graph(-step, along))) / (2 * step)

    def error(
        exact: Tensor, of: Callable[[BatchJacobian], Tensor], along: Tensor, scale: Tensor
    ) -> float:
        return disagreement(((exact, difference(of, step, along)) for step in STEPS), scale)

    here = graph(0.0, d)
    value, jacobian = way(small.at(point.theta), batch, d)
    u = torch.linspace(-1, 2, here.outputs.numel()).to(here.outputs).reshape(here.outputs.shape)
    plain, first = here.pull(u), here.push(d)
    return max(
        error(2 * (value - here.outputs.detach() - first), lambda g: g.push(d), d, first),
        error(jacobian.push(v) - here.push(v), lambda g: g.push(d), v, first),
        error(jacobian.pull(u) - plain, lambda g: g.pull(u), d, plain),
    )
