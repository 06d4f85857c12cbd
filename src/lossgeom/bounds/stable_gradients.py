"""Gradients in the parameters at a minimum that SGD is stable at, from its settings alone."""

from __future__ import annotations

import math

from lossgeom.bounds.bound import Assumption, Bound
from lossgeom.messages.checks import check_number, check_whole
from lossgeom.stability.sgd.sampling import Sampling, noise_share

STABLE = Assumption(
    "SGD with these settings is stable in mean square at this minimum, as lossgeom.certify_sgd "
    "checks it",
    "declared",
)
SETTINGS = {"lr": "learning rate", "B": "batch size", "n": "examples"}


def stable_trace(
    lr: float,
    batch_size: int,
    examples: int,
    *,
    outputs: int = 1,
    rank: int | None = None,
    momentum: float = 0.0,
    sampling: Sampling = "without replacement",
    stable: Assumption = STABLE,
) -> Bound:
    r"""Bound the trace of the Hessian at a minimum that SGD is stable at in mean square.

    .. math:: \mathrm{Tr} H \le \frac2\eta \Big(
        \frac{\max(0, \frac1{1+\beta} - \frac p{1-\beta})}{r}
        + \frac{\min(\frac1{1+\beta}, \frac p{1-\beta})}{c} \Big)^{-1}

    with the noise share p of :func:`noise_share`, c outputs of an example, and the rank r of H, at
    most the number of parameters and of all outputs. Without momentum and for one output it is
    :math:`2 / (\eta (p + (1 - p) / r))`, at most :math:`2 / (p \eta)`; of full batches, which make
    no noise, it is :math:`2 r / \eta`, since each eigenvalue is at most :math:`2 / \eta`.

    Proof: the map of second moments is symmetric, so that its Rayleigh quotient at the identity is
    at most 1: :math:`\big(\frac1{1+\beta} - \frac p{1-\beta}\big) \|H\|_F^2 + \frac p{1-\beta}
    \frac1n \sum_i \|H_i\|_F^2 \le \frac2\eta \mathrm{Tr} H`. Then :math:`\|H\|_F^2 \ge (\mathrm{Tr}
    H)^2 / r`, and :math:`\frac1n \sum_i \|H_i\|_F^2 \ge (\mathrm{Tr} H)^2 / c`, of matrices of rank
    c and by Jensen; where the first factor is negative, :math:`\|H\|_F^2 \le \frac1n \sum_i
    \|H_i\|_F^2`.

    Args:
        lr: the learning rate.
        batch_size: B.
        examples: n.
        outputs: c, the rank of H_i at most.
        rank: r, or what it is at most; by default c n, the number of all outputs.
        momentum: of heavy ball.
        sampling: ``"without replacement"`` or ``"with replacement"``.
        stable: the assumption, with how it is known.

    Returns:
        An upper bound, in units of the loss.

    Raises:
        ValueError: for numbers out of their range, or reshuffled epochs.

    Source: Mulayoff and Michaeli, arXiv:2306.07850, proposition 3, for the condition; Wu and Su,
    2023, for B = 1 and one output; with rank, outputs and momentum derived here.

    >>> [round(stable_trace(0.1, B, 4, rank=2).value, 3) for B in (1, 2, 4)]
    [20.0, 30.0, 40.0]
    """
    settings = lr, batch_size, examples, momentum, sampling
    trace, _ = _trace_and_noise(*settings, outputs, rank or outputs * examples)
    inputs = {"lr": lr, "B": batch_size, "n": examples}
    return Bound(
        trace, "the trace of the Hessian", 1.0, inputs, (stable,),
        "Mulayoff and Michaeli (arXiv:2306.07850), proposition 3; derived here for several outputs",
        trivial=math.inf, meanings=SETTINGS,
    )  # fmt: skip


