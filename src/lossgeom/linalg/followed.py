"""The largest eigenpair of a matrix that is near one whose eigenvectors are known."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._krylov import Krylov, Products
from lossgeom.linalg._ritz import EigenPairs, Ritz, unknown_pairs
from lossgeom.linalg.arithmetic import plain_arithmetic, random_numbers
from lossgeom.linalg.operator import LinearOperator
from lossgeom.messages.checks import check_at_least

ROWS = 60  # that a basis has room for; it is seldom more than five


def followed_pairs(
    A: LinearOperator,
    start: Float[Tensor, "n j"],
    *,
    tol: float,
    next_value: float | None = None,
    max_matvecs: int = 100,
    seed: int = 0,
) -> EigenPairs:
    r"""The largest eigenpair of a symmetric matrix, by the fewest products from a good start.

    Rayleigh-Ritz on the start, to which residuals are added one by one until the error of the value
    is at most ``tol`` times the value. Of a Ritz value theta with residual r it is taken as

    .. math:: \min(\|r\|, \; \|r\|^2 / (\theta - \mu)),

    with the next eigenvalue :math:`\mu` as it is known, from the basis or from before. Where that
    one is right this is a bound; no search for a larger eigenvalue is made, so nothing is
    ``verified``. No product is spent on residuals, which the basis knows, up to rounding that is
    added to them.

    Cost: one product for each vector of the start, and one for each that is added.

    Args:
        A: symmetric.
        start: such as the eigenvectors of a nearby matrix.
        tol: relative, on the error of the largest eigenvalue.
        next_value: what is known of the second eigenvalue.
        max_matvecs: products to spend at most, though never fewer than the start takes.
        seed: of a random vector, where the start spans nothing.

    Returns:
        As many pairs as the start has vectors, the largest first; ``converged`` of all is that of
        the first. One of NaN where products are not finite.

    Source: Parlett, The Symmetric Eigenvalue Problem (1998), section 10.5 (Temple and Kato).

    >>> from lossgeom.linalg import as_operator
    >>> A = as_operator(torch.diag(torch.tensor([4.0, 1.0, 0.5])))
    >>> pairs = followed_pairs(A, torch.tensor([[1.0], [0.1], [0.0]]), tol=1e-2, next_value=1.0)
    >>> round(pairs.values[0].item(), 2), pairs.matvecs
    (3.97, 1)
    """
    if not 0 < tol < 1:
        raise ValueError(f"expected a tolerance 0 < tol < 1, got {tol}")
    check_at_least(1, max_matvecs=max_matvecs)
    rows = start.T.to(A.device, A.dtype)
    with plain_arithmetic(A.device), torch.no_grad():
        products, generator = Products(A, max_matvecs), random_numbers(seed)
        basis = Krylov(products, rows, rows[:0], min(ROWS, A.shape[0]), generator)
        while products.finite:
            ritz = Ritz.of(basis, "largest")
            converged = error_of(ritz, next_value) <= tol * abs(float(ritz.values[0]))
            if converged or products.spent >= max_matvecs or not basis.room:
                return _pairs(ritz, len(rows), converged)
            basis.grow(ritz.weights[:, 0])
    return unknown_pairs(1, A, products.spent)


def error_of(ritz: Ritz, next_value: float | None) -> float:
    """What the largest Ritz value may be off by, if the next eigenvalue is the one that is known.

    Where none is, it is the second of the basis, and what that may be off by. The largest of a
    basis of one vector and no other knowledge may be off by its residual.
    """
    best = float(ritz.values[0])
    residual = float(ritz.residuals[0]) + ritz.basis.products.rounding
    second = ritz.values[1:2] + (ritz.residuals[1:2] if next_value is None else 0)
    known = [*second.tolist(), *([] if next_value is None else [next_value])]
    gap = best - max(known) if known else 0.0
    return residual**2 / gap if gap > residual else residual


def _pairs(ritz: Ritz, k: int, converged: bool) -> EigenPairs:
    """The k largest pairs, with the residuals that the basis knows."""
    products, k = ritz.basis.products, min(k, len(ritz.values))
    dtype = products.A.dtype
    return EigenPairs(
        values=ritz.values[:k].to(dtype),
        vectors=ritz.vectors(k).T,
        residuals=(ritz.residuals[:k] + products.rounding).to(dtype),
        converged=torch.full((k,), converged),
        matvecs=products.spent,
        verified=False,
    )
