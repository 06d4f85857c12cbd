"""First and second derivatives of a network's outputs along a direction, by a way that is checked."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.curvature._forward_mode import derivative_along
from lossgeom.derivatives import RAISED, TOLERANCE, disagreement
from lossgeom.diagnosis import LARGEST, DerivativeError, few_examples
from lossgeom.lines import STEPS, Point
from lossgeom.measuring import measuring
from lossgeom.problem import Problem

SEED = 0  # of the point and the directions where ways are tried


class Along(ABC):
    """The outputs f of a batch at the parameters, and what they do along d.

    Attributes:
        outputs: f.
        first: J d.
    """

    outputs: Tensor
    first: Tensor

    @classmethod
    @abstractmethod
    def at(cls, problem: Problem, batch: Batch, d: Tensor) -> Along:
        """The graphs of a batch."""

    @abstractmethod
    def pull(self, u: Tensor) -> Tensor:
        """J^T u + Q(d, .)^T u."""

    @abstractmethod
    def second(self, v: Tensor) -> Tensor:
        """Q(d, v)."""


@dataclass(frozen=True, eq=False)
class Forward(Along):
    """By forward mode: reverse over forward for gradients, forward over forward for Q(d, v)."""

    problem: Problem
    batch: Batch
    d: Tensor
    leaf: Tensor
    outputs: Tensor
    first: Tensor

    @classmethod
    def at(cls, problem: Problem, batch: Batch, d: Tensor) -> Forward:
        def field(theta: Tensor) -> Tensor:
            return problem.outputs(theta, batch)

        return cls(problem, batch, d, *derivative_along(field, problem.theta, d))

    def pull(self, u: Tensor) -> Tensor:
        return _pulled([self.outputs, self.first], self.leaf, u)

    def second(self, v: Tensor) -> Tensor:
        network = copy.copy(self.problem.network)
        network.watched = False  # the state of a generator cannot be read inside these transforms
        problem = self.problem.on(self.batch, network)

        def outputs(theta: Tensor) -> Tensor:
            return problem.outputs(theta, self.batch)

        def along(theta: Tensor) -> Any:
            return torch.func.jvp(outputs, (theta,), (self.d,))[1]

        with torch.no_grad():
            second: Tensor = torch.func.jvp(along, (self.problem.theta,), (v,))[1]
        return second


@dataclass(frozen=True, eq=False)
class Reverse(Along):
    """By reverse mode alone, from <J^T u, d>, which is linear in u."""

    d: Tensor
    leaf: Tensor
    outputs: Tensor

    @classmethod
    def at(cls, problem: Problem, batch: Batch, d: Tensor) -> Reverse:
        leaf = problem.leaf()
        return cls(d, leaf, problem.outputs(leaf, batch))

    @cached_property
    def _u(self) -> Tensor:
        return torch.zeros_like(self.outputs).requires_grad_()

    @cached_property
    def first(self) -> Tensor:  # type: ignore[override]
        gradient = _pulled([self.outputs], self.leaf, self._u, create_graph=True)
        return _pulled([gradient], self._u, self.d)

    def pull(self, u: Tensor) -> Tensor:
        gradient = _pulled([self.outputs], self.leaf, u, create_graph=True)
        return gradient.detach() + _pulled([gradient], self.leaf, self.d)

    def second(self, v: Tensor) -> Tensor:
        gradient = _pulled([self.outputs], self.leaf, self._u, create_graph=True)
        turned = _pulled([gradient], self.leaf, self.d, create_graph=True)
        return _pulled([turned], self._u, v)


def _pulled(parts: list[Tensor], leaf: Tensor, u: Tensor, *, create_graph: bool = False) -> Tensor:
    """The gradient of <u, sum of the parts>; zero where nothing depends on the leaf."""
    dependent = [part for part in parts if part.requires_grad]
    if not dependent:
        return torch.zeros_like(leaf)
    (pulled,) = torch.autograd.grad(
        dependent,
        leaf,
        [u] * len(dependent),
        create_graph=create_graph,
        retain_graph=True,
        materialize_grads=True,
    )
    return pulled


WAYS: tuple[type[Along], ...] = (Forward, Reverse)


def way_for(problem: Problem) -> type[Along]:
    """The faster way that agrees with finite differences, on a few examples.

    Unless the problem was told not to check: then the one by reverse mode alone.

    Raises:
        DerivativeError: if neither does.
    """
    if not problem.check or problem.theta.numel() > LARGEST:
        return Reverse
    return problem.once("derivatives along", lambda: _tried(problem))


def _tried(problem: Problem) -> type[Along]:
    small = few_examples(problem, problem.first_batch())
    said = []
    with measuring(small.theta.device):
        for way in WAYS:
            try:
                error = _error(small, way)
            except RAISED as raised:
                said.append(f"by {way.__name__.lower()} mode {type(raised).__name__}: {raised}")
                continue
            if error <= TOLERANCE:
                return way
            said.append(f"by {way.__name__.lower()} mode a relative error of {error:.1e}")
    raise DerivativeError(
        "the second derivative of the outputs along a direction disagrees with finite differences "
        f"or is not there ({'; '.join(said)}), so that a Taylor model of order 2 would be wrong; "
        "order=1 does without"
    )


def _error(small: Problem, way: type[Along]) -> float:
    """The larger of the relative errors of gradients and of Q(d, v), near the parameters."""
    batch, point = small.first_batch(), Point(small, SEED)
    d, v = point.direction(), point.direction()

    def at(step: float, along: Tensor) -> Reverse:
        return Reverse.at(small.at(point.theta + step * along), batch, d)

    here = way.at(small.at(point.theta), batch, d)
    u = torch.linspace(-1, 1, here.outputs.numel()).to(here.outputs).reshape(here.outputs.shape)

    def gradients(step: float) -> Tensor:
        up, down = (_pulled([e.outputs], e.leaf, u) for e in (at(step, d), at(-step, d)))
        return (up - down) / (2 * step)

    def pushed(step: float) -> Tensor:
        return (at(step, v).first - at(-step, v).first) / (2 * step)

    start = at(0, d)
    plain = _pulled([start.outputs], start.leaf, u)
    turned, second = here.pull(u) - plain, here.second(v)
    return max(
        disagreement(((turned, gradients(step)) for step in STEPS), plain),
        disagreement(((second, pushed(step)) for step in STEPS), start.first),
    )
