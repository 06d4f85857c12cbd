"""Where a step that was made stands to the step that would leave the loss as it is."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.problem import Problem
from lossgeom.stability.along import Objective, checked_update, slope_along
from lossgeom.stability.rounding import loss_rounding

COARSE = 1e-3  # of the drop: with more rounding than that, losses are not subtracted


def realised_edge(
    problem: Problem,
    update: Float[Tensor, " P"],
    *,
    after: Problem | None = None,
    weight_decay: float | Tensor = 0.0,
    rounding: float | None = None,
) -> Estimate:
    r"""The realised edge of a step: above 1 it raised the loss, below 1 it lowered it.

    .. math:: \zeta = 1 + \frac{L(\theta + D) - L(\theta)}{-g^\top D}
        = \frac{\eta}{2} \frac{u^\top \bar H u}{g^\top u}

    with the update :math:`D = -\eta u`, the gradient g at :math:`\theta` and the mean
    :math:`\bar H = 2 \int_0^1 (1 - t) H(\theta + t D)\, dt` of the Hessian along the step. It has
    no unit, and is exact for every optimiser, schedule and clipping. On a quadratic it is half of
    :func:`update_curvature`. Its factors are those of :func:`edge_factors`.

    What it cannot tell: how far away the edge is. At the edge its median is .92 to 1 over
    optimisers, and it is about 0 once a run with momentum has converged. Of a mini-batch it says
    nothing: problem and update must be those of the same loss.

    Cost: two gradients, once at a point, and two forward passes, of which one is that of the loss
    itself; 4 more where ``rounding`` is not given. Where rounding hides more than a thousandth of
    the drop :math:`-g^\top D`, the difference of losses is the integral of slopes
    :math:`\nabla L(\theta + t D)^\top D`, by Simpson's rule: two further gradients, and no losses
    subtracted.

    Args:
        problem: the loss at :math:`\theta`.
        update: (P,) D.
        after: the problem at :math:`\theta + D`, if there is one, with what it has computed.
        weight_decay: w, coupled, of all parameters or (P,) of each, where L is to be the loss with
            :math:`\tfrac12 \sum_i w_i \theta_i^2`, as it is optimised.
        rounding: of the loss, by :func:`loss_rounding`; measured if not given.

    Returns:
        The ratio. Its standard error is that of rounding, and of slopes also the difference between
        Simpson's rule and the trapezoid rule.

    Raises:
        UndefinedError: where the update is zero, also in the rounding of the parameters, or does
            not go down to first order, or rounding of the gradient hides whether it does.
        ValueError: for an update of another shape.
        NonFiniteError: where the update is NaN or infinite, or the loss is at either end.

    Source: Lee and Lee, 2026, on the realised edge of preconditioned methods.

    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = Problem(model, "squared_error", [(2 * torch.ones(1, 1), torch.zeros(1, 1))])
    >>> round(realised_edge(problem, -0.25 * problem.gradient()).value, 4)  # half of lr times 4
    0.5
    """
    D = checked_update(problem, update)
    if after is None:
        after = problem.at(problem.theta + D)
        D = checked_update(problem, after.theta - problem.theta)  # without what rounding takes off
    objective = Objective.of(problem, D, weight_decay)
    drop = objective.descent()
    error = loss_rounding(problem) if rounding is None else rounding
    change = after.loss() - problem.loss()
    if error > COARSE * drop:
        change, error = _by_slopes(objective, after)
    rise, of_slope = (change + objective.decay_rise(1)) / drop, objective.rounding()
    stderr = error / drop + abs(rise) * of_slope / (drop - of_slope)
    return Estimate(1 + rise, stderr=stderr)


def _by_slopes(objective: Objective, after: Problem) -> tuple[float, float]:
    """The change of the loss as the integral of its slope, and its error."""
    problem, D = objective.problem, objective.update
    middle = problem.at(problem.theta + D / 2)
    slopes = [slope_along(there, D) for there in (problem, middle, after)]
    trapezoid = (slopes[0] + slopes[2]) / 2
    change = (slopes[0] + 4 * slopes[1] + slopes[2]) / 6
    return change, abs(change - trapezoid) + objective.rounding()
