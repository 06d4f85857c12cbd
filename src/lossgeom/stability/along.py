"""A loss along an update of its parameters: its slope and its curvature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.curvature import Hessian
from lossgeom.problem import NonFiniteError, Problem, checked_problem
from lossgeom.stability.rounding import gradient_rounding
from lossgeom.stability.undefined import UndefinedError

SEEN = 2.0  # times its rounding, below which a slope says nothing


def checked_update(problem: Problem, update: Tensor) -> Float[Tensor, " P"]:
    """The update in the dtype of the problem's parameters.

    Raises:
        TypeError: if the problem is none.
        ValueError: for an update of another shape.
        NonFiniteError: for one that is NaN or infinite, as where training has diverged.
        UndefinedError: for an update of zero.
    """
    theta = checked_problem(problem).theta
    if update.shape != theta.shape:
        here, got = tuple(theta.shape), tuple(update.shape)
        raise ValueError(f"expected an update of shape {here}, one number a parameter; got {got}")
    if not update.isfinite().all():
        raise NonFiniteError("the update is NaN or infinite")
    if not update.any():
        raise UndefinedError("the update is zero, so nothing can be said of it")
    return update.detach().to(theta)


def gradient_at(problem: Problem) -> Float[Tensor, " P"]:
    """The gradient of the empirical loss, computed once at a point."""
    return problem.cached(Problem.gradient)


def dot(a: Float[Tensor, " P"], b: Float[Tensor, " P"]) -> float:
    """The inner product, summed in float64."""
    return float(a.double() @ b.double())


def losses_at(problem: Problem, thetas: Sequence[Float[Tensor, " P"]]) -> list[float]:
    """The empirical loss at several parameters, in one pass over the data; infinite for NaN."""

    def loss(here: Problem, theta: Tensor, batch: Batch) -> tuple[float, float | None]:
        try:
            return here.evaluation.loss(theta, batch)
        except NonFiniteError:
            return math.inf, None

    def terms(here: Problem) -> list[tuple[Tensor, float]]:
        found = iter(here.over_batches(*(partial(loss, here, theta) for theta in thetas)))
        parts = []
        for of_batch in zip(*[found] * len(thetas), strict=True):
            totals, counts = zip(*of_batch, strict=True)
            count = next((n for n in counts if n is not None), 1.0)  # of infinity, any will do
            parts.append((torch.tensor(totals, dtype=torch.float64), count))
        return parts

    total, divisor = problem.reduced(terms)
    return [float(loss) for loss in total / divisor]


def slope_along(problem: Problem, update: Float[Tensor, " P"]) -> float:
    """The derivative of the loss along an update; costs a gradient, once at a point."""
    return dot(gradient_at(problem), update)


def curvature_along(problem: Problem, vector: Float[Tensor, " P"]) -> float:
    """The form v.Hv of the loss Hessian; costs a product."""
    length = torch.linalg.vector_norm(vector)  # products with tiny vectors lose digits
    return dot(vector / length, Hessian(problem) @ (vector / length)) * float(length.double()) ** 2


@dataclass(frozen=True, eq=False)
class Objective:
    r"""A loss along an update, with weight decay: :math:`L + \tfrac12 \sum_i w_i \theta_i^2`.

    Attributes:
        problem: the loss, and where the update starts.
        update: the whole of it.
        decay_slope: the derivative of the decay's part along the update.
        decay_form: its second derivative.
    """

    problem: Problem
    update: Float[Tensor, " P"]
    decay_slope: float
    decay_form: float

    @classmethod
    def of(
        cls, problem: Problem, update: Float[Tensor, " P"], weight_decay: float | Tensor
    ) -> Objective:
        """Make it with one weight decay for all parameters, or one for each.

        Raises:
            ValueError: for another number of weight decays.
        """
        w = torch.as_tensor(weight_decay).to(update)
        if w.ndim and w.shape != update.shape:
            raise ValueError(
                f"expected one weight decay, or one of each of {len(update)} parameters; got "
                f"{tuple(w.shape)}"
            )
        return cls(problem, update, dot(w * problem.theta, update), dot(w * update, update))

    def decay_rise(self, s: float) -> float:
        """How much the decay's part rises by a multiple of the update."""
        return s * self.decay_slope + s * s * self.decay_form / 2

    def descent(self) -> float:
        """How much the update would take off if the objective were linear; more than 0.

        Raises:
            UndefinedError: if it does not go down at all, or rounding hides whether it does.
        """
        descent = -slope_along(self.problem, self.update) - self.decay_slope
        error = self.rounding()
        if abs(descent) <= SEEN * error:
            raise UndefinedError(
                f"the update takes {descent:.3g} off the loss to first order, of which {error:.2g} "
                "may be rounding of the gradient, as at a minimum, so it is not known to go down; "
                "dtype=torch.float64 rounds less"
            )
        if not descent > 0:
            raise UndefinedError(
                f"the update goes up the loss to first order, by {-descent:.3g}, as momentum does "
                "that has overshot, so its curvature has nothing to be compared with; CriticalStep "
                "answers at every step, and EdgeRatio where the threshold is known"
            )
        return descent

    def rounding(self) -> float:
        """How much of the slope may be rounding of the gradient; a gradient, once at a point."""
        length = float(torch.linalg.vector_norm(self.update.double()))
        return self.problem.cached(gradient_rounding) * length

    def curvature(self) -> float:
        """The second derivative along the update; costs a product."""
        return curvature_along(self.problem, self.update) + self.decay_form
