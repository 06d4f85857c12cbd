"""Eigenpairs as a search has found them, and what a search is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lossgeom.choices import one_of
from lossgeom.estimate import Estimate
from lossgeom.linalg._checks import DTYPES
from lossgeom.linalg._ritz import WHICH, Ritz, Which
from lossgeom.linalg.operator import LinearOperator
from lossgeom.reprs import short


@dataclass(frozen=True)
class EigenPairs:
    """Eigenvalues and eigenvectors with their true residuals.

    Attributes:
        values: eigenvalues, the most wanted first.
        vectors: orthonormal eigenvectors as columns.
        residuals: ``||A v - lambda v||`` of each pair, from products that were really taken.
        converged: which pairs meet the tolerance.
        matvecs: matrix-vector products spent.
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "n k"]
    residuals: Float[Tensor, " k"]
    converged: Bool[Tensor, " k"]
    matvecs: int

    __repr__ = short

    @property
    def top(self) -> Estimate:
        """The most wanted eigenvalue."""
        return Estimate(
            self.values[0].item(),
            residual=self.residuals[0].item(),
            converged=bool(self.converged[0]),
            matvecs=self.matvecs,
        )


def found_pairs(
    A: LinearOperator, ritz: Ritz, k: int, tol: float, certain: bool, matvecs: int
) -> EigenPairs:
    """The k most wanted Ritz pairs; converged if it is certain that none is missing."""
    if not ritz.finite:
        nan = torch.full((k,), math.nan, dtype=A.dtype)
        vectors = torch.full((A.shape[0], k), math.nan, dtype=A.dtype, device=A.device)
        return EigenPairs(nan, vectors, nan, torch.zeros(k, dtype=torch.bool), matvecs)
    return EigenPairs(
        values=ritz.values[:k].to(A.dtype),
        vectors=ritz.vectors(k).T,
        residuals=torch.tensor([ritz.residual_norm(i) for i in range(k)], dtype=A.dtype),
        converged=torch.tensor([certain and ritz.converged(i, tol) for i in range(k)]),
        matvecs=matvecs,
    )


def check_search(A: LinearOperator, k: int, which: Which, tol: float, start: Tensor | None) -> None:
    """Raise for what no search can answer."""
    n = A.shape[0]
    if A.shape != (n, n):
        raise ValueError(f"expected a square symmetric operator, got shape {A.shape}")
    if not 1 <= k <= n:
        raise ValueError(f"expected 1 <= k <= {n}, the size of the operator; got k={k}")
    if which not in WHICH:
        raise ValueError(f"expected which to be one of {one_of(WHICH)}, got {which!r}")
    if A.dtype not in DTYPES:
        raise TypeError(f"expected an operator in float32 or float64, got {A.dtype}")
    if not 0 < tol < 1:
        raise ValueError(f"expected a tolerance 0 < tol < 1, got {tol}")
    if start is not None and (start.shape[0] != n or start.ndim > 2):
        raise ValueError(f"expected start of shape ({n},) or ({n}, j), got {tuple(start.shape)}")
    if start is not None and not start.isfinite().all():
        raise ValueError("expected a finite start, got one with NaN or infinity")


def start_rows(A: LinearOperator, start: Tensor | None) -> Float[Tensor, "j n"]:
    """Start vectors as rows that A can be multiplied with."""
    if start is None:
        return torch.empty(0, A.shape[1], dtype=A.dtype, device=A.device)
    return start.reshape(A.shape[1], -1).T.to(A.dtype).to(A.device)
