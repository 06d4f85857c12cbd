"""The sharpness that rescaling a network does not change."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lossgeom.curvature import Hessian
from lossgeom.estimate import Estimate
from lossgeom.linalg import LinearOperator, MatrixFree, plain_arithmetic, top_eigenpairs
from lossgeom.problem import Problem, checked_problem


def adaptive_sharpness(
    problem: Problem,
    *,
    tol: float = 1e-3,
    max_matvecs: int = 100,
    start: Tensor | None = None,
    seed: int = 0,
) -> Estimate:
    r"""The largest eigenvalue of the Hessian with each parameter relative to its own size.

    .. math:: \lambda_{\max}\big( \mathrm{diag}(|\theta|)\, H\, \mathrm{diag}(|\theta|) \big)

    It is the sharpness in the logarithms of the parameters, but for the gradient's part, and in the
    unit of the loss. Multiplying the incoming weights and bias of a ReLU unit by a number and
    dividing its outgoing weights by it changes no output, and not this number, whereas it makes the
    sharpness as large as one likes (Dinh et al., arXiv:1703.04933).
    :func:`worst_case_sharpness_lower` is the form that takes a maximum in a ball.

    What it cannot tell: an edge. No threshold of an optimiser is for it; that of an adaptive one is
    for its own preconditioner. Parameters of zero play no part.

    Cost: 10 to 25 Hessian-vector products, as :func:`sharpness`.

    Args:
        problem: the loss and where to take it.
        tol: on the residual, relative to the eigenvalue.
        max_matvecs: products to spend.
        start: (P,) vector to start from.
        seed: of the random start.

    Returns:
        The eigenvalue with its residual, ``converged`` and ``matvecs``.

    Raises:
        ValueError: for a setting out of its range.
        NonFiniteError: where the loss is NaN or infinite.
        DerivativeError: where the second derivative is wrong.

    Source: Kwon et al., ASAM, arXiv:2102.11600; Andriushchenko et al., arXiv:2302.07011.

    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.constant_(model.weight, -3.0)
    >>> problem = Problem(model, "squared_error", [(2 * torch.ones(1, 1), torch.zeros(1, 1))])
    >>> round(adaptive_sharpness(problem).value, 4)  # 9 times 4
    36.0
    """
    matrix = _relative(checked_problem(problem))
    return top_eigenpairs(matrix, tol=tol, max_matvecs=max_matvecs, start=start, seed=seed).top


def _relative(problem: Problem) -> LinearOperator:
    """The Hessian with its rows and columns times the sizes of the parameters."""
    H, size = Hessian(problem), problem.theta.abs()[:, None]

    def product(V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        with plain_arithmetic(H.device):
            return size * H.matmat(size * V)

    A: LinearOperator = MatrixFree.like(H, product, lambda: A)
    return A
