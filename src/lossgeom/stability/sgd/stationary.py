"""Where SGD comes to rest at a minimum that it does not interpolate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg import conjugate_gradients
from lossgeom.messages.checks import check_number
from lossgeom.messages.reprs import short
from lossgeom.stability.sgd.examples import ExampleCurvatures
from lossgeom.stability.sgd.mean_square import mean_square_threshold
from lossgeom.stability.sgd.sampling import Sampling, noise_share
from lossgeom.stability.sgd.second_moments import mean_of_products, on_moments

TOL = 1e-9


@dataclass(frozen=True, eq=False)
class StationaryState:
    """The distribution that the linearised steps of SGD settle to around a minimum.

    Attributes:
        covariance: of the distance from the minimum, in the eigenbasis of H.
        excess_loss: half the mean of w^T H w: how much the loss is above its minimum.
        mean_square: the mean squared distance in the directions that have curvature.
        random_walk: the variance that each step adds in directions without any, where nothing
            holds SGD and its distance grows with the root of time.
    """

    covariance: Float[Tensor, "r r"]
    excess_loss: float
    mean_square: float
    random_walk: float

    __repr__ = short


def stationary_state(
    curvatures: ExampleCurvatures,
    lr: float,
    batch_size: int,
    sampling: Sampling = "without replacement",
) -> StationaryState:
    r"""The covariance of SGD around a minimum where single examples have gradients.

    .. math:: (2 C - \eta D)(\Sigma) = \eta\, p\, \Sigma_g, \quad \Sigma_g = \frac1n \sum_i g_i
        g_i^\top, \qquad E[L] - L^* = \tfrac12 \mathrm{tr}(H \Sigma)

    with C, D and the noise share p of :func:`mean_square_threshold`; below that learning rate there
    is such a state. The gradient of the mean loss, of which a minimum has none, is subtracted.

    Cost: about 20 products of 4 n c r^2 flops, and more close to the threshold.

    Args:
        curvatures: with gradients, see :func:`example_curvatures`.
        lr: the learning rate.
        batch_size: B.
        sampling: ``"without replacement"`` or ``"with replacement"``.

    Raises:
        ValueError: at and above the threshold, and for settings out of range.

    Source: Mulayoff and Michaeli, arXiv:2306.07850, theorem 5.

    >>> factors, gradients = torch.ones(2, 1, 1), torch.tensor([[1.0], [-1.0]])
    >>> state = stationary_state(ExampleCurvatures.of(factors, gradients), lr=0.5, batch_size=1)
    >>> round(state.excess_loss, 6), round(state.mean_square, 6)  # lr / (2 - lr) for h = 1
    (0.166667, 0.333333)
    """
    check_number("lr", lr, 0)
    p = noise_share(curvatures.n, batch_size, sampling)
    threshold = mean_square_threshold(curvatures, batch_size, sampling=sampling)
    if lr >= threshold:
        raise ValueError(
            f"expected lr below {threshold:.6g}, up to which SGD with these batches is stable; got "
            f"{lr:g}, at which it has no stationary state"
        )
    h, g = curvatures.values, curvatures.gradients
    walk = curvatures.gradient_norms.square().sum() - g.square().sum()
    g = g - g.mean(0)
    S = _solved(curvatures, lr, p, g.T @ g / curvatures.n)
    return StationaryState(
        covariance=S,
        excess_loss=float(h @ S.diagonal()) / 2,
        mean_square=float(S.trace()),
        random_walk=lr**2 * p * max(float(walk) / curvatures.n, 0.0),
    )


def _solved(
    curvatures: ExampleCurvatures, lr: float, p: float, noise: Float[Tensor, "r r"]
) -> Float[Tensor, "r r"]:
    """Solve for the covariance, with the part of the system that is diagonal taken out."""
    h = curvatures.values
    if not len(h) or not p or not noise.any():
        return torch.zeros_like(noise)
    root = (h[:, None] + h - lr * (1 - p) * h[:, None] * h).rsqrt()

    def image(S: Float[Tensor, "r r"]) -> Float[Tensor, "r r"]:
        return S - lr * p * root * mean_of_products(curvatures, root * S)

    A = on_moments(curvatures, image)
    found = conjugate_gradients(A, (lr * p * root * noise).reshape(-1), tol=TOL)
    if not bool(found.converged.all()):
        residual = float(found.residuals.max()) / math.sqrt(float((noise * noise).sum()))
        raise ArithmeticError(
            f"the stationary state is not known: its equation is solved to {residual:.1e} only, "
            f"after {found.matvecs} products; is lr just below the threshold?"
        )
    S = root * found.x.reshape(noise.shape)
    return (S + S.T) / 2
