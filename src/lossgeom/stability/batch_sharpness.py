"""The curvature that mini-batches have along their own steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.messages.checks import check_at_least, check_number
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.minibatches import each_batch, sampled_batches, whole
from lossgeom.stability.along import checked_update, curvature_along, dot
from lossgeom.stability.undefined import UndefinedError

FEWEST = 8  # batches before a standard error is believed


def batch_sharpness(
    problem: Problem,
    *,
    batch_size: int | None = None,
    batches: int = 64,
    target: float | None = None,
    pushed: Float[Tensor, " P"] | None = None,
    seed: int = 0,
) -> Estimate:
    r"""The mean over mini-batches of the curvature of each along its own step.

    .. math:: E_B \frac{g_B^\top H_B\, g_B}{|g_B|^2}, \qquad
        E_B \frac{s^\top H_B\, s}{s^\top g_B} \quad \text{with} \quad s = g_B + \beta v

    with the gradient :math:`g_B` and the Hessian :math:`H_B` of the loss on a batch. It is the mean
    of ratios, not the ratio of means. The second is that of SGD with momentum: v is the buffer of
    the optimiser before the step, and :math:`\beta v` is given as ``pushed``. They are different
    quantities. The step along s raises the loss of its batch, on a quadratic, exactly if its ratio
    is more than :math:`2 / \eta`, so that is the threshold of both. Of the full batch the first is
    the :func:`directional_sharpness`.

    What it cannot tell: that SGD sits at :math:`2 / \eta`. On small problems trained for thousands
    of steps it was .3 to .9 of that, and exact thresholds of the second moment said more. The
    second has a denominator that may be near zero: look at its standard error.

    Cost: for each batch a gradient and a product, on its examples alone.

    Args:
        problem: the loss and where to take it. Its data is the population.
        batch_size: of batches that are drawn from all examples, each without replacement and
            independently of the others; by default the problem's own batches are taken, in order.
        batches: how many at most.
        target: a standard error; with 8 batches or more it is enough if theirs is at most this.
            Stopping at a fortunate moment makes the standard error a little too small.
        pushed: (P,) beta v, for the form with momentum.
        seed: of the batches that are drawn.

    Returns:
        The mean with its standard error, ``None`` for a single batch of several, and 0 where all
        examples are in one batch; converged if the target was met.

    Raises:
        UndefinedError: where the gradient of a batch, or :math:`s^\top g_B`, is zero.
        ValueError: for a size or a number out of range, or examples that cannot be drawn.
        NonFiniteError: where the loss of a batch is NaN or infinite.
        DerivativeError: where the second derivative is wrong.

    Source: Andreyev and Beneventano, arXiv:2412.20553, whose code has both forms.

    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> data = [(torch.ones(1, 1), torch.zeros(1, 1)), (torch.full((1, 1), 2.0), torch.zeros(1, 1))]
    >>> round(batch_sharpness(Problem(model, "squared_error", data)).value, 4)  # of 1 and of 4
    2.5
    """
    checked_problem(problem)
    check_at_least(1, batches=batches, batch_size=batch_size)
    check_at_least(0, seed=seed)
    if target is not None:
        check_number("target", target, 0)
    v = None if pushed is None or not pushed.any() else checked_update(problem, pushed)
    problem = whole(problem)
    sizes = problem.over_batches(len)
    parts, all_there = each_batch(problem), len(sizes) == 1
    if batch_size is not None:
        parts = sampled_batches(problem, batch_size, seed=seed)
        all_there = batch_size == sum(sizes)
    ratios = _ratios(islice(parts, 1 if all_there else batches), v, target)
    stderr = 0.0 if all_there else standard_error(ratios)
    met = target is None or (stderr is not None and stderr <= target)
    return Estimate(math.fsum(ratios) / len(ratios), stderr, converged=met, matvecs=len(ratios))


def _ratios(parts: Iterable[Problem], v: Tensor | None, target: float | None) -> list[float]:
    """The ratio of each batch, until their standard error is small enough."""
    ratios: list[float] = []
    for part in parts:
        ratios.append(_ratio(part, v))
        error = standard_error(ratios) if len(ratios) >= FEWEST else None
        if target is not None and error is not None and error <= target:
            break
    return ratios


def _ratio(part: Problem, v: Tensor | None) -> float:
    g = part.gradient()
    s = g if v is None else g + v
    slope = dot(s, g)
    if slope == 0:
        raise UndefinedError(
            "the gradient of a batch along its step is zero, so it has no curvature beside it; at "
            "an interpolating minimum lossgeom.certify_sgd says what is stable"
        )
    return curvature_along(part, s) / slope


def standard_error(values: Sequence[float]) -> float | None:
    """That of the mean of independent values; ``None`` for a single one."""
    if len(values) < 2:
        return None
    return float(torch.tensor(values, dtype=torch.float64).std()) / math.sqrt(len(values))
