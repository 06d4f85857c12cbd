"""The curvature of a loss along an update, beside the slope."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.problem import Problem
from lossgeom.stability.along import Objective, checked_update


def update_curvature(
    problem: Problem, update: Float[Tensor, " P"], *, weight_decay: float | Tensor = 0.0
) -> Estimate:
    r"""Curvature over slope along an update; where it is 2, the update is at its edge.

    .. math:: \rho = \frac{D^\top H D}{-g^\top D} = \eta\, \frac{u^\top H u}{u^\top g}

    with the update :math:`D = \theta_{n+1} - \theta_n = -\eta u`, the gradient g and the Hessian H
    of the loss at :math:`\theta_n`. It has no unit. On a quadratic the step raises the loss exactly
    if it is more than 2, and the least multiple of the update that does is :math:`2 / \rho`.

    It holds for any optimiser, schedule and clipping, because it knows only what was done. Along
    Adam's update, :math:`\rho / \eta` is the curvature :math:`\lambda_{dir}` along the
    preconditioned direction, and :math:`\lambda_{dir} > 2 / \eta`, which is :math:`\rho > 2`,
    predicts the spikes of its loss (Bai et al., arXiv:2506.04805).

    What it cannot tell: how far away the edge is. It sees the sharpest direction only as far as the
    update lies in it, so it is an alarm of arrival. In gradient descent at the edge it is about 2;
    in a stable run with momentum whose sharpness is at .53 of its threshold it was .003. Of a
    mini-batch it says nothing: problem and update must be those of the same loss.

    Cost: two gradients, once at a point, and a product with the Hessian. Without derivatives
    :func:`critical_step` answers; it is :math:`2 / \rho` on a quadratic.

    Args:
        problem: the loss at :math:`\theta_n`.
        update: (P,) D.
        weight_decay: w, coupled, of all parameters or (P,) of each, where L is to be the loss with
            :math:`\tfrac12 \sum_i w_i \theta_i^2`, as it is optimised.

    Returns:
        The ratio, with the standard error that rounding of the gradient makes, judged by that of
        other parameters which are the same but for rounding.

    Raises:
        UndefinedError: where the update is zero or does not go down, or rounding hides whether it
            does, as at a loss of 0.
        ValueError: for an update of another shape.
        NonFiniteError: where the update or the loss are NaN or infinite.
        DerivativeError: where the second derivative is wrong.

    Source: Lee and Lee, 2026, proposition 2.1; Kalra et al., arXiv:2601.16979.

    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = Problem(model, "squared_error", [(2 * torch.ones(1, 1), torch.zeros(1, 1))])
    >>> round(update_curvature(problem, -0.25 * problem.gradient()).value, 4)  # lr times 4
    1.0
    """
    objective = Objective.of(problem, checked_update(problem, update), weight_decay)
    drop, error = objective.descent(), objective.rounding()
    rho = objective.curvature() / drop
    return Estimate(rho, stderr=abs(rho) * error / (drop - error), matvecs=1)
