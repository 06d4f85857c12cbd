"""Cheap conditions that a stable learning rate fulfils, and estimates from the spectrum alone."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.checks import check_at_least, check_number
from lossgeom.stability.sgd._crossing import first_crossing
from lossgeom.stability.sgd.examples import ExampleCurvatures


def necessary_conditions(
    curvatures: ExampleCurvatures, p: float, momentum: float = 0.0
) -> dict[str, float]:
    r"""Learning rates that the mean-square threshold is at most, each from a few sums.

    With the largest eigenvalue :math:`\lambda` of H, its eigenvector v, the noise share p, and
    momentum :math:`\beta`,

    .. math:: \frac2\eta \ge \frac{\lambda}{1 + \beta}, \quad
        \frac2\eta \ge \frac{\lambda}{1 + \beta} + \frac{p\, \mathrm{Var}_i(v^\top H_i v)}{(1 -
        \beta) \lambda}, \quad
        \frac2\eta \ge \frac{\|H\|_F^2}{(1 + \beta)\, \mathrm{Tr} H} + p\, \frac{\frac1n \sum_i
        \|H_i\|_F^2 - \|H\|_F^2}{(1 - \beta)\, \mathrm{Tr} H}, \quad
        \frac2\eta \ge \frac{p\, \mathrm{Tr} H}{(1 - \beta)\, c}.

    The last follows from the third where :math:`p \le (1 - \beta) / (1 + \beta)`, since a matrix of
    rank c has :math:`(\mathrm{Tr} H_i)^2 \le c\, \|H_i\|_F^2`: with one output for each example,
    at B = 1, the trace of H is at most 2 / lr; with c of them it can be c times that. The third is
    the tightest for the smallest batches, the second for others.

    Args:
        curvatures: see :func:`example_curvatures`.
        p: see :func:`noise_share`.
        momentum: of heavy ball.

    Returns:
        The bounds by name: ``"full batch"``, ``"top eigenvector"``, ``"Frobenius norms"`` and
        ``"trace"``. The least is the best.

    Source: Mulayoff and Michaeli, arXiv:2306.07850, proposition 3, without momentum; Wu and Su,
    2023, for the trace with one output. For momentum and c > 1 derived here: they are Rayleigh
    quotients of the symmetric map in :func:`noise_gain`, at v v^T and at the identity.

    >>> import torch
    >>> points = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, -1.0]])
    >>> bounds = necessary_conditions(ExampleCurvatures.of(points[:, None]), 1.0)
    >>> {name: round(bound, 4) for name, bound in bounds.items()}
    {'full batch': 1.3333, 'top eigenvector': 0.6667, 'Frobenius norms': 0.72, 'trace': 0.8889}
    """
    check_number("momentum", momentum, 0, 1, at_low=True)
    h, total = curvatures.values, curvatures.trace
    if not curvatures.rank:
        return {"full batch": math.inf}
    of_mean = float(h.square().sum())
    of_each = float((curvatures.factors @ curvatures.factors.mT).square().sum((1, 2)).mean())
    noise = p * (of_each - of_mean) / (1 - momentum)
    bounds = {
        "full batch": 2 * (1 + momentum) / curvatures.sharpness,
        "top eigenvector": along_direction(curvatures.along_top, p, momentum),
        "Frobenius norms": 2 * total / (of_mean / (1 + momentum) + noise),
    }
    from_trace = trace_condition(total, p, curvatures.factors.shape[1], momentum)
    return bounds if from_trace is None else {**bounds, "trace": from_trace}


def trace_condition(trace: float, p: float, outputs: int, momentum: float) -> float | None:
    """The bound from the trace of H alone, or from what it is at least, where there is one."""
    if not 0 < p <= (1 - momentum) / (1 + momentum) or not 0 < trace < math.inf:
        return None
    return 2 * (1 - momentum) * outputs / (p * trace)


def along_direction(
    curvature: Float[Tensor, " n"], p: float, momentum: float = 0.0, residual: float = 0.0
) -> float:
    r"""The bound from the curvatures of the examples along a unit vector v.

    Without momentum v may be any; with it, it is an eigenvector of H up to a residual
    :math:`\|H v - (v^\top H v) v\|`, which weakens the bound.
    """
    mean, noise = float(curvature.mean()), p * float(curvature.var(unbiased=False))
    if not mean > 0:
        return math.inf
    lost = 2 * momentum * residual**2 / ((1 - momentum) ** 2 * (1 + momentum))
    least = mean**2 / (1 + momentum) + noise / (1 - momentum) - lost
    return 2 * mean / least if least > 0 else math.inf


def moment_constraint(
    curvatures: ExampleCurvatures, lr: float, batch_size: int, order: int = 2
) -> float:
    r"""How much of what stability of order k allows the top eigenvector uses, as a share.

    .. math:: \frac1n \sum_i (v^\top H_i v)^k \le \frac{2^k B^{k-1}}{\eta^k}

    holds for any unit vector v where SGD is stable in moments of order k. In single coordinates it
    is almost always slack; the top eigenvector of H comes closer.

    Args:
        curvatures: see :func:`example_curvatures`.
        lr: the learning rate.
        batch_size: B.
        order: k.

    Returns:
        The left side over the right one; above 1, SGD is unstable.

    Source: after Ma and Ying, arXiv:2105.13462; for all unit vectors, derived here.

    >>> import torch
    >>> points = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, -1.0]])
    >>> round(moment_constraint(ExampleCurvatures.of(points[:, None]), 0.644, 1), 3)
    0.467
    """
    check_at_least(1, batch_size=batch_size, order=order)
    check_number("lr", lr, 0)
    if not curvatures.rank:
        return 0.0
    moment = float(curvatures.along_top.pow(order).mean())
    return moment * (lr / 2) ** order / float(batch_size ** (order - 1))


def noise_kernel(values: Float[Tensor, " r"], lr: float, p: float) -> float:
    r"""An estimate of how noisy steps are from the spectrum of H alone; the edge is about 1.

    .. math:: K = p \sum_k \frac{\eta h_k}{2 - (1 - p) \eta h_k}

    It takes every example to see the curvature of all: a_i^T S a_i is replaced by tr(H S). For
    small learning rates it is p lr Tr(H) / 2. On a digits network its edge was above the exact one,
    by 0.3 % at B = 50 and 25 % at B = 1; that is no theorem.

    Args:
        values: the positive eigenvalues of H.
        lr: the learning rate.
        p: see :func:`noise_share`.

    Returns:
        K; infinite where a step with a whole batch is unstable.

    Source: derived here; a number of the same kind is in Agarwala and Pennington, arXiv:2404.19261.

    >>> import torch
    >>> noise_kernel(torch.tensor([2.0, 1.0]), lr=0.1, p=1.0)
    0.15000000000000002
    """
    steps = lr * values.double()
    if len(steps) and float(steps.amax()) >= 2:
        return math.inf
    return p * float((steps / (2 - (1 - p) * steps)).sum())


def noise_kernel_threshold(values: Float[Tensor, " r"], p: float) -> float:
    """The learning rate at which the estimate of :func:`noise_kernel` is 1, or steps are unstable.

    >>> import torch
    >>> round(noise_kernel_threshold(torch.tensor([2.0, 1.0]), p=1.0), 6)
    0.666667
    """
    if not len(values):
        return math.inf
    return first_crossing(lambda lr: noise_kernel(values, lr, p), 2 / float(values.max()))
