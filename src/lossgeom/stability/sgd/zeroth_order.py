"""The stability of descent that estimates its gradient from two losses."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.checks import check_number
from lossgeom.stability.sgd._crossing import first_crossing


def zeroth_order_threshold(values: Float[Tensor, " r"], momentum: float = 0.0) -> float:
    r"""The learning rate up to which zeroth-order descent (MeZO) is stable in mean square.

    With the gradient estimate :math:`z\, (L(\theta + \mu z) - L(\theta - \mu z)) / 2 \mu` along one
    Gaussian direction z a step, as :math:`\mu \to 0`, on a quadratic loss with the eigenvalues h,
    the second moment is bounded if and only if

    .. math:: \sum_k \frac{x_k}{1 - x_k} \le 1, \quad x_k < 1, \qquad x_k = \frac{(1 + \beta)\, \eta
        h_k}{(1 - \beta)(2 (1 + \beta) - \eta h_k)},

    without momentum :math:`\sum_k \eta h_k / (2 (1 - \eta h_k)) \le 1`. So

    .. math:: \frac{2 (1 - \beta)}{\eta} \in \Big[\mathrm{Tr} H,\; \mathrm{Tr} H +
        \frac{2 \lambda_{\max}}{1 + \beta}\Big]:

    all of the trace counts, see :func:`zeroth_order_bounds`. The loss is that of all examples in
    every step; the noise of batches comes on top of it.

    Args:
        values: the positive eigenvalues of the Hessian, all of them.
        momentum: of heavy ball.

    Returns:
        The largest stable learning rate; infinite without eigenvalues.

    Raises:
        ValueError: for negative or infinite values, or a momentum out of [0, 1).

    Source: after a statement on MeZO without momentum; the recursion and the formula with momentum
    are derived here, from E z z^T M z z^T = 2 M + tr(M) I.

    >>> import torch
    >>> eta = zeroth_order_threshold(torch.tensor([3.0, 1.0, 0.5, 0.1]))
    >>> round(eta, 6), round(2 / eta, 4)
    (0.205425, 9.7359)
    """
    check_number("momentum", momentum, 0, 1, at_low=True)
    h = values.double()
    if not (h.isfinite().all() and (h >= 0).all()):
        raise ValueError(
            "expected the eigenvalues of a minimum, finite and at least 0, got a smallest of "
            f"{float(h.min()):g}"
        )
    if not h.any():
        return math.inf
    edge = 2 * (1 + momentum)  # of the largest lr h, without noise

    def growth(lr: float) -> float:
        x = (1 + momentum) * lr * h / ((1 - momentum) * (edge - lr * h))
        return (
            float((x / (1 - x)).sum()) if lr * float(h.max()) < edge and (x < 1).all() else math.inf
        )

    return first_crossing(growth, edge / float(h.max()))


def zeroth_order_bounds(
    trace: float, sharpness: float, momentum: float = 0.0
) -> tuple[float, float]:
    r"""Learning rates between which the threshold of zeroth-order descent lies, from a trace.

    .. math:: \frac{2 (1 - \beta)}{\mathrm{Tr} H + 2 \lambda_{\max} / (1 + \beta)} \le \eta^* \le
        \frac{2 (1 - \beta)}{\mathrm{Tr} H}

    Args:
        trace: of the Hessian at a minimum.
        sharpness: its largest eigenvalue.
        momentum: of heavy ball.

    Raises:
        ValueError: if the trace is not positive, or smaller than the sharpness.

    Source: as of :func:`zeroth_order_threshold`.

    >>> low, high = zeroth_order_bounds(trace=4.6, sharpness=3.0)
    >>> round(low, 4), round(high, 4)
    (0.1887, 0.4348)
    """
    check_number("momentum", momentum, 0, 1, at_low=True)
    check_number("trace", trace, 0)
    if not 0 <= sharpness <= trace:
        raise ValueError(
            f"expected a sharpness from 0 to the trace of a minimum, {trace:g}; got {sharpness:g}"
        )
    return (
        2 * (1 - momentum) / (trace + 2 * sharpness / (1 + momentum)),
        2 * (1 - momentum) / trace,
    )
