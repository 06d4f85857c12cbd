"""The Kronecker product that is closest to a small matrix."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg.kronecker_product import KroneckerProduct, check_symmetric_matrix
from lossgeom.linalg.lanczos import top_eigenpairs
from lossgeom.linalg.operator import Dense, MatrixFree, square_operator

LARGEST = 4096  # rows of a matrix, which is then rearranged in 128 MiB


def best_kronecker_product(A: Float[Tensor, "mn mn"], shape: tuple[int, int]) -> KroneckerProduct:
    r"""The Kronecker product of symmetric factors that is closest to a symmetric matrix.

    .. math:: \min_{L, R} \|A - L \otimes R\|_F^2 = \|A\|_F^2 - \sigma_1^2

    with the largest singular value of the m^2 x n^2 rearrangement
    :math:`\mathcal R(A)_{ii', jj'} = A_{ij, i'j'}` on symmetric matrices, whose singular vectors
    are the factors. Where A is positive semi-definite, so are they, and no other Kronecker product
    is closer. Of an indefinite A one of two skew-symmetric factors may be, and is not looked for.

    For a layer's block of the Gauss-Newton matrix, which need not be formed, see
    :func:`lossgeom.best_kronecker`.

    Cost: some 30 products with A, in float64.

    Args:
        A: in row-major order: the entry of output i and input j is at i n + j.
        shape: (m, n), outputs and inputs.

    Raises:
        ValueError: for a matrix of more than 4096 rows, of another shape, not symmetric, or not
            finite.

    Source: Van Loan and Pitsianis, Approximation with Kronecker products (1993).

    >>> K = best_kronecker_product(torch.diag(torch.tensor([1.0, 2.0, 3.0, 6.0])), (2, 2))
    >>> (K.dense() - torch.diag(torch.tensor([1.0, 2.0, 3.0, 6.0]))).norm().item() < 1e-6
    True
    """
    m, n = shape
    size = square_operator(A).shape[0]
    if size != m * n:
        raise ValueError(f"expected a matrix of {m} x {n} = {m * n} rows, got {size}")
    if size > LARGEST:
        raise ValueError(
            f"expected a matrix of at most {LARGEST} rows, got {size}; best_kronecker(problem) "
            "takes the Gauss-Newton blocks of layers of any size, without forming them"
        )
    if not A.isfinite().all():
        raise ValueError("expected a finite matrix, got one with NaN or infinity")
    check_symmetric_matrix(A)
    A = A.double()
    rearranged = _symmetric(_symmetric((A + A.T).reshape(m, n, m, n).transpose(1, 2) / 2, 2), 0)
    R = rearranged.reshape(m * m, n * n)
    square = MatrixFree.like(Dense(R), lambda V: R.T @ (R @ V), lambda: square, (n * n, n * n))
    start = torch.eye(n, dtype=A.dtype, device=A.device).flatten()
    pairs = top_eigenpairs(square, start=start, tol=1e-10, max_matvecs=1000)
    right = pairs.vectors[:, 0].reshape(n, n)
    right = right if right.trace() >= 0 else -right  # of A > 0 both are then positive
    left = (R @ right.flatten()).reshape(m, m)
    return KroneckerProduct((left + left.T) / 2, (right + right.T) / 2)


def _symmetric(X: Float[Tensor, ...], first: int) -> Float[Tensor, ...]:
    return (X + X.transpose(first, first + 1)) / 2
