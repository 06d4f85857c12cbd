"""The largest singular value of any matrix."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.linalg.arithmetic import lengths
from lossgeom.linalg.lanczos import top_eigenpairs
from lossgeom.linalg.operator import LinearOperator, MatrixFree, as_operator


def spectral_norm(
    A: LinearOperator | Tensor | Any,
    *,
    tol: float = 1e-3,
    max_matvecs: int = 100,
    seed: int = 0,
) -> Estimate:
    r"""The spectral norm of an m x n matrix.

    .. math:: \|A\|_2 = \sqrt{\lambda_{\max}(A^\top A)} = \sqrt{\lambda_{\max}(A A^\top)}

    by Lanczos iteration on the smaller of the two squares, of A in units of about its norm, so that
    squares neither vanish nor overflow.

    Args:
        A: matrix of any shape, see :func:`lossgeom.linalg.as_operator`.
        tol: on the residual of the square's eigenpair, relative to its eigenvalue; that of the norm
            is half as large.
        max_matvecs: products with the square, each one with A and one with its transpose.
        seed: of the random start.

    Returns:
        The norm; ``residual`` is at least its distance to the nearest singular value.

    Raises:
        TypeError, ValueError: as :func:`top_eigenpairs`.

    >>> import torch
    >>> round(spectral_norm(torch.tensor([[3.0, 0.0], [4.0, 0.0], [0.0, 1.0]])).value, 4)
    5.0
    """
    A = as_operator(A)
    if A.shape[0] > A.shape[1]:
        A = A.T
    unit = 0.0

    def product(V: Tensor) -> Tensor:
        nonlocal unit
        first = A.T.matmat(V)
        unit = unit or _unit(first)
        result: Tensor = A.matmat(first / unit) / unit
        return result

    square = MatrixFree.like(A, product, lambda: square, size=(A.shape[0], A.shape[0]))
    top = top_eigenpairs(square, tol=tol, max_matvecs=max_matvecs, verify=True, seed=seed).top
    residual = top.residual or 0.0
    norm = math.sqrt(max(top.value, 0.0)) if math.isfinite(top.value) else math.nan
    return Estimate(
        norm * unit,
        residual=unit * (residual / norm if norm > 0 else math.sqrt(residual)),
        converged=top.converged,
        matvecs=2 * top.matvecs,
        verified=top.verified,
    )


def _unit(product: Tensor) -> float:
    """A power of two about as large as a product."""
    length = lengths(product.flatten(), 0).item()
    return 2.0 ** math.frexp(length)[1] if 0 < length < math.inf else 1.0