def stable_gradients(
    lr: float,
    batch_size: int,
    examples: int,
    order: int = 1,
    *,
    weights: int,
    outputs: int = 1,
    momentum: float = 0.0,
    sampling: Sampling = "without replacement",
    stable: Assumption = STABLE,
) -> Bound:
    r"""Bound the moments of gradients in some parameters at a minimum that SGD is stable at.

    .. math:: \frac1n \sum_i \sum_c \sum_{j \le w} (\partial_j f_c(x_i))^{2k}
        \le w \, \frac{2^k B^{k-1}}{\eta^k}

    is the seminorm :math:`g_W^{(k)}` of :func:`lossgeom.sobolev_seminorms` to the power 2k, for the
    loss ``"squared_error"``; of another loss, gradients are in units in which its Hessian in the
    outputs is the identity. With w = 1 it is of one parameter, or of the derivatives along any unit
    vector. For k = 1 the trace T of these parameters' Hessian is a bound, too, which is that of
    :func:`stable_trace` with their number in the place of the rank, and for k = 2

    .. math:: \frac1n \sum_i \|H_i\|_F^2 \le \frac{2 T}{\eta p},

    which do not grow with the number of parameters; the smallest is returned. With momentum
    :math:`\beta` these two are all that is known, with :math:`\min(\frac p{1-\beta},
    \frac1{1+\beta})` for p in the second.

    Proof: SGD is stable in moments of order k only if :math:`|E (1 - \eta h)^k| \le 1` with
    :math:`h = e_j^\top H_b e_j \ge 0` of a batch b, the Rayleigh quotient of the symmetric map of
    moments at :math:`e_j^{\otimes k}`. With :math:`(\eta h)^k \le 2^{k-1} (1 + (\eta h - 1)^k)`,
    also for odd k, :math:`E h^k \le (2 / \eta)^k`; and the mean of B numbers that are not negative
    has :math:`E h^k \ge B^{1-k} \frac1n \sum_i h_i^k`. Of the trace it is the Rayleigh quotient at
    the projection to these parameters, without momentum; for k = 2 that, and
    :math:`\sum_c \sum_j (\partial_j f_c)^4 \le \|H_i\|_F^2`.

    Args:
        lr: the learning rate.
        batch_size: B.
        examples: n.
        order: k; stability in mean square is all that is needed for 1 and 2, and for larger k
            you declare that of order k.
        weights: w, how many parameters.
        outputs: c, of an example.
        momentum: as for :func:`stable_trace`.
        sampling: as there.
        stable: the assumption, with how it is known.

    Returns:
        An upper bound of the sum; infinite where none is known.

    Raises:
        ValueError: as of :func:`stable_trace`.

    Source: after Ma and Ying, arXiv:2105.13462; derived here.

    >>> [stable_gradients(0.5, 2, 100, k, weights=1).value for k in (1, 2, 3)]
    [4.0, 32.0, 256.0]
    >>> stable_gradients(0.5, 1, 9, weights=7).value
    4.0
    """
    check_whole(1, order=order, weights=weights)
    rank = outputs * examples if momentum else min(weights, outputs * examples)
    settings = lr, batch_size, examples, momentum, sampling
    trace, noise = _trace_and_noise(*settings, outputs, rank)
    bounds = [math.inf]
    if momentum == 0:
        bounds.append(weights * (2 / lr) ** order * float(batch_size) ** (order - 1))
    if order == 1:
        bounds.append(trace)
    if order == 2 and noise > 0:
        bounds.append(2 * trace / (lr * noise))
    if order > 2:
        said = f"SGD is stable in moments of order {order} at this minimum"
        stable = Assumption(said, "declared")
    return Bound(
        min(bounds),
        f"the mean over examples of all {2 * order}-th powers of derivatives in the parameters",
        1.0,
        {"lr": lr, "B": batch_size, "n": examples, "k": order, "w": weights},
        (stable,), "after Ma and Ying (arXiv:2105.13462), derived here", trivial=math.inf,
        meanings={**SETTINGS, "k": "order", "w": "parameters"},
    )  # fmt: skip


def _trace_and_noise(
    lr: float,
    batch_size: int,
    examples: int,
    momentum: float,
    sampling: Sampling,
    outputs: int,
    rank: int,
) -> tuple[float, float]:
    """What the trace is at most, and the factor of the mean squared norm of H_i."""
    check_number("lr", lr, 0)
    check_number("momentum", momentum, 0, 1, at_low=True)
    check_whole(1, outputs=outputs, rank=rank)
    p, whole = noise_share(examples, batch_size, sampling) / (1 - momentum), 1 / (1 + momentum)
    noise = min(p, whole)
    return 2 / (lr * (max(whole - p, 0.0) / rank + noise / outputs)), noise
