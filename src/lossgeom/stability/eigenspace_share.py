"""How much of a vector lies in the sharpest directions."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lossgeom.curvature import Hessian
from lossgeom.estimate import Estimate
from lossgeom.linalg import EigenPairs, top_eigenpairs
from lossgeom.problem import Problem
from lossgeom.stability.along import checked_update, gradient_at


def eigenspace_share(
    problem: Problem,
    vector: Float[Tensor, " P"] | None = None,
    *,
    k: int = 1,
    tol: float = 1e-3,
    max_matvecs: int | None = None,
    pairs: EigenPairs | None = None,
    seed: int = 0,
) -> Estimate:
    r"""The share of a vector that lies in the span of the k sharpest directions, from 0 to 1.

    .. math:: |V^\top g|^2 / |g|^2

    with the top k eigenvectors V of the Hessian, and the gradient g unless another vector is given.
    In many networks most of the gradient of SGD lies there after some steps, while most of what is
    learned does not (Gur-Ari et al., arXiv:1812.04754). Along a random vector it is k / P.

    What it cannot tell: whether that part of the step is stable, which takes the eigenvalue and the
    threshold. Where eigenvalue k and the next are alike, the span is one of many.

    Cost: as of :func:`top_eigenpairs` with the Hessian, 10 to 25 products for one and some 5 for
    each further one; none with ``pairs``.

    Args:
        problem: the loss and where to take it.
        vector: (P,), of any length, such as the update of an optimiser; the gradient by default.
        k: how many directions.
        tol: on the residuals, relative to the eigenvalues.
        max_matvecs: products to spend; by default 100, or 20 k if that is more.
        pairs: k eigenpairs that are known.
        seed: of the random start.

    Returns:
        The share; converged if all eigenpairs are.

    Raises:
        UndefinedError: for a vector of zero, such as the gradient at a minimum.
        ValueError: for a vector of another shape, or a k out of range.
        NonFiniteError: where the vector or the loss are NaN or infinite.
        DerivativeError: where the second derivative is wrong.

    Source: Gur-Ari, Roberts and Dyer, Gradient descent happens in a tiny subspace,
    arXiv:1812.04754, section 2.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    >>> problem = Problem(model, "squared_error", [(x, torch.zeros(2, 1))])
    >>> round(eigenspace_share(problem, torch.tensor([3.0, 4.0])).value, 4)
    0.64
    """
    v = checked_update(problem, gradient_at(problem) if vector is None else vector)
    if pairs is None:
        pairs = top_eigenpairs(Hessian(problem), k, tol=tol, max_matvecs=max_matvecs, seed=seed)
    along = pairs.vectors.double().T @ v.double()
    share = float((along @ along) / v.double().square().sum())
    converged = bool(pairs.converged.all())
    return Estimate(min(share, 1.0), converged=converged, matvecs=pairs.matvecs)
