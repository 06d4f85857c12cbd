"""SGD with heavy-ball momentum, in mean square."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.checks import check_number
from lossgeom.stability.sgd.examples import ExampleCurvatures
from lossgeom.stability.sgd.necessary import necessary_conditions
from lossgeom.stability.sgd.second_moments import largest_growth, mean_of_products

TOL = 1e-9  # of a threshold, relative
STEPS = 50
FAR = 25.0  # logarithm of lr / (edge - lr) from which on no noise is seen


def response(h: Float[Tensor, " r"], lr: float, momentum: float) -> Float[Tensor, "r r"]:
    r"""Sums of products of the impulse responses of two directions, in closed form.

    .. math:: R_{kl} = \sum_t \phi_k(t) \phi_l(t) = \frac{1 - \beta^2}{(1 - \beta)^2
        \big((1 + \beta) (x_k + x_l) - x_k x_l\big) + \beta (x_k - x_l)^2}

    of :math:`w_{t+1} = (1 + \beta - x) w_t - \beta w_{t-1}`, x = lr h, which is positive as long as
    all x are below 2 (1 + beta). Without momentum it is 1 / (x_k + x_l - x_k x_l).
    """
    b, x = momentum, lr * h
    total, product, apart = x[:, None] + x, x[:, None] * x, x[:, None] - x
    return (1 - b * b) / ((1 - b) ** 2 * ((1 + b) * total - product) + b * apart * apart)


def noise_gain(curvatures: ExampleCurvatures, lr: float, momentum: float = 0.0) -> float:
    r"""How much of their own size the noise of single examples adds to second moments.

    .. math:: \Gamma = \rho\Big(S \mapsto R \circ \eta^2 \big( \tfrac1n \sum_i H_i S H_i -
        H S H \big)\Big)

    with the entries of R from :func:`response`. SGD is stable in mean square if and only if
    :math:`p\, \Gamma \le 1` and :math:`\eta \lambda_{\max} < 2 (1 + \beta)`, with the noise share p
    of its batches; so 1 / Gamma is the largest share that it can bear.

    Cost: some ten to twenty products of 4 n c r^2 flops, by Lanczos iteration.

    Returns:
        The gain; infinite at and above the edge of steps without noise.

    Source: derived here, and compared with the enumerated map of 2r x 2r matrices.

    >>> import torch
    >>> points = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, -1.0]])
    >>> curvatures = ExampleCurvatures.of(points[:, None])
    >>> round(1 / noise_gain(curvatures, lr=0.98971), 4)  # the p of 2 of 4 examples
    0.3333
    """
    check_number("momentum", momentum, 0, 1, at_low=True)
    if not curvatures.rank:
        return 0.0
    return _gain(curvatures, lr, momentum, None)[0]


def _gain(
    curvatures: ExampleCurvatures, lr: float, momentum: float, start: Tensor | None
) -> tuple[float, Tensor | None]:
    """The gain, and the second moment that it is of, from one nearby.

    The map is similar to a symmetric one, since R is positive. It keeps positive semi-definite
    matrices so, and its largest eigenvalue is its spectral radius.
    """
    h = curvatures.values
    if not lr * float(h[0]) < 2 * (1 + momentum):
        return math.inf, start
    roots = lr * response(h, lr, momentum).sqrt()

    def image(S: Float[Tensor, "r r"]) -> Float[Tensor, "r r"]:
        S = roots * S
        return roots * (mean_of_products(curvatures, S) - h[:, None] * h * S)

    return largest_growth(curvatures, image, start)


def momentum_threshold(curvatures: ExampleCurvatures, p: float, momentum: float) -> float:
    r"""The learning rate up to which heavy-ball SGD is stable in mean square.

    Of the linearised steps :math:`w_{t+1} = (1 + \beta) w_t - \beta w_{t-1} - \eta H_b w_t`, whose
    second moments are bounded if and only if :math:`p\, \Gamma(\eta) \le 1`, with the noise share p
    and the gain of :func:`noise_gain`, and :math:`\eta \lambda_{\max} < 2 (1 + \beta)`. In one
    direction with curvature :math:`\lambda` and noise :math:`\sigma^2 = p\, \mathrm{Var}_i(v^\top
    H_i v)` that is

    .. math:: \frac2\eta = \frac{\lambda}{1 + \beta} + \frac{\sigma^2}{(1 - \beta) \lambda}:

    momentum helps against curvature, and works against noise.

    There is one such learning rate: the gain rises with it, because every entry of lr^2 R does, and
    the derivative of a simple eigenvalue is a mean of theirs with squares for weights.

    Cost: some ten gains.

    Args:
        curvatures: see :func:`example_curvatures`.
        p: see :func:`noise_share`.
        momentum: in [0, 1).

    Returns:
        The largest stable learning rate.

    Raises:
        ValueError: for a momentum out of its range.

    Source: derived here; its two ends are the plateaus of arXiv:2604.14108.

    >>> import torch
    >>> points = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, -1.0]])
    >>> round(momentum_threshold(ExampleCurvatures.of(points[:, None]), 1.0, 0.5), 6)
    0.468199
    """
    check_number("momentum", momentum, 0, 1, at_low=True)
    if not curvatures.rank:
        return math.inf
    edge = 2 * (1 + momentum) / curvatures.sharpness
    guess, S = min(necessary_conditions(curvatures, p, momentum).values()), None
    place, slope, before = math.log(guess / (edge - guess)) if guess < edge else math.inf, 1.0, None
    for _ in range(STEPS):
        if place > FAR:
            return edge
        odds = math.exp(place)
        lr = edge * odds / (1 + odds)
        gain, S = _gain(curvatures, lr, momentum, S)
        excess = math.log(max(p * gain, 1e-300))  # in one direction, place and no more
        if before is not None and place != before[0]:
            slope = min(max((excess - before[1]) / (place - before[0]), 0.2), 5.0)
        before = place, excess
        if abs(excess) <= TOL * slope:
            return lr
        place -= excess / slope
    raise ArithmeticError(f"the threshold is not known: after {STEPS} gains it is near {lr:g}")
