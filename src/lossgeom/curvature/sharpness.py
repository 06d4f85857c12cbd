"""The largest eigenvalue of the loss Hessian."""

from __future__ import annotations

from torch import Tensor

from lossgeom.curvature.hessian import Hessian
from lossgeom.estimate import Estimate
from lossgeom.linalg import Which, top_eigenpairs
from lossgeom.problem import Problem


def sharpness(
    problem: Problem,
    *,
    which: Which = "largest",
    tol: float = 1e-3,
    max_matvecs: int = 100,
    start: Tensor | None = None,
    seed: int = 0,
) -> Estimate:
    r"""Sharpness: the largest signed eigenvalue of the Hessian of the data loss.

    .. math:: \lambda_{\max}(\nabla^2 L(\theta))

    Gradient descent with step :math:`\eta` is at the edge of stability where it is
    :math:`2 / \eta`; see :func:`lossgeom.stability_threshold`. The value scales with the loss, so
    compare values of one loss and one reduction only.

    Cost: 10 to 25 Hessian-vector products on most networks, each about two gradients over all the
    data; of these one is for the residual, and 3 at most for verification. ``problem.take(n)``
    measures on fewer examples.

    Args:
        problem: the loss and where to take it; its ``mode`` decides about BatchNorm.
        which: ``"largest"``, or ``"smallest"`` (most negative) or ``"magnitude"``.
        tol: on the residual, relative to the eigenvalue. The eigenvalue's own error is smaller: at
            most the residual, and the residual squared over the gap to the next eigenvalue.
        max_matvecs: products to spend; more than that and ``converged`` is False.
        start: (P,) vector to start from, such as the eigenvector at a nearby point.
        seed: of the random start.

    Returns:
        The eigenvalue with its residual, ``converged``, ``matvecs`` and ``verified``: whether an
        eigenvalue better by ten tolerances would have shown itself, see :func:`top_eigenpairs`.

    Raises:
        NonFiniteError: where the loss is NaN or infinite.

    Source: Cohen et al., Gradient descent on neural networks typically occurs at the edge of
    stability (2021); MacDonald et al., arXiv:2305.14683, section 3.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    >>> round(sharpness(Problem(model, "squared_error", [(x, torch.zeros(2, 1))])).value, 4)
    8.0
    """
    return top_eigenpairs(
        Hessian(problem),
        which=which,
        tol=tol,
        max_matvecs=max_matvecs,
        start=start,
        seed=seed,
    ).top
