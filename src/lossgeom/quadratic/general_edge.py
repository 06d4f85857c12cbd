"""The limit of any quadratic model at the edge of stability, told from where its runs end."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.quadratic.second_derivative import SecondDerivative


def edge_limit_at(J: Float[Tensor, "R D P"], Q: SecondDerivative) -> Float[Tensor, " R"]:
    r"""The largest eigenvalue of J J^T at which runs leave the edge of stability, rescaled.

    With the largest singular value :math:`\sigma` of J, its unit vectors u and v, the others
    :math:`\sigma_j, u_j, v_j`, the gradient :math:`p = \sum_a u_a Q_a v` of :math:`\sigma`, and
    :math:`q_a = v^\top Q_a v`,

    .. math:: \lim \lambda_{\max} = 2 - \frac{2 \|p_0\|^2}{C}, \qquad
        C = 4 (v \cdot p)^2 + 4 \|p_0\|^2 + \sum_j \Big[
        \frac{2 \sigma^2}{\sigma_j^2} (v_j \cdot p)^2
        + \frac{2 \sigma}{\sigma_j} (u_j \cdot q)(v_j \cdot p) \Big]

    where :math:`p_0` is the part of p that J annihilates, along which residuals stay zero. For one
    output it is :math:`2 - \tfrac12 \sin^2 \angle(J, QJ)`; of that :func:`edge_limit` is the
    leading order. It depends on directions only: for a learning rate and momentum multiply by
    ``Descent.edge / 2``.

    Derivation: steps of size x along v go to and fro and grow by
    :math:`\ddot x = 2 x (s - C x^2)` in two steps, with s the eigenvalue's excess over 2 and C from
    the derivatives of the loss up to the fourth, :math:`(L_v''')^2/4 - L_v''''/6 + \sum_j
    (\partial_j L_v'')^2 / 2 \sigma_j^2`; along the minima they drift against the gradient of the
    eigenvalue, :math:`\dot s = -8 \|p_0\|^2 x^2`. A run that has forgotten its start is left with
    :math:`s = -2 \|p_0\|^2 / C`. That is to leading order in the result; the second term of C is of
    higher order, and for one output exact.

    It tells the eigenvalue from the directions at the *end*, not from the start: with more than two
    eigenvalues of Q directions turn on the way. It holds for small distances from 2, an overshoot
    several times as large, one eigenvalue at the edge, minima where residuals vanish, and without
    momentum near 1. How well is in docs/explanation/edge-limits.md.

    Cost: one product with Q and a singular value decomposition for each run.

    Args:
        J: at the end of runs.
        Q: of the same runs.

    Returns:
        The limit; NaN where C is not positive, so that no 2-cycle is stable and runs catapult.

    Source: derived here; Agarwala et al., arXiv:2210.04860, treat the planar case.

    >>> from lossgeom.quadratic import Dense
    >>> Q = Dense(torch.tensor([[[1.0, 0.0], [0.0, -0.01]]]).double())
    >>> J = torch.tensor([[[2.0, 0.02]]]).double().sqrt()  # E = 0 and z = 0
    >>> round(edge_limit_at(J, Q).item(), 4)
    1.995
    """
    U, S, Vh = torch.linalg.svd(J, full_matrices=False)
    Qv = Q.contract(Vh[:, 0])
    p = (U.mT[:, :1] @ Qv)[:, 0]
    along = (Vh @ p[:, :, None])[:, :, 0]
    q = (U.mT @ (Qv @ Vh[:, 0, :, None]))[:, :, 0]
    free = (p - (along[:, None] @ Vh)[:, 0]).square().sum(1)
    pulled = S[:, :1] / S[:, 1:] * along[:, 1:]
    C = 4 * (along[:, 0].square() + free) + 2 * (pulled * (pulled + q[:, 1:])).sum(1)
    limit: Tensor = 2 - 2 * free / C
    return limit.where(C > 0, torch.nan)
