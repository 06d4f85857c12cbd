"""The least multiple of an update that raises the loss."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.messages.checks import check_number
from lossgeom.problem import Problem
from lossgeom.stability._critical_search import RTOL, SEEN, CriticalStep, Effort
from lossgeom.stability.along import Objective, checked_update, losses_at
from lossgeom.stability.rounding import loss_rounding
from lossgeom.stability.undefined import UndefinedError


def critical_step(
    problem: Problem,
    update: Float[Tensor, " P"],
    *,
    rtol: float = RTOL,
    start: float | None = None,
    max_passes: int = 40,
    weight_decay: float | Tensor = 0.0,
    rounding: float | None = None,
) -> CriticalStep:
    r"""The least multiple s of an update D that raises the loss.

    .. math:: s_c = \inf \{ s > 0 : L(\theta + s D) > L(\theta) \}

    It has no unit. The step as it was made raised the loss where :math:`s_c < 1`. On a quadratic it
    is :math:`2 / \rho` with the :func:`update_curvature`. It is found from losses alone: from a
    start, multiples are taken up and down until one lowers the loss and another raises it, and
    secants of :math:`(L(\theta + s D) - L(\theta)) / s`, which is linear in s on a quadratic,
    close in on the change. A loss that is NaN or infinite is one that rose. A difference of losses
    of less than four standard deviations of rounding counts neither as rise nor as fall.

    What it cannot tell: how far away the edge is. In gradient descent on a quadratic
    :math:`2 / (s_c \eta)` is at most the sharpness, and equal to it only where the update lies in
    the sharpest direction: it is an alarm of arrival. At the edge it was .99 of :math:`2 / \eta`,
    and in a stable run with momentum, whose sharpness was at .53 of its threshold, .003 of it.
    Nor does it know of a rise between two multiples that it has tried.

    Cost: forward passes only, no derivative: 3 from a good start, with that of the loss itself,
    up to 6 from another one, and some 8 from none; 4 more where ``rounding`` is not given. From a
    start, both ends of an interval around it are tried in one pass over the data.

    Args:
        problem: the loss at :math:`\theta`. With that of one task, and the update of training on
            another, :math:`s_c < 1` says that the step leaves the basin of the first.
        update: (P,) D, as it was made, weight decay and momentum included.
        rtol: of the interval, relative to its upper end.
        start: a multiple to start from, such as that of the step before.
        max_passes: forward passes to spend in the search.
        weight_decay: w, coupled, of all parameters or (P,) of each, where L is to be the loss with
            :math:`\tfrac12 \sum_i w_i \theta_i^2`, as it is optimised.
        rounding: of the loss, by :func:`loss_rounding`; measured if not given.

    Returns:
        The multiple with its interval. Where rounding hides the change of the loss over more than
        the tolerance it has not converged.

    Raises:
        UndefinedError: for an update of zero, or one so small that no multiple up to 2^20 changes
            the loss by more than its rounding.
        ValueError: for an update of another shape, or a setting out of its range.
        NonFiniteError: where the update is NaN or infinite, or the loss is at :math:`\theta`.

    Source: Kalra et al., arXiv:2601.16979, which bisects.

    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = Problem(model, "squared_error", [(2 * torch.ones(1, 1), torch.zeros(1, 1))])
    >>> round(critical_step(problem, -0.25 * problem.gradient()).value, 4)  # 2 over lr times 4
    2.0
    """
    D = checked_update(problem, update)
    effort = Effort(rtol, start, max_passes)
    here, objective = problem.loss(), Objective.of(problem, D, weight_decay)
    passes = 1 if rounding is not None else 5
    noise = SEEN * (loss_rounding(problem) if rounding is None else rounding)

    def rises(multiples: Sequence[float]) -> list[float]:
        losses = losses_at(problem, [problem.theta + s * D for s in multiples])
        pairs = zip(multiples, losses, strict=True)
        return [loss - here + objective.decay_rise(s) for s, loss in pairs]

    return effort.search(rises, noise, passes)


def critical_sharpness(
    problem: Problem,
    update: Float[Tensor, " P"],
    lr: float,
    *,
    rtol: float = RTOL,
    start: float | None = None,
    weight_decay: float | Tensor = 0.0,
    rounding: float | None = None,
) -> Estimate:
    r"""The sharpness that the critical step stands for, whose threshold is always 2 / lr.

    .. math:: \lambda_c = \frac{2}{s_c \eta}

    with the :func:`critical_step`. On a quadratic it is :math:`u^\top H u / u^\top g` for the
    update :math:`D = -\eta u`, and so at most the largest eigenvalue of H for gradient descent. Its
    threshold is :math:`2 / \eta` for every optimiser, with momentum and preconditioner, too: what
    these make of the gradient is in u. With the loss of another task than the one trained on, it is
    the relative critical sharpness, and :math:`\eta > 2 / \lambda_c` leaves that task's basin.

    Cost, and what it cannot tell: as of :func:`critical_step`.

    Args:
        problem: the loss at :math:`\theta`.
        update: (P,) D.
        lr: the learning rate of the update.
        rtol: of the interval of the critical step, relative to its upper end.
        start: a multiple to start from.
        weight_decay: coupled, of all parameters or (P,) of each, as of :func:`critical_step`.
        rounding: of the loss; measured if not given.

    Returns:
        The sharpness, in the unit of the Hessian; 0 where no multiple raises the loss.

    Raises:
        UndefinedError: as :func:`critical_step`, and where the update goes up from the start.
        ValueError, NonFiniteError: as :func:`critical_step`.

    Source: Kalra et al., arXiv:2601.16979; the threshold after Lee and Lee, 2026.

    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = Problem(model, "squared_error", [(2 * torch.ones(1, 1), torch.zeros(1, 1))])
    >>> round(critical_sharpness(problem, -0.25 * problem.gradient(), lr=0.25).value, 4)
    4.0
    """
    check_number("lr", lr, 0)
    found = critical_step(
        problem, update, rtol=rtol, start=start, weight_decay=weight_decay, rounding=rounding
    )
    return sharpness_of(found, lr)


def sharpness_of(step: CriticalStep, lr: float) -> Estimate:
    """The sharpness that a critical step stands for, at a learning rate."""
    if step.value == 0:
        raise UndefinedError(
            "the update goes up the loss from where it starts, so that there is no sharpness at "
            "which it would begin to; CriticalStep is 0"
        )
    return Estimate(2 / (step.value * lr), converged=step.converged)
