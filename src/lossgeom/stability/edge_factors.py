"""The three factors of the realised edge."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lossgeom.curvature import PreconditionedHessian
from lossgeom.linalg import LinearOperator
from lossgeom.messages.checks import check_number
from lossgeom.problem import Problem
from lossgeom.stability.along import Objective, checked_update, dot
from lossgeom.stability.undefined import UndefinedError


@dataclass(frozen=True)
class EdgeFactors:
    """What makes up the realised edge of a step, zeta = nominal * alignment / filtering.

    Attributes:
        nominal: chi, the largest eigenvalue over its threshold.
        alignment: varsigma, the mean curvature along the step over the largest eigenvalue.
        filtering: tau, what the filter of the optimiser makes of the present gradient; 1 for
            gradient descent without weight decay.
    """

    nominal: float
    alignment: float
    filtering: float

    @property
    def realised(self) -> float:
        """Their product, zeta."""
        return self.nominal * self.alignment / self.filtering


def edge_factors(
    problem: Problem,
    update: Float[Tensor, " P"],
    zeta: float,
    matrix: LinearOperator,
    largest: float,
    threshold: float,
    *,
    weight_decay: float | Tensor = 0.0,
) -> EdgeFactors:
    r"""The factors of a realised edge: how sharp, how well aligned, how much filtered.

    .. math:: \zeta = \frac{\chi \varsigma}{\tau}, \qquad \chi = \frac{\lambda}{T}, \qquad
        \varsigma = \frac{D^\top \bar H D}{\lambda\, |D|_P^2}, \qquad
        \tau = \frac{2}{T} \frac{-g^\top D}{|D|_P^2}

    with the largest eigenvalue :math:`\lambda` of the matrix :math:`P^{-1/2} H P^{-1/2}` that the
    optimiser's threshold T is for, :math:`|D|_P^2 = D^\top P D`, and the mean Hessian
    :math:`\bar H` along the step D that :func:`lossgeom.realised_edge` has. None has a unit.
    The alignment is at most about 1: 1 where the whole step lies in the sharpest direction. Where
    the matrix is the Hessian and one weight decay w is taken off the threshold, it is at most
    :math:`1 + w / \lambda`, and :math:`\tau` of gradient descent is :math:`1 + w / T`.

    Cost: none beside that of its arguments.

    Args:
        problem: the loss at :math:`\theta`.
        update: (P,) D.
        zeta: the realised edge of the step.
        matrix: of the threshold, :meth:`OptimizerState.matrix`.
        largest: its largest eigenvalue.
        threshold: T.
        weight_decay: coupled, as it was given to :func:`lossgeom.realised_edge`.

    Raises:
        UndefinedError: where the update is zero, does not go down to first order, or moves what
            the optimiser does not; or the eigenvalue is not positive.
        ValueError: for a threshold that is not positive and finite.

    Source: Lee and Lee, 2026, on the realised edge of preconditioned methods.

    >>> from lossgeom import Hessian
    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = Problem(model, "squared_error", [(2 * torch.ones(1, 1), torch.zeros(1, 1))])
    >>> D = -0.25 * problem.gradient()
    >>> edge_factors(problem, D, zeta=0.5, matrix=Hessian(problem), largest=4.0, threshold=8.0)
    EdgeFactors(nominal=0.5, alignment=1.0, filtering=1.0)
    """
    D = checked_update(problem, update)
    check_number("threshold", threshold, 0)
    if not largest > 0:
        raise UndefinedError(
            f"the largest eigenvalue is {largest:.3g}, so no direction is a sharp one that a step "
            "could lie in"
        )
    drop = Objective.of(problem, D, weight_decay).descent()
    if isinstance(matrix, PreconditionedHessian):
        D = _scaled(D, matrix.scaling[:, 0])
    length = dot(D, D)
    return EdgeFactors(
        nominal=largest / threshold,
        alignment=2 * zeta * drop / (largest * length),
        filtering=2 / threshold * drop / length,
    )


def _scaled(D: Float[Tensor, " P"], scaling: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """The update in the coordinates of the matrix, whose scaling is 0 where nothing moves."""
    still = scaling == 0
    if D[still].any():
        raise UndefinedError(
            "the update moves parameters that the optimiser does not, as their learning rate is 0 "
            "or it has had no gradient of them, so it is no step of this optimiser"
        )
    return D / scaling.masked_fill(still, 1.0)
