"""Settings of gradient descent, and of what is kept of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lossgeom.messages.checks import check_at_least, check_number
from lossgeom.quadratic.model import Ensemble, Model
from lossgeom.quadratic.point import Loss
from lossgeom.quadratic.trajectory import Observable, largest_ntk_eigenvalues

LARGEST = 1e150  # whose square is still a number
CACHE = 4 * 2**20  # bytes of models and states that are advanced together, to stay in the cache


def _observed() -> dict[str, Observable]:
    return {"ntk": largest_ntk_eigenvalues}


@dataclass(frozen=True)
class Descent:
    r"""Settings of gradient descent with momentum.

    .. math:: v_{t+1} = \beta v_t + J_t^\top \frac{\partial L}{\partial z}, \qquad
        \theta_{t+1} = \theta_t - \eta v_{t+1}, \qquad v_0 = 0

    as ``torch.optim.SGD(lr, momentum)``. In rescaled units the learning rate is 1. The edge of
    stability is :math:`\lambda_{\max}(J J^\top) = 2 (1 + \beta) / \eta`.

    Attributes:
        steps: to take; fewer for runs that converge or diverge.
        learning_rate: :math:`\eta`.
        momentum: :math:`\beta`, from 0 to less than 1.
        loss: from outputs (R, D) to one loss (R,) for each run, differentiable; by default the
            model's own, half the square of z unless it is a network with another loss.
        every: steps between records; the first and the last step are always recorded.
        observe: what to record besides the loss: functions of a point to (R, ...) tensors. The
            largest eigenvalue of J J^T is a dense eigenproblem of the smaller of
            D x D and P x P for each run, which costs as much as some steps.
        bound: a run has diverged when the norm of z is above it, or not a number; below 1e150.
        tol: a run has converged when the norm of dloss/dz is at most this, with momentum when it
            is at most 1 - beta times this at two steps in a row, after which momentum carries it
            no further than about 3 tol; 0 for never, which spares a look in every step.
        chunk: runs to advance together, the others after them. By default as many as fit in 4 MiB,
            which keeps their tensors in a processor's cache; on a GPU choose many.

    Raises:
        ValueError: if a setting is out of its range.

    >>> Descent(steps=100, momentum=0.9).edge
    3.8
    """

    steps: int
    learning_rate: float = 1.0
    momentum: float = 0.0
    loss: Loss | None = None
    every: int | None = None
    observe: Mapping[str, Observable] = field(default_factory=_observed)
    bound: float = 1e6
    tol: float = 0.0
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_at_least(0, steps=self.steps)
        check_at_least(1, every=self.every, chunk=self.chunk)
        check_number("learning_rate", self.learning_rate, 0)
        check_number("momentum", self.momentum, 0, 1, at_low=True)
        check_number("bound", self.bound, 0, LARGEST)
        check_number("tol", self.tol, 0, self.bound, at_low=True)
        if "loss" in self.observe:
            raise ValueError("expected other names to observe than 'loss', which is always there")

    @property
    def edge(self) -> float:
        """The eigenvalue of J J^T at which steps on squared errors stop being stable."""
        return 2 * (1 + self.momentum) / self.learning_rate

    @property
    def recorded_steps(self) -> list[int]:
        """The steps at which something is recorded, from 0 to the last."""
        multiples = range(0, self.steps, self.every or max(self.steps, 1))
        return [*multiples, self.steps]


def chunks(ensemble: Ensemble, descent: Descent) -> Iterator[Model]:
    """Yield the models, as many at a time as are advanced together."""
    check_at_least(1, runs=ensemble.runs)
    size = descent.chunk or max(1, CACHE // ensemble.bytes_per_run)
    for first in range(0, ensemble.runs, size):
        yield ensemble.rows(slice(first, first + size))
