"""How the largest tangent-kernel eigenvalue starts to move under gradient flow."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.checks import check_at_least, check_number
from lossgeom.quadratic.model import QuadraticModel


def initial_motion(model: QuadraticModel) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
    r"""First and second time derivative of the largest eigenvalue of J J^T, at theta = 0.

    With :math:`A = J J^\top`, its unit eigenvectors :math:`u_j` and u for the largest eigenvalue,

    .. math:: \dot\lambda = u^\top \dot A u, \qquad \ddot\lambda = u^\top \ddot A u
        + 2 \sum_{j} \frac{(u_j^\top \dot A u)^2}{\lambda - \lambda_j},

    where :math:`\dot J = -Q(g, \cdot)`, :math:`\ddot J = -Q(\dot g, \cdot)`,
    :math:`g = J^\top z` and :math:`\dot g = \dot J^\top z - J^\top J J^\top z`. Exact where the
    largest eigenvalue is simple. Time is that of gradient flow; in rescaled units one step.

    Cost: two products with Q and an eigenproblem of D x D for each run.

    Source: derived, by perturbation theory of second order.

    >>> from lossgeom.quadratic import random_models
    >>> models = random_models(2000, 4, 6, a=0.1, initial_curvature=1.0)
    >>> first, second = initial_motion(models.rows(slice(2000)))
    >>> bool(first.mean().abs() < 0.01), bool(second.mean() > 0)
    (True, True)
    """
    z, J = model.y, model.G
    g = (z[:, None] @ J)[:, 0]
    J1 = -model.Q.contract(g)
    J2 = -model.Q.contract((z[:, None] @ J1 - g[:, None] @ J.mT @ J)[:, 0])
    values, vectors = torch.linalg.eigh(J @ J.mT)
    A1 = J1 @ J.mT
    A1 = vectors.mT @ (A1 + A1.mT) @ vectors[:, :, -1:]
    u = vectors[:, :, -1:]
    direct = (2 * (J2.mT @ u) * (J.mT @ u) + 2 * (J1.mT @ u).square()).sum((1, 2))
    gaps = values[:, -1:] - values[:, :-1]
    repulsion = (A1[:, :-1, 0].square() / gaps).sum(1)
    return A1[:, -1, 0], direct + 2 * repulsion


def predicted_acceleration(outputs: int, parameters: int, sigma_z: float) -> float:
    r"""The mean second derivative of the largest eigenvalue by its mean, of large random models.

    .. math:: E[\ddot\lambda] / E[\lambda] \to 2 D P \sigma_z^2, \qquad E[\dot\lambda] = 0

    for D and P to infinity at a fixed ratio; z, J and Q as in ``RandomModels``. At finite size the
    ratio is larger, relative to this, by 1.75 (1/D + 1/P) within 10% of that, measured from
    D, P = 10 to 120; :func:`expected_acceleration` is exact given J. Samples have heavy tails,
    since eigenvalues can nearly meet: an average over many is needed.

    Raises:
        ValueError: if a size is not positive or the deviation negative.

    Source: that curvature accelerates at a rate set by the variance of z is the paper's
    (Agarwala et al., arXiv:2210.04860); the constant is derived here.

    >>> round(predicted_acceleration(20, 40, 0.01), 6)
    0.16
    """
    check_at_least(1, outputs=outputs, parameters=parameters)
    check_number("sigma_z", sigma_z, 0, at_low=True)
    return 2 * outputs * parameters * sigma_z**2


def expected_acceleration(
    J: Float[Tensor, "R D P"], sigma_z: Float[Tensor, " R"] | float
) -> Float[Tensor, " R"]:
    r"""The mean over z and Q, given J, of the second derivative of the largest eigenvalue.

    .. math:: 2 \sigma_z^2 \Big[ (P + 1) (t + \lambda) + \sum_j
        \frac{t (\lambda + \lambda_j) + \lambda^2 + \lambda_j^2}{\lambda - \lambda_j} \Big],
        \qquad t = \mathrm{tr}\, J J^\top

    over the eigenvalues :math:`\lambda_j` of :math:`J J^\top` below the largest. Exact at any size
    for the ensemble of ``RandomModels``, whose Q has variance 2 on its diagonal. It diverges where
    two eigenvalues meet.

    Cost: an eigenproblem of D x D for each run.

    Source: derived from :func:`initial_motion` with :math:`E[Q_a Q_b] = \delta_{ab} (P + 1) I`.

    >>> J = torch.diag(torch.tensor([2.0, 1.0])).double()[None]
    >>> round(expected_acceleration(J, 0.1).item(), 4)  # 0.02 (3 (5 + 4) + (25 + 17) / 3)
    0.82
    """
    values = torch.linalg.eigvalsh(J @ J.mT)
    top, others = values[:, -1:], values[:, :-1]
    t = values.sum(1, keepdim=True)
    repulsion = (t * (top + others) + top.square() + others.square()) / (top - others)
    direct = (J.shape[2] + 1) * (t + top)[:, 0]
    mean: Tensor = 2 * sigma_z**2 * (direct + repulsion.sum(1))
    return mean
