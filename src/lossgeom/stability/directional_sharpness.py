"""The curvature of a loss along a direction."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.problem import Problem
from lossgeom.stability.along import checked_update, curvature_along, dot, gradient_at


def directional_sharpness(
    problem: Problem, direction: Float[Tensor, " P"] | None = None
) -> Estimate:
    r"""The curvature of the loss along a direction, of the gradient unless another is given.

    .. math:: \frac{v^\top H v}{v^\top v}

    with the Hessian H. In gradient descent on the full batch, the step along v = g raises the loss
    on a quadratic exactly if this is more than :math:`2 / \eta`, and the mean over batches of the
    same with their own gradients and Hessians is the :func:`batch_sharpness`. It is at most the
    sharpness.

    What it cannot tell: how sharp the loss is in directions that the vector has no part in. For an
    optimiser whose update is not along the gradient, :func:`update_curvature` is what has an edge.

    Cost: a product with the Hessian, and a gradient, once at a point, if no direction is given.

    Args:
        problem: the loss and where to take it.
        direction: (P,) v, of any length; the gradient by default.

    Raises:
        UndefinedError: for a direction of zero, such as the gradient at a minimum.
        ValueError: for one of another shape.
        NonFiniteError: where the vector or the loss are NaN or infinite.
        DerivativeError: where the second derivative is wrong.

    Source: Andreyev and Beneventano, arXiv:2412.20553, section 3; Lee and Lee, 2026.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    >>> problem = Problem(model, "squared_error", [(x, torch.zeros(2, 1))])
    >>> round(directional_sharpness(problem, torch.tensor([5.0, 0.0])).value, 4)
    2.0
    """
    v = checked_update(problem, gradient_at(problem) if direction is None else direction)
    return Estimate(curvature_along(problem, v) / dot(v, v), matvecs=1)
