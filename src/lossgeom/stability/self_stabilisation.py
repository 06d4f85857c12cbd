"""What drives the sharpness up, and what holds it at the edge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import pulled
from lossgeom.batches import Batch
from lossgeom.curvature import Hessian
from lossgeom.estimate import Estimate
from lossgeom.linalg import EigenPairs, top_eigenpairs
from lossgeom.losses.graphs import check_differentiable_again
from lossgeom.messages.checks import check_at_least, check_number
from lossgeom.messages.reprs import short
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.minibatches import each_batch, sampled_batches, whole
from lossgeom.stability.along import checked_update, dot, gradient_at
from lossgeom.stability.undefined import UndefinedError
from lossgeom.trust.trial import guard


@dataclass(frozen=True, eq=False)
class SelfStabilisation:
    r"""Coefficients of the sharpness S at a point, with its eigenvector u and gradient.

    Attributes:
        sharpness: S.
        vector: (P,) u.
        gradient: (P,) of S, without its part along u.
        sharpening: alpha, the rate at which gradient flow raises S.
        stabilisation: beta, the square of the length of that gradient.
    """

    sharpness: Estimate
    vector: Float[Tensor, " P"]
    gradient: Float[Tensor, " P"]
    sharpening: float
    stabilisation: float

    __repr__ = short


def self_stabilisation(
    problem: Problem,
    *,
    tol: float = 1e-3,
    max_matvecs: int = 100,
    pairs: EigenPairs | None = None,
    seed: int = 0,
) -> SelfStabilisation:
    r"""The rate of progressive sharpening and the strength of self-stabilisation.

    .. math:: \alpha = -\nabla L \cdot \nabla S_\perp, \qquad \beta = |\nabla S_\perp|^2, \qquad
        \nabla S = \nabla_\theta\, u^\top H(\theta)\, u

    with the sharpness S, its eigenvector u held fixed, and :math:`\nabla S_\perp` the part of its
    gradient orthogonal to u, in which training oscillates at the edge. Gradient flow raises S by
    alpha in a unit of time, a step of gradient descent by :math:`\eta \alpha`. An oscillation x
    along u lowers it by :math:`\eta \beta x^2 / 2` a step, and so holds it at the edge where
    :math:`x^2 = 2 \alpha / \beta`. Where alpha is negative there is no progressive sharpening.
    alpha has the unit of loss times S, over that of the parameters squared; beta that of S squared.

    What it cannot tell: more than is linear in alpha and beta near this point; S may change by its
    second derivative before it reaches the edge. Where the next eigenvalue is near, S has no
    gradient.

    Cost: the sharpness, 10 to 25 products, none with ``pairs``; a gradient, once at a point; and
    the gradient of a curvature, about two products. Third derivatives are compared with
    differences first: those through LayerNorm and BatchNorm are wrong in PyTorch.

    Args:
        problem: the loss and where to take it.
        tol: on the residual of the sharpness, relative to it.
        max_matvecs: products to spend.
        pairs: the top eigenpair of the Hessian, if it is known.
        seed: of the random start.

    Raises:
        DerivativeError: where the third derivative is wrong.
        NonFiniteError: where the loss is NaN or infinite.

    Source: Damian, Nichani and Lee, Self-stabilization, arXiv:2209.15594, definitions of alpha and
    beta, where training oscillates about a trajectory on which the gradient has no part along u.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> model[0].weight.data.fill_(2.0), model[1].weight.data.fill_(1.0)
    (tensor([[2.]]), tensor([[1.]]))
    >>> data = [(torch.ones(1, 1), torch.full((1, 1), 3.0))]  # too small a product
    >>> self_stabilisation(Problem(model, "squared_error", data)).sharpening > 0
    True
    """
    checked_problem(problem)
    if pairs is None:
        pairs = top_eigenpairs(Hessian(problem), tol=tol, max_matvecs=max_matvecs, seed=seed)
    u = pairs.vectors[:, 0]
    slope = curvature_gradient(problem, u)
    across = slope - dot(slope, u) * u
    alpha = -dot(gradient_at(problem), across)
    return SelfStabilisation(pairs.top, u, across, alpha, dot(across, across))


def curvature_gradient(problem: Problem, u: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """The gradient of u.H(theta)u in theta, a third derivative, of which trust is tried first."""

    def of_batch(batch: Batch) -> tuple[Tensor, float]:
        guard(problem, batch, order=3)
        leaf = problem.leaf()
        gradient, count = problem.evaluation.gradient(leaf, batch, create_graph=True)
        check_differentiable_again(gradient)
        form = u @ pulled(gradient, leaf, u, create_graph=True)
        return pulled(form, leaf, torch.ones_like(form)), count

    return problem.mean(of_batch)


def noise_along(
    problem: Problem,
    direction: Float[Tensor, " P"],
    *,
    batch_size: int | None = None,
    batches: int = 64,
    seed: int = 0,
) -> Estimate:
    r"""The variance of the gradients of mini-batches along a direction of unit length.

    .. math:: \sigma_u^2 = \mathrm{Var}_B\, (u \cdot g_B)

    Cost: the gradients of ``batches`` batches, on their examples alone.

    Args:
        problem: the loss and where to take it. Its data is the population.
        direction: (P,) u; it is scaled to unit length.
        batch_size: of batches drawn without replacement, independently; by default the problem's
            own batches are taken.
        batches: how many at most, at least 2.
        seed: of the batches that are drawn.

    Returns:
        The variance with its standard error, which is that of normal numbers at least; of all
        examples in one batch it is 0.

    Raises:
        UndefinedError: for a direction of zero, or one batch that is said to be all there are.
        ValueError: for a size or a number out of range.
        NonFiniteError: where the loss of a batch is NaN or infinite.

    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> data = [(torch.ones(1, 1), torch.zeros(1, 1)), (torch.ones(1, 1), 2 * torch.ones(1, 1))]
    >>> noise_along(Problem(model, "squared_error", data), torch.ones(1)).value  # of 1 and -1
    1.0
    """
    u = checked_update(problem, direction)
    check_at_least(2, batches=batches)
    check_at_least(1, batch_size=batch_size)
    check_at_least(0, seed=seed)
    problem = whole(problem)
    sizes = problem.over_batches(len)
    if batch_size == sum(sizes):
        return Estimate(0.0, stderr=0.0)
    if batch_size is None and len(sizes) == 1:
        raise UndefinedError(
            "all examples are in one batch, so there is no noise of batches to measure; say how "
            "large those of training are with batch_size="
        )
    if batch_size is None:
        parts, apart = each_batch(problem), 1 - 1 / len(sizes)  # as they have no example in common
    else:
        parts, apart = sampled_batches(problem, batch_size, seed=seed), 1.0
    found = [dot(part.gradient(), u) for part in islice(parts, batches)]
    along, m = torch.tensor(found, dtype=torch.float64), len(found)
    squares = apart * m / (m - 1) * (along - along.mean()).square() / dot(u, u)
    value = float(squares.mean())
    of_normal = value * math.sqrt(2 / (m - 1))  # of few alike, squares do not differ by chance
    return Estimate(value, stderr=max(float(squares.std()) / math.sqrt(m), of_normal))


def plateau_gap(lr: float, sharpening: float, stabilisation: float, variance: float) -> float:
    r"""How far below the edge the noise of SGD holds the sharpness, as predicted.

    .. math:: \Delta = \frac{\eta\, \beta\, \sigma_u^2}{4 \alpha}

    of the sharpness :math:`2 / \eta - \Delta` at which SGD settles: noise of variance
    :math:`\sigma_u^2` along the sharpest direction keeps up an oscillation of variance
    :math:`\eta \sigma_u^2 / (2 \Delta)`, which lowers the sharpness by as much as progressive
    sharpening raises it. It is in the unit of the sharpness.

    What it cannot tell: more than the first order. It is too small a number where it is not small
    beside :math:`2 / \eta`, by about half of their ratio, and where the noise is so weak that
    the oscillation of full-batch training, :math:`x^2 \approx 2 \alpha / \beta`, is more.

    Args:
        lr: eta.
        sharpening: alpha, by :func:`self_stabilisation`.
        stabilisation: beta, by the same.
        variance: sigma_u^2, by :func:`noise_along`.

    Raises:
        UndefinedError: where alpha is not positive, so that nothing drives the sharpness up.
        ValueError: for a learning rate that is not positive.

    Source: Liao et al., arXiv:2604.21016; derived anew from the equations of Damian et al.,
    arXiv:2209.15594, with noise.

    >>> plateau_gap(0.1, sharpening=2.0, stabilisation=4.0, variance=1.0)
    0.05
    """
    check_number("lr", lr, 0)
    if not sharpening > 0:
        raise UndefinedError(
            f"the rate of progressive sharpening is {sharpening:.3g}, so that nothing drives the "
            "sharpness to the edge, and there is no gap to it"
        )
    return lr * stabilisation * variance / (4 * sharpening)
