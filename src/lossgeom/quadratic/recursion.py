"""Gradient descent of residuals and Jacobian, without the parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lossgeom.quadratic._loop import System, descended
from lossgeom.quadratic.descent import Descent
from lossgeom.quadratic.model import Ensemble, Model, QuadraticModel
from lossgeom.quadratic.point import Expansion, slope, squared_error
from lossgeom.quadratic.trajectory import Trajectory


def descend(models: Ensemble, descent: Descent) -> Trajectory:
    r"""Gradient descent from theta = 0, by the exact recursion for (z, J).

    With the step :math:`s = \eta J^\top z`, of squared errors without momentum,

    .. math:: z' = z - J s + \tfrac12 Q(s, s), \qquad J' = J - Q(s, \cdot),

    which is computed as :math:`z' = z - \tfrac12 (J + J') s`. No parameters are needed, and Q may
    be of any form. All runs of a chunk are advanced by the same four batched products, and each
    chunk takes all its steps while it is in the cache, so that many runs with a Q of their own
    do not read it from memory in every step; with ``RandomModels`` no more than a chunk of them
    ever exists. What one run does has no influence on another; the size of a chunk can change the
    last bit.

    Cost: for each run and step one product with Q, 2 D P^2 operations if it is dense, and
    6 D P more.

    Args:
        models: a ``QuadraticModel``, or ``RandomModels`` that are drawn a chunk at a time.
        descent: step size, length, and what to record.

    Returns:
        What was recorded, and the final ``"z"`` and ``"J"``.

    Raises:
        TypeError: for a model without Jacobian; ``descend_parameters`` takes those.

    Source: the model is that of Agarwala, Pedregosa and Pennington, arXiv:2210.04860; the recursion
    is derived by inserting theta' = theta - s.

    >>> from lossgeom.quadratic import Dense
    >>> Q = Dense(torch.tensor([[[1.0, 0.0], [0.0, -0.1]]], dtype=torch.float64))
    >>> y, G = torch.tensor([[0.3]]).double(), torch.tensor([[[1.2, 0.4]]]).double()
    >>> trajectory = descend(QuadraticModel(y, G, Q), Descent(steps=1))
    >>> round(trajectory.final["z"].item(), 6), [round(t, 6) for t in trajectory.ntk[:, 0].tolist()]
    (-0.11592, [1.6, 0.875344])
    """
    return descended(models, descent, _Recursion)


class _Recursion(System):
    """Residuals and Jacobians, with the last step s."""

    def __init__(self, model: Model, descent: Descent) -> None:
        if not isinstance(model, QuadraticModel):
            raise TypeError(
                f"expected a QuadraticModel or RandomModels, got {type(model).__name__}; "
                "descend_parameters takes models without a Jacobian"
            )
        self.descent, self.loss = descent, descent.loss or model.loss
        self.Q, self.s = model.Q, model.origin
        self.z, self.J = (
            x.clone(memory_format=torch.contiguous_format) for x in (model.y, model.G)
        )
        self._see()

    def _see(self) -> None:
        """Keep views: batched products want rows, and making a view costs a part of a product."""
        self._z, self._s, self._transposed = self.z[:, None], self.s[:, None], self.J.mT

    def step(self) -> None:
        u = self._z if self.loss is squared_error else slope(self.loss, self.z)[:, None]
        self._s.baddbmm_(u, self.J, beta=self.descent.momentum, alpha=self.descent.learning_rate)
        self._z.baddbmm_(self._s, self._transposed, alpha=-0.5)
        self.Q.subtract(self.J, self.s)
        self._z.baddbmm_(self._s, self._transposed, alpha=-0.5)

    def point(self, rows: Tensor | slice) -> Expansion:
        return Expansion(self.z[rows], self.J[rows])

    def state(self) -> Mapping[str, Tensor]:
        return {"z": self.z, "J": self.J}

    def keep(self, rows: Tensor) -> None:
        self.Q = self.Q.rows(rows)
        self.z, self.J, self.s = self.z[rows], self.J[rows], self.s[rows]
        self._see()
