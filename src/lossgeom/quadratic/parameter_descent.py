"""Gradient descent of the parameters, of any model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lossgeom.quadratic._loop import System, descended
from lossgeom.quadratic.descent import Descent
from lossgeom.quadratic.model import Ensemble, Model
from lossgeom.quadratic.point import Point, slope
from lossgeom.quadratic.trajectory import Trajectory


def descend_parameters(models: Ensemble, descent: Descent) -> Trajectory:
    r"""Gradient descent from theta = 0, of the parameters themselves.

    The same runs as those of :func:`descend`, up to rounding, for models that need not be explicit:
    each step evaluates the model and one product with :math:`J^\top`.

    Cost: for each run and step what ``models.at`` and a product cost; for a dense Q 2 D P^2
    operations and 6 D P more.

    Args:
        models: any model; expand it elsewhere to start elsewhere.
        descent: step size, length, and what to record.

    Returns:
        What was recorded, and the final ``"z"`` and ``"theta"``.

    >>> import torch
    >>> from lossgeom.quadratic import ImplicitModel
    >>> model = ImplicitModel(lambda theta: theta.square() - 1, torch.full((1, 1), 0.5))
    >>> trajectory = descend_parameters(model, Descent(steps=50, learning_rate=0.2))
    >>> round(trajectory.final["theta"].item(), 4)
    0.5
    """
    return descended(models, descent, _Parameters)


class _Parameters(System):
    """Parameters, with the last step s."""

    def __init__(self, model: Model, descent: Descent) -> None:
        self.descent, self.loss = descent, descent.loss or model.loss
        self.model, self.theta, self.s = model, model.origin, model.origin
        self._move()

    def step(self) -> None:
        gradient = self._here.pullback(slope(self.loss, self.z))
        self.s = self.descent.momentum * self.s + self.descent.learning_rate * gradient
        self.theta = self.theta - self.s
        self._move()

    def _move(self) -> None:
        self._here = self.model.at(self.theta)
        self.z = self._here.z

    def point(self, rows: Tensor | slice) -> Point:
        whole = isinstance(rows, slice) and rows == slice(None)
        return self._here if whole else self.model.rows(rows).at(self.theta[rows])

    def state(self) -> Mapping[str, Tensor]:
        return {"z": self.z, "theta": self.theta}

    def keep(self, rows: Tensor) -> None:
        self.model, self.theta, self.s = self.model.rows(rows), self.theta[rows], self.s[rows]
        self._move()
