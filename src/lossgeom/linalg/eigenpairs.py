"""Eigenpairs as a search has found them, and what a search is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.linalg._checks import DTYPES
from lossgeom.linalg._orthonormal import OrthonormalBasis, lengths
from lossgeom.linalg._ritz import WHICH, Ritz, Which
from lossgeom.linalg.operator import LinearOperator
from lossgeom.linalg.probes import BLOCK
from lossgeom.reprs import short
from lossgeom.wording import one_of

HIDDEN = 0.2  # of what counts as rounding of a product: what it may hide of a residual


@dataclass(frozen=True)
class EigenPairs:
    """Eigenvalues and eigenvectors with their true residuals.

    Attributes:
        values: eigenvalues, the most wanted first.
        vectors: orthonormal eigenvectors as columns.
        residuals: at least ``||A v - lambda v||`` of each pair: that of a product with the vector
            itself, and what rounding may hide.
        converged: which pairs meet the tolerance.
        matvecs: matrix-vector products spent.
        verified: whether better pairs were looked for, and none was found.
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "n k"]
    residuals: Float[Tensor, " k"]
    converged: Bool[Tensor, " k"]
    matvecs: int
    verified: bool

    __repr__ = short

    @property
    def top(self) -> Estimate:
        """The most wanted eigenvalue."""
        return Estimate(
            self.values[0].item(),
            residual=self.residuals[0].item(),
            converged=bool(self.converged[0]),
            matvecs=self.matvecs,
            verified=self.verified,
        )


def search_limit(limit: int, k: int) -> int:
    """What a search may spend of a limit on products: k are for the residuals of what it finds."""
    return max(limit - k, k)


def found_pairs(ritz: Ritz, k: int, tol: float, *, missing: bool, verified: bool) -> EigenPairs:
    """The k most wanted Ritz pairs, multiplied once more; none converged if one may be missing.

    The residual that a basis knows leaves out the rounding of all products it was made of, which
    in float32 is often larger.
    """
    basis = ritz.basis
    A, spent = basis.A, basis.spent
    values, rows = ritz.values[:k].to(A.dtype), ritz.vectors(k)
    residuals = _residuals(basis, values, rows) if ritz.finite else values.double()
    if not (basis.finite and residuals.isfinite().all()):
        nan = torch.full((k,), math.nan, dtype=A.dtype)
        vectors = torch.full((A.shape[0], k), math.nan, dtype=A.dtype, device=A.device)
        nothing = torch.zeros(k, dtype=torch.bool)
        return EigenPairs(nan, vectors, nan, nothing, spent.matvecs, verified=False)
    scales = torch.tensor([ritz.scale(i) for i in range(k)], dtype=torch.float64)
    goals = (tol * scales).clamp(min=2 * basis.rounding)
    return EigenPairs(
        values=values,
        vectors=rows.T,
        residuals=residuals.to(A.dtype),
        converged=(residuals <= goals) & (not missing),
        matvecs=spent.matvecs,
        verified=verified,
    )


def _residuals(
    basis: OrthonormalBasis, values: Float[Tensor, " k"], rows: Float[Tensor, "k n"]
) -> Float[Tensor, " k"]:
    """Lengths of A v - value v from a product with v, and what rounding may hide."""
    found = []
    for some, block in zip(torch.split(values, BLOCK), torch.split(rows, BLOCK), strict=True):
        found.append(lengths(basis.images(block) - some[:, None].to(block) * block).cpu())
    return torch.cat(found) + HIDDEN * basis.rounding


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
